//! What the engine keeps of a rank.

use std::collections::VecDeque;

use super::events::Events;
use super::launches::Launches;
use super::moments::Moments;
use crate::accounts::{ByClass, HostWork};
use crate::ledger::Ledger;
use crate::program::{Part, Program, Records};
use crate::world::World;

/// No record.
pub(super) const NO_RECORD: u32 = u32::MAX;

/// One rank.
#[derive(Debug)]
pub(super) struct RankState {
    /// The record that the host executes next.
    pub(super) next: Cursor,
    /// The host's clock.
    pub(super) host: u64,
    /// The host's last explicit work: its record and its end.
    pub(super) work: Work,
    pub(super) backlog_work: BacklogWork,
    pub(super) streams: Vec<StreamState>,
    /// By stream: the time of its operations. Apart from what is looked at far more often.
    pub(super) busy: Box<[ByClass]>,
    pub(super) events: Events,
    /// Streams blocked on an event.
    pub(super) event_waiters: u32,
    /// By stream.
    pub(super) launches: Box<[Launches]>,
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
    /// Parts after which the host pauses, for what is looked for there.
    pub(super) pause_at: usize,
}

/// A place in a program.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    /// Parts that were begun.
    pub(super) part: usize,
    /// The record, and the end of its part.
    pub(super) record: usize,
    pub(super) end: usize,
}

impl Cursor {
    /// Goes to the next part at the end of one; `false` where there is none.
    #[inline]
    pub(super) fn find(&mut self, parts: &[Part]) -> bool {
        if self.record < self.end {
            return true;
        }
        let Some(part) = parts.get(self.part) else { return false };
        (self.record, self.end) = (part.first as usize, part.end as usize);
        self.part += 1;
        true
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

    /// How many were issued.
    pub(super) fn issued(&self) -> u32 {
        self.issued
    }

    /// How many were issued, those that are not over, and when the last of the others was.
    pub(super) fn parts(&mut self) -> (u32, &[u32], &mut u64) {
        (self.issued, &self.open, &mut self.until)
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) end: u64,
    pub(super) record: u32,
}

impl Work {
    /// None yet.
    const NONE: Self = Self { end: 0, record: NO_RECORD };

    pub(super) fn interval(self, records: Records<'_>) -> HostWork {
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
    /// Number of the rendezvous it is at among those under way over the same links.
    pub(super) order: u32,
    /// Its last rendezvous: own arrival, and arrival of all.
    pub(super) arrived: u64,
    pub(super) met: u64,
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

/// A record issued to a blocked stream, or a run: kernels, allocations and frees in a row. Thousands of ranks may each have
/// dozens, so that what only one kind needs has its place where another kind has something else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    /// When it was issued; of a run: the host's clock before it.
    pub(super) at: u64,
    /// The first record.
    pub(super) record: u32,
    /// Of a run: its records. Of a rendezvous: its number within its group.
    pub(super) count_or_meeting: u32,
    /// Of a run: the number of its memory steps. Of a rendezvous: its number among those that send over the same links.
    /// Of others: the number of the event that is recorded or waited for.
    pub(super) step_or_order: u32,
    /// To the primary stream: the host worked between the one before and this one.
    pub(super) worked: bool,
}

/// The numbers that a rendezvous got when it was issued.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    /// Within its group.
    pub(super) meeting: u32,
    /// Among those that send over the same links.
    pub(super) order: u32,
}

/// The host's last explicit work before each record that waits on the primary stream, whose idle time it explains. Most
/// records share it with the one before.
#[derive(Debug)]
pub(super) struct BacklogWork {
    /// That of the last record issued, and of the last that the stream got to.
    issued: Work,
    reached: Work,
    /// Those between, in order.
    queue: VecDeque<Work>,
}

impl BacklogWork {
    /// A record is issued after some work; whether that is other work than the one before had.
    #[inline]
    pub(super) fn issue(&mut self, work: Work) -> bool {
        let other = work != self.issued;
        if other {
            self.issued = work;
            self.queue.push_back(work);
        }
        other
    }

    /// That of the last record issued, of the last that the stream got to, and those between.
    pub(super) fn parts(&mut self) -> (&mut Work, &mut Work, &mut VecDeque<Work>) {
        (&mut self.issued, &mut self.reached, &mut self.queue)
    }

    /// The stream gets to the next record, which has other work than the one before or not.
    #[inline]
    pub(super) fn reach(&mut self, other: bool) -> Work {
        if other && let Some(work) = self.queue.pop_front() {
            self.reached = work;
        }
        self.reached
    }
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
        Self {
            next: Cursor::default(),
            host: 0,
            work: Work::NONE,
            backlog_work: BacklogWork { issued: Work::NONE, reached: Work::NONE, queue: VecDeque::new() },
            streams: streams(program),
            busy: vec![ByClass::default(); program.streams().len()].into(),
            events: Events::default(),
            event_waiters: 0,
            launches: Launches::of(program, spec.queue_depth),
            issued: vec![0; spec.groups.len()].into(),
            under_way: world.classes(rank).iter().map(|_| UnderWay::default()).collect(),
            idle: ByClass::default(),
            host_busy: ByClass::default(),
            ledger: Ledger::new(spec.memory_capacity),
            moments: Moments::default(),
            listed: false,
            pause_at: usize::MAX,
        }
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
        order: 0,
        arrived: 0,
        met: 0,
        pending: VecDeque::new(),
    };
    program.streams().iter().map(|_| idle()).collect()
}
