//! What asks a program to end.

use std::io;

/// Resolves when the process is asked to end: by Ctrl-C or, on Unix, by SIGTERM, which is how platforms
/// stop programs. From now on these no longer end it by themselves.
///
/// # Errors
/// When the system does not let us know.
///
/// # Panics
///
/// Outside a tokio runtime with I/O.
pub fn shutdown_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    #[cfg(unix)]
    let mut signals = {
        use tokio::signal::unix::{SignalKind, signal};
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    Ok(async move {
        #[cfg(unix)]
        tokio::select! {
            _ = signals.0.recv() => {}
            _ = signals.1.recv() => {}
        }
        #[cfg(not(unix))]
        drop(tokio::signal::ctrl_c().await);
    })
}
