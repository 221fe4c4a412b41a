//! The same simulation with every step as an event: slow, plain, and the measure of the engine.

mod rank;

use std::collections::BTreeMap;

use rank::{HostState, RankPlay};

use crate::error::{At, SimulationError, WaitingRank, disagreement, overflow, waiting_rank};
use crate::flow::{Due, FlowNetwork};
use crate::observer::{Emitter, FlowRecord, Observer, SpanKind};
use crate::outcome::{Outcome, RankOutcome, StreamOutcome};
use crate::program::{Kind, Program, Record};
use crate::queue::EventQueue;
use crate::time::{SimTime, later};
use crate::world::{GroupId, World};

/// Plays a world with every step of every host and the start and end of every stream operation as an event.
///
/// Nothing is computed ahead of global time, so the code follows the rules almost word by word. It is many
/// times slower than [`crate::simulate`] and gives the same outcome, except for [`Outcome::events`].
///
/// # Errors
/// As [`crate::simulate`].
pub fn simulate_every_operation<O: Observer>(
    world: &World,
    observer: &mut O,
) -> Result<Outcome, SimulationError> {
    let records: Vec<Vec<Record>> = world.programs().iter().map(Program::in_full).collect();
    let mut play = Play::new(world, &records, observer);
    play.run()?;
    play.outcome()
}

/// What can happen.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// The host of a rank looks at its next record.
    Host(u32),
    /// The host of a rank has issued its kernel.
    Issued(u32),
    /// A stream of a rank may have something to do.
    Stream(u32, u8),
    /// The kernel on a stream of a rank ends.
    KernelEnd(u32, u8),
    /// The flow of a meeting starts.
    FlowStart(u32),
    /// Flows end.
    FlowsEnd(Due),
    /// The members of a meeting go on.
    MeetingEnd(u32),
}

/// A stream at a meeting.
#[derive(Clone, Copy, Debug)]
struct Member {
    rank: u32,
    stream: u8,
    record: u32,
}

#[derive(Debug)]
struct Meeting {
    group: u32,
    /// When all had arrived.
    met: u64,
    members: Vec<Member>,
}

struct Play<'a, O> {
    world: &'a World,
    /// By program: its records as they come, events by their numbers.
    programs: &'a [Vec<Record>],
    observer: &'a mut O,
    now: u64,
    queue: EventQueue<Happening>,
    events: u64,
    ranks: Vec<RankPlay>,
    meetings: Vec<Meeting>,
    /// Index of a meeting by group and number.
    numbered: BTreeMap<(u32, u32), u32>,
    network: FlowNetwork,
}

impl<'a, O: Observer> Play<'a, O> {
    fn new(world: &'a World, programs: &'a [Vec<Record>], observer: &'a mut O) -> Self {
        let mut queue = EventQueue::new();
        for rank in 0..world.ranks().len() as u32 {
            queue.push(SimTime::ZERO, 0, Happening::Host(rank));
        }
        Self {
            world,
            programs,
            observer,
            now: 0,
            queue,
            events: 0,
            ranks: (0..world.ranks().len() as u32).map(|rank| RankPlay::new(world, rank)).collect(),
            meetings: Vec::new(),
            numbered: BTreeMap::new(),
            network: FlowNetwork::new(world),
        }
    }

    fn run(&mut self) -> Result<(), SimulationError> {
        loop {
            // The links are settled once a moment, when nothing more happens in it.
            if self.queue.peek_time() != Some(SimTime(self.now)) && self.network.is_dirty() {
                let queue = &mut self.queue;
                let settled = self
                    .network
                    .settle(self.now, |end, due| queue.push(SimTime(end), 0, Happening::FlowsEnd(due)));
                settled.map_err(|meeting| self.meeting_overflow(meeting))?;
                continue;
            }
            let Some((time, happening)) = self.queue.pop() else {
                return Ok(());
            };
            self.now = time.0;
            self.events += 1;
            match happening {
                Happening::Host(rank) => self.host(rank)?,
                Happening::Issued(rank) => self.issued(rank),
                Happening::Stream(rank, stream) => self.stream(rank, stream)?,
                Happening::KernelEnd(rank, stream) => self.kernel_end(rank, stream),
                Happening::FlowStart(meeting) => {
                    let (group, bytes) = self.flow_of(meeting);
                    self.network.start(self.now, group, meeting, bytes);
                }
                Happening::FlowsEnd(due) => self.flows_end(due)?,
                Happening::MeetingEnd(meeting) => self.meeting_end(meeting),
            }
        }
    }

    fn at_once(&mut self, happening: Happening) {
        self.queue.push(SimTime(self.now), 0, happening);
    }

    fn after(
        &mut self,
        duration: u64,
        happening: Happening,
        rank: u32,
        record: &Record,
    ) -> Result<u64, SimulationError> {
        let time =
            later(self.now, duration).ok_or_else(|| overflow(self.world, &At { rank, record: *record }))?;
        self.queue.push(SimTime(time), 0, happening);
        Ok(time)
    }

