//! Building and checking of programs.

use std::hash::Hasher;
use std::sync::Arc;

use thiserror::Error;

use super::check::Checker;
use super::numbers::Numbers;
use super::parts::Known;
use super::shapes::Shapes;
use super::stretches::Copied;
use super::{
    BY_MEMORY, BYTES_BITS, CATEGORIES, Category, Channel, Class, Event, Inner, Kind, Label, Note, Part,
    Program, Record, Stream, Tensor, TensorSpec,
};
use crate::time::SimTime;

/// A hash of labels: each eight bytes are mixed in by a multiplication. Nobody is kept from making labels collide; that
/// would only be slow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mixer(u64);

/// Mixes a word into what has been mixed so far.
#[inline]
pub(super) const fn mix(mixed: u64, word: u64) -> u64 {
    // The odd fraction of the golden ratio, as in Fibonacci hashing (Knuth, volume 3, section 6.4).
    (mixed.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Hasher for Mixer {
    fn write_u64(&mut self, word: u64) {
        self.0 = mix(self.0, word);
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.0 = mix(self.0, u64::from_le_bytes(word));
        }
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

/// Of a label.
fn hash(text: &str) -> u64 {
    let mut mixer = Mixer::default();
    mixer.write(text.as_bytes());
    mixer.finish()
}

/// Writes a program record by record.
///
/// The calls take what they are given; [`ProgramBuilder::build`] checks the whole and names the first record
/// that is wrong.
#[derive(Debug, Default)]
pub struct ProgramBuilder {
    pub(super) inner: Inner,
    /// Labels by their texts.
    interned: Numbers,
    // What the compact records could not hold.
    overfull: Option<ProgramError>,
    pub(super) memory_steps: usize,
    /// Whether allocations and frees are left out. Then stretches that are the same are kept once: of others none are, for
    /// no two touch the same tensors.
    pub(super) only_times: bool,
    /// The first record of the part that is being written.
    open: usize,
    /// Records of the parts before it.
    pub(super) closed: usize,
    pub(super) known: Known,
    pub(super) shapes: Shapes,
    /// Whether some record may stand for several, or for none.
    pub(super) shares: bool,
    /// Copies of passages where records are not shared, in their order, and how many passages have any.
    pub(super) copies: Vec<Copied>,
    pub(super) copied: u32,
}

/// What is wrong with a program. `record` counts its records from 0.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProgramError {
    /// More streams, channels or records than their numbers can count.
    #[error("program {program} has too many {what}")]
    TooMany {
        /// Its name.
        program: String,
        /// Of what.
        what: &'static str,
    },
    /// A stream, label, event, tensor or channel that the program does not have.
    #[error("record {record} of program {program} names {what} {index}, which the program does not have")]
    Unknown {
        /// Its name.
        program: String,
        /// The record.
        record: usize,
        /// Of what kind.
        what: &'static str,
        /// The number given.
        index: u32,
    },
    /// A class or category past the last.
    #[error("program {program} uses {what} {index}; the last is 15")]
    OutOfRange {
        /// Its name.
        program: String,
        /// `class` or `category`.
        what: &'static str,
        /// The number given.
        index: u8,
    },
    /// An event that is waited for before it is recorded.
    #[error("record {record} of program {program} waits for event {event}, which is not recorded before it")]
    NotRecorded {
        /// Its name.
        program: String,
        /// The record.
        record: usize,
        /// The event.
        event: u32,
    },
    /// A rendezvous of more bytes than a record holds, 2^48 - 1.
    #[error("record {record} of program {program} sends {bytes} bytes; at most 256 TiB can be sent at once")]
    MessageTooLarge {
        /// Its name.
        program: String,
        /// The record.
        record: usize,
        /// The bytes given.
        bytes: u64,
    },
    /// An allocation of what is allocated, or a free of what is not.
    #[error("record {record} of program {program} {action} tensor \"{tensor}\", which {state}")]
    Allocation {
        /// Its name.
        program: String,
        /// The record.
        record: usize,
        /// `allocates` or `frees`.
        action: &'static str,
        /// The tensor's label.
        tensor: String,
        /// Why that is wrong.
        state: &'static str,
    },
    /// The tensors add up to more than 2^63 - 1 bytes.
    #[error("the tensors of program {program} add up to more than 8 EiB")]
    TooMuchMemory {
        /// Its name.
        program: String,
    },
}

impl ProgramBuilder {
    /// An empty program of the given name.
    pub fn new(name: &str) -> Self {
        Self { inner: Inner { name: name.to_owned(), ..Inner::default() }, ..Self::default() }
    }

    /// An empty program that keeps no account of memory: what it is given to allocate and free takes no record. Its
    /// times are those of the program that keeps one.
    pub fn without_memory(name: &str) -> Self {
        Self { only_times: true, ..Self::new(name) }
    }

    /// Makes room for about so many records and tensors more, unless most of them will be the same as others.
    pub fn reserve(&mut self, records: usize, tensors: usize) {
        if !self.only_times {
            self.inner.records.reserve_exact(records);
            self.inner.tensors.reserve_exact(tensors);
        }
    }

    /// Records so far.
    pub fn records(&self) -> usize {
        self.closed + self.inner.records.len() - self.open
    }

    /// Tensors so far.
    pub fn tensors(&self) -> usize {
        self.inner.tensors.len()
    }

    /// Ends the part that is being written.
    pub(super) fn cut(&mut self) {
        if self.open == self.inner.records.len() {
            return;
        }
        self.closed = self.records();
        let part = if self.only_times {
            let part = self.known.share(&mut self.inner.records, self.open);
            self.shares |= part.first as usize != self.open;
            part
        } else {
            Part::of(self.open..self.inner.records.len())
        };
        self.inner.parts.push(part);
        self.close();
    }

    /// Begins the next part behind all records.
    pub(super) fn close(&mut self) {
        self.open = self.inner.records.len();
    }

    /// Takes a list of records, whose events have no numbers, as the whole of the program.
    pub(super) fn replace(&mut self, records: &[Record]) {
        let Self { inner, shapes, .. } = self;
        inner.records.clear();
        inner.records.extend(records.iter().map(|record| shapes.keep(&mut inner.shapes, *record)));
        self.inner.parts.clear();
        (self.open, self.closed) = (0, 0);
        self.known = Known::default();
        self.shares = false;
        self.copies.clear();
        self.cut();
    }

    /// The label of a text, the same for the same text.
    pub fn label(&mut self, text: &str) -> Label {
        let labels = &self.inner.labels;
        if let Some(label) = self.interned.find(hash(text), |number| labels[number] == text) {
            return Label(label);
        }
        let label = self.new_label(text.to_owned());
        let labels = &self.inner.labels;
        self.interned.add(label.0, |number| hash(&labels[number]));
        label
    }

    /// A label of a text that no other label has: the same text is not looked for.
    pub fn new_label(&mut self, text: String) -> Label {
        let label = Label(self.inner.labels.len() as u32);
        self.inner.labels.push(text);
        label
    }

    /// A new stream. The first is the primary one. A program has at most 256.
    pub fn stream(&mut self, name: &str) -> Stream {
        let stream = u8::try_from(self.inner.streams.len()).unwrap_or_else(|_| {
            self.overfull("streams");
            u8::MAX
        });
        self.inner.streams.push(name.to_owned());
        Stream(stream)
    }

    /// A new tensor of `bytes` bytes. It is not allocated yet.
    pub fn tensor(&mut self, bytes: u64, category: Category, label: Label) -> Tensor {
        if self.only_times {
            return Tensor(0);
        }
        let tensor = Tensor(self.inner.tensors.len() as u32);
        self.inner.tensors.push(TensorSpec { bytes, category, label });
        tensor
    }

    /// A new channel: a place in the rank's list of groups. A program has at most 65536.
    pub fn channel(&mut self, name: &str) -> Channel {
        let channel = u16::try_from(self.inner.channels.len()).unwrap_or_else(|_| {
            self.overfull("channels");
            u16::MAX
        });
        self.inner.channels.push(name.to_owned());
        Channel(channel)
    }

    /// The host works for `duration`. Idle time of the primary stream that overlaps it is charged to `class`, but
    /// only the host's last such work is remembered: of two within one gap the earlier counts as the host's own.
    pub fn host(&mut self, duration: SimTime, class: Class, label: Label) {
        self.push(Record { class: class.0, index: label.0, time: duration.0, ..blank(Kind::Host) });
    }

    /// The host spends `issue`; then work of `duration` is on `stream`. It starts when it is issued and the
    /// stream is free.
    pub fn kernel(&mut self, stream: Stream, class: Class, label: Label, duration: SimTime, issue: SimTime) {
        self.push(Record {
            stream: stream.0,
            class: class.0,
            index: label.0,
            time: duration.0,
            extra: issue.0,
            ..blank(Kind::Kernel)
        });
    }

    /// The moment at which `stream` has done all that was issued to it so far.
    pub fn record(&mut self, stream: Stream) -> Event {
        let event = Event(self.inner.waits.len() as u32);
        self.inner.waits.push(0);
        self.push(Record { stream: stream.0, ..blank(Kind::Record) });
        event
    }

    /// What is issued to `stream` from here on starts after `event`.
    pub fn wait(&mut self, stream: Stream, event: Event) {
        self.push(Record { stream: stream.0, index: self.since(event), ..blank(Kind::Wait) });
    }

    /// The host waits until `stream` has done all that was issued to it.
    pub fn host_sync(&mut self, stream: Stream) {
        self.push(Record { stream: stream.0, ..blank(Kind::HostSync) });
    }

    /// The host waits for `event`.
    pub fn host_wait(&mut self, event: Event) {
        self.push(Record { index: self.since(event), ..blank(Kind::HostWait) });
    }

    /// Events that have been recorded from one on. One that has not been shows when the program is checked.
    fn since(&self, event: Event) -> u32 {
        (self.inner.waits.len() as u32).wrapping_sub(event.0)
    }

    /// The kernel just given is limited by memory, not by arithmetic.
    pub fn limited_by_memory(&mut self) {
        let open = self.open < self.inner.records.len();
        if let Some(record) = self.last().filter(|record| open && record.kind == Kind::Kernel) {
            self.inner.records.pop();
            self.push(Record { wait_class: BY_MEMORY, ..record });
        }
    }

    /// `stream` meets the other members of the group behind `channel`; the nth rendezvous that a member
    /// issues on a group meets the nth of every other member.
    ///
    /// It holds its stream from the moment the stream gets there, at first in class `waiting`. When all
    /// members are there, in class `transfer`, `fixed` passes, then `bytes` cross the group's path (none do
    /// if `bytes` is 0), then the path's latency passes, and all members' streams go on at the same moment.
    /// All members must give the same `fixed` and `bytes`.
    #[expect(clippy::too_many_arguments, reason = "one record's fields; a struct would only repeat them")]
    pub fn rendezvous(
        &mut self,
        stream: Stream,
        channel: Channel,
        transfer: Class,
        waiting: Class,
        label: Label,
        fixed: SimTime,
        bytes: u64,
    ) {
        if bytes >> BYTES_BITS != 0 {
            let (program, record) = (self.inner.name.clone(), self.records());
            self.overfull.get_or_insert(ProgramError::MessageTooLarge { program, record, bytes });
        }
        self.push(Record {
            stream: stream.0,
            class: transfer.0,
            wait_class: waiting.0,
            index: label.0,
            time: fixed.0,
            extra: u64::from(channel.0) << BYTES_BITS | bytes & ((1 << BYTES_BITS) - 1),
            ..blank(Kind::Rendezvous)
        });
    }

    /// Says what the rendezvous that was written last is, for those who read programs; it changes no time. A program
    /// without memory keeps no such notes.
    pub fn note(&mut self, note: Note) {
        let last = self.inner.records.len().checked_sub(1);
        let rendezvous = self.last().is_some_and(|it| it.kind == Kind::Rendezvous);
        if let (Some(last), true, false) = (last, rendezvous, self.only_times) {
            self.inner.notes.push((last, note));
        }
    }

    /// `tensor` is allocated. The ledger changes here, in program order; the moment shown for it is when
    /// `stream` gets here.
    pub fn alloc(&mut self, stream: Stream, tensor: Tensor) {
        if self.only_times {
            return;
        }
        self.memory_steps += 1;
        self.push(Record { stream: stream.0, index: tensor.0, ..blank(Kind::Alloc) });
    }

    /// `tensor` is freed; see [`ProgramBuilder::alloc`].
    pub fn free(&mut self, stream: Stream, tensor: Tensor) {
        if self.only_times {
            return;
        }
        self.memory_steps += 1;
        self.push(Record { stream: stream.0, index: tensor.0, ..blank(Kind::Free) });
    }

    /// Allocations and frees so far: the number of the next [`MemoryRecord`](crate::MemoryRecord) of a rank.
    pub fn memory_steps(&self) -> usize {
        self.memory_steps
    }

    /// The finished program.
    ///
    /// # Errors
    /// [`ProgramError`] names the first record that refers to something the program does not have, waits
    /// for an event before it is recorded, allocates what is allocated or frees what is not. (That every
    /// event is recorded once follows from [`ProgramBuilder::record`] making it.)
    pub fn build(mut self) -> Result<Program, ProgramError> {
        self.cut();
        if self.records() >= u32::MAX as usize {
            self.overfull("records");
        }
        if let Some(error) = self.overfull {
            return Err(error);
        }
        self.inner.check_tensors()?;
        let stretches = self.stretches();
        Checker::new(&mut self.inner).check(&stretches)?;
        self.inner.records.shrink_to_fit();
        Ok(Program { inner: Arc::new(self.inner) })
    }

    fn last(&self) -> Option<Record> {
        self.inner.records.last().map(|kept| self.inner.kept().of(*kept))
    }

    fn push(&mut self, record: Record) {
        let kept = self.shapes.keep(&mut self.inner.shapes, record);
        self.inner.records.push(kept);
    }

    fn overfull(&mut self, what: &'static str) {
        let program = self.inner.name.clone();
        self.overfull.get_or_insert(ProgramError::TooMany { program, what });
    }
}

/// A record of a kind with everything else at zero.
fn blank(kind: Kind) -> Record {
    Record { kind, stream: 0, class: 0, wait_class: 0, index: 0, time: 0, extra: 0 }
}

impl Inner {
    fn check_tensors(&self) -> Result<(), ProgramError> {
        let mut sum = 0_u64;
        for spec in &self.tensors {
            if usize::from(spec.category.0) >= CATEGORIES {
                let program = self.name.clone();
                return Err(ProgramError::OutOfRange { program, what: "category", index: spec.category.0 });
            }
            sum = sum.saturating_add(spec.bytes);
        }
        // A tensor is held at most once at a time, so no total can exceed the sum and no change an i64.
        if i64::try_from(sum).is_err() {
            return Err(ProgramError::TooMuchMemory { program: self.name.clone() });
        }
        Ok(())
    }
}
