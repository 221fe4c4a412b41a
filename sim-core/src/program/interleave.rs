//! Two stretches of a program that give way to each other.
//!
//! A rank with two things to do writes one after the other and says where each could wait, for a transfer say. The
//! stretches are then dealt out in turns, a piece of the first, a piece of the second, until one of them is used up: what
//! one waits for passes beside the work of the other. Each keeps its own order, so whatever it makes, waits for and frees
//! stays right.

use super::parts::without_numbers;
use super::passage::Place;
use super::{Kind, ProgramBuilder, Record};

/// Where a stretch begins, where it can give way, and where it ends.
pub type Borders = Vec<Place>;

impl ProgramBuilder {
    /// Deals out pairs of neighbouring stretches in turns; the first of each pair ends where the second begins, and pairs
    /// stand in the order of the program. To be called when everything is written: places and passages from before mean
    /// nothing afterwards.
    pub fn interleave(&mut self, pairs: &[[Borders; 2]]) {
        if pairs.is_empty() {
            return;
        }
        self.cut();
        let records = self.records();
        let mut order: Vec<u32> = Vec::with_capacity(records);
        let mut written = 0;
        for [first, second] in pairs {
            let begin = first.first().map_or(written, |place| place.record());
            order.extend(written as u32..begin as u32);
            let turns = first.len().max(second.len()).saturating_sub(1);
            for turn in 0..turns {
                for borders in [first, second] {
                    if let [from, to] = borders.get(turn..turn + 2).unwrap_or_default() {
                        order.extend(from.record() as u32..to.record() as u32);
                    }
                }
            }
            written = second.last().map_or(begin, |place| place.record());
        }
        order.extend(written as u32..records as u32);
        self.reorder(&order);
    }

    /// The same records in another order; events are counted anew in the order in which they are recorded.
    fn reorder(&mut self, order: &[u32]) {
        let old = self.inner.in_full();
        let mut events = vec![u32::MAX; self.inner.waits.len()];
        let mut recorded = 0;
        let mut places = vec![0_usize; order.len()];
        for (place, &at) in order.iter().enumerate() {
            places[at as usize] = place;
            let record = old[at as usize];
            if record.kind == Kind::Record {
                events[record.index as usize] = recorded;
                recorded += 1;
            }
        }
        let moved = |&at: &u32| {
            let record = old[at as usize];
            if record.is_of_event() {
                let event = events.get(record.index as usize).copied();
                Record { index: event.unwrap_or(u32::MAX), ..record }
            } else {
                record
            }
        };
        let mut records: Vec<Record> = order.iter().map(moved).collect();
        without_numbers(&mut records);
        self.replace(&records);
        for (at, _) in &mut self.inner.notes {
            *at = places.get(*at).copied().unwrap_or(*at);
        }
        self.inner.notes.sort_by_key(|(at, _)| *at);
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::simulate;
    use crate::observer::NoObserver;
    use crate::program::{Class, Kind, ProgramBuilder};
    use crate::time::SimTime;
    use crate::world::{RankSpec, WorldBuilder};

    const WORK: Class = Class(1);
    const SEND: Class = Class(2);

    /// Two stretches of so many pieces: a kernel of 10 and then a transfer of 10, for which the next piece waits. They are
    /// written as they come, or given in turns. Returns the end.
    fn end(pieces: [usize; 2], in_turns: bool) -> u64 {
        let mut b = ProgramBuilder::new("p");
        let (compute, sends) = (b.stream("compute"), b.stream("sends"));
        let (channel, label) = (b.channel("all"), b.label("x"));
        let time = SimTime::from_picos(10);
        let stretch = |b: &mut ProgramBuilder, pieces: usize| {
            let mut borders = vec![b.place()];
            for _ in 0..pieces {
                b.kernel(compute, WORK, label, time, SimTime::ZERO);
                b.limited_by_memory();
                let computed = b.record(compute);
                b.wait(sends, computed);
                b.rendezvous(sends, channel, SEND, SEND, label, time, 0);
                let arrived = b.record(sends);
                borders.push(b.place());
                b.wait(compute, arrived);
            }
            borders.push(b.place());
            borders
        };
        let mut first = stretch(&mut b, pieces[0]);
        let second = stretch(&mut b, pieces[1]);
        if let Some(last) = first.last_mut() {
            *last = second[0];
        }
        if in_turns {
            b.interleave(&[[first, second]]);
        }
        // After both.
        b.kernel(compute, WORK, label, time, SimTime::ZERO);
        let program = b.build().expect("legal");
        // All but the last.
        let by_memory: Vec<bool> = program
            .in_order()
            .filter(|it| it.kind == Kind::Kernel)
            .map(|it| it.is_limited_by_memory())
            .collect();
        assert_eq!(by_memory, [vec![true; pieces[0] + pieces[1]], vec![false]].concat());
        let mut world = WorldBuilder::new();
        let program = world.program(program);
        let group = world.group(1, Vec::new());
        world.rank(RankSpec { program, groups: vec![group], ..RankSpec::default() });
        simulate(&world.build().expect("a world"), &mut NoObserver).expect("no deadlock").end.picos()
    }

    #[test]
    fn transfers_of_one_stretch_run_beside_the_work_of_the_other() {
        // Alone each piece takes 20. In turns, kernels follow each other without a gap, and the last transfer is waited for.
        assert_eq!(end([3, 3], false), 6 * 20 + 10);
        assert_eq!(end([3, 3], true), 6 * 10 + 10 + 10);
        // What is left of the longer one has nothing beside it: of its three transfers, the first has one kernel of the other
        // before it, and all are waited for.
        assert_eq!(end([1, 3], true), 10 + 3 * 20 + 10);
        assert_eq!(end([0, 2], true), end([0, 2], false));
    }
}
