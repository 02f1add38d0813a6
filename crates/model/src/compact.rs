//! Values in few bytes and without names, for what the same version of the program reads back and nobody else.
//!
//! A struct is its fields one after the other, a number has as many bytes as it needs, and a hexadecimal name half as
//! many as digits. What is read is held to the rules of its type, but nothing tells one version of a type from another:
//! whoever keeps such bytes keeps the version beside them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::event::Timestamp;
use crate::{
    ActorId, AttemptId, BranchName, CommitId, Digest, Epoch, EventId, ObjectId, RepoPath, Seq, TargetId,
    TaskId,
};

/// What can be written in few bytes.
pub trait Compact: Sized {
    /// Adds the value to `bytes`.
    fn write(&self, bytes: &mut Vec<u8>);

    /// Takes a value from the front of `bytes`; `None` where none stands there.
    fn read(bytes: &mut &[u8]) -> Option<Self>;
}

/// Writes a struct as its fields, in the order in which they are named here.
macro_rules! compact_fields {
    ($($name:ident { $($field:ident),* $(,)? })*) => {
        $(impl $crate::compact::Compact for $name {
            fn write(&self, bytes: &mut Vec<u8>) {
                let Self { $($field),* } = self;
                $($crate::compact::Compact::write($field, bytes);)*
            }

            fn read(bytes: &mut &[u8]) -> Option<Self> {
                Some(Self { $($field: $crate::compact::Compact::read(bytes)?),* })
            }
        })*
    };
}

/// Writes a variant without fields as its place among those that are named here.
macro_rules! compact_variants {
    ($($name:ident { $($variant:ident),* $(,)? })*) => {
        $(impl $crate::compact::Compact for $name {
            fn write(&self, bytes: &mut Vec<u8>) {
                enum Place { $($variant),* }
                let place = match self { $(Self::$variant => Place::$variant as u64),* };
                $crate::compact::Compact::write(&place, bytes);
            }

            fn read(bytes: &mut &[u8]) -> Option<Self> {
                let place = usize::try_from(<u64 as $crate::compact::Compact>::read(bytes)?).ok()?;
                [$(Self::$variant),*].get(place).copied()
            }
        })*
    };
}

pub(crate) use {compact_fields, compact_variants};

impl Compact for u64 {
    /// Seven bits to a byte, the lowest first; the eighth says that more follow.
    fn write(&self, bytes: &mut Vec<u8>) {
        let mut rest = *self;
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut number = 0;
        for bits in (0..Self::BITS).step_by(7) {
            let (byte, rest) = bytes.split_first()?;
            *bytes = rest;
            number |= Self::from(byte & 0x7f) << bits;
            if *byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}

impl Compact for u32 {
    fn write(&self, bytes: &mut Vec<u8>) {
        u64::from(*self).write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        u64::read(bytes)?.try_into().ok()
    }
}

impl Compact for i64 {
    /// Of numbers that are near to zero, those below it are short too.
    fn write(&self, bytes: &mut Vec<u8>) {
        ((self << 1) ^ (self >> 63)).cast_unsigned().write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let number = u64::read(bytes)?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }
}

impl Compact for bool {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.push(u8::from(*self));
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        [false, true].get(usize::from(*byte)).copied()
    }
}

impl Compact for String {
    fn write(&self, bytes: &mut Vec<u8>) {
        write_text(self, bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        read_text(bytes).map(str::to_owned)
    }
}

impl<T: Compact> Compact for Option<T> {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.is_some().write(bytes);
        if let Some(value) = self {
            value.write(bytes);
        }
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some(if bool::read(bytes)? { Some(T::read(bytes)?) } else { None })
    }
}

impl<T: Compact> Compact for Vec<T> {
    fn write(&self, bytes: &mut Vec<u8>) {
        (self.len() as u64).write(bytes);
        self.iter().for_each(|value| value.write(bytes));
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let length = usize::try_from(u64::read(bytes)?).ok()?;
        // Every value has a byte or more: a length that is no length reserves no more than there is.
        let mut values = Self::with_capacity(length.min(bytes.len()));
        for _ in 0..length {
            values.push(T::read(bytes)?);
        }
        Some(values)
    }
}

impl<T: Compact> Compact for Arc<T> {
    fn write(&self, bytes: &mut Vec<u8>) {
        T::write(self, bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        T::read(bytes).map(Self::new)
    }
}

impl Compact for BTreeMap<String, String> {
    fn write(&self, bytes: &mut Vec<u8>) {
        (self.len() as u64).write(bytes);
        for (key, value) in self {
            key.write(bytes);
            value.write(bytes);
        }
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        (0..u64::read(bytes)?).map(|_| Some((String::read(bytes)?, String::read(bytes)?))).collect()
    }
}

impl Compact for Timestamp {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.moment().as_microsecond().write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        jiff::Timestamp::from_microsecond(i64::read(bytes)?).ok().map(Self::new)
    }
}

impl Compact for Seq {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.0.write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        u64::read(bytes).map(Self)
    }
}

