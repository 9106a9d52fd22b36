//! A protocol that reads everything a host can say.

use discovery_tower::balance::{Completion, Origin, Outcome, Protocol, Served};

use super::{HostError, Request};

/// Where a protocol panics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Kind {
    #[default]
    Sound,
    PanicsAtErrors,
    PanicsAtResponses,
    PanicsAtRequests,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadsAll(pub(crate) Kind);

impl Protocol<Request, u32, HostError, u32> for ReadsAll {
    type Response = Served<u32, u32>;

    fn avoids(&self, request: &Request, key: &u32) -> bool {
        let panics = self.0 == Kind::PanicsAtRequests && request.number == 13;
        assert!(!panics, "the protocol was told to panic");
        request.avoids.contains(key)
    }

    fn outcome(&self, _: &u32) -> Option<Outcome> {
        assert!(self.0 != Kind::PanicsAtResponses, "the protocol was told to panic");
        Some(Outcome::Success)
    }

    fn respond(response: u32, origin: Origin<u32>) -> Served<u32, u32> {
        plain::respond(response, origin)
    }

    fn follow(&self, response: u32, call: Completion<u32>) -> Served<u32, u32> {
        plain::respond(response, call.end(Outcome::Success))
    }

    fn failed(&self, error: &HostError) -> Outcome {
        assert!(self.0 != Kind::PanicsAtErrors, "the protocol was told to panic");
        match error {
            HostError::Unready | HostError::Failed => Outcome::Failure,
            HostError::Overloaded(retry_after) => Outcome::Overloaded { retry_after: *retry_after },
            HostError::Unsent(_) => Outcome::Ignore,
        }
    }

    fn take_back(&self, error: &mut HostError) -> Option<Request> {
        match error {
            HostError::Unsent(request) => request.take(),
            _ => None,
        }
    }
}

mod plain {
    use discovery_tower::balance::{AnyCall, Origin, Protocol, Served};

    pub(super) fn respond(response: u32, origin: Origin<u32>) -> Served<u32, u32> {
        <AnyCall as Protocol<(), u32, super::HostError, u32>>::respond(response, origin)
    }
}
