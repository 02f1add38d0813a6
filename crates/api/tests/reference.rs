//! docs/http.md is written by this test from the route table and the types, so that it cannot be out of date.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::collections::BTreeMap;
use std::fmt::Write;

use leviathan_api::{Access, ErrorCode, ROUTES, Route, openapi};
use model::EventKind;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

#[test]
fn the_reference_in_docs_is_this_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/http.md");
    let current = reference();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &current).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == current, "docs/http.md is out of date; run `UPDATE=1 cargo test -p leviathan-api`");
}

#[test]
fn every_error_code_says_its_status() {
    for variant in openapi()["components"]["schemas"]["ErrorCode"]["oneOf"].as_array().unwrap() {
        let code: ErrorCode = serde_json::from_value(variant["const"].clone()).unwrap();
        let described = variant["description"].as_str().unwrap();
        assert!(described.starts_with(&format!("{}: ", code.status())), "{described}");
    }
}

const INTRODUCTION: &str = "# The HTTP API

The control plane answers JSON over HTTP, on `http://127.0.0.1:8000` unless it was started otherwise. The same
as OpenAPI 3.1: [openapi.json](openapi.json), served at `/openapi.json`.

Every request beside the public ones bears a token: `Authorization: Bearer TOKEN`. The operator's token is that of
`LEVIATHAN_CONTROL_PLANE_TOKEN`; it opens every route. An executor gets a token of its own with each attempt,
which opens only the routes marked `executor`, and there only its own attempt in its own epoch.

A success has status 200. An answer to a request that records something means that it is durable. The same
request again changes nothing and says so, so that it is safe to repeat one whose answer was lost.

A GET with a token also takes `min_seq=N`, where several control planes share a log: it waits up to 5 s until record N
is known to the one that answers, and is 503 after that. N is the `head` of an earlier answer.

";

fn reference() -> String {
    let document = openapi();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut text = INTRODUCTION.to_owned();
    text += "## Routes\n\n| request | who | what it does |\n|---|---|---|\n";
    for route in ROUTES {
        let title = title(route);
        let anchor = anchor(&title);
        writeln!(text, "| [`{title}`](#{anchor}) | {} | {} |", who(route.access), route.summary).unwrap();
    }
    for route in ROUTES {
        let operation = &document["paths"][route.template()][route.method.as_str().to_lowercase()];
        section(&mut text, route, operation);
    }
    errors(&mut text, schemas);
    let mut types: BTreeMap<_, _> = schemas.clone().into_iter().collect();
    types.extend(events(&mut text));
    text += "\n## Types\n";
    for (name, schema) in &types {
        described(&mut text, name, schema);
    }
    text
}

