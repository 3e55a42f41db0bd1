//! DHCP in a thread of its own, with precedence. Beside a server that names boot files of its own the first whole offer
//! counts (iPXE, `dhcp_discovery_rx`), and the answer must not wait behind an image that is being sent.

use super::jobs::Jobs;
use super::serve::BootServeError;
use pxe::dhcp::server::{DhcpServer, ServeError};
use std::io;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// How much sooner than others it runs: as the system's own latency-critical services.
const NICENESS: i32 = -15;

/// Opens the server in its thread and serves there until it is cancelled. What ends it early goes to `failed`; the receiver
/// that is given fires when the thread is over.
///
/// # Errors
/// Why it could not be opened.
pub(super) async fn start(
    name: String,
    open: impl FnOnce() -> Result<DhcpServer<Jobs>, BootServeError> + Send + 'static,
    stop: CancellationToken,
    failed: mpsc::Sender<ServeError>,
) -> Result<oneshot::Receiver<()>, BootServeError> {
    let (opened, is_open) = oneshot::channel();
    let (over, is_over) = oneshot::channel();
    let thread = move || {
        hurry();
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(source) => return drop(opened.send(Err(BootServeError::Thread { source }))),
        };
        runtime.block_on(async {
            let server = match open() {
                Ok(server) => server,
                Err(error) => return drop(opened.send(Err(error))),
            };
            let _ = opened.send(Ok(()));
            if let Err(error) = server.run(stop).await {
                let _ = failed.try_send(error);
            }
        });
        let _ = over.send(());
    };
    std::thread::Builder::new()
        .name(format!("dhcp {name}"))
        .spawn(thread)
        .map_err(|source| BootServeError::Thread { source })?;
    let ended = || BootServeError::Thread { source: io::Error::other("it ended before it had begun") };
    is_open.await.map_err(|_| ended())??;
    Ok(is_over)
}

/// Linux counts niceness by thread, and a thread is meant by "this process" there.
fn hurry() {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::info!(%error, "DHCP answers without precedence: it needs CAP_SYS_NICE");
    }
}
