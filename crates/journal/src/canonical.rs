//! The body of an event in the one spelling that the log keeps.
//!
//! The spelling is RFC 8785 with less freedom: a body is an object, and its numbers are integers that every
//! reader can hold exactly. Fractions and exponents are refused rather than rewritten, because two readers that
//! disagree about one digit would disagree about every hash after it; a quantity that needs them is written as
//! a string or in a smaller unit. Nothing here knows what the members mean.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::spelling;

/// The longest canonical body, in bytes.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// How deep objects and arrays may be nested; the body itself is the first level.
pub const MAX_DEPTH: usize = 64;

const MAX_SAFE_INTEGER: i64 = (1 << 53) - 1;

/// A JSON object in canonical spelling. These bytes are hashed and kept; they are never written anew.
///
/// A copy shares them. Bodies that were read together share one text, which stays in memory for the last of them.
#[derive(Clone)]
pub struct CanonicalBody {
    text: Arc<str>,
    place: Range<usize>,
}

/// Why some bytes cannot be the body of an event, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}, at byte {position}")]
pub struct BodyError {
    /// What is wrong.
    pub problem: BodyProblem,
    /// The offset in the given bytes at which it was found.
    pub position: usize,
}

/// What is wrong with the bytes of a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyProblem {
    /// Not UTF-8.
    #[error("the body is not valid UTF-8")]
    NotUtf8,
    /// Not JSON.
    #[error("the body is not JSON: expected {expected}")]
    Syntax {
        /// What should stand at that position.
        expected: &'static str,
    },
    /// JSON, but not an object.
    #[error("the body must be a JSON object")]
    NotAnObject,
    /// A key that occurs twice in one object, once escapes are read.
    #[error("the key `{}` occurs twice in one object", .key.escape_debug())]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// Half of a UTF-16 surrogate pair: no character.
    #[error("a `\\u` escape names half of a surrogate pair")]
    LoneSurrogate,
    /// The character U+0000, which not every store can hold.
    #[error("the character U+0000 is not allowed")]
    Nul,
    /// A number with a fraction or an exponent.
    #[error("numbers must be integers: write this one as a string, or in a smaller unit")]
    Fraction,
    /// An integer beyond ±(2^53 − 1).
    #[error("integers must lie within ±9007199254740991: write this one as a string")]
    IntegerRange,
    /// More than [`MAX_DEPTH`] levels.
    #[error("objects and arrays are nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// More than [`MAX_BODY_BYTES`] in canonical spelling.
    #[error(
        "the body is longer than {MAX_BODY_BYTES} bytes: store large content as an artifact and name its digest"
    )]
    TooLarge,
    /// The right value in another spelling, where only the canonical one is accepted.
    #[error("the body is not in its canonical spelling")]
    NotCanonical,
}

impl CanonicalBody {
    /// Admits bytes from anywhere and brings them into canonical spelling.
    pub fn admit(json: &[u8]) -> Result<Self, BodyError> {
        let text = std::str::from_utf8(json)
            .map_err(|error| BodyError { problem: BodyProblem::NotUtf8, position: error.valid_up_to() })?;
        let out = String::with_capacity(text.len().min(MAX_BODY_BYTES));
        let mut writer = Writer { text, at: 0, out, members: Vec::new() };
        writer.document()?;
        Ok(Self::whole(&writer.out))
    }

    /// Accepts bytes that are in canonical spelling already, and no others.
    pub fn from_canonical(json: &[u8]) -> Result<Self, BodyError> {
        Self::check(json).map(Self::whole)
    }

    /// The text of bytes that are in canonical spelling.
    pub(crate) fn check(json: &[u8]) -> Result<&str, BodyError> {
        if let Some(text) = std::str::from_utf8(json).ok().filter(|text| spelling::is_canonical(text)) {
            return Ok(text);
        }
        let body = Self::admit(json)?;
        let matching = body.as_bytes().iter().zip(json).take_while(|(ours, theirs)| ours == theirs).count();
        let different = BodyError { problem: BodyProblem::NotCanonical, position: matching };
        let is_canonical = body.as_bytes() == json;
        std::str::from_utf8(json).ok().filter(|_| is_canonical).ok_or(different)
    }

    /// A body that [`Self::check`] has seen.
    pub(crate) fn whole(text: &str) -> Self {
        Self { place: 0..text.len(), text: text.into() }
    }

