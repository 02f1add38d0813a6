//! What the log says, held ready for questions: the graph, which event ids were used, and where to find events.

mod folding;
mod image;

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use api::types::{EventsQuery, RecordedEvent};
use journal::{ChainHash, Head, Record};
use model::event::Timestamp;
use model::{AttemptId, Digest, Event, EventId, Graph, Seq, TargetId, TaskId};
use sha2::{Digest as _, Sha256};

pub(crate) use self::folding::Folding;

/// How many of the newest events are kept at hand.
const RECENT: usize = 20;

/// The fold of every record so far.
#[derive(Default, Clone)]
pub(crate) struct History {
    graph: Graph,
    known: HashMap<IdKey, Seq>,
    by_target: HashMap<TargetId, Vec<u64>>,
    by_task: HashMap<TaskId, Vec<u64>>,
    by_type: HashMap<&'static str, Vec<u64>>,
    /// The timestamp of each record, in microseconds; the first is that of seq 1.
    times: Vec<i64>,
    recent: VecDeque<Recent>,
}

/// What an event id is known by: the first half of its SHA-256. Nobody finds two ids with the same.
type IdKey = [u8; 16];

/// An event that is kept at hand, and its place in the log.
#[derive(Clone)]
struct Recent {
    seq: u64,
    hash: ChainHash,
    prev_hash: ChainHash,
    event: Event,
}

/// A record whose body is no event of this version.
#[derive(Debug, thiserror::Error)]
#[error("record {seq} of the journal is no event that this version knows: {problem}")]
pub(crate) struct UnknownRecord {
    seq: u64,
    problem: serde_json::Error,
}

impl History {
    /// Takes in the next record, whose event the caller has at hand.
    pub(crate) fn apply(&mut self, record: &Record, event: Event) {
        let seq = record.seq();
        self.graph.apply(&event);
        debug_assert_eq!(self.graph.head(), seq, "every record is applied once, in order");
        self.known.insert(key_of(&event.event_id), Seq(seq));
        if let Some(target) = &event.subject.target_id {
            list_of(&mut self.by_target, target).push(seq);
        }
        if let Some(task) = &event.subject.task_id {
            list_of(&mut self.by_task, task).push(seq);
        }
        self.by_type.entry(event.kind.event_type()).or_default().push(seq);
        self.times.push(event.timestamp.moment().as_microsecond());
        self.recent.truncate(RECENT - 1);
        let (hash, prev_hash) = (record.hash(), record.prev_hash());
        self.recent.push_front(Recent { seq, hash, prev_hash, event });
    }

    /// The last record; `None` while there is none.
    pub(crate) fn head(&self) -> Option<Head> {
        self.recent.front().map(|recent| Head { seq: recent.seq, hash: recent.hash })
    }

    /// The graph after the last record.
    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The newest events, newest first.
    pub(crate) fn recent(&self) -> Vec<RecordedEvent> {
        let placed =
            |recent: &Recent| recorded(recent.seq, recent.hash, recent.prev_hash, recent.event.clone());
        self.recent.iter().map(placed).collect()
    }

    /// The place of an event.
    pub(crate) fn seq_of(&self, id: &EventId) -> Option<Seq> {
        self.known.get(&key_of(id)).copied()
    }

    /// The seqs of at most `limit` events that fit the filters of `query`, in the order of the log.
    pub(crate) fn find(&self, query: &EventsQuery, limit: usize) -> Vec<u64> {
        let first = query.after.unwrap_or(0).saturating_add(1);
        let newest = query.newest.unwrap_or(false);
        let of_attempt = query.attempt.as_ref().map(|id| self.of_attempt(id));
        let lists = self.lists(query, of_attempt.as_deref());
        let in_time = |seq: &u64| self.is_in_time(query, *seq);
        let Some(shortest) = lists.iter().min_by_key(|list| list.len()) else {
            let all = (first..=self.graph.head()).filter(in_time);
            return if newest { last_of(all.rev(), limit) } else { all.take(limit).collect() };
        };
        let fitting = shortest[shortest.partition_point(|seq| *seq < first)..]
            .iter()
            .copied()
            .filter(|seq| lists.iter().all(|list| list.binary_search(seq).is_ok()))
            .filter(in_time);
        if newest { last_of(fitting.rev(), limit) } else { fitting.take(limit).collect() }
    }

    fn is_in_time(&self, query: &EventsQuery, seq: u64) -> bool {
        let micros = |time: Timestamp| time.moment().as_microsecond();
        let (since, until) = (query.since.map(micros), query.until.map(micros));
        let place = usize::try_from(seq).ok().and_then(|seq| seq.checked_sub(1));
        let time = place.and_then(|place| self.times.get(place)).copied();
        time.is_some_and(|time| {
            since.is_none_or(|since| time >= since) && until.is_none_or(|until| time < until)
        })
    }

    /// One sorted list of seqs for each filter of `query`.
    fn lists<'a>(&'a self, query: &EventsQuery, of_attempt: Option<&'a [u64]>) -> Vec<&'a [u64]> {
        let of_task = query.task.as_ref().map(|task| self.by_task.get(task));
        let of_target = query.target.as_ref().map(|target| self.by_target.get(target));
        let of_type = query.event_type.as_ref().map(|name| self.by_type.get(name.as_str()));
        let lists = [of_task, of_target, of_type].into_iter().flatten();
        of_attempt.into_iter().chain(lists.map(|list| list.map_or(&[][..], Vec::as_slice))).collect()
    }

    fn of_attempt(&self, id: &AttemptId) -> Vec<u64> {
        let attempt = self.graph.attempt(id);
        attempt.into_iter().flat_map(|attempt| attempt.events.iter().map(|seq| seq.0)).collect()
    }
}

/// The event that a record holds.
pub(crate) fn event_of(record: &Record) -> Result<Event, UnknownRecord> {
    serde_json::from_str(record.body().as_str())
        .map_err(|problem| UnknownRecord { seq: record.seq(), problem })
}

/// An event with its place in the log.
pub(crate) fn placed(record: &Record, event: Event) -> RecordedEvent {
    recorded(record.seq(), record.hash(), record.prev_hash(), event)
}

fn recorded(seq: u64, hash: ChainHash, prev_hash: ChainHash, event: Event) -> RecordedEvent {
    let digest = |hash: ChainHash| {
        Digest::parse(hash.to_string()).expect("a hash prints as 64 lower-case hexadecimal digits")
    };
    RecordedEvent { seq: Seq(seq), hash: digest(hash), prev_hash: digest(prev_hash), event }
}

fn key_of(id: &EventId) -> IdKey {
    let digest: [u8; 32] = Sha256::digest(id.as_str().as_bytes()).into();
    *digest.first_chunk().expect("half of it is there")
}

/// The list of `key`, which is copied only when the list is new.
fn list_of<'a, K: Clone + Eq + Hash>(lists: &'a mut HashMap<K, Vec<u64>>, key: &K) -> &'a mut Vec<u64> {
    if !lists.contains_key(key) {
        lists.insert(key.clone(), Vec::new());
    }
    lists.get_mut(key).expect("it is there, or was just inserted")
}

fn last_of(newest_first: impl Iterator<Item = u64>, limit: usize) -> Vec<u64> {
    let mut seqs: Vec<u64> = newest_first.take(limit).collect();
    seqs.reverse();
    seqs
}
