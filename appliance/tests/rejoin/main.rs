//! A wiped host rejoins a real cluster through the kubeadm driver: a real control plane, a real kubelet and container
//! runtime, and `kubeadm join` itself at the first boot.
//!
//! Needs root and the programs of `tests/rack/kubernetes/install`, named by `RACKMEDIC_KUBERNETES`. Without them each test
//! says that it was not run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod scene;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node as NodeObject;
use rackmedic::cluster::Rejoin as _;
use rackmedic::rejoin::Progress;
use rackmedic::rejoin::StepError;
use rackmedic::rejoin::calls::Around;
use rackmedic::rejoin::credential::Lifetime;
use rackmedic::rejoin::record::Marks;
use scene::{CLUSTER, HOST, story};
use std::time::Instant;

/// The whole way, with the times that it took.
#[test]
fn a_wiped_host_rejoins_with_a_new_identity_and_its_old_labels() {
    story("a_wiped_host_rejoins_with_a_new_identity_and_its_old_labels", async |scene| {
        // Given a worker that joined, and what people gave it
        scene.join_first("n1", 1).await;
        scene.kubectl("label node n1 pool=fast node-restriction.kubernetes.io/tenant=blue");
        scene.kubectl("annotate node n1 example.org/owner=team-a");
        scene.kubectl("taint node n1 dedicated=ml:NoSchedule");
        let old = scene.node("n1").await.unwrap();
        let old_boot = scene.host("n1").boot_id().unwrap().to_owned();

        // When its power is cut and it is reimaged
        scene.host("n1").power_off();
        scene.not_ready("n1").await;
        let begun = Instant::now();
        scene
            .rejoin("n1", "job-2", async |rejoin| {
                assert_eq!(rejoin.save().await.unwrap(), Progress::Done);
            })
            .await;
        scene.removed("n1", "job-2").await;
        assert!(scene.node("n1").await.is_none(), "the old Node is gone");
        assert!(scene.kubectl("get lease -n kube-node-lease -o name").is_empty(), "and its Lease");
        let token = scene.reimage("n1", "job-2").await;
        scene.host("n1").power_on().unwrap();
        scene.first_boot("n1");
        scene.back("n1", "job-2").await;
        scene
            .rejoin("n1", "job-2", async |rejoin| {
                assert_eq!(rejoin.restore().await.unwrap(), Progress::Done);
                assert_eq!(rejoin.delete_credential().await.unwrap(), Progress::Done);
            })
            .await;
        eprintln!("from the power cut's notice to labels restored: {:.1} s", begun.elapsed().as_secs_f64());

        // Then it is another Node, in another boot, with the old marks
        let new = scene.node("n1").await.unwrap();
        assert_ne!(new.metadata.uid, old.metadata.uid);
        assert_eq!(boot_id(&new), scene.host("n1").boot_id().unwrap());
        assert_ne!(boot_id(&new), old_boot);
        let labels = new.metadata.labels.as_ref().unwrap();
        assert_eq!(labels.get("pool").map(String::as_str), Some("fast"));
        assert_eq!(labels.get("node-restriction.kubernetes.io/tenant").map(String::as_str), Some("blue"));
        assert_eq!(new.metadata.annotations.as_ref().unwrap()["example.org/owner"], "team-a");
        assert!(scene.taints("n1").await.contains(&"dedicated=ml:NoSchedule".to_owned()));
        // And the kubelet has a serving certificate that the API server believes
        scene.serving("n1").await;
        // And the credential opens nothing any more, and is not on the disk
        scene.token_is_refused(&token).await;
        assert!(!scene.host("n1").disk().join("etc/rackmedic/join/kubeadm.yaml").exists());
        // And whoever repeats any step finds it already so
        scene
            .rejoin("n1", "job-2", async |rejoin| {
                let kubelet = None;
                assert_eq!(rejoin.save().await.unwrap(), Progress::AlreadySo);
                assert_eq!(rejoin.remove_identity().await.unwrap(), Progress::AlreadySo);
                assert_eq!(rejoin.verify(kubelet).await.unwrap(), Progress::AlreadySo);
                assert_eq!(rejoin.restore().await.unwrap(), Progress::AlreadySo);
                assert_eq!(rejoin.delete_credential().await.unwrap(), Progress::AlreadySo);
                let refused = rejoin.mint(Lifetime::USUAL, Timestamp::now()).await;
                assert!(matches!(refused, Err(StepError::Stop(_))), "a join that is over has no credential");
            })
            .await;
        assert_eq!(scene.node("n1").await.unwrap().metadata.uid, new.metadata.uid, "the new Node was not touched");
    });
}

