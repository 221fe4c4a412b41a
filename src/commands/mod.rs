//! One module a command.

pub(crate) mod catalogue;
pub(crate) mod completions;
pub(crate) mod plot;
pub(crate) mod run;
