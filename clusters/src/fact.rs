//! Facts: every constant of a catalogue entry with the text that says where it comes from.

/// What a number rests on, from the strongest to the weakest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Basis {
    /// Measured on this hardware.
    Measured,
    /// A coefficient of a model that was fitted to measurements on this hardware.
    Fitted,
    /// From a data sheet, borrowed from related hardware, or estimated.
    DataSheet,
}

impl Basis {
    /// The word that catalogue files use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Fitted => "fitted",
            Self::DataSheet => "data-sheet",
        }
    }
}

/// One constant of a catalogue entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Key path in the catalogue file, e.g. `peak.bf16`.
    pub what: String,
    /// Value as the file writes it, e.g. `989.4 TFLOP/s`.
    pub value: String,
    /// Where it comes from.
    pub source: String,
    /// How strong that is.
    pub basis: Basis,
}

/// Index of a [`Fact`] in its owner's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FactId(pub usize);

/// A number that remembers its fact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constant {
    /// The number, in SI units.
    pub value: f64,
    /// Its fact, in the list of the GPU or host that owns the constant.
    pub fact: FactId,
    /// What it rests on.
    pub basis: Basis,
}
