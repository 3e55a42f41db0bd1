//! The serial console: our own client, ipmitool and FreeIPMI at the emulator's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod support;

use bmc::Secret;
use bmc::ipmi::client::{Client, IpmiError, Patience};
use bmc::ipmi::command::Control;
use bmc::ipmi::console::Console;
use bmc::ipmi::crypto::Suite;
use bmc::ipmi::handshake::{Login, Privilege};
use bmc::ipmi::sol_activation::ConsoleError;
use bmc_emulator::{Certificate, Emulator, Misbehaviour, Setup, by_name};
use machine::Fault;
use std::process::Stdio;
use std::time::Duration;
use support::{PASSWORD, missing};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// A machine whose boot takes a second.
async fn emulator(off: bool) -> Emulator {
    let mut setup = Setup { off, ..Setup::of(by_name("supermicro_x12").unwrap()) };
    (setup.spec.post_ms, setup.spec.kernel_ms, setup.spec.kubelet_ms) = ((300, 400), (300, 400), (100, 200));
    Emulator::start(setup, &Certificate::make().unwrap()).await.unwrap()
}

async fn client(emulator: &Emulator, suite: Suite) -> Client {
    let password = Secret::new(PASSWORD.as_bytes().to_vec());
    let login = Login::new("admin".to_owned(), password, Privilege::Administrator).unwrap();
    let patience = Patience { retry: Duration::from_millis(200), tries: 5 };
    Client::open(emulator.ipmi(), &login, &[suite], patience).await.unwrap()
}

