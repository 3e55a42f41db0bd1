//! One install, or the proof of a machine, from hello to done.

use crate::client::{Client, ClientError};
use crate::command_line::CommandLine;
use crate::failure::Failed;
use crate::fetch::Source;
use crate::kernel::say;
use crate::talk::Talk;
use crate::target::{Aligned, Target};
use crate::write::{Image, WriteError, differing, write};
use crate::{disks, efi_entry, first_boot, gpt, inventory, link, prove};
use protocol::chunk_table::ChunkTable;
use protocol::disk::Disk;
use protocol::install::{
    FIRST_BOOT_PATH, FailureCode, FirstBoot, HELLO_PATH, Hello, InstallOrder, InstallStage, Order, Welcome, WriteCount,
    WriteMode,
};
use protocol::manifest::{Firmware, ImageManifest};
use protocol::signature::PublicKey;
use std::any::Any;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long hello is repeated while nobody answers: an appliance may be restarting.
const HELLO_PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How long the files of the first boot are asked for: a cluster may have to make a credential first.
const FIRST_BOOT_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Where things of the machine are.
#[derive(Clone, Debug)]
pub struct Places {
    /// sysfs.
    pub sys: PathBuf,
    /// Devices.
    pub dev: PathBuf,
    /// Where the root file system is mounted.
    pub mount: PathBuf,
}

/// Everything after the card has its address.
pub fn install(line: &CommandLine, places: &Places, trusted: &[PublicKey], began: Instant) {
    let client = match Client::new(line.api, line.pin) {
        Ok(client) => client,
        Err(error) => return say(&format!("no TLS: {error}")),
    };
    let inventory = inventory::inventory(&places.sys, &places.dev);
    let firmware = inventory.firmware;
    let welcome = match hello(line, &client, inventory) {
        Ok(welcome) => welcome,
        Err(sentence) => return say(&sentence),
    };
    let talk = Talk::begin(client.clone(), &welcome.session, began);
    let work = || match &welcome.order {
        Order::Install(order) => {
            Work { order, places, trusted, talk: &talk, firmware, client: &client, session: &welcome.session }.run()
        }
        Order::Prove(order) => {
            talk.stage(InstallStage::Disk, prove::READ_BYTES_MAX);
            prove::prove(order, places, &line.mac, disks::PATIENCE, |bytes| talk.done(bytes))
        }
    };
    let outcome = caught(|| talk.stage_now(), work);
    match outcome {
        Ok(()) => {
            talk.end(None);
            say("done: waiting to be switched off");
        }
        Err(Failed(failure)) => {
            say(&format!("FAILED in {}: {}", failure.stage, failure.sentence));
            talk.end(Some(*failure));
            say("waiting to be switched off");
        }
    }
}

/// The work's end, a defect of our own among its ends: the reports go on from a thread of their own, so nobody would
/// ever learn otherwise that the work does not.
fn caught(stage: impl Fn() -> InstallStage, work: impl FnOnce() -> Result<(), Failed>) -> Result<(), Failed> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|what| {
        let what = format!(
            "a defect of this installer ended its work: {}. Install again, and tell who makes it",
            words_of(what.as_ref())
        );
        Err(Failed::new(stage(), FailureCode::Internal, what))
    })
}

