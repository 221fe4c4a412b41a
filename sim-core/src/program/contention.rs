//! Work and transfers that run at the same time on one rank slow each other down.
//!
//! A transfer occupies a share of what a kernel would use: while both run, the kernel does `1 - a` of its work and the
//! transfer `1 - b` of its own. A transfer of length `T` beside enough kernels therefore puts off what follows them by
//! `a T`, and itself ends `b T` later. So every kernel on the primary stream becomes longer by `a` times the time that it
//! shares with transfers of other streams, and every such transfer by `b` times the time that it shares with kernels.
//! Transfers of several streams add up.
//!
//! Which of them share time is read off a rank that plays its records alone: its partners are there when it is, links
//! carry what the load says, and nothing limits the launches in flight. That is known before the program is played, the
//! same for all ranks that run it, and costs one pass over the records; waiting that only the whole world shows (a
//! straggler, a bubble between a kernel and its transfer) is not seen.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use super::alone::{Alone, Contended, Held, Lengthened};
use super::builder::{Mixer, mix};
use super::{Kind, Part, ProgramBuilder, Record};

/// A millionth, in which shares are given.
const WHOLE: u128 = 1_000_000;

/// What transfers of one channel take from the kernels beside them, and what they lose to them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Rate at which its bytes flow when it is alone, bytes/s.
    pub bandwidth: f64,
    /// Share of its rate that a kernel loses which arithmetic limits, millionths.
    pub arithmetic: u32,
    /// The same of one that memory limits.
    pub memory: u32,
    /// Share of its rate that the transfer loses beside any kernel, millionths.
    pub transfer: u32,
}

impl Load {
    pub(super) fn picos(&self, bytes: u64) -> u64 {
        let picos = bytes as f64 / self.bandwidth * 1e12;
        if picos.is_finite() { picos as u64 } else { 0 }
    }
}

/// Records of a part, from its first on, and what they become longer by.
type Longer = Vec<(u32, u64)>;

/// Parts that have become longer: which, by how much, and the stretches that they are since.
#[derive(Default)]
struct Variants {
    // Looked up, never walked: its order cannot matter.
    by_hash: HashMap<u64, Vec<(Part, Longer, Part)>, BuildHasherDefault<Mixer>>,
}

impl Variants {
    fn of(&mut self, part: Part, longer: &Longer) -> &mut Vec<(Part, Longer, Part)> {
        let begin = u64::from(part.first);
        let mixed = longer.iter().fold(begin, |mixed, &(at, more)| mix(mix(mixed, u64::from(at)), more));
        self.by_hash.entry(mixed).or_default()
    }
}

/// A share of a time, rounded down.
pub(super) fn share(time: u64, millionths: u32) -> u64 {
    // Up to some hours of picoseconds.
    if let Some(product) = time.checked_mul(u64::from(millionths)) {
        return product / WHOLE as u64;
    }
    u64::try_from(u128::from(time) * u128::from(millionths) / WHOLE).unwrap_or(u64::MAX)
}

impl ProgramBuilder {
    /// Lengthens what has been given so far by what kernels of the primary stream and transfers of other streams take
    /// from each other; `loads` are by channel, and transfers of channels without one leave kernels alone. To be called when
    /// everything is written: places and passages from before mean nothing afterwards.
    pub fn contend(&mut self, loads: &[Option<Load>]) {
        if loads.iter().all(Option::is_none) {
            return;
        }
        // Shapes are few.
        let beside = |it: &Record| it.kind == Kind::Rendezvous && it.stream != 0;
        if !self.inner.shapes.iter().any(|it| beside(it) && matches!(loads.get(it.channel()), Some(Some(_))))
        {
            return;
        }
        self.cut();
        let stretches = self.stretches();
        let mut alone = Alone::new(self.inner.kept(), self.inner.streams.len(), loads, &stretches);
        for stretch in &stretches {
            alone.stretch(stretch);
        }
        let Contended { mut longer, closed, of_closed } = alone.contended();
        if self.shares {
            longer.sort_by_key(|it| it.part);
            self.lengthen_parts(&longer);
            self.lengthen_closed_parts(&closed, &of_closed);
            self.close();
        } else {
            // Every record stands once.
            for it in longer {
                self.lengthen(it.record as usize, it.more);
            }
            self.lengthen_closed(&closed, &of_closed);
        }
    }

