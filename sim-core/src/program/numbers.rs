//! Which entries of a list are there already: their numbers by their hashes. The entries themselves stay in their list.

/// Numbers of entries. They are looked up and never walked, so that no order can show.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// Numbers plus one, each at the place of its entry's hash or at one of the next; 0 where there is none. There is a power
    /// of two of places, and a quarter of them at least is free.
    places: Vec<u32>,
    count: usize,
}

impl Numbers {
    /// The number of an entry of this hash that is the `same`.
    #[inline]
    pub(super) fn find(&self, hash: u64, same: impl Fn(usize) -> bool) -> Option<u32> {
        let last = self.places.len().checked_sub(1)?;
        let mut place = hash as usize & last;
        while self.places[place] > 0 {
            let number = self.places[place] - 1;
            if same(number as usize) {
                return Some(number);
            }
            place = (place + 1) & last;
        }
        None
    }

    /// Adds the number of an entry that is not there; `hash` is that of an entry by its number.
    pub(super) fn add(&mut self, number: u32, hash: impl Fn(usize) -> u64) {
        self.count += 1;
        if self.count * 4 > self.places.len() * 3 {
            let old = std::mem::take(&mut self.places);
            self.places = vec![0; (2 * old.len()).max(64)];
            for known in old.into_iter().filter(|known| *known > 0) {
                self.set(hash(known as usize - 1), known);
            }
        }
        self.set(hash(number as usize), number + 1);
    }

    fn set(&mut self, hash: u64, known: u32) {
        let last = self.places.len() - 1;
        let mut place = hash as usize & last;
        while self.places[place] > 0 {
            place = (place + 1) & last;
        }
        self.places[place] = known;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_one_hash_are_told_apart_and_all_are_found_when_there_are_many() {
        let list: Vec<u64> = (0..1000).map(|it| it * 7).collect();
        // Seven entries have each hash.
        let hash = |number: usize| (number / 7) as u64;
        let mut numbers = Numbers::default();
        for number in 0..list.len() {
            assert_eq!(numbers.find(hash(number), |it| list[it] == list[number]), None);
            numbers.add(number as u32, hash);
        }
        for number in 0..list.len() {
            assert_eq!(numbers.find(hash(number), |it| list[it] == list[number]), Some(number as u32));
        }
        assert_eq!(numbers.find(hash(3), |it| list[it] == 1), None);
    }
}
