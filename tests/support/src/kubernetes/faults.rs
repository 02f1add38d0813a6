//! What goes wrong on the way: lost requests, lost answers, slowness, refusals of an overloaded server.

use std::time::Duration;

use super::Use;
use super::refusal::Refusal;

/// Something that goes wrong with the n-th request that fits, counted from when it was said.
#[derive(Debug, Clone)]
pub struct Fault {
    /// A verb of Kubernetes (`create`, `list`, `watch` …) or an HTTP method (`POST` …); `*` is any.
    pub method: &'static str,
    /// `jobs`, `jobs/status` …; `*` is any.
    pub resource: &'static str,
    /// Which of the requests that fit: 1 is the next one.
    pub nth: usize,
    /// What goes wrong.
    pub harm: Harm,
}

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// The connection breaks before anything is done.
    Drop,
    /// It is done, and then the connection breaks instead of saying so.
    DropAfter,
    /// It is done later; not at all if the client leaves before.
    Delay(Duration),
    /// 429 with this `Retry-After`, in seconds.
    TooManyRequests(u64),
    /// 500
    InternalError,
    /// 503
    Unavailable,
    /// 504, and nothing is done.
    GatewayTimeout,
    /// It is done, and answered with 504.
    GatewayTimeoutAfter,
}

/// A fault that did not happen yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) fault: Fault,
    pub(super) seen: usize,
}

impl Harm {
    /// What is answered instead of doing it.
    pub(super) fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Drop | Self::DropAfter | Self::Delay(_) | Self::GatewayTimeoutAfter => None,
            Self::TooManyRequests(retry_after) => Some(Refusal::too_many_requests(retry_after)),
            Self::InternalError => Some(Refusal::internal("injected")),
            Self::Unavailable => Some(Refusal::unavailable()),
            Self::GatewayTimeout => Some(Refusal::timeout()),
        }
    }
}

/// The fault that this request meets, which is then over.
pub(super) fn take(pending: &mut Vec<Pending>, method: &str, used: &Use) -> Option<Harm> {
    let mut met = None;
    for (at, one) in pending.iter_mut().enumerate() {
        let fits = |wanted: &str, has: &str| wanted == "*" || wanted == has;
        let method_fits = fits(one.fault.method, method) || fits(one.fault.method, &used.verb);
        if method_fits && fits(one.fault.resource, &used.resource) {
            one.seen += 1;
            if one.seen >= one.fault.nth && met.is_none() {
                met = Some(at);
            }
        }
    }
    met.map(|at| pending.remove(at).fault.harm)
}
