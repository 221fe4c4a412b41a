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

use super::{Kind, ProgramBuilder, Record};

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

/// A record's time on its stream.
#[derive(Clone, Copy, Debug)]
struct Busy {
    record: usize,
    start: u64,
    end: u64,
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
    fn run(records: &[Record], streams: usize, loads: &[Option<Load>]) -> Self {
        let mut alone = Self {
            clocks: vec![0; streams],
            kernels: Vec::with_capacity(records.len()),
            transfers: vec![Vec::new(); streams],
            ..Self::default()
        };
        let mut at = 0;
        while let Some(record) = records.get(at) {
            if record.kind == Kind::Kernel {
                at += alone.run_kernels(at, &records[at..]);
            } else {
                alone.step(at, record, loads);
                at += 1;
            }
        }
        alone
    }

    /// Runs the kernels that follow each other on one stream from record `first` on; returns how many. The clocks stay in
    /// registers.
    fn run_kernels(&mut self, first: usize, records: &[Record]) -> usize {
        let Some(stream) = records.first().map(|record| record.stream) else { return 0 };
        let (mut host, mut end, mut number) = (self.host, self.clock(usize::from(stream)), 0);
        for record in records {
            if record.kind != Kind::Kernel || record.stream != stream {
                break;
            }
            host = host.saturating_add(record.extra);
            let start = end.max(host);
            end = start.saturating_add(record.time);
            if stream == 0 && record.time > 0 {
                self.kernels.push(Busy { record: first + number, start, end });
            }
            number += 1;
        }
        self.host = host;
        self.set(usize::from(stream), end);
        number
    }

    /// Indices that do not exist are left for the checks of the finished program.
    fn step(&mut self, at: usize, record: &Record, loads: &[Option<Load>]) {
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
        self.events.get(record.index as usize).copied().unwrap_or(0)
    }

    fn set(&mut self, stream: usize, clock: u64) {
        if let Some(place) = self.clocks.get_mut(stream) {
            *place = clock;
        }
    }

    fn run_on(&mut self, stream: usize, record: usize, duration: u64) -> Busy {
        let start = self.clocks.get(stream).map_or(self.host, |clock| self.host.max(*clock));
        let end = start.saturating_add(duration);
        self.set(stream, end);
        Busy { record, start, end }
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
    u64::try_from(u128::from(time) * u128::from(millionths) / WHOLE).unwrap_or(u64::MAX)
}

impl ProgramBuilder {
    /// The kernel just given is limited by memory, not by arithmetic.
    pub fn limited_by_memory(&mut self) {
        self.inner.by_memory.push(self.inner.records.len().saturating_sub(1));
    }

    /// Lengthens what has been given so far by what kernels of the primary stream and transfers of other streams take
    /// from each other; `loads` are by channel, and transfers of channels without one leave kernels alone.
    pub fn contend(&mut self, loads: &[Option<Load>]) {
        if loads.iter().all(Option::is_none) {
            return;
        }
        let alone = Alone::run(&self.inner.records, self.inner.streams.len(), loads);
        for transfers in &alone.transfers {
            self.contend_with(&alone.kernels, transfers, loads);
        }
    }

    /// Both lists are in order of time, and neither overlaps itself.
    fn contend_with(&mut self, kernels: &[Busy], transfers: &[Busy], loads: &[Option<Load>]) {
        let mut first = 0;
        for transfer in transfers {
            let channel = self.inner.records[transfer.record].channel();
            let Some(Some(load)) = loads.get(channel) else { continue };
            first += kernels[first..].iter().take_while(|kernel| kernel.end <= transfer.start).count();
            let beside = kernels[first..].iter().take_while(|kernel| kernel.start < transfer.end);
            let mut shared = 0;
            for kernel in beside {
                let both = kernel.end.min(transfer.end) - kernel.start.max(transfer.start);
                let by_memory = self.inner.by_memory.binary_search(&kernel.record).is_ok();
                let lost = share(both, if by_memory { load.memory } else { load.arithmetic });
                let record = &mut self.inner.records[kernel.record];
                record.time = record.time.saturating_add(lost);
                shared += both;
            }
            let record = &mut self.inner.records[transfer.record];
            record.time = record.time.saturating_add(share(shared, load.transfer));
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

        fn times(&self) -> Vec<u64> {
            let long = self.builder.inner.records.iter();
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
}
