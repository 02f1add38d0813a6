//! What the real API refuses, and in which words.

use std::collections::HashSet;

use axum::http::HeaderMap;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::KEY;
use super::cache::tokens_of_request;

/// A request body larger than this many bytes is refused with 413.
pub(super) const MAX_BODY: usize = 32 << 20;

const VERSION: &str = "2026-10-21";
const MODELS: [&str; 4] = ["claude-opus-5-5", "claude-sonnet-5-5", "claude-fable-5-1", "claude-haiku-5-5"];
const MAX_OUTPUT: u64 = 128_000;
const FIELDS: [&str; 10] = [
    "model",
    "max_tokens",
    "stream",
    "cache_control",
    "system",
    "thinking",
    "tools",
    "messages",
    "output_config",
    "tool_choice",
];

/// An error of the API.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    pub(super) message: String,
    pub(super) code: Option<String>,
}

/// What the rules must remember.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) context_limit: u64,
    /// The last answer was a `pause_turn`, after which the history may end with the assistant.
    pub(super) paused: bool,
    /// Tool calls that came with thinking, which must come back with them.
    pub(super) thought: HashSet<String>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { context_limit: 1_000_000, paused: false, thought: HashSet::new() }
    }
}

impl Refusal {
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self { status: 400, kind: "invalid_request_error", message: message.into(), code: None }
    }
}

impl Rules {
    pub(super) fn refuse(
        &mut self,
        headers: &HeaderMap,
        size: usize,
        request: &Value,
    ) -> Result<(), Refusal> {
        check_headers(headers)?;
        if size > MAX_BODY {
            let message = "Request exceeds the maximum size".to_owned();
            return Err(Refusal { status: 413, kind: "request_too_large", message, code: None });
        }
        check_parameters(request)?;
        check_tools(&request["tools"])?;
        self.check_messages(request)?;
        check_breakpoints(request)?;
        let tokens = tokens_of_request(request);
        if tokens > self.context_limit {
            return invalid(format!("prompt is too long: {tokens} tokens > {} maximum", self.context_limit));
        }
        self.paused = false;
        Ok(())
    }

    /// The signature that binds a thinking block to its model and to everything before it.
    pub(super) fn sign(&self, request: &Value, content: &[Value], thinking: &str) -> String {
        let messages = request["messages"].as_array().cloned().unwrap_or_default();
        signature(&request["model"], &messages, content, thinking)
    }

    fn check_messages(&self, request: &Value) -> Result<(), Refusal> {
        let messages = request["messages"].as_array().filter(|messages| !messages.is_empty());
        let Some(messages) = messages else {
            return invalid("messages: at least one message is required");
        };
        for (index, message) in messages.iter().enumerate() {
            let expected = if index % 2 == 0 { "user" } else { "assistant" };
            if message["role"] != expected {
                return invalid(format!("messages.{index}: expected the role `{expected}`"));
            }
            let Some(content) = message["content"].as_array().filter(|content| !content.is_empty()) else {
                return invalid(format!("messages.{index}: content must not be empty"));
            };
            let fields = message.as_object().map_or(0, serde_json::Map::len);
            if fields != 2 {
                return invalid(format!("messages.{index}: Extra inputs are not permitted"));
            }
            check_blocks(index, content)?;
            let before = index.checked_sub(1).map(|before| &messages[before]);
            if expected == "user" {
                check_results(index, before, content)?;
            } else {
                self.check_thinking(index, request, messages, content)?;
            }
        }
        let last = &messages[messages.len() - 1];
        if last["role"] == "assistant" && !self.paused {
            return invalid("This model does not support assistant message prefill");
        }
        Ok(())
    }

    fn check_thinking(
        &self,
        index: usize,
        request: &Value,
        messages: &[Value],
        content: &[Value],
    ) -> Result<(), Refusal> {
        for (at, block) in content.iter().enumerate().filter(|(_, block)| block["type"] == "thinking") {
            let text = block["thinking"].as_str().unwrap_or_default();
            let expected = signature(&request["model"], &messages[..index], &content[..at], text);
            if block["signature"] != expected.as_str() {
                return invalid(format!(
                    "messages.{index}.content.{at}: `thinking` blocks cannot be modified and are bound to their \
                     model and conversation"
                ));
            }
        }
        let has_thinking = content.iter().any(|block| block["type"] == "thinking");
        let had_thinking =
            content.iter().any(|b| b["id"].as_str().is_some_and(|id| self.thought.contains(id)));
        if had_thinking && !has_thinking {
            return invalid(format!("messages.{index}: Expected `thinking` before `tool_use`"));
        }
        Ok(())
    }
}

