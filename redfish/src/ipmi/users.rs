//! Accounts of a BMC (sections 22.27, 22.29 and 22.30).

use super::command::{APPLICATION, Command};
use super::frame::FrameError;
use super::handshake::{BadLogin, PASSWORD_BYTES_MAX, USER_BYTES_MAX};
use crate::Secret;
use crate::health::tame;

/// Channel number "the one this is sent on" (section 6.3).
const THIS_CHANNEL: u8 = 0x0e;
/// User IDs have six bits; 0 is reserved.
pub const USER_ID_MAX: u8 = 0x3f;
/// The password of IPMI 1.5.
const SHORT_PASSWORD_BYTES: usize = 16;

/// The highest privilege of an account on a channel (section 22.27).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Callback.
    Callback,
    /// User.
    User,
    /// Operator.
    Operator,
    /// Administrator.
    Administrator,
    /// The vendor's own.
    Vendor,
    /// No access.
    None,
    /// A reserved value, by number.
    Other(u8),
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its number on the BMC.
    pub id: u8,
    /// Its name; empty is the null user.
    pub name: String,
    /// Whether it is enabled, where told.
    pub enabled: Option<bool>,
    /// Whether it may send IPMI messages on this channel.
    pub messaging: bool,
    /// Its highest privilege.
    pub limit: Limit,
}

impl User {
    /// A null user that can log in: anybody who guesses that there is one needs no name.
    #[must_use]
    pub fn is_open_without_name(&self) -> bool {
        self.name.is_empty() && self.messaging && self.enabled != Some(false) && self.limit != Limit::None
    }
}

/// What the BMC tells about an account and about all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The highest user ID.
    pub ids: u8,
    /// Whether this one is enabled, where told.
    pub enabled: Option<bool>,
    /// Whether it may send IPMI messages.
    pub messaging: bool,
    /// Its highest privilege.
    pub limit: Limit,
}

/// Get User Access (section 22.27).
#[must_use]
pub fn get_access(id: u8) -> Command {
    Command::read(APPLICATION, 0x44, vec![THIS_CHANNEL, id & USER_ID_MAX])
}

/// Get User Name (section 22.29).
#[must_use]
pub fn get_name(id: u8) -> Command {
    Command::read(APPLICATION, 0x46, vec![id & USER_ID_MAX])
}

/// Reads the answer to [`get_access`].
///
/// # Errors
/// It is too short.
pub fn read_access(data: &[u8]) -> Result<Access, FrameError> {
    let [ids, enabled, _fixed, access, ..] = *data else { return Err(FrameError::Short("user access")) };
    Ok(Access {
        ids: ids & USER_ID_MAX,
        enabled: match enabled >> 6 {
            1 => Some(true),
            2 => Some(false),
            _ => None,
        },
        messaging: access & 0x10 != 0,
        limit: match access & 0x0f {
            1 => Limit::Callback,
            2 => Limit::User,
            3 => Limit::Operator,
            4 => Limit::Administrator,
            5 => Limit::Vendor,
            0x0f => Limit::None,
            other => Limit::Other(other),
        },
    })
}

/// Reads the answer to [`get_name`].
#[must_use]
pub fn read_name(data: &[u8]) -> String {
    let name = data.iter().take(USER_BYTES_MAX).take_while(|byte| **byte != 0).map(|byte| char::from(*byte));
    tame(&name.collect::<String>())
}

/// How long a password field is. Twenty bytes came with IPMI 2.0; some firmware takes sixteen alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordField {
    /// Twenty bytes.
    Twenty,
    /// Sixteen bytes.
    Sixteen,
}

/// What is done with the password (section 22.30).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordVerb {
    /// It becomes the account's.
    Set,
    /// It is compared with the account's.
    Test,
}

