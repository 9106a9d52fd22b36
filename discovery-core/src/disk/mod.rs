//! The last good set of a source, kept on disk: a program that starts while the registry is away
//! serves what was there when it was last seen, instead of nothing.
//!
//! [`LastGood`] wraps a source. Its set is the source's own as soon as that has loaded. Before that it
//! is the set that was saved by an earlier run, if there is a good one; so it keeps the
//! [laws](crate::Change) for "what was saved, then what the source has":
//!
//! - **At the start** the source has a [grace](LastGoodOptions::grace) of 500 ms to load, during which
//!   readers are told nothing: mostly it does load, and an old set would only be told to be taken back.
//!   After that readers are told the saved set, unless it is empty. Its status is stale, never fresh, since the time at
//!   which it was saved; the cause is a [`FromDisk`], which says how old the set is and what the
//!   source's own trouble is.
//! - **When the source has loaded**, what differs is told, in one batch. There is no empty moment in
//!   between, and from then on the status is the source's. Nothing is taken from disk again.
//! - **While the source is fresh** its set is saved: at once when it has loaded, after that at most
//!   [every 5 s](LastGoodOptions::save_every), and once more when the last reader goes. A set that is
//!   stale is not saved. A set that does not change is saved from time to time, so that its age says
//!   when it was last known to be right.
//!
//! A watch that begins anew in the same process (its last reader had gone) begins in the same way.
//!
//! # The files
//!
//! There is one file in the directory for each service that is watched and one for the watch of all
//! services. A file is complete or not there: it is written beside its place, brought to the disk, and
//! renamed. Several processes can share a directory; the last one to write wins. Files are readable by
//! their owner alone, since whoever can write them decides where requests go.
//!
//! A file that is too old, damaged, of another format, source or service is ignored as a whole, and a
//! warning names it and says why. A file that cannot be written is a warning, too, once until it can be
//! written again; readers are not touched by either.
//!
//! [Suspects](crate::stabilise) are saved as the instances they were, without the mark: a set that is
//! short of instances that live does more harm than one with some that do not.
//!
//! ```
//! use discovery_core::disk::{LastGood, LastGoodOptions};
//! use discovery_core::{Change, Instance, MemoryRegistry, Source as _};
//! use futures::StreamExt as _;
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! # let directory = tempfile::tempdir()?;
//! # let directory = directory.path();
//! let registry = MemoryRegistry::new();
//! registry.insert(Instance::parse("orders", "7", "http://127.0.0.1:8080")?);
//!
//! let source = LastGood::new(registry, LastGoodOptions::new(directory).source_name("memory"))?;
//! let mut orders = source.watch(&"orders".parse()?);
//! assert!(matches!(orders.next().await, Some(Change::Insert(..))));
//! assert!(orders.status().get().is_fresh());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod file;
mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod keep;
mod options;
mod save;
mod status;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;

pub use options::{LastGoodError, LastGoodOptions};
pub use status::FromDisk;

use self::file::Place;
use self::keep::keep;
use crate::{Instance, InstanceChanges, InstanceKey, Publisher, ServiceName, Source, Subscriber};

/// A source whose last good sets are kept on disk; see the [module](self).
///
/// Readers of the same service share one watch of the wrapped source, which is a task on the runtime
/// within which this was made and ends with its last reader. Clones share the watches.
#[derive(Clone)]
pub struct LastGood<S> {
    source: S,
    shared: Arc<Shared>,
}

struct Shared {
    options: LastGoodOptions,
    runtime: Handle,
    /// `None`: all services.
    watches: Mutex<HashMap<Option<ServiceName>, Subscriber<InstanceKey, Instance>>>,
}

impl<S: Source> LastGood<S> {
    /// Wraps `source`. The directory is made if it is not there, and what writers that were killed
    /// left in it is removed; nothing else is read or written before somebody watches.
    ///
    /// # Errors
    /// [`LastGoodError`] names a directory that is none and cannot be made, or says that there is no
    /// tokio runtime.
    pub fn new(source: S, options: LastGoodOptions) -> Result<Self, LastGoodError> {
        let runtime = Handle::try_current().map_err(|_| LastGoodError::NoRuntime)?;
        let prepared = file::prepare(&options.directory);
        prepared.map_err(|cause| LastGoodError::Directory {
            directory: options.directory.clone(),
            cause,
        })?;
        let shared = Shared { options, runtime, watches: Mutex::default() };
        Ok(Self { source, shared: Arc::new(shared) })
    }

    fn subscribe(&self, service: Option<&ServiceName>) -> InstanceChanges {
        let shared = &*self.shared;
        let mut watches = shared.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let live = watches.get(&service.cloned()).and_then(Subscriber::subscribe);
        live.unwrap_or_else(|| {
            // Watches that have ended must not pile up.
            watches.retain(|_, subscriber| !subscriber.is_ended());
            let input = match service {
                Some(service) => self.source.watch(service),
                None => self.source.watch_all(),
            };
            let publisher = Publisher::new();
            let changes = publisher.subscribe();
            watches.insert(service.cloned(), publisher.subscriber());
            let place = Place::new(&shared.options, service);
            shared.runtime.spawn(keep(input, publisher, place, shared.options.clone()));
            changes
        })
    }
}

impl<S: Source> Source for LastGood<S> {
    fn watch(&self, service: &ServiceName) -> InstanceChanges {
        self.subscribe(Some(service))
    }

    fn watch_all(&self) -> InstanceChanges {
        self.subscribe(None)
    }
}

impl<S> fmt::Debug for LastGood<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastGood").field("options", &self.shared.options).finish_non_exhaustive()
    }
}
