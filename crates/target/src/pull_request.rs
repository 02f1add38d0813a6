//! What a pull request says: only what was measured, and what others said marked as such.
//!
//! Pure text. Everything that an agent or a repository could have chosen (titles, paths, names, commands, notes) is
//! written so that it is read as text and as nothing else: it mentions nobody, closes no issue, holds no link, image,
//! HTML or hidden character, also where the text is later copied into the message of a squashed commit. The module
//! does not know how a pull request is opened.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use model::event::{NetworkAnswer, NetworkRequest, SandboxReported, Usage};
use model::integrity::{Mark, Weakening};
use model::secrets::Redactor;
use model::{
    AttemptId, Change, CheckOutcome, CommitId, Digest, InvariantReport, Protection, RepoPath, TargetSpec,
    Task, TaskId, Verdict, VerifiedChange, is_hidden, rules,
};
use serde::{Deserialize, Serialize};

/// GitHub refuses a body of more than 65,536 characters; the parts below sum up to less, whatever they hold.
const FILES_BUDGET: usize = 24_000;
const CHECKS_BUDGET: usize = 12_000;
const CHECKS_AGAIN_BUDGET: usize = 2_000;
const INTEGRITY_BUDGET: usize = 2_000;
const CRITERIA_BUDGET: usize = 12_000;
const PROTECTED_BUDGET: usize = 4_000;
const NOTE_BUDGET: usize = 4_000;
/// The longest piece of foreign text in one line, in characters before escaping.
const LONGEST_PIECE: usize = 300;
/// GitHub refuses a title of more than 256 characters.
const LONGEST_TITLE: usize = 200;

/// The label of pull requests that change files which steer people, platforms or checks.
pub const PROTECTED_LABEL: &str = "leviathan: protected files";

/// The label of pull requests that change what steers the checks, so that a green result may have another meaning.
pub const CHECKS_LABEL: &str = "leviathan: check configuration";

/// The label of pull requests that remove or skip tests, or suppress findings.
pub const INTEGRITY_LABEL: &str = "leviathan: weaker tests";

/// What is known about an attempt when its pull request is opened.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The documents that were in force.
    pub spec: &'a TargetSpec,
    /// The task.
    pub task: &'a Task,
    /// The attempt.
    pub attempt: &'a AttemptId,
    /// Who ran it: a worktree on some machine, or a Kubernetes Job.
    pub executor: &'a str,
    /// The change with its verdicts and reports.
    pub change: &'a VerifiedChange,
    /// What the agent says about its work.
    pub agent: AgentNote<'a>,
    /// Which layers of the sandbox held.
    pub sandbox: &'a SandboxReported,
    /// What commands asked of the network.
    pub network: &'a [NetworkRequest],
    /// The model that did the work; none for an agent without one.
    pub model: Option<&'a str>,
    /// What the model was paid for, all rounds together.
    pub usage: &'a Usage,
    /// What the change takes away from the tests and tells the checks to overlook.
    pub weakenings: &'a [Weakening],
    /// Knows the secrets of this process: none of them may be told.
    pub redactor: &'a Redactor,
}

/// The agent's own words. Nobody verified them.
#[derive(Debug, Clone, Copy, Default)]
pub struct AgentNote<'a> {
    /// What it did; may be empty.
    pub summary: &'a str,
    /// Pairs of an acceptance criterion and what the agent says about it.
    pub criteria: &'a [(String, String)],
}

/// The title, body and labels of a pull request, ready for a forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequestText {
    title: String,
    body: String,
    labels: Vec<String>,
}

impl PullRequestText {
    /// The text for a verified change.
    pub fn new(facts: &Facts<'_>) -> Self {
        let protected = protected_paths(facts);
        let labels = [
            (PROTECTED_LABEL, !protected.is_empty()),
            (CHECKS_LABEL, changed_check_files(facts).next().is_some()),
            (INTEGRITY_LABEL, !facts.weakenings.is_empty()),
        ];
        let labels =
            labels.into_iter().filter(|(_, applies)| *applies).map(|(label, _)| label.to_owned()).collect();
        let clean = |text: String| facts.redactor.clean(&text);
        Self { title: clean(title(facts)), body: clean(body(facts, &protected)), labels }
    }

    /// The text of the rolling pull request that marks these tasks completed in the backlog, where the default branch
    /// may not be pushed to.
    pub fn for_backlog(tasks: &[TaskId]) -> Self {
        let head = "The pull requests of these tasks were merged. The default branch does not accept the commit that \
                    records it, so a human merges it here.\n\nChanges:\n\n";
        let rows = tasks.iter().map(|task| format!("- `.leviathan/backlog.yaml`: `{task}` is completed\n"));
        let body = within(FILES_BUDGET, head, rows, "task");
        Self { title: "Record completed tasks in the backlog".into(), body, labels: Vec::new() }
    }

