//! A history as pieces of bytes, and back. The same history has the same pieces, however it came to be.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use journal::ChainHash;
use model::graph::{Attempt, GraphParts, Outline, Task};
use model::{Event, EventKind, Graph, TargetId, TaskId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{History, IdKey, Recent};
use crate::cache::{Cached, Unusable, numbers, read_numbers};

/// What there is one or few of.
#[derive(Serialize, Deserialize)]
struct Frame {
    graph: Outline,
    recent: Vec<(u64, [u8; 32], [u8; 32], Event)>,
}

/// Where events are, each list by its name.
#[derive(Serialize, Deserialize)]
struct Lists {
    targets: Vec<(TargetId, Vec<u64>)>,
    tasks: Vec<(TaskId, Vec<u64>)>,
    types: Vec<(String, Vec<u64>)>,
}

impl History {
    /// The history in bytes.
    pub(crate) fn to_pieces(&self) -> Result<Vec<Vec<u8>>, rmp_serde::encode::Error> {
        let GraphParts { outline, tasks, attempts } = self.graph.to_parts();
        let recent = self.recent.iter().map(|Recent { seq, hash, prev_hash, event }| {
            (*seq, *hash.as_bytes(), *prev_hash.as_bytes(), event.clone())
        });
        let frame = Frame { graph: outline, recent: recent.collect() };
        let lists = Lists {
            targets: sorted(&self.by_target),
            tasks: sorted(&self.by_task),
            types: sorted(&self.by_type).into_iter().map(|(name, list)| (name.to_owned(), list)).collect(),
        };
        let tasks: Vec<_> = tasks.iter().map(|(target, id, task)| (target, id, &**task)).collect();
        let attempts: Vec<&Attempt> = attempts.iter().map(|attempt| &**attempt).collect();
        Ok(vec![
            rmp_serde::to_vec_named(&frame)?,
            rmp_serde::to_vec_named(&lists)?,
            rmp_serde::to_vec_named(&tasks)?,
            rmp_serde::to_vec_named(&attempts)?,
            self.ids_in_order(),
            numbers(self.times.iter().map(|time| time.cast_unsigned())),
        ])
    }

    /// The keys of the event ids, in the order in which they were recorded.
    fn ids_in_order(&self) -> Vec<u8> {
        let mut ids = vec![0; self.known.len() * size_of::<IdKey>()];
        let (places, _) = ids.as_chunks_mut();
        for (id, seq) in &self.known {
            places[usize::try_from(seq.0).unwrap_or(usize::MAX) - 1] = *id;
        }
        ids
    }

    /// A history that says something else of one record.
    #[cfg(test)]
    pub(crate) fn with_another_time(mut self, seq: usize) -> Self {
        self.times[seq - 1] += 1;
        self
    }

    /// The history that the pieces from `first` on are of.
    pub(crate) fn from_pieces(cached: &Cached, first: usize) -> Result<Self, Unusable> {
        // Attempts are about as much work as everything else together.
        let (attempts, rest) = std::thread::scope(|scope| {
            let attempts = scope.spawn(|| decoded::<Vec<Arced<Attempt>>>(cached.piece(first + 3)?));
            let rest = Self::without_attempts(cached, first);
            (attempts.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), rest)
        });
        let (mut parts, history) = rest?;
        parts.attempts = attempts?.into_iter().map(|Arced(attempt)| attempt).collect();
        let graph = Graph::from_parts(parts).map_err(|problem| Unusable::Content(problem.to_string()))?;
        if graph.head() as usize != history.times.len() || graph.head() as usize != history.known.len() {
            return Err(Unusable::Content("its parts are of different lengths".to_owned()));
        }
        Ok(Self { graph, ..history })
    }

    fn without_attempts(cached: &Cached, first: usize) -> Result<(GraphParts, Self), Unusable> {
        let Frame { graph, recent } = decoded(cached.piece(first)?)?;
        let Lists { targets, tasks: by_task, types } = decoded(cached.piece(first + 1)?)?;
        let tasks: Vec<(TargetId, TaskId, Arced<Task>)> = decoded(cached.piece(first + 2)?)?;
        let tasks = tasks.into_iter().map(|(target, id, Arced(task))| (target, id, task)).collect();
        let (ids, _) = cached.piece(first + 4)?.as_chunks::<{ size_of::<IdKey>() }>();
        let times = read_numbers(cached.piece(first + 5)?)?;
        let recent = recent.into_iter().map(|(seq, hash, prev_hash, event)| {
            let (hash, prev_hash) = (ChainHash::from_bytes(hash), ChainHash::from_bytes(prev_hash));
            Recent { seq, hash, prev_hash, event }
        });
        let history = Self {
            graph: Graph::default(),
            known: ids.iter().copied().zip((1..).map(model::Seq)).collect(),
            by_target: targets.into_iter().collect(),
            by_task: by_task.into_iter().collect(),
            by_type: types.into_iter().map(named).collect::<Result<_, _>>()?,
            times: times.into_iter().map(u64::cast_signed).collect(),
            recent: recent.collect::<VecDeque<_>>(),
        };
        Ok((GraphParts { outline: graph, tasks, attempts: Vec::new() }, history))
    }
}

/// What is shared once it was read.
struct Arced<T>(Arc<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Arced<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(|value| Self(Arc::new(value)))
    }
}

fn decoded<T: DeserializeOwned>(piece: &[u8]) -> Result<T, Unusable> {
    rmp_serde::from_slice(piece).map_err(|problem| Unusable::Content(problem.to_string()))
}

fn named((name, list): (String, Vec<u64>)) -> Result<(&'static str, Vec<u64>), Unusable> {
    let known = EventKind::TYPES.iter().find(|known| **known == name);
    let unknown = || Unusable::Content(format!("`{name}` is not an event type"));
    known.map(|known| (*known, list)).ok_or_else(unknown)
}

fn sorted<K: Clone + Ord>(lists: &HashMap<K, Vec<u64>>) -> Vec<(K, Vec<u64>)> {
    let mut lists: Vec<_> = lists.iter().map(|(key, list)| (key.clone(), list.clone())).collect();
    lists.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    lists
}
