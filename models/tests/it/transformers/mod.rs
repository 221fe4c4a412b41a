//! The family `transformer`: counts, work, fields and additions.

mod fields;
mod flops;
mod maw;
mod published;
mod saved;

pub(crate) use published::PUBLISHED;
