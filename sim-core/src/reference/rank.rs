//! A rank of the reference: a host, and streams that are queues.

use std::collections::VecDeque;

use crate::accounts::{ByClass, Cause, HostWork};
use crate::ledger::{Asked, Ledger, Step};
use crate::observer::{Emitter, Observer};
use crate::program::{Kind, Program, Record};
use crate::world::World;

/// What the host is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostState {
    /// An event for it is in the queue.
    Busy,
    /// It looks again when something in its rank changes.
    Waiting,
    /// It has executed its program.
    Done,
}

/// A record on a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) record: u32,
    /// Rendezvous: number within its group. Allocations and frees: number of the step.
    pub(super) number: u32,
    /// Kernels and rendezvous: number of the launch.
    launch: usize,
    /// The host's last explicit work before it was issued.
    work: HostWork,
}

#[derive(Debug)]
pub(super) struct StreamPlay {
    queue: VecDeque<Item>,
    /// The kernel or rendezvous it is at, and since when.
    pub(super) current: Option<(u64, Item)>,
    /// When its last operation or wait ended.
    pub(super) clock: u64,
    pub(super) busy: ByClass,
    last: Option<u32>,
    /// Arrival of its last operation, and for a rendezvous of all members.
    arrived: u64,
    pub(super) met: u64,
}

#[derive(Debug)]
pub(super) struct RankPlay {
    pub(super) host: HostState,
    pub(super) host_clock: u64,
    /// The record that the host executes next.
    pub(super) next: usize,
    work: HostWork,
    pub(super) streams: Vec<StreamPlay>,
    /// Time and cause of the events that have happened.
    events: Vec<Option<(u64, Cause)>>,
    queue_depth: usize,
    /// By stream and launch: whether it has completed.
    completed: Vec<Vec<bool>>,
    /// By channel: rendezvous issued.
    issued: Vec<u32>,
    pub(super) idle: ByClass,
    pub(super) host_busy: ByClass,
    pub(super) ledger: Ledger,
    steps: Vec<Step>,
    /// When the streams got to the memory steps.
    pub(super) stamps: Vec<u64>,
}

impl RankPlay {
    pub(super) fn new(world: &World, rank: u32) -> Self {
        let program = world.program_of(rank);
        let spec = &world.ranks()[rank as usize];
        let stream = || StreamPlay {
            queue: VecDeque::new(),
            current: None,
            clock: 0,
            busy: ByClass::default(),
            last: None,
            arrived: 0,
            met: 0,
        };
        Self {
            host: HostState::Busy,
            host_clock: 0,
            next: 0,
            work: HostWork::default(),
            streams: program.streams().iter().map(|_| stream()).collect(),
            events: vec![None; program.waits().len()],
            queue_depth: spec.queue_depth as usize,
            completed: vec![Vec::new(); program.streams().len()],
            issued: vec![0; spec.groups.len()],
            idle: ByClass::default(),
            host_busy: ByClass::default(),
            ledger: Ledger::new(spec.memory_capacity),
            steps: Vec::new(),
            stamps: Vec::new(),
        }
    }

    /// Whether the host cannot do a record yet.
    pub(super) fn must_wait(&self, record: &Record) -> bool {
        match record.kind {
            Kind::HostSync => {
                let stream = &self.streams[usize::from(record.stream)];
                stream.current.is_some() || !stream.queue.is_empty()
            }
            Kind::HostWait => self.events[record.index as usize].is_none(),
            Kind::Kernel | Kind::Rendezvous if self.queue_depth > 0 => {
                let completed = &self.completed[usize::from(record.stream)];
                let launch = completed.len();
                launch >= self.queue_depth && !completed[launch - self.queue_depth]
            }
            _ => false,
        }
    }

    pub(super) fn works(&mut self, now: u64, record: &Record) {
        self.work = HostWork { start: now, end: now.saturating_add(record.time), class: record.class };
        self.host_busy.add(record.class, record.time);
    }

