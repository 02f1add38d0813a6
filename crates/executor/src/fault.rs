//! Named points at which a test can let this process die, to prove that the next start finds its way.
//!
//! In the order of an attempt: `after_started`, `after_candidate`, `after_verified`, `after_push`,
//! `after_pull_request`; and around every bundle of events `before_event_sent`, `after_event_sent`.

/// The point that a process was told to die at.
#[derive(Debug, Clone, Default)]
pub struct Fault(Option<String>);

impl Fault {
    /// The process will die at `point`; it never dies in a release build.
    pub fn at(point: Option<String>) -> Self {
        Self(point.filter(|_| cfg!(debug_assertions)))
    }

    /// Dies here, as by a crash, if this is the point.
    pub fn reach(&self, point: &str) {
        if self.0.as_deref() == Some(point) {
            std::process::abort();
        }
    }

    /// Dies too, when a process that this one had started was to die at a point of its own and did: a crash
    /// spares nobody.
    pub fn follow(&self) {
        if self.0.is_some() {
            std::process::abort();
        }
    }
}