    fn records(&self, rank: u32) -> &'a [Record] {
        &self.programs[self.world.ranks()[rank as usize].program as usize]
    }

    /// The host looks at its next record: does it, or waits until something in its rank changes.
    fn host(&mut self, rank: u32) -> Result<(), SimulationError> {
        let now = self.now;
        let host_class = self.world.host_class().0;
        let records = self.records(rank);
        let state = &mut self.ranks[rank as usize];
        state.host_clock = now;
        let Some(record) = records.get(state.next) else {
            state.host = HostState::Done;
            return Ok(());
        };
        state.host = HostState::Busy;
        if state.must_wait(record) {
            state.host = HostState::Waiting;
            return Ok(());
        }
        match record.kind {
            Kind::Host => {
                state.next += 1;
                // Only what has an end is counted: sums stay below the last moment.
                let end = self.after(record.time, Happening::Host(rank), rank, record)?;
                self.ranks[rank as usize].works(now, record);
                self.span(rank, None, SpanKind::Host, (now, end), record.class, record.index);
            }
            Kind::Kernel => {
                let issued = self.after(record.extra, Happening::Issued(rank), rank, record)?;
                self.ranks[rank as usize].host_busy.add(host_class, record.extra);
                if issued > now {
                    self.span(rank, None, SpanKind::Host, (now, issued), host_class, record.index);
                }
            }
            Kind::HostSync | Kind::HostWait => {
                state.next += 1;
                self.at_once(Happening::Host(rank));
            }
            _ => {
                if matches!(record.kind, Kind::Alloc | Kind::Free) {
                    state.serve(now, record, self.world.program_of(rank));
                }
                self.issued(rank);
            }
        }
        Ok(())
    }

    /// A record is on its stream, and the host goes on.
    fn issued(&mut self, rank: u32) {
        let record = &self.records(rank)[self.ranks[rank as usize].next];
        self.ranks[rank as usize].push(record);
        self.at_once(Happening::Stream(rank, record.stream));
        self.at_once(Happening::Host(rank));
    }

    /// A host that waits looks again.
    fn look_again(&mut self, rank: u32) {
        let state = &mut self.ranks[rank as usize];
        if state.host == HostState::Waiting {
            state.host = HostState::Busy;
            self.at_once(Happening::Host(rank));
        }
    }

    /// A stream does what it can.
    fn stream(&mut self, rank: u32, stream: u8) -> Result<(), SimulationError> {
        let now = self.now;
        let host_class = self.world.host_class().0;
        let records = self.records(rank);
        while let Some(item) = self.ranks[rank as usize].next_item(stream, records) {
            let record = &records[item.record as usize];
            let state = &mut self.ranks[rank as usize];
            match record.kind {
                Kind::Kernel => {
                    state.begin(stream, item, now, host_class);
                    self.after(record.time, Happening::KernelEnd(rank, stream), rank, record)?;
                }
                Kind::Rendezvous => {
                    state.begin(stream, item, now, host_class);
                    self.arrive(rank, stream, item.record, item.number)?;
                }
                Kind::Record => {
                    state.record_event(stream, record.index, now, host_class, records);
                    for other in 0..self.ranks[rank as usize].streams.len() as u8 {
                        self.at_once(Happening::Stream(rank, other));
                    }
                }
                Kind::Wait => state.wait_for(stream, record.index),
                _ => state.stamps[item.number as usize] = now,
            }
        }
        self.look_again(rank);
        Ok(())
    }

    fn kernel_end(&mut self, rank: u32, stream: u8) {
        let state = &mut self.ranks[rank as usize];
        let Some((start, item)) = state.end(stream, self.now) else {
            return;
        };
        let record = &self.records(rank)[item.record as usize];
        self.ranks[rank as usize].streams[usize::from(stream)].busy.add(record.class, self.now - start);
        self.span(rank, Some(stream), SpanKind::Kernel, (start, self.now), record.class, record.index);
        self.at_once(Happening::Stream(rank, stream));
    }

    fn arrive(&mut self, rank: u32, stream: u8, record: u32, number: u32) -> Result<(), SimulationError> {
        let own = &self.records(rank)[record as usize];
        let group = self.world.ranks()[rank as usize].groups[own.channel()].0;
        let meetings = &mut self.meetings;
        let index = *self.numbered.entry((group, number)).or_insert_with(|| {
            meetings.push(Meeting { group, met: 0, members: Vec::new() });
            meetings.len() as u32 - 1
        });
        let meeting = &mut self.meetings[index as usize];
        meeting.members.push(Member { rank, stream, record });
        meeting.met = self.now;
        if meeting.members.len() < self.world.groups()[group as usize].members().len() {
            return Ok(());
        }
        let all: Vec<At> = self.all(index).collect();
        let same = |at: &At| (at.record.time, at.record.bytes()) == (own.time, own.bytes());
        if !all.iter().all(same) {
            return Err(disagreement(self.world, (group, number), all));
        }
        let (duration, next) = if own.bytes() > 0 {
            (Some(own.time), Happening::FlowStart(index))
        } else {
            (self.latency(group).checked_add(own.time), Happening::MeetingEnd(index))
        };
        let time = duration.and_then(|duration| later(self.now, duration));
        let time = time.ok_or_else(|| self.meeting_overflow(index))?;
        self.queue.push(SimTime(time), 0, next);
        Ok(())
    }

    fn latency(&self, group: u32) -> u64 {
        self.world.groups()[group as usize].latency().0
    }

    /// The members of a meeting that have arrived.
    fn all(&self, meeting: u32) -> impl Iterator<Item = At> {
        let members = self.meetings[meeting as usize].members.iter();
        members
            .map(|member| At { rank: member.rank, record: self.records(member.rank)[member.record as usize] })
    }

    fn meeting_overflow(&self, meeting: u32) -> SimulationError {
        match self.all(meeting).min_by_key(|at| at.rank) {
            Some(at) => overflow(self.world, &at),
            None => SimulationError::Deadlock { waiting: Vec::new() },
        }
    }

    /// Group and bytes of a meeting.
    fn flow_of(&self, meeting: u32) -> (u32, u64) {
        let bytes = self.all(meeting).next().map_or(0, |at| at.record.bytes());
        (self.meetings[meeting as usize].group, bytes)
    }

    fn flows_end(&mut self, due: Due) -> Result<(), SimulationError> {
        let mut finished = Vec::new();
        self.network.finish(due, &mut finished);
        for flow in finished {
            let time = later(self.now, self.latency(flow.group));
            let time = time.ok_or_else(|| self.meeting_overflow(flow.meeting))?;
            self.queue.push(SimTime(time), 0, Happening::MeetingEnd(flow.meeting));
            if O::ACTIVE {
                self.observer.flow(&FlowRecord {
                    start: SimTime(flow.start),
                    end: SimTime(self.now),
                    group: GroupId(flow.group),
                    bytes: flow.bytes,
                });
            }
        }
        Ok(())
    }

    fn meeting_end(&mut self, meeting: u32) {
        let now = self.now;
        let members = std::mem::take(&mut self.meetings[meeting as usize].members);
        let met = self.meetings[meeting as usize].met;
        for Member { rank, stream, record } in members {
            let record = &self.records(rank)[record as usize];
            let Some((arrived, _)) = self.ranks[rank as usize].end(stream, now) else {
                continue;
            };
            let state = &mut self.ranks[rank as usize].streams[usize::from(stream)];
            state.met = met;
            state.busy.add(record.wait_class, met - arrived);
            state.busy.add(record.class, now - met);
            let on = Some(stream);
            if met > arrived {
                self.span(rank, on, SpanKind::Waiting, (arrived, met), record.wait_class, record.index);
            }
            self.span(rank, on, SpanKind::Transfer, (met, now), record.class, record.index);
            self.at_once(Happening::Stream(rank, stream));
        }
    }

    fn span(
        &mut self,
        rank: u32,
        stream: Option<u8>,
        kind: SpanKind,
        when: (u64, u64),
        class: u8,
        label: u32,
    ) {
        Emitter { observer: self.observer, rank }.span(stream, kind, when, class, label);
    }

    fn outcome(mut self) -> Result<Outcome, SimulationError> {
        let waiting: Vec<_> = (0..self.ranks.len() as u32).filter_map(|rank| self.waiting(rank)).collect();
        if !waiting.is_empty() {
            return Err(SimulationError::Deadlock { waiting });
        }
        let end = self.ranks.iter().map(RankPlay::last_moment).max().unwrap_or(0);
        let ranks = (0..self.ranks.len() as u32).map(|rank| self.rank_outcome(rank, end)).collect();
        let operations = self.ranks.iter().map(|state| state.next as u64).sum();
        self.observer.finish();
        Ok(Outcome { end: SimTime(end), ranks, events: self.events, operations })
    }

    /// What a rank waits for: the meeting of the first of its streams that is at one.
    fn waiting(&self, rank: u32) -> Option<WaitingRank> {
        let state = &self.ranks[rank as usize];
        let item = state.streams.iter().find_map(|stream| stream.current.map(|(_, item)| item))?;
        let record = self.records(rank)[item.record as usize];
        let group = self.world.ranks()[rank as usize].groups[record.channel()].0;
        let index = self.numbered.get(&(group, item.number))?;
        let arrived = self.all(*index).map(|at| at.rank);
        Some(waiting_rank(self.world, &At { rank, record }, (group, item.number), arrived))
    }

    fn rank_outcome(&mut self, rank: u32, end: u64) -> RankOutcome {
        let state = &mut self.ranks[rank as usize];
        state.stamp_all(&mut Emitter { observer: self.observer, rank });
        let primary = state.streams.first().map_or(0, |stream| stream.clock);
        state.idle.add(self.world.tail_class().0, end - primary);
        let streams = state.streams.iter();
        let streams =
            streams.map(|stream| StreamOutcome { busy: stream.busy.times(), end: SimTime(stream.clock) });
        RankOutcome {
            end: SimTime(state.last_moment()),
            host_end: SimTime(state.host_clock),
            multiplicity: self.world.ranks()[rank as usize].multiplicity,
            streams: streams.collect(),
            idle: state.idle.times(),
            host_busy: state.host_busy.times(),
            memory: state.ledger.outcome(self.world.program_of(rank)),
        }
    }
}
