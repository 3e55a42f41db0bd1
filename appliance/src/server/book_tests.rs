//! Stories of the register: what is given a number keeps it, what is applied again changes nothing, what is wrong is told
//! all at once.

use super::*;
use crate::server::resources::HostGiven;
use serde_json::{Value, json};

fn ground() -> Ground {
    Ground {
        clusters: [("prod".to_owned(), ClusterId(3))].into(),
        networks: vec![(Ipv4Addr::new(10, 0, 0, 0), 24)],
        gateway: false,
        loopback_only: false,
    }
}

fn declared(pools: Value, hosts: Vec<Value>) -> Declaration {
    let given = |entry: Value| HostGiven {
        entry: serde_json::from_value(entry).unwrap(),
        bmc_password: Some("secret".to_owned()),
        outlets_password: Some("secret".to_owned()),
    };
    Declaration {
        pools: serde_json::from_value(pools).unwrap(),
        hosts: hosts.into_iter().map(given).collect(),
        dry_run: false,
    }
}

fn host(name: &str, last: u8) -> Value {
    json!({
        "name": name, "cluster": "prod", "pool": "w", "address": format!("10.0.0.{last}"),
        "macs": [format!("02:00:00:00:00:{last:02x}")], "domains": {"rack": "r1", "pdu": "p1"},
        "bmc": {"url": format!("ipmi://admin@10.9.0.{last}")},
    })
}

fn fields(wrong: &[Wrong]) -> Vec<(usize, &str)> {
    wrong.iter().map(|one| (one.index, one.field.as_str())).collect()
}

#[test]
fn numbers_are_given_once_and_never_again() {
    let one = declared(json!([{"name": "w"}]), vec![host("a", 1), host("b", 2)]);
    let first = Book::default().plan(&one, &ground()).unwrap();
    assert_eq!((first.book.id_of("a"), first.book.id_of("b")), (Some(HostId(1)), Some(HostId(2))));
    let again = first.book.plan(&one, &ground()).unwrap();
    assert_eq!((again.applied.changed.len(), again.applied.unchanged, &again.book), (0, 3, &first.book));
    let mut without = first.book.clone();
    without.hosts.remove("b");
    let third = without.plan(&declared(json!([]), vec![host("c", 3)]), &ground()).unwrap();
    assert_eq!(third.book.id_of("c"), Some(HostId(3)), "the number of one that left is not given again");
}

#[test]
fn the_record_is_what_was_declared() {
    let book = Book::default().plan(&declared(json!([{"name": "w"}]), vec![host("a", 1)]), &ground()).unwrap().book;
    let all = book.configuration(&ground());
    let kinds: Vec<&str> = all
        .iter()
        .map(|config| match config {
            Config::Pool(_) => "pool",
            Config::Domain(domain) => {
                if domain.kind == DomainKind::Rack {
                    "rack"
                } else {
                    "other"
                }
            }
            Config::Host(_) => "host",
            _ => "?",
        })
        .collect();
    assert_eq!(kinds, ["pool", "other", "rack", "host"], "in the order in which it must be known");
    let Some(Config::Host(record)) = all.last() else { panic!("no host") };
    assert_eq!((record.cluster, record.domains.len(), record.link), (Some(ClusterId(3)), 2, Link::Unbound));
    assert!(record.machine.is_placeholder(), "unknown until BMC and Node agree");
}

#[test]
fn a_host_without_labels_stands_with_the_unlabelled_of_its_cluster() {
    let mut bare = host("a", 1);
    bare.as_object_mut().unwrap().remove("domains");
    let book = Book::default().plan(&declared(json!([{"name": "w"}]), vec![bare]), &ground()).unwrap().book;
    let domain = book.configuration(&ground()).into_iter().find_map(|config| match config {
        Config::Domain(domain) => Some(domain),
        _ => None,
    });
    let domain = domain.unwrap();
    assert_eq!((domain.name.as_str(), domain.kind), ("unlabelled/prod", DomainKind::Unlabelled));
}

