//! Serving certificates: the API server believes a kubelet by them, so each is given for one name and its own addresses.
//! The client certificate of a join is approved by the cluster's own bindings; this one is approved by nobody else.

use super::cluster::ask;
use super::{Progress, Rejoin, StepError, identity};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use std::collections::BTreeSet;
use std::net::IpAddr;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME};
use x509_parser::prelude::{FromDer as _, parse_x509_pem};

const SIGNER: &str = "kubernetes.io/kubelet-serving";
/// Longest request that is read.
const REQUEST_MAX: usize = 16 << 10;
const USAGES: [&str; 3] = ["digital signature", "key encipherment", "server auth"];

/// What a serving certificate of a host may say.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The user that its kubelet is, `system:node:NAME`.
    pub user: String,
    /// Its host names.
    pub names: BTreeSet<String>,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
}

/// Whether nobody has answered it.
#[must_use]
pub fn is_open(request: &CertificateSigningRequest) -> bool {
    let conditions = request.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_none_or(Vec::is_empty)
}

/// The common name that a request asks for.
#[must_use]
pub fn subject(request: &CertificateSigningRequest) -> Option<String> {
    read(&request.spec.request.0).ok()?.common_name
}

/// What a PKCS#10 request asks for.
#[derive(Debug, Default)]
struct Asked {
    common_name: Option<String>,
    organizations: Vec<String>,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

/// Reads a request; whatever it holds beyond a subject of CN and O, names and addresses, is an error: it would be signed
/// unseen.
fn read(pem: &[u8]) -> Result<Asked, String> {
    if pem.len() > REQUEST_MAX {
        return Err(format!("{} bytes are too long", pem.len()));
    }
    let (_, block) = parse_x509_pem(pem).map_err(|e| format!("no PEM: {e}"))?;
    let (rest, request) =
        X509CertificationRequest::from_der(&block.contents).map_err(|e| format!("no request: {e}"))?;
    if !rest.is_empty() {
        return Err("something follows the request".to_owned());
    }
    let mut asked = Asked::default();
    for attribute in request.certification_request_info.subject.iter_attributes() {
        let value = attribute.as_str().map_err(|e| format!("its subject: {e}"))?.to_owned();
        if *attribute.attr_type() == OID_X509_COMMON_NAME && asked.common_name.is_none() {
            asked.common_name = Some(value);
        } else if *attribute.attr_type() == OID_X509_ORGANIZATION_NAME {
            asked.organizations.push(value);
        } else {
            return Err(format!("its subject has more than one name or another attribute: {}", attribute.attr_type()));
        }
    }
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(alternative) = extension else {
            return Err("it asks for an extension other than names".to_owned());
        };
        for name in &alternative.general_names {
            match name {
                GeneralName::DNSName(name) => asked.names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => asked.addresses.push(address(bytes)?),
                other => return Err(format!("it asks for a name of another kind: {other}")),
            }
        }
    }
    Ok(asked)
}

fn address(bytes: &[u8]) -> Result<IpAddr, String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes).map(IpAddr::from).map_err(|_| "it asks for an address of an odd length".to_owned())
}

/// Whether a request may be approved.
///
/// # Errors
/// Why not.
pub fn judge(request: &CertificateSigningRequest, expected: &Expected) -> Result<(), String> {
    let spec = &request.spec;
    if spec.signer_name != SIGNER {
        return Err(format!("it is for the signer {}", spec.signer_name));
    }
    if spec.username.as_deref() != Some(expected.user.as_str()) {
        return Err(format!("it was made by {}", spec.username.as_deref().unwrap_or("nobody")));
    }
    if !spec.groups.iter().flatten().any(|group| group == "system:nodes") {
        return Err("its maker is no node".to_owned());
    }
    let usages = spec.usages.as_deref().unwrap_or_default();
    if !usages.iter().all(|usage| USAGES.contains(&usage.as_str())) || !usages.iter().any(|u| u == "server auth") {
        return Err(format!("it is to be used for {}", usages.join(", ")));
    }
    let asked = read(&spec.request.0)?;
    if asked.common_name.as_deref() != Some(expected.user.as_str()) {
        return Err("its subject is another".to_owned());
    }
    if asked.organizations != ["system:nodes"] {
        return Err(format!("its organizations are {}", asked.organizations.join(", ")));
    }
    if let Some(name) = asked.names.iter().find(|name| !expected.names.contains(*name)) {
        return Err(format!("the name {} is not the host's", name.escape_default()));
    }
    if let Some(address) = asked.addresses.iter().find(|address| !expected.addresses.contains(*address)) {
        return Err(format!("the address {address} is not the host's"));
    }
    if asked.names.is_empty() && asked.addresses.is_empty() {
        return Err("it names no host".to_owned());
    }
    Ok(())
}

