//! One rank's requests through an allocator, step after step.

use std::collections::VecDeque;
use std::ops::Range;

use steptime_core::allocator::{self, Block, Config, OutOfMemory, Totals};
use steptime_core::{CATEGORIES, Category, Program, SimTime, Stream, Tensor, TensorSpec};

use super::trace::{Blocks, Tracer};
use super::{Asked, Moment, Played, RankMemory, Shortage, counts};
use crate::error::PlanError;
use crate::lower::MemoryMarks;

/// Peaks are all that is asked for.
pub(super) type Allocator = allocator::Allocator<Totals>;

/// The stream of the computation, on which frameworks allocate.
const COMPUTE: Stream = Stream(0);

/// Whether a free on a stream waits for it: unless it is the tensor's own, or references keep such tensors instead.
pub(super) fn waits(stream: Stream, own: Stream, avoid_record_streams: bool) -> bool {
    stream != own && !(avoid_record_streams && stream != COMPUTE)
}

/// A rank at its allocator.
pub(super) struct Replay<'a> {
    stage: usize,
    rank: u64,
    program: &'a Program,
    tensors: &'a [TensorSpec],
    records: &'a [Asked],
    marks: MemoryMarks,
    /// When the played step ends.
    end: SimTime,
    avoid_record_streams: bool,
    allocator: Allocator,
    /// By tensor.
    held: Vec<Option<Held>>,
    /// By stream: when the events pass that frees have recorded, in their order, and how many have passed.
    events: Vec<(VecDeque<u64>, u64)>,
    /// When the first of them passes.
    next_event: u64,
    by_category: [u64; CATEGORIES],
    most: Most,
    after_step: u64,
    step: u32,
    shortage: Option<Shortage>,
    tracer: Option<Tracer>,
    /// Of a trace, by request: when it shows on the curve of memory.
    shown: Vec<u64>,
}

/// What a replay does next.
#[derive(Clone, Debug)]
pub(super) enum Turn {
    Step(u32),
    /// The requests of these numbers, and whether what they take lives beyond the step.
    Requests(Range<usize>, bool),
    /// Whether it is the last step that ends.
    EndStep(bool),
}

/// A tensor's block.
#[derive(Clone)]
struct Held {
    block: Block,
    stream: Stream,
    category: Category,
    /// Whether it was allocated before the first step, and lives beyond each.
    lasting: bool,
}

/// The fullest moment.
#[derive(Clone, Copy, Default)]
struct Most {
    allocated: u64,
    /// The request that made it so.
    request: Option<u32>,
    /// Of that, by category; not yet if it still `lasts`.
    by_category: [u64; CATEGORIES],
    /// Nothing has been freed since.
    lasts: bool,
}

