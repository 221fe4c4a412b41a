//! What the hosts hold of an offloaded job, and whether it fits there.

use indexmap::IndexMap;
use steptime_clusters::Cluster;
use steptime_core::{Recorder, SimTime, SimulationError, simulate};
use steptime_plans::{HostUse, Lowered, Plan};

use crate::report::{HostMemory, OutOfMemory};

/// Memory and drives of the nodes of a job.
pub(crate) struct Hosts<'a> {
    cluster: &'a Cluster,
    plan: &'a Plan,
    lowered: &'a Lowered,
}

impl<'a> Hosts<'a> {
    /// Those of a job that offloads anything.
    pub(crate) fn of(cluster: &'a Cluster, plan: &'a Plan, lowered: &'a Lowered) -> Option<Self> {
        plan.offload.acts().then_some(Self { cluster, plan, lowered })
    }

    /// Ranks of each stage that sit on a node.
    fn ranks(&self, node: u64) -> impl Iterator<Item = (u64, &'a HostUse)> {
        let per_node = u64::from(self.cluster.gpus_per_node);
        let (begin, end) = (node * per_node, (node + 1) * per_node);
        let lanes = self.plan.lanes();
        self.lowered.stages.iter().zip(0_u64..).map(move |(stage, number)| {
            let (first, last) = (number * lanes, (number + 1) * lanes);
            (end.min(last).saturating_sub(begin.max(first)), &stage.host)
        })
    }

    /// Bytes of something over the ranks of a node.
    fn sum(&self, node: u64, of: impl Fn(&HostUse) -> u64) -> u64 {
        let each = self.ranks(node).map(|(ranks, host)| ranks.saturating_mul(of(host)));
        each.fold(0, u64::saturating_add)
    }

    /// The node with the largest sum; the first of equals.
    fn fullest(&self, of: impl Fn(&HostUse) -> u64) -> u64 {
        let mut fullest = (0, 0);
        for node in 0..u64::from(self.cluster.nodes) {
            let sum = self.sum(node, &of);
            if sum > fullest.1 {
                fullest = (node, sum);
            }
        }
        fullest.0
    }

    fn drive_capacity(&self) -> u64 {
        self.cluster.host.backing.and_then(|it| it.drives).map_or(0, |drives| drives.capacity.0)
    }

    /// The fullest node.
    pub(crate) fn memory(&self) -> HostMemory {
        let node = self.fullest(HostUse::peak);
        let mut breakdown: IndexMap<String, u64> = IndexMap::new();
        for (ranks, host) in self.ranks(node) {
            for tensor in &host.held {
                *breakdown.entry(tensor.name.replace(' ', "_")).or_default() += ranks * tensor.bytes;
            }
            if !host.stashed.is_empty() {
                *breakdown.entry("activations".to_owned()).or_default() += ranks * host.activations();
            }
        }
        let pinned = |host: &HostUse| {
            let held: u64 = host.held.iter().filter(|it| it.pinned).map(|it| it.bytes).sum();
            held + if self.plan.offload.pin_memory { host.activations() } else { 0 }
        };
        let drives = self.plan.offload.uses_drives();
        HostMemory {
            node,
            peak_bytes: self.sum(node, HostUse::peak),
            capacity_bytes: self.cluster.host.memory.0,
            pinned_bytes: self.sum(node, pinned),
            breakdown_bytes: breakdown,
            nvme_bytes: drives.then(|| self.sum(self.fullest(|it| it.drive_bytes), |it| it.drive_bytes)),
            nvme_capacity_bytes: drives.then(|| self.drive_capacity()),
        }
    }