/// What is read until this was.
async fn until(console: &mut Console, wanted: &str) -> String {
    let mut heard = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&heard).contains(wanted) {
            heard.extend(console.read().await.unwrap());
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), reading).await;
    let heard = String::from_utf8_lossy(&heard).into_owned();
    assert!(in_time.is_ok(), "never {wanted:?}: {heard:?}");
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_is_read_and_long_text_is_echoed_by_both_suites() {
    for suite in Suite::PREFERENCE {
        let emulator = emulator(true).await;
        let mut console = client(&emulator, suite).await.console(false).await.unwrap();
        let mut beside = client(&emulator, suite).await;
        beside.control(Control::On).await.unwrap();
        let boot = until(&mut console, "login: ").await;
        let places: Vec<_> = ["power on", "POST: testing", "Loading", "login: "].map(|word| boot.find(word)).into();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{boot}");
        // Longer than a packet, and each packet longer than the line takes at once.
        let text: String = (0..400).map(|number| format!("{number:04}.")).collect();
        console.write(text.as_bytes()).await.unwrap();
        assert_eq!(until(&mut console, "0399.").await, text);
        console.generate_break().await.unwrap();
        until(&mut console, "sysrq: HELP").await;
        emulator.handle().inject(Fault::KernelPanic { dump_ms: None });
        until(&mut console, "Kernel panic").await;
        assert_eq!(console.notices(), Default::default());
        console.close().await;
        // The session that is closed leaves the console free.
        client(&emulator, suite).await.console(false).await.unwrap().close().await;
        beside.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doubled_and_replayed_datagrams_change_nothing() {
    for wrong in [Misbehaviour::IpmiTwice, Misbehaviour::IpmiReplays] {
        let emulator = emulator(false).await;
        emulator.handle().set(wrong, true);
        let mut console = client(&emulator, Suite::Sha256).await.console(false).await.unwrap();
        let text: String = (0..100).map(|number| format!("{number:04}.")).collect();
        console.write(text.as_bytes()).await.unwrap();
        assert_eq!(until(&mut console, "0099.").await, text, "{wrong:?}");
        console.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_console_at_a_time_taken_over_on_demand() {
    let emulator = emulator(false).await;
    let mut first = client(&emulator, Suite::Sha256).await.console(false).await.unwrap();
    let busy = client(&emulator, Suite::Sha256).await.console(false).await;
    assert!(matches!(busy, Err(IpmiError::Console { source: ConsoleError::Busy, .. })), "{busy:?}");
    first.write(b"mine").await.unwrap();
    until(&mut first, "mine").await;
    let mut second = client(&emulator, Suite::Sha1).await.console(true).await.unwrap();
    let ended = first.read().await;
    assert!(matches!(ended, Err(IpmiError::Console { source: ConsoleError::Ended, .. })), "{ended:?}");
    first.close().await;
    second.write(b"now mine").await.unwrap();
    until(&mut second, "now mine").await;
    second.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_ends_with_its_session() {
    let mut setup = Setup::of(by_name("dell_r750").unwrap());
    setup.spec.bmc_session_idle_ms = 600;
    let emulator = Emulator::start(setup, &Certificate::make().unwrap()).await.unwrap();
    let dropped = client(&emulator, Suite::Sha256).await.console(false).await.unwrap();
    drop(dropped);
    let begun = tokio::time::Instant::now();
    loop {
        match client(&emulator, Suite::Sha256).await.console(false).await {
            Ok(console) => break console.close().await,
            Err(IpmiError::Console { source: ConsoleError::Busy, .. }) => {}
            Err(why) => panic!("{why}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "never free");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_characters_and_a_host_without_power_end_a_write() {
    for off in [false, true] {
        let emulator = emulator(off).await;
        emulator.handle().set(Misbehaviour::IpmiSolNack, !off);
        let mut console = client(&emulator, Suite::Sha256).await.console(false).await.unwrap();
        let stalled = console.write(b"x").await;
        assert!(matches!(stalled, Err(IpmiError::Console { source: ConsoleError::Stalled, .. })), "{stalled:?}");
        console.close().await;
    }
    // Refused for a while only: what was written arrives once.
    let emulator = emulator(false).await;
    emulator.handle().set(Misbehaviour::IpmiSolNack, true);
    let mut console = client(&emulator, Suite::Sha256).await.console(false).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(300), console.write(b"late.")).await;
    assert!(early.is_err());
    emulator.handle().set(Misbehaviour::IpmiSolNack, false);
    console.write(b"end.").await.unwrap();
    assert_eq!(until(&mut console, "end.").await, "late.end.");
    console.close().await;
}

/// Runs a program on a terminal, types `types` once it printed `prompt`, and gives all that it printed until it ended.
async fn on_terminal(command: &str, dialog: &[(&str, &str)]) -> String {
    let mut child = Command::new("script")
        .args(["-qec", command, "/dev/null"])
        .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut seen = String::new();
    let talk = async {
        let mut from = 0;
        let mut buffer = [0; 4_096];
        for (prompt, types) in dialog {
            while !seen[from..].contains(prompt) {
                let length = stdout.read(&mut buffer).await.unwrap();
                if length == 0 {
                    return;
                }
                seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
            from = seen.len();
            for character in types.bytes() {
                stdin.write_all(&[character]).await.unwrap();
                stdin.flush().await.unwrap();
                // As a hand types: clients look for their escape at the beginning of what they read.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let mut rest = Vec::new();
        let _ = stdout.read_to_end(&mut rest).await;
        seen.push_str(&String::from_utf8_lossy(&rest));
    };
    let in_time = tokio::time::timeout(Duration::from_secs(40), talk).await;
    assert!(in_time.is_ok(), "{command}: it does not end: {seen}");
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipmitool_has_the_console() {
    if missing("ipmitool") || missing("script") {
        return;
    }
    for suite in ["17", "3"] {
        let emulator = emulator(false).await;
        let port = emulator.ipmi().port();
        let base = format!("ipmitool -I lanplus -C {suite} -H 127.0.0.1 -p {port} -U admin -P {PASSWORD} sol");
        let dialog = [("SOL Session operational", "echo of ipmitool"), ("of ipmitool", "\r~.")];
        let seen = on_terminal(&format!("{base} activate"), &dialog).await;
        assert!(seen.contains("terminated ipmitool"), "{seen}");
        let info = on_terminal(&format!("{base} info 1"), &[]).await;
        assert!(info.contains("Enabled                         : true") && info.contains("115.2"), "{info}");
        assert!(info.contains("Force Encryption                : true") && info.contains(&port.to_string()), "{info}");
        // It is given back, and switched off and on.
        client(&emulator, Suite::Sha256).await.console(false).await.unwrap().close().await;
        on_terminal(&format!("{base} set enabled false 1"), &[]).await;
        let disabled = client(&emulator, Suite::Sha256).await.console(false).await;
        assert!(matches!(disabled, Err(IpmiError::Console { source: ConsoleError::Disabled, .. })), "{disabled:?}");
        on_terminal(&format!("{base} set enabled true 1"), &[]).await;
        client(&emulator, Suite::Sha256).await.console(false).await.unwrap().close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn freeipmi_has_the_console() {
    if missing("ipmiconsole") || missing("script") {
        return;
    }
    // It knows one port, which not everybody may listen at.
    let setup = Setup { ipmi_port: 623, ..Setup::of(by_name("dell_r750").unwrap()) };
    let emulator = match Emulator::start(setup, &Certificate::make().unwrap()).await {
        Ok(emulator) => emulator,
        Err(why) => {
            eprintln!("not run: {why}");
            return;
        }
    };
    for suite in ["17", "3"] {
        let command = format!("ipmiconsole -h 127.0.0.1 -u admin -p {PASSWORD} -I {suite}");
        let dialog = [("SOL established", "echo of freeipmi"), ("of freeipmi", "\r&.")];
        let seen = on_terminal(&command, &dialog).await;
        assert!(seen.contains("closing the connection"), "{seen}");
        client(&emulator, Suite::Sha256).await.console(false).await.unwrap().close().await;
    }
}
