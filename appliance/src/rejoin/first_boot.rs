//! The files that make a host join at its first boot, for the installer to write.

use super::credential::Token;
use super::driver::TokenForm;
use super::names::Endpoint;
use super::template::TemplateError;
use super::{Rejoin, StepError, stop};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::install::{FirstBoot, FirstBootFile};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a person gives a driver's templates, beyond what is known anyway.
#[derive(Clone, Deserialize, Serialize)]
#[serde(untagged)]
#[allow(missing_debug_implementations, reason = "it may be a secret")]
pub enum OptionValue {
    /// Yes or no.
    Flag(bool),
    /// A whole number.
    Number(i64),
    /// A text.
    Text(String),
    /// Several texts.
    List(Vec<String>),
}

/// What is to be known of a host to make it join.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_debug_implementations, reason = "options may be secrets")]
pub struct JoinPlan {
    /// Its address in the cluster.
    pub address: IpAddr,
    /// Where it joins; `None` = where the appliance itself reaches the API.
    pub endpoint: Option<Endpoint>,
    /// What a person gives the templates.
    #[serde(default)]
    pub options: BTreeMap<String, OptionValue>,
}

#[derive(Serialize)]
struct Values<'a> {
    node: NodeValues<'a>,
    cluster: ClusterValues<'a>,
    credential: CredentialValues<'a>,
    options: &'a BTreeMap<String, OptionValue>,
}

#[derive(Serialize)]
struct NodeValues<'a> {
    name: &'a str,
    address: IpAddr,
}

#[derive(Serialize)]
struct ClusterValues<'a> {
    endpoint: &'a str,
    authority_pins: Vec<String>,
    authority_pem: &'a str,
    authority_base64: String,
}

#[derive(Serialize)]
struct CredentialValues<'a> {
    token: &'a str,
}

impl Rejoin<'_> {
    /// Renders the driver's files. Nothing is asked of the cluster, and nothing of it is kept.
    ///
    /// # Errors
    /// A template wants what is not given.
    pub fn first_boot(&self, plan: &JoinPlan, token: &Token) -> Result<FirstBoot, StepError> {
        let pins = self.cluster.authority_keys()?;
        let pins = pins.iter().map(|key| format!("sha256:{}", hex(&Sha256::digest(key)))).collect();
        let pem: String = self.cluster.authorities().iter().map(|der| pem(der)).collect();
        let whole = token.whole();
        let written = match self.driver.token_form {
            TokenForm::Plain => whole,
            TokenForm::Secure => {
                zeroize::Zeroizing::new(format!("K10{}::{}", hex(&Sha256::digest(&pem)), whole.as_str()))
            }
        };
        let values = Values {
            node: NodeValues { name: self.record.content().node.as_str(), address: plan.address },
            cluster: ClusterValues {
                endpoint: plan.endpoint.as_ref().map_or(self.cluster.endpoint(), Endpoint::as_str),
                authority_pins: pins,
                authority_pem: &pem,
                authority_base64: STANDARD.encode(&pem),
            },
            credential: CredentialValues { token: written.as_str() },
            options: &plan.options,
        };
        let files: Result<Vec<FirstBootFile>, TemplateError> = (self.driver.files.iter())
            .map(|template| {
                let content = zeroize::Zeroizing::new(template.render(&values)?);
                Ok(FirstBootFile {
                    path: template.path().to_owned(),
                    mode: template.mode(),
                    content: STANDARD.encode(content.as_bytes()),
                })
            })
            .collect();
        Ok(FirstBoot { files: files.map_err(|e| stop(e.to_string()))? })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// PEM as Go writes it: lines of 64, a newline at the end. k3s' digest is of these bytes.
fn pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}
