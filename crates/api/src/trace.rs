//! How a request says whose trace it belongs to. Roles mark their work by spans of [`TARGET`]; a binary may send these
//! to a collector, and says how the present one is named.
//!
//! Nothing here knows a collector. Without one no span of this target is made, and no request names a trace.

use std::sync::OnceLock;

/// The target of spans that are meant for a collector: one per request, per pass of a scheduler and per attempt. What
/// they record leaves the installation, so it is ids, names of routes and numbers, and never a text of somebody.
pub const TARGET: &str = "leviathan_trace";

/// The header of W3C Trace Context that names a trace and the span in it that asks.
pub const HEADER: &str = "traceparent";

static PRESENT: OnceLock<fn() -> Option<String>> = OnceLock::new();

/// From now on every request of this process bears what `present` answers when it is sent. The first one stays.
pub fn bear(present: fn() -> Option<String>) {
    let _ = PRESENT.set(present);
}

/// What the header says now.
pub(crate) fn present() -> Option<String> {
    PRESENT.get().and_then(|present| present())
}
