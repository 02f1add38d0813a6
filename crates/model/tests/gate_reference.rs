//! The gate against a second reading of its rules: slow, obvious, and written without a look at the first. Random
//! trees of hostile edits are judged by both, and they never differ: nothing gets by, and nothing is refused that the
//! documents permit.

#![expect(clippy::unwrap_used, reason = "a failed expectation ends its test")]

use std::collections::HashSet;

use leviathan_model::rules::built_in_rules;
use leviathan_model::{
    Change, ChangeSet, CommitId, Document, Documents, Entry, Irregularity, IrregularityKind, Mode, ObjectId,
    PathRules, RepoPath, SecretFound, TargetSpec, TaskId,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

/// Names that a tree may hold, and names that no platform should ever be given.
const NAMES: &[&str] = &[
    "src",
    "Src",
    "SRC",
    "tests",
    "TESTS",
    "api",
    "gen",
    "docs",
    "a.py",
    "A.PY",
    "b.py",
    "x.md",
    "secret1",
    "SECRET2",
    "conftest.py",
    "ConfTest.py",
    "pyproject.toml",
    "setup.cfg",
    "Makefile",
    "package.json",
    ".github",
    "workflows",
    "ci.yml",
    ".leviathan",
    ".Leviathan",
    "policy.yaml",
    "leviat~1",
    ".gitattributes",
    "CODEOWNERS",
    "AGENTS.md",
    ".env",
    "evil.pth",
    "ü.py",
    "Ü.py",
    "straße",
    "STRASSE",
    "\u{430}pi",
    ".vscode",
    "build.rs",
];
const BAD_NAMES: &[&str] = &[
    ".git",
    ".GIT",
    ".git ",
    "git~1",
    "GIT~1",
    "..",
    ".",
    "",
    "a\nb",
    "\u{1b}[2J",
    "e\u{301}.py",
    "x\u{202e}y",
    "z\u{200d}w",
    "CON",
    "aux.txt",
    "a\\b",
    "c:d",
    "end.",
    "end ",
    "\u{ad}x",
    "\u{600}x",
];

const PATTERNS: &[&str] = &[
    "**",
    "*",
    "src/**",
    "Src/**",
    "src/*",
    "src/*.py",
    "**/*.py",
    "*.py",
    "tests/",
    "tests/**",
    "src/**/gen/**",
    "src/{a,b}.py",
    "src/{api,gen/deep}/**",
    "src/[ab].py",
    "src/[a-c]*",
    "docs/?.md",
    "docs/**",
    "**/secret?",
    "**/SECRET*",
    "src/api/",
    "**/api/**",
    "conftest.py",
    "src/conftest.py",
    "pyproject.toml",
    ".github/workflows/ci.yml",
    ".leviathan/policy.yaml",
    "src/Makefile",
    "**/ü.py",
    "straße/**",
    "*/*",
    "?rc/**",
    "src/**/a.py",
    "**/gen",
    "AGENTS.md",
    ".*",
    "**/.*/**",
];

#[derive(Debug, Clone)]
struct Rules {
    task: Vec<&'static str>,
    scope: Vec<&'static str>,
    forbidden: Vec<&'static str>,
    protected: Vec<&'static str>,
    operator: Option<Vec<&'static str>>,
    binary: Vec<&'static str>,
    lfs: Vec<&'static str>,
    secrets: Vec<&'static str>,
}

#[derive(Debug, Clone)]
struct Edit {
    path: String,
    before: Option<Mode>,
    after: Option<Mode>,
    is_binary: bool,
    is_lfs_pointer: bool,
    /// Whether there is one, and whether it is Leviathan's own.
    secret: Option<bool>,
}

mod reference {
    use super::*;

    /// What the documents say, word by word.
    pub(super) fn permits(rules: &Rules, edits: &[Edit]) -> bool {
        edits.iter().all(|edit| permits_edit(rules, edit)) && !two_are_one(edits)
    }

    fn permits_edit(rules: &Rules, edit: &Edit) -> bool {
        let path = edit.path.as_str();
        let lists = [Some(&rules.task), Some(&rules.scope), rules.operator.as_ref()];
        let lists: Vec<&Vec<&str>> = lists.into_iter().flatten().collect();
        let is_named = lists.iter().all(|list| list.iter().any(|p| is_literal(p) && *p == path));
        let [never, platform, checks] = built_in_rules().map(|(_, patterns)| patterns);
        let denies = |patterns: &[&str]| patterns.iter().any(|p| matches(&fold(p), &fold(path)));
        is_good_name(path)
            && !denies(never)
            && !denies(&rules.forbidden)
            && (is_named || !(denies(platform) || denies(checks) || denies(&rules.protected)))
            && lists.iter().all(|list| list.iter().any(|p| matches(p, path)))
            && permits_kind(edit)
            && permits_content(rules, edit)
    }

    fn permits_kind(edit: &Edit) -> bool {
        use Mode::*;
        match (edit.before, edit.after) {
            (Some(Gitlink), _) | (_, Some(Gitlink | Symlink)) => false,
            (Some(before), Some(after)) => before == after,
            (None, _) | (_, None) => true,
        }
    }

    fn permits_content(rules: &Rules, edit: &Edit) -> bool {
        let allows = |patterns: &[&str]| patterns.iter().any(|p| matches(p, &edit.path));
        edit.after.is_none()
            || (edit.secret != Some(true)
                && (edit.secret.is_none() || allows(&rules.secrets))
                && (!edit.is_lfs_pointer || allows(&rules.lfs))
                && (!edit.is_binary || allows(&rules.binary)))
    }

    fn two_are_one(edits: &[Edit]) -> bool {
        let present: Vec<String> =
            edits.iter().filter(|edit| edit.after.is_some()).map(|edit| fold(&edit.path)).collect();
        present.iter().collect::<HashSet<_>>().len() < present.len()
    }

    fn is_good_name(path: &str) -> bool {
        !path.starts_with('-') && path.split('/').all(|name| !BAD_NAMES.contains(&name))
    }

    fn is_literal(pattern: &str) -> bool {
        !pattern.ends_with('/') && !pattern.contains(['*', '?', '[', '{'])
    }

    /// Enough of a case fold for the names above.
    fn fold(text: &str) -> String {
        text.to_lowercase().replace('ß', "ss")
    }

    fn matches(pattern: &str, path: &str) -> bool {
        let whole = if pattern.ends_with('/') { format!("{pattern}**") } else { pattern.to_owned() };
        let parts =
            |text: &str| text.split('/').map(|part| part.chars().collect()).collect::<Vec<Vec<char>>>();
        braces_expanded(&whole).iter().any(|pattern| components_match(&parts(pattern), &parts(path)))
    }

    fn braces_expanded(pattern: &str) -> Vec<String> {
        let Some(open) = pattern.find('{') else { return vec![pattern.to_owned()] };
        let (mut depth, mut starts, mut close) = (0, vec![open + 1], pattern.len());
        for (at, c) in pattern.char_indices().skip_while(|(at, _)| *at < open) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => starts.push(at + 1),
                _ => {}
            }
            if depth == 0 {
                close = at;
                break;
            }
        }
        let ends = starts.iter().skip(1).map(|start| start - 1).chain([close]).collect::<Vec<_>>();
        let choices = starts.iter().zip(ends).map(|(start, end)| &pattern[*start..end]);
        choices
            .flat_map(|choice| {
                braces_expanded(&format!("{}{choice}{}", &pattern[..open], &pattern[close + 1..]))
            })
            .collect()
    }

    fn components_match(pattern: &[Vec<char>], path: &[Vec<char>]) -> bool {
        match pattern.split_first() {
            None => path.is_empty(),
            Some((first, rest)) if first.iter().collect::<String>() == "**" => {
                // At the end it stands for everything below, of which there must be something.
                if rest.is_empty() {
                    !path.is_empty()
                } else {
                    (0..=path.len()).any(|skipped| components_match(rest, &path[skipped..]))
                }
            }
            Some((first, rest)) => match path.split_first() {
                None => false,
                Some((name, path)) => name_matches(first, name) && components_match(rest, path),
            },
        }
    }

    fn name_matches(pattern: &[char], name: &[char]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some(('*', rest)) => (0..=name.len()).any(|skipped| name_matches(rest, &name[skipped..])),
            Some(('?', rest)) => !name.is_empty() && name_matches(rest, &name[1..]),
            Some(('[', rest)) => {
                let close = rest.iter().position(|c| *c == ']').expect("a class is closed");
                let Some((c, name)) = name.split_first() else { return false };
                class_holds(&rest[..close], *c) && name_matches(&rest[close + 1..], name)
            }
            Some((c, rest)) => name.first() == Some(c) && name_matches(rest, &name[1..]),
        }
    }

    fn class_holds(class: &[char], c: char) -> bool {
        match class {
            [] => false,
            [from, '-', to, rest @ ..] => (*from..=*to).contains(&c) || class_holds(rest, c),
            [one, rest @ ..] => *one == c || class_holds(rest, c),
        }
    }
}

