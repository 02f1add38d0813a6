//! Where in a list something stands.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

/// So many entries are shared or copied together, on average at most.
const PART: usize = 512;

/// Finds places by the hash of a key. The keys themselves stand in the list, in the order in which they were added here;
/// whoever asks looks there.
#[derive(Clone, Default)]
pub struct Index {
    hasher: RandomState,
    parts: Vec<Arc<HashTable<Entry>>>,
    entries: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    hash: u32,
    place: u32,
}

impl Index {
    /// How many keys were added.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The place that `is_there` knows as the one of the key.
    pub fn find<K: Hash>(&self, key: &K, is_there: impl Fn(usize) -> bool) -> Option<usize> {
        let wanted = self.entry(key, 0);
        let is_wanted = |entry: &Entry| entry.hash == wanted.hash && is_there(entry.place as usize);
        let part = self.parts.get(wanted.part(self.parts.len()))?;
        part.find(wanted.spread(), is_wanted).map(|entry| entry.place as usize)
    }

    /// Adds the key of the next place. Of two places of the same key either may be found.
    pub fn push<K: Hash>(&mut self, key: &K) {
        if self.entries == self.parts.len() * PART {
            self.grow();
        }
        self.add(self.entry(key, self.entries));
        self.entries += 1;
    }

    /// Adds the keys of the next places.
    pub fn extend<K: Hash>(&mut self, keys: impl Iterator<Item = K>) {
        let new: Vec<K> = keys.collect();
        if new.len() <= self.entries {
            new.iter().for_each(|key| self.push(key));
            return;
        }
        // Much is arranged part by part, each while it is at hand.
        let count = (self.entries + new.len()).div_ceil(PART);
        let mut parts = vec![Vec::new(); count];
        let old = self.parts.iter().flat_map(|part| part.iter().copied());
        let new = new.iter().zip(self.entries..).map(|(key, place)| self.entry(key, place));
        for entry in old.chain(new) {
            parts[entry.part(count)].push(entry);
        }
        self.entries = parts.iter().map(Vec::len).sum();
        self.parts = parts.into_iter().map(|entries| Arc::new(table_of(&entries))).collect();
    }

    /// Adds a part, and moves what belongs there from the one part that has it. So no insertion ever waits for more
    /// than one part to be arranged anew.
    fn grow(&mut self) {
        let added = self.parts.len();
        self.parts.push(Arc::default());
        let divided = added - self.parts.len().next_power_of_two() / 2;
        for entry in std::mem::take(&mut self.parts[divided]).iter() {
            self.add(*entry);
        }
    }

    fn add(&mut self, entry: Entry) {
        let part = entry.part(self.parts.len());
        Arc::make_mut(&mut self.parts[part]).insert_unique(entry.spread(), entry, Entry::spread);
    }

    /// The half of a hash is enough: who looks compares the keys.
    fn entry<K: Hash>(&self, key: &K, place: usize) -> Entry {
        let place = u32::try_from(place).expect("no memory holds so many entries");
        Entry { hash: self.hasher.hash_one(key) as u32, place }
    }
}

fn table_of(entries: &[Entry]) -> HashTable<Entry> {
    let mut table = HashTable::with_capacity(entries.len());
    for entry in entries {
        table.insert_unique(entry.spread(), *entry, Entry::spread);
    }
    table
}

impl Entry {
    /// A hash for the table of one part. Its low bits choose the place there, and must come from all bits of the hash:
    /// in one part the low ones are alike.
    fn spread(&self) -> u64 {
        u64::from(self.hash).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
    }

    /// In which of `count` parts it is: by as many bits of the hash as number them, and where they number too many, by
    /// one bit less.
    fn part(self, count: usize) -> usize {
        let numbered = count.next_power_of_two();
        let part = self.hash as usize & (numbered - 1);
        if part < count { part } else { part - numbered / 2 }
    }
}

impl fmt::Debug for Index {
    /// What is in it follows from the list, and its order from chance.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("entries", &self.entries).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: usize) -> Vec<String> {
        (0..count).map(|n| n.to_string()).collect()
    }

    fn pushed(keys: &[String]) -> Index {
        let mut index = Index::default();
        keys.iter().for_each(|key| index.push(key));
        index
    }

    fn check(index: &Index, keys: &[String]) {
        for (place, key) in keys.iter().enumerate() {
            assert_eq!(index.find(key, |at| keys[at] == *key), Some(place));
        }
        let other = "another".to_owned();
        assert_eq!(index.find(&other, |at| keys[at] == other), None);
        assert_eq!(index.len(), keys.len());
        assert_eq!(index.parts.iter().map(|part| part.len()).sum::<usize>(), keys.len());
        assert!(index.parts.iter().all(|part| part.len() < 3 * PART), "the parts are of a size");
    }

    #[test]
    fn every_key_is_found_however_many_there_are() {
        for count in [0, 1, PART, PART + 1, 10 * PART + 3] {
            let keys = keys(count);
            check(&pushed(&keys), &keys);
            for few in [0, 1, count / 3, count - count / 3] {
                let mut index = pushed(&keys[..few.min(count)]);
                index.extend(keys[index.len()..].iter());
                check(&index, &keys);
                index.extend(keys[..0].iter());
                check(&index, &keys);
            }
        }
    }

    #[test]
    fn a_copy_does_not_know_what_was_added_since_and_shares_the_rest() {
        let keys = keys(4 * PART + 1);
        let mut index = pushed(&keys[..4 * PART]);
        let copy = index.clone();
        index.push(&keys[4 * PART]);
        let last = |index: &Index| index.find(&keys[4 * PART], |at| at == 4 * PART);
        assert_eq!((last(&index), last(&copy)), (Some(4 * PART), None));
        let shared = index.parts.iter().zip(&copy.parts).filter(|(one, other)| Arc::ptr_eq(one, other));
        assert!(shared.count() >= 2);
    }
}
