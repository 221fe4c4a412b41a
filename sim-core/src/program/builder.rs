//! Building and checking of programs.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use thiserror::Error;

use super::{
    BYTES_BITS, CATEGORIES, CLASSES, Category, Channel, ChannelUse, Class, Event, Inner, Kind, Label, Note,
    Program, Record, Stream, Tensor, TensorSpec,
};
use crate::time::SimTime;

/// A hash of labels: each eight bytes are mixed in by a multiplication. Nobody is kept from making labels collide; that
/// would only be slow.
#[derive(Clone, Copy, Debug, Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            // The odd fraction of the golden ratio, as in Fibonacci hashing (Knuth, volume 3, section 6.4).
            self.0 = (self.0.rotate_left(23) ^ u64::from_le_bytes(word)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

/// Writes a program record by record.
///
/// The calls take what they are given; [`ProgramBuilder::build`] checks the whole and names the first record
/// that is wrong.
#[derive(Debug, Default)]
pub struct ProgramBuilder {
    pub(super) inner: Inner,
    // Looked up, never walked: its order cannot matter.
    interned: HashMap<String, Label, BuildHasherDefault<Mixer>>,
    // What the compact records could not hold.
    overfull: Option<ProgramError>,
    pub(super) memory_steps: usize,
    /// Whether allocations and frees are left out.
    only_times: bool,
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

    /// Makes room for about so many records more.
    pub fn reserve(&mut self, records: usize) {
        self.inner.records.reserve_exact(records);
    }

    /// Records so far.
    pub fn records(&self) -> usize {
        self.inner.records.len()
    }

    /// The label of a text, the same for the same text.
    pub fn label(&mut self, text: &str) -> Label {
        if let Some(label) = self.interned.get(text) {
            return *label;
        }
        let label = Label(self.inner.labels.len() as u32);
        self.inner.labels.push(text.to_owned());
        self.interned.insert(text.to_owned(), label);
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
        self.push(Record { stream: stream.0, index: event.0, ..blank(Kind::Record) });
        event
    }

    /// What is issued to `stream` from here on starts after `event`.
    pub fn wait(&mut self, stream: Stream, event: Event) {
        self.push(Record { stream: stream.0, index: event.0, ..blank(Kind::Wait) });
    }

    /// The host waits until `stream` has done all that was issued to it.
    pub fn host_sync(&mut self, stream: Stream) {
        self.push(Record { stream: stream.0, ..blank(Kind::HostSync) });
    }

    /// The host waits for `event`.
    pub fn host_wait(&mut self, event: Event) {
        self.push(Record { index: event.0, ..blank(Kind::HostWait) });
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
            let (program, record) = (self.inner.name.clone(), self.inner.records.len());
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
        let rendezvous = self.inner.records.last().is_some_and(|it| it.kind == Kind::Rendezvous);
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
        if self.inner.records.len() >= u32::MAX as usize {
            self.overfull("records");
        }
        if let Some(error) = self.overfull {
            return Err(error);
        }
        self.inner.check_tensors()?;
        Checker::new(&mut self.inner).check()?;
        self.inner.records.shrink_to_fit();
        Ok(Program { inner: Arc::new(self.inner) })
    }

    fn push(&mut self, record: Record) {
        self.inner.records.push(record);
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

/// One pass over the records in order, with what has happened so far.
struct Checker<'a> {
    inner: &'a mut Inner,
    at: usize,
    recorded: u32,
    allocated: Vec<bool>,
}

impl<'a> Checker<'a> {
    fn new(inner: &'a mut Inner) -> Self {
        inner.uses = vec![ChannelUse::default(); inner.channels.len()];
        inner.last_rendezvous = vec![0; inner.streams.len()];
        let allocated = vec![false; inner.tensors.len()];
        Self { inner, at: 0, recorded: 0, allocated }
    }

    fn check(&mut self) -> Result<(), ProgramError> {
        let records = std::mem::take(&mut self.inner.records);
        let checked = self.check_all(&records);
        self.inner.records = records;
        checked
    }

    fn check_all(&mut self, records: &[Record]) -> Result<(), ProgramError> {
        let (streams, labels) = (self.inner.streams.len(), self.inner.labels.len());
        for (at, record) in records.iter().enumerate() {
            self.at = at;
            // Most records are kernels that are right.
            let known = usize::from(record.stream) < streams && (record.index as usize) < labels;
            if record.kind == Kind::Kernel
                && known
                && usize::from(record.class.max(record.wait_class)) < CLASSES
            {
                self.inner.launches += 1;
                continue;
            }
            if !matches!(record.kind, Kind::Host | Kind::HostWait) {
                self.known("stream", u32::from(record.stream), self.inner.streams.len())?;
            }
            match record.kind {
                Kind::Host => self.named(record)?,
                Kind::Kernel => {
                    self.named(record)?;
                    self.inner.launches += 1;
                }
                Kind::Rendezvous => self.rendezvous(record)?,
                Kind::Record => self.recorded += 1,
                Kind::Wait | Kind::HostWait => self.waits(record.index)?,
                Kind::HostSync => {}
                Kind::Alloc | Kind::Free => self.memory(record)?,
            }
        }
        Ok(())
    }

    fn known(&self, what: &'static str, index: u32, len: usize) -> Result<(), ProgramError> {
        if (index as usize) < len {
            return Ok(());
        }
        Err(ProgramError::Unknown { program: self.inner.name.clone(), record: self.at, what, index })
    }

    /// Label and classes of a host, kernel or rendezvous record.
    fn named(&self, record: &Record) -> Result<(), ProgramError> {
        self.known("label", record.index, self.inner.labels.len())?;
        let index = record.class.max(record.wait_class);
        if usize::from(index) >= CLASSES {
            return Err(ProgramError::OutOfRange { program: self.inner.name.clone(), what: "class", index });
        }
        Ok(())
    }

    fn rendezvous(&mut self, record: &Record) -> Result<(), ProgramError> {
        self.named(record)?;
        let channel = record.channel();
        self.known("channel", channel as u32, self.inner.channels.len())?;
        let uses = &mut self.inner.uses[channel];
        uses.sends |= record.bytes() > 0;
        uses.overlaps |= uses.stream.is_some_and(|stream| stream != record.stream);
        uses.stream = Some(record.stream);
        self.inner.last_rendezvous[usize::from(record.stream)] = self.at as u32 + 1;
        self.inner.launches += 1;
        Ok(())
    }

    fn waits(&mut self, event: u32) -> Result<(), ProgramError> {
        if event < self.recorded {
            self.inner.waits[event as usize] += 1;
            return Ok(());
        }
        let (program, record) = (self.inner.name.clone(), self.at);
        Err(ProgramError::NotRecorded { program, record, event })
    }

    fn memory(&mut self, record: &Record) -> Result<(), ProgramError> {
        self.known("tensor", record.index, self.inner.tensors.len())?;
        let index = record.index as usize;
        let allocates = record.kind == Kind::Alloc;
        if self.allocated[index] == allocates {
            let label = self.inner.tensors[index].label.0 as usize;
            return Err(ProgramError::Allocation {
                program: self.inner.name.clone(),
                record: self.at,
                action: if allocates { "allocates" } else { "frees" },
                tensor: self.inner.labels.get(label).cloned().unwrap_or_default(),
                state: if allocates { "is allocated already" } else { "is not allocated" },
            });
        }
        self.allocated[index] = allocates;
        Ok(())
    }
}
