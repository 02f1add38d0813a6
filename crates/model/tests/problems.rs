//! Every mistake that a human can make in a document is answered at its place, all of them at once.

use proptest::prelude::*;

use leviathan_model::{Backlog, CommitId, Contract, Document, Documents, Policy, Problems, TargetSpec};

#[test]
fn files_that_are_no_document_at_all() {
    for (content, expected) in [
        ("", "1:1: the file is empty; expected a mapping"),
        ("# nothing\n", "1:1: the file is empty; expected a mapping"),
        ("hello\n", "1:1: the backlog is `hello`; expected a mapping of fields"),
        ("- a\n", "1:1: the backlog is a list; expected a mapping of fields"),
        (
            "tasks:\n\t- a\n",
            "2:2: this is not YAML: tabs disallowed within this context (block indentation); expected a YAML document; \
             hint: indent with spaces; YAML does not take tabs",
        ),
        ("tasks: [\n", "1:8: this is not YAML: unclosed bracket '['; expected a YAML document"),
        (
            "tasks: []\n---\ntasks: []\n",
            "2:1: a second document begins; expected one document in the file; hint: remove the `---`",
        ),
        (
            "%YAML 1.2\n---\ntasks: []\n",
            "1:1: this is not YAML: YAML directives are disallowed; expected a YAML document",
        ),
        ("tasks:\n", "1:6: `tasks` is left empty; expected a list; hint: write `[]` for an empty list"),
        ("x-a: 1\n", "1:1: the backlog has no `tasks`; expected the field `tasks`"),
        (
            "tasks: *a\n",
            "1:8: an alias (`*name`) stands here; expected the value itself; hint: write the value out",
        ),
        (
            "x-a: {}\n<<: {}\ntasks: []\n",
            "2:1: a merge key (`<<`) stands here; expected the fields themselves; hint: write the fields out",
        ),
        (
            "tasks: !!seq []\n",
            "1:14: a tag (`!name`) stands here; expected the value alone; hint: remove the tag",
        ),
        (
            "tasks: []\ntasks: []\n",
            "2:1: `tasks` is given twice, first in line 1; expected it once; hint: remove one of the two",
        ),
        ("[a]: b\ntasks: []\n", "1:1: a list or mapping stands as a key; expected a name"),
    ] {
        assert_eq!(problems_of(Backlog::parse("b.yaml", content.as_bytes())), [format!("b.yaml:{expected}")]);
    }
    assert_eq!(
        problems_of(Backlog::parse("b.yaml", b"tasks:\n  # \xc3\xa9 \xff\n")),
        ["b.yaml:2:7: the byte 0xff is not UTF-8; expected UTF-8 text; hint: save the file as UTF-8"]
    );
}

#[test]
fn bombs_end_at_once() {
    let begun = std::time::Instant::now();
    let nested = format!("tasks: {}", "[".repeat(100_000));
    let mut aliases = "x-0: &a0 [lol]\n".to_owned();
    for n in 1..40 {
        let previous = format!("*a{}, ", n - 1).repeat(9);
        aliases.push_str(&format!("x-{n}: &a{n} [{previous}]\n"));
    }
    let too_large = " ".repeat(1024 * 1024 + 1);
    for text in [nested, aliases, too_large] {
        assert!(Backlog::parse("b.yaml", text.as_bytes()).is_err());
    }
    let keys: String = (0..20_000).map(|n| format!("x-{n}: 1\n")).collect();
    assert!(Backlog::parse("b.yaml", format!("{keys}tasks: []\n").as_bytes()).is_ok());
    let chain: String = (0..5_000)
        .map(|n| format!("- {{task_id: t{n}, title: t, scope: s, depends_on: [t{}]}}\n", (n + 1) % 5_000))
        .collect();
    assert_eq!(problems_of(Backlog::parse("b.yaml", format!("tasks:\n{chain}").as_bytes())).len(), 1);
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "took {:?}", begun.elapsed());
}

