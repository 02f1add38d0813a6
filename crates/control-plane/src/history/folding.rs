//! A history that is folded while another thread reads and verifies the log.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::Context;
use journal::Record;

use super::{History, UnknownRecord, event_of};

/// So many bytes of bodies are handed over together.
const BATCH_BYTES: usize = 256 << 10;

/// So many batches may wait. Reading waits while folding is further behind, so that memory is bounded.
const BATCHES: usize = 8;

/// Folds here what `read` reads on another thread and hands over, in order. Answers what reading came to, and the
/// history that follows from `history` then; or the first record that is no event, and the rest was read for nothing.
///
/// What a history owns is allocated by the thread that folds. That is the one that asks: often the first of the process,
/// whose memory grows in larger steps.
pub(crate) fn fold_while<T: Send>(
    history: History,
    read: impl FnOnce(&mut dyn FnMut(Vec<Record>)) -> T + Send,
) -> anyhow::Result<(T, Result<History, UnknownRecord>)> {
    let (batches, coming) = sync_channel(BATCHES);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("reading".to_owned());
        let reader = thread.spawn_scoped(scope, move || {
            let mut waiting = Waiting { records: Vec::new(), bytes: 0, batches };
            let outcome = read(&mut |records| waiting.take(records));
            waiting.hand_over();
            outcome
        });
        let reader = reader.context("cannot start the thread that reads the log")?;
        let history = fold(history, coming);
        Ok((reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), history))
    })
}

/// What was read and not handed over yet.
struct Waiting {
    records: Vec<Record>,
    bytes: usize,
    batches: SyncSender<Vec<Record>>,
}

impl Waiting {
    fn take(&mut self, records: Vec<Record>) {
        self.bytes += records.iter().map(|record| record.body().as_bytes().len()).sum::<usize>();
        self.records.extend(records);
        if self.bytes >= BATCH_BYTES {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        self.bytes = 0;
        // Folding that has ended early says why by itself.
        let _ = self.batches.send(std::mem::take(&mut self.records));
    }
}

fn fold(mut history: History, batches: Receiver<Vec<Record>>) -> Result<History, UnknownRecord> {
    for record in batches.into_iter().flatten() {
        let event = event_of(&record)?;
        history.fold(&record, event);
    }
    history.find_ids();
    Ok(history)
}
