//! The free blocks of a pool, ordered by size and then address, and found by best fit.
//!
//! A tree would do; blocks of like size in one short sorted list are faster, and after a while nothing is
//! allocated any more.

use super::config::MIN_BLOCK;

/// A free block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) size: u64,
    pub(super) address: u64,
    pub(super) block: u32,
}

impl Entry {
    /// What entries are ordered by, as one number.
    #[inline]
    fn order(&self) -> u128 {
        order(self.size, self.address)
    }
}

/// Sizes and then addresses as one number.
#[inline]
fn order(size: u64, address: u64) -> u128 {
    u128::from(size) << 64 | u128::from(address)
}

/// No entry.
const NONE: Entry = Entry { size: 0, address: 0, block: u32::MAX };

/// Blocks that came last and are in no bin.
const RECENT: usize = 4;

/// Free blocks in bins, four for each power of two of the size in units of 512 bytes, but for the last ones that came, which
/// are those that are most often wanted next: what is split off a block and joins it again.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    bins: Vec<Vec<Entry>>,
    /// A bit for each bin that is not empty.
    occupied: [u64; 4],
    /// In no bin and no order; or `NONE`.
    recent: [Entry; RECENT],
    /// Which of them is the next to go to its bin.
    oldest: usize,
}

impl Default for Cache {
    fn default() -> Self {
        Self { bins: Vec::new(), occupied: [0; 4], recent: [NONE; RECENT], oldest: 0 }
    }
}

/// The bin of a size: it never falls as the size grows, and stays below 256.
#[inline]
fn bin(size: u64) -> usize {
    let units = (size / MIN_BLOCK).max(1);
    let power = units.ilog2() as usize;
    if power < 2 { units as usize } else { (power - 1) * 4 + ((units >> (power - 2)) & 3) as usize }
}

/// Entries up to which a list is looked through one by one, and moved so: most are that short.
const SHORT: usize = 16;

/// Where the first entry at or after a size and address is, or would be.
#[inline]
fn place(entries: &[Entry], key: u128) -> usize {
    if entries.len() <= SHORT {
        return entries.iter().position(|entry| entry.order() >= key).unwrap_or(entries.len());
    }
    entries.partition_point(|entry| entry.order() < key)
}

impl Cache {
    #[inline]
    pub(super) fn insert(&mut self, entry: Entry) {
        if let Some(free) = self.recent.iter_mut().find(|it| it.size == 0) {
            *free = entry;
            return;
        }
        let before = std::mem::replace(&mut self.recent[self.oldest % RECENT], entry);
        self.oldest = (self.oldest + 1) % RECENT;
        self.put(before);
    }

    fn put(&mut self, entry: Entry) {
        let bin = bin(entry.size);
        if bin >= self.bins.len() {
            self.bins.resize_with(bin + 1, Vec::new);
        }
        let entries = &mut self.bins[bin];
        self.occupied[bin / 64] |= 1 << (bin % 64);
        let key = entry.order();
        if entries.len() > SHORT {
            entries.insert(place(entries, key), entry);
            return;
        }
        entries.push(entry);
        let mut place = entries.len() - 1;
        while place > 0 && entries[place - 1].order() > key {
            entries[place] = entries[place - 1];
            place -= 1;
        }
        entries[place] = entry;
    }

    /// Removes the block with this size and address.
    #[inline]
    pub(super) fn remove(&mut self, size: u64, address: u64) {
        if let Some(recent) = self.recent.iter_mut().find(|it| it.address == address && it.size == size) {
            *recent = NONE;
            return;
        }
        let bin = bin(size);
        let Some(entries) = self.bins.get(bin) else { return };
        let place = place(entries, order(size, address));
        debug_assert!(entries.get(place).is_some_and(|e| (e.size, e.address) == (size, address)));
        if place < entries.len() {
            self.take_from(bin, place);
        }
    }

    fn take_from(&mut self, bin: usize, place: usize) {
        let entries = &mut self.bins[bin];
        if entries.len() - place > SHORT {
            entries.remove(place);
            return;
        }
        for at in place + 1..entries.len() {
            entries[at - 1] = entries[at];
        }
        entries.pop();
        if entries.is_empty() {
            self.occupied[bin / 64] &= !(1 << (bin % 64));
        }
    }

