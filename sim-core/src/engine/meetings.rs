//! Where ranks meet: which member has come to which meeting, and when a meeting resolves.

use std::collections::VecDeque;

use super::Played;
use super::agenda::{Agenda, Shared};
use super::woken::Woken;
use crate::error::{At, SimulationError, disagreement, overflow};
use crate::flow::alone;
use crate::look::Look;
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
    /// Members that wait at it: the first of them, and others, for whom two-member groups need no list.
    came: u32,
    first: Arrival,
    others: Vec<Arrival>,
}

impl Meeting {
    fn blank(group: u32) -> Self {
        let first = Arrival { rank: 0, stream: 0, record: 0, at: 0 };
        let others = Vec::new();
        Self { group, number: 0, latest: 0, fixed: 0, bytes: 0, agreed: true, came: 0, first, others }
    }

    /// Its first member is about to come, with a record. The place that others had in a list stays.
    #[inline]
    fn open(&mut self, group: u32, number: u32, record: &Record) {
        (self.group, self.number, self.latest, self.agreed) = (group, number, 0, true);
        (self.fixed, self.bytes) = (record.time, record.bytes());
    }

    #[inline]
    fn wait(&mut self, arrival: Arrival) {
        if self.came == 0 {
            self.first = arrival;
        } else {
            self.others.push(arrival);
        }
        self.came += 1;
    }

    /// Those that wait at it, in the order in which they came.
    fn arrivals(&self) -> impl Iterator<Item = &Arrival> {
        std::iter::once(&self.first).filter(|_| self.came > 0).chain(&self.others)
    }
}

/// What the meetings of a group need of the world, and where they are.
#[derive(Clone, Copy, Debug)]
struct Open {
    members: u32,
    latency: u64,
    /// The rate of its flows, where they have their links to themselves.
    rate: Option<f64>,
    /// Whether that is so only while nothing else of its rank is under way there.
    shared: bool,
    /// Bytes of its last flow that had its links to itself, and how long that took: most are alike.
    last: (u64, u64),
    place: Place,
}

/// Where the meetings of a group are that some member has come to.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// There is never more than one, for its members meet in it on one stream each and go to a meeting only from the one
    /// before, which all leave at once. It is always at the same place.
    Same(u32),
    /// In this window.
    Window(u32),
}

/// The meetings of a group that some member has come to.
#[derive(Debug, Default)]
struct Window {
    /// Number of the first of them.
    first: u32,
    /// Their places, or `NOBODY`, or `OVER`.
    places: VecDeque<u32>,
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
    windows: Vec<Window>,
    slots: Vec<Meeting>,
    /// Places in `slots` for meetings of windows to use again, with the capacity of their arrivals.
    free: Vec<u32>,
    pub(super) agenda: Agenda,
    pub(super) woken: Woken,
}