    /// The title: one line.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The body, in Markdown.
    pub fn body(&self) -> &str {
        &self.body
    }

    /// The labels, best effort.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }
}

/// The hidden block at the end of a body, by which Leviathan knows its own pull requests again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The version of this form: 1.
    pub version: u32,
    /// The task.
    pub task: TaskId,
    /// The attempt.
    pub attempt: AttemptId,
    /// The commit that the attempt started from.
    pub base: CommitId,
    /// The commit that was verified.
    pub commit: CommitId,
    /// The digest of the policy that was in force.
    pub policy: Digest,
}

impl Metadata {
    const START: &str = "<!-- leviathan-metadata ";
    const END: &str = " -->";

    /// Reads the block of a body; none when there is none, or one of another version.
    pub fn of_body(body: &str) -> Option<Self> {
        // The last one: text of others stands before it, and cannot hold a comment anyway.
        let (_, rest) = body.rsplit_once(Self::START)?;
        let (json, _) = rest.split_once(Self::END)?;
        serde_json::from_str(json).ok().filter(|metadata: &Self| metadata.version == 1)
    }
}

fn title(facts: &Facts<'_>) -> String {
    let text = plain_line(&facts.task.title, LONGEST_TITLE);
    if text.is_empty() { facts.task.task_id.to_string() } else { text }
}

fn body(facts: &Facts<'_>, protected: &[&RepoPath]) -> String {
    [
        changes(facts),
        protected_files(protected),
        checks(facts),
        checks_with_base_files(facts),
        integrity(facts),
        criteria(facts),
        agent_summary(facts),
        run(facts),
        metadata(facts),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<String>>()
    .join("\n")
}

fn changes(facts: &Facts<'_>) -> Option<String> {
    let head = "Changes:\n\n| File | Change | Permitted by |\n|---|---|---|\n";
    let rows = facts.change.files().map(|(change, verdict)| {
        let name = named(&change.path);
        format!("| {name} | {} | {} |\n", what_changed(change), permitted_by(verdict))
    });
    Some(within(FILES_BUDGET, head, rows, "changed file"))
}

/// The path, with a warning where it may not be the one that a reader takes it for.
fn named(path: &RepoPath) -> String {
    match mixed_word(path.as_str()) {
        None => code(path.as_str()),
        Some(word) => {
            let foreign = |c: &char| !c.is_ascii();
            let points: Vec<String> =
                word.chars().filter(foreign).map(|c| format!("U+{:04X}", u32::from(c))).collect();
            format!("{} ⚠ letters of several alphabets: {}", code(path.as_str()), points.join(", "))
        }
    }
}

/// A word with Latin letters and letters that can be taken for Latin ones.
fn mixed_word(text: &str) -> Option<&str> {
    let is_lookalike = |c: char| matches!(u32::from(c), 0x0370..=0x052f | 0x0531..=0x058a | 0x13a0..=0x13ff | 0xff21..=0xff5a);
    let mut words = text.split(|c: char| !c.is_alphabetic());
    words.find(|word| word.contains(is_lookalike) && word.contains(|c: char| c.is_ascii_alphabetic()))
}

fn what_changed(change: &Change) -> String {
    if change.is_binary {
        format!("{}, binary", change.verb())
    } else {
        format!("{}, +{} −{}", change.verb(), change.added_lines, change.removed_lines)
    }
}

fn permitted_by(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Permitted { rules } => {
            let rules: Vec<String> = rules.iter().map(|rule| code(&rule.to_string())).collect();
            rules.join("<br>")
        }
        // Unreachable by the type of the change, and the truth if it were not.
        Verdict::Denied(violation) => format!("**not permitted**: {}", prose(&violation.message)),
    }
}

fn protected_files(protected: &[&RepoPath]) -> Option<String> {
    if protected.is_empty() {
        return None;
    }
    let head = "**Look closely:** these files steer people, platforms or the checks themselves. \
                They could only be changed because task and scope name them literally:\n\n";
    let rows = protected.iter().map(|path| format!("- {}\n", code(path.as_str())));
    Some(within(PROTECTED_BUDGET, head, rows, "such file"))
}

