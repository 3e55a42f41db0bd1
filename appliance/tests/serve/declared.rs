//! Hosts are declared all or nothing, errors name their place, and a password goes in and never comes out.

use crate::rack::{Rack, text_of, wait_until};
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

#[test]
fn what_is_declared_is_shown_exported_and_kept_and_no_password_is_seen_again() {
    let rack = Rack::start("declare");
    let life = rack.serve(&[]);
    let socket = rack.folder.0.join("data/control.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);

    assert!(rack.done(&["apply", "-f", "rack.yaml", "--dry-run"]).contains("10 changed"));
    assert_eq!(life.get("/api/v1/hosts").1["items"].as_array().unwrap().len(), 0, "a dry run writes nothing");
    assert!(rack.done(&["apply", "-f", "rack.yaml"]).contains("10 changed, 0 unchanged"));
    assert_eq!(rack.done(&["apply", "-f", "rack.yaml"]), "0 changed, 10 unchanged\n");

    // Pages.
    let (_, first) = life.get("/api/v1/hosts?limit=4");
    let names = |page: &serde_json::Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|host| host["name"].as_str().unwrap().to_owned()).collect()
    };
    let (_, second) = life.get(&format!("/api/v1/hosts?limit=4&after={}", first["next"].as_str().unwrap()));
    assert_eq!(
        [names(&first), names(&second)].concat(),
        ["cp-1", "cp-2", "cp-3", "node-1", "node-2", "node-3", "spare-1"]
    );
    assert!(second["next"].is_null());

    // Export and apply are each other's inverse.
    let exported = rack.done(&["export"]);
    assert!(exported.starts_with("# Passwords are never exported"), "{exported}");
    rack.folder.write("again.yaml", &exported);
    assert_eq!(rack.done(&["apply", "-f", "again.yaml"]), "0 changed, 10 unchanged\n");

    // The same as a spreadsheet, with all that spreadsheets do.
    let mut rows = "\u{feff}name;cluster;pool;address;mac;serial;bmc_url;bmc_password_file;bmc_pin;rack\r\n".to_owned();
    let pin = rack.described["pin"].as_str().unwrap();
    for host in rack.described["hosts"].as_array().unwrap().iter().filter(|host| host["role"] == "worker") {
        let said = |key: &str| host[key].as_str().unwrap();
        let pin = if said("bmc").starts_with("redfish") { format!("sha256:{pin}") } else { String::new() };
        rows += &format!(
            "{};demo;workers;{};{};RM{};{};bmc-password;{pin};r{}\r\n",
            said("name"),
            said("address"),
            said("mac"),
            host["id"],
            said("bmc"),
            host["rack"]
        );
    }
    rack.folder.write("hosts.csv", &rows);
    assert_eq!(rack.done(&["host", "import", "hosts.csv"]), "0 changed, 3 unchanged\n");
    rack.folder.write("hosts.csv", &rows.replace(";RM6;", ";RM6-new;"));
    assert!(rack.done(&["host", "import", "hosts.csv"]).contains("host node-3 changed"));

    // What has no column stays.
    rack.folder.write("short.csv", "name,pool\nnode-3,workers\n");
    assert_eq!(rack.done(&["host", "import", "short.csv"]), "0 changed, 1 unchanged\n");
    // Past the appliance nobody presses the buttons of what it holds (rule 60).
    let hosts = rack.described["hosts"].as_array().unwrap().clone();
    let url = hosts.iter().map(|host| host["bmc"].as_str().unwrap()).find(|url| url.starts_with("ipmi")).unwrap();
    let bench = rack.verb(&["bmc", "power", "status", "--url", url, "--password-file", "bmc-password"]);
    assert_eq!(bench.status.code(), Some(3), "{}", text_of(&bench.stderr));

    // A new password is a change; it is seen nowhere.
    let secret = "correct-horse-battery";
    rack.folder.write("bmc-password", secret);
    assert!(rack.done(&["apply", "-f", "rack.yaml"]).contains("host node-1 changed"));
    let shown = [
        rack.done(&["export"]),
        rack.done(&["host", "show", "node-1"]),
        rack.json(&["host", "list"]).to_string(),
        life.get("/api/v1/hosts/node-1").1.to_string(),
        life.get("/metrics").1.to_string(),
        life.log(),
    ];
    for text in shown {
        assert!(!text.contains(secret) && !text.contains("password_file:"), "{text}");
    }
    life.kill();
    for file in std::fs::read_dir(rack.folder.0.join("data")).unwrap() {
        let path = file.unwrap().path();
        let bytes = if path.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{}", path.display());
    }
    // No host changes its cluster because a name or a number did in the configuration.
    let configured = std::fs::read_to_string(rack.folder.0.join("rackmedic.toml")).unwrap();
    for (from, to, says) in
        [("name = 'demo'", "name = 'other'", "which was that of `demo`"), ("id = 1", "id = 2", "and had 1 before")]
    {
        rack.folder.write("rackmedic.toml", &configured.replacen(from, to, 1));
        let refused = crate::rack::binary()
            .args(["lab", "serve", "--config"])
            .arg(rack.folder.0.join("rackmedic.toml"))
            .output()
            .unwrap();
        let said = text_of(&refused.stderr);
        assert!(refused.status.code() == Some(3) && said.contains(says), "{said}");
    }
    rack.folder.write("rackmedic.toml", &configured);
    let next = rack.serve(&[]);
    assert_eq!(next.get("/api/v1/hosts").1["items"].as_array().unwrap().len(), 7, "the register outlives a kill");
    assert!(rack.done(&["host", "remove", "spare-1"]).is_empty());
    assert_eq!(next.get("/api/v1/hosts/spare-1").0, 404);
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_nothing_is_taken() {
    let rack = Rack::start("places");
    let life = rack.serve(&[]);
    let good = std::fs::read_to_string(rack.folder.0.join("rack.yaml")).unwrap();
    let line_of = |text: &str, word: &str, nth: usize| {
        text.lines().enumerate().filter(|(_, line)| line.contains(word)).nth(nth).unwrap().0 + 1
    };
    let refused = |text: &str| {
        rack.folder.write("bad.yaml", text);
        let output = rack.verb(&["apply", "-f", "bad.yaml"]);
        assert_eq!(output.status.code(), Some(2), "{}", text_of(&output.stderr));
        text_of(&output.stderr)
    };
    let unknown = good.replacen("    serial: RM4", "    colour: red", 1);
    let said = refused(&unknown);
    assert!(
        said.contains(&format!("bad.yaml:{}:", line_of(&unknown, "colour", 0))) && said.contains("colour"),
        "{said}"
    );
    let several = good.replacen("cluster: demo", "cluster: prod", 1).replacen("10.64.1.2", "10.64.1.1", 1);
    let said = refused(&several);
    assert!(
        said.contains(&format!(
            "bad.yaml:{}:5: cluster: there is no cluster `prod`",
            line_of(&several, "cluster: prod", 0)
        )),
        "{said}"
    );
    assert!(
        said.contains(&format!("bad.yaml:{}:5: address: 10.64.1.1 is that of cp-1", line_of(&several, "10.64.1.1", 1))),
        "{said}"
    );
    let far = good.replacen("redfish://admin@127.0.0.1", "redfish://admin@192.0.2.1", 1);
    let said = refused(&far);
    assert!(
        said.contains(&format!("bad.yaml:{}:7: bmc.url: 192.0.2.1 is not on loopback", line_of(&far, "192.0.2.1", 0))),
        "{said}"
    );
    let no_file = good.replacen("password_file: bmc-password", "password_file: nowhere", 1);
    assert!(refused(&no_file).contains("bmc.password_file: "), "{}", refused(&no_file));
    let in_url = good.replacen("redfish://admin@", "redfish://admin:hunter2@", 1);
    let said = refused(&in_url);
    assert!(said.contains("bmc.url") && !said.contains("hunter2"), "{said}");
    assert_eq!(life.get("/api/v1/hosts").1["items"].as_array().unwrap().len(), 0, "all or nothing");

    rack.folder.write("pools.yaml", "pools:\n  - name: workers\n");
    rack.done(&["apply", "-f", "pools.yaml"]);
    rack.folder.write("bad.csv", "name,pool,cluster,role,address\nn1,workers,demo,worker,10.64.9.1\nn2,workers,demo,boss,10.64.9.2\nn3,none,demo,worker,10.64.9\n");
    let output = rack.verb(&["host", "import", "bad.csv"]);
    let said = text_of(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("bad.csv:3:4: role: is neither") && said.contains("bad.csv:4:5: address: is no IPv4"),
        "{said}"
    );
    rack.folder.write(
        "bad.csv",
        "name,pool,cluster,address,mac\nn1,workers,demo,10.64.9.1,\nn2,none,demo,10.64.9.1,02:00:00:00:00:01\n",
    );
    let said = text_of(&rack.verb(&["host", "import", "bad.csv"]).stderr);
    assert!(
        said.contains("bad.csv:2:5: mac: missing") && said.contains("bad.csv:3:2: pool: there is no pool"),
        "{said}"
    );
    assert!(said.contains("bad.csv:3:4: address: 10.64.9.1 is that of n1 already"), "{said}");
    assert_eq!(life.get("/api/v1/hosts").1["items"].as_array().unwrap().len(), 0, "all or nothing");
}

