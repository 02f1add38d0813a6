//! YAML as a tree in which every node knows its place.
//!
//! A document is data here, never a program: anchors, aliases, merge keys, tags, directives and second
//! documents are refused, duplicate keys too. The tree is decoded elsewhere, field by field, so that one
//! wrong value does not hide the next. The syntax itself is read by `granit-parser`.

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StructureStyle};

use super::findings::{Findings, Position};

/// The largest text that is read, in bytes.
pub(super) const LARGEST: usize = 1024 * 1024;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) at: Position,
    /// The bytes of a scalar, quotes included; meaningless for the others.
    pub(super) bytes: Range<usize>,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    /// `true` and not `"true"`: text that YAML may take for something else.
    Plain(String),
    /// Quoted text or a block of text.
    Text(String),
    Sequence(Vec<Node>),
    Mapping(Mapping),
    /// Something that was refused and reported already.
    Refused,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Mapping {
    pub(super) entries: Vec<Entry>,
    /// Written as `{…}`.
    pub(super) is_flow: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Position,
    /// Where the key begins, in bytes.
    pub(super) start: usize,
    pub(super) value: Node,
}

/// Reads one document. None when there is no tree at all; the findings say why.
pub(super) fn read(content: &[u8], findings: &mut Findings) -> Option<Node> {
    let text = text_of(content, findings)?;
    let mut tree = Tree { events: Parser::new_from_str_with_options(text, options()), findings };
    match tree.document() {
        Ok(node) => node,
        Err(error) => {
            let at = position(error.marker().line(), error.marker().col());
            findings.problem(
                at,
                format!("this is not YAML: {}; expected a YAML document", error.kind()),
                hint_at(text, at),
            );
            None
        }
    }
}

fn text_of<'a>(content: &'a [u8], findings: &mut Findings) -> Option<&'a str> {
    if content.len() > LARGEST {
        let message = format!("the file has {} bytes; expected at most {LARGEST}", content.len());
        findings.problem(Position::START, message, None);
        return None;
    }
    match std::str::from_utf8(content) {
        Ok(text) => Some(text),
        Err(error) => {
            let before = String::from_utf8_lossy(&content[..error.valid_up_to()]);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
            let byte = content[error.valid_up_to()];
            let message = format!("the byte 0x{byte:02x} is not UTF-8; expected UTF-8 text");
            findings.problem(position(line, column), message, Some("save the file as UTF-8".to_owned()));
            None
        }
    }
}

fn options() -> granit_parser::Options {
    granit_parser::options! {
        emit_unresolved_aliases: true,
        disallow_directives: true,
        // Another user of the parser in the same build may have switched them on.
        emit_comments: false,
        block_nesting_limit: 64,
        flow_nesting_limit: 64,
    }
}

/// The mistake that the parser's message names least clearly.
fn hint_at(text: &str, at: Position) -> Option<String> {
    let line = text.lines().nth(at.line.checked_sub(1)? as usize)?;
    let indent: String = line.chars().take_while(|c| c.is_whitespace()).collect();
    indent.contains('\t').then(|| "indent with spaces; YAML does not take tabs".to_owned())
}

type Events<'text> = Parser<'text, granit_parser::StrInput<'text>>;
type Read<T> = Result<T, ScanError>;

struct Tree<'text, 'findings> {
    events: Events<'text>,
    findings: &'findings mut Findings,
}

