//! Programs made from other programs: the same records with other times, or over and over again.

use std::sync::Arc;

use super::{Inner, Kept, Kind, Part, Program, Record, parts};

/// What a record takes time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// The host works, or issues a kernel.
    Host,
    /// A kernel runs.
    Kernel {
        /// Whether memory limits it, not arithmetic.
        by_memory: bool,
    },
    /// A rendezvous, the n-th of its channel: its fixed part, and then its bytes.
    Transfer {
        /// Index of its channel.
        channel: usize,
        /// How many the program has issued on the channel before.
        number: u32,
    },
}

/// Bytes that a record can hold.
const MOST_BYTES: u64 = (1 << super::BYTES_BITS) - 1;

/// A time or a number of bytes that takes `factor` times as long. Past the last representable one it stays there: the
/// player then finds that the time has no end.
fn stretched(value: u64, factor: f64) -> u64 {
    if factor.to_bits() == 1.0_f64.to_bits() { value } else { (value as f64 * factor).round() as u64 }
}

impl Program {
    /// The same program in which everything takes `factor` times as long; the factor is asked for once for each work,
    /// in the order of the records (of a kernel first for the host that issues it). A transfer's bytes grow like its
    /// fixed time.
    #[must_use]
    pub fn stretched(&self, mut factor: impl FnMut(Work) -> f64) -> Self {
        let inner = &self.inner;
        let mut records: Vec<Record> = self.in_order().collect();
        let mut met = vec![0_u32; inner.channels.len()];
        for record in &mut records {
            match record.kind {
                Kind::Host => record.time = stretched(record.time, factor(Work::Host)),
                Kind::Kernel => {
                    record.extra = stretched(record.extra, factor(Work::Host));
                    let by_memory = record.is_limited_by_memory();
                    record.time = stretched(record.time, factor(Work::Kernel { by_memory }));
                }
                Kind::Rendezvous => {
                    let channel = record.channel();
                    let number = met[channel];
                    met[channel] += 1;
                    let factor = factor(Work::Transfer { channel, number });
                    let bytes = stretched(record.bytes(), factor).min(MOST_BYTES);
                    record.time = stretched(record.time, factor);
                    record.extra = record.extra & !MOST_BYTES | bytes;
                }
                Kind::Record | Kind::Wait | Kind::HostSync | Kind::HostWait | Kind::Alloc | Kind::Free => {}
            }
        }
        let mut copy = self.with_records(records, 1, inner.waits.clone());
        if let Some(copy) = Arc::get_mut(&mut copy.inner) {
            copy.notes.clone_from(&inner.notes);
        }
        copy
    }

    /// The program `times` times after one another, each beginning when the host has issued the one before. Nothing is
    /// allocated and freed in it.
    #[must_use]
    pub fn repeated(&self, times: u32) -> Self {
        let inner = &self.inner;
        let kept = |record: &Record| !matches!(record.kind, Kind::Alloc | Kind::Free);
        let once: Vec<Record> = self.in_order().filter(kept).collect();
        self.with_records(once, times, inner.waits.repeat(times as usize))
    }

