//! A host: QEMU with real firmware, under software emulation.

use crate::network::{MAC, Network};
use crate::store::Store;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Firmware {
    /// SeaBIOS with the card's iPXE ROM.
    Bios,
    /// OVMF's own PXE.
    UefiPxe,
    /// OVMF's own HTTP boot.
    UefiHttp,
    /// OVMF's own PXE, for a host whose first loader is shim.
    UefiShim,
    /// The same with Secure Boot on, and Microsoft's keys in the firmware, as servers are sold.
    UefiSecureBoot,
}

impl Firmware {
    /// The first loader of its `[[host]]`.
    pub(crate) const fn first_loader(self) -> &'static str {
        match self {
            Self::UefiShim | Self::UefiSecureBoot => "shim",
            Self::Bios | Self::UefiPxe | Self::UefiHttp => "ipxe",
        }
    }

    /// OVMF's program and its variables as they are delivered.
    const fn ovmf(self) -> (&'static str, &'static str) {
        match self {
            Self::UefiSecureBoot => ("/usr/share/OVMF/OVMF_CODE_4M.ms.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"),
            _ => ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
        }
    }
}

/// Bytes of each disk: more than the image has, so the backup of its partition table has to move.
pub(crate) const DISK_BYTES: u64 = 64 << 20;

/// A disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disk<'a> {
    pub(crate) serial: &'a str,
    /// What is on it: place and bytes.
    pub(crate) marks: &'a [(usize, &'a [u8])],
}

impl<'a> Disk<'a> {
    pub(crate) fn empty(serial: &'a str) -> Self {
        Self { serial, marks: &[] }
    }
}

/// Runs until it is dropped. Its disks and the variables of its firmware outlive a power cycle.
#[derive(Debug)]
pub(crate) struct Host {
    machine: Child,
    folder: PathBuf,
    make: Make,
}

/// What it is made of.
#[derive(Clone, Debug)]
pub(crate) struct Make {
    firmware: Firmware,
    namespace: String,
    tap: &'static str,
    memory_mib: u32,
    /// The serial numbers of its disks, in their order.
    serials: Vec<String>,
    /// Whether it goes on to its disk when the network has nothing for it.
    then_disk: bool,
    /// Its card is plugged into a cable that changes what goes over it.
    on_wire: bool,
    /// What is in its CD drive, from which it boots then, and not from the network.
    cd: Option<PathBuf>,
}

