//! What can be wrong with a model that somebody asks for or writes.

use std::fmt;

use thiserror::Error;

use crate::quantity::hint;

/// A place in a file, both counted from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Why there is no such model. Plain data with a message; `place` is set where the fault is in a user's model
/// file and not in an override.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ModelError {
    /// The catalogue has no such entry.
    #[error("the catalogue has no model `{name}`{}; it has {}", hint(.nearest.as_deref()), .known.join(", "))]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// The entry that looks most like it.
        nearest: Option<String>,
        /// All entries.
        known: Vec<String>,
    },
    /// The file names a family that does not exist.
    #[error("{}no family `{found}`{}; allowed are {}", at(*.place), hint(.nearest.as_deref()), .allowed.join(", "))]
    UnknownFamily {
        /// What the file says.
        found: String,
        /// All families.
        allowed: Vec<String>,
        /// The family that looks most like it.
        nearest: Option<String>,
        /// Where.
        place: Option<Place>,
    },
    /// A key that the section does not have.
    #[error("{}`{section}` has no field `{field}`{}; {}", at(*.place), hint(.nearest.as_deref()), fields(.allowed))]
    UnknownField {
        /// Section of the file, e.g. `architecture`.
        section: String,
        /// The key found.
        field: String,
        /// The keys that the section has.
        allowed: Vec<String>,
        /// The key that looks most like the one found.
        nearest: Option<String>,
        /// Where.
        place: Option<Place>,
    },
    /// A key that must be there is not.
    #[error("{}`{section}` lacks the field `{field}`, which must be {allowed}", at(*.place))]
    MissingField {
        /// Section of the file.
        section: String,
        /// The key that is missing.
        field: String,
        /// What its value must be.
        allowed: String,
        /// Where the section begins.
        place: Option<Place>,
    },
    /// A value of the wrong type or outside its range.
    #[error("{}`{field}` is {found}, but must be {allowed}", at(*.place))]
    BadValue {
        /// The key.
        field: String,
        /// The value found, as written.
        found: String,
        /// What it must be.
        allowed: String,
        /// Where.
        place: Option<Place>,
    },
    /// An adapter is asked for beside a linear layer that the model does not have.
    #[error("no linear layer is named `{target}`; there are {}", .known.join(", "))]
    NoSuchLinear {
        /// What was asked for.
        target: String,
        /// Last parts of the names of the linear layers.
        known: Vec<String>,
    },
    /// Not TOML.
    #[error("line {line}, column {column}: {message}")]
    BadToml {
        /// Line, counted from 1.
        line: usize,
        /// Column, counted from 1.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// A block that does not fit what the one before it hands on.
    #[error("{}block {block} of layer `{layer}`: needs {needs}, gets {gets}", at(*.place))]
    BlockMismatch {
        /// The layer.
        layer: String,
        /// Number of the block in its layer, counted from 1; within a residual block behind its number and a dot.
        block: String,
        /// What it can take.
        needs: String,
        /// What it is given.
        gets: String,
        /// Where.
        place: Option<Place>,
    },
    /// Two components, two partitions, two layers or two blocks of one name.
    #[error("{}two {what}s are named `{name}`", at(*.place))]
    DuplicateName {
        /// `component`, `partition`, `layer` or `block`.
        what: &'static str,
        /// The name.
        name: String,
        /// Where the second one is.
        place: Option<Place>,
    },
    /// A partition refers to a component that the model does not have.
    #[error(
        "{}partition `{partition}` refers to a component `{component}` that does not exist{}; there are {}",
        at(*.place), hint(.nearest.as_deref()), .known.join(", ")
    )]
    UnknownComponent {
        /// The partition.
        partition: String,
        /// The name that it uses.
        component: String,
        /// The component that looks most like it.
        nearest: Option<String>,
        /// All components.
        known: Vec<String>,
        /// Where.
        place: Option<Place>,
    },
    /// A partition without components.
    #[error("{}partition `{partition}` names no component", at(*.place))]
    EmptyPartition {
        /// The partition.
        partition: String,
        /// Where.
        place: Option<Place>,
    },
}

impl ModelError {
    /// The same error without its place, for texts that the user does not see.
    pub(crate) fn without_place(mut self) -> Self {
        match &mut self {
            Self::UnknownFamily { place, .. }
            | Self::UnknownField { place, .. }
            | Self::MissingField { place, .. }
            | Self::BadValue { place, .. }
            | Self::BlockMismatch { place, .. }
            | Self::DuplicateName { place, .. }
            | Self::UnknownComponent { place, .. }
            | Self::EmptyPartition { place, .. } => *place = None,
            Self::UnknownModel { .. } | Self::NoSuchLinear { .. } | Self::BadToml { .. } => {}
        }
        self
    }
}

/// `line 3, column 1: `, or nothing for a value that came from outside the file.
fn at(place: Option<Place>) -> String {
    place.map(|place| format!("{place}: ")).unwrap_or_default()
}

/// The allowed fields in words.
fn fields(allowed: &[String]) -> String {
    if allowed.is_empty() { "it has none".to_owned() } else { format!("allowed are {}", allowed.join(", ")) }
}
