//! Whether a failed call is tried again, and when.
//!
//! Only decides; waiting is the caller's. What costs money or a human's attention is never tried blindly: spend
//! limits and wrong settings end at once.

use std::time::Duration;

use super::api::CallError;
use crate::agent::{Budget, FailureCause};

/// How long a call may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Tries of one call, the first included.
    pub tries: u32,
    /// All waiting for one call together.
    pub waiting: Duration,
    /// The first wait is between nothing and this, the next between nothing and twice as much, and so on.
    pub first: Duration,
    /// No wait of our own choice is longer than this.
    pub longest: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tries: 8,
            waiting: Duration::from_secs(10 * 60),
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
        }
    }
}

/// The tries of one call.
#[derive(Debug)]
pub(super) struct Tries {
    patience: Patience,
    made: u32,
    waited: Duration,
}

impl Tries {
    pub(super) fn new(patience: Patience) -> Self {
        Self { patience, made: 0, waited: Duration::ZERO }
    }

    /// How long to wait before the next try, or why there is none. `random` is in 0..1.
    pub(super) fn after(&mut self, error: &CallError, random: f64) -> Result<Duration, FailureCause> {
        self.made += 1;
        let wait = match classify(error) {
            Class::Configuration => {
                return Err(FailureCause::Configuration { detail: in_words(error) });
            }
            Class::SpendLimit => {
                return Err(FailureCause::ProviderSpendLimit { detail: in_words(error) });
            }
            Class::TooLong => {
                let detail = in_words(error);
                return Err(FailureCause::Budget { budget: Budget::ContextTokens, detail });
            }
            Class::Limited(wait) => wait,
            Class::Transient { at_least } => self.jittered(random).max(at_least.unwrap_or_default()),
        };
        self.waited = self.waited.saturating_add(wait);
        if self.made >= self.patience.tries || self.waited > self.patience.waiting {
            let detail = error.to_string();
            return Err(FailureCause::ProviderUnavailable { tries: self.made, detail });
        }
        Ok(wait)
    }

