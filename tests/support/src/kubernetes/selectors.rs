//! Label selectors and field selectors.

use serde_json::Value;

use super::refusal::Refusal;
use super::resources::Resource;

/// Which objects of a resource are meant.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    labels: Vec<LabelRule>,
    fields: Vec<FieldRule>,
}

#[derive(Debug, Clone)]
enum LabelRule {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

#[derive(Debug, Clone)]
struct FieldRule {
    path: String,
    value: String,
    equal: bool,
}

impl Selection {
    pub(super) fn parse(resource: &Resource, labels: &str, fields: &str) -> Result<Self, Refusal> {
        let labels = parse_labels(labels)
            .map_err(|problem| Refusal::bad_request(format!("unable to parse requirement: {problem}")))?;
        let fields = parse_fields(resource, fields)?;
        Ok(Self { labels, fields })
    }

    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(super) fn takes(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|rule| rule.takes(labels)) && self.fields.iter().all(|rule| rule.takes(object))
    }
}

impl LabelRule {
    fn takes(&self, labels: &Value) -> bool {
        let value = |key: &String| labels[key.as_str()].as_str();
        match self {
            Self::In(key, values) => value(key).is_some_and(|value| values.iter().any(|one| one == value)),
            Self::NotIn(key, values) => {
                !value(key).is_some_and(|value| values.iter().any(|one| one == value))
            }
            Self::Exists(key) => value(key).is_some(),
            Self::Absent(key) => value(key).is_none(),
        }
    }
}

impl FieldRule {
    fn takes(&self, object: &Value) -> bool {
        let pointer = format!("/{}", self.path.replace('.', "/"));
        let value = object.pointer(&pointer).and_then(Value::as_str).unwrap_or_default();
        (value == self.value) == self.equal
    }
}

fn parse_labels(text: &str) -> Result<Vec<LabelRule>, String> {
    let mut rules = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (one, after) = split_requirement(rest);
        rules.push(parse_label(one.trim())?);
        rest = after.trim();
    }
    Ok(rules)
}

/// Up to the next comma that is not between parentheses.
fn split_requirement(text: &str) -> (&str, &str) {
    let mut depth = 0;
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => return (&text[..at], &text[at + 1..]),
            _ => {}
        }
    }
    (text, "")
}

fn parse_label(text: &str) -> Result<LabelRule, String> {
    let word = |text: &str| {
        let text = text.trim();
        let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
        if plain { Ok(text.to_owned()) } else { Err(format!("found {text:?}, expected a word")) }
    };
    for (separator, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((key, value)) = text.split_once(separator) {
            let (key, values) = (word(key)?, vec![word(value)?]);
            return Ok(if equal { LabelRule::In(key, values) } else { LabelRule::NotIn(key, values) });
        }
    }
    if let Some((head, values)) = text.split_once('(') {
        let values = values.trim_end().strip_suffix(')').ok_or("found '', expected: ',' or ')'")?;
        let values = values.split(',').map(word).collect::<Result<Vec<_>, _>>()?;
        let mut head = head.split_whitespace();
        return match (head.next(), head.next(), head.next()) {
            (Some(key), Some("in"), None) => Ok(LabelRule::In(word(key)?, values)),
            (Some(key), Some("notin"), None) => Ok(LabelRule::NotIn(word(key)?, values)),
            _ => Err(format!("found {text:?}, expected: in, notin, =, ==, !=")),
        };
    }
    match text.strip_prefix('!') {
        Some(key) => Ok(LabelRule::Absent(word(key)?)),
        None if text.contains(char::is_whitespace) || text.is_empty() => Err(format!("found {text:?}")),
        None => Ok(LabelRule::Exists(word(text)?)),
    }
}

fn parse_fields(resource: &Resource, text: &str) -> Result<Vec<FieldRule>, Refusal> {
    let mut rules = Vec::new();
    for one in text.split(',').filter(|one| !one.is_empty()) {
        let (path, value, equal) = if let Some((path, value)) = one.split_once("!=") {
            (path, value, false)
        } else if let Some((path, value)) = one.split_once("==").or_else(|| one.split_once('=')) {
            (path, value, true)
        } else {
            return Err(Refusal::bad_request(format!("invalid selector: {one:?}; can't understand {one:?}")));
        };
        if !known_field(resource, path) {
            let all = format!("{}, Resource={}", resource.api_version(), resource.plural);
            return Err(Refusal::bad_request(format!(
                "Unable to find {all:?} that match label selector \"\", field selector {text:?}: \
                 field label not supported: {path}"
            )));
        }
        rules.push(FieldRule { path: path.into(), value: value.into(), equal });
    }
    Ok(rules)
}

fn known_field(resource: &Resource, path: &str) -> bool {
    let own: &[&str] = match resource.plural {
        "pods" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.serviceAccountName",
            "status.phase",
            "status.podIP",
        ],
        "events" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        "secrets" => &["type"],
        _ => &[],
    };
    ["metadata.name", "metadata.namespace"].contains(&path) || own.contains(&path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kubernetes::resources::by_plural;

    #[test]
    fn selectors_take_what_they_say() {
        let pod = json!({
            "metadata": { "name": "one", "labels": { "app": "x", "leviathan.dev/task": "t.1" } },
            "status": { "phase": "Running" },
        });
        for (labels, fields, taken) in [
            ("", "", true),
            ("app=x", "", true),
            ("app==x,leviathan.dev/task=t.1", "", true),
            ("app=y", "", false),
            ("app!=y,other!=z", "", true),
            ("app in (x, y),leviathan.dev/task", "", true),
            ("app notin (x,y)", "", false),
            ("!other", "", true),
            ("!app", "", false),
            ("", "metadata.name=one,status.phase!=Failed", true),
            ("", "status.phase=Failed", false),
        ] {
            let selection = Selection::parse(by_plural("pods"), labels, fields).unwrap();
            assert_eq!(selection.takes(&pod), taken, "{labels} {fields}");
        }
    }

    #[test]
    fn a_selector_that_means_nothing_is_refused() {
        for (labels, fields) in [
            ("app in x", ""),
            ("a b", ""),
            ("app in (x", ""),
            ("", "spec.containers=x"),
            ("", "metadata.name"),
        ] {
            assert!(Selection::parse(by_plural("pods"), labels, fields).is_err(), "{labels} {fields}");
        }
    }
}