    /// The same, of one that stands in a longer text.
    pub(crate) fn within(text: &Arc<str>, place: Range<usize>) -> Self {
        Self { text: Arc::clone(text), place }
    }

    /// The canonical JSON text.
    pub fn as_str(&self) -> &str {
        &self.text[self.place.clone()]
    }

    /// The canonical bytes: what is hashed.
    pub fn as_bytes(&self) -> &[u8] {
        self.as_str().as_bytes()
    }
}

impl PartialEq for CanonicalBody {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for CanonicalBody {}

impl fmt::Debug for CanonicalBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reads `text` from `at` on, and appends the canonical spelling of what it read to `out`.
struct Writer<'a> {
    text: &'a str,
    at: usize,
    out: String,
    /// The members of the objects that are open, those of the innermost last.
    members: Vec<Member<'a>>,
}

/// One member of an object that was read: its key, where the key stood, and where its spelling lies in `out`.
struct Member<'a> {
    key: Cow<'a, str>,
    position: usize,
    written: Range<usize>,
}

impl<'a> Writer<'a> {
    fn document(&mut self) -> Result<(), BodyError> {
        self.skip_whitespace();
        match self.peek() {
            Some(b'{') => self.object(1)?,
            Some(_) => return Err(self.error(BodyProblem::NotAnObject)),
            None => return Err(self.expected("an object")),
        }
        self.skip_whitespace();
        if self.at == self.text.len() { Ok(()) } else { Err(self.expected("the end of the body")) }
    }

    fn value(&mut self, depth: usize) -> Result<(), BodyError> {
        self.skip_whitespace();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => {
                let text = self.string()?;
                self.write_string(&text);
                self.check_length()
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            Some(_) | None => Err(self.expected("a value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), BodyError> {
        self.open(depth)?;
        let (first, start) = (self.members.len(), self.out.len());
        self.skip_whitespace();
        if !self.take(b'}') {
            loop {
                let member = self.member(depth)?;
                self.members.push(member);
                self.skip_whitespace();
                if self.take(b'}') {
                    break;
                }
                self.require(b',', "`,` or `}`")?;
                self.out.push(',');
            }
        }
        self.arrange(first, start)?;
        self.members.truncate(first);
        self.out.push('}');
        self.check_length()
    }

    /// Reads `"key": value` and writes it.
    fn member(&mut self, depth: usize) -> Result<Member<'a>, BodyError> {
        self.skip_whitespace();
        let position = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.expected("a key in double quotes"));
        }
        let key = self.string()?;
        let start = self.out.len();
        self.write_string(&key);
        self.skip_whitespace();
        self.require(b':', "`:`")?;
        self.out.push(':');
        self.value(depth + 1)?;
        Ok(Member { key, position, written: start..self.out.len() })
    }

    /// Puts the members from `first` on, which were written from `start` on as they came, into the order of their keys.
    fn arrange(&mut self, first: usize, start: usize) -> Result<(), BodyError> {
        let members = &mut self.members[first..];
        if members.is_sorted_by(|a, b| utf16_order(&a.key, &b.key).is_lt()) {
            return Ok(());
        }
        members.sort_unstable_by(|a, b| utf16_order(&a.key, &b.key).then(a.position.cmp(&b.position)));
        if let Some([_, second]) = members.array_windows().find(|[a, b]| a.key == b.key) {
            let problem = BodyProblem::DuplicateKey { key: second.key.to_string() };
            return Err(BodyError { problem, position: second.position });
        }
        let end = self.out.len();
        for (n, member) in members.iter().enumerate() {
            if n > 0 {
                self.out.push(',');
            }
            self.out.extend_from_within(member.written.clone());
        }
        self.out.drain(start..end);
        Ok(())
    }

    /// RFC 8785, section 3.2.2.2: short escapes where JSON has them, lower-case hexadecimal for the other controls,
    /// every other character as it is.
    fn write_string(&mut self, text: &str) {
        self.out.push('"');
        if text.bytes().any(|byte| matches!(byte, b'"' | b'\\' | ..b' ')) {
            text.chars().for_each(|c| self.write_char(c));
        } else {
            self.out.push_str(text);
        }
        self.out.push('"');
    }