    /// Full jitter: many executors that failed together must not come back together.
    fn jittered(&self, random: f64) -> Duration {
        let doublings = (self.made - 1).min(16);
        let most = self.patience.first.saturating_mul(1 << doublings).min(self.patience.longest);
        most.mul_f64(random.clamp(0.0, 1.0))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Overload, outage, a broken connection: backoff, and never sooner than the provider asks.
    Transient { at_least: Option<Duration> },
    /// A rate limit with its own time: wait exactly that.
    Limited(Duration),
    /// The account's money is used up.
    SpendLimit,
    /// The conversation no longer fits into the model.
    TooLong,
    /// Key, model, address or request are wrong.
    Configuration,
}

fn classify(error: &CallError) -> Class {
    match error {
        CallError::NotConnected(_) | CallError::Broken { .. } => Class::Transient { at_least: None },
        CallError::NotAnApi { .. } => Class::Configuration,
        CallError::StreamError { kind, .. } => match kind.as_str() {
            "billing_error" => Class::SpendLimit,
            "invalid_request_error"
            | "authentication_error"
            | "permission_error"
            | "not_found_error"
            | "request_too_large" => Class::Configuration,
            _ => Class::Transient { at_least: None },
        },
        CallError::Refused { status, kind, message, code, retry_after, should_retry } => {
            if is_spend_limit(*status, kind, message, code.as_deref()) {
                return Class::SpendLimit;
            }
            if *status == 400 && message.contains("prompt is too long") {
                return Class::TooLong;
            }
            match (status, should_retry, retry_after) {
                (429, Some(false), None) => Class::SpendLimit,
                (_, Some(false), _) => Class::Configuration,
                (429, _, Some(wait)) => Class::Limited(*wait),
                (408 | 409 | 429 | 500..=599, _, at_least) => Class::Transient { at_least: *at_least },
                _ => Class::Configuration,
            }
        }
    }
}

fn is_spend_limit(status: u16, kind: &str, message: &str, code: Option<&str>) -> bool {
    let is_named = code.is_some_and(|code| code.ends_with("spend_limit_reached"));
    let says_so =
        ["usage limit", "credit balance", "spend limit"].iter().any(|words| message.contains(words));
    is_named || status == 402 || kind == "billing_error" || (status == 400 && says_so)
}

fn in_words(error: &CallError) -> String {
    let hint = match error {
        CallError::Refused { status: 401, .. } => "; check ANTHROPIC_API_KEY",
        CallError::Refused { status: 403, .. } => "; the key may not use this model or organisation",
        CallError::Refused { status: 404, .. } => "; check LEVIATHAN_MODEL and ANTHROPIC_BASE_URL",
        CallError::NotAnApi { .. } => "; check ANTHROPIC_BASE_URL",
        CallError::Refused { .. }
        | CallError::NotConnected(_)
        | CallError::Broken { .. }
        | CallError::StreamError { .. } => "",
    };
    format!("{error}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16) -> CallError {
        CallError::Refused {
            status,
            kind: "some_error".to_owned(),
            message: String::new(),
            code: None,
            retry_after: None,
            should_retry: None,
        }
    }

    fn with(
        status: u16,
        change: impl FnOnce(&mut String, &mut String, &mut Option<String>, &mut Option<Duration>),
    ) -> CallError {
        let mut error = refused(status);
        if let CallError::Refused { kind, message, code, retry_after, .. } = &mut error {
            change(kind, message, code, retry_after);
        }
        error
    }

    #[test]
    fn every_error_has_its_class() {
        let transient = Class::Transient { at_least: None };
        let second = Duration::from_secs(1);
        let stream =
            |kind: &str| CallError::StreamError { kind: kind.to_owned(), message: String::new(), seen: None };
        let rows = [
            (refused(529), transient),
            (refused(500), transient),
            (refused(503), transient),
            (refused(408), transient),
            (refused(429), transient),
            (with(529, |_, _, _, after| *after = Some(second)), Class::Transient { at_least: Some(second) }),
            (with(429, |_, _, _, after| *after = Some(second)), Class::Limited(second)),
            (
                with(429, |_, _, code, _| *code = Some("enforced_spend_limit_reached".to_owned())),
                Class::SpendLimit,
            ),
            (
                with(429, |_, _, code, after| {
                    *code = Some("contract_spend_limit_reached".to_owned());
                    *after = Some(second);
                }),
                Class::SpendLimit,
            ),
            (
                with(400, |_, message, _, _| {
                    *message = "You have reached your specified API usage limits".to_owned()
                }),
                Class::SpendLimit,
            ),
            (
                with(400, |_, message, _, _| *message = "Your credit balance is too low".to_owned()),
                Class::SpendLimit,
            ),
            (with(400, |_, message, _, _| *message = "prompt is too long: 1 > 0".to_owned()), Class::TooLong),
            (refused(402), Class::SpendLimit),
            (with(403, |kind, _, _, _| *kind = "billing_error".to_owned()), Class::SpendLimit),
            (refused(400), Class::Configuration),
            (refused(401), Class::Configuration),
            (refused(403), Class::Configuration),
            (refused(404), Class::Configuration),
            (refused(413), Class::Configuration),
            (refused(301), Class::Configuration),
            (CallError::NotConnected(String::new()), transient),
            (CallError::Broken { detail: String::new(), seen: None }, transient),
            (stream("overloaded_error"), transient),
            (stream("something_new"), transient),
            (stream("authentication_error"), Class::Configuration),
            (CallError::NotAnApi { content_type: "text/html".to_owned() }, Class::Configuration),
        ];
        for (error, class) in rows {
            assert_eq!(classify(&error), class, "{error:?}");
        }
    }

    #[test]
    fn waits_grow_under_a_ceiling_and_end() {
        let mut tries = Tries::new(Patience::default());
        let waits: Vec<_> = std::iter::from_fn(|| tries.after(&refused(529), 1.0).ok()).collect();
        let seconds: Vec<_> = waits.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60]);
        let mut tries = Tries::new(Patience::default());
        assert_eq!(tries.after(&refused(529), 0.0).unwrap(), Duration::ZERO);
    }

    #[test]
    fn a_rate_limit_is_waited_out_exactly_unless_it_is_longer_than_our_patience() {
        let limited = |seconds| with(429, |_, _, _, after| *after = Some(Duration::from_secs(seconds)));
        let mut tries = Tries::new(Patience::default());
        assert_eq!(tries.after(&limited(37), 0.9).unwrap(), Duration::from_secs(37));
        let given_up = tries.after(&limited(3600), 0.9).unwrap_err();
        assert!(matches!(given_up, FailureCause::ProviderUnavailable { tries: 2, .. }), "{given_up}");
        let endless = with(429, |_, _, _, after| *after = Some(Duration::MAX));
        assert!(Tries::new(Patience::default()).after(&endless, 0.5).is_err());
    }
}
