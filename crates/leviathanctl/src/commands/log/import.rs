//! `leviathanctl log import` makes a journal of an export.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use journal::{Bundle, BundleId, CanonicalBody, Head, Line, Lines, Record, Unchained};

use super::audit::Audit;
use super::folder::Source;
use super::{Key, judge, unreadable, untrue};
use crate::failure::Failure;
use crate::terminal::{Screen, plain};

/// How many records a bundle of an imported journal has. Their own bundles are not in an export.
const BUNDLE: usize = 100;

/// A bundle is ended early when its bodies have so many bytes.
const BUNDLE_BYTES: usize = 1024 * 1024;

/// The size at which the next segment begins, as a control plane has it.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// Makes the journal of a new data folder of what `log export` wrote: the same records, hashes and checkpoint.
///
/// Everything is verified first to last; a journal appears only if all of it holds. A control plane started on the
/// folder goes on with the log, once the log's key is there as `log-key` or LEVIATHAN_LOG_KEY.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    key: Key,
    /// The file of the export.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The data folder, which must not have a journal.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

pub(crate) fn run(arguments: Arguments, vkey: Option<&str>, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let key = arguments.key.or(vkey)?;
    let source = Source::open(&arguments.file)?;
    let (Source::Export { .. }, Some(note)) = (&source, source.checkpoint()) else {
        return Err(unreadable(&arguments.file, &"it is a folder: only what `log export` wrote is imported"));
    };
    let judged = judge(note, key.as_ref()).map_err(|problem| untrue("its checkpoint", &problem))?;
    let journal = arguments.folder.join("journal");
    if journal.exists() {
        let told = format!("{} is there already: import into a new folder", journal.display());
        return Err(Failure::NotRun(told));
    }
    let failed =
        |problem: io::Error| Failure::NotRun(format!("{} cannot be written: {problem}", journal.display()));
    let unfinished = arguments.folder.join("journal.unfinished");
    match fs::remove_dir_all(&unfinished) {
        Err(problem) if problem.kind() != io::ErrorKind::NotFound => return Err(failed(problem)),
        _ => fs::create_dir_all(&unfinished).map_err(failed)?,
    }
    let mut audit = Audit::new(source.origin(), &[judged.checkpoint.size]);
    let mut writer = Writer::new(&unfinished, audit.head());
    source.records(|line| {
        let record = match Line::decode(line) {
            Ok(Line::Record(record)) => record,
            // The audit says what is wrong.
            Ok(Line::Commit(_)) | Err(_) => return audit.take_line(line).map_err(Failure::No),
        };
        audit.take(&record).map_err(Failure::No)?;
        writer.take(record).map_err(failed)
    })?;
    audit.compare("its checkpoint", &judged.checkpoint).map_err(Failure::No)?;
    writer.end().map_err(failed)?;
    let write = |name: &str, text: &str| -> io::Result<()> {
        let mut file = File::create(unfinished.join(name))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write("origin", source.origin()).and_then(|()| write("checkpoint", note)).map_err(failed)?;
    put_in_place(&unfinished, &journal).map_err(failed)?;
    let told = match judged.is_verified {
        true => "the key signed them",
        false => "no key was given, so nobody knows who signed them",
    };
    let records = audit.head().seq;
    screen.line(&[plain(format!("Wrote {records} records to {}; {told}.", journal.display()))])?;
    Ok(())
}

fn put_in_place(unfinished: &Path, journal: &Path) -> io::Result<()> {
    File::open(unfinished)?.sync_all()?;
    fs::rename(unfinished, journal)?;
    File::open(journal.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Writes records as segments of bundles.
struct Writer<'a> {
    folder: &'a Path,
    head: Head,
    bodies: Vec<CanonicalBody>,
    bytes: usize,
    segment: Option<(BufWriter<File>, u64)>,
}

impl<'a> Writer<'a> {
    fn new(folder: &'a Path, head: Head) -> Self {
        Self { folder, head, bodies: Vec::new(), bytes: 0, segment: None }
    }

    /// Takes the next record, which follows in the chain.
    fn take(&mut self, record: Record) -> io::Result<()> {
        self.bytes += record.body().as_bytes().len();
        self.bodies.push(record.body().clone());
        if self.bodies.len() == BUNDLE || self.bytes >= BUNDLE_BYTES { self.write() } else { Ok(()) }
    }

    fn end(mut self) -> io::Result<()> {
        if !self.bodies.is_empty() {
            self.write()?;
        }
        self.segment.take().map_or(Ok(()), |(file, _)| finish(file))
    }

    /// Writes the bundle that has come together.
    fn write(&mut self) -> io::Result<()> {
        self.bytes = 0;
        let first = self.head.seq + 1;
        let id = BundleId::parse(&format!("import-{first}")).map_err(io::Error::other)?;
        let bundle = Unchained::new(id, std::mem::take(&mut self.bodies)).map_err(io::Error::other)?;
        let bundle = Bundle::after(self.head, bundle);
        self.head = bundle.head();
        let mut lines = Lines::default();
        bundle.encode(&mut lines);
        if let Some((file, _)) = self.segment.take_if(|(_, size)| *size >= SEGMENT_BYTES) {
            finish(file)?;
        }
        let (file, size) = match &mut self.segment {
            Some(segment) => segment,
            None => {
                let file = File::create_new(self.folder.join(format!("{first:020}.ndjson")))?;
                self.segment.insert((BufWriter::new(file), 0))
            }
        };
        file.write_all(&lines.bytes)?;
        *size += lines.bytes.len() as u64;
        Ok(())
    }
}

fn finish(file: BufWriter<File>) -> io::Result<()> {
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}
