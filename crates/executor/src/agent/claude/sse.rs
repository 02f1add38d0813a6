//! Server-sent events, as far as the Messages API uses them: bytes in, events out.
//!
//! Strict about size, because the far side may never send a line's end; tolerant about how bytes are cut into
//! chunks, line endings and comments. It does not know what any event means.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// The `event:` field; `message` when there was none.
    pub(super) name: String,
    /// The `data:` lines, joined by line feeds.
    pub(super) data: String,
}

/// Why bytes are not an event stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SseError {
    #[error("a line or an event of the stream is longer than {MAX_EVENT} bytes")]
    TooLong,
    #[error("the stream is not UTF-8")]
    NotUtf8,
}

/// The longest event that is accepted, in bytes.
pub(super) const MAX_EVENT: usize = 4 << 20;

/// The state between two chunks.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    line: Vec<u8>,
    name: String,
    data: Option<String>,
    /// The last byte was CR: an LF right after it belongs to the same line's end.
    after_carriage_return: bool,
    has_started: bool,
}

impl Decoder {
    /// Takes the next bytes and returns the events that they complete. An event that the stream's end cuts off
    /// is never returned.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, SseError> {
        let mut events = Vec::new();
        for &byte in bytes {
            let continues_line_end = self.after_carriage_return && byte == b'\n';
            self.after_carriage_return = byte == b'\r';
            match byte {
                b'\n' if continues_line_end => {}
                b'\n' | b'\r' => events.extend(self.end_of_line()?),
                _ if self.line.len() >= MAX_EVENT => return Err(SseError::TooLong),
                _ => self.line.push(byte),
            }
        }
        Ok(events)
    }

    fn end_of_line(&mut self) -> Result<Option<Event>, SseError> {
        let line = std::mem::take(&mut self.line);
        let line = std::str::from_utf8(&line).map_err(|_| SseError::NotUtf8)?;
        let line = if self.has_started { line } else { line.trim_start_matches('\u{feff}') };
        self.has_started = true;
        if line.is_empty() {
            return Ok(self.end_of_event());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_owned(),
            "data" => self.add_data(value)?,
            // An empty field is a comment; `id`, `retry` and anything newer do not concern us.
            _ => {}
        }
        Ok(None)
    }

    fn add_data(&mut self, value: &str) -> Result<(), SseError> {
        let data = match &mut self.data {
            Some(data) => {
                data.push('\n');
                data
            }
            None => self.data.insert(String::new()),
        };
        if data.len() + value.len() > MAX_EVENT {
            return Err(SseError::TooLong);
        }
        data.push_str(value);
        Ok(())
    }

    fn end_of_event(&mut self) -> Option<Event> {
        let name = std::mem::take(&mut self.name);
        let name = if name.is_empty() { "message".to_owned() } else { name };
        self.data.take().map(|data| Event { name, data })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(chunks: &[&[u8]]) -> Vec<(String, String)> {
        let mut decoder = Decoder::default();
        let events = chunks.iter().flat_map(|chunk| decoder.push(chunk).unwrap());
        events.map(|event| (event.name, event.data)).collect()
    }

    #[test]
    fn every_way_to_write_an_event_is_read() {
        let rows: &[(&str, &[(&str, &str)])] = &[
            ("event: a\ndata: 1\n\n", &[("a", "1")]),
            ("event: a\r\ndata: 1\r\n\r\n", &[("a", "1")]),
            ("event:a\rdata:1\r\r", &[("a", "1")]),
            ("\u{feff}data: 1\n\n", &[("message", "1")]),
            (": comment\n\n: another\ndata: 1\ndata: 2\nid: 7\nretry: 1\n\n", &[("message", "1\n2")]),
            ("event: lonely\n\ndata: x\n\n", &[("message", "x")]),
            ("data\n\n", &[("message", "")]),
            ("data:  two spaces\n\n", &[("message", " two spaces")]),
            ("event: a\ndata: cut off\n", &[]),
            ("", &[]),
        ];
        for (text, expected) in rows {
            let expected: Vec<_> = expected.iter().map(|(n, d)| (n.to_string(), d.to_string())).collect();
            assert_eq!(decode(&[text.as_bytes()]), expected, "{text:?}");
        }
    }

    #[test]
    fn endless_lines_and_events_end_in_an_error() {
        let mut decoder = Decoder::default();
        let chunk = vec![b'x'; 1 << 16];
        let error = (0..100).find_map(|_| decoder.push(&chunk).err());
        assert_eq!(error, Some(SseError::TooLong));
        let mut decoder = Decoder::default();
        let line = format!("data: {}\n", "y".repeat(1 << 16));
        let error = (0..100).find_map(|_| decoder.push(line.as_bytes()).err());
        assert_eq!(error, Some(SseError::TooLong));
        assert_eq!(Decoder::default().push(b"data: \xff\n"), Err(SseError::NotUtf8));
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_does_not_matter(
            data in proptest::collection::vec("[a-z\u{e4}\u{1f600}:]{0,8}", 0..6),
            ending in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
            size in 1usize..7,
        ) {
            let text: String = data.iter().map(|d| format!("event: e{ending}data: {d}{ending}{ending}")).collect();
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            prop_assert_eq!(decode(&chunks), decode(&[text.as_bytes()]));
            prop_assert_eq!(decode(&chunks).len(), data.len());
        }
    }
}
