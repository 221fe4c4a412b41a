//! Programs: what one rank does, as a compact array of records.
//!
//! A program is what its *host thread* executes, in order. Some records only take host time, most issue
//! work onto an in-order stream and go on. A record is kept in 8 bytes, with what many have in common in a table, holds no
//! box and no string; names live in a side table and are touched only by observers. Ranks that do the same share one
//! program.
//!
//! A program is a list of *parts*, stretches of records. What comes again is kept once: several parts may be the same
//! stretch. Records therefore do not know where they stand: events have no numbers, and who waits for one says how many
//! were recorded since.

use std::fmt;
use std::sync::Arc;

mod alone;
mod builder;
mod check;
mod closed;
mod contention;
mod copies;
mod interleave;
mod numbers;
mod parts;
mod passage;
mod shapes;
mod steps;
mod stretches;

pub(crate) use builder::Mixer;
pub use builder::{ProgramBuilder, ProgramError};
pub use contention::Load;
pub use copies::Work;
pub use interleave::Borders;
pub(crate) use parts::{Part, place};
pub use passage::{Passage, Place};
pub(crate) use shapes::{Kept, Records};
pub use steps::{Note, Step};
pub(crate) use stretches::Numbered;

/// An in-order stream of a rank. Stream 0 is the *primary* stream: idle time is attributed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stream(pub u8);

/// A moment in a stream's work, recorded once and waited for any number of times (a CUDA event).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Event(pub u32);

/// A rank-local name of a group it meets in; [`crate::RankSpec::groups`] maps it to a [`crate::GroupId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(pub u16);

/// An opaque kind of activity, 0 to 15; busy and idle time are summed per class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class(pub u8);

/// An opaque category of memory, 0 to 15; bytes are summed per category.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Category(pub u8);

/// A name in the program's side table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(pub u32);

/// A block of memory that the program allocates and frees in turns; it may end allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tensor(pub u32);

/// Size and category of a [`Tensor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Bytes asked for.
    pub bytes: u64,
    /// Where the bytes are counted.
    pub category: Category,
    /// Name for reports.
    pub label: Label,
}

/// Number of distinct [`Class`]es.
pub const CLASSES: usize = 16;
/// Number of distinct [`Category`]s.
pub const CATEGORIES: usize = 16;

/// One record, as the engine reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    /// Stream for device work.
    pub(crate) stream: u8,
    /// Class of the activity; for a rendezvous the class of the transfer.
    pub(crate) class: u8,
    /// Rendezvous: class of the time spent waiting for the other members. Kernel: [`BY_MEMORY`] if memory limits it.
    pub(crate) wait_class: u8,
    /// Label or tensor index, by kind; of a wait how many events the program has recorded up to it, from the one that it
    /// waits for on.
    pub(crate) index: u32,
    /// Duration in picoseconds; for a rendezvous the fixed part.
    pub(crate) time: u64,
    /// Kernel: host time to issue it, picoseconds. Rendezvous: channel in the top 16 bits, below them the
    /// bytes sent over the group's path.
    pub(crate) extra: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The host works for `time`.
    Host,
    /// The host spends `extra` issuing work of `time` onto `stream`.
    Kernel,
    /// `stream` records the next event.
    Record,
    /// `stream` waits for an event.
    Wait,
    /// The host waits until `stream` has finished all that was issued to it.
    HostSync,
    /// The host waits for an event.
    HostWait,
    /// `stream` meets the other members of a group.
    Rendezvous,
    /// Tensor `index` is allocated; the curve stamps it when `stream` gets there.
    Alloc,
    /// Tensor `index` is freed; the curve stamps it when `stream` gets there.
    Free,
}

/// Bits of [`Record::extra`] that hold a rendezvous' bytes; the channel is above them.
const BYTES_BITS: u32 = 48;

/// [`Record::wait_class`] of a kernel that memory limits.
const BY_MEMORY: u8 = 1;

impl Record {
    /// Whether it is a kernel that memory limits.
    pub(crate) fn is_limited_by_memory(&self) -> bool {
        self.kind == Kind::Kernel && self.wait_class == BY_MEMORY
    }

    /// Whether it records an event or waits for one.
    pub(crate) fn is_of_event(&self) -> bool {
        matches!(self.kind, Kind::Record | Kind::Wait | Kind::HostWait)
    }

    /// Bytes of a rendezvous.
    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        self.extra & ((1 << BYTES_BITS) - 1)
    }

    /// Channel of a rendezvous.
    #[inline]
    pub(crate) fn channel(&self) -> usize {
        (self.extra >> BYTES_BITS) as usize
    }
}

/// What one rank does, in order. Cloning shares the records.
#[derive(Clone, Debug)]
pub struct Program {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    name: String,
    /// Every record once.
    records: Vec<Kept>,
    /// What they refer to.
    shapes: Vec<Record>,
    /// What is done, in order; none is empty.
    parts: Vec<Part>,
    labels: Vec<String>,
    streams: Vec<String>,
    channels: Vec<String>,
    tensors: Vec<TensorSpec>,
    /// By event: how often the program waits for it.
    waits: Vec<u32>,
    /// By stream: kernels and rendezvous.
    launches: Vec<u32>,
    /// What was said of rendezvous, by record, rising.
    notes: Vec<(usize, Note)>,
    uses: Vec<ChannelUse>,
    /// By stream: the place behind its last rendezvous ([`parts::place`]), 0 without one.
    last_rendezvous: Vec<u64>,
}

