//! The join credential: a bootstrap token of one join. Its secret lies in the cluster, on the host's disk once an installer was
//! given it, and in this process until it is deleted; our record keeps ID and end. It is never read back: the appliance has
//! no right to read the cluster's secrets, and needs none.

use super::cluster::{Cluster, ClusterError, ask, ask_for};
use super::record::TokenRecord;
use super::{Progress, Rejoin, StepError, stop};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;

/// Where bootstrap tokens and the secrets of distributions lie.
pub const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
/// Which join a token is for, on its Secret.
const JOIN: &str = "rackmedic.io/join";
/// With less than this left a token is of no use any more: the host has still to boot.
const LEAST_LEFT: SignedDuration = SignedDuration::from_mins(3);

/// Most secrets that are remembered: more hosts do not join at once.
const SECRETS_MAX: usize = 256;

/// How long a credential lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime(SignedDuration);

impl Lifetime {
    /// 15 minutes: enough for most metal.
    pub const USUAL: Lifetime = Lifetime(SignedDuration::from_mins(15));
    /// 30 minutes: for hosts that are known to boot slowly. There is no longer one.
    pub const SLOW: Lifetime = Lifetime(SignedDuration::from_mins(30));
}

/// A bootstrap token. It shows its ID and never its secret.
pub struct Token {
    id: String,
    secret: Zeroizing<String>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", self.id)
    }
}

impl Token {
    /// Its public half.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Both halves, for the file that the host reads.
    #[must_use]
    pub fn whole(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{}.{}", self.id, self.secret.as_str()))
    }
}

/// The secrets of tokens that this process has made. A restart forgets them, and a token whose secret is forgotten and
/// wanted for a disk is replaced by another.
#[derive(Default)]
pub struct Secrets(Mutex<VecDeque<(String, Zeroizing<String>)>>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    fn all(&self) -> MutexGuard<'_, VecDeque<(String, Zeroizing<String>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, token: &Token) {
        let mut all = self.all();
        if all.len() >= SECRETS_MAX {
            all.pop_front();
        }
        all.push_back((token.id.clone(), token.secret.clone()));
    }

    fn find(&self, id: &str) -> Option<Token> {
        let all = self.all();
        let (id, secret) = all.iter().find(|(kept, _)| kept == id)?;
        Some(Token { id: id.clone(), secret: secret.clone() })
    }

    fn forget(&self, id: &str) {
        self.all().retain(|(kept, _)| kept != id);
    }
}

