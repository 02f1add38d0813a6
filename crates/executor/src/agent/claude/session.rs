//! The loop: ask the model, use the tools that it wants, answer, until it is done or must stop.
//!
//! The history only grows, so that the provider can cache it and thinking stays bound to its conversation. All
//! results of one turn go back in one message. An answer that cannot be used (cut off, refused) never enters
//! the history.

mod history;

use std::time::Duration;

use model::CommitId;
use model::event::Usage;
use model::secrets::Redactor;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use self::history::History;
use super::Config;
use super::api::{API_VERSION, Answer, Api, Stop};
use super::ledger::{Hold, Ledger, Prices};
use super::prompt;
use super::retry::Tries;
use super::stuck::Circles;
use super::tools::{self, Finish, Request, Said, Tools};
use super::transcript::{Record, TRANSCRIPT_FORMAT, Transcript};
use crate::agent::{AgentReport, Brief, Budget, FailureCause, Outcome};
use crate::toolbox::{Bounds, Survey, Toolbox};

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
    /// The tree before the first round.
    untouched: Option<Survey>,
    /// The tree after the last turn.
    last_seen: Survey,
    /// The changed paths that are not permitted, as the model was last told.
    told_denied: Vec<String>,
    /// What was used before this round.
    used_before: Usage,
    /// The model that answered last, as the provider names it.
    model: Option<String>,
    /// Shares of the budgets of which the model was told that they are used.
    told_share: u8,
}

/// How soon it is noticed that a pause has ended.
const PAUSE_LOOK: Duration = Duration::from_millis(500);

