//! The one way to a terminal. Whatever the control plane sent was written by repositories, agents and checks:
//! here it loses everything that a terminal would obey, and nowhere else does text reach the screen.
//!
//! A [`Span`] keeps text and look apart, so that our own colours survive and nobody else's do. Knows nothing
//! of attempts, tasks or HTTP.

use std::borrow::Cow;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use model::event::Timestamp;
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

/// How a command answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people: tables and paragraphs, cleaned of control characters.
    Table,
    /// For programs: the answer of the control plane, exact.
    Json,
}

/// Where answers go, and how they look there.
pub(crate) struct Screen<'a> {
    out: Box<dyn Write + 'a>,
    /// For people or for programs.
    pub(crate) format: Format,
    /// How many columns a line may take; no bound when it is no terminal.
    pub(crate) width: Option<usize>,
    /// Whether a person looks at a terminal. Raw bytes are for everything else.
    pub(crate) is_terminal: bool,
    /// Whether our own spans may carry colours.
    pub(crate) is_coloured: bool,
    /// The moment that ages are counted to.
    pub(crate) now: Timestamp,
}

/// What a piece of text is to the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing special.
    Plain,
    /// A heading or the thing asked for.
    Strong,
    /// A detail.
    Faint,
    /// It went well.
    Good,
    /// It waits or needs a look.
    Waiting,
    /// It went wrong.
    Bad,
}

/// A piece of a line. The text may hold anything; it is cleaned when it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) text: String,
    pub(crate) look: Look,
}

/// Text without a look of its own.
pub(crate) fn plain(text: impl ToString) -> Span {
    Span { text: text.to_string(), look: Look::Plain }
}

/// A heading or the thing asked for.
pub(crate) fn strong(text: impl ToString) -> Span {
    Span { text: text.to_string(), look: Look::Strong }
}

/// A detail.
pub(crate) fn faint(text: impl ToString) -> Span {
    Span { text: text.to_string(), look: Look::Faint }
}

impl<'a> Screen<'a> {
    /// A screen that writes to `out`, for no terminal until its fields say otherwise.
    pub(crate) fn new(out: impl Write + 'a, format: Format, now: Timestamp) -> Self {
        Self { out: Box::new(out), format, width: None, is_terminal: false, is_coloured: false, now }
    }

    /// Writes one line of cleaned spans.
    pub(crate) fn line(&mut self, spans: &[Span]) -> io::Result<()> {
        let mut line = String::new();
        for span in spans {
            self.paint(&mut line, &clean(&span.text), span.look);
        }
        self.out.write_all(line.trim_end_matches(' ').as_bytes())?;
        self.out.write_all(b"\n")
    }

    /// Writes an empty line.
    pub(crate) fn blank(&mut self) -> io::Result<()> {
        self.out.write_all(b"\n")
    }

    /// Writes text of several lines, each behind `indent`. A line end of the text is the only control
    /// character that is obeyed.
    pub(crate) fn block(&mut self, indent: &str, text: &str) -> io::Result<()> {
        for line in text.lines() {
            self.line(&[plain(format!("{indent}{}", line.replace('\t', "    ")))])?;
        }
        Ok(())
    }

    /// Writes `value` as indented JSON, exactly.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut self.out, value)?;
        self.blank()
    }

    /// Writes `value` as one line of JSON, exactly.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value)?;
        self.blank()
    }

    /// Writes bytes as they are. Only for what is no terminal.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Lets the reader see everything that was written so far.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn paint(&self, line: &mut String, text: &str, look: Look) {
        let style = match look {
            Look::Plain => Style::new(),
            Look::Strong => Style::new().bold(),
            Look::Faint => Style::new().dimmed(),
            Look::Good => AnsiColor::Green.on_default(),
            Look::Waiting => AnsiColor::Yellow.on_default(),
            Look::Bad => AnsiColor::Red.on_default(),
        };
        if self.is_coloured {
            line.push_str(&format!("{style}{text}{style:#}"));
        } else {
            line.push_str(text);
        }
    }
}

/// The text with everything that could move, recolour, retitle, reorder or fool a terminal made visible:
/// C0 and C1 controls, line and paragraph separators, bidirectional and other invisible format characters.
/// Plain colour sequences, with which checks print their logs, are dropped.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        if let Some(length) = colour_sequence(rest) {
            rest = &rest[length..];
            continue;
        }
        if is_unsafe(next) {
            cleaned.extend(next.escape_default());
        } else {
            cleaned.push(next);
        }
        rest = &rest[next.len_utf8()..];
    }
    Cow::Owned(cleaned)
}

