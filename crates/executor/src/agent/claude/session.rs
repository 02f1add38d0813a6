//! The loop: ask the model, use the tools that it wants, answer, until it is done or must stop.
//!
//! The history only grows, so that the provider can cache it and thinking stays bound to its conversation. All
//! results of one turn go back in one message. An answer that cannot be used (cut off, refused) never enters
//! the history.

mod history;

use model::event::Usage;
use serde_json::{Value, json};

use self::history::History;
use super::Config;
use super::api::{API_VERSION, Answer, Api, Stop};
use super::ledger::{Ledger, Prices};
use super::prompt;
use super::retry::Tries;
use super::stuck::Circles;
use super::tools::{self, Finish, Request, Said, Tools};
use super::transcript::{Record, Redactor, TRANSCRIPT_FORMAT, Transcript};
use crate::agent::{AgentReport, Brief, Budget, FailureCause, Outcome};
use crate::toolbox::{Bounds, Toolbox};

/// A conversation and everything that bounds it.
pub(super) struct Session {
    config: Config,
    api: Api,
    ledger: Ledger,
    redactor: Redactor,
    transcript: Transcript,
    history: History,
    circles: Circles,
    /// The parts of every request that never change: tools, instructions, thinking.
    fixed: Value,
    /// The fingerprint of the tree before the first round.
    untouched: Option<u64>,
    /// The fingerprint of the tree after the last turn.
    last_seen: u64,
    /// What was used before this round.
    used_before: Usage,
    /// The model that answered last, as the provider names it.
    model: Option<String>,
    /// Shares of the budgets of which the model was told that they are used.
    told_share: u8,
}

/// What may happen only once, or a few times, in one round.
#[derive(Debug, Default)]
struct Round {
    nudged: bool,
    continued: bool,
    enlarged: bool,
    asked_for_change: bool,
    pauses: u8,
}

const MOST_PAUSES: u8 = 3;
/// Shares of the budgets, in percent, at which the model is told.
const NOTICES: [u8; 3] = [80, 90, 95];

impl Session {
    pub(super) fn new(config: Config) -> Result<Self, FailureCause> {
        let configuration = |detail: String| FailureCause::Configuration { detail };
        let prices = config.prices.or_else(|| Prices::listed(&config.model)).ok_or_else(|| {
            configuration(format!(
                "the price of the model `{}` is not known, so no budget can hold; give its price",
                config.model
            ))
        })?;
        let api = Api::new(&config.key, &config.base_url, config.idle_timeout).map_err(configuration)?;
        let secrets = config.secrets.iter().chain([&config.key]).cloned();
        let redactor = Redactor::new(secrets);
        let mut transcript = Transcript::create(&config.transcript, redactor.clone()).map_err(|error| {
            let path = config.transcript.display();
            FailureCause::Internal(
                anyhow::Error::new(error).context(format!("cannot make the transcript {path}")),
            )
        })?;
        let fixed = fixed_part(&config);
        let prices_as_of = super::PRICES_AS_OF;
        let first = Record::Conversation {
            format: TRANSCRIPT_FORMAT,
            api_version: API_VERSION,
            fixed: &fixed,
            prices_as_of,
        };
        transcript.record(&first).map_err(FailureCause::Internal)?;
        let ledger = Ledger::new(prices, config.budgets);
        Ok(Self {
            config,
            api,
            ledger,
            redactor,
            transcript,
            history: History::default(),
            circles: Circles::default(),
            fixed,
            untouched: None,
            last_seen: 0,
            used_before: Usage::default(),
            model: None,
            told_share: 0,
        })
    }

    /// What this round has cost so far.
    pub(super) fn usage_of_round(&self) -> Usage {
        let (now, before) = (self.ledger.usage(), &self.used_before);
        Usage {
            input_tokens: now.input_tokens - before.input_tokens,
            output_tokens: now.output_tokens - before.output_tokens,
            cache_read_tokens: now.cache_read_tokens - before.cache_read_tokens,
            cache_write_tokens: now.cache_write_tokens - before.cache_write_tokens,
            turns: now.turns - before.turns,
            cost_micro_usd: now.cost_micro_usd - before.cost_micro_usd,
        }
    }