/// The same through the door that the step machine's calls go through, with the kubeadm driver and then with a site's own.
#[test]
fn the_step_machine_s_calls_bring_a_wiped_host_back() {
    story("the_step_machine_s_calls_bring_a_wiped_host_back", async |scene| {
        use healing::command::{ClusterCall, Reply};
        use healing::id::{ClusterId, HostId};
        scene.join_first("n1", 1).await;
        scene.kubectl("label node n1 pool=fast");
        scene.kubectl("taint node n1 dedicated=ml:NoSchedule");
        // What nobody knows is left to whoever asks
        let drivers = scene.drivers("n1", Marks::default());
        assert_eq!(scene.ask(&drivers, ClusterId(9), HOST, ClusterCall::DeleteNode).await, None);
        assert_eq!(scene.ask(&drivers, CLUSTER, HostId(8), ClusterCall::DeleteNode).await, None);
        assert_eq!(scene.ask(&drivers, CLUSTER, HOST, ClusterCall::Cordon).await, None);
        // A host that is only power-cycled comes back as the Node that it was: its labels are the cluster client's.
        for call in [ClusterCall::RestoreLabels, ClusterCall::DeleteCredential] {
            assert_eq!(scene.ask(&drivers, CLUSTER, HOST, call).await, None, "{call:?}");
        }
        for round in ["kubeadm", "generic"] {
            if round == "generic" {
                scene.use_generic_driver();
                scene.forget("n1");
            }
            let drivers = scene.drivers("n1", Marks::default());
            let old = scene.node("n1").await.unwrap();
            // When its power is cut, its name freed, its disk written, and it boots
            scene.host("n1").power_off();
            scene.not_ready("n1").await;
            scene.step(&drivers, ClusterCall::DeleteNode).await;
            assert!(scene.node("n1").await.is_none(), "{round}");
            let recorded = drivers.recorded(HOST).unwrap();
            assert_eq!(recorded.labels["pool"], "fast", "{round}");
            assert!(recorded.taints.iter().any(|taint| taint.key == "dedicated"), "{round}");
            let token = scene.reimage("n1", "incident-41").await;
            scene.step(&drivers, ClusterCall::MintCredential).await;
            assert_eq!(scene.our_tokens(), 1, "{round}: the step machine and the installer share one credential");
            scene.host("n1").power_on().unwrap();
            scene.first_boot("n1");
            scene.step(&drivers, ClusterCall::RestoreLabels).await;
            scene.step(&drivers, ClusterCall::DeleteCredential).await;
            // Then it is another Node with the old marks, and the credential opens nothing
            let new = scene.node("n1").await.unwrap();
            assert_ne!(new.metadata.uid, old.metadata.uid, "{round}");
            assert_eq!(new.metadata.labels.as_ref().unwrap()["pool"], "fast", "{round}");
            assert!(scene.taints("n1").await.contains(&"dedicated=ml:NoSchedule".to_owned()), "{round}");
            assert_eq!(scene.our_tokens(), 0, "{round}");
            scene.token_is_refused(&token).await;
            scene.serving("n1").await;
            eprintln!("{round}: back by the step machine's calls");
        }
        // And a Node that is gone before anybody looked has what the register knew of it
        scene.host("n1").power_off();
        scene.kubectl("delete node n1");
        scene.forget("n1");
        let mut known = Marks::default();
        known.labels.insert("pool".to_owned(), "known".to_owned());
        let drivers = scene.drivers("n1", known);
        scene.step(&drivers, ClusterCall::DeleteNode).await;
        assert_eq!(drivers.recorded(HOST).unwrap().labels["pool"], "known");
        assert_eq!(scene.ask(&drivers, CLUSTER, HOST, ClusterCall::DeleteCredential).await, Some(Reply::Ok));
    });
}