impl Tree<'_, '_> {
    fn document(&mut self) -> Read<Option<Node>> {
        let mut root = None;
        while let Some((event, span)) = self.events.next_event().transpose()? {
            #[expect(clippy::wildcard_enum_match_arm, reason = "all other events begin a node")]
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(..) if root.is_some() => {
                    let message = "a second document begins; expected one document in the file".to_owned();
                    self.findings.problem(start(&span), message, Some("remove the `---`".to_owned()));
                    break;
                }
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                event => root = Some(self.node(event, &span)?),
            }
        }
        if root.is_none() {
            self.findings.problem(Position::START, "the file is empty; expected a mapping".to_owned(), None);
        }
        Ok(root)
    }

    /// The node that begins with `event`.
    fn node(&mut self, event: Event<'_>, span: &Span) -> Read<Node> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the parser may add events; what is no plain data is refused"
        )]
        let value = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_properties(span, anchor, tag.is_some());
                match style {
                    ScalarStyle::Plain => Value::Plain(text.into_owned()),
                    ScalarStyle::SingleQuoted
                    | ScalarStyle::DoubleQuoted
                    | ScalarStyle::Literal
                    | ScalarStyle::Folded => Value::Text(text.into_owned()),
                }
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_properties(span, anchor, tag.is_some());
                Value::Sequence(self.items()?)
            }
            Event::MappingStart(style, anchor, tag) => {
                self.refuse_properties(span, anchor, tag.is_some());
                let is_flow = style == StructureStyle::Flow;
                Value::Mapping(Mapping { entries: self.entries()?, is_flow })
            }
            _ => {
                let message = "an alias (`*name`) stands here; expected the value itself".to_owned();
                self.findings.problem(start(span), message, Some("write the value out".to_owned()));
                Value::Refused
            }
        };
        Ok(Node { value, at: start(span), bytes: span.byte_range().unwrap_or_default() })
    }

    fn items(&mut self) -> Read<Vec<Node>> {
        let mut items = Vec::new();
        while let Some((event, span)) = self.events.next_event().transpose()? {
            if event == Event::SequenceEnd {
                break;
            }
            items.push(self.node(event, &span)?);
        }
        Ok(items)
    }

    fn entries(&mut self) -> Read<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut seen: HashMap<String, Position> = HashMap::new();
        while let Some((event, span)) = self.events.next_event().transpose()? {
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, &span)?;
            let Some((event, span)) = self.events.next_event().transpose()? else { break };
            let value = self.node(event, &span)?;
            let Some(text) = self.key_text(&key) else { continue };
            if let Some(first) = seen.get(&text) {
                let message = format!(
                    "`{}` is given twice, first in line {}; expected it once",
                    shown(&text),
                    first.line
                );
                self.findings.problem(key.at, message, Some("remove one of the two".to_owned()));
                continue;
            }
            seen.insert(text.clone(), key.at);
            entries.push(Entry { key: text, at: key.at, start: key.bytes.start, value });
        }
        Ok(entries)
    }

    fn key_text(&mut self, key: &Node) -> Option<String> {
        match &key.value {
            Value::Plain(text) if text == "<<" => {
                let message = "a merge key (`<<`) stands here; expected the fields themselves".to_owned();
                self.findings.problem(key.at, message, Some("write the fields out".to_owned()));
                None
            }
            Value::Plain(text) | Value::Text(text) => Some(text.clone()),
            Value::Sequence(_) | Value::Mapping(_) => {
                let message = "a list or mapping stands as a key; expected a name".to_owned();
                self.findings.problem(key.at, message, None);
                None
            }
            Value::Refused => None,
        }
    }

    fn refuse_properties(&mut self, span: &Span, anchor: usize, has_tag: bool) {
        if anchor != 0 {
            let message = "an anchor (`&name`) stands here; expected the value alone".to_owned();
            self.findings.problem(
                start(span),
                message,
                Some("write the value out where it is needed".to_owned()),
            );
        }
        if has_tag {
            let message = "a tag (`!name`) stands here; expected the value alone".to_owned();
            self.findings.problem(start(span), message, Some("remove the tag".to_owned()));
        }
    }
}

/// Text of the document as a message may hold it: short, one line, without control characters.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 60;
    let visible = text.chars().take(LONGEST).flat_map(|c| {
        if crate::path::is_hidden(c) { c.escape_default().collect::<Vec<_>>() } else { vec![c] }
    });
    let mut shown: String = visible.collect();
    if text.chars().count() > LONGEST {
        shown.push('…');
    }
    shown
}

fn start(span: &Span) -> Position {
    position(span.start.line(), span.start.col())
}

/// The parser counts lines from 1 and columns from 0.
fn position(line: usize, column: usize) -> Position {
    let bounded = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Position { line: bounded(line.max(1)), column: bounded(column + 1) }
}
