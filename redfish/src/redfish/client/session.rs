//! Who we are to a BMC: a session that is opened once, kept and closed, or the password where there are none or none is free.

use super::{Load, Redfish};
use crate::Secret;
use crate::controller::ALWAYS;
use crate::redfish::client::Credential;
use crate::redfish::error::RedfishError;
use crate::redfish::keeper::KeptSession;
use crate::redfish::message::Messages;
use crate::redfish::walk::{Walk, parse};
use base64::Engine as _;
use hyper::header::{self, HeaderValue};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// Messages that mean that all sessions are taken.
const SESSIONS_TAKEN: [&str; 4] =
    ["SessionLimitExceeded", "CreateLimitReachedForResource", "RAC0218", "MaximumSessionsReached"];

/// How requests are authenticated.
#[derive(Debug)]
pub(super) enum Auth {
    /// Not yet.
    None,
    /// By a session; fresh ones were opened in this process.
    Session { session: KeptSession, fresh: bool },
    /// By the password on every request.
    Basic,
}

impl Redfish {
    /// Opens a session, or falls back to Basic where there are none or none is free; never asks for a second one.
    pub(super) async fn login(&mut self) -> Result<(), RedfishError> {
        let root = self.service_root().await?;
        if let Some(session) = self.keeper.0.load() {
            self.auth = Auth::Session { session, fresh: false };
            return Ok(());
        }
        if self.facts.basic_only || self.quirks.basic_only {
            self.auth = Auth::Basic;
            return Ok(());
        }
        let root = Walk::of(&root);
        let sessions = match root.at(&["Links", "Sessions"]).id() {
            Some(text) => self.link(text)?,
            None if root.get("SessionService").is_some() => self.link("/redfish/v1/SessionService/Sessions")?,
            None => {
                self.facts.basic_only = true;
                self.auth = Auth::Basic;
                return Ok(());
            }
        };
        let password = Zeroizing::new(String::from_utf8_lossy(self.credential.password.expose()).into_owned());
        let body = json!({ "UserName": self.credential.user, "Password": password.as_str() });
        let load = Load { body: &body, guard: ALWAYS };
        let response = self.send_plain(Method::POST, &sessions, Vec::new(), Some(load)).await;
        drop_secret(body);
        let response = response?;
        let messages = Messages::read(&response.body);
        let status = response.status;
        let taken = messages.any(&SESSIONS_TAKEN) || status == StatusCode::SERVICE_UNAVAILABLE;
        let absent = matches!(status.as_u16(), 404 | 405 | 501);
        if status.is_success() {
            let token = response.header("x-auth-token").filter(|token| !token.is_empty()).map(str::to_owned);
            let body = parse(&response.body).unwrap_or(Value::Null);
            // A header that points elsewhere is not followed, but the session must be closed some day.
            let session = Walk::of(&body);
            let under = session.get("Id").text().and_then(|id| sessions.under(id).ok());
            let named = [response.header("location"), session.id()].into_iter().flatten();
            let link = named.filter_map(|place| self.link(place).ok()).next().or(under);
            match (token, link) {
                (Some(token), Some(link)) => {
                    let token = Secret::new(token.into_bytes());
                    let session = KeptSession { link: link.as_str().to_owned(), token };
                    self.keeper.0.store(&session);
                    self.auth = Auth::Session { session, fresh: true };
                }
                // A session that could never be closed is not used: it would be one of few, for ever.
                _ => {
                    self.facts.basic_only = true;
                    self.auth = Auth::Basic;
                }
            }
            return Ok(());
        }
        if taken || absent {
            self.facts.basic_only = absent;
            self.auth = Auth::Basic;
            return Ok(());
        }
        match status.as_u16() {
            // Some answer a wrong password with 400.
            400 | 401 | 403 => Err(RedfishError::Credential { address: self.address() }),
            _ => self.judge("POST", &sessions, response).map(drop),
        }
    }

    /// Whether the account and its password are accepted now: a fresh login, whatever session is open.
    pub(in crate::redfish) async fn accepts(&mut self, credential: &Credential) -> Result<bool, RedfishError> {
        let systems = self.link("/redfish/v1/Systems")?;
        let headers = vec![(header::AUTHORIZATION, basic(credential))];
        let answer = self.send_plain(Method::GET, &systems, headers, None).await;
        match answer?.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(false),
            status if status.is_success() => Ok(true),
            status => Err(RedfishError::Busy {
                address: self.address(),
                retry_after: None,
                text: format!("status {status} at a login"),
            }),
        }
    }

    /// Whether a session is open, and whether this process opened it.
    #[must_use]
    pub fn session(&self) -> Option<bool> {
        match &self.auth {
            Auth::Session { fresh, .. } => Some(*fresh),
            _ => None,
        }
    }

    /// Closes the session at the BMC, if one is open.
    pub async fn close(mut self) {
        let Auth::Session { session, .. } = &self.auth else { return };
        if let Ok(link) = self.link(&session.link) {
            let _ = self.send(Method::DELETE, &link, Vec::new(), None).await;
        }
        self.keeper.0.forget();
    }
}

pub(super) fn basic(credential: &Credential) -> HeaderValue {
    let mut plain = Zeroizing::new(credential.user.clone().into_bytes());
    plain.push(b':');
    plain.extend_from_slice(credential.password.expose());
    let text = Zeroizing::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(&*plain)));
    // Base64 is always a header.
    secret_header(text.as_bytes()).unwrap_or(HeaderValue::from_static(""))
}

/// A header that no log shows.
pub(super) fn secret_header(bytes: &[u8]) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(bytes).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Wipes the password out of a request's body.
pub(in crate::redfish) fn drop_secret(mut body: Value) {
    if let Some(object) = body.as_object_mut() {
        for (_, value) in object.iter_mut() {
            if let Value::String(text) = value {
                zeroize::Zeroize::zeroize(text);
            }
        }
    }
}