/// When each of some requests shows on the curve of memory, picoseconds.
fn shown(requests: &[Asked]) -> Vec<u64> {
    let mut latest = 0;
    let each = requests.iter().map(|it| {
        latest = it.reached.max(latest);
        latest
    });
    each.collect()
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
        let allocator = Allocator::counting(config)?;
        let mut held = Vec::new();
        held.resize_with(program.tensors(), || None);
        let mut events = Vec::new();
        events.resize_with(program.streams().len(), Default::default);
        Ok(Self {
            stage,
            rank: lowered.ranks.get(rank).map_or(0, |rank| rank.rank),
            program,
            tensors: program.tensor_specs(),
            records: &played.requests.of_stage[stage],
            marks: lowered.marks[stage],
            end: played.outcome.end,
            avoid_record_streams,
            allocator,
            held,
            events,
            next_event: u64::MAX,
            by_category: [0; CATEGORIES],
            most: Most::default(),
            after_step: 0,
            step: 0,
            shortage: None,
            tracer: traces.then(Tracer::default),
            shown: if traces { shown(&played.requests.of_stage[stage]) } else { Vec::new() },
        })
    }

    /// The start of the job and so many steps.
    pub(super) fn turns(&self, steps: u32) -> Vec<Turn> {
        let MemoryMarks { first_pass, moments: [from, to], update } = self.marks;
        let all = self.records.len();
        // Moments are made when the optimizer sees gradients for the first time.
        let before = from.min(first_pass);
        let behind = to.clamp(before, first_pass);
        let mut turns = vec![Turn::Requests(0..before, true), Turn::Requests(behind..first_pass, true)];
        for step in 0..steps {
            turns.push(Turn::Step(step));
            if step == 0 {
                let update = update.max(first_pass).min(all);
                turns.push(Turn::Requests(first_pass..update, false));
                turns.push(Turn::Requests(from..to, true));
                turns.push(Turn::Requests(update..all, false));
            } else {
                turns.push(Turn::Requests(first_pass..all, false));
            }
            turns.push(Turn::EndStep(step + 1 == steps));
        }
        turns
    }

    /// Replays turns up to the first request that fails.
    pub(super) fn play(&mut self, turns: &[Turn]) {
        self.play_with::<false>(turns);
    }

    /// Replays turns up to the first request for which cached memory has to be given back; returns what remains.
    pub(super) fn play_at_once(&mut self, turns: &[Turn]) -> Option<Vec<Turn>> {
        self.play_with::<true>(turns)
    }

    fn play_with<const AT_ONCE: bool>(&mut self, turns: &[Turn]) -> Option<Vec<Turn>> {
        for (number, turn) in turns.iter().enumerate() {
            match turn {
                Turn::Step(step) => self.step = *step,
                Turn::Requests(numbers, lasting) => {
                    if let Some(index) = self.requests::<AT_ONCE>(numbers.clone(), *lasting) {
                        let here = Turn::Requests(index..numbers.end, *lasting);
                        let rest = turns[number + 1..].iter().cloned();
                        return Some(std::iter::once(here).chain(rest).collect());
                    }
                }
                Turn::EndStep(last) => self.end_step(*last),
            }
        }
        None
    }

    /// The same so far, on a device without end.
    pub(super) fn without_limits(&self) -> Self {
        Self {
            allocator: self.allocator.without_limits(),
            held: self.held.clone(),
            events: self.events.clone(),
            shortage: self.shortage.clone(),
            tracer: None,
            shown: Vec::new(),
            ..*self
        }
    }

    /// The host waits for the device at the end of a step. What the step has left behind goes when its next one begins.
    fn end_step(&mut self, last: bool) {
        self.after_step = self.allocator.stats().allocated;
        self.allocator.synchronise_all();
        for (stream, (waiting, passed)) in (0_u8..).zip(&mut self.events) {
            if let Some(tracer) = &mut self.tracer {
                tracer.passed(Stream(stream), waiting.len() as u64, (self.step, self.end));
            }
            *passed += waiting.len() as u64;
            waiting.clear();
        }
        self.next_event = u64::MAX;
        if last {
            return;
        }
        let at_begin = Asked { host: 0, reached: 0, tensor: 0, stream: COMPUTE, frees: true };
        for tensor in 0..self.held.len() {
            if self.held[tensor].as_ref().is_some_and(|held| !held.lasting) {
                self.free(tensor, COMPUTE, &at_begin);
            }
        }
    }

    /// Plays requests; returns the number of the first that fails, or, `AT_ONCE`, for which cached memory would have to be
    /// given back first.
    fn requests<const AT_ONCE: bool>(&mut self, numbers: Range<usize>, lasting: bool) -> Option<usize> {
        for (index, record) in numbers.clone().zip(&self.records[numbers]) {
            if record.frees {
                self.free(record.tensor as usize, record.stream, record);
                continue;
            }
            let spec = &self.tensors[record.tensor as usize];
            if !counts(spec) {
                continue;
            }
            if record.host >= self.next_event {
                self.pass_events(record.host);
            }
            let block = if AT_ONCE {
                let Some(block) = self.allocator.alloc_at_once(record.stream, spec.bytes) else {
                    return Some(index);
                };
                block
            } else {
                match self.allocator.alloc(record.stream, spec.bytes) {
                    Ok(block) => block,
                    Err(failure) => {
                        self.fail(index, failure);
                        return Some(index);
                    }
                }
            };
            if self.tracer.is_some() {
                self.trace(index, &block);
            }
            self.by_category[usize::from(spec.category.0) % CATEGORIES] += block.size();
            let (stream, category) = (record.stream, spec.category);
            self.held[record.tensor as usize] = Some(Held { block, stream, category, lasting });
            let allocated = self.allocator.stats().allocated;
            if allocated > self.most.allocated {
                (self.most.allocated, self.most.request, self.most.lasts) =
                    (allocated, Some(index as u32), true);
            }
        }
        None
    }

    #[cold]
    fn trace(&mut self, index: usize, block: &Block) {
        let shown = self.shown(index);
        if let Some(tracer) = &mut self.tracer {
            tracer.allocated(&self.allocator, (&self.records[index], shown), block, self.step);
        }
    }

    /// Moments of the first half count from the beginning of the step, others from its end.
    fn moment(&self, index: usize) -> Moment {
        let at = self.shown(index);
        let late = 2 * index > self.marks.first_pass + self.records.len();
        let left = SimTime::from_picos(self.end.picos().saturating_sub(at.picos()));
        Moment { since_begin: at, until_end: late.then_some(left) }
    }

    /// When a request shows on the curve of memory.
    fn shown(&self, index: usize) -> SimTime {
        let known = self.shown.get(index).copied();
        let latest = || self.records[..=index].iter().map(|record| record.reached).max();
        SimTime::from_picos(known.or_else(latest).unwrap_or(0))
    }

    /// Frees a tensor, if it is held. If another stream than its own has used it, its block is cached once that stream has
    /// reached the free, unless references keep such tensors instead.
    #[inline]
    fn free(&mut self, tensor: usize, stream: Stream, record: &Asked) {
        let Some(Held { block, stream: own, category, .. }) = self.held[tensor].take() else { return };
        if self.most.lasts {
            self.most.lasts = false;
            self.most.by_category = self.by_category;
        }
        self.by_category[usize::from(category.0) % CATEGORIES] -= block.size();
        let shared = waits(stream, own, self.avoid_record_streams);
        if let Some(tracer) = &mut self.tracer {
            let moments = (SimTime::from_picos(record.host), SimTime::from_picos(record.reached));
            tracer.freed(&block, own, (self.step, moments.0, moments.1), shared.then_some(stream));
        }
        if shared {
            self.await_stream(&block, stream, record.reached);
        }
        self.allocator.free(block);
    }

    /// A block that is about to be freed waits for a stream to get there.
    fn await_stream(&mut self, block: &Block, stream: Stream, reached: u64) {
        self.allocator.record_stream(block, stream);
        let waiting = &mut self.events[usize::from(stream.0)].0;
        if waiting.is_empty() {
            self.next_event = self.next_event.min(reached);
        }
        waiting.push_back(reached);
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
        let first = self.events.iter().filter_map(|(waiting, _)| waiting.front());
        self.next_event = first.copied().min().unwrap_or(u64::MAX);
    }

    fn fail(&mut self, index: usize, failure: OutOfMemory) {
        let (record, shown) = (&self.records[index], self.shown(index));
        let label =
            self.program.tensor_spec(Tensor(record.tensor)).map(|spec| self.program.label(spec.label));
        let shortage = Shortage {
            tensor: label.unwrap_or_default().to_owned(),
            requested: failure.requested,
            segment: failure.segment,
            free: failure.free.unwrap_or(0),
            unusable: failure.unallocated,
            allocated: failure.allocated,
            at: self.moment(index),
            step: self.step,
        };
        if let Some(tracer) = &mut self.tracer {
            tracer.failed(&self.allocator, (record, shown), &shortage, self.step);
        }
        self.shortage = Some(shortage);
    }

    pub(super) fn most_reserved(&self) -> u64 {
        self.allocator.stats().most_reserved
    }

    pub(super) fn can_tell_first_failure(&self) -> bool {
        self.allocator.can_tell_first_failure()
    }

    pub(super) fn shortage(&self) -> Option<&Shortage> {
        self.shortage.as_ref()
    }

    /// `outside` are the bytes of the context and of communicators.
    pub(super) fn finish(self, (context, communicators): (u64, u64)) -> (RankMemory, Blocks) {
        let stats = self.allocator.stats();
        let memory = RankMemory {
            stage: self.stage,
            rank: self.rank,
            allocated: self.most.allocated,
            at: self.most.request.map(|request| self.moment(request as usize)).unwrap_or_default(),
            by_category: if self.most.lasts { self.by_category } else { self.most.by_category },
            reserved: stats.most_reserved,
            after_step: self.after_step,
            context,
            communicators,
            retries: stats.retries,
            shortage: self.shortage,
        };
        (memory, self.tracer.map(|tracer| tracer.finish(&self.allocator)).unwrap_or_default())
    }
}
