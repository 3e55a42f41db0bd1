//! The join credential: a bootstrap token of one join. Its secret lies in the cluster, and in this process until the files
//! of the first boot are made; our record keeps ID and end. It is never read back: the appliance has no right to read the
//! cluster's secrets, and needs none.

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
/// With less than this left a token is made anew: the host has still to boot.
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
/// wanted is replaced by another.
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
    /// # Errors
    /// The cluster, the record; or the old identity is not gone yet.
    pub async fn mint(&mut self, lifetime: Lifetime, now: Timestamp) -> Result<Progress, StepError> {
        let content = self.record.content();
        if !content.removed {
            return Err(stop(
                "the old identity is still there, and the name is not free: no credential is made before it is removed",
            ));
        }
        if content.credential_deleted {
            return Err(stop("this join is over and its credential deleted: begin another job"));
        }
        if content.token.as_ref().is_some_and(|token| token.created && token.until.duration_since(now) > LEAST_LEFT) {
            return Ok(Progress::AlreadySo);
        }
        self.replace(lifetime, now).await?;
        Ok(Progress::Done)
    }

    /// The credential itself, for the files of the first boot. If this process no longer knows its secret, it is deleted
    /// and another made: whatever was written with it is written anew.
    ///
    /// # Errors
    /// As [`Rejoin::mint`].
    pub async fn credential(&mut self, lifetime: Lifetime, now: Timestamp) -> Result<Token, StepError> {
        self.mint(lifetime, now).await?;
        match self.record.content().token.as_ref().and_then(|token| self.secrets.find(&token.id)) {
            Some(token) => Ok(token),
            None => self.replace(lifetime, now).await,
        }
    }

    /// Deletes the credential that is recorded, if one is, and makes another.
    async fn replace(&mut self, lifetime: Lifetime, now: Timestamp) -> Result<Token, StepError> {
        if let Some(old) = self.record.content().token.clone() {
            delete(self.cluster, &old.id).await?;
            self.secrets.forget(&old.id);
        }
        let token = Token { id: random(6)?.to_string(), secret: random(16)? };
        // Whole seconds: the token cleaner reads RFC 3339.
        let until = Timestamp::from_second((now + lifetime.0).as_second()).unwrap_or(now);
        let recorded = TokenRecord { id: token.id.clone(), until, created: false };
        // The ID first: a token that we do not know of could never be deleted by us.
        self.record.change(|content| content.token = Some(recorded))?;
        let secret = self.secret(&token, until);
        ask("create the join credential", secrets(self.cluster).create(&PostParams::default(), &secret)).await?;
        self.secrets.keep(&token);
        self.record.change(|content| {
            if let Some(token) = &mut content.token {
                token.created = true;
            }
        })?;
        Ok(token)
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
    use super::*;

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
