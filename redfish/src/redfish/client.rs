//! The requests: as whoever `session` says, one repeated login, ETags as each BMC wants them, tasks, pages.

mod session;

pub(super) use session::drop_secret;

use super::error::{RedfishError, called};
use super::facts::{EtagUse, Facts};
use super::http::{Patience, Request, Response, Transport};
use super::keeper::SessionKeeper;
use super::link::{Link, Origin};
use super::message::Messages;
use super::tls::{Fingerprint, Trust};
use super::walk::{MEMBERS_MAX, Walk, parse};
use crate::Secret;
use crate::controller::{ALWAYS, Guard};
use crate::quirk::Quirks;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use serde_json::Value;
use session::{Auth, basic, secret_header};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Pages of a collection at most.
const PAGES_MAX: usize = 50;
/// Asked again so often when it says that it is not ready.
const READY_TRIES: u32 = 3;
/// And no later than this after its first answer.
const READY_WAIT_MAX: Duration = Duration::from_secs(5);
/// A power command is answered within this, or its effect is read instead.
const POWER_ANSWER: Duration = Duration::from_secs(10);
/// Between two looks at a task.
const TASK_EVERY: Duration = Duration::from_secs(1);
/// Messages that mean *not now*.
const NOT_READY: [&str; 5] =
    ["SYS518", "ResourceNotReadyRetry", "ServiceTemporarilyUnavailable", "ServerNotReady", "NotReady"];
/// Messages that mean that an ETag was wanted, or another one.
const ETAG_WANTED: [&str; 4] =
    ["PreconditionFailed", "PreconditionRequired", "PreconditionHeaderMissing", "EtagMismatch"];

const TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// The account.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Its name.
    pub user: String,
    /// Its password.
    pub password: Secret,
}

/// What is told about a BMC beside its address and account.
#[derive(Clone)]
pub struct Options {
    /// Whom to believe.
    pub trust: Trust,
    /// How long is waited.
    pub patience: Patience,
    /// Which system, where there are several: its link, its `Id` or its UUID.
    pub system: Option<String>,
    /// Keep the connection between requests. Off unless this BMC is known to bear it: some starve or crash (sushy).
    pub keep_alive: bool,
    /// Where the session is kept.
    pub keeper: Arc<dyn SessionKeeper>,
    /// What earlier connections learned.
    pub facts: Facts,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("trust", &self.trust).field("system", &self.system).finish_non_exhaustive()
    }
}

/// A resource and its ETag.
#[derive(Debug, Clone)]
pub(super) struct Resource {
    pub(super) value: Value,
    pub(super) etag: Option<String>,
}

impl Resource {
    pub(super) fn walk(&self) -> Walk<'_> {
        Walk::of(&self.value)
    }
}

/// What a write carries, and who says whether it may still leave.
#[derive(Clone, Copy)]
struct Load<'a> {
    body: &'a Value,
    guard: Guard<'a>,
}

/// What a write was answered with.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) status: StatusCode,
    pub(super) location: Option<String>,
    pub(super) body: Option<Value>,
}

/// One BMC.
#[derive(Debug)]
pub struct Redfish {
    transport: Transport,
    pub(super) credential: Credential,
    auth: Auth,
    keeper: Keeper,
    pub(super) options: Options,
    pub(super) facts: Facts,
    pub(super) quirks: Quirks,
    pub(super) root: Option<Value>,
    pub(super) places: Option<super::system::Places>,
    answer_within: Option<Duration>,
}

struct Keeper(Arc<dyn SessionKeeper>);

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keeper(..)")
    }
}

/// Connects once, sends nothing but the handshake, and gives the certificate's fingerprint for a person to compare.
///
/// # Errors
/// There is no TLS.
pub async fn look(address: SocketAddr, host: &str, patience: Patience) -> Result<Fingerprint, RedfishError> {
    let origin = Origin { host: host.to_owned(), port: address.port() };
    let mut transport = Transport::new(address, origin, None, patience)?;
    transport.touch().await?;
    let what = "certificate";
    transport.seen().ok_or(RedfishError::Missing { address, what, hint: "no TLS server is without one" })
}

impl Redfish {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// The trust cannot be used.
    pub fn new(
        address: SocketAddr,
        host: &str,
        credential: Credential,
        options: Options,
    ) -> Result<Redfish, RedfishError> {
        let origin = Origin { host: host.to_owned(), port: address.port() };
        let mut transport = Transport::new(address, origin, Some(&options.trust), options.patience)?;
        transport.keep_alive = options.keep_alive;
        Ok(Redfish {
            transport,
            credential,
            auth: Auth::None,
            keeper: Keeper(options.keeper.clone()),
            facts: options.facts.clone(),
            options,
            quirks: Quirks::default(),
            root: None,
            places: None,
            answer_within: None,
        })
    }

