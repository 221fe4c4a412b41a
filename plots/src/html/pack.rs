//! Timelines as pages hold them: columns of 32-bit differences, deflated, in base64. A tenth of the JSON's size.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use indexmap::IndexSet;
use serde_json::{Value, json};
use steptime_scenarios::{MemoryPoint, Timeline, TimelineRank, TimelineSpan};

use crate::error::PlotError;

/// Most spans of a page. Of more, those of one kind and micro-batch that follow each other are joined; ranks that are still
/// too many are left out. The page says both.
const MOST_SPANS: usize = 300_000;
/// Share of the step that may lie between two spans that are joined where there are too many.
const GAP: f64 = 1e-4;
/// Stretches of the step of which a curve of memory keeps the fullest moment each.
const STRETCHES: usize = 3_000;
/// Bytes of memory that one count of a column stands for: what allocators round to.
const UNIT: u64 = 512;

/// Columns one after the other, each value as the difference to the one before: small numbers, which deflate well.
#[derive(Default)]
struct Columns(Vec<u8>);

impl Columns {
    fn add(&mut self, values: impl Iterator<Item = u32>) {
        let mut last = 0_u32;
        for value in values {
            self.0.extend_from_slice(&value.wrapping_sub(last).to_le_bytes());
            last = value;
        }
    }

    fn text(&self) -> Result<String, PlotError> {
        let failed = |error: std::io::Error| PlotError::Page { message: error.to_string() };
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&self.0).map_err(failed)?;
        Ok(STANDARD.encode(encoder.finish().map_err(failed)?))
    }
}

/// The timeline for a page's script.
pub(super) fn packed(timeline: &Timeline) -> Result<Value, PlotError> {
    let all: usize = timeline.ranks.iter().map(|rank| rank.spans.len()).sum();
    let gap = GAP * timeline.step_time_s;
    let close = (all > MOST_SPANS).then(|| Timeline {
        ranks: timeline.ranks.iter().map(|rank| joined(rank, gap)).collect(),
        ..timeline.clone()
    });
    let ranks = shown(close.as_ref().unwrap_or(timeline));
    let spans = ranks.iter().flat_map(|rank| &rank.spans);
    let end = spans.clone().map(|span| span.end_s).fold(timeline.step_time_s, f64::max);
    // Half of the range of 32 bits: rounding cannot carry a moment out of it.
    let tick = if end > 0.0 { end / f64::from(u32::MAX / 2) } else { 1.0 };
    let moment = |seconds: f64| (seconds / tick).round() as u32;
    let mut names: IndexSet<&str> = IndexSet::new();
    let mut kinds: IndexSet<&str> = IndexSet::new();
    let mut columns = Columns::default();
    let mut facts = Vec::new();
    for rank in &ranks {
        let spans = &rank.spans;
        columns.add(spans.iter().map(|span| moment(span.start_s)));
        columns.add(spans.iter().map(|span| moment(span.end_s) - moment(span.start_s)));
        columns.add(spans.iter().map(|span| span.stream));
        columns.add(spans.iter().map(|span| kinds.insert_full(&span.kind).0 as u32));
        columns.add(spans.iter().map(|span| names.insert_full(&span.name).0 as u32));
        columns.add(spans.iter().map(|span| span.micro_batch.map_or(0, |number| number as u32 + 1)));
        let curve = thinned(&rank.memory, end);
        let units = |bytes: u64| u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        columns.add(curve.iter().map(|point| moment(point.at_s)));
        for category in 0..rank.memory_categories.len() {
            columns
                .add(curve.iter().map(|point| units(point.bytes.get(category).copied().unwrap_or_default())));
        }
        columns.add(rank.reserved.iter().map(|point| moment(point.at_s)));
        columns.add(rank.reserved.iter().map(|point| units(point.bytes)));
        facts.push(json!({
            "rank": rank.rank,
            "stage": rank.stage,
            "multiplicity": rank.multiplicity,
            "device": rank.device,
            "capacity_bytes": rank.capacity_bytes,
            "streams": rank.streams,
            "categories": rank.memory_categories,
            "failed": rank.failed_request,
            "spans": spans.len(),
            "points": curve.len(),
            "levels": rank.reserved.len(),
        }));
    }
    let note = note(close.is_some(), ranks.len(), timeline.ranks.len());
    Ok(json!({
        "end_s": end,
        "step_time_s": timeline.step_time_s,
        "tick_s": tick,
        "unit_bytes": UNIT,
        "kinds": kinds,
        "names": names,
        "ranks": facts,
        "note": note,
        "data": columns.text()?,
    }))
}

/// What the page leaves out of the timeline.
fn note(joined: bool, shown: usize, ranks: usize) -> Option<String> {
    let mut text = String::new();
    if joined {
        text += "Spans of one kind and micro-batch that follow each other are drawn as one. ";
    }
    if shown < ranks {
        text += &format!("{shown} of {ranks} ranks are shown, of each stage the first ones. ");
    }
    (!text.is_empty()).then(|| text + "timeline.json has everything.")
}

/// The rank with one span for each run of spans of one kind and micro-batch.
fn joined(rank: &TimelineRank, gap: f64) -> TimelineRank {
    let mut spans: Vec<TimelineSpan> = Vec::new();
    let mut last_name = "";
    for span in &rank.spans {
        let open = spans.last_mut().filter(|open| {
            let alike = open.stream == span.stream && open.kind == span.kind;
            let same = open.micro_batch == span.micro_batch && open.chunk == span.chunk;
            alike && same && span.start_s - open.end_s <= gap
        });
        if let Some(open) = open {
            open.end_s = open.end_s.max(span.end_s);
            if last_name != span.name {
                let first = open.name.split(" … ").next().unwrap_or_default();
                open.name = format!("{first} … {}", span.name);
            }
        } else {
            spans.push(span.clone());
        }
        last_name = &span.name;
    }
    TimelineRank { spans, ..rank.clone() }
}

