//! What an attempt may spend and has spent.
//!
//! Before every call the most that it can cost is set aside, so that no budget can be overrun; afterwards the
//! real cost takes its place. Numbers only grow. A call whose cost the provider did not say counts with all
//! that was set aside for it.

use std::str::FromStr;

use model::event::Usage;

use super::api::Tokens;
use crate::agent::{Budget, FailureCause};

/// What a model costs, in millionths of a US dollar per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prices {
    /// Input that is neither read from nor written to the cache.
    pub input: u64,
    /// Output, thinking included.
    pub output: u64,
    /// Input that is written to the five-minute cache.
    pub cache_write: u64,
    /// Input that is read from the cache.
    pub cache_read: u64,
}

/// The day of the price list. A newer model, or a newer price, is given by the configuration.
pub const PRICES_AS_OF: &str = "2026-11-01";

impl Prices {
    /// The price of `model` in our list, if it is there. Where sources differ, the dearer one.
    pub fn listed(model: &str) -> Option<Self> {
        let dollars_per_million = match model {
            "claude-fable-5-1" => "10/50/12.50/1",
            "claude-opus-5-5" => "4/20/5/0.40",
            "claude-sonnet-5-5" => "2/10/2.50/0.20",
            _ => return None,
        };
        Some(dollars_per_million.parse().expect("the list is well formed, as a test checks"))
    }
}

/// `input/output/cache write/cache read`, each in dollars per million tokens: `4/20/5/0.40`.
impl FromStr for Prices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no price: expected dollars per million tokens as input/output/cache write/cache read, like 4/20/5/0.40"
            )
        };
        let prices: Vec<u64> =
            text.split('/').map(|price| microdollars(price).ok_or_else(wrong)).collect::<Result<_, _>>()?;
        match prices[..] {
            // A price of nothing would switch the dollar budget off.
            [input, output, cache_write, cache_read] if input > 0 && output > 0 && cache_write > 0 => {
                Ok(Self { input, output, cache_write, cache_read })
            }
            _ => Err(wrong()),
        }
    }
}

/// What an attempt may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    /// Millionths of a US dollar (`budget_usd` of the policy).
    pub microdollars: u64,
    /// All tokens together, cached ones included.
    pub tokens: u64,
    /// Tokens of one answer.
    pub output_tokens: u64,
    /// Tokens that one conversation may hold.
    pub context_tokens: u64,
    /// Calls to the model, failed ones included.
    pub turns: u32,
}

impl Budgets {
    /// The limits of an attempt that may cost `microdollars`.
    pub fn of_dollars(microdollars: u64) -> Self {
        Self { microdollars, tokens: 20_000_000, output_tokens: 16_384, context_tokens: 200_000, turns: 150 }
    }
}

/// The accounts of one attempt.
#[derive(Debug)]
pub(super) struct Ledger {
    prices: Prices,
    budgets: Budgets,
    usage: Usage,
}

/// What is set aside for one call. It must be settled or released; it cannot be used twice.
#[derive(Debug)]
#[must_use = "what was set aside must be settled or released"]
pub(super) struct Hold {
    input_tokens: u64,
    /// The `max_tokens` that the call may ask for.
    pub(super) max_tokens: u64,
    /// The most that the call can cost.
    pub(super) cost_micro_usd: u64,
}

/// An answer that may be no longer than this is not worth its input.
const SHORTEST_ANSWER: u64 = 1024;

impl Ledger {
    /// Accounts that go on from what the attempt has `spent` already.
    pub(super) fn new(prices: Prices, budgets: Budgets, spent: Usage) -> Self {
        Self { prices, budgets, usage: spent }
    }

    pub(super) fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Sets aside what a call with at most `input_tokens` of input can cost. Counts the call. `max_tokens` is
    /// what the caller wants, made smaller when the budgets do not reach for it.
    pub(super) fn reserve(&mut self, input_tokens: u64, max_tokens: u64) -> Result<Hold, FailureCause> {
        if self.usage.turns >= self.budgets.turns {
            let detail = format!("all {} calls were made", self.budgets.turns);
            return Err(FailureCause::Budget { budget: Budget::Turns, detail });
        }
        let affordable = self.affordable_output(input_tokens)?;
        self.usage.turns += 1;
        let max_tokens = max_tokens.min(affordable);
        let cost =
            cost(input_tokens, self.dearest_input()).saturating_add(cost(max_tokens, self.prices.output));
        Ok(Hold { input_tokens, max_tokens, cost_micro_usd: cost })
    }