/// What the gate says, by its own types from the texts on.
fn gate_permits(spec: &TargetSpec, edits: &[Edit]) -> bool {
    let path_rules = PathRules::for_task(spec, spec.backlog.task(&TaskId::parse("t").unwrap()).unwrap());
    let (mut changes, mut irregularities) = (Vec::new(), Vec::new());
    for edit in edits {
        match RepoPath::parse(&edit.path) {
            Ok(path) => changes.push(change_of(edit, path)),
            Err(error) => irregularities.push(Irregularity {
                path: edit.path.escape_debug().to_string(),
                kind: IrregularityKind::Name,
                detail: error.to_string(),
            }),
        }
    }
    let [base, candidate] = ["a", "b"].map(|digit| CommitId::parse(digit.repeat(40)).unwrap());
    let set = ChangeSet::new(base, candidate, changes, irregularities, 1);
    set.permit(&path_rules, &spec.policy.limits).is_ok()
}

fn spec_of(rules: &Rules) -> TargetSpec {
    let list = |patterns: &[&str]| serde_json::to_string(patterns).unwrap();
    let contract = "target_id: t\nname: T\nrepo_url: https://example.org/o/t.git\ndefault_branch: main\n";
    let backlog =
        format!("tasks:\n  - {{task_id: t, title: T, scope: s, allowed_paths: {}}}\n", list(&rules.task));
    let policy = format!(
        "scopes:\n  s: {{allowed_paths: {}, forbidden_patterns: {}}}\nprotected: {}\nallow_binary: {}\nallow_lfs: {}\nallow_secrets: {}\ninvariants: []\n",
        list(&rules.scope),
        list(&rules.forbidden),
        list(&rules.protected),
        list(&rules.binary),
        list(&rules.lfs),
        list(&rules.secrets),
    );
    let operator = rules
        .operator
        .as_ref()
        .map(|allowed| format!("scopes:\n  s: {{allowed_paths: {}}}\n", list(allowed)));
    fn document<'a>(file: &'a str, text: &'a str) -> Document<'a> {
        Document { file, content: Some(text.as_bytes()) }
    }
    let documents = Documents {
        contract: document("contract.yaml", contract),
        backlog: document("backlog.yaml", &backlog),
        policy: document("policy.yaml", &policy),
        operator_policy: operator.as_deref().map(|text| document("operator.yaml", text)),
    };
    let commit = CommitId::parse("c".repeat(40)).unwrap();
    TargetSpec::parse(commit, &documents).unwrap_or_else(|problems| panic!("{problems}"))
}

