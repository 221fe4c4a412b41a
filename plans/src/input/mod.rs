//! How samples reach the device: loader processes, hand-over to the training process, page-locking, and copies.

mod epoch;
#[cfg(test)]
mod tests;

use steptime_clusters::{Cluster, host_copy};
use steptime_core::SimTime;
use steptime_models::Bytes;

use crate::error::PlanError;

pub use epoch::{BatchTime, Epoch, Loading};

/// Worker processes that a rank may have; each is a stream of the engine.
pub const MOST_WORKERS: u64 = 240;

/// A loader of samples as PyTorch's `DataLoader` works, and the copy to the device behind it.
///
/// Worker `i mod workers` loads batch `i`: it reads, decodes, transforms and collates all samples of it, one after the
/// other. Batches are delivered in their order. At the start every worker is given `prefetch_factor` batches, and another
/// one whenever one is taken; the training process starts all workers before it hands out the first batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Loader {
    /// Worker processes of each rank; without any the training process loads by itself.
    pub workers: u64,
    /// Batches that each worker is ahead.
    pub prefetch_factor: u64,
    /// Reading, decoding and transforming a sample on a core of its own, seconds.
    pub seconds_per_sample: f64,
    /// Collating a sample into its batch, seconds; the worker's time too.
    pub collate_seconds_per_sample: f64,
    /// Bytes of a sample as it is copied to the device.
    pub sample_bytes: u64,
    /// Whether a thread of the training process copies batches into page-locked memory.
    pub pin_memory: bool,
    /// Whether the host goes on while a page-locked batch is being copied.
    pub non_blocking: bool,
    /// Whether the workers live on from epoch to epoch.
    pub persistent_workers: bool,
    /// Cores of a node that all its ranks' loaders share; `None` is enough for all.
    pub cpu_cores: Option<u64>,
    /// The training process starts a worker, seconds.
    pub worker_start_s: f64,
    /// The training process ends a worker at the end of an epoch, seconds.
    pub worker_stop_s: f64,
    /// Receiving a batch from a worker, whatever its size, seconds.
    pub receive_s: f64,
    /// Rate at which the receiving process maps a batch in shared memory and gives it back afterwards, bytes/s.
    pub receive_bandwidth: f64,
}

impl Loader {
    /// Processes of a rank that load.
    fn processes(&self) -> u64 {
        self.workers.max(1)
    }

    /// How much longer everything takes because the loaders of a node are more than its cores.
    fn contention(&self, cluster: &Cluster) -> f64 {
        let ranks = cluster.domain.map_or(u32::MAX, |domain| domain.node_gpus).min(cluster.gpus_per_node);
        let wanted = self.processes().saturating_mul(u64::from(ranks)) as f64;
        self.cpu_cores.map_or(1.0, |cores| (wanted / cores.max(1) as f64).max(1.0))
    }

    /// One process loads a batch.
    fn load(&self, cluster: &Cluster, samples: u64) -> Result<SimTime, PlanError> {
        let each = (self.seconds_per_sample + self.collate_seconds_per_sample) * self.contention(cluster);
        Ok(SimTime::from_seconds(each * samples as f64)?)
    }

    fn bytes(&self, samples: u64) -> Bytes {
        Bytes(self.sample_bytes.saturating_mul(samples))
    }

    /// The training process takes a batch over from a worker, and gives the pages of the batch before back meanwhile.
    fn receive(&self, samples: u64) -> Result<SimTime, PlanError> {
        Ok(SimTime::from_seconds(self.receive_s + self.bytes(samples).0 as f64 / self.receive_bandwidth)?)
    }

    /// A batch is copied into page-locked memory. The driver does the same with a pageable batch, in front of its copy to
    /// the device, and is bound by it: hence the same rate.
    fn pin(&self, cluster: &Cluster, samples: u64) -> Result<SimTime, PlanError> {
        Ok(SimTime::from_seconds(self.bytes(samples).0 as f64 / cluster.host.pageable_bandwidth)?)
    }

    /// The copy to the device.
    fn copy(&self, cluster: &Cluster, samples: u64) -> Result<SimTime, PlanError> {
        let price = host_copy(&cluster.gpu, &cluster.host, self.bytes(samples), self.pin_memory);
        Ok(SimTime::from_seconds(price.seconds)?)
    }

    /// Whether the host goes on while a batch is being copied: it must ask for that, and the batch be page-locked.
    fn copies_in_background(&self) -> bool {
        self.pin_memory && self.non_blocking
    }
}
