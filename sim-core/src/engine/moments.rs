//! The moments of a rank's memory steps: known out of order, shown in program order, never falling.

use std::collections::VecDeque;

use super::UNKNOWN;
use crate::ledger::{Ledger, Marks, Step};
use crate::observer::{Emitter, Observer};

/// Memory steps whose moment, or that of an earlier step, is not known yet.
#[derive(Debug, Default)]
pub(super) struct Moments {
    /// The last moment shown.
    last: u64,
    /// Number of the first step that waits.
    first: u32,
    /// The moment of the first is unknown.
    waiting: VecDeque<Waiting>,
    /// The steps that wait, where somebody watches.
    steps: VecDeque<Step>,
}

/// A step that waits: what the ledger has to know of it.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    at: u64,
    marks: Marks,
}

impl Moments {
    /// Number of the next step that has to wait, by which [`Moments::resolve`] knows it.
    #[inline]
    pub(super) fn next(&self) -> u32 {
        self.first.wrapping_add(self.waiting.len() as u32)
    }

    /// A step in program order; `at` is when its stream gets there, or `UNKNOWN`.
    pub(super) fn step<O: Observer>(
        &mut self,
        step: Step,
        at: u64,
        ledger: &mut Ledger,
        emit: &mut Emitter<'_, O>,
    ) {
        if self.waiting.is_empty() && at != UNKNOWN {
            self.show(&step, at, ledger, emit);
            return;
        }
        self.waiting.push_back(Waiting { at, marks: step.marks });
        if O::ACTIVE {
            self.steps.push_back(step);
        }
    }

    /// The stream of a waiting step got there.
    pub(super) fn resolve<O: Observer>(
        &mut self,
        number: u32,
        at: u64,
        ledger: &mut Ledger,
        emit: &mut Emitter<'_, O>,
    ) {
        let behind_first = number.wrapping_sub(self.first);
        if behind_first > 0 {
            if let Some(waiting) = self.waiting.get_mut(behind_first as usize) {
                waiting.at = at;
            }
            return;
        }
        let mut at = at;
        while let Some(Waiting { marks, .. }) = self.waiting.pop_front() {
            self.first = self.first.wrapping_add(1);
            self.last = self.last.max(at);
            ledger.stamp(marks, self.last);
            if O::ACTIVE
                && let Some(step) = self.steps.pop_front()
            {
                step.emit((self.last, at), emit);
            }
            match self.waiting.front() {
                Some(next) if next.at != UNKNOWN => at = next.at,
                _ => return,
            }
        }
    }

    #[inline]
    fn show<O: Observer>(&mut self, step: &Step, at: u64, ledger: &mut Ledger, emit: &mut Emitter<'_, O>) {
        self.last = self.last.max(at);
        ledger.stamp(step.marks, self.last);
        step.emit((self.last, at), emit);
    }
}
