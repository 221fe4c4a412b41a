//! What a plan keeps off the GPUs, and what the host holds of it.

/// Where something is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Store {
    /// In the memory of the GPU.
    #[default]
    Device,
    /// In the memory of the node.
    Host,
    /// On the node's drives.
    Drive,
}

/// What is kept off the GPUs, as DeepSpeed's ZeRO-Offload and ZeRO-Infinity do it for model states, and PyTorch's
/// `save_on_cpu` for activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload {
    /// Optimizer states, which the host updates; from ZeRO 2 on gradients go with them.
    pub optimizer: Store,
    /// Partitioned parameters of ZeRO 3.
    pub parameters: Store,
    /// What forward keeps of blocks for backward: of checkpointed ones their inputs.
    pub activations: bool,
    /// Whether activations are copied beside the computation; else it waits for each copy.
    pub overlap_activations: bool,
    /// Whether the host's side of copies is page-locked.
    pub pin_memory: bool,
    /// Values of a rank after which ZeRO 3 closes a group of tensors that are updated together (DeepSpeed's
    /// `sub_group_size`).
    pub sub_group: u64,
    /// Whether the drives read the next group and write the last one while one is updated (`pipeline_read`,
    /// `pipeline_write`).
    pub drive_pipeline: bool,
    /// Buffers of a group's size through which optimizer states pass on their way to the drives and back.
    pub optimizer_buffers: u64,
    /// The same for parameters, and values of each.
    pub parameter_buffers: (u64, u64),
}

impl Default for Offload {
    /// Nothing is offloaded; sizes as DeepSpeed has them.
    fn default() -> Self {
        Self {
            optimizer: Store::Device,
            parameters: Store::Device,
            activations: false,
            overlap_activations: false,
            pin_memory: true,
            sub_group: 1_000_000_000,
            drive_pipeline: false,
            optimizer_buffers: 4,
            parameter_buffers: (5, 100_000_000),
        }
    }
}

impl Offload {
    /// Whether anything is offloaded.
    pub fn acts(&self) -> bool {
        self.optimizer != Store::Device || self.parameters != Store::Device || self.activations
    }

    /// Whether anything is on drives.
    pub fn uses_drives(&self) -> bool {
        self.optimizer == Store::Drive || self.parameters == Store::Drive
    }

    /// Bytes that memory of the host for copies takes.
    pub(crate) fn copied(&self, bytes: u64) -> u64 {
        if self.pin_memory { page_locked(bytes) } else { bytes }
    }
}

/// Bytes that page-locked memory takes: PyTorch's host allocator rounds every request up to a power of two
/// (`CachingHostAllocator`).
pub fn page_locked(bytes: u64) -> u64 {
    if bytes == 0 { 0 } else { bytes.checked_next_power_of_two().unwrap_or(u64::MAX) }
}

/// Memory that a rank holds in its host all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostTensor {
    /// What it is.
    pub name: &'static str,
    /// Its bytes.
    pub bytes: u64,
    /// Whether it is page-locked.
    pub pinned: bool,
}

/// Activations that went to the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stashed {
    /// Label of the copy in the program of the rank.
    pub label: String,
    /// What the host holds of the rank's activations from here on.
    pub held: u64,
    /// What is new of it.
    pub bytes: u64,
}

/// What a rank of a stage holds off its GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostUse {
    /// All the time, in the order in which it is made.
    pub held: Vec<HostTensor>,
    /// Activations, in the order in which they are copied.
    pub stashed: Vec<Stashed>,
    /// On the drives, bytes.
    pub drive_bytes: u64,
}

impl HostUse {
    /// What the host holds of the rank all the time, bytes.
    pub fn held_bytes(&self) -> u64 {
        self.held.iter().map(|tensor| tensor.bytes).sum()
    }

    /// The most that it holds of the rank's activations, bytes.
    pub fn activations(&self) -> u64 {
        self.stashed.iter().map(|stashed| stashed.held).max().unwrap_or(0)
    }

    /// The most that it holds of the rank, bytes.
    pub fn peak(&self) -> u64 {
        self.held_bytes() + self.activations()
    }
}
