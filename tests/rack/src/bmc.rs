//! The BMC of a host: OpenIPMI's simulator, which owns the host's power through a hook.

use crate::layout::{BMC_PASSWORD, BMC_USER, HostPlace, Rack};
use crate::run::{inside, wait_for};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

fn pid(host: &HostPlace) -> Option<u32> {
    let pid: u32 = fs::read_to_string(host.folder.join("bmc.pid")).ok()?.trim().parse().ok()?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line).into_owned();
    (line.contains("ipmi_sim") && line.contains(&host.folder.display().to_string())).then_some(pid)
}

/// Starts it. `program` is this crate's own program, which the simulator calls as its hook.
///
/// # Errors
/// It does not start or does not listen.
pub fn start(rack: &Rack, host: &HostPlace, program: &Path) -> Result<()> {
    if pid(host).is_some() {
        return Ok(());
    }
    fs::create_dir_all(host.folder.join("state"))?;
    let guid = host.uuid().replace('-', "");
    let hook = host.folder.join("hook");
    fs::write(
        &hook,
        format!(
            "#!/bin/sh\nshift\nexec '{}' --folder '{}' --prefix '{}' hook {} \"$@\"\n",
            program.display(),
            rack.folder.display(),
            rack.prefix,
            host.number
        ),
    )?;
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let lan = format!(
        "name \"{}\"\nset_working_mc 0x20\n  startlan 1\n    addr {} 623\n    priv_limit admin\n    \
         allowed_auths_callback none md2 md5 straight\n    allowed_auths_user none md2 md5 straight\n    \
         allowed_auths_operator none md2 md5 straight\n    allowed_auths_admin none md2 md5 straight\n    \
         guid {guid}\n  endlan\n  chassis_control \"{} 0x20\"\n  startnow false\n  \
         user 2 true \"{BMC_USER}\" \"{BMC_PASSWORD}\" admin 10 none md2 md5 straight\n",
        host.name(),
        host.bmc_address(),
        hook.display()
    );
    let emulator = "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
                    sel_enable 0x20 1000 0x0a\nmc_enable 0x20\n";
    fs::write(host.folder.join("lan.conf"), lan)?;
    fs::write(host.folder.join("bmc.emu"), emulator)?;
    let log = fs::File::create(host.folder.join("bmc.out"))?;
    let mut command = inside(&rack.bmcs(), "ipmi_sim");
    command.arg("-n").arg("-c").arg(host.folder.join("lan.conf")).arg("-f").arg(host.folder.join("bmc.emu"));
    command.arg("-s").arg(host.folder.join("state")).stdout(log.try_clone()?).stderr(log).stdin(Stdio::null());
    let child = command.spawn().context("ipmi_sim does not start: run tests/peers/install")?;
    fs::write(host.folder.join("bmc.pid"), child.id().to_string())?;
    wait_for("the BMC's socket", Duration::from_secs(10), || listens(rack, host))
}

/// Whether its UDP socket is there.
fn listens(rack: &Rack, host: &HostPlace) -> bool {
    let filter = format!("src {}:623", host.bmc_address());
    let seen = inside(&rack.bmcs(), "ss").args(["-Hlun", &filter]).output();
    seen.is_ok_and(|output| !output.stdout.is_empty())
}

/// Ends it, as a BMC that died.
pub fn stop(host: &HostPlace) {
    if let Some(pid) = pid(host) {
        let _ = crate::run::run("kill", &["-KILL", &pid.to_string()]);
        let _ = wait_for("the end of the BMC", Duration::from_secs(5), || self::pid(host).is_none());
    }
    let _ = fs::remove_file(host.folder.join("bmc.pid"));
}
