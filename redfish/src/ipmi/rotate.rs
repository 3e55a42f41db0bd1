//! The password of an account changed so that nobody is locked out: set, a fresh login with it, else back to the old one in
//! the session that is still open.

use super::client::{Client, Patience};
use super::crypto::Suite;
use super::error::IpmiError;
use super::handshake::{Login, LoginError, Privilege};
use crate::Secret;
use crate::controller::{BmcError, Kind};
use crate::rotation::Rotation;
use std::net::SocketAddr;

/// Whether the login is accepted now. Tried once.
///
/// # Errors
/// The BMC cannot tell.
pub async fn accepts(address: SocketAddr, login: &Login, patience: Patience) -> Result<bool, IpmiError> {
    match Client::open(address, login, &Suite::PREFERENCE, patience).await {
        Ok(client) => {
            client.close().await;
            Ok(true)
        }
        Err(IpmiError::Login { source: LoginError::PasswordWrong | LoginError::UserRefused, .. }) => Ok(false),
        Err(why) => Err(why),
    }
}

/// Changes the password of an account, which must be an administrator.
pub async fn rotate_password(
    address: SocketAddr,
    user: &str,
    old: &Secret,
    new: &Secret,
    patience: Patience,
) -> Rotation {
    let login = |password: &Secret| {
        Login::new(user.to_owned(), password.clone(), Privilege::Administrator)
            .map_err(|why| BmcError::new(Kind::Refused, why.to_string()))
    };
    let (with_old, with_new) = match (login(old), login(new)) {
        (Ok(with_old), Ok(with_new)) => (with_old, with_new),
        (Err(reason), _) | (_, Err(reason)) => return Rotation::Unchanged { reason },
    };
    let mut client = match Client::open(address, &with_old, &Suite::PREFERENCE, patience).await {
        Ok(client) => client,
        Err(why) => return Rotation::Unchanged { reason: why.into() },
    };
    let done = in_session(&mut client, user, old, new, &with_old, &with_new, patience, address).await;
    client.close().await;
    done
}

#[allow(clippy::too_many_arguments)] // Two passwords, each as itself and as a login.
async fn in_session(
    client: &mut Client,
    user: &str,
    old: &Secret,
    new: &Secret,
    with_old: &Login,
    with_new: &Login,
    patience: Patience,
    address: SocketAddr,
) -> Rotation {
    let id = match client.user_list().await {
        Ok(users) => users.into_iter().find(|one| one.name == user).map(|one| one.id),
        Err(why) => return Rotation::Unchanged { reason: why.into() },
    };
    let Some(id) = id else {
        let reason = BmcError::new(Kind::NotOffered, "the BMC does not list the account that is logged in");
        return Rotation::Unchanged { reason };
    };
    let set = client.user_set_password(id, new).await;
    if let Err(why) = set {
        // Whether a lost one was done shows at the login.
        if !matches!(why, IpmiError::ReplyLost { .. }) {
            return Rotation::Unchanged { reason: why.into() };
        }
    }
    match accepts(address, with_new, patience).await {
        Ok(true) => return Rotation::Done,
        Ok(false) => {}
        Err(why) => return Rotation::Unknown { reason: why.into() },
    }
    // Cut to sixteen bytes, or kept as it was.
    let reason = BmcError::new(Kind::Refused, "the BMC took the new password and then refused a login with it");
    let _ = client.user_set_password(id, old).await;
    match accepts(address, with_old, patience).await {
        Ok(true) => Rotation::Unchanged { reason },
        Ok(false) | Err(_) => Rotation::Unknown { reason },
    }
}
