//! One answer of the script, and how it goes over the wire.

use std::io;
use std::time::Duration;

use axum::body::Bytes;
use futures_util::{Stream, StreamExt as _};
use serde_json::{Value, json};

use super::cache::Usage;
use super::rules::{Refusal, Rules};

/// An answer. Made by one of the constructors and changed by the methods that follow.
#[derive(Debug, Clone)]
pub struct Reply {
    blocks: Vec<Block>,
    stop_reason: Value,
    stop_details: Value,
    output_tokens: Option<u64>,
    input_tokens: Option<u64>,
    error: Option<(Refusal, Vec<(String, String)>)>,
    ending: Ending,
    delay: Duration,
    shred: bool,
}

#[derive(Debug, Clone)]
enum Block {
    Text(String),
    Thinking(String),
    /// The input as text, which need not be JSON.
    Tool {
        name: String,
        input: String,
    },
}

#[derive(Debug, Clone)]
enum Ending {
    Whole,
    /// The connection breaks after this many events.
    Cut(usize),
    /// The stream ends cleanly, but too early.
    Short(usize),
    /// Nothing more comes after this many events.
    Hang(usize),
    /// An `error` event takes the place of all after this many.
    Error(usize, &'static str),
    /// These bytes take the place of all after this many.
    Bytes(usize, Vec<u8>),
}

impl Reply {
    /// Words, and the end of the turn.
    pub fn text(text: &str) -> Self {
        Self::of(vec![Block::Text(text.to_owned())], "end_turn")
    }

    /// One tool call.
    pub fn tool(name: &str, input: Value) -> Self {
        Self::tools([(name, input)])
    }

    /// Several tool calls in one turn.
    pub fn tools<'a>(calls: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        let block =
            |(name, input): (&str, Value)| Block::Tool { name: name.to_owned(), input: input.to_string() };
        Self::of(calls.into_iter().map(block).collect(), "tool_use")
    }

    /// A tool call whose input is this very text.
    pub fn tool_with_raw_input(name: &str, input: &str) -> Self {
        Self::of(vec![Block::Tool { name: name.to_owned(), input: input.to_owned() }], "tool_use")
    }

    /// A turn without any content.
    pub fn empty() -> Self {
        Self::of(Vec::new(), "end_turn")
    }

    /// The call of `finish` with success.
    pub fn finish(summary: &str) -> Self {
        Self::tool("finish", json!({ "outcome": "finished", "summary": summary }))
    }

    /// A refusal in the middle of a turn.
    pub fn refusal(category: &str, explanation: &str) -> Self {
        let mut reply = Self::of(vec![Block::Text("I will not".to_owned())], "refusal");
        reply.stop_details = json!({ "type": "refusal", "category": category, "explanation": explanation });
        reply
    }

    /// An answer with this error instead of a stream.
    pub fn error(status: u16, kind: &'static str, message: &str) -> Self {
        let mut reply = Self::empty();
        let refusal = Refusal { status, kind, message: message.to_owned(), code: None };
        reply.error = Some((refusal, Vec::new()));
        reply
    }

    /// 529.
    pub fn overloaded() -> Self {
        Self::error(529, "overloaded_error", "Overloaded")
    }

    /// 429 with the seconds to wait.
    pub fn rate_limited(seconds: u64) -> Self {
        Self::error(429, "rate_limit_error", "This request would exceed your rate limit")
            .header("retry-after", &seconds.to_string())
    }

    /// 429 that no waiting helps against.
    pub fn spend_limit() -> Self {
        let mut reply = Self::error(429, "rate_limit_error", "You have reached your spend limit");
        if let Some((refusal, _)) = &mut reply.error {
            refusal.code = Some("enforced_spend_limit_reached".to_owned());
        }
        reply
    }

    /// 200 and bytes that are no event stream, although they say so.
    pub fn garbage() -> Self {
        let mut reply = Self::empty();
        reply.ending = Ending::Bytes(0, b"event: message_start\ndata: {\"oops\n\n\x00\xff\xfe".to_vec());
        reply
    }

