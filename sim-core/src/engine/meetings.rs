//! Where ranks meet: which member has come to which meeting, and when a meeting resolves.

use std::collections::VecDeque;

use super::Played;
use super::agenda::{Agenda, Shared};
use crate::error::{At, SimulationError, disagreement, overflow};
use crate::flow::alone;
use crate::observer::{FlowRecord, Observer};
use crate::program::Record;
use crate::time::{SimTime, later};
use crate::world::{Group, GroupId, World};

/// A stream that a resolved meeting lets go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wake {
    pub(super) rank: u32,
    pub(super) stream: u8,
    pub(super) when: Met,
}

/// When all members had arrived, and when all go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Met {
    pub(super) met: u64,
    pub(super) end: u64,
}

/// A member at a meeting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) rank: u32,
    pub(super) stream: u8,
    pub(super) record: u32,
    pub(super) at: u64,
}

/// What became of an arrival.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// It was the last and the meeting resolved.
    Now(Met),
    /// The stream waits at the meeting of this number.
    Wait(u32),
}

#[derive(Debug)]
struct Meeting {
    group: u32,
    /// Its number within the group, from 0.
    number: u32,
    latest: u64,
    fixed: u64,
    bytes: u64,
    agreed: bool,
    arrivals: Vec<Arrival>,
}

/// A group: what its meetings need of the world, and those that some member has come to.
#[derive(Debug)]
struct Open {
    /// Number of the first of them.
    first: u32,
    members: u32,
    latency: u64,
    /// The rate of its flows, where they have their links to themselves.
    rate: Option<f64>,
    /// Whether that is so only while nothing else of its rank is under way there.
    shared: bool,
    /// Their places, or `NOBODY`, or `OVER`.
    places: VecDeque<u32>,
}

impl Open {
    fn new(group: &Group) -> Self {
        Self {
            first: 0,
            members: group.members().len() as u32,
            latency: group.latency().0,
            rate: group.private_rate.or(group.own_rate),
            shared: group.private_rate.is_none(),
            places: VecDeque::new(),
        }
    }
}

/// The place of a meeting to which nobody has come yet.
const NOBODY: u32 = u32::MAX;
/// The place of a meeting that resolved before an earlier one did.
const OVER: u32 = u32::MAX - 1;

/// All meetings, and the agenda that starts and ends their flows.
#[derive(Debug)]
pub(super) struct Meetings<'a> {
    world: &'a World,
    groups: Vec<Open>,
    slots: Vec<Meeting>,
    /// Places in `slots` to use again, with the capacity of their arrivals.
    free: Vec<u32>,
    pub(super) agenda: Agenda,
    /// Streams to resume. A list to work off, so that a chain of meetings takes no stack.
    pub(super) woken: Vec<Wake>,
}

