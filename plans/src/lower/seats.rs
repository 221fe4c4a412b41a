//! Ranks that do not sit in the usual order: counted otherwise, or laid on GPUs one by one.

use std::collections::BTreeMap;

use super::placement::{Along, Layout};
use crate::error::PlanError;
use crate::plan::Plan;

/// Where every lane of every stage sits, stage by stage.
#[derive(Debug)]
pub(super) struct Seats {
    gpus: Vec<u32>,
    numbers: Vec<u32>,
}

impl Seats {
    /// None where ranks sit in the usual order.
    pub(super) fn of(plan: &Plan) -> Result<Option<Self>, PlanError> {
        if plan.rank_order.is_usual() {
            return Ok(None);
        }
        let ranks = plan.ranks();
        let refuse = |message: String| Err(PlanError::Sharding { message });
        let mut taken = vec![false; ranks as usize];
        for &gpu in plan.rank_order.gpus.iter().flatten() {
            match taken.get_mut(gpu as usize) {
                Some(taken @ false) => *taken = true,
                Some(true) => return refuse(format!("GPU {gpu} is given to two ranks")),
                None => return refuse(format!("GPU {gpu} is not one of the {ranks} of the job")),
            }
        }
        if let Some(gpus) = plan.rank_order.gpus.as_ref().filter(|gpus| gpus.len() as u64 != ranks) {
            return refuse(format!("GPUs of {} ranks are listed, the job has {ranks}", gpus.len()));
        }
        let sizes = [plan.tensor, plan.context, plan.data, plan.pipeline];
        let [tensor, context, data, _] = sizes.map(|size| size.max(1));
        let number = |usual: u64| {
            let (lane, stage) = (usual % plan.lanes(), usual / plan.lanes());
            let places = [lane % tensor, lane / tensor % context, lane / tensor / context % data, stage];
            plan.rank_order.rank(places, sizes) as u32
        };
        let numbers: Vec<u32> = (0..ranks).map(number).collect();
        let seat = |&number: &u32| plan.rank_order.gpus.as_ref().map_or(number, |gpus| gpus[number as usize]);
        Ok(Some(Self { gpus: numbers.iter().map(seat).collect(), numbers }))
    }

    /// GPU of the rank that would have this number in the usual order.
    pub(super) fn gpu(&self, usual: u32) -> u32 {
        self.gpus[usual as usize]
    }

    /// Number of that rank.
    pub(super) fn number(&self, usual: u32) -> u32 {
        self.numbers[usual as usize]
    }
}

/// Whether all lanes see the same network: on every node that a stage uses sit equally many of its lanes and the same
/// lanes of the same other stages, transfers between two stages go from all of a node to one other, and groups lie alike
/// on equally many nodes.
pub(super) fn symmetric(layout: Layout<'_>) -> bool {
    let on_node = lanes_by_node(layout);
    let stages = layout.pipeline;
    nodes_alike(&on_node, stages)
        && (0..stages).all(|from| {
            [(from + 1) % stages, stages - 1 - from].into_iter().all(|to| moves_together(layout, from, to))
        })
        && Along::ALL.into_iter().all(|along| (0..stages).all(|stage| groups_alike(layout, along, stage)))
}

/// Lanes of each stage on each node, in order.
fn lanes_by_node(layout: Layout<'_>) -> BTreeMap<u32, BTreeMap<u32, Vec<u32>>> {
    let mut on_node: BTreeMap<u32, BTreeMap<u32, Vec<u32>>> = BTreeMap::new();
    for stage in 0..layout.pipeline {
        for lane in 0..layout.lanes() {
            let node = layout.node(layout.rank(stage, lane));
            on_node.entry(node).or_default().entry(stage).or_default().push(lane);
        }
    }
    on_node
}

fn nodes_alike(on_node: &BTreeMap<u32, BTreeMap<u32, Vec<u32>>>, stages: u32) -> bool {
    // What nodes of a stage hold: how many of its lanes, and of which stages.
    let mut seen: Vec<Option<(usize, Vec<u32>)>> = vec![None; stages as usize];
    for held in on_node.values() {
        let together: Vec<u32> = held.keys().copied().collect();
        let mut lanes = held.values();
        let Some(first) = lanes.next() else { continue };
        if lanes.any(|other| other != first) {
            return false;
        }
        for &stage in &together {
            let view = (first.len(), together.clone());
            if seen[stage as usize].get_or_insert_with(|| view.clone()) != &view {
                return false;
            }
        }
    }
    true
}

/// Whether the lanes of a node of one stage are on one node of the other.
fn moves_together(layout: Layout<'_>, from: u32, to: u32) -> bool {
    let mut target: BTreeMap<u32, u32> = BTreeMap::new();
    (0..layout.lanes()).all(|lane| {
        let [here, there] = [from, to].map(|stage| layout.node(layout.rank(stage, lane)));
        *target.entry(here).or_insert(there) == there
    })
}

fn groups_alike(layout: Layout<'_>, along: Along, stage: u32) -> bool {
    let mut seen: Option<Vec<usize>> = None;
    (0..layout.lanes()).filter(|&lane| layout.first_member(along, lane) == lane).all(|lane| {
        let mut on_node: BTreeMap<u32, usize> = BTreeMap::new();
        for member in layout.members(along, lane) {
            *on_node.entry(layout.node(layout.rank(stage, member))).or_default() += 1;
        }
        let counts: Vec<usize> = on_node.into_values().collect();
        let even = counts.iter().all(|count| *count == counts[0]);
        even && seen.get_or_insert_with(|| counts.clone()) == &counts
    })
}
