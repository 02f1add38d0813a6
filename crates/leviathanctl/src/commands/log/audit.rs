//! A log read from its first record on: its chain, and its tree at the sizes that matter. Knows no files and no
//! network.

use std::collections::BTreeMap;

use journal::{Checkpoint, Frontier, Head, Line, LineError, Record, TreeHash};

use super::Judged;

/// What a log is compared with: the checkpoint that came with it, and those that were kept.
pub(super) struct Audit {
    head: Head,
    frontier: Frontier,
    roots: BTreeMap<u64, TreeHash>,
}

/// What was found about a log that is sound as far as it was compared.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Findings {
    /// The name of the log.
    pub(super) log: String,
    /// How many records were read.
    pub(super) records: u64,
    /// What is certain now.
    pub(super) proved: Vec<String>,
    /// What could still be otherwise.
    pub(super) not_proved: Vec<String>,
}

impl Audit {
    /// Begins before the first record of the log named `origin`. The tree is looked at at these sizes.
    pub(super) fn new(origin: &str, sizes: &[u64]) -> Self {
        let frontier = Frontier::default();
        let roots = sizes.iter().map(|size| (*size, frontier.root())).collect();
        Self { head: Head::genesis(origin), frontier, roots }
    }

    /// The end of what was read.
    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// Takes in the next record, if it is the next.
    pub(super) fn take(&mut self, record: &Record) -> Result<(), String> {
        if !record.follows(self.head) {
            let (found, expected) = (record.seq(), self.head.seq + 1);
            return Err(format!(
                "record {found} stands where record {expected} belongs, or does not follow the one before it"
            ));
        }
        self.head = record.head();
        self.frontier.append(TreeHash::leaf(record.hash()));
        if let Some(root) = self.roots.get_mut(&self.head.seq) {
            *root = self.frontier.root();
        }
        Ok(())
    }

    /// Takes in the next line of records alone.
    pub(super) fn take_line(&mut self, line: &[u8]) -> Result<(), String> {
        let at = self.head.seq + 1;
        match Line::decode(line) {
            Ok(Line::Record(record)) => self.take(&record),
            Ok(Line::Commit(_)) => Err(format!("a commit line stands where record {at} belongs")),
            Err(problem @ (LineError::Spelling | LineError::Body(_) | LineError::Hash { .. })) => {
                Err(format!("where record {at} belongs: {problem}"))
            }
        }
    }

    /// Whether the log is what a checkpoint says of it.
    pub(super) fn compare(&self, what: &str, checkpoint: &Checkpoint) -> Result<(), String> {
        let Checkpoint { size, root, .. } = checkpoint;
        if *size > self.head.seq {
            let (head, first) = (self.head.seq, self.head.seq + 1);
            return Err(format!(
                "the log ends with record {head}, but {what} is of {size} records: records {first} to {size} were cut off, or an older copy was put back"
            ));
        }
        if self.roots.get(size) != Some(root) {
            return Err(format!(
                "the first {size} records are not those of {what}: the history was rewritten"
            ));
        }
        Ok(())
    }
}

impl Findings {
    /// What follows from a checkpoint that the log agrees with.
    pub(super) fn agree(&mut self, what: &str, judged: &Judged) {
        let size = judged.checkpoint.size;
        if judged.is_verified {
            self.proved.push(format!(
                "The first {size} records are those that the key signed in {what}: none was changed, removed, added or reordered since."
            ));
        } else {
            self.proved.push(format!("The first {size} records are those that {what} names."));
            self.not_proved.push(format!(
                "That the log signed {what}: no key was given, so whoever wrote the records may have written it too. Give --key."
            ));
        }
    }

    /// What follows from the line of a witness below a checkpoint that the log agrees with.
    pub(super) fn cosigned(&mut self, witness: &str, what: &str, size: u64, at: &str) {
        self.proved.push(format!(
            "The witness {witness} cosigned {what} at {at}: it had then seen no more than {size} records of this log, and these begin with all that it had seen."
        ));
    }

    /// What nobody can see from what was read.
    pub(super) fn limits(&mut self, newest: Option<u64>) {
        match newest {
            Some(size) if size < self.records => self.not_proved.push(format!(
                "Records {} to {}: they follow in the chain, but no checkpoint covers them, so a cut or another end would not be seen.",
                size + 1,
                self.records
            )),
            Some(_) => {}
            None => self.not_proved.push(
                "That this is the log that was signed: there is no checkpoint. A cut end or a history written anew would not be seen."
                    .to_owned(),
            ),
        }
        self.not_proved.push(
            "That this is the newest state: an older copy with its own checkpoint looks the same. A checkpoint kept elsewhere shows it: --since FILE."
                .to_owned(),
        );
    }
}
