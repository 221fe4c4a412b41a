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
//! divided: a rank that cannot hold these cannot train.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use steptime_clusters::Cluster;
use steptime_plans::{
    Held, LayerTimes, Plan, ScheduleKind, Task, Workload, layer_times, partition_layers, state_bytes,
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
type Key = (u64, bool, u64, u8);

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

/// Plans that are left, and how many are not.
pub(super) struct Screened {
    pub(super) open: Vec<Open>,
    pub(super) counts: SearchCounts,
}

impl<'a> Screen<'a> {
    pub(super) fn new(base: &'a Scenario, section: &'a SearchSection) -> Self {
        let counts = base
            .model
            .layers
            .iter()
            .map(|layer| (layer.parameter_count(), layer.trainable_count()))
            .collect();
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
            let key =
                (candidate.micro, candidate.sequence_parallel, candidate.tensor, candidate.checkpointing);
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
                match machine.bound(times) {
                    None => screened.counts.refused += 1,
                    Some(Bound { states, .. }) if states > cluster.gpu.memory.0 && !plan.offload.acts() => {
                        screened.counts.states_do_not_fit += 1;
                    }
                    Some(Bound { seconds, .. }) => {
                        let nodes = plan.ranks().div_ceil(u64::from(cluster.gpus_per_node).max(1));
                        let score = self.section.least(self.base, seconds, (plan.ranks(), nodes));
                        if score.is_finite() {
                            screened.open.push(Open { candidate: kind, bound_s: seconds, score });
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

struct Bound {
    seconds: f64,
    /// Bytes of the fullest stage's model states.
    states: u64,
}

struct Machine<'a> {
    scenario: &'a Scenario,
    cluster: &'a Cluster,
    plan: &'a Plan,
    workload: &'a Workload,
    counts: &'a [(u64, u64)],
}

impl Machine<'_> {
    fn bound(&self, times: &[LayerTimes]) -> Option<Bound> {
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
            return Some(Bound { seconds: seconds * (1.0 - ROUNDING), states: 0 });
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
        let states = self.states(&ranges);
        Some(Bound { seconds: most as f64 * 1e-12 * (1.0 - ROUNDING), states })
    }
    /// Bytes of model states of the fullest stage.
    fn states(&self, ranges: &[Range<usize>]) -> u64 {
        let Self { plan, workload, .. } = *self;
        if workload.task != Task::Training {
            return 0;
        }
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
            state_bytes(workload, plan.zero, plan.replicas(), held).total()
        };
        (0..stages).map(of_stage).max().unwrap_or(0)
    }
}
