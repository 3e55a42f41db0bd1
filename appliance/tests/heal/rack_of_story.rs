//! One rack with one server on it, alone in namespaces that end with the story.

use crate::appliance::{self, Appliance, CLUSTER, RACKMEDIC, Waits};
use crate::booting::{self, Stock};
use rack::fault::{self, Fault};
use rack::kubernetes::{Programs, alone, run};
use rack::layout::{HostPlace, Rack};
use rack::network;
use rack::raised::{Ground, Raised};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Three pods that spread, and one with a name of its own. They stand for work that must run somewhere.
const WORK: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 3
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      automountServiceAccountToken: false
      topologySpreadConstraints:
        - { maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: { matchLabels: { app: web } } }
      containers: [{ name: pause, image: "localhost/pause:1", imagePullPolicy: Never }]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: db }
spec:
  replicas: 1
  serviceName: db
  selector: { matchLabels: { app: db } }
  template:
    metadata: { labels: { app: db } }
    spec:
      automountServiceAccountToken: false
      containers: [{ name: pause, image: "localhost/pause:1", imagePullPolicy: Never }]
"#;

/// The rack, the server, and who works where.
pub(crate) struct Scene {
    // Ended first: it must not see the rack go.
    pub(crate) appliance: Option<Appliance>,
    pub(crate) folder: PathBuf,
    pub(crate) raised: Raised,
}

/// What a BMC was told, and what became of the host's power, both counted outside of the appliance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Power {
    pub(crate) told_off: usize,
    pub(crate) told_on: usize,
    pub(crate) told_else: usize,
    pub(crate) went_on: usize,
    pub(crate) went_off: usize,
}

impl Power {
    pub(crate) fn of(host: &HostPlace) -> Power {
        let log = std::fs::read_to_string(host.folder.join("bmc.log")).unwrap_or_default();
        let told = |what: &str| log.lines().filter(|line| line.trim() == what).count();
        let all = log.lines().filter(|line| !line.starts_with("set boot")).count();
        let (told_off, told_on) = (told("set power 0"), told("set power 1"));
        let (went_on, went_off) = host.switched();
        Power { told_off, told_on, told_else: all - told_off - told_on, went_on, went_off }
    }
}

/// Tells a story on a rack with so many Nodes, all of them armed and well, and so many spares.
pub(crate) fn story(name: &str, nodes: u8, spares: u8, waits: Waits, tell: impl FnOnce(&mut Scene)) {
    let Some(raised) = raise(name, nodes, spares, waits == Waits::Default) else { return };
    let folder = appliance::configure(&raised, waits);
    if let Some(stock) = Stock::named() {
        booting::configure(&raised, &folder, &stock);
    }
    armed(raised, folder, tell);
}

fn armed(raised: Raised, folder: PathBuf, tell: impl FnOnce(&mut Scene)) {
    let began = Instant::now();
    let appliance = Appliance::start(&raised, &folder);
    appliance.done(&["apply", "-f", "rack.yaml"]);
    appliance.done(&["arm", CLUSTER]);
    let mut scene = Scene { appliance: Some(appliance), folder, raised };
    scene.settled();
    eprintln!("the rack is watched, linked and armed {:.0} s later", began.elapsed().as_secs_f64());
    tell(&mut scene);
    eprintln!("the story took {:.0} s", began.elapsed().as_secs_f64());
}

/// Tells a story on such a rack with nobody to heal it but Kubernetes at its defaults.
pub(crate) fn story_of_kubernetes_alone(name: &str, nodes: u8, tell: impl FnOnce(&Raised)) {
    let Some(raised) = raise(name, nodes, 0, true) else { return };
    tell(&raised);
}

