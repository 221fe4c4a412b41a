//! Memory in a report, from what the allocators of a job's ranks did.

use indexmap::IndexMap;
use steptime_core::SimTime;
use steptime_models::Model;
use steptime_plans::{RankMemory, Traced, classes};

use crate::host_memory;
use crate::report::{FailedRequest, LevelPoint, OutOfMemory, PeakMemory, Report, Timeline, Verdict};

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

/// The report of a step's times with the memory of its ranks, all of whose devices have `capacity` bytes.
pub(crate) fn told(
    report: Report,
    model: &Model,
    memories: &[RankMemory],
    capacity: u64,
    end: SimTime,
) -> Report {
    let device = first_shortage(model, memories, end);
    let out_of_memory = host_memory::earlier(device, report.out_of_memory);
    Report {
        verdict: if out_of_memory.is_some() { Verdict::OutOfMemory } else { Verdict::Fits },
        peak_memory: PeakMemory { host: report.peak_memory.host, ..peak(memories, &|_| capacity, end) },
        out_of_memory,
        ..report
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

/// Adds to a timeline what the allocators of its ranks' stages reserve in the last step that was replayed, and the request
/// that fails.
pub(crate) fn lay_over(timeline: &mut Timeline, stages: &[Traced]) {
    let step_s = timeline.step_time_s;
    for rank in &mut timeline.ranks {
        let Some(traced) = stages.iter().find(|it| it.memory.stage as u64 == rank.stage) else { continue };
        rank.reserved = reserved(traced, step_s);
        rank.failed_request = traced.memory.shortage.as_ref().map(|shortage| {
            let last = traced.blocks.last().map_or(0, |last| last.reserved);
            FailedRequest {
                step: u64::from(shortage.step),
                at_s: shortage.at.seconds(SimTime::from_picos((step_s * 1e12) as u64)),
                tensor: shortage.tensor.clone(),
                requested_bytes: shortage.requested,
                needed_bytes: outside(&traced.memory) + last + shortage.segment,
            }
        });
    }
}

/// What is taken of a device over the last step that was replayed, context and communicators included.
fn reserved(traced: &Traced, step_s: f64) -> Vec<LevelPoint> {
    let last = traced.blocks.last().map_or(0, |block| block.step);
    let before = traced.blocks.iter().rev().find(|block| block.step < last);
    let level = |bytes: u64| bytes + outside(&traced.memory);
    let mut points = vec![LevelPoint { at_s: 0.0, bytes: level(before.map_or(0, |block| block.reserved)) }];
    for block in traced.blocks.iter().filter(|block| block.step == last) {
        let (at_s, bytes) = (traced.seconds(block.reached, step_s), level(block.reserved));
        let open = points.len() - 1;
        // Streams get to what the host has ordered at moments that need not be in its order.
        let at_s = at_s.max(points[open].at_s);
        if at_s.total_cmp(&points[open].at_s).is_eq() {
            points[open].bytes = bytes;
        } else if points[open].bytes != bytes {
            points.push(LevelPoint { at_s, bytes });
        }
    }
    points
}
