//! The account: whether it is accepted, and its password changed so that nobody is locked out.

use super::client::{Credential, Redfish, drop_secret};
use super::error::RedfishError;
use super::link::Link;
use super::walk::Walk;
use crate::Secret;
use crate::rotation::Rotation;
use serde_json::json;
use zeroize::Zeroizing;

impl Redfish {
    /// Whether the account is accepted now. Tried once.
    ///
    /// # Errors
    /// The BMC cannot tell.
    pub async fn check_account(&mut self) -> Result<bool, RedfishError> {
        let credential = self.credential.clone();
        self.accepts(&credential).await
    }

    /// Changes the password of the account in use: set, then a fresh login with the new one, else back to the old one.
    pub async fn rotate_password(&mut self, new: &Secret) -> Rotation {
        let account = match self.account().await {
            Ok(account) => account,
            Err(why) => return Rotation::Unchanged { reason: why.into() },
        };
        let old = self.credential.clone();
        let set = self.set_password(&account, new).await;
        let lost = match set {
            Ok(()) => None,
            // Whether it was done shows at the login.
            Err(why) if why.may_have_been_done() => Some(why),
            Err(why) => return Rotation::Unchanged { reason: why.into() },
        };
        let fresh = Credential { user: old.user.clone(), password: new.clone() };
        match self.accepts(&fresh).await {
            Ok(true) => {
                self.credential = fresh;
                return Rotation::Done;
            }
            Ok(false) => {}
            Err(why) => return Rotation::Unknown { reason: why.into() },
        }
        let refused = || RedfishError::NotSet {
            address: self.address(),
            what: "a new password".to_owned(),
            seen: "the login with it refused".to_owned(),
        };
        let reason = lost.unwrap_or_else(refused).into();
        // Cut to another length, or kept as it was: the session in use may still undo it.
        let _ = self.set_password(&account, &old.password).await;
        match self.accepts(&old).await {
            Ok(true) => Rotation::Unchanged { reason },
            Ok(false) | Err(_) => Rotation::Unknown { reason },
        }
    }

    async fn set_password(&mut self, account: &Link, password: &Secret) -> Result<(), RedfishError> {
        let text = Zeroizing::new(String::from_utf8_lossy(password.expose()).into_owned());
        let body = json!({ "Password": text.as_str() });
        let answer = self.patch(account, &body).await;
        drop_secret(body);
        answer.map(drop)
    }

    async fn account(&mut self) -> Result<Link, RedfishError> {
        let address = self.address();
        let root = self.service_root().await?;
        let hint = "change the password in the BMC's own pages";
        let missing = |what| RedfishError::Missing { address, what, hint };
        let service = self.link_of(Walk::of(&root).get("AccountService"))?.ok_or(missing("account service"))?;
        let service = self.get(&service).await?;
        let accounts = self.link_of(service.walk().get("Accounts"))?.ok_or(missing("list of accounts"))?;
        for link in self.members(&accounts).await? {
            let account = match self.get(&link).await {
                Ok(account) => account,
                // An account that may not see the others still sees itself.
                Err(RedfishError::Forbidden { .. } | RedfishError::Refused { .. }) => continue,
                Err(why) => return Err(why),
            };
            if account.walk().get("UserName").text() == Some(self.credential.user.as_str()) {
                return Ok(link);
            }
        }
        Err(missing("account of this name"))
    }
}
