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
