//! How the documents write times, sizes and money: `10m`, `5MiB`, `2.50`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a duration looks like, for messages.
pub(super) const DURATION_FORM: &str = "a duration such as `90s`, `10m` or `1h30m`, of at least a second";
/// What a size looks like, for messages.
pub(super) const SIZE_FORM: &str = "a size in bytes such as `2097152`, `512KiB` or `5MiB`";
/// What an amount of money looks like, for messages.
pub(super) const MONEY_FORM: &str = "an amount in US dollars such as `5` or `2.50`";

/// An amount of money in millionths of a US dollar. In YAML and JSON it is a number of dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MicroDollars(pub u64);

impl MicroDollars {
    /// Reads an amount in dollars, with at most six digits after the point.
    pub fn parse(text: &str) -> Option<Self> {
        let (dollars, fraction) = text.split_once('.').unwrap_or((text, ""));
        let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if dollars.is_empty() || fraction.len() > 6 || !is_digits(dollars) || !is_digits(fraction) {
            return None;
        }
        let micros: u64 = format!("{fraction:0<6}").parse().ok()?;
        dollars.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(micros).map(Self)
    }
}

impl fmt::Display for MicroDollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dollars, micros) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if micros % 10_000 == 0 {
            write!(f, "{dollars}.{:02}", micros / 10_000)
        } else {
            write!(f, "{dollars}.{micros:06}")
        }
    }
}

impl Serialize for MicroDollars {
    #[expect(clippy::cast_precision_loss, reason = "budgets are far below 2^53 millionths of a dollar")]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0 as f64 / 1e6)
    }
}

impl<'de> Deserialize<'de> for MicroDollars {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let dollars = f64::deserialize(deserializer)?;
        Self::parse(&format!("{dollars:.6}"))
            .ok_or_else(|| serde::de::Error::custom(format!("`{dollars}` is not {MONEY_FORM}")))
    }
}

impl JsonSchema for MicroDollars {
    fn schema_name() -> Cow<'static, str> {
        "MicroDollars".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0, "description": MONEY_FORM })
    }
}

/// Reads `90s`, `10m`, `1h30m`: whole numbers with `h`, `m`, `s`, each at most once and in this order.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds: u64 = 0;
    for (unit, factor) in [('h', 3600), ('m', 60), ('s', 1)] {
        if let Some((number, after)) = rest.split_once(unit) {
            let number: u64 = number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok())??;
            seconds = number.checked_mul(factor)?.checked_add(seconds)?;
            rest = after;
        }
    }
    (rest.is_empty() && seconds > 0).then(|| Duration::from_secs(seconds))
}

/// Writes a duration as [`parse_duration`] reads it.
pub(super) fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let text: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Reads a number of bytes, alone or with `B`, `KiB`, `MiB` or `GiB`.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// How long a command may take when its document does not say.
pub(super) const TEN_MINUTES: Duration = Duration::from_secs(600);

pub(super) fn ten_minutes() -> &'static str {
    "10m"
}

/// Durations in JSON as the documents write them.
pub(super) mod duration {
    use super::{
        DURATION_FORM, Deserialize, Deserializer, Duration, Serializer, duration_text, parse_duration,
    };

    pub(in crate::documents) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&duration_text(*value))
    }

    pub(in crate::documents) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        parse_duration(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not {DURATION_FORM}")))
    }
}

/// As [`duration`], for a field that may be absent.
pub(super) mod duration_option {
    use super::{Duration, Serializer, duration_text};

    pub(in crate::documents) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(duration) => to.serialize_some(&duration_text(*duration)),
            None => to.serialize_none(),
        }
    }
}

/// The schema of a duration.
pub(super) struct DurationText;

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(?=.)([0-9]+h)?([0-9]+m)?([0-9]+s)?$",
            "description": DURATION_FORM,
        })
    }
}

/// The schema of a size in bytes.
pub(super) struct ByteSizeText;

impl JsonSchema for ByteSizeText {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"],
            "minimum": 0,
            "pattern": "^[0-9]+ ?(B|KiB|MiB|GiB)?$",
            "description": SIZE_FORM,
        })
    }
}
