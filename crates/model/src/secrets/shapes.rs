//! What looks like a secret: the forms that issuers give their tokens, and values that stand beside a telling name.
//!
//! Every form is bounded in length, so that a stream can be judged through a window.

use std::sync::LazyLock;

use regex::bytes::{Regex, RegexSet};

use super::Match;

/// One form.
struct Shape {
    rule: &'static str,
    /// The least that is recognised. A group named `secret` is the secret where the whole is more.
    pattern: &'static str,
    /// What else belongs to it.
    tail: Tail,
    /// Bits per character below which it is a placeholder.
    least_entropy: f64,
}

/// How the secret goes on behind what the pattern matched.
#[derive(Clone, Copy)]
enum Tail {
    Nothing,
    /// All letters, digits, `_` and `-`.
    Token,
    /// A block up to its `-----END …-----`, or as far as it looks like one.
    Pem,
}

/// No tail is longer.
const LONGEST_TAIL: usize = 8 << 10;

const fn token(rule: &'static str, pattern: &'static str) -> Shape {
    Shape { rule, pattern, tail: Tail::Token, least_entropy: 2.5 }
}

const fn exact(rule: &'static str, pattern: &'static str) -> Shape {
    Shape { rule, pattern, tail: Tail::Nothing, least_entropy: 2.5 }
}

const SHAPES: &[Shape] = &[
    exact("leviathan-token", r"(?-u:\b)lva\.[a-z0-9-]{4,80}\.[0-9]{1,10}\.[0-9a-f]{64}(?-u:\b)"),
    token("github-token", r"(?-u:\b)(?:gh[pousr]_[A-Za-z0-9]{30}|github_pat_[A-Za-z0-9_]{30})"),
    token("gitlab-token", r"(?-u:\b)gl(?:pat|ptt|dt|rt|cbt)-[A-Za-z0-9_-]{20}"),
    token("anthropic-key", r"(?-u:\b)sk-ant-[A-Za-z0-9_-]{16}"),
    Shape {
        least_entropy: 3.5,
        ..token("openai-key", r"(?-u:\b)sk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_]{32}")
    },
    exact("aws-access-key", r"(?-u:\b)(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}(?-u:\b)"),
    Shape {
        least_entropy: 4.0,
        ..exact(
            "aws-secret-key",
            r#"(?i-u:aws[a-z0-9_.\- ]{0,24}(?:secret|key)[a-z0-9_.\- ]{0,24}["']?[ \t]{0,8}[=:][ \t]{0,8}["']?)(?P<secret>[A-Za-z0-9/+]{40})(?-u:\b)"#,
        )
    },
    token("google-api-key", r"(?-u:\b)AIza[0-9A-Za-z_-]{35}"),
    exact("google-service-account", r#""private_key_id"\s{0,8}:\s{0,8}"(?P<secret>[0-9a-f]{40})""#),
    token("slack-token", r"(?-u:\b)xox[abeoprs]-[0-9A-Za-z-]{20}"),
    exact(
        "slack-webhook",
        r"https://hooks\.slack\.com/services/(?P<secret>T[A-Z0-9]{6,16}/B[A-Z0-9]{6,16}/[A-Za-z0-9]{16,40})",
    ),
    token("stripe-key", r"(?-u:\b)(?:(?:sk|rk)_(?:live|test)_|whsec_)[0-9A-Za-z]{20}"),
    token("npm-token", r"(?-u:\b)npm_[A-Za-z0-9]{36}"),
    token("pypi-token", r"(?-u:\b)pypi-AgE[A-Za-z0-9_-]{40}"),
    token("crates-io-token", r"(?-u:\b)cio[A-Za-z0-9]{32}(?-u:\b)"),
    token("docker-token", r"(?-u:\b)dckr_pat_[A-Za-z0-9_-]{24}"),
    token("sendgrid-key", r"(?-u:\b)SG\.[A-Za-z0-9_-]{20,24}\.[A-Za-z0-9_-]{39,50}"),
    token("hugging-face-token", r"(?-u:\b)hf_[A-Za-z0-9]{34}"),
    token("digitalocean-token", r"(?-u:\b)do[opr]_v1_[0-9a-f]{60}"),
    Shape {
        tail: Tail::Pem,
        least_entropy: 0.0,
        ..exact("private-key", r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----")
    },
    token("jwt", r"(?-u:\b)eyJ[A-Za-z0-9_-]{10,1000}\.eyJ[A-Za-z0-9_-]{10,1000}\.[A-Za-z0-9_-]{10}"),
    Shape {
        least_entropy: 3.0,
        ..exact(
            "url-password",
            r#"(?i-u:\b[a-z][a-z0-9+.\-]{1,20}://)[A-Za-z0-9._%+\-]{0,100}:(?P<secret>[A-Za-z0-9._~%!$&*+,;=\-]{8,200})@[A-Za-z0-9]"#,
        )
    },
    Shape {
        least_entropy: 3.5,
        ..exact(
            "assigned-secret",
            r#"(?i-u:(?:passw(?:or)?d|passphrase|secret|token|api[_\-]?key|access[_\-]?key|auth[_\-]?key|private[_\-]?key|credentials?)["']?[ \t]{0,8}(?::=|=>|=|:)[ \t]{0,8}["'])(?P<secret>[A-Za-z0-9+/=_.~!@#$%^&*\-]{12,200})["']"#,
        )
    },
];

static SET: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new(SHAPES.iter().map(|shape| shape.pattern)).expect("the built-in forms are expressions")
});

