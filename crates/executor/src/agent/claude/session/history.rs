//! The messages of a conversation, and how many tokens they are.
//!
//! Messages are only ever added. What the provider counted is known exactly; what was added since counts with
//! one token for each byte, the most that a tokenizer of bytes can make of it.

use serde_json::{Value, json};

use super::super::api::Tokens;
use super::text_block;

#[derive(Debug, Default)]
pub(super) struct History {
    messages: Vec<Value>,
    /// The index of the first message that the transcript does not hold as it is now.
    unrecorded: usize,
    /// Tokens of everything up to the last count, tools and instructions included; 0 before the first count.
    counted: u64,
    /// Bytes that were added since.
    added: u64,
    /// The results of the turn in which the model finished. They go back together with the checks' answer.
    waiting: Option<(Vec<Value>, usize)>,
}

/// What the provider adds by itself, for its own tools and the form of messages.
const OVERHEAD: u64 = 2_000;

impl History {
    pub(super) fn messages(&self) -> &[Value] {
        &self.messages
    }

    /// The tokens of the conversation as far as they were counted.
    pub(super) fn tokens(&self) -> u64 {
        self.counted
    }

    /// The most tokens that the next request's input can have. `fixed_bytes` is the size of what stands before
    /// the messages.
    pub(super) fn most_tokens(&self, fixed_bytes: usize) -> u64 {
        let before = if self.counted == 0 { fixed_bytes as u64 } else { self.counted };
        before.saturating_add(self.added).saturating_add(OVERHEAD)
    }

    /// The provider counted the history as it is now. A count of zero is none.
    pub(super) fn counted(&mut self, tokens: u64) {
        if tokens > 0 {
            self.counted = tokens;
            self.added = 0;
        }
    }

    /// Words of ours that begin a round: the task, or what the checks said. In the second case they are the
    /// result of the model's `finish`, if it called it.
    pub(super) fn begin_round(&mut self, words: String) {
        match self.waiting.take() {
            Some((mut results, index)) => {
                results[index]["content"] = Value::from(words);
                results[index]["is_error"] = Value::from(true);
                self.user(results);
            }
            None => self.user(vec![text_block(&words)]),
        }
    }

    /// The model's turn, counted. Blocks that say nothing are left out, because the API refuses them; a turn
    /// that is nothing else leaves no message.
    pub(super) fn answered(&mut self, mut content: Vec<Value>, tokens: Tokens) {
        let is_empty_text = |block: &Value| {
            block["type"] == "text" && block["text"].as_str().is_none_or(|text| text.trim().is_empty())
        };
        let says_something = |block: &Value| {
            !is_empty_text(block) && block["type"] != "thinking" && block["type"] != "redacted_thinking"
        };
        if !content.iter().any(says_something) {
            return;
        }
        content.retain(|block| !is_empty_text(block));
        match tokens.all_input() {
            0 => self.added = self.added.saturating_add(bytes_of(&content)),
            input => self.counted(input.saturating_add(tokens.output)),
        }
        self.push("assistant", content);
    }

    /// Our answer.
    pub(super) fn user(&mut self, content: Vec<Value>) {
        self.added = self.added.saturating_add(bytes_of(&content));
        self.push("user", content);
    }

    /// Keeps the results of the turn in which the model finished: the one at `index` is for `finish`.
    pub(super) fn wait_for_checks(&mut self, results: Vec<Value>, index: usize) {
        self.waiting = Some((results, index));
    }

    /// The index from which the transcript must take the messages; from then on it counts as recorded.
    pub(super) fn take_unrecorded(&mut self) -> usize {
        std::mem::replace(&mut self.unrecorded, self.messages.len())
    }

    /// Roles take turns: what follows a message of the same role (a paused turn, an answer to a turn that left
    /// no message) belongs to it.
    fn push(&mut self, role: &str, content: Vec<Value>) {
        if let Some(last) = self.messages.last_mut().filter(|last| last["role"] == role)
            && let Value::Array(blocks) = &mut last["content"]
        {
            blocks.extend(content);
            self.unrecorded = self.unrecorded.min(self.messages.len() - 1);
            return;
        }
        self.messages.push(json!({ "role": role, "content": content }));
    }
}

fn bytes_of(content: &[Value]) -> u64 {
    content.iter().map(|block| block.to_string().len() as u64).sum()
}
