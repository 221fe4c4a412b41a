//! Traces of played steps for the tools that engineers look at traces with, and traces of others to replay.
//!
//! [`Tracks::of`] turns what the engine recorded into named tracks of nested slices; [`chrome_json`] and
//! [`perfetto_trace`] write them. [`chakra`] writes and reads execution traces of MLCommons Chakra, graphs of operations
//! that are played anew on any cluster.
//!
//! | of the simulation | Chrome JSON | Perfetto protobuf |
//! | --- | --- | --- |
//! | rank, links | process | track with children |
//! | stream, host thread, link | thread | track |
//! | kernels of a layer and pass | `X` event | slice |
//! | a pass over a micro-batch, a meeting with its waiting | `X` event around those | slice around those |
//! | a send | `s` and `f` events | flow of two slices |
//! | memory by category, bytes/s over a link | `C` event | counter track |
//!
//! Nothing is read from or written to files here.

pub mod chakra;
mod chrome;
mod links_csv;
mod perfetto;
mod tracks;

#[cfg(test)]
mod tests;

pub use chrome::chrome_json;
pub use links_csv::links_csv;
pub use perfetto::perfetto_trace;
pub use tracks::{Arrow, Counter, Slice, Track, TrackGroup, Tracks};
