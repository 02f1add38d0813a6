//! A history that is folded on a thread of its own, while another reads and verifies the log.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use anyhow::Context;
use journal::Record;

use super::{History, UnknownRecord, event_of};

/// So many bytes of bodies go to the thread together.
const BATCH_BYTES: usize = 256 << 10;

/// So many batches may wait for it.
const BATCHES: usize = 8;

/// Takes records, in order, and becomes the history that follows from them.
pub(crate) struct Folding {
    waiting: Vec<Record>,
    bytes: usize,
    batches: SyncSender<Vec<Record>>,
    thread: JoinHandle<Result<History, UnknownRecord>>,
}

impl Folding {
    /// Goes on from `history`.
    pub(crate) fn begin(history: History) -> anyhow::Result<Self> {
        let (batches, coming) = sync_channel(BATCHES);
        let thread = std::thread::Builder::new().name("folding".to_owned());
        let thread = thread.spawn(move || fold(history, &coming));
        let thread = thread.context("cannot start the thread that folds the log")?;
        Ok(Self { waiting: Vec::new(), bytes: 0, batches, thread })
    }

    /// Takes the next records. Waits while the thread is far behind, so that memory is bounded.
    pub(crate) fn take(&mut self, records: Vec<Record>) {
        self.bytes += records.iter().map(|record| record.body().as_bytes().len()).sum::<usize>();
        self.waiting.extend(records);
        if self.bytes >= BATCH_BYTES {
            self.hand_over();
        }
    }

    /// The history after all that was taken; or the first record that is no event, and then the rest was read
    /// for nothing.
    pub(crate) fn end(mut self) -> Result<History, UnknownRecord> {
        self.hand_over();
        drop(self.batches);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn hand_over(&mut self) {
        self.bytes = 0;
        // A thread that has ended early says why when it is joined.
        let _ = self.batches.send(std::mem::take(&mut self.waiting));
    }
}

fn fold(mut history: History, batches: &Receiver<Vec<Record>>) -> Result<History, UnknownRecord> {
    for record in batches.iter().flatten() {
        let event = event_of(&record)?;
        history.fold(&record, event);
    }
    history.find_ids();
    Ok(history)
}