fn change_of(edit: &Edit, path: RepoPath) -> Change {
    let entry =
        |mode, digit: &str| Entry { mode, object: ObjectId::parse(digit.repeat(40)).unwrap(), size: 1 };
    let secret = |is_ours| SecretFound { line: 1, rule: "some-rule".to_owned(), is_ours };
    Change {
        path,
        before: edit.before.map(|mode| entry(mode, "1")),
        after: edit.after.map(|mode| entry(mode, "2")),
        is_binary: edit.is_binary,
        added_lines: 1,
        removed_lines: 0,
        is_lfs_pointer: edit.is_lfs_pointer,
        secrets: edit.secret.map(secret).into_iter().collect(),
    }
}

fn some(patterns: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(patterns, 0..=most)
}

fn rules() -> impl Strategy<Value = Rules> {
    const LITERAL: &[&str] = &["src/a.py", "src/conftest.py", "a.py", "docs/x.md"];
    // Half of the lists are wide, so that other rules have something to decide.
    let wide = proptest::option::of(select(vec!["**", "src/**"]));
    let allowed =
        || (some(PATTERNS, 6), wide.clone()).prop_map(|(list, wide)| list.into_iter().chain(wide).collect());
    let operator = proptest::option::weighted(0.3, allowed());
    let contents = (some(PATTERNS, 2), some(PATTERNS, 2), some(LITERAL, 2));
    (allowed(), allowed(), some(PATTERNS, 2), some(PATTERNS, 2), operator, contents).prop_map(
        |(task, scope, forbidden, protected, operator, (binary, lfs, secrets))| Rules {
            task,
            scope,
            forbidden,
            protected,
            operator,
            binary,
            lfs,
            secrets,
        },
    )
}

