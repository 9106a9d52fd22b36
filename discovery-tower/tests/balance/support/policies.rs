//! Policies that no one should write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use discovery_tower::balance::{Candidates, Finished, Member, Policy};

use super::{Request, Spec};

/// Always takes the first, free or not.
#[derive(Debug)]
pub(crate) struct Insists;

impl Policy<Request, u32, Spec> for Insists {
    type Load = ();
    type State = ();

    const TIMED: bool = false;

    fn load(&self) {}

    fn state<'a>(
        &self,
        _: impl ExactSizeIterator<Item = &'a Member<u32, Spec, ()>>,
        former: Option<Arc<()>>,
    ) -> Arc<()> {
        former.unwrap_or_default()
    }

    fn pick(
        &self,
        _: &Request,
        among: &impl Candidates<u32, Spec, (), State = ()>,
    ) -> Option<usize> {
        (!among.is_empty()).then_some(0)
    }

    fn cost(&self, _: &Member<u32, Spec, ()>, _: u64) -> f64 {
        0.0
    }
}

/// Panics where it is told to.
#[derive(Debug, Default)]
pub(crate) struct Panics(pub(crate) Arc<At>);

#[derive(Debug, Default)]
pub(crate) struct At {
    pub(crate) load: AtomicBool,
    pub(crate) state: AtomicBool,
    pub(crate) pick: AtomicBool,
    pub(crate) started: AtomicBool,
    pub(crate) finished: AtomicBool,
    pub(crate) review: AtomicBool,
}

fn panics(at: &AtomicBool) {
    assert!(!at.load(SeqCst), "the policy was told to panic");
}

impl Policy<Request, u32, Spec> for Panics {
    type Load = ();
    type State = ();

    const TIMED: bool = true;
    const REVIEW: Option<Duration> = Some(Duration::from_millis(1));

    fn load(&self) {
        panics(&self.0.load);
    }

    fn state<'a>(
        &self,
        _: impl ExactSizeIterator<Item = &'a Member<u32, Spec, ()>>,
        former: Option<Arc<()>>,
    ) -> Arc<()> {
        panics(&self.0.state);
        former.unwrap_or_default()
    }

    fn pick(
        &self,
        _: &Request,
        among: &impl Candidates<u32, Spec, (), State = ()>,
    ) -> Option<usize> {
        panics(&self.0.pick);
        (0..among.len()).find(|&place| among.is_free(place))
    }

    fn started(&self, (): &(), _: u32, _: u64) {
        panics(&self.0.started);
    }

    fn finished(&self, (): &(), _: Finished) {
        panics(&self.0.finished);
    }

    fn review<'a>(&self, _: impl ExactSizeIterator<Item = &'a Member<u32, Spec, ()>>, _: u64) {
        panics(&self.0.review);
    }

    fn cost(&self, _: &Member<u32, Spec, ()>, _: u64) -> f64 {
        0.0
    }
}