/// What the boot servers do by themselves for a host that they installed.
#[test]
fn the_boot_servers_alone_make_an_installed_host_join_and_join_again() {
    story("the_boot_servers_alone_make_an_installed_host_join_and_join_again", async |scene| {
        // Given a host that no cluster knows, installed by the boot servers
        let alone = scene.installed_alone("n1", 1, "first").await;
        scene.followed(alone, "n1").await;
        let first = scene.node("n1").await.unwrap();
        scene.kubectl("label node n1 pool=fast");
        // When it is wiped and installed again, by servers that were started anew
        scene.host("n1").power_off();
        let alone = scene.installed_alone("n1", 1, "again").await;
        scene.followed(alone, "n1").await;
        // Then it is another Node, Ready, with its label, and no credential is left
        let again = scene.node("n1").await.unwrap();
        assert_ne!(again.metadata.uid, first.metadata.uid);
        assert_ne!(boot_id(&again), boot_id(&first));
        assert_eq!(again.metadata.labels.as_ref().unwrap()["pool"], "fast");
        assert_eq!(scene.our_tokens(), 0);
        scene.serving("n1").await;
    });
}

/// The trap: everything looks as if the host had been reimaged, and it only came back.
#[test]
fn a_host_that_comes_back_in_its_old_boot_is_stopped() {
    story("a_host_that_comes_back_in_its_old_boot_is_stopped", async |scene| {
        // Given a worker whose network card is pulled, so that it looks dead
        scene.join_first("n1", 1).await;
        let boot = scene.host("n1").boot_id().unwrap().to_owned();
        scene.cable("n1", "down");
        scene.not_ready("n1").await;
        scene
            .rejoin("n1", "job-2", async |rejoin| {
                rejoin.save().await.unwrap();
            })
            .await;
        scene.removed("n1", "job-2").await;
        // When the cable is back before anything was written, its kubelet registers the same boot again
        scene.cable("n1", "up");
        scene.host("n1").run(&["pkill", "-KILL", "-x", "kubelet"]).unwrap();
        scene.ready("n1").await;
        assert_eq!(boot_id(&scene.node("n1").await.unwrap()), boot);
        // Then it is not taken for a new host, and gets nothing back
        scene
            .rejoin("n1", "job-2", async |rejoin| {
                let error = rejoin.verify(None).await.unwrap_err().to_string();
                assert!(error.contains("back in the boot that it ran before"), "{error}");
                assert!(matches!(rejoin.restore().await, Err(StepError::Stop(_))));
            })
            .await;
        // Nor is its new Node removed by the job that removed the old one: it is Ready
        let uid = scene.node("n1").await.unwrap().metadata.uid;
        scene
            .rejoin("n1", "job-2", async |rejoin| {
                assert!(matches!(rejoin.remove_identity().await.unwrap(), Progress::NotYet(_)));
            })
            .await;
        assert_eq!(scene.node("n1").await.unwrap().metadata.uid, uid);
    });
}

/// The steps are cut off after each of their calls to the API server in turn, as by a crash whose answer nobody hears, and
/// begun again by a new process.
#[test]
fn a_crash_between_any_two_calls_is_healed_by_beginning_again() {
    story("a_crash_between_any_two_calls_is_healed_by_beginning_again", async |scene| {
        for crash_after in 1.. {
            // Given a Node that is gone for good, with all that can bear its name
            let node = format!("dead{crash_after:02}");
            scene.stage_dead_node(&node);
            // When the steps are cut off after so many calls, and begun again
            let crashed = !scene.steps(&node, crash_after).await;
            assert!(scene.steps(&node, -1).await, "{node}: the second run comes to its end");
            // Then nothing of the old name is left, there is one credential, and what people had given it is known
            assert_eq!(scene.leftovers(&node), Vec::<String>::new(), "{node}");
            assert_eq!(scene.our_tokens(), 1, "{node}");
            scene
                .rejoin(&node, "job-9", async |rejoin| {
                    let marks = rejoin.record.content().marks.clone().unwrap();
                    assert_eq!(marks.labels.get("pool").map(String::as_str), Some("slow"));
                    assert_eq!(rejoin.delete_credential().await.unwrap(), Progress::Done);
                })
                .await;
            assert_eq!(scene.our_tokens(), 0, "{node}");
            if !crashed {
                eprintln!("{} points of a crash", crash_after - 1);
                assert!(crash_after > 10, "the cuts must hit inside the steps: {crash_after}");
                break;
            }
        }
    });
}

