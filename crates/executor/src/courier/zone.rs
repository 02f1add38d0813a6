//! What the work zone of a pod says happened.
//!
//! Its spool lies where agents can write. Therefore nothing of an event there is believed but what the work stage
//! could have found out itself: its kind must be one of that stage's own, and who says it, about which attempt,
//! and under which id is decided here. The id is derived from the one that was written, in a space of its own, so
//! that nothing from there can take the place of an event of a trusted stage.

use std::collections::HashSet;

use model::event::{Event, EventKind};

use crate::folder::work_spool;
use crate::spool::Voice;
use crate::toolbox::{Tree, TreeError};

/// The longest event that is read; the log takes no longer one.
const LONGEST_EVENT: u64 = 256 << 10;

/// The most events that one attempt's work can be.
const MOST_EVENTS: usize = 10_000;

/// The spool of the work zone, read by a trusted process. What was sent is remembered here and not there.
pub(super) struct ZoneSpool {
    handover: Tree,
    folder: String,
    voice: Voice,
    seen: HashSet<u32>,
}

/// A place in the spool, and what is believed of the event there.
pub(super) struct Said {
    place: u32,
    pub(super) event: Event,
}

impl ZoneSpool {
    pub(super) fn new(handover: Tree, voice: Voice) -> Self {
        let folder = work_spool(voice.epoch());
        Self { handover, folder, voice, seen: HashSet::new() }
    }

    /// What was not sent yet, in order. What may not be sent is passed over from now on.
    pub(super) fn unsent(&mut self) -> Vec<Said> {
        let mut places: Vec<u32> = match self.handover.list(&self.folder) {
            Ok(listed) => listed.iter().filter_map(|entry| place_of(&entry.path)).collect(),
            Err(TreeError::Missing(_)) => Vec::new(),
            Err(error) => {
                tracing::warn!("the events of the work zone cannot be read: {error}");
                Vec::new()
            }
        };
        places.sort_unstable();
        let mut unsent = Vec::new();
        for place in places {
            if self.seen.contains(&place) || self.seen.len() + unsent.len() >= MOST_EVENTS {
                continue;
            }
            match self.read(place) {
                Ok(event) => unsent.push(Said { place, event }),
                Err(why) => {
                    tracing::warn!("event {place} of the work zone is not recorded: {why}");
                    self.seen.insert(place);
                }
            }
        }
        unsent
    }

    /// Remembers that these need not be sent again.
    pub(super) fn acknowledge(&mut self, sent: &[Said]) {
        self.seen.extend(sent.iter().map(|said| said.place));
    }

    fn read(&self, place: u32) -> Result<Event, String> {
        let path = format!("{}/{place:08}.json", self.folder);
        let bytes = self.handover.read(&path, LONGEST_EVENT).map_err(|error| error.to_string())?;
        let event: Event = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        if is_of_work(&event.kind) {
            self.voice.said_by_the_work_zone(event).map_err(|error| error.to_string())
        } else {
            Err(format!("the work stage may not say {}", event.kind.event_type()))
        }
    }
}

fn place_of(path: &str) -> Option<u32> {
    let (_, name) = path.rsplit_once('/')?;
    let number = name.strip_suffix(".json")?;
    // Only the spelling that the work stage writes: each place has one file.
    let place: u32 = number.parse().ok()?;
    (format!("{place:08}") == number).then_some(place)
}

/// Whether the work stage finds out such a thing itself. That an artifact is stored is said by whoever stored it.
fn is_of_work(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::SandboxReported(_)
            | EventKind::NetworkReported(_)
            | EventKind::AgentFinished(_)
            | EventKind::ChangePermitted(_)
            | EventKind::PolicyViolated(_)
            | EventKind::InvariantPassed(_)
            | EventKind::InvariantFailed(_)
            | EventKind::ChangeVerified(_)
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use model::event::{PrCreated, SandboxReported, Subject, Timestamp};
    use model::secrets::Redactor;
    use model::{ActorId, AttemptId, BranchName, CommitId, Epoch, EventId, TargetId, TaskId};

    use super::*;

    fn subject(attempt: &str) -> Subject {
        Subject::attempt(
            &TargetId::parse("shop").unwrap(),
            &TaskId::parse("task-001").unwrap(),
            &AttemptId::parse(attempt).unwrap(),
        )
    }

    fn zone(folder: &Path) -> ZoneSpool {
        let voice = Voice::new(
            subject("attempt-1"),
            Epoch::FIRST,
            || jiff::Timestamp::UNIX_EPOCH,
            Redactor::default(),
        );
        ZoneSpool::new(Tree::open(folder).unwrap(), voice)
    }

    fn sandbox() -> EventKind {
        EventKind::SandboxReported(SandboxReported { profile: "none".to_owned(), layers: Vec::new() })
    }

    fn pull_request() -> EventKind {
        EventKind::PrCreated(PrCreated {
            number: 7,
            url: "https://forge.example/7".to_owned(),
            branch: BranchName::of_attempt(&TaskId::parse("task-001").unwrap(), 1),
            commit: CommitId::parse("0123456789012345678901234567890123456789").unwrap(),
            title: "Merge me".to_owned(),
        })
    }

    fn forge(folder: &Path, place: u32, id: &EventId, attempt: &str, kind: EventKind) {
        let event = Event {
            event_id: id.clone(),
            timestamp: Timestamp::new(jiff::Timestamp::UNIX_EPOCH),
            actor_id: ActorId::parse("scheduler").unwrap(),
            subject: subject(attempt),
            kind,
        };
        let spool = folder.join(work_spool(Epoch::FIRST));
        std::fs::create_dir_all(&spool).unwrap();
        std::fs::write(spool.join(format!("{place:08}.json")), serde_json::to_vec(&event).unwrap()).unwrap();
    }

    #[test]
    fn a_work_zone_cannot_say_what_is_not_its_own_to_find_out() {
        let folder = tempfile::tempdir().unwrap();
        let epoch = Epoch::FIRST.to_string();
        let id = |kind: &str| EventId::derived(["attempt-1", epoch.as_str(), kind, ""]);
        forge(folder.path(), 1, &id("pr.created"), "attempt-1", pull_request());
        forge(folder.path(), 2, &id("pr.created"), "attempt-2", sandbox());
        std::fs::write(folder.path().join("spool/work/1/00000003.json"), "{}").unwrap();
        std::fs::write(folder.path().join("secret"), serde_json::to_vec(&"a secret").unwrap()).unwrap();
        std::os::unix::fs::symlink("../../../secret", folder.path().join("spool/work/1/00000004.json"))
            .unwrap();
        let mut zone = zone(folder.path());
        let said = zone.unsent();
        assert_eq!(said.len(), 1, "the pull request, the rubbish and the link are nothing");
        let event = &said[0].event;
        assert_eq!(event.kind, sandbox());
        assert_eq!(event.subject, subject("attempt-1"), "it speaks of its own attempt alone");
        assert_eq!(event.actor_id.as_str(), "executor");
        assert_ne!(event.event_id, id("pr.created"), "it takes no other event's place");
        let again = self::zone(folder.path()).unsent();
        assert_eq!(again[0].event, *event, "what is read twice is the same event");
        zone.acknowledge(&said);
        assert!(zone.unsent().is_empty());
    }
}