#[test]
fn a_mark_at_the_beginning_and_other_line_ends_change_no_place() {
    let text = "\u{feff}tasks:\r\n  - task_id: a\r\n    title: é\r\n    scope: s\r\n    priority: urgent\r\n";
    assert_eq!(
        problems_of(Backlog::parse("b.yaml", text.as_bytes())),
        ["b.yaml:5:15: `priority` is `urgent`; expected `high`, `medium` or `low`"]
    );
    let one_line = "\u{feff}{tasks: 1}";
    assert_eq!(
        problems_of(Backlog::parse("b.yaml", one_line.as_bytes())),
        ["b.yaml:1:9: `tasks` is the number `1`; expected a list"]
    );
}

#[test]
fn what_no_event_of_the_log_could_hold_is_named() {
    let paths: String = (0..4000).map(|n| format!("      - src/some/folder/file{n}.txt\n")).collect();
    let backlog = format!("tasks:\n  - task_id: a\n    title: t\n    scope: s\n    allowed_paths:\n{paths}");
    let problems = problems_of(Backlog::parse("b.yaml", backlog.as_bytes()));
    assert!(problems[0].starts_with("b.yaml:2:5: the task `a` has "), "{}", problems[0]);
    let policy = format!("invariants:\n  - name: n\n    check: \"{}\"\n", "x".repeat(20_000));
    let problems = problems_of(Policy::parse("p.yaml", policy.as_bytes()));
    assert!(
        problems[0].contains("expected at most 16384; hint: put the commands into a script"),
        "{}",
        problems[0]
    );
}

#[test]
fn every_wrong_field_of_a_backlog_is_named_at_once() {
    let text = "\
tasks:
  - task_id: ../main
    title: ''
    scope: 7
    priority: High
    estimated_size: [small]
    allowed_pathz: [a]
    allowed_paths: ['a//b', '!x', 3]
    acceptance_criteria: all of them
    status: Pending
    description: yes
    depends_on: b
    max_attempts: '3'
    timeout: 10
    agent: gpt
  - just text
  - title: no id
  - task_id: b
  - task_id: B
    status: blocked
  - task_id: c
    status: completed
    depends_on: [d, nobody]
  - {task_id: d, status: blocked, depends_on: [c]}
  - task_id: e
    title: \"two\\nlines\"
    scope: \"bell\\u0007\"
    agent: {comand: make}
  - {task_id: f, status: blocked, x-note: fine, timeout: 0s, max_attempts: -1, agent: {command: ''}}
";
    compare(
        &problems_of(Backlog::parse("b.yaml", text.as_bytes())),
        r#"b.yaml:2:14: `task_id`: `../main` is not a task id: expected 1 to 63 letters, digits, `.`, `_` or `-`, beginning and ending with a letter or digit, without `..` or a `.lock` ending
b.yaml:3:12: `title` is empty; expected text
b.yaml:4:12: `scope` is the number `7`; expected text; hint: write it in quotes: "7"
b.yaml:5:15: `priority` is `High`; expected `high`, `medium` or `low`; hint: did you mean `high`?
b.yaml:6:21: `estimated_size` is a list; expected `small`, `medium` or `large`
b.yaml:7:5: `allowed_pathz` is no field of a task; expected `acceptance_criteria`, `agent`, `allowed_paths`, `blocked_reason`, `depends_on`, `description`, `estimated_size`, `max_attempts`, `priority`, `scope`, `status`, `task_id`, `timeout` or `title`; hint: did you mean `allowed_paths`?
b.yaml:8:21: an item of allowed_paths: the pattern `a//b` is refused: it has an empty component
b.yaml:8:29: an item of allowed_paths: the pattern `!x` is refused: patterns are not negated; put what must not change under `forbidden_patterns`
b.yaml:8:35: an item of allowed_paths is the number `3`; expected text; hint: write it in quotes: "3"
b.yaml:9:26: `acceptance_criteria` is `all of them`; expected a list
b.yaml:10:13: `status` is `Pending`; expected `pending`, `completed` or `blocked`; hint: did you mean `pending`?
b.yaml:12:17: `depends_on` is `b`; expected a list
b.yaml:13:19: `max_attempts` is the text `3`; expected a whole number from 1
b.yaml:14:14: `timeout` is the number `10`; expected a duration such as `90s`, `10m` or `1h30m`, of at least a second
b.yaml:15:12: `agent` is `gpt`; expected `claude` or `{command: "…"}`
b.yaml:16:5: a task is `just text`; expected a mapping of fields
b.yaml:17:5: a task has no `scope`; expected the field `scope`
b.yaml:17:5: a task has no `task_id`; expected the field `task_id`
b.yaml:18:5: a task has no `scope`; expected the field `scope`
b.yaml:18:5: a task has no `title`; expected the field `title`
b.yaml:19:14: the task id `B` is taken by `b` in line 18; expected ids that differ, also when case is ignored
b.yaml:23:21: `depends_on` names `nobody`; expected the id of a task in this backlog
b.yaml:24:48: the tasks wait for each other: c → d → c; expected dependencies without a circle
b.yaml:26:12: `title` has several lines; expected one line
b.yaml:27:12: `scope` holds the control or invisible character U+0007; expected visible text
b.yaml:28:12: an agent has no `command`; expected the field `command`
b.yaml:28:13: `comand` is no field of an agent; expected `command`; hint: did you mean `command`?
b.yaml:29:58: `timeout` is `0s`; expected a duration such as `90s`, `10m` or `1h30m`, of at least a second
b.yaml:29:76: `max_attempts` is the number `-1`; expected a whole number from 1
b.yaml:29:97: `command` is empty; expected text
"#,
    );
}