    fn write_char(&mut self, c: char) {
        match c {
            '"' => self.out.push_str("\\\""),
            '\\' => self.out.push_str("\\\\"),
            '\u{8}' => self.out.push_str("\\b"),
            '\t' => self.out.push_str("\\t"),
            '\n' => self.out.push_str("\\n"),
            '\u{c}' => self.out.push_str("\\f"),
            '\r' => self.out.push_str("\\r"),
            '\0'..='\u{1f}' => self.out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => self.out.push(c),
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), BodyError> {
        self.open(depth)?;
        self.skip_whitespace();
        if !self.take(b']') {
            loop {
                self.value(depth + 1)?;
                self.skip_whitespace();
                if self.take(b']') {
                    break;
                }
                self.require(b',', "`,` or `]`")?;
                self.out.push(',');
            }
        }
        self.out.push(']');
        self.check_length()
    }

    /// Takes and writes the opening bracket under the cursor.
    fn open(&mut self, depth: usize) -> Result<(), BodyError> {
        if depth > MAX_DEPTH {
            return Err(self.error(BodyProblem::TooDeep));
        }
        self.out.push(char::from(self.text.as_bytes()[self.at]));
        self.at += 1;
        Ok(())
    }

    fn number(&mut self) -> Result<(), BodyError> {
        let start = self.at;
        self.take(b'-');
        let digits = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        match &self.text.as_bytes()[digits..self.at] {
            [] => return Err(self.expected("a digit")),
            [b'0', _, ..] => return Err(BodyError { position: digits, ..self.expected("no leading zero") }),
            _ => {}
        }
        if matches!(self.peek(), Some(b'.' | b'e' | b'E')) {
            return Err(BodyError { problem: BodyProblem::Fraction, position: start });
        }
        let spelled = &self.text[start..self.at];
        let number = spelled
            .parse::<i64>()
            .ok()
            .filter(|number| (-MAX_SAFE_INTEGER..=MAX_SAFE_INTEGER).contains(number))
            .ok_or(BodyError { problem: BodyProblem::IntegerRange, position: start })?;
        // Without leading zeros a number has one spelling, but for `-0`.
        self.out.push_str(if number == 0 { "0" } else { spelled });
        self.check_length()
    }

    fn literal(&mut self, word: &'static str) -> Result<(), BodyError> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.expected("a value"));
        }
        self.at += word.len();
        self.out.push_str(word);
        self.check_length()
    }

    /// Reads the string under the cursor and returns it without quotes and escapes: borrowed where it has none.
    fn string(&mut self) -> Result<Cow<'a, str>, BodyError> {
        self.at += 1;
        let mut unescaped = String::new();
        loop {
            let start = self.at;
            let rest = &self.text.as_bytes()[start..];
            let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..b' '));
            self.at += plain.unwrap_or(rest.len());
            let plain = &self.text[start..self.at];
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    if unescaped.is_empty() {
                        return Ok(Cow::Borrowed(plain));
                    }
                    unescaped.push_str(plain);
                    return Ok(Cow::Owned(unescaped));
                }
                Some(b'\\') => {
                    unescaped.push_str(plain);
                    unescaped.push(self.escape()?);
                }
                Some(0) => return Err(self.error(BodyProblem::Nul)),
                Some(_) => return Err(self.expected("an escape in place of a control character")),
                None => return Err(self.expected("the end of the string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, BodyError> {
        let start = self.at;
        self.at += 1;
        let letter = self.peek();
        let c = match letter {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(start),
            Some(_) | None => return Err(self.expected("an escape that JSON knows")),
        };
        self.at += 1;
        Ok(c)
    }

    /// Reads `uXXXX`, and the second half of a surrogate pair with it. `start` is where the backslash stands.
    fn unicode_escape(&mut self, start: usize) -> Result<char, BodyError> {
        let lone = BodyError { problem: BodyProblem::LoneSurrogate, position: start };
        let first = self.hex_unit()?;
        let code = match first {
            0xd800..=0xdbff => {
                if !self.text[self.at..].starts_with("\\u") {
                    return Err(lone);
                }
                self.at += 1;
                match self.hex_unit()? {
                    second @ 0xdc00..=0xdfff => 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00),
                    _ => return Err(lone),
                }
            }
            0 => return Err(BodyError { problem: BodyProblem::Nul, position: start }),
            other => other,
        };
        char::from_u32(code).ok_or(lone)
    }

    /// Reads the `u` under the cursor and its four hexadecimal digits.
    fn hex_unit(&mut self) -> Result<u32, BodyError> {
        self.at += 1;
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|b| char::from(b).to_digit(16));
            unit = unit * 16 + digit.ok_or_else(|| self.expected("four hexadecimal digits"))?;
            self.at += 1;
        }
        Ok(unit)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn require(&mut self, byte: u8, expected: &'static str) -> Result<(), BodyError> {
        if self.take(byte) { Ok(()) } else { Err(self.expected(expected)) }
    }

    fn skip_whitespace(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Stops early when the body can only become too long; whoever sends gigabytes is not read to the end.
    fn check_length(&self) -> Result<(), BodyError> {
        if self.out.len() > MAX_BODY_BYTES { Err(self.error(BodyProblem::TooLarge)) } else { Ok(()) }
    }

    fn expected(&self, expected: &'static str) -> BodyError {
        self.error(BodyProblem::Syntax { expected })
    }

    fn error(&self, problem: BodyProblem) -> BodyError {
        BodyError { problem, position: self.at }
    }
}

