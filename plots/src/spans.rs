//! Spans of one stream made drawable: neighbours joined, those too narrow to see gathered.

use std::collections::BTreeMap;

use steptime_scenarios::TimelineSpan;

use crate::style::{SPAN_CLASSES, span_class};

/// Spans narrower than this many dots get no box of their own.
const NARROW_DOTS: f64 = 2.0;
/// Index of communication in [`SPAN_CLASSES`].
const COMMUNICATION: usize = 4;

/// One box of a timeline.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Piece {
    /// Seconds.
    pub(crate) start: f64,
    /// Seconds.
    pub(crate) end: f64,
    /// Index into [`SPAN_CLASSES`].
    pub(crate) class: usize,
    pub(crate) micro_batch: Option<u64>,
    /// Of the stage's chunks of layers, where it has several.
    pub(crate) chunk: Option<u64>,
}

/// The boxes of one stream, the gathered narrow ones first. `dot` is the time that one dot stands for.
pub(crate) fn pieces<'a>(spans: impl Iterator<Item = &'a TimelineSpan>, dot: f64) -> Vec<Piece> {
    let (narrow, wide): (Vec<Piece>, Vec<Piece>) =
        joined(spans, dot).into_iter().partition(|piece| piece.end - piece.start < NARROW_DOTS * dot);
    let mut all = gathered(&narrow, dot);
    all.extend(wide);
    all
}

/// Joins spans of the same kind, micro-batch and chunk where the gap between them is less than a dot and small beside
/// both, so that a stream which idles half of the time is not shown busy. Communication outside micro-batches
/// stays apart, so that buckets can be told from each other.
fn joined<'a>(spans: impl Iterator<Item = &'a TimelineSpan>, dot: f64) -> Vec<Piece> {
    let mut spans: Vec<&TimelineSpan> = spans.filter(|span| span.end_s > span.start_s).collect();
    spans.sort_by(|a, b| a.start_s.total_cmp(&b.start_s));
    let mut pieces: Vec<Piece> = Vec::new();
    for span in spans {
        let class = span_class(&span.kind);
        match pieces.last_mut() {
            Some(last)
                if last.class == class
                    && last.micro_batch == span.micro_batch
                    && (last.chunk == span.chunk || last.chunk.is_none() || span.chunk.is_none())
                    && (span.micro_batch.is_some() || class != COMMUNICATION)
                    && span.start_s - last.end <= largest_gap(last, span, dot) =>
            {
                last.end = last.end.max(span.end_s);
                // What belongs to no layer, such as the loss, goes with the chunk beside it.
                last.chunk = last.chunk.or(span.chunk);
            }
            _ => pieces.push(Piece {
                start: span.start_s,
                end: span.end_s,
                class,
                micro_batch: span.micro_batch,
                chunk: span.chunk,
            }),
        }
    }
    pieces
}

fn largest_gap(before: &Piece, after: &TimelineSpan, dot: f64) -> f64 {
    let shorter = (before.end - before.start).min(after.end_s - after.start_s);
    (shorter * 0.1).min(dot)
}

