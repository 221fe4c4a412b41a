//! The ledger of a rank's memory: amounts in program order, as a host-side allocator serves requests.

use crate::look::Look;
use crate::observer::{Emitter, MemoryRecord, MemoryRequest, Observer};
use crate::outcome::{MemoryFailure, MemoryOutcome};
use crate::program::{CATEGORIES, Category, Program, Stream, Tensor, TensorSpec};
use crate::time::SimTime;

/// What a rank holds, and the most it held.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    held: [u64; CATEGORIES],
    total: u64,
    peak: u64,
    peak_at: u64,
    peak_by_category: [u64; CATEGORIES],
    capacity: Option<u64>,
    failure: Option<Failure>,
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    at: u64,
    tensor: u32,
    short_by: u64,
}

/// A step of the ledger whose moment may not be known yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// When the host asked for it, and on which stream.
    asked: Asked,
    tensor: u32,
    category: u8,
    frees: bool,
    delta: i64,
    total: u64,
    pub(crate) marks: Marks,
}

/// What a step's moment is wanted for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Marks {
    pub(crate) sets_peak: bool,
    pub(crate) fails: bool,
}

impl Step {
    /// Says that the host asks for it.
    #[inline]
    pub(crate) fn ask<O: Observer>(&self, emit: &mut Emitter<'_, O>) {
        emit.observer.asked(&MemoryRequest {
            rank: emit.rank,
            host: SimTime(self.asked.host),
            stream: Stream(self.asked.stream),
            tensor: Tensor(self.tensor),
            frees: self.frees,
        });
    }

    /// Shows the step at the moment of the curve, and says when its stream got there.
    #[inline]
    pub(crate) fn emit<O: Observer>(&self, (at, reached): (u64, u64), emit: &mut Emitter<'_, O>) {
        if O::ACTIVE {
            emit.observer.memory(&MemoryRecord {
                rank: emit.rank,
                at: SimTime(at),
                host: SimTime(self.asked.host),
                stream: Stream(self.asked.stream),
                reached: SimTime(reached),
                category: Category(self.category),
                delta: self.delta,
                tensor: Tensor(self.tensor),
                total: self.total,
            });
        }
    }
}

/// Who asks the ledger.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) host: u64,
    pub(crate) stream: u8,
}

impl Ledger {
    pub(crate) fn new(capacity: Option<u64>) -> Self {
        Self { capacity, ..Self::default() }
    }

    #[inline]
    pub(crate) fn allocate(&mut self, tensor: u32, spec: &TensorSpec, asked: Asked) -> Step {
        let category = spec.category.0;
        // Programs are checked so that no sum of tensors overflows.
        self.held[usize::from(category) % CATEGORIES] += spec.bytes;
        self.total += spec.bytes;
        let sets_peak = self.total > self.peak;
        if sets_peak {
            self.peak = self.total;
            self.peak_by_category = self.held;
        }
        let short_by = self.total.saturating_sub(self.capacity.unwrap_or(u64::MAX));
        let fails = short_by > 0 && self.failure.is_none();
        if fails {
            self.failure = Some(Failure { at: 0, tensor, short_by });
        }
        let delta = spec.bytes.cast_signed();
        let marks = Marks { sets_peak, fails };
        Step { asked, tensor, category, frees: false, delta, total: self.total, marks }
    }

    #[inline]
    pub(crate) fn free(&mut self, tensor: u32, spec: &TensorSpec, asked: Asked) -> Step {
        let category = spec.category.0;
        self.held[usize::from(category) % CATEGORIES] -= spec.bytes;
        self.total -= spec.bytes;
        let delta = -spec.bytes.cast_signed();
        Step { asked, tensor, category, frees: true, delta, total: self.total, marks: Marks::default() }
    }

    /// The moment of a step becomes known; called in program order.
    #[inline]
    pub(crate) fn stamp(&mut self, marks: Marks, at: u64) {
        if marks.sets_peak {
            self.peak_at = at;
        }
        if let Some(failure) = self.failure.as_mut().filter(|_| marks.fails) {
            failure.at = at;
        }
    }