/// How many columns a terminal gives the text once it is clean.
pub(crate) fn columns(text: &str) -> usize {
    clean(text).width()
}

/// The text cut to `width` columns, with an ellipsis for what is gone. Cleans it, since escapes take columns.
pub(crate) fn cut(text: &str, width: usize) -> String {
    let text = clean(text);
    if text.width() <= width {
        return text.into_owned();
    }
    let mut kept = String::new();
    for character in text.chars() {
        kept.push(character);
        if kept.width() + 1 > width {
            kept.pop();
            break;
        }
    }
    kept + "…"
}

/// The length of the select-graphic-rendition sequence that `text` begins with: `ESC [ digits and ; m`.
fn colour_sequence(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let length = parameters.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    parameters[length..].starts_with('m').then_some("\u{1b}[".len() + length + 1)
}

fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0e}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        let rows = [
            ("plain text, Ünïcode, 日本語 and 🚀", "plain text, Ünïcode, 日本語 and 🚀"),
            ("clear \u{1b}[2J screen", "clear \\u{1b}[2J screen"),
            ("title \u{1b}]0;owned\u{7}", "title \\u{1b}]0;owned\\u{7}"),
            ("clipboard \u{1b}]52;c;cm0gLXJm\u{1b}\\", "clipboard \\u{1b}]52;c;cm0gLXJm\\u{1b}\\"),
            ("link \u{1b}]8;;http://evil\u{7}text", "link \\u{1b}]8;;http://evil\\u{7}text"),
            ("device control \u{1b}Pq\u{1b}\\", "device control \\u{1b}Pq\\u{1b}\\"),
            ("8-bit \u{9b}31m and \u{9d}0;x\u{9c}", "8-bit \\u{9b}31m and \\u{9d}0;x\\u{9c}"),
            ("over\rwrite", "over\\rwrite"),
            ("two\nlines", "two\\nlines"),
            (
                "back\u{8}space, bell\u{7}, nul\u{0}, del\u{7f}",
                "back\\u{8}space, bell\\u{7}, nul\\u{0}, del\\u{7f}",
            ),
            ("vertical\u{b}tab\u{c}feed\ttab", "vertical\\u{b}tab\\u{c}feed\\ttab"),
            ("next\u{85}line\u{2028}separator\u{2029}", "next\\u{85}line\\u{2028}separator\\u{2029}"),
            ("src/\u{202e}txt.exe", "src/\\u{202e}txt.exe"),
            ("\u{2066}isolate\u{2069}\u{200f}\u{61c}", "\\u{2066}isolate\\u{2069}\\u{200f}\\u{61c}"),
            ("zero\u{200b}width\u{feff}", "zero\\u{200b}width\\u{feff}"),
            ("tag\u{e0041}", "tag\\u{e0041}"),
            ("\u{1b}[1;32mPASSED\u{1b}[0m", "PASSED"),
            ("\u{1b}[\u{1b}[31mm31m", "\\u{1b}[m31m"),
            ("\u{1b}[31", "\\u{1b}[31"),
            ("\u{1b}[?1049h", "\\u{1b}[?1049h"),
            ("\u{1b}", "\\u{1b}"),
        ];
        for (given, expected) in rows {
            assert_eq!(clean(given), expected);
            assert!(!clean(given).chars().any(is_unsafe), "{given:?}");
        }
    }

    #[test]
    fn every_control_character_there_is_becomes_visible() {
        for character in (0..=0x9f).filter_map(char::from_u32).filter(|c| c.is_control()) {
            assert!(clean(&format!("a{character}b")).chars().all(|c| !c.is_control()), "{character:?}");
        }
    }

    #[test]
    fn a_cut_text_takes_no_more_columns_than_it_may() {
        for text in
            ["short", "a rather long title of a task", "日本語日本語日本語", "\u{1b}\u{1b}\u{1b}\u{1b}"]
        {
            for width in 1..30 {
                assert!(columns(&cut(text, width)) <= width, "{text:?} {width}");
            }
        }
        assert_eq!(cut("a rather long title", 9), "a rather…");
        assert_eq!(cut("日本語", 5), "日本…");
    }

    #[test]
    fn our_colours_survive_and_theirs_do_not() {
        let mut written = Vec::new();
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut screen = Screen::new(&mut written, Format::Table, now);
        screen.is_coloured = true;
        screen.line(&[Span { text: "\u{1b}[31mgreen\u{1b}[2J".to_owned(), look: Look::Good }]).unwrap();
        drop(screen);
        assert_eq!(String::from_utf8(written).unwrap(), "\u{1b}[32mgreen\\u{1b}[2J\u{1b}[0m\n");
    }
}
