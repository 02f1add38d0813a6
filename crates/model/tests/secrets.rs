//! What is taken for a secret, in which spellings, and that chunks never matter.

#![expect(clippy::unwrap_used, reason = "a failed expectation ends its test")]

use leviathan_model::secrets::{REDACTED, Redactor, added};
use proptest::prelude::*;

/// Made up for these tests. The parts are put together here, so that no scanner takes this file for a leak.
fn tokens() -> Vec<(&'static str, String)> {
    let body = "a8Kd03mVq2Zx7Rt5Yb1Nc6Wf4Hg9Jp0LsEu3Qo";
    let row = |rule, prefix: &str, length: usize| (rule, format!("{prefix}{}", &body.repeat(3)[..length]));
    vec![
        row("github-token", "ghp_", 36),
        row("github-token", "gho_", 36),
        row("github-token", "ghs_", 36),
        row("github-token", "github_pat_", 70),
        row("gitlab-token", "glpat-", 20),
        row("anthropic-key", "sk-ant-api03-", 90),
        row("openai-key", "sk-", 40),
        row("openai-key", "sk-proj-", 60),
        ("aws-access-key", ["AKIA", "Q3EGUPLW5XZ7RT2M"].concat()),
        (
            "aws-secret-key",
            format!("aws_secret_access_key = {}", &["wJalrXUtnFEMI/K7MDENG/", body].concat()[..40]),
        ),
        row("google-api-key", "AIza", 35),
        ("google-service-account", format!("\"private_key_id\": \"{}\"", "0123456789abcdef0123".repeat(2))),
        row("slack-token", "xoxb-", 30),
        row("slack-token", "xoxp-", 30),
        ("slack-webhook", format!("https://hooks.slack.com/services/T0AB12CD3/B0EF45GH6/{}", &body[..24])),
        row("stripe-key", "sk_live_", 24),
        row("npm-token", "npm_", 36),
        row("pypi-token", "pypi-AgEIcHlwaS5vcmc", 60),
        row("docker-token", "dckr_pat_", 27),
        row("hugging-face-token", "hf_", 34),
        ("private-key", format!("-----BEGIN RSA {}-----\n{body}\n{body}==\n-----END RSA {}-----", KEY, KEY)),
        ("private-key", format!("-----BEGIN {KEY}-----\\n{body}\\n-----END {KEY}-----")),
        ("jwt", format!("eyJ{0}.eyJ{0}.{0}", &body[..30])),
        ("url-password", format!("postgres://shop:{}@db.internal/shop", &body[..16])),
        ("assigned-secret", format!("password = \"{}\"", &body[..20])),
        ("assigned-secret", format!("\"apiKey\": '{}'", &body[..24])),
    ]
}

const KEY: &str = "PRIVATE KEY";

fn rules_in(text: &str) -> Vec<(u64, String)> {
    let mut scan = Redactor::default().scan();
    scan.push(text.as_bytes());
    added(scan.finish(), &[]).into_iter().map(|found| (found.line, found.rule)).collect()
}

#[test]
fn what_issuers_make_is_recognised_with_its_line_and_taken_out() {
    for (rule, token) in tokens() {
        let text = format!("first line\nvalue {token} end\n");
        assert_eq!(rules_in(&text), [(2, rule.to_owned())], "{token}");
        let cleaned = Redactor::default().clean(&text);
        assert!(cleaned.starts_with("first line\nvalue ") && cleaned.contains(REDACTED), "{cleaned}");
        assert!(
            cleaned.ends_with(" end\n") || cleaned.ends_with("\" end\n") || cleaned.ends_with("' end\n"),
            "{cleaned}"
        );
        assert!(!cleaned.contains("a8Kd03mV"), "{rule}: {cleaned}");
    }
}

#[test]
fn ordinary_text_is_left_alone() {
    for text in [
        "password = os.environ[\"PASSWORD\"]",
        "password: \"${DB_PASSWORD}\"",
        "token = \"your-token-goes-here\"",
        "secret: \"aaaaaaaaaaaaaaaaaaaaaaa\"",
        "AKIAIOSFODNN7EXAMPLE",
        "the sk-learn package and sk-chasing-dot-one-two-three-four-five-six",
        "https://example.org:8080/path@v1",
        "postgres://user:password@localhost/db",
        "0123456789abcdef0123456789abcdef01234567",
        "sha512-9sJkAYkLkD3mVq2Zx7Rt5Yb1Nc6Wf4Hg9Jp0LsEu3Qo8Kd03mVq2Zx7Rt5Yb1Nc==",
        "-----BEGIN CERTIFICATE-----",
        "assert token == \"abc\"",
    ] {
        assert_eq!(rules_in(text), [], "{text}");
        assert_eq!(Redactor::default().clean(text), text);
    }
}

const OWN: &str = "control/plane+token \"of ü 1234567890";

