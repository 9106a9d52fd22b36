//! The contract test kit: checks the [laws of a change stream](crate::Change) for any source.
//!
//! Who writes a source with a [`Publisher`](crate::Publisher) has the laws by construction, as long
//! as the publisher is told the truth; whether it is, and whether the source survives what happens to
//! it, is what this kit finds out. It needs a [`Subject`]: the source, a way to change it, and what
//! it can do besides (fail, close, say whether it still works). Then
//!
//! - [`check`] goes through the laws one by one, with a fixed course;
//! - [`random_history`] takes thousands of random steps against a naive model;
//! - [`Checked`] wraps one stream in any other test.
//!
//! A law that is broken is a panic that names the law, what came, and where; for a random history
//! also the seed, which repeats it.
//!
//! ```
//! use std::sync::Arc;
//! use discovery_core::testkit::{self, Subject};
//! use discovery_core::{Changes, Publisher, StatusReader, Update};
//!
//! struct MySource(Publisher<String, u32>);
//!
//! impl Subject for MySource {
//!     type Key = String;
//!     type Endpoint = u32;
//!     type Reader = Changes<String, u32>;
//!
//!     fn key(&self, number: u16) -> String {
//!         format!("key-{number}")
//!     }
//!
//!     fn endpoint(&self, _key: u16, version: u16) -> u32 {
//!         version.into()
//!     }
//!
//!     fn open(&mut self) -> Self::Reader {
//!         self.0.subscribe()
//!     }
//!
//!     fn status(&self, reader: &Self::Reader) -> Option<StatusReader> {
//!         Some(reader.status())
//!     }
//!
//!     async fn apply(&mut self, batch: Vec<Update<String, u32>>) {
//!         self.0.apply(batch, None);
//!     }
//! }
//!
//! fn my_source() -> MySource {
//!     let mut publisher = Publisher::new();
//!     publisher.fresh();
//!     MySource(publisher)
//! }
//!
//! futures::executor::block_on(async {
//!     testkit::check(my_source()).await;
//!     testkit::random_history(my_source(), 1, 1000).await;
//! });
//! ```

mod checked;
mod history;
mod laws;
mod probe;
mod random;
mod stage;
mod subject;

pub use checked::Checked;
pub use subject::{Faults, Set, Subject};

use stage::Stage;

/// How many steps of a [`random_history`] are a good test of a source within the process.
pub const STEPS: usize = 100_000;

/// How many keys the kit uses: their numbers are below.
pub const KEYS: u16 = 16;

/// Checks each law that the subject's abilities allow to check.
///
/// # Panics
/// If a law is broken; the message names it.
pub async fn check<S: Subject>(subject: S) {
    laws::all(&mut Stage::new(subject)).await;
}

/// Takes that many random steps (changes, readers opened and dropped, polled once and drained,
/// faults), and holds all readers against a naive model. See [`STEPS`].
///
/// # Panics
/// If a law is broken; the message names it, the seed and the step.
pub async fn random_history<S: Subject>(subject: S, seed: u64, steps: usize) {
    random::steps(&mut Stage::new(subject), seed, steps).await;
}
