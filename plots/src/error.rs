//! What can go wrong when a figure is drawn or written.

use crate::{Format, TableKind};

/// Why a figure could not be drawn or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlotError {
    /// The result holds nothing that this figure could show.
    #[error("nothing to draw: {0}")]
    Empty(String),
    /// The result contradicts itself, as a file edited by hand can.
    #[error("the saved result is damaged: {0}")]
    Damaged(String),
    /// The rank that was asked for was not played.
    #[error("rank {rank} is not in the timeline; it holds {present}")]
    NoSuchRank {
        /// The rank that was asked for.
        rank: u64,
        /// The ranks that there are, in words.
        present: String,
    },
    /// A name that is not among those allowed.
    #[error("unknown {what} `{found}`; allowed: {allowed}")]
    UnknownName {
        /// What kind of name it is: `figure format`, `figure`, `figure width`.
        what: &'static str,
        /// What was found.
        found: String,
        /// All allowed names, separated by commas.
        allowed: String,
    },
    /// A figure of a table that does not name a column which its kind needs.
    #[error("figures of kind `{kind}` need `{key}`, the name of a column")]
    NeedsColumn {
        /// What was to be drawn.
        kind: TableKind,
        /// The key that is missing.
        key: &'static str,
    },
    /// The drawing library refused.
    #[error("the figure could not be drawn: {0}")]
    Drawing(String),
    /// The drawing could not be turned into this format.
    #[error("the figure could not be turned into {format}: {reason}")]
    Export {
        /// The format that was asked for.
        format: Format,
        /// The reason.
        reason: String,
    },
    /// What a page shows could not be written down.
    #[error("the page could not be written: {message}")]
    Page {
        /// The reason.
        message: String,
    },
    /// The program was built without this format.
    #[error("this build cannot write {0}: it was made without the feature `raster-pdf`")]
    FormatLeftOut(Format),
}
