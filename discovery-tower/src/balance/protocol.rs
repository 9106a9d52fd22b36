//! What a balancer has to know of requests, responses and errors.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::Outcome;
use super::flight::Completion;

/// How calls of a kind are read: what their outcome is and when it is known, whether a request came
/// back unsent, which endpoints a request is to avoid, and what the caller is given.
///
/// [`AnyCall`] does for all calls; `Http` and `Grpc` (feature `http`) read more out of theirs.
pub trait Protocol<Req, Res, Err, K>: Send + Sync + 'static {
    /// What the caller is given.
    type Response;

    /// Whether this request is to be kept from this endpoint.
    fn avoids(&self, request: &Req, key: &K) -> bool {
        let _ = (request, key);
        false
    }

    /// Until when the request has to be with an endpoint; `None` if only the
    /// [`Limits`](super::Limits) say how long it waits. What happens to it there is the endpoint's
    /// affair.
    fn deadline(&self, request: &Req) -> Option<Instant> {
        let _ = request;
        None
    }

    /// What a response says of the endpoint; `None` if that is not known before its body has been read.
    fn outcome(&self, response: &Res) -> Option<Outcome>;

    /// Makes what the caller is given of a response whose outcome is known.
    fn respond(response: Res, origin: Origin<K>) -> Self::Response;

    /// Makes what the caller is given of a response that is not over, or whose outcome is not known
    /// yet: the call is pending as long as `call` is kept, and `call` is told the outcome.
    fn follow(&self, response: Res, call: Completion<K>) -> Self::Response;

    /// What an error says of the endpoint.
    fn failed(&self, error: &Err) -> Outcome {
        let _ = error;
        Outcome::Failure
    }

    /// The request, if it certainly did not reach the endpoint and the error gives it back: it goes to
    /// another endpoint then, unseen by the caller.
    fn take_back(&self, error: &mut Err) -> Option<Req> {
        let _ = error;
        None
    }
}

/// Where a response comes from.
pub struct Origin<K>(Arc<dyn Keyed<K>>);

/// Something that has a key.
pub(crate) trait Keyed<K>: Send + Sync {
    fn key(&self) -> &K;
}

impl<K> Origin<K> {
    pub(crate) fn new(endpoint: Arc<dyn Keyed<K>>) -> Self {
        Self(endpoint)
    }

    /// The key of the endpoint.
    pub fn endpoint(&self) -> &K {
        self.0.key()
    }
}

impl<K: fmt::Debug> fmt::Debug for Origin<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Origin").field(self.endpoint()).finish()
    }
}

/// A response, and the endpoint that gave it.
pub struct Served<K, Res> {
    response: Res,
    origin: Origin<K>,
}

impl<K, Res> Served<K, Res> {
    /// The key of the endpoint.
    pub fn endpoint(&self) -> &K {
        self.origin.endpoint()
    }

    /// The response.
    pub fn get_ref(&self) -> &Res {
        &self.response
    }

    /// The response, to change.
    pub fn get_mut(&mut self) -> &mut Res {
        &mut self.response
    }

    /// The response alone.
    pub fn into_inner(self) -> Res {
        self.response
    }
}

impl<K: fmt::Debug, Res: fmt::Debug> fmt::Debug for Served<K, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served")
            .field("response", &self.response)
            .field("origin", &self.origin)
            .finish()
    }
}

/// Any call: a response is a success, whatever it is, an error a failure, and the call is over with
/// either of them. With [`judged_by`](Self::judged_by), a function says what the outcome is.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct AnyCall<F = Plainly> {
    judge: F,
}

/// A response is a success and an error a failure.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Plainly;

/// Says what the outcome of a call is. Any `Fn(Result<&Res, &Err>) -> Outcome` does.
pub trait Judge<Res, Err>: Send + Sync + 'static {
    /// The outcome of a call that ended like this.
    fn judge(&self, result: Result<&Res, &Err>) -> Outcome;
}

impl<Res, Err> Judge<Res, Err> for Plainly {
    #[inline]
    fn judge(&self, result: Result<&Res, &Err>) -> Outcome {
        if result.is_ok() { Outcome::Success } else { Outcome::Failure }
    }
}

impl<Res, Err, F> Judge<Res, Err> for F
where
    F: Fn(Result<&Res, &Err>) -> Outcome + Send + Sync + 'static,
{
    fn judge(&self, result: Result<&Res, &Err>) -> Outcome {
        self(result)
    }
}

impl AnyCall {
    /// A response is a success and an error a failure.
    pub fn new() -> Self {
        Self::default()
    }

    /// This function says what the outcome of a call is.
    pub fn judged_by<F>(judge: F) -> AnyCall<F> {
        AnyCall { judge }
    }
}

impl<Req, Res, Err, K, F> Protocol<Req, Res, Err, K> for AnyCall<F>
where
    K: 'static,
    F: Judge<Res, Err>,
{
    type Response = Served<K, Res>;

    #[inline]
    fn outcome(&self, response: &Res) -> Option<Outcome> {
        Some(self.judge.judge(Ok(response)))
    }

    #[inline]
    fn respond(response: Res, origin: Origin<K>) -> Served<K, Res> {
        Served { response, origin }
    }

    fn follow(&self, response: Res, call: Completion<K>) -> Served<K, Res> {
        let outcome = self.judge.judge(Ok(&response));
        Served { response, origin: call.end(outcome) }
    }

    fn failed(&self, error: &Err) -> Outcome {
        self.judge.judge(Err(error))
    }
}
