//! Bounds of plans.
//!
//! **Time.** On stage `s` every micro-batch takes the kernels of its layers, forward `f_s` and backward `b_s`. Its first one has
//! come through the stages before, and behind its last backward those before are still to do theirs:
//!
//! ```text
//! step >= max_s [ m (f_s + b_s) + sum_{j < s} f_j + sum_{j < s} b_j ]
//! ```
//!
//! with `m` micro-batches; with several chunks on a stage `f_j` and `b_j` are of the first chunk of stage `j`. Where a
//! schedule puts gradients of weights off, the last sum is left out. Transfers, updates and the host only add.
//!
//! **Memory.** Weights, gradients and optimizer states of a rank's layers, tensors that all ranks hold whole counted as if
//! divided; or weights, optimizer states, and what forwards keep for their backwards when most of them are under way, for then gradients
//! may not be there yet. On stage `s` of `p`, 1F1B has `min(p - s, m)` forwards under way after the first of them that a backward
//! follows, GPipe all `m`, and interleaved 1F1B with `v` chunks `min(2 (p - s - 1) + (v - 1) p + 1, v m)` of chunks, `p` micro-batches
//! through each chunk in turn (Narayanan et al. 2021, section 2.2). Under any schedule a micro-batch has all of a stage's chunks
//! behind it before the last one's backward begins. A rank that cannot hold these cannot train.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use steptime_clusters::Cluster;
use steptime_models::Model;
use steptime_plans::{
    CheckpointedBlocks, Held, LayerTimes, Plan, ScheduleKind, StateBytes, Task, Workload, layer_times,
    partition_layers, state_bytes,
};

use super::section::SearchSection;
use super::space::Candidate;
use super::split::balanced;
use super::{Open, SearchCounts};
use crate::error::InputError;
use crate::scenario::Scenario;

/// Bounds are sums of whole picoseconds; converted to seconds they may be off by a rounding.
const ROUNDING: f64 = 1e-12;

/// What changes a layer's kernels.
type Key = (u64, bool, u64, u8, Option<u64>, Option<u64>);

pub(super) struct Screen<'a> {
    base: &'a Scenario,
    section: &'a SearchSection,
    times: BTreeMap<Key, Option<Vec<LayerTimes>>>,
    /// The split of these times over so many stages whose slowest stage is fastest, where that is not the even one.
    splits: BTreeMap<(Key, u64), Option<Vec<u64>>>,
    /// By number of nodes.
    clusters: BTreeMap<u64, Cluster>,
    /// By layer: parameters, and those that are trained.
    counts: Vec<(u64, u64)>,
}

/// Of each layer its parameters, and those that are trained.
pub(super) fn layer_counts(model: &Model) -> Vec<(u64, u64)> {
    model.layers.iter().map(|layer| (layer.parameter_count(), layer.trainable_count())).collect()
}

/// Plans that are left, and how many are not.
pub(super) struct Screened {
    pub(super) open: Vec<Open>,
    pub(super) counts: SearchCounts,
}

impl<'a> Screen<'a> {
    pub(super) fn new(base: &'a Scenario, section: &'a SearchSection) -> Self {
        let counts = layer_counts(&base.model);
        let (times, splits, clusters) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { base, section, times, splits, clusters, counts }
    }

