//! Virtual media by a BMC of others: OpenStack's sushy-emulator, which fetches the image itself, on a machine of libvirt's
//! QEMU driver under software emulation.
#![allow(clippy::print_stderr, reason = "tests")]

use crate::network::{Beside, MAC, Network};
use crate::store::run;
use crate::{place, store};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PORT: u16 = 18443;

/// libvirt's daemon beside the host's card and sushy-emulator beside the appliance, in a mount namespace of their own, where
/// libvirt finds its folders empty and the user that it wants.
const SCRIPT: &str = r#"
set -eu
cd "$FOLDER"
mount --make-rprivate /
mkdir -p run lib etc cache pool tmp /run/libvirt /var/lib/libvirt /etc/libvirt /var/cache/libvirt
mount --bind run /run/libvirt
mount --bind lib /var/lib/libvirt
mount --bind etc /etc/libvirt
mount --bind cache /var/cache/libvirt
for what in passwd group; do
  cp /etc/$what $what
done
echo 'libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin' >>passwd
printf 'libvirt-qemu:x:64055:\nkvm:x:64056:\n' >>group
mount --bind passwd /etc/passwd
mount --bind group /etc/group
printf '%s\n' 'user = "root"' 'group = "root"' 'security_driver = "none"' 'namespaces = []' 'cgroup_controllers = []' \
  'remember_owner = 0' 'dynamic_ownership = 0' 'stdio_handler = "file"' >etc/qemu.conf
echo 'auth_unix_rw = "none"' >etc/libvirtd.conf
nsenter --net="/run/netns/$HOST" libvirtd -f "$FOLDER/etc/libvirtd.conf" &
for _ in $(seq 100); do
  virsh -q -c qemu:///system version >/dev/null 2>&1 && break
  sleep 0.1
done
virsh -q -c qemu:///system pool-define-as default dir --target "$FOLDER/pool"
virsh -q -c qemu:///system pool-start default
virsh -q -c qemu:///system define domain.xml
export TMPDIR=$FOLDER/tmp
nsenter --net="/run/netns/$BMC" "$PYTHON/sushy-emulator" --config "$FOLDER/conf.py" &
wait
"#;

struct Sushy {
    child: Child,
    folder: PathBuf,
}

impl Drop for Sushy {
    fn drop(&mut self) {
        // It is the first process of a namespace of its own: with it go the daemon, the machine and the emulator.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn missing() -> Option<PathBuf> {
    let peers = PathBuf::from(std::env::var_os("RACKMEDIC_PEERS").unwrap_or_default());
    let needed = [
        PathBuf::from("/usr/sbin/libvirtd"),
        PathBuf::from("/usr/bin/virsh"),
        peers.join("python-1/bin/sushy-emulator"),
    ];
    needed.into_iter().find(|path| !path.exists())
}

fn start(network: &Network, folder: PathBuf) -> Sushy {
    let peers = PathBuf::from(std::env::var_os("RACKMEDIC_PEERS").unwrap());
    let python = peers.join("python-1/bin");
    let at = |name: &str| folder.join(name).display().to_string();
    std::fs::create_dir_all(&folder).unwrap();
    run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=10.77.0.2",
            "-addext",
            "subjectAltName=IP:10.77.0.2",
            "-keyout",
            &at("tls.key"),
            "-out",
            &at("tls.crt"),
        ],
    );
    let hash =
        "import bcrypt; print('admin:' + bcrypt.hashpw(b'secret-of-a-bmc', bcrypt.gensalt(4, prefix=b'2b')).decode())";
    std::fs::write(folder.join("htpasswd"), run(&python.join("python").display().to_string(), &["-c", hash])).unwrap();
    let configuration = format!(
        "SUSHY_EMULATOR_LISTEN_IP = '10.77.0.2'\nSUSHY_EMULATOR_LISTEN_PORT = {PORT}\n\
         SUSHY_EMULATOR_AUTH_FILE = '{}'\nSUSHY_EMULATOR_SSL_CERT = '{}'\nSUSHY_EMULATOR_SSL_KEY = '{}'\n\
         SUSHY_EMULATOR_LIBVIRT_URI = 'qemu:///system'\n",
        at("htpasswd"),
        at("tls.crt"),
        at("tls.key")
    );
    std::fs::write(folder.join("conf.py"), configuration).unwrap();
    let disk = std::fs::File::create(folder.join("disk")).unwrap();
    disk.set_len(crate::host::DISK_BYTES).unwrap();
    let domain = format!(
        "<domain type='qemu'><name>n1</name><uuid>7ac40000-0b0c-4d00-8e00-000000000001</uuid><memory unit='MiB'>512</memory>\
         <os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os><features><acpi/></features>\
         <cpu mode='custom' match='exact' check='none'><model fallback='allow'>qemu64</model><feature policy='require' name='rdrand'/></cpu>\
         <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>\
         <disk type='file' device='disk'><driver name='qemu' type='raw' cache='unsafe'/><source file='{}'/>\
         <target dev='vda' bus='virtio'/><serial>DISK1</serial></disk>\
         <interface type='ethernet'><mac address='{MAC}'/><target dev='{}' managed='no'/><model type='virtio'/></interface>\
         <serial type='file'><source path='{}' append='on'/></serial><memballoon model='none'/></devices></domain>",
        at("disk"),
        network.tap,
        at("console")
    );
    std::fs::write(folder.join("domain.xml"), domain).unwrap();
    std::fs::write(folder.join("start"), SCRIPT).unwrap();
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash"]).arg(folder.join("start"));
    command
        .env("FOLDER", &folder)
        .env("HOST", &network.host_namespace)
        .env("BMC", network.neighbour())
        .env("PYTHON", &python);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let mut sushy = Sushy { child: command.spawn().unwrap(), folder };
    let until = Instant::now() + Duration::from_secs(60);
    let url = format!("https://10.77.0.2:{PORT}/redfish/v1/");
    while !network.bmc_answers(&url) {
        let log = std::fs::read_to_string(sushy.folder.join("log")).unwrap_or_default();
        assert!(Instant::now() < until && sushy.child.try_wait().unwrap().is_none(), "{log}");
        std::thread::sleep(Duration::from_millis(300));
    }
    sushy
}

