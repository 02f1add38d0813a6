//! The records of a log as a control plane hands them out.

use api::Client;
use api::types::LogEntriesQuery;

use crate::failure::Failure;

/// How many records are asked for at once.
const PAGE: u32 = 5_000;

/// Hands the lines of the first `size` records to `each`, in order.
pub(super) async fn entries(
    client: &Client,
    size: u64,
    mut each: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut seq = 1;
    while seq <= size {
        let query = LogEntriesQuery { from: Some(seq), limit: Some(PAGE) };
        let page = client.log_entries(&query).await?;
        let wanted = usize::try_from(size - seq + 1).unwrap_or(usize::MAX);
        let lines = page.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).take(wanted);
        let before = seq;
        for line in lines {
            each(line)?;
            seq += 1;
        }
        if seq == before {
            // What the log says of itself is the caller's matter: here it just ends.
            return Ok(());
        }
    }
    Ok(())
}
