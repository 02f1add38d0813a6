//! What keeps something from succeeding that is tried again and again: each trouble is told once, not at each try.
//!
//! It knows neither what is tried nor what time it is.

use std::time::Duration;

/// The tries that failed since the last that did not.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    tries: u32,
    /// Each kind of trouble that was met, in the order of their first times. There are a handful of kinds.
    met: Vec<&'static str>,
    last: Option<&'static str>,
}

impl Trouble {
    /// It failed once more. Whether anybody needs to be told: that it fails now, or that it fails in a new way.
    pub(crate) fn met(&mut self, kind: &'static str) -> bool {
        self.tries = self.tries.saturating_add(1);
        self.last = Some(kind);
        let is_news = !self.met.contains(&kind);
        if is_news {
            self.met.push(kind);
        }
        is_news
    }

    /// It succeeded. How often it had failed, if it had.
    pub(crate) fn over(&mut self) -> Option<u32> {
        let tries = std::mem::take(self).tries;
        (tries > 0).then_some(tries)
    }

    /// What the last try met, unless that succeeded.
    pub(crate) fn now(&self) -> Option<&'static str> {
        self.last
    }

    /// How long to wait before the next try: `shortest` after a success, twice as long after each failure.
    pub(crate) fn pause(&self, shortest: Duration, longest: Duration) -> Duration {
        shortest.saturating_mul(1_u32.checked_shl(self.tries).unwrap_or(u32::MAX)).min(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_trouble_is_news_once_until_all_is_well() {
        let mut trouble = Trouble::default();
        assert_eq!((trouble.now(), trouble.over()), (None, None));
        let news: Vec<_> = ["disk", "disk", "key", "disk", "key"].map(|kind| trouble.met(kind)).into();
        assert_eq!(news, [true, false, true, false, false]);
        assert_eq!(trouble.now(), Some("key"));
        assert_eq!((trouble.over(), trouble.over(), trouble.now()), (Some(5), None, None));
        assert!(trouble.met("disk"));
    }

    #[test]
    fn it_is_tried_less_and_less_often_and_never_not_at_all() {
        let mut trouble = Trouble::default();
        let seconds =
            |trouble: &Trouble| trouble.pause(Duration::from_secs(1), Duration::from_secs(8)).as_secs();
        let mut pauses = vec![seconds(&trouble)];
        for _ in 0..100 {
            trouble.met("disk");
            pauses.push(seconds(&trouble));
        }
        assert_eq!(pauses[..5], [1, 2, 4, 8, 8]);
        assert_eq!(pauses[100], 8);
        trouble.over();
        assert_eq!(seconds(&trouble), 1);
    }
}