impl Rejoin<'_> {
    /// Makes the credential of this join, or finds it made. Ask when the image is verified on the disk, not before.
    ///
    /// One that an installer was given lies on the host's disk, where no other would get: it lives on as long as it may, and
    /// then this stops. The host stays off and a person is told, who has it installed anew: it could not join.
    ///
    /// # Errors
    /// The cluster, the record; the old identity is not gone yet; or the credential on the disk cannot live on.
    pub async fn mint(&mut self, lifetime: Lifetime, now: Timestamp) -> Result<Progress, StepError> {
        self.may_mint()?;
        match self.record.content().token.clone() {
            Some(token) if serves(&token, now) => Ok(Progress::AlreadySo),
            Some(token) if token.handed_out => self.prolong(token, lifetime, now).await,
            Some(_) | None => self.replace(lifetime, now).await.map(|_| Progress::Done),
        }
    }

    fn may_mint(&self) -> Result<(), StepError> {
        let content = self.record.content();
        if !content.removed {
            return Err(stop(
                "the old identity is still there, and the name is not free: no credential is made before it is removed",
            ));
        }
        if content.credential_deleted {
            return Err(stop("this join is over and its credential deleted: begin another job"));
        }
        Ok(())
    }

    /// The credential itself, for the files of the first boot. If it is about to run out, or this process no longer knows its
    /// secret, it is deleted and another made: whatever was written with it is written anew.
    ///
    /// # Errors
    /// The cluster, the record; or the old identity is not gone yet.
    pub async fn credential(&mut self, lifetime: Lifetime, now: Timestamp) -> Result<Token, StepError> {
        self.may_mint()?;
        let made = self.record.content().token.as_ref().filter(|token| serves(token, now));
        let known = made.and_then(|token| self.secrets.find(&token.id));
        let token = match known {
            Some(token) => token,
            None => self.replace(lifetime, now).await?,
        };
        // Before it leaves: one that is taken for handed out and is not stops a join, one that is and is not known to be is
        // deleted while the host boots with it.
        if self.record.content().token.as_ref().is_some_and(|token| !token.handed_out) {
            self.record.change(|content| content.token.iter_mut().for_each(|token| token.handed_out = true))?;
        }
        Ok(token)
    }

    /// Lets the token that lies on the disk live on: the very same one is made again with a later end. It is not patched:
    /// whoever may patch Secrets is answered with what is in them, and so may read all of `kube-system`.
    async fn prolong(&mut self, old: TokenRecord, lifetime: Lifetime, now: Timestamp) -> Result<Progress, StepError> {
        let until = later_end(&old, lifetime, now)
            .ok_or_else(|| runs_out("no credential lives longer than 30 minutes from when it was made"))?;
        let token = self
            .secrets
            .find(&old.id)
            .ok_or_else(|| runs_out("the appliance, started anew since, cannot make the same again"))?;
        // Until it is there again it is not: what is cut short here is done once more.
        let recorded = TokenRecord { until, created: false, ..old };
        self.record.change(|content| content.token = Some(recorded))?;
        delete(self.cluster, &token.id).await?;
        self.create(&token, until).await?;
        Ok(Progress::Done)
    }

    /// Deletes the credential that is recorded, if one is, and makes another.
    async fn replace(&mut self, lifetime: Lifetime, now: Timestamp) -> Result<Token, StepError> {
        if let Some(old) = self.record.content().token.clone() {
            delete(self.cluster, &old.id).await?;
            self.secrets.forget(&old.id);
        }
        let token = Token { id: random(6)?.to_string(), secret: random(16)? };
        let until = whole_seconds(now + lifetime.0);
        let recorded = TokenRecord { id: token.id.clone(), made: now, until, created: false, handed_out: false };
        // The ID first: a token that we do not know of could never be deleted by us.
        self.record.change(|content| content.token = Some(recorded))?;
        self.create(&token, until).await?;
        self.secrets.keep(&token);
        Ok(token)
    }

    /// Makes the token that is recorded.
    async fn create(&mut self, token: &Token, until: Timestamp) -> Result<(), StepError> {
        let secret = self.secret(token, until);
        ask("create the join credential", secrets(self.cluster).create(&PostParams::default(), &secret)).await?;
        self.record.change(|content| content.token.iter_mut().for_each(|token| token.created = true))
    }

    fn join(&self) -> String {
        let content = self.record.content();
        format!("{} of job {}", content.node, content.job)
    }

    fn secret(&self, token: &Token, until: Timestamp) -> Secret {
        let data: BTreeMap<String, String> = [
            ("token-id", token.id.clone()),
            ("token-secret", token.secret.to_string()),
            ("expiration", until.to_string()),
            ("usage-bootstrap-authentication", "true".to_owned()),
            ("usage-bootstrap-signing", "true".to_owned()),
            ("auth-extra-groups", self.driver.token_group.clone()),
            ("description", format!("Rackmedic: join of {}", self.join())),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        Secret {
            metadata: ObjectMeta {
                name: Some(name(&token.id)),
                namespace: Some(NAMESPACE.to_owned()),
                annotations: Some([(JOIN.to_owned(), self.join())].into()),
                ..ObjectMeta::default()
            },
            type_: Some(TYPE.to_owned()),
            data: Some(data.into_iter().map(|(key, value)| (key, ByteString(value.into_bytes()))).collect()),
            ..Secret::default()
        }
    }

    /// Deletes the credential of this join. Also the way out when a join is given up.
    ///
    /// # Errors
    /// The cluster or the record.
    pub async fn delete_credential(&mut self) -> Result<Progress, StepError> {
        let content = self.record.content();
        if content.credential_deleted {
            return Ok(Progress::AlreadySo);
        }
        let found = match content.token.as_ref().map(|token| token.id.clone()) {
            Some(id) => {
                self.secrets.forget(&id);
                delete(self.cluster, &id).await?
            }
            None => false,
        };
        self.record.change(|content| content.credential_deleted = true)?;
        Ok(if found { Progress::Done } else { Progress::AlreadySo })
    }
}

/// Whether a token is there and a host has time enough to boot with it.
fn serves(token: &TokenRecord, now: Timestamp) -> bool {
    token.created && token.until.duration_since(now) > LEAST_LEFT
}

/// Until when a token may live on: another lifetime, but never longer than the longest one from when it was made (rule 40).
/// `None`: too short for a host to boot.
fn later_end(token: &TokenRecord, lifetime: Lifetime, now: Timestamp) -> Option<Timestamp> {
    let last = token.made.checked_add(Lifetime::SLOW.0).ok()?;
    let until = whole_seconds(now.checked_add(lifetime.0).ok()?.min(last));
    (until.duration_since(now) > LEAST_LEFT).then_some(until)
}

