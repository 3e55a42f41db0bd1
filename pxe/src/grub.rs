//! The names that GRUB asks for by itself. The folder of its configuration is built into the signed program, so it is the
//! same for every host, and no token of ours can be in it.
//!
//! It asks the server that acknowledged its address (`siaddr`), not the one that ProxyDHCP named.
//!
//! Seen of Debian's `grubnetx64.efi.signed` 2.06-13+deb12u2, whose folder is `/grub`: `x86_64-efi/command.lst`, `fs.lst`,
//! `crypto.lst` and `terminal.lst`, then `grub.cfg`; earlier ones ask for `x86_64-efi/grub.cfg`. It has no module for HTTP
//! (with a script that names `(http,…)` it asks for `x86_64-efi/http.mod`, which Secure Boot would not let it load), so all
//! of its files come by TFTP, and started by UEFI's HTTP boot it asks nobody for anything.

/// What GRUB asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Its script.
    Script,
    /// A list of modules, a module, a font, the script of one card (`grub.cfg-01-…`): it goes on without them when it hears
    /// that they are not there, and after about half a minute for each when it hears nothing (40 tries, 0.4 to 1.2 s apart).
    Optional,
}

/// What this name is, for one without a token. `None`: none of GRUB's.
#[must_use]
pub fn asked(path: &str) -> Option<Asked> {
    match path.strip_prefix("grub/")? {
        "grub.cfg" | "x86_64-efi/grub.cfg" | "arm64-efi/grub.cfg" => Some(Asked::Script),
        _ => Some(Asked::Optional),
    }
}

/// The name under which a file is kept, for one that is asked for behind a token: other builds of GRUB look for their
/// configuration by card, by address and in folders below the one they came from, and the plain name is what all end with.
#[must_use]
pub fn usual_name(path: &str) -> &str {
    let last = path.rsplit('/').next().unwrap_or(path);
    if last == "grub.cfg" { last } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_debians_grub_asks_for_is_known_and_nothing_else_is_a_script() {
        for script in ["grub/grub.cfg", "grub/x86_64-efi/grub.cfg", "grub/arm64-efi/grub.cfg"] {
            assert_eq!(asked(script), Some(Asked::Script), "{script}");
        }
        for optional in [
            "grub/x86_64-efi/command.lst",
            "grub/x86_64-efi/http.mod",
            "grub/grub.cfg-01-52-54-00-77-00-01",
            "grub/grub.cfg-0A4D0032",
            "grub/fonts/unicode.pf2",
        ] {
            assert_eq!(asked(optional), Some(Asked::Optional), "{optional}");
        }
        for other in ["grub.cfg", "boot/grub/grub.cfg", "grub", "pxelinux.cfg/default", "boot.ipxe", "t/x/grub.cfg"] {
            assert_eq!(asked(other), None, "{other}");
        }
    }

    #[test]
    fn behind_a_token_the_script_is_found_wherever_it_is_looked_for() {
        assert_eq!(usual_name("grub/x86_64-efi/grub.cfg"), "grub.cfg");
        assert_eq!(usual_name("image/chunks"), "image/chunks");
    }
}
