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

#[cfg(test)]
impl Seen {
    /// What is shown.
    pub(crate) fn of(show: impl FnOnce(&mut Self)) -> Self {
        let mut seen = Self::default();
        show(&mut seen);
        seen
    }

    /// Whether no number differs.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (&self.facts, &self.times, &self.clocks) == (&other.facts, &other.times, &other.clocks)
    }

    /// No two of them may be taken for each other, not even for later or earlier ones.
    pub(crate) fn all_differ(states: &[Self]) {
        for (at, a) in states.iter().enumerate() {
            for (other, b) in states.iter().enumerate().skip(at + 1) {
                assert!(!a.is_same(b), "{at} and {other}: {a:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state of these facts, clocks and other times, in this order.
    fn seen(facts: &[u64], clocks: &[u64], times: &[u64]) -> Seen {
        Seen::of(|it| {
            for fact in facts {
                it.fact(*fact);
            }
            clocks.iter().copied().for_each(|mut clock| it.clock(&mut clock));
            times.iter().copied().for_each(|mut time| it.time(&mut time));
        })
    }

    #[test]
    fn a_moment_that_is_not_known_is_no_time() {
        let show = |mut time: u64| Seen::of(|it| it.known_time(&mut time, 9));
        assert!(show(9).is_same(&seen(&[1], &[], &[])));
        assert!(show(8).is_same(&seen(&[0], &[], &[8])));
    }

    #[test]
    fn a_rank_is_later_if_all_that_moved_did_by_the_same_and_the_rest_is_past() {
        let before = seen(&[7], &[100, 90], &[50, 89, 90]);
        let later =
            |facts: &[u64], clocks: &[u64], times: &[u64]| before.is_later(&seen(facts, clocks, times), 10);
        assert!(later(&[7], &[110, 100], &[60, 99, 100]));
        // What is before both clocks may stay.
        assert!(later(&[7], &[110, 100], &[50, 89, 100]));
        assert!(!later(&[7], &[110, 100], &[60, 99, 90]));
        // Only clocks that move count: with the second where it was, what is before the first may stay.
        assert!(later(&[7], &[110, 90], &[60, 99, 90]));
        assert!(!seen(&[], &[100, 100], &[]).is_later(&seen(&[], &[110, 100], &[]), 10));
        // Where none moves nothing does.
        assert!(later(&[7], &[100, 90], &[50, 89, 90]));
        assert!(!later(&[7], &[100, 90], &[60, 89, 90]));
        // A stream that did nothing for long.
        let idle = seen(&[], &[100, 20], &[20]);
        assert!(idle.is_later(&seen(&[], &[110, 20], &[20]), 10));
        // By another time, with another fact, with more or fewer times.
        assert!(!later(&[7], &[110, 100], &[60, 99, 101]));
        assert!(!later(&[7], &[111, 100], &[60, 99, 100]));
        assert!(!later(&[8], &[110, 100], &[60, 99, 100]));
        assert!(!later(&[7], &[110, 100], &[60, 99, 100, 5]));
        assert!(!later(&[7], &[110, 100], &[60, 99]));
        // Past the end of time.
        assert!(!seen(&[], &[u64::MAX], &[]).is_later(&seen(&[], &[9], &[]), 10));
    }

    #[test]
    fn what_is_shared_is_later_in_whole_or_in_parts() {
        let before = seen(&[7], &[], &[50, 60]);
        let now = |fact, a, b| seen(&[fact], &[], &[a, b]);
        let is = |now: &Seen| (before.is_later_in_whole(now, 10), before.is_later_in_parts(now, 10));
        assert_eq!(is(&now(7, 60, 70)), (true, true));
        assert_eq!(is(&now(7, 50, 70)), (false, true));
        assert_eq!(is(&now(7, 50, 60)), (false, true));
        assert_eq!(is(&now(7, 60, 71)), (false, false));
        assert_eq!(is(&now(8, 60, 70)), (false, false));
        assert_eq!(is(&now(8, 50, 60)), (false, false));
    }

    #[test]
    fn what_moved_moves_on_and_the_latest_is_told() {
        let (before, now) = (seen(&[7], &[100], &[50, 60]), seen(&[7], &[110], &[50, 70]));
        let mut mover = before.mover(&now, 1000);
        let mut times = [110, 50, 70, 3];
        mover.fact(7);
        let [clock, rest @ ..] = &mut times;
        mover.clock(clock);
        for time in rest {
            mover.time(time);
        }
        assert_eq!(times, [1110, 50, 1070, 3]);
        assert_eq!((now.latest(), seen(&[7], &[], &[]).latest()), (110, 0));
    }
}
