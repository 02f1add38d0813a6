//! Where the control planes of one database tell each other what they heard: two tables beside the log.
//!
//! What is pinned is sent twice a second, and what the others pinned is read in the same breath. Ages are measured by
//! the database alone, so the clocks of the machines need not agree. A board that cannot be reached holds up nothing:
//! what is to be pinned waits, and [`Board::looked`] says until when the others were heard.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::types::{PassReport, Passes};
use secrecy::SecretString;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::store::postgres::{Connection, PATIENCE, said};

/// How often what is pinned is sent, and what others pinned is read.
const EVERY: Duration = Duration::from_millis(500);

/// After how long without a look those who spoke to others meanwhile get another chance.
const GAP: Duration = Duration::from_secs(10);

/// How far each look goes back. What arrives later than a session may take to commit is seen by the next whole look.
const LOOK_BACK: f64 = 5.0;

/// How many looks there are from one at the whole board to the next.
const LOOKS: u32 = 60;

/// What somebody said.
#[derive(Debug, Clone)]
pub(super) struct Notice {
    pub(super) topic: Topic,
    /// The id of the attempt or target.
    pub(super) name: String,
    /// Nothing leaves what was said before as it is.
    pub(super) content: Option<String>,
    pub(super) told: Instant,
}

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// The executor of an attempt lives; the content is what it is at.
    Heartbeat,
    /// A scheduler saw a target; the content is its observation as JSON.
    Observation,
}

impl Topic {
    fn as_str(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::Observation => "observation",
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Self::Heartbeat, Self::Observation].into_iter().find(|topic| topic.as_str() == name)
    }
}

/// What a look at the board found.
pub(super) struct Heard {
    pub(super) notices: Vec<Notice>,
    pub(super) passes: Passes,
    /// Nothing was heard for a while before, and others may not have sent yet what they heard meanwhile.
    pub(super) after_a_gap: bool,
}

/// The board cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("the control planes of this log cannot hear each other: {0}")]
pub(crate) struct BoardError(String);

impl From<tokio_postgres::Error> for BoardError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self(said(&error))
    }
}

/// The tables, and what is to go there next.
pub(super) struct Board {
    url: SecretString,
    connection: AsyncMutex<Option<Connection>>,
    pinned: Mutex<BTreeMap<(Topic, String), Notice>>,
    /// When the last look began that succeeded.
    looked: Mutex<Option<Instant>>,
}

impl Board {
    pub(super) fn new(url: &SecretString) -> Self {
        Self {
            url: url.clone(),
            connection: AsyncMutex::default(),
            pinned: Mutex::default(),
            looked: Mutex::default(),
        }
    }