    /// Screens all plans, and adds those with uneven stages where these may be faster.
    pub(super) fn all(&mut self, candidates: Vec<Candidate>) -> Result<Screened, InputError> {
        let mut screened = Screened { open: Vec::new(), counts: SearchCounts::default() };
        for candidate in candidates {
            let (plan, workload) = candidate.sized(self.base)?;
            let cluster = match self.clusters.entry(candidate.nodes) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(candidate.cluster(self.base)?),
            };
            let key = (
                candidate.micro,
                candidate.sequence_parallel,
                candidate.tensor,
                candidate.checkpointing,
                candidate.context,
                candidate.expert,
            );
            let model = &self.base.model;
            let times =
                self.times.entry(key).or_insert_with(|| layer_times(model, cluster, &plan, &workload).ok());
            let Some(times) = times else {
                screened.counts.plans += 1;
                screened.counts.refused += 1;
                continue;
            };
            let uneven = (self.section.uneven && candidate.pipeline > 1 && candidate.virtual_pipeline == 1)
                .then(|| {
                    let split = || balanced(model, times, candidate.pipeline);
                    self.splits.entry((key, candidate.pipeline)).or_insert_with(split).clone()
                })
                .flatten();
            let mut kinds = vec![candidate.clone()];
            if let Some(stages) = uneven {
                kinds.push(Candidate { stages: Some(stages), ..candidate });
            }
            for kind in kinds {
                screened.counts.plans += 1;
                let plan = Plan { stages: kind.stages.clone(), ..plan.clone() };
                let machine = Machine {
                    scenario: self.base,
                    cluster,
                    plan: &plan,
                    workload: &workload,
                    counts: &self.counts,
                };
                let room = self.section.room(cluster.gpu.memory.0);
                match machine.bound(times) {
                    None => screened.counts.refused += 1,
                    Some(Bound { states, .. }) if states > room => screened.counts.states_do_not_fit += 1,
                    Some(Bound { bytes, .. }) if bytes > room => screened.counts.activations_do_not_fit += 1,
                    Some(Bound { seconds, bytes, .. }) => {
                        let nodes = plan.ranks().div_ceil(u64::from(cluster.gpus_per_node).max(1));
                        let score = self.section.least(self.base, seconds, (plan.ranks(), nodes));
                        if score.is_finite() {
                            let costs = SearchSection::least_costs(self.base, seconds, (plan.ranks(), nodes));
                            let (bound_s, bound_bytes) = (seconds, bytes);
                            screened.open.push(Open { candidate: kind, bound_s, bound_bytes, costs, score });
                        } else {
                            screened.counts.bound_is_worse += 1;
                        }
                    }
                }
            }
        }
        Ok(screened)
    }
}

pub(super) struct Bound {
    pub(super) seconds: f64,
    /// Bytes of the fullest stage's model states; nothing is said of plans that offload.
    pub(super) states: u64,
    /// Bytes that the fullest stage holds at some moment.
    pub(super) bytes: u64,
}

pub(super) struct Machine<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) cluster: &'a Cluster,
    pub(super) plan: &'a Plan,
    pub(super) workload: &'a Workload,
    pub(super) counts: &'a [(u64, u64)],
}

