//! The dialect of path patterns: the table of examples, a slow and obvious matcher to compare with, and what an
//! attacker would try.

use std::time::{Duration, Instant};

use leviathan_model::{PathPattern, RepoPath};
use proptest::prelude::*;

const VECTORS: &str = include_str!("path-rules.vectors");

#[test]
fn every_row_of_the_table_holds() {
    let mut rows = 0;
    let rules = VECTORS.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.is_empty());
    for (index, row) in rules {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let at = format!("path-rules.vectors:{}: {row}", index + 1);
        match cells.as_slice() {
            [pattern, "error"] => assert!(PathPattern::parse(pattern).is_err(), "{at}"),
            [pattern, path, allows, denies] => {
                let pattern = PathPattern::parse(pattern).unwrap_or_else(|error| panic!("{at}: {error}"));
                // The rows about options (`-x`) name what is no path; no pattern can match it.
                let path = RepoPath::parse(path).ok();
                let allowed = path.as_ref().is_some_and(|path| pattern.matches(path));
                let denied = path.as_ref().is_some_and(|path| pattern.matches_any_spelling(path));
                assert_eq!((allowed, denied), (*allows == "y", *denies == "y"), "{at}");
            }
            _ => panic!("{at}: a row has a pattern, a path and two answers"),
        }
        rows += 1;
    }
    assert!(rows > 100, "the table was read");
}

#[test]
fn refusals_say_what_is_wrong_and_what_to_write() {
    for (pattern, expected) in [
        ("", "it is empty; write a path, or `**` for every path"),
        ("/etc", "it begins with `/`; patterns are relative to the root of the repository"),
        ("!src", "patterns are not negated; put what must not change under `forbidden_patterns`"),
        ("a\\b", "it holds a backslash; paths use `/`, and nothing is escaped"),
        ("src/**.py", "`**` must stand alone between slashes; inside a name write `*`"),
        ("a\u{202e}b", "it holds the control or invisible character U+202E"),
        (" a", "it begins or ends with white space"),
        ("a/../b", "`..` is no component of a pattern"),
    ] {
        assert_eq!(PathPattern::parse(pattern).unwrap_err().problem, expected, "{pattern:?}");
    }
    assert!(PathPattern::parse(&"a".repeat(1025)).is_err());
    assert!(PathPattern::parse("{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}").is_err(), "128 ways");
}

#[test]
fn hostile_patterns_take_no_time() {
    let name = format!("{}b", "a".repeat(254));
    let deep = vec!["a"; 60].join("/");
    for (pattern, path) in [
        ("*a".repeat(120), name.as_str()),
        (format!("{}*c", "*a".repeat(120)), name.as_str()),
        (format!("{}c", "**/a/".repeat(60)), deep.as_str()),
        (format!("{}z", "{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}".to_owned() + &"*a".repeat(200)), name.as_str()),
    ] {
        let begun = Instant::now();
        let pattern = PathPattern::parse(&pattern).unwrap();
        let path = RepoPath::parse(path).unwrap();
        for _ in 0..10 {
            pattern.matches(&path);
            pattern.matches_any_spelling(&path);
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "{pattern} took {:?}", begun.elapsed());
    }
}

#[test]
fn literal_patterns_are_those_without_a_choice() {
    let path = RepoPath::parse("src/a.py").unwrap();
    for (pattern, expected) in [
        ("src/a.py", true),
        ("src/*.py", false),
        ("src/{a,b}.py", false),
        ("src/[a].py", false),
        ("src/", false),
    ] {
        assert_eq!(PathPattern::parse(pattern).unwrap().names_literally(&path), expected, "{pattern}");
    }
}

#[test]
fn overlapping_patterns_are_found() {
    for (ours, theirs, expected) in [
        ("src/**", "src/api/*.py", true),
        ("src/*.py", "src/*.rs", false),
        ("src/a*", "src/*b", true),
        ("**/x", "a/**", true),
        ("a/**", "b/**", false),
        ("a/*", "a/b/c", false),
        ("a/[a-c]", "a/[c-e]", true),
        ("a/[a-c]", "a/[d-e]", false),
        ("{a,b}/x", "b/?", true),
        ("**", "anything/at/all", true),
    ] {
        let (ours, theirs) = (PathPattern::parse(ours).unwrap(), PathPattern::parse(theirs).unwrap());
        assert_eq!(ours.overlaps(&theirs), expected, "{ours} and {theirs}");
        assert_eq!(theirs.overlaps(&ours), expected, "{theirs} and {ours}");
    }
}