    /// Until when everything is known here that the others heard and sent.
    pub(super) fn looked(&self) -> Option<Instant> {
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a notice for the others. The newest of each name is sent.
    pub(super) fn pin(&self, notice: Notice) {
        use std::collections::btree_map::Entry;
        match self.pinned().entry((notice.topic, notice.name.clone())) {
            Entry::Vacant(place) => drop(place.insert(notice)),
            Entry::Occupied(mut place) => {
                let known = place.get_mut();
                let content = notice.content.or(known.content.take());
                *known = Notice { content, ..notice };
            }
        }
    }

    /// Sends and looks again and again, and gives `hear` what it found.
    pub(super) async fn exchange_for_ever(&self, hear: impl Fn(Heard)) {
        let mut is_well = true;
        let mut looks = 0;
        loop {
            match self.exchange(looks % LOOKS == 0).await {
                Ok(heard) => {
                    hear(heard);
                    looks += 1;
                    is_well = true;
                }
                Err(problem) => {
                    if is_well {
                        tracing::warn!(error = %problem, "No attempt is declared lost until the other control planes are heard again.");
                    }
                    is_well = false;
                    // Whatever was missed meanwhile.
                    looks = 0;
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn exchange(&self, whole: bool) -> Result<Heard, BoardError> {
        let started = Instant::now();
        let notices: Vec<Notice> = std::mem::take(&mut *self.pinned()).into_values().collect();
        match self.send_and_look(&notices, whole).await {
            Ok(heard) => {
                let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
                let before = looked.replace(started);
                let after_a_gap = before.is_none_or(|before| started.duration_since(before) > GAP);
                Ok(Heard { after_a_gap, ..heard })
            }
            Err(problem) => {
                self.pin_again(notices);
                Err(problem)
            }
        }
    }

    async fn send_and_look(&self, notices: &[Notice], whole: bool) -> Result<Heard, BoardError> {
        let session = self.session().await?;
        let heard = patiently(async {
            send(&session.connection, notices).await?;
            if whole {
                session.connection.client.batch_execute(FORGET).await?;
            }
            look(&session.connection, whole).await
        });
        let heard = heard.await?;
        session.keep();
        Ok(heard)
    }

    /// Gives what could not be sent another chance, unless there is something newer.
    fn pin_again(&self, notices: Vec<Notice>) {
        let mut pinned = self.pinned();
        for notice in notices {
            pinned.entry((notice.topic, notice.name.clone())).or_insert(notice);
        }
    }

    /// Asks a pass of the schedulers. What is asked for and done after that.
    pub(super) async fn request_pass(&self) -> Result<Passes, BoardError> {
        let request = "UPDATE leviathan.passes SET requested = requested + 1 RETURNING requested, done, last";
        self.change_passes(request, &[]).await
    }

    /// Says that a scheduler made a pass. What is asked for and done after that.
    pub(super) async fn report_pass(&self, report: &PassReport) -> Result<Passes, BoardError> {
        let update = "UPDATE leviathan.passes SET done = greatest(done, least($1, requested)), last = $2
                      RETURNING requested, done, last";
        let number = i64::try_from(report.number).unwrap_or(i64::MAX);
        let last = serde_json::to_string(report).map_err(|problem| BoardError(problem.to_string()))?;
        self.change_passes(update, &[(&number, Type::INT8), (&last, Type::TEXT)]).await
    }

    async fn change_passes(
        &self,
        update: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Passes, BoardError> {
        let session = self.session().await?;
        let asked = async { Ok(session.connection.client.query_typed(update, parameters).await?) };
        let changed = patiently(asked).await?;
        session.keep();
        changed.first().map(passes).ok_or_else(no_row)
    }

    /// The connection, once nobody else uses it; a new one where there is none, or it has died.
    async fn session(&self) -> Result<Session<'_>, BoardError> {
        let mut slot = self.connection.lock().await;
        let connection = match slot.take().filter(|connection| !connection.client.is_closed()) {
            Some(connection) => connection,
            None => Connection::open(&self.url).await.map_err(|problem| BoardError(problem.to_string()))?,
        };
        Ok(Session { slot, connection })
    }

    fn pinned(&self) -> MutexGuard<'_, BTreeMap<(Topic, String), Notice>> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection in use. Unless it is kept, it ends: whatever failed on it, the next one is new.
struct Session<'a> {
    slot: AsyncMutexGuard<'a, Option<Connection>>,
    connection: Connection,
}

impl Session<'_> {
    fn keep(mut self) {
        *self.slot = Some(self.connection);
    }
}

async fn patiently<T>(work: impl Future<Output = Result<T, BoardError>>) -> Result<T, BoardError> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => Err(BoardError("the database does not answer".to_owned())),
    }
}

/// Newer replaces older, whoever says it. In the order of the names, so that two that send cannot wait for each other.
const SEND: &str = "
    INSERT INTO leviathan.notices AS known (kind, name, content, told_at)
    SELECT kind, name, content, clock_timestamp() - make_interval(secs => age)
    FROM unnest($1::text[], $2::text[], $3::text[], $4::float8[]) AS told (kind, name, content, age)
    ORDER BY kind COLLATE \"C\", name COLLATE \"C\"
    ON CONFLICT (kind, name) DO UPDATE SET told_at = excluded.told_at, written_at = clock_timestamp(),
        content = coalesce(excluded.content, known.content)
    WHERE excluded.told_at > known.told_at";

/// An executor that was silent for a day is long lost, and a target that nobody looked at for a day is gone.
const FORGET: &str = "DELETE FROM leviathan.notices WHERE written_at < clock_timestamp() - interval '1 day'";

/// The passes, with each notice that came in the last `$1` seconds; with none, in a row of their own.
const LOOK: &str = "
    SELECT passes.requested, passes.done, passes.last, it.kind, it.name, it.content,
        extract(epoch FROM clock_timestamp() - it.told_at)::float8
    FROM leviathan.passes LEFT JOIN leviathan.notices AS it
        ON it.written_at > clock_timestamp() - make_interval(secs => $1)";

async fn send(connection: &Connection, notices: &[Notice]) -> Result<(), BoardError> {
    if notices.is_empty() {
        return Ok(());
    }
    let topics: Vec<&str> = notices.iter().map(|notice| notice.topic.as_str()).collect();
    let names: Vec<&str> = notices.iter().map(|notice| notice.name.as_str()).collect();
    let contents: Vec<Option<&str>> = notices.iter().map(|notice| notice.content.as_deref()).collect();
    let ages: Vec<f64> = notices.iter().map(|notice| notice.told.elapsed().as_secs_f64()).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
        (&topics, Type::TEXT_ARRAY),
        (&names, Type::TEXT_ARRAY),
        (&contents, Type::TEXT_ARRAY),
        (&ages, Type::FLOAT8_ARRAY),
    ];
    connection.client.execute_typed(SEND, &parameters).await?;
    Ok(())
}

async fn look(connection: &Connection, whole: bool) -> Result<Heard, BoardError> {
    let back = if whole { Duration::from_hours(24).as_secs_f64() } else { LOOK_BACK };
    let rows = connection.client.query_typed(LOOK, &[(&back, Type::FLOAT8)]).await?;
    let now = Instant::now();
    let first = rows.first().ok_or_else(no_row)?;
    let notices = rows.iter().filter_map(|row| notice(row, now)).collect();
    Ok(Heard { passes: passes(first), notices, after_a_gap: false })
}

/// The notice of a row, if it has one that this version knows.
fn notice(row: &Row, now: Instant) -> Option<Notice> {
    let topic = Topic::of(row.get::<_, Option<&str>>(3)?)?;
    let age = Duration::try_from_secs_f64(row.get::<_, f64>(6)).unwrap_or_default();
    // What was said before this machine started is of no use here.
    let told = now.checked_sub(age)?;
    Some(Notice { topic, name: row.get(4), content: row.get(5), told })
}

fn no_row() -> BoardError {
    BoardError("the row of leviathan.passes is not there".to_owned())
}

fn passes(row: &Row) -> Passes {
    let number = |column| u64::try_from(row.get::<_, i64>(column)).unwrap_or(0);
    let last: Option<&str> = row.get(2);
    Passes {
        requested: number(0),
        done: number(1),
        last: last.and_then(|text| serde_json::from_str(text).ok()),
    }
}
