//! What a simulation returns.

use crate::program::{CATEGORIES, CLASSES, Category, Class, Tensor};
use crate::time::SimTime;

/// When everything ended and what every rank did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The end of the last rank.
    pub end: SimTime,
    /// One entry per rank of the world, in its order.
    pub ranks: Vec<RankOutcome>,
    /// Events that went through the event queue; a matter of the player, not of the result.
    pub events: u64,
    /// Program records played, over all ranks.
    pub operations: u64,
}

/// What one rank did.
///
/// For every rank the busy time of the primary stream and the idle time add up to [`Outcome::end`] exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankOutcome {
    /// When its host and all its streams had finished.
    pub end: SimTime,
    /// When its host had executed its last record.
    pub host_end: SimTime,
    /// How many identical ranks this one stands for, as the world was told.
    pub multiplicity: u32,
    /// One entry per stream of its program.
    pub streams: Vec<StreamOutcome>,
    /// Idle time of the primary stream by cause: the class of the work that an event waited for, of the
    /// waiting inside that work, of the host's work, or the world's host and tail classes.
    pub idle: [SimTime; CLASSES],
    /// Time that the host worked, by class; issuing counts in the world's host class.
    pub host_busy: [SimTime; CLASSES],
    /// What it held.
    pub memory: MemoryOutcome,
}

/// What one stream did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOutcome {
    /// Busy time by class; a rendezvous counts from its own arrival, first as waiting, then as transfer.
    pub busy: [SimTime; CLASSES],
    /// When it had finished all that was issued to it.
    pub end: SimTime,
}

/// What one rank held, in bytes. The ledger follows program order, as a host-side allocator does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryOutcome {
    /// The most bytes held at once.
    pub peak: u64,
    /// The moment of the allocation that first reached the peak.
    pub peak_at: SimTime,
    /// Bytes held at the peak, by category.
    pub peak_by_category: [u64; CATEGORIES],
    /// Bytes still held at the end, by category.
    pub end_by_category: [u64; CATEGORIES],
    /// What the rank may hold; `None` is no limit.
    pub capacity: Option<u64>,
    /// The first allocation that exceeded the capacity. The simulation goes on after it.
    pub failure: Option<MemoryFailure>,
}

/// An allocation that did not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryFailure {
    /// Its moment.
    pub at: SimTime,
    /// The tensor.
    pub tensor: Tensor,
    /// The tensor's label in words.
    pub label: String,
    /// The tensor's category.
    pub category: Category,
    /// Bytes asked for.
    pub requested: u64,
    /// Bytes missing: held + requested - capacity.
    pub short_by: u64,
}

impl Outcome {
    /// The outcome of the first ranks alone, as if the world ended with them: what others did later is left out of their
    /// idle time, whose last part is of class `tail`.
    #[must_use]
    pub fn of_first(mut self, ranks: usize, tail: Class) -> Self {
        self.ranks.truncate(ranks);
        let end = self.ranks.iter().map(|rank| rank.end).max().unwrap_or(SimTime::ZERO);
        let after = self.end.0 - end.0;
        for rank in &mut self.ranks {
            let idle = &mut rank.idle[usize::from(tail.0)];
            *idle = SimTime(idle.0.saturating_sub(after));
        }
        self.end = end;
        self
    }
}

impl StreamOutcome {
    /// Busy time over all classes.
    pub fn total_busy(&self) -> SimTime {
        total(&self.busy)
    }
}

impl RankOutcome {
    /// Idle time over all causes.
    pub fn total_idle(&self) -> SimTime {
        total(&self.idle)
    }
}

/// Sum of disjoint intervals; it cannot exceed the end of the simulation.
fn total(by_class: &[SimTime; CLASSES]) -> SimTime {
    SimTime(by_class.iter().map(|time| time.0).sum())
}
