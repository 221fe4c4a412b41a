//! The timeline of a step: one row for every stage and stream, a box for everything it does.

use std::collections::BTreeMap;

use steptime_scenarios::{Timeline, TimelineRank, TimelineSpan};

use crate::axis::{Direction, Quantity};
use crate::canvas::{Anchor, Canvas, Rect};
use crate::error::PlotError;
use crate::font::text_width;
use crate::frame::{Axis, X_AXIS_HEIGHT};
use crate::row_labels::{Labels, groups};
use crate::spans::{Piece, pieces};
use crate::style::{AXIS_PT, BLACK, DOT_PT, MARGIN_PT, SMALLEST_PT, SPAN_CLASSES, TICK_PT};
use crate::{Figure, FigureKind, Width, check, legend};

/// Rows of the fullest figure; of more, a part is shown and said to be one.
const MOST_ROWS: usize = 64;

/// Share of the step for which a stream must do something other than wait to have a row.
const LEAST_BUSY: f64 = 0.01;
/// Height that all rows share when they are many, points.
const ROWS_HEIGHT: f64 = 300.0;
/// Height of a row when they are few, points.
const TALLEST_ROW: f64 = 12.0;
/// Share of a row that its boxes fill.
const BOX_SHARE: f64 = 0.86;
/// Gap between ranks that have several rows, points.
const GROUP_GAP: f64 = 3.0;

/// One stream of one rank.
#[derive(Clone, Debug)]
pub(crate) struct Row<'a> {
    /// Index into [`Timeline::ranks`].
    pub(crate) rank: usize,
    /// Index into [`TimelineRank::streams`].
    pub(crate) stream: usize,
    spans: Vec<&'a TimelineSpan>,
}

impl Row<'_> {
    /// Seconds in which the stream does something other than wait.
    fn busy(&self) -> f64 {
        self.spans.iter().filter(|span| span.kind != "waiting").map(|span| span.end_s - span.start_s).sum()
    }
}

/// Draws what every stage and stream does over the step: forward, backward, recomputation, optimizer,
/// communication and waiting, with the numbers of the micro-batches (from 0) where they fit. On stages of several chunks a
/// bar at the foot of a pass says which chunk it is: none for the first, as wide as the box for the last. Idle time is
/// blank. Streams that hardly do anything but wait are left out. Of more than 64 rows one rank a stage is
/// shown, then only the compute streams, then an even choice of them; the figure says so.
///
/// # Errors
/// [`PlotError::Empty`] for a timeline without any activity, [`PlotError::Damaged`] for impossible times.
pub fn pipeline_gantt(timeline: &Timeline, width: Width) -> Result<Figure, PlotError> {
    check::spans(timeline)?;
    let (rows, note) = thinned(rows_of(timeline), &timeline.ranks, timeline.step_time_s);
    if rows.is_empty() {
        return Err(PlotError::Empty(format!("no stream of `{}` does anything", timeline.name)));
    }
    let title = format!("Timeline of one step of {}", timeline.name);
    let mut canvas = Canvas::new(FigureKind::PipelineGantt.name(), &title, width);
    let labels = Labels::new(timeline, &rows, row_height(&rows), canvas.width());
    let end =
        rows.iter().flat_map(|row| &row.spans).fold(timeline.step_time_s, |end, span| end.max(span.end_s));
    let left = MARGIN_PT + labels.room();
    let mut right = canvas.width() - MARGIN_PT;
    let axis = |right: f64| Axis::new(Quantity::Seconds, end, end, right - left, Direction::Horizontal);
    right -= axis(right).overhang();
    let axis = axis(right);

    let dot = end / (right - left) * DOT_PT;
    let mut drawn: Vec<Vec<Piece>> = rows.iter().map(|row| pieces(row.spans.iter().copied(), dot)).collect();
    unnumber(&mut drawn, timeline);
    let mut top = MARGIN_PT;
    let whole = canvas.width() - 2.0 * MARGIN_PT;
    top += legend::lines(&mut canvas, &entries(&drawn), MARGIN_PT, top, whole);
    let last_chunk = drawn.iter().flatten().filter_map(|piece| piece.chunk).max().filter(|last| *last > 0);
    let chunks = last_chunk.map(|last| chunk_note(last).to_owned());
    for note in note.into_iter().chain(chunks) {
        canvas.text(&note, (MARGIN_PT, top + TICK_PT / 2.0), Anchor::Start, TICK_PT);
        top += TICK_PT + 4.0;
    }
    let bands = bands(&rows, top + 1.0);
    let bottom = bands.last().map_or(top, |band| band.1) + 1.5;
    let plot = Rect::new(left, top, right, bottom);
    labels.draw(&mut canvas, &rows, &bands, &plot);
    let size = number_size(&drawn, (right - left) / axis.max, bands[0].1 - bands[0].0);
    for (band, row) in bands.iter().zip(&drawn) {
        for piece in row {
            let x = (axis.x(&plot, piece.start), axis.x(&plot, piece.end));
            let shown = draw_piece(&mut canvas, piece, Rect::new(x.0, band.0, x.1, band.1), size);
            if let (Some(chunk), Some(last)) = (piece.chunk, last_chunk) {
                draw_chunk(&mut canvas, &shown, chunk as f64 / last as f64);
            }
        }
    }
    canvas.line((plot.x0, plot.y0), (plot.x0, plot.y1), BLACK, AXIS_PT);
    axis.draw_below(&mut canvas, &plot, "Time");
    canvas.finish(bottom + X_AXIS_HEIGHT + MARGIN_PT)
}

