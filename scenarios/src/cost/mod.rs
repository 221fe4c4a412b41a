//! What a run costs: money, energy, and time to an amount of work, failures counted in.
//!
//! `[cost]` has prices and powers, `[failures]` what breaks and how a job comes back. [`CostReport`] says in closed form
//! what follows from them for a played step; [`goodput`] plays long runs with failures drawn at random.

mod checkpoint;
mod closed_form;
mod failures;
mod goodput;
mod life;
mod money;

pub use closed_form::{daly_interval, expected_goodput, young_interval};
pub use goodput::{Finish, GOODPUT_SCHEMA, GoodputReport, Share, goodput};
pub use money::{CostReport, ToFinish};

pub(crate) use failures::Failures;
pub(crate) use money::Cost;
