//! A history as pieces of bytes, and back. The same history has the same pieces, however it came to be.
//!
//! What follows from other parts is not in them: where something stands is found out anew.

use journal::ChainHash;
use model::graph::{GraphParts, Outline};
use model::sharing::{Index, List};
use model::{Event, EventKind, Graph, TargetId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{History, IdKey, Recent};
use crate::cache::{Cached, Unusable, column, values_of};

/// One part in so many of the attempts is read with everything else, the others beside it by another thread, so that
/// both have as much to do.
const BESIDE: usize = 3;

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
        let beside = attempts.len() / BESIDE;
        Ok(vec![
            rmp_serde::to_vec_named(&frame)?,
            column(tasks.iter().cloned()),
            column(attempts.iter().take(beside).cloned()),
            column(attempts.iter_from(beside).cloned()),
            self.ids.iter().flatten().copied().collect(),
            column(differences(&self.times)),
            column(self.numbers_of(self.by_type.iter())),
            column(self.numbers_of(self.by_target.values())),
        ])
    }

    /// For each record the number of the list that has it, counted from 1; 0 where none has.
    fn numbers_of<'a>(&self, lists: impl Iterator<Item = &'a List<u64>>) -> Vec<u64> {
        let mut numbers = vec![0; self.ids.len()];
        for (list, number) in lists.zip(1..) {
            for seq in list.iter() {
                numbers[usize::try_from(*seq).unwrap_or(usize::MAX) - 1] = number;
            }
        }
        numbers
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
        let (attempts, rest) = std::thread::scope(|scope| {
            let rest = scope.spawn(|| Self::without_most_attempts(cached, first));
            let attempts =
                cached.piece(first + 3).and_then(|piece| values_of(piece).collect::<Result<Vec<_>, _>>());
            (attempts, rest.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let (mut parts, history) = rest?;
        parts.attempts.extend(attempts?);
        let graph = Graph::from_parts(parts).map_err(|problem| Unusable::Content(problem.to_string()))?;
        let history = Self { graph, ..history };
        let is_whole = history.is_of_one_length();
        is_whole.then_some(history).ok_or(Unusable::Content("its parts are of different lengths".to_owned()))
    }

    /// Whether all that is kept of each record is kept of the same ones.
    fn is_of_one_length(&self) -> bool {
        let typed = self.by_type.iter().map(List::len).sum();
        let lengths: [usize; 3] = [self.ids.len(), self.times.len(), typed];
        let head = self.graph.head();
        lengths.iter().all(|length| *length as u64 == head)
            && self.by_target.values().all(|list| list.last().is_none_or(|seq| *seq <= head))
    }

    fn without_most_attempts(cached: &Cached, first: usize) -> Result<(GraphParts, Self), Unusable> {
        let Frame { graph, recent, types, targets } = decoded(cached.piece(first)?)?;
        if types != EventKind::TYPES {
            return Err(Unusable::Content("it has other types of events".to_owned()));
        }
        let tasks = values_of(cached.piece(first + 1)?).collect::<Result<_, _>>()?;
        let attempts = values_of(cached.piece(first + 2)?).collect::<Result<_, _>>()?;
        let (ids, places_of_ids) = ids_of(cached.piece(first + 4)?);
        let times = summed(cached.piece(first + 5)?)?;
        let by_type = lists_of(cached.piece(first + 6)?, types.len())?;
        let by_target = lists_of(cached.piece(first + 7)?, targets.len())?;
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
        Ok((GraphParts { outline: graph, tasks, attempts }, history))
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
fn lists_of(column: &[u8], count: usize) -> Result<Vec<List<u64>>, Unusable> {
    let mut lists = vec![List::default(); count];
    for (number, seq) in values_of::<u64>(column).zip(1..) {
        let Some(place) = number?.checked_sub(1) else { continue };
        let list = usize::try_from(place).ok().and_then(|place| lists.get_mut(place));
        let unknown = || Unusable::Content("a record is in a list that is not there".to_owned());
        list.ok_or_else(unknown)?.push(seq);
    }
    Ok(lists)
}

/// By how much each time is later than the one before it, which takes few bytes.
fn differences(times: &List<i64>) -> impl Iterator<Item = i64> {
    let before = std::iter::once(&0).chain(times.iter());
    times.iter().zip(before).map(|(time, before)| time.wrapping_sub(*before))
}

fn summed(differences: &[u8]) -> Result<List<i64>, Unusable> {
    let mut time = 0_i64;
    let add = |difference: Result<i64, Unusable>| {
        time = time.wrapping_add(difference?);
        Ok(time)
    };
    values_of(differences).map(add).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_every_kind_are_read_back() {
        let times: List<i64> = [0, 1, -1, i64::MAX, i64::MIN, 1_767_225_600_000_000].into_iter().collect();
        assert!(summed(&column(differences(&times))).unwrap().iter().eq(times.iter()));
    }
}