    /// The same of parts that become longer in the same way wherever they come.
    fn lengthen_closed_parts(&mut self, closed: &[Held], of_closed: &[Vec<(u32, u64)>]) {
        let mut made: Vec<Option<Part>> = vec![None; of_closed.len()];
        for held in closed {
            let longer = &of_closed[held.alike as usize];
            if longer.is_empty() {
                continue;
            }
            let part = self.inner.parts[held.part as usize];
            let known = made[held.alike as usize];
            let made_part = known.unwrap_or_else(|| self.longer(part, longer));
            made[held.alike as usize] = Some(made_part);
            self.inner.parts[held.part as usize] = made_part;
        }
    }

    /// Lengthens copies that become longer in the same way wherever they come.
    fn lengthen_closed(&mut self, closed: &[Held], of_closed: &[Vec<(u32, u64)>]) {
        // By what they are like: the shapes of what becomes longer.
        let mut made: Vec<Option<Vec<u32>>> = vec![None; of_closed.len()];
        for held in closed {
            let longer = &of_closed[held.alike as usize];
            let at = |record: u32| (held.first + record) as usize;
            if let Some(shapes) = &made[held.alike as usize] {
                for (&(record, _), &shape) in longer.iter().zip(shapes) {
                    self.inner.records[at(record)].shape = shape;
                }
                continue;
            }
            for &(record, more) in longer {
                self.lengthen(at(record), more);
            }
            let shapes = longer.iter().map(|&(record, _)| self.inner.records[at(record)].shape);
            made[held.alike as usize] = Some(shapes.collect());
        }
    }

    /// Gives each part in which something becomes longer a stretch of its own, or that of a part that becomes the same.
    fn lengthen_parts(&mut self, all: &[Lengthened]) {
        let (mut variants, mut longer) = (Variants::default(), Longer::new());
        for of_part in all.chunk_by(|one, other| one.part == other.part) {
            let number = of_part[0].part as usize;
            let part = self.inner.parts[number];
            longer.clear();
            longer.extend(of_part.iter().map(|it| (it.record - part.first, it.more)));
            let alike = variants.of(part, &longer);
            let known = alike.iter().find(|(of, by, _)| (*of, by) == (part, &longer)).map(|it| it.2);
            self.inner.parts[number] = known.unwrap_or_else(|| {
                let made = self.longer(part, &longer);
                alike.push((part, longer.clone(), made));
                made
            });
        }
    }

    /// The stretch that a part becomes.
    fn longer(&mut self, part: Part, longer: &Longer) -> Part {
        let copy = self.inner.records.len();
        self.inner.records.extend_from_within(part.range());
        for &(at, more) in longer {
            self.lengthen(copy + at as usize, more);
        }
        self.known.share(&mut self.inner.records, copy)
    }

