//! Memory in a report, from what the allocators of a job's ranks did.

use indexmap::IndexMap;
use steptime_core::SimTime;
use steptime_models::Model;
use steptime_plans::{RankMemory, classes};

use crate::report::{OutOfMemory, PeakMemory};

/// The rank that holds most in live tensors, of a device of `capacity` by rank; ties go to the lowest number. The verdict is about all ranks.
pub(crate) fn peak(memories: &[RankMemory], capacity: &dyn Fn(u64) -> u64, end: SimTime) -> PeakMemory {
    let fullest = memories.iter().rev().max_by_key(|memory| memory.allocated);
    let Some(memory) = fullest else { return none() };
    let mut breakdown: IndexMap<String, u64> = classes::CATEGORY_NAMES
        .iter()
        .zip(memory.by_category)
        .map(|(name, bytes)| ((*name).to_owned(), bytes))
        .collect();
    breakdown.insert(classes::CATEGORY_NAMES[usize::from(classes::CONTEXT.0)].to_owned(), memory.context);
    breakdown.insert(COMMUNICATORS.to_owned(), memory.communicators);
    breakdown.insert(FRAGMENTATION.to_owned(), memory.reserved - memory.allocated);
    PeakMemory {
        allocated_bytes: memory.allocated,
        reserved_bytes: memory.reserved,
        device_bytes: device_bytes(memory),
        capacity_bytes: capacity(memory.rank),
        after_step_bytes: memory.after_step,
        rank: memory.rank,
        at_s: memory.at.seconds(end),
        breakdown_bytes: breakdown,
        host: None,
    }
}

/// The most that a rank's device has in use.
pub(crate) fn device_bytes(memory: &RankMemory) -> u64 {
    memory.reserved + outside(memory)
}

/// What lies outside the allocator.
fn outside(memory: &RankMemory) -> u64 {
    memory.context + memory.communicators
}

const COMMUNICATORS: &str = "communicators";
const FRAGMENTATION: &str = "fragmentation";

/// Memory of nothing.
pub(crate) fn none() -> PeakMemory {
    let names = classes::CATEGORY_NAMES.iter().copied().chain([COMMUNICATORS, FRAGMENTATION]);
    PeakMemory {
        allocated_bytes: 0,
        reserved_bytes: 0,
        device_bytes: 0,
        capacity_bytes: 0,
        after_step_bytes: 0,
        rank: 0,
        at_s: 0.0,
        breakdown_bytes: names.map(|name| (name.to_owned(), 0)).collect(),
        host: None,
    }
}

/// The first request in time that fails; ties go to the lowest rank.
pub(crate) fn first_shortage(model: &Model, memories: &[RankMemory], end: SimTime) -> Option<OutOfMemory> {
    let mut first: Option<OutOfMemory> = None;
    for memory in memories {
        let Some(shortage) = &memory.shortage else { continue };
        let at_s = shortage.at.seconds(end);
        let step = u64::from(shortage.step);
        if first.as_ref().is_some_and(|it| (it.step, it.at_s) <= (step, at_s)) {
            continue;
        }
        let owner = shortage.tensor.split(' ').next().unwrap_or_default();
        let layer = model.layers.iter().find(|layer| layer.name == owner).map(|layer| layer.name.clone());
        first = Some(OutOfMemory {
            rank: memory.rank,
            at_s,
            tensor: shortage.tensor.clone(),
            requested_bytes: shortage.requested,
            short_by_bytes: shortage.segment.saturating_sub(shortage.free),
            layer,
            unusable_bytes: shortage.unusable,
            allocated_bytes: shortage.allocated,
            step,
        });
    }
    first
}
