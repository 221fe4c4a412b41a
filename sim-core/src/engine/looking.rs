//! Looking at a rank: whether its state is an earlier one, only later.

use super::meetings::Meetings;
use super::rank::{BacklogWork, Blocked, Cursor, NO_RECORD, Pending, RankState, StreamState, UnderWay, Work};
use crate::look::Look;
use crate::program::{Kind, Record, Records};

/// What a rank's numbers mean.
#[derive(Clone, Copy)]
pub(super) struct About<'w> {
    pub(super) records: Records<'w>,
    /// By channel, as [`crate::world::World::classes`] says.
    pub(super) classes: &'w [u32],
}

impl RankState {
    /// Visits everything that what the rank does from here on depends on, but for the place in its program and what its
    /// events and meetings are counted from.
    pub(super) fn look(&mut self, look: &mut impl Look, about: About<'_>, meetings: &Meetings<'_>) {
        let Self {
            next: Cursor { part: _, record, end },
            host,
            work,
            backlog_work,
            streams,
            busy: _,
            events,
            // Streams say so.
            event_waiters: _,
            launches,
            issued,
            under_way,
            idle: _,
            host_busy: _,
            ledger,
            moments,
            listed: _,
            pause_at: _,
        } = self;
        // Before any time is moved.
        for (launches, stream) in launches.iter_mut().zip(&*streams) {
            // It is asked for only where the stream's clock is asked for, too, and so may be that.
            launches.at_least = launches.at_least.max(stream.clock);
            launches.forget_past(*host, about.records);
        }
        look.fact(*record as u64);
        look.fact(*end as u64);
        look.clock(host);
        work.look(look);
        backlog_work.look(look);
        // How far back among those of a channel a meeting is, and among those that send over the same links.
        let meeting = |record: &Record, number: u32| issued[record.channel()].wrapping_sub(number);
        let order = |record: &Record, number: u32| {
            let class = about.classes.get(record.channel()).filter(|_| record.bytes() > 0);
            class.map_or(0, |class| under_way[*class as usize].issued().wrapping_sub(number))
        };
        let next_event = events.back(0);
        for StreamState { clock, blocked, last, order: number, arrived, met, pending } in streams {
            look.clock(clock);
            look.fact(u64::from(*last));
            let record = (*last != NO_RECORD).then(|| about.records.at(*last as usize));
            let rendezvous = record.filter(|record| record.kind == Kind::Rendezvous);
            if rendezvous.is_some() {
                look.time(arrived);
                look.time(met);
            }
            match (*blocked, rendezvous) {
                (Blocked::Meeting(place), Some(record)) => {
                    look.fact(1);
                    look.fact(u64::from(meeting(&record, meetings.number(place))));
                    look.fact(u64::from(order(&record, *number)));
                }
                (Blocked::Event(event), _) => {
                    look.fact(2);
                    look.fact(u64::from(next_event.wrapping_sub(event)));
                }
                _ => look.fact(0),
            }
            look.fact(pending.len() as u64);
            for Pending { at, record, count_or_meeting, step_or_order, worked } in pending {
                look.time(at);
                look.fact(u64::from(*record) << 1 | u64::from(*worked));
                let record = about.records.at(*record as usize);
                let (first, second) = match record.kind {
                    Kind::Rendezvous => {
                        let order = order(&record, *step_or_order);
                        (meeting(&record, *count_or_meeting), u64::from(order))
                    }
                    Kind::Record | Kind::Wait => (0, u64::from(next_event.wrapping_sub(*step_or_order))),
                    _ => (*count_or_meeting, moments.place_of(*step_or_order)),
                };
                look.fact(u64::from(first));
                look.fact(second);
            }
        }
        events.look(look);
        launches.iter_mut().for_each(|launches| launches.look(look));
        under_way.iter_mut().for_each(|under_way| under_way.look(look));
        ledger.look(look);
        moments.look(look);
    }
}

impl Work {
    fn look(&mut self, look: &mut impl Look) {
        let Self { end, record } = self;
        look.fact(u64::from(*record));
        look.time(end);
    }
}

impl BacklogWork {
    fn look(&mut self, look: &mut impl Look) {
        let (issued, reached, queue) = self.parts();
        look.fact(queue.len() as u64);
        queue.iter_mut().chain([issued, reached]).for_each(|work| work.look(look));
    }
}

