//! A real node image, from power-on to the host that runs it, and again after its disk was damaged.
//!
//! The image is made once, by the product itself, and kept outside of the checkout under the digest of its recipe.
#![allow(clippy::print_stderr, reason = "tests")]

use crate::host::{Disk, Firmware, Host};
use crate::network::{Appliance, Beside, Flight, Network};
use crate::store::{RACKMEDIC, Store, run};
use crate::{is_long_run, place, store};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Software emulation on a machine that does other things besides.
const PATIENCE: Duration = Duration::from_secs(900);
/// More than the image has: its root file system grows to the disk.
const DISK_BYTES: u64 = 2 << 30;
const MIB: u64 = 1 << 20;

/// What the image is made of: nothing that a real node has not, but a kernel that is quick to start in a virtual machine.
const RECIPE: [&str; 12] = [
    "--name",
    "node",
    "--image-version",
    "1",
    "--kernel",
    "linux-image-cloud-amd64",
    "--kernel-arguments",
    "console=ttyS0,115200",
    "--free-mib",
    "64",
    "--stored",
    "zstd",
];

/// The store with the node image and the boot set of this build.
fn node_store() -> Option<&'static Store> {
    static STORE: OnceLock<Option<Store>> = OnceLock::new();
    STORE
        .get_or_init(|| {
            let made = store()?;
            let cache = cached_image();
            let folder = made.folder.join("node");
            let work = made.folder.join("work");
            std::fs::create_dir_all(&folder).unwrap();
            let key = std::fs::read_to_string(cache.join("key.pub")).unwrap().trim().to_owned();
            std::fs::create_dir_all(folder.join("store")).unwrap();
            std::os::unix::fs::symlink(cache.join("store/images"), folder.join("store/images")).unwrap();
            let place = |path: PathBuf| path.display().to_string();
            let (signing, to, work) = (place(cache.join("key")), place(folder.join("store")), place(work));
            let installer = std::env::var("RACKMEDIC_INSTALLER").unwrap();
            let set = ["image", "build", "boot-set", "--set-version", "1", "--kernel", "linux-image-cloud-amd64"];
            let from = ["--installer", &installer, "--key", &signing, "--store", &to, "--work", &work];
            run(RACKMEDIC, &[&set[..], &from].concat());
            Some(Store { folder, key, image_name: "node", image: Vec::new() })
        })
        .as_ref()
}

/// Where the image lies; it is made when it does not.
fn cached_image() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("HOME").expect("HOME or XDG_CACHE_HOME is set")).join(".cache")
    });
    let folder = cache.join(format!("rackmedic/node-image-{}", recipe_digest()));
    if folder.join("store/images/node/1/manifest.json").exists() {
        return folder;
    }
    std::fs::create_dir_all(&folder).unwrap();
    let place = |name: &str| folder.join(name).display().to_string();
    if !folder.join("key").exists() {
        std::fs::write(folder.join("key.pub"), run(RACKMEDIC, &["image", "key", "--out", &place("key")])).unwrap();
    }
    let begun = Instant::now();
    eprintln!("making the node image in {}", folder.display());
    build(&place("key"), &place("store"), &place("work"));
    eprintln!("the node image took {:.0} s", begun.elapsed().as_secs_f64());
    let _ = std::fs::remove_dir_all(folder.join("work"));
    folder
}

fn build(key: &str, store: &str, work: &str) {
    let where_to = ["--key", key, "--store", store, "--work", work];
    run(RACKMEDIC, &[&["image", "build", "node"][..], &RECIPE, &where_to].concat());
}

/// Of everything that goes into the image from this checkout.
fn recipe_digest() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut recipe: Vec<u8> = RECIPE.join(" ").into_bytes();
    for folder in ["images/node", "appliance/src/image/build/node"] {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(root.join(folder)).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        for file in files {
            recipe.extend(std::fs::read(file).unwrap());
        }
    }
    protocol::digest::Sha256::of(&recipe).to_string().chars().take(16).collect()
}

