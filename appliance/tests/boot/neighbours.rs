//! Who else is on the boot network and speaks for a test: a neighbour of the host, its BMC, a client behind the relay.

use crate::network::{INSTALLER_PORT, MAC, Network, ip};
use crate::store::run;
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

impl Network {
    /// The status that a neighbour of the host gets.
    pub(crate) fn neighbour_asks(&self, url: &str, more: &[&str]) -> String {
        let status = ["--silent", "--max-time", "20", "--output", "/dev/null", "--write-out", "%{http_code}"];
        self.inside(&self.theirs, "curl", &[&status, more, &[url]].concat())
    }

    /// The neighbour asks for a file by TFTP and waits for three seconds: curl's exit code.
    pub(crate) fn neighbour_asks_by_tftp(&self, path: &str) -> i32 {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.theirs)).args(["curl", "--silent", "--max-time", "3"]);
        command.args(["--output", "/dev/null", &format!("tftp://10.77.0.1//{path}")]);
        command.status().unwrap().code().unwrap()
    }

    /// A BMC in the other namespace, at this address of its own, asks for a part of a file: the status, and the bytes.
    pub(crate) fn bmc_asks(&self, address: &str, url: &str, more: &[&str]) -> (String, Vec<u8>) {
        let out = self.folder.join("fetched");
        let _ = std::fs::remove_file(&out);
        let to = out.display().to_string();
        let how =
            ["--silent", "--max-time", "60", "--interface", address, "--output", &to, "--write-out", "%{http_code}"];
        let status = self.inside(&self.theirs, "curl", &[&how, more, &[url]].concat());
        (status, std::fs::read(out).unwrap_or_default())
    }

    /// The length that the BMC is told when it asks for the head alone.
    pub(crate) fn bmc_length(&self, address: &str, url: &str) -> String {
        let said =
            self.inside(&self.theirs, "curl", &["--silent", "--max-time", "20", "--interface", address, "--head", url]);
        let lower = said.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
        length.unwrap_or_else(|| panic!("{said}")).trim().to_owned()
    }

    /// The namespace of a neighbour: another server, a relay, or a BMC.
    pub(crate) fn neighbour(&self) -> &str {
        &self.theirs
    }

    /// Whether a BMC in the other namespace answers.
    pub(crate) fn bmc_answers(&self, url: &str) -> bool {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.ours)).args([
            "curl",
            "--silent",
            "--insecure",
            "--max-time",
            "5",
            url,
        ]);
        command.output().is_ok_and(|output| output.status.success())
    }

    /// What tcpdump reads of DHCP on the way between the relay and us while `act` runs, as text.
    pub(crate) fn between_relay_and_us(&self, act: impl FnOnce()) -> String {
        let (out, words) = (self.folder.join("relayed"), self.folder.join("relayed.log"));
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.ours));
        command.args(["tcpdump", "-n", "-l", "-U", "-vvv", "-i", "br0", "udp port 67"]);
        command.stdin(Stdio::null()).stdout(std::fs::File::create(&out).unwrap());
        let mut tcpdump = command.stderr(std::fs::File::create(&words).unwrap()).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while !std::fs::read_to_string(&words).unwrap_or_default().contains("listening on") {
            assert!(Instant::now() < until, "{}", std::fs::read_to_string(&words).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(20));
        }
        act();
        // It reads what the kernel has gathered in batches; the conversation ends with an ACK.
        let until = Instant::now() + Duration::from_secs(10);
        while !std::fs::read_to_string(&out).unwrap().contains("length 1: ACK") && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        run("kill", &[&tcpdump.id().to_string()]);
        tcpdump.wait().unwrap();
        std::fs::read_to_string(out).unwrap()
    }

    /// ISC's client behind the relay, on a port of its network with this card: what it says.
    pub(crate) fn dhclient_behind_the_relay(&self, mac: &str) -> String {
        ip(&format!("-n {} link add down0 type veth peer name down1", self.theirs));
        ip(&format!("-n {} link set down0 master br1 up", self.theirs));
        let namespace = format!("{}c", self.ours);
        ip(&format!("netns add {namespace}"));
        ip(&format!("-n {} link set down1 netns {namespace}", self.theirs));
        ip(&format!("-n {namespace} link set down1 address {mac}"));
        ip(&format!("-n {namespace} link set down1 up"));
        let at = |name: &str| self.folder.join(name).display().to_string();
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{namespace}"))
            .args(["timeout", "30", "dhclient", "-4", "-1", "-d", "-v"]);
        command.args([
            "-sf",
            "/bin/true",
            "-cf",
            "/dev/null",
            "-lf",
            &at("dhclient.leases"),
            "-pf",
            &at("dhclient.pid"),
            "down1",
        ]);
        let said = self.folder.join("dhclient.log");
        let log = std::fs::File::create(&said).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        let text = loop {
            let text = std::fs::read_to_string(&said).unwrap();
            if text.contains("bound to") || Instant::now() > until || child.try_wait().unwrap().is_some() {
                break text;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        // The whole of `timeout` and its child.
        let _ = child.kill();
        let _ = child.wait();
        if let Ok(pid) = std::fs::read_to_string(at("dhclient.pid")) {
            let _ = Command::new("kill").arg(pid.trim()).status();
        }
        let _ = Command::new("ip").args(["netns", "del", &namespace]).status();
        text
    }

    /// What a BMC in the other namespace says of itself by Redfish.
    pub(crate) fn bmc_says(&self, url: &str) -> Value {
        let how = ["--silent", "--insecure", "--max-time", "30", "--user", "admin:secret-of-a-bmc", url];
        serde_json::from_str(&self.inside(&self.ours, "curl", &how)).unwrap()
    }

    /// Gives the other namespace one more address.
    pub(crate) fn neighbour_has_also(&self, address: &str) {
        ip(&format!("-n {} addr add {address}/24 dev up1", self.theirs));
    }

    /// A neighbour of the host speaks like its installer: status and answer.
    pub(crate) fn neighbour_says_hello(&self, hello: &str, more: &[&str]) -> (String, String) {
        let body = self.folder.join("hello.json");
        std::fs::write(&body, hello).unwrap();
        let body = format!("@{}", body.display());
        let url = format!("https://10.77.0.1:{INSTALLER_PORT}{}", protocol::install::HELLO_PATH);
        let status = ["--silent", "--insecure", "--max-time", "60", "--write-out", "\n%{http_code}"];
        let said = self.inside(&self.theirs, "curl", &[&status, more, &["--data-binary", &body, &url]].concat());
        let (answer, status) = said.rsplit_once('\n').unwrap();
        (status.to_owned(), answer.to_owned())
    }

    /// The neighbour takes the address of the host's card, and this IP address.
    pub(crate) fn neighbour_becomes(&self, address: &str) {
        ip(&format!("-n {} link set up1 down", self.theirs));
        ip(&format!("-n {} link set up1 address {MAC}", self.theirs));
        ip(&format!("-n {} addr flush dev up1", self.theirs));
        ip(&format!("-n {} addr add {address} dev up1", self.theirs));
        ip(&format!("-n {} link set up1 up", self.theirs));
    }
}
