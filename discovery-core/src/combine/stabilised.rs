//! A stream whose removals are [stabilised](crate::stabilise).

use std::future::Future as _;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{same_as_input, take};
use crate::publish::Derive;
use crate::stabilise::{Crowd, Stabilise, Stabiliser};
use crate::{Change, Instance, InstanceChanges, InstanceKey, Publisher, Update};

struct Stabilised {
    input: InstanceChanges,
    stabiliser: Stabiliser,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Derive<InstanceKey, Instance> for Stabilised {
    fn drain(&mut self, cx: &mut Context<'_>, out: &mut Publisher<InstanceKey, Instance>) -> bool {
        let mut batch = Vec::new();
        let mut synced = false;
        let more = take(&mut self.input, cx, |change| match change {
            Change::Insert(key, instance) => batch.push(Update::Insert(key, instance)),
            Change::Remove(key) => batch.push(Update::Remove(key)),
            Change::Synced => synced = true,
        });
        let now = Instant::now();
        if !batch.is_empty() {
            self.stabiliser.apply(mem::take(&mut batch), None, out, now);
        }
        if synced {
            out.fresh();
        }
        self.wait(cx, out);
        more
    }
}

impl Stabilised {
    /// Decides what is due and has the task woken when the next thing is.
    fn wait(&mut self, cx: &mut Context<'_>, out: &mut Publisher<InstanceKey, Instance>) {
        while let Some(deadline) = self.stabiliser.deadline() {
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx) == Poll::Pending {
                return;
            }
            self.stabiliser.tick(out, Instant::now());
        }
        self.timer = None;
    }
}

impl InstanceChanges {
    /// The same set plus suspects: instances that vanished together, for a while. See
    /// [`stabilise`](crate::stabilise).
    ///
    /// Each stream made this way judges by itself; an etcd source stabilises by itself already, over
    /// all its streams. Must be polled within a tokio runtime with time.
    pub fn stabilise(self, rules: Stabilise) -> Self {
        let status = self.status();
        let stabiliser = Stabiliser::new(rules, &Crowd::new(), true);
        let from = Stabilised { input: self, stabiliser, timer: None };
        Self::derived(Box::new(from), vec![status], same_as_input)
    }
}