impl<'a> Meetings<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        Self {
            world,
            groups: world.groups().iter().map(Open::new).collect(),
            slots: Vec::new(),
            free: Vec::new(),
            agenda: Agenda::default(),
            woken: Vec::new(),
        }
    }

    /// A member arrives at its group's meeting `number`; `first` says whether all that it has issued before on the same
    /// links is over.
    pub(super) fn arrive<O: Observer>(
        &mut self,
        (group, number): (GroupId, u32),
        (arrival, first): (Arrival, bool),
        record: &Record,
        observer: &mut O,
    ) -> Played<Answer> {
        let Open { members, rate, shared, .. } = self.groups[group.0 as usize];
        let bytes = record.bytes();
        let at_once = bytes == 0 || rate.is_some() && (first || !shared);
        if members == 1 && at_once {
            let met = arrival.at;
            let end = self.resolve(group, met, record.time, bytes, observer);
            return end.map(|end| Answer::Now(Met { met, end })).ok_or_else(|| self.late(&arrival).into());
        }
        let place = self.place(group, number, record);
        let meeting = &mut self.slots[place as usize];
        meeting.arrivals.push(arrival);
        meeting.latest = meeting.latest.max(arrival.at);
        meeting.agreed &= meeting.fixed == record.time && meeting.bytes == bytes;
        if meeting.arrivals.len() < members as usize {
            return Ok(Answer::Wait(place));
        }
        if !meeting.agreed {
            return Err(self.disagree(place).into());
        }
        let (met, fixed) = (meeting.latest, meeting.fixed);
        if !at_once {
            let start = later(met, fixed).ok_or_else(|| self.past(place))?;
            self.agenda.push(start, Shared::FlowStart(place));
            return Ok(Answer::Wait(place));
        }
        let end = self.resolve(group, met, fixed, bytes, observer).ok_or_else(|| self.past(place))?;
        // The last to arrive goes on by itself.
        self.slots[place as usize].arrivals.pop();
        self.close(place, Met { met, end });
        Ok(Answer::Now(Met { met, end }))
    }

    /// The end of a meeting whose flow, if any, has its links to itself; `None` past the end of time.
    fn resolve<O: Observer>(
        &self,
        group: GroupId,
        met: u64,
        fixed: u64,
        bytes: u64,
        observer: &mut O,
    ) -> Option<u64> {
        let state = &self.groups[group.0 as usize];
        let start = later(met, fixed)?;
        let mut end = start;
        if let (Some(rate), true) = (state.rate, bytes > 0) {
            end = later(start, alone(bytes, rate)?)?;
            if O::ACTIVE {
                observer.flow(&FlowRecord { start: SimTime(start), end: SimTime(end), group, bytes });
            }
        }
        later(end, state.latency)
    }

    /// The place of a meeting, which its first arrival opens.
    fn place(&mut self, group: GroupId, number: u32, record: &Record) -> u32 {
        let open = &mut self.groups[group.0 as usize];
        let index = (number - open.first) as usize;
        while open.places.len() <= index {
            open.places.push_back(NOBODY);
        }
        if open.places[index] != NOBODY {
            return open.places[index];
        }
        let (fixed, bytes) = (record.time, record.bytes());
        let blank =
            Meeting { group: group.0, number, latest: 0, fixed, bytes, agreed: true, arrivals: Vec::new() };
        let place = if let Some(place) = self.free.pop() {
            let old = &mut self.slots[place as usize];
            let arrivals = std::mem::take(&mut old.arrivals);
            *old = Meeting { arrivals, ..blank };
            place
        } else {
            self.slots.push(blank);
            self.slots.len() as u32 - 1
        };
        self.groups[group.0 as usize].places[index] = place;
        place
    }

    /// Wakes the members of a resolved meeting and forgets it.
    fn close(&mut self, place: u32, when: Met) {
        let meeting = &mut self.slots[place as usize];
        let wakes =
            meeting.arrivals.drain(..).map(|Arrival { rank, stream, .. }| Wake { rank, stream, when });
        self.woken.extend(wakes);
        let open = &mut self.groups[meeting.group as usize];
        open.places[(meeting.number - open.first) as usize] = OVER;
        while open.places.front() == Some(&OVER) {
            open.places.pop_front();
            open.first += 1;
        }
        self.free.push(place);
    }

    /// Group and bytes of a meeting's flow.
    pub(super) fn flow_of(&self, place: u32) -> (u32, u64) {
        let meeting = &self.slots[place as usize];
        (meeting.group, meeting.bytes)
    }

    /// The flow of a meeting ended: its members go on after the latency of the path.
    pub(super) fn flow_ended(&mut self, place: u32, now: u64) -> Played<()> {
        let meeting = &self.slots[place as usize];
        let latency = self.groups[meeting.group as usize].latency;
        let end = later(now, latency).ok_or_else(|| self.past(place))?;
        let met = meeting.latest;
        self.close(place, Met { met, end });
        Ok(())
    }

    /// The member of lowest rank, which speaks for its meeting in errors.
    fn at(&self, place: u32) -> At<'a> {
        let arrivals = &self.slots[place as usize].arrivals;
        let lowest = arrivals.iter().min_by_key(|arrival| arrival.rank);
        self.member(lowest.map_or((0, 0), |arrival| (arrival.rank, arrival.record)))
    }

    fn member(&self, (rank, record): (u32, u32)) -> At<'a> {
        At { rank, record: &self.world.program_of(rank).records()[record as usize] }
    }

    /// A meeting ends past the end of time.
    #[cold]
    pub(super) fn past(&self, place: u32) -> SimulationError {
        overflow(self.world, &self.at(place))
    }

    #[cold]
    fn late(&self, arrival: &Arrival) -> SimulationError {
        overflow(self.world, &self.member((arrival.rank, arrival.record)))
    }

    #[cold]
    fn disagree(&self, place: u32) -> SimulationError {
        let meeting = &self.slots[place as usize];
        let members = meeting.arrivals.iter().map(|arrival| self.member((arrival.rank, arrival.record)));
        disagreement(self.world, (meeting.group, meeting.number), members.collect())
    }

    /// Group and number of a meeting, and the ranks that have come.
    pub(super) fn arrived(&self, place: u32) -> ((u32, u32), impl Iterator<Item = u32>) {
        let meeting = &self.slots[place as usize];
        ((meeting.group, meeting.number), meeting.arrivals.iter().map(|arrival| arrival.rank))
    }
}