#[test]
fn the_api_is_only_read_answers_to_its_own_names_and_says_what_is_wrong() {
    let rack = Rack::start("api");
    let life = rack.serve(&[]);
    let asked =
        |line: &str, host: &str| life.ask(&format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
    for path in ["/healthz", "/readyz", "/metrics", "/api/v1/hosts", "/api/v1/incidents", "/api/v1/status"] {
        assert_eq!(life.get(path).0, 200, "{path}");
    }
    for (line, host, status, code) in [
        ("GET /api/v1/hosts", "evil.example", 421, "not-my-name"),
        ("GET /api/v1/hosts/none", "localhost", 404, "not-found"),
        ("GET /nowhere", "localhost", 404, "not-found"),
        ("POST /api/v1/hosts", "localhost", 405, "read-only"),
        ("POST /control/v1/orders", "localhost", 404, "not-found"),
        ("GET /api/v1/hosts?limit=0", "localhost", 400, "bad-query"),
        ("GET /api/v1/hosts?colour=red", "localhost", 400, "bad-query"),
        ("GET /api/v1/incidents?after=x", "localhost", 400, "bad-query"),
        ("GET /api/v1/incidents/x", "localhost", 404, "not-found"),
    ] {
        let (seen, body) = asked(line, host);
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        assert_eq!((seen, problem["code"].as_str()), (status, Some(code)), "{line} {host}: {body}");
        assert!(problem["detail"].is_string() && problem["status"] == status, "{body}");
    }
    // No order that nobody understands does anything but say so.
    for (arguments, exit, says) in [
        (["arm", "nowhere"].as_slice(), 1, "no such cluster"),
        (&["pause", "--host", "nowhere"], 1, "no such host"),
        (&["pause", "--domain", "rack/none"], 1, "no such domain"),
        (&["incident", "approve", "7", "--rung", "reimage"], 1, "no such open incident"),
        (&["incident", "deny", "7"], 3, "is not open"),
        (&["host", "maintenance", "nowhere", "--for", "1h"], 1, "no such host"),
        (&["host", "show", "../x"], 2, "is no name of a host"),
    ] {
        let output = rack.verb(arguments);
        let said = text_of(&output.stderr);
        assert!(output.status.code() == Some(exit) && said.contains(says), "{arguments:?}: {said}");
    }
}

#[test]
fn who_connects_and_says_nothing_keeps_nobody_out_for_long() {
    let rack = Rack::start("idle");
    let life = rack.serve(&[]);
    // More than are served at once; some say nothing, some say it slowly, one says too much.
    let mut idle: Vec<TcpStream> = (0..160).map(|_| TcpStream::connect(&life.address).unwrap()).collect();
    for stream in idle.iter_mut().step_by(3) {
        stream.write_all(b"GET /api/v1/hosts HTT").unwrap();
    }
    let _ = idle[1].write_all(&[b'x'; 40_000]);
    rack.done(&["host", "list"]);
    wait_until("it answers again", Duration::from_secs(40), || {
        // One that waits in the kernel's queue is answered once its turn comes.
        life.get("/healthz").0 == 200
    });
    let (status, _) = life.ask(&format!(
        "GET /api/v1/hosts HTTP/1.1\r\nHost: localhost\r\nX: {}\r\nConnection: close\r\n\r\n",
        "y".repeat(20_000)
    ));
    assert_eq!(status, 431, "a head is at most 16 KiB");
    drop(idle);
    assert_eq!(life.get("/readyz").0, 200);
}