#[test]
fn what_was_learned_is_kept_when_the_file_does_not_name_it() {
    let one = declared(json!([{"name": "w"}]), vec![host("a", 1)]);
    let mut book = Book::default().plan(&one, &ground()).unwrap().book;
    book.hosts.get_mut("a").unwrap().entry.uuid = Some(uuid(MachineId(0x77)));
    let again = book.plan(&one, &ground()).unwrap();
    assert_eq!(again.applied.changed, []);
    assert_eq!(machine(again.book.hosts["a"].entry.uuid.as_ref().unwrap()), Some(MachineId(0x77)));
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let mut odd = host("a", 1);
    odd["name"] = json!("Not_A_Name");
    odd["cluster"] = json!("test");
    odd["pool"] = json!("none");
    odd["uuid"] = json!("00000000-0000-0000-0000-000000000000");
    odd["macs"] = json!(["ff:ff:ff:ff:ff:ff"]);
    odd["second_port"] = json!(10_250);
    odd["bmc"] = json!({"url": "redfish://admin@bmc.example"});
    odd["disk"] = json!({});
    let twin = host("c", 2);
    let mut far = host("d", 4);
    far["address"] = json!("10.1.0.4");
    let wrong = Book::default()
        .plan(&declared(json!([{"name": "w", "reimage": "ask"}]), vec![odd, host("b", 2), twin, far]), &ground());
    let wrong = wrong.unwrap_err();
    let expected = [
        (0, "reimage"),
        (0, "name"),
        (0, "pool"),
        (0, "cluster"),
        (0, "uuid"),
        (0, "macs"),
        (0, "second_port"),
        (0, "bmc.url"),
        (0, "disk"),
        (3, "address"),
        (2, "address"),
        (2, "macs"),
        (2, "bmc.url"),
    ];
    assert_eq!(fields(&wrong), expected, "{wrong:?}");
}

#[test]
fn a_new_bmc_needs_its_password_and_a_pin_where_it_speaks_tls() {
    let mut plan = declared(json!([{"name": "w"}]), vec![host("a", 1)]);
    plan.hosts[0].bmc_password = None;
    let wrong = Book::default().plan(&plan, &ground()).unwrap_err();
    assert_eq!(fields(&wrong), [(0, "bmc.password_file")]);
    let mut tls = host("a", 1);
    tls["bmc"] = json!({"url": "redfish://admin@10.9.0.1"});
    let wrong = Book::default().plan(&declared(json!([{"name": "w"}]), vec![tls]), &ground()).unwrap_err();
    assert_eq!(fields(&wrong), [(0, "bmc.pin")]);
}

#[test]
fn networks_hold_their_addresses() {
    let holds_in = |prefix: u8, last: [u8; 4]| holds((Ipv4Addr::new(10, 0, 0, 0), prefix), last.into());
    assert!(holds_in(24, [10, 0, 0, 255]) && !holds_in(24, [10, 0, 1, 0]));
    assert!(holds_in(0, [192, 0, 2, 1]) && holds_in(32, [10, 0, 0, 0]) && !holds_in(32, [10, 0, 0, 1]));
}

#[test]
fn a_card_is_one_however_it_is_written_and_an_outlet_feeds_one_host() {
    let mut dashes = host("a", 1);
    dashes["macs"] = json!(["02-00-00-00-00-0A"]);
    let book = Book::default().plan(&declared(json!([{"name": "w"}]), vec![dashes]), &ground()).unwrap().book;
    assert_eq!(book.hosts["a"].entry.macs, ["02:00:00:00:00:0a"]);
    let twin = book.plan(&declared(json!([]), vec![host("b", 10)]), &ground()).unwrap_err();
    assert_eq!(fields(&twin), [(0, "macs")]);

    let fed = |name: &str, last: u8, link: &str| {
        let mut host = host(name, last);
        host["outlets"] =
            json!({"url": "redfish://admin@10.9.0.200", "pin": format!("sha256:{}", "ab".repeat(32)), "links": [link]});
        host
    };
    let link = |last: u8| format!("/redfish/v1/PowerEquipment/RackPDUs/1/Outlets/{last}");
    let one = declared(json!([{"name": "w"}]), vec![fed("a", 1, &link(1)), fed("b", 2, &link(2))]);
    let book = Book::default().plan(&one, &ground()).unwrap().book;
    let copied = book.plan(&declared(json!([]), vec![fed("c", 3, &link(2))]), &ground()).unwrap_err();
    assert_eq!(fields(&copied), [(0, "outlets.links")]);
}
