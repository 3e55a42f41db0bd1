//! What OpenIPMI's simulator calls when somebody asks its BMC for power or boot: `HOOK ADDRESS get power`,
//! `HOOK ADDRESS set power 0`, and so on. The answers are its own format: `power:1`, `boot:pxe`.

use crate::layout::HostPlace;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// How a BMC lies, by the file `lie` in its host's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It tells the truth.
    None,
    /// It takes every order and does nothing.
    NoEffect,
    /// It says off whatever is.
    SaysOff,
}

impl HostPlace {
    /// Its mainboard dies with the power on.
    ///
    /// # Errors
    /// It cannot be written down, or QEMU does not end.
    pub fn die(&self) -> Result<()> {
        self.dead_with(true)?;
        self.power_off()
    }

    /// It gets another mainboard, if its own is dead.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn live(&self) -> Result<()> {
        match fs::remove_file(self.folder.join("dead")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Whether it is dead, and if so, whether its power supply is on.
    fn dead(&self) -> Option<bool> {
        fs::read_to_string(self.folder.join("dead")).ok().map(|text| text.trim() == "on")
    }

    fn dead_with(&self, on: bool) -> Result<()> {
        Ok(fs::write(self.folder.join("dead"), if on { "on" } else { "off" })?)
    }

    /// How its BMC lies now.
    #[must_use]
    pub fn lie(&self) -> Lie {
        match fs::read_to_string(self.folder.join("lie")).unwrap_or_default().trim() {
            "no-effect" => Lie::NoEffect,
            "says-off" => Lie::SaysOff,
            _ => Lie::None,
        }
    }
}

/// Serves one call; the lines to print. `again` is the command by which this program is called for this host: a BMC answers that
/// it has pressed the button, and the machine starts by itself, as it does anywhere.
///
/// # Errors
/// A call that is not known, or a host that does not obey.
pub fn serve(host: &HostPlace, again: Command, words: &[String]) -> Result<String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let boot = host.folder.join("boot");
    let obeys = host.lie() != Lie::NoEffect;
    // Every order that came is written down, whether it is obeyed or not: tests count them.
    if words.first() == Some(&"set") {
        let mut log = fs::OpenOptions::new().create(true).append(true).open(host.folder.join("bmc.log"))?;
        std::io::Write::write_all(&mut log, format!("{}\n", words.join(" ")).as_bytes())?;
    }
    // While this file is there the button is pressed and the machine not there yet.
    let pressed = host.folder.join("pressed");
    let on = |mut again: Command| -> Result<String> {
        fs::write(&pressed, "")?;
        again.arg("start").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        again.spawn().context("the host is not started")?;
        Ok(String::new())
    };
    match words.as_slice() {
        ["get", rest @ ..] => Ok(rest
            .iter()
            .map(|what| match *what {
                "power" if host.lie() == Lie::SaysOff => "power:0\n".to_owned(),
                "power" => {
                    let on = host.dead().unwrap_or_else(|| host.is_on() || pressed.exists());
                    format!("power:{}\n", u8::from(on))
                }
                "boot" => format!("boot:{}\n", fs::read_to_string(&boot).unwrap_or("default".to_owned()).trim()),
                other => format!("{other}:0\n"),
            })
            .collect()),
        ["check", ..] => Ok(String::new()),
        ["set", ..] if !obeys => Ok(String::new()),
        ["set", "power", "0", ..] | ["set", "shutdown", ..] if host.dead().is_some() => {
            host.dead_with(false).map(|()| String::new())
        }
        ["set", "power" | "reset", ..] if host.dead().is_some() => host.dead_with(true).map(|()| String::new()),
        ["set", "power", "0", ..] | ["set", "shutdown", ..] => {
            // Whoever was about to start finds that nobody wants it any more.
            let _ = fs::remove_file(&pressed);
            host.power_off().map(|()| String::new())
        }
        ["set", "power", ..] => on(again),
        ["set", "reset", ..] => {
            host.power_off()?;
            on(again)
        }
        ["start"] if !pressed.exists() => Ok(String::new()),
        ["start"] => {
            // A one-shot override is used up by the boot that it is for.
            let network = fs::read_to_string(&boot).is_ok_and(|text| text.trim() == "pxe");
            let _ = fs::remove_file(&boot);
            let started = host.power_on(network);
            let _ = fs::remove_file(&pressed);
            started.map(|()| String::new())
        }
        ["set", "boot", what, ..] => {
            fs::write(&boot, what)?;
            Ok(String::new())
        }
        _ => bail!("the power hook was asked for '{}'", words.join(" ")),
    }
}
