//! Looking at a state of play number by number, to tell whether it is an earlier one, only later.
//!
//! A state visits its numbers in one fixed order: *facts*, which must be the same for what follows to be the same, and
//! *times*, which must all be later by one and the same. Facts that count on and on, as numbers of meetings, are visited as
//! distances from where the counting is.

/// What visits the numbers of a state.
pub(crate) trait Look {
    /// Must be the same.
    fn fact(&mut self, fact: u64);

    /// A moment, or one that was over so long ago that it makes no difference any more.
    fn time(&mut self, time: &mut u64);

    /// A moment before which nothing of its rank happens any more: a clock.
    fn clock(&mut self, clock: &mut u64);

    /// A moment that may not be known yet, which `unknown` stands for.
    fn known_time(&mut self, time: &mut u64, unknown: u64) {
        self.fact(u64::from(*time == unknown));
        if *time != unknown {
            self.time(time);
        }
    }
}

/// The numbers of a state at some moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    facts: Vec<u64>,
    times: Vec<u64>,
    /// Which of the times are clocks.
    clocks: Vec<u32>,
}

impl Look for Seen {
    #[inline]
    fn fact(&mut self, fact: u64) {
        self.facts.push(fact);
    }

    #[inline]
    fn time(&mut self, time: &mut u64) {
        self.times.push(*time);
    }

    fn clock(&mut self, clock: &mut u64) {
        self.clocks.push(self.times.len() as u32);
        self.times.push(*clock);
    }
}

impl Seen {
    /// Whether what is seen `now` is this, and every time is `by` later.
    pub(crate) fn is_later_in_whole(&self, now: &Self, by: u64) -> bool {
        self.facts == now.facts
            && self.times.iter().zip(&now.times).all(|(a, b)| a.checked_add(by) == Some(*b))
    }

    /// The same, but a time may also be the same in both.
    pub(crate) fn is_later_in_parts(&self, now: &Self, by: u64) -> bool {
        let mut pairs = self.times.iter().zip(&now.times);
        self.facts == now.facts && pairs.all(|(a, b)| a == b || a.checked_add(by) == Some(*b))
    }

    /// Whether what is seen `now` of a rank is this `by` later, so that what follows will be the same `by` later.
    ///
    /// A time that is the same in both belongs to what did nothing between them. It may remain where it is if it is before
    /// every clock that moved: later moments are compared with it and added to what is left of it, and they win. Where no
    /// clock moved nothing did.
    pub(crate) fn is_later(&self, now: &Self, by: u64) -> bool {
        if self.facts != now.facts || self.times.len() != now.times.len() {
            return false;
        }
        let moved = |at: &u32| self.times[*at as usize] != now.times[*at as usize];
        let first = self.clocks.iter().filter(|at| moved(at)).map(|at| self.times[*at as usize]).min();
        let mut pairs = self.times.iter().zip(&now.times);
        match first {
            None => pairs.all(|(a, b)| a == b),
            Some(first) => pairs.all(|(a, b)| a.checked_add(by) == Some(*b) || (a == b && *a < first)),
        }
    }

    /// The latest time seen.
    pub(crate) fn latest(&self) -> u64 {
        self.times.iter().copied().max().unwrap_or(0)
    }

    /// Moves those times of a state further `by` as much that moved from this to what is seen `now`, which is what the
    /// state is.
    pub(crate) fn mover<'s>(&'s self, now: &'s Self, by: u64) -> Mover<'s> {
        Mover { before: &self.times, now: &now.times, by }
    }
}

/// Moves the times of a state.
pub(crate) struct Mover<'s> {
    before: &'s [u64],
    now: &'s [u64],
    by: u64,
}

impl Look for Mover<'_> {
    fn fact(&mut self, _: u64) {}

    fn time(&mut self, time: &mut u64) {
        if let ([before, rest @ ..], [now, others @ ..]) = (self.before, self.now) {
            if before != now {
                *time += self.by;
            }
            (self.before, self.now) = (rest, others);
        }
    }

    fn clock(&mut self, clock: &mut u64) {
        self.time(clock);
    }
}