/// What a panic said.
fn words_of(what: &(dyn Any + Send)) -> String {
    let fixed = what.downcast_ref::<&str>().map(|words| (*words).to_owned());
    fixed.or_else(|| what.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it said nothing".to_owned())
}

fn hello(line: &CommandLine, client: &Client, inventory: protocol::install::Inventory) -> Result<Welcome, String> {
    // A processor without RDRAND has to gather them first; on an emulated one without virtio-rng that may never end.
    say("waiting for the kernel's random numbers");
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(|error| format!("the kernel gives no random numbers: {error}"))?;
    let hello = Hello {
        protocol: protocol::PROTOCOL_VERSION,
        installer: env!("CARGO_PKG_VERSION").to_owned(),
        job: line.job.clone(),
        nonce: line.nonce.clone(),
        mac: line.mac.clone(),
        boot: random.iter().map(|byte| format!("{byte:02x}")).collect(),
        inventory,
        proves: true,
    };
    let until = Instant::now() + HELLO_PATIENCE;
    loop {
        match client.post::<Hello, Welcome>(HELLO_PATH, None, &hello) {
            Ok(welcome) if welcome.protocol == protocol::PROTOCOL_VERSION => return Ok(welcome),
            Ok(welcome) => {
                return Err(format!(
                    "the appliance speaks version {}, this installer version {}: nothing was written",
                    welcome.protocol,
                    protocol::PROTOCOL_VERSION
                ));
            }
            Err(ClientError::Again(why)) if Instant::now() < until => say(&format!("hello: {why}; trying again")),
            Err(error) => return Err(format!("hello: {error}: nothing was written")),
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

struct Work<'a> {
    order: &'a InstallOrder,
    places: &'a Places,
    trusted: &'a [PublicKey],
    talk: &'a Talk,
    firmware: Firmware,
    client: &'a Client,
    session: &'a str,
}

fn at(stage: InstallStage) -> impl Fn(WriteError) -> Failed {
    move |error| Failed::new(stage, error.code, error.sentence)
}

impl Work<'_> {
    fn run(&self) -> Result<(), Failed> {
        use InstallStage as Stage;
        let order = self.order;
        self.talk.stage(Stage::Disk, 0);
        // The manifest is what says how large a disk has to be, so it is judged before any disk is.
        let manifest = ImageManifest::verify(order.image.manifest.as_bytes(), &order.image.signature, self.trusted)
            .map_err(|error| {
                Failed::new(Stage::Image, FailureCode::UntrustedManifest, format!("the image: {error}"))
            })?;
        let look = || {
            let disks = disks::all(&self.places.sys, &self.places.dev);
            disks::choose(&disks, &order.disk, manifest.raw.bytes, order.foreign_data_approved)
        };
        let disk = disks::wait(disks::PATIENCE, || !self.talk.stopped(), look)?;
        let arch = inventory::inventory(&self.places.sys, &self.places.dev).arch;
        if manifest.arch != arch {
            let what = format!("the image is for {:?}, this machine is {arch:?}: nothing was written", manifest.arch);
            return Err(Failed::new(Stage::Disk, FailureCode::WrongArch, what));
        }
        self.talk.stage(Stage::Image, 0);
        let fetch = |what: String| Failed::new(Stage::Image, FailureCode::Fetch, what);
        let source = |url: &str| Source::parse(url).ok_or_else(|| fetch("the place of the image is odd".to_owned()));
        let content = source(&order.image.content_url)?;
        let table = self.table(&source(&order.image.table_url)?, &manifest)?;
        let image = Image { manifest: &manifest, table: &table };
        let path = self.places.dev.join(&disk.kernel_name);
        let target = Target::open(&path).map_err(|error| {
            let what = format!("{} cannot be opened for this alone: {error}: nothing was written", disk.kernel_name);
            Failed::new(Stage::Disk, FailureCode::DiskBusy, what)
        })?;
        // The table may have taken minutes, and a disk that was pulled out gives its name to the next. What is open
        // keeps its name, so what fits now under this name is what is open.
        disks::same(&disk, &look()?)?;
        self.write(&target, &image, &content)?;
        self.talk.stage(Stage::Partitions, 0);
        // Open for reading until the end: so the name, by which the rest is found, stays with this disk.
        let reader = self.partitions(&target, &disk)?;
        // The kernel does not let a disk be mounted that is held like this.
        drop(target);
        self.talk.stage(Stage::Configure, 0);
        self.configure(&disk, &manifest)?;
        if order.set_boot_entry && self.firmware == Firmware::Uefi {
            self.talk.stage(Stage::BootEntry, 0);
            self.boot_entry(&reader, &disk, &manifest)?;
        }
        rustix::fs::sync();
        Ok(())
    }

    fn table(&self, source: &Source, manifest: &ImageManifest) -> Result<ChunkTable, Failed> {
        let stage = InstallStage::Image;
        let mut last = String::new();
        for _ in 0..30 {
            match source.whole(manifest.chunks.table.bytes) {
                Ok(bytes) => {
                    return ChunkTable::read(&bytes, manifest).map_err(|error| {
                        let what = format!("{error}: nothing was written. Look with `rackmedic image verify`");
                        Failed::new(stage, FailureCode::BadTable, what)
                    });
                }
                Err(error) => last = error.to_string(),
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        Err(Failed::new(
            stage,
            FailureCode::Fetch,
            format!("the chunk table could not be fetched: {last}: nothing was written"),
        ))
    }

    fn write(&self, target: &Target, image: &Image<'_>, content: &Source) -> Result<(), Failed> {
        use InstallStage as Stage;
        let total = image.manifest.raw.bytes;
        let chunks = image.numbers().end;
        let numbers = match self.order.mode {
            WriteMode::Plain => image.numbers().collect::<Vec<_>>(),
            WriteMode::Differential => {
                self.talk.stage(Stage::Compare, total);
                let found = differing(target, image, |bytes| self.talk.done(bytes));
                found.map_err(at(Stage::Compare))?
            }
        };
        let mut count = WriteCount { chunks, differing_chunks: numbers.len() as u64, ..WriteCount::default() };
        self.talk.count(count, &numbers);
        let to_write = (numbers.len() as u64).saturating_mul(image.manifest.chunks.chunk_bytes.into()).min(total);
        self.talk.stage(Stage::Write, to_write);
        let mut told = 0;
        let written = write(target, image, &numbers, content, |written| {
            let more = written.written_bytes.saturating_sub(told);
            told = written.written_bytes;
            self.talk.done(more)
        })
        .map_err(at(Stage::Write))?;
        count.written_bytes = written.written_bytes;
        count.fetched_bytes = written.fetched_bytes;
        self.talk.count(count, &numbers);
        self.talk.stage(Stage::Verify, total);
        let wrong = differing(target, image, |bytes| self.talk.done(bytes)).map_err(at(Stage::Verify))?;
        if let Some(first) = wrong.first() {
            let what = format!(
                "{} chunks read back are not what was written, the first is {first}: the disk loses data. Replace it",
                wrong.len()
            );
            return Err(Failed::new(Stage::Verify, FailureCode::VerifyFailed, what));
        }
        Ok(())
    }

    /// Gives the disk, opened for reading, and not for this alone.
    fn partitions(&self, target: &Target, disk: &Disk) -> Result<File, Failed> {
        let failed = |error: std::io::Error| {
            let what = format!("the partition table of {}: {error}", disk.kernel_name);
            Failed::new(InstallStage::Partitions, FailureCode::Partitions, what)
        };
        let reader = File::open(self.places.dev.join(&disk.kernel_name)).map_err(failed)?;
        if let Some(moves) = gpt::move_backup(&reader, disk.bytes, disk.block_bytes).map_err(failed)? {
            for (place, bytes) in moves.0 {
                let mut buffer = Aligned::new(bytes.len());
                buffer.get_mut().copy_from_slice(&bytes);
                target.write(place, std::slice::from_ref(&buffer)).map_err(failed)?;
            }
            target.sync().map_err(failed)?;
        }
        // Something of the kernel may still look at the old partitions for a moment.
        let mut last = Ok(());
        for _ in 0..20 {
            last = link::read_partitions_again(target.file());
            if last.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        last.map_err(failed)?;
        Ok(reader)
    }

    fn configure(&self, disk: &Disk, manifest: &ImageManifest) -> Result<(), Failed> {
        let failed = |what: String| Failed::new(InstallStage::Configure, FailureCode::Configure, what);
        let files = self.first_boot_files()?;
        if files.files.is_empty() {
            return Ok(());
        }
        let root = manifest.root.as_ref().ok_or_else(|| {
            failed("there are files for the first boot, but the image names no partition for them: import it with --root-partition".to_owned())
        })?;
        let device =
            first_boot::partition_device(&self.places.sys, &self.places.dev, &disk.kernel_name, root.partition)
                .ok_or_else(|| {
                    failed(format!("partition {} of {} did not appear", root.partition, disk.kernel_name))
                })?;
        first_boot::write(&device, root.filesystem, &files, &self.places.mount).map_err(failed)
    }

    fn first_boot_files(&self) -> Result<FirstBoot, Failed> {
        let until = Instant::now() + FIRST_BOOT_PATIENCE;
        loop {
            match self.client.post(FIRST_BOOT_PATH, Some(self.session), &()) {
                Ok(files) => return Ok(files),
                Err(ClientError::Again(why)) if Instant::now() < until && !self.talk.stopped() => {
                    say(&format!("the files of the first boot: {why}; trying again"));
                }
                Err(error) => {
                    let what = format!("the files of the first boot were not given: {error}");
                    return Err(Failed::new(InstallStage::Configure, FailureCode::Configure, what));
                }
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    fn boot_entry(&self, reader: &File, disk: &Disk, manifest: &ImageManifest) -> Result<(), Failed> {
        let failed = |what: String| Failed::new(InstallStage::BootEntry, FailureCode::BootEntry, what);
        let Some(loader) = &manifest.efi_loader else { return Ok(()) };
        let partitions = gpt::partitions(reader, disk.block_bytes)
            .map_err(|error| failed(format!("{}: {error}", disk.kernel_name)))?;
        let system = partitions.iter().find(|partition| partition.kind == gpt::EFI_SYSTEM);
        let system = system.ok_or_else(|| failed(format!("{} has no EFI system partition", disk.kernel_name)))?;
        let option = efi_entry::load_option(system, disk.block_bytes, loader);
        let variables = self.places.sys.join("firmware/efi/efivars");
        let number = efi_entry::set(&variables, &option)
            .map_err(|error| failed(format!("the firmware's boot entry was not set: {error}")))?;
        say(&format!("Boot{number:04X} starts {loader}"));
        Ok(())
    }
}

/// The keys in a file, one on a line.
#[must_use]
pub fn trusted_keys(path: &Path) -> Vec<PublicKey> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::install::Failure;

    fn failure(stage: InstallStage, work: impl FnOnce() -> Result<(), Failed>) -> Box<Failure> {
        caught(|| stage, work).unwrap_err().0
    }

    #[test]
    fn a_defect_is_an_end_that_is_told() {
        let before = failure(InstallStage::Disk, || panic!("fixed words"));
        assert_eq!((before.stage, before.code), (InstallStage::Disk, FailureCode::Internal));
        assert!(before.sentence.contains("fixed words") && !before.disk_touched, "{}", before.sentence);
        let number = std::hint::black_box(7);
        let made = failure(InstallStage::Write, || panic!("words and {number}"));
        assert!(made.sentence.contains("words and 7") && made.disk_touched, "{}", made.sentence);
        let wordless = failure(InstallStage::Verify, || std::panic::panic_any(7_u8));
        assert!(wordless.sentence.contains("said nothing"), "{}", wordless.sentence);
    }

    #[test]
    fn other_ends_stay_what_they_are() {
        let never = || -> InstallStage { panic!("the stage is not asked for") };
        assert!(caught(never, || Ok(())).is_ok());
        let work = || Err(Failed::new(InstallStage::Write, FailureCode::DiskWrite, "it fails"));
        assert_eq!(caught(never, work).unwrap_err().0.code, FailureCode::DiskWrite);
    }
}
