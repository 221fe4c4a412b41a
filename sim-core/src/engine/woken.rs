//! The streams that resolved meetings let go on.

use super::meetings::Wake;

/// Ranks of a part: what the engine keeps of two parts fits into the nearer caches of a core.
const PART: u32 = 32;
/// Most parts, a bit of a word for each.
const PARTS: u32 = u64::BITS;

/// A list of streams to resume, so that a chain of meetings takes no stack.
///
/// Ranks that meet are mostly near each other, and a rank seldom gets far ahead of those it meets. The ranks are divided
/// into parts; those of two adjacent ones are resumed, last in, first out, until none is left there, and then those of the
/// later of the two and the next. So thousands of ranks that pass messages around do dozens of steps each for every time
/// that their states come from memory, also at the border of two parts. The order never shows in a result.
#[derive(Debug)]
pub(super) struct Woken {
    /// Ranks of a part are two to the power of this.
    power: u32,
    /// By part.
    wakes: Vec<Vec<Wake>>,
    /// A bit for each part that has any.
    waiting: u64,
    /// The first of the two parts at hand, and bits for both.
    at: u32,
    near: u64,
}

impl Woken {
    pub(super) fn new(ranks: u32) -> Self {
        let power = ranks.div_ceil(PARTS).max(PART).next_power_of_two().ilog2();
        let parts = ranks.div_ceil(1 << power).max(1);
        let mut woken = Self { power, wakes: Vec::new(), waiting: 0, at: 0, near: 0 };
        woken.wakes.resize_with(parts as usize, Vec::new);
        woken.turn_to(0);
        woken
    }

    #[inline]
    pub(super) fn push(&mut self, wake: Wake) {
        let part = wake.rank >> self.power;
        self.wakes[part as usize].push(wake);
        self.waiting |= 1 << part;
    }

    /// The last of the parts at hand.
    #[inline]
    pub(super) fn pop_near(&mut self) -> Option<Wake> {
        let near = self.waiting & self.near;
        if near == 0 {
            return None;
        }
        let part = near.trailing_zeros();
        let wakes = &mut self.wakes[part as usize];
        let wake = wakes.pop();
        if wakes.is_empty() {
            self.waiting &= !(1 << part);
        }
        wake
    }

    /// The last of the parts at hand, or else of the next that have any.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Wake> {
        loop {
            if let Some(wake) = self.pop_near() {
                return Some(wake);
            }
            if self.waiting == 0 {
                return None;
            }
            self.turn_to(self.after(self.at));
        }
    }

    /// The part of a rank is at hand, and the one before.
    pub(super) fn go_to(&mut self, rank: u32) {
        self.turn_to((rank >> self.power).saturating_sub(1));
    }

    /// All of them, in no order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Wake> {
        self.wakes.iter_mut().flatten()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    fn after(&self, part: u32) -> u32 {
        if part + 1 == self.wakes.len() as u32 { 0 } else { part + 1 }
    }

    fn turn_to(&mut self, part: u32) {
        (self.at, self.near) = (part, 1 << part | 1 << self.after(part));
    }
}

#[cfg(test)]
mod tests {
    use super::super::meetings::Met;
    use super::*;

    fn woken(ranks: u32, waking: &[u32]) -> Woken {
        let mut woken = Woken::new(ranks);
        let when = Met { met: 0, end: 0 };
        for &rank in waking {
            woken.push(Wake { rank, stream: 0, when });
        }
        woken
    }

    fn order(woken: &mut Woken) -> Vec<u32> {
        std::iter::from_fn(|| woken.pop()).map(|wake| wake.rank).collect()
    }

    #[test]
    fn a_part_and_the_next_come_before_the_others() {
        let [a, b, c, d] = [0, 1, 2, 3].map(|part| part * PART);
        let mut list = woken(4 * PART, &[d, c, a, a + 1, b]);
        assert!(!list.is_empty());
        assert_eq!(order(&mut list), [a + 1, a, b, c, d]);
        assert!(list.is_empty());
        // The last part and the first are next to each other.
        list.go_to(d + PART - 1);
        list.push(Wake { rank: a, stream: 0, when: Met { met: 0, end: 0 } });
        assert!(list.pop_near().is_none());
        assert_eq!(order(&mut list), [a]);
    }

    #[test]
    fn any_number_of_ranks_has_parts() {
        for ranks in [0, 1, PART, PART + 1, PART * PARTS, PART * PARTS + 1, 1_000_000] {
            let last = ranks.max(1) - 1;
            let list = woken(ranks, &[last, 0]);
            assert!(list.wakes.len() <= PARTS as usize, "{ranks} ranks");
            assert_eq!(order(&mut { list }).len(), 2);
        }
    }
}
