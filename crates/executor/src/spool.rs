//! Events between the moment they happen and the moment the control plane has them.
//!
//! An event is a file that is durable before the next step begins, and it is sent, in order and as often as
//! needed, until it is acknowledged. Its id is derived from what it says happened, so that a step which a crash
//! repeats writes no second event and an event which is sent twice is recorded once. The spool does not know
//! what the events mean.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use model::Event;
use model::event::{EventKind, Subject, Timestamp};
use model::secrets::Redactor;
use model::{ActorId, Epoch, EventId};
use rustix::fs::{FlockOperation, flock};

use crate::folder::write_durably;

/// A folder of events, numbered in the order in which they happened. Several processes may write to it.
#[derive(Debug, Clone)]
pub struct Spool {
    folder: PathBuf,
}

/// A place in the spool; the first event has 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u32);

/// Writes the events of one attempt in one epoch.
#[derive(Debug, Clone)]
pub struct Recorder {
    spool: Spool,
    voice: Voice,
}

/// Puts into words what happens to one attempt in one epoch, without any secret, and writes nothing.
#[derive(Debug, Clone)]
pub(crate) struct Voice {
    subject: Subject,
    actor: ActorId,
    epoch: Epoch,
    clock: fn() -> jiff::Timestamp,
    redactor: Redactor,
}

impl Spool {
    /// Opens the spool in `folder`, which is made when it is missing.
    pub fn open(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Writes `event` behind all others. Durable when this returns. An event whose id is already here, sent or
    /// not, stays as it is.
    pub fn append(&self, event: &Event) -> io::Result<()> {
        let _lock = self.lock()?;
        let places = self.places()?;
        for place in &places {
            if self.read(*place)?.event_id == event.event_id {
                return Ok(());
            }
        }
        let next = Place(places.last().map_or(1, |last| last.0 + 1));
        write_durably(&self.file(next), &serde_json::to_vec(event)?)
    }

    /// The events that are not acknowledged yet, in order.
    pub fn unsent(&self) -> io::Result<Vec<(Place, Event)>> {
        let acknowledged = self.acknowledged()?;
        let places = self.places()?.into_iter().filter(|place| *place > acknowledged);
        places.map(|place| Ok((place, self.read(place)?))).collect()
    }

    /// Remembers that all events up to `place` are recorded by the control plane.
    pub fn acknowledge(&self, place: Place) -> io::Result<()> {
        write_durably(&self.folder.join(ACKNOWLEDGED), place.0.to_string().as_bytes())
    }

    fn acknowledged(&self) -> io::Result<Place> {
        match std::fs::read_to_string(self.folder.join(ACKNOWLEDGED)) {
            Ok(text) => text.parse().map(Place).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Place(0)),
            Err(error) => Err(error),
        }
    }

    fn places(&self) -> io::Result<Vec<Place>> {
        let mut places = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok());
            places.extend(number.map(Place));
        }
        places.sort();
        Ok(places)
    }

    fn read(&self, place: Place) -> io::Result<Event> {
        Ok(serde_json::from_slice(&std::fs::read(self.file(place))?)?)
    }

    fn file(&self, place: Place) -> PathBuf {
        self.folder.join(format!("{:08}.json", place.0))
    }

    fn lock(&self) -> io::Result<File> {
        let file = File::options().create(true).truncate(false).write(true).open(self.folder.join("lock"))?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    }
}

const ACKNOWLEDGED: &str = "acknowledged";

impl Recorder {
    /// Writes what `voice` says.
    pub(crate) fn new(spool: Spool, voice: Voice) -> Self {
        Self { spool, voice }
    }

    /// Writes that `kind` happened. `step` tells events of one type within the attempt apart: a round, a name.
    /// The same step again is the same event.
    pub fn record(&self, kind: EventKind, step: &str) -> io::Result<()> {
        self.spool.append(&self.voice.event(kind, step)?)
    }

    /// What the clock says now.
    pub fn now(&self) -> jiff::Timestamp {
        (self.voice.clock)()
    }
}

impl Voice {
    /// Speaks about `subject`, which must be an attempt, in `epoch`. `redactor` knows the secrets of this process.
    pub(crate) fn new(
        subject: Subject,
        epoch: Epoch,
        clock: fn() -> jiff::Timestamp,
        redactor: Redactor,
    ) -> Self {
        let actor = ActorId::parse("executor").expect("the word is an actor id");
        Self { subject, actor, epoch, clock, redactor }
    }

    /// The event that `kind` happened now; the same step again has the same id.
    ///
    /// Fails when a secret stands where it cannot be taken out, such as in an identifier.
    pub(crate) fn event(&self, kind: EventKind, step: &str) -> io::Result<Event> {
        let epoch = self.epoch.to_string();
        let event_id = EventId::derived([self.attempt(), epoch.as_str(), kind.event_type(), step]);
        self.claim(event_id, Timestamp::new((self.clock)()), kind)
    }

    /// What is believed of an event that the work zone of a pod wrote: that it says so, and when.
    pub(crate) fn said_by_the_work_zone(&self, written: Event) -> io::Result<Event> {
        let Event { event_id, timestamp, kind, .. } = written;
        let epoch = self.epoch.to_string();
        // One part more than any event of our own has: no choice of the written id meets one of those.
        let parts = [self.attempt(), epoch.as_str(), kind.event_type(), "work", event_id.as_str()];
        self.claim(EventId::derived(parts), timestamp, kind)
    }

