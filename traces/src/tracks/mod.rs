//! Named tracks of nested slices, from what the engine recorded.

mod links;
mod meetings;
mod slices;

use std::collections::BTreeMap;

use steptime_core::{Span, SpanKind};
use steptime_scenarios::{Recording, Timeline};

use self::meetings::Met;

/// Everything that a viewer shows of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracks {
    /// The scenario's name.
    pub name: String,
    /// Length of the step, picoseconds.
    pub makespan: u64,
    /// Ranks in their order, then the links.
    pub groups: Vec<TrackGroup>,
    /// What belongs with the trace: pairs of a name and a text.
    pub facts: Vec<(String, String)>,
}

/// Tracks of one rank, or of the links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackGroup {
    /// What they are of.
    pub name: String,
    /// The tracks.
    pub tracks: Vec<Track>,
    /// Quantities over time.
    pub counters: Vec<Counter>,
}

/// One stream, host thread or link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// Its name.
    pub name: String,
    /// Slices by start, those around others before them. Two slices of a track are apart, or one is inside the other.
    pub slices: Vec<Slice>,
    /// Picoseconds in which it does something: the lengths of its innermost slices. The rest of the step it is idle.
    pub busy: u64,
}

/// A stretch of a track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// What it is.
    pub name: String,
    /// Word of its kind: `forward`, `all_reduce`, `waiting`.
    pub category: String,
    /// First picosecond.
    pub start: u64,
    /// First picosecond after.
    pub end: u64,
    /// How many slices it is inside of.
    pub depth: u32,
    /// Its micro-batch, if it belongs to one.
    pub micro_batch: Option<u64>,
    /// Bytes that it moves, where it moves any.
    pub bytes: Option<u64>,
    /// The send that leaves or arrives with it.
    pub arrow: Option<Arrow>,
}

/// One end of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrow {
    /// Number of the send in the trace; both of its ends have it.
    pub number: u64,
    /// Whether this is where it leaves.
    pub leaves: bool,
}

/// Quantities over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// What is counted.
    pub name: String,
    /// `bytes` or `bytes/s`.
    pub unit: &'static str,
    /// Names of the parts.
    pub series: Vec<String>,
    /// Moments in picoseconds, and the parts from there on.
    pub points: Vec<(u64, Vec<u64>)>,
}

impl Tracks {
    /// The tracks of a recorded step. The timeline of the same step gives the memory.
    pub fn of(recording: &Recording, timeline: Option<&Timeline>, facts: Vec<(String, String)>) -> Self {
        let meetings = meetings::of(recording);
        let spans = recording.recorder.spans();
        let own = recording.places.len();
        let mut groups = Vec::with_capacity(own + 1);
        for (index, place) in recording.places.iter().enumerate() {
            let begin = spans.partition_point(|span| (span.rank as usize) < index);
            let end = spans.partition_point(|span| (span.rank as usize) <= index);
            let name = format!("rank {} (stage {}, {})", place.rank, place.stage, place.device);
            let tracks = rank_tracks(recording, index, &spans[begin..end], &meetings);
            let memory = timeline.and_then(|it| it.ranks.get(index)).map(memory_counter);
            groups.push(TrackGroup { name, tracks, counters: memory.into_iter().collect() });
        }
        groups.push(links::group(recording));
        let makespan = recording.outcome.end.picos();
        Self { name: recording.name.clone(), makespan, groups, facts }
    }

    /// Slices of all tracks.
    pub fn slices(&self) -> usize {
        self.groups.iter().flat_map(|group| &group.tracks).map(|track| track.slices.len()).sum()
    }
}

/// Host and streams of a rank.
fn rank_tracks(
    recording: &Recording,
    index: usize,
    spans: &[Span],
    meetings: &BTreeMap<(u32, u8), Vec<Met>>,
) -> Vec<Track> {
    let program = &recording.world.programs()[recording.world.ranks()[index].program as usize];
    let label = |span: &Span| program.label(span.label);
    let host: Vec<Span> = spans.iter().filter(|span| span.stream.is_none()).copied().collect();
    let mut tracks = vec![slices::track("host", &host, &[], label)];
    for (number, name) in program.streams().iter().enumerate() {
        let of_stream = |span: &&Span| span.stream.is_some_and(|stream| usize::from(stream.0) == number);
        let own: Vec<Span> = spans.iter().filter(of_stream).copied().collect();
        let met = meetings.get(&(index as u32, number as u8)).map_or(&[][..], Vec::as_slice);
        tracks.push(slices::track(name, &own, met, label));
    }
    tracks.retain(|track| !track.slices.is_empty());
    tracks
}

/// Memory of a rank by category.
fn memory_counter(rank: &steptime_scenarios::TimelineRank) -> Counter {
    let picos = |seconds: f64| (seconds * 1e12).round() as u64;
    let points = rank.memory.iter().map(|point| (picos(point.at_s), point.bytes.clone()));
    Counter {
        name: "memory".to_owned(),
        unit: "bytes",
        series: rank.memory_categories.clone(),
        points: points.collect(),
    }
}

/// Whether a span is a transfer or the waiting for one.
fn is_meeting(span: &Span) -> bool {
    matches!(span.kind, SpanKind::Transfer | SpanKind::Waiting)
}
