//! Sockets of the doors: so many connections at once, heads within their time, and the end when the server stops.

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at once; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 128;
/// For the head of a request, idle time between two included.
const HEAD: Duration = Duration::from_secs(15);
/// Bytes of a head at most.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// After an error of the listening socket (no more files): a moment of rest.
const REST: Duration = Duration::from_millis(100);

/// The control socket inside a data directory.
#[must_use]
pub fn control_socket(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}

/// Why a door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum NoDoor {
    /// The port.
    #[error("the API cannot listen on {address}: {source}; free the address, or choose another with `api.listen`")]
    Port {
        /// Where.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// The socket.
    #[error("the control socket {} cannot be opened: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}

/// Serves on a TCP port. Gives the address that it has.
///
/// # Errors
/// It is not to be had.
pub async fn port(
    address: SocketAddr,
    router: Router,
    tracker: &TaskTracker,
    stop: CancellationToken,
) -> Result<SocketAddr, NoDoor> {
    let failed = |source| NoDoor::Port { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let tasks = tracker.clone();
    tracker.spawn(async move {
        let turns = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    tasks.spawn(connection(stream, router.clone(), stop.clone(), turn));
                }
                Err(_) => tokio::time::sleep(REST).await,
            }
        }
    });
    Ok(bound)
}

/// Serves on a socket that only this user and root may open. Whoever calls holds the lock of the data directory, so a socket
/// that is there is a dead one's.
///
/// # Errors
/// It is not to be had.
pub fn socket(path: &Path, router: Router, tracker: &TaskTracker, stop: CancellationToken) -> Result<(), NoDoor> {
    let failed = |source| NoDoor::Socket { path: path.to_owned(), source };
    if std::fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket()) {
        std::fs::remove_file(path).map_err(failed)?;
    }
    // Made under a name of its own, closed to others, and only then put where clients look: nobody meets it half made.
    let beside = path.with_extension("new");
    let _ = std::fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside).map_err(failed)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)?;
    let (tasks, path) = (tracker.clone(), path.to_owned());
    tracker.spawn(async move {
        let turns = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    tasks.spawn(connection(stream, router.clone(), stop.clone(), turn));
                }
                Err(_) => tokio::time::sleep(REST).await,
            }
        }
        let _ = std::fs::remove_file(path);
    });
    Ok(())
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    stop: CancellationToken,
    turn: tokio::sync::OwnedSemaphorePermit,
) {
    let _turn = turn;
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES_MAX);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = std::pin::pin!(served);
    tokio::select! {
        // A client that breaks off is its own affair.
        _ = &mut served => {}
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(Duration::from_secs(1), served).await;
        }
    }
}
