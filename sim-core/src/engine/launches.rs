//! The launches of a stream, of which only so many may be in flight.
//!
//! A launch beyond that waits on the host for the one so many before it to complete. When a thousand launches completed
//! would be a thousand moments for every stream of every rank. But a stream that has enough to do starts each kernel at the
//! end of the one before, so that a moment and the records tell the others; what is kept are stretches of records between
//! gaps, and the host, passing them, adds up their times again.

use std::collections::VecDeque;
use std::ops::Range;

use crate::look::Look;
use crate::program::{Kind, Program, Records};

/// The launches of a stream, which complete in order.
#[derive(Debug, Default)]
pub(super) struct Launches {
    /// How many may be in flight; 0 is no limit, and then nothing is kept.
    depth: u32,
    /// Places in flight that no launch has had.
    fresh: u32,
    /// Issued and not complete.
    in_flight: u32,
    /// A moment before which the last one issued does not complete.
    pub(super) at_least: u64,
    /// Completed ones of which the host has passed none, and when the last of them completed.
    done: VecDeque<Stretch>,
    last_end: u64,
    /// Those that the host is passing, without what it has passed.
    passing: Stretch,
}

/// Launches that completed without a gap between them. The last record is one of them.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    first: u32,
    end: u32,
    /// When the first began if it is a kernel; of a rendezvous only the end is told.
    start: u64,
}

impl Launches {
    /// Those of each stream of a program of which `limit` may be in flight on one; 0 is no limit.
    pub(super) fn of(program: &Program, limit: u32) -> Box<[Self]> {
        let of_stream = |&count: &u32| {
            // A limit that the stream cannot reach is none.
            let depth = if limit < count { limit } else { 0 };
            Self { depth, fresh: depth, ..Self::default() }
        };
        program.launches_by_stream().iter().map(of_stream).collect()
    }

    #[inline]
    pub(super) fn are_limited(&self) -> bool {
        self.depth > 0
    }

    /// Places of launches that completed before the host got to where it is are as good as those that none has had.
    pub(super) fn forget_past(&mut self, host: u64, records: Records<'_>) {
        while let Some(next) = self.done.front().filter(|next| next.start <= host) {
            // All before it were complete when it began.
            let passed = records.shapes_of(self.passing.first as usize..self.passing.end as usize);
            let launches = passed.filter(|(it, _)| matches!(it.kind, Kind::Kernel | Kind::Rendezvous));
            self.fresh += launches.count() as u32;
            self.passing = *next;
            self.done.pop_front();
        }
    }

    pub(super) fn look(&mut self, look: &mut impl Look) {
        let Self { depth: _, fresh, in_flight, at_least, done, last_end, passing } = self;
        look.fact(u64::from(*fresh) << 32 | u64::from(*in_flight));
        look.time(at_least);
        look.time(last_end);
        look.fact(done.len() as u64);
        for Stretch { first, end, start } in done.iter_mut().chain([passing]) {
            look.fact(u64::from(*first) << 32 | u64::from(*end));
            look.time(start);
        }
    }

    /// Whether a launch has to wait for one that is in flight.
    #[inline]
    pub(super) fn are_full(&self) -> bool {
        self.in_flight == self.depth
    }

    /// Whether the next launch waits for one that completed but is not among those that are kept yet.
    #[inline]
    pub(super) fn wants_more(&self) -> bool {
        self.fresh == 0 && self.passing.first == self.passing.end && self.done.is_empty()
    }

    /// The host gives the next launch its place: when the one that had it before completed.
    #[inline]
    pub(super) fn take_place(&mut self, records: Records<'_>) -> u64 {
        if self.fresh > 0 {
            self.fresh -= 1;
            return 0;
        }
        loop {
            while self.passing.first < self.passing.end {
                let record = records.shape(self.passing.first as usize);
                self.passing.first += 1;
                match record.kind {
                    Kind::Kernel => {
                        self.passing.start += record.time;
                        return self.passing.start;
                    }
                    Kind::Rendezvous => return self.passing.start,
                    // Of memory.
                    _ => {}
                }
            }
            // Of more than may be in flight, the first have completed.
            let Some(next) = self.done.pop_front() else { return self.passing.start };
            self.passing = next;
        }
    }

    /// One more is in flight.
    #[inline]
    pub(super) fn launch(&mut self) {
        self.in_flight += 1;
    }

    /// So many are in flight no more.
    #[inline]
    pub(super) fn land(&mut self, count: u32) {
        self.in_flight -= count;
    }

