//! Three real etcd members with TLS and client certificates on loopback: list, health, and removal by ID.

use crate::alone;
use crate::world::{Medic, World, target};
use healing::command::{ClusterCall, Reply};
use healing::id::HostId;
use healing::signal::{Seen, Source};
use rack::kubernetes::Service;
use std::path::Path;
use std::time::Duration;

fn member(world: &World, number: u16) -> Service {
    let pki = world.plane.folder().join("pki/etcd");
    let path = |file: &str| pki.join(file).display().to_string();
    let (client, peer) = (12_000 + number, 13_000 + number);
    let cluster: Vec<String> = (1..=3).map(|n| format!("cp{n}=https://127.0.0.1:{}", 13_000 + n)).collect();
    let mut command = world.plane.programs().command("etcd");
    command.args([
        format!("--name=cp{number}"),
        format!("--data-dir={}", world.plane.folder().join(format!("etcd-cp{number}")).display()),
        format!("--listen-client-urls=https://127.0.0.1:{client}"),
        format!("--advertise-client-urls=https://127.0.0.1:{client}"),
        format!("--listen-peer-urls=https://127.0.0.1:{peer}"),
        format!("--initial-advertise-peer-urls=https://127.0.0.1:{peer}"),
        format!("--initial-cluster={}", cluster.join(",")),
        format!("--cert-file={}", path("server.crt")),
        format!("--key-file={}", path("server.key")),
        format!("--peer-cert-file={}", path("peer.crt")),
        format!("--peer-key-file={}", path("peer.key")),
        format!("--trusted-ca-file={}", path("ca.crt")),
        format!("--peer-trusted-ca-file={}", path("ca.crt")),
    ]);
    command.args(["--client-cert-auth", "--peer-client-cert-auth", "--unsafe-no-fsync", "--log-level=warn"]);
    Service::start(&format!("etcd-cp{number}"), command, &world.plane.folder().join("logs")).unwrap()
}

fn config(world: &World, token: &Path, pki: &Path) -> rackmedic::cluster::ClusterConfig {
    let mut more = format!(
        "[etcd]\nca_file = '{0}/ca.crt'\ncert_file = '{0}/healthcheck-client.crt'\nkey_file = '{0}/healthcheck-client.key'\n",
        pki.display()
    );
    for number in 1..=3 {
        more += &format!(
            "[[control_plane]]\nnode = 'cp{number}'\napi = '{}'\netcd = 'https://127.0.0.1:{}'\n",
            world.api(),
            12_000 + number
        );
    }
    world.config(token, "", &more)
}

#[test]
fn members_are_read_live_over_tls_and_removed_by_their_id_alone() {
    let Some(programs) = alone("etcd::members_are_read_live_over_tls_and_removed_by_their_id_alone") else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let world = World::start(&programs).await;
        let token = world.apply_rights("yaml");
        let mut members: Vec<Service> = (1..=3).map(|number| member(&world, number)).collect();
        let pki = world.plane.folder().join("pki/etcd");
        let hosts = [("cp1", 1), ("cp2", 2), ("cp3", 3)];
        let mut medic = Medic::start(&config(&world, &token, &pki), &hosts).await;
        let healthy = |m: &Medic| {
            let etcd = m.sight().etcd.unwrap_or_default();
            etcd.members
                .iter()
                .filter(|member| member.healthy && !member.learner)
                .filter_map(|member| member.host)
                .collect::<Vec<_>>()
        };
        medic.until(60, "three members are healthy, each on its host", |m| healthy(m).len() == 3).await;
        let etcd = medic.sight().etcd.unwrap();
        let id_of = |host: u32| etcd.members.iter().find(|member| member.host == Some(HostId(host))).unwrap().id;
        eprintln!("members {:x?}", etcd.members.iter().map(|member| (member.id, member.host)).collect::<Vec<_>>());

        // A dead member: its host's own signal fails, the list still names it, the others are healthy.
        drop(members.remove(2));
        let took = medic
            .until(30, "cp3's member is down", |m| {
                healthy(m) == [HostId(1), HostId(2)] || healthy(m) == [HostId(2), HostId(1)]
            })
            .await;
        eprintln!("a dead member is seen after {:.1} s", took.as_secs_f64());
        medic
            .until(20, "cp3's own signal", |m| {
                m.evidence(3).slot(Source::EtcdMember).while_seen(Seen::Refused).is_some()
            })
            .await;
        assert_eq!(medic.sight().etcd.unwrap().members.len(), 3);

        // It is removed by its ID, and is gone when asked again; an ID that is nobody's is gone too.
        let cp3 = target("cp3", 3);
        for _ in 0..2 {
            assert_eq!(medic.call(&cp3, ClusterCall::RemoveEtcdMember(id_of(3))).await, Reply::Ok);
        }
        assert_eq!(medic.call(&cp3, ClusterCall::RemoveEtcdMember(12_345)).await, Reply::Ok);
        medic.until(20, "two members are left", |m| m.sight().etcd.is_some_and(|etcd| etcd.members.len() == 2)).await;

        // With one of two dead there is no quorum: nothing is removed, and the last reading grows old instead of being renewed.
        let id = id_of(2);
        drop(members.remove(1));
        tokio::time::sleep(Duration::from_secs(6)).await;
        let reply = medic.call(&target("cp2", 2), ClusterCall::RemoveEtcdMember(id)).await;
        assert!(matches!(reply, Reply::ApiSilent | Reply::ApiRefused), "{reply:?}");
        medic.look();
        let read_at = medic.sight().etcd.unwrap().read_at;
        assert!(medic.time.now().elapsed.since(read_at) > 4_000, "a list without a quorum is no live reading");

        // A credential that etcd does not take says nothing of its members.
        let foreign = world.plane.folder().join("pki");
        let text = std::fs::read_to_string(foreign.join("apiserver-kubelet-client.crt")).unwrap();
        for (from, to) in [("ca.crt", "ca.crt"), ("apiserver-kubelet-client.key", "healthcheck-client.key")] {
            let source = if from == "ca.crt" { pki.join(from) } else { foreign.join(from) };
            std::fs::create_dir_all(world.plane.folder().join("wrong")).unwrap();
            std::fs::copy(source, world.plane.folder().join("wrong").join(to)).unwrap();
        }
        std::fs::write(world.plane.folder().join("wrong/healthcheck-client.crt"), text).unwrap();
        drop(medic);
        let wrong = config(&world, &token, &world.plane.folder().join("wrong"));
        let mut medic = Medic::start(&wrong, &hosts).await;
        medic.until(20, "the API is seen", |m| m.sight().api.watch_proof_at.0 > 0).await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        medic.look();
        assert_eq!(medic.sight().etcd, None);
        let missed =
            medic.heard.iter().filter(|(host, s)| *host == HostId(1) && s.source == Source::EtcdMember).count();
        assert_eq!(missed, 0, "cp1's member lives, and does not know us");

        // The right one on the same path is taken up without a restart.
        for file in ["healthcheck-client.crt", "healthcheck-client.key"] {
            std::fs::copy(pki.join(file), world.plane.folder().join("wrong").join(file)).unwrap();
        }
        let took = medic
            .until(40, "cp1's member is heard", |m| {
                m.heard.iter().any(|(host, s)| *host == HostId(1) && s.source == Source::EtcdMember)
            })
            .await;
        eprintln!("a certificate that was renewed on disk is used after {:.1} s", took.as_secs_f64());
    });
}