/// The order of two keys: that of their UTF-16 units, which is the order of their bytes where one of them is ASCII.
fn utf16_order(one: &str, other: &str) -> Ordering {
    if one.is_ascii() || other.is_ascii() {
        one.cmp(other)
    } else {
        one.encode_utf16().cmp(other.encode_utf16())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_value_has_one_spelling() {
        let spellings = [
            (r#"{}"#, r#"{}"#),
            (" { \"b\" : 1 ,\n\"a\" : [ ] } ", r#"{"a":[],"b":1}"#),
            (r#"{"a":-0}"#, r#"{"a":0}"#),
            (
                r#"{"n":9007199254740991,"m":-9007199254740991}"#,
                r#"{"m":-9007199254740991,"n":9007199254740991}"#,
            ),
            (r#"{"\u0061":"\u00e9\/\u0041"}"#, r#"{"a":"é/A"}"#),
            (r#"{"a":"\u000a\u0008\u001F\u007f\u2028"}"#, "{\"a\":\"\\n\\b\\u001f\u{7f}\u{2028}\"}"),
            (r#"{"a":"\ud83d\uDE00"}"#, r#"{"a":"😀"}"#),
            // By UTF-16 units U+1F600 (d83d de00) stands before U+FB33, by code points after it.
            ("{\"\u{fb33}\":1,\"😀\":2,\"é\":3}", "{\"é\":3,\"😀\":2,\"\u{fb33}\":1}"),
            (
                r#"{"a":{"d":true,"c":[{"f":null,"e":false}]}}"#,
                r#"{"a":{"c":[{"e":false,"f":null}],"d":true}}"#,
            ),
        ];
        for (given, canonical) in spellings {
            let body = CanonicalBody::admit(given.as_bytes()).unwrap();
            assert_eq!(body.as_str(), canonical, "{given}");
        }
    }

    #[test]
    fn what_readers_could_disagree_about_is_refused_with_its_position() {
        let syntax = |expected| BodyProblem::Syntax { expected };
        let key = |key: &str| BodyProblem::DuplicateKey { key: key.to_owned() };
        let refused: Vec<(&[u8], BodyProblem, usize)> = vec![
            (b"", syntax("an object"), 0),
            (b"[]", BodyProblem::NotAnObject, 0),
            (b"\xef\xbb\xbf{}", BodyProblem::NotAnObject, 0),
            (b"{}x", syntax("the end of the body"), 2),
            (b"{", syntax("a key in double quotes"), 1),
            (b"{\"a\"}", syntax("`:`"), 4),
            (b"{\"a\":1,}", syntax("a key in double quotes"), 7),
            (b"{\"a\":[1,]}", syntax("a value"), 8),
            (b"{\"a\":\"\xff\"}", BodyProblem::NotUtf8, 6),
            (b"{\"a\":\"\xed\xa0\x80\"}", BodyProblem::NotUtf8, 6),
            (b"{\"a\":1,\"\\u0061\":2}", key("a"), 7),
            (b"{\"x\":{\"b\":1,\"a\":1,\"b\":1}}", key("b"), 18),
            (br#"{"a":"\ud800"}"#, BodyProblem::LoneSurrogate, 6),
            (br#"{"a":"\udc00"}"#, BodyProblem::LoneSurrogate, 6),
            (br#"{"a":"\ud800\u0041"}"#, BodyProblem::LoneSurrogate, 6),
            (br#"{"a":"\u0000"}"#, BodyProblem::Nul, 6),
            (b"{\"a\":\"\0\"}", BodyProblem::Nul, 6),
            (b"{\"a\":\"\n\"}", syntax("an escape in place of a control character"), 6),
            (br#"{"a":"\x"}"#, syntax("an escape that JSON knows"), 7),
            (br#"{"a":"\u12g4"}"#, syntax("four hexadecimal digits"), 10),
            (b"{\"a\":\"", syntax("the end of the string"), 6),
            (b"{\"a\":1.0}", BodyProblem::Fraction, 5),
            (b"{\"a\":1e2}", BodyProblem::Fraction, 5),
            (b"{\"a\":01}", syntax("no leading zero"), 5),
            (b"{\"a\":-}", syntax("a digit"), 6),
            (b"{\"a\":+1}", syntax("a value"), 5),
            (b"{\"a\":9007199254740992}", BodyProblem::IntegerRange, 5),
            (b"{\"a\":-9007199254740992}", BodyProblem::IntegerRange, 5),
            (b"{\"a\":99999999999999999999999}", BodyProblem::IntegerRange, 5),
            (b"{\"a\":NaN}", syntax("a value"), 5),
            (b"{\"a\":Infinity}", syntax("a value"), 5),
            (b"{\"a\":nul}", syntax("a value"), 5),
            (b"{'a':1}", syntax("a key in double quotes"), 1),
        ];
        for (given, problem, position) in refused {
            let error = CanonicalBody::admit(given).unwrap_err();
            assert_eq!(error, BodyError { problem, position }, "{}", given.escape_ascii());
        }
    }

    #[test]
    fn depth_and_length_are_limited_exactly() {
        let nested =
            |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(CanonicalBody::admit(nested(MAX_DEPTH).as_bytes()).is_ok());
        let error = CanonicalBody::admit(nested(MAX_DEPTH + 1).as_bytes()).unwrap_err();
        assert_eq!(error.problem, BodyProblem::TooDeep);
        // Far deeper than a stack would bear if it were followed.
        assert!(CanonicalBody::admit(nested(1_000_000).as_bytes()).is_err());

        let sized = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
        assert_eq!(
            CanonicalBody::admit(sized(MAX_BODY_BYTES).as_bytes()).unwrap().as_bytes().len(),
            MAX_BODY_BYTES
        );
        let error = CanonicalBody::admit(sized(MAX_BODY_BYTES + 1).as_bytes()).unwrap_err();
        assert_eq!(error.problem, BodyProblem::TooLarge);
    }

    #[test]
    fn only_the_canonical_spelling_is_read_back() {
        assert!(CanonicalBody::from_canonical(br#"{"a":1,"b":2}"#).is_ok());
        for (other, position) in [(r#"{"b":2,"a":1}"#, 2), (r#"{"a":1 }"#, 6), (r#"{"a":"\u0041"}"#, 6)] {
            let error = CanonicalBody::from_canonical(other.as_bytes()).unwrap_err();
            assert_eq!(error, BodyError { problem: BodyProblem::NotCanonical, position }, "{other}");
        }
    }

    /// Any JSON that a body may hold.
    pub(crate) fn json() -> impl Strategy<Value = serde_json::Value> {
        let text = "[^\\x00]{0,6}";
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            (-MAX_SAFE_INTEGER..=MAX_SAFE_INTEGER).prop_map(Into::into),
            text.prop_map(Into::into),
        ];
        let value = leaf.prop_recursive(4, 24, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::btree_map(text, inner, 0..5)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        });
        prop::collection::btree_map(text, value, 0..5)
            .prop_map(|map| serde_json::Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn canonicalising_keeps_the_value_and_changes_nothing_the_second_time(value in json()) {
            let body = CanonicalBody::admit(serde_json::to_string_pretty(&value).unwrap().as_bytes()).unwrap();
            prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(body.as_str()).unwrap(), &value);
            prop_assert_eq!(CanonicalBody::from_canonical(body.as_bytes()), Ok(body.clone()));
        }

        #[test]
        fn no_bytes_make_admission_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), text in "[\\[\\]{}\":,\\\\u0-9a-f.-]{0,40}") {
            let _ = CanonicalBody::admit(&bytes);
            let _ = CanonicalBody::admit(text.as_bytes());
        }
    }
}