#[test]
fn a_bmc_of_others_fetches_the_image_and_its_machine_is_installed_from_its_drive() {
    let Some(store) = store() else { return };
    if let Some(missing) = missing() {
        eprintln!("not run: there is no {} (tests/peers/install and tests/peers/install-boot)", missing.display());
        return;
    }
    let _place = place();
    let network = Network::make(Beside::Nobody);
    let appliance = network.serve(store, crate::host::Firmware::Bios);
    let sushy = start(&network, store.folder.join("sushy"));
    // When one command brings the host up by its BMC alone
    let said = store.folder.join("sushy.said");
    let more = ["--method", "vmedia", "--legacy", "--power-cycle", "--post-s", "30"];
    let begun = Instant::now();
    let child = appliance.run_inside("drive", &format!("redfish://admin@10.77.0.2:{PORT}"), &more, &said);
    let output = child.wait_with_output().unwrap();
    let text = std::fs::read_to_string(&said).unwrap();
    let console =
        String::from_utf8_lossy(&std::fs::read(sushy.folder.join("console")).unwrap_or_default()).into_owned();
    let log = std::fs::read_to_string(sushy.folder.join("log")).unwrap_or_default();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{text}\n{log}\n{console}"));
    // Then it is installed, it has started from its disk, and the job is over
    assert_eq!(output.status.code(), Some(0), "{report}\n{text}\n{console}");
    assert_eq!((&report["installed"], &report["closed"]), (&true.into(), &true.into()), "{report}");
    assert_eq!(report["methods"][0]["method"], "virtual-media");
    assert!(console.contains(crate::store::STARTED), "{console}");
    assert_eq!(console.matches(crate::store::STARTED).count(), 1, "{console}");
    // And the drive is empty again
    let flight = appliance.show("drive");
    let events: Vec<&str> = flight["moments"].as_array().unwrap().iter().filter_map(|m| m["event"].as_str()).collect();
    assert!(events.contains(&"media-read") && events.contains(&"hello"), "{events:?}");
    let system = format!("https://10.77.0.2:{PORT}/redfish/v1/Systems/7ac40000-0b0c-4d00-8e00-000000000001");
    let drive = network.bmc_says(&format!("{system}/VirtualMedia/Cd"));
    assert_eq!((&drive["Inserted"], &drive["Image"]), (&false.into(), &"".into()), "{drive}");
    let boot = network.bmc_says(&system)["Boot"]["BootSourceOverrideTarget"].clone();
    assert_eq!(boot, "Hdd", "the order that lasts was taken back");
    eprintln!("{text}\n{:.1} s in all", begun.elapsed().as_secs_f64());
    assert!(
        text.contains("its BMC keeps the order for every boot"),
        "sushy-emulator knows no order for one boot: {text}"
    );
}
