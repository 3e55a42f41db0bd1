//! A control plane, its hosts, and the rejoin of each with a record on the disk, as the appliance would hold them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use healing::command::{ClusterCall, Intent, Reply, Target};
use healing::id::{ClusterId, HostId, IncidentId, JobId, MachineId};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use protocol::install::{FirstBoot, FirstBootFile};
use protocol::name::Name;
use rack::kubernetes::{ControlPlane, Node, Programs, alone, run};
use rackmedic::boot::installer_api::FirstBootSource;
use rackmedic::cluster::{Joining, Rejoin as _};
use rackmedic::rejoin::alone::{Alone, JoiningHost, JoiningHosts, PlanOfAll, Planned};
use rackmedic::rejoin::cluster::Cluster;
use rackmedic::rejoin::credential::{Lifetime, Secrets};
use rackmedic::rejoin::driver::{Driver, DriverFile, Preset};
use rackmedic::rejoin::first_boot::{JoinPlan, OptionValue};
use rackmedic::rejoin::port::{Drivers, Member, Members, Way};
use rackmedic::rejoin::record::{self, Marks, Record};
use rackmedic::rejoin::source::{JoinFiles, Joiner, Joiners};
use rackmedic::rejoin::verify::is_ready;
use rackmedic::rejoin::{Progress, Rejoin, StepError};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(90);

/// Everything of one story.
pub(crate) struct Scene {
    hosts: BTreeMap<String, Node>,
    cluster: Cluster,
    driver: Driver,
    secrets: Arc<Secrets>,
    records: PathBuf,
    /// Calls that the client may still make; fewer than none = as many as it likes.
    calls_left: Arc<AtomicI64>,
    version: String,
    control: ControlPlane,
}

/// Runs a story alone with a control plane.
pub(crate) fn story(name: &str, tell: impl AsyncFnOnce(&mut Scene)) {
    let Some(programs) = Programs::named().unwrap() else {
        eprintln!("{name}: not run, RACKMEDIC_KUBERNETES names no folder of programs");
        return;
    };
    if !alone(name).unwrap() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let control = ControlPlane::start(&programs).unwrap();
    runtime.block_on(async {
        let mut scene = Scene::new(control).await;
        tell(&mut scene).await;
    });
}