fn spellings_of(secret: &str) -> Vec<String> {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
    let mut spellings = vec![
        secret.to_owned(),
        serde_json::to_string(secret).unwrap(),
        hex::encode(secret),
        hex::encode_upper(secret),
        secret
            .bytes()
            .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect(),
        secret.bytes().map(|byte| format!("%{byte:02X}")).collect(),
        secret.bytes().map(|byte| format!("%{byte:02x}")).collect(),
        secret.bytes().map(|byte| format!("\\u{byte:04x}")).collect(),
        secret.bytes().map(|byte| format!("\\x{byte:02X}")).collect(),
    ];
    for before in ["", "x", "xy", "xyz", "xyzw"] {
        let text = format!("{before}{secret} and more");
        spellings.extend([STANDARD.encode(&text), URL_SAFE.encode(&text), URL_SAFE_NO_PAD.encode(&text)]);
    }
    spellings
}

#[test]
fn a_secret_of_the_process_is_found_in_every_spelling() {
    let redactor = Redactor::new([OWN]);
    for spelling in spellings_of(OWN) {
        for text in [spelling.clone(), format!("token = \"{spelling}\""), format!("x\n{spelling}{spelling}")]
        {
            let mut scan = redactor.scan();
            scan.push(text.as_bytes());
            let found = added(scan.finish(), &[]);
            assert!(
                found.iter().any(|found| found.is_ours && found.rule == "own-secret"),
                "{text}: {found:?}"
            );
        }
        assert!(redactor.clean(&spelling).contains(REDACTED), "{spelling}");
        assert!(redactor.clean_ours(&spelling).contains(REDACTED), "{spelling}");
    }
    let shape = &tokens()[0].1;
    assert_eq!(
        &redactor.clean_ours(shape),
        shape,
        "what only looks like a secret stays where files are worked on"
    );
}

#[test]
fn short_values_are_no_secrets_and_debug_output_shows_none() {
    let redactor = Redactor::new(["short", "long-enough-value"]);
    assert_eq!(redactor.clean("a short word"), "a short word");
    assert!(!format!("{redactor:?}").contains("long-enough"));
}

#[test]
fn names_and_texts_of_json_are_cleaned() {
    let mut value = serde_json::json!({ "a": [OWN, 1, { OWN: format!("x{OWN}") }] });
    Redactor::new([OWN]).clean_value(&mut value);
    assert_eq!(value, serde_json::json!({ "a": [REDACTED, 1, { REDACTED: format!("x{REDACTED}") }] }));
}

#[test]
fn only_what_the_old_content_lacks_is_added() {
    let scanned = |text: &str| {
        let mut scan = Redactor::default().scan();
        scan.push(text.as_bytes());
        scan.finish()
    };
    let (one, other) = (&tokens()[0].1, &tokens()[1].1);
    let lines = |after: &str, before: &str| {
        added(scanned(after), &scanned(before)).into_iter().map(|found| found.line).collect::<Vec<_>>()
    };
    assert_eq!(lines(&format!("new\n\n{one}\n"), &format!("{one}\n")), [0_u64; 0], "it only moved");
    assert_eq!(lines(&format!("{one}\n{one}\n"), &format!("{one}\n")), [2], "a second copy");
    assert_eq!(lines(&format!("{one}\n{other}\n"), &format!("{one}\n")), [2], "another one");
}

#[test]
fn a_secret_over_the_border_of_the_window_is_caught() {
    let redactor = Redactor::new([OWN]);
    for (_, token) in tokens().into_iter().chain([("own-secret", OWN.to_owned())]) {
        for border in [96 << 10, 128 << 10] {
            for into in 0..token.len().min(60) {
                let filler = "x ".repeat(border);
                let text = format!("{} {token} tail", &filler[..border - into - 1]);
                let cleaned = redactor.clean(&text);
                assert!(cleaned.contains(REDACTED), "{token} {border} {into}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// What comes out, and what is found, depends on the text and not on where it was cut.
    #[test]
    fn chunks_never_change_the_result(
        parts in proptest::collection::vec((0..40_usize, 0..9000_usize), 1..40),
        cuts in proptest::collection::vec(1..20_000_usize, 1..60),
    ) {
        let redactor = Redactor::new([OWN]);
        let secrets: Vec<String> =
            tokens().into_iter().map(|(_, token)| token).chain(spellings_of(OWN)).collect();
        let mut text = String::new();
        for (which, filler) in &parts {
            text.push_str(&"lorem ipsum\n".repeat(filler / 12));
            text.push_str(&secrets[which % secrets.len()]);
            text.push_str([" ", "\n", "\"", "; "][filler % 4]);
        }
        let mut whole = Vec::new();
        let mut stream = redactor.stream();
        stream.push(text.as_bytes(), &mut whole);
        stream.finish(&mut whole);
        let (mut pieces, mut stream, mut scan) = (Vec::new(), redactor.stream(), redactor.scan());
        let (mut rest, mut cuts) = (text.as_bytes(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            stream.push(piece, &mut pieces);
            scan.push(piece);
            rest = more;
        }
        stream.finish(&mut pieces);
        prop_assert_eq!(&whole, &pieces);
        let mut at_once = redactor.scan();
        at_once.push(text.as_bytes());
        prop_assert_eq!(at_once.finish(), scan.finish());
        let cleaned = String::from_utf8(whole).unwrap();
        prop_assert!(!cleaned.contains("a8Kd03mV") && !cleaned.contains(OWN), "{}", cleaned);
    }
}