#[test]
fn every_wrong_field_of_a_policy_is_named_at_once() {
    let text = "\
scopes:
  good: {allowed_paths: ['src/**'], forbidden_patterns: ['src/x/**']}
invariants:
  - {name: a, check: 'true'}
  - {name: a, check: b}
  - {name: c}
  - {name: d, check: e, timeout: soon}
limits:
  max_files_changed: 0
  max_patch_bytes: 2MB
  max_file_bytes: 5MiB
  attempt_timeout: 1h30m
  budget_usd: $5
  max_open_pr: 3
setup: [pip install -r requirements.txt, {run: x, timeout: 1d}, {cmd: x}]
network: {agent: ['https://pypi.org'], checks: ['*.example.org', 'a b'], tests: []}
examples:
  - {scope: good, allow: [src/a.py, src/x/a.py], deny: [src/b.py, README.md]}
  - {scope: nowhere, allow: [a]}
  - {scope: good, allow: [../a]}
baseline: yes
strict_checks: 1
sandbox: off
overlap: never
";
    compare(
        &problems_of(Policy::parse("p.yaml", text.as_bytes())),
        r#"p.yaml:5:5: the invariant `a` has the name of the one in line 4; expected names that differ
p.yaml:6:5: an invariant has no `check`; expected the field `check`
p.yaml:7:34: `timeout` is `soon`; expected a duration such as `90s`, `10m` or `1h30m`, of at least a second
p.yaml:9:22: `max_files_changed` is the number `0`; expected a whole number from 1
p.yaml:10:20: `max_patch_bytes` is `2MB`; expected a size in bytes such as `2097152`, `512KiB` or `5MiB`
p.yaml:13:15: `budget_usd` is `$5`; expected an amount in US dollars such as `5` or `2.50`
p.yaml:14:3: `max_open_pr` is no field of `limits`; expected `attempt_timeout`, `budget_usd`, `budget_usd_per_day`, `budget_usd_per_task`, `max_attempts`, `max_concurrent`, `max_file_bytes`, `max_files_changed`, `max_open_prs` or `max_patch_bytes`; hint: did you mean `max_open_prs`?
p.yaml:15:60: `timeout` is `1d`; expected a duration such as `90s`, `10m` or `1h30m`, of at least a second
p.yaml:15:65: a setup command has no `run`; expected the field `run`
p.yaml:15:66: `cmd` is no field of a setup command; expected `run` or `timeout`
p.yaml:16:19: an item of agent: `https://pypi.org` is no host; expected a host such as `pypi.org`, `*.example.org` for every host below, or `*`
p.yaml:16:66: an item of checks: `a b` is no host; expected a host such as `pypi.org`, `*.example.org` for every host below, or `*`
p.yaml:16:74: `tests` is no field of `network`; expected `agent`, `checks` or `setup`
p.yaml:18:37: the example does not hold: `src/x/a.py`: a forbidden pattern of the scope matches the path: forbidden_patterns src/x/** (p.yaml:2); expected it to be permitted
p.yaml:18:57: the example does not hold: `src/b.py` is permitted by allowed_paths src/** (p.yaml:2); expected it to be denied
p.yaml:19:13: the example names the scope `nowhere`; expected a scope of this policy
p.yaml:20:27: an item of allow: the path `../a` is refused: Relative components '.' and '..' are disallowed
p.yaml:21:11: `baseline` is `yes`; expected `true` or `false`
p.yaml:22:16: `strict_checks` is the number `1`; expected `true` or `false`
p.yaml:23:10: `sandbox` is `off`; expected `strict`, `standard` or `none`
p.yaml:24:10: `overlap` is `never`; expected `allow` or `wait`
"#,
    );
}

#[test]
fn a_file_that_may_hold_a_secret_is_named_literally() {
    let text = "allow_secrets: [a.txt, 'tests/**', docs/]\nallow_binary: ['**/*.png']\n";
    compare(
        &problems_of(Policy::parse("p.yaml", text.as_bytes())),
        "p.yaml:1:24: `tests/**` names more than one file; expected the path of a file
p.yaml:1:36: `docs/` names more than one file; expected the path of a file",
    );
}

#[test]
fn every_wrong_scope_is_named_at_once() {
    let text = "\
scopes:
  docs:
    allowed_paths: [docs/**, 'docs/']
    forbiden_patterns: [x]
  '': {}
  bad: []
  good: {allowed_paths: ['/src/**']}
protected: ['/x']
examples:
  - {scope: good, allow: [src/a.py]}
network: []
";
    compare(
        &problems_of(Policy::parse("p.yaml", text.as_bytes())),
        r#"p.yaml:4:5: `forbiden_patterns` is no field of a scope; expected `allowed_paths`, `description` or `forbidden_patterns`; hint: did you mean `forbidden_patterns`?
p.yaml:5:3: `` is no name of a scope; expected visible text
p.yaml:6:8: a scope is a list; expected a mapping of fields
p.yaml:7:26: an item of allowed_paths: the pattern `/src/**` is refused: it begins with `/`; patterns are relative to the root of the repository
p.yaml:8:13: an item of protected: the pattern `/x` is refused: it begins with `/`; patterns are relative to the root of the repository
p.yaml:11:10: `network` is a list; expected a mapping of fields
"#,
    );
}

#[test]
fn every_wrong_field_of_a_contract_is_named_at_once() {
    let text = "\
target_id: My Repo
repo_url: https://user:hunter2@github.com/o/r.git
default_branch: 'a..b'
created_at: 2024-01-01
owners: team
";
    compare(
        &problems_of(Contract::parse("c.yaml", text.as_bytes())),
        r#"c.yaml:1:1: the contract has no `name`; expected the field `name`
c.yaml:1:12: `target_id`: `My Repo` is not a target id: expected 1 to 63 letters, digits, `.`, `_` or `-`, beginning and ending with a letter or digit, without `..` or a `.lock` ending
c.yaml:2:11: `repo_url`: `https://…@github.com/o/r.git` is refused: it holds credentials; they belong in the environment; expected `git@host:owner/repository.git`, `https://host/owner/repository.git`, `ssh://git@host/owner/repository.git` or `file:///absolute/path`
c.yaml:3:17: `default_branch`: `a..b` is not a branch name: expected a name that git accepts for a branch, at most 200 bytes
c.yaml:4:13: `created_at`: `2024-01-01` is no time; expected a time with its zone such as `2024-01-01T00:00:00Z`
c.yaml:5:1: `owners` is no field of the contract; expected `created_at`, `default_branch`, `description`, `name`, `owner`, `repo_url` or `target_id`; hint: did you mean `owner`?
"#,
    );
}

#[test]
fn addresses_that_could_make_git_run_or_read_something_else_are_refused() {
    for url in [
        "ext::sh -c touch%20x",
        "--upload-pack=x",
        "ssh://-oProxyCommand=x/o/r",
        "ssh://git@-x/o/r",
        "git@-oX:o/r",
        "fd::17",
        "http://github.com/o/r.git",
        "https://github.com/r",
        "https://github.com/../r",
        "https://github.com/o/-r",
        "https://github.com/o/r?x=y",
        "https://github.com:99999/o/r",
        "file://relative/path",
        "file:///a/../b",
        "/plain/path",
        "git://github.com/o/r",
        "https://git hub.com/o/r",
        "user@host:o/r",
        // Services of a cloud, addresses of no host, and addresses in disguise
        "https://169.254.169.254/o/r",
        "https://169.254.0.1:443/o/r",
        "ssh://git@169.254.169.254/o/r",
        "https://metadata.google.internal/o/r",
        "https://Metadata/o/r",
        "https://100.100.100.200/o/r",
        "https://0.0.0.0/o/r",
        "https://255.255.255.255/o/r",
        "https://2130706433/o/r",
        "https://127.1/o/r",
        "https://0177.0.0.1/o/r",
        "https://0x7f000001/o/r",
        "https://0x7f.0.0.0x1/o/r",
        "https://[::1]/o/r",
        "https://[fe80::1]/o/r",
        "http://10.0.0.1/o/r.git",
        "http://localhost.evil.example/o/r.git",
        "https://github.com@169.254.169.254/o/r",
        "https://user:secret@github.com/o/r",
    ] {
        let contract = format!("target_id: a\nname: a\nrepo_url: '{url}'\ndefault_branch: main\n");
        assert_eq!(problems_of(Contract::parse("c.yaml", contract.as_bytes())).len(), 1, "{url}");
    }
    for (url, https) in [
        ("git@github.com:o/r.git", "https://github.com/o/r.git"),
        ("git@gitlab.com:group/sub/r.git", "https://gitlab.com/group/sub/r.git"),
        ("https://github.com/o/r", "https://github.com/o/r.git"),
        ("https://github.com/o/r.git/", "https://github.com/o/r.git"),
        ("ssh://git@host:2222/o/r.git", "https://host/o/r.git"),
        ("http://127.0.0.1:4000/o/r.git", "http://127.0.0.1:4000/o/r.git"),
        ("file:///srv/git/r.git", "file:///srv/git/r.git"),
    ] {
        let contract = format!("target_id: a\nname: a\nrepo_url: {url}\ndefault_branch: main\n");
        let contract =
            Contract::parse("c.yaml", contract.as_bytes()).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(contract.repo_url.over_https(), https);
    }
}

#[test]
fn problems_of_all_documents_come_together_and_sorted() {
    let backlog = "tasks:\n- {task_id: a, title: t, scope: doc}\n- {task_id: A, title: t, scope: docs}\n";
    let documents = Documents {
        contract: Document { file: "contract.yaml", content: None },
        backlog: document("backlog.yaml", backlog),
        policy: document("policy.yaml", "scopes: {docs: {alowed_paths: []}}\n"),
        operator_policy: Some(document("operator.yaml", "limits: 3\n")),
    };
    compare(
        &problems_of(TargetSpec::parse(commit(), &documents)),
        r#"backlog.yaml:2:33: `scope` is `doc`; expected a scope of the policy: `docs`; hint: did you mean `docs`?
backlog.yaml:3:13: the task id `A` is taken by `a` in line 2; expected ids that differ, also when case is ignored
contract.yaml:1:1: there is no such file; hint: `leviathan init` writes the three documents
operator.yaml:1:9: `limits` is the number `3`; expected a mapping of fields
policy.yaml:1:17: `alowed_paths` is no field of a scope; expected `allowed_paths`, `description` or `forbidden_patterns`; hint: did you mean `allowed_paths`?
"#,
    );
}

#[test]
fn what_is_suspicious_is_a_warning() {
    let backlog = "\
tasks:
  - {task_id: a, title: t, scope: docs}
  - {task_id: b, title: t, scope: docs, allowed_paths: ['**']}
  - {task_id: c, title: t, scope: docs, allowed_paths: ['src/*.py', docs/x.md, docs/private/x.md, src/y.py]}
  - {task_id: d, title: t, scope: docs, allowed_paths: [.leviathan/policy.yaml, conftest.py, '-x']}
  - {task_id: e, title: t, scope: gone, allowed_paths: ['nothing/**'], status: completed}
";
    let policy = "\
scopes:
  docs: {allowed_paths: ['docs/**'], forbidden_patterns: ['docs/private/**']}
  everything: {allowed_paths: ['**/*'], forbidden_patterns: [config, src/private, LICENSE, a.txt, 'x/', Makefile]}
  gone: {}
invariants:
  - {name: '1', check: detect-secrets scan}
  - {name: '2', check: 'pytest || true'}
  - {name: '3', check: 'ruff check . --exit-zero'}
  - {name: '4', check: 'pytest --cov=80'}
  - {name: '5', check: 'pytest | tee log'}
  - {name: '6', check: 'server &'}
  - {name: '7', check: 'pytest; exit 0'}
  - {name: fine 1, check: \"grep 'a|b' x || exit 1\"}
  - {name: fine 2, check: 'pytest --cov=src --cov-fail-under=80 && true'}
  - {name: fine 3, check: \"bash -o pipefail -c 'a | b'\"}
  - {name: fine 4, check: 'true'}
";
    let spec = TargetSpec::parse(
        commit(),
        &Documents {
            contract: document("contract.yaml", CONTRACT),
            backlog: document("backlog.yaml", backlog),
            policy: document("policy.yaml", policy),
            operator_policy: None,
        },
    )
    .unwrap();
    let warnings: Vec<String> = spec.warnings.iter().map(ToString::to_string).collect();
    compare(
        &warnings,
        r#"backlog.yaml:2:1: the task `a` has no allowed_paths: it can change nothing
backlog.yaml:3:57: `**` allows every file; hint: name the folders that the work needs
backlog.yaml:4:57: `src/*.py` can match nothing that the scope `docs` allows
backlog.yaml:4:80: the path is denied all the same: `docs/private/x.md`: a forbidden pattern of the scope matches the path: forbidden_patterns docs/private/** (policy.yaml:2)
backlog.yaml:4:99: the path is denied all the same: `src/y.py`: no allowed path matches: allowed_paths of the scope `docs` (policy.yaml:2)
backlog.yaml:5:57: the path is denied all the same: `.leviathan/policy.yaml`: Leviathan never changes this path, whatever allows it: never .leviathan/** (built in)
backlog.yaml:5:81: the path is denied all the same: `conftest.py`: it steers the checks or runs by itself: it may be changed only when the task and the scope name it literally, and the scope `docs` does not: protected **/conftest.py (built in)
backlog.yaml:5:94: it matches nothing: the path `-x` is refused: it begins with `-` and would read as an option
policy.yaml:1:1: the scope `gone` has no allowed_paths: its tasks can change nothing
policy.yaml:3:32: `**/*` allows every file; hint: name the folders that the work needs
policy.yaml:3:62: `config` denies a file of that name, and nothing below a folder of that name; hint: write `config/` for the whole folder
policy.yaml:3:70: `src/private` denies a file of that name, and nothing below a folder of that name; hint: write `src/private/` for the whole folder
policy.yaml:6:24: `detect-secrets scan` exits with 0 also when it finds secrets: this check cannot fail; hint: use `detect-secrets-hook`, which fails on a finding
policy.yaml:7:24: the command ignores its failure: this check cannot fail; hint: remove what follows the `||` or the last `;`
policy.yaml:8:24: `--exit-zero` makes the command exit with 0 whatever it finds: this check cannot fail; hint: remove `--exit-zero`
policy.yaml:9:24: `--cov=` takes what to measure, not how much must be covered: this is no threshold; hint: use `--cov-fail-under=` with the percentage
policy.yaml:10:24: the result of a pipe is that of its last command: a failure before it is lost; hint: use `bash -o pipefail -c '…'`
policy.yaml:11:24: the command goes to the background: its failure is lost; hint: remove the `&`
policy.yaml:12:24: the command ignores its failure: this check cannot fail; hint: remove what follows the `||` or the last `;`
"#,
    );
}

proptest! {
    #[test]
    fn no_damage_to_a_document_makes_the_reader_panic(
        at in any::<prop::sample::Index>(),
        length in 0..12usize,
        inserted in "[\\[\\]{}:,#&*!|>'\"%@`?\\- \t\n\ra-z0-9é\u{feff}\u{85}]{0,12}",
    ) {
        for whole in [DAMAGED_BACKLOG, DAMAGED_POLICY] {
            let characters: Vec<char> = whole.chars().collect();
            let at = at.index(characters.len());
            let after = (at + length).min(characters.len());
            let text: String =
                characters[..at].iter().copied().chain(inserted.chars()).chain(characters[after..].iter().copied()).collect();
            let documents = Documents {
                contract: document("contract.yaml", &text),
                backlog: document("backlog.yaml", &text),
                policy: document("policy.yaml", &text),
                operator_policy: Some(document("operator.yaml", &text)),
            };
            prop_assert!(TargetSpec::parse(commit(), &documents).is_err());
        }
    }
}

const DAMAGED_BACKLOG: &str = "\
tasks:
  - task_id: a
    title: \"t\"
    scope: docs
    allowed_paths: ['src/**', \"{a,b}[c-d]?\"]
    description: |
      some
        text
    timeout: 10m
    agent: {command: make}
  - {task_id: b, status: blocked, depends_on: [a]}
";

const DAMAGED_POLICY: &str = "\
scopes:
  docs: {allowed_paths: ['docs/**'], forbidden_patterns: [docs/private/]}
invariants:
- name: tests
  check: >-
    pytest
    tests/
limits: {budget_usd: 2.50, max_patch_bytes: 2MiB}
examples: [{scope: docs, allow: [docs/a.md], deny: [a]}]
";

const CONTRACT: &str = "target_id: a\nname: a\nrepo_url: https://github.com/o/r\ndefault_branch: main\n";

fn document<'a>(file: &'a str, text: &'a str) -> Document<'a> {
    Document { file, content: Some(text.as_bytes()) }
}

fn commit() -> CommitId {
    CommitId::parse("a".repeat(40)).expect("forty digits")
}

fn problems_of<T>(parsed: Result<T, Problems>) -> Vec<String> {
    parsed.err().map(|problems| problems.iter().map(ToString::to_string).collect()).unwrap_or_default()
}

#[track_caller]
fn compare(found: &[String], expected: &str) {
    assert_eq!(found, expected.lines().collect::<Vec<_>>(), "\n{}\n", found.join("\n"));
}

#[test]
fn a_scope_of_thousands_of_rules_is_read_in_a_moment() {
    let paths: String = (0..15_000).map(|n| format!("    - src/some/folder/file{n}.txt\n")).collect();
    let policy = format!("scopes:\n  docs:\n    allowed_paths:\n{paths}");
    let documents = Documents {
        contract: document(
            "contract.yaml",
            "target_id: a\nname: a\nrepo_url: file:///a.git\ndefault_branch: main\n",
        ),
        backlog: document("backlog.yaml", "tasks: []\n"),
        policy: document("policy.yaml", &policy),
        operator_policy: None,
    };
    let begun = std::time::Instant::now();
    TargetSpec::parse(commit(), &documents).unwrap();
    assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{:?}", begun.elapsed());
}