impl Machine<'_> {
    pub(super) fn bound(&self, times: &[LayerTimes]) -> Option<Bound> {
        let Self { scenario, plan, workload, .. } = *self;
        debug_assert!(self.cluster.gpus_per_node > 0);
        let virtual_stages = plan.pipeline.checked_mul(plan.virtual_pipeline)?;
        let ranges =
            partition_layers(&scenario.model, virtual_stages as usize, plan.stages.as_deref()).ok()?;
        let sum = |range: &Range<usize>| {
            let of = times.get(range.clone()).unwrap_or_default();
            of.iter().fold((0_u128, 0_u128), |sum, layer| {
                (sum.0 + u128::from(layer.forward.picos()), sum.1 + u128::from(layer.backward.picos()))
            })
        };
        let chunks: Vec<(u128, u128)> = ranges.iter().map(sum).collect();
        let stages = plan.pipeline as usize;
        // Interleaved 1F1B has virtual stage `c` on stage `c mod p`. Where other schedules put their chunks is theirs: the
        // busiest stage has the mean at least.
        if plan.virtual_pipeline > 1 && plan.schedule != ScheduleKind::OneForwardOneBackward {
            let all: u128 = chunks.iter().map(|(forward, backward)| forward + backward).sum();
            let seconds = (all * u128::from(workload.accumulation) / stages as u128) as f64 * 1e-12;
            return Some(Bound { seconds: seconds * (1.0 - ROUNDING), states: 0, bytes: 0 });
        }
        let splits = plan.schedule.splits_backward();
        let mut before = 0_u128;
        let mut most = 0_u128;
        for stage in 0..stages {
            let own = chunks.iter().skip(stage).step_by(stages);
            let work: u128 = own.map(|(forward, backward)| forward + backward).sum();
            most = most.max(work * u128::from(workload.accumulation) + before);
            let (forward, backward) = chunks.get(stage).copied().unwrap_or_default();
            before += forward + if splits { 0 } else { backward };
        }
        let seconds = most as f64 * 1e-12 * (1.0 - ROUNDING);
        if workload.task != Task::Training || plan.offload.acts() {
            return Some(Bound { seconds, states: 0, bytes: 0 });
        }
        let kept: Vec<u64> = ranges
            .iter()
            .map(|range| times.get(range.clone()).unwrap_or_default().iter().map(|layer| layer.kept).sum())
            .collect();
        let (mut states, mut bytes) = (0_u64, 0_u64);
        for (stage, held) in self.states(&ranges).into_iter().enumerate() {
            let lasting = held.parameters.saturating_add(held.optimizer_states);
            states = states.max(held.total());
            bytes = bytes.max(lasting.saturating_add(self.kept_of_stage(stage, &kept)));
        }
        Some(Bound { seconds, states, bytes: bytes.max(states) })
    }

    /// Bytes that forwards keep on a stage at its fullest, of each virtual stage so many for a micro-batch.
    fn kept_of_stage(&self, stage: usize, kept: &[u64]) -> u64 {
        let Self { plan, workload, .. } = *self;
        // Where only some blocks of a chunk are recomputed, which ones depends on the chunk.
        if workload.checkpointed != CheckpointedBlocks::Each {
            return 0;
        }
        let (stages, micro_batches) = (plan.pipeline, workload.accumulation);
        let own: Vec<u64> = kept.iter().skip(stage).step_by(stages as usize).copied().collect();
        let behind = stages.saturating_sub(stage as u64);
        let one = own.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        match plan.schedule {
            ScheduleKind::OneForwardOneBackward if plan.virtual_pipeline > 1 => {
                if plan.micro_batch_group.is_some() {
                    return one;
                }
                let chunks = plan.virtual_pipeline;
                let before = 2 * (behind - 1) + (chunks - 1) * stages + 1;
                let chunk =
                    |forward: u64| own.get((forward / stages % chunks) as usize).copied().unwrap_or(0);
                let all = (0..before.min(chunks * micro_batches)).map(chunk);
                all.fold(0_u64, u64::saturating_add).max(one)
            }
            ScheduleKind::OneForwardOneBackward => one.saturating_mul(behind.min(micro_batches)),
            ScheduleKind::GPipe => one.saturating_mul(micro_batches),
            _ => one,
        }
    }

    /// Bytes of model states of each stage.
    fn states(&self, ranges: &[Range<usize>]) -> Vec<StateBytes> {
        let Self { plan, workload, .. } = *self;
        // Experts are spread over more ranks than share a layer.
        let divided = plan.tensor.max(1) * plan.expert.max(1);
        let stages = plan.pipeline as usize;
        let of_stage = |stage: usize| {
            let chunks = ranges.iter().skip(stage).step_by(stages);
            let layers = chunks.flat_map(|range| self.counts.get(range.clone()).unwrap_or_default());
            let (all, trained) = layers.fold((0_u64, 0_u64), |sum, layer| {
                (sum.0.saturating_add(layer.0), sum.1.saturating_add(layer.1))
            });
            let held =
                Held { parameters: all / divided, trained: trained / divided, persistent: 0, matrices: 0 };
            state_bytes(workload, plan.zero, plan.replicas(), held)
        };
        (0..stages).map(of_stage).collect()
    }
}