    /// One round, from the brief to the model's report.
    pub(super) async fn round(
        &mut self,
        brief: &Brief,
        toolbox: &Toolbox,
    ) -> Result<AgentReport, FailureCause> {
        let done = self.converse(brief, toolbox).await;
        let (outcome, detail) = match &done {
            Ok(report) => ("report", format!("{:?}", report.outcome)),
            Err(cause) => ("failure", cause.to_string()),
        };
        self.transcript
            .record(&Record::End { outcome, detail, usage: self.ledger.usage() })
            .map_err(FailureCause::Internal)?;
        done
    }

    async fn converse(&mut self, brief: &Brief, toolbox: &Toolbox) -> Result<AgentReport, FailureCause> {
        let tools = Tools {
            toolbox,
            permitted_paths: prompt::permitted_paths(brief),
            check_names: brief.invariants.iter().map(|invariant| invariant.name.clone()).collect(),
            redactor: self.redactor.clone(),
        };
        self.begin(brief, toolbox).await?;
        let mut round = Round::default();
        loop {
            let answer = self.ask(&toolbox.bounds, &round).await?;
            if let Some(report) = self.take(answer, &tools, &mut round).await? {
                return Ok(report);
            }
        }
    }

    async fn begin(&mut self, brief: &Brief, toolbox: &Toolbox) -> Result<(), FailureCause> {
        self.used_before = self.ledger.usage().clone();
        self.circles.forget();
        self.last_seen = fingerprint(toolbox).await?;
        self.untouched.get_or_insert(self.last_seen);
        let words = match brief.failed_checks.as_slice() {
            [] => prompt::task(brief),
            checks => prompt::failed_checks(checks),
        };
        self.history.begin_round(self.redactor.clean(words));
        Ok(())
    }

    /// Asks the model for its next turn, as often as it takes.
    async fn ask(&mut self, bounds: &Bounds, round: &Round) -> Result<Answer, FailureCause> {
        let mut tries = Tries::new(self.config.patience);
        loop {
            bounds.check()?;
            self.check_context()?;
            let wanted = self.config.budgets.output_tokens << u32::from(round.enlarged);
            let fixed_bytes = self.fixed.to_string().len();
            let hold = self.ledger.reserve(self.history.most_tokens(fixed_bytes), wanted)?;
            let body = self.body(hold.max_tokens);
            self.record_request(&body, hold.max_tokens)?;
            let error = match bounds.hold(self.api.send(body)).await {
                Ok(Ok(answer)) => {
                    self.ledger.settle(hold, answer.tokens);
                    self.model = Some(answer.model.clone());
                    self.history.counted(answer.tokens.all_input());
                    self.record(|usage| Record::response(&answer, usage))?;
                    return Ok(answer);
                }
                Ok(Err(error)) => error,
                Err(interrupted) => {
                    self.ledger.settle_unknown(hold, None);
                    return Err(interrupted.into());
                }
            };
            if error.may_be_billed() {
                self.ledger.settle_unknown(hold, error.seen());
            } else {
                self.ledger.release(hold);
            }
            self.record(|usage| Record::call_failed(&error, usage))?;
            let wait = tries.after(&error, random())?;
            tracing::warn!(error = %error, wait_ms = wait.as_millis(), "a call to the model failed and is tried again");
            bounds.hold((self.config.pause)(wait)).await?;
        }
    }

    /// Takes one answer into the history and does what it wants. Returns the report when the round is over.
    async fn take(
        &mut self,
        answer: Answer,
        tools: &Tools<'_>,
        round: &mut Round,
    ) -> Result<Option<AgentReport>, FailureCause> {
        match answer.stop.clone() {
            Stop::Refusal { category, explanation } => Err(FailureCause::Refusal { category, explanation }),
            Stop::ContextWindowExceeded => Err(context_used_up("the model's window is full".to_owned())),
            Stop::Unknown(reason) => Err(FailureCause::Configuration {
                detail: format!(
                    "the model stopped for `{reason}`, which this version does not know; update it"
                ),
            }),
            Stop::MaxTokens => self.go_on_after_cut(answer, round).map(|()| None),
            Stop::PauseTurn => self.resume_pause(answer, round).map(|()| None),
            Stop::EndTurn | Stop::Sequence | Stop::ToolUse if answer.calls.is_empty() => {
                Ok(self.after_silence(answer, round))
            }
            Stop::EndTurn | Stop::Sequence | Stop::ToolUse => self.use_tools(answer, tools, round).await,
        }
    }

