//! What an event must be before the ledger looks at it. Pure, and done outside the ledger's thread.

use journal::{BodyError, CanonicalBody};
use model::Event;

/// An event, and the canonical bytes in which it will be kept.
#[derive(Debug, Clone)]
pub(crate) struct Admitted {
    pub(crate) event: Event,
    pub(crate) body: CanonicalBody,
}

/// Why some JSON is not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAdmitted {
    /// Not JSON that the log can keep.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// JSON, but no event.
    #[error("{0}")]
    Event(String),
}

impl Admitted {
    /// Reads an event from untrusted bytes.
    ///
    /// The bytes are judged before they are understood: what a lenient reader would pass over in silence, such
    /// as a key that occurs twice, is refused here. What is kept is the event as it was understood, so that no
    /// reader can find more in the log than this one did.
    pub(crate) fn from_json(json: &[u8]) -> Result<Self, NotAdmitted> {
        if let Some(event) = spelled_as_ours(json) {
            return Ok(Self { event, body: CanonicalBody::admit(json)? });
        }
        let given = CanonicalBody::admit(json)?;
        let event: Event = serde_json::from_str(given.as_str())
            .map_err(|problem| NotAdmitted::Event(problem.to_string()))?;
        Self::of(event)
    }

    /// Spells an event of our own.
    pub(crate) fn of(event: Event) -> Result<Self, NotAdmitted> {
        let json = serde_json::to_vec(&event).map_err(|problem| NotAdmitted::Event(problem.to_string()))?;
        let body = CanonicalBody::admit(&json)?;
        Ok(Self { event, body })
    }
}

/// The event in bytes that are, each of them, what we would write for it, as those of our own clients are. There is
/// nothing in them that a lenient reader could have passed over, so one look is enough.
fn spelled_as_ours(json: &[u8]) -> Option<Event> {
    let event: Event = serde_json::from_slice(json).ok()?;
    (serde_json::to_vec(&event).ok()? == json).then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(payload: &str) -> String {
        format!(
            r#"{{"event_id":"e","event_type":"scheduler.paused","timestamp":"2026-01-01T01:00:00+01:00","actor_id":"operator","payload":{payload}}}"#
        )
    }

    #[test]
    fn one_event_has_one_spelling_however_it_was_sent() {
        let admitted = Admitted::from_json(event(r#"{"reason":"\u0061"}"#).as_bytes()).unwrap();
        assert_eq!(
            admitted.body.as_str(),
            r#"{"actor_id":"operator","event_id":"e","event_type":"scheduler.paused","payload":{"reason":"a"},"timestamp":"2026-01-01T00:00:00.000000Z"}"#
        );
        let ours = serde_json::to_vec(&admitted.event).unwrap();
        assert_eq!(spelled_as_ours(&ours).as_ref(), Some(&admitted.event));
        for again in [admitted.body.as_bytes(), &ours] {
            assert_eq!(Admitted::from_json(again).unwrap().body, admitted.body);
        }
    }

    #[test]
    fn what_a_lenient_reader_would_pass_over_is_refused() {
        for (payload, expected) in [
            (r#"{"reason":"a","reason":"b"}"#, "occurs twice"),
            (r#"{"reason":NaN}"#, "not JSON"),
            (r#"{"reason":1.5}"#, "integers"),
            (r#"{"reason":"a","more":1}"#, "unknown field `more`"),
            (r#"{}"#, "missing field `reason`"),
            (r#"{"reason":"\u0000"}"#, "U+0000"),
            (&format!(r#"{{"reason":{}{}}}"#, "[".repeat(900), "]".repeat(900)), "nested deeper"),
        ] {
            let foreign = event(payload);
            let ours = foreign.replace("2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00.000000Z");
            for json in [foreign, ours] {
                let error = Admitted::from_json(json.as_bytes()).unwrap_err().to_string();
                assert!(error.contains(expected), "{payload}: {error}");
            }
        }
    }
}
