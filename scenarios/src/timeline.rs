//! From what the engine recorded to a saved timeline.

use steptime_core::{
    Label, MemoryRecord, NoObserver, Outcome, Recorder, SimTime, SimulationError, Span, SpanKind, World,
    simulate,
};
use steptime_plans::classes;

use crate::report::{MemoryPoint, TIMELINE_SCHEMA, Timeline, TimelineRank, TimelineSpan, total};

/// What a played rank is, in the order of the world's ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Rank number.
    pub rank: u64,
    /// Pipeline stage.
    pub stage: u64,
    /// Ranks that it stands for.
    pub multiplicity: u64,
    /// Name of its device.
    pub device: String,
    /// Bytes that the device has.
    pub capacity_bytes: u64,
}

/// A played world with all that happened in it, to the picosecond: what traces are written from.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The scenario's name.
    pub name: String,
    /// What was played.
    pub world: World,
    /// What happened.
    pub recorder: Recorder,
    /// What every rank did in all.
    pub outcome: Outcome,
    /// The job's own ranks, which are the first of the world.
    pub places: Vec<Place>,
}

/// Plays a world, of whose ranks the first `own` are the job's; what happens is recorded only if a timeline is asked for.
///
/// # Errors
/// The world cannot be played to its end.
pub(crate) fn play(
    name: &str,
    (world, own): (&World, usize),
    places: impl Iterator<Item = Place>,
    with_timeline: bool,
) -> Result<(Outcome, Option<(Timeline, Recording)>), SimulationError> {
    if !with_timeline {
        return Ok((simulate(world, &mut NoObserver)?.of_first(own, classes::TAIL), None));
    }
    let mut recorder = Recorder::default();
    let outcome = simulate(world, &mut recorder)?.of_first(own, classes::TAIL);
    let places: Vec<Place> = places.collect();
    let ranks = places
        .iter()
        .enumerate()
        .map(|(index, place)| {
            let spans = of_rank(recorder.spans(), index, |span| span.rank);
            let memory = of_rank(recorder.memory_records(), index, |record| record.rank);
            rank(world, index, place, spans, memory)
        })
        .collect();
    let timeline = Timeline {
        schema: TIMELINE_SCHEMA.to_owned(),
        name: name.to_owned(),
        step_time_s: outcome.end.seconds(),
        ranks,
    };
    let (name, world) = (name.to_owned(), world.clone());
    let recording = Recording { name, world, recorder, outcome: outcome.clone(), places };
    Ok((outcome, Some((timeline, recording))))
}

/// The records of one rank; the recorder has sorted them by rank.
fn of_rank<T>(records: &[T], index: usize, rank: impl Fn(&T) -> u32) -> &[T] {
    let begin = records.partition_point(|record| (rank(record) as usize) < index);
    let end = records.partition_point(|record| rank(record) as usize <= index);
    &records[begin..end]
}

fn rank(world: &World, index: usize, place: &Place, spans: &[Span], memory: &[MemoryRecord]) -> TimelineRank {
    let program = &world.programs()[world.ranks()[index].program as usize];
    let mut streams: Vec<String> = program.streams().to_vec();
    let host = streams.len() as u32;
    streams.push("host".to_owned());
    let text = |label: Label| program.label(label);
    TimelineRank {
        rank: place.rank,
        stage: place.stage,
        multiplicity: place.multiplicity,
        device: place.device.clone(),
        spans: merge(spans, host, &text),
        memory: curve(memory),
        memory_categories: stacked().map(|(_, name)| name.to_owned()).collect(),
        reserved: Vec::new(),
        failed_request: None,
        capacity_bytes: place.capacity_bytes,
        streams,
    }
}

/// One span for a run of kernels of the same layer, pass and micro-batch with nothing between them.
fn merge<'a>(spans: &[Span], host: u32, text: &dyn Fn(Label) -> &'a str) -> Vec<TimelineSpan> {
    let mut merged: Vec<TimelineSpan> = Vec::new();
    let mut last: Option<Span> = None;
    for span in spans {
        let stream = span.stream.map_or(host, |stream| u32::from(stream.0));
        let continues = last.is_some_and(|last| {
            last.stream == span.stream
                && last.kind == span.kind
                && last.label == span.label
                && last.end == span.start
        });
        match (continues, merged.last_mut()) {
            (true, Some(open)) => open.end_s = span.end.seconds(),
            _ => merged.push(describe(span, stream, text(span.label))),
        }
        last = Some(*span);
    }
    merged
}

/// Kinds that are passes over layers.
const PASSES: [&str; 4] = ["forward", "backward", "recompute", "weights"];

/// Labels read `name|kind|micro-batch`, with `-` for no micro-batch; on stages of several chunks passes add `|chunk`.
fn describe(span: &Span, stream: u32, label: &str) -> TimelineSpan {
    let mut parts = label.split('|');
    let name = parts.next().unwrap_or_default();
    let kind = parts.next().unwrap_or("other");
    let mut number = || parts.next().and_then(|number| number.parse().ok());
    let (micro_batch, chunk) = (number(), number());
    let kind = match span.kind {
        SpanKind::Waiting => "waiting",
        SpanKind::Host => "host",
        // What belongs to a layer has the layer's label; on a stream of its own it is no pass.
        SpanKind::Transfer if stream != 0 && PASSES.contains(&kind) => "collective",
        SpanKind::Kernel | SpanKind::Transfer => kind,
    };
    TimelineSpan {
        stream,
        start_s: span.start.seconds(),
        end_s: span.end.seconds(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        micro_batch,
        chunk,
    }
}

/// Categories in the order in which the curve stacks them: what never changes lies at the bottom.
fn stacked() -> impl Iterator<Item = (u8, &'static str)> {
    let names = || (0_u8..).zip(classes::CATEGORY_NAMES);
    let is_context = |&(category, _): &(u8, &str)| category == classes::CONTEXT.0;
    names().filter(is_context).chain(names().filter(move |entry| !is_context(entry)))
}

/// Bytes by category after each moment at which they change.
fn curve(records: &[MemoryRecord]) -> Vec<MemoryPoint> {
    let places: Vec<u8> = stacked().map(|(category, _)| category).collect();
    let mut bytes = vec![0_u64; places.len()];
    let mut points: Vec<MemoryPoint> = Vec::new();
    let mut last: Option<SimTime> = None;
    for record in records {
        let place = places.iter().position(|&category| category == record.category.0);
        if let Some(held) = place.and_then(|place| bytes.get_mut(place)) {
            *held = held.saturating_add_signed(record.delta);
        }
        match points.last_mut() {
            // Several changes at one moment: the curve shows the highest level, or a peak could vanish.
            Some(point) if last == Some(record.at) => {
                if point.total() < total(&bytes) {
                    point.bytes.clone_from(&bytes);
                }
            }
            _ => points.push(MemoryPoint { at_s: record.at.seconds(), bytes: bytes.clone() }),
        }
        last = Some(record.at);
    }
    if let (Some(at), true) = (last, points.last().is_some_and(|point| point.bytes != bytes)) {
        points.push(MemoryPoint { at_s: at.seconds(), bytes });
    }
    points
}