/// The ranks that a page has room for: the first of each stage, then the second of each, and so on; in their own order.
fn shown(timeline: &Timeline) -> Vec<&TimelineRank> {
    let mut of_stage = std::collections::BTreeMap::new();
    let mut turns: Vec<(usize, usize)> = Vec::new();
    for (index, rank) in timeline.ranks.iter().enumerate() {
        let turn = of_stage.entry(rank.stage).or_insert(0_usize);
        turns.push((*turn, index));
        *turn += 1;
    }
    turns.sort_unstable();
    let mut room = MOST_SPANS;
    let fits = |&&(_, index): &&(usize, usize)| {
        let left = room.checked_sub(timeline.ranks[index].spans.len());
        room = left.unwrap_or(0);
        left.is_some()
    };
    let mut kept: Vec<usize> = turns.iter().take_while(fits).map(|&(_, index)| index).collect();
    kept.sort_unstable();
    kept.into_iter().map(|index| &timeline.ranks[index]).collect()
}

/// A curve with the fullest moment of each of many stretches of the step, and the last one.
fn thinned(points: &[MemoryPoint], end: f64) -> Vec<&MemoryPoint> {
    if points.len() <= 2 * STRETCHES {
        return points.iter().collect();
    }
    let stretch = |point: &MemoryPoint| (point.at_s / end * STRETCHES as f64) as usize;
    let mut kept: Vec<&MemoryPoint> = Vec::new();
    for group in points.chunk_by(|a, b| stretch(a) == stretch(b)) {
        let fullest = group.iter().max_by_key(|point| point.total());
        let last = group.last().filter(|last| fullest.is_none_or(|fullest| fullest.at_s < last.at_s));
        kept.extend(fullest.into_iter().chain(last));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use steptime_scenarios::TIMELINE_SCHEMA;

    fn rank(number: u64, stage: u64, spans: usize) -> TimelineRank {
        let span = |index: usize| TimelineSpan {
            stream: 0,
            start_s: index as f64,
            end_s: index as f64 + 0.5,
            kind: "forward".to_owned(),
            name: "block.0".to_owned(),
            micro_batch: Some(0),
            chunk: None,
        };
        TimelineRank {
            rank: number,
            stage,
            multiplicity: 1,
            device: "GPU".to_owned(),
            streams: vec!["compute".to_owned(), "host".to_owned()],
            spans: (0..spans).map(span).collect(),
            memory: vec![MemoryPoint { at_s: 0.0, bytes: vec![1_000] }],
            memory_categories: vec!["activations".to_owned()],
            reserved: Vec::new(),
            failed_request: None,
            capacity_bytes: 1 << 34,
        }
    }

    fn timeline(ranks: Vec<TimelineRank>) -> Timeline {
        Timeline { schema: TIMELINE_SCHEMA.to_owned(), name: "one".to_owned(), step_time_s: 2.0, ranks }
    }

    #[test]
    fn columns_are_the_differences_of_what_they_hold() {
        let packed = packed(&timeline(vec![rank(0, 0, 2)])).unwrap();
        let deflated = STANDARD.decode(packed["data"].as_str().unwrap()).unwrap();
        let mut raw = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(&deflated[..]), &mut raw).unwrap();
        let values: Vec<u32> = raw
            .chunks_exact(4)
            .map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
            .collect();
        // Two spans of half a second, one second apart, in a step of two: the tick is 2 s / (2^31 - 1). They begin at ticks
        // 0 and 1,073,741,823.5 and end at 536,870,911.75 and 1,610,612,735.25; begins and ends are rounded, so that the
        // second is a tick shorter than the first.
        let second = 1_073_741_824;
        assert_eq!(values[..4], [0, second, second / 2, u32::MAX]);
        // Streams, kinds, names, micro-batches from 1; then the one moment of memory, 1,000 bytes being two units.
        assert_eq!(values[4..], [0, 0, 0, 0, 0, 0, 1, 0, 0, 2]);
    }

    #[test]
    fn of_too_many_ranks_each_stage_keeps_its_first() {
        let ranks = (0..6).map(|number| rank(number, number / 3, MOST_SPANS / 4)).collect();
        let mut timeline = timeline(ranks);
        let numbers: Vec<u64> = shown(&timeline).iter().map(|rank| rank.rank).collect();
        assert_eq!(numbers, [0, 1, 3, 4]);
        assert!(packed(&timeline).unwrap()["note"].as_str().unwrap().contains("4 of 6 ranks"));
        // Half a second lies between the spans: within a ten-thousandth of a long step they are one.
        timeline.step_time_s = 1e4;
        let joined = packed(&timeline).unwrap();
        assert_eq!(joined["ranks"].as_array().unwrap().len(), 6);
        assert_eq!(joined["ranks"][0]["spans"], 1);
    }

    #[test]
    fn thin_curves_keep_the_peak() {
        let mut points: Vec<MemoryPoint> =
            (0..20_000).map(|at| MemoryPoint { at_s: f64::from(at), bytes: vec![1] }).collect();
        points[12_345].bytes = vec![9];
        let curve = thinned(&points, 20_000.0);
        assert!(curve.len() <= 2 * STRETCHES + 2);
        assert!(curve.iter().any(|point| point.bytes == [9]));
        assert!(curve.is_sorted_by(|a, b| a.at_s < b.at_s));
    }
}
