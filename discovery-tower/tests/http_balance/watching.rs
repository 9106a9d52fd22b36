//! A policy that writes down what it is told, so that outcomes can be read exactly.

use std::sync::{Arc, Mutex};

use discovery_core::{Instance, InstanceKey};
use discovery_tower::balance::{Candidates, Finished, Member, Outcome, Policy};
use http::Request;

/// Sends to the first by name; what a call would cost is how many have no response yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watching(Arc<Mutex<Vec<Finished>>>);

impl Watching {
    /// What became of the calls since this was asked last.
    pub(crate) fn take(&self) -> Vec<Outcome> {
        self.take_all().iter().map(|call| call.outcome).collect()
    }

    pub(crate) fn take_all(&self) -> Vec<Finished> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl<B> Policy<Request<B>, InstanceKey, Instance> for Watching {
    type Load = ();
    type State = ();

    const TIMED: bool = true;

    fn load(&self) {}

    fn state<'a>(
        &self,
        _: impl ExactSizeIterator<Item = &'a Member<InstanceKey, Instance, ()>>,
        former: Option<Arc<()>>,
    ) -> Arc<()> {
        former.unwrap_or_default()
    }

    fn pick(
        &self,
        _: &Request<B>,
        among: &impl Candidates<InstanceKey, Instance, (), State = ()>,
    ) -> Option<usize> {
        let key = |&place: &usize| among.get(place).map(Member::key);
        (0..among.len()).filter(|&place| among.is_free(place)).min_by_key(key)
    }

    fn finished(&self, (): &(), call: Finished) {
        self.0.lock().unwrap().push(call);
    }

    fn cost(&self, member: &Member<InstanceKey, Instance, ()>, _: u64) -> f64 {
        member.waiting().into()
    }
}
