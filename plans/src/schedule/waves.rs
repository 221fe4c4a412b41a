//! Hanayo's waves (Liu et al. 2023, Hanayo: Harnessing Wave-like Pipeline Parallelism): the layers run down
//! the stages and back up once a wave, `2 w` chunks a stage, without a second copy of the model as Chimera needs.
//!
//! The paper's runtime follows lists of actions that come from playing the waves: every stage takes the oldest backward
//! that can start, else the forward that is furthest along. The same is done here with passes that take one unit forward
//! and two backward. As in the paper, as many micro-batches as there are stages go through together, so that no stage
//! holds more than 1F1B's first; of more, each group follows the one before.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::{Action, ChunkOrder, Schedule};

/// Units that a chunk's forward and its backward take.
const TIMES: [u64; 2] = [1, 2];

/// Micro-batches that wait at one virtual stage, with the moment from which they can start.
type Waiting = VecDeque<(u64, u32)>;

/// The stages while their orders are made.
struct Waves {
    schedule: Schedule,
    /// By virtual stage.
    forward: Vec<Waiting>,
    backward: Vec<Waiting>,
    /// When each stage is free.
    free: Vec<u64>,
}

/// The order of every stage: `chunks`, an even number, are two for each wave.
pub(super) fn waves(stages: usize, chunks: u32, micro_batches: u32) -> Vec<Vec<Action>> {
    let virtual_stages = stages * chunks as usize;
    let chunk_order = ChunkOrder::BackAndForth;
    let mut waves = Waves {
        schedule: Schedule { stages: vec![Vec::new(); stages], chunks, micro_batches, chunk_order },
        forward: vec![Waiting::new(); virtual_stages],
        backward: vec![Waiting::new(); virtual_stages],
        free: vec![0; stages],
    };
    for first in (0..micro_batches).step_by(stages) {
        let end = micro_batches.min(first.saturating_add(stages as u32));
        waves.free.fill(0);
        waves.forward[0].extend((first..end).map(|micro_batch| (0, micro_batch)));
        waves.run();
    }
    waves.schedule.stages
}

impl Waves {
    /// Plays until nobody has anything to do.
    fn run(&mut self) {
        let mut moments = BinaryHeap::from([Reverse(0_u64)]);
        while let Some(Reverse(now)) = moments.pop() {
            if moments.peek() == Some(&Reverse(now)) {
                continue;
            }
            for stage in 0..self.free.len() {
                if self.free[stage] <= now
                    && let Some(end) = self.start(stage, now)
                {
                    moments.push(Reverse(end));
                }
            }
        }
    }

    /// Starts what the stage does next; returns when it ends.
    fn start(&mut self, stage: usize, now: u64) -> Option<u64> {
        let chunks: Vec<usize> =
            (0..self.schedule.chunks).map(|chunk| self.schedule.virtual_stage(stage, chunk)).collect();
        let ready = |waiting: &Waiting| waiting.front().filter(|&&(from, _)| from <= now).map(|&(_, m)| m);
        // The oldest micro-batch; of one, the chunk that is further along.
        let backward = chunks
            .iter()
            .filter_map(|&at| ready(&self.backward[at]).map(|m| (m, Reverse(at))))
            .min()
            .map(|(_, Reverse(at))| at);
        let (at, back) = match backward {
            Some(at) => (at, true),
            None => (chunks.iter().rev().copied().find(|&at| ready(&self.forward[at]).is_some())?, false),
        };
        let queue = if back { &mut self.backward[at] } else { &mut self.forward[at] };
        let (_, micro_batch) = queue.pop_front()?;
        let end = now + TIMES[usize::from(back)];
        self.free[stage] = end;
        let chunk = (at / self.free.len()) as u32;
        let last = self.forward.len() - 1;
        self.schedule.stages[stage].push(if back {
            Action::backward(chunk, micro_batch)
        } else {
            Action::forward(chunk, micro_batch)
        });
        match (back, at) {
            (true, 0) => {}
            (true, _) => self.backward[at - 1].push_back((end, micro_batch)),
            (false, _) if at == last => self.backward[at].push_back((end, micro_batch)),
            (false, _) => self.forward[at + 1].push_back((end, micro_batch)),
        }
        Some(end)
    }
}
