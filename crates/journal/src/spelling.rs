//! Whether a text is in the spelling of the log, told by one look at each byte and without writing anything.
//!
//! A log is read far more often than it is written, and nearly all that is read is spelled as it should be. What
//! is not accepted here is put before [`crate::CanonicalBody::admit`], which is the judge and says what is wrong:
//! so this reader may refuse what is rare, and must never accept what the judge would not.

use crate::{MAX_BODY_BYTES, MAX_DEPTH};

/// More digits than this may be beyond ±(2^53 − 1).
const PLAIN_DIGITS: usize = 15;

/// Whether `text` is an object in canonical spelling. `false` also for what only the judge can tell: keys that
/// are not plain ASCII, `\u` escapes and very large numbers.
pub(crate) fn is_canonical(text: &str) -> bool {
    let mut reader = Reader { rest: text.as_bytes() };
    text.len() <= MAX_BODY_BYTES && reader.object(1).is_some() && reader.rest.is_empty()
}

/// What was not looked at yet. Each verb takes what it names from the front, or answers `None`.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Option<()> {
        match self.rest.first()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string(),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        self.byte(b'{')?;
        if depth > MAX_DEPTH {
            return None;
        }
        if self.byte(b'}').is_some() {
            return Some(());
        }
        let mut last: Option<&[u8]> = None;
        loop {
            let key = self.key()?;
            // Of plain ASCII, bytes and UTF-16 units have the same order.
            if last.is_some_and(|last| last >= key) {
                return None;
            }
            last = Some(key);
            self.byte(b':')?;
            self.value(depth + 1)?;
            if self.byte(b',').is_none() {
                return self.byte(b'}');
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.byte(b'[')?;
        if depth > MAX_DEPTH {
            return None;
        }
        if self.byte(b']').is_some() {
            return Some(());
        }
        loop {
            self.value(depth + 1)?;
            if self.byte(b',').is_none() {
                return self.byte(b']');
            }
        }
    }

    /// A key of plain ASCII without escapes.
    fn key(&mut self) -> Option<&'a [u8]> {
        self.byte(b'"')?;
        let (key, rest) = self.rest.split_at(plain(self.rest)?);
        self.rest = rest;
        self.byte(b'"')?;
        let is_ascii = key.iter().fold(true, |is_ascii, byte| is_ascii & (*byte <= b'~'));
        is_ascii.then_some(key)
    }

    fn string(&mut self) -> Option<()> {
        self.byte(b'"')?;
        loop {
            let length = plain(self.rest)?;
            let ended = self.rest[length];
            self.rest = &self.rest[length + 1..];
            match ended {
                b'"' => return Some(()),
                b'\\' => {
                    let (letter, rest) = self.rest.split_first()?;
                    self.rest = rest;
                    if !b"\"\\bfnrt".contains(letter) {
                        return None;
                    }
                }
                _ => return None,
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        let is_negative = self.byte(b'-').is_some();
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let first = *self.rest.first()?;
        self.rest = &self.rest[digits..];
        let has_one_spelling = first != b'0' || (digits == 1 && !is_negative);
        ((1..=PLAIN_DIGITS).contains(&digits) && has_one_spelling).then_some(())
    }

    fn byte(&mut self, expected: u8) -> Option<()> {
        let (_, rest) = self.rest.split_first().filter(|(first, _)| **first == expected)?;
        self.rest = rest;
        Some(())
    }

    fn word(&mut self, expected: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(expected)?;
        Some(())
    }
}

/// How many bytes stand before the first that a string cannot hold as it is: a quote, a backslash or a control character.
/// `None` where all could.
fn plain(bytes: &[u8]) -> Option<usize> {
    let (words, rest) = bytes.as_chunks();
    for (n, word) in words.iter().enumerate() {
        let found = not_plain(u64::from_le_bytes(*word));
        if found != 0 {
            return Some(n * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let found = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..b' '))?;
    Some(words.len() * 8 + found)
}

/// Eight bytes looked at together: the highest bit of the first that is not plain is the lowest bit that is set. A
/// subtraction that borrows can only set bits of bytes after one that is.
fn not_plain(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let below = |word: u64, least: u8| word.wrapping_sub(EACH * u64::from(least)) & !word;
    let is = |byte: u8| below(word ^ (EACH * u64::from(byte)), 1);
    (below(word, b' ') | is(b'"') | is(b'\\')) & (EACH << 7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CanonicalBody;
    use crate::canonical::tests::json;
    use proptest::prelude::*;

    #[test]
    fn ordinary_bodies_need_no_judge() {
        for text in [
            r#"{}"#,
            r#"{"a":[],"b":{"c":[1,-20,0,true,false,null]},"d e":"é \n\"\\ 😀 /"}"#,
            r#"{"actor_id":"operator","payload":{"reason":"a"},"timestamp":"2026-01-01T00:00:00.000000Z"}"#,
        ] {
            assert!(is_canonical(text), "{text}");
        }
    }

    #[test]
    fn every_other_spelling_is_left_to_the_judge() {
        for text in [
            "",
            "{",
            "[]",
            "1",
            "{}x",
            r#"{"a":1 }"#,
            r#"{"b":1,"a":1}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":-0}"#,
            r#"{"a":01}"#,
            r#"{"a":-}"#,
            r#"{"a":1.0}"#,
            r#"{"a":1e2}"#,
            r#"{"a":"\/"}"#,
            r#"{"a":"\u0041"}"#,
            "{\"a\":\"\t\"}",
            "{\"a\":\"\0\"}",
            r#"{"a":"x}"#,
            r#"{"a":"\"#,
            r#"{"a\"":1}"#,
            r#"{"a":nul}"#,
        ] {
            assert!(!is_canonical(text), "{text}");
        }
        let nested =
            |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(is_canonical(&nested(MAX_DEPTH)) && !is_canonical(&nested(MAX_DEPTH + 1)));
        assert!(!is_canonical(&nested(1_000_000)));
    }

    proptest! {
        /// Whatever is accepted here, the judge accepts, and would spell the same.
        #[test]
        fn it_accepts_nothing_that_the_judge_would_not(value in json(), flips in prop::collection::vec((any::<prop::sample::Index>(), b' '..=b'~'), 0..3)) {
            let mut bytes = CanonicalBody::admit(value.to_string().as_bytes()).unwrap().as_bytes().to_vec();
            for (at, to) in flips {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
            let Ok(text) = std::str::from_utf8(&bytes) else { return Ok(()) };
            if is_canonical(text) {
                let judged = CanonicalBody::admit(text.as_bytes()).unwrap();
                prop_assert_eq!(judged.as_str(), text);
            }
        }
    }
}
