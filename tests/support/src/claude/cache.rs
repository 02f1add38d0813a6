//! The provider's prompt cache and its way of counting.

use std::collections::HashSet;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// What one request's input was.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    pub(super) input: u64,
    pub(super) cache_read: u64,
    pub(super) cache_write: u64,
}

/// The prefixes that were written.
#[derive(Debug, Default)]
pub(super) struct Cache {
    written: HashSet<Vec<u8>>,
}

/// A breakpoint finds a prefix that ends at most this many blocks before it.
const LOOK_BACK: usize = 20;

impl Cache {
    /// Counts a request's input and remembers its prefixes.
    pub(super) fn count(&mut self, request: &Value) -> Usage {
        let blocks = blocks_of(request);
        let mut prefixes = Vec::new();
        let (mut hasher, mut tokens) = (Sha256::new(), 0);
        hasher.update(request["model"].to_string());
        for (block, _) in &blocks {
            hasher.update(block);
            hasher.update([0]);
            tokens += tokens_of(block);
            prefixes.push((hasher.clone().finalize().to_vec(), tokens));
        }
        let mut breakpoints: Vec<usize> = (0..blocks.len()).filter(|index| blocks[*index].1).collect();
        if !request["cache_control"].is_null() && !blocks.is_empty() {
            breakpoints.push(blocks.len() - 1);
        }
        let found = |at: &usize| {
            (at.saturating_sub(LOOK_BACK)..=*at).rev().find(|i| self.written.contains(&prefixes[*i].0))
        };
        let read = breakpoints.iter().filter_map(found).max().map_or(0, |index| prefixes[index].1);
        let last = breakpoints.iter().max().map_or(0, |index| prefixes[*index].1);
        self.written.extend(breakpoints.iter().map(|index| prefixes[*index].0.clone()));
        Usage { input: tokens - last.max(read), cache_read: read, cache_write: last.saturating_sub(read) }
    }
}

/// Tokens of a whole request.
pub(super) fn tokens_of_request(request: &Value) -> u64 {
    blocks_of(request).iter().map(|(block, _)| tokens_of(block)).sum()
}

fn tokens_of(block: &str) -> u64 {
    1 + block.len() as u64 / 4
}

/// Every cacheable block in the provider's order, and whether it is a breakpoint.
fn blocks_of(request: &Value) -> Vec<(String, bool)> {
    let mut blocks = Vec::new();
    let mut add = |owner: &str, block: &Value| {
        let mut block = block.clone();
        let marked = block.as_object_mut().and_then(|block| block.remove("cache_control")).is_some();
        blocks.push((format!("{owner}{block}"), marked));
    };
    for owner in ["tools", "system"] {
        add_all(&request[owner], owner, &mut add);
    }
    for message in request["messages"].as_array().into_iter().flatten() {
        add_all(&message["content"], message["role"].as_str().unwrap_or_default(), &mut add);
    }
    blocks
}

/// Content is a list of blocks, or text that stands for one.
fn add_all(content: &Value, owner: &str, add: &mut impl FnMut(&str, &Value)) {
    match content.as_array() {
        Some(blocks) => blocks.iter().for_each(|block| add(owner, block)),
        None if content.is_string() => add(owner, &serde_json::json!({ "type": "text", "text": content })),
        None => {}
    }
}