impl Rejoin<'_> {
    /// Approves the serving certificate that the new host asks for. A request that asks for more is left alone and named.
    ///
    /// # Errors
    /// The cluster.
    pub async fn approve(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<Progress, StepError> {
        if self.driver.serving_built_in {
            return Ok(Progress::AlreadySo);
        }
        let content = self.record.content();
        let node = content.node.as_str();
        // Its whole name and no shorter one: `web.rack2` is not `web`, which may be another Node of this cluster.
        let names: BTreeSet<String> = [node.to_owned()].into();
        let expected = Expected { user: content.node.user(), names, addresses: addresses.clone() };
        let requests: Api<CertificateSigningRequest> = Api::all(self.cluster.client().clone());
        let parameters = ListParams::default().fields(&format!("spec.signerName={SIGNER}"));
        let (mut approved, mut answered, mut odd) = (0, false, Vec::new());
        for request in identity::list(&requests, parameters).await? {
            if request.spec.username.as_deref() != Some(expected.user.as_str()) {
                continue;
            }
            if !is_open(&request) {
                answered = true;
                continue;
            }
            if let Err(why) = judge(&request, &expected) {
                odd.push(format!("{}: {why}", request.name_any()));
                continue;
            }
            let name = request.name_any();
            // The very object that was judged: if it changed meanwhile, this is a conflict.
            let (approval, parameters) = (approval(request), PostParams::default());
            let answer = requests.replace_subresource("approval", &name, &parameters, &approval);
            ask("approve a serving certificate", answer).await?;
            approved += 1;
        }
        Ok(match (approved, answered) {
            (1.., _) => Progress::Done,
            (_, true) => Progress::AlreadySo,
            _ if odd.is_empty() => Progress::NotYet("the host has not asked for a serving certificate yet".to_owned()),
            _ => Progress::NotYet(format!("not approved, and left for a person: {}", odd.join("; "))),
        })
    }
}

fn approval(mut request: CertificateSigningRequest) -> CertificateSigningRequest {
    let condition = CertificateSigningRequestCondition {
        type_: "Approved".to_owned(),
        status: "True".to_owned(),
        reason: Some("RackmedicRejoin".to_owned()),
        message: Some("name and addresses are those of the host that was rejoined".to_owned()),
        ..CertificateSigningRequestCondition::default()
    };
    request.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
    use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};

    fn expected() -> Expected {
        Expected {
            user: "system:node:n1".to_owned(),
            names: ["n1".to_owned()].into(),
            addresses: ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()].into(),
        }
    }

    fn request(change: impl FnOnce(&mut CertificateParams)) -> CertificateSigningRequest {
        let mut parameters = CertificateParams::new(vec!["n1".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        parameters.distinguished_name.push(DnType::CommonName, "system:node:n1");
        change(&mut parameters);
        let pem = parameters.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        CertificateSigningRequest {
            spec: CertificateSigningRequestSpec {
                request: ByteString(pem.into_bytes()),
                signer_name: SIGNER.to_owned(),
                username: Some("system:node:n1".to_owned()),
                groups: Some(vec!["system:nodes".to_owned(), "system:authenticated".to_owned()]),
                usages: Some(vec!["digital signature".to_owned(), "server auth".to_owned()]),
                ..CertificateSigningRequestSpec::default()
            },
            ..CertificateSigningRequest::default()
        }
    }

    #[test]
    fn a_host_s_own_name_and_addresses_are_approved() {
        assert_eq!(judge(&request(|_| ()), &expected()), Ok(()));
        let six = |p: &mut CertificateParams| {
            p.subject_alt_names.push(SanType::IpAddress("fd00::1".parse().unwrap()));
        };
        assert_eq!(judge(&request(six), &expected()), Ok(()));
    }

    #[test]
    fn whatever_asks_for_more_is_not() {
        type Change = fn(&mut CertificateParams);
        let changes: [(&str, Change); 8] = [
            ("another's address", |p| p.subject_alt_names.push(SanType::IpAddress("10.0.0.2".parse().unwrap()))),
            ("another's name", |p| p.subject_alt_names.push(SanType::DnsName("n2".try_into().unwrap()))),
            ("the API server's name", |p| p.subject_alt_names.push(SanType::DnsName("kubernetes".try_into().unwrap()))),
            ("a mail address", |p| p.subject_alt_names.push(SanType::Rfc822Name("a@b".try_into().unwrap()))),
            ("no name", |p| p.subject_alt_names.clear()),
            ("more organizations", |p| p.distinguished_name.push(DnType::OrganizationName, "system:masters")),
            ("another subject", |p| p.distinguished_name.push(DnType::CommonName, "system:node:n2")),
            ("another use", |p| p.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth)),
        ];
        for (what, change) in changes {
            assert!(judge(&request(change), &expected()).is_err(), "{what}");
        }
        let mut other = request(|_| ());
        other.spec.username = Some("system:node:n2".to_owned());
        assert!(judge(&other, &expected()).is_err(), "made by another node");
        other = request(|_| ());
        other.spec.signer_name = "kubernetes.io/kube-apiserver-client".to_owned();
        assert!(judge(&other, &expected()).is_err(), "another signer");
        other = request(|_| ());
        other.spec.usages.as_mut().unwrap().push("client auth".to_owned());
        assert!(judge(&other, &expected()).is_err(), "another usage");
        other = request(|_| ());
        other.spec.groups = Some(vec!["system:authenticated".to_owned()]);
        assert!(judge(&other, &expected()).is_err(), "not of the nodes");
    }

    #[test]
    fn no_bytes_from_outside_bring_it_down() {
        let whole = request(|_| ());
        let bytes = whole.spec.request.0.clone();
        for cut in 0..bytes.len() {
            let mut broken = whole.clone();
            broken.spec.request.0.truncate(cut);
            let _ = judge(&broken, &expected());
            let mut turned = whole.clone();
            turned.spec.request.0[cut] ^= 0x15;
            let _ = judge(&turned, &expected());
        }
        let mut long = whole;
        long.spec.request.0.resize(REQUEST_MAX + 1, b'\n');
        assert!(judge(&long, &expected()).is_err());
    }
}