/// The changed files that could only be changed because task and scope name them literally.
fn protected_paths<'a>(facts: &Facts<'a>) -> Vec<&'a RepoPath> {
    let by_policy = &facts.spec.policy.protected;
    let is_protected = |path: &&RepoPath| {
        rules::protection(path).is_some()
            || by_policy.iter().any(|rule| rule.pattern.matches_any_spelling(path))
    };
    facts.change.change_set().changes().iter().map(|change| &change.path).filter(is_protected).collect()
}

fn checks(facts: &Facts<'_>) -> Option<String> {
    let head = "Checks:\n\n| Check | Command | Time | Log (SHA-256) |\n|---|---|---|---|\n";
    let files = facts.change.change_set().changes().len();
    let scope = format!(
        "| ✓ Only allowed files modified | path rules, on the commit's own objects | | {} |\n",
        counted(files, "file")
    );
    let reports = facts.change.reports().iter().map(check_row);
    Some(within(CHECKS_BUDGET, head, reports.chain([scope]), "check"))
}

/// Both results of every check, where the change touches what steers them.
fn checks_with_base_files(facts: &Facts<'_>) -> Option<String> {
    let files: Vec<String> = changed_check_files(facts).map(|path| code(path.as_str())).collect();
    let second = facts.change.with_base_files();
    if files.is_empty() || second.is_empty() {
        return None;
    }
    let head = "**Look closely:** the change touches what steers the checks. They also ran with these files as the \
                base has them:\n\n| Check | With the change | With the base's files |\n|---|---|---|\n";
    let rows = facts.change.reports().iter().map(|first| {
        let other = second.iter().find(|report| report.name == first.name);
        let other = other.map_or("not run".to_owned(), |report| marked(&report.outcome));
        format!("| {} | {} | {other} |\n", prose(&first.name), marked(&first.outcome))
    });
    Some(within(CHECKS_AGAIN_BUDGET, head, rows, "check"))
}

fn marked(outcome: &CheckOutcome) -> String {
    let mark = if outcome.is_pass() { "✓" } else { "✗" };
    format!("{mark} {}", prose(&outcome.to_string()))
}

fn changed_check_files<'a>(facts: &Facts<'a>) -> impl Iterator<Item = &'a RepoPath> {
    let steers_checks = |(change, protection): (&'a Change, Protection)| {
        (protection == Protection::Checks).then_some(&change.path)
    };
    facts.change.steering().filter_map(steers_checks)
}

/// What makes a green result worth less, counted in the texts.
fn integrity(facts: &Facts<'_>) -> Option<String> {
    if facts.weakenings.is_empty() {
        return None;
    }
    let head = "**Look closely:** the change makes the tests or the checks say less, counted in the text of each file:\n\n";
    let rows = facts.weakenings.iter().map(|weakening| {
        let Weakening { path, mark, before, after } = weakening;
        let what = match mark {
            Mark::Test => "tests",
            Mark::Skip => "marks that skip a test or let it fail",
            Mark::Suppression => "marks that suppress a finding",
        };
        format!("- {}: {before} → {after} {what}\n", code(path.as_str()))
    });
    Some(within(INTEGRITY_BUDGET, head, rows, "such file"))
}

fn check_row(report: &InvariantReport) -> String {
    let mark = if report.outcome.is_pass() { "✓" } else { "✗" };
    let said = if report.outcome.is_pass() {
        prose(&passed(&report.name))
    } else {
        format!("{}: {}", prose(&report.name), prose(&report.outcome.to_string()))
    };
    format!(
        "| {mark} {said} | {} | {} | `{}` |\n",
        code(&report.check),
        seconds(report.duration_ms),
        report.log
    )
}

/// The name of an invariant, which says what must be, as a sentence about what was.
fn passed(name: &str) -> String {
    match [" must pass", " passes", " pass"].iter().find_map(|ending| name.strip_suffix(ending)) {
        Some(subject) => format!("{subject} passed"),
        None => format!("{name}: passed"),
    }
}

fn criteria(facts: &Facts<'_>) -> Option<String> {
    if facts.task.acceptance_criteria.is_empty() {
        return None;
    }
    let head = "Acceptance criteria, for the reviewer to judge:\n\n";
    let rows = facts.task.acceptance_criteria.iter().map(|criterion| {
        let note =
            facts.agent.criteria.iter().find(|(quoted, note)| quoted == criterion && !note.trim().is_empty());
        let said = note.map(|(_, note)| format!("  \n  *the agent says, unverified:* {}", prose(note)));
        format!("- [ ] {}{}\n", prose(criterion), said.unwrap_or_default())
    });
    Some(within(CRITERIA_BUDGET, head, rows, "acceptance criterion"))
}

