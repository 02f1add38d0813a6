//! Moments, durations, amounts and states in the words that people read.

use model::event::{Timestamp, Usage};
use model::graph::{PullRequest, PullRequestState};

use crate::terminal::{Look, Span};

/// `2026-01-31 12:00:00`, in UTC.
pub(crate) fn utc(moment: Timestamp) -> String {
    moment.moment().strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// `2026-01-31 12:00:00 UTC (3m ago)`.
pub(crate) fn utc_and_age(moment: Timestamp, now: Timestamp) -> String {
    let age = age(moment, now);
    let age = if moment > now { age } else { format!("{age} ago") };
    format!("{} UTC ({age})", utc(moment))
}

/// How long ago, in one unit: `40s`, `3m`, `2h`, `5d`. Behind `in` when it is still to come.
pub(crate) fn age(moment: Timestamp, now: Timestamp) -> String {
    let millis = now.millis_since(moment);
    let seconds = millis.unsigned_abs() / 1000;
    let age = match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        172_800.. => format!("{}d", seconds / 86_400),
    };
    if millis < 0 { format!("in {age}") } else { age }
}

/// `63 ms`, `1.5 s`, `3 min 20 s`, `2 h 5 min`.
pub(crate) fn duration(millis: u64) -> String {
    let seconds = millis / 1000;
    match millis {
        0..1000 => format!("{millis} ms"),
        1000..60_000 => format!("{seconds}.{} s", millis % 1000 / 100),
        60_000..3_600_000 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600_000.. => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// `$1.25`, to the tenth of a cent below one dollar.
pub(crate) fn dollars(micro_usd: u64) -> String {
    if micro_usd >= 1_000_000 {
        format!("${}.{:02}", micro_usd / 1_000_000, micro_usd % 1_000_000 / 10_000)
    } else {
        format!("$0.{:04}", micro_usd / 100)
    }
}

/// `950 B`, `2.0 KiB`, `64.0 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 3] = ["KiB", "MiB", "GiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut tenths = count * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// `1 file`, `2 files`.
pub(crate) fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// What an attempt was paid for; nothing of a model when there was none.
pub(crate) fn cost(usage: &Usage) -> String {
    if *usage == Usage::default() {
        return "nothing (no model was called)".to_owned();
    }
    format!(
        "{} for {}: {} tokens read, {} from the cache, {} into it, {} written",
        dollars(usage.cost_micro_usd),
        counted(u64::from(usage.turns), "request"),
        usage.input_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.output_tokens,
    )
}

/// `merged by ada`, `closed by bob`, `open`; and whether a human took it over.
pub(crate) fn pull_request(pr: &PullRequest) -> String {
    let state = match &pr.state {
        PullRequestState::Open => "open".to_owned(),
        PullRequestState::Merged { by, commit, approved_by } if approved_by.is_empty() => {
            format!("merged by {by} as {}", short(commit.as_str()))
        }
        PullRequestState::Merged { by, commit, approved_by } => {
            format!("merged by {by} as {}, approved by {}", short(commit.as_str()), approved_by.join(", "))
        }
        PullRequestState::Closed { by } => format!("closed by {by}"),
    };
    match &pr.human_owned {
        Some(reason) => format!("{state}, in human hands: {reason}"),
        None => state,
    }
}

/// The first twelve digits of a commit or digest.
pub(crate) fn short(hexadecimal: &str) -> &str {
    hexadecimal.get(..12).unwrap_or(hexadecimal)
}

/// The status of an attempt or the state of a task, with its look.
pub(crate) fn state(word: &str) -> Span {
    let look = match word {
        "completed" | "verified" => Look::Good,
        "failed" | "lost" | "parked" | "declined" => Look::Bad,
        "invalidated" | "cancelled" | "superseded" | "removed" => Look::Faint,
        "in_review" | "blocked" => Look::Waiting,
        _ => Look::Plain,
    };
    Span { text: word.to_owned(), look }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_at_a_glance() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let ages = [
            ("2026-01-31T11:59:20Z", "2026-01-31 11:59:20 UTC (40s ago)"),
            ("2026-01-31T11:00:00Z", "2026-01-31 11:00:00 UTC (60m ago)"),
            ("2026-01-30T12:00:00Z", "2026-01-30 12:00:00 UTC (24h ago)"),
            ("2025-01-31T12:00:00Z", "2025-01-31 12:00:00 UTC (365d ago)"),
            ("2026-01-31T12:05:00Z", "2026-01-31 12:05:00 UTC (in 5m)"),
        ];
        for (moment, expected) in ages {
            assert_eq!(utc_and_age(moment.parse().unwrap(), now), expected);
        }
        for (millis, expected) in
            [(63, "63 ms"), (1500, "1.5 s"), (200_000, "3 min 20 s"), (7_500_000, "2 h 5 min")]
        {
            assert_eq!(duration(millis), expected);
        }
        for (micro, expected) in
            [(0, "$0.0000"), (12_345, "$0.0123"), (1_250_000, "$1.25"), (12_009_999, "$12.00")]
        {
            assert_eq!(dollars(micro), expected);
        }
        for (count, expected) in
            [(950, "950 B"), (2048, "2.0 KiB"), (1_572_864, "1.5 MiB"), (5 << 40, "5120.0 GiB")]
        {
            assert_eq!(bytes(count), expected);
        }
    }
}
