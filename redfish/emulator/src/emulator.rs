//! A whole BMC: its sockets, its host, and the handle that controls it.

use crate::certificate::Certificate;
use crate::model::Model;
use crate::state::{Account, Handle};
use bmc::Secret;
use machine::{Machine, Spec};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use thiserror::Error;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

/// Why there is none.
#[derive(Debug, Error)]
pub enum Failed {
    /// A socket.
    #[error("the emulated BMC cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// It would be seen by others.
    #[error("an emulated BMC listens on loopback only, not on {0}")]
    NotLoopback(SocketAddr),
    /// A certificate.
    #[error("no certificate can be made: {0}")]
    Certificate(String),
}

/// How an emulator is made.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The make.
    pub model: Model,
    /// The host.
    pub spec: Spec,
    /// Draws all that is random.
    pub seed: u64,
    /// It begins switched off.
    pub off: bool,
    /// Its administrator.
    pub user: String,
    /// The password.
    pub password: Secret,
    /// TCP port of Redfish on loopback; 0 = any.
    pub redfish_port: u16,
    /// UDP port of IPMI on loopback; 0 = any.
    pub ipmi_port: u16,
}

impl Setup {
    /// A quick host of this make with the account `admin`, password `secret-of-a-bmc`.
    #[must_use]
    pub fn of(model: Model) -> Setup {
        Setup {
            model,
            spec: Spec {
                identity: 0x1111_2222_3333_4444_5555_6666_7777_8888,
                vendor: model.manufacturer.to_owned(),
                model: model.system_model.to_owned(),
                bmc_ms: (1, 5),
                ..Spec::default()
            },
            seed: 1,
            off: false,
            user: "admin".to_owned(),
            password: Secret::new(b"secret-of-a-bmc".to_vec()),
            redfish_port: 0,
            ipmi_port: 0,
        }
    }
}

/// A BMC that runs until it is dropped.
#[derive(Debug)]
pub struct Emulator {
    redfish: SocketAddr,
    ipmi: SocketAddr,
    handle: Handle,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Emulator {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Emulator {
    /// Starts one, in the runtime of the caller.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn start(setup: Setup, certificate: &Certificate) -> Result<Emulator, Failed> {
        let place = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let address = place(setup.redfish_port);
        let failed = |address| move |source| Failed::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed(address))?;
        let redfish = listener.local_addr().map_err(failed(address))?;
        let address = place(setup.ipmi_port);
        let socket = UdpSocket::bind(address).await.map_err(failed(address))?;
        let ipmi = socket.local_addr().map_err(failed(address))?;
        let mut machine = Machine::new(setup.spec, setup.seed);
        if setup.off {
            machine = machine.switched_off();
        }
        let account = Account::administrator(setup.user, setup.password);
        let handle = Handle::new(machine, setup.model, vec![account]);
        let tasks = vec![
            tokio::spawn(crate::redfish::serve(listener, handle.clone(), certificate.clone())),
            tokio::spawn(crate::ipmi::serve(socket, handle.clone())),
        ];
        Ok(Emulator { redfish, ipmi, handle, tasks })
    }

    /// Where Redfish is.
    #[must_use]
    pub fn redfish(&self) -> SocketAddr {
        self.redfish
    }

    /// Where IPMI is.
    #[must_use]
    pub fn ipmi(&self) -> SocketAddr {
        self.ipmi
    }

    /// What controls it and knows the truth.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}
