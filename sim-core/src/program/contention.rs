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

use super::builder::{Mixer, mix};
use super::{Kind, Part, ProgramBuilder, Record, Records};

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

/// A record where it comes in the program: the number of its part, and its own.
type At = (u32, u32);

/// A record's time on its stream.
#[derive(Clone, Copy, Debug)]
struct Busy {
    at: At,
    start: u64,
    end: u64,
    /// What it becomes longer by.
    more: u64,
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

/// What a rank does when nobody makes it wait.
#[derive(Debug, Default)]
struct Alone {
    host: u64,
    /// When each stream has done what it was given.
    clocks: Vec<u64>,
    events: Vec<u64>,
    /// Kernels of the primary stream, in order.
    kernels: Vec<Busy>,
    /// Transfers with a load on each other stream, in order.
    transfers: Vec<Vec<Busy>>,
}

impl Alone {
    fn run(records: Records<'_>, parts: &[Part], streams: usize, loads: &[Option<Load>]) -> Self {
        let all = parts.iter().map(|part| part.len()).sum();
        let mut alone = Self {
            clocks: vec![0; streams],
            kernels: Vec::with_capacity(all),
            transfers: vec![Vec::new(); streams],
            ..Self::default()
        };
        for (number, part) in (0..).zip(parts) {
            let mut at = part.first;
            while at < part.end {
                let record = records.at(at as usize);
                if record.kind == Kind::Kernel {
                    at += alone.run_kernels((number, at), part.end, records);
                } else {
                    alone.step((number, at), &record, loads);
                    at += 1;
                }
            }
        }
        alone
    }

    /// Runs the kernels that follow each other on one stream from record `first` of a part on, up to `last`; returns how
    /// many. The clocks stay in registers.
    fn run_kernels(&mut self, (part, first): At, last: u32, records: Records<'_>) -> u32 {
        let stream = records.at(first as usize).stream;
        let (mut host, mut end, mut number) = (self.host, self.clock(usize::from(stream)), 0);
        for kept in &records.kept[first as usize..last as usize] {
            let record = &records.shapes[kept.shape as usize];
            if record.kind != Kind::Kernel || record.stream != stream {
                break;
            }
            host = host.saturating_add(record.extra);
            let start = end.max(host);
            end = start.saturating_add(record.time);
            if stream == 0 && record.time > 0 {
                self.kernels.push(Busy { at: (part, first + number), start, end, more: 0 });
            }
            number += 1;
        }
        self.host = host;
        self.set(usize::from(stream), end);
        number
    }

    /// Indices that do not exist are left for the checks of the finished program.
    fn step(&mut self, at: At, record: &Record, loads: &[Option<Load>]) {
        let stream = usize::from(record.stream);
        match record.kind {
            Kind::Host => self.host = self.host.saturating_add(record.time),
            Kind::HostSync => self.host = self.host.max(self.clock(stream)),
            Kind::HostWait => self.host = self.host.max(self.event(record)),
            Kind::Record => self.events.push(self.clock(stream)),
            Kind::Wait => self.set(stream, self.clock(stream).max(self.event(record))),
            // Kernels run in rows.
            Kind::Alloc | Kind::Free | Kind::Kernel => {}
            Kind::Rendezvous => {
                // One without a load takes no part, and does not make the rank wait either.
                let Some(Some(load)) = loads.get(record.channel()) else { return };
                let busy = self.run_on(stream, at, record.time.saturating_add(load.picos(record.bytes())));
                if stream != 0 {
                    self.transfers.get_mut(stream).into_iter().for_each(|list| list.push(busy));
                }
            }
        }
    }

    fn clock(&self, stream: usize) -> u64 {
        self.clocks.get(stream).copied().unwrap_or(0)
    }

    fn event(&self, record: &Record) -> u64 {
        let event = self.events.len().checked_sub(record.index as usize);
        event.and_then(|event| self.events.get(event)).copied().unwrap_or(0)
    }

