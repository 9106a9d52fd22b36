//! Figures of what is asked of etcd again and again: connecting and renewing, and what comes of it.

use std::future::Future;

use super::facade::count;
use super::figures::{CONNECTS, Figure, RENEWALS};
use crate::wire::{Connect, Kind, Result};

const OK: &str = "ok";
const DENIED: &str = "denied";
const FAILED: &str = "failed";
const UNANSWERED: &str = "unanswered";

type Label = (&'static str, &'static str);

/// Whose connection it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Link {
    Watches,
    Registrations,
}

impl Link {
    /// Counts what comes of attempts to connect.
    pub(crate) fn counting<C>(self, connector: C) -> Counting<C> {
        let link = match self {
            Self::Watches => "watches",
            Self::Registrations => "registrations",
        };
        let label = ("link", link);
        show(&CONNECTS, Some(label));
        Counting { label, connector }
    }
}

/// Connects and counts; see [`Link::counting`].
pub(crate) struct Counting<C> {
    label: Label,
    connector: C,
}

impl<C: Connect> Connect for Counting<C> {
    type Wire = C::Wire;

    async fn connect(&self, endpoint: &str) -> Result<C::Wire> {
        counted(&CONNECTS, Some(self.label), self.connector.connect(endpoint)).await
    }
}

/// Goes on with a renewal and counts what comes of it.
pub(crate) async fn renewal<T>(asked: impl Future<Output = Result<T>>) -> Result<T> {
    counted(&RENEWALS, None, asked).await
}

/// Shows that there are renewals to be counted.
pub(super) fn renewals() {
    show(&RENEWALS, None);
}

/// Counts on drop, so that an answer that is not waited for any more counts, too.
struct Outcome<'a> {
    figure: &'a Figure,
    label: Option<Label>,
    is: &'static str,
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        add(self.figure, self.label, self.is, 1);
    }
}

async fn counted<T>(
    figure: &Figure,
    label: Option<Label>,
    asked: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut outcome = Outcome { figure, label, is: UNANSWERED };
    let answer = asked.await;
    outcome.is = match &answer {
        Ok(_) => OK,
        Err(error) if error.kind == Kind::Denied => DENIED,
        Err(_) => FAILED,
    };
    answer
}

fn show(figure: &Figure, label: Option<Label>) {
    for outcome in [OK, DENIED, FAILED, UNANSWERED] {
        add(figure, label, outcome, 0);
    }
}

fn add(figure: &Figure, label: Option<Label>, outcome: &'static str, by: u64) {
    let labels: Vec<_> = label.into_iter().chain([("outcome", outcome)]).collect();
    count(figure, &labels, by);
}
