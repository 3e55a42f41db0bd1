//! What becomes of our sight when the API is killed, deaf, slow, overloaded, or does not know us.

use crate::alone;
use crate::proxy::{Mood, Proxy};
use crate::world::{Medic, WORKERS, World, target, workers};
use healing::command::{ClusterCall, Reply};
use healing::signal::{Seen, Source};
use rack::kubernetes::{Service, wait_for};
use std::process::Command;
use std::time::{Duration, Instant};

/// The API server of these namespaces, found as an administrator finds it.
struct ApiServer {
    pid: u32,
    line: Vec<String>,
}

impl ApiServer {
    fn find() -> ApiServer {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
            let line: Vec<String> = line
                .split(|b| *b == 0)
                .map(|a| String::from_utf8_lossy(a).into_owned())
                .filter(|a| !a.is_empty())
                .collect();
            if line.first().is_some_and(|program| program.ends_with("kube-apiserver")) {
                return ApiServer { pid, line };
            }
        }
        panic!("no kube-apiserver runs here");
    }

    fn kill(&self) {
        assert!(Command::new("kill").args(["-KILL", &self.pid.to_string()]).status().unwrap().success());
        // A dying process has no command line before it has let go of its port.
        wait_for(Duration::from_secs(10), "its port is free", || {
            let refused = std::net::TcpStream::connect("127.0.0.1:6443").err()?;
            (refused.kind() == std::io::ErrorKind::ConnectionRefused).then_some(())
        })
        .unwrap();
    }

    fn start(&self, world: &World) -> Service {
        let mut command = Command::new(&self.line[0]);
        command.args(&self.line[1..]);
        Service::start("kube-apiserver-again", command, &world.plane.folder().join("logs")).unwrap()
    }
}

