//! One call of a witness: what is sent, and what of its answer is let in. Everything that comes back is a stranger's.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use journal::{NoteError, TreeHash};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Response, StatusCode, Url};

/// How long a connection may take, and how long a whole call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer that is read. A cosignature is some hundred bytes, of the largest kind some thousand.
const LONGEST_ANSWER: usize = 64 << 10;

/// How much of a refusal is repeated.
const LONGEST_WORDS: usize = 200;

/// The prefix at which a witness takes checkpoints: `https://HOST/…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessUrl(Url);

/// What is wrong with the URL of a witness. The text is not repeated: a password may stand in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not the URL of a witness: write https://HOST/PREFIX, to which `/add-checkpoint` is added, without a user, a query or a fragment"
)]
pub struct InvalidWitnessUrl;

/// What a witness answered that is no refusal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// What it signed, unverified.
    Cosignatures(String),
    /// Nothing, because this is the size of the log that it cosigned last.
    Knows(u64),
}

/// Why a checkpoint was not cosigned.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    /// Nobody answers.
    #[error(
        "it does not answer: {0}; look whether LEVIATHAN_WITNESS_URL is right and can be reached from here"
    )]
    Unreachable(String),
    /// It answers with a failure.
    #[error("it answers with HTTP status {status}{said}; its operator knows more")]
    Failing {
        /// The status.
        status: StatusCode,
        /// What it said to that.
        said: Words,
    },
    /// It does not know the log.
    #[error(
        "it does not know this log (404{0}); ask its operator to add the log with the key that `leviathanctl log vkey` prints"
    )]
    UnknownLog(Words),
    /// It knows another key.
    #[error(
        "it takes the checkpoint for one of another key (403{0}); give its operator the key that `leviathanctl log vkey` prints"
    )]
    UnknownKey(Words),
    /// It cannot be convinced that the log continues what it saw.
    #[error(
        "what it cosigned before is no beginning of this log (422{0}): the history was rewritten here after it was cosigned, or another log has the same name and key. Compare a kept checkpoint with `leviathanctl log verify --since FILE`"
    )]
    OtherHistory(Words),
    /// It saw more records than there are.
    #[error(
        "it has cosigned {known} records of this log, but there are {size}: the end was cut off or an older copy was put back, or another log has the same name and key. Restore all of the journal from the newest backup"
    )]
    Ahead {
        /// What it knows.
        known: u64,
        /// What there is.
        size: u64,
    },
    /// What it answers is not in the protocol.
    #[error(
        "its answer is none of the protocol: {0}; look whether LEVIATHAN_WITNESS_URL is that of a witness"
    )]
    Garbled(&'static str),
    /// What it answers is not signed by its key.
    #[error("its answer is no cosignature by the key of LEVIATHAN_WITNESS_KEY: {0}")]
    NotCosigned(NoteError),
    /// Others showed it checkpoints between our calls.
    #[error("others show it checkpoints of this log at the same time")]
    Raced,
    /// We cannot prove what it asks for.
    #[error("the proof that it needs cannot be made: {0}")]
    NoProof(String),
}

/// Some of what a stranger said, fit to be shown.
#[derive(Debug)]
pub(super) struct Words(String);

impl Problem {
    /// The kind of the problem.
    pub(super) fn in_short(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Failing { .. } => "failing",
            Self::UnknownLog(_) => "unknown_log",
            Self::UnknownKey(_) => "unknown_key",
            Self::OtherHistory(_) => "other_history",
            Self::Ahead { .. } => "ahead",
            Self::Garbled(_) => "garbled",
            Self::NotCosigned(_) => "not_cosigned",
            Self::Raced => "raced",
            Self::NoProof(_) => "no_proof",
        }
    }

    /// Whether the witness says that this log is not what it was.
    pub(super) fn contradicts(&self) -> bool {
        match self {
            Self::OtherHistory(_) | Self::Ahead { .. } => true,
            Self::Unreachable(_)
            | Self::Failing { .. }
            | Self::UnknownLog(_)
            | Self::UnknownKey(_)
            | Self::Garbled(_)
            | Self::NotCosigned(_)
            | Self::Raced
            | Self::NoProof(_) => false,
        }
    }
}

impl FromStr for WitnessUrl {
    type Err = InvalidWitnessUrl;

    fn from_str(text: &str) -> Result<Self, InvalidWitnessUrl> {
        let url = Url::parse(text).map_err(|_| InvalidWitnessUrl)?;
        let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
        let is_bare = url.username().is_empty() && url.password().is_none();
        let is_prefix = url.query().is_none() && url.fragment().is_none();
        if is_web && is_bare && is_prefix { Ok(Self(url)) } else { Err(InvalidWitnessUrl) }
    }
}

impl fmt::Display for WitnessUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.as_str())
    }
}