    /// Puts thinking before the rest.
    pub fn thinking(mut self, text: &str) -> Self {
        self.blocks.insert(0, Block::Thinking(text.to_owned()));
        self
    }

    /// Puts words before the rest, after any thinking.
    pub fn saying(mut self, text: &str) -> Self {
        let at = usize::from(matches!(self.blocks.first(), Some(Block::Thinking(_))));
        self.blocks.insert(at, Block::Text(text.to_owned()));
        self
    }

    /// Another stop reason.
    pub fn stop(mut self, reason: &str) -> Self {
        self.stop_reason = Value::from(reason);
        self
    }

    /// Another number of output tokens.
    pub fn output_tokens(mut self, tokens: u64) -> Self {
        self.output_tokens = Some(tokens);
        self
    }

    /// Another number of uncached input tokens.
    pub fn input_tokens(mut self, tokens: u64) -> Self {
        self.input_tokens = Some(tokens);
        self
    }

    /// A header, on an error.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Some((_, headers)) = &mut self.error {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Breaks the connection after this many events.
    pub fn cut_after(mut self, events: usize) -> Self {
        self.ending = Ending::Cut(events);
        self
    }

    /// Ends the stream cleanly after this many events, before it is complete.
    pub fn short_after(mut self, events: usize) -> Self {
        self.ending = Ending::Short(events);
        self
    }

    /// Sends nothing more after this many events, and keeps the connection.
    pub fn hang_after(mut self, events: usize) -> Self {
        self.ending = Ending::Hang(events);
        self
    }

    /// Sends an `error` event after this many events.
    pub fn error_event_after(mut self, events: usize, kind: &'static str) -> Self {
        self.ending = Ending::Error(events, kind);
        self
    }

    /// Sends these bytes after this many events instead of the rest.
    pub fn bytes_after(mut self, events: usize, bytes: impl Into<Vec<u8>>) -> Self {
        self.ending = Ending::Bytes(events, bytes.into());
        self
    }

    /// Waits this long before each chunk.
    pub fn drip(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Cuts the bytes into chunks of three.
    pub fn shredded(mut self) -> Self {
        self.shred = true;
        self
    }

    pub(super) fn as_error(&self) -> Option<(Refusal, Vec<(String, String)>)> {
        self.error.clone()
    }

    pub(super) fn into_stream(
        self,
        request: &Value,
        usage: Usage,
        first_id: u64,
        rules: &mut Rules,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let mut events = self.events(request, usage, first_id, rules);
        let mut ending = None;
        match self.ending {
            Ending::Whole => {}
            Ending::Cut(at) => {
                events.truncate(at);
                ending = Some(Tail::Break);
            }
            Ending::Short(at) => events.truncate(at),
            Ending::Hang(at) => {
                events.truncate(at);
                ending = Some(Tail::Hang);
            }
            Ending::Error(at, kind) => {
                events.truncate(at);
                let error = json!({ "type": "error", "error": { "type": kind, "message": "it broke" } });
                events.push(event("error", &error));
            }
            Ending::Bytes(at, bytes) => {
                events.truncate(at);
                ending = Some(Tail::Bytes(bytes));
            }
        }
        let size = if self.shred { 3 } else { usize::MAX };
        let mut chunks: Vec<Bytes> = Vec::new();
        for event in events {
            chunks.extend(event.as_bytes().chunks(size.min(event.len())).map(Bytes::copy_from_slice));
        }
        let delay = self.delay;
        let body = futures_util::stream::iter(chunks).then(move |chunk| async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            Ok(chunk)
        });
        body.chain(futures_util::stream::iter(ending).then(|tail| async move {
            match tail {
                Tail::Bytes(bytes) => Ok(Bytes::from(bytes)),
                Tail::Hang => std::future::pending().await,
                Tail::Break => {
                    // Gives the bytes before it time to leave, so that the client sees them.
                    tokio::task::yield_now().await;
                    Err(io::Error::new(io::ErrorKind::ConnectionReset, "the script breaks the connection"))
                }
            }
        }))
    }

