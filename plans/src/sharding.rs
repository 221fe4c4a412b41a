//! Over which of the ranks with equal parameters ZeRO partitions, where it is not over all of them.
//!
//! With `N` ranks in shard groups of `S`, each of the `N / S` groups holds all states once (FSDP's hybrid sharding, Zhao et
//! al. 2023, section 3.2.2; MiCS, Zhang et al. 2022, section 3.1; several instances of Megatron-LM's distributed
//! optimizer). Parameters are gathered and gradients scattered within a group; what has been scattered is then summed over
//! the ranks that have the same part in the other groups, `1 / S` of the gradients each.

/// How states are partitioned among ranks that have the same parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sharding {
    /// Ranks that partition the states of one copy; all ranks when absent. They are neighbours.
    pub group: Option<u64>,
    /// Whether the sum over the groups is made once a step, of the gradients added up over its micro-batches (MiCS's
    /// two-hop synchronization), and not for each micro-batch whose gradients are scattered (FSDP).
    pub sums_once: bool,
    /// Ranks among which each keeps a part of a second copy of the parameters, from which backward gathers them (ZeRO++,
    /// Wang et al. 2023, section 3.2: hierarchical partitioning).
    pub secondary: Option<u64>,
}