impl WitnessUrl {
    fn add_checkpoint(&self) -> Url {
        let mut url = self.0.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("add-checkpoint");
        }
        url
    }
}

/// What speaks to the witness.
pub(super) struct Client {
    http: reqwest::Client,
    url: Url,
}

impl Client {
    pub(super) fn of(url: &WitnessUrl) -> anyhow::Result<Self> {
        let builder = api::http::builder(url.0.scheme() == "https", CALL_TIMEOUT);
        let http = builder
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .context("no HTTP client for the witness can be made here")?;
        Ok(Self { http, url: url.add_checkpoint() })
    }

    /// Where checkpoints are sent.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// `add-checkpoint`: the size that the witness is believed to know, the proof from there, and the note.
    pub(super) async fn add(&self, old: u64, proof: &[TreeHash], note: &str) -> Result<Answer, Problem> {
        let proof: String = proof.iter().map(|hash| format!("{hash}\n")).collect();
        let request = self.http.post(self.url.clone()).body(format!("old {old}\n{proof}\n{note}"));
        let response = request.send().await.map_err(|problem| unreachable(&problem))?;
        let status = response.status();
        let is_size = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "text/x.tlog.size");
        let body = limited(response).await?;
        match status {
            StatusCode::OK => Ok(Answer::Cosignatures(text(body)?)),
            StatusCode::CONFLICT if is_size => Ok(Answer::Knows(size(&text(body)?)?)),
            StatusCode::NOT_FOUND => Err(Problem::UnknownLog(words(&body))),
            StatusCode::FORBIDDEN => Err(Problem::UnknownKey(words(&body))),
            StatusCode::UNPROCESSABLE_ENTITY => Err(Problem::OtherHistory(words(&body))),
            status => Err(Problem::Failing { status, said: words(&body) }),
        }
    }
}

/// The whole body, unless it is longer than any answer.
async fn limited(mut response: Response) -> Result<Vec<u8>, Problem> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|problem| unreachable(&problem))? {
        if body.len() + piece.len() > LONGEST_ANSWER {
            return Err(Problem::Garbled("it is longer than 64 KiB"));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

fn text(body: Vec<u8>) -> Result<String, Problem> {
    String::from_utf8(body).map_err(|_| Problem::Garbled("it is no text"))
}

/// A size in its one spelling.
fn size(body: &str) -> Result<u64, Problem> {
    let garbled = || Problem::Garbled("it refuses a size and does not say which it knows");
    let digits = body.strip_suffix('\n').ok_or_else(garbled)?;
    let size: u64 = digits.parse().map_err(|_| garbled())?;
    if size.to_string() == digits { Ok(size) } else { Err(garbled()) }
}

fn words(body: &[u8]) -> Words {
    let text = String::from_utf8_lossy(body);
    Words(text.trim().chars().take(LONGEST_WORDS).flat_map(char::escape_debug).collect())
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": \"{}\"", self.0) }
    }
}

fn unreachable(problem: &reqwest::Error) -> Problem {
    Problem::Unreachable(api::http::root_cause(problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_sent_to_the_prefix_with_one_name_added() {
        for (url, expected) in [
            ("https://witness.example", "https://witness.example/add-checkpoint"),
            ("https://witness.example/", "https://witness.example/add-checkpoint"),
            ("https://witness.example/w1", "https://witness.example/w1/add-checkpoint"),
            ("http://127.0.0.1:7380/w1/", "http://127.0.0.1:7380/w1/add-checkpoint"),
        ] {
            assert_eq!(url.parse::<WitnessUrl>().unwrap().add_checkpoint().as_str(), expected);
        }
        for url in [
            "",
            "witness.example",
            "ftp://witness.example",
            "https://user:secret@witness.example",
            "https://witness.example/?token=secret",
            "https://witness.example/#a",
            "https:///",
        ] {
            let refused = url.parse::<WitnessUrl>().map(|url| url.to_string());
            assert!(refused.is_err_and(|problem| !problem.to_string().contains("secret")), "{url}");
        }
    }

    #[test]
    fn a_size_has_one_spelling() {
        assert!(matches!(size("0\n"), Ok(0)));
        assert!(matches!(size("18446744073709551615\n"), Ok(u64::MAX)));
        for other in
            ["", "\n", "1", "01\n", "+1\n", " 1\n", "1\n\n", "1\r\n", "-1\n", "18446744073709551616\n"]
        {
            assert!(size(other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn of_what_a_stranger_says_a_little_is_shown_and_nothing_of_it_acts() {
        assert_eq!(words(b"").to_string(), "");
        assert_eq!(words(b" no\x1b[2J\nlog \xff\n").to_string(), ": \"no\\u{1b}[2J\\nlog \u{fffd}\"");
        assert!(words(&[b'x'; 10_000]).to_string().len() < 250);
    }
}
