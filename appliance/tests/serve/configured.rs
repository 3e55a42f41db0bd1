//! What a configuration says wrongly is refused with its place, before anything is opened.

use crate::rack::{Folder, binary, text_of};
use std::path::Path;

fn refused(folder: &Path, verb: &[&str]) -> (i32, String) {
    let output = binary().args(verb).arg("--config").arg(folder.join("rackmedic.toml")).output().unwrap();
    assert!(!folder.join("data").exists(), "nothing is made for a configuration that is refused");
    (output.status.code().unwrap(), text_of(&output.stderr))
}

#[test]
fn a_wrong_configuration_is_refused_with_file_line_column_and_key() {
    let folder = Folder::new("wrong");
    for (text, place, says) in [
        ("data_dir = 'data'\n[api]\nlistn = '127.0.0.1:0'\n", "rackmedic.toml:3:1", "listn"),
        ("data_dir = 'data'\n[api]\nlisten = '0.0.0.0:8420'\n", "rackmedic.toml:3:1", "unauthenticated_and_read_only"),
        ("data_dir = 'data'\n[[watch]]\ngateway = '10.0.0.1'\n", "rackmedic.toml:2:1", "watch[0].interface: missing"),
        ("data_dir = 'data'\n[[cluster]]\nid = 1\nname = 'c'\n", "rackmedic.toml:2:1", "cluster[0].kubeconfig"),
        ("data_dir = 'data'\nlog = 'loud'\n", "rackmedic.toml:2:7", "loud"),
        ("data_dir = \n", "rackmedic.toml:1:", ""),
    ] {
        folder.write("rackmedic.toml", text);
        let (exit, said) = refused(&folder.0, &["serve"]);
        assert!(exit == 2 && said.contains(place) && said.contains(says), "{text}: {exit} {said}");
    }
}

#[test]
fn a_policy_beyond_its_bounds_is_refused_and_a_lab_stays_on_loopback() {
    let folder = Folder::new("bounds");
    folder.write("rackmedic.toml", "data_dir = 'data'\npolicy = 'policy.toml'\n");
    folder.write("policy.toml", "# short\nsoak_ms = 5_000\n");
    let (exit, said) = refused(&folder.0, &["serve"]);
    assert!(exit == 2 && said.contains("policy.toml:2:1: soak_ms = 5000 is beyond its bound"), "{exit} {said}");

    let cluster = "data_dir = 'data'\n[[cluster]]\nid = 1\nname = 'c'\nkubeconfig = 'k'\n[[cluster.control_plane]]\nnode = 'n'\napi = 'https://192.0.2.7:6443'\n";
    folder.write("rackmedic.toml", cluster);
    let (exit, said) = refused(&folder.0, &["lab", "serve"]);
    assert!(exit == 3 && said.contains("cluster[0]") && said.contains("not on loopback"), "{exit} {said}");
    folder.write(
        "rackmedic.toml",
        "data_dir = 'data'\n[[watch]]\ninterface = 'eth0'\nreference = [{ address = '192.0.2.1' }]\n",
    );
    let (exit, said) = refused(&folder.0, &["lab", "serve"]);
    assert!(exit == 3 && said.contains("watch[0].interface"), "{exit} {said}");
    let wire =
        "data_dir = 'data'\n[[watch]]\nwire = 'w'\nnetwork = '10.0.0.0/8'\nreference = [{ address = '10.0.0.1' }]\n";
    folder.write("rackmedic.toml", wire);
    let (exit, said) = refused(&folder.0, &["serve"]);
    assert!(exit == 2 && said.contains("watch[0].wire"), "{exit} {said}");
}

#[test]
fn a_driver_for_a_cluster_that_is_not_configured_is_refused_before_anything_is_made() {
    let folder = Folder::new("driver");
    let cluster = "data_dir = 'data'\n[[cluster]]\nid = 1\nname = 'prod'\nkubeconfig = 'k'\n[[cluster.control_plane]]\nnode = 'n'\napi = 'https://127.0.0.1:6443'\n[boot]\nconfig = 'boot.toml'\n";
    folder.write("rackmedic.toml", cluster);
    let key = binary().args(["image", "key", "--out"]).arg(folder.0.join("signer")).output().unwrap();
    let key = text_of(&key.stdout);
    let boot = format!(
        "data_dir = 'boot'\nstore = 'store'\nboot_set = '1'\ntrusted_keys = ['{}']\n[join]\ncluster = 'other'\nkubeconfig = 'k'\n\
         preset = 'kubeadm'\n[[link]]\ninterface = 'lo'\nmode = 'proxy'\n",
        key.trim()
    );
    folder.write("boot.toml", &boot);
    let (exit, said) = refused(&folder.0, &["serve"]);
    assert!(
        exit == 2 && said.contains("[join]") && said.contains("`other` is the name of no [[cluster]]"),
        "{exit} {said}"
    );
    // The right name gets as far as the credentials, which are not there.
    folder.write("boot.toml", &boot.replace("'other'", "'prod'"));
    let (exit, said) = refused(&folder.0, &["serve"]);
    assert!(exit == 2 && said.contains("[join]") && !said.contains("is the name of no"), "{exit} {said}");
}
