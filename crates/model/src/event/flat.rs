//! The flat form of an event: what the API and the log hold.
//!
//! It is read in one pass: the type of an event stands before its payload wherever we spelled it, so the payload
//! becomes what the type says as it is read. Where somebody else put the payload first, it waits.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::{Event, EventError, EventKind, Subject, Timestamp, check_subject};
use crate::{ActorId, AttemptId, EventId, TargetId, TaskId};

const MEMBERS: &[&str] =
    &["event_id", "event_type", "timestamp", "actor_id", "target_id", "task_id", "attempt_id", "payload"];

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Member {
    EventId,
    EventType,
    Timestamp,
    ActorId,
    TargetId,
    TaskId,
    AttemptId,
    Payload,
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("Event", MEMBERS, FlatVisitor)
    }
}

struct FlatVisitor;

/// What was read so far.
#[derive(Default)]
struct Flat {
    event_id: Option<EventId>,
    event_type: Option<&'static str>,
    timestamp: Option<Timestamp>,
    actor_id: Option<ActorId>,
    target_id: Option<Option<TargetId>>,
    task_id: Option<Option<TaskId>>,
    attempt_id: Option<Option<AttemptId>>,
    payload: Option<Payload>,
}

enum Payload {
    Read(EventKind),
    /// Its type is not known yet.
    Waits(Map<String, Value>),
}

impl<'de> Visitor<'de> for FlatVisitor {
    type Value = Event;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Event, A::Error> {
        let mut flat = Flat::default();
        while let Some(member) = map.next_key()? {
            match member {
                Member::EventId => fill(&mut flat.event_id, "event_id", map.next_value()?),
                Member::EventType => {
                    let TypeName(name) = map.next_value()?;
                    fill(&mut flat.event_type, "event_type", name)
                }
                Member::Timestamp => fill(&mut flat.timestamp, "timestamp", map.next_value()?),
                Member::ActorId => fill(&mut flat.actor_id, "actor_id", map.next_value()?),
                Member::TargetId => fill(&mut flat.target_id, "target_id", map.next_value()?),
                Member::TaskId => fill(&mut flat.task_id, "task_id", map.next_value()?),
                Member::AttemptId => fill(&mut flat.attempt_id, "attempt_id", map.next_value()?),
                Member::Payload => {
                    let payload = match flat.event_type {
                        Some(event_type) => Payload::Read(map.next_value_seed(PayloadOf { event_type })?),
                        None => Payload::Waits(map.next_value()?),
                    };
                    fill(&mut flat.payload, "payload", payload)
                }
            }?;
        }
        flat.event()
    }
}

fn fill<T, E: serde::de::Error>(place: &mut Option<T>, member: &'static str, value: T) -> Result<(), E> {
    if place.is_some() {
        return Err(E::duplicate_field(member));
    }
    *place = Some(value);
    Ok(())
}

impl Flat {
    fn event<E: serde::de::Error>(self) -> Result<Event, E> {
        let event_type = self.event_type.ok_or_else(|| E::missing_field("event_type"))?;
        let kind = match self.payload.ok_or_else(|| E::missing_field("payload"))? {
            Payload::Read(kind) => kind,
            Payload::Waits(payload) => {
                let kind = PayloadOf { event_type }.deserialize(Value::Object(payload));
                kind.map_err(E::custom)?
            }
        };
        let subject = Subject {
            target_id: self.target_id.flatten(),
            task_id: self.task_id.flatten(),
            attempt_id: self.attempt_id.flatten(),
        };
        check_subject(&kind, &subject).map_err(E::custom)?;
        Ok(Event {
            event_id: self.event_id.ok_or_else(|| E::missing_field("event_id"))?,
            timestamp: self.timestamp.ok_or_else(|| E::missing_field("timestamp"))?,
            actor_id: self.actor_id.ok_or_else(|| E::missing_field("actor_id"))?,
            subject,
            kind,
        })
    }
}

/// The name of an event type that is on the list.
struct TypeName(&'static str);

impl<'de> Deserialize<'de> for TypeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl Visitor<'_> for NameVisitor {
            type Value = TypeName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an event type")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<TypeName, E> {
                let known = EventKind::TYPES.iter().find(|known| **known == name);
                let unknown = || {
                    let shortened = name.chars().take(80).flat_map(char::escape_debug).collect();
                    E::custom(EventError::UnknownType(shortened))
                };
                known.map(|known| TypeName(known)).ok_or_else(unknown)
            }
        }

        deserializer.deserialize_str(NameVisitor)
    }
}

/// Reads the payload of an event of this type.
struct PayloadOf {
    event_type: &'static str,
}

impl<'de> DeserializeSeed<'de> for PayloadOf {
    type Value = EventKind;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<EventKind, D::Error> {
        let event_type = self.event_type;
        let does_not_fit = |problem: D::Error| {
            let problem = problem.to_string();
            D::Error::custom(EventError::Payload { event_type: event_type.to_owned(), problem })
        };
        deserializer.deserialize_map(self).map_err(does_not_fit)
    }
}

/// A payload is an object; serde alone would take an array of the same values too.
impl<'de> Visitor<'de> for PayloadOf {
    type Value = EventKind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<EventKind, A::Error> {
        EventKind::of_type(self.event_type, MapAccessDeserializer::new(map))
    }
}

/// The flat form as it is written.
#[derive(Serialize)]
struct Written<'a> {
    event_id: &'a EventId,
    event_type: &'static str,
    timestamp: Timestamp,
    actor_id: &'a ActorId,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_id: Option<&'a TargetId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<&'a TaskId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt_id: Option<&'a AttemptId>,
    payload: PayloadRef<'a>,
}

struct PayloadRef<'a>(&'a EventKind);

impl Serialize for PayloadRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize_payload(serializer)
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Event { event_id, timestamp, actor_id, subject, kind } = self;
        let written = Written {
            event_id,
            event_type: kind.event_type(),
            timestamp: *timestamp,
            actor_id,
            target_id: subject.target_id.as_ref(),
            task_id: subject.task_id.as_ref(),
            attempt_id: subject.attempt_id.as_ref(),
            payload: PayloadRef(kind),
        };
        written.serialize(serializer)
    }
}
