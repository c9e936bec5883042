//! The socket's side of serving: listen, run until told to stop, die with the parent.

use std::io;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// How long streams may go on after the signal to stop.
const GRACE: Duration = Duration::from_millis(1500);

/// Opens the port and says so on standard output; port 0 takes a free one.
///
/// # Errors
/// If the port cannot be had.
pub async fn bind(host: &str, port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((host, port)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(listener)
}

/// Serves on plain sockets until SIGTERM or SIGINT; then takes no new connection, and gives streams
/// a moment to end.
///
/// # Errors
/// If the signals cannot be watched.
pub async fn run(listener: TcpListener, router: Router) -> io::Result<()> {
    let listener = listener.tap_io(|socket| {
        // Fails only on a socket that is closed already, which the first read tells as well.
        let _ = socket.set_nodelay(true);
    });
    let (stopping, stop) = tokio::sync::oneshot::channel();
    let server = axum::serve(listener, router).with_graceful_shutdown(async move {
        let _ = stop.await;
    });
    until_stopped(server.into_future(), stopping).await
}

/// Polls `server` until it ends, or until a signal came and the grace after it is over.
///
/// # Errors
/// The server's, or if the signals cannot be watched.
pub async fn until_stopped(
    server: impl Future<Output = io::Result<()>>,
    stopping: tokio::sync::oneshot::Sender<()>,
) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopped = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = stopping.send(());
        tokio::time::sleep(GRACE).await;
        Ok(())
    };
    tokio::select! {
        result = server => result,
        result = stopped => result,
    }
}

/// Asks the system to kill this process when its parent dies (Linux; elsewhere it does nothing).
pub fn die_with_parent() {
    #[cfg(target_os = "linux")]
    // SAFETY: prctl(PR_SET_PDEATHSIG) takes a signal number and touches no memory of ours.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }
}