    /// How much of the budget that is nearest to its end is used, in percent.
    pub(super) fn used_percent(&self) -> u8 {
        let share = |used: u64, of: u64| u128::from(used) * 100 / u128::from(of.max(1));
        let money = share(self.usage.cost_micro_usd, self.budgets.microdollars);
        let tokens = share(self.used_tokens(), self.budgets.tokens);
        let turns = share(self.usage.turns.into(), self.budgets.turns.into());
        u8::try_from(money.max(tokens).max(turns).min(100)).unwrap_or(100)
    }

    /// Replaces what was set aside by what the provider counted. No answer costs nothing: a count of zero is
    /// no count, and what was set aside is charged.
    pub(super) fn settle(&mut self, hold: Hold, tokens: Tokens) {
        if tokens.output == 0 || tokens.all_input() == 0 {
            return self.settle_unknown(hold, Some(tokens));
        }
        drop(hold);
        self.charge(tokens);
    }

    /// Charges a call whose end is unknown: what the provider had named, and for the rest all that was set
    /// aside.
    pub(super) fn settle_unknown(&mut self, hold: Hold, seen: Option<Tokens>) {
        // Unseen input is charged as written to the cache, which is its dearest form.
        let unseen = Tokens { cache_write: hold.input_tokens, ..Tokens::default() };
        let seen = seen.filter(|seen| seen.all_input() > 0).unwrap_or(unseen);
        self.charge(Tokens { output: seen.output.max(hold.max_tokens), ..seen });
    }

    /// Gives back what was set aside for a call that the provider does not bill.
    pub(super) fn release(&mut self, hold: Hold) {
        drop(hold);
    }

    fn affordable_output(&self, input_tokens: u64) -> Result<u64, FailureCause> {
        let money = self.budgets.microdollars.saturating_sub(self.usage.cost_micro_usd);
        let money_for_output = money.saturating_sub(cost(input_tokens, self.dearest_input()));
        let by_money = u64::try_from(u128::from(money_for_output) * MILLION / u128::from(self.prices.output));
        let by_money = by_money.unwrap_or(u64::MAX);
        if by_money < SHORTEST_ANSWER {
            let detail = format!(
                "{} of {} are spent, and the next call could cost more than the rest",
                dollars(self.usage.cost_micro_usd),
                dollars(self.budgets.microdollars)
            );
            return Err(FailureCause::Budget { budget: Budget::Dollars, detail });
        }
        let by_tokens = self.budgets.tokens.saturating_sub(self.used_tokens()).saturating_sub(input_tokens);
        if by_tokens < SHORTEST_ANSWER {
            let detail = format!("{} of {} are used", self.used_tokens(), self.budgets.tokens);
            return Err(FailureCause::Budget { budget: Budget::Tokens, detail });
        }
        Ok(by_money.min(by_tokens))
    }

    fn dearest_input(&self) -> u64 {
        self.prices.input.max(self.prices.cache_write).max(self.prices.cache_read)
    }

    fn charge(&mut self, tokens: Tokens) {
        let usage = &mut self.usage;
        usage.input_tokens = usage.input_tokens.saturating_add(tokens.input);
        usage.output_tokens = usage.output_tokens.saturating_add(tokens.output);
        usage.cache_read_tokens = usage.cache_read_tokens.saturating_add(tokens.cache_read);
        usage.cache_write_tokens = usage.cache_write_tokens.saturating_add(tokens.cache_write);
        let cost = [
            cost(tokens.input, self.prices.input),
            cost(tokens.output, self.prices.output),
            cost(tokens.cache_read, self.prices.cache_read),
            cost(tokens.cache_write, self.prices.cache_write),
        ];
        usage.cost_micro_usd = cost.into_iter().fold(usage.cost_micro_usd, u64::saturating_add);
    }

