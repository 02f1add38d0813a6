//! What the log says, held ready for questions: the graph, which event ids were used, and where to find events.

mod folding;
mod image;

use std::collections::{BTreeMap, VecDeque};

use api::types::{EventsQuery, RecordedEvent};
use journal::{ChainHash, Head, Record};
use model::event::Timestamp;
use model::sharing::{Index, List};
use model::{AttemptId, Digest, Event, EventId, EventKind, Graph, Seq, TargetId, TaskId};
use sha2::{Digest as _, Sha256};

pub(crate) use self::folding::fold_while;

/// How many of the newest events are kept at hand.
const RECENT: usize = 20;

/// The fold of every record so far. A copy is made at once: it shares with the history what neither has changed since.
#[derive(Clone)]
pub(crate) struct History {
    graph: Graph,
    /// What the event id of each record is known by; the first is that of seq 1.
    ids: List<IdKey>,
    places_of_ids: Index,
    /// The timestamp of each record, in microseconds.
    times: List<i64>,
    by_target: BTreeMap<TargetId, List<u64>>,
    /// One list for each of [`EventKind::TYPES`].
    by_type: Vec<List<u64>>,
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
        self.fold(record, event);
        self.find_ids();
    }

    /// The same for one of many records. Its id is found after [`Self::find_ids`].
    fn fold(&mut self, record: &Record, event: Event) {
        let seq = record.seq();
        self.graph.apply(&event);
        debug_assert_eq!(self.graph.head(), seq, "every record is applied once, in order");
        self.ids.push(key_of(&event.event_id));
        if let Some(target) = &event.subject.target_id {
            match self.by_target.get_mut(target) {
                Some(list) => list.push(seq),
                None => drop(self.by_target.insert(target.clone(), List::from_iter([seq]))),
            }
        }
        self.by_type[event.kind.type_place()].push(seq);
        self.times.push(event.timestamp.moment().as_microsecond());
        self.recent.truncate(RECENT - 1);
        let (hash, prev_hash) = (record.hash(), record.prev_hash());
        self.recent.push_front(Recent { seq, hash, prev_hash, event });
    }

    /// Lets all ids be found.
    fn find_ids(&mut self) {
        self.places_of_ids.extend(self.ids.iter_from(self.places_of_ids.len()));
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
        let key = key_of(id);
        let place = self.places_of_ids.find(&key, |place| self.ids.get(place) == Some(&key));
        place.map(|place| Seq(place as u64 + 1))
    }

    /// The seqs of at most `limit` events that fit the filters of `query`, in the order of the log.
    pub(crate) fn find(&self, query: &EventsQuery, limit: usize) -> Vec<u64> {
        let first = query.after.unwrap_or(0).saturating_add(1);
        let newest = query.newest.unwrap_or(false);
        let lists = self.lists(query);
        let in_time = |seq: &u64| self.is_in_time(query, *seq);
        let Some(shortest) = lists.iter().min_by_key(|list| list.len()) else {
            let all = (first..=self.graph.head()).filter(in_time);
            return if newest { last_of(all.rev(), limit) } else { all.take(limit).collect() };
        };
        let fitting =
            shortest.iter_from(first).filter(|seq| lists.iter().all(|list| list.has(*seq))).filter(in_time);
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

    /// One list for each filter of `query`.
    fn lists(&self, query: &EventsQuery) -> Vec<Seqs<'_>> {
        let of_target = |target| Seqs::kept(self.by_target.get(target));
        let of_type = |name: &String| {
            let place = EventKind::TYPES.iter().position(|known| known == name);
            Seqs::kept(place.and_then(|place| self.by_type.get(place)))
        };
        let lists = [
            query.attempt.as_ref().map(|attempt| self.of_attempt(attempt)),
            query.task.as_ref().map(|task| self.of_task(task)),
            query.target.as_ref().map(of_target),
            query.event_type.as_ref().map(of_type),
        ];
        lists.into_iter().flatten().collect()
    }

    fn of_attempt(&self, id: &AttemptId) -> Seqs<'_> {
        Seqs::gathered(self.graph.attempt(id).into_iter().flat_map(|attempt| &attempt.events))
    }

    /// The events of the tasks that have this name, and of their attempts.
    fn of_task(&self, id: &TaskId) -> Seqs<'_> {
        let tasks = self.graph.targets().filter_map(|(target, _)| self.graph.task(target, id));
        Seqs::gathered(tasks.flat_map(|task| {
            let attempts = self.graph.attempts_at(task).flat_map(|attempt| &attempt.events);
            task.events.iter().chain(attempts)
        }))
    }
}

/// Seqs in the order of the log.
enum Seqs<'a> {
    Kept(&'a List<u64>),
    Gathered(Vec<u64>),
}

impl<'a> Seqs<'a> {
    fn kept(list: Option<&'a List<u64>>) -> Self {
        list.map_or_else(|| Self::Gathered(Vec::new()), Self::Kept)
    }

    fn gathered(seqs: impl Iterator<Item = &'a Seq>) -> Self {
        let mut seqs: Vec<u64> = seqs.map(|seq| seq.0).collect();
        seqs.sort_unstable();
        Self::Gathered(seqs)
    }

    fn len(&self) -> usize {
        match self {
            Self::Kept(list) => list.len(),
            Self::Gathered(seqs) => seqs.len(),
        }
    }

    fn has(&self, seq: u64) -> bool {
        match self {
            Self::Kept(list) => list.get(list.partition_point(|one| *one < seq)) == Some(&seq),
            Self::Gathered(seqs) => seqs.binary_search(&seq).is_ok(),
        }
    }

    /// Those from `first` on.
    fn iter_from(&self, first: u64) -> Box<dyn DoubleEndedIterator<Item = u64> + '_> {
        match self {
            Self::Kept(list) => Box::new(list.iter_from(list.partition_point(|seq| *seq < first)).copied()),
            Self::Gathered(seqs) => {
                Box::new(seqs[seqs.partition_point(|seq| *seq < first)..].iter().copied())
            }
        }
    }
}

impl Default for History {
    fn default() -> Self {
        Self {
            graph: Graph::default(),
            ids: List::default(),
            places_of_ids: Index::default(),
            times: List::default(),
            by_target: BTreeMap::new(),
            by_type: vec![List::default(); EventKind::TYPES.len()],
            recent: VecDeque::new(),
        }
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

fn last_of(newest_first: impl Iterator<Item = u64>, limit: usize) -> Vec<u64> {
    let mut seqs: Vec<u64> = newest_first.take(limit).collect();
    seqs.reverse();
    seqs
}