    fn lengthen(&mut self, at: usize, more: u64) {
        let record = self.inner.kept().at(at);
        let longer = Record { time: record.time.saturating_add(more), ..record };
        self.inner.records[at] = self.shapes.keep(&mut self.inner.shapes, longer);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::program::{Channel, Class, Label, Stream};
    use crate::time::SimTime;

    const CLASS: Class = Class(0);

    /// A quarter of arithmetic, an eighth of memory, half of the transfer; a byte takes a picosecond.
    const LOAD: Load = Load { bandwidth: 1e12, arithmetic: 250_000, memory: 125_000, transfer: 500_000 };

    struct Written {
        builder: ProgramBuilder,
        label: Label,
        streams: [Stream; 3],
        channels: [Channel; 2],
    }

    impl Written {
        fn new() -> Self {
            let mut builder = ProgramBuilder::new("p");
            let label = builder.label("x");
            let streams = ["compute", "one", "two"].map(|name| builder.stream(name));
            let channels = ["one", "two"].map(|name| builder.channel(name));
            Self { builder, label, streams, channels }
        }

        fn kernel(&mut self, picos: u64, by_memory: bool) {
            self.builder.kernel(self.streams[0], CLASS, self.label, SimTime(picos), SimTime(0));
            if by_memory {
                self.builder.limited_by_memory();
            }
        }

        fn transfer(&mut self, which: usize, fixed: u64, bytes: u64) {
            let (stream, channel) = (self.streams[which + 1], self.channels[which]);
            self.builder.rendezvous(stream, channel, CLASS, CLASS, self.label, SimTime(fixed), bytes);
        }

        fn times(&mut self) -> Vec<u64> {
            self.builder.cut();
            let all = self.builder.inner.in_full();
            let long = all.iter();
            long.filter(|it| matches!(it.kind, Kind::Kernel | Kind::Rendezvous)).map(|it| it.time).collect()
        }
    }

    /// The second kernel lies beside the transfer for 60 ps, the third for 20.
    #[test]
    fn kernels_lose_a_share_of_the_time_beside_a_transfer() {
        let mut p = Written::new();
        p.kernel(100, false);
        let done = p.builder.record(p.streams[0]);
        p.builder.wait(p.streams[1], done);
        p.transfer(0, 20, 60);
        p.kernel(60, false);
        p.kernel(100, true);
        p.kernel(100, false);
        p.builder.contend(&[Some(LOAD), None]);
        // 60 / 4; 20 / 8; the transfer itself 80 / 2 beside its fixed 20.
        assert_eq!(p.times(), [100, 20 + 40, 75, 102, 100]);
    }

    #[test]
    fn what_waits_for_each_other_shares_no_time() {
        let mut p = Written::new();
        p.kernel(100, false);
        let computed = p.builder.record(p.streams[0]);
        p.builder.wait(p.streams[1], computed);
        p.transfer(0, 20, 60);
        let arrived = p.builder.record(p.streams[1]);
        p.builder.wait(p.streams[0], arrived);
        p.kernel(60, false);
        p.builder.contend(&[Some(LOAD), None]);
        assert_eq!(p.times(), [100, 20, 60]);
    }

    #[test]
    fn transfers_of_several_streams_add_up_and_others_leave_kernels_alone() {
        let both = |loads: [Option<Load>; 2]| {
            let mut p = Written::new();
            p.transfer(0, 0, 80);
            p.transfer(1, 0, 40);
            p.kernel(100, false);
            p.builder.contend(&loads);
            p.times()
        };
        assert_eq!(both([Some(LOAD), Some(LOAD)]), [40, 20, 100 + 20 + 10]);
        assert_eq!(both([Some(LOAD), None]), [40, 0, 120]);
        assert_eq!(both([None, None]), [0, 0, 100]);
    }

    /// Only the primary stream's kernels share with transfers: one on a third stream neither loses nor takes.
    #[test]
    fn kernels_of_other_streams_are_left_alone() {
        let mut p = Written::new();
        p.transfer(0, 0, 80);
        p.builder.kernel(p.streams[2], CLASS, p.label, SimTime(100), SimTime(0));
        p.builder.contend(&[Some(LOAD), None]);
        assert_eq!(p.times(), [0, 100]);
    }

    /// A hundred seconds of each: a millionth of that in picoseconds is beyond 64 bits before it is divided.
    #[test]
    fn shares_of_long_times_are_as_exact_as_those_of_short_ones() {
        let second = 1_000_000_000_000;
        let mut p = Written::new();
        p.transfer(0, 100 * second, 0);
        p.kernel(60 * second + 3, false);
        p.kernel(u64::MAX / 2, true);
        p.builder.contend(&[Some(LOAD), None]);
        // The second kernel lies beside the transfer for what is left of it: 40 s less 3 ps.
        let memory = (40 * second - 3) / 8;
        assert_eq!(p.times(), [150 * second, 75 * second + 3, u64::MAX / 2 + memory]);
    }

    /// A transfer of bytes at no speed has no end that one could share; it takes its fixed time.
    #[test]
    fn bytes_over_a_path_of_no_bandwidth_take_no_time_here() {
        let mut p = Written::new();
        p.transfer(0, 40, 9);
        p.kernel(100, false);
        p.builder.contend(&[Some(Load { bandwidth: 0.0, ..LOAD }), None]);
        assert_eq!(p.times(), [40 + 20, 100 + 10]);
    }

    proptest! {
        /// Against a picosecond by picosecond count of a kernel stream and a transfer stream that start together.
        #[test]
        fn shared_time_is_what_counting_finds(
            kernels in prop::collection::vec((0_u64..40, any::<bool>()), 0..12),
            transfers in prop::collection::vec(0_u64..60, 0..8),
        ) {
            let mut p = Written::new();
            for &bytes in &transfers {
                p.transfer(0, 0, bytes);
            }
            for &(picos, by_memory) in &kernels {
                p.kernel(picos, by_memory);
            }
            // Whole losses only: a share of one half needs even times to be exact, so count in shares of the whole.
            p.builder.contend(&[Some(Load { arithmetic: 1_000_000, memory: 1_000_000, transfer: 1_000_000, ..LOAD }), None]);
            let owner = |lengths: Vec<u64>| -> Vec<usize> {
                lengths.iter().enumerate().flat_map(|(at, &long)| std::iter::repeat_n(at, long as usize)).collect()
            };
            let (k, t) = (owner(kernels.iter().map(|it| it.0).collect()), owner(transfers.clone()));
            let mut expected: Vec<u64> = vec![0; transfers.len() + kernels.len()];
            for (index, kernel) in kernels.iter().enumerate() {
                expected[transfers.len() + index] = kernel.0;
            }
            for (&kernel, &transfer) in k.iter().zip(&t) {
                expected[transfer] += 1;
                expected[transfers.len() + kernel] += 1;
            }
            prop_assert_eq!(p.times(), expected);
        }
    }

    /// Writes some rounds, of which the last ones are the first one again, kept once or written each time.
    fn rounds(kernels: &[(u64, bool)], bytes: u64, rounds: usize, kept_once: bool) -> ProgramBuilder {
        let mut b = if kept_once { ProgramBuilder::without_memory("p") } else { ProgramBuilder::new("p") };
        let label = b.label("x");
        let streams = ["compute", "one"].map(|name| b.stream(name));
        let channel = b.channel("one");
        let write = |b: &mut ProgramBuilder| {
            for &(picos, by_memory) in kernels {
                b.kernel(streams[0], CLASS, label, SimTime(picos), SimTime(1));
                if by_memory {
                    b.limited_by_memory();
                }
            }
            let done = b.record(streams[0]);
            b.wait(streams[1], done);
            b.rendezvous(streams[1], channel, CLASS, CLASS, label, SimTime(3), bytes);
        };
        let place = b.place();
        write(&mut b);
        let passage = b.passage(place);
        for round in 1..rounds {
            if round % 3 == 2 {
                b.host(SimTime(bytes), CLASS, label);
            }
            if kept_once {
                b.repeat_as_it_is(&passage);
            } else {
                write(&mut b);
            }
        }
        b.contend(&[Some(LOAD)]);
        b
    }

    proptest! {
        /// Kept once, and copied where a round becomes longer than others, or written out.
        #[test]
        fn rounds_that_are_kept_once_lose_what_each_of_them_loses(
            kernels in prop::collection::vec((0_u64..90, any::<bool>()), 1..6),
            bytes in 0_u64..400,
            count in 1_usize..12,
        ) {
            let [once, plain] = [true, false].map(|kept_once| rounds(&kernels, bytes, count, kept_once));
            prop_assert_eq!(once.inner.in_full(), plain.inner.in_full());
            let (once, plain) = (once.build().unwrap(), plain.build().unwrap());
            prop_assert_eq!((once.len(), once.launches(), once.waits()), (plain.len(), plain.launches(), plain.waits()));
        }
    }
}
