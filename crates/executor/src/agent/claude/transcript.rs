//! The record of a conversation: what was asked, what came back, what was done.
//!
//! One JSON object per line, written to disk before the effect that it announces, without any secret. A request
//! is recorded as what it adds to the one before, with the digest of all of it, so that the whole conversation
//! can be put together again and compared byte by byte. What a replay needs beyond this file is the base commit
//! and the outputs of commands, which are in the tool results.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use model::event::Usage;
use model::secrets::Redactor;
use model::{CommitId, Digest};
use serde::{Deserialize as _, Serialize};
use serde_json::Value;
use target::Provenance;
use tokio::time::Instant;

use super::api::{Answer, CallError, ToolCall};

/// The version of the format. A reader refuses a file with another.
pub const TRANSCRIPT_FORMAT: &str = "leviathan-transcript/2";

/// The open file of one conversation.
#[derive(Debug)]
pub(super) struct Transcript {
    path: PathBuf,
    file: File,
    redactor: Redactor,
    began: Instant,
    lines: u64,
}

/// One line.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Record<'a> {
    /// The first line: what holds for all requests.
    Conversation {
        format: &'a str,
        model: &'a str,
        api_version: &'a str,
        fixed: &'a Value,
        prices_as_of: &'a str,
    },
    /// What the tree began with, and what its commit says of itself.
    Attempt { base: &'a CommitId, tree: &'a Path, provenance: &'a Provenance },
    /// A call is about to be made. `messages` are those from index `from` on.
    Request { from: usize, messages: &'a [Value], max_tokens: u64, set_aside_micro_usd: u64, digest: Digest },
    /// The answer to the call before.
    Response {
        model: &'a str,
        request_id: Option<&'a str>,
        stop: String,
        content: &'a [Value],
        usage: &'a Usage,
    },
    /// The call before has no answer.
    CallFailed { error: String, may_be_billed: bool, usage: &'a Usage },
    /// A tool is about to be used.
    ToolIntent { id: &'a str, name: &'a str, input: Value },
    /// What the tool said.
    ToolResult { id: &'a str, is_error: bool, text: &'a str },
    /// The commit of the tree that the round left.
    Candidate { commit: &'a CommitId },
    /// The round is over.
    End { outcome: &'a str, detail: String, usage: &'a Usage },
}

impl<'a> Record<'a> {
    pub(super) fn response(answer: &'a Answer, usage: &'a Usage) -> Self {
        Self::Response {
            model: &answer.model,
            request_id: answer.request_id.as_deref(),
            stop: format!("{:?}", answer.stop),
            content: &answer.content,
            usage,
        }
    }

    pub(super) fn call_failed(error: &CallError, usage: &'a Usage) -> Self {
        Self::CallFailed { error: error.to_string(), may_be_billed: error.may_be_billed(), usage }
    }

    pub(super) fn tool_intent(call: &'a ToolCall) -> Self {
        let input = match &call.input {
            Ok(object) => Value::Object(object.clone()),
            Err(problem) => Value::from(problem.as_str()),
        };
        Self::ToolIntent { id: &call.id, name: &call.name, input }
    }
}

impl Transcript {
    /// Opens the file, or makes it. One that is there is continued: it belongs to the same attempt, whose
    /// process ended without an end. Also returns what was spent until then.
    pub(super) fn open(path: &Path, redactor: Redactor) -> io::Result<(Self, Usage)> {
        let before = match std::fs::read(path) {
            Ok(before) => before,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut file = File::options().append(true).create(true).open(path)?;
        if before.last().is_some_and(|last| *last != b'\n') {
            // A line that a crash cut off stays as it is, and the next begins on its own.
            file.write_all(b"\n")?;
        }
        let lines = before.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() as u64;
        Ok((Self { path: path.to_owned(), file, redactor, began: Instant::now(), lines }, spent(&before)))
    }

    /// Writes one line and returns when it is on disk.
    pub(super) fn record(&mut self, record: &Record<'_>) -> anyhow::Result<()> {
        use anyhow::Context as _;
        let mut line = serde_json::to_value(record).context("a record of the transcript has no JSON form")?;
        line["line"] = Value::from(self.lines);
        line["after_ms"] = Value::from(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX));
        self.redactor.clean_value(&mut line);
        let mut bytes = line.to_string().into_bytes();
        bytes.push(b'\n');
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        written.with_context(|| format!("cannot write the transcript {}", self.path.display()))?;
        self.lines += 1;
        Ok(())
    }
}

/// What the last line that tells the usage says, and all that was set aside for a call after it.
fn spent(lines: &[u8]) -> Usage {
    let mut spent = Usage::default();
    let mut in_flight = 0;
    for line in lines.split(|byte| *byte == b'\n') {
        let Ok(record) = serde_json::from_slice::<Value>(line) else { continue };
        if let Ok(usage) = Usage::deserialize(&record["usage"]) {
            (spent, in_flight) = (usage, 0);
        }
        if let Some(set_aside) = record["set_aside_micro_usd"].as_u64() {
            in_flight = set_aside;
        }
    }
    spent.cost_micro_usd = spent.cost_micro_usd.saturating_add(in_flight);
    spent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_numbered_and_without_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("transcript.jsonl");
        let redactor = Redactor::new(["very-secret-\"key\"", "short"]);
        let (mut transcript, spent) = Transcript::open(&path, redactor).unwrap();
        assert_eq!(spent, Usage::default());
        let text = "a very-secret-\"key\" and a short word";
        for _ in 0..2 {
            transcript.record(&Record::ToolResult { id: "1", is_error: false, text }).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["line"], 1);
        assert_eq!(lines[1]["text"], "a [redacted] and a short word");
    }

    #[test]
    fn a_transcript_that_a_crash_cut_off_is_continued_and_its_cost_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("transcript.jsonl");
        let usage = Usage { turns: 3, cost_micro_usd: 500, ..Usage::default() };
        let request = |set_aside_micro_usd| Record::Request {
            from: 0,
            messages: &[],
            max_tokens: 1,
            set_aside_micro_usd,
            digest: Digest::of(b""),
        };
        let (mut transcript, _) = Transcript::open(&path, Redactor::default()).unwrap();
        transcript.record(&request(70)).unwrap();
        transcript
            .record(&Record::CallFailed { error: String::new(), may_be_billed: true, usage: &usage })
            .unwrap();
        assert_eq!(Transcript::open(&path, Redactor::default()).unwrap().1, usage);
        transcript.record(&request(40)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], br#"{"type":"resp"#].concat()).unwrap();
        let (mut transcript, spent) = Transcript::open(&path, Redactor::default()).unwrap();
        assert_eq!(spent, Usage { cost_micro_usd: 540, ..usage });
        transcript.record(&request(0)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let read = text.lines().map(|line| serde_json::from_str::<Value>(line).is_ok()).collect::<Vec<_>>();
        assert_eq!(read, [true, true, true, false, true]);
    }
}