    /// The same names with other records, so many times over, which use streams and channels in the same way.
    fn with_records(&self, records: Vec<Record>, times: u32, waits: Vec<u32>) -> Self {
        let inner = &self.inner;
        let mut last_rendezvous = vec![0; inner.streams.len()];
        let mut launches = vec![0; inner.streams.len()];
        let parts = vec![Part::of(0..records.len()); if records.is_empty() { 0 } else { times as usize }];
        for (at, record) in records.iter().enumerate() {
            if matches!(record.kind, Kind::Kernel | Kind::Rendezvous) {
                launches[usize::from(record.stream)] += times;
            }
            if record.kind == Kind::Rendezvous {
                last_rendezvous[usize::from(record.stream)] = parts::place(parts.len(), at + 1);
            }
        }
        // Times that were drawn are hardly ever the same: each record has a shape of its own.
        let kept = (0..).zip(&records).map(|(shape, record)| Kept { shape, index: record.index }).collect();
        Self {
            inner: Arc::new(Inner {
                name: inner.name.clone(),
                labels: inner.labels.clone(),
                streams: inner.streams.clone(),
                channels: inner.channels.clone(),
                tensors: inner.tensors.clone(),
                uses: inner.uses.clone(),
                records: kept,
                shapes: records,
                parts,
                waits,
                launches,
                notes: Vec::new(),
                last_rendezvous,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::simulate;
    use crate::observer::NoObserver;
    use crate::program::{Category, Class, ProgramBuilder, Step};
    use crate::time::SimTime;
    use crate::world::{RankSpec, WorldBuilder};

    /// A host that works 3, then issues kernels of 10 (arithmetic) and 20 (memory) in 1 each; the host waits for both.
    fn program() -> Program {
        let mut b = ProgramBuilder::new("p");
        let (label, stream, class) = (b.label("x"), b.stream("s"), Class(1));
        let picos = SimTime::from_picos;
        b.host(picos(3), class, label);
        b.kernel(stream, class, label, picos(10), picos(1));
        b.kernel(stream, class, label, picos(20), picos(1));
        b.limited_by_memory();
        let done = b.record(stream);
        b.host_wait(done);
        b.build().unwrap()
    }

    fn end(program: Program) -> u64 {
        let mut world = WorldBuilder::new();
        let program = world.program(program);
        world.rank(RankSpec { program, ..RankSpec::default() });
        simulate(&world.build().unwrap(), &mut NoObserver).unwrap().end.picos()
    }

    #[test]
    fn times_of_one_kind_of_work_are_stretched() {
        let only = |wanted: Work| move |work| if work == wanted { 2.0 } else { 1.0 };
        assert_eq!(end(program()), 3 + 1 + 10 + 20);
        // Both kernels, and one of them alone; a host twice as slow puts off the first kernel by its work and its launch.
        assert_eq!(end(program().stretched(only(Work::Kernel { by_memory: false }))), 3 + 1 + 20 + 20);
        assert_eq!(end(program().stretched(only(Work::Kernel { by_memory: true }))), 3 + 1 + 10 + 40);
        assert_eq!(end(program().stretched(only(Work::Host))), 6 + 2 + 10 + 20);
    }

    #[test]
    fn a_repeated_program_takes_as_many_times_as_long() {
        assert_eq!(end(program().repeated(1)), 34);
        assert_eq!(end(program().repeated(5)), 5 * 34);
    }

    /// Two channels: on the second three transfers, of which the later ones take three times as long.
    #[test]
    fn transfers_are_asked_for_one_by_one() {
        let mut b = ProgramBuilder::new("p");
        let (label, one, two, class) = (b.label("x"), b.stream("one"), b.stream("two"), Class(1));
        let (first, second) = (b.channel("first"), b.channel("second"));
        let mut send = |stream, channel, fixed, bytes| {
            b.rendezvous(stream, channel, class, class, label, SimTime(fixed), bytes);
        };
        send(one, second, 10, 100);
        send(two, first, 20, 200);
        send(one, second, 30, 1_001);
        send(one, second, 40, MOST_BYTES / 2);
        let program = b.build().unwrap();
        let mut asked = Vec::new();
        let stretched = program.stretched(|work| {
            asked.push(work);
            if work == (Work::Transfer { channel: 1, number: 0 }) { 1.0 } else { 3.0 }
        });
        let transfer = |channel, number| Work::Transfer { channel, number };
        assert_eq!(asked, [transfer(1, 0), transfer(0, 0), transfer(1, 1), transfer(1, 2)]);
        let found: Vec<_> = stretched
            .steps()
            .map(|it| match it {
                Step::Rendezvous { stream, channel, fixed, bytes, .. } => {
                    (stream.0, channel.0, fixed.0, bytes)
                }
                other => panic!("{other:?}"),
            })
            .collect();
        // 2^48 - 1 bytes are the most that a transfer holds.
        let most = (1 << 48) - 1;
        assert_eq!(found, [(0, 1, 10, 100), (1, 0, 60, 600), (0, 1, 90, 3_003), (0, 1, 120, most)]);
        assert_eq!((stretched.launches(), stretched.launches_by_stream()), (4, &[3, 1][..]));
        assert_eq!(stretched.last_rendezvous(), program.last_rendezvous());
    }

    /// A time stays at the last representable moment; one that is not stretched stays as it is, to the last bit.
    #[test]
    fn times_are_rounded_and_end_at_the_last_moment() {
        let host = |time: u64, factor: f64| {
            let mut b = ProgramBuilder::new("p");
            let label = b.label("x");
            b.host(SimTime(time), Class(0), label);
            match b.build().unwrap().stretched(|_| factor).steps().next() {
                Some(Step::Host { duration, .. }) => duration.0,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((host(7, 1.5), host(7, 1.2), host(7, 0.0)), (11, 8, 0));
        assert_eq!((host(u64::MAX, 2.0), host((1 << 60) + 1, 1.0)), (u64::MAX, (1 << 60) + 1));
    }

    /// What is allocated, freed and noted in a program is so in its stretched copy.
    #[test]
    fn a_stretched_program_holds_the_same_memory() {
        let mut b = ProgramBuilder::new("p");
        let (label, stream) = (b.label("x"), b.stream("s"));
        let tensor = b.tensor(8, Category(3), label);
        b.alloc(stream, tensor);
        b.kernel(stream, Class(1), label, SimTime(5), SimTime(1));
        b.free(stream, tensor);
        let program = b.build().unwrap();
        let stretched = program.stretched(|_| 3.0);
        assert!(program.memory_requests().eq(stretched.memory_requests()));
        assert_eq!(stretched.tensor_specs(), program.tensor_specs());
        assert_eq!(
            (stretched.name(), stretched.labels(), stretched.streams()),
            ("p", &["x".into()][..], &["s".into()][..])
        );
        assert_eq!(stretched.len(), 3);
    }

    /// Each turn has events of its own, and what is known of a program's records is known of its copies.
    #[test]
    fn turns_of_a_program_wait_for_their_own_events() {
        let mut b = ProgramBuilder::new("p");
        let (label, one, two, class) = (b.label("x"), b.stream("one"), b.stream("two"), Class(1));
        let channel = b.channel("c");
        let tensor = b.tensor(8, Category(0), label);
        b.alloc(one, tensor);
        b.kernel(one, class, label, SimTime(5), SimTime(1));
        let events = [b.record(one), b.record(two)];
        b.wait(two, events[0]);
        b.rendezvous(two, channel, class, class, label, SimTime(5), 0);
        b.host_wait(events[1]);
        let once = b.build().unwrap();
        let thrice = once.repeated(3);
        let of_events = thrice.steps().filter_map(|it| match it {
            Step::Record { event, .. } | Step::Wait { event, .. } | Step::HostWait { event } => Some(event.0),
            _ => None,
        });
        assert_eq!(of_events.collect::<Vec<u32>>(), [0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5]);
        assert_eq!((thrice.len(), thrice.waits()), (18, &[1, 1, 1, 1, 1, 1][..]), "nothing is allocated");
        assert_eq!((thrice.launches(), thrice.launches_by_stream()), (6, &[3, 3][..]));
        assert_eq!(thrice.memory_requests().count(), 0);
        // The last but one record of the last turn.
        assert_eq!(thrice.last_rendezvous(), [0, parts::place(3, 5)]);
        assert_eq!(thrice.channel_uses(), once.channel_uses());
        let none = once.repeated(0);
        assert_eq!((none.len(), none.is_empty(), none.launches(), none.waits()), (0, true, 0, &[][..]));
        let empty = ProgramBuilder::new("empty").build().unwrap().repeated(4);
        assert_eq!((empty.len(), empty.is_empty()), (0, true));
    }
}