    /// The kernels among records, of which the last is one, completed each at the start of the next, from `start` to `end`;
    /// or a rendezvous did at the end. Without records nothing did.
    pub(super) fn completed(&mut self, records: Range<u32>, (start, end): (u64, u64)) {
        if records.is_empty() {
            return;
        }
        let last_end = std::mem::replace(&mut self.last_end, end);
        match self.done.back_mut() {
            Some(last) if last.end == records.start && last_end == start => last.end = records.end,
            _ => self.done.push_back(Stretch { first: records.start, end: records.end, start }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::Seen;

    #[test]
    fn launches_that_differ_look_different() {
        let stretch = |first, end, start| Stretch { first, end, start };
        let show = |fresh, in_flight, ends: [u64; 2], passing, done: &[Stretch]| {
            let [at_least, last_end] = ends;
            let done = done.iter().copied().collect();
            let mut it = Launches { depth: 9, fresh, in_flight, at_least, done, last_end, passing };
            Seen::of(|look| it.look(look))
        };
        let (passing, done) = (stretch(4, 6, 10), stretch(6, 9, 30));
        Seen::all_differ(&[
            show(1, 2, [50, 40], passing, &[done]),
            show(2, 2, [50, 40], passing, &[done]),
            show(1, 3, [50, 40], passing, &[done]),
            show(1, 2, [51, 40], passing, &[done]),
            show(1, 2, [50, 41], passing, &[done]),
            show(1, 2, [50, 40], stretch(3, 6, 10), &[done]),
            show(1, 2, [50, 40], stretch(4, 5, 10), &[done]),
            show(1, 2, [50, 40], stretch(4, 6, 11), &[done]),
            show(1, 2, [50, 40], passing, &[]),
            show(1, 2, [50, 40], passing, &[done, stretch(9, 10, 40)]),
            show(1, 2, [50, 40], passing, &[stretch(6, 9, 31)]),
            show(1, 2, [50, 40], passing, &[stretch(7, 9, 30)]),
            show(1, 2, [50, 40], passing, &[stretch(6, 8, 30)]),
        ]);
    }
    use crate::program::{Category, Class, ProgramBuilder};
    use crate::time::SimTime;

    /// Four of one picosecond each complete at 11, 12, 21 and 31.
    #[test]
    fn places_of_what_is_past_are_fresh() {
        let mut p = ProgramBuilder::new("p");
        let (stream, label) = (p.stream("compute"), p.label("x"));
        for _ in 0..4 {
            p.kernel(stream, Class(0), label, SimTime(1), SimTime(0));
        }
        let program = p.build().unwrap();
        let at = |host: u64| {
            let mut launches = Launches { depth: 4, in_flight: 0, ..Launches::default() };
            launches.completed(0..2, (10, 12));
            launches.completed(2..3, (20, 21));
            launches.completed(3..4, (30, 31));
            launches.forget_past(host, program.records());
            [(); 4].map(|()| launches.take_place(program.records()))
        };
        assert_eq!(at(5), [11, 12, 21, 31]);
        // That the first two are complete shows when the third began.
        assert_eq!(at(19), [11, 12, 21, 31]);
        assert_eq!(at(20), [0, 0, 21, 31]);
        assert_eq!(at(30), [0, 0, 0, 31]);
    }

    #[test]
    fn completions_are_told_from_where_the_stream_was_idle() {
        let mut p = ProgramBuilder::new("p");
        let (stream, label) = (p.stream("compute"), p.label("x"));
        let (channel, tensor) = (p.channel("c"), p.tensor(8, Category(0), label));
        let kernel =
            |p: &mut ProgramBuilder, picos| p.kernel(stream, Class(0), label, SimTime(picos), SimTime(0));
        kernel(&mut p, 5);
        p.alloc(stream, tensor);
        kernel(&mut p, 7);
        p.rendezvous(stream, channel, Class(0), Class(0), label, SimTime(0), 0);
        kernel(&mut p, 2);
        kernel(&mut p, 3);
        let program = p.build().unwrap();
        let records = program.records();
        let mut launches = Launches { depth: 2, fresh: 2, ..Launches::default() };
        let take = |launches: &mut Launches| launches.take_place(records);
        assert_eq!([take(&mut launches), take(&mut launches)], [0, 0]);
        assert!(launches.wants_more());
        launches.completed(0..3, (10, 22));
        launches.completed(3..4, (30, 30));
        // The next begins where the rendezvous ended, and the last after a gap.
        launches.completed(4..5, (30, 32));
        launches.completed(5..5, (32, 32));
        launches.completed(5..6, (40, 43));
        assert_eq!(launches.done.len(), 3);
        let ends: Vec<u64> = (0..5).map(|_| take(&mut launches)).collect();
        assert_eq!(ends, [15, 22, 30, 32, 43]);
        assert!(launches.wants_more());
    }
}