    fn used_tokens(&self) -> u64 {
        let usage = &self.usage;
        [usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

const MILLION: u128 = 1_000_000;

/// Rounded up to a whole millionth of a dollar.
fn cost(tokens: u64, price: u64) -> u64 {
    u64::try_from((u128::from(tokens) * u128::from(price)).div_ceil(MILLION)).unwrap_or(u64::MAX)
}

/// `0.40` as 400000.
fn microdollars(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !are_digits(whole) || !are_digits(fraction) || whole.len() > 6 || fraction.len() > 6 {
        return None;
    }
    format!("{whole}{fraction:0<6}").parse().ok()
}

/// `$0.40`.
fn dollars(microdollars: u64) -> String {
    format!("${}.{:02}", microdollars / 1_000_000, microdollars % 1_000_000 / 10_000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPUS: Prices =
        Prices { input: 4_000_000, output: 20_000_000, cache_write: 5_000_000, cache_read: 400_000 };

    #[test]
    fn prices_are_read_exactly_and_never_guessed() {
        assert_eq!("4/20/5/0.40".parse(), Ok(OPUS));
        for model in ["claude-fable-5-1", "claude-opus-5-5", "claude-sonnet-5-5"] {
            assert!(Prices::listed(model).is_some(), "{model}");
        }
        assert_eq!(Prices::listed("claude-opus-5-5"), Some(OPUS));
        assert_eq!(Prices::listed("claude-opus-9"), None);
        for wrong in [
            "",
            "4",
            "4/20/5",
            "4/20/5/0.4/1",
            "0/20/5/1",
            "4/0/5/1",
            "-4/20/5/1",
            "4/2e1/5/1",
            "4/20/5/x",
            "4/20/5/1.",
            "inf/1/1/1",
        ] {
            assert!(wrong.parse::<Prices>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_is_made_shorter_before_a_call_is_refused() {
        let mut ledger = Ledger::new(OPUS, Budgets::of_dollars(1_000_000), Usage::default());
        let hold = ledger.reserve(100_000, 16_384).unwrap();
        assert_eq!(hold.max_tokens, 16_384);
        ledger.release(hold);
        // 180,000 tokens of input may cost $0.90, so 5,000 of output fit.
        let hold = ledger.reserve(180_000, 16_384).unwrap();
        assert_eq!(hold.max_tokens, 5_000);
        ledger.release(hold);
        let refused = ledger.reserve(197_000, 16_384).unwrap_err();
        assert!(matches!(refused, FailureCause::Budget { budget: Budget::Dollars, .. }), "{refused}");
        assert_eq!(ledger.usage().turns, 2);
    }

    #[test]
    fn every_budget_ends_in_its_own_refusal() {
        let budgets = Budgets { tokens: 10_000, turns: 2, ..Budgets::of_dollars(5_000_000) };
        let mut ledger = Ledger::new(OPUS, budgets, Usage::default());
        let refused = ledger.reserve(9_500, 100).unwrap_err();
        assert!(matches!(refused, FailureCause::Budget { budget: Budget::Tokens, .. }));
        for _ in 0..2 {
            let hold = ledger.reserve(10, 100).unwrap();
            ledger.release(hold);
        }
        let refused = ledger.reserve(10, 100).unwrap_err();
        assert!(matches!(refused, FailureCause::Budget { budget: Budget::Turns, .. }));
    }

    #[test]
    fn a_call_of_unknown_end_counts_with_all_that_was_set_aside() {
        let mut ledger = Ledger::new(OPUS, Budgets::of_dollars(5_000_000), Usage::default());
        let hold = ledger.reserve(1_000, 10_000).unwrap();
        ledger.settle_unknown(hold, None);
        assert_eq!(ledger.usage().cost_micro_usd, 5_000 + 200_000);
        let hold = ledger.reserve(1_000, 10_000).unwrap();
        let seen = Tokens { input: 3, cache_read: 900, output: 1, cache_write: 0 };
        ledger.settle_unknown(hold, Some(seen));
        assert_eq!(ledger.usage().cost_micro_usd, 205_000 + 12 + 360 + 200_000);
        let hold = ledger.reserve(1_000, 10_000).unwrap();
        ledger.settle(hold, Tokens::default());
        assert_eq!(ledger.usage().cost_micro_usd, 405_372 + 205_000, "an answer for nothing is not believed");
    }

    proptest! {
        #[test]
        fn no_sequence_of_calls_overruns_the_budget(
            budget in 1u64..3_000_000,
            calls in proptest::collection::vec((0u64..50_000, 1u64..40_000, 0u8..4, 0u64..100), 1..60),
        ) {
            let mut ledger = Ledger::new(OPUS, Budgets::of_dollars(budget), Usage::default());
            let mut before = 0;
            for (input, wanted, ending, part) in calls {
                let Ok(hold) = ledger.reserve(input, wanted) else { continue };
                let output = hold.max_tokens * part / 100;
                match ending {
                    0 => ledger.release(hold),
                    1 => ledger.settle_unknown(hold, None),
                    2 => ledger.settle(hold, Tokens { input, output, ..Tokens::default() }),
                    _ => ledger.settle(hold, Tokens { cache_write: input, output, ..Tokens::default() }),
                }
                let spent = ledger.usage().cost_micro_usd;
                prop_assert!(before <= spent && spent <= budget, "{} then {} of {}", before, spent, budget);
                before = spent;
            }
        }
    }
}
