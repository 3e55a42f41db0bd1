//! The installer's conversation, as the appliance holds it: HTTPS, three questions, small bodies.

use super::job::{State, go_into_one_answer};
use super::jobs::{HelloState, JobError};
use super::shelf::{Shelf, starts};
use super::stock::StockError;
use super::stored_content::Verdict;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use protocol::digest::Sha256;
use protocol::install::{
    Answer, BODY_LIMIT_BYTES, FIRST_BOOT_PATH, Failure, FailureCode, FirstBoot, HELLO_PATH, Hello, ImageSource,
    InstallOrder, InstallStage, Order, Problem, ProveOrder, REPORT_PATH, Report, Welcome,
};
use protocol::name::Name;
use pxe::gate::{self, Stage, Tickets as _, Token};
use pxe::recorder::event::BootEvent;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Connections at once.
const CONNECTIONS: usize = 256;
/// For a TLS handshake, and for the head of a request.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For a whole request.
const REQUEST: Duration = Duration::from_secs(60);

/// Why an installer has no order.
enum NoOrder {
    /// The image is not read to its end.
    Yet,
    /// There will be none in this job.
    Never(FailureCode, String),
}

impl NoOrder {
    fn of_stock(error: StockError) -> Self {
        let code = match &error {
            StockError::Untrusted { .. } => FailureCode::UntrustedManifest,
            StockError::Changed { .. } => FailureCode::BadTable,
            StockError::Io { .. } => FailureCode::Refused,
        };
        Self::Never(code, format!("{error}; nothing was written"))
    }
}

impl From<String> for NoOrder {
    fn from(sentence: String) -> Self {
        Self::Never(FailureCode::Refused, sentence)
    }
}

/// Who makes the files of the first boot, when the image is verified on the disk: only then is a credential made.
pub trait FirstBootSource: Send + Sync + 'static {
    /// The files for a job.
    fn files<'a>(&'a self, job: &'a Name) -> Pin<Box<dyn Future<Output = Result<FirstBoot, String>> + Send + 'a>>;
}

/// The files that were given when the job was opened.
#[derive(Debug)]
pub struct GivenFiles(pub Arc<Shelf>);

impl FirstBootSource for GivenFiles {
    fn files<'a>(&'a self, job: &'a Name) -> Pin<Box<dyn Future<Output = Result<FirstBoot, String>> + Send + 'a>> {
        Box::pin(async move {
            let job = self.0.jobs.job(job).ok_or("there is no such job")?;
            Ok(FirstBoot { files: job.task.first_boot })
        })
    }
}

/// The appliance's side of the conversation.
pub struct InstallerApi {
    shelf: Arc<Shelf>,
    first_boot: Arc<dyn FirstBootSource>,
}

impl std::fmt::Debug for InstallerApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InstallerApi")
    }
}

pub(super) type Refused = (StatusCode, Problem);

fn problem(status: StatusCode, code: &str, sentence: impl Into<String>) -> Refused {
    let code = code.parse().or_else(|_| "problem".parse::<Name>());
    let sentence = sentence.into();
    match code {
        Ok(code) => (status, Problem { code, sentence }),
        Err(_) => unreachable!("'problem' is a name"),
    }
}

fn forbidden(sentence: impl Into<String>) -> Refused {
    problem(StatusCode::FORBIDDEN, "refused", sentence)
}

fn unavailable(error: &JobError) -> Refused {
    problem(StatusCode::SERVICE_UNAVAILABLE, "not-recorded", format!("{error}. Ask again"))
}

impl InstallerApi {
    /// The conversation about what is on this shelf.
    #[must_use]
    pub fn new(shelf: Arc<Shelf>, first_boot: Arc<dyn FirstBootSource>) -> Self {
        Self { shelf, first_boot }
    }