impl<'a> Meetings<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        let mut overlap = vec![false; world.groups().len()];
        for (rank, spec) in (0..).zip(world.ranks()) {
            for (group, uses) in spec.groups.iter().zip(world.program_of(rank).channel_uses()) {
                overlap[group.0 as usize] |= uses.overlaps;
            }
        }
        let (mut slots, mut windows) = (Vec::new(), Vec::new());
        let mut open = |(group, overlaps): (&Group, bool)| {
            let place = if overlaps {
                windows.push(Window::default());
                Place::Window(windows.len() as u32 - 1)
            } else {
                slots.push(Meeting::blank(0));
                Place::Same(slots.len() as u32 - 1)
            };
            Open {
                members: group.members().len() as u32,
                latency: group.latency().0,
                rate: group.private_rate.or(group.own_rate),
                shared: group.private_rate.is_none(),
                last: (0, 0),
                place,
            }
        };
        let groups = world.groups().iter().zip(overlap).map(&mut open).collect();
        let woken = Woken::new(world.ranks().len() as u32);
        Self { world, groups, windows, slots, free: Vec::new(), agenda: Agenda::default(), woken }
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
        let met = meeting.latest.max(arrival.at);
        let agreed = meeting.agreed && meeting.fixed == record.time && meeting.bytes == bytes;
        let fixed = meeting.fixed;
        if meeting.came + 1 == members && agreed && at_once {
            // The last to arrive goes on by itself.
            if let Some(end) = self.resolve(group, met, fixed, bytes, observer) {
                self.close(place, Met { met, end });
                return Ok(Answer::Now(Met { met, end }));
            }
        }
        let meeting = &mut self.slots[place as usize];
        (meeting.latest, meeting.agreed) = (met, agreed);
        meeting.wait(arrival);
        if meeting.came < members {
            return Ok(Answer::Wait(place));
        }
        if !agreed {
            return Err(self.disagree(place).into());
        }
        let start = later(met, fixed).filter(|_| !at_once).ok_or_else(|| self.past(place))?;
        self.agenda.push(start, Shared::FlowStart(place));
        Ok(Answer::Wait(place))
    }

    /// The end of a meeting whose flow, if any, has its links to itself; `None` past the end of time.
    fn resolve<O: Observer>(
        &mut self,
        group: GroupId,
        met: u64,
        fixed: u64,
        bytes: u64,
        observer: &mut O,
    ) -> Option<u64> {
        let state = &mut self.groups[group.0 as usize];
        let start = later(met, fixed)?;
        let mut end = start;
        if let (Some(rate), true) = (state.rate, bytes > 0) {
            if state.last.0 != bytes {
                state.last = (bytes, alone(bytes, rate)?);
            }
            end = later(start, state.last.1)?;
            if O::ACTIVE {
                observer.flow(&FlowRecord { start: SimTime(start), end: SimTime(end), group, bytes });
            }
        }
        later(end, state.latency)
    }

    /// The place of a meeting, which its first arrival opens.
    #[inline]
    fn place(&mut self, group: GroupId, number: u32, record: &Record) -> u32 {
        match self.groups[group.0 as usize].place {
            Place::Same(place) => {
                let meeting = &mut self.slots[place as usize];
                if meeting.came == 0 {
                    meeting.open(group.0, number, record);
                }
                place
            }
            Place::Window(window) => self.place_in(window, (group, number), record),
        }
    }

    fn place_in(&mut self, window: u32, (group, number): (GroupId, u32), record: &Record) -> u32 {
        let Window { first, places } = &mut self.windows[window as usize];
        let index = (number - *first) as usize;
        while places.len() <= index {
            places.push_back(NOBODY);
        }
        if places[index] == NOBODY {
            let place = self.free.pop().unwrap_or_else(|| {
                self.slots.push(Meeting::blank(group.0));
                self.slots.len() as u32 - 1
            });
            self.slots[place as usize].open(group.0, number, record);
            places[index] = place;
        }
        places[index]
    }

    /// Wakes the members of a resolved meeting and forgets it.
    fn close(&mut self, place: u32, when: Met) {
        let meeting = &mut self.slots[place as usize];
        let wake = |Arrival { rank, stream, .. }| Wake { rank, stream, when };
        let came = std::mem::take(&mut meeting.came);
        if came > 0 {
            self.woken.push(wake(meeting.first));
        }
        if came > 1 {
            for arrival in meeting.others.drain(..) {
                self.woken.push(wake(arrival));
            }
        }
        if let Place::Window(window) = self.groups[meeting.group as usize].place {
            let Window { first, places } = &mut self.windows[window as usize];
            places[(meeting.number - *first) as usize] = OVER;
            while places.front() == Some(&OVER) {
                places.pop_front();
                *first += 1;
            }
            self.free.push(place);
        }
    }

    /// Number of a meeting within its group.
    pub(super) fn number(&self, place: u32) -> u32 {
        self.slots[place as usize].number
    }

    /// Visits the meetings that some member has come to; of each group `issued` says how many one of its members has issued.
    /// Members come in the order in which they were played, which is looked at although it makes no difference.
    pub(super) fn look(&mut self, look: &mut impl Look, issued: &[u32]) {
        let Self { world: _, groups, windows, slots, free: _, agenda: _, woken: _ } = self;
        for ((group, open), issued) in (0..).zip(groups).zip(issued) {
            let mut visit = |place: u32| {
                let Meeting { number, latest, fixed, bytes, agreed, came, first, others, group: _ } =
                    &mut slots[place as usize];
                if *came == 0 {
                    return;
                }
                look.fact(group << 32 | u64::from(issued.wrapping_sub(*number)));
                look.fact(u64::from(*came) << 1 | u64::from(*agreed));
                look.fact(*fixed);
                look.fact(*bytes);
                look.time(latest);
                for Arrival { rank, stream, record, at } in std::iter::once(first).chain(others) {
                    look.fact(u64::from(*rank) << 8 | u64::from(*stream));
                    look.fact(u64::from(*record));
                    look.time(at);
                }
            };
            match open.place {
                Place::Same(place) => visit(place),
                Place::Window(window) => {
                    let places = &windows[window as usize].places;
                    places.iter().filter(|place| **place < OVER).for_each(|place| visit(*place));
                }
            }
        }
    }

    /// Visits the starts of flows that are planned, and the streams that resolved meetings let go on.
    pub(super) fn look_ahead(&mut self, look: &mut impl Look, issued: &[u32]) {
        let mut starts: Vec<_> =
            self.agenda.starts().map(|(time, place)| (time, self.name(place, issued))).collect();
        starts.sort_unstable();
        for (mut time, (group, number)) in starts {
            look.fact(u64::from(group) << 32 | number);
            look.time(&mut time);
        }
        let mut wakes: Vec<&mut Wake> = self.woken.iter_mut().collect();
        wakes.sort_unstable_by_key(|wake| (wake.rank, wake.stream));
        for Wake { rank, stream, when: Met { met, end } } in wakes {
            look.fact(u64::from(*rank) << 8 | u64::from(*stream));
            look.time(met);
            look.time(end);
        }
    }

    /// A meeting by its group, and by how many that one of its members has issued it is back.
    pub(super) fn name(&self, place: u32, issued: &[u32]) -> (u32, u64) {
        let Meeting { group, number, .. } = self.slots[place as usize];
        (group, u64::from(issued[group as usize].wrapping_sub(number)))
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
    fn at(&self, place: u32) -> At {
        let lowest = self.slots[place as usize].arrivals().min_by_key(|arrival| arrival.rank);
        self.member(lowest.map_or((0, 0), |arrival| (arrival.rank, arrival.record)))
    }

    fn member(&self, (rank, record): (u32, u32)) -> At {
        At { rank, record: self.world.program_of(rank).records().at(record as usize) }
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
        let members = meeting.arrivals().map(|arrival| self.member((arrival.rank, arrival.record)));
        disagreement(self.world, (meeting.group, meeting.number), members.collect())
    }

    /// Group and number of a meeting, and the ranks that have come.
    pub(super) fn arrived(&self, place: u32) -> ((u32, u32), impl Iterator<Item = u32>) {
        let meeting = &self.slots[place as usize];
        ((meeting.group, meeting.number), meeting.arrivals().map(|arrival| arrival.rank))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::Seen;
    use crate::observer::NoObserver;
    use crate::program::{Class, ProgramBuilder};
    use crate::world::{LinkUse, RankSpec, WorldBuilder};

    /// Who comes to what: group and number of the meeting, rank, stream, record and moment, and time and bytes of the record.
    type Came = ((u32, u32), (u32, u8, u32, u64), (u64, u64));

    /// Of the groups of three ranks the first has its meetings on one stream, and the second on two.
    fn world() -> World {
        let (class, time) = (Class(1), SimTime(5));
        let mut p = ProgramBuilder::new("p");
        let (label, channels) = (p.label("x"), ["a", "b"].map(|name| p.channel(name)));
        let streams = ["one", "two"].map(|name| p.stream(name));
        for (stream, channel) in [(0, 0), (0, 1), (1, 1)] {
            p.rendezvous(streams[stream], channels[channel], class, class, label, time, 8);
        }
        let mut w = WorldBuilder::new();
        let program = w.program(p.build().unwrap());
        let link = w.link("link", 1e12, SimTime(0));
        let groups: Vec<_> = (0..2).map(|_| w.group(3, vec![LinkUse { link, weight: 1 }])).collect();
        for _ in 0..3 {
            w.rank(RankSpec { program, groups: groups.clone(), ..RankSpec::default() });
        }
        w.build().unwrap()
    }

    /// Meetings to which these came, of which so many have been issued in each group. Then something more may happen; places
    /// are those of who came.
    fn show(issued: u32, came: &[Came], more: impl Fn(&mut Meetings<'_>, &[u32])) -> (Seen, Seen) {
        let world = world();
        let mut meetings = Meetings::new(&world);
        let plain = world.program_of(0).records().at(0);
        let mut come = |&((group, number), (rank, stream, record, at), (time, bytes)): &Came| {
            let with = Record { time, extra: bytes, ..plain };
            let arrival = Arrival { rank, stream, record, at };
            match meetings.arrive((GroupId(group), number), (arrival, true), &with, &mut NoObserver) {
                Ok(Answer::Wait(place)) => place,
                _ => panic!("not all have come"),
            }
        };
        let places: Vec<u32> = came.iter().map(&mut come).collect();
        more(&mut meetings, &places);
        let issued = [issued; 2];
        let here = Seen::of(|it| meetings.look(it, &issued));
        (here, Seen::of(|it| meetings.look_ahead(it, &issued)))
    }

    #[test]
    fn meetings_that_differ_look_different() {
        let one: Came = ((0, 4), (1, 1, 2, 90), (5, 8));
        let show = |issued: u32, came: &[Came]| show(issued, came, |_, _| {}).0;
        assert!(show(9, &[one]).is_same(&show(19, &[((0, 14), one.1, one.2)])));
        let two: Came = ((1, 3), (1, 1, 2, 90), (5, 8));
        assert!(show(9, &[two]).is_same(&show(19, &[((1, 13), two.1, two.2)])));
        Seen::all_differ(&[
            show(9, &[]),
            show(9, &[one]),
            show(10, &[one]),
            show(9, &[two]),
            show(10, &[two]),
            show(9, &[one, two]),
            show(9, &[((0, 4), (2, 1, 2, 90), (5, 8))]),
            show(9, &[((0, 4), (1, 0, 2, 90), (5, 8))]),
            show(9, &[((0, 4), (1, 1, 1, 90), (5, 8))]),
            show(9, &[((0, 4), (1, 1, 2, 91), (5, 8))]),
            show(9, &[((0, 4), (1, 1, 2, 90), (6, 8))]),
            show(9, &[((0, 4), (1, 1, 2, 90), (5, 9))]),
            show(9, &[one, ((0, 4), (2, 1, 2, 80), (5, 8))]),
            show(9, &[one, ((0, 4), (2, 1, 2, 81), (5, 8))]),
            show(9, &[one, ((0, 4), (2, 1, 2, 80), (5, 9))]),
        ]);
    }

    #[test]
    fn what_is_ahead_looks_different_where_it_differs_and_in_any_order_the_same() {
        let came = |on| -> [Came; 2] {
            [((0, 4 + on), (1, 1, 2, 90), (5, 8)), ((1, 4 + on), (1, 0, 1, 80), (5, 8))]
        };
        let wake = |rank, stream, met, end| Wake { rank, stream, when: Met { met, end } };
        let ahead = |starts: &[(u64, usize)], wakes: &[Wake], on: u32| {
            let more = |it: &mut Meetings<'_>, places: &[u32]| {
                for &(time, which) in starts {
                    it.agenda.push(time, Shared::FlowStart(places[which]));
                }
                for wake in wakes {
                    it.woken.push(*wake);
                }
            };
            show(9 + on, &came(on), more).1
        };
        let (one, two) = (wake(0, 1, 5, 9), wake(2, 0, 7, 8));
        let plain = ahead(&[(95, 0), (95, 1)], &[one, two], 0);
        assert!(plain.is_same(&ahead(&[(95, 1), (95, 0)], &[two, one], 0)));
        assert!(plain.is_same(&ahead(&[(95, 0), (95, 1)], &[one, two], 10)));
        Seen::all_differ(&[
            plain,
            ahead(&[(95, 0)], &[one, two], 0),
            ahead(&[(95, 1)], &[one, two], 0),
            ahead(&[(95, 0), (96, 1)], &[one, two], 0),
            ahead(&[(96, 0), (95, 1)], &[one, two], 0),
            ahead(&[(95, 0), (95, 1)], &[one], 0),
            ahead(&[(95, 0), (95, 1)], &[two], 0),
            ahead(&[(95, 0), (95, 1)], &[wake(1, 1, 5, 9), two], 0),
            ahead(&[(95, 0), (95, 1)], &[wake(0, 0, 5, 9), two], 0),
            ahead(&[(95, 0), (95, 1)], &[wake(0, 1, 4, 9), two], 0),
            ahead(&[(95, 0), (95, 1)], &[wake(0, 1, 5, 8), two], 0),
        ]);
    }
}
