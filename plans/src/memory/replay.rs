//! One rank's requests through an allocator, step after step.

use std::collections::VecDeque;

use steptime_core::allocator::{Allocator, Block, Config, OutOfMemory};
use steptime_core::{CATEGORIES, MemoryRecord, Program, SimTime, Stream};

use super::trace::{Blocks, Tracer};
use super::{Moment, Played, RankMemory, Shortage};
use crate::classes;
use crate::error::PlanError;
use crate::lower::MemoryMarks;

/// The stream of the computation, on which frameworks allocate.
const COMPUTE: Stream = Stream(0);

/// A rank at its allocator.
pub(super) struct Replay<'a> {
    stage: usize,
    rank: u64,
    program: &'a Program,
    records: &'a [MemoryRecord],
    marks: MemoryMarks,
    /// When the played step ends.
    end: SimTime,
    avoid_record_streams: bool,
    allocator: Allocator,
    /// By tensor.
    held: Vec<Option<Held>>,
    /// By stream: when the events pass that frees have recorded, in their order, and how many have passed.
    events: Vec<(VecDeque<u64>, u64)>,
    by_category: [u64; CATEGORIES],
    most: Most,
    after_step: u64,
    step: u32,
    shortage: Option<Shortage>,
    tracer: Option<Tracer>,
}

/// A tensor's block.
struct Held {
    block: Block,
    stream: Stream,
    /// Whether it was allocated before the first step, and lives beyond each.
    lasting: bool,
}

/// The fullest moment.
#[derive(Default)]
struct Most {
    allocated: u64,
    at: Moment,
    by_category: [u64; CATEGORIES],
}

impl<'a> Replay<'a> {
    pub(super) fn new(
        played: &'a Played,
        stage: usize,
        config: Config,
        avoid_record_streams: bool,
        traces: bool,
    ) -> Result<Self, PlanError> {
        let lowered = &played.lowered;
        let rank = lowered.ranks.iter().position(|rank| rank.stage == stage).unwrap_or(0);
        let program = &lowered.world.programs()[lowered.world.ranks()[rank].program as usize];
        let allocator = Allocator::new(config)?;
        let mut held = Vec::new();
        held.resize_with(program.tensors(), || None);
        let mut events = Vec::new();
        events.resize_with(program.streams().len(), Default::default);
        Ok(Self {
            stage,
            rank: lowered.ranks.get(rank).map_or(0, |rank| rank.rank),
            program,
            records: &played.requests.of_stage[stage],
            marks: lowered.marks[stage],
            end: played.outcome.end,
            avoid_record_streams,
            allocator,
            held,
            events,
            by_category: [0; CATEGORIES],
            most: Most::default(),
            after_step: 0,
            step: 0,
            shortage: None,
            tracer: traces.then(Tracer::default),
        })
    }

    /// Replays the start of the job and so many steps, or up to the first request that fails.
    pub(super) fn steps(&mut self, steps: u32) {
        let MemoryMarks { first_pass, moments: [from, to], update } = self.marks;
        for index in (0..first_pass).filter(|index| !(from..to).contains(index)) {
            self.request(index, true);
        }
        for step in 0..steps {
            self.step = step;
            for index in first_pass..self.records.len() {
                if step == 0 && index == update {
                    // The optimizer sees gradients for the first time.
                    (from..to).for_each(|moment| self.request(moment, true));
                }
                self.request(index, false);
            }
            if step == 0 && update >= self.records.len() {
                (from..to).for_each(|moment| self.request(moment, true));
            }
            if self.shortage.is_some() {
                return;
            }
            self.end_step(step + 1 == steps);
        }
    }

    /// The host waits for the device at the end of a step. What the step has left behind goes when its next one begins.
    fn end_step(&mut self, last: bool) {
        self.after_step = self.allocator.stats().all.allocated_bytes.current;
        self.allocator.synchronise_all();
        for (stream, (waiting, passed)) in (0_u8..).zip(&mut self.events) {
            if let Some(tracer) = &mut self.tracer {
                tracer.passed(Stream(stream), waiting.len() as u64, (self.step, self.end));
            }
            *passed += waiting.len() as u64;
            waiting.clear();
        }
        if last {
            return;
        }
        for tensor in 0..self.held.len() {
            if self.held[tensor].as_ref().is_some_and(|held| !held.lasting) {
                self.free(tensor, COMPUTE, (SimTime::ZERO, 0));
            }
        }
    }

