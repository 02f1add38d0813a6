//! `leviathanctl doctor` looks at an installation from outside: each line says what is so, and what to do if it
//! is not well.

use api::types::{Health, Passes, PassesQuery};
use api::{Client, ErrorCode};
use model::event::Timestamp;
use serde::Serialize;

use crate::failure::Failure;
use crate::terminal::{Format, Look, Screen, Span, plain};
use crate::words;

/// How far two clocks may be apart without a word, in milliseconds.
const SKEW_MS: u64 = 5_000;
/// For how long a scheduler may be silent without a word, in milliseconds.
const SILENCE_MS: i64 = 10 * 60 * 1000;

/// Looks whether the control plane answers and takes the token, whether versions and clocks agree, and whether a
/// scheduler is at work.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

/// How something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    verdict: Verdict,
    what: &'static str,
    detail: String,
}

pub(crate) async fn run(_: Arguments, client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let findings = look(client, screen.now).await;
    match screen.format {
        Format::Json => screen.json(&findings)?,
        Format::Table => show(&findings, screen)?,
    }
    let failed = findings.iter().filter(|finding| finding.verdict == Verdict::Fail).count() as u64;
    if failed == 0 {
        return Ok(());
    }
    screen.flush()?;
    Err(Failure::No(format!(
        "{} failed; the lines marked `fail` say what to do",
        words::counted(failed, "check")
    )))
}

/// Whatever can be looked at, in the order in which one thing needs the other.
async fn look(client: &Client, now: Timestamp) -> Vec<Finding> {
    let health = match client.health().await {
        Ok(health) => health,
        Err(error) => return vec![finding(Verdict::Fail, "reach", error.to_string())],
    };
    let reach = finding(Verdict::Ok, "reach", format!("the control plane at {} answers", client.base()));
    let mut findings = vec![reach, version(&health), clock(&health, now)];
    match client.passes(&PassesQuery::default()).await {
        Ok(passes) => {
            findings.push(finding(Verdict::Ok, "token", "the control plane takes the token".to_owned()));
            findings.push(scheduler(&passes, now));
        }
        Err(error) if error.code() == Some(ErrorCode::Unauthenticated) => {
            let told = "the control plane does not take the token; set LEVIATHAN_CONTROL_PLANE_TOKEN to the one that it was started with";
            findings.push(finding(Verdict::Fail, "token", told.to_owned()));
        }
        Err(error) => findings.push(finding(Verdict::Fail, "token", error.to_string())),
    }
    findings
}

fn version(health: &Health) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    if health.version == ours {
        return finding(Verdict::Ok, "version", format!("both are {ours}"));
    }
    let told = format!(
        "leviathanctl is {ours}, the control plane {}; use a leviathanctl of its version",
        health.version
    );
    finding(Verdict::Warn, "version", told)
}

fn clock(health: &Health, now: Timestamp) -> Finding {
    let Some(theirs) = health.time else {
        return finding(Verdict::Warn, "clock", "the control plane does not tell its time".to_owned());
    };
    let apart = now.millis_since(theirs).unsigned_abs();
    if apart <= SKEW_MS {
        return finding(Verdict::Ok, "clock", "this machine and the control plane agree".to_owned());
    }
    let told = format!(
        "this machine and the control plane are {} apart; set both clocks by the same source",
        words::duration(apart)
    );
    finding(Verdict::Warn, "clock", told)
}

fn scheduler(passes: &Passes, now: Timestamp) -> Finding {
    let next = "start one with `leviathan scheduler`, or in a cluster with `kubectl scale deployment leviathan-scheduler --replicas=1`";
    let Some(last) = &passes.last else {
        let told = format!("none has made a pass since the control plane started; {next}");
        return finding(Verdict::Fail, "scheduler", told);
    };
    let seen = format!("{} made a pass {}", last.by, words::utc_and_age(last.at, now));
    match last.problems.first() {
        _ if now.millis_since(last.at) > SILENCE_MS => {
            finding(Verdict::Warn, "scheduler", format!("{seen} and none since; {next}"))
        }
        Some(problem) => finding(Verdict::Warn, "scheduler", format!("{seen}, with a problem: {problem}")),
        None => finding(Verdict::Ok, "scheduler", seen),
    }
}

fn finding(verdict: Verdict, what: &'static str, detail: String) -> Finding {
    Finding { verdict, what, detail }
}

fn show(findings: &[Finding], screen: &mut Screen<'_>) -> Result<(), Failure> {
    for Finding { verdict, what, detail } in findings {
        let (word, look) = match verdict {
            Verdict::Ok => ("ok", Look::Good),
            Verdict::Warn => ("warn", Look::Waiting),
            Verdict::Fail => ("fail", Look::Bad),
        };
        let mark = Span { text: format!("{word:<4}  "), look };
        screen.line(&[mark, plain(format!("{what:<9}  {detail}"))])?;
    }
    Ok(())
}