    /// The first thing that finds no room in a host, or on its drives.
    ///
    /// # Errors
    /// As for playing the job, which is done again to see when.
    pub(crate) fn failure(&self) -> Result<Option<OutOfMemory>, SimulationError> {
        let capacity = self.cluster.host.memory.0;
        let node = self.fullest(HostUse::peak);
        let rank = node * u64::from(self.cluster.gpus_per_node);
        let mut held = 0_u64;
        for (ranks, host) in self.ranks(node) {
            for tensor in &host.held {
                let asked = ranks.saturating_mul(tensor.bytes);
                held = held.saturating_add(asked);
                if held > capacity {
                    return Ok(Some(failed(
                        rank,
                        format!("{} in host memory", tensor.name),
                        asked,
                        held - capacity,
                    )));
                }
            }
        }
        let node = self.fullest(|it| it.drive_bytes);
        let (drives, room) = (self.sum(node, |it| it.drive_bytes), self.drive_capacity());
        if drives > room {
            let rank = node * u64::from(self.cluster.gpus_per_node);
            return Ok(Some(failed(rank, "model states on drives".to_owned(), drives, drives - room)));
        }
        self.activations(capacity.saturating_sub(held))
    }

    /// The first activation that finds no room beside what the host holds all the time. What stages of one node hold at
    /// their fullest is added up, though they need not be so at the same time.
    fn activations(&self, room: u64) -> Result<Option<OutOfMemory>, SimulationError> {
        let node = self.fullest(HostUse::peak);
        let total = self.sum(node, HostUse::activations);
        if total <= room {
            return Ok(None);
        }
        let mut recorder = Recorder::default();
        simulate(&self.lowered.world, &mut recorder)?;
        let mut first: Option<OutOfMemory> = None;
        for (number, (ranks, host)) in self.ranks(node).enumerate() {
            let others = total - ranks.saturating_mul(host.activations());
            let over = |held: u64| ranks.saturating_mul(held).saturating_add(others).saturating_sub(room);
            let Some(stashed) = host.stashed.iter().find(|it| ranks > 0 && over(it.held) > 0) else {
                continue;
            };
            let Some(index) = self.lowered.ranks.iter().position(|it| it.stage == number) else { continue };
            let program = &self.lowered.world.programs()[self.lowered.world.ranks()[index].program as usize];
            let copy = recorder
                .spans()
                .iter()
                .find(|span| span.rank as usize == index && program.label(span.label) == stashed.label);
            let at = copy.map_or(SimTime::ZERO, |span| span.start).seconds();
            if first.as_ref().is_none_or(|first| at < first.at_s) {
                let layer = stashed.label.split('|').next().unwrap_or_default();
                let rank = self.lowered.ranks[index].rank;
                let asked = ranks.saturating_mul(stashed.bytes);
                let what = format!("{layer} activations in host memory");
                first = Some(OutOfMemory {
                    at_s: at,
                    layer: Some(layer.to_owned()),
                    ..failed(rank, what, asked, over(stashed.held))
                });
            }
        }
        Ok(first)
    }
}

/// A failure at the start of the first step.
fn failed(rank: u64, tensor: String, requested_bytes: u64, short_by_bytes: u64) -> OutOfMemory {
    OutOfMemory {
        rank,
        at_s: 0.0,
        tensor,
        requested_bytes,
        short_by_bytes,
        layer: None,
        unusable_bytes: 0,
        allocated_bytes: 0,
        step: 0,
    }
}

/// The earlier of two failures; of equals the host's, which holds its states before the GPUs do.
pub(crate) fn earlier(device: Option<OutOfMemory>, host: Option<OutOfMemory>) -> Option<OutOfMemory> {
    match (device, host) {
        (Some(device), Some(host)) => {
            let first = (device.step, device.at_s) < (host.step, host.at_s);
            Some(if first { device } else { host })
        }
        (device, host) => device.or(host),
    }
}

/// An interval of the step, as much wider on both sides as the waiting for what is offloaded may be off.
pub(crate) fn widened([low, high]: [f64; 2], offload_s: f64, error: f64) -> [f64; 2] {
    [(low - error * offload_s).max(0.0), high + error * offload_s]
}
