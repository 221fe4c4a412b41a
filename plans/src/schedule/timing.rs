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
        self.timed_in_pairs(cost, transfer, None)
    }

    /// The same where passes that can be one ([`Schedule::joined`]) take `pair` together: both begin when both can, and the
    /// results of both are there at their end.
    pub fn timed_in_pairs(
        &self,
        cost: impl Fn(usize) -> PassCost,
        transfer: u64,
        pair: Option<u64>,
    ) -> Vec<Vec<TimedPass>> {
        let mut play = Play::new(self, transfer);
        loop {
            let mut moved = false;
            for stage in 0..self.stages.len() {
                while play.step(stage, cost(stage), pair) {
                    moved = true;
                }
            }
            if !moved {
                return play.timed;
            }
        }
    }
}

/// A schedule while it is played.
struct Play<'a> {
    schedule: &'a Schedule,
    transfer: u64,
    /// When the results of a virtual stage's forwards are there, by micro-batch.
    forward: Vec<Vec<Option<u64>>>,
    /// The same of gradients of inputs.
    input: Vec<Vec<Option<u64>>>,
    timed: Vec<Vec<TimedPass>>,
}

impl<'a> Play<'a> {
    fn new(schedule: &'a Schedule, transfer: u64) -> Self {
        let none = vec![vec![None; schedule.micro_batches as usize]; schedule.virtual_stages()];
        let timed = schedule.stages.iter().map(|it| Vec::with_capacity(it.len())).collect();
        Self { schedule, transfer, forward: none.clone(), input: none, timed }
    }

    /// Plays the next pass of a stage, or the next two that are one; false where it has to wait.
    fn step(&mut self, stage: usize, cost: PassCost, pair: Option<u64>) -> bool {
        let at = self.timed[stage].len();
        let Some(&action) = self.schedule.stages[stage].get(at) else { return false };
        let Some(ready) = self.ready(stage, action) else { return false };
        let free = self.timed[stage].last().map_or(0, |pass| pass.end);
        let Some(together) = pair.filter(|_| self.schedule.joined(stage, at)) else {
            let start = ready.max(free);
            let end = start.saturating_add(time(action, cost));
            self.done(stage, TimedPass { action, start, end }, end);
            return true;
        };
        let second = self.schedule.stages[stage][at + 1];
        let Some(other) = self.ready(stage, second) else { return false };
        let start = ready.max(other).max(free);
        let end = start.saturating_add(together);
        // Drawn one after the other.
        let middle = start.saturating_add(time(action, cost)).min(end);
        self.done(stage, TimedPass { action, start, end: middle }, end);
        self.done(stage, TimedPass { action: second, start: middle, end }, end);
        true
    }

    /// When what a pass takes from its neighbours is there.
    fn ready(&self, stage: usize, action: Action) -> Option<u64> {
        let (at, m) = (self.schedule.virtual_stage(stage, action.chunk()), action.micro_batch() as usize);
        let sent = |results: &[Vec<Option<u64>>], from: usize| {
            let on_the_way = if self.schedule.place(from).0 == stage { 0 } else { self.transfer };
            results[from][m].map(|end: u64| end.saturating_add(on_the_way))
        };
        match action {
            Action::Forward { .. } => match self.schedule.before(at) {
                Some(before) => sent(&self.forward, before),
                None => Some(0),
            },
            Action::BackwardWeight { .. } => Some(0),
            Action::BackwardInput { .. } | Action::Backward { .. } => match self.schedule.after(at) {
                Some(after) => sent(&self.input, after),
                None => self.forward[at][m],
            },
        }
    }

    /// Notes a pass whose results are there at `result`.
    fn done(&mut self, stage: usize, pass: TimedPass, result: u64) {
        let chunk = pass.action.chunk();
        let (at, m) = (self.schedule.virtual_stage(stage, chunk), pass.action.micro_batch() as usize);
        match pass.action {
            Action::Forward { .. } => self.forward[at][m] = Some(result),
            Action::BackwardWeight { .. } => {}
            _ => self.input[at][m] = Some(result),
        }
        self.timed[stage].push(pass);
    }
}

const fn time(action: Action, cost: PassCost) -> u64 {
    match action {
        Action::Forward { .. } => cost.forward,
        Action::Backward { .. } => cost.input + cost.weight,
        Action::BackwardInput { .. } => cost.input,
        Action::BackwardWeight { .. } => cost.weight,
    }
}
