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
    use crate::program::{Class, ProgramBuilder};
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
}