/// Raises a rack with work on it, alone in namespaces; `None` outside of them, or where it cannot be raised.
fn raise(name: &str, nodes: u8, spares: u8, usual_patience: bool) -> Option<Raised> {
    let ground = Ground { usual_patience, ..ground(name)? };
    if !alone(name).unwrap() {
        return None;
    }
    // Names of network namespaces of our own, which end with our mounts.
    std::fs::create_dir_all("/run/netns").unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run/netns"])).unwrap();
    let began = Instant::now();
    // Inside, process numbers begin anew: the moment tells two runs apart.
    let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let folder = std::env::temp_dir().join(format!("rackmedic-heal-{moment}"));
    let raised = Raised::raise(Rack::new("heal", &folder), &ground, nodes, spares).unwrap();
    raised.create("work.yaml", WORK).unwrap();
    eprintln!("{nodes} hosts are Nodes after {:.0} s", began.elapsed().as_secs_f64());
    Some(raised)
}

/// What a rack is raised from, if it is there.
fn ground(name: &str) -> Option<Ground> {
    let not_run = |why: &str| {
        eprintln!("{name}: not run, {why}");
        None
    };
    if !rustix::process::geteuid().is_root() {
        return not_run("only root can make the namespaces of a rack");
    }
    let Some(programs) = Programs::named().unwrap() else {
        return not_run("RACKMEDIC_KUBERNETES names no folder of programs (tests/rack/kubernetes/install)");
    };
    let Some(image) = std::env::var_os("RACKMEDIC_RACK_IMAGE").map(PathBuf::from) else {
        return not_run("RACKMEDIC_RACK_IMAGE names no folder with the image of the hosts (tests/rack/image)");
    };
    let hook = Path::new(RACKMEDIC).with_file_name("rack");
    if !hook.exists() {
        return not_run("the rack's program is not built (`cargo build -p rack`, in the same profile)");
    }
    Some(Ground { programs, image, hook, usual_patience: false })
}

impl Scene {
    pub(crate) fn appliance(&self) -> &Appliance {
        self.appliance.as_ref().unwrap()
    }

    pub(crate) fn place(&self, name: &str) -> HostPlace {
        self.raised.host(name).unwrap().clone()
    }

    /// What every BMC was told until now.
    pub(crate) fn powers(&self) -> Vec<Power> {
        self.raised.hosts.iter().map(Power::of).collect()
    }

    /// Waits until everything works where it should.
    pub(crate) fn settled(&self) {
        self.appliance().wait_until_well(&self.raised);
        self.appliance().wait("all pods run", &self.raised, Duration::from_secs(240), || {
            std::thread::sleep(Duration::from_secs(1));
            let web = self.raised.running("app=web").ok()?.len();
            let db = self.raised.running("app=db").ok()?.len();
            (web == 3 && db == 1).then_some(())
        });
    }

    /// The node on which the StatefulSet's pod runs.
    pub(crate) fn node_of_db(&self) -> String {
        self.raised.running("app=db").unwrap()[0].1.clone()
    }

    /// Lets pods spread again: one on each node.
    pub(crate) fn spread(&self) {
        self.raised.control.kubectl(&["rollout", "restart", "deployment/web"]).unwrap();
        self.raised.control.kubectl(&["rollout", "status", "deployment/web", "--timeout=240s"]).unwrap();
        self.settled();
    }

    /// Takes away whatever a chapter that did not come to its end has left, so that the next finds a rack that works.
    pub(crate) fn mend(&mut self) {
        let _ = network::plugged(&self.raised.rack, "appliance", true);
        if self.raised.control.kubectl(&["get", "--raw", "/readyz"]).is_err() {
            let _ = self.raised.control.start_api_server();
        }
        for host in &self.raised.hosts {
            let _ = fault::apply(&self.raised.rack, host, Fault::Mend, &self.raised.hook);
            let _ = self.raised.control.kubectl(&["uncordon", &host.name()]);
        }
        if self.appliance.is_none() {
            self.restart();
        }
        self.appliance().done(&["apply", "-f", "rack.yaml"]);
        if catch_unwind(AssertUnwindSafe(|| self.settled())).is_err() {
            eprintln!("the rack does not come back to what it was");
        }
    }

    /// Another life of the server on the same records.
    pub(crate) fn restart(&mut self) {
        self.appliance = None;
        self.appliance = Some(Appliance::start(&self.raised, &self.folder));
    }
}
