//! Accounts, and the BMC itself, over an open session.

use super::client::Client;
use super::command;
use super::error::IpmiError;
use super::users::{self, PasswordField, PasswordVerb, User};
use crate::Secret;
use zeroize::Zeroize;

/// Completion codes of Set User Password (section 22.30).
const PASSWORD_DIFFERS: u8 = 0x80;
const PASSWORD_OTHER_LENGTH: u8 = 0x81;

impl Client {
    /// Shows the BMC that the session is wanted: it ends one that is idle for a minute.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn keep_alive(&mut self) -> Result<(), IpmiError> {
        self.device_id().await.map(drop)
    }

    /// Restarts the BMC, not the machine. The session ends with it, often before its answer comes: a lost answer is what
    /// success looks like. Sent once.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn mc_reset_cold(&mut self) -> Result<(), IpmiError> {
        self.run(&command::cold_reset(), "BMC cold reset").await.map(drop)
    }

    /// The accounts of the channel, with and without names. Needs an administrator's session.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn user_list(&mut self) -> Result<Vec<User>, IpmiError> {
        let (mut list, mut ids, mut id) = (Vec::new(), 1, 1);
        while id <= ids && id <= users::USER_ID_MAX {
            let access = match self.run(&users::get_access(id), "user access").await {
                Ok(data) => self.read(users::read_access(&data), "user access")?,
                // Firmware that refuses a slot nobody was ever in.
                Err(IpmiError::Refused { .. }) if id > 1 => {
                    id += 1;
                    continue;
                }
                Err(why) => return Err(why),
            };
            let name = match self.run(&users::get_name(id), "user name").await {
                Ok(data) => users::read_name(&data),
                // 0xcc is how many say "never set".
                Err(IpmiError::Refused { .. }) => String::new(),
                Err(why) => return Err(why),
            };
            let (enabled, messaging, limit) = (access.enabled, access.messaging, access.limit);
            list.push(User { id, name, enabled, messaging, limit });
            ids = ids.max(access.ids);
            id += 1;
        }
        Ok(list)
    }

    /// Gives an account a password, in the field of twenty bytes, or of sixteen if the BMC has no other and it fits.
    ///
    /// # Errors
    /// The password is too long, or as [`Client::run`].
    pub async fn user_set_password(&mut self, id: u8, password: &Secret) -> Result<(), IpmiError> {
        self.password(id, PasswordVerb::Set, password).await
    }

    /// Whether the BMC says that an account's password is this one. A wrong one may count towards a lock of the account,
    /// and some firmware calls every password right: what proves one is a login.
    ///
    /// # Errors
    /// The password is too long, or as [`Client::run`].
    pub async fn user_test_password(&mut self, id: u8, password: &Secret) -> Result<bool, IpmiError> {
        match self.password(id, PasswordVerb::Test, password).await {
            Ok(()) => Ok(true),
            Err(IpmiError::Refused { code: PASSWORD_DIFFERS, .. }) => Ok(false),
            Err(why) => Err(why),
        }
    }

    async fn password(&mut self, id: u8, verb: PasswordVerb, password: &Secret) -> Result<(), IpmiError> {
        let address = self.address;
        users::check(password).map_err(|source| IpmiError::Name { address, source })?;
        let name = if verb == PasswordVerb::Set { "set user password" } else { "test user password" };
        let mut answer = Ok(());
        for field in [PasswordField::Twenty, PasswordField::Sixteen] {
            let Some(mut command) = users::password(id, verb, password, field) else { return answer };
            answer = self.run(&command, name).await.map(drop);
            command.data.zeroize();
            match answer {
                // The length of the field is what it does not like.
                Err(IpmiError::Refused { code: PASSWORD_OTHER_LENGTH | 0xc7 | 0xc8 | 0xcc, .. }) => {}
                other => return other,
            }
        }
        answer
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::scripted::{answering, done, refused};
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    #[tokio::test]
    async fn a_bmc_of_sixteen_bytes_gets_sixteen_and_a_longer_password_never() {
        let mut client = answering(|asked| match &asked.data[..] {
            [flags, ..] if flags & 0x80 != 0 => refused(0xc7),
            [2, 3, rest @ ..] if rest.len() == 16 && rest.starts_with(b"secret\0") => done(&[]),
            [2, 3, ..] => refused(0x80),
            [2, 2, rest @ ..] if rest.len() == 16 => done(&[]),
            _ => refused(0xc9),
        })
        .await;
        assert!(client.user_test_password(2, &secret("secret")).await.unwrap());
        assert!(!client.user_test_password(2, &secret("Secret")).await.unwrap());
        client.user_set_password(2, &secret("sixteen bytes ok")).await.unwrap();
        let longer = client.user_set_password(2, &secret("seventeen bytes no")).await;
        assert!(matches!(longer, Err(IpmiError::Refused { code: 0xc7, .. })), "{longer:?}");
        let longest = client.user_set_password(2, &secret("one and twenty bytes!")).await;
        assert!(matches!(longest, Err(IpmiError::Name { .. })), "{longest:?}");
    }

    #[tokio::test]
    async fn a_cold_reset_is_sent_once_and_its_lost_answer_is_told() {
        use super::super::scripted::Does;
        use std::sync::{Arc, Mutex};
        let sent = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&sent);
        let mut client = answering(move |asked| {
            assert_eq!((asked.net_fn, asked.command), (0x06, 0x02));
            *counted.lock().unwrap() += 1;
            Does::Nothing
        })
        .await;
        let lost = client.mc_reset_cold().await;
        assert!(matches!(lost, Err(IpmiError::ReplyLost { .. })), "{lost:?}");
        assert_eq!(*sent.lock().unwrap(), 1);
    }

    #[tokio::test]
    async fn slots_that_are_refused_are_passed_over() {
        let mut client = answering(|asked| match (asked.command, &asked.data[..]) {
            (0x44, [_, 3]) => refused(0xcc),
            (0x44, [_, 1]) => done(&[4, 0x82, 0, 0x0f]),
            (0x44, _) => done(&[4, 0x42, 0, 0x14]),
            (0x46, [1]) => refused(0xcc),
            _ => done(b"admin\0\0\0\0\0\0\0\0\0\0\0"),
        })
        .await;
        let list = client.user_list().await.unwrap();
        let seen: Vec<_> = list.iter().map(|user| (user.id, &user.name[..], user.enabled)).collect();
        assert_eq!(seen, [(1, "", Some(false)), (2, "admin", Some(true)), (4, "admin", Some(true))]);
    }
}