impl Compact for Epoch {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.0.write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        u32::read(bytes).map(Self)
    }
}

macro_rules! compact_texts {
    ($($name:ident),*) => {
        $(impl Compact for $name {
            fn write(&self, bytes: &mut Vec<u8>) {
                write_text(self.as_str(), bytes);
            }

            fn read(bytes: &mut &[u8]) -> Option<Self> {
                Self::parse(read_text(bytes)?).ok()
            }
        })*
    };
}

macro_rules! compact_hexadecimal {
    ($($name:ident),*) => {
        $(impl Compact for $name {
            fn write(&self, bytes: &mut Vec<u8>) {
                write_hexadecimal(self.as_str(), bytes);
            }

            fn read(bytes: &mut &[u8]) -> Option<Self> {
                Self::parse(read_hexadecimal(bytes)?).ok()
            }
        })*
    };
}

compact_texts!(ActorId, AttemptId, BranchName, EventId, RepoPath, TargetId, TaskId);
compact_hexadecimal!(CommitId, Digest, ObjectId);

fn write_text(text: &str, bytes: &mut Vec<u8>) {
    (text.len() as u64).write(bytes);
    bytes.extend_from_slice(text.as_bytes());
}

fn read_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(read_some(bytes)?).ok()
}

fn write_hexadecimal(text: &str, bytes: &mut Vec<u8>) {
    let raw = hex::decode(text).expect("a name of this type has hexadecimal digits, two for a byte");
    (raw.len() as u64).write(bytes);
    bytes.extend_from_slice(&raw);
}

fn read_hexadecimal(bytes: &mut &[u8]) -> Option<String> {
    let raw = read_some(bytes)?;
    let mut text = vec![0; 2 * raw.len()];
    hex::encode_to_slice(raw, &mut text).ok()?;
    String::from_utf8(text).ok()
}

/// As many bytes as the number before them says.
fn read_some<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(u64::read(bytes)?).ok()?;
    let (some, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(some)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of one value.
    fn to_bytes(value: &impl Compact) -> Vec<u8> {
        let mut bytes = Vec::new();
        value.write(&mut bytes);
        bytes
    }

    /// The value of which these are all the bytes.
    fn from_bytes<T: Compact>(mut bytes: &[u8]) -> Option<T> {
        let value = T::read(&mut bytes)?;
        bytes.is_empty().then_some(value)
    }

    fn check<T: Compact + PartialEq + std::fmt::Debug>(value: T, length: usize) {
        let bytes = to_bytes(&value);
        assert_eq!(bytes.len(), length, "{value:?}");
        for cut in 0..bytes.len() {
            assert_eq!(from_bytes::<T>(&bytes[..cut]), None, "{value:?} cut to {cut}");
        }
        assert_eq!(from_bytes::<T>(&[&bytes[..], &[0]].concat()), None, "{value:?} and more");
        assert_eq!(from_bytes(&bytes), Some(value));
    }

    #[test]
    fn every_value_is_read_back_and_no_part_of_it() {
        check(0_u64, 1);
        check(127_u64, 1);
        check(128_u64, 2);
        check(u64::MAX, 10);
        check(u32::MAX, 5);
        check(-1_i64, 1);
        check(i64::MIN, 10);
        check(true, 1);
        check("é".to_owned(), 3);
        check(Some("x".to_owned()), 3);
        check(None::<u64>, 1);
        check(vec![1_u64, 2, 3], 4);
        check(Digest::of(b"x"), 33);
        check(CommitId::parse("1".repeat(40)).unwrap(), 21);
        check(TaskId::parse("task-1").unwrap(), 7);
        check("2026-01-01T00:00:00.000001Z".parse::<Timestamp>().unwrap(), 8);
        check(BTreeMap::from([("a".to_owned(), "b".to_owned())]), 5);
    }

    #[test]
    fn what_breaks_the_rule_of_its_type_is_not_read() {
        assert_eq!(from_bytes::<TaskId>(&to_bytes(&"../x".to_owned())), None);
        assert_eq!(from_bytes::<CommitId>(&[1, 0xff]), None);
        assert_eq!(from_bytes::<u32>(&to_bytes(&u64::MAX)), None);
        assert_eq!(from_bytes::<bool>(&[2]), None);
        assert_eq!(from_bytes::<u64>(&[0xff; 11]), None);
        assert_eq!(from_bytes::<Vec<u64>>(&to_bytes(&u64::MAX)), None);
        assert_eq!(from_bytes::<String>(&[1, 0xff]), None);
    }
}