/// What a credential can and cannot do: it is not bound to a name by Kubernetes, so it is short-lived and deleted; and a
/// serving certificate is given for the host's own name and addresses only.
#[test]
fn a_credential_is_for_one_join_and_a_certificate_for_one_host() {
    story("a_credential_is_for_one_join_and_a_certificate_for_one_host", async |scene| {
        scene.join_first("n1", 1).await;
        // A joined kubelet that asks for another host's address is left unapproved
        scene
            .rejoin("n2", "job-n2", async |rejoin| {
                rejoin.save().await.unwrap();
            })
            .await;
        let stolen = scene.ask_serving("n1", "n1", "10.200.1.77");
        let other = scene.ask_serving("n1", "n2", "10.200.1.2");
        scene
            .rejoin("n1", "job-3", async |rejoin| {
                let found = rejoin.approve(&["10.200.1.1".parse().unwrap()].into()).await.unwrap();
                assert!(matches!(found, Progress::AlreadySo | Progress::NotYet(_)), "{found:?}");
            })
            .await;
        assert!(!scene.is_approved(&stolen) && !scene.is_approved(&other));
        let honest = scene.ask_serving("n1", "n1", "10.200.1.1");
        scene
            .rejoin("n1", "job-3", async |rejoin| {
                let addresses = ["10.200.1.1".parse().unwrap()].into();
                assert_eq!(rejoin.approve(&addresses).await.unwrap(), Progress::Done);
            })
            .await;
        assert!(scene.is_approved(&honest) && !scene.is_approved(&stolen));

        // No credential before the old identity is gone; a repeated order makes no second one
        let addresses = ["10.200.1.2".parse().unwrap()].into();
        let around = Around {
            etcd: None,
            addresses: &addresses,
            kubelet: None,
            lifetime: Lifetime::USUAL,
            now: Timestamp::now(),
        };
        scene
            .rejoin("n5", "job-n5", async |rejoin| {
                use healing::command::{ClusterCall, Reply};
                assert!(rejoin.mint(Lifetime::USUAL, Timestamp::now()).await.is_err());
                assert_eq!(rejoin.answer(ClusterCall::MintCredential, around).await, Some(Reply::ApiRefused));
                assert_eq!(rejoin.answer(ClusterCall::DeleteNode, around).await, Some(Reply::Ok));
                assert_eq!(rejoin.answer(ClusterCall::MintCredential, around).await, Some(Reply::Ok));
                assert_eq!(rejoin.answer(ClusterCall::MintCredential, around).await, Some(Reply::Ok));
                assert_eq!(rejoin.answer(ClusterCall::RestoreLabels, around).await, Some(Reply::ApiSilent));
                assert_eq!(rejoin.answer(ClusterCall::Cordon, around).await, None);
            })
            .await;
        assert_eq!(scene.our_tokens(), 1);
        scene
            .rejoin("n5", "job-n5", async |rejoin| {
                use healing::command::{ClusterCall, Reply};
                assert_eq!(rejoin.answer(ClusterCall::DeleteCredential, around).await, Some(Reply::Ok));
            })
            .await;
        assert_eq!(scene.our_tokens(), 0);
    });
}

fn boot_id(node: &NodeObject) -> &str {
    &node.status.as_ref().unwrap().node_info.as_ref().unwrap().boot_id
}