/// All rows with something to show, by stage, rank and stream.
fn rows_of(timeline: &Timeline) -> Vec<Row<'_>> {
    let mut order: Vec<usize> = (0..timeline.ranks.len()).collect();
    order.sort_by_key(|&i| (timeline.ranks[i].stage, timeline.ranks[i].rank));
    let mut rows = Vec::new();
    for rank in order {
        let mut streams: BTreeMap<usize, Vec<&TimelineSpan>> = BTreeMap::new();
        for span in timeline.ranks[rank].spans.iter().filter(|span| span.end_s > span.start_s) {
            streams.entry(span.stream as usize).or_default().push(span);
        }
        rows.extend(streams.into_iter().map(|(stream, spans)| Row { rank, stream, spans }));
    }
    rows
}

/// Streams busy for [`LEAST_BUSY`] of the step, at most [`MOST_ROWS`]: one rank a stage, then only streams that compute, then an even choice. Says what
/// was left out, if anything.
fn thinned<'a>(mut rows: Vec<Row<'a>>, ranks: &[TimelineRank], step: f64) -> (Vec<Row<'a>>, Option<String>) {
    let total = rows.len();
    let mut why = Vec::new();
    // A stream that hardly ever does anything but wait takes room and shows hairlines.
    let before = rows.len();
    if rows.iter().any(|row| row.busy() >= LEAST_BUSY * step) {
        rows.retain(|row| row.busy() >= LEAST_BUSY * step);
    }
    if rows.len() < before {
        why.push("busy streams only");
    }
    if rows.len() > MOST_ROWS {
        // Rows are sorted by stage and rank: the first rank of each stage stays.
        let mut first: BTreeMap<u64, usize> = BTreeMap::new();
        for row in &rows {
            first.entry(ranks[row.rank].stage).or_insert(row.rank);
        }
        let before = rows.len();
        rows.retain(|row| first.get(&ranks[row.rank].stage) == Some(&row.rank));
        if rows.len() < before {
            why.push("one rank a stage");
        }
    }
    let computes = |span: &&TimelineSpan| matches!(span.kind.as_str(), "forward" | "backward");
    if rows.len() > MOST_ROWS && rows.iter().any(|row| row.spans.iter().any(computes)) {
        let before = rows.len();
        rows.retain(|row| row.spans.iter().any(computes));
        if rows.len() < before {
            why.push("compute streams only");
        }
    }
    let count = rows.len();
    if count > MOST_ROWS {
        let mut index = 0..count;
        rows.retain(|_| {
            let i = index.next().unwrap_or(0);
            // Row i stays where the share of rows passed reaches the next of 64 marks.
            i * MOST_ROWS / count != (i + 1) * MOST_ROWS / count
        });
        why.push("evenly chosen");
    }
    let note = (rows.len() < total).then(|| format!("{} of {total} rows: {}", rows.len(), why.join(", ")));
    (rows, note)
}

