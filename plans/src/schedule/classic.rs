//! Schedules with whole backwards: GPipe, 1F1B and interleaved 1F1B.

use super::{Action, Pipeline, ScheduleError};

/// With several chunks every micro-batch goes through the first chunk of all stages before any goes through the second
/// (looped breadth-first, Lamy-Poirier 2023).
pub(super) fn gpipe(chunks: u32, micro_batches: u32) -> Vec<Action> {
    let each = |chunk| (0..micro_batches).map(move |micro_batch| (chunk, micro_batch));
    let forwards = (0..chunks).flat_map(each).map(|(chunk, m)| Action::forward(chunk, m));
    let backwards = (0..chunks).rev().flat_map(each).map(|(chunk, m)| Action::backward(chunk, m));
    forwards.chain(backwards).collect()
}

pub(super) fn one_forward_one_backward(stages: usize, stage: usize, micro_batches: u32) -> Vec<Action> {
    let warm_up = u32::try_from(stages - stage - 1).unwrap_or(u32::MAX).min(micro_batches);
    let mut actions: Vec<Action> = (0..warm_up).map(|m| Action::forward(0, m)).collect();
    for micro_batch in warm_up..micro_batches {
        actions.push(Action::forward(0, micro_batch));
        actions.push(Action::backward(0, micro_batch - warm_up));
    }
    actions.extend((micro_batches - warm_up..micro_batches).map(|m| Action::backward(0, m)));
    actions
}

/// Interleaved 1F1B (Narayanan et al. 2021, section 2.2.2): groups of micro-batches, as many as there are stages unless
/// another size is asked for, go through the chunks one after the other. A stage warms up with
/// `2 (p - s - 1) + (v - 1) g` forwards (Megatron-LM, `get_pp_rank_microbatches`).
pub(super) struct Interleaved {
    stages: u32,
    chunks: u32,
    group: u32,
    /// Chunk and micro-batch of each forward; backward takes the chunks from the last.
    passes: Vec<(u32, u32)>,
}

impl Interleaved {
    /// # Errors
    /// A group would be smaller than the number of stages, which leaves stages waiting for each other (Megatron-LM
    /// refuses the same).
    pub(super) fn new(pipeline: &Pipeline<'_>) -> Result<Self, ScheduleError> {
        let Pipeline { stages, chunks, micro_batches, .. } = *pipeline;
        let least = u32::try_from(stages).unwrap_or(u32::MAX);
        let group = pipeline.group.unwrap_or(least);
        let rest = micro_batches % group.max(1);
        if group < least || group > micro_batches.max(least) || (1..least).contains(&rest) {
            return Err(if pipeline.group.is_none() {
                ScheduleError::Groups { stages, micro_batches }
            } else {
                ScheduleError::GroupSize { stages, micro_batches, group }
            });
        }
        let mut passes = Vec::with_capacity(micro_batches as usize * chunks as usize);
        for first in (0..micro_batches).step_by(group as usize) {
            let end = micro_batches.min(first.saturating_add(group));
            passes.extend((0..chunks).flat_map(|chunk| (first..end).map(move |m| (chunk, m))));
        }
        Ok(Self { stages: least, chunks, group, passes })
    }

    pub(super) fn order(&self, stage: usize) -> Vec<Action> {
        let ahead = 2 * (self.stages - stage as u32 - 1) + (self.chunks - 1) * self.group;
        let warm_up = (ahead as usize).min(self.passes.len());
        let forward = |&(chunk, m): &(u32, u32)| Action::forward(chunk, m);
        let backward = |&(chunk, m): &(u32, u32)| Action::backward(self.chunks - 1 - chunk, m);
        let mut actions: Vec<Action> = self.passes[..warm_up].iter().map(forward).collect();
        for (ahead, behind) in self.passes[warm_up..].iter().zip(&self.passes) {
            actions.extend([forward(ahead), backward(behind)]);
        }
        actions.extend(self.passes[self.passes.len() - warm_up..].iter().map(backward));
        actions
    }
}
