//! Execution traces of MLCommons Chakra: for each rank a graph of operations, in protobuf messages with their lengths
//! before them (`schema/protobuf/et_def.proto` of the Chakra repository, version 0.0.4).
//!
//! | of a program | node |
//! | --- | --- |
//! | work of the host, launches | `COMP_NODE`, `is_cpu_op` |
//! | kernel | `COMP_NODE` |
//! | collective | `COMM_COLL_NODE` with `comm_type`, `comm_size`, `pg_name` |
//! | send, receive | `COMM_SEND_NODE`, `COMM_RECV_NODE` with `comm_src`, `comm_dst`, `comm_tag`, `comm_size` |
//! | copy to the device, to the host | `MEM_LOAD_NODE`, `MEM_STORE_NODE` with `tensor_size` |
//! | order of a stream, of the host, events, the launch queue | `ctrl_deps` |
//!
//! `comm_size` is what nccl-tests calls the size: the whole array. Durations are whole microseconds in the schema; an
//! attribute `duration_picos` has them to the picosecond.

mod read;
mod replay;
mod schema;
mod write;

use thiserror::Error;

pub use read::{Groups, RankTrace, read};
pub use replay::{ReplayOptions, ReplayRank, ReplayReport, Replayed, replay};
pub use write::{ChakraFile, chakra_files};

/// What is wrong with a trace.
#[derive(Debug, Error)]
pub enum ChakraError {
    /// The file is not what the schema says.
    #[error("byte {at}: {message}")]
    Damaged {
        /// Where in the file.
        at: usize,
        /// Why.
        message: String,
    },
    /// A node cannot be understood.
    #[error("node {id} (\"{name}\"): {message}")]
    Node {
        /// Its number.
        id: u64,
        /// Its name.
        name: String,
        /// Why.
        message: String,
    },
    /// The ranks cannot be played together.
    #[error("{message}")]
    Replay {
        /// Why.
        message: String,
    },
    /// Ranks of which one stands for several have no trace of their own.
    #[error(
        "one rank is played for several alike, and each rank has a trace of its own: set simulation.explicit = true"
    )]
    Folded,
}
