//! How ZeRO 3 fetches parameters: what is gathered together, how early, and what stays.

/// When backward gathers what it needs next (`backward_prefetch` of PyTorch's FSDP).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackwardPrefetch {
    /// Before the gradients of the current unit are computed.
    #[default]
    Before,
    /// After that, and before they are reduced.
    After,
    /// When it is needed.
    None,
}

/// Fetching by amounts of values, as DeepSpeed does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByValues {
    /// Values that each layer asks for ahead; the unit that reaches this number is gathered whole
    /// (`stage3_prefetch_bucket_size`).
    pub ahead: u64,
    /// Values that may be whole at a time, beyond which nothing is asked for ahead or kept (`stage3_max_live_parameters`).
    pub live: u64,
    /// What is used again before so many values have been used stays whole (`stage3_max_reuse_distance`).
    pub reuse: u64,
}

impl ByValues {
    /// DeepSpeed's defaults.
    pub const USUAL: Self = Self { ahead: 50_000_000, live: 1_000_000_000, reuse: 1_000_000_000 };
}

/// Which of PyTorch's two FSDPs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FsdpVersion {
    /// `FullyShardedDataParallel`: a unit's parameters are views of a flat one.
    #[default]
    Flat,
    /// `fully_shard`: each parameter is sharded by itself.
    PerParameter,
}

/// How ZeRO 3 fetches parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Blocks that are gathered, and whose gradients are reduced, together: the unit that is wrapped.
    pub unit: u64,
    /// Whose hooks do it, unless DeepSpeed's ([`Self::is_deepspeed`]).
    pub version: FsdpVersion,
    /// Whether forward asks for the next unit before it computes the current one (`forward_prefetch`).
    pub forward_ahead: bool,
    /// When backward does.
    pub backward: BackwardPrefetch,
    /// Whether the host waits where more than two units would be whole at a time (`limit_all_gathers`).
    pub limited: bool,
    /// Fetching by amounts instead.
    pub by_values: Option<ByValues>,
    /// Parameters of fewer values than this stay whole on every rank (`stage3_param_persistence_threshold`).
    pub persistent_below: u64,
    /// Whether each parameter is gathered, and its gradient reduced, by itself and through a list of one tensor a rank, as
    /// DeepSpeed did before PyTorch had collectives of one tensor (`_allgather_param` of versions 0.3 and 0.4).
    pub lists: bool,
}

impl Fetch {
    /// Whether DeepSpeed's hooks do it, module by module.
    pub const fn is_deepspeed(&self) -> bool {
        self.by_values.is_some() || self.lists
    }
}

impl Default for Fetch {
    /// PyTorch's FSDP.
    fn default() -> Self {
        Self {
            unit: 1,
            version: FsdpVersion::Flat,
            forward_ahead: false,
            backward: BackwardPrefetch::Before,
            limited: true,
            by_values: None,
            persistent_below: 0,
            lists: false,
        }
    }
}