impl Scene {
    async fn new(control: ControlPlane) -> Scene {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let kubeconfig = Kubeconfig::read_from(control.kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let authorities = config.root_cert.clone().unwrap();
        let calls_left = Arc::new(AtomicI64::new(-1));
        let client = cut_off_after(Client::try_from(config).unwrap(), Arc::clone(&calls_left));
        Scene {
            hosts: BTreeMap::new(),
            cluster: Cluster::new(client, &control.endpoint(), authorities).unwrap(),
            driver: Preset::Kubeadm.driver().unwrap(),
            secrets: Arc::default(),
            records: control.folder().join("records"),
            calls_left,
            version: control.programs().kubernetes_version().unwrap(),
            control,
        }
    }

    pub(crate) fn host(&mut self, name: &str) -> &mut Node {
        self.hosts.get_mut(name).unwrap()
    }

    pub(crate) fn kubectl(&self, words: &str) -> String {
        self.control.kubectl(&words.split(' ').collect::<Vec<_>>()).unwrap()
    }

    fn nodes(&self) -> Api<NodeObject> {
        Api::all(self.cluster.client().clone())
    }

    pub(crate) async fn node(&self, name: &str) -> Option<NodeObject> {
        // A connection that the server closed meanwhile shows only when it is used.
        for _ in 0..3 {
            if let Ok(found) = self.nodes().get_opt(name).await {
                return found;
            }
        }
        self.nodes().get_opt(name).await.unwrap()
    }

    pub(crate) async fn taints(&self, name: &str) -> Vec<String> {
        let taints = self.node(name).await.unwrap().spec.unwrap().taints.unwrap_or_default();
        taints.iter().map(|t| format!("{}={}:{}", t.key, t.value.as_deref().unwrap_or_default(), t.effect)).collect()
    }

    async fn wait<T, F: Future<Output = Option<T>>>(&self, what: &str, ask: impl Fn() -> F) -> T {
        let until = Instant::now() + WAIT;
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            if Instant::now() > until {
                let logs: Vec<String> = self.hosts.values().map(|host| host.log_tail("kubelet")).collect();
                panic!("not within {} s: {what}\n{}", WAIT.as_secs(), logs.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) async fn ready(&self, name: &str) {
        self.wait("the Node is Ready", || async { self.node(name).await.filter(is_ready) }).await;
    }

    pub(crate) async fn not_ready(&self, name: &str) {
        self.wait("the cluster notices", || async { self.node(name).await.filter(|node| !is_ready(node)) }).await;
    }

    /// What the appliance does with one host: everything is opened anew, as after a restart.
    pub(crate) async fn rejoin<T>(&self, node: &str, job: &str, act: impl AsyncFnOnce(&mut Rejoin<'_>) -> T) -> T {
        let mut record = Record::open(&self.records, &node.parse().unwrap(), &job.parse().unwrap()).unwrap();
        let (cluster, driver, secrets) = (&self.cluster, &self.driver, &*self.secrets);
        act(&mut Rejoin { cluster, driver, record: &mut record, secrets }).await
    }

    /// Removes the old identity, as often as it has to be asked for.
    pub(crate) async fn removed(&self, node: &str, job: &str) {
        self.wait("the old identity is gone", || async {
            let done = self.rejoin(node, job, async |rejoin| rejoin.remove_identity().await.unwrap()).await;
            (!matches!(done, Progress::NotYet(_))).then_some(())
        })
        .await;
    }

    /// A host that joins for the first time, by the same steps.
    pub(crate) async fn join_first(&mut self, name: &str, number: u8) {
        let host = Node::new(&self.control, name, number).unwrap();
        self.hosts.insert(name.to_owned(), host);
        self.rejoin(name, "job-1", async |rejoin| rejoin.save().await.unwrap()).await;
        self.removed(name, "job-1").await;
        self.reimage(name, "job-1").await;
        self.host(name).power_on().unwrap();
        self.first_boot(name);
        self.back(name, "job-1").await;
        self.rejoin(name, "job-1", async |rejoin| {
            rejoin.restore().await.unwrap();
            rejoin.delete_credential().await.unwrap();
        })
        .await;
    }

    /// Writes the image and the files of the first boot, the latter as the installer does. Gives the credential.
    pub(crate) async fn reimage(&mut self, name: &str, job: &str) -> String {
        self.host(name).reimage().unwrap();
        let address = IpAddr::V4(self.host(name).address());
        // The machine lacks what kubeadm looks for before it joins: swap off, a firewall's modules, its own units.
        let options = [("ignore_preflight_errors".to_owned(), OptionValue::List(vec!["all".to_owned()]))].into();
        let plan = JoinPlan { address, endpoint: None, options };
        let joiner = Joiner { node: name.parse().unwrap(), plan, lifetime: Lifetime::USUAL };
        let source = JoinFiles {
            given: Arc::new(Hostname(name.to_owned())),
            joiners: One(joiner),
            cluster: self.cluster.clone(),
            driver: self.driver.clone(),
            secrets: Arc::clone(&self.secrets),
            records: self.records.clone(),
            one: tokio::sync::Mutex::default(),
        };
        let job = job.parse().unwrap();
        // An installer that lost the answer asks again and is given the same.
        let first = source.files(&job).await.unwrap();
        let files = source.files(&job).await.unwrap();
        assert!(first == files);
        let written = text(&files, "/etc/rackmedic/join/kubeadm.yaml");
        let token = written.lines().find_map(|line| line.trim().strip_prefix("token: ")).unwrap();
        let token: String = serde_json::from_str(token).unwrap();
        assert!(!format!("{files:?}").contains(&token));
        installer::first_boot::write_all(&self.host(name).disk(), &files).unwrap();
        token
    }

    /// The appliance's door to the drivers: this cluster has one, and the register knows this host.
    pub(crate) fn drivers(&self, node: &str, known: Marks) -> Drivers<OneMember> {
        let way = Way {
            driver: self.driver.clone(),
            endpoint: self.control.endpoint(),
            authorities: self.cluster.authorities().to_vec(),
        };
        let member = Member {
            node: node.parse().unwrap(),
            addresses: [IpAddr::V4(self.hosts[node].address())].into(),
            kubelet: Some(self.version.clone()),
            lifetime: Lifetime::USUAL,
            marks: Some(known),
            uid: String::new(),
        };
        Drivers {
            ways: [(CLUSTER, way)].into(),
            members: OneMember(member),
            secrets: Arc::clone(&self.secrets),
            records: self.records.clone(),
            one: tokio::sync::Mutex::default(),
        }
    }

    /// Makes one call of the step machine, as often as it asks within its limit.
    pub(crate) async fn step(&self, drivers: &Drivers<OneMember>, call: ClusterCall) {
        self.wait(&format!("{call:?}"), || async {
            let target = target(HOST);
            let joining = Joining {
                cluster: CLUSTER,
                target: &target,
                incident: INCIDENT,
                intent: Intent::MintCredential(JobId(1)),
            };
            let answer = drivers.answer(self.cluster.client().clone(), joining, call).await;
            assert!(matches!(answer, Some(Reply::Ok | Reply::ApiSilent)), "{call:?}: {answer:?}");
            (answer == Some(Reply::Ok)).then_some(())
        })
        .await;
    }

    /// Answers a call about something that the drivers know nothing of.
    pub(crate) async fn ask(
        &self,
        drivers: &Drivers<OneMember>,
        cluster: ClusterId,
        host: HostId,
        call: ClusterCall,
    ) -> Option<Reply> {
        let target = target(host);
        let joining = Joining { cluster, target: &target, incident: INCIDENT, intent: Intent::Return };
        drivers.answer(self.cluster.client().clone(), joining, call).await
    }

    /// A driver of a site: the generic one, with files that it names itself.
    pub(crate) fn use_generic_driver(&mut self) {
        let templates = concat!(env!("CARGO_MANIFEST_DIR"), "/../templates/join");
        let text = r#"
            token_group = "system:bootstrappers:kubeadm:default-node-token"
            [[file]]
            path = "/etc/rackmedic/join/kubeadm.yaml"
            mode = "0600"
            quoting = "yaml"
            template = "kubeadm.yaml"
            [[file]]
            path = "/etc/rackmedic/join/join.sh"
            mode = "0700"
            quoting = "shell"
            template = "kubeadm.sh"
            [[file]]
            path = "/etc/systemd/system/rackmedic-join.service"
            mode = "0644"
            quoting = "word"
            template = "kubeadm.service"
        "#;
        let file: DriverFile = toml::from_str(text).unwrap();
        self.driver = file.driver(std::path::Path::new(templates)).unwrap();
        assert_eq!(self.driver.name, "generic");
    }

    /// As if the host's earlier rejoin had been of another incident, long ago.
    pub(crate) fn forget(&self, node: &str) {
        std::fs::remove_file(self.records.join(format!("{node}.json"))).unwrap();
    }

    /// The joins of boot servers alone, for a host that was wiped now.
    pub(crate) async fn installed_alone(&mut self, name: &str, number: u8, job: &str) -> Arc<Alone> {
        if !self.hosts.contains_key(name) {
            let host = Node::new(&self.control, name, number).unwrap();
            self.hosts.insert(name.to_owned(), host);
        }
        self.host(name).reimage().unwrap();
        let address = IpAddr::V4(self.host(name).address());
        let host = JoiningHost { node: name.parse().unwrap(), address, kubelet: Some(self.version.clone()) };
        let options = [("ignore_preflight_errors".to_owned(), OptionValue::List(vec!["all".to_owned()]))].into();
        let plan = PlanOfAll { endpoint: None, options, lifetime: Lifetime::USUAL };
        let alone = Arc::new(Alone::new(JoinFiles {
            given: Arc::new(Hostname(name.to_owned())),
            joiners: Planned { hosts: Arc::new(OneHost(host)), plan },
            cluster: self.cluster.clone(),
            driver: self.driver.clone(),
            secrets: Arc::clone(&self.secrets),
            records: self.records.clone(),
            one: tokio::sync::Mutex::default(),
        }));
        // As the installer asks: again and again, until the cluster has noticed that the old Node is gone.
        let job: Name = job.parse().unwrap();
        let files = self.wait("the files of the first boot", || async { alone.files(&job).await.ok() }).await;
        assert!(files == alone.files(&job).await.unwrap(), "an installer that asks twice is given the same");
        installer::first_boot::write_all(&self.host(name).disk(), &files).unwrap();
        self.host(name).power_on().unwrap();
        self.first_boot(name);
        alone
    }

    /// Lets the boot servers follow their hosts until this one is back.
    pub(crate) async fn followed(&self, alone: Arc<Alone>, name: &str) {
        let stop = tokio_util::sync::CancellationToken::new();
        let following = tokio::spawn({
            let stop = stop.clone();
            async move { alone.follow(stop).await }
        });
        let node = name.parse().unwrap();
        self.wait("its credential is deleted", || async {
            let content = record::look(&self.records, &node).unwrap().unwrap();
            (content.restored && content.credential_deleted).then_some(())
        })
        .await;
        stop.cancel();
        following.await.unwrap();
    }

    /// What the unit of the first boot runs; there is no systemd in the namespaces.
    pub(crate) fn first_boot(&mut self, name: &str) {
        let unit = self.host(name).disk().join("etc/systemd/system/rackmedic-join.service");
        let unit = std::fs::read_to_string(unit).unwrap();
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let command: Vec<&str> = line.split(' ').collect();
        let host = self.host(name);
        host.run(&command).unwrap_or_else(|e| panic!("{e}\n{}", host.log_tail("kubelet")));
    }

    /// Waits until the host is back: its serving certificate approved, its Node verified.
    pub(crate) async fn back(&self, name: &str, job: &str) {
        let addresses = [IpAddr::V4(self.hosts[name].address())].into();
        self.wait("the host asked for its serving certificate", || async {
            let done = self.rejoin(name, job, async |rejoin| rejoin.approve(&addresses).await.unwrap()).await;
            (!matches!(done, Progress::NotYet(_))).then_some(())
        })
        .await;
        self.wait("the host is verified", || async {
            let done = self.rejoin(name, job, async |rejoin| rejoin.verify(Some(&self.version)).await.unwrap()).await;
            (!matches!(done, Progress::NotYet(_))).then_some(())
        })
        .await;
    }

    /// The API server asks the kubelet for something over TLS, and believes its certificate.
    pub(crate) async fn serving(&self, name: &str) {
        let path = format!("/api/v1/nodes/{name}/proxy/healthz");
        self.wait("the API server speaks to the kubelet", || async {
            self.control.kubectl(&["get", "--raw", &path]).ok().filter(|said| said == "ok").map(|_| ())
        })
        .await;
    }

    /// The API server knows a token for up to ten seconds longer than it is there, if it was used: that is its cache.
    pub(crate) async fn token_is_refused(&self, token: &str) {
        self.wait("the token is refused", || async { (!self.token_is_accepted(token)).then_some(()) }).await;
    }

    fn token_is_accepted(&self, token: &str) -> bool {
        let server = format!("--server=https://{}", self.control.endpoint());
        let authority = format!("--certificate-authority={}", self.control.authority().display());
        let token = format!("--token={token}");
        let words = ["auth", "whoami", "--kubeconfig=/dev/null", &server, &authority, &token];
        run(self.control.programs().command("kubectl").args(words)).is_ok()
    }

    /// The host's cable.
    pub(crate) fn cable(&self, name: &str, state: &str) {
        self.hosts[name].run(&["ip", "link", "set", "eth0", state]).unwrap();
        if state == "up" {
            self.hosts[name].run(&["ip", "route", "replace", "default", "via", "10.200.0.1"]).unwrap();
        }
    }

    /// Asks for a serving certificate with a node's own credential, as its kubelet would.
    pub(crate) fn ask_serving(&self, by: &str, of: &str, address: &str) -> String {
        let user = format!("system:node:{by}");
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec![of.to_owned(), address.to_owned()]).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
        parameters.distinguished_name.push(rcgen::DnType::CommonName, user.as_str());
        let request = parameters.serialize_request(&key).unwrap().pem().unwrap();
        let name = format!("ask-{by}-{of}-{}", address.replace('.', "-"));
        let object = serde_json::json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": { "name": name },
            "spec": {
                "request": STANDARD.encode(request),
                "signerName": "kubernetes.io/kubelet-serving",
                "usages": ["digital signature", "server auth"],
            },
        });
        let file = self.control.folder().join(format!("{name}.json"));
        std::fs::write(&file, object.to_string()).unwrap();
        let as_node = ["create", "--as", &user, "--as-group=system:nodes", "--as-group=system:authenticated", "-f"];
        self.control.kubectl(&[&as_node[..], &[&file.to_string_lossy()]].concat()).unwrap();
        name
    }

    pub(crate) fn is_approved(&self, request: &str) -> bool {
        self.kubectl(&format!("get csr {request} -o jsonpath={{.status.conditions[*].type}}")).contains("Approved")
    }

    /// Credentials in the cluster that bear our mark.
    pub(crate) fn our_tokens(&self) -> usize {
        let all = self.kubectl("get secret -n kube-system -o jsonpath={.items[*].metadata.annotations}");
        all.matches("rackmedic.io/join").count()
    }

    /// A Node that no kubelet stands behind, and all that bears its name.
    pub(crate) fn stage_dead_node(&mut self, name: &str) {
        self.driver.name_secrets = vec![".node-password.k3s".to_owned()];
        let attachment = serde_json::json!({
            "apiVersion": "v1", "kind": "List", "items": [
                { "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": { "pool": "slow" } } },
                { "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                  "metadata": { "name": name, "namespace": "kube-node-lease" }, "spec": { "holderIdentity": name } },
                { "apiVersion": "v1", "kind": "Secret",
                  "metadata": { "name": format!("{name}.node-password.k3s"), "namespace": "kube-system" } },
                { "apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": { "name": format!("va-{name}") },
                  "spec": { "attacher": "none.example.org", "nodeName": name,
                            "source": { "persistentVolumeName": "pv-1" } } },
            ],
        });
        let file = self.control.folder().join("dead.json");
        std::fs::write(&file, attachment.to_string()).unwrap();
        self.control.kubectl(&["create", "-f", &file.to_string_lossy()]).unwrap();
        self.ask_serving(name, name, "10.200.1.9");
    }

    /// What still bears the name.
    pub(crate) fn leftovers(&self, name: &str) -> Vec<String> {
        ["node", "lease -n kube-node-lease", "secret -n kube-system", "volumeattachment", "csr"]
            .iter()
            .flat_map(|kind| {
                let listed = self.kubectl(&format!("get {kind} -o name"));
                listed.lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .filter(|object| object.contains(name))
            .collect()
    }

    /// Runs the steps up to the credential, as a process of its own that dies after so many calls. True at their end.
    pub(crate) async fn steps(&self, node: &str, calls: i64) -> bool {
        self.calls_left.store(calls, Ordering::SeqCst);
        let mut record = Record::open(&self.records, &node.parse().unwrap(), &"job-9".parse().unwrap()).unwrap();
        let secrets = Secrets::default();
        let mut rejoin =
            Rejoin { cluster: &self.cluster, driver: &self.driver, record: &mut record, secrets: &secrets };
        let done: Result<(), StepError> = async {
            rejoin.save().await?;
            while let Progress::NotYet(_) = rejoin.remove_identity().await? {}
            rejoin.credential(Lifetime::USUAL, Timestamp::now()).await?;
            Ok(())
        }
        .await;
        self.calls_left.store(-1, Ordering::SeqCst);
        done.is_ok()
    }
}

/// A job whose own file is the host's name.
struct Hostname(String);

impl FirstBootSource for Hostname {
    fn files<'a>(&'a self, _: &'a Name) -> BoxFuture<'a, Result<FirstBoot, String>> {
        let content = STANDARD.encode(format!("{}\n", self.0));
        let files = vec![FirstBootFile { path: "/etc/hostname".to_owned(), mode: 0o644, content }];
        Box::pin(async { Ok(FirstBoot { files }) })
    }
}

/// Of the stories that go through the appliance's door.
pub(crate) const CLUSTER: ClusterId = ClusterId(3);
pub(crate) const HOST: HostId = HostId(7);
const INCIDENT: IncidentId = IncidentId(41);

fn target(host: HostId) -> Target {
    Target {
        host,
        name: "n1".to_owned(),
        cluster: Some(CLUSTER),
        machine: MachineId(1),
        linked: true,
        found_off: false,
        network: healing::assess::NetworkState::Silent,
        outlets_off: false,
        on_left: None,
        boot_before: None,
        disk: None,
        spare_machine: None,
        effect_ms: 60_000,
        off_gap_ms: 2_000,
        found_off_gap_ms: 10_000,
        release_ms: 120_000,
        last_look_ms: 3_000,
        action_spacing_ms: 1_000,
    }
}

/// The register knows one host.
#[derive(Debug)]
pub(crate) struct OneMember(Member);

impl Members for OneMember {
    fn member(&self, host: HostId) -> Option<Member> {
        (host == HOST).then(|| self.0.clone())
    }
}

/// Every job is about this host.
struct OneHost(JoiningHost);

impl JoiningHosts for OneHost {
    fn host(&self, _: &Name) -> Result<Option<JoiningHost>, String> {
        Ok(Some(self.0.clone()))
    }
}

/// The host of every job.
struct One(Joiner);

impl Joiners for One {
    fn joiner(&self, _: &Name) -> Option<Joiner> {
        Some(self.0.clone())
    }
}

fn text(files: &FirstBoot, path: &str) -> String {
    let file = files.files.iter().find(|file| file.path == path).unwrap();
    String::from_utf8(STANDARD.decode(&file.content).unwrap()).unwrap()
}

/// A client whose last call reaches the server while its answer is lost, and whose further calls go nowhere: what a crash
/// at that moment leaves behind.
fn cut_off_after(client: Client, left: Arc<AtomicI64>) -> Client {
    Client::new(CutOff { client, left }, "default")
}

#[derive(Clone)]
struct CutOff {
    client: Client,
    left: Arc<AtomicI64>,
}

type Request = hyper::Request<kube::client::Body>;
type Response = hyper::Response<kube::client::Body>;

impl tower_service::Service<Request> for CutOff {
    type Response = Response;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<Response, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), std::io::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (client, left) = (self.client.clone(), Arc::clone(&self.left));
        Box::pin(async move {
            let before = left.load(Ordering::SeqCst);
            if before == 0 {
                return Err(std::io::Error::other("the process is dead"));
            }
            if before > 0 {
                left.store(before - 1, Ordering::SeqCst);
            }
            let answer = client.send(request).await.map_err(std::io::Error::other)?;
            if before == 1 {
                // The server did it; nobody hears.
                let _ = answer.into_body().collect().await;
                return Err(std::io::Error::other("the process died before the answer"));
            }
            Ok(answer)
        })
    }
}