/// Asks etcd to forget all versions but the last, so that a watch cannot continue from an old one.
async fn compact() {
    let etcd = rackmedic::cluster::config::EtcdConfig { ca_file: None, cert_file: None, key_file: None };
    let client = rackmedic::cluster::client::etcd_client("http://127.0.0.1:2379", &etcd).unwrap();
    let ask = |path: &'static str, body: String| {
        let client = client.clone();
        async move { rackmedic::cluster::client::ask(&client, path, Some(body.into_bytes())).await.unwrap() }
    };
    // Somebody else writes meanwhile, so that what our watch saw last is no longer the last.
    for _ in 0..3 {
        ask("/v3/kv/put", r#"{"key":"cmFja21lZGlj","value":"eA=="}"#.to_owned()).await;
    }
    let range = ask("/v3/kv/range", r#"{"key":"AA==","limit":"1"}"#.to_owned()).await;
    let range: serde_json::Value = serde_json::from_str(&range.body).unwrap();
    let revision = range["header"]["revision"].as_str().unwrap();
    let done = ask("/v3/kv/compaction", format!(r#"{{"revision":"{revision}","physical":true}}"#)).await;
    assert!(done.status.is_success(), "{done:?}");
}

#[test]
fn the_watch_outlives_its_api_server_and_never_takes_the_silence_for_the_nodes() {
    let Some(programs) = alone("outages::the_watch_outlives_its_api_server_and_never_takes_the_silence_for_the_nodes")
    else {
        return;
    };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let world = World::start(&programs).await;
        let token = world.apply_rights("yaml");
        let _renewer = workers(&world).await;
        let mut medic = Medic::start(&world.one_endpoint(&token), &WORKERS).await;
        medic
            .until(20, "all are heard", |m| (1..=3).all(|host| m.lease_age_ms(host).is_some_and(|age| age < 3_000)))
            .await;
        medic.until(10, "the watch is proven", |m| m.sight().api.watch_live_since.is_some()).await;
        medic.until(10, "nobody is unreachable", |m| m.sight().api.unreachable_since.is_none()).await;

        let server = ApiServer::find();
        server.kill();
        let took = medic.until(30, "the API is unreachable", |m| m.sight().api.unreachable_since.is_some()).await;
        eprintln!("API server killed: unreachable after {:.1} s", took.as_secs_f64());
        let took = medic.until(30, "the watch is no longer proven", |m| m.sight().api.watch_live_since.is_none()).await;
        eprintln!("API server killed: the watch unproven after {:.1} s more", took.as_secs_f64());
        assert_eq!(medic.call(&target("n1", 1), ClusterCall::Cordon).await, Reply::ApiSilent);
        // No node is gone, and no signal says so.
        medic.look();
        assert!(!medic.heard.iter().any(|(_, signal)| signal.seen == Seen::NoNode));

        // It comes back with nothing to continue from: everything is listed anew, by 410 or since the watch was deaf for 15 s.
        compact().await;
        let began = Instant::now();
        let mut again = server.start(&world);
        again
            .wait_until(Duration::from_secs(90), "/readyz", || {
                world.plane.kubectl(&["get", "--raw", "/readyz"]).is_ok()
            })
            .unwrap();
        let ready = began.elapsed();
        medic
            .until(40, "all are heard again", |m| {
                m.sight().api.unreachable_since.is_none()
                    && m.sight().api.watch_live_since.is_some()
                    && (1..=3).all(|host| m.lease_age_ms(host).is_some_and(|age| age < 3_000))
            })
            .await;
        eprintln!(
            "API server started again: ready after {:.1} s, all heard {:.1} s later",
            ready.as_secs_f64(),
            (began.elapsed() - ready).as_secs_f64()
        );
        assert!(!medic.heard.iter().any(|(_, signal)| signal.seen == Seen::NoNode));
        assert_eq!(medic.done(&target("n1", 1), ClusterCall::Cordon).await, Reply::Ok);
    });
}

#[test]
fn a_deaf_or_overloaded_endpoint_is_left_for_another_and_gone_versions_are_listed_anew() {
    let Some(programs) =
        alone("outages::a_deaf_or_overloaded_endpoint_is_left_for_another_and_gone_versions_are_listed_anew")
    else {
        return;
    };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let world = World::start(&programs).await;
        let token = world.apply_rights("yaml");
        let _renewer = workers(&world).await;
        let front = Proxy::start(&world).await;
        let fresh = |m: &Medic| (1..=3).all(|host| m.lease_age_ms(host).is_some_and(|age| age < 3_000));

        // Given one endpoint only, so that there is nowhere to go.
        let planes = format!("[[control_plane]]\nnode = 'cp1'\napi = '{}'\n", front.address());
        let mut medic = Medic::start(&world.config(&token, "", &planes), &WORKERS).await;
        medic.until(20, "all are heard", |m| fresh(m)).await;
        // Overload (429 with a wait), then a fault of the server: it is asked with pauses, and heard again.
        for mood in [Mood::TooMany, Mood::Fault] {
            let errors = medic.counter("watch_errors_total");
            front.set(mood);
            front.cut();
            medic.until(20, "its lease is late", |m| m.lease_age_ms(1).is_some_and(|age| age > 6_000)).await;
            let tries = medic.counter("watch_errors_total") - errors;
            assert!((2..40).contains(&tries), "{tries} errors of two watches in some 6 s");
            front.set(Mood::Honest);
            let took = medic.until(40, "heard again", |m| fresh(m)).await;
            eprintln!("{mood:?} for 6 s: {tries} errors of two watches, heard again {:.1} s later", took.as_secs_f64());
        }
        // A version that is gone (410): listed anew at once.
        let (gone, lists) = (medic.counter("watch_gone_total"), medic.counter("watch_relists_total"));
        front.set(Mood::Gone);
        front.cut();
        medic.until(30, "it hears that its version is gone", |m| m.counter("watch_gone_total") > gone).await;
        front.set(Mood::Honest);
        medic.until(40, "heard again", |m| fresh(m) && m.counter("watch_relists_total") > lists).await;
        // The same by the API server itself: while we are kept out it is started anew, Leases change, etcd forgets the old.
        let lists = medic.counter("watch_relists_total");
        front.set(Mood::Fault);
        front.cut();
        let server = ApiServer::find();
        server.kill();
        let mut again = server.start(&world);
        again
            .wait_until(Duration::from_secs(90), "/readyz", || {
                world.plane.kubectl(&["get", "--raw", "/readyz"]).is_ok()
            })
            .unwrap();
        let renewal = || {
            let read = ["get", "lease", "n1", "-n", "kube-node-lease", "-o", "jsonpath={.spec.renewTime}"];
            world.plane.kubectl(&read).unwrap()
        };
        for _ in 0..2 {
            let before = renewal();
            while renewal() == before {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        compact().await;
        let gone = medic.counter("watch_gone_total");
        front.set(Mood::Honest);
        medic.until(40, "heard again", |m| fresh(m) && m.counter("watch_relists_total") > lists).await;
        eprintln!(
            "API server started anew behind our back: {} times told 410, {} listings",
            medic.counter("watch_gone_total") - gone,
            medic.counter("watch_relists_total") - lists
        );
        // Deaf: an act gives up after 10 s, and says that nobody answered.
        front.set(Mood::Deaf);
        let began = Instant::now();
        assert_eq!(medic.call(&target("n1", 1), ClusterCall::Cordon).await, Reply::ApiSilent);
        assert!(began.elapsed() < Duration::from_secs(12));
        medic.until(30, "the API is unreachable", |m| m.sight().api.unreachable_since.is_some()).await;
        assert!(!medic.heard.iter().any(|(_, signal)| signal.seen == Seen::NoNode));
        front.set(Mood::Honest);
        front.cut();
        drop(medic);

        // Given a virtual address beside the host's own endpoint.
        let vip = front;
        let top = format!("vip = '{}'", vip.address());
        let planes = format!("[[control_plane]]\nnode = 'cp1'\napi = '{}'\n", world.api());
        let mut medic = Medic::start(&world.config(&token, &top, &planes), &WORKERS).await;
        medic.until(20, "all are heard", |m| fresh(m)).await;
        assert_eq!(medic.counter("endpoint_switches_total"), 0);
        // The virtual address takes connections and says nothing more, as one whose host hangs.
        let switches = medic.counter("endpoint_switches_total");
        vip.set(Mood::Deaf);
        let took =
            medic.until(40, "another endpoint is used", |m| m.counter("endpoint_switches_total") > switches).await;
        medic.until(20, "heard by the other endpoint", |m| fresh(m)).await;
        medic.until(20, "the virtual address is silent", |m| m.sight().api.vip_silent_since.is_some()).await;
        assert_eq!(medic.sight().api.unreachable_since, None);
        eprintln!("deaf virtual address: another endpoint after {:.1} s", took.as_secs_f64());
        assert_eq!(medic.done(&target("n1", 1), ClusterCall::Cordon).await, Reply::Ok);
        assert!(!medic.heard.iter().any(|(_, signal)| signal.seen == Seen::NoNode));
    });
}

#[test]
fn a_token_that_is_revoked_is_no_fault_of_any_node_and_a_new_one_is_taken_up() {
    let Some(programs) = alone("outages::a_token_that_is_revoked_is_no_fault_of_any_node_and_a_new_one_is_taken_up")
    else {
        return;
    };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let world = World::start(&programs).await;
        world.apply_rights("yaml");
        crate::fake_nodes::create(
            &world.admin,
            "cp1",
            9,
            serde_json::json!({"node-role.kubernetes.io/control-plane": ""}),
        )
        .await;
        let _renewer = workers(&world).await;
        // Given a token that goes with an object.
        world.plane.kubectl(&["create", "configmap", "bound", "-n", "rackmedic"]).unwrap();
        let secret = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"lent","namespace":"rackmedic"}}"#;
        let file = world.plane.folder().join("lent.json");
        std::fs::write(&file, secret).unwrap();
        world.plane.kubectl(&["apply", "-f", file.to_str().unwrap()]).unwrap();
        let token = world.token(&["--bound-object-kind=Secret", "--bound-object-name=lent"]);
        let hosts = [("n1", 1), ("n2", 2), ("n3", 3), ("cp1", 9)];
        let mut medic = Medic::start(&world.one_endpoint(&token), &hosts).await;
        medic
            .until(20, "all are heard", |m| (1..=3).all(|host| m.lease_age_ms(host).is_some_and(|age| age < 3_000)))
            .await;
        medic
            .until(10, "cp1's API server answers", |m| {
                m.evidence(9).slot(Source::ApiServer).while_seen(Seen::Answer).is_some()
            })
            .await;

        // When the object goes, the token is worth nothing.
        world.plane.kubectl(&["delete", "secret", "lent", "-n", "rackmedic"]).unwrap();
        medic.heard.clear();
        let n1 = target("n1", 1);
        let began = Instant::now();
        loop {
            if medic.call(&n1, ClusterCall::ReadNode).await == Reply::ApiRefused {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "the API still takes the token");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        eprintln!("token revoked: refused after {:.1} s", began.elapsed().as_secs_f64());
        // What is open stays open for as long as the server lets it, so the watch may go on for a while: it ends with the
        // API server.
        let server = ApiServer::find();
        server.kill();
        let mut again = server.start(&world);
        again
            .wait_until(Duration::from_secs(90), "/readyz", || {
                world.plane.kubectl(&["get", "--raw", "/readyz"]).is_ok()
            })
            .unwrap();
        medic.until(40, "our credential is not taken", |m| m.counter("unauthenticated_total") > 0).await;
        medic
            .until(40, "the API is reachable, and the watch unproven", |m| {
                m.sight().api.unreachable_since.is_none() && m.sight().api.watch_live_since.is_none()
            })
            .await;
        medic.heard.clear();
        tokio::time::sleep(Duration::from_secs(12)).await;
        medic.look();
        let of_plane = medic.heard.iter().filter(|(_, signal)| signal.source == Source::ApiServer).count();
        assert_eq!(of_plane, 0, "an API server that does not know us neither answers nor misses");

        // A new token on the same path is taken up without a restart.
        world.token(&["--duration=1h"]);
        let took = medic
            .until(60, "heard again with the new token", |m| {
                m.sight().api.watch_live_since.is_some()
                    && (1..=3).all(|host| m.lease_age_ms(host).is_some_and(|age| age < 3_000))
            })
            .await;
        eprintln!("new token on the same path: taken up within {:.1} s", took.as_secs_f64());
        assert!(matches!(medic.call(&n1, ClusterCall::ReadNode).await, Reply::Node { node: Some(_), .. }));
    });
}
