//! What a node has beside its GPUs to keep model states in: memory at its processors, and drives.

use steptime_models::Bytes;

/// Traffic of the host's Adam with memory a parameter, bytes: reads weight, gradient and two moments, writes weight and
/// moments, 4 bytes each. What is written has just been read, so that no line is fetched for writing.
pub const HOST_ADAM_TRAFFIC: u64 = 28;
/// Arithmetic of the same a parameter, as many operations as its instructions could have done: 12 multiplications and
/// additions, a square root (19 cycles for 16 values) and a division (16 cycles) on cores that do 64 operations a cycle
/// (instruction tables of Skylake-X with 512-bit vectors).
pub const HOST_ADAM_FLOPS: f64 = 152.0;

/// Memory, processors and drives of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backing {
    /// GPUs at each processor, in the order of their numbers. Their ranks share its memory and cores.
    pub gpus_per_socket: u32,
    /// GPUs behind one port of a processor, which share its rate.
    pub gpus_per_root: u32,
    /// Data-sheet rate of one processor's memory, bytes/s.
    pub memory_bandwidth: f64,
    /// Share of [`Self::memory_bandwidth`] that code reaches which streams through memory.
    pub streaming_share: f64,
    /// 32-bit vector arithmetic of one processor, FLOP/s.
    pub vector_flops: f64,
    /// Drives of the node, where there are any.
    pub drives: Option<Drives>,
}

/// NVMe drives of a node, all together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drives {
    /// What they hold.
    pub capacity: Bytes,
    /// Sequential reads, bytes/s.
    pub read: f64,
    /// Sequential writes, bytes/s.
    pub write: f64,
}

impl Backing {
    /// Rate at which one processor's memory serves what streams through it, bytes/s.
    pub fn streaming_bandwidth(&self) -> f64 {
        self.memory_bandwidth * self.streaming_share
    }

    /// Rate at which one processor's cores could run through the memory of Adam if that were infinitely fast, bytes/s.
    pub fn adam_bandwidth(&self) -> f64 {
        self.vector_flops / HOST_ADAM_FLOPS * HOST_ADAM_TRAFFIC as f64
    }

    /// Time of Adam over so many parameters of one processor's ranks together, seconds.
    pub fn adam_s(&self, parameters: u64) -> f64 {
        let bytes = parameters as f64 * HOST_ADAM_TRAFFIC as f64;
        bytes / self.streaming_bandwidth().min(self.adam_bandwidth())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ren et al. 2021 (ZeRO-Offload), table 4, Adam latencies on two Xeon Platinum 8168: 1 to 10 billion parameters in 0.22,
    /// 0.51, 1.03, 2.41 and 2.57 s. The times were entered from memory; PyTorch's beside them, 1.39 to 14.76 s, are 5 to 6.4
    /// times as long, as the text says (section 6.2.4). One process streams through the memory of one processor, six channels of DDR4-2666.
    #[test]
    fn adam_takes_what_zero_offload_measured() {
        let host = Backing {
            gpus_per_socket: 8,
            gpus_per_root: 4,
            memory_bandwidth: 128e9,
            streaming_share: 0.85,
            vector_flops: 3e12,
            drives: None,
        };
        let measured = [(1, 0.22), (2, 0.51), (4, 1.03), (8, 2.41), (10, 2.57)];
        let mut errors: Vec<f64> = measured
            .into_iter()
            .map(|(billions, seconds)| host.adam_s(billions * 1_000_000_000) / seconds - 1.0)
            .collect();
        assert!(errors.iter().all(|error| error.abs() < 0.18), "{errors:?}");
        errors.sort_by(f64::total_cmp);
        assert!(errors[2].abs() < 0.02, "{errors:?}");
    }

    #[test]
    fn few_slow_cores_bound_it_instead() {
        let host = Backing {
            gpus_per_socket: 1,
            gpus_per_root: 1,
            memory_bandwidth: 400e9,
            streaming_share: 0.85,
            vector_flops: 152e9,
            drives: None,
        };
        assert!((host.adam_s(1_000_000_000) - 1.0).abs() < 1e-12);
    }
}