impl UnderWay {
    fn look(&mut self, look: &mut impl Look) {
        let (issued, open, until) = self.parts();
        look.fact(open.len() as u64);
        for number in open {
            look.fact(u64::from(issued - number));
        }
        look.time(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::Cause;
    use crate::engine::meetings::{Answer, Arrival};
    use crate::ledger::Asked;
    use crate::look::Seen;
    use crate::observer::NoObserver;
    use crate::program::{Category, Class, Label, ProgramBuilder, TensorSpec};
    use crate::time::SimTime;
    use crate::world::{GroupId, LinkUse, RankSpec, World, WorldBuilder};

    /// Two ranks of one program; its records are two kernels, a transfer, one of nothing, an event and a wait for it.
    fn world() -> World {
        let (class, time) = (Class(1), SimTime(5));
        let mut p = ProgramBuilder::new("p");
        let (label, channel) = (p.label("x"), p.channel("c"));
        let (one, two) = (p.stream("one"), p.stream("two"));
        p.kernel(one, class, label, time, time);
        p.kernel(one, class, label, time, time);
        p.rendezvous(one, channel, class, class, label, time, 8);
        p.rendezvous(two, channel, class, class, label, time, 0);
        let event = p.record(one);
        p.wait(two, event);
        let mut w = WorldBuilder::new();
        let program = w.program(p.build().unwrap());
        let link = w.link("link", 1e12, SimTime(0));
        let groups = vec![w.group(2, vec![LinkUse { link, weight: 1 }])];
        for _ in 0..2 {
            w.rank(RankSpec { program, groups: groups.clone(), ..RankSpec::default() });
        }
        w.build().unwrap()
    }

    /// A rank whose first stream is at a meeting and whose second waits for an event, before records of each kind; `on` is by
    /// how much more meetings, transfers and events were counted before, and then something may be changed.
    fn show(on: u32, change: impl Fn(&mut RankState)) -> Seen {
        let world = world();
        let records = world.program_of(0).records();
        let mut meetings = Meetings::new(&world);
        let arrival = Arrival { rank: 0, stream: 0, record: 2, at: 90 };
        let to = (GroupId(0), 3 + on);
        let came = meetings.arrive(to, (arrival, true), &records.at(2), &mut NoObserver);
        let Ok(Answer::Wait(place)) = came else { panic!("nobody else has come") };
        let mut state = RankState::new(&world, 0);
        (state.host, state.issued[0]) = (200, 9 + on);
        let mut under_way = UnderWay::default();
        for _ in 0..9 + on {
            under_way.issue();
        }
        (1..7 + on).for_each(|number| under_way.end(number, 60));
        state.under_way = vec![under_way].into();
        let mut waits = vec![0; on as usize];
        waits.extend([2, 2]);
        for _ in &waits {
            state.events.issue(&waits);
        }
        state.events.happen(on, 70, Cause::default());
        let issued = |at, record, count_or_meeting, step_or_order| {
            let worked = false;
            Pending { at, record, count_or_meeting, step_or_order, worked }
        };
        let [one, two] = &mut state.streams[..] else { panic!("two streams") };
        one.pending.push_back(issued(101, 0, 2, u32::MAX));
        one.pending.push_back(issued(102, 2, 4 + on, 8 + on));
        one.pending.push_back(issued(103, 4, 1, 1 + on));
        (one.clock, one.blocked, one.last, one.order) = (100, Blocked::Meeting(place), 2, 7 + on);
        (one.arrived, one.met) = (90, 80);
        two.pending.push_back(issued(104, 5, 1, on));
        two.pending.push_back(issued(105, 3, 5 + on, 1));
        (two.clock, two.blocked, two.last) = (95, Blocked::Event(1 + on), 1);
        change(&mut state);
        Seen::of(|it| state.look(it, About { records, classes: &[0] }, &meetings))
    }

    #[test]
    fn what_is_counted_on_looks_the_same() {
        let plain = show(0, |_| {});
        assert!(plain.is_same(&show(10, |_| {})));
        // Transfers of nothing are not counted, and the part is for those to compare who know what a round is.
        assert!(plain.is_same(&show(0, |it| it.streams[1].pending[1].step_or_order = 2)));
        assert!(plain.is_same(&show(0, |it| it.next.part = 3)));
        // Nor does it matter what a stream's last rendezvous was that has done something else since.
        assert!(plain.is_same(&show(0, |it| it.streams[1].met = 3)));
    }

    #[test]
    fn ranks_that_differ_look_different() {
        let work = Work { end: 50, record: 1 };
        let spec = TensorSpec { bytes: 8, category: Category(0), label: Label(0) };
        let of_stream = |change: fn(&mut StreamState)| show(0, |it| change(&mut it.streams[0]));
        let of_pending =
            |at: usize, change: fn(&mut Pending)| show(0, |it| change(&mut it.streams[0].pending[at]));
        Seen::all_differ(&[
            show(0, |_| {}),
            show(0, |it| it.next.record = 4),
            show(0, |it| it.next.end = 4),
            show(0, |it| it.host = 201),
            show(0, |it| it.work = work),
            show(0, |it| it.work = Work { end: 51, ..work }),
            show(0, |it| it.work = Work { record: 0, ..work }),
            show(0, |it| _ = it.backlog_work.issue(work)),
            show(0, |it| {
                it.backlog_work.issue(work);
                it.backlog_work.reach(true);
            }),
            show(0, |it| _ = it.events.issue(&[2, 2, 2])),
            show(0, |it| it.launches[0].launch()),
            show(0, |it| it.issued[0] = 10),
            show(0, |it| _ = it.under_way[0].issue()),
            show(0, |it| it.under_way[0].end(7, 60)),
            show(0, |it| it.under_way[0].end(8, 60)),
            show(0, |it| it.under_way[0].end(8, 61)),
            show(0, |it| _ = it.ledger.allocate(0, &spec, Asked::default())),
            show(0, |it| it.streams[1].blocked = Blocked::Event(0)),
            show(0, |it| it.streams[1].blocked = Blocked::No),
            show(0, |it| it.streams[1].clock = 96),
            show(0, |it| it.streams[1].pending[0].step_or_order = 1),
            show(0, |it| it.streams[1].pending[1].count_or_meeting = 6),
            of_stream(|it| it.clock = 101),
            of_stream(|it| it.blocked = Blocked::No),
            of_stream(|it| it.last = 3),
            of_stream(|it| it.order = 8),
            of_stream(|it| it.arrived = 91),
            of_stream(|it| it.met = 81),
            of_stream(|it| _ = it.pending.pop_back()),
            of_pending(0, |it| it.at = 100),
            of_pending(0, |it| it.record = 1),
            of_pending(0, |it| it.worked = true),
            of_pending(0, |it| it.count_or_meeting = 1),
            of_pending(0, |it| it.step_or_order = 0),
            of_pending(1, |it| it.count_or_meeting = 5),
            of_pending(1, |it| it.step_or_order = 9),
            of_pending(2, |it| it.step_or_order = 0),
        ]);
    }
}