    async fn use_tools(
        &mut self,
        answer: Answer,
        tools: &Tools<'_>,
        round: &mut Round,
    ) -> Result<Option<AgentReport>, FailureCause> {
        let mut results = Vec::new();
        let mut finish = None;
        for call in &answer.calls {
            tools.toolbox.bounds.check()?;
            self.record(|_| Record::tool_intent(call))?;
            let (said, stuck) = match Request::parse(call) {
                Err(problem) => (Said::error(problem), self.circles.observe_malformed()),
                Ok(Request::Finish(report)) => {
                    let said = self.judge_finish(&report, tools.toolbox, round).await?;
                    if !said.is_error {
                        finish = Some((results.len(), report));
                    }
                    (said, None)
                }
                Ok(request) => {
                    let said = tools.run(request).await?;
                    let call = format!("{} {:?}", call.name, call.input);
                    let stuck = self.circles.observe(&call, &said.text, said.is_error);
                    (said, stuck)
                }
            };
            let (is_error, text) = (said.is_error, said.text.as_str());
            self.record(|_| Record::ToolResult { id: &call.id, is_error, text })?;
            if let Some(detail) = stuck {
                return Err(FailureCause::Stuck { detail });
            }
            results.push(tool_result(&call.id, &said));
        }
        let seen = fingerprint(tools.toolbox).await?;
        let tree_changed = std::mem::replace(&mut self.last_seen, seen) != seen;
        self.history.answered(answer.content, answer.tokens);
        if let Some((index, report)) = finish {
            self.history.wait_for_checks(results, index);
            return Ok(Some(self.report(report)));
        }
        self.add_notice(&mut results);
        self.history.user(results);
        match self.circles.end_turn(tree_changed) {
            Some(detail) => Err(FailureCause::Stuck { detail }),
            None => Ok(None),
        }
    }

    /// A report of success on an untouched tree is sent back once: more often it is a mistake than the truth.
    async fn judge_finish(
        &self,
        report: &Finish,
        toolbox: &Toolbox,
        round: &mut Round,
    ) -> Result<Said, FailureCause> {
        let is_untouched = Some(fingerprint(toolbox).await?) == self.untouched;
        if report.outcome == Outcome::Finished && is_untouched && !round.asked_for_change {
            round.asked_for_change = true;
            return Ok(Said::error(prompt::NOTHING_CHANGED));
        }
        Ok(Said { text: "Your report is taken.".to_owned(), is_error: false })
    }

    /// The model stopped without a word to us: it is asked once to go on or to finish, then the tree counts.
    fn after_silence(&mut self, answer: Answer, round: &mut Round) -> Option<AgentReport> {
        let summary = text_of(&answer.content);
        self.history.answered(answer.content, answer.tokens);
        if round.nudged {
            let finish = Finish { outcome: Outcome::Finished, summary, criteria: Vec::new() };
            return Some(self.report(finish));
        }
        round.nudged = true;
        self.history.user(vec![text_block(prompt::NUDGE)]);
        None
    }

    /// A turn that was cut inside a tool call cannot be used: it is asked for again with more room. Words that
    /// were cut can go on.
    fn go_on_after_cut(&mut self, answer: Answer, round: &mut Round) -> Result<(), FailureCause> {
        let is_usable = answer.calls.is_empty() && !text_of(&answer.content).is_empty();
        if is_usable && !round.continued {
            round.continued = true;
            self.history.answered(answer.content, answer.tokens);
            self.history.user(vec![text_block(prompt::CONTINUE)]);
            return Ok(());
        }
        if !is_usable && !round.enlarged {
            round.enlarged = true;
            return Ok(());
        }
        let detail = format!("an answer of {} tokens was cut again", answer.tokens.output);
        Err(FailureCause::Budget { budget: Budget::OutputTokens, detail })
    }

    fn resume_pause(&mut self, answer: Answer, round: &mut Round) -> Result<(), FailureCause> {
        round.pauses += 1;
        if round.pauses > MOST_PAUSES {
            let detail = format!("the model paused {MOST_PAUSES} times without going on");
            return Err(FailureCause::Stuck { detail });
        }
        self.history.answered(answer.content, answer.tokens);
        Ok(())
    }

