//! A path inside a repository: relative, normalised, and a name that no platform can misread.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use unicode_normalization::UnicodeNormalization;

/// A file's path in a git tree: `/` between components, no leading or trailing `/`, no `.` or `..`.
///
/// Git itself stores names that are dangerous on some platform or to some reader. Such a name is no
/// `RepoPath`: every component passes git's own checks for Windows, HFS and NTFS (`.GIT`, `git~1`, streams,
/// device names), is valid UTF-8 in NFC, and holds no control, invisible or direction-changing character.
/// A changed file whose name is not a `RepoPath` is a violation by that alone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RepoPath(String);

/// Why some bytes are not a path that Leviathan accepts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RepoPathError {
    /// No bytes at all.
    #[error("the path is empty")]
    Empty,
    /// Not UTF-8.
    #[error("the path `{0}` is not valid UTF-8")]
    NotUtf8(String),
    /// More than 1024 bytes, 64 components, or 255 bytes in one component.
    #[error("the path `{0}` is too long: at most 1024 bytes, 64 components, 255 bytes each")]
    TooLong(String),
    /// A component that git or a platform treats specially, or that hides what it says.
    #[error("the path `{path}` is refused: {reason}")]
    Component {
        /// The whole path, escaped.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl RepoPath {
    /// Checks the bytes of a path as git stores them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RepoPathError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::parse(text),
            Err(_) => Err(RepoPathError::NotUtf8(bytes.escape_ascii().to_string())),
        }
    }

    /// Checks a path that is text already.
    pub fn parse(text: &str) -> Result<Self, RepoPathError> {
        if text.is_empty() {
            return Err(RepoPathError::Empty);
        }
        if text.len() > 1024 || text.split('/').count() > 64 || text.split('/').any(|part| part.len() > 255) {
            return Err(RepoPathError::TooLong(escaped(&text.chars().take(120).collect::<String>())));
        }
        match refusal(text) {
            None => Ok(Self(text.to_owned())),
            Some(reason) => Err(RepoPathError::Component { path: escaped(text), reason }),
        }
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The key under which two paths are one on a file system that ignores case or normalises names.
    pub fn collision_key(&self) -> String {
        collision_key(&self.0)
    }
}

/// Case-folded NFC: the spelling that a case-insensitive, normalising file system would compare.
pub fn collision_key(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    caseless::default_case_fold_str(&text.nfc().collect::<String>()).nfc().collect()
}

fn refusal(text: &str) -> Option<String> {
    if text.starts_with('-') {
        return Some("it begins with `-` and would read as an option".to_owned());
    }
    if let Some(hidden) = text.chars().find(|c| is_hidden(*c)) {
        return Some(format!("it holds the control or invisible character U+{:04X}", u32::from(hidden)));
    }
    if !text.is_ascii() && text.nfc().ne(text.chars()) {
        return Some("its name is not in Unicode NFC".to_owned());
    }
    text.split('/').find_map(component_refusal)
}

fn component_refusal(component: &str) -> Option<String> {
    let options = gix_validate::path::component::Options {
        protect_windows: true,
        protect_hfs: true,
        protect_ntfs: true,
    };
    gix_validate::path::component(component.as_bytes().into(), None, options).err().map(|e| e.to_string())
}

/// Characters that change how text reads without being seen: controls, every format character of Unicode
/// (zero-width, bidirectional marks, tags and the like), variation selectors, fillers and line separators.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{034f}' | '\u{0600}'..='\u{0605}' | '\u{061c}' | '\u{06dd}' | '\u{070f}'
            | '\u{0890}' | '\u{0891}' | '\u{08e2}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|c| if is_hidden(c) { c.escape_unicode().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl FromStr for RepoPath {
    type Err = RepoPathError;

    fn from_str(text: &str) -> Result<Self, RepoPathError> {
        Self::parse(text)
    }
}

impl<'de> Deserialize<'de> for RepoPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for RepoPath {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RepoPath".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A relative, normalised path inside the repository." })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_are_paths() {
        for good in
            ["a", "src/api/v1/users.py", ".env", "a b/ü.txt", "src/日本.rs", ".github/workflows/x.yml"]
        {
            assert!(RepoPath::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn names_that_leave_the_tree_or_mislead_a_reader_are_not() {
        let bad = [
            "",
            "/",
            "/etc/passwd",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "./a",
            ".git",
            ".GIT/config",
            "a/.git/hooks",
            "git~1",
            ".git ",
            "a\\b",
            "C:/x",
            "a.py::$DATA",
            "CON",
            "aux.c",
            "trailing.",
            "trailing ",
            "-rf",
            "a\nb",
            "a\u{1b}[0m",
            "a\u{202e}b",
            "a\u{200d}b",
            "e\u{301}",
            "a\0b",
        ];
        for bad in bad {
            assert!(RepoPath::parse(bad).is_err(), "{bad:?}");
        }
        assert!(RepoPath::from_bytes(b"a/\xff").is_err());
        assert!(RepoPath::parse(&"a/".repeat(600)).is_err());
    }

    #[test]
    fn refusals_show_hidden_characters() {
        let error = RepoPath::parse("a\u{202e}b").unwrap_err().to_string();
        assert!(error.contains("a\\u{202e}b") && error.contains("U+202E"), "{error}");
    }

    #[test]
    fn collision_keys_join_what_some_file_system_joins() {
        let key = |text: &str| RepoPath::parse(text).unwrap().collision_key();
        assert_eq!(key("Src/A.py"), key("src/a.PY"));
        assert_ne!(key("src/a.py"), key("src/b.py"));
    }
}