fn section(text: &mut String, route: &Route, operation: &Value) {
    writeln!(text, "\n### `{}`\n\n{} For: {}.", title(route), route.summary, who(route.access)).unwrap();
    let query: Vec<_> = operation["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|parameter| parameter["in"] == "query")
        .map(|parameter| (parameter["name"].as_str().unwrap(), &parameter["schema"], false))
        .collect();
    if !query.is_empty() {
        text.push_str("\nQuery:\n\n");
        fields(text, &query);
    }
    if let Some(body) = body(&operation["requestBody"]["content"]) {
        let limit = route.body_limit >> 20;
        writeln!(text, "\nRequest: {body}, at most {limit} MiB.").unwrap();
    }
    let answer = body(&operation["responses"]["200"]["content"]).unwrap_or_else(|| "nothing".to_owned());
    writeln!(text, "\nAnswer: {answer}.").unwrap();
}

fn errors(text: &mut String, schemas: &Map<String, Value>) {
    text.push_str("\n## Errors\n\nEvery answer that is no success is an [`ErrorBody`](#errorbody) with one of these codes.\n\n| code | status | meaning |\n|---|---|---|\n");
    for variant in schemas["ErrorCode"]["oneOf"].as_array().unwrap() {
        let described = variant["description"].as_str().unwrap();
        let (status, meaning) = described.split_once(": ").unwrap();
        writeln!(text, "| `{}` | {status} | {} |", variant["const"].as_str().unwrap(), cell(meaning))
            .unwrap();
    }
}

/// Lists every event with its payload. Returns the types that only payloads mention.
fn events(text: &mut String) -> Map<String, Value> {
    text.push_str("\n## Events\n\nWhat can be recorded, and what the payload of each holds. Amounts of money are millionths of a US dollar.\n");
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let kinds = generator.root_schema_for::<EventKind>().to_value();
    let mut mentioned = kinds["$defs"].as_object().unwrap().clone();
    for variant in kinds["oneOf"].as_array().unwrap() {
        let name = variant["properties"]["event_type"]["const"].as_str().unwrap();
        writeln!(text, "\n### `{name}`\n\n{}\n", variant["description"].as_str().unwrap()).unwrap();
        let payload = variant["properties"]["payload"]["$ref"].as_str().unwrap();
        fields(text, &properties(kinds.pointer(&payload[1..]).unwrap()));
        mentioned.remove(payload.trim_start_matches("#/$defs/"));
    }
    mentioned
}

fn described(text: &mut String, name: &str, schema: &Value) {
    writeln!(text, "\n### {name}").unwrap();
    if let Some(description) = schema["description"].as_str() {
        writeln!(text, "\n{}", description.replace('\n', " ")).unwrap();
    }
    let properties = properties(schema);
    if !properties.is_empty() {
        text.push('\n');
        fields(text, &properties);
    } else if let Some(variants) = schema["oneOf"].as_array() {
        text.push('\n');
        for variant in variants {
            writeln!(text, "- {}: {}", kind(variant), cell(variant["description"].as_str().unwrap()))
                .unwrap();
        }
    } else {
        writeln!(text, "\nA {}.", kind(schema)).unwrap();
    }
}

fn properties(schema: &Value) -> Vec<(&str, &Value, bool)> {
    let required = schema["required"].as_array();
    let is_required =
        |name: &str| required.is_some_and(|required| required.iter().any(|field| field == name));
    let all = schema["properties"].as_object().into_iter().flatten();
    all.map(|(name, schema)| (name.as_str(), schema, is_required(name))).collect()
}

fn fields(text: &mut String, fields: &[(&str, &Value, bool)]) {
    text.push_str("| field | type | meaning |\n|---|---|---|\n");
    for (name, schema, is_required) in fields {
        let optional = if *is_required { "" } else { ", optional" };
        let meaning = cell(schema["description"].as_str().unwrap_or_default());
        writeln!(text, "| `{name}` | {}{optional} | {meaning} |", kind(schema)).unwrap();
    }
}

/// The type of a value in words, with links to the types that have a section of their own.
fn kind(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(constant) = schema["const"].as_str() {
        return format!("`{constant}`");
    }
    if let Some(alternatives) = schema["anyOf"].as_array() {
        let present: Vec<_> =
            alternatives.iter().filter(|schema| schema["type"] != "null").map(kind).collect();
        return present.join(" or ");
    }
    if schema["enum"].is_array() {
        return "one of the [events](#events)".to_owned();
    }
    let names: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => {
            names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => vec!["value"],
    };
    match names.as_slice() {
        ["array"] => format!("list of {}", kind(&schema["items"])),
        ["object"] if schema["additionalProperties"].is_object() => {
            format!("map to {}", kind(&schema["additionalProperties"]))
        }
        ["object"] if schema["properties"].is_object() => {
            let fields = properties(schema);
            let fields: Vec<_> =
                fields.iter().map(|(name, schema, _)| format!("{name}: {}", kind(schema))).collect();
            format!("object with {}", fields.join(", "))
        }
        names => names.join(" or "),
    }
}

fn body(content: &Value) -> Option<String> {
    if content["application/octet-stream"].is_object() {
        return Some("bytes".to_owned());
    }
    if content["text/plain"].is_object() {
        return Some("text".to_owned());
    }
    if content["application/x-ndjson"].is_object() {
        return Some("lines of JSON".to_owned());
    }
    let schema = content["application/json"].get("schema")?;
    Some(if schema["$ref"].is_string() { kind(schema) } else { "JSON".to_owned() })
}

fn title(route: &Route) -> String {
    format!("{} {}", route.method.as_str(), route.path)
}

/// How a heading is addressed where Markdown is shown.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn who(access: Access) -> &'static str {
    match access {
        Access::Public => "everybody",
        Access::Operator => "operator",
        Access::Executor => "operator, executor",
    }
}

/// Text that stays in one cell of a table.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}