    fn events(&self, request: &Value, usage: Usage, first_id: u64, rules: &mut Rules) -> Vec<String> {
        let input = self.input_tokens.unwrap_or(usage.input);
        // No answer is ever longer than the request allows.
        let most = request["max_tokens"].as_u64().unwrap_or(u64::MAX);
        let output = self.output_tokens.unwrap_or_else(|| 10 + self.size() / 4).min(most);
        let mut content: Vec<Value> = Vec::new();
        let message = json!({
            "id": format!("msg_{first_id}"), "type": "message", "role": "assistant", "model": request["model"],
            "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": {
                "input_tokens": input, "cache_read_input_tokens": usage.cache_read,
                "cache_creation_input_tokens": usage.cache_write, "output_tokens": output.min(1),
            },
        });
        let mut events = vec![
            event("message_start", &json!({ "type": "message_start", "message": message })),
            event("ping", &json!({ "type": "ping" })),
        ];
        for (index, block) in self.blocks.iter().enumerate() {
            let (start, deltas) = match block {
                Block::Text(text) => {
                    (json!({ "type": "text", "text": "" }), pieces("text_delta", "text", text))
                }
                Block::Thinking(text) => {
                    let signature = rules.sign(request, &content, text);
                    let mut deltas = pieces("thinking_delta", "thinking", text);
                    deltas.push(json!({ "type": "signature_delta", "signature": signature }));
                    content.push(json!({ "type": "thinking", "thinking": text, "signature": signature }));
                    (json!({ "type": "thinking", "thinking": "", "signature": "" }), deltas)
                }
                Block::Tool { name, input } => {
                    let id = format!("toolu_{:06}", first_id + index as u64);
                    (
                        json!({ "type": "tool_use", "id": id, "name": name, "input": {} }),
                        pieces("input_json_delta", "partial_json", input),
                    )
                }
            };
            let start = json!({ "type": "content_block_start", "index": index, "content_block": start });
            events.push(event("content_block_start", &start));
            for delta in deltas {
                let delta = json!({ "type": "content_block_delta", "index": index, "delta": delta });
                events.push(event("content_block_delta", &delta));
            }
            let stop = json!({ "type": "content_block_stop", "index": index });
            events.push(event("content_block_stop", &stop));
        }
        if self.stop_reason == "pause_turn" {
            rules.paused = true;
        }
        let tools_issued = self.blocks.iter().enumerate().filter(|(_, b)| matches!(b, Block::Tool { .. }));
        if matches!(self.blocks.first(), Some(Block::Thinking(_))) {
            rules
                .thought
                .extend(tools_issued.map(|(index, _)| format!("toolu_{:06}", first_id + index as u64)));
        }
        let end = json!({
            "type": "message_delta",
            "delta": { "stop_reason": self.stop_reason, "stop_sequence": null, "stop_details": self.stop_details },
            "usage": { "output_tokens": output },
        });
        events.push(event("message_delta", &end));
        events.push(event("message_stop", &json!({ "type": "message_stop" })));
        events
    }

    fn size(&self) -> u64 {
        let size = |block: &Block| match block {
            Block::Text(text) | Block::Thinking(text) | Block::Tool { input: text, .. } => text.len() as u64,
        };
        self.blocks.iter().map(size).sum()
    }

    fn of(blocks: Vec<Block>, stop_reason: &str) -> Self {
        Self {
            blocks,
            stop_reason: Value::from(stop_reason),
            stop_details: Value::Null,
            output_tokens: None,
            input_tokens: None,
            error: None,
            ending: Ending::Whole,
            delay: Duration::ZERO,
            shred: false,
        }
    }
}

enum Tail {
    Bytes(Vec<u8>),
    Hang,
    Break,
}

/// Text in pieces, as a model writes it.
fn pieces(kind: &str, field: &str, text: &str) -> Vec<Value> {
    let characters: Vec<char> = text.chars().collect();
    let pieces = characters.chunks(16).map(|piece| piece.iter().collect::<String>());
    pieces.map(|piece| json!({ "type": kind, (field): piece })).collect()
}

fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}
