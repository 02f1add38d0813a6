//! `leviathanctl log verify` reads a whole log and says what is proven of it, and what is not.

use std::path::PathBuf;

use api::Client;
use journal::{Checkpoint, WitnessKey};
use model::event::Timestamp;

use super::audit::{Audit, Findings};
use super::folder::Source;
use super::{Judged, Key, judge, kept, remote, untrue};
use crate::failure::Failure;
use crate::terminal::{Format, Look, Screen, Span, plain};
use crate::words;

/// Reads every record, computes its hashes anew, and compares the log with its signed checkpoint.
///
/// Exit code 0: nothing contradicts. What that proves, and what it does not, is in the answer.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    key: Key,
    /// Verifies what is on this machine and asks no control plane: the folder of a journal, a data folder, or
    /// the file of an export.
    #[arg(long, value_name = "PATH")]
    offline: Option<PathBuf>,
    /// A checkpoint that was kept elsewhere: the log must begin with what it was then.
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
    /// The key of a witness: the log must begin with a checkpoint that it cosigned. Through the API that is the newest
    /// that it cosigned; offline the one that is there or the one of --since must bear its line.
    #[arg(long, value_name = "VKEY")]
    witness: Option<WitnessKey>,
}

/// A checkpoint that the log is compared with, and what to call it.
struct Compared {
    what: String,
    judged: Judged,
}

pub(crate) async fn run(
    arguments: Arguments,
    client: Result<Client, Failure>,
    vkey: Option<&str>,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let key = arguments.key.or(vkey)?;
    let key = key.as_ref();
    let since = arguments.since.as_ref().map(|file| {
        let what = format!("the checkpoint in {}", file.display());
        kept(file, key).map(|judged| Compared { what, judged })
    });
    let since = since.transpose()?;
    let witness = arguments.witness.as_ref();
    let findings = match &arguments.offline {
        Some(path) => offline(&Source::open(path)?, key, since, witness)?,
        None => online(&client?, key, since, witness).await?,
    };
    show(&findings, screen)
}

fn offline(
    source: &Source,
    key: Option<&journal::VerifierKey>,
    since: Option<Compared>,
    witness: Option<&WitnessKey>,
) -> Result<Findings, Failure> {
    let what = "its checkpoint".to_owned();
    let own = source.checkpoint().map(|note| judge(note, key)).transpose();
    let own = own.map_err(|problem| untrue(&what, &problem))?;
    if own.is_none() && key.is_some() && since.is_none() {
        return Err(Failure::No(
            "there is no checkpoint beside the journal, so nothing there is signed: whether the log was cut or rewritten cannot be seen; restore the file, or give one that was kept with --since FILE"
                .to_owned(),
        ));
    }
    let compared: Vec<_> = own.map(|judged| Compared { what, judged }).into_iter().chain(since).collect();
    let mut audit = Audit::new(source.origin(), &sizes(&compared));
    let torn = source.read(&mut audit)?;
    let mut findings = conclude(source.origin(), &audit, &compared, witness)?;
    findings.not_proved.extend(torn.map(|told| format!("{told}: nobody was told that it is recorded.")));
    Ok(findings)
}

async fn online(
    client: &Client,
    key: Option<&journal::VerifierKey>,
    since: Option<Compared>,
    witness: Option<&WitnessKey>,
) -> Result<Findings, Failure> {
    let cosigned = match witness {
        None => None,
        Some(witness) => {
            let what = format!("the checkpoint that {} cosigned", witness.name());
            let note = client.log_witnessed_checkpoint().await?;
            let judged = judge(&note, key).map_err(|problem| untrue(&what, &problem))?;
            Some(Compared { what, judged })
        }
    };
    let what = "its checkpoint".to_owned();
    let judged = judge(&client.log_checkpoint().await?, key).map_err(|problem| untrue(&what, &problem))?;
    let Checkpoint { origin, size, .. } = judged.checkpoint.clone();
    let compared: Vec<_> = [Compared { what, judged }].into_iter().chain(cosigned).chain(since).collect();
    let mut audit = Audit::new(origin.as_str(), &sizes(&compared));
    let damaged = |told| Failure::No(format!("the control plane hands out a damaged log: {told}"));
    remote::entries(client, size, |line| audit.take_line(line).map_err(damaged)).await?;
    conclude(origin.as_str(), &audit, &compared, witness)
}

fn sizes(compared: &[Compared]) -> Vec<u64> {
    compared.iter().map(|compared| compared.judged.checkpoint.size).collect()
}

/// Compares what was read with every checkpoint.
fn conclude(
    origin: &str,
    audit: &Audit,
    compared: &[Compared],
    witness: Option<&WitnessKey>,
) -> Result<Findings, Failure> {
    let records = audit.head().seq;
    let mut findings = Findings { log: origin.to_owned(), records, ..Findings::default() };
    findings.proved.push(format!(
        "Each of the {records} records is whole and names the one before it: none was changed, removed, added or reordered unless every hash after it was computed anew."
    ));
    for Compared { what, judged } in compared {
        let named = &judged.checkpoint.origin;
        if named.as_str() != origin {
            return Err(Failure::No(format!("{what} is of the log {named}, but this is the log {origin}")));
        }
        audit.compare(what, &judged.checkpoint).map_err(Failure::No)?;
        findings.agree(what, judged);
    }
    if let Some(witness) = witness {
        hold_to(witness, compared, &mut findings)?;
    }
    findings.limits(sizes(compared).into_iter().max());
    Ok(findings)
}

/// What the witness says of the checkpoints that the log agrees with.
fn hold_to(witness: &WitnessKey, compared: &[Compared], findings: &mut Findings) -> Result<(), Failure> {
    let mut is_cosigned = false;
    for Compared { what, judged } in compared {
        let Some(seconds) = judged.cosigned(witness).map_err(|problem| untrue(what, &problem))? else {
            continue;
        };
        is_cosigned = true;
        let moment = i64::try_from(seconds).ok().and_then(|it| jiff::Timestamp::from_second(it).ok());
        let at = moment.map_or_else(
            || format!("{seconds} s after 1970"),
            |moment| format!("{} UTC", words::utc(Timestamp::new(moment))),
        );
        findings.cosigned(witness.name().as_str(), what, judged.checkpoint.size, &at);
    }
    if is_cosigned {
        return Ok(());
    }
    Err(Failure::No(format!(
        "no checkpoint here bears a cosignature by {} with key id {:08x}: fetch one with `leviathanctl log checkpoint --witness VKEY` and give it with --since FILE",
        witness.name(),
        witness.id()
    )))
}

fn show(findings: &Findings, screen: &mut Screen<'_>) -> Result<(), Failure> {
    match screen.format {
        Format::Json => screen.json(findings)?,
        Format::Table => {
            screen.line(&[plain(format!("log {}, {} records", findings.log, findings.records))])?;
            let marked = [
                ("proved", Look::Good, &findings.proved),
                ("not proved", Look::Waiting, &findings.not_proved),
            ];
            for (word, look, lines) in marked {
                for line in lines {
                    let mark = Span { text: format!("{word:<10}  "), look };
                    screen.line(&[mark, plain(line)])?;
                }
            }
        }
    }
    Ok(())
}
