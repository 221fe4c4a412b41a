//! How groups of ranks divide the work of a layer beside tensor parallelism: parts of sequences, and experts.

/// How ranks that hold parts of the same sequences attend to each other's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ContextMethod {
    /// Keys and values go round a ring while each rank attends to those that it has (Liu et al. 2023, ring attention;
    /// Transformer Engine's `p2p`). Each rank holds one chunk of the beginning and one of the end of 2 n, so that a
    /// causal mask leaves every rank the same work.
    #[default]
    Ring,
    /// Tokens for heads and back by two all-to-alls: each rank attends over whole sequences with its part of the heads
    /// (Jacobs et al. 2023, DeepSpeed-Ulysses).
    AllToAll,
}

/// Context parallelism of the work of one rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContextParallel {
    /// Ranks that share each sequence; at least 1.
    pub size: u64,
    /// How they attend to each other's tokens.
    pub method: ContextMethod,
}

impl ContextParallel {
    /// Whole sequences on each rank.
    pub const NONE: Self = Self { size: 1, method: ContextMethod::Ring };

    /// Ranks that share each sequence, at least 1 whatever `size` says.
    pub fn ways(&self) -> u64 {
        self.size.max(1)
    }

    /// This rank's part of `size` equal things, rounded up.
    pub fn part(&self, size: u64) -> u64 {
        size.div_ceil(self.ways())
    }
}

impl Default for ContextParallel {
    fn default() -> Self {
        Self::NONE
    }
}

/// Routed experts spread over a group of ranks, each of which has tokens of its own (Lepikhin et al. 2020, GShard;
/// Megatron-LM's `alltoall` dispatcher).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExpertParallel {
    /// Ranks over which the experts are spread.
    pub size: u64,
    /// Ranks that share each expert.
    pub tensor: u64,
    /// Tokens sent to the experts of this rank, in millionths of what a balanced router sends there.
    pub load_millionths: u64,
}

impl ExpertParallel {
    /// A balanced router's load.
    pub const BALANCED: u64 = 1_000_000;

    /// Ranks over which the experts are spread, at least 1.
    pub fn ways(&self) -> u64 {
        self.size.max(1)
    }

    /// Ranks that share each expert, at least 1.
    pub fn tensor_ways(&self) -> u64 {
        self.tensor.max(1)
    }

    /// Of `rows` that this rank sends, as many as it receives: as many, times the load of its experts, rounded up.
    pub fn received(&self, rows: u64) -> u64 {
        let exact = u128::from(rows) * u128::from(self.load_millionths);
        u64::try_from(exact.div_ceil(u128::from(Self::BALANCED))).unwrap_or(u64::MAX)
    }
}

/// How the ranks of a stage divide the parameters of its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Division {
    /// Ranks that share each layer.
    pub tensor: u64,
    /// How experts are spread, where they have groups of their own; else they are shared like other layers.
    pub expert: Option<ExpertParallel>,
}

impl Division {
    /// A tensor-parallel group alone.
    pub const fn tensor(ranks: u64) -> Self {
        Self { tensor: ranks, expert: None }
    }
}