proptest! {
    #[test]
    fn matching_agrees_with_the_obvious_matcher(pattern in pattern(), path in path()) {
        let parsed = PathPattern::parse(&pattern).unwrap();
        let path = RepoPath::parse(&path).unwrap();
        prop_assert_eq!(parsed.matches(&path), reference_matches(&pattern, path.as_str()));
    }

    #[test]
    fn what_allows_also_denies(pattern in pattern(), path in path()) {
        let parsed = PathPattern::parse(&pattern).unwrap();
        let path = RepoPath::parse(&path).unwrap();
        prop_assert!(!parsed.matches(&path) || parsed.matches_any_spelling(&path));
    }

    #[test]
    fn denying_does_not_depend_on_case(pattern in pattern(), path in path()) {
        let parsed = PathPattern::parse(&pattern).unwrap();
        let lower = RepoPath::parse(&path).unwrap();
        let upper = RepoPath::parse(&path.to_uppercase()).unwrap();
        prop_assert_eq!(parsed.matches_any_spelling(&lower), parsed.matches_any_spelling(&upper));
    }

    #[test]
    fn two_patterns_that_match_one_path_overlap(ours in pattern(), theirs in pattern(), path in path()) {
        let path = RepoPath::parse(&path).unwrap();
        let (ours, theirs) = (PathPattern::parse(&ours).unwrap(), PathPattern::parse(&theirs).unwrap());
        prop_assert!(!(ours.matches(&path) && theirs.matches(&path)) || ours.overlaps(&theirs));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = PathPattern::parse(&text);
    }

    #[test]
    fn nor_does_text_of_special_characters(text in r"[-a/\[\]{},*?!^.]{0,24}") {
        if let Ok(pattern) = PathPattern::parse(&text) {
            pattern.matches_any_spelling(&RepoPath::parse("a/a").unwrap());
        }
    }
}

/// Patterns and paths over few letters, so that they often meet.
fn pattern() -> impl Strategy<Value = String> {
    let name = proptest::string::string_regex(r"([ab]|\*[ab]|\?|\[ab\]|\{a,b\}|\{,ab\}[ab]){1,3}")
        .expect("an expression");
    let component = prop_oneof![4 => name, 1 => Just("**".to_owned()), 1 => Just("*".to_owned())];
    proptest::collection::vec(component, 1..5)
        .prop_map(|components| components.join("/"))
        .prop_filter("at most 64 ways", |text| text.matches('{').count() <= 6)
}

fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec("[ab]{1,3}", 1..5).prop_map(|names| names.join("/"))
}

/// The dialect as its description reads: try every choice, every split, every length. Slow and obvious.
fn reference_matches(pattern: &str, path: &str) -> bool {
    let mut alternatives = vec![pattern.to_owned()];
    while let Some(position) = alternatives.iter().position(|text| text.contains('{')) {
        let text = alternatives.remove(position);
        let (before, rest) = text.split_once('{').expect("it was found");
        let (choices, after) = rest.split_once('}').expect("patterns are closed");
        alternatives.extend(choices.split(',').map(|choice| format!("{before}{choice}{after}")));
    }
    let names: Vec<&str> = path.split('/').collect();
    alternatives.iter().any(|text| components_match(&text.split('/').collect::<Vec<_>>(), &names))
}

fn components_match(pattern: &[&str], names: &[&str]) -> bool {
    match pattern {
        [] => names.is_empty(),
        ["**"] => !names.is_empty(),
        ["**", rest @ ..] => (0..=names.len()).any(|skipped| components_match(rest, &names[skipped..])),
        [first, rest @ ..] => match names {
            [] => false,
            [name, names @ ..] => name_matches(first, name) && components_match(rest, names),
        },
    }
}

fn name_matches(pattern: &str, name: &str) -> bool {
    let Some(first) = pattern.chars().next() else { return name.is_empty() };
    let rest = &pattern[first.len_utf8()..];
    match first {
        '*' => (0..=name.len()).any(|taken| name_matches(rest, &name[taken..])),
        '[' => {
            let (members, rest) = rest.split_once(']').expect("classes are closed");
            name.starts_with(|c| members.contains(c)) && name_matches(rest, &name[1..])
        }
        '?' => !name.is_empty() && name_matches(rest, &name[1..]),
        literal => name.strip_prefix(literal).is_some_and(|name| name_matches(rest, name)),
    }
}
