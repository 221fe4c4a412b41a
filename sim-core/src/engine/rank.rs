//! What the engine keeps of a rank.

use std::collections::VecDeque;
use std::ops::Range;

use super::events::Events;
use super::moments::Moments;
use crate::accounts::{ByClass, HostWork};
use crate::ledger::Ledger;
use crate::program::{Program, Record};
use crate::world::World;

/// No record.
pub(super) const NO_RECORD: u32 = u32::MAX;

/// One rank.
#[derive(Debug)]
pub(super) struct RankState {
    /// The record that the host executes next.
    pub(super) pc: usize,
    /// The host's clock.
    pub(super) host: u64,
    /// The host's last explicit work: its record and its end.
    pub(super) work: Work,
    pub(super) streams: Vec<StreamState>,
    pub(super) events: Events,
    /// Streams blocked on an event.
    pub(super) event_waiters: u32,
    /// By stream, as many as may be in flight: when its last launches completed, or of those in flight when they were
    /// issued; empty without a limit.
    pub(super) completions: Box<[u64]>,
    /// By stream: where its launches are.
    pub(super) launches: Box<[Launches]>,
    /// Launches that may be in flight on one stream; 0 is no limit.
    pub(super) depth: u32,
    /// By channel: rendezvous issued.
    pub(super) issued: Box<[u32]>,
    /// By class of channels that may send over the same links: what is under way there. Empty where that does not matter.
    pub(super) under_way: Box<[UnderWay]>,
    pub(super) idle: ByClass,
    pub(super) host_busy: ByClass,
    pub(super) ledger: Ledger,
    pub(super) moments: Moments,
    /// On the engine's list of ranks that could run ahead.
    pub(super) listed: bool,
}

/// The launches of a stream, which complete in order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Launches {
    /// Place of the next one among the stream's `depth` places in `completions`.
    pub(super) next: u32,
    /// Issued and not complete.
    pub(super) in_flight: u32,
}

impl Launches {
    /// One more of `depth`.
    #[inline]
    pub(super) fn launch(&mut self, depth: u32) {
        self.in_flight += 1;
        self.next = if self.next + 1 == depth { 0 } else { self.next + 1 };
    }
}

/// The rendezvous of a rank that send over links which only they use.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    /// How many were issued.
    issued: u32,
    /// Those that are not over, rising.
    open: Vec<u32>,
    /// When the last of the others was over.
    until: u64,
}

impl UnderWay {
    /// One more is issued; its number.
    pub(super) fn issue(&mut self) -> u32 {
        self.issued += 1;
        self.open.push(self.issued);
        self.issued
    }

    /// Whether all before that of a number are over at a moment.
    pub(super) fn is_first(&self, number: u32, at: u64) -> bool {
        self.open.first() == Some(&number) && self.until <= at
    }

    /// That of a number is over.
    pub(super) fn end(&mut self, number: u32, at: u64) {
        if let Some(place) = self.open.iter().position(|open| *open == number) {
            self.open.remove(place);
        }
        self.until = self.until.max(at);
    }
}

/// The host's last explicit work, as its record and its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) end: u64,
    pub(super) record: u32,
}

impl Work {
    pub(super) fn interval(self, records: &[Record]) -> HostWork {
        records.get(self.record as usize).map_or_else(HostWork::default, |record| HostWork {
            start: self.end - record.time,
            end: self.end,
            class: record.class,
        })
    }
}

/// One stream.
#[derive(Debug)]
pub(super) struct StreamState {
    /// When it has done everything so far.
    pub(super) clock: u64,
    pub(super) blocked: Blocked,
    /// Record of its last operation, or of the rendezvous it is at.
    pub(super) last: u32,
    /// Place in `completions` of the rendezvous it is at.
    pub(super) slot: u32,
    /// Its number among those under way over the same links.
    pub(super) order: u32,
    /// Its last rendezvous: own arrival, and arrival of all.
    pub(super) arrived: u64,
    pub(super) met: u64,
    pub(super) busy: ByClass,
    /// What was issued while it was blocked. Empty when it is not.
    pub(super) pending: VecDeque<Pending>,
}

/// What a stream waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blocked {
    /// Nothing.
    No,
    /// The other members of a meeting, or its flow.
    Meeting(u32),
    /// An event.
    Event(u32),
}

/// A record issued to a blocked stream, or a run: kernels, allocations and frees in a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    /// Of a run: the host's clock before it.
    pub(super) issue: Issue,
    /// The first record.
    pub(super) record: u32,
    /// Records.
    pub(super) count: u32,
    pub(super) numbers: Numbers,
}

/// The numbers that a record got when it was issued.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    /// Place of the first launch in `completions`.
    pub(super) slot: u32,
    /// Rendezvous: number within its group.
    pub(super) meeting: u32,
    /// Rendezvous: number among those that send over the same links.
    pub(super) order: u32,
    /// Number of the first memory step.
    pub(super) step: u32,
}

/// When a record was issued, and the host's last explicit work before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Issue {
    pub(super) at: u64,
    pub(super) work: Work,
}

impl RankState {
    pub(super) fn new(world: &World, rank: u32) -> Self {
        let program = world.program_of(rank);
        let spec = &world.ranks()[rank as usize];
        // A limit that the program cannot reach is none.
        let depth = if spec.queue_depth < program.launches() { spec.queue_depth } else { 0 };
        Self {
            pc: 0,
            host: 0,
            work: Work { end: 0, record: NO_RECORD },
            streams: streams(program),
            events: Events::default(),
            event_waiters: 0,
            completions: vec![0; depth as usize * program.streams().len()].into(),
            launches: vec![Launches::default(); program.streams().len()].into(),
            depth,
            issued: vec![0; spec.groups.len()].into(),
            under_way: world.classes(rank).iter().map(|_| UnderWay::default()).collect(),
            idle: ByClass::default(),
            host_busy: ByClass::default(),
            ledger: Ledger::new(spec.memory_capacity),
            moments: Moments::default(),
            listed: false,
        }
    }

    /// The places of a stream in `completions`.
    pub(super) fn places(&self, stream: u8) -> Range<usize> {
        let (first, depth) = (usize::from(stream) * self.depth as usize, self.depth as usize);
        first..first + depth
    }

    /// When the host and all streams have finished.
    pub(super) fn end(&self) -> u64 {
        self.streams.iter().map(|stream| stream.clock).fold(self.host, u64::max)
    }
}

fn streams(program: &Program) -> Vec<StreamState> {
    let idle = || StreamState {
        clock: 0,
        blocked: Blocked::No,
        last: NO_RECORD,
        slot: 0,
        order: 0,
        arrived: 0,
        met: 0,
        busy: ByClass::default(),
        pending: VecDeque::new(),
    };
    program.streams().iter().map(|_| idle()).collect()
}