fn agent_summary(facts: &Facts<'_>) -> Option<String> {
    if facts.agent.summary.trim().is_empty() {
        return None;
    }
    let head = "The agent's own note, unverified:\n\n";
    let lines = facts.agent.summary.lines().map(|line| format!("> {}\n", prose(line)));
    Some(within(NOTE_BUDGET, head, lines, "line"))
}

fn run(facts: &Facts<'_>) -> Option<String> {
    let network = network(facts.network).map(|asked| format!("Network: {asked}  \n")).unwrap_or_default();
    let (sandbox, cost) = (sandbox(facts.sandbox), cost(facts.model, facts.usage));
    Some(format!("Sandbox: {sandbox}  \n{network}Cost: {cost}\n"))
}

/// The hosts that were reached, and those that were asked for in vain.
fn network(requests: &[NetworkRequest]) -> Option<String> {
    const MOST: usize = 20;
    let (reached, refused): (Vec<_>, Vec<_>) =
        requests.iter().partition(|request| request.answer == NetworkAnswer::Connected);
    let told = |words: &str, requests: Vec<&NetworkRequest>| {
        let places: BTreeSet<String> =
            requests.iter().map(|it| code(&format!("{}:{}", it.host, it.port))).collect();
        let (shown, more) =
            (places.iter().take(MOST).cloned().collect::<Vec<_>>(), places.len().saturating_sub(MOST));
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!shown.is_empty()).then(|| format!("{words} {}{more}", shown.join(", ")))
    };
    let parts = [told("reached", reached), told("asked in vain for", refused)];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn sandbox(reported: &SandboxReported) -> String {
    let layers = |holds: bool| {
        let names =
            reported.layers.iter().filter(move |layer| layer.holds == holds).map(|layer| prose(&layer.name));
        names.collect::<Vec<String>>().join(", ")
    };
    let (held, missing) = (layers(true), layers(false));
    let held = if held.is_empty() { "no layer held".into() } else { format!("held: {held}") };
    let missing = if missing.is_empty() { String::new() } else { format!("; did not hold: {missing}") };
    format!("{} ({held}{missing})", prose(&reported.profile))
}

fn cost(model: Option<&str>, usage: &Usage) -> String {
    let Some(model) = model else { return "none, no model was used".into() };
    let cents = usage.cost_micro_usd.div_ceil(10_000);
    let read = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens;
    let dollars = format!("US$ {}.{:02}", cents / 100, cents % 100);
    format!("{dollars} for {read} tokens in and {} out, {}", usage.output_tokens, code(model))
}

fn metadata(facts: &Facts<'_>) -> Option<String> {
    let change_set = facts.change.change_set();
    let hidden = Metadata {
        version: 1,
        task: facts.task.task_id.clone(),
        attempt: facts.attempt.clone(),
        base: change_set.base().clone(),
        commit: facts.change.commit().clone(),
        policy: facts.spec.digests.policy.clone(),
    };
    // Every value is an identifier whose kind excludes the end of a comment.
    let json = serde_json::to_string(&hidden).expect("identifiers are plain data");
    Some(format!(
        "Leviathan Metadata:\n\n```text\n  Task: {}\n  Attempt: {}\n  Executor: {}\n  Base: {}\n  Policy: {}\n```\n\n{}{json}{}\n",
        facts.task.task_id,
        facts.attempt,
        token(facts.executor),
        change_set.base(),
        facts.spec.digests.policy,
        Metadata::START,
        Metadata::END,
    ))
}

/// `head` and as many rows as fit, then how many are left out.
fn within(budget: usize, head: &str, rows: impl Iterator<Item = String>, noun: &str) -> String {
    let mut text = head.to_owned();
    let mut length = text.chars().count();
    let mut left_out = 0;
    for row in rows {
        let row_length = row.chars().count();
        if left_out == 0 && length + row_length <= budget {
            text.push_str(&row);
            length += row_length;
        } else {
            left_out += 1;
        }
    }
    if left_out > 0 {
        let _ = write!(text, "\n*Too long to show: {} more.*\n", counted(left_out, noun));
    }
    text
}

fn counted(n: usize, noun: &str) -> String {
    match (n, noun) {
        (1, _) => format!("1 {noun}"),
        (n, "acceptance criterion") => format!("{n} acceptance criteria"),
        (n, _) => format!("{n} {noun}s"),
    }
}

fn seconds(duration_ms: u64) -> String {
    format!("{}.{} s", duration_ms / 1000, duration_ms % 1000 / 100)
}

