//! ZB-1p and ZB-2p: an order found for the stages' own times within a limit of memory (Qi et al. 2024, section 3.1).
//!
//! Every stage takes, whenever it is free, the most urgent pass that it can start: gradients of inputs before forwards
//! before gradients of weights, forwards only while their activations fit. The rules differ in when a forward is put off
//! for a backward that is about to come, and in whether gradients of weights may delay something that is about to come.
//! All are played, with the handcrafted order of the same memory beside them, and the one with the least time between
//! any stage's first pass and its last is taken.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::zero_bubble::{eager_forwards, lazy_weights};
use super::{Action, ChunkOrder, PassCost, Pipeline, Schedule, StageTimes};

/// The search for an order.
pub(super) struct Automatic<'a> {
    pipeline: Pipeline<'a>,
    /// Activations of how many micro-batches for each stage of the pipeline a stage may hold.
    limit: u64,
}

/// What tells one greedy order from another.
#[derive(Clone, Copy)]
struct Rules {
    /// Whether gradients of weights start though something else is known to come before they end.
    weights_delay: bool,
    /// Share of a forward, in quarters, by which it may delay a backward that is known to come.
    forwards_delay: u64,
}

/// Quarters of a forward that stand for any delay.
const ANY: u64 = 1 << 20;

impl<'a> Automatic<'a> {
    pub(super) fn new(pipeline: &Pipeline<'a>, limit: u64) -> Self {
        Self { pipeline: *pipeline, limit }
    }

    fn cost(&self, stage: usize) -> PassCost {
        self.pipeline.costs.get(stage).copied().unwrap_or(PassCost::EQUAL)
    }

    /// The best order of every stage.
    pub(super) fn best(&self) -> Vec<Vec<Action>> {
        let Pipeline { stages, micro_batches, .. } = self.pipeline;
        let handcrafted = if self.limit > 1 { eager_forwards } else { lazy_weights };
        let mut best: Vec<Vec<Action>> =
            (0..stages).map(|stage| handcrafted(stages, stage, micro_batches)).collect();
        let mut least = self.longest_stage(&best);
        for weights_delay in [true, false] {
            for forwards_delay in [0, 2, 4, ANY] {
                let rules = Rules { weights_delay, forwards_delay };
                let Some(orders) = Greedy::new(self, rules).run() else { continue };
                let time = self.longest_stage(&orders);
                if time < least {
                    (best, least) = (orders, time);
                }
            }
        }
        best
    }

    /// The longest time between a stage's first pass and its last when the orders are played.
    fn longest_stage(&self, orders: &[Vec<Action>]) -> u64 {
        let Pipeline { micro_batches, transfer, .. } = self.pipeline;
        let chunk_order = ChunkOrder::Around;
        let schedule = Schedule { stages: orders.to_vec(), chunks: 1, micro_batches, chunk_order };
        let timed = schedule.timed(|stage| self.cost(stage), transfer);
        timed.iter().map(|passes| StageTimes::of(passes)).map(|it| it.end - it.start).max().unwrap_or(0)
    }
}

/// One stage while orders are made.
#[derive(Clone, Default)]
struct Stage {
    /// When it is free.
    free: u64,
    held: u64,
    /// Passes done of each kind.
    forwards: usize,
    inputs: usize,
    weights: usize,
    order: Vec<Action>,
}

/// The greedy order under some rules.
struct Greedy<'a> {
    search: &'a Automatic<'a>,
    rules: Rules,
    stages: Vec<Stage>,
    /// When the results of forwards, and of gradients of inputs, are there.
    forward: Vec<Vec<u64>>,
    input: Vec<Vec<u64>>,
}

/// What a stage does next.
enum Choice {
    Forward,
    Input,
    Weight,
    Wait,
}

impl<'a> Greedy<'a> {
    fn new(search: &'a Automatic<'a>, rules: Rules) -> Self {
        let stages = search.pipeline.stages;
        Self {
            search,
            rules,
            stages: vec![Stage::default(); stages],
            forward: vec![Vec::new(); stages],
            input: vec![Vec::new(); stages],
        }
    }