static EXPRESSIONS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    SHAPES
        .iter()
        .map(|shape| Regex::new(shape.pattern).expect("the built-in forms are expressions"))
        .collect()
});

/// The search for one form in one text.
pub(super) struct Source {
    shape: &'static Shape,
    expression: &'static Regex,
    next: Option<Match>,
    is_exhausted: bool,
}

/// The forms that occur in the text at all.
pub(super) fn present_in(text: &[u8]) -> Vec<Source> {
    let source = |index: usize| Source {
        shape: &SHAPES[index],
        expression: &EXPRESSIONS[index],
        next: None,
        is_exhausted: false,
    };
    SET.matches(text).into_iter().map(source).collect()
}

impl Source {
    /// The first secret of this form that begins at `from` or behind it. `from` never goes back.
    pub(super) fn next_from(&mut self, text: &[u8], from: usize) -> Option<Match> {
        if self.next.is_none_or(|next| next.start < from) && !self.is_exhausted {
            self.next = find(self.shape, self.expression, text, from);
            self.is_exhausted = self.next.is_none();
        }
        self.next
    }
}

fn find(shape: &Shape, expression: &Regex, text: &[u8], mut from: usize) -> Option<Match> {
    loop {
        let captures = expression.captures_at(text, from)?;
        let whole = captures.get(0)?;
        let secret = captures.name("secret").unwrap_or(whole);
        // Behind a named secret there is only what closes it.
        let end =
            if secret == whole { whole.end() + tail(shape.tail, &text[whole.end()..]) } else { secret.end() };
        if is_secret(shape, &text[secret.start()..end]) {
            return Some(Match { start: whole.start(), secret: secret.start(), end, rule: shape.rule });
        }
        from = whole.start() + 1;
    }
}

fn tail(tail: Tail, rest: &[u8]) -> usize {
    let rest = &rest[..rest.len().min(LONGEST_TAIL)];
    match tail {
        Tail::Nothing => 0,
        Tail::Token => rest.iter().take_while(|b| b.is_ascii_alphanumeric() || b"_-".contains(b)).count(),
        Tail::Pem => {
            let is_of_block = |b: &&u8| b.is_ascii_alphanumeric() || b"+/=\\-:, \t\r\n\"'".contains(b);
            let looks_like = rest.iter().take_while(is_of_block).count();
            let rest = &rest[..looks_like];
            let marker = b"-----END ";
            let end = rest.windows(marker.len()).position(|window| window == marker);
            let closed = end.and_then(|end| {
                let name = &rest[end + marker.len()..];
                Some(end + marker.len() + name.windows(5).position(|window| window == b"-----")? + 5)
            });
            closed.unwrap_or(looks_like)
        }
    }
}

/// Whether a value of the form is one, and no placeholder or a reference to where the secret is kept.
fn is_secret(shape: &Shape, value: &[u8]) -> bool {
    const PLACEHOLDERS: [&str; 9] =
        ["example", "placeholder", "changeme", "change_me", "your_", "your-", "redacted", "xxxx", "****"];
    if shape.least_entropy == 0.0 {
        return true;
    }
    let lower = String::from_utf8_lossy(value).to_ascii_lowercase();
    let is_reference = lower.starts_with('$') || lower.contains("{{");
    let is_placeholder = PLACEHOLDERS.iter().any(|word| lower.contains(word));
    !is_reference && !is_placeholder && entropy(value) >= shape.least_entropy
}

/// Shannon's entropy of the bytes, in bits per byte.
fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let total = bytes.len() as f64;
    let parts = counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / total);
    -parts.map(|part| part * part.log2()).sum::<f64>()
}