/// The token cleaner reads RFC 3339, of whole seconds.
fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn runs_out(why: &str) -> StepError {
    stop(format!(
        "the join credential on the host's disk has run out or is about to, and {why}: it could not join, and is not switched \
         on; have it installed anew"
    ))
}

fn secrets(cluster: &Cluster) -> Api<Secret> {
    Api::namespaced(cluster.client().clone(), NAMESPACE)
}

fn name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

/// Deletes a token; answers whether it was there.
pub(super) async fn delete(cluster: &Cluster, id: &str) -> Result<bool, ClusterError> {
    let (secrets, name, parameters) = (secrets(cluster), name(id), DeleteParams::default());
    let deleted = secrets.delete(&name, &parameters);
    Ok(ask_for("delete the join credential", deleted).await?.is_some())
}

/// Lower-case letters and digits, as bootstrap tokens are made of, each equally likely.
fn random(length: usize) -> Result<Zeroizing<String>, StepError> {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = Zeroizing::new(String::with_capacity(length));
    while text.len() < length {
        let mut byte = [0];
        getrandom::fill(&mut byte)
            .map_err(|e| stop(format!("there are no random numbers: {e}; no credential is made")))?;
        // 252 = 7 × 36: beyond it the first letters would be likelier.
        if byte[0] < 252 {
            text.push(char::from(ALPHABET[usize::from(byte[0] % 36)]));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::calls::Around;
    use super::super::driver::{Driver, Preset};
    use super::super::record::Record;
    use super::*;
    use futures_util::future::BoxFuture;
    use healing::command::{ClusterCall, Reply};
    use kube::Client;
    use kube::client::Body;
    use std::collections::BTreeSet;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Poll};

    type Request = hyper::Request<Body>;
    type Response = hyper::Response<Body>;

    /// An API server that knows nothing but Secrets.
    #[derive(Clone, Default)]
    struct Server {
        held: Arc<Mutex<BTreeMap<String, Secret>>>,
        /// The next creation fails.
        fails: Arc<AtomicBool>,
    }

    impl Server {
        fn answer(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
            let status = |code: u16| (code, format!(r#"{{"kind": "Status", "code": {code}}}"#).into_bytes());
            let mut held = self.held.lock().unwrap();
            if method == "DELETE" {
                let name = path.rsplit('/').next().unwrap();
                return status(if held.remove(name).is_some() { 200 } else { 404 });
            }
            assert_eq!(method, "POST", "no Secret is read or patched");
            if self.fails.swap(false, Ordering::SeqCst) {
                return status(500);
            }
            let secret: Secret = serde_json::from_slice(body).unwrap();
            held.insert(secret.metadata.name.clone().unwrap(), secret);
            (201, body.to_vec())
        }
    }

    impl tower_service::Service<Request> for Server {
        type Response = Response;
        type Error = std::io::Error;
        type Future = BoxFuture<'static, Result<Response, std::io::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request) -> Self::Future {
            let server = self.clone();
            Box::pin(async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.map_err(std::io::Error::other)?;
                let (code, answer) = server.answer(parts.method.as_str(), parts.uri.path(), &body);
                let response = hyper::Response::builder().status(code).body(Body::from(answer));
                response.map_err(std::io::Error::other)
            })
        }
    }

    /// A join whose old identity is gone.
    struct Scene {
        server: Server,
        cluster: Cluster,
        driver: Driver,
        secrets: Secrets,
        record: Record,
        folder: PathBuf,
    }

    impl Scene {
        fn new(name: &str) -> Scene {
            let folder = std::env::temp_dir().join(format!("rackmedic-credential-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&folder);
            let mut record = Record::open(&folder, &"n1".parse().unwrap(), &"incident-1".parse().unwrap()).unwrap();
            record.change(|content| (content.saved, content.removed) = (true, true)).unwrap();
            let server = Server::default();
            let client = Client::new(server.clone(), "default");
            let cluster = Cluster::new(client, "10.0.0.1:6443", vec![vec![0]]).unwrap();
            let driver = Preset::Kubeadm.driver().unwrap();
            Scene { server, cluster, driver, secrets: Secrets::default(), record, folder }
        }

        fn rejoin(&mut self) -> Rejoin<'_> {
            Rejoin { cluster: &self.cluster, driver: &self.driver, record: &mut self.record, secrets: &self.secrets }
        }

        /// What the step machine is answered so many minutes after the beginning.
        async fn ordered(&mut self, minutes: i64) -> Option<Reply> {
            let (addresses, now) = (BTreeSet::new(), at(minutes));
            let around = Around { etcd: None, addresses: &addresses, kubelet: None, lifetime: Lifetime::USUAL, now };
            self.rejoin().answer(ClusterCall::MintCredential, around).await
        }

        /// What an installer is given then, for the disk.
        async fn given(&mut self, minutes: i64) -> String {
            let token = self.rejoin().credential(Lifetime::USUAL, at(minutes)).await.unwrap();
            token.whole().to_string()
        }

        /// The tokens that the cluster has, with their ends.
        fn tokens(&self) -> Vec<(String, String)> {
            let held = self.server.held.lock().unwrap();
            let shown = held.values().map(|secret| {
                let data = secret.data.as_ref().unwrap();
                let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
                (format!("{}.{}", text("token-id"), text("token-secret")), text("expiration"))
            });
            shown.collect()
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minutes * 60).unwrap()
    }

    fn end(minutes: i64) -> String {
        at(minutes).to_string()
    }

    #[tokio::test]
    async fn the_token_on_the_disk_lives_on_for_half_an_hour_at_most_and_is_never_replaced() {
        let mut scene = Scene::new("prolonged");
        // Given an installer that has written the token onto the disk
        let token = scene.given(0).await;
        assert_eq!(scene.given(1).await, token, "whoever asks twice is given the same");
        assert_eq!(scene.tokens(), [(token.clone(), end(15))]);
        // When the power-on is near in good time, then nothing is done
        assert_eq!(scene.ordered(11).await, Some(Reply::Ok));
        assert_eq!(scene.tokens(), [(token.clone(), end(15))]);
        // When it is late, then the same token lives longer
        assert_eq!(scene.ordered(13).await, Some(Reply::Ok));
        assert_eq!(scene.tokens(), [(token.clone(), end(28))]);
        // Also one that the cluster has cleaned away; but not beyond half an hour
        scene.server.held.lock().unwrap().clear();
        assert_eq!(scene.ordered(26).await, Some(Reply::Ok));
        assert_eq!(scene.tokens(), [(token.clone(), end(30))]);
        // And when too little of that is left, the host is not switched on with it
        assert_eq!(scene.ordered(27).await, Some(Reply::ApiRefused));
        assert_eq!(scene.ordered(60).await, Some(Reply::ApiRefused));
        assert_eq!(scene.tokens(), [(token, end(30))]);
        // Until it is installed anew
        let anew = scene.given(60).await;
        assert_eq!(scene.tokens(), [(anew, end(75))]);
        assert_eq!(scene.ordered(61).await, Some(Reply::Ok));
    }

    #[tokio::test]
    async fn a_prolongation_that_is_cut_short_is_done_once_more() {
        let mut scene = Scene::new("cut");
        let token = scene.given(0).await;
        scene.server.fails.store(true, Ordering::SeqCst);
        assert_eq!(scene.ordered(13).await, Some(Reply::ApiSilent));
        assert!(scene.tokens().is_empty());
        assert_eq!(scene.ordered(13).await, Some(Reply::Ok));
        assert_eq!(scene.tokens(), [(token, end(28))]);
    }

    #[tokio::test]
    async fn after_a_restart_the_token_on_the_disk_serves_while_it_lives_and_is_not_replaced() {
        let mut scene = Scene::new("restart");
        let token = scene.given(0).await;
        scene.secrets = Secrets::default();
        assert_eq!(scene.ordered(11).await, Some(Reply::Ok));
        assert_eq!(scene.ordered(13).await, Some(Reply::ApiRefused));
        assert_eq!(scene.tokens(), [(token.clone(), end(15))]);
        // An installer that asks writes what it is given
        let anew = scene.given(13).await;
        assert_ne!(anew, token);
        assert_eq!(scene.tokens(), [(anew, end(28))]);
    }

    #[tokio::test]
    async fn a_token_that_nobody_was_given_is_replaced() {
        let mut scene = Scene::new("kept");
        assert_eq!(scene.ordered(0).await, Some(Reply::Ok));
        let first = scene.tokens();
        assert_eq!(scene.ordered(11).await, Some(Reply::Ok));
        assert_eq!(scene.tokens(), first);
        assert_eq!(scene.ordered(13).await, Some(Reply::Ok));
        let second = scene.tokens();
        assert!(second.len() == 1 && second != first);
        // And it is the one that an installer is given
        assert_eq!(scene.given(14).await, second[0].0);
    }

    #[test]
    fn a_token_is_of_the_form_that_the_cluster_accepts_and_keeps_its_secret() {
        let token = Token { id: random(6).unwrap().to_string(), secret: random(16).unwrap() };
        let whole = token.whole();
        assert_eq!(whole.len(), 23);
        assert!(whole.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.'));
        assert!(!format!("{token:?}").contains(token.secret.as_str()));
        assert_ne!(random(16).unwrap(), random(16).unwrap());
    }
}
