//! What a change takes away from the tests, and what it tells the checks to overlook: counted, not judged.
//!
//! A reviewer sees at once that a green result has a price: tests that are gone or skipped, findings that are
//! suppressed. The counts come from the text of a file alone, so that they need no interpreter and can be wrong in
//! both directions; they are shown as what they are. This module reads no file.

use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::RepoPath;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// A test: the beginning of a function or block that some runner takes for one.
    Test,
    /// A test that is not run, or may fail.
    Skip,
    /// A word by which a check overlooks a finding.
    Suppression,
}

/// How one file changed in one respect that weakens the checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weakening {
    /// The file.
    pub path: RepoPath,
    /// In what respect.
    pub mark: Mark,
    /// How many there were.
    pub before: usize,
    /// How many there are.
    pub after: usize,
}

/// What weakens the checks in a file whose text was `before` and is `after`; empty where there is no file.
pub fn weakenings(path: &RepoPath, before: &str, after: &str) -> Vec<Weakening> {
    let compare = |mark: Mark| {
        let (before, after) = (mark.count(before), mark.count(after));
        let is_weaker = if mark == Mark::Test { after < before } else { after > before };
        is_weaker.then(|| Weakening { path: path.clone(), mark, before, after })
    };
    [Mark::Test, Mark::Skip, Mark::Suppression].into_iter().filter_map(compare).collect()
}

impl Mark {
    fn count(self, text: &str) -> usize {
        self.expression().find_iter(text).count()
    }

    fn expression(self) -> &'static Regex {
        match self {
            Self::Test => &TESTS,
            Self::Skip => &SKIPS,
            Self::Suppression => &SUPPRESSIONS,
        }
    }
}

/// Python, Rust, Go, Java and Kotlin, JavaScript and TypeScript, Ruby.
static TESTS: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r#"(?m)^[ \t]*(?:(?:async[ \t]+)?def[ \t]+test\w*[ \t]*\(|#\[(?:\w+::)?test\b|func[ \t]+Test\w*\(|@(?:Test|ParameterizedTest)\b|(?:it|test|specify)(?:\.(?:each|only|concurrent)\b)?[ \t]*(?:\(|["'])|class[ \t]+Test\w*)"#,
    )
});

static SKIPS: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r#"pytest\.(?:mark\.(?:skip|skipif|xfail)\b|skip\(|xfail\(|importorskip\()|unittest\.(?:skip|expectedFailure)|self\.skipTest\(|collect_ignore\b|#\[ignore|\bt\.Skip(?:f|Now)?\(|@(?:Disabled|Ignore)\b|\b(?:it|test|describe)\.(?:skip|todo|failing)\b|\b(?:xit|xtest|xdescribe|fit|fdescribe)\(|\.only\(|\bpending[ \t]*\("#,
    )
});

static SUPPRESSIONS: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r#"(?i:#[ \t]*(?:noqa|nosec|type:[ \t]*ignore|pyright:[ \t]*ignore|pragma:[ \t]*(?:no[ \t]*cover|allowlist)|pylint:[ \t]*disable|fmt:[ \t]*(?:off|skip)|ruff:[ \t]*noqa|mypy:))|#!?\[(?:allow|expect)\(|#!?\[rustfmt::skip|#\[coverage\(off|eslint-disable|@ts-(?:ignore|nocheck|expect-error)|prettier-ignore|biome-ignore|istanbul[ \t]+ignore|[cv]8[ \t]+ignore|//[ \t]*(?:nolint|#nosec)|@SuppressWarnings|@Suppress\(|NOLINT|NOSONAR|rubocop:disable|shellcheck[ \t]+disable|gitleaks:allow|nosemgrep|noinspection"#,
    )
});

fn expression(text: &str) -> Regex {
    Regex::new(text).expect("the built-in marks are expressions")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(text: &str) -> [usize; 3] {
        [Mark::Test, Mark::Skip, Mark::Suppression].map(|mark| mark.count(text))
    }

    #[test]
    fn tests_skips_and_suppressions_are_counted_in_many_languages() {
        for (text, expected) in [
            ("def test_a():\n    pass\nasync def test_b(x):\n", [2, 0, 0]),
            ("@pytest.mark.skip\ndef test_a(): ...\n", [1, 1, 0]),
            ("def helper_test():\n    return test(1)\n", [0, 0, 0]),
            ("#[test]\n#[ignore]\nfn a() {}\n#[tokio::test]\nasync fn b() {}\n", [2, 1, 0]),
            ("#[allow(unused)]\nfn a() {}\n#![allow(clippy::all)]\n", [0, 0, 2]),
            ("func TestA(t *testing.T) {\n\tt.Skip(\"x\")\n}\n", [1, 1, 0]),
            ("it('works', () => {})\nit.skip('not', () => {})\nxit('x')\n", [1, 2, 0]),
            ("describe.only('x', () => {\n  test(\"y\", f)\n})\n", [1, 1, 0]),
            ("x = 1  # noqa: E501\ny = eval(z)  # nosec\nz = 1  # type: ignore[x]\n", [0, 0, 3]),
            ("/* eslint-disable */\n// @ts-ignore\n", [0, 0, 2]),
            ("// nolint:errcheck\n@SuppressWarnings(\"x\")\n", [0, 0, 2]),
            ("API_KEY = 'x'  # pragma: allowlist secret\n", [0, 0, 1]),
        ] {
            assert_eq!(counts(text), expected, "{text}");
        }
    }

    #[test]
    fn only_what_weakens_is_told() {
        let path = RepoPath::parse("tests/test_a.py").unwrap();
        let test = "def test_a():\n    pass\n";
        assert_eq!(weakenings(&path, "", test), []);
        assert_eq!(weakenings(&path, "x  # noqa\n", "x\n"), []);
        let told = |mark, before, after| Weakening { path: path.clone(), mark, before, after };
        assert_eq!(weakenings(&path, test, ""), [told(Mark::Test, 1, 0)]);
        assert_eq!(
            weakenings(&path, test, "@pytest.mark.xfail\ndef test_a():  # noqa\n    pass\n"),
            [told(Mark::Skip, 0, 1), told(Mark::Suppression, 0, 1)]
        );
    }
}