    fn set(&mut self, stream: usize, clock: u64) {
        if let Some(place) = self.clocks.get_mut(stream) {
            *place = clock;
        }
    }

    fn run_on(&mut self, stream: usize, at: At, duration: u64) -> Busy {
        let start = self.clocks.get(stream).map_or(self.host, |clock| self.host.max(*clock));
        let end = start.saturating_add(duration);
        self.set(stream, end);
        Busy { at, start, end, more: 0 }
    }
}

impl Load {
    fn picos(&self, bytes: u64) -> u64 {
        let picos = bytes as f64 / self.bandwidth * 1e12;
        if picos.is_finite() { picos as u64 } else { 0 }
    }
}

/// A share of a time, rounded down.
fn share(time: u64, millionths: u32) -> u64 {
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
        self.cut();
        let mut alone = Alone::run(self.inner.kept(), &self.inner.parts, self.inner.streams.len(), loads);
        for transfers in &mut alone.transfers {
            self.contend_with(&mut alone.kernels, transfers, loads);
        }
        // Each in the order of the program.
        let lists = std::iter::once(&*alone.kernels).chain(alone.transfers.iter().map(Vec::as_slice));
        if self.inner.records.len() == self.records() {
            // Every record stands once.
            for busy in lists.flatten() {
                self.lengthen(busy.at.1 as usize, busy.more);
            }
        } else {
            self.lengthen_parts(lists.collect());
        }
    }

    /// Both lists are in order of time, and neither overlaps itself.
    fn contend_with(&self, kernels: &mut [Busy], transfers: &mut [Busy], loads: &[Option<Load>]) {
        let records = self.inner.kept();
        let mut first = 0;
        for transfer in transfers {
            let channel = records.at(transfer.at.1 as usize).channel();
            let Some(Some(load)) = loads.get(channel) else { continue };
            first += kernels[first..].iter().take_while(|kernel| kernel.end <= transfer.start).count();
            let beside = kernels[first..].iter_mut().take_while(|kernel| kernel.start < transfer.end);
            let mut shared = 0;
            for kernel in beside {
                let both = kernel.end.min(transfer.end) - kernel.start.max(transfer.start);
                let by_memory = records.at(kernel.at.1 as usize).is_limited_by_memory();
                let lost = share(both, if by_memory { load.memory } else { load.arithmetic });
                kernel.more = kernel.more.saturating_add(lost);
                shared += both;
            }
            transfer.more = transfer.more.saturating_add(share(shared, load.transfer));
        }
    }

    /// Gives each part in which something becomes longer a stretch of its own, or that of a part that becomes the same.
    fn lengthen_parts(&mut self, mut lists: Vec<&[Busy]>) {
        let (mut variants, mut longer) = (Variants::default(), Longer::new());
        for number in 0..self.inner.parts.len() {
            let part = self.inner.parts[number];
            longer.clear();
            for list in &mut lists {
                let mut of_part = 0;
                for busy in list.iter().take_while(|busy| busy.at.0 as usize == number) {
                    of_part += 1;
                    // Few of them are.
                    if busy.more > 0 {
                        longer.push((busy.at.1 - part.first, busy.more));
                    }
                }
                *list = &list[of_part..];
            }
            if longer.is_empty() {
                continue;
            }
            let alike = variants.of(part, &longer);
            let known = alike.iter().find(|(of, by, _)| (*of, by) == (part, &longer)).map(|it| it.2);
            self.inner.parts[number] = known.unwrap_or_else(|| {
                let made = self.longer(part, &longer);
                alike.push((part, longer.clone(), made));
                made
            });
        }
        self.close();
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
        if more > 0 {
            let record = self.inner.kept().at(at);
            let longer = Record { time: record.time.saturating_add(more), ..record };
            self.inner.records[at] = self.shapes.keep(&mut self.inner.shapes, longer);
        }
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
