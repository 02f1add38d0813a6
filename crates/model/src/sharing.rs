//! Collections that are copied at once, however long they are: a copy shares with the original all that neither has
//! changed since.
//!
//! The graph and what is kept beside it grow with the log. They are copied while they grow, to be written down by
//! somebody who has time, and nobody may have to wait for that. Nothing here knows what it holds.

mod index;
mod list;

pub use self::index::Index;
pub use self::list::List;
