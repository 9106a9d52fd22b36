//! The thread on which registrations are kept. Leases must be renewed in time, also while the
//! application blocks its runtime; so they have a thread, a small runtime and a connection of their
//! own.

use std::io;
use std::sync::{Mutex, PoisonError};

use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::wait::BoxFuture;

/// A thread that is there as soon as it is needed, and until this and all it does is over.
#[derive(Debug, Default)]
pub(crate) struct Thread(Mutex<Option<UnboundedSender<BoxFuture<()>>>>);

impl Thread {
    /// Does `work` on the thread.
    ///
    /// # Errors
    /// There can be no more threads.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let mut sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut work: BoxFuture<()> = Box::pin(work);
        if let Some(running) = &*sender {
            match running.send(work) {
                Ok(()) => return Ok(()),
                // It has died, which only a panic in it can do.
                Err(refused) => work = refused.0,
            }
        }
        let running = start()?;
        // Its other end waits for work.
        let _ = running.send(work);
        *sender = Some(running);
        Ok(())
    }
}

fn start() -> io::Result<UnboundedSender<BoxFuture<()>>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (sender, mut receiver) = unbounded_channel();
    std::thread::Builder::new().name("discovery-leases".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let mut all = JoinSet::new();
            loop {
                tokio::select! {
                    work = receiver.recv() => match work {
                        Some(work) => {
                            all.spawn(work);
                        }
                        None => break,
                    },
                    Some(_) = all.join_next() => {}
                }
            }
            while all.join_next().await.is_some() {}
        });
    })?;
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn it_works_while_this_runtime_is_blocked_and_ends_with_its_work() {
        let thread = Thread::default();
        let (done, ended) = (oneshot::channel(), oneshot::channel());
        let (go, wait) = oneshot::channel::<()>();
        thread
            .spawn(async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                let _ = done.0.send(std::thread::current().name().map(str::to_owned));
                let _ = wait.await;
                let _ = ended.0.send(());
            })
            .unwrap();
        let name = std::thread::spawn(move || done.1.blocking_recv()).join().unwrap();
        assert_eq!(name.unwrap().as_deref(), Some("discovery-leases"));
        // What is under way goes on when nobody can give it work any more.
        drop(thread);
        go.send(()).unwrap();
        ended.1.await.unwrap();
    }
}
