//! What the ranks of a stage see where not all are alike: GPUs of several kinds, and micro-batches of several sizes.
//!
//! Ranks that see the same share a program. A transfer costs what it costs over the slowest of the kinds that take part,
//! so that all of them agree on it.

use steptime_clusters::{Cluster, Placement};

use super::placement::{Along, Layout};
use crate::error::PlanError;
use crate::plan::Plan;

/// What a rank is and whom it meets, by kinds of GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// Its own kind.
    pub(super) kind: usize,
    /// Samples of its micro-batches; `None`: as in the workload.
    pub(super) samples: Option<u64>,
    /// By [`Along`]: the kind that sets the pace of the group.
    along: Vec<usize>,
    /// By stage: the kind that sets the pace of transfers with it.
    stages: Vec<usize>,
}

impl View {
    /// Whether a rank's work on a layer costs the same.
    pub(super) fn prices_as(&self, other: &Self) -> bool {
        (self.kind, self.samples, &self.along) == (other.kind, other.samples, &other.along)
    }
}

/// Links as a rank sees them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links<'a> {
    cluster: &'a Cluster,
    view: &'a View,
}

impl<'a> Links<'a> {
    /// Those of a view of the cluster.
    pub(super) fn new(cluster: &'a Cluster, view: &'a View) -> Self {
        Self { cluster, view }
    }

    /// The cluster of the rank's own kind.
    pub(super) fn own(self) -> &'a Cluster {
        self.cluster.kind(self.view.kind)
    }

    /// The cluster by which collectives of a group are priced.
    pub(super) fn along(self, along: Along) -> &'a Cluster {
        self.cluster.kind(self.view.along.get(along as usize).copied().unwrap_or(self.view.kind))
    }

    /// The same of transfers between the rank's stage and another.
    pub(super) fn with_stage(self, stage: usize) -> &'a Cluster {
        self.cluster.kind(self.view.stages.get(stage).copied().unwrap_or(self.view.kind))
    }
}

/// The views of a job, and which lane has which.
#[derive(Clone, Debug)]
pub(super) struct Views {
    /// By stage: what its lanes see, each once.
    pub(super) of_stage: Vec<Vec<View>>,
    /// By stage and lane: the number of its view; empty where all lanes of a stage see the same.
    of_lane: Vec<Vec<usize>>,
}

impl Views {
    /// What the ranks of a job see.
    pub(super) fn of(cluster: &Cluster, plan: &Plan, layout: Layout<'_>) -> Self {
        let stages = layout.pipeline;
        if !cluster.is_mixed() && plan.micro_batches.is_none() {
            let same = View { kind: 0, samples: None, along: Vec::new(), stages: Vec::new() };
            return Self {
                of_stage: vec![vec![same]; stages as usize],
                of_lane: vec![Vec::new(); stages as usize],
            };
        }
        let mut views = Self { of_stage: Vec::new(), of_lane: Vec::new() };
        for stage in 0..stages {
            let (mut known, mut of_lane): (Vec<View>, Vec<usize>) = (Vec::new(), Vec::new());
            for lane in 0..layout.lanes() {
                let view = Self::view(cluster, plan, layout, (stage, lane));
                of_lane.push(known.iter().position(|other| *other == view).unwrap_or_else(|| {
                    known.push(view);
                    known.len() - 1
                }));
            }
            views.of_stage.push(known);
            views.of_lane.push(of_lane);
        }
        views
    }

    fn view(cluster: &Cluster, plan: &Plan, layout: Layout<'_>, (stage, lane): (u32, u32)) -> View {
        let kind = |stage, lane| cluster.kind_of(u64::from(layout.rank(stage, lane)));
        let along = Along::ALL.map(|along| {
            let members = layout.members(along, lane).map(|member| kind(stage, member));
            slowest(cluster, members, layout.placement(along, stage, lane))
        });
        let with = |other| {
            let nodes = if layout.crosses(stage, other, lane) { 2 } else { 1 };
            slowest(
                cluster,
                [kind(stage, lane), kind(other, lane)].into_iter(),
                Placement { ranks: 2, nodes },
            )
        };
        let samples = plan
            .micro_batches
            .as_ref()
            .and_then(|sizes| sizes.get((lane / (layout.tensor * layout.context)) as usize).copied());
        View {
            kind: kind(stage, lane),
            samples,
            along: along.to_vec(),
            stages: (0..layout.pipeline).map(with).collect(),
        }
    }

    /// The number of a lane's view among those of its stage.
    pub(super) fn number(&self, stage: u32, lane: u32) -> usize {
        self.of_lane[stage as usize].get(lane as usize).copied().unwrap_or(0)
    }

    /// Whether all lanes of each stage see the same.
    pub(super) fn alike(&self) -> bool {
        self.of_stage.iter().all(|views| views.len() == 1)
    }
}

/// Of the kinds in a group the one whose links are slowest; of equal ones the one whose network, then whose name comes first
/// in the cluster.
fn slowest(cluster: &Cluster, kinds: impl Iterator<Item = usize>, placement: Placement) -> usize {
    let rate = |kind: usize| cluster.kind(kind).group_bandwidth(placement);
    kinds
        .reduce(|best, kind| {
            let order = rate(kind).total_cmp(&rate(best)).then(kind.cmp(&best));
            if order.is_lt() { kind } else { best }
        })
        .unwrap_or(0)
}

/// Whether a split of micro-batches over replicas can be.
pub(super) fn check(cluster: &Cluster, plan: &Plan, micro_batch: u64) -> Result<(), PlanError> {
    let apart = cluster.is_mixed() || plan.micro_batches.is_some();
    if apart && plan.offload.acts() {
        let message = "offloading is not modelled where GPUs or their micro-batches differ".to_owned();
        return Err(PlanError::Uneven { message });
    }
    let Some(sizes) = &plan.micro_batches else { return Ok(()) };
    let message = if sizes.len() as u64 != plan.data {
        Some(format!("{} sizes of micro-batches for {} data-parallel ranks", sizes.len(), plan.data))
    } else if sizes.contains(&0) {
        Some("a data-parallel rank without samples".to_owned())
    } else if sizes.iter().fold(0_u64, |sum, it| sum.saturating_add(*it))
        != micro_batch.saturating_mul(plan.data)
    {
        let sum: u64 = sizes.iter().fold(0, |sum, it| sum.saturating_add(*it));
        Some(format!(
            "the micro-batches add up to {sum} samples; micro_batch_size {micro_batch} x {} ranks are {}",
            plan.data,
            micro_batch.saturating_mul(plan.data)
        ))
    } else if plan.spreads_experts() {
        Some("experts that are spread over ranks need equal micro-batches on all of them".to_owned())
    } else {
        None
    };
    message.map_or(Ok(()), |message| Err(PlanError::Uneven { message }))
}
