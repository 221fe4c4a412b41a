//! The moments of a rank's memory steps: known out of order, shown in program order, never falling.

use std::collections::VecDeque;

use super::UNKNOWN;
use crate::ledger::{Ledger, Marks, Step};
use crate::look::Look;
use crate::observer::{Emitter, Observer};
use crate::time::SimTime;

/// Memory steps whose moment, or that of an earlier step, is not known yet.
///
/// They wait in runs: a stream gets to what was issued to it in a row in this order, so that of thousands of steps only
/// the last moment counts, and those that the ledger asks for. The steps themselves are kept where somebody watches.
#[derive(Debug, Default)]
pub(super) struct Moments {
    /// The last moment shown.
    last: u64,
    /// Number of the first run that waits.
    first: u32,
    /// The moment of the first is unknown.
    waiting: VecDeque<Run>,
    /// Where somebody watches: the steps of the runs that wait, and when their streams got there.
    steps: VecDeque<(Step, u64)>,
    /// How many steps were shown of those that had to wait.
    shown: u32,
    /// Where somebody watches requests: how many there were.
    asked: u32,
}

/// Steps in a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// When the stream got to the last of them, or `UNKNOWN`. Of known ones of several streams it is the latest.
    last: u64,
    /// When it got to the last of them that set the peak, and to the one that failed; or `UNKNOWN`.
    peak: u64,
    fails: u64,
    /// The records of these two, as long as the moments are unknown.
    peak_record: u32,
    fails_record: u32,
    /// How many, and where somebody watches the number of the first step, or of the first request.
    count: u32,
    first_step: u32,
}

/// No record has this number, and no run.
const NONE: u32 = u32::MAX;

impl Run {
    /// One without steps.
    pub(super) fn empty() -> Self {
        let (peak_record, fails_record) = (NONE, NONE);
        Self {
            last: UNKNOWN,
            peak: UNKNOWN,
            fails: UNKNOWN,
            peak_record,
            fails_record,
            count: 0,
            first_step: 0,
        }
    }

    /// One more, of a record of the program.
    #[inline]
    fn add(&mut self, record: u32, marks: Marks) {
        self.count += 1;
        if marks.sets_peak {
            self.peak_record = record;
        }
        if marks.fails {
            self.fails_record = record;
        }
    }

    /// Its stream gets to the step of a record.
    #[inline]
    pub(super) fn reach(&mut self, record: u32, at: u64) {
        self.last = at;
        if record == self.peak_record {
            self.peak = at;
        }
        if record == self.fails_record {
            self.fails = at;
        }
    }

    /// One more behind those whose moments are known, of which another stream's step may be shown later than it is reached.
    fn join(&mut self, marks: Marks, at: u64) {
        self.count += 1;
        self.last = self.last.max(at);
        if marks.sets_peak {
            self.peak = self.last;
        }
        if marks.fails {
            self.fails = self.last;
        }
    }
}

impl Moments {
    /// Adds a step to a run that is about to wait.
    #[inline]
    pub(super) fn add<O: Observer>(
        &mut self,
        run: &mut Run,
        record: u32,
        step: Step,
        emit: &mut Emitter<'_, O>,
    ) {
        if O::ACTIVE {
            if run.count == 0 {
                run.first_step = if O::REQUESTS { self.asked } else { self.next_step() };
            }
            if O::REQUESTS {
                step.ask(emit);
                self.asked += 1;
            } else {
                self.steps.push_back((step, UNKNOWN));
            }
        }
        run.add(record, step.marks);
    }

    /// A run, of which no moment is known, waits from now on; its number, by which [`Moments::resolve`] knows it.
    #[inline]
    pub(super) fn wait(&mut self, run: &Run) -> u32 {
        if run.count == 0 {
            return NONE;
        }
        self.waiting.push_back(*run);
        self.first.wrapping_add(self.waiting.len() as u32 - 1)
    }

    /// The run of a number; one without steps if there is none.
    #[inline]
    pub(super) fn run(&self, number: u32) -> Run {
        let run = if number == NONE { None } else { self.waiting.get(self.behind_first(number)) };
        run.copied().unwrap_or(Run::empty())
    }

    /// Notes when the stream got to a step of a waiting run, where somebody watches; `number` counts the steps of the run.
    #[inline]
    pub(super) fn watch<O: Observer>(&mut self, run: &Run, number: u32, at: u64, emit: &mut Emitter<'_, O>) {
        if O::REQUESTS {
            emit.observer.reached(emit.rank, run.first_step + number, SimTime(at));
            return;
        }
        let place = run.first_step.wrapping_add(number).wrapping_sub(self.shown);
        if let Some((_, reached)) = self.steps.get_mut(place as usize) {
            *reached = at;
        }
    }