    /// Takes the smallest block of at least a size, of equals the one with the lowest address, if that one `serves` by its
    /// size.
    #[inline]
    pub(super) fn take_best(&mut self, size: u64, serves: impl FnOnce(u64) -> bool) -> Option<Entry> {
        let key = order(size, 0);
        let (recent, least) = self.first_recent(key);
        if let Some((bin, place)) = self.place_in_bins(size, key) {
            let entry = self.bins[bin][place];
            if entry.order() < least {
                return serves(entry.size).then(|| {
                    self.take_from(bin, place);
                    entry
                });
            }
        }
        let entry = self.recent.get_mut(recent).filter(|entry| serves(entry.size))?;
        Some(std::mem::replace(entry, NONE))
    }

    /// The first block at or after a size and address.
    pub(super) fn at_or_after(&self, size: u64, address: u64) -> Option<Entry> {
        let key = order(size, address);
        let in_bins = self.place_in_bins(size, key).map(|(bin, place)| self.bins[bin][place]);
        let recent = self.recent.get(self.first_recent(key).0).copied();
        in_bins.into_iter().chain(recent).min()
    }

    /// The first of those that came last at or behind a key, of which there may be none: its place and its own key.
    #[inline]
    fn first_recent(&self, key: u128) -> (usize, u128) {
        // Where none is, the size is less than that of any key.
        let (mut first, mut least) = (RECENT, u128::MAX);
        for (place, entry) in self.recent.iter().enumerate() {
            let own = entry.order();
            if own >= key && own < least {
                (first, least) = (place, own);
            }
        }
        (first, least)
    }

    /// The first in a bin at or behind a key, which has the given size.
    #[inline]
    fn place_in_bins(&self, size: u64, key: u128) -> Option<(usize, usize)> {
        let bin = bin(size);
        let entries = self.bins.get(bin)?;
        let place = place(entries, key);
        if place < entries.len() {
            return Some((bin, place));
        }
        Some((self.occupied_from(bin + 1)?, 0))
    }

    /// The largest block; of equals the one with the highest address.
    pub(super) fn largest(&self) -> Option<Entry> {
        let in_bins = self.bins.iter().rev().find_map(|entries| entries.last()).copied();
        in_bins.into_iter().chain(self.came_last()).max()
    }

    /// All blocks in order.
    pub(super) fn sorted(&self) -> Vec<Entry> {
        let mut all: Vec<Entry> = self.bins.iter().flatten().copied().chain(self.came_last()).collect();
        all.sort_unstable();
        all
    }

    fn came_last(&self) -> impl Iterator<Item = Entry> + '_ {
        self.recent.iter().filter(|entry| entry.size > 0).copied()
    }

    /// The first bin from `bin` on that is not empty.
    #[inline]
    fn occupied_from(&self, bin: usize) -> Option<usize> {
        let mut word = bin / 64;
        let mut bits = self.occupied.get(word)? & (u64::MAX << (bin % 64));
        while bits == 0 {
            word += 1;
            bits = *self.occupied.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Quarters of powers of two, as far as 512 bytes are a quarter; below, every multiple of 512 has its own.
    #[test]
    fn each_power_of_two_has_four_bins() {
        let units =
            [1, 2, 3].into_iter().chain((0..40).flat_map(|power| (4..8).map(move |part| part << power)));
        let bins: Vec<usize> = units.clone().map(|units: u64| bin(units * MIN_BLOCK)).collect();
        let inside: Vec<usize> = units.map(|units: u64| bin(units * MIN_BLOCK + 1)).collect();
        assert_eq!(bins, (1..=bins.len()).collect::<Vec<_>>());
        assert_eq!(bins, inside, "a bin begins at the quarter");
        assert!(bins.last().is_some_and(|bin| *bin < 256));
    }

    proptest! {
        #[test]
        fn finds_what_an_ordered_set_finds(
            steps in prop::collection::vec((1_u64..200_000, 0_u64..8, any::<bool>()), 1..200),
        ) {
            let (mut cache, mut set) = (Cache::default(), BTreeSet::new());
            for (units, address, wants) in steps {
                let size = units * MIN_BLOCK;
                if wants {
                    let found = set.range((size, address)..).next().copied();
                    prop_assert_eq!(cache.at_or_after(size, address).map(|e| (e.size, e.address)), found);
                    if let Some(found) = found {
                        cache.remove(found.0, found.1);
                        set.remove(&found);
                    }
                } else if set.insert((size, address)) {
                    cache.insert(Entry { size, address, block: 0 });
                }
                prop_assert_eq!(cache.largest().map(|e| (e.size, e.address)), set.last().copied());
            }
            let all: Vec<_> = cache.sorted().iter().map(|e| (e.size, e.address)).collect();
            prop_assert_eq!(all, set.into_iter().collect::<Vec<_>>());
        }
    }
}