    /// Where.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.transport.address()
    }

    /// What was learned about this BMC; to be given to the next client of it.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The flags of its make that are in force.
    #[must_use]
    pub fn quirks(&self) -> Quirks {
        self.quirks
    }

    /// The certificate that it showed.
    #[must_use]
    pub fn certificate(&self) -> Option<Fingerprint> {
        self.transport.seen()
    }

    pub(super) fn link(&self, text: &str) -> Result<Link, RedfishError> {
        let address = self.address();
        self.transport.origin().link(text).map_err(|reason| RedfishError::BadLink { address, reason })
    }

    /// The link of what is here, if it is one that is followed.
    pub(super) fn link_of(&self, walk: Walk<'_>) -> Result<Option<Link>, RedfishError> {
        walk.id().map(|text| self.link(text)).transpose()
    }

    /// Reads a resource, logging in if need be. Reading may be repeated, so it is: after a lost session once, and while the
    /// BMC says that it is not ready.
    pub(super) async fn get(&mut self, link: &Link) -> Result<Resource, RedfishError> {
        let began = Instant::now();
        let mut left = READY_TRIES;
        loop {
            left -= 1;
            match self.ask(Method::GET, link, Vec::new(), None).await {
                Ok(response) => return self.resource(link, &response),
                Err(RedfishError::Busy { retry_after, .. })
                    if left > 0 && began.elapsed() + retry_after.unwrap_or(TASK_EVERY) < READY_WAIT_MAX =>
                {
                    sleep(retry_after.unwrap_or(TASK_EVERY)).await;
                }
                Err(why) => return Err(why),
            }
        }
    }

    fn resource(&self, link: &Link, response: &Response) -> Result<Resource, RedfishError> {
        let unreadable =
            |reason| RedfishError::Unreadable { address: self.address(), request: called("GET", link), reason };
        let value = parse(&response.body).map_err(unreadable)?;
        let etag = response
            .header("etag")
            .or_else(|| Walk::of(&value).get("@odata.etag").text())
            .filter(|etag| etag.len() < 256 && etag.bytes().all(|b| b.is_ascii_graphic() || b == b' '))
            .map(str::to_owned);
        Ok(Resource { value, etag })
    }

    /// Does an action. Sent once, never with `If-Match`: iDRAC answers that with 412 for ever.
    pub(super) async fn post(&mut self, link: &Link, body: &Value) -> Result<Written, RedfishError> {
        self.post_if(link, body, ALWAYS).await
    }

    /// The same, if the guard lets it.
    pub(super) async fn post_if(
        &mut self,
        link: &Link,
        body: &Value,
        guard: Guard<'_>,
    ) -> Result<Written, RedfishError> {
        let response = self.ask(Method::POST, link, Vec::new(), Some(Load { body, guard })).await?;
        Ok(self.written(&response))
    }

    /// Does an action whose effect is read anyway, if the guard lets it: a late answer is not waited for.
    pub(super) async fn post_and_read(
        &mut self,
        link: &Link,
        body: &Value,
        guard: Guard<'_>,
    ) -> Result<Written, RedfishError> {
        self.answer_within = Some(POWER_ANSWER);
        let done = self.post_if(link, body, guard).await;
        self.answer_within = None;
        done
    }

    /// Changes a resource, with the ETag that this BMC wants; which one it wants is learned.
    pub(super) async fn patch(&mut self, link: &Link, body: &Value) -> Result<Written, RedfishError> {
        self.patch_if(link, body, ALWAYS).await
    }

    /// The same, if the guard lets it.
    pub(super) async fn patch_if(
        &mut self,
        link: &Link,
        body: &Value,
        guard: Guard<'_>,
    ) -> Result<Written, RedfishError> {
        let load = Load { body, guard };
        let mut tried = Vec::new();
        let mut next = Some(self.facts.etag);
        loop {
            let Some(etag_use) = next else {
                // All forms were refused for their ETag.
                return self.patch_with(link, load, EtagUse::None).await;
            };
            tried.push(etag_use);
            match self.patch_with(link, load, etag_use).await {
                Ok(written) => {
                    self.facts.etag = etag_use;
                    return Ok(written);
                }
                Err(RedfishError::Refused { status, ref messages, .. })
                    if matches!(status, 412 | 428) || messages.any(&ETAG_WANTED) =>
                {
                    next = EtagUse::CHAIN.into_iter().find(|etag_use| !tried.contains(etag_use));
                }
                Err(why) => return Err(why),
            }
        }
    }

    async fn patch_with(&mut self, link: &Link, load: Load<'_>, etag_use: EtagUse) -> Result<Written, RedfishError> {
        let etag = match etag_use {
            EtagUse::None => None,
            EtagUse::Any => Some("*".to_owned()),
            EtagUse::Fresh => self.get(link).await?.etag,
            EtagUse::Strong => self.get(link).await?.etag.map(|etag| strong(&etag)),
        };
        let value = etag.and_then(|etag| HeaderValue::from_str(&etag).ok());
        let headers = value.map(|value| (header::IF_MATCH, value)).into_iter().collect();
        let response = self.ask(Method::PATCH, link, headers, Some(load)).await?;
        Ok(self.written(&response))
    }

    fn written(&self, response: &Response) -> Written {
        let location = response.header("location").map(str::to_owned);
        Written { status: response.status, location, body: parse(&response.body).ok() }
    }

    /// Waits for the task that a write began, if it began one.
    pub(super) async fn finish(
        &mut self,
        written: Written,
        request: &str,
        limit: Duration,
    ) -> Result<(), RedfishError> {
        if written.status != StatusCode::ACCEPTED {
            return Ok(());
        }
        let body = written.body.unwrap_or(Value::Null);
        let place = written.location.as_deref().or_else(|| Walk::of(&body).id());
        // Accepted, and nothing to ask after: what came of it shows when the state is read.
        let Some(place) = place else { return Ok(()) };
        let monitor = self.link(place)?;
        let until = Instant::now() + limit;
        let mut state = "Running".to_owned();
        while Instant::now() < until {
            sleep(TASK_EVERY).await;
            let response = match self.ask(Method::GET, &monitor, Vec::new(), None).await {
                Ok(response) => response,
                // A monitor may vanish when its task is over.
                Err(RedfishError::Refused { status: 404 | 410, .. }) => return Ok(()),
                Err(RedfishError::Busy { .. }) => continue,
                Err(why) => return Err(why),
            };
            let value = parse(&response.body).unwrap_or(Value::Null);
            let task = Walk::of(&value);
            if let Some(word) = task.get("TaskState").text() {
                state = crate::health::tame(word);
            } else if response.status != StatusCode::ACCEPTED {
                return Ok(());
            }
            let failed = task.get("TaskStatus").text().is_some_and(|status| status != "OK");
            match state.as_str() {
                "Completed" if !failed => return Ok(()),
                "Completed" | "Exception" | "Killed" | "Cancelled" | "Interrupted" => {
                    let texts: Vec<&str> =
                        task.get("Messages").items().filter_map(|m| m.get("Message").text()).collect();
                    let text = crate::health::tame(&texts.join("; "));
                    return Err(RedfishError::Task {
                        address: self.address(),
                        request: request.to_owned(),
                        state,
                        text,
                    });
                }
                _ => {}
            }
        }
        let text = format!("not over after {} s", limit.as_secs());
        Err(RedfishError::Task { address: self.address(), request: request.to_owned(), state, text })
    }

    /// The members of a collection, page after page, as links; at most a thousand.
    pub(super) async fn members(&mut self, collection: &Link) -> Result<Vec<Link>, RedfishError> {
        let mut found = Vec::new();
        let mut page = Some(collection.clone());
        let mut seen = Vec::new();
        while let Some(link) = page.take() {
            let resource = self.get(&link).await?;
            for member in resource.walk().get("Members").items() {
                // A foreign link within a collection is left out; the others are no worse for it.
                if let Ok(Some(member)) = self.link_of(member)
                    && !found.contains(&member)
                    && found.len() < MEMBERS_MAX
                {
                    found.push(member);
                }
            }
            seen.push(link);
            if seen.len() < PAGES_MAX {
                page = self.next_page(resource.walk(), &seen)?;
            }
        }
        Ok(found)
    }

    /// The next page of a collection, unless it was seen already.
    pub(super) fn next_page(&self, page: Walk<'_>, seen: &[Link]) -> Result<Option<Link>, RedfishError> {
        let next = page.get("Members@odata.nextLink");
        let text = next.text().or(next.id()).or(page.get("@odata.nextLink").text());
        let next = text.map(|text| self.link(text)).transpose()?;
        Ok(next.filter(|next| !seen.contains(next)))
    }

    /// Sends with authentication; a dead session is opened anew once. Only reads are sent twice.
    async fn ask(
        &mut self,
        method: Method,
        link: &Link,
        headers: Vec<(HeaderName, HeaderValue)>,
        load: Option<Load<'_>>,
    ) -> Result<Response, RedfishError> {
        if matches!(self.auth, Auth::None) {
            self.login().await?;
        }
        let response = self.send(method.clone(), link, headers.clone(), load).await?;
        if response.status != StatusCode::UNAUTHORIZED {
            return self.judge(method.as_str(), link, response);
        }
        // 401 was answered instead of doing anything, so it is sent again, whatever it was.
        match std::mem::replace(&mut self.auth, Auth::None) {
            Auth::Session { .. } => {
                self.keeper.0.forget();
                self.login().await?;
                let mut response = self.send(method.clone(), link, headers.clone(), load).await?;
                // The login was accepted and its session is not: the password is right, sessions do not work here.
                if response.status == StatusCode::UNAUTHORIZED && matches!(self.auth, Auth::Session { .. }) {
                    self.keeper.0.forget();
                    self.facts.basic_only = true;
                    self.auth = Auth::Basic;
                    response = self.send(method.clone(), link, headers, load).await?;
                    return self.judge(method.as_str(), link, response);
                }
                if response.status == StatusCode::UNAUTHORIZED {
                    return Err(RedfishError::Credential { address: self.address() });
                }
                self.judge(method.as_str(), link, response)
            }
            Auth::None | Auth::Basic => Err(RedfishError::Credential { address: self.address() }),
        }
    }

    /// Sends as the account in use. What is dropped half-way leaves the state as it was.
    async fn send(
        &mut self,
        method: Method,
        link: &Link,
        mut headers: Vec<(HeaderName, HeaderValue)>,
        load: Option<Load<'_>>,
    ) -> Result<Response, RedfishError> {
        match &self.auth {
            Auth::None => {}
            Auth::Session { session, .. } => headers.extend(secret_header(session.token.expose()).map(|v| (TOKEN, v))),
            Auth::Basic => headers.push((header::AUTHORIZATION, basic(&self.credential))),
        }
        self.send_plain(method, link, headers, load).await
    }

    /// Sends as nobody, or as whoever the headers say.
    async fn send_plain(
        &mut self,
        method: Method,
        link: &Link,
        headers: Vec<(HeaderName, HeaderValue)>,
        load: Option<Load<'_>>,
    ) -> Result<Response, RedfishError> {
        let guard = load.map_or(ALWAYS, |load| load.guard);
        let body = load.map(|load| load.body.to_string().into_bytes());
        Ok(self.transport.send(Request { method, link, headers, body, guard }, self.answer_within).await?)
    }

    fn judge(&self, method: &str, link: &Link, response: Response) -> Result<Response, RedfishError> {
        let (address, status, request) = (self.address(), response.status, called(method, link));
        if status.is_success() {
            return Ok(response);
        }
        if status.is_redirection() {
            return Err(RedfishError::Redirected { address, request, status: status.as_u16() });
        }
        let messages = Messages::read(&response.body);
        let busy = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        if busy || messages.any(&NOT_READY) {
            let text = if messages.text.is_empty() { format!("status {status}") } else { messages.text };
            return Err(RedfishError::Busy { address, retry_after: retry_after(&response), text });
        }
        if status == StatusCode::FORBIDDEN {
            let text = if messages.text.is_empty() { String::new() } else { format!(": {}", messages.text) };
            return Err(RedfishError::Forbidden { address, request, text });
        }
        Err(RedfishError::Refused { address, request, status: status.as_u16(), messages })
    }

    /// The service root. It is read without a credential: it shows whether Redfish is spoken at all.
    pub(super) async fn service_root(&mut self) -> Result<Value, RedfishError> {
        if let Some(root) = &self.root {
            return Ok(root.clone());
        }
        let address = self.address();
        let mut answer = Err(RedfishError::Missing { address, what: "service root", hint: "it speaks no Redfish" });
        for path in ["/redfish/v1/", "/redfish/v1"] {
            let link = self.link(path)?;
            let sent = self.send_plain(Method::GET, &link, Vec::new(), None).await;
            answer = sent.and_then(|response| {
                let response = self.judge("GET", &link, response)?;
                Ok(self.resource(&link, &response)?.value)
            });
            // Some send the one to the other; neither is followed, both are known.
            if !matches!(answer, Err(RedfishError::Redirected { .. } | RedfishError::Refused { status: 404, .. })) {
                break;
            }
        }
        let root = answer?;
        self.root = Some(root.clone());
        Ok(root)
    }

    /// Asks without a credential and gives the status.
    pub(super) async fn ask_as_stranger(&mut self, path: &str) -> Result<u16, RedfishError> {
        let link = self.link(path)?;
        Ok(self.send_plain(Method::GET, &link, Vec::new(), None).await?.status.as_u16())
    }
}

/// A weak ETag as a strong one; doubled quotes are folded.
fn strong(etag: &str) -> String {
    let bare = etag.trim().trim_start_matches("W/").trim_matches('"');
    format!("\"{bare}\"")
}

/// The header, in seconds; as a date it is not used: a BMC's clock is often wrong.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds: u64 = response.header("retry-after")?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(3_600)))
}
