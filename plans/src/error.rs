//! What can be wrong with a plan.

use steptime_clusters::{PriceError, TopologyError};
use steptime_core::allocator::ConfigError;
use steptime_core::{ProgramError, SimulationError, TimeError, WorldError};
use thiserror::Error;

use crate::schedule::ScheduleError;
use crate::swift::{FormulaParameterError, GreedyError, PathPlanError, ReplayError};

/// A plan that cannot be lowered, or cannot be played.
#[derive(Debug, Error)]
pub enum PlanError {
    /// More pipeline stages than blocks to put on them.
    #[error("{stages} pipeline stages but only {blocks} blocks: a stage needs at least one block")]
    TooManyStages {
        /// Stages asked for.
        stages: u64,
        /// Blocks of the model.
        blocks: u64,
    },
    /// The list of layers per stage does not fit the model.
    #[error("{message}")]
    StageList {
        /// What does not fit, with the arithmetic.
        message: String,
    },
    /// The job does not use exactly the cluster's GPUs.
    #[error(
        "data {data} x context {context} x tensor {tensor} x pipeline {pipeline} = {ranks} ranks, but {nodes} nodes x {gpus_per_node} GPUs = {gpus}"
    )]
    RankCount {
        /// Data-parallel ranks.
        data: u64,
        /// Ranks that share each sequence.
        context: u64,
        /// Ranks that share each layer.
        tensor: u64,
        /// Pipeline stages.
        pipeline: u64,
        /// Their product.
        ranks: u64,
        /// Nodes.
        nodes: u64,
        /// GPUs of each.
        gpus_per_node: u64,
        /// Their product.
        gpus: u64,
    },
    /// What ranks of a trace do cannot be played.
    #[error("{message}")]
    Trace {
        /// Which, and why.
        message: String,
    },
    /// The model's layers do not divide among the tensor-parallel ranks.
    #[error("{message}")]
    Tensor {
        /// What does not divide, and what is allowed.
        message: String,
    },
    /// Sequences do not divide among the context-parallel ranks.
    #[error("{message}")]
    Context {
        /// What does not divide, and what is allowed.
        message: String,
    },
    /// The routed experts do not divide among the expert-parallel ranks.
    #[error("{message}")]
    Expert {
        /// What does not divide, and what is allowed.
        message: String,
    },
    /// States cannot be partitioned over such groups, or ranks not be laid on such GPUs.
    #[error("{message}")]
    Sharding {
        /// What does not divide, and what is allowed.
        message: String,
    },
    /// What the plan keeps off the GPUs cannot be kept there.
    #[error("{message}")]
    Offload {
        /// What does not go, and what is allowed.
        message: String,
    },
    /// The job asks for more than the program can count with.
    #[error("{what}: {found} is more than the {limit} that can be played")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        found: u64,
        /// How large it may be.
        limit: u64,
    },
    /// The step has more operations than can be played.
    #[error(
        "the step has about {records} operations and tensors, more than the {limit} that can be played; use fewer \
         micro-batches or layers"
    )]
    TooManyRecords {
        /// How many, about.
        records: u64,
        /// How many there may be.
        limit: u64,
    },
    /// The ranks, each played by itself, would take longer than anybody waits.
    #[error(
        "playing every rank by itself is about {records} records of work, allowed: up to {limit}; play fewer micro-batches or \
         ranks, or those that do the same once"
    )]
    TooManyPlayed {
        /// How many, about.
        records: u64,
        /// How many there may be.
        limit: u64,
    },
    /// GPUs or their micro-batches differ in a way that cannot be played.
    #[error("{message}")]
    Uneven {
        /// What is wrong.
        message: String,
    },
    /// The topology has no way for some traffic.
    #[error(transparent)]
    Topology(TopologyError),
    /// A link that was to be slower does not exist.
    #[error("no link is named `{name}`; there are {known}, ...")]
    UnknownLink {
        /// The name given.
        name: String,
        /// Some that exist.
        known: String,
    },
    /// An operation has no price on this GPU.
    #[error(transparent)]
    Price(#[from] PriceError),
    /// The schedule breaks a rule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A time left the range of the clock.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// The lowered program breaks a rule of the engine.
    #[error("internal: {0}")]
    Program(#[from] ProgramError),
    /// The lowered world breaks a rule of the engine.
    #[error("internal: {0}")]
    World(#[from] WorldError),
    /// A path of vehicles breaks a rule.
    #[error(transparent)]
    Path(#[from] PathPlanError),
    /// The greedy baseline cannot be computed.
    #[error(transparent)]
    Greedy(#[from] GreedyError),
    /// A path of vehicles cannot be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A factor of the serial formula means nothing.
    #[error(transparent)]
    Formula(#[from] FormulaParameterError),
    /// A setting that the allocator refuses.
    #[error(transparent)]
    Allocator(#[from] ConfigError),
    /// The program cannot be played to its end.
    #[error(transparent)]
    Simulation(#[from] SimulationError),
}