    /// Tells the model once at each threshold how much is used, inside the last result: anywhere else it would
    /// break the cached prefix or draw an empty answer.
    fn add_notice(&mut self, results: &mut [Value]) {
        let share = self.ledger.used_percent();
        let Some(passed) = NOTICES.into_iter().rev().find(|notice| share >= *notice) else { return };
        if passed <= self.told_share {
            return;
        }
        self.told_share = passed;
        if let Some(Value::String(text)) = results.last_mut().map(|last| &mut last["content"]) {
            text.push_str(&format!(
                "\n\n[{passed} % of this attempt's budget is used. Bring the work to an end and call finish.]"
            ));
        }
    }

    fn report(&self, finish: Finish) -> AgentReport {
        let Finish { outcome, summary, criteria } = finish;
        AgentReport { outcome, summary, criteria, usage: self.usage_of_round(), model: self.model.clone() }
    }

    fn check_context(&self) -> Result<(), FailureCause> {
        let (held, limit) = (self.history.tokens(), self.config.budgets.context_tokens);
        if held > limit {
            return Err(context_used_up(format!("the conversation holds {held} of {limit}")));
        }
        Ok(())
    }

    fn body(&self, max_tokens: u64) -> String {
        let mut body = json!({ "model": self.config.model, "max_tokens": max_tokens, "stream": true });
        if let (Some(body), Some(fixed)) = (body.as_object_mut(), self.fixed.as_object()) {
            body.extend(fixed.clone());
            body.insert("messages".to_owned(), Value::from(self.history.messages()));
        }
        body.to_string()
    }

    fn record_request(&mut self, body: &str, max_tokens: u64) -> Result<(), FailureCause> {
        let from = self.history.take_unrecorded();
        let messages = &self.history.messages()[from..];
        let digest = model::Digest::of(body.as_bytes());
        let record = Record::Request { from, messages, max_tokens, digest };
        self.transcript.record(&record).map_err(FailureCause::Internal)
    }

    fn record<'a>(&'a mut self, make: impl FnOnce(&'a Usage) -> Record<'a>) -> Result<(), FailureCause> {
        let record = make(self.ledger.usage());
        self.transcript.record(&record).map_err(FailureCause::Internal)
    }
}

/// Tools come first in the provider's cache, then the instructions: one breakpoint after both serves every
/// attempt, and the automatic one follows the end of the history.
fn fixed_part(config: &Config) -> Value {
    let instructions = json!([{
        "type": "text",
        "text": prompt::INSTRUCTIONS,
        "cache_control": { "type": "ephemeral" },
    }]);
    let mut fixed = json!({
        "cache_control": { "type": "ephemeral" },
        "thinking": { "type": "adaptive", "display": "summarized" },
        "tools": tools::definitions(),
        "system": instructions,
    });
    if let Some(effort) = &config.effort {
        fixed["output_config"] = json!({ "effort": effort });
    }
    fixed
}

/// Looks at every file's metadata on a thread of its own.
async fn fingerprint(toolbox: &Toolbox) -> Result<u64, FailureCause> {
    let tree = toolbox.tree.clone();
    let looked = tokio::task::spawn_blocking(move || tree.fingerprint()).await;
    looked
        .map_err(anyhow::Error::new)
        .and_then(|found| found.map_err(anyhow::Error::new))
        .map_err(|error| FailureCause::Internal(error.context("cannot look at the agent's tree")))
}

fn context_used_up(detail: String) -> FailureCause {
    FailureCause::Budget { budget: Budget::ContextTokens, detail }
}

fn tool_result(id: &str, said: &Said) -> Value {
    let text = if said.text.is_empty() { "[empty]" } else { &said.text };
    match said.is_error {
        true => json!({ "type": "tool_result", "tool_use_id": id, "content": text, "is_error": true }),
        false => json!({ "type": "tool_result", "tool_use_id": id, "content": text }),
    }
}

fn text_block(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

/// All words of an answer, without its thinking.
fn text_of(content: &[Value]) -> String {
    let texts =
        content.iter().filter(|block| block["type"] == "text").filter_map(|block| block["text"].as_str());
    texts.collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// A number in 0..1; it only spreads retries.
fn random() -> f64 {
    let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
    f64::from((high >> 32) as u32) / (f64::from(u32::MAX) + 1.0)
}
