//! One byte is changed somewhere: it is refused at a named place, and no host is touched.
#![allow(clippy::print_stderr, reason = "tests")]

use crate::host::{Disk, Firmware, Host};
use crate::network::{Beside, Network};
use crate::store::Store;
use crate::wire::Wire;
use crate::{place, store};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(240);

/// One bit in the middle of a file is another until this is dropped.
struct Turned {
    path: PathBuf,
    at: u64,
    was: u8,
}

fn turn_a_bit(path: &Path) -> Turned {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let at = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    Turned { path: path.to_owned(), at, was: byte[0] }
}

impl Drop for Turned {
    fn drop(&mut self) {
        let file = std::fs::File::options().write(true).open(&self.path).unwrap();
        file.write_all_at(&[self.was], self.at).unwrap();
    }
}

fn copy(name: &str) -> Option<Store> {
    store().map(|store| store.copy(name))
}

#[test]
fn a_boot_set_with_one_changed_byte_is_not_served() {
    let Some(store) = copy("turned-set") else { return };
    let network = Network::make(Beside::Nobody);
    // Loaders of every firmware, kernel, initramfs, the list of them and its signature.
    let files = [
        ("undionly.kpxe", "is not the file that was signed"),
        ("snponly.efi", "is not the file that was signed"),
        ("shimx64.efi", "is not the file that was signed"),
        ("grubx64.efi", "is not the file that was signed"),
        ("vmlinuz", "is not the file that was signed"),
        ("initrd.img", "is not the file that was signed"),
        ("boot-set.json", "is not trusted, nothing of it is served"),
        ("boot-set.json.sig", ""),
    ];
    for (name, says) in files {
        let turned = turn_a_bit(&store.place().join("boot-sets/1").join(name));
        let said = network.serve_in_vain(&store);
        assert!(said.contains(name.trim_end_matches(".sig")) && said.contains(says), "{name}: {said}");
        eprintln!("{name}: {}", said.lines().last().unwrap_or_default());
        drop(turned);
    }
    // With every byte as it was it serves.
    drop(network.serve(&store, Firmware::Bios));
}

#[test]
fn an_image_with_a_changed_manifest_signature_or_table_is_not_even_armed() {
    let Some(store) = copy("turned-papers") else { return };
    let network = Network::make(Beside::Nobody);
    let appliance = network.serve(&store, Firmware::Bios);
    let folder = store.place().join("images/small/1");
    for (name, says) in [("manifest.json", "is not trusted"), ("manifest.json.sig", ""), ("chunks", "chunk table")] {
        let turned = turn_a_bit(&folder.join(name));
        let said = appliance.arm_in_vain("job", "DISK1");
        assert!(said.contains(says), "{name}: {said}");
        eprintln!("{name}: {}", said.lines().last().unwrap_or_default());
        drop(turned);
    }
    // A content that lost its end, or has more than was signed.
    let content = std::fs::File::options().write(true).open(folder.join("content")).unwrap();
    let bytes = content.metadata().unwrap().len();
    for wrong in [bytes - 1, bytes + 1] {
        content.set_len(wrong).unwrap();
        let said = appliance.arm_in_vain("job", "DISK1");
        assert!(said.contains(&format!("it has {wrong} bytes, the manifest says {bytes}")), "{said}");
    }
}

#[test]
fn an_image_whose_content_lost_one_bit_costs_no_host_its_disk() {
    let Some(store) = copy("turned-content") else { return };
    let _place = place();
    // Given an image of which one bit of the content has turned, with a manifest, a table and a length that are right
    let turned = turn_a_bit(&store.place().join("images/small/1/content"));
    let network = Network::make(Beside::Nobody);
    let appliance = network.serve(&store, Firmware::Bios);
    appliance.arm("job", "DISK1", &["--mode", "plain"]);
    // When its host boots the installer
    let mut host = Host::start(&network, Firmware::Bios, &store, &[Disk::empty("DISK1")]);
    let flight = appliance.wait_for(&host, "job", "failed", PATIENCE);
    // Then it is told so, and has written nothing
    assert_eq!((flight.failure("stage"), flight.failure("code")), ("hello".to_owned(), "bad-chunk".to_owned()));
    assert_eq!(host.writes(0), 0, "by QEMU's own count");
    eprintln!("content: {}", flight.failure("sentence"));
    // And with the bit as it was, the next job writes it
    host.power_off();
    drop(turned);
    appliance.arm("again", "DISK1", &[]);
    host.power_cycle(&[0]);
    appliance.wait_for(&host, "again", "installed", PATIENCE);
    host.holds(&store);
}

#[test]
fn a_chunk_table_that_was_changed_on_the_wire_is_refused_and_no_disk_is_touched() {
    let Some(store) = store() else { return };
    let _place = place();
    // Given a cable that turns one bit of the chunk table each time that it passes
    let table = std::fs::read(store.place().join("images/small/1/chunks")).unwrap();
    let middle = table[table.len() / 2..][..16].to_vec();
    let network = Network::make(Beside::Nobody);
    let wire = Wire::plug(
        &network,
        u32::MAX,
        Box::new(move |port, payload| {
            (port == 80).then(|| payload.windows(16).position(|part| part == middle)).flatten()
        }),
    );
    let appliance = network.serve(store, Firmware::Bios);
    appliance.arm("job", "DISK1", &[]);
    // When the host is installed over it
    let host = Host::on_wire(&network, Firmware::Bios, store, &[Disk::empty("DISK1")]);
    let flight = appliance.wait_for(&host, "job", "failed", PATIENCE);
    // Then its installer says what is wrong, and has written nothing
    assert_eq!(flight.failure("code"), "bad-table", "{}", flight.failure("sentence"));
    assert_eq!(host.writes(0), 0, "by QEMU's own count");
    assert!(wire.changed() >= 1);
    eprintln!("chunk table: {} (changed {} times)", flight.failure("sentence"), wire.changed());
}

#[test]
fn a_manifest_that_was_changed_on_the_wire_never_arrives_and_the_next_one_is_taken() {
    let Some(store) = store() else { return };
    let _place = place();
    // Given a cable that turns one bit of the installer's welcome, in which the manifest is, the first three times
    let network = Network::make(Beside::Nobody);
    let large = |port: u16, payload: &[u8]| {
        // A record of application data (RFC 8446 section 5.1), longer than any other answer.
        let record = payload.starts_with(&[0x17, 3, 3]).then(|| u16::from_be_bytes([payload[3], payload[4]]));
        (port == 8443 && record.is_some_and(|length| length > 1200)).then_some(payload.len() / 2)
    };
    let wire = Wire::plug(&network, 3, Box::new(large));
    let appliance = network.serve(store, Firmware::Bios);
    appliance.arm("job", "DISK1", &[]);
    let host = Host::on_wire(&network, Firmware::Bios, store, &[Disk::empty("DISK1")]);
    // When it has met the change twice, then nothing is written
    let until = std::time::Instant::now() + PATIENCE;
    while wire.changed() < 3 {
        assert!(std::time::Instant::now() < until, "changed {} times:\n{}", wire.changed(), host.said());
        std::thread::sleep(Duration::from_millis(20));
        if wire.changed() == 2 {
            assert_eq!(host.writes(0), 0, "by QEMU's own count");
        }
    }
    // And with the cable as cables are, the same installer is welcomed, once, and writes the disk
    let flight = appliance.wait_for(&host, "job", "installed", PATIENCE);
    host.holds(store);
    assert_eq!((flight.count("hello"), flight.count("written")), (1, 1));
    eprintln!("manifest: changed {} times, then installed", wire.changed());
}