fn check_headers(headers: &HeaderMap) -> Result<(), Refusal> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // Both ways to send a key are documented; the vendor's own libraries use the second.
    if header("x-api-key") != KEY && header("authorization").strip_prefix("Bearer ") != Some(KEY) {
        let message = "invalid x-api-key".to_owned();
        return Err(Refusal { status: 401, kind: "authentication_error", message, code: None });
    }
    if header("anthropic-version") != VERSION {
        return invalid("anthropic-version: header is required and must be a supported version");
    }
    if !header("content-type").starts_with("application/json") {
        return invalid("content-type must be application/json");
    }
    Ok(())
}

fn check_parameters(request: &Value) -> Result<(), Refusal> {
    let Some(fields) = request.as_object() else {
        return invalid("The request body is not valid JSON");
    };
    if let Some(name) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        return invalid(format!("{name}: Extra inputs are not permitted"));
    }
    match request["model"].as_str() {
        Some(model) if MODELS.contains(&model) => {}
        model => {
            let message = format!("model: {}", model.unwrap_or("Field required"));
            return Err(Refusal { status: 404, kind: "not_found_error", message, code: None });
        }
    }
    match request["max_tokens"].as_u64() {
        Some(1..=MAX_OUTPUT) => {}
        _ => return invalid(format!("max_tokens: must be between 1 and {MAX_OUTPUT}")),
    }
    if request["stream"] != true {
        return invalid("stream: this server only streams");
    }
    if matches!(request["tool_choice"]["type"].as_str(), Some("any" | "tool")) {
        return invalid("tool_choice: forcing a tool is not supported while thinking is enabled");
    }
    match request["thinking"]["type"].as_str() {
        None | Some("adaptive") => {}
        Some(kind) => return invalid(format!("thinking.type: `{kind}` is not supported by this model")),
    }
    match request["output_config"]["effort"].as_str() {
        None | Some("low" | "medium" | "high" | "xhigh" | "max") => Ok(()),
        Some(effort) => invalid(format!("output_config.effort: `{effort}` is not a level")),
    }
}

fn check_tools(tools: &Value) -> Result<(), Refusal> {
    let mut names = HashSet::new();
    for (index, tool) in tools.as_array().into_iter().flatten().enumerate() {
        let name = tool["name"].as_str().unwrap_or_default();
        let is_fitting = match tool["type"].as_str() {
            None | Some("custom") => tool["input_schema"]["type"] == "object" && !name.is_empty(),
            Some("bash_20250124") => name == "bash",
            Some("text_editor_20250728") => name == "str_replace_based_edit_tool",
            Some(_) => false,
        };
        if !is_fitting {
            return invalid(format!("tools.{index}: does not match any of the expected tools"));
        }
        if !names.insert(name) {
            return invalid("tools: Tool names must be unique");
        }
    }
    Ok(())
}

fn check_blocks(index: usize, content: &[Value]) -> Result<(), Refusal> {
    for (at, block) in content.iter().enumerate() {
        let is_whole = match block["type"].as_str().unwrap_or_default() {
            "text" => block["text"].as_str().is_some_and(|text| !text.trim().is_empty()),
            "thinking" => block["signature"].is_string() && block["thinking"].is_string(),
            "tool_use" => block["input"].is_object() && block["id"].is_string() && block["name"].is_string(),
            "tool_result" => block["tool_use_id"].is_string() && block["content"].is_string(),
            _ => false,
        };
        if !is_whole {
            return invalid(format!("messages.{index}.content.{at}: the block is not valid"));
        }
    }
    Ok(())
}

