//! Every kind of identifier, in one list. None can be built from text that breaks its rule, and none can be
//! mistaken for another.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};

/// Text that is not an identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not {kind}: expected {expected}")]
pub struct IdError {
    /// What was wanted, with its article: `a task id`.
    pub kind: &'static str,
    /// The rule in words.
    pub expected: &'static str,
    /// The text as it was given, shortened and escaped.
    pub found: String,
}

/// Declares a string identifier: its name, its article and noun, its rule in words, and the rule.
macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $expected:literal, $pattern:literal, $is_valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Checks `text` against the rule of this kind of identifier.
            pub fn parse(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                let is_valid: fn(&str) -> bool = $is_valid;
                if is_valid(&text) {
                    Ok(Self(text))
                } else {
                    Err(IdError { kind: $kind, expected: $expected, found: shortened(&text) })
                }
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $expected })
            }
        }
    };
}

string_id!(
    /// The name of a target repository, as its humans wrote it in contract.yaml.
    TargetId,
    "a target id",
    "1 to 63 letters, digits, `.`, `_` or `-`, beginning and ending with a letter or digit, without `..` or a `.lock` ending",
    "^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$",
    is_slug
);
string_id!(
    /// The name of a task, as its humans wrote it in backlog.yaml. Part of a branch name.
    TaskId,
    "a task id",
    "1 to 63 letters, digits, `.`, `_` or `-`, beginning and ending with a letter or digit, without `..` or a `.lock` ending",
    "^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$",
    is_slug
);
string_id!(
    /// One try at one task. Ids that Leviathan makes sort by the time of their making.
    AttemptId,
    "an attempt id",
    "`attempt-` followed by 1 to 45 lower-case letters, digits or `-`, ending with a letter or digit",
    "^attempt-([a-z0-9-]{0,44}[a-z0-9])$",
    is_attempt_id
);
string_id!(
    /// The idempotency key of an event: the same id with the same body is the same event.
    EventId,
    "an event id",
    "1 to 200 letters, digits or `. _ : / @ -`",
    "^[A-Za-z0-9._:/@-]{1,200}$",
    is_token
);
string_id!(
    /// Who did something: `operator`, `scheduler`, `executor`, or a person as the forge names them.
    ActorId,
    "an actor id",
    "1 to 200 letters, digits or `. _ : / @ -`",
    "^[A-Za-z0-9._:/@-]{1,200}$",
    is_token
);
string_id!(
    /// A git commit: the full hexadecimal name, SHA-1 or SHA-256.
    CommitId,
    "a commit id",
    "40 or 64 lower-case hexadecimal digits",
    "^([0-9a-f]{40}|[0-9a-f]{64})$",
    is_object_name
);
string_id!(
    /// A git blob, tree or linked commit: the full hexadecimal name, SHA-1 or SHA-256.
    ObjectId,
    "an object id",
    "40 or 64 lower-case hexadecimal digits",
    "^([0-9a-f]{40}|[0-9a-f]{64})$",
    is_object_name
);
string_id!(
    /// A branch without `refs/heads/`.
    BranchName,
    "a branch name",
    "a name that git accepts for a branch, at most 200 bytes",
    "^[^ ~^:?*\\[\\\\]+$",
    is_branch_name
);
string_id!(
    /// A SHA-256 over some bytes, as 64 lower-case hexadecimal digits.
    Digest,
    "a SHA-256 digest",
    "64 lower-case hexadecimal digits",
    "^[0-9a-f]{64}$",
    |text| text.len() == 64 && is_lower_hex(text)
);

impl AttemptId {
    /// A new id from the time (milliseconds since 1970) and 32 random bits. Later ids sort after earlier ones.
    pub fn new(unix_millis: u64, random: u32) -> Self {
        let bits = (u128::from(unix_millis & 0xffff_ffff_ffff) << 32) | u128::from(random);
        let text: String = (0..16).rev().map(|digit| base32_digit(bits >> (5 * digit))).collect();
        Self(format!("attempt-{text}"))
    }

    /// Whether the id is as long as those that Leviathan makes, so that nothing can be missing from it.
    pub fn is_whole(&self) -> bool {
        self.0.len() >= "attempt-".len() + 16
    }

    /// Whether `part`, with or without `attempt-`, is a beginning or an end of the id.
    pub fn has_part(&self, part: &str) -> bool {
        let own = &self.0["attempt-".len()..];
        let part = part.strip_prefix("attempt-").unwrap_or(part);
        !part.is_empty() && (own.starts_with(part) || own.ends_with(part))
    }
}

