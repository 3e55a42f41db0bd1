//! What a BMC tells everybody: asked without a credential, and whatever its certificate.

use super::client::Redfish;
use super::error::RedfishError;
use super::http::{Patience, Request, Transport};
use super::link::{Link, Origin};
use super::tls::Fingerprint;
use super::walk::{Walk, parse};
use crate::controller::ALWAYS;
use crate::health::tame;
use hyper::Method;
use std::net::SocketAddr;

/// Its greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// The certificate that it shows.
    pub certificate: Fingerprint,
    /// Vendor, as the service root tells.
    pub vendor: Option<String>,
    /// Product, as the service root tells.
    pub product: Option<String>,
    /// Redfish version.
    pub version: Option<String>,
    /// UUID of the service.
    pub uuid: Option<String>,
}

async fn ask(transport: &mut Transport, path: &str) -> Result<(u16, Vec<u8>), RedfishError> {
    let address = transport.address();
    let link = Link::path(path).map_err(|reason| RedfishError::BadLink { address, reason })?;
    let request = Request { method: Method::GET, link: &link, headers: Vec::new(), body: None, guard: ALWAYS };
    let response = transport.send(request, None).await?;
    Ok((response.status.as_u16(), response.body.to_vec()))
}

/// Reads the service root as a stranger.
///
/// # Errors
/// There is no TLS, or what answers is no Redfish.
pub async fn greet(address: SocketAddr, host: &str, patience: Patience) -> Result<Greeting, RedfishError> {
    let origin = Origin { host: host.to_owned(), port: address.port() };
    let mut transport = Transport::new(address, origin, None, patience)?;
    let (status, body) = ask(&mut transport, "/redfish/v1/").await?;
    let none = RedfishError::Missing { address, what: "Redfish service root", hint: "something else answers there" };
    if !(200..300).contains(&status) {
        return Err(none);
    }
    let value = parse(&body).map_err(|_| none)?;
    let root = Walk::of(&value);
    let is_redfish = root.get("RedfishVersion").is_some() || root.get("Systems").is_some();
    let hint = "something else answers there";
    let missing = |what| RedfishError::Missing { address, what, hint };
    if !is_redfish {
        return Err(missing("Redfish service root"));
    }
    Ok(Greeting {
        certificate: transport.seen().ok_or(missing("certificate"))?,
        vendor: root.get("Vendor").text().map(tame),
        product: root.get("Product").text().map(tame),
        version: root.get("RedfishVersion").text().map(tame),
        uuid: root.get("UUID").text().map(tame),
    })
}

impl Redfish {
    /// Whether a stranger may read the systems: he must not.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn lets_strangers_read(&mut self) -> Result<bool, RedfishError> {
        Ok(matches!(self.ask_as_stranger("/redfish/v1/Systems").await?, 200..=299))
    }
}
