//! From the text of a pattern to what is matched. Whatever could be meant in two ways is refused here.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

use super::{Alternative, Component, Token};

/// The bounds that keep matching cheap: bytes of text, and ways through its `{…}`.
const LONGEST: usize = 1024;
const MOST_ALTERNATIVES: usize = 64;

type Problem = Cow<'static, str>;

pub(super) fn alternatives(text: &str) -> Result<Vec<Alternative>, Problem> {
    refuse_whole(text)?;
    let text: String = text.nfc().collect();
    let expanded = expand(&text)?;
    expanded.iter().map(|text| components(text).map(Alternative::new)).collect()
}

fn refuse_whole(text: &str) -> Result<(), Problem> {
    if text.is_empty() {
        return Err("it is empty; write a path, or `**` for every path".into());
    }
    if text.len() > LONGEST {
        return Err(format!("it is longer than {LONGEST} bytes").into());
    }
    if let Some(hidden) = text.chars().find(|c| crate::path::is_hidden(*c)) {
        return Err(format!("it holds the control or invisible character U+{:04X}", u32::from(hidden)).into());
    }
    if text.trim() != text {
        return Err("it begins or ends with white space".into());
    }
    if text.starts_with('!') {
        return Err("patterns are not negated; put what must not change under `forbidden_patterns`".into());
    }
    if text.contains('\\') {
        return Err("it holds a backslash; paths use `/`, and nothing is escaped".into());
    }
    Ok(())
}

/// Writes out every way through the `{…}` of a pattern, from the left.
fn expand(text: &str) -> Result<Vec<String>, Problem> {
    let mut finished = Vec::new();
    let mut open = vec![text.to_owned()];
    while let Some(text) = open.pop() {
        match first_choice(&text)? {
            None => finished.push(text),
            Some((before, choices, after)) => {
                open.extend(choices.iter().rev().map(|choice| format!("{before}{choice}{after}")));
            }
        }
        if finished.len() + open.len() > MOST_ALTERNATIVES {
            return Err(format!("its `{{…}}` stand for more than {MOST_ALTERNATIVES} patterns").into());
        }
    }
    Ok(finished)
}

/// The text before the first `{…}`, its choices, and the text after it.
type Choice<'a> = (&'a str, Vec<&'a str>, &'a str);

fn first_choice(text: &str) -> Result<Option<Choice<'_>>, Problem> {
    let mut in_class = false;
    let mut depth = 0;
    let mut start = 0;
    let mut marks = Vec::new();
    for (at, c) in text.char_indices() {
        match c {
            '[' if in_class => return Err("a `[` stands inside `[…]`".into()),
            '[' => in_class = true,
            ']' => in_class = false,
            '{' | '}' if in_class => return Err("a brace stands inside `[…]`".into()),
            '{' => {
                depth += 1;
                if depth == 1 {
                    start = at;
                    marks.push(at);
                }
            }
            ',' if depth == 1 && !in_class => marks.push(at),
            '}' if depth == 0 => return Err("a `}` has no `{`".into()),
            '}' => {
                depth -= 1;
                if depth == 0 {
                    marks.push(at);
                    if marks.len() < 3 {
                        return Err("a `{…}` has only one choice; write `{a,b}`".into());
                    }
                    let choices = marks.windows(2).map(|pair| &text[pair[0] + 1..pair[1]]).collect();
                    return Ok(Some((&text[..start], choices, &text[at + 1..])));
                }
            }
            _ => {}
        }
    }
    if depth > 0 { Err("a `{` is not closed".into()) } else { Ok(None) }
}

fn components(text: &str) -> Result<Vec<Component>, Problem> {
    if text.starts_with('/') {
        return Err("it begins with `/`; patterns are relative to the root of the repository".into());
    }
    // `folder/` is everything below the folder.
    let text = if text.ends_with('/') { Cow::from(format!("{text}**")) } else { Cow::from(text) };
    let mut components = Vec::new();
    for name in text.split('/') {
        let component = component(name)?;
        if component != Component::AnyDepth || components.last() != Some(&Component::AnyDepth) {
            components.push(component);
        }
    }
    // Patterns match files: `folder/**` needs a name below the folder.
    if components.last() == Some(&Component::AnyDepth) {
        components.push(Component::Name(vec![Token::AnyRun]));
    }
    Ok(components)
}

fn component(name: &str) -> Result<Component, Problem> {
    match name {
        "" => Err("it has an empty component".into()),
        "." | ".." => Err(format!("`{name}` is no component of a pattern").into()),
        "**" => Ok(Component::AnyDepth),
        _ if name.contains("**") => {
            Err("`**` must stand alone between slashes; inside a name write `*`".into())
        }
        _ => tokens(name).map(Component::Name),
    }
}

fn tokens(name: &str) -> Result<Vec<Token>, Problem> {
    let mut tokens = Vec::new();
    let mut rest = name.chars();
    while let Some(c) = rest.next() {
        tokens.push(match c {
            '?' => Token::AnyCharacter,
            '*' => Token::AnyRun,
            ']' => return Err("a `]` has no `[`".into()),
            '[' => {
                let Some((inside, after)) = rest.as_str().split_once(']') else {
                    return Err("a `[` is not closed in its component".into());
                };
                rest = after.chars();
                class(inside)?
            }
            _ => Token::Literal(c),
        });
    }
    Ok(tokens)
}

fn class(inside: &str) -> Result<Token, Problem> {
    let members: Vec<char> = inside.chars().collect();
    if members.is_empty() {
        return Err("`[]` holds no character".into());
    }
    if matches!(members[0], '!' | '^') {
        return Err("`[…]` is not negated; list the characters that may stand there".into());
    }
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < members.len() {
        let (first, last, length) = match members[at..] {
            [first, '-', last, ..] => (first, last, 3),
            [only, ..] => (only, only, 1),
            [] => unreachable!("`at` is inside `members`"),
        };
        if first > last {
            return Err(format!("the range `{first}-{last}` runs backwards").into());
        }
        if first <= '/' && '/' <= last {
            return Err(format!("the range `{first}-{last}` holds `/`, which separates components").into());
        }
        ranges.push((first, last));
        at += length;
    }
    Ok(Token::Class(ranges))
}