impl EventId {
    /// The id of the event that `parts` determine: the same parts always give the same id, so that a step
    /// which is repeated after a crash cannot be recorded twice.
    pub fn derived<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        // A namespace of our own (itself a version-5 UUID of the URL namespace and `leviathan:event`).
        let namespace = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, b"leviathan:event");
        let mut name = Vec::new();
        for part in parts {
            // Length-prefixed, so that ("ab", "c") and ("a", "bc") differ.
            name.extend_from_slice(&(part.len() as u64).to_be_bytes());
            name.extend_from_slice(part.as_bytes());
        }
        Self(uuid::Uuid::new_v5(&namespace, &name).to_string())
    }
}

impl Digest {
    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(hex::encode(Sha256::digest(bytes)))
    }
}

impl BranchName {
    /// The branch of the `n`th attempt at a task: `leviathan/<task>-a<n>`.
    pub fn of_attempt(task: &TaskId, n: u32) -> Self {
        Self(format!("leviathan/{task}-a{n}"))
    }

    /// The full name of the ref: `refs/heads/…`.
    pub fn to_ref(&self) -> String {
        format!("refs/heads/{}", self.0)
    }
}

/// How often an attempt was handed to an executor. A call that carries an older epoch is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The epoch of an attempt that was just claimed.
    pub const FIRST: Self = Self(1);

    /// The epoch after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of an event in the log: 1 for the first, without gaps. The only order there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn is_slug(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edges_are_alphanumeric = bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric);
    edges_are_alphanumeric
        && bytes.len() <= 63
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
        && !text.contains("..")
        && !text.ends_with(".lock")
}

fn is_attempt_id(text: &str) -> bool {
    text.strip_prefix("attempt-").is_some_and(|rest| {
        (1..=45).contains(&rest.len())
            && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !rest.ends_with('-')
    })
}

fn is_token(text: &str) -> bool {
    (1..=200).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/@-".contains(&b))
}

fn is_object_name(text: &str) -> bool {
    (text.len() == 40 || text.len() == 64) && is_lower_hex(text)
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_branch_name(text: &str) -> bool {
    text.len() <= 200
        && !text.starts_with('-')
        && gix_validate::reference::name(format!("refs/heads/{text}").as_str().into()).is_ok()
}

fn base32_digit(bits: u128) -> char {
    // Crockford's alphabet in lower case: no i, l, o, u, and it sorts like the number.
    char::from(b"0123456789abcdefghjkmnpqrstvwxyz"[(bits & 31) as usize])
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 80;
    let escaped: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().count() > LONGEST { format!("{escaped}…") } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_accept_what_the_specification_writes_and_nothing_that_could_leave_a_ref() {
        for good in ["my-repo", "task-001", "task-deps-2024-01", "T.1_x", "a", &"x".repeat(63)] {
            assert!(TaskId::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "-a", "a-", ".a", "a..b", "../main", "a/b", "a b", "ä", "a.lock", "a\n", &"x".repeat(64)]
        {
            assert!(TaskId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn attempt_ids_sort_by_time_and_are_valid() {
        let earlier = AttemptId::new(1_700_000_000_000, u32::MAX);
        let later = AttemptId::new(1_700_000_000_001, 0);
        assert!(earlier < later);
        assert_eq!(AttemptId::parse(later.as_str()), Ok(later));
        for good in ["attempt-abc123", "attempt-xyz", "attempt-failed-123"] {
            assert!(AttemptId::parse(good).is_ok(), "{good}");
        }
        assert!(earlier.is_whole() && !AttemptId::parse("attempt-abc123").unwrap().is_whole());
    }

    #[test]
    fn an_attempt_id_has_its_beginnings_and_ends_as_parts() {
        let id = AttemptId::parse("attempt-abc123").unwrap();
        for part in ["abc", "attempt-abc", "123", "abc123", "attempt-abc123"] {
            assert!(id.has_part(part), "{part}");
        }
        for part in ["", "attempt-", "bc1", "attempt", "abd"] {
            assert!(!id.has_part(part), "{part}");
        }
    }

    #[test]
    fn derived_event_ids_depend_on_every_part_and_on_where_one_ends() {
        assert_eq!(EventId::derived(["a", "b"]), EventId::derived(["a", "b"]));
        assert_ne!(EventId::derived(["ab", "c"]), EventId::derived(["a", "bc"]));
    }

    #[test]
    fn branches_of_attempts_are_branches() {
        let branch = BranchName::of_attempt(&TaskId::parse("task-001").unwrap(), 2);
        assert_eq!(branch.as_str(), "leviathan/task-001-a2");
        assert_eq!(BranchName::parse(branch.as_str()), Ok(branch));
        for bad in ["", "-x", "a..b", "a b", "a~1", "refs/../x", "x.lock", "a\\b"] {
            assert!(BranchName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_error_quotes_the_text_without_its_control_characters() {
        let error = TargetId::parse("bad\u{1b}[31m").unwrap_err().to_string();
        assert!(error.contains("bad\\u{1b}[31m"), "{error}");
    }
}
