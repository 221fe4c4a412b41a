//! ZeRO: which model states are partitioned over the data-parallel ranks, and how many bytes each rank holds.
//!
//! With `N` data-parallel ranks, mixed precision and Adam, a parameter costs each rank (Rajbhandari et al.
//! 2020, figure 1, K = 12):
//!
//! | stage | partitioned | bytes a parameter |
//! | --- | --- | --- |
//! | 0 | nothing | 2 + 2 + 12 = 16 |
//! | 1 | optimizer states | 4 + 12 / N |
//! | 2 | and gradients | 2 + 14 / N |
//! | 3 | and parameters | 16 / N |
//!
//! With gradients kept in 32 bits they take 4 bytes in place of 2.

use crate::workload::{Task, Workload};

/// How much is partitioned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ZeroStage {
    /// Plain data parallelism: every rank holds everything.
    Zero,
    /// Optimizer states are partitioned.
    One,
    /// Gradients too.
    Two,
    /// Parameters too; they are gathered layer by layer when needed.
    Three,
}

impl ZeroStage {
    /// The stage with this number.
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Zero),
            1 => Some(Self::One),
            2 => Some(Self::Two),
            3 => Some(Self::Three),
            _ => None,
        }
    }
}

/// Bytes of model states that a rank holds all the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateBytes {
    /// Weights.
    pub parameters: u64,
    /// Gradients.
    pub gradients: u64,
    /// Moments and master copy.
    pub optimizer_states: u64,
}

impl StateBytes {
    /// All three.
    pub const fn total(self) -> u64 {
        self.parameters + self.gradients + self.optimizer_states
    }

    /// Those of two sets of parameters.
    pub const fn plus(self, other: Self) -> Self {
        Self {
            parameters: self.parameters + other.parameters,
            gradients: self.gradients + other.gradients,
            optimizer_states: self.optimizer_states + other.optimizer_states,
        }
    }
}

/// Values that a rank would hold if nothing were partitioned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// All of them.
    pub parameters: u64,
    /// Those that are trained, which have gradients and optimizer states.
    pub trained: u64,
    /// Those of [`Held::parameters`] that stay whole whatever is partitioned.
    pub persistent: u64,
    /// Those of [`Held::trained`] that are matrices of blocks, which some optimizers treat by themselves.
    pub matrices: u64,
}

impl Held {
    /// Parameters all of which are trained.
    pub const fn trained(parameters: u64) -> Self {
        Self { parameters, trained: parameters, persistent: 0, matrices: 0 }
    }
}

/// States of the values `held` on each of `ranks` data-parallel ranks.
///
/// A partitioned state of `x` values holds `ceil(x / ranks)` of them on every rank: frameworks pad the flat
/// buffer so that all shards are equal.
pub fn state_bytes(workload: &Workload, stage: ZeroStage, ranks: u64, held: Held) -> StateBytes {
    let part =
        |from: ZeroStage, values: u64| if stage >= from { values.div_ceil(ranks.max(1)) } else { values };
    let storage = workload.parameter_format().bytes();
    let divided = held.parameters.saturating_sub(held.persistent);
    let parameters = storage * (part(ZeroStage::Three, divided) + held.persistent);
    if workload.task == Task::Inference {
        return StateBytes { parameters, ..StateBytes::default() };
    }
    let master = if workload.has_master_copy() { 4 } else { 0 };
    // Values whose states do not differ are partitioned as one.
    let differs = workload.optimizer.matrix_moments() != workload.optimizer.moments();
    let matrices = if differs { held.matrices } else { 0 };
    StateBytes {
        parameters,
        gradients: workload.gradients().bytes() * part(ZeroStage::Two, held.trained),
        optimizer_states: (master + 4 * workload.optimizer.moments())
            * part(ZeroStage::One, held.trained.saturating_sub(matrices))
            + (master + 4 * workload.optimizer.matrix_moments()) * part(ZeroStage::One, matrices),
    }
}