impl Host {
    pub(crate) fn start(network: &Network, firmware: Firmware, store: &Store, disks: &[Disk<'_>]) -> Self {
        Self::with(network, firmware, store, disks, DISK_BYTES, false, false, None)
    }

    /// A host on a cable of ours, which is there already.
    pub(crate) fn on_wire(network: &Network, firmware: Firmware, store: &Store, disks: &[Disk<'_>]) -> Self {
        Self::with(network, firmware, store, disks, DISK_BYTES, false, true, None)
    }

    /// A host that its BMC orders to boot from this CD.
    pub(crate) fn from_cd(network: &Network, firmware: Firmware, store: &Store, disks: &[Disk<'_>], cd: &Path) -> Self {
        Self::with(network, firmware, store, disks, DISK_BYTES, false, false, Some(cd.to_owned()))
    }

    /// A host that is to run its node image: with more memory, a larger disk, and the disk behind the network in its
    /// boot order.
    pub(crate) fn node(network: &Network, firmware: Firmware, store: &Store, disks: &[Disk<'_>], bytes: u64) -> Self {
        Self::with(network, firmware, store, disks, bytes, true, false, None)
    }

    #[allow(clippy::too_many_arguments, reason = "the three ways to make a host above name them")]
    fn with(
        network: &Network,
        firmware: Firmware,
        store: &Store,
        disks: &[Disk<'_>],
        bytes: u64,
        then_disk: bool,
        on_wire: bool,
        cd: Option<PathBuf>,
    ) -> Self {
        let folder = store.folder.join(format!("{}-host", network.host_namespace));
        std::fs::create_dir_all(&folder).unwrap();
        if firmware != Firmware::Bios {
            std::fs::copy(firmware.ovmf().1, folder.join("variables")).unwrap();
        }
        for (number, disk) in disks.iter().enumerate() {
            let file = std::fs::File::create(folder.join(format!("disk{number}"))).unwrap();
            file.set_len(bytes).unwrap();
            for (at, bytes) in disk.marks {
                file.write_all_at(bytes, *at as u64).unwrap();
            }
        }
        let make = Make {
            firmware,
            namespace: network.host_namespace.clone(),
            tap: network.tap,
            memory_mib: if then_disk { 1024 } else { 512 },
            serials: disks.iter().map(|disk| disk.serial.to_owned()).collect(),
            then_disk,
            on_wire,
            cd,
        };
        let order: Vec<usize> = (0..disks.len()).collect();
        Self { machine: power_on(&make, &folder, &order), folder, make }
    }

    /// Switched off like by its BMC, and on again. `order` is the order in which its disks are found this time; the names
    /// that its kernel gives them follow it.
    pub(crate) fn power_cycle(&mut self, order: &[usize]) {
        self.power_off();
        self.machine = power_on(&self.make, &self.folder, order);
    }

    /// Switched off like by its BMC.
    pub(crate) fn power_off(&mut self) {
        let _ = self.machine.kill();
        let _ = self.machine.wait();
    }

    /// How often the machine wrote to a disk since it was switched on, by QEMU's own count.
    pub(crate) fn writes(&self, number: usize) -> u64 {
        let stream = UnixStream::connect(self.folder.join("qmp")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let mut answer = |order: &str| -> serde_json::Value {
            (&stream).write_all(format!("{{\"execute\":\"{order}\"}}\n").as_bytes()).unwrap();
            loop {
                let line: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
                if line.get("return").is_some() {
                    return line["return"].clone();
                }
            }
        };
        answer("qmp_capabilities");
        let all = answer("query-blockstats");
        let drive = format!("d{number}");
        let of_disk = all.as_array().unwrap().iter().find(|disk| disk["device"] == drive.as_str());
        of_disk.unwrap()["stats"]["wr_operations"].as_u64().unwrap()
    }

    /// Waits until its console says so.
    pub(crate) fn wait_for_words(&self, words: &str, patience: Duration) {
        let until = Instant::now() + patience;
        while !self.said().contains(words) {
            assert!(Instant::now() < until, "the console never said '{words}':\n{}", self.said());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What is on a disk.
    pub(crate) fn disk(&self, number: usize) -> Vec<u8> {
        std::fs::read(self.folder.join(format!("disk{number}"))).unwrap()
    }

    /// Changes the first disk behind the host's back, while its firmware is still starting or its power is off.
    pub(crate) fn spoil(&self, at: u64, bytes: &[u8]) {
        self.spoil_disk(0, at, bytes);
    }

    /// Changes a disk behind the host's back.
    pub(crate) fn spoil_disk(&self, number: usize, at: u64, bytes: &[u8]) {
        let disk = std::fs::File::options().write(true).open(self.folder.join(format!("disk{number}"))).unwrap();
        disk.write_all_at(bytes, at).unwrap();
    }

    /// The last lines of its console.
    pub(crate) fn said(&self) -> String {
        let console = std::fs::read(self.folder.join("console")).unwrap_or_default();
        let text = String::from_utf8_lossy(&console).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// Asserts that its disk is the image, but for the partition table that was moved to the disk's end.
    pub(crate) fn holds(&self, store: &Store) {
        let disk = self.disk(0);
        let behind_table = 34 * 512;
        let image = &store.image[behind_table..];
        assert!(disk[behind_table..].starts_with(image), "the disk is not the image");
        assert_eq!(&disk[disk.len() - 512..][..8], b"EFI PART", "the backup of the partition table is at the end");
    }
}

fn power_on(make: &Make, folder: &Path, order: &[usize]) -> Child {
    let mut card = format!("virtio-net-pci,netdev=n0,mac={MAC}");
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", make.namespace)).arg("qemu-system-x86_64");
    // RDRAND, or the kernel waits for randomness that an emulated machine does not have.
    command.args(["-accel", "tcg,thread=multi", "-cpu", "qemu64,+rdrand", "-m", &make.memory_mib.to_string()]);
    command.args(["-nodefaults", "-display", "none", "-monitor", "none", "-serial"]);
    let console = folder.join("console");
    // Each life of the machine has a console of its own.
    let _ = std::fs::remove_file(&console);
    command.arg(format!("file:{}", console.display()));
    command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", folder.join("qmp").display()));
    if make.firmware == Firmware::Bios {
        // Without a screen the BIOS says on the serial port what it and its ROMs have to say.
        command.args(["-machine", "pc,graphics=off"]);
        let order = match (&make.cd, make.then_disk) {
            (Some(_), _) => "order=d",
            (None, true) => "order=nc",
            (None, false) => "n",
        };
        command.args(["-boot", order]);
    } else {
        if make.firmware == Firmware::UefiSecureBoot {
            // Its variables can then be written in system management mode alone, which OVMF insists on.
            command.args(["-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"]);
            command.args(["-global", "ICH9-LPC.disable_s3=1", "-drive"]);
        } else {
            command.args(["-machine", "q35", "-drive"]);
        }
        command.arg(format!("if=pflash,format=raw,unit=0,readonly=on,file={}", make.firmware.ovmf().0));
        command.arg("-drive");
        command.arg(format!("if=pflash,format=raw,unit=1,file={}", folder.join("variables").display()));
        // Without the card's ROM the firmware's own boot is what runs.
        card.push_str(if make.cd.is_some() { ",romfile=" } else { ",romfile=,bootindex=0" });
    }
    if let Some(cd) = &make.cd {
        command.arg("-drive").arg(format!("if=none,id=cd0,format=raw,media=cdrom,readonly=on,file={}", cd.display()));
        // As a BMC shows it: a drive on USB.
        command.args(["-device", "qemu-xhci", "-device", "usb-storage,drive=cd0,bootindex=0"]);
    }
    if make.firmware == Firmware::UefiHttp {
        for protocol in ["IPv4", "IPv6"] {
            command.arg("-fw_cfg").arg(format!("name=opt/org.tianocore/{protocol}PXESupport,string=n"));
        }
    }
    let tap = format!("tap,id=n0,ifname={},script=no,downscript=no", make.tap);
    command.arg("-netdev").arg(if make.on_wire { crate::wire::netdev() } else { tap });
    command.args(["-device", &card]);
    for (place, number) in order.iter().enumerate() {
        let path = folder.join(format!("disk{number}"));
        command.arg("-drive").arg(format!("if=none,id=d{number},format=raw,cache=unsafe,file={}", path.display()));
        let mut device = format!("virtio-blk-pci,drive=d{number},serial={}", make.serials[*number]);
        if make.then_disk && make.firmware != Firmware::Bios && place == 0 {
            device.push_str(",bootindex=1");
        }
        command.args(["-device", &device]);
    }
    let log = std::fs::File::create(folder.join("qemu.log")).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.machine.kill();
        let _ = self.machine.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