    /// Bytes that are to leave, without any secret.
    pub(crate) fn cleaned(&self, bytes: &[u8]) -> Vec<u8> {
        let (mut stream, mut cleaned) = (self.redactor.stream(), Vec::with_capacity(bytes.len()));
        stream.push(bytes, &mut cleaned);
        stream.finish(&mut cleaned);
        cleaned
    }

    /// The epoch in which it speaks.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn claim(&self, event_id: EventId, timestamp: Timestamp, kind: EventKind) -> io::Result<Event> {
        let (actor_id, subject) = (self.actor.clone(), self.subject.clone());
        self.without_secrets(Event { event_id, timestamp, actor_id, subject, kind })
    }

    /// The event as it may leave this process.
    pub(crate) fn without_secrets(&self, event: Event) -> io::Result<Event> {
        let said = serde_json::to_value(&event)?;
        let mut cleaned = said.clone();
        self.redactor.clean_value(&mut cleaned["payload"]);
        if cleaned == said { Ok(event) } else { Ok(serde_json::from_value(cleaned)?) }
    }

    fn attempt(&self) -> &str {
        self.subject.attempt_id.as_ref().map_or("", |attempt| attempt.as_str())
    }
}

#[cfg(test)]
mod tests {
    use model::event::Reason;
    use model::{AttemptId, TargetId, TaskId};

    use super::*;

    fn recorder(folder: &Path, clock: fn() -> jiff::Timestamp) -> Recorder {
        let subject = Subject::attempt(
            &TargetId::parse("shop").unwrap(),
            &TaskId::parse("task-001").unwrap(),
            &AttemptId::parse("attempt-1").unwrap(),
        );
        let voice = Voice::new(subject, Epoch::FIRST, clock, Redactor::new(["control-plane-token"]));
        Recorder::new(Spool::open(folder).unwrap(), voice)
    }

    fn earlier() -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH
    }

    fn later() -> jiff::Timestamp {
        jiff::Timestamp::from_second(1_900_000_000).unwrap()
    }

    fn cancelled(reason: &str) -> EventKind {
        EventKind::AttemptCancelled(Reason { reason: reason.to_owned() })
    }

    fn reasons(events: &[(Place, Event)]) -> Vec<String> {
        let reason = |event: &Event| serde_json::to_value(event).unwrap()["payload"]["reason"].to_string();
        events.iter().map(|(_, event)| reason(event)).collect()
    }

    #[test]
    fn events_come_out_in_order_until_they_are_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = recorder(folder.path(), earlier);
        for step in 1..=12 {
            recorder.record(cancelled(&step.to_string()), &step.to_string()).unwrap();
        }
        let spool = Spool::open(folder.path()).unwrap();
        let all = spool.unsent().unwrap();
        assert_eq!(reasons(&all), (1..=12).map(|step| format!("\"{step}\"")).collect::<Vec<_>>());
        spool.acknowledge(all[9].0).unwrap();
        assert_eq!(reasons(&spool.unsent().unwrap()), ["\"11\"", "\"12\""]);
    }

    #[test]
    fn a_repeated_step_is_the_event_it_was_also_after_it_was_sent() {
        let folder = tempfile::tempdir().unwrap();
        recorder(folder.path(), earlier).record(cancelled("first"), "1").unwrap();
        let again = recorder(folder.path(), later);
        again.record(cancelled("again"), "1").unwrap();
        let spool = Spool::open(folder.path()).unwrap();
        let events = spool.unsent().unwrap();
        assert_eq!(reasons(&events), ["\"first\""]);
        spool.acknowledge(events[0].0).unwrap();
        again.record(cancelled("and again"), "1").unwrap();
        assert_eq!(spool.unsent().unwrap(), []);
        again.record(cancelled("another step"), "2").unwrap();
        assert_eq!(reasons(&spool.unsent().unwrap()), ["\"another step\""]);
    }

    #[test]
    fn no_secret_is_in_an_event() {
        let folder = tempfile::tempdir().unwrap();
        recorder(folder.path(), earlier).record(cancelled("said control-plane-token aloud"), "1").unwrap();
        let spool = Spool::open(folder.path()).unwrap();
        assert_eq!(reasons(&spool.unsent().unwrap()), ["\"said [redacted] aloud\""]);
    }

    #[test]
    fn several_writers_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let recorder = recorder(folder.path(), earlier);
                scope.spawn(move || {
                    for step in 0..5 {
                        recorder.record(cancelled("x"), &format!("{writer}-{step}")).unwrap();
                    }
                });
            }
        });
        assert_eq!(Spool::open(folder.path()).unwrap().unsent().unwrap().len(), 20);
    }

    #[test]
    fn a_write_that_was_cut_off_leaves_no_event() {
        let folder = tempfile::tempdir().unwrap();
        recorder(folder.path(), earlier).record(cancelled("whole"), "1").unwrap();
        std::fs::write(folder.path().join(".tmpAbCdEf"), b"{\"event_id\":").unwrap();
        assert_eq!(Spool::open(folder.path()).unwrap().unsent().unwrap().len(), 1);
    }
}
