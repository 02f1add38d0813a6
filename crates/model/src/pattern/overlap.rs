//! Whether two patterns have a path in common.

use super::{Component, Token};

pub(super) fn paths_overlap(ours: &[Component], theirs: &[Component]) -> bool {
    sequences_overlap(
        ours,
        theirs,
        |component| *component == Component::AnyDepth,
        |ours, theirs| match (ours, theirs) {
            (Component::Name(ours), Component::Name(theirs)) => names_overlap(ours, theirs),
            (Component::AnyDepth, _) | (_, Component::AnyDepth) => true,
        },
    )
}

fn names_overlap(ours: &[Token], theirs: &[Token]) -> bool {
    sequences_overlap(ours, theirs, |token| *token == Token::AnyRun, characters_overlap)
}

fn characters_overlap(ours: &Token, theirs: &Token) -> bool {
    match (ranges(ours), ranges(theirs)) {
        (Some(ours), Some(theirs)) => ours.iter().any(|(a, b)| theirs.iter().any(|(c, d)| a <= d && c <= b)),
        (None, _) | (_, None) => true,
    }
}

/// The characters of a token; none when it is any character.
fn ranges(token: &Token) -> Option<Vec<(char, char)>> {
    match token {
        Token::Literal(c) => Some(vec![(*c, *c)]),
        Token::Class(ranges) => Some(ranges.clone()),
        Token::AnyCharacter | Token::AnyRun => None,
    }
}

/// Whether two sequences with wildcards for any number of items match some sequence in common. `row[j]` says
/// whether what remains of ours from `i` and of theirs from `j` do.
fn sequences_overlap<P>(
    ours: &[P],
    theirs: &[P],
    is_run: impl Fn(&P) -> bool,
    overlaps: impl Fn(&P, &P) -> bool,
) -> bool {
    let mut row = vec![true; theirs.len() + 1];
    for j in (0..theirs.len()).rev() {
        row[j] = row[j + 1] && is_run(&theirs[j]);
    }
    for our_item in ours.iter().rev() {
        let below = row.clone();
        row[theirs.len()] = below[theirs.len()] && is_run(our_item);
        for (j, their_item) in theirs.iter().enumerate().rev() {
            row[j] = if is_run(our_item) || is_run(their_item) {
                // A run takes nothing, or one more item of the other side.
                below[j] || row[j + 1]
            } else {
                below[j + 1] && overlaps(our_item, their_item)
            };
        }
    }
    row[0]
}
