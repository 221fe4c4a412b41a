//! A schedule played by itself: passes of given times, links that take a fixed time and are never full.
//!
//! Each stage does its passes in order, each as soon as the stage is free and the neighbour's result is there. It is the
//! reckoning of the schedules' papers; a job is played by the engine, with kernels, hosts and links.

use super::{Action, PassCost, Schedule};

/// A pass and when it ran, in the units of the times given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedPass {
    /// What is done.
    pub action: Action,
    /// When it begins.
    pub start: u64,
    /// When it ends.
    pub end: u64,
}

/// How one stage spends its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Start of its first pass.
    pub start: u64,
    /// End of its last pass.
    pub end: u64,
    /// Sum of its passes.
    pub busy: u64,
}

impl StageTimes {
    /// Of a stage's passes, in order.
    pub fn of(passes: &[TimedPass]) -> Self {
        let busy = passes.iter().map(|pass| pass.end - pass.start).sum();
        let start = passes.first().map_or(0, |pass| pass.start);
        Self { start, end: passes.last().map_or(0, |pass| pass.end), busy }
    }

    /// Time between the first pass and the last in which it does nothing.
    pub const fn idle(self) -> u64 {
        self.end - self.start - self.busy
    }
}

impl Schedule {
    /// When every pass runs if those of a chunk on stage `s` take the times of `cost(s)`, and a result is with the
    /// neighbour `transfer` after its pass; chunks of one stage pass results on at once. By stage, in order.
    ///
    /// A schedule that cannot run ([`Schedule::check`]) ends where it stops.
    pub fn timed(&self, cost: impl Fn(usize) -> PassCost, transfer: u64) -> Vec<Vec<TimedPass>> {
        let (stages, micro_batches) = (self.stages.len(), self.micro_batches as usize);
        let last = (stages * self.chunks as usize).saturating_sub(1);
        // When the results of a virtual stage's passes are there: forwards, and gradients of inputs.
        let mut forward = vec![vec![None; micro_batches]; last + 1];
        let mut input = forward.clone();
        let mut timed: Vec<Vec<TimedPass>> =
            self.stages.iter().map(|it| Vec::with_capacity(it.len())).collect();
        loop {
            let mut moved = false;
            for (stage, done) in timed.iter_mut().enumerate() {
                let cost = cost(stage);
                while let Some(&action) = self.stages[stage].get(done.len()) {
                    let (at, m) = (self.virtual_stage(stage, action.chunk()), action.micro_batch() as usize);
                    let sent = |results: &[Vec<Option<u64>>], from: usize| {
                        let on_the_way = if self.place(from).0 == stage { 0 } else { transfer };
                        results[from][m].map(|end: u64| end.saturating_add(on_the_way))
                    };
                    let (ready, time) = match action {
                        Action::Forward { .. } if at == 0 => (Some(0), cost.forward),
                        Action::Forward { .. } => (sent(&forward, at - 1), cost.forward),
                        Action::BackwardWeight { .. } => (Some(0), cost.weight),
                        Action::BackwardInput { .. } if at == last => (forward[at][m], cost.input),
                        Action::BackwardInput { .. } => (sent(&input, at + 1), cost.input),
                        Action::Backward { .. } if at == last => (forward[at][m], cost.input + cost.weight),
                        Action::Backward { .. } => (sent(&input, at + 1), cost.input + cost.weight),
                    };
                    let Some(ready) = ready else { break };
                    let start = ready.max(done.last().map_or(0, |pass| pass.end));
                    let end = start.saturating_add(time);
                    match action {
                        Action::Forward { .. } => forward[at][m] = Some(end),
                        Action::BackwardWeight { .. } => {}
                        _ => input[at][m] = Some(end),
                    }
                    done.push(TimedPass { action, start, end });
                    moved = true;
                }
            }
            if !moved {
                return timed;
            }
        }
    }
}
