//! `/init` of the installer's initramfs.

use installer::command_line::CommandLine;
use installer::flow::{Places, install, trusted_keys};
use installer::kernel::{load_modules, mount_all, mount_efi_variables, say, wait_for_power};
use installer::{dhcp, link};
use std::path::{Path, PathBuf};
use std::time::Instant;

fn main() {
    if std::process::id() != 1 {
        // By hand it would look for disks to write on the machine of whoever tries it.
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"this is /init of the installer: it runs as the first process of a machine that the appliance boots\n",
        );
        std::process::exit(2);
    }
    let began = Instant::now();
    // When PID 1 ends the kernel panics, and with panic= on its command line restarts into a loop.
    std::panic::set_hook(Box::new(|what| say(&format!("a defect of this installer: {what}"))));
    let _ = std::panic::catch_unwind(|| run(began));
    wait_for_power()
}

fn run(began: Instant) {
    mount_all();
    say(concat!("installer ", env!("CARGO_PKG_VERSION")));
    load_modules(Path::new("/etc/rackmedic/modules"));
    mount_efi_variables();
    let text = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let line = match CommandLine::parse(&text) {
        Ok(line) => line,
        Err(error) => return say(&error.to_string()),
    };
    let trusted = trusted_keys(Path::new("/etc/rackmedic/trusted-keys"));
    let sys = Path::new("/sys");
    let Some(card) = link::find(sys, &line.mac) else {
        return say(&format!("no card has the address {}: is its driver in the boot set?", line.mac));
    };
    if let Err(error) = link::up(&card) {
        return say(&format!("{card} cannot be switched on: {error}"));
    }
    if !link::wait_for_carrier(sys, &card) {
        say(&format!("{card} sees no cable; trying all the same"));
    }
    let asked = line.address.map_or_else(|| dhcp::ask(&card, &line.mac), Ok);
    let address = match asked {
        Ok(address) => address,
        Err(error) => return say(&format!("{card} has no address: {error}")),
    };
    if let Err(error) = link::give(&card, &address) {
        return say(&format!("{card} does not take {}: {error}", address.address));
    }
    let places = Places { sys: sys.to_owned(), dev: PathBuf::from("/dev"), mount: PathBuf::from("/run/root") };
    install(&line, &places, &trusted, began);
}