    /// A step in program order to which its stream gets `at` a moment.
    pub(super) fn step<O: Observer>(
        &mut self,
        step: Step,
        at: u64,
        ledger: &mut Ledger,
        emit: &mut Emitter<'_, O>,
    ) {
        if O::REQUESTS {
            step.ask(emit);
            emit.observer.reached(emit.rank, self.asked, SimTime(at));
            self.asked += 1;
        }
        if self.waiting.is_empty() {
            self.last = self.last.max(at);
            ledger.stamp(step.marks, self.last);
            if !O::REQUESTS {
                step.emit((self.last, at), emit);
            }
            return;
        }
        let first_step = self.next_step();
        if O::ACTIVE && !O::REQUESTS {
            self.steps.push_back((step, at));
        }
        match self.waiting.back_mut() {
            Some(run) if run.last != UNKNOWN => run.join(step.marks, at),
            _ => {
                let mut run = Run { last: 0, first_step, ..Run::empty() };
                run.join(step.marks, at);
                self.waiting.push_back(run);
            }
        }
    }

    /// The stream of a waiting run got through it.
    pub(super) fn resolve<O: Observer>(
        &mut self,
        number: u32,
        run: &Run,
        ledger: &mut Ledger,
        emit: &mut Emitter<'_, O>,
    ) {
        if number == NONE {
            return;
        }
        let behind_first = self.behind_first(number);
        if let Some(waiting) = self.waiting.get_mut(behind_first) {
            *waiting = *run;
        }
        while let Some(run) = self.waiting.front().filter(|run| run.last != UNKNOWN) {
            let run = *run;
            self.waiting.pop_front();
            self.first = self.first.wrapping_add(1);
            self.show(&run, ledger, emit);
        }
    }

    fn show<O: Observer>(&mut self, run: &Run, ledger: &mut Ledger, emit: &mut Emitter<'_, O>) {
        let before = self.last;
        for (at, sets_peak) in [(run.peak, true), (run.fails, false)] {
            if at != UNKNOWN {
                ledger.stamp(Marks { sets_peak, fails: !sets_peak }, before.max(at));
            }
        }
        self.last = before.max(run.last);
        if O::ACTIVE && !O::REQUESTS {
            let mut latest = before;
            for _ in 0..run.count {
                let Some((step, at)) = self.steps.pop_front() else { break };
                latest = latest.max(at);
                step.emit((latest, at), emit);
            }
            self.shown = self.shown.wrapping_add(run.count);
        }
    }

    /// A run's number as its distance from the first that waits.
    pub(super) fn place_of(&self, number: u32) -> u64 {
        if number == NONE { u64::MAX } else { self.behind_first(number) as u64 }
    }

    /// Nobody watches.
    pub(super) fn look(&mut self, look: &mut impl Look) {
        let Self { last, first: _, waiting, steps: _, shown: _, asked: _ } = self;
        look.time(last);
        look.fact(waiting.len() as u64);
        for Run { last, peak, fails, peak_record, fails_record, count, first_step: _ } in waiting {
            look.fact(u64::from(*peak_record) << 32 | u64::from(*fails_record));
            look.fact(u64::from(*count));
            for time in [last, peak, fails] {
                look.known_time(time, UNKNOWN);
            }
        }
    }

    fn behind_first(&self, number: u32) -> usize {
        number.wrapping_sub(self.first) as usize
    }

    /// Number of the next step that has to wait.
    fn next_step(&self) -> u32 {
        self.shown.wrapping_add(self.steps.len() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::Seen;

    #[test]
    fn moments_that_differ_look_different() {
        let run = |count: u32, records: [u32; 2], times: [u64; 3]| {
            let ([peak_record, fails_record], [last, peak, fails]) = (records, times);
            Run { last, peak, fails, peak_record, fails_record, count, first_step: 0 }
        };
        let show = |last: u64, first: u32, runs: &[Run]| {
            let waiting = runs.iter().copied().collect();
            let mut moments = Moments { last, first, waiting, ..Moments::default() };
            Seen::of(|it| moments.look(it))
        };
        let (unknown, known) = ([UNKNOWN; 3], [8, 7, 6]);
        let one = run(1, [3, 4], unknown);
        assert!(show(5, 1, &[one]).is_same(&show(5, 2, &[one])));
        Seen::all_differ(&[
            show(5, 1, &[]),
            show(5, 1, &[one]),
            show(6, 1, &[one]),
            show(5, 1, &[run(2, [3, 4], unknown)]),
            show(5, 1, &[run(1, [2, 4], unknown)]),
            show(5, 1, &[run(1, [3, 5], unknown)]),
            show(5, 1, &[one, run(1, [3, 4], known)]),
            show(5, 1, &[one, run(1, [3, 4], [9, 7, 6])]),
            show(5, 1, &[one, run(1, [3, 4], [8, 5, 6])]),
            show(5, 1, &[one, run(1, [3, 4], [8, 7, 9])]),
            show(5, 1, &[one, run(1, [3, 4], [8, UNKNOWN, 6])]),
            show(5, 1, &[one, run(1, [3, 4], [8, 7, UNKNOWN])]),
        ]);
    }

    /// A run is known by how far it is behind the first that waits, however many there were.
    #[test]
    fn runs_are_known_by_their_place() {
        let mut moments = Moments { first: 7, ..Moments::default() };
        let run = Run { count: 1, ..Run::empty() };
        let numbers = [&run, &Run::empty(), &run, &run].map(|run| moments.wait(run));
        assert_eq!(numbers.map(|number| moments.place_of(number)), [0, u64::MAX, 1, 2]);
    }
}
