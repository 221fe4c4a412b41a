//! Stretches: a program in pieces of which it is known which are alike, so that what is true of one is found once.

use super::{Part, ProgramBuilder};

/// A copy of a passage where records are not shared: it differs from other copies in the numbers of what it touches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copied {
    /// Its records.
    pub(super) part: Part,
    /// Number of the passage.
    pub(super) passage: u32,
    /// The first tensor that it makes.
    pub(super) tensor: u32,
}

/// Some records in a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    /// Number of the part, from 0.
    pub(super) number: u32,
    pub(super) part: Part,
    /// What has the same number does the same, but for the numbers of what it touches; none where nothing else does.
    pub(super) alike: Option<u32>,
    /// The first tensor that it makes.
    pub(super) tensor: u32,
}

/// Numbers of different parts.
#[derive(Debug, Default)]
pub(crate) struct Numbered {
    /// By first record: the number plus one.
    by_first: Vec<u32>,
    parts: Vec<Part>,
}

impl Numbered {
    /// The number of a part, the same for the same part. A new one has the next number.
    pub(crate) fn number(&mut self, part: Part) -> usize {
        let first = part.first as usize;
        if self.by_first.len() <= first {
            self.by_first.resize(first + 1, 0);
        }
        let known = self.by_first[first] as usize;
        if known > 0 && self.parts[known - 1] == part {
            return known - 1;
        }
        self.parts.push(part);
        self.by_first[first] = self.parts.len() as u32;
        self.parts.len() - 1
    }
}

impl ProgramBuilder {
    /// The whole program in stretches, in order.
    pub(super) fn stretches(&self) -> Vec<Stretch> {
        let parts = &self.inner.parts;
        let mut stretches = Vec::with_capacity(parts.len() + 2 * self.copies.len());
        let mut numbered = Numbered::default();
        let mut copies = self.copies.iter().peekable();
        for (number, &part) in (0..).zip(parts) {
            if self.only_times {
                let alike = Some(numbered.number(part) as u32);
                stretches.push(Stretch { number, part, alike, tensor: 0 });
                continue;
            }
            let mut first = part.first;
            let between = |first, end| Stretch { number, part: Part { first, end }, alike: None, tensor: 0 };
            while let Some(copy) = copies.next_if(|it| it.part.end <= part.end) {
                if copy.part.len() == 0 {
                    continue;
                }
                if first < copy.part.first {
                    stretches.push(between(first, copy.part.first));
                }
                let Copied { part, passage, tensor } = *copy;
                stretches.push(Stretch { number, part, alike: Some(passage), tensor });
                first = part.end;
            }
            if first < part.end {
                stretches.push(between(first, part.end));
            }
        }
        stretches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_part_has_the_same_number_and_no_other() {
        let mut numbered = Numbered::default();
        let parts = [(3, 5), (0, 3), (3, 5), (0, 2), (0, 2), (5, 6), (3, 4)];
        let numbers = parts.map(|(first, end)| numbered.number(Part { first, end }));
        assert_eq!(numbers, [0, 1, 0, 2, 2, 3, 4]);
    }
}
