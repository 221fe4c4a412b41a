//! Discrete-event engine of steptime.
//!
//! The engine plays programs: one per rank, made of a host thread that issues work, in-order streams,
//! waits between streams, meetings of several ranks (rendezvous), and allocations and frees. It returns
//! when everything ended, what every stream did, and how much memory was held when.
//!
//! It knows nothing of machine learning: activities and memory carry opaque classes and categories whose
//! meaning belongs to the caller.

mod accounts;
pub mod allocator;
mod engine;
mod error;
mod flow;
mod ledger;
mod look;
mod observer;
mod outcome;
mod program;
mod queue;
mod reference;
mod time;
mod world;

pub use engine::simulate;
pub use error::{Party, SimulationError, WaitingRank};
pub use observer::{FlowRecord, MemoryRecord, MemoryRequest, NoObserver, Observer, Recorder, Span, SpanKind};
pub use outcome::{MemoryFailure, MemoryOutcome, Outcome, RankOutcome, StreamOutcome};
pub use program::{
    Borders, CATEGORIES, CLASSES, Category, Channel, Class, Event, Label, Load, Note, Passage, Place,
    Program, ProgramBuilder, ProgramError, Step, Stream, Tensor, TensorSpec, Work,
};
pub use queue::EventQueue;
pub use reference::simulate_every_operation;
pub use time::{SimTime, TimeError};
pub use world::{Group, GroupId, Link, LinkId, LinkUse, RankSpec, World, WorldBuilder, WorldError};

#[cfg(test)]
mod tests;
