//! What PID 1 owes the machine: file systems of the kernel, modules, a console, and never to end.

use rustix::mount::{MountFlags, mount};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// Says a line to whoever looks at the console.
pub fn say(text: &str) {
    if let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console") {
        let _ = console.write_all(format!("rackmedic: {text}\r\n").as_bytes());
    }
}

/// Mounts what the kernel offers. One that is there already, or not offered by this kernel, is no error: what needs it
/// will say so.
pub fn mount_all() {
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC;
    for (kind, place, flags) in [
        ("devtmpfs", "/dev", MountFlags::NOSUID),
        ("proc", "/proc", quiet | MountFlags::NODEV),
        ("sysfs", "/sys", quiet | MountFlags::NODEV),
        ("tmpfs", "/run", quiet | MountFlags::NODEV),
    ] {
        let _ = fs::create_dir_all(place);
        let _ = mount(kind, place, kind, flags, None);
    }
}

/// Mounts the firmware's variables. Their file system is a module in Debian, so this comes behind [`load_modules`]; on a
/// BIOS there are none.
pub fn mount_efi_variables() {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    let _ = mount("efivarfs", "/sys/firmware/efi/efivars", "efivarfs", flags, None);
}

/// Loads the modules that a list names, in its order. What a machine has no device for loads all the same; what fails is
/// said, for it may be the card or the disk that is then missing.
pub fn load_modules(list: &Path) {
    let Ok(names) = fs::read_to_string(list) else { return };
    let folder = list.with_file_name("modules.d");
    for name in names.lines().map(str::trim).filter(|name| !name.is_empty()) {
        let loaded = fs::read(folder.join(name)).map_err(|error| error.to_string()).and_then(|module| {
            match rustix::system::init_module(&module, c"") {
                Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        });
        if let Err(error) = loaded {
            say(&format!("the module {name} was not loaded: {error}"));
        }
    }
}

/// Waits until somebody switches the machine off. The machine is never restarted from here: it would boot into what is on
/// the disk, or into the next installer, while the appliance thinks otherwise.
pub fn wait_for_power() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