/// Opens a job with a host name and an address for the first boot.
fn arm(appliance: &Appliance, folder: &Path, job: &str, name: &str, address: &str) {
    let host_name = folder.join("hostname");
    std::fs::write(&host_name, format!("{name}\n")).unwrap();
    let network = folder.join("network");
    std::fs::write(&network, format!("[Match]\nType=ether\n[Network]\nAddress={address}/24\n")).unwrap();
    let files = [
        format!("/etc/hostname={}", host_name.display()),
        format!("/etc/systemd/network/10-rackmedic.network={}", network.display()),
    ];
    appliance.arm(job, "DISK1", &["--first-boot-file", &files[0], "--first-boot-file", &files[1]]);
}

/// Switches the host off and on, as the appliance has its BMC do, and waits until the image runs as this host.
fn boots(host: &mut Host, network: &Network, name: &str, address: &str) -> f64 {
    let begun = Instant::now();
    host.power_cycle(&[0]);
    // The system's own greeting on the serial console, with the name that the installer gave it.
    host.wait_for_words(&format!("{name} login:"), PATIENCE);
    let took = begun.elapsed().as_secs_f64();
    while !network.answers(address) {
        assert!(begun.elapsed() < PATIENCE, "{name} never answered at {address}:\n{}", host.said());
        std::thread::sleep(Duration::from_millis(500));
    }
    took
}

fn told(firmware: Firmware, what: &str, flight: &Flight, booted: f64) {
    let stages: Vec<String> = flight.stages().iter().map(|(stage, at)| format!("{stage} {at:.1}")).collect();
    eprintln!("| {firmware:?} | {what} | seconds: {} | booted from disk in {booted:.1} s |", stages.join(", "));
    eprintln!("|   | written | {} |", flight.written());
}

fn reimage(firmware: Firmware) {
    let Some(store) = node_store() else { return };
    let _place = place();
    // Given an empty host
    let network = Network::make(Beside::Nobody);
    let appliance = network.serve(store, firmware);
    arm(&appliance, &store.folder, "first", "node-seven", "10.77.0.61");
    // When it is switched on, then the image is written, verified and configured, and the host runs it
    let mut host = Host::node(&network, firmware, store, &[Disk::empty("DISK1")], DISK_BYTES);
    let flight = appliance.wait_for(&host, "first", "installed", PATIENCE);
    let booted = boots(&mut host, &network, "node-seven", "10.77.0.61");
    told(firmware, "empty disk", &flight, booted);
    let whole = flight.written()["chunks"].as_u64().unwrap();

    // When one block of every fiftieth chunk is spoilt, and the host is reimaged under another name
    host.power_off();
    appliance.disarm("first");
    for chunk in (0..whole).step_by(50) {
        host.spoil(chunk * MIB + 300_000, &[0xa5; 4096]);
    }
    arm(&appliance, &store.folder, "second", "node-eight", "10.77.0.62");
    host.power_cycle(&[0]);
    let flight = appliance.wait_for(&host, "second", "installed", PATIENCE);
    // Then only what differs is fetched and written: what was spoilt, and what the system itself had changed
    let booted = boots(&mut host, &network, "node-eight", "10.77.0.62");
    told(firmware, "2 % damaged", &flight, booted);
    let differing = flight.written()["differing_chunks"].as_u64().unwrap();
    assert!((whole / 50..whole / 2).contains(&differing), "{}", flight.written());
}

#[test]
fn a_bios_host_runs_a_node_image_and_is_mended_by_another() {
    if is_long_run() {
        reimage(Firmware::Bios);
    }
}

#[test]
fn a_uefi_host_runs_a_node_image_and_is_mended_by_another() {
    if is_long_run() {
        reimage(Firmware::UefiPxe);
    }
}

#[test]
fn a_uefi_host_whose_first_loader_is_shim_is_led_on_to_its_disk() {
    if is_long_run() {
        reimage(Firmware::UefiShim);
    }
}

#[test]
fn two_builds_of_a_node_image_are_the_same_to_the_byte() {
    let Some(store) = store() else { return };
    if !is_long_run() {
        return;
    }
    let first = cached_image();
    let folder = store.folder.join("again");
    std::fs::create_dir_all(&folder).unwrap();
    let place = |name: &str| folder.join(name).display().to_string();
    build(&first.join("key").display().to_string(), &place("store"), &place("work"));
    let raw = |store: PathBuf| -> serde_json::Value {
        let text = std::fs::read(store.join("images/node/1/manifest.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()["raw"].clone()
    };
    assert_eq!(raw(first.join("store")), raw(folder.join("store")));
}
