//! Figures fit for a paper, drawn from saved results only.
//!
//! Each function takes a saved result and returns a [`Figure`]: an SVG of one or two columns' width that can
//! be written as SVG, 300-dpi PNG or PDF with its font embedded, each with what it was made from. Nothing is read from or written to files
//! here, and the same result gives the same bytes every time.
//!
//! Labels are set in 8 pt, ticks in 7 pt; there is no title inside (that is the caption's work); axes start at
//! zero (the parity plot's are logarithmic) and name their unit; colours are Okabe and Ito's with hatching or words as a second cue.

mod axis;
mod bar_text;
mod bars;
mod canvas;
mod cdf;
mod check;
mod curve;
mod error;
mod export;
mod font;
mod frame;
mod gantt;
mod heat_map;
mod html;
mod legend;
mod lines;
mod log_axis;
mod marker;
mod memory;
mod panel;
mod pareto;
mod parity;
mod plane;
mod ranking;
mod roofline;
mod row_labels;
mod scale;
mod spans;
mod spec;
mod style;
mod table;
#[cfg(test)]
#[cfg(feature = "raster-pdf")]
mod tests;
mod text_table;
mod topology;
mod tornado;
mod width;

use std::fmt;
use std::str::FromStr;

pub use bars::{breakdown, variant_comparison};
pub use error::PlotError;
pub use export::PNG_DPI;
pub use gantt::pipeline_gantt;
pub use html::{RunPage, live_page, search_page, sweep_page};
pub use memory::memory_over_time;
pub use parity::parity;
pub use scale::ScaleKind;
pub use spec::{Better, Ideal, TableKind, TableSpec};
pub use table::Table;
pub use text_table::{TextFormat, text_table};
pub use width::Width;

/// The figures that can be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FigureKind {
    /// What every stage and stream does over the step: [`pipeline_gantt`].
    PipelineGantt,
    /// Memory of one rank over the step by category: [`memory_over_time`].
    MemoryOverTime,
    /// Where the step time goes: [`breakdown`].
    Breakdown,
    /// Step time and peak memory of several runs: [`variant_comparison`].
    VariantComparison,
    /// Predicted over measured step times, a panel a suite: [`parity()`].
    Parity,
}

impl FigureKind {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::PipelineGantt, Self::MemoryOverTime, Self::Breakdown, Self::VariantComparison, Self::Parity];

    /// The name in commands and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::PipelineGantt => "pipeline_gantt",
            Self::MemoryOverTime => "memory_over_time",
            Self::Breakdown => "breakdown",
            Self::VariantComparison => "variant_comparison",
            Self::Parity => "parity",
        }
    }
}

/// File formats of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Scalable, for pages and further editing.
    Svg,
    /// 300 dots per inch.
    Png,
    /// Scalable with the font embedded, for papers.
    Pdf,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 3] = [Self::Svg, Self::Png, Self::Pdf];

    /// The name, which is the file name's extension too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Png => "png",
            Self::Pdf => "pdf",
        }
    }
}

/// One drawing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// What it shows, fit for a file name: the kind's name, with the rank where one was asked for.
    pub name: String,
    /// The drawing, a complete SVG document.
    pub svg: String,
    /// What it was made from, as pairs of a name and a text: every format carries them.
    pub facts: Vec<(String, String)>,
}

impl Figure {
    /// The same with what it was made from.
    #[must_use]
    pub fn with_facts(self, facts: Vec<(String, String)>) -> Self {
        Self { facts, ..self }
    }
}

/// Display and parsing by name for the enums of this page.
macro_rules! named {
    ($type:ty, $what:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $type {
            type Err = PlotError;

            /// Accepts the name in any case, with hyphens or underscores.
            fn from_str(text: &str) -> Result<Self, PlotError> {
                let plain = |name: &str| name.trim().to_ascii_lowercase().replace('-', "_");
                let allowed = || Self::ALL.map(Self::name).join(", ");
                Self::ALL.into_iter().find(|value| plain(value.name()) == plain(text)).ok_or_else(|| {
                    PlotError::UnknownName { what: $what, found: text.to_owned(), allowed: allowed() }
                })
            }
        }
    };
}

named!(Format, "figure format");
named!(FigureKind, "figure");
named!(Width, "figure width");
named!(TableKind, "kind of figure");
named!(ScaleKind, "scale");
named!(Ideal, "ideal line");
named!(Better, "direction");
named!(TextFormat, "format of a table");