/// Narrow pieces, painted dot by dot: a dot is painted once at least half a dot of activity has gathered, in
/// the colour that is owed most, so that painted length and activity agree over any stretch.
fn gathered(narrow: &[Piece], dot: f64) -> Vec<Piece> {
    let mut dots: BTreeMap<i64, [f64; SPAN_CLASSES.len()]> = BTreeMap::new();
    for piece in narrow {
        let (first, last) = ((piece.start / dot).floor() as i64, (piece.end / dot).ceil() as i64);
        for index in first..last.max(first + 1) {
            let (from, to) = (index as f64 * dot, (index + 1) as f64 * dot);
            let share = (piece.end.min(to) - piece.start.max(from)).max(0.0) / dot;
            dots.entry(index).or_default()[piece.class] += share;
        }
    }
    let mut painted: Vec<Piece> = Vec::new();
    // What is owed is carried over gaps: a stream that is busy for a hundredth of every dot has a dot in a hundred.
    let mut owed = [0.0; SPAN_CLASSES.len()];
    for (index, shares) in dots {
        for (debt, share) in owed.iter_mut().zip(shares) {
            *debt += share;
        }
        if owed.iter().sum::<f64>() < 0.5 {
            continue;
        }
        let mut class = 0;
        for (candidate, debt) in owed.iter().enumerate() {
            if *debt > owed[class] {
                class = candidate;
            }
        }
        owed[class] -= 1.0;
        let (start, end) = (index as f64 * dot, (index + 1) as f64 * dot);
        match painted.last_mut() {
            Some(last) if last.class == class && (start - last.end).abs() < dot / 2.0 => last.end = end,
            _ => painted.push(Piece { start, end, class, micro_batch: None, chunk: None }),
        }
    }
    painted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start_s: f64, end_s: f64, kind: &str, micro_batch: Option<u64>) -> TimelineSpan {
        let name = String::new();
        TimelineSpan { stream: 0, start_s, end_s, kind: kind.into(), name, micro_batch, chunk: None }
    }

    /// Where the last stage of one chunk is the first of the next, both passes of a micro-batch follow each other.
    #[test]
    fn passes_of_two_chunks_are_two_boxes() {
        let of_chunk = |at: f64, chunk| TimelineSpan { chunk, ..span(at, at + 1.0, "forward", Some(0)) };
        let spans =
            [of_chunk(0.0, Some(0)), of_chunk(1.0, Some(0)), of_chunk(2.0, Some(1)), of_chunk(3.0, None)];
        let boxes: Vec<_> = pieces(spans.iter(), 0.01).iter().map(|p| (p.start, p.end, p.chunk)).collect();
        assert_eq!(boxes, [(0.0, 2.0, Some(0)), (2.0, 4.0, Some(1))]);
    }

    #[test]
    fn layers_of_one_micro_batch_become_one_box() {
        let spans = [
            span(0.0, 1.0, "forward", Some(0)),
            span(1.0, 2.0, "forward", Some(0)),
            span(2.0, 3.0, "forward", Some(1)),
            span(3.0, 4.0, "backward", Some(1)),
        ];
        let boxes: Vec<_> =
            pieces(spans.iter(), 0.01).iter().map(|p| (p.start, p.end, p.micro_batch)).collect();
        assert_eq!(boxes, [(0.0, 2.0, Some(0)), (2.0, 3.0, Some(1)), (3.0, 4.0, Some(1))]);
    }

    #[test]
    fn buckets_stay_apart() {
        let spans = [span(0.0, 1.0, "all_reduce", None), span(1.0, 2.0, "all_reduce", None)];
        assert_eq!(pieces(spans.iter(), 0.01).len(), 2);
    }

    #[test]
    fn narrow_spans_paint_as_much_as_they_last() {
        // 1,000 spans of 0.3 dots, one a dot: 300 dots of activity.
        let spans: Vec<_> = (0..1000).map(|i| span(f64::from(i), f64::from(i) + 0.3, "host", None)).collect();
        let boxes = pieces(spans.iter(), 1.0);
        let painted: f64 = boxes.iter().map(|p| p.end - p.start).sum();
        assert!((painted - 300.0).abs() <= 1.0, "{painted}");
        // 30,000 spans that fill the stream: far fewer boxes than spans.
        let spans: Vec<_> = (0..30_000)
            .map(|i| {
                let kind = if i % 2 == 0 { "forward" } else { "backward" };
                span(f64::from(i) / 100.0, f64::from(i + 1) / 100.0, kind, None)
            })
            .collect();
        let boxes = pieces(spans.iter(), 1.0);
        assert!(boxes.len() <= 300, "{}", boxes.len());
        let painted: f64 = boxes.iter().map(|p| p.end - p.start).sum();
        assert!((painted - 300.0).abs() <= 1.0, "{painted}");
    }

    #[test]
    fn spans_without_length_are_not_drawn() {
        assert!(pieces([span(1.0, 1.0, "forward", None)].iter(), 0.1).is_empty());
    }
}