    fn request(&mut self, index: usize, lasting: bool) {
        let Some(record) = self.records.get(index).filter(|_| self.shortage.is_none()) else { return };
        if record.category == classes::CONTEXT || record.delta == 0 {
            return;
        }
        let tensor = record.tensor.0 as usize;
        if record.delta < 0 {
            self.free(tensor, record.stream, (record.host, record.reached.picos()));
            return;
        }
        self.pass_events(record.host.picos());
        match self.allocator.alloc(record.stream, record.delta.unsigned_abs()) {
            Ok(block) => self.hold(index, block, lasting),
            Err(failure) => self.fail(index, failure),
        }
    }

    fn hold(&mut self, index: usize, block: Block, lasting: bool) {
        let record = &self.records[index];
        if let Some(tracer) = &mut self.tracer {
            tracer.allocated(&self.allocator, record, &block, self.step);
        }
        self.by_category[usize::from(record.category.0) % CATEGORIES] += block.size();
        let tensor = record.tensor.0 as usize;
        self.held[tensor] = Some(Held { block, stream: record.stream, lasting });
        let allocated = self.allocator.stats().all.allocated_bytes.current;
        if allocated > self.most.allocated {
            self.most = Most { allocated, at: self.moment(index), by_category: self.by_category };
        }
    }

    /// Moments of the first half count from the beginning of the step, others from its end.
    fn moment(&self, index: usize) -> Moment {
        let record = &self.records[index];
        let late = 2 * index > self.marks.first_pass + self.records.len();
        let left = SimTime::from_picos(self.end.picos().saturating_sub(record.at.picos()));
        Moment { since_begin: record.at, until_end: late.then_some(left) }
    }

    /// Frees a tensor. If another stream than its own has used it, its block is cached once that stream has reached the
    /// free, unless references keep such tensors instead.
    fn free(&mut self, tensor: usize, stream: Stream, (asked, reached): (SimTime, u64)) {
        let Some(Held { block, stream: own, .. }) = self.held[tensor].take() else { return };
        let spec = self.program.tensor_specs()[tensor];
        self.by_category[usize::from(spec.category.0) % CATEGORIES] -= block.size();
        let shared = stream != own && !(self.avoid_record_streams && stream != COMPUTE);
        if let Some(tracer) = &mut self.tracer {
            tracer.freed(&block, own, (self.step, asked), shared.then_some(stream));
        }
        if shared {
            self.allocator.record_stream(&block, stream);
            self.events[usize::from(stream.0)].0.push_back(reached);
        }
        self.allocator.free(block);
    }

    /// Events that have passed when the host asks for memory.
    fn pass_events(&mut self, now: u64) {
        for (stream, (waiting, passed)) in (0_u8..).zip(&mut self.events) {
            let before = *passed;
            while waiting.front().is_some_and(|reached| *reached <= now) {
                waiting.pop_front();
                *passed += 1;
            }
            if *passed > before {
                self.allocator.events_passed(Stream(stream), *passed);
                if let Some(tracer) = &mut self.tracer {
                    tracer.passed(Stream(stream), *passed - before, (self.step, SimTime::from_picos(now)));
                }
            }
        }
    }

    fn fail(&mut self, index: usize, failure: OutOfMemory) {
        let record = &self.records[index];
        let label = self.program.tensor_spec(record.tensor).map(|spec| self.program.label(spec.label));
        self.shortage = Some(Shortage {
            tensor: label.unwrap_or_default().to_owned(),
            requested: failure.requested,
            segment: failure.segment,
            free: failure.free.unwrap_or(0),
            unusable: failure.unallocated,
            allocated: failure.allocated,
            at: self.moment(index),
            step: self.step,
        });
    }

    pub(super) fn reserved(&self) -> u64 {
        self.allocator.stats().all.reserved_bytes.peak
    }

    pub(super) fn shortage(&self) -> Option<&Shortage> {
        self.shortage.as_ref()
    }

    pub(super) fn finish(self, context: u64, communicators: u64) -> (RankMemory, Blocks) {
        let stats = self.allocator.stats();
        let memory = RankMemory {
            stage: self.stage,
            rank: self.rank,
            allocated: self.most.allocated,
            at: self.most.at,
            by_category: self.most.by_category,
            reserved: stats.all.reserved_bytes.peak,
            after_step: self.after_step,
            context,
            communicators,
            retries: stats.retries,
            shortage: self.shortage,
        };
        (memory, self.tracer.map(|tracer| tracer.finish(&self.allocator)).unwrap_or_default())
    }
}