/// What may happen only once, or a few times, in one round.
#[derive(Debug, Default)]
struct Round {
    nudged: bool,
    continued: bool,
    enlarged: bool,
    sent_back: bool,
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
                "the price of the model `{}` is not known, so no budget can hold; set LEVIATHAN_MODEL_PRICES, \
                 in dollars per million tokens, to input/output/cache write/cache read, like 4/20/5/0.40",
                config.model
            ))
        })?;
        let api = Api::new(&config.key, &config.base_url, config.idle_timeout).map_err(configuration)?;
        let secrets = config.secrets.iter().chain([&config.key]);
        let redactor = Redactor::new(secrets.map(ExposeSecret::expose_secret));
        let opened = Transcript::open(&config.transcript, redactor.clone());
        let (mut transcript, spent) = opened.map_err(|error| {
            let path = config.transcript.display();
            FailureCause::Internal(
                anyhow::Error::new(error).context(format!("cannot open the transcript {path}")),
            )
        })?;
        let fixed = fixed_part(&config);
        let prices_as_of = super::PRICES_AS_OF;
        let first = Record::Conversation {
            format: TRANSCRIPT_FORMAT,
            model: &config.model,
            api_version: API_VERSION,
            fixed: &fixed,
            prices_as_of,
        };
        transcript.record(&first).map_err(FailureCause::Internal)?;
        if let Some(super::Origin { base, tree, provenance }) = &config.origin {
            let origin = Record::Attempt { base, tree, provenance };
            transcript.record(&origin).map_err(FailureCause::Internal)?;
        }
        let ledger = Ledger::new(prices, config.budgets, spent);
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
            last_seen: Survey::default(),
            told_denied: Vec::new(),
            used_before: Usage::default(),
            model: None,
            told_share: 0,
        })
    }

    /// Records the commit of the tree that the last round left.
    pub(super) fn came_to(&mut self, candidate: &CommitId) -> anyhow::Result<()> {
        self.transcript.record(&Record::Candidate { commit: candidate })
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
        self.circles.forget();
        if self.untouched.is_some() {
            // The first round answers for all that the attempt has spent, an earlier process included.
            self.used_before = self.ledger.usage().clone();
        }
        self.last_seen = survey(toolbox).await?;
        self.untouched.get_or_insert_with(|| self.last_seen.clone());
        let words = match brief.failed_checks.as_slice() {
            [] => prompt::task(brief),
            checks => prompt::failed_checks(checks),
        };
        self.history.begin_round(self.redactor.clean_ours(&words));
        Ok(())
    }

    /// Asks the model for its next turn, as often as it takes.
    async fn ask(&mut self, bounds: &Bounds, round: &Round) -> Result<Answer, FailureCause> {
        let mut tries = Tries::new(self.config.patience);
        loop {
            bounds.check()?;
            self.check_context()?;
            self.wait_while_paused(bounds).await?;
            let wanted = self.config.budgets.output_tokens << u32::from(round.enlarged);
            let fixed_bytes = self.fixed.to_string().len();
            let hold = self.ledger.reserve(self.history.most_tokens(fixed_bytes), wanted)?;
            let body = self.body(hold.max_tokens);
            self.record_request(&body, &hold)?;
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

    /// Waits until nobody wants the attempt to wait. Its deadline goes on.
    async fn wait_while_paused(&self, bounds: &Bounds) -> Result<(), FailureCause> {
        while (self.config.is_paused)() {
            bounds.hold((self.config.pause)(PAUSE_LOOK)).await?;
        }
        Ok(())
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
        let seen = survey(tools.toolbox).await?;
        let tree_changed = seen != self.last_seen;
        self.last_seen = seen;
        self.history.answered(answer.content, answer.tokens);
        if let Some((index, report)) = finish {
            self.history.wait_for_checks(results, index);
            return Ok(Some(self.report(report)));
        }
        self.add_notices(&mut results, tools.toolbox);
        self.history.user(results);
        match self.circles.end_turn(tree_changed) {
            Some(detail) => Err(FailureCause::Stuck { detail }),
            None => Ok(None),
        }
    }

    /// A report of success that the gate would refuse for certain is sent back once: it costs one turn and may
    /// save the work.
    async fn judge_finish(
        &mut self,
        report: &Finish,
        toolbox: &Toolbox,
        round: &mut Round,
    ) -> Result<Said, FailureCause> {
        let taken = Said { text: "Your report is taken.".to_owned(), is_error: false };
        if report.outcome == Outcome::GaveUp || round.sent_back {
            return Ok(taken);
        }
        let changed = self.changed(&survey(toolbox).await?);
        let denied = denied(&changed, toolbox);
        if !changed.is_empty() && denied.is_empty() {
            return Ok(taken);
        }
        round.sent_back = true;
        Ok(Said::error(match changed.is_empty() {
            true => prompt::NOTHING_CHANGED.to_owned(),
            false => prompt::denied_changes(&denied),
        }))
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

    /// Adds what the model must know to the last result: anywhere else it would break the cached prefix or draw
    /// an empty answer.
    fn add_notices(&mut self, results: &mut [Value], toolbox: &Toolbox) {
        let notices = [self.notice_of_denied_changes(toolbox), self.notice_of_budget()];
        if let Some(Value::String(text)) = results.last_mut().map(|last| &mut last["content"]) {
            for notice in notices.into_iter().flatten() {
                text.push_str(&format!("\n\n[{notice}]"));
            }
        }
    }

    /// Commands can change what the write tools would have refused.
    fn notice_of_denied_changes(&mut self, toolbox: &Toolbox) -> Option<String> {
        let denied = denied(&self.changed(&self.last_seen), toolbox);
        let is_news = !denied.is_empty() && denied != self.told_denied;
        self.told_denied = denied;
        is_news.then(|| prompt::denied_changes(&self.told_denied))
    }

    /// Said once at each threshold.
    fn notice_of_budget(&mut self) -> Option<String> {
        let share = self.ledger.used_percent();
        let passed = NOTICES.into_iter().rev().find(|notice| share >= *notice)?;
        let is_news = passed > self.told_share;
        self.told_share = self.told_share.max(passed);
        is_news.then(|| prompt::budget_used(passed))
    }

    fn changed(&self, now: &Survey) -> Vec<String> {
        self.untouched.as_ref().map(|before| now.changed_since(before)).unwrap_or_default()
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

    fn record_request(&mut self, body: &str, hold: &Hold) -> Result<(), FailureCause> {
        let from = self.history.take_unrecorded();
        let messages = &self.history.messages()[from..];
        let digest = model::Digest::of(body.as_bytes());
        let (max_tokens, set_aside_micro_usd) = (hold.max_tokens, hold.cost_micro_usd);
        let record = Record::Request { from, messages, max_tokens, set_aside_micro_usd, digest };
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
async fn survey(toolbox: &Toolbox) -> Result<Survey, FailureCause> {
    let tree = toolbox.tree.clone();
    let looked = tokio::task::spawn_blocking(move || tree.survey()).await;
    looked
        .map_err(anyhow::Error::new)
        .and_then(|found| found.map_err(anyhow::Error::new))
        .map_err(|error| FailureCause::Internal(error.context("cannot look at the agent's tree")))
}

/// The paths that the gate will not permit.
fn denied(changed: &[String], toolbox: &Toolbox) -> Vec<String> {
    let is_denied = |path: &&String| match model::RepoPath::parse(path) {
        Ok(path) => toolbox.rules.judge_path(&path).violation().is_some(),
        Err(_) => true,
    };
    changed.iter().filter(is_denied).cloned().collect()
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