    /// Serves until it is cancelled.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn run(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.shelf.identity.tls));
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let local = listener.local_addr()?;
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: others will be closed.
                    tracing::warn!(%error, "no connection of an installer can be taken");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let (api, acceptor, stop) = (Arc::clone(&self), acceptor.clone(), stop.clone());
            tokio::spawn(async move {
                let _place = place;
                let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
                let service = hyper::service::service_fn(move |request| {
                    let api = Arc::clone(&api);
                    async move { Ok::<_, Infallible>(api.answer(request, peer, local).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HANDSHAKE)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    () = stop.cancelled() => {}
                    _ = connection => {}
                }
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr, local: SocketAddr) -> Response<Full<Bytes>> {
        let answered = tokio::time::timeout(REQUEST, self.route(request, peer, local)).await;
        let refused =
            problem(StatusCode::SERVICE_UNAVAILABLE, "slow", "the answer took longer than a minute. Ask again");
        match answered.unwrap_or(Err(refused)) {
            Ok(body) => respond(StatusCode::OK, body),
            Err((status, problem)) => {
                tracing::warn!(%peer, %status, code = %problem.code, "an installer was refused: {}", problem.sentence);
                respond(status, serde_json::to_vec(&problem).unwrap_or_default())
            }
        }
    }

    async fn route(&self, request: Request<Incoming>, peer: SocketAddr, local: SocketAddr) -> Result<Vec<u8>, Refused> {
        let path = request.uri().path().to_owned();
        if request.method() != Method::POST || ![HELLO_PATH, REPORT_PATH, FIRST_BOOT_PATH].contains(&path.as_str()) {
            return Err(problem(
                StatusCode::NOT_FOUND,
                "nothing-here",
                "there is nothing here: an installer of another release asks",
            ));
        }
        let session = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let session = session.and_then(|text| text.strip_prefix("Bearer ")).map(str::to_owned);
        let body = Limited::new(request.into_body(), BODY_LIMIT_BYTES).collect().await;
        let body = body.map_err(|_| {
            problem(StatusCode::PAYLOAD_TOO_LARGE, "body", "the body is cut short or larger than 1 MiB")
        })?;
        let body = body.to_bytes();
        match path.as_str() {
            HELLO_PATH => encode(&self.hello(peer, local, read(&body)?)?),
            REPORT_PATH => {
                let job = self.session(peer, session.as_deref())?;
                encode(&self.report(&job, &read(&body)?)?)
            }
            _ => {
                let job = self.session(peer, session.as_deref())?;
                body_of(&self.first_boot(&job).await?)
            }
        }
    }

    pub(super) fn hello(&self, peer: SocketAddr, local: SocketAddr, hello: Hello) -> Result<Welcome, Refused> {
        let shelf = &self.shelf;
        if hello.protocol != protocol::PROTOCOL_VERSION {
            let sentence = format!(
                "the installer speaks version {}, this appliance version {}: build the boot set with this release",
                hello.protocol,
                protocol::PROTOCOL_VERSION
            );
            return Err(problem(StatusCode::FORBIDDEN, "version", sentence));
        }
        // One answer for every wrong job, card or nonce: nobody learns which of them was right.
        let no = || forbidden("no ticket is open for this job, card and nonce");
        let job = shelf.jobs.job(&hello.job).ok_or_else(no)?;
        let ticket = shelf.jobs.ticket(&hello.job).ok_or_else(no)?;
        let now = shelf.jobs.now();
        let mac = hello.mac.parse().map_err(|_| no())?;
        let nonce: bool = job.nonce.as_bytes().ct_eq(hello.nonce.as_bytes()).into();
        let of_the_card = hello.inventory.nics.iter().any(|nic| nic.mac.parse() == Ok(mac));
        if !nonce || !of_the_card || ticket.mac != mac || !self.is_card(peer, &ticket) {
            return Err(no());
        }
        if let Err(why) = gate::may_boot(Some(&ticket), mac, &hello.job, Stage::Hello, now) {
            shelf.recorder.note(&job.name, mac, now, BootEvent::Refused { stage: Stage::Hello, why });
            return Err(forbidden(format!("the installer is not welcome: {why}")));
        }
        if Token::parse(&hello.boot).is_none() {
            return Err(forbidden("the installer's boot number is not 32 hexadecimal digits"));
        }
        // An installer repeats its hello until it has its answer, and reports a later stage only then.
        if let State::Installing { boot, stage, .. } = &job.state
            && *boot == hello.boot
            && *stage > InstallStage::Hello
        {
            return Err(forbidden("this installer has its order and reports: it is not given to it again"));
        }
        let order = match self.order(&job, &ticket, &hello, local) {
            Ok(order) => order,
            Err(NoOrder::Yet) => {
                let sentence = "the image is being read to its end before a disk is written. Ask again";
                return Err(problem(StatusCode::SERVICE_UNAVAILABLE, "image-is-read", sentence));
            }
            Err(NoOrder::Never(code, sentence)) => {
                self.fail(
                    &job.name,
                    Failure {
                        stage: InstallStage::Hello,
                        code,
                        sentence: sentence.clone(),
                        candidates: Vec::new(),
                        disk_touched: false,
                    },
                );
                return Err(forbidden(sentence));
            }
        };
        let session = random_session()?;
        let system_uuid = hello.inventory.system_uuid.as_deref();
        let said = shelf.jobs.hello(&job.name, &hello.boot, Sha256::of(session.as_bytes()), system_uuid);
        match said.map_err(|e| unavailable(&e))? {
            HelloState::First => shelf.recorder.note(&job.name, mac, now, BootEvent::Hello),
            HelloState::Again => {}
            HelloState::Over => return Err(forbidden("the job is over: the installer is not welcome any more")),
            HelloState::Second => {
                // Somebody else knows the nonce, or the host runs twice. Which of the two is right cannot be told: both stop.
                let sentence = "a second installer said hello for this job while the first one lives: neither is believed. \
                    Look who is on the boot network, then open a new job";
                self.fail(
                    &job.name,
                    Failure {
                        stage: InstallStage::Hello,
                        code: FailureCode::Refused,
                        sentence: sentence.to_owned(),
                        candidates: Vec::new(),
                        disk_touched: true,
                    },
                );
                return Err(problem(StatusCode::CONFLICT, "second-installer", sentence));
            }
        }
        Ok(Welcome { protocol: protocol::PROTOCOL_VERSION, session, order })
    }

    fn order(
        &self,
        job: &super::job::Job,
        ticket: &gate::Ticket,
        hello: &Hello,
        local: SocketAddr,
    ) -> Result<Order, NoOrder> {
        let IpAddr::V4(address) = local.ip() else { return Err("only IPv4 is served".to_owned().into()) };
        let task = &job.task;
        if task.prove {
            if !hello.proves {
                let old = "the installer of this boot set cannot prove a machine: build the boot set with this release";
                return Err(old.to_owned().into());
            }
            return Ok(Order::Prove(Box::new(ProveOrder { disk: task.disk.clone() })));
        }
        // Asked here for files that came another way than by our command line: afterwards the disk is written.
        go_into_one_answer(&task.first_boot).map_err(|why| format!("{why}; nothing was written"))?;
        let (name, version) = task.of_image().ok_or_else(|| "the job names no image".to_owned())?;
        let image = self.shelf.image(name, version).map_err(NoOrder::of_stock)?;
        if image.manifest.arch != hello.inventory.arch {
            return Err(format!(
                "the image is for {:?}, the host is {:?}: choose another image",
                image.manifest.arch, hello.inventory.arch
            )
            .into());
        }
        if !starts(hello.inventory.firmware, &image) {
            return Err(format!(
                "the image cannot be started by {:?}, with which this host booted: choose another image or switch its firmware",
                hello.inventory.firmware
            )
            .into());
        }
        match self.shelf.verdict(&image) {
            Verdict::Whole => {}
            Verdict::Reading => return Err(NoOrder::Yet),
            Verdict::Damaged(what) => {
                let sentence = format!("{name} {version}: {what}; nothing was written");
                return Err(NoOrder::Never(FailureCode::BadChunk, sentence));
            }
        }
        let port = self
            .shelf
            .ports
            .get(&address)
            .ok_or_else(|| "the request came in on an address that is not served".to_owned())?
            .http;
        let http = SocketAddrV4::new(address, port);
        let token = ticket.token.as_str();
        Ok(Order::Install(Box::new(InstallOrder {
            disk: task.disk.clone(),
            image: ImageSource {
                manifest: image.manifest_text.clone(),
                signature: image.signature.clone(),
                table_url: format!("http://{http}/t/{token}/image/chunks"),
                content_url: format!("http://{http}/t/{token}/image/content"),
            },
            mode: task.mode,
            foreign_data_approved: task.foreign_data_approved,
            set_boot_entry: image.manifest.efi_loader.is_some(),
        })))
    }

    /// The job of a session.
    fn session(&self, peer: SocketAddr, session: Option<&str>) -> Result<Name, Refused> {
        let unknown = || problem(StatusCode::UNAUTHORIZED, "session", "this session is not known: say hello first");
        let given = Sha256::of(session.ok_or_else(unknown)?.as_bytes());
        let of_session =
            |job: &super::job::Job| matches!(&job.state, State::Installing { session, .. } if *session == given);
        let job = self.shelf.jobs.all().into_iter().find(of_session).ok_or_else(unknown)?;
        let ticket = self.shelf.jobs.ticket(&job.name).ok_or_else(unknown)?;
        if !self.is_card(peer, &ticket) {
            return Err(unknown());
        }
        Ok(job.name)
    }

    fn is_card(&self, peer: SocketAddr, ticket: &gate::Ticket) -> bool {
        match peer.ip() {
            IpAddr::V4(address) => self.shelf.may_be(address, ticket.mac),
            IpAddr::V6(_) => false,
        }
    }

    fn report(&self, name: &Name, report: &Report) -> Result<Answer, Refused> {
        let shelf = &self.shelf;
        let (Some(job), Some(ticket)) = (shelf.jobs.job(name), shelf.jobs.ticket(name)) else {
            return Ok(Answer::Stop { why: "the job is over".to_owned() });
        };
        let (mac, now) = (ticket.mac, shelf.jobs.now());
        if let Err(why) = ticket.alive(now) {
            return Ok(Answer::Stop { why: format!("the job's right has ended: {why}") });
        }
        if let Some(failure) = &report.failure {
            self.fail(name, failure.clone());
            return Ok(Answer::Continue);
        }
        let State::Installing { stage: before, boot, session } = &job.state else {
            return Ok(Answer::Stop { why: "the job is not in the hands of an installer".to_owned() });
        };
        shelf.jobs.told(name, report.stage, report.done_bytes);
        if report.stage > *before {
            let state = match report.stage {
                InstallStage::Done => State::Installed,
                stage => State::Installing { boot: boot.clone(), session: *session, stage },
            };
            let going = |now: &State| matches!(now, State::Installing { .. }).then_some(state);
            if shelf.jobs.advance(name, going).map_err(|e| unavailable(&e))?.is_none() {
                return Ok(Answer::Stop { why: "the job was closed meanwhile".to_owned() });
            }
            if *before < InstallStage::Verify
                && let Some(count) = report.count
                && report.stage >= InstallStage::Verify
            {
                shelf.recorder.note(name, mac, now, BootEvent::Written { count });
            }
            shelf.recorder.note(
                name,
                mac,
                now,
                BootEvent::Stage { stage: report.stage, since_start_ms: report.since_start_ms },
            );
        }
        Ok(Answer::Continue)
    }

    fn fail(&self, name: &Name, failure: Failure) {
        let state = State::Failed { failure: Box::new(failure.clone()) };
        match self.shelf.jobs.advance(name, |state_now| match state_now {
            State::Armed | State::Installing { .. } => Some(state),
            State::Installed | State::Failed { .. } | State::Closed { .. } => None,
        }) {
            Ok(Some(job)) => {
                if let Some(mac) = job.mac() {
                    self.shelf.recorder.note(
                        name,
                        mac,
                        self.shelf.jobs.now(),
                        BootEvent::Failed { failure: Box::new(failure) },
                    );
                }
            }
            Ok(None) => {}
            Err(error) => tracing::error!(job = %name, %error, "a failed install could not be recorded"),
        }
    }

    async fn first_boot(&self, name: &Name) -> Result<FirstBoot, Refused> {
        let job = self.shelf.jobs.job(name).ok_or_else(|| forbidden("the job is over"))?;
        match job.state {
            State::Installing { stage, .. } if stage > InstallStage::Verify && !job.task.prove => {}
            // Its report of a later stage may be lost, with a restart of ours: the next one comes within a second.
            State::Installing { .. } if !job.task.prove => {
                let sentence = "by its last report the image is not verified on the disk yet. Report, and ask again";
                return Err(problem(StatusCode::SERVICE_UNAVAILABLE, "first-boot", sentence));
            }
            _ => {
                return Err(forbidden(
                    "the files of the first boot are given when the image is verified on the disk, not before",
                ));
            }
        }
        let made = self.first_boot.files(name).await;
        made.map_err(|why| problem(StatusCode::SERVICE_UNAVAILABLE, "first-boot", format!("{why}. Ask again")))
    }
}

fn random_session() -> Result<String, Refused> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|e| {
        problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "random",
            format!("the appliance has no random numbers: {e}. Ask again"),
        )
    })?;
    Ok(Token::new(random).as_str().to_owned())
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body)
        .map_err(|e| problem(StatusCode::BAD_REQUEST, "body", format!("the body is not understood: {e}")))
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Refused> {
    serde_json::to_vec(value).map_err(|e| problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", e.to_string()))
}

/// The files of a first boot as an answer. More than an installer reads is no answer; asked again it would be the same,
/// so that is its end.
fn body_of(files: &FirstBoot) -> Result<Vec<u8>, Refused> {
    let body = encode(files)?;
    if body.len() <= BODY_LIMIT_BYTES {
        return Ok(body);
    }
    let sentence = format!(
        "the files of the first boot, those of the join among them, have {} bytes as they are sent (in Base64), and an \
         installer reads at most {BODY_LIMIT_BYTES}: the image is on the disk, and none of these files. Make the \
         templates of the join or the files that were given with the job smaller, then install again",
        body.len()
    );
    Err(problem(StatusCode::UNPROCESSABLE_ENTITY, "first-boot-too-long", sentence))
}

fn respond(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::install::FirstBootFile;

    #[test]
    fn files_that_no_installer_would_read_are_refused_for_good_and_in_words() {
        let files = |characters: usize| FirstBoot {
            files: vec![FirstBootFile { path: "/f".to_owned(), mode: 0o600, content: "A".repeat(characters) }],
        };
        let around = body_of(&files(0)).unwrap().len();
        assert_eq!(body_of(&files(BODY_LIMIT_BYTES - around)).unwrap().len(), BODY_LIMIT_BYTES);
        let (status, problem) = body_of(&files(BODY_LIMIT_BYTES - around + 1)).unwrap_err();
        // Of any other kind of error an installer asks again, for ten minutes.
        assert!(status.is_client_error(), "{status}");
        assert!(problem.sentence.contains(&BODY_LIMIT_BYTES.to_string()), "{}", problem.sentence);
        assert_eq!(problem.code.as_str(), "first-boot-too-long");
    }
}