    /// The ledger serves the host's request.
    pub(super) fn serve(&mut self, now: u64, record: &Record, program: &Program) {
        let spec = &program.tensor_specs()[record.index as usize];
        let asked = Asked { host: now, stream: record.stream };
        let step = match record.kind {
            Kind::Alloc => self.ledger.allocate(record.index, spec, asked),
            _ => self.ledger.free(record.index, spec, asked),
        };
        self.steps.push(step);
        self.stamps.push(0);
    }

    /// The record that the host executes is on its stream.
    pub(super) fn push(&mut self, record: &Record) {
        let completed = &mut self.completed[usize::from(record.stream)];
        let mut item = Item { record: self.next as u32, number: 0, launch: completed.len(), work: self.work };
        self.next += 1;
        match record.kind {
            Kind::Kernel => completed.push(false),
            Kind::Rendezvous => {
                completed.push(false);
                item.number = self.issued[record.channel()];
                self.issued[record.channel()] += 1;
            }
            Kind::Alloc | Kind::Free => item.number = self.steps.len() as u32 - 1,
            _ => {}
        }
        self.streams[usize::from(record.stream)].queue.push_back(item);
    }

    /// Takes a free stream's next item, unless that waits for an event that has not happened.
    pub(super) fn next_item(&mut self, stream: u8, records: &[Record]) -> Option<Item> {
        let state = &mut self.streams[usize::from(stream)];
        if state.current.is_some() {
            return None;
        }
        let record = &records[state.queue.front()?.record as usize];
        if record.kind == Kind::Wait && self.events[record.index as usize].is_none() {
            return None;
        }
        state.queue.pop_front()
    }

    /// A kernel or rendezvous starts to hold its stream.
    pub(super) fn begin(&mut self, stream: u8, item: Item, now: u64, host_class: u8) {
        let state = &mut self.streams[usize::from(stream)];
        if stream == 0 {
            // Waits have moved the clock up already; what is left is for want of work.
            self.idle.host_late(state.clock, now, &item.work, host_class);
        }
        state.current = Some((now, item));
        state.arrived = now;
    }

    /// The kernel or rendezvous on a stream ends; returns when it began.
    pub(super) fn end(&mut self, stream: u8, now: u64) -> Option<(u64, Item)> {
        let state = &mut self.streams[usize::from(stream)];
        let (start, item) = state.current.take()?;
        state.clock = now;
        state.last = Some(item.record);
        self.completed[usize::from(stream)][item.launch] = true;
        Some((start, item))
    }

    /// A stream gets to the recording of an event.
    pub(super) fn record_event(
        &mut self,
        stream: u8,
        event: u32,
        now: u64,
        host_class: u8,
        records: &[Record],
    ) {
        let state = &self.streams[usize::from(stream)];
        let cause = match state.last.map(|last| &records[last as usize]) {
            None => Cause { class: host_class, ..Cause::default() },
            Some(last) if last.kind == Kind::Rendezvous => Cause {
                class: last.class,
                wait_class: last.wait_class,
                arrived: state.arrived,
                met: state.met,
            },
            Some(last) => Cause { class: last.class, ..Cause::default() },
        };
        self.events[event as usize] = Some((now, cause));
    }

    /// A stream gets past a wait for an event that has happened.
    pub(super) fn wait_for(&mut self, stream: u8, event: u32) {
        let state = &mut self.streams[usize::from(stream)];
        if let Some((time, cause)) = self.events[event as usize].filter(|(time, _)| *time > state.clock) {
            if stream == 0 {
                self.idle.event_wait(state.clock, time, &cause);
            }
            state.clock = time;
        }
    }

    /// When the host and all streams had finished.
    pub(super) fn last_moment(&self) -> u64 {
        self.streams.iter().map(|stream| stream.clock).fold(self.host_clock, u64::max)
    }

    /// Gives all memory steps their moments: in program order, never falling.
    pub(super) fn stamp_all<O: Observer>(&mut self, emit: &mut Emitter<'_, O>) {
        let mut last = 0;
        for (step, at) in self.steps.iter().zip(&self.stamps) {
            last = last.max(*at);
            self.ledger.stamp(step.marks, last);
            step.emit((last, *at), emit);
        }
    }
}
