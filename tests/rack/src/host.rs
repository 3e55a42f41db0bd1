//! A host: QEMU with SeaBIOS and the card's iPXE ROM under software emulation, and one disk that outlives its power.

use crate::layout::HostPlace;
use crate::run::{inside, wait_for};
use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use std::time::Duration;

/// Memory of a host. A kubelet and a container runtime need some of it.
const MEMORY_MIB: u32 = 1024;

impl HostPlace {
    /// QEMU's control socket.
    #[must_use]
    pub fn qmp(&self) -> PathBuf {
        self.folder.join("qmp")
    }

    /// Its serial console, as it was said.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.folder.join("console")
    }

    /// The socket of a root shell inside of it, on the second serial port.
    #[must_use]
    pub fn shell(&self) -> PathBuf {
        self.folder.join("shell")
    }

    /// Its disk.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.folder.join("disk")
    }

    /// The pid of its QEMU, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let pid: u32 = std::fs::read_to_string(self.folder.join("pid")).ok()?.trim().parse().ok()?;
        // A pid is used again by others: this one must be the QEMU of this very machine.
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        String::from_utf8_lossy(&line).contains(&self.uuid()).then_some(pid)
    }

    /// Whether it has power.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.pid().is_some()
    }

    /// Gives it power. `network_first`: this boot tries the network before the disk, as a one-shot override orders.
    ///
    /// # Errors
    /// QEMU does not start; what it said.
    pub fn power_on(&self, network_first: bool) -> Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let _one = self.one_at_a_time()?;
        if self.is_on() {
            return Ok(());
        }
        let file = |path: PathBuf| path.display().to_string();
        let mut command = inside(&self.wire, "qemu-system-x86_64");
        // RDRAND, or the kernel waits for randomness that an emulated machine does not have.
        command.args([
            "-accel",
            "tcg,thread=multi,tb-size=128",
            "-cpu",
            "qemu64,+rdrand,+ssse3,+sse4.1,+sse4.2,+popcnt",
        ]);
        command.args([
            "-m",
            &MEMORY_MIB.to_string(),
            "-smp",
            "1",
            "-nodefaults",
            "-display",
            "none",
            "-monitor",
            "none",
        ]);
        command.args(["-uuid", &self.uuid(), "-boot", if network_first { "order=nc" } else { "order=cn" }]);
        command.arg("-chardev").arg(format!("file,id=console,append=on,path={}", file(self.console())));
        command.args(["-serial", "chardev:console"]);
        command.arg("-chardev").arg(format!("socket,id=shell,server=on,wait=off,path={}", file(self.shell())));
        command.args(["-serial", "chardev:shell"]);
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", file(self.qmp())));
        command.arg("-netdev").arg(format!("tap,id=n0,ifname={},script=no,downscript=no", self.tap()));
        command.arg("-device").arg(format!("virtio-net-pci,id=nic0,netdev=n0,mac={}", self.mac()));
        // Raw: what the guest wrote outlives the killing of QEMU, which keeps the tables of other formats in its own memory.
        command
            .arg("-drive")
            .arg(format!("if=none,id=d0,format=raw,cache=unsafe,discard=unmap,file={}", file(self.disk())));
        command.arg("-device").arg(format!("virtio-blk-pci,drive=d0,serial={}", self.disk_serial()));
        command.args(["-daemonize", "-pidfile"]).arg(self.folder.join("pid"));
        let output = command.output().context("QEMU does not start: run tests/peers/install-boot")?;
        if !output.status.success() {
            bail!("{} does not start: {}", self.name(), String::from_utf8_lossy(&output.stderr).trim());
        }
        let mut record = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join("power.log"))?;
        std::io::Write::write_all(&mut record, b"on\n")?;
        Ok(())
    }

    /// Takes its power away, as a BMC's forced off does.
    ///
    /// # Errors
    /// It does not end.
    pub fn power_off(&self) -> Result<()> {
        let _one = self.one_at_a_time()?;
        let Some(pid) = self.pid() else { return Ok(()) };
        crate::run::run("kill", &["-KILL", &pid.to_string()])?;
        wait_for("the end of QEMU", Duration::from_secs(10), || !self.is_on())?;
        let mut record = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join("power.log"))?;
        std::io::Write::write_all(&mut record, b"off\n")?;
        Ok(())
    }

    /// Two machines on one disk would be one too many: whoever switches holds this.
    fn one_at_a_time(&self) -> Result<std::fs::File> {
        let lock = std::fs::File::create(self.folder.join("power.lock")).context("the host has no folder")?;
        lock.lock()?;
        Ok(lock)
    }

    /// How often it was switched on and off, as counted behind the BMC.
    #[must_use]
    pub fn switched(&self) -> (usize, usize) {
        let text = std::fs::read_to_string(self.folder.join("power.log")).unwrap_or_default();
        let count = |what: &str| text.lines().filter(|line| *line == what).count();
        (count("on"), count("off"))
    }
}