    /// Visits what it holds and the most it held; that a stamp is old makes no difference.
    pub(crate) fn look(&mut self, look: &mut impl Look) {
        let Self { held, total, peak, peak_at, peak_by_category, capacity: _, failure } = self;
        held.iter().chain(&*peak_by_category).for_each(|bytes| look.fact(*bytes));
        look.fact(*total);
        look.fact(*peak);
        look.time(peak_at);
        look.fact(u64::from(failure.is_some()));
        if let Some(Failure { at, tensor, short_by: _ }) = failure {
            look.fact(u64::from(*tensor));
            look.time(at);
        }
    }

    pub(crate) fn outcome(&self, program: &Program) -> MemoryOutcome {
        let failure = self.failure.and_then(|Failure { at, tensor, short_by }| {
            let spec = program.tensor_spec(Tensor(tensor))?;
            Some(MemoryFailure {
                at: SimTime(at),
                tensor: Tensor(tensor),
                label: program.label(spec.label).to_owned(),
                category: spec.category,
                requested: spec.bytes,
                short_by,
            })
        });
        MemoryOutcome {
            peak: self.peak,
            peak_at: SimTime(self.peak_at),
            peak_by_category: self.peak_by_category,
            end_by_category: self.held,
            capacity: self.capacity,
            failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::Seen;
    use crate::program::{Label, ProgramBuilder};

    fn spec(bytes: u64, category: u8) -> TensorSpec {
        TensorSpec { bytes, category: Category(category), label: Label(0) }
    }

    #[test]
    fn ledgers_that_differ_look_different() {
        let show = |change: &dyn Fn(&mut Ledger)| {
            let mut ledger = Ledger::new(Some(25));
            let step = ledger.allocate(3, &spec(20, 0), Asked::default());
            ledger.stamp(step.marks, 5);
            change(&mut ledger);
            Seen::of(|it| ledger.look(it))
        };
        let fails =
            |tensor, at| move |it: &mut Ledger| it.failure = Some(Failure { at, tensor, short_by: 1 });
        Seen::all_differ(&[
            show(&|_| {}),
            show(&|it| it.held = [10; CATEGORIES]),
            show(&|it| it.total = 10),
            show(&|it| it.peak = 30),
            show(&|it| it.peak_at = 6),
            show(&|it| it.peak_by_category = [10; CATEGORIES]),
            show(&fails(3, 4)),
            show(&fails(4, 4)),
            show(&fails(3, 5)),
        ]);
    }

    #[test]
    fn the_peak_is_the_first_of_equals_and_the_failure_the_first_of_all() {
        let mut ledger = Ledger::new(Some(25));
        let (a, b) = (spec(20, 0), spec(10, 3));
        for (at, step) in [(1, true), (2, true), (3, false), (4, true)] {
            let step = match (at, step) {
                (1, _) => ledger.allocate(0, &a, Asked::default()),
                (_, true) => ledger.allocate(1, &b, Asked::default()),
                (_, false) => ledger.free(1, &b, Asked::default()),
            };
            ledger.stamp(step.marks, at);
        }
        let mut p = ProgramBuilder::new("p");
        let label = p.label("activation");
        p.tensor(20, Category(0), label);
        p.tensor(10, Category(3), label);
        let outcome = ledger.outcome(&p.build().unwrap());
        assert_eq!((outcome.peak, outcome.peak_at), (30, SimTime(2)));
        assert_eq!((outcome.peak_by_category[0], outcome.peak_by_category[3]), (20, 10));
        let failure = outcome.failure.unwrap();
        assert_eq!(
            (failure.at, failure.tensor, failure.requested, failure.short_by),
            (SimTime(2), Tensor(1), 10, 5)
        );
        assert_eq!(failure.label, "activation");
    }
}
