//! Where each record of a segment is, kept beside it so that a start need not read the segment to know.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use super::{Index, Segment, segment_name};
use crate::cache::{Format, Unusable, column, values_of};

const FORMAT: Format = Format("leviathan-index-v2");

/// What is to be written for one segment: its first record, the offsets, and where the last of their bundles ends.
struct Places {
    first: u64,
    offsets: Vec<u64>,
    end: u64,
}

/// Keeps where the records up to `to`, the last one of a bundle, are. What is kept already is not written again.
pub(super) fn keep(folder: &Path, index: &RwLock<Index>, to: u64) -> io::Result<()> {
    let new: Vec<Places> = {
        let index = index.read().unwrap_or_else(PoisonError::into_inner);
        index.segments.iter().filter_map(|segment| segment.places(to)).collect()
    };
    for Places { first, offsets, end } in new {
        let count = offsets.len();
        FORMAT.write(&file(folder, first), &[&column([first, end]), &column(lengths(&offsets))])?;
        let mut index = index.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(segment) = index.segments.iter_mut().find(|segment| segment.first == first) {
            segment.kept = count;
        }
    }
    Ok(())
}

/// The segment in `path`, which should begin with the record `first`, as far as its places were kept.
pub(super) fn read(folder: &Path, path: &Path, first: u64) -> Result<Segment, Unusable> {
    if path.file_name().is_none_or(|name| name != segment_name(first).as_str()) {
        return Err(Unusable::Foreign("a segment is missing"));
    }
    let kept = FORMAT.read(&file(folder, first))?;
    let ends = values_of(kept.piece(0)?).collect::<Result<Vec<u64>, _>>()?;
    let offsets = offsets(kept.piece(1)?)?;
    let [begins, end] = ends[..] else { return Err(Unusable::Content("it names no segment".to_owned())) };
    let is_ordered =
        offsets.is_sorted_by(|one, next| one < next) && offsets.last().is_some_and(|last| *last < end);
    if begins != first || !is_ordered {
        return Err(Unusable::Content("it is of another segment".to_owned()));
    }
    let kept = offsets.len();
    Ok(Segment { offsets, end, kept, ..Segment::open(path, first)? })
}

/// How far each offset is from the one before it, which takes few bytes.
fn lengths(offsets: &[u64]) -> impl Iterator<Item = u64> {
    let before = std::iter::once(&0).chain(offsets);
    offsets.iter().zip(before).map(|(offset, before)| offset.wrapping_sub(*before))
}

fn offsets(lengths: &[u8]) -> Result<Vec<u64>, Unusable> {
    let mut offset = 0_u64;
    let add = |length: Result<u64, Unusable>| {
        offset = offset.wrapping_add(length?);
        Ok(offset)
    };
    values_of(lengths).map(add).collect()
}

impl Segment {
    /// Forgets where the records after `to` are.
    pub(super) fn shorten(&mut self, to: u64) {
        let count = usize::try_from((to + 1).saturating_sub(self.first)).unwrap_or(usize::MAX);
        if let Some(end) = self.offsets.get(count) {
            self.end = *end;
            self.offsets.truncate(count);
        }
    }

    /// What is to be kept of it up to the record `to`, unless it is.
    fn places(&self, to: u64) -> Option<Places> {
        let count = usize::try_from((to + 1).saturating_sub(self.first)).ok()?.min(self.offsets.len());
        if count == 0 || count == self.kept {
            return None;
        }
        let end = self.offsets.get(count).copied().unwrap_or(self.end);
        Some(Places { first: self.first, offsets: self.offsets[..count].to_vec(), end })
    }
}

fn file(folder: &Path, first: u64) -> PathBuf {
    folder.join("index").join(format!("{first:020}.index"))
}
