//! Observers: who wants to see more than the totals.

use crate::program::{Category, Class, Label, Stream, Tensor};
use crate::time::SimTime;
use crate::world::GroupId;

/// What a [`Span`] shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SpanKind {
    /// The host works or issues.
    Host,
    /// A kernel runs.
    Kernel,
    /// A rendezvous whose members have all arrived: fixed time, flow and latency.
    Transfer,
    /// A rendezvous waits for its other members.
    Waiting,
}

/// An interval of activity of a host or a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index of the rank.
    pub rank: u32,
    /// Stream of the rank; `None` is its host thread.
    pub stream: Option<Stream>,
    /// First moment.
    pub start: SimTime,
    /// First moment after.
    pub end: SimTime,
    /// Class the interval is counted in.
    pub class: Class,
    /// Name, in the rank's program.
    pub label: Label,
    /// What it shows.
    pub kind: SpanKind,
}

/// A step of a rank's memory curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRecord {
    /// Index of the rank.
    pub rank: u32,
    /// Moment; never falls along a rank.
    pub at: SimTime,
    /// When the host asked for it.
    pub host: SimTime,
    /// The stream that it was issued to.
    pub stream: Stream,
    /// When that stream had done what was issued to it before: where a free has to wait for the stream, it passes then.
    pub reached: SimTime,
    /// Where the bytes are counted.
    pub category: Category,
    /// Bytes allocated (positive) or freed (negative).
    pub delta: i64,
    /// The tensor.
    pub tensor: Tensor,
    /// Bytes held after the step.
    pub total: u64,
}

/// What a rank's host asks of its allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRequest {
    /// Index of the rank.
    pub rank: u32,
    /// When the host asks.
    pub host: SimTime,
    /// The stream that it is issued to.
    pub stream: Stream,
    /// The tensor.
    pub tensor: Tensor,
    /// Whether it is freed.
    pub frees: bool,
}

/// Bytes that crossed the path of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowRecord {
    /// When the first byte left.
    pub start: SimTime,
    /// When the last byte left; the path's latency comes after.
    pub end: SimTime,
    /// Whose path was crossed.
    pub group: GroupId,
    /// Bytes sent.
    pub bytes: u64,
}

/// Receives what happens, in no promised order; [`Recorder`] sorts.
///
/// Chosen at compile time, so that an observer that is not [`Observer::ACTIVE`] costs nothing.
pub trait Observer {
    /// Whether the calls below are made at all.
    const ACTIVE: bool = true;
    /// Whether it is told of memory request by request, with [`Observer::asked`] and [`Observer::reached`], instead of by the
    /// steps of a curve with [`Observer::memory`]. [`crate::simulate`] does so.
    const REQUESTS: bool = false;

    /// An interval of activity whose end is known.
    fn span(&mut self, _span: &Span) {}
    /// An allocation or a free whose moment is known.
    fn memory(&mut self, _record: &MemoryRecord) {}
    /// An allocation or a free as the host asks for it; those of a rank come in the order of its program.
    fn asked(&mut self, _request: &MemoryRequest) {}
    /// The stream of the request of this number of a rank, counted from 0, had done `at` a moment what was issued to it
    /// before.
    fn reached(&mut self, _rank: u32, _number: u32, _at: SimTime) {}
    /// A flow that ended.
    fn flow(&mut self, _record: &FlowRecord) {}
    /// The simulation ended well; nothing follows.
    fn finish(&mut self) {}
}

/// Sees nothing and costs nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    const ACTIVE: bool = false;
}

/// Keeps everything, in one order whichever way the simulation was played.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorder {
    spans: Vec<Span>,
    memory: Vec<MemoryRecord>,
    flows: Vec<FlowRecord>,
}

impl Recorder {
    /// An empty recorder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Spans by rank, then host before streams, then time; equal times in program order.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Memory steps by rank, then program order, along which time never falls.
    pub fn memory_records(&self) -> &[MemoryRecord] {
        &self.memory
    }

    /// Flows by start, end, group and size.
    pub fn flows(&self) -> &[FlowRecord] {
        &self.flows
    }
}

impl Observer for Recorder {
    fn span(&mut self, span: &Span) {
        self.spans.push(*span);
    }

    fn memory(&mut self, record: &MemoryRecord) {
        self.memory.push(*record);
    }

    fn flow(&mut self, record: &FlowRecord) {
        self.flows.push(*record);
    }

    fn finish(&mut self) {
        // Within a rank's stream the calls come in program order, which a stable sort keeps for equal times.
        self.spans.sort_by_key(|span| (span.rank, span.stream, span.start));
        self.memory.sort_by_key(|record| record.rank);
        self.flows.sort_unstable();
    }
}

/// What the players emit through; one place that converts their plain numbers.
pub(crate) struct Emitter<'a, O> {
    pub(crate) observer: &'a mut O,
    pub(crate) rank: u32,
}

impl<O: Observer> Emitter<'_, O> {
    #[inline]
    pub(crate) fn span(
        &mut self,
        stream: Option<u8>,
        kind: SpanKind,
        (start, end): (u64, u64),
        class: u8,
        label: u32,
    ) {
        if O::ACTIVE {
            self.observer.span(&Span {
                rank: self.rank,
                stream: stream.map(Stream),
                start: SimTime(start),
                end: SimTime(end),
                class: Class(class),
                label: Label(label),
                kind,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorder_sorts_by_rank_stream_and_time_and_keeps_equal_times_in_order() {
        let span = |rank, stream: Option<u8>, start, label| Span {
            rank,
            stream: stream.map(Stream),
            start: SimTime(start),
            end: SimTime(start),
            class: Class(0),
            label: Label(label),
            kind: SpanKind::Kernel,
        };
        let mut recorder = Recorder::new();
        for s in [
            span(1, None, 0, 5),
            span(0, Some(0), 3, 2),
            span(0, Some(0), 3, 3),
            span(0, Some(0), 1, 1),
            span(0, None, 9, 0),
            span(0, Some(1), 0, 4),
        ] {
            recorder.span(&s);
        }
        recorder.finish();
        let labels: Vec<u32> = recorder.spans().iter().map(|s| s.label.0).collect();
        assert_eq!(labels, [0, 1, 2, 3, 4, 5]);
    }
}
