//! Attacks by what is read from outside: addresses, documents, path rules, ids and events.

use executor::attack::{Group, Outcome};
use journal::CanonicalBody;
use model::{Backlog, Contract, PathPattern, Policy, RepoPath, RepoUrl, TaskId};

use super::Seen;

/// An attack: its name, what it does, and the reading. What is read without an error came through.
struct Attack {
    name: &'static str,
    does: &'static str,
    /// A word of the reason. Refused for another one, it tells nothing.
    because: &'static str,
    read: Read,
}

/// Who reads it.
#[derive(Clone, Copy)]
enum Read {
    /// The address of a repository.
    Address(&'static str),
    /// A path rule.
    Rule(&'static str),
    /// A document.
    Document(fn() -> Result<(), String>),
    /// A name or a path.
    Name(fn() -> Result<(), String>),
    /// The body of an event.
    Event(fn() -> Result<(), String>),
}

impl Read {
    fn by(self) -> &'static str {
        match self {
            Self::Address(_) => "addresses",
            Self::Rule(_) => "path rules",
            Self::Document(_) => "documents",
            Self::Name(_) => "names",
            Self::Event(_) => "journal",
        }
    }

    fn result(self) -> Result<(), String> {
        match self {
            Self::Address(text) => RepoUrl::parse(text).map(drop).map_err(|error| error.to_string()),
            Self::Rule(text) => PathPattern::parse(text).map(drop).map_err(|error| error.to_string()),
            Self::Document(read) | Self::Name(read) | Self::Event(read) => read(),
        }
    }
}

const ATTACKS: &[Attack] = &[
    address("url-program", "names an address that makes git run a program", "its form", "ext::evil"),
    address("url-option", "names an address that git takes for an option", "its form", "--upload-pack=evil"),
    address(
        "url-ssh-option",
        "names a host that ssh takes for an option",
        "no host name",
        "ssh://-oProxyCommand=evil/o/r",
    ),
    address("url-descriptor", "names an open descriptor as a repository", "its form", "fd::17/o"),
    address(
        "url-credentials",
        "puts a password into the address",
        "credentials",
        "https://me:secret@example.org/o/r",
    ),
    address("url-clear", "has the token sent in the clear", "plain http", "http://example.org/o/r"),
    address(
        "url-metadata",
        "names a cloud's metadata as a forge",
        "machine's own network",
        "https://169.254.169.254/o/r",
    ),
    address("url-number", "hides an address in a number", "number in disguise", "https://2130706433/o/r"),
    address("url-climb", "climbs out of a folder of the machine", "without `..`", "file:///srv/../etc"),
    document("yaml-bomb", "lets a small file grow without end", "alias", || {
        let mut text = "a: &a [x, x, x, x, x, x, x, x]\n".to_owned();
        for (this, last) in ('b'..='i').zip('a'..='h') {
            text +=
                &format!("{this}: &{this} [*{last}, *{last}, *{last}, *{last}, *{last}, *{last}, *{last}]\n");
        }
        policy(&text)
    }),
    document("yaml-depth", "nests a hundred thousand lists", "recursion limit", || {
        policy(&format!("scopes: {}{}", "[".repeat(100_000), "]".repeat(100_000)))
    }),
    document("yaml-twice", "says the same key twice", "given twice", || {
        policy("invariants: []\ninvariants: []\n")
    }),
    document("yaml-documents", "hides a second document in the file", "second document", || {
        policy("scopes: {}\n---\nscopes: {}\n")
    }),
    document("yaml-merge", "takes fields over from elsewhere", "alias", || {
        policy("a: &a {baseline: false}\n<<: *a\n")
    }),
    document("yaml-tag", "names a type of another language", "a tag", || {
        policy("!!python/object:os.system {}\n")
    }),
    document("yaml-bytes", "is no text", "UTF-8", || {
        Policy::parse("policy.yaml", b"scopes: {\xff\xfe}\n\0").map(drop).map_err(|it| it.to_string())
    }),
    document("unknown-field", "misspells the field that narrows", "did you mean", || {
        policy("scopes: {s: {allowed_paths: ['**'], forbiden_patterns: ['x']}}\ninvariants: []\n")
    }),
    document("task-twice", "gives two tasks one name", "is taken", || {
        let task = "- {task_id: t, title: T, scope: s, allowed_paths: [x]}\n";
        Backlog::parse("backlog.yaml", format!("tasks:\n{task}{task}").as_bytes())
            .map(drop)
            .map_err(|it| it.to_string())
    }),
    document("contract-url", "hides an address behind a line break", "several lines", || {
        let text = "target_id: t\nname: T\nrepo_url: \"https://example.org/o/r\\next::evil\"\ndefault_branch: main\n";
        Contract::parse("contract.yaml", text.as_bytes()).map(drop).map_err(|it| it.to_string())
    }),
    rule("rule-climbs", "allows paths above the repository", "`..`", "../**"),
    rule("rule-absolute", "allows paths of the machine", "begins with `/`", "/etc/**"),
    rule("rule-negates", "turns a rule round", "negated", "!src/**"),
    rule("rule-backslash", "writes a separator that only some systems know", "backslash", "src\\**"),
    rule("rule-empty", "allows by saying nothing", "empty", ""),
    named("path-climbs", "names a file above the tree", "'..'", || {
        RepoPath::parse("a/../../b").map(drop).map_err(|it| it.to_string())
    }),
    named("id-path", "makes an id a path", "task id", || {
        TaskId::parse("../../etc").map(drop).map_err(|it| it.to_string())
    }),
    named("id-direction", "writes an id from right to left", "task id", || {
        TaskId::parse("task-\u{202e}100").map(drop).map_err(|it| it.to_string())
    }),
    event("event-twice", "says a field of an event twice", "twice", || body("{\"a\":1,\"a\":2}")),
    event("event-number", "writes a number that readers round differently", "integers", || {
        body("{\"a\":9007199254740993}")
    }),
    event("event-depth", "nests an event without end", "nested", || {
        body(&format!("{{\"a\":{}{}}}", "[".repeat(1000), "]".repeat(1000)))
    }),
    event("event-size", "fills the log by one event", "longer", || {
        body(&format!("{{\"a\":\"{}\"}}", "x".repeat(300 << 10)))
    }),
    event("event-surrogate", "writes half a character", "surrogate", || body("{\"a\":\"\\ud800\"}")),
    event("event-zero", "writes a zero, which databases refuse", "U+0000", || body("{\"a\":\"\\u0000\"}")),
];

const fn address(
    name: &'static str,
    does: &'static str,
    because: &'static str,
    text: &'static str,
) -> Attack {
    Attack { name, does, because, read: Read::Address(text) }
}

const fn rule(name: &'static str, does: &'static str, because: &'static str, text: &'static str) -> Attack {
    Attack { name, does, because, read: Read::Rule(text) }
}

const fn document(
    name: &'static str,
    does: &'static str,
    because: &'static str,
    read: fn() -> Result<(), String>,
) -> Attack {
    Attack { name, does, because, read: Read::Document(read) }
}

const fn named(
    name: &'static str,
    does: &'static str,
    because: &'static str,
    read: fn() -> Result<(), String>,
) -> Attack {
    Attack { name, does, because, read: Read::Name(read) }
}

const fn event(
    name: &'static str,
    does: &'static str,
    because: &'static str,
    read: fn() -> Result<(), String>,
) -> Attack {
    Attack { name, does, because, read: Read::Event(read) }
}

fn policy(text: &str) -> Result<(), String> {
    Policy::parse("policy.yaml", text.as_bytes()).map(drop).map_err(|problems| problems.to_string())
}

fn body(text: &str) -> Result<(), String> {
    CanonicalBody::admit(text.as_bytes()).map(drop).map_err(|error| error.to_string())
}

/// Makes every attack.
pub(super) fn attack() -> impl Iterator<Item = Seen> {
    ATTACKS.iter().map(|attack| {
        let Attack { name, does, because, read } = *attack;
        let (outcome, by, detail) = match read.result() {
            Err(problem) => match problem.lines().find(|line| line.contains(because)) {
                Some(reason) => (Outcome::Stopped, read.by(), reason.to_owned()),
                None => (Outcome::Failed, "", format!("refused for another reason: {problem}")),
            },
            Ok(()) => (Outcome::Succeeded, "", "it was read without an objection".to_owned()),
        };
        Seen { attack: name, group: Group::Inputs, does, outcome, by, detail }
    })
}
