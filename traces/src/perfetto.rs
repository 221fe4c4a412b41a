//! Perfetto's native format: a stream of protobuf packets, a fraction of the size of JSON.
//!
//! The messages are those parts of `protos/perfetto/trace/**/*.proto` that are written here, with its field numbers. Times
//! are nanoseconds, Perfetto's resolution: what is shorter vanishes into its neighbours. Names are interned.

use std::collections::BTreeMap;

use prost::Message;

use crate::tracks::{Counter, Track, Tracks};

/// Writer of all packets; any number but 0.
const SEQUENCE: u32 = 1;
/// `SEQ_INCREMENTAL_STATE_CLEARED`: interned names begin here.
const CLEARED: u32 = 1;
/// `SEQ_NEEDS_INCREMENTAL_STATE`: interned names are used.
const NEEDS: u32 = 2;
/// `TrackEvent.Type`.
const BEGIN: i32 = 1;
const END: i32 = 2;
const COUNT: i32 = 4;
/// `CounterDescriptor.Unit.UNIT_SIZE_BYTES`.
const UNIT_BYTES: i32 = 3;

#[derive(Clone, PartialEq, Message)]
struct Trace {
    #[prost(message, repeated, tag = "1")]
    packet: Vec<TracePacket>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TracePacket {
    #[prost(uint64, optional, tag = "8")]
    pub(crate) timestamp: Option<u64>,
    #[prost(uint32, optional, tag = "10")]
    pub(crate) trusted_packet_sequence_id: Option<u32>,
    #[prost(message, optional, tag = "11")]
    pub(crate) track_event: Option<TrackEvent>,
    #[prost(message, optional, tag = "12")]
    pub(crate) interned_data: Option<InternedData>,
    #[prost(uint32, optional, tag = "13")]
    pub(crate) sequence_flags: Option<u32>,
    #[prost(message, optional, tag = "60")]
    pub(crate) track_descriptor: Option<TrackDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TrackDescriptor {
    #[prost(uint64, optional, tag = "1")]
    pub(crate) uuid: Option<u64>,
    #[prost(string, optional, tag = "2")]
    pub(crate) name: Option<String>,
    #[prost(uint64, optional, tag = "5")]
    pub(crate) parent_uuid: Option<u64>,
    #[prost(message, optional, tag = "8")]
    pub(crate) counter: Option<CounterDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CounterDescriptor {
    #[prost(int32, optional, tag = "3")]
    unit: Option<i32>,
    #[prost(string, optional, tag = "6")]
    unit_name: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TrackEvent {
    #[prost(uint64, repeated, tag = "3")]
    pub(crate) category_iids: Vec<u64>,
    #[prost(int32, optional, tag = "9")]
    pub(crate) kind: Option<i32>,
    #[prost(uint64, optional, tag = "10")]
    pub(crate) name_iid: Option<u64>,
    #[prost(uint64, optional, tag = "11")]
    pub(crate) track_uuid: Option<u64>,
    #[prost(int64, optional, tag = "30")]
    pub(crate) counter_value: Option<i64>,
    #[prost(fixed64, repeated, tag = "47")]
    pub(crate) flow_ids: Vec<u64>,
    #[prost(fixed64, repeated, tag = "48")]
    pub(crate) terminating_flow_ids: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct InternedData {
    #[prost(message, repeated, tag = "1")]
    pub(crate) event_categories: Vec<InternedName>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) event_names: Vec<InternedName>,
}

/// `EventCategory` and `EventName`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct InternedName {
    #[prost(uint64, optional, tag = "1")]
    pub(crate) iid: Option<u64>,
    #[prost(string, optional, tag = "2")]
    pub(crate) name: Option<String>,
}

/// The trace in Perfetto's format.
pub fn perfetto_trace(tracks: &Tracks) -> Vec<u8> {
    let mut out = Writer::default();
    out.interned(tracks);
    let about: Vec<String> = tracks.facts.iter().map(|(name, text)| format!("{name} {text}")).collect();
    let title = if about.is_empty() {
        tracks.name.clone()
    } else {
        format!("{} ({})", tracks.name, about.join(", "))
    };
    let root = out.describe(&title, None, None);
    for group in &tracks.groups {
        let parent = out.describe(&group.name, Some(root), None);
        for track in &group.tracks {
            out.track(parent, track);
        }
        for counter in &group.counters {
            out.counter(parent, counter);
        }
    }
    out.bytes
}

/// Packets of a trace, for tests.
#[cfg(test)]
pub(crate) fn packets(bytes: &[u8]) -> Vec<TracePacket> {
    Trace::decode(bytes).map(|trace| trace.packet).unwrap_or_default()
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    tracks: u64,
    names: BTreeMap<String, u64>,
    categories: BTreeMap<String, u64>,
}

impl Writer {
    /// A trace is its packets, one after the other, each as the field of a message: no need to hold them all.
    fn push(&mut self, packet: TracePacket) {
        let packet = TracePacket { trusted_packet_sequence_id: Some(SEQUENCE), ..packet };
        let one = Trace { packet: vec![packet] };
        // Memory has room for what it encodes.
        let _ = one.encode(&mut self.bytes);
    }

    /// Names of all slices, before the first of them.
    fn interned(&mut self, tracks: &Tracks) {
        for slice in tracks.groups.iter().flat_map(|group| &group.tracks).flat_map(|track| &track.slices) {
            for (known, text) in [(&mut self.names, &slice.name), (&mut self.categories, &slice.category)] {
                if !known.contains_key(text) {
                    let next = known.len() as u64 + 1;
                    known.insert(text.clone(), next);
                }
            }
        }
        let list = |names: &BTreeMap<String, u64>| {
            let name =
                |(name, iid): (&String, &u64)| InternedName { iid: Some(*iid), name: Some(name.clone()) };
            names.iter().map(name).collect()
        };
        let data = InternedData { event_categories: list(&self.categories), event_names: list(&self.names) };
        self.push(TracePacket {
            interned_data: Some(data),
            sequence_flags: Some(CLEARED),
            ..TracePacket::default()
        });
    }

    fn describe(&mut self, name: &str, parent: Option<u64>, counter: Option<CounterDescriptor>) -> u64 {
        self.tracks += 1;
        let track_descriptor = TrackDescriptor {
            uuid: Some(self.tracks),
            name: Some(name.to_owned()),
            parent_uuid: parent,
            counter,
        };
        self.push(TracePacket { track_descriptor: Some(track_descriptor), ..TracePacket::default() });
        self.tracks
    }

    fn event(&mut self, picos: u64, event: TrackEvent) {
        self.push(TracePacket {
            timestamp: Some(nanos(picos)),
            track_event: Some(event),
            sequence_flags: Some(NEEDS),
            ..TracePacket::default()
        });
    }

    /// Begins and ends in the order in which they nest.
    fn track(&mut self, parent: u64, track: &Track) {
        let uuid = self.describe(&track.name, Some(parent), None);
        let mut open: Vec<(u64, u32)> = Vec::new();
        for slice in &track.slices {
            self.close(uuid, &mut open, slice.depth);
            let flows = |leaves: bool| {
                slice.arrow.iter().filter(|it| it.leaves == leaves).map(|it| it.number).collect()
            };
            let event = TrackEvent {
                category_iids: self.categories.get(&slice.category).copied().into_iter().collect(),
                kind: Some(BEGIN),
                name_iid: self.names.get(&slice.name).copied(),
                track_uuid: Some(uuid),
                flow_ids: flows(true),
                terminating_flow_ids: flows(false),
                ..TrackEvent::default()
            };
            self.event(slice.start, event);
            open.push((slice.end, slice.depth));
        }
        self.close(uuid, &mut open, 0);
    }

    /// Ends what is open at a depth or below it.
    fn close(&mut self, uuid: u64, open: &mut Vec<(u64, u32)>, depth: u32) {
        while let Some((end, _)) = open.pop_if(|(_, of)| *of >= depth) {
            let event = TrackEvent { kind: Some(END), track_uuid: Some(uuid), ..TrackEvent::default() };
            self.event(end, event);
        }
    }

    fn counter(&mut self, parent: u64, counter: &Counter) {
        for (at, name) in counter.series.iter().enumerate() {
            let title = if counter.series.len() > 1 {
                format!("{}: {name}", counter.name)
            } else {
                counter.name.clone()
            };
            let (unit, unit_name) = match counter.unit {
                "bytes" => (Some(UNIT_BYTES), None),
                other => (None, Some(other.to_owned())),
            };
            let uuid = self.describe(&title, Some(parent), Some(CounterDescriptor { unit, unit_name }));
            let mut last = None;
            for (moment, values) in &counter.points {
                let value = values.get(at).copied().unwrap_or(0);
                if last.replace(value) == Some(value) {
                    continue;
                }
                let event = TrackEvent {
                    kind: Some(COUNT),
                    track_uuid: Some(uuid),
                    counter_value: Some(i64::try_from(value).unwrap_or(i64::MAX)),
                    ..TrackEvent::default()
                };
                self.event(*moment, event);
            }
        }
    }
}

/// Picoseconds as nanoseconds, rounded.
fn nanos(picos: u64) -> u64 {
    picos / 1_000 + u64::from(picos % 1_000 >= 500)
}