/// Every tool call of the turn before must be answered, by results that stand first, and nothing else may be.
fn check_results(index: usize, before: Option<&Value>, content: &[Value]) -> Result<(), Refusal> {
    let ids = |blocks: &[Value], kind: &str, field: &str| -> Vec<String> {
        let blocks = blocks.iter().filter(|block| block["type"] == kind);
        blocks.filter_map(|block| block[field].as_str().map(str::to_owned)).collect()
    };
    let asked = before
        .and_then(|before| before["content"].as_array())
        .map_or_else(Vec::new, |blocks| ids(blocks, "tool_use", "id"));
    let answered = ids(content, "tool_result", "tool_use_id");
    if let Some(orphan) = answered.iter().find(|id| !asked.contains(id)) {
        return invalid(format!(
            "messages.{index}: unexpected `tool_use_id` found in `tool_result` blocks: {orphan}"
        ));
    }
    if let Some(missing) = asked.iter().find(|id| !answered.contains(id)) {
        return invalid(format!(
            "messages.{index}: `tool_use` ids were found without `tool_result` blocks: {missing}"
        ));
    }
    if answered.iter().collect::<HashSet<_>>().len() != answered.len() {
        return invalid(format!("messages.{index}: each tool_use must have a single result"));
    }
    if content
        .iter()
        .skip_while(|block| block["type"] == "tool_result")
        .any(|block| block["type"] == "tool_result")
    {
        return invalid(format!("messages.{index}: `tool_result` blocks must come first"));
    }
    Ok(())
}

fn check_breakpoints(request: &Value) -> Result<(), Refusal> {
    let count = request.to_string().matches("\"cache_control\":{").count();
    if count > 4 {
        return invalid(format!("A maximum of 4 blocks with cache_control may be provided. Found {count}."));
    }
    Ok(())
}

fn signature(model: &Value, messages: &[Value], content: &[Value], thinking: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(model.to_string());
    for message in messages {
        for block in message["content"].as_array().into_iter().flatten() {
            hasher.update(message["role"].to_string());
            hasher.update(block.to_string());
        }
    }
    for block in content {
        hasher.update(block.to_string());
    }
    hasher.update(thinking);
    hex::encode(hasher.finalize())
}