fn row_height(rows: &[Row<'_>]) -> f64 {
    (ROWS_HEIGHT / rows.len() as f64).min(TALLEST_ROW)
}

/// Upper and lower edge of each row's boxes, points.
fn bands(rows: &[Row<'_>], top: f64) -> Vec<(f64, f64)> {
    let gap = if groups(rows).len() < rows.len() && rows.len() <= MOST_ROWS / 2 { GROUP_GAP } else { 0.0 };
    let height = row_height(rows);
    let mut y = top;
    let mut bands = Vec::with_capacity(rows.len());
    for (i, row) in rows.iter().enumerate() {
        if i > 0 && rows[i - 1].rank != row.rank {
            y += gap;
        }
        bands.push((y, y + height * BOX_SHARE));
        y += height;
    }
    bands
}

/// The key of the colours that are in the picture.
fn entries(drawn: &[Vec<Piece>]) -> Vec<legend::Entry> {
    let mut used = [false; SPAN_CLASSES.len()];
    for piece in drawn.iter().flatten() {
        used[piece.class] = true;
    }
    let classes = SPAN_CLASSES.iter().zip(used).filter(|(_, used)| *used);
    classes.map(|((name, fill), _)| ((*name).to_owned(), *fill)).collect()
}

/// Room beside a number inside its box, points.
const NUMBER_ROOM: f64 = 0.7;
/// White between neighbouring boxes, points.
const SEAM: f64 = 0.35;

/// Takes the numbers away where they tell nothing: from what is not a pass over a micro-batch,
/// and from all boxes of a step with only one micro-batch.
fn unnumber(drawn: &mut [Vec<Piece>], timeline: &Timeline) {
    let spans = || timeline.ranks.iter().flat_map(|rank| &rank.spans);
    let first = spans().find_map(|span| span.micro_batch);
    let only_one = spans().all(|span| span.micro_batch.is_none() || span.micro_batch == first);
    for piece in drawn.iter_mut().flatten() {
        let pass = matches!(SPAN_CLASSES[piece.class].0, "forward" | "backward" | "recompute" | "weights");
        if only_one || !pass {
            piece.micro_batch = None;
        }
    }
}

/// The size of the numbers in the boxes: the largest at which nearly all that ever fit do, so that a figure has
/// one size of numbers. None where rows are too thin.
fn number_size(drawn: &[Vec<Piece>], points_per_second: f64, height: f64) -> Option<f64> {
    let largest = (height - 1.5).min(TICK_PT);
    let fitting = |size: f64| {
        let numbered = drawn.iter().flatten().filter(|piece| {
            let width = (piece.end - piece.start) * points_per_second;
            piece.micro_batch.is_some_and(|number| number_fits(number, size, width - SEAM))
        });
        numbered.count()
    };
    let all = fitting(SMALLEST_PT);
    let enough = |size: &f64| *size <= largest && fitting(*size) * 10 >= all * 9;
    [TICK_PT, 6.5, 6.0, 5.5, SMALLEST_PT].into_iter().find(enough)
}

fn number_fits(number: u64, size: f64, width: f64) -> bool {
    text_width(&number.to_string(), size) + NUMBER_ROOM <= width
}

/// What the bars below passes mean.
fn chunk_note(last: u64) -> &'static str {
    match last {
        1 => "a bar at the foot: the stage's second chunk of layers",
        _ => "the longer the bar at the foot, the later of the stage's chunks of layers",
    }
}

/// Share of a box's height that the bar of its chunk has.
const CHUNK_BAR: f64 = 0.13;

/// The bar at the foot of a pass: as much of its width as there is of the stage's chunks before.
fn draw_chunk(canvas: &mut Canvas, shown: &Rect, share: f64) {
    let (width, height) = (share * shown.width(), CHUNK_BAR * (shown.y1 - shown.y0));
    if width > 0.0 {
        canvas.rect(Rect { x1: shown.x0 + width, y0: shown.y1 - height, ..*shown }, BLACK);
    }
}

/// Draws a box, with its number where it fits; returns what of its place it fills.
fn draw_piece(canvas: &mut Canvas, piece: &Piece, full: Rect, number_size: Option<f64>) -> Rect {
    let fill = SPAN_CLASSES[piece.class].1;
    // A hair of white keeps neighbouring boxes apart.
    let seam = if full.width() > 2.0 { SEAM } else { 0.0 };
    let shown = Rect { x1: full.x1 - seam, ..full };
    if shown.width() > 1.5 {
        canvas.fill(shown, fill);
    } else {
        canvas.rect(shown, fill.color);
    }
    if let (Some(number), Some(size)) = (piece.micro_batch, number_size)
        && number_fits(number, size, shown.width())
    {
        canvas.text_inside(&shown, fill.color, &number.to_string(), size);
    }
    shown
}
