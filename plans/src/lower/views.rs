//! What the ranks of a stage see where not all are alike: GPUs of several kinds, and micro-batches of several sizes.
//!
//! Ranks that see the same share a program. A transfer costs what it costs over the slowest of the kinds that take part,
//! so that all of them agree on it.

use std::collections::BTreeMap;

use steptime_clusters::{Cluster, Placement};

use super::placement::{Along, Layout};
use crate::error::PlanError;
use crate::plan::Plan;
use crate::workload::Workload;
use crate::zero::ZeroStage;

/// What a rank is and whom it meets, by kinds of GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// Its own kind.
    pub(super) kind: usize,
    /// Samples of its micro-batches; `None`: as in the workload.
    pub(super) samples: Option<u64>,
    /// Its micro-batches; `None`: as in the workload.
    pub(super) count: Option<u64>,
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

/// The kinds that set the pace of a stage's groups, by direction and first member: groups are looked through once, not once
/// for each member.
type Paces = BTreeMap<(usize, u32), usize>;

impl Views {
    /// What the ranks of a job see.
    pub(super) fn of(cluster: &Cluster, plan: &Plan, layout: Layout<'_>) -> Self {
        let stages = layout.pipeline;
        if !cluster.is_mixed() && !plan.has_uneven_batches() {
            let same = View { kind: 0, samples: None, count: None, along: Vec::new(), stages: Vec::new() };
            return Self {
                of_stage: vec![vec![same]; stages as usize],
                of_lane: vec![Vec::new(); stages as usize],
            };
        }
        let mut views = Self { of_stage: Vec::new(), of_lane: Vec::new() };
        for stage in 0..stages {
            let (mut known, mut of_lane): (Vec<View>, Vec<usize>) = (Vec::new(), Vec::new());
            let mut paces = Paces::new();
            for lane in 0..layout.lanes() {
                let view = Self::view(cluster, plan, layout, (stage, lane), &mut paces);
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

    fn view(
        cluster: &Cluster,
        plan: &Plan,
        layout: Layout<'_>,
        (stage, lane): (u32, u32),
        paces: &mut Paces,
    ) -> View {
        let kind = |stage, lane| cluster.kind_of(u64::from(layout.rank(stage, lane)));
        let along = Along::ALL.map(|along| {
            *paces.entry((along as usize, layout.first_member(along, lane))).or_insert_with(|| {
                let members = layout.members(along, lane).map(|member| kind(stage, member));
                slowest(cluster, members, layout.placement(along, stage, lane))
            })
        });
        let with = |other| {
            let nodes = if layout.crosses(stage, other, lane) { 2 } else { 1 };
            slowest(
                cluster,
                [kind(stage, lane), kind(other, lane)].into_iter(),
                Placement { ranks: 2, nodes },
            )
        };
        let replica = (lane / (layout.tensor * layout.context)) as usize;
        let own = |list: &Option<Vec<u64>>| list.as_ref().and_then(|each| each.get(replica).copied());
        View {
            kind: kind(stage, lane),
            samples: own(&plan.micro_batches),
            count: own(&plan.micro_batch_counts),
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
pub(super) fn check(cluster: &Cluster, plan: &Plan, workload: &Workload) -> Result<(), PlanError> {
    let apart = cluster.is_mixed() || plan.has_uneven_batches();
    if apart && plan.offload.acts() {
        let message = "offloading is not modelled where GPUs or their micro-batches differ".to_owned();
        return Err(PlanError::Uneven { message });
    }
    let message = match (&plan.micro_batches, &plan.micro_batch_counts) {
        (None, None) => None,
        (Some(_), Some(_)) => Some(
            "data-parallel ranks differ in the sizes of their micro-batches or in their number: not in both"
                .to_owned(),
        ),
        _ if plan.spreads_experts() => {
            Some("experts that are spread over ranks need equal micro-batches on all of them".to_owned())
        }
        (Some(sizes), None) => {
            let (each, what) = (workload.micro_batch_size, ["sizes of micro-batches", "samples"]);
            fault(plan, sizes, each, "micro_batch_size", what)
        }
        (None, Some(_)) if plan.zero > ZeroStage::One => Some(
            "ZeRO 2 and 3 exchange something with every micro-batch: all data-parallel ranks need as many"
                .to_owned(),
        ),
        (None, Some(_)) if workload.last_micro_batch_size.is_some() => {
            Some("with a smaller last micro-batch all data-parallel ranks need as many".to_owned())
        }
        (None, Some(counts)) => {
            let (each, what) = (workload.accumulation, ["numbers of micro-batches", "micro-batches"]);
            fault(plan, counts, each, "gradient_accumulation_steps", what)
        }
    };
    message.map_or(Ok(()), |message| Err(PlanError::Uneven { message }))
}

/// Why a list for each data-parallel rank does not make up what equal ones of `each` have.
fn fault(plan: &Plan, list: &[u64], each: u64, key: &str, [entries, what]: [&str; 2]) -> Option<String> {
    let sum: u64 = list.iter().fold(0, |sum, it| sum.saturating_add(*it));
    let all = each.saturating_mul(plan.data);
    if list.len() as u64 != plan.data {
        Some(format!("{} {entries} for {} data-parallel ranks", list.len(), plan.data))
    } else if list.contains(&0) {
        Some(format!("a data-parallel rank without {what}"))
    } else if sum != all {
        let what = if what == "samples" { "the micro-batches add up to" } else { "the numbers add up to" };
        let unit = if key == "micro_batch_size" { "samples" } else { "micro-batches" };
        Some(format!("{what} {sum} {unit}; {key} {each} x {} ranks are {all}", plan.data))
    } else {
        None
    }
}