fn edit() -> impl Strategy<Value = Edit> {
    let name = prop_oneof![30 => select(NAMES), 1 => select(BAD_NAMES)];
    let lead = prop_oneof![40 => Just("src/"), 20 => Just(""), 1 => Just("-")];
    let path = (lead, proptest::collection::vec(name, 1..4))
        .prop_map(|(lead, names)| format!("{lead}{}", names.join("/")));
    use Mode::*;
    let modes = prop_oneof![
        8 => Just((None, Some(Regular))),
        8 => Just((Some(Regular), Some(Regular))),
        4 => Just((Some(Regular), None)),
        1 => (mode(), mode()).prop_filter("something is there", |(b, a)| b.is_some() || a.is_some()),
    ];
    let contents = (proptest::bool::weighted(0.1), proptest::bool::weighted(0.1));
    let secret = proptest::option::weighted(0.1, any::<bool>());
    (path, modes, contents, secret).prop_map(
        |(path, (before, after), (is_binary, is_lfs_pointer), secret)| Edit {
            path,
            before,
            after,
            is_binary,
            is_lfs_pointer,
            secret,
        },
    )
}

fn mode() -> impl Strategy<Value = Option<Mode>> {
    select(vec![None, Some(Mode::Regular), Some(Mode::Executable), Some(Mode::Symlink), Some(Mode::Gitlink)])
}

/// Edits of one tree: each path once.
fn tree() -> impl Strategy<Value = Vec<Edit>> {
    proptest::collection::vec(edit(), 1..4).prop_map(|edits| {
        let mut seen = HashSet::new();
        edits.into_iter().filter(|edit| seen.insert(edit.path.clone())).collect()
    })
}

#[test]
fn ten_thousand_hostile_trees_are_judged_as_the_documents_say() {
    const TREES: usize = 10;
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let permitted = std::cell::Cell::new(0);
    // Ten trees to a set of documents: reading these takes longer than judging.
    let trees = proptest::collection::vec(tree(), TREES);
    let outcome = runner.run(&(rules(), trees), |(rules, trees)| {
        let spec = spec_of(&rules);
        for edits in &trees {
            let expected = reference::permits(&rules, edits);
            permitted.set(permitted.get() + u32::from(expected));
            prop_assert_eq!(gate_permits(&spec, edits), expected, "{:?}", edits);
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    // A comparison in which one answer hardly occurs would prove little.
    assert!(permitted.get() > 200, "only {} of 10,000 trees are permitted", permitted.get());
}