fn invalid<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::invalid(message))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn headers(change: impl FnOnce(&mut HeaderMap)) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", KEY.parse().unwrap());
        headers.insert("anthropic-version", VERSION.parse().unwrap());
        headers.insert("content-type", "application/json".parse().unwrap());
        change(&mut headers);
        headers
    }

    /// A correct request in the middle of a conversation.
    fn request() -> Value {
        let mut request = json!({
            "model": "claude-opus-5-5", "max_tokens": 100, "stream": true,
            "cache_control": { "type": "ephemeral" },
            "system": [{ "type": "text", "text": "Be good.", "cache_control": { "type": "ephemeral" } }],
            "thinking": { "type": "adaptive", "display": "summarized" },
            "tools": [
                { "type": "bash_20250124", "name": "bash" },
                { "name": "grep", "input_schema": { "type": "object", "properties": {} } },
            ],
            "messages": [
                { "role": "user", "content": [{ "type": "text", "text": "Do it." }] },
                { "role": "assistant", "content": [
                    { "type": "thinking", "thinking": "Hm.", "signature": "" },
                    { "type": "tool_use", "id": "t1", "name": "bash", "input": { "command": "ls" } },
                ] },
                { "role": "user", "content": [
                    { "type": "tool_result", "tool_use_id": "t1", "content": "a" },
                    { "type": "text", "text": "Go on." },
                ] },
            ],
        });
        let before = [request["messages"][0].clone()];
        request["messages"][1]["content"][0]["signature"] =
            Value::from(signature(&request["model"], &before, &[], "Hm."));
        request
    }

    fn refuse(headers: &HeaderMap, request: &Value) -> Option<(u16, String)> {
        let mut rules = Rules { thought: HashSet::from(["t1".to_owned()]), ..Rules::default() };
        rules.refuse(headers, 100, request).err().map(|refusal| (refusal.status, refusal.message))
    }

    #[test]
    fn a_correct_request_is_accepted_with_either_way_to_send_the_key() {
        assert_eq!(refuse(&headers(|_| {}), &request()), None);
        let bearer = headers(|headers| {
            headers.remove("x-api-key");
            headers.insert("authorization", format!("Bearer {KEY}").parse().unwrap());
        });
        assert_eq!(refuse(&bearer, &request()), None);
    }

    #[test]
    fn wrong_headers_are_refused() {
        let rows = [
            ("x-api-key", "sk-other", 401),
            ("anthropic-version", "2023-06-01", 400),
            ("content-type", "text/plain", 400),
        ];
        for (name, value, status) in rows {
            let wrong = headers(|headers| {
                headers.insert(name, value.parse().unwrap());
            });
            assert_eq!(refuse(&wrong, &request()).unwrap().0, status, "{name}: {value}");
            let missing = headers(|headers| {
                headers.remove(name);
            });
            assert_eq!(refuse(&missing, &request()).unwrap().0, status, "{name} is missing");
        }
        let size = Rules::default().refuse(&headers(|_| {}), MAX_BODY + 1, &request()).unwrap_err();
        assert_eq!(size.status, 413);
    }

    #[test]
    fn wrong_requests_are_refused() {
        type Change = fn(&mut Value);
        let rows: [(&str, u16, Change); 32] = [
            ("temperature", 400, |r| r["temperature"] = json!(1)),
            ("top_p", 400, |r| r["top_p"] = json!(1)),
            ("top_k", 400, |r| r["top_k"] = json!(1)),
            ("forced tool", 400, |r| r["tool_choice"] = json!({ "type": "any" })),
            ("named tool", 400, |r| r["tool_choice"] = json!({ "type": "tool", "name": "bash" })),
            ("unknown model", 404, |r| r["model"] = json!("claude-1")),
            ("no model", 404, |r| r["model"] = Value::Null),
            ("no max_tokens", 400, |r| r["max_tokens"] = Value::Null),
            ("no tokens", 400, |r| r["max_tokens"] = json!(0)),
            ("too many tokens", 400, |r| r["max_tokens"] = json!(1_000_000)),
            ("thinking off", 400, |r| r["thinking"] = json!({ "type": "disabled" })),
            ("thinking budget", 400, |r| r["thinking"] = json!({ "type": "enabled", "budget_tokens": 1024 })),
            ("effort", 400, |r| r["output_config"] = json!({ "effort": "most" })),
            ("tool without schema", 400, |r| r["tools"][1] = json!({ "name": "grep" })),
            ("tool of an unknown version", 400, |r| r["tools"][0]["type"] = json!("bash_20990101")),
            ("two tools of one name", 400, |r| r["tools"][1]["name"] = json!("bash")),
            ("no messages", 400, |r| r["messages"] = json!([])),
            ("assistant first", 400, |r| r["messages"][0]["role"] = json!("assistant")),
            ("two of one role", 400, |r| r["messages"][1]["role"] = json!("user")),
            ("prefill", 400, |r| r["messages"].as_array_mut().unwrap().truncate(2)),
            ("unknown field", 400, |r| r["messages"][0]["name"] = json!("x")),
            ("empty content", 400, |r| r["messages"][0]["content"] = json!([])),
            ("empty text", 400, |r| r["messages"][0]["content"][0]["text"] = json!(" ")),
            ("changed history", 400, |r| r["messages"][0]["content"][0]["text"] = json!("Do that.")),
            ("changed thinking", 400, |r| r["messages"][1]["content"][0]["thinking"] = json!("Ha.")),
            ("another model's thinking", 400, |r| r["model"] = json!("claude-sonnet-5-5")),
            ("thinking left out", 400, |r| {
                r["messages"][1]["content"].as_array_mut().unwrap().remove(0);
            }),
            ("missing result", 400, |r| {
                r["messages"][2]["content"].as_array_mut().unwrap().remove(0);
            }),
            ("orphan result", 400, |r| r["messages"][2]["content"][0]["tool_use_id"] = json!("t2")),
            ("result not first", 400, |r| r["messages"][2]["content"].as_array_mut().unwrap().reverse()),
            ("result twice", 400, |r| {
                r["messages"][2]["content"][1] = r["messages"][2]["content"][0].clone()
            }),
            ("too long", 400, |r| r["messages"][2]["content"][1]["text"] = json!("x".repeat(5_000_000))),
        ];
        for (name, status, change) in rows {
            let mut wrong = request();
            change(&mut wrong);
            let refused = refuse(&headers(|_| {}), &wrong);
            assert_eq!(refused.as_ref().map(|(status, _)| *status), Some(status), "{name}: {refused:?}");
        }
    }

    #[test]
    fn history_may_end_with_the_assistant_only_after_a_pause() {
        let mut paused = request();
        paused["messages"][1]["content"] = json!([{ "type": "text", "text": "Wait." }]);
        paused["messages"].as_array_mut().unwrap().truncate(2);
        assert!(refuse(&headers(|_| {}), &paused).is_some());
        let mut rules = Rules { paused: true, ..Rules::default() };
        assert!(rules.refuse(&headers(|_| {}), 100, &paused).is_ok());
    }
}
