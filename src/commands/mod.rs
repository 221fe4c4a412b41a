//! One module a command.

pub(crate) mod calibrate;
pub(crate) mod check;
pub(crate) mod clusters;
pub(crate) mod collectives;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod goodput;
pub(crate) mod import;
pub(crate) mod max_batch;
pub(crate) mod models;
pub(crate) mod page;
pub(crate) mod plot;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod search;
pub(crate) mod sweep;
pub(crate) mod trace;
pub(crate) mod validate;
