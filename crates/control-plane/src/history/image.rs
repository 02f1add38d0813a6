//! A history as pieces of bytes, and back. The same history has the same pieces, however it came to be.
//!
//! What follows from other parts is not in them: where something stands is found out anew.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use journal::ChainHash;
use model::graph::{Attempt, GraphParts, Outline, Task};
use model::sharing::{Index, List};
use model::{Event, EventKind, Graph, TargetId};
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{History, IdKey, Recent};
use crate::cache::{Cached, Unusable, numbers, read_numbers};

/// What there is one or few of.
#[derive(Serialize, Deserialize)]
struct Frame {
    graph: Outline,
    recent: Vec<(u64, [u8; 32], [u8; 32], Event)>,
    /// What the numbers in the column of types mean.
    types: Vec<String>,
    /// What the numbers in the column of targets mean.
    targets: Vec<TargetId>,
}

impl History {
    /// The history in bytes.
    pub(crate) fn to_pieces(&self) -> Result<Vec<Vec<u8>>, rmp_serde::encode::Error> {
        let GraphParts { outline, tasks, attempts } = self.graph.to_parts();
        let recent = self.recent.iter().map(|Recent { seq, hash, prev_hash, event }| {
            (*seq, *hash.as_bytes(), *prev_hash.as_bytes(), event.clone())
        });
        let frame = Frame {
            graph: outline,
            recent: recent.collect(),
            types: EventKind::TYPES.iter().map(ToString::to_string).collect(),
            targets: self.by_target.keys().cloned().collect(),
        };
        let tasks: Vec<&Task> = tasks.iter().map(|task| &**task).collect();
        let attempts: Vec<&Attempt> = attempts.iter().map(|attempt| &**attempt).collect();
        Ok(vec![
            rmp_serde::to_vec_named(&frame)?,
            rmp_serde::to_vec_named(&tasks)?,
            rmp_serde::to_vec_named(&attempts)?,
            self.ids.iter().flatten().copied().collect(),
            numbers(differences(&self.times)),
            numbers(self.column_of(self.by_type.iter())),
            numbers(self.column_of(self.by_target.values())),
        ])
    }

    /// For each record the number of the list that has it, counted from 1; 0 where none has.
    fn column_of<'a>(&self, lists: impl Iterator<Item = &'a List<u64>>) -> Vec<u64> {
        let mut column = vec![0; self.ids.len()];
        for (list, number) in lists.zip(1..) {
            for seq in list.iter() {
                column[usize::try_from(*seq).unwrap_or(usize::MAX) - 1] = number;
            }
        }
        column
    }

    /// A history that says something else of one record.
    #[cfg(test)]
    pub(crate) fn with_another_time(mut self, seq: usize) -> Self {
        if let Some(time) = self.times.get_mut(seq - 1) {
            *time += 1;
        }
        self
    }

    /// The history that the pieces from `first` on are of.
    pub(crate) fn from_pieces(cached: &Cached, first: usize) -> Result<Self, Unusable> {
        // Attempts are about as much work as everything else together.
        let (attempts, rest) = std::thread::scope(|scope| {
            let attempts = scope.spawn(|| decoded::<Shared<Attempt>>(cached.piece(first + 2)?));
            let rest = Self::without_attempts(cached, first);
            (attempts.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), rest)
        });
        let (mut parts, history) = rest?;
        parts.attempts = attempts?.0;
        let graph = Graph::from_parts(parts).map_err(|problem| Unusable::Content(problem.to_string()))?;
        if graph.head() as usize != history.ids.len() || graph.head() as usize != history.times.len() {
            return Err(Unusable::Content("its parts are of different lengths".to_owned()));
        }
        Ok(Self { graph, ..history })
    }

    fn without_attempts(cached: &Cached, first: usize) -> Result<(GraphParts, Self), Unusable> {
        let Frame { graph, recent, types, targets } = decoded(cached.piece(first)?)?;
        if types != EventKind::TYPES {
            return Err(Unusable::Content("it has other types of events".to_owned()));
        }
        let Shared(tasks) = decoded(cached.piece(first + 1)?)?;
        let (ids, places_of_ids) = ids_of(cached.piece(first + 3)?);
        let times = summed(&read_numbers(cached.piece(first + 4)?)?);
        let by_type = lists_of(&read_numbers(cached.piece(first + 5)?)?, types.len())?;
        let by_target = lists_of(&read_numbers(cached.piece(first + 6)?)?, targets.len())?;
        let recent = recent.into_iter().map(|(seq, hash, prev_hash, event)| {
            let (hash, prev_hash) = (ChainHash::from_bytes(hash), ChainHash::from_bytes(prev_hash));
            Recent { seq, hash, prev_hash, event }
        });
        let history = Self {
            graph: Graph::default(),
            ids,
            places_of_ids,
            times,
            by_target: targets.into_iter().zip(by_target).collect(),
            by_type,
            recent: recent.collect(),
        };
        Ok((GraphParts { outline: graph, tasks, attempts: List::default() }, history))
    }
}

/// A list of what is shared once it was read.
struct Shared<T>(List<Arc<T>>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
            type Value = Shared<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Shared<T>, A::Error> {
                let mut list = List::default();
                while let Some(element) = elements.next_element()? {
                    list.push(Arc::new(element));
                }
                Ok(Shared(list))
            }
        }

        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

fn decoded<T: DeserializeOwned>(piece: &[u8]) -> Result<T, Unusable> {
    rmp_serde::from_slice(piece).map_err(|problem| Unusable::Content(problem.to_string()))
}

fn ids_of(piece: &[u8]) -> (List<IdKey>, Index) {
    let (keys, _) = piece.as_chunks::<{ size_of::<IdKey>() }>();
    let mut places = Index::default();
    places.extend(keys.iter());
    (keys.iter().copied().collect(), places)
}

/// The lists, so many, that a column tells of.
fn lists_of(column: &[u64], count: usize) -> Result<Vec<List<u64>>, Unusable> {
    let mut lists = vec![List::default(); count];
    for (number, seq) in column.iter().zip(1..) {
        let place = usize::try_from(*number).ok().and_then(|number| number.checked_sub(1));
        let list = place.map(|place| lists.get_mut(place));
        if let Some(list) = list {
            list.ok_or_else(|| Unusable::Content("a record is in a list that is not there".to_owned()))?
                .push(seq);
        }
    }
    Ok(lists)
}

/// By how much each time is later than the one before it; a little earlier is a little too.
fn differences(times: &List<i64>) -> impl Iterator<Item = u64> {
    let mut last = 0_i64;
    times.iter().map(move |time| {
        let difference = time.wrapping_sub(last);
        last = *time;
        (difference << 1 ^ difference >> 63).cast_unsigned()
    })
}

fn summed(differences: &[u64]) -> List<i64> {
    let mut last = 0_i64;
    let time = |difference: &u64| {
        last = last.wrapping_add((difference >> 1).cast_signed() ^ -(difference & 1).cast_signed());
        last
    };
    differences.iter().map(time).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_every_kind_are_read_back() {
        let times: List<i64> = [0, 1, -1, i64::MAX, i64::MIN, 1_767_225_600_000_000].into_iter().collect();
        let differences: Vec<u64> = differences(&times).collect();
        assert!(summed(&differences).iter().eq(times.iter()));
    }
}