/// How a program uses one of its channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChannelUse {
    /// Some rendezvous sends bytes.
    pub(crate) sends: bool,
    /// The stream of its rendezvous so far.
    stream: Option<u8>,
    /// Its rendezvous are on more than one stream, so that two of them may be under way at once.
    pub(crate) overlaps: bool,
}

impl Program {
    /// Its name, for messages.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }

    /// Whether it does nothing.
    pub fn is_empty(&self) -> bool {
        self.parts().is_empty()
    }

    /// The text of a label; empty for a label of another program.
    pub fn label(&self, label: Label) -> &str {
        self.inner.labels.get(label.0 as usize).map_or("", String::as_str)
    }

    /// All labels, indexed by [`Label`].
    pub fn labels(&self) -> &[String] {
        &self.inner.labels
    }

    /// Names of the streams, indexed by [`Stream`].
    pub fn streams(&self) -> &[String] {
        &self.inner.streams
    }

    /// Names of the channels, indexed by [`Channel`].
    pub fn channels(&self) -> &[String] {
        &self.inner.channels
    }

    /// Number of tensors.
    pub fn tensors(&self) -> usize {
        self.inner.tensors.len()
    }

    /// Size, category and label of the tensors, indexed by [`Tensor`].
    pub fn tensor_specs(&self) -> &[TensorSpec] {
        &self.inner.tensors
    }

    /// Size, category and label of one tensor; `None` for a tensor of another program.
    pub fn tensor_spec(&self, tensor: Tensor) -> Option<&TensorSpec> {
        self.inner.tensors.get(tensor.0 as usize)
    }

    /// Allocations and frees in the order of the records: the tensor, the stream that they are issued to, and whether it
    /// is freed.
    pub fn memory_requests(&self) -> impl Iterator<Item = (Tensor, Stream, bool)> + '_ {
        let memory = self.in_order().filter(|it| matches!(it.kind, Kind::Alloc | Kind::Free));
        memory.map(|it| (Tensor(it.index), Stream(it.stream), it.kind == Kind::Free))
    }

    /// Most bytes of wanted tensors that the program has allocated at once, in the order of its records.
    pub fn most_held(&self, wanted: impl Fn(&TensorSpec) -> bool) -> u64 {
        let (mut held, mut most) = (0_u64, 0);
        for record in self.in_order() {
            let Some(spec) = self.tensor_spec(Tensor(record.index)) else { continue };
            match record.kind {
                Kind::Alloc if wanted(spec) => held += spec.bytes,
                Kind::Free if wanted(spec) => held -= spec.bytes,
                _ => {}
            }
            most = most.max(held);
        }
        most
    }

    /// Every record once; [`Program::parts`] says when it comes.
    pub(crate) fn records(&self) -> Records<'_> {
        self.inner.kept()
    }

    /// The stretches of records that are done one after the other.
    pub(crate) fn parts(&self) -> &[Part] {
        &self.inner.parts
    }

    /// All records as they come, in one list, with the numbers of their events.
    pub(crate) fn in_full(&self) -> Vec<Record> {
        self.inner.in_full()
    }

    /// All records as they come.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = Record> + '_ {
        self.inner.in_order()
    }

    /// By event: how often the program waits for it.
    pub(crate) fn waits(&self) -> &[u32] {
        &self.inner.waits
    }

    /// Number of kernels and rendezvous.
    pub fn launches(&self) -> u32 {
        self.inner.launches.iter().sum()
    }

    /// The same by stream.
    pub(crate) fn launches_by_stream(&self) -> &[u32] {
        &self.inner.launches
    }

    /// How the channels are used, indexed by [`Channel`].
    pub(crate) fn channel_uses(&self) -> &[ChannelUse] {
        &self.inner.uses
    }

    /// By stream: the place behind its last rendezvous ([`parts::place`]), 0 without one.
    pub(crate) fn last_rendezvous(&self) -> &[u64] {
        &self.inner.last_rendezvous
    }

    /// The label a record goes by in messages: its own, its tensor's, or none.
    pub(crate) fn label_of(&self, record: &Record) -> Label {
        match record.kind {
            Kind::Host | Kind::Kernel | Kind::Rendezvous => Label(record.index),
            Kind::Alloc | Kind::Free => {
                self.tensor_spec(Tensor(record.index)).map_or(Label(u32::MAX), |spec| spec.label)
            }
            Kind::Record | Kind::Wait | Kind::HostSync | Kind::HostWait => Label(u32::MAX),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "program {} of {} records on {} streams", self.name(), self.len(), self.streams().len())
    }
}

#[cfg(test)]
mod tests;