/// Set User Password, to set or to test one. `None` if the field cannot hold it: nothing is ever cut off. The command's
/// data holds the password and is to be wiped when it was sent.
#[must_use]
pub fn password(id: u8, verb: PasswordVerb, password: &Secret, field: PasswordField) -> Option<Command> {
    let (length, flag) = match field {
        PasswordField::Twenty => (PASSWORD_BYTES_MAX, 0x80),
        PasswordField::Sixteen => (SHORT_PASSWORD_BYTES, 0),
    };
    let bytes = password.expose();
    if bytes.len() > length {
        return None;
    }
    let number = if verb == PasswordVerb::Set { 2 } else { 3 };
    // Made whole at once: growing would leave copies behind.
    let mut data = Vec::with_capacity(2 + PASSWORD_BYTES_MAX);
    data.extend([flag | id & USER_ID_MAX, number]);
    data.extend(bytes);
    data.resize(2 + length, 0);
    // A test that fails may count towards a lock: it is made once.
    Some(Command { repeatable: verb == PasswordVerb::Set, ..Command::read(APPLICATION, 0x47, data) })
}

/// Whether IPMI can carry a password at all.
///
/// # Errors
/// It is too long.
pub fn check(password: &Secret) -> Result<(), BadLogin> {
    if password.expose().len() > PASSWORD_BYTES_MAX { Err(BadLogin::Password) } else { Ok(()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accounts_are_read_as_the_bmc_has_them() {
        // User 2 of ipmi_sim: 63 IDs, one enabled, administrator with messaging.
        let access = read_access(&[0x3f, 0x42, 0x01, 0x14]).unwrap();
        assert_eq!((access.ids, access.enabled, access.messaging), (63, Some(true), true));
        assert_eq!(access.limit, Limit::Administrator);
        assert_eq!(read_access(&[0x0f, 0x82, 0x01, 0x0f]).unwrap().limit, Limit::None);
        assert_eq!(read_name(b"admin\0\0\0\0\0\0\0\0\0\0\0"), "admin");
        assert_eq!(read_name(&[0; 16]), "");
        let user = |name: &str, enabled, limit| User { id: 1, name: name.to_owned(), enabled, messaging: true, limit };
        assert!(user("", Some(true), Limit::Administrator).is_open_without_name());
        assert!(user("", None, Limit::User).is_open_without_name(), "not told is not disabled");
        assert!(!user("", Some(false), Limit::User).is_open_without_name());
        assert!(!user("", Some(true), Limit::None).is_open_without_name());
        assert!(!user("root", Some(true), Limit::User).is_open_without_name());
    }

    #[test]
    fn a_password_is_padded_and_never_cut() {
        let short = Secret::new(b"secret".to_vec());
        let set = password(2, PasswordVerb::Set, &short, PasswordField::Twenty).unwrap();
        assert_eq!((set.net_fn, set.command, set.data.len()), (0x06, 0x47, 22));
        assert_eq!(set.data[..9], [0x82, 2, b's', b'e', b'c', b'r', b'e', b't', 0]);
        let test = password(2, PasswordVerb::Test, &short, PasswordField::Sixteen).unwrap();
        assert_eq!((&test.data[..2], test.data.len(), test.repeatable), (&[0x02, 3][..], 18, false));
        let long = Secret::new(vec![b'x'; 17]);
        assert_eq!(password(2, PasswordVerb::Set, &long, PasswordField::Sixteen), None);
        assert!(password(2, PasswordVerb::Set, &long, PasswordField::Twenty).is_some());
        assert_eq!(check(&Secret::new(vec![b'x'; 21])), Err(BadLogin::Password));
        assert!(!format!("{set:?}").contains("115"), "{set:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(data in proptest::collection::vec(any::<u8>(), 0..40), id: u8) {
            let _ = (read_access(&data), read_name(&data), get_access(id), get_name(id));
            for field in [PasswordField::Twenty, PasswordField::Sixteen] {
                let _ = password(id, PasswordVerb::Test, &Secret::new(data.clone()), field);
            }
        }
    }
}