    /// The orders, unless the rules come to a stop.
    fn run(mut self) -> Option<Vec<Vec<Action>>> {
        let micro_batches = self.search.pipeline.micro_batches as usize;
        let mut moments = BinaryHeap::from([Reverse(0_u64)]);
        while let Some(Reverse(now)) = moments.pop() {
            while moments.peek() == Some(&Reverse(now)) {
                moments.pop();
            }
            for stage in (0..self.stages.len()).rev() {
                if self.stages[stage].free <= now {
                    moments.extend(self.step(stage, now).into_iter().flatten().map(Reverse));
                }
            }
        }
        let done = self.stages.iter().all(|stage| stage.weights == micro_batches);
        done.then(|| self.stages.into_iter().map(|stage| stage.order).collect())
    }

    /// When the inputs of the stage's next forward, and of its next gradients of inputs, are there, if that is known.
    fn ready(&self, stage: usize) -> [Option<u64>; 2] {
        let Stage { forwards, inputs, .. } = self.stages[stage];
        let forward = match stage.checked_sub(1) {
            _ if forwards >= self.search.pipeline.micro_batches as usize => None,
            None => Some(0),
            Some(before) => self.forward[before].get(forwards).copied(),
        };
        let input = if inputs >= forwards {
            None
        } else if stage + 1 == self.stages.len() {
            Some(0)
        } else {
            self.input[stage + 1].get(inputs).copied()
        };
        [forward, input]
    }

    fn choose(&self, stage: usize, now: u64) -> Choice {
        let it = &self.stages[stage];
        let cost = self.search.cost(stage);
        let [forward, input] = self.ready(stage);
        if input.is_some_and(|at| at <= now) {
            return Choice::Input;
        }
        let room = self.search.limit * self.search.pipeline.stages as u64 * cost.saved;
        let fits = it.held + cost.saved <= room;
        let slack = (u128::from(cost.forward) * u128::from(self.rules.forwards_delay) / 4) as u64;
        let in_time = input.is_none_or(|at| now + cost.forward <= at.saturating_add(slack));
        if fits && in_time && forward.is_some_and(|at| at <= now) {
            return Choice::Forward;
        }
        if it.weights == it.inputs {
            return Choice::Wait;
        }
        let coming = [forward.filter(|_| fits), input].into_iter().flatten().filter(|&at| at > now).min();
        let harmless = coming.is_none_or(|at| now + cost.weight <= at);
        // Without room for the next forward only weights make some.
        let must = !fits && it.forwards < self.search.pipeline.micro_batches as usize;
        if must || harmless || self.rules.weights_delay { Choice::Weight } else { Choice::Wait }
    }

    /// Starts what the stage does next; returns when something may change.
    fn step(&mut self, stage: usize, now: u64) -> [Option<u64>; 3] {
        let cost = self.search.cost(stage);
        let transfer = self.search.pipeline.transfer;
        let choice = self.choose(stage, now);
        let coming = self.ready(stage).map(|at| at.filter(|&at| at > now));
        let it = &mut self.stages[stage];
        let time = match choice {
            Choice::Wait => return [coming[0], coming[1], None],
            Choice::Forward => {
                it.order.push(Action::forward(0, it.forwards as u32));
                it.forwards += 1;
                it.held += cost.saved;
                self.forward[stage].push(now + cost.forward + transfer);
                cost.forward
            }
            Choice::Input => {
                it.order.push(Action::input(0, it.inputs as u32));
                it.inputs += 1;
                it.held = (it.held + cost.kept).saturating_sub(cost.saved);
                self.input[stage].push(now + cost.input + transfer);
                cost.input
            }
            Choice::Weight => {
                it.order.push(Action::weight(0, it.weights as u32));
                it.weights += 1;
                it.held = it.held.saturating_sub(cost.kept);
                cost.weight
            }
        };
        // A pass without work takes its turn too.
        it.free = now + time.max(1);
        let there = it.free + transfer;
        [Some(it.free), Some(there), None]
    }
}