/// Foreign text as inline code where that is safe, else as escaped text. Inline code protects only where Markdown is
/// rendered, and the message of a squashed commit is not: what could act there is never written as code.
fn code(text: &str) -> String {
    let acts = |c: char| "@#`|\\<>".contains(c) || is_hidden(c);
    let is_long = text.chars().count() > LONGEST_PIECE;
    if text.trim().is_empty() || is_long || text.contains(acts) || has_acting_word(text) {
        prose(text)
    } else {
        format!("`{text}`")
    }
}

/// Whether text holds a link, an issue, or a word by which a commit message skips the checks of its push.
fn has_acting_word(text: &str) -> bool {
    const ACTING: [&str; 10] =
        ["](", "://", "www.", "gh-", "skip ci", "ci skip", "no ci", "no_ci", "skip actions", "actions skip"];
    let lower = text.to_ascii_lowercase();
    ACTING.iter().any(|word| lower.contains(word))
}

/// Foreign text as one line of Markdown that renders as the same characters and does nothing else.
fn prose(text: &str) -> String {
    let text = one_line(text, LONGEST_PIECE);
    let mut escaped = String::with_capacity(text.len() + 16);
    for (at, c) in text.char_indices() {
        let before = text[..at].chars().next_back();
        let after = text[at + c.len_utf8()..].chars().next();
        let between_letters =
            before.is_some_and(char::is_alphanumeric) && after.is_some_and(char::is_alphanumeric);
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '$' => escaped.push_str("&#36;"),
            // A break that is seen by no reader, and that neither a renderer nor a commit message looks through.
            '@' | '#' => {
                escaped.push(c);
                escaped.push_str("&#8203;");
            }
            // `scheme://` and `www.` become links by themselves.
            ':' if after == Some('/') => escaped.push_str("&#58;"),
            '.' if text[..at].to_ascii_lowercase().ends_with("www") => escaped.push_str("&#46;"),
            '-' if text[..at].to_ascii_lowercase().ends_with("gh") => escaped.push_str("-&#8203;"),
            '_' if between_letters => escaped.push('_'),
            '\\' | '`' | '*' | '_' | '[' | ']' | '~' | '|' => {
                escaped.push('\\');
                escaped.push(c);
            }
            // What begins a list, a heading or a command of a bot, if it came to stand at the beginning of a line.
            '-' | '+' | '=' | '/' if before.is_none() => {
                escaped.push('\\');
                escaped.push(c);
            }
            '.' if before.is_some() && text[..at].bytes().all(|b| b.is_ascii_digit()) => {
                escaped.push_str("\\.")
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// Foreign text as a title or the first line of a commit message, which are not Markdown: what could act is spelled so
/// that it does not.
pub(crate) fn plain_line(text: &str, longest: usize) -> String {
    let line = one_line(text, longest);
    let mut spelled = String::with_capacity(line.len());
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            // `[skip ci]` would act in the subject of a squashed commit.
            '[' => spelled.push('('),
            ']' => spelled.push(')'),
            '@' | '#' if rest.peek().is_some_and(|next| next.is_alphanumeric()) => {
                spelled.push(c);
                spelled.push(' ');
            }
            '-' if spelled.to_ascii_lowercase().ends_with("gh") => spelled.push_str("- "),
            ':' if rest.peek() == Some(&'/') => spelled.push_str(": "),
            '.' if spelled.to_ascii_lowercase().ends_with("www") => spelled.push_str(". "),
            c => spelled.push(c),
        }
    }
    spelled
}

/// One line of at most `longest` characters, with everything hidden made visible.
fn one_line(text: &str, longest: usize) -> String {
    let mut line = String::new();
    let words: Vec<&str> = text.split_whitespace().collect();
    for (length, c) in words.join(" ").chars().enumerate() {
        if length >= longest {
            line.push('…');
            break;
        }
        if is_hidden(c) {
            let _ = write!(line, "‹U+{:04X}›", u32::from(c));
        } else {
            line.push(c);
        }
    }
    line
}

/// Text that stands in a code block as one word of few kinds of characters.
fn token(text: &str) -> String {
    let mut word = String::new();
    for c in text.chars().take(LONGEST_PIECE) {
        match c {
            '-' if word.to_ascii_lowercase().ends_with("gh") => word.push('_'),
            '.' if word.to_ascii_lowercase().ends_with("www") => word.push('_'),
            c if c.is_ascii_alphanumeric() || "._-".contains(c) => word.push(c),
            _ => word.push('-'),
        }
    }
    word
}
