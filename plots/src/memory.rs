//! Memory of one rank over the step: stacked by category, against the capacity of the device.

use steptime_scenarios::{MemoryPoint, Timeline, TimelineRank};

use crate::axis::{Direction, Quantity};
use crate::canvas::{Anchor, Canvas, Point, Rect};
use crate::curve::{Curve, curve};
use crate::error::PlotError;
use crate::font::{shorten, text_width};
use crate::frame::{Axis, X_AXIS_HEIGHT};
use crate::style::{
    AXIS_PT, BLACK, Fill, LABEL_PT, MARGIN_PT, TICK_PT, VERMILION, WHITE, memory_fill, readable,
};
use crate::{Figure, FigureKind, Width, check, legend};

/// A capacity further above the peak than this is told in words: its line would squash the curve.
const FAR_ABOVE: f64 = 3.0;
/// Height of a line of text above the curve, points.
const LINE_PT: f64 = 10.0;
/// Of curves with more steps than this, only the outline is drawn, for lines would hide the colours.
const MOST_OUTLINED: usize = 150;

/// Draws the memory of `rank` over the step, stacked by category in the order of the timeline. Without a rank
/// it is the one that fills most of its device. The capacity is a dashed line with its value; where the curve
/// first passes it, or the first request that the device does not serve, is marked. A capacity more than three times the
/// peak is told in words instead. What is reserved of the device is a line of its own. Categories that stay zero are left
/// out.
///
/// # Errors
/// [`PlotError::NoSuchRank`], [`PlotError::Empty`] where no memory was recorded, [`PlotError::Damaged`] for
/// impossible curves.
pub fn memory_over_time(timeline: &Timeline, rank: Option<u64>, width: Width) -> Result<Figure, PlotError> {
    check::seconds(timeline.step_time_s, || "step_time_s".to_owned())?;
    timeline.ranks.iter().try_for_each(check::memory)?;
    let shown = match rank {
        Some(number) => timeline
            .ranks
            .iter()
            .find(|candidate| candidate.rank == number)
            .ok_or_else(|| PlotError::NoSuchRank { rank: number, present: present(timeline) })?,
        None => {
            fullest(timeline).ok_or_else(|| PlotError::Empty(format!("`{}` has no rank", timeline.name)))?
        }
    };
    let kind = FigureKind::MemoryOverTime.name();
    let name = rank.map_or(kind.to_owned(), |number| format!("{kind}_rank_{number}"));
    let title = format!("Memory of rank {} over one step of {}", shown.rank, timeline.name);
    draw(Canvas::new(&name, &title, width), timeline, shown, width)
}

fn present(timeline: &Timeline) -> String {
    let numbers: Vec<String> = timeline.ranks.iter().take(8).map(|rank| rank.rank.to_string()).collect();
    let rest = if timeline.ranks.len() > 8 { ", ..." } else { "" };
    match numbers.len() {
        0 => "no rank".to_owned(),
        1 => format!("rank {}", numbers[0]),
        _ => format!("ranks {}{rest}", numbers.join(", ")),
    }
}

/// The rank that fills the largest share of its device; the first of equal ones.
fn fullest(timeline: &Timeline) -> Option<&TimelineRank> {
    let share = |rank: &TimelineRank| peak_of(rank) / (rank.capacity_bytes.max(1) as f64);
    let mut best: Option<&TimelineRank> = None;
    for rank in &timeline.ranks {
        if best.is_none_or(|b| share(rank) > share(b)) {
            best = Some(rank);
        }
    }
    best
}

fn peak_of(rank: &TimelineRank) -> f64 {
    let total = |bytes: &[u64]| bytes.iter().map(|b| *b as f64).sum::<f64>();
    rank.memory.iter().map(|point| total(&point.bytes)).fold(0.0, f64::max)
}

/// One category with something in it.
struct Layer {
    /// Index into the categories.
    index: usize,
    name: String,
    fill: Fill,
}

fn layers(rank: &TimelineRank) -> Vec<Layer> {
    let used = |index: usize| rank.memory.iter().any(|point| point.bytes[index] > 0);
    let categories = rank.memory_categories.iter().enumerate().filter(|(index, _)| used(*index));
    categories
        .map(|(index, name)| Layer { index, name: readable(name), fill: memory_fill(name, index) })
        .collect()
}

fn draw(
    mut canvas: Canvas,
    timeline: &Timeline,
    rank: &TimelineRank,
    width: Width,
) -> Result<Figure, PlotError> {
    let peak = peak_of(rank);
    let layers = layers(rank);
    if layers.is_empty() {
        return Err(PlotError::Empty(format!("rank {} of `{}` uses no memory", rank.rank, timeline.name)));
    }
    let last = rank.memory.last().map_or(0.0, |point| point.at_s);
    let end = timeline.step_time_s.max(last);
    let height = if width.is_wide() { 150.0 } else { 125.0 };
    let capacity = rank.capacity_bytes as f64;
    let limit = Limit::new(rank, peak);
    let highest = limit.needed.max(if limit.line { peak.max(capacity) } else { peak });
    let top = highest / (1.0 - limit.lines * LINE_PT / height);
    let y_axis = Axis::new(Quantity::Bytes, highest, top, height, Direction::Vertical);

    let left = MARGIN_PT + y_axis.left_room();
    let (inner, entries) = (canvas.width() - left - MARGIN_PT, entries(&layers));
    let places = |x1: f64, y0: f64| {
        let plot = Rect::new(left, y0, x1, y0 + height);
        let x_axis = Axis::new(Quantity::Seconds, end, end, plot.width(), Direction::Horizontal);
        let steps = curve(rank, x_axis.max, plot.width());
        (plot, x_axis, steps)
    };
    // Names stand in their areas if all of them fit there, else in a legend.
    let overhang = Axis::new(Quantity::Seconds, end, end, inner, Direction::Horizontal).overhang();
    let full = canvas.width() - MARGIN_PT - overhang;
    let mut sheet = places(full, MARGIN_PT + TICK_PT / 2.0);
    let mut inside = inside_labels(&layers, &sheet.2, &sheet.0, &sheet.1, &y_axis);
    if inside.is_none() && width.is_wide() {
        let column = legend::column_width(&entries).min(inner * 0.3);
        sheet = places(canvas.width() - MARGIN_PT - column - 10.0, sheet.0.y0);
        let key: Vec<legend::Entry> = entries.iter().rev().cloned().collect();
        let y = sheet.0.middle_y() - legend::column_height(key.len()) / 2.0;
        legend::column(&mut canvas, &key, sheet.0.x1 + 10.0, y, column);
    } else if inside.is_none() {
        let whole = canvas.width() - 2.0 * MARGIN_PT;
        let used = legend::lines(&mut canvas, &entries, MARGIN_PT, MARGIN_PT, whole);
        sheet = places(full, MARGIN_PT + used);
    }
    let (plot, x_axis, steps) = sheet;
    draw_areas(&mut canvas, &layers, &steps, &plot, &x_axis, &y_axis);
    draw_reserved(&mut canvas, rank, end, &plot, &x_axis, &y_axis);
    limit.draw(&mut canvas, &steps, &plot, &x_axis, &y_axis);
    // Over the line of the capacity, which may run through an area.
    for (layer, at) in layers.iter().zip(inside.take().into_iter().flatten()) {
        canvas.text_on(layer.fill.color, &layer.name, at, Anchor::Middle, LABEL_PT);
    }
    y_axis.draw_left(&mut canvas, &plot, "Memory");
    x_axis.draw_below(&mut canvas, &plot, "Time");
    canvas.finish(plot.y1 + X_AXIS_HEIGHT + MARGIN_PT)
}

fn entries(layers: &[Layer]) -> Vec<legend::Entry> {
    layers.iter().map(|layer| (layer.name.clone(), layer.fill)).collect()
}

/// The lower and upper edge of a layer at one step, bytes.
fn edges(bytes: &[f64], index: usize) -> (f64, f64) {
    let below: f64 = bytes[..index].iter().sum();
    (below, below + bytes[index])
}

fn draw_areas(canvas: &mut Canvas, layers: &[Layer], steps: &Curve, plot: &Rect, x: &Axis, y: &Axis) {
    let column = |step: &crate::curve::Step, (low, high): (f64, f64)| {
        Rect::new(x.x(plot, step.start), y.y(plot, high), x.x(plot, step.end), y.y(plot, low))
    };
    let mut tops: Vec<Vec<Point>> = Vec::new();
    for layer in layers {
        let area: Vec<Rect> =
            steps.iter().map(|step| column(step, edges(&step.bytes, layer.index))).collect();
        let above: Vec<Point> = area.iter().flat_map(|r| [(r.x0, r.y0), (r.x1, r.y0)]).collect();
        let below = area.iter().rev().flat_map(|r| [(r.x1, r.y1), (r.x0, r.y1)]);
        canvas.polygon(above.iter().copied().chain(below).collect(), layer.fill.color);
        canvas.hatch(&area, layer.fill.hatch);
        tops.push(above);
    }
    let Some(outline) = tops.pop() else { return };
    if steps.len() <= MOST_OUTLINED {
        for top in tops {
            canvas.path(top, BLACK, 0.25);
        }
    }
    canvas.path(outline, BLACK, AXIS_PT);
}

/// What is reserved, as a line with a white border and its highest value in the topmost line of text.
fn draw_reserved(canvas: &mut Canvas, rank: &TimelineRank, end: f64, plot: &Rect, x: &Axis, y: &Axis) {
    let Some(most) = rank.reserved.iter().map(|level| level.bytes).max() else { return };
    let until = rank.failed_request.as_ref().map_or(end, |failed| failed.at_s.min(end));
    let ends = rank.reserved.iter().skip(1).map(|next| next.at_s).chain(std::iter::once(until));
    let line: Vec<Point> = rank
        .reserved
        .iter()
        .zip(ends)
        .filter(|(level, end)| level.at_s <= *end)
        .flat_map(|(level, end)| [level.at_s, end].map(|at| (x.x(plot, at), y.y(plot, level.bytes as f64))))
        .collect();
    canvas.path(line.clone(), WHITE, 2.2);
    canvas.path(line, VERMILION, 1.1);
    let middle = plot.y0 + LINE_PT / 2.0;
    canvas.line((plot.x0 + 3.0, middle), (plot.x0 + 15.0, middle), VERMILION, 1.1);
    let words = format!("reserved, up to {}", Quantity::Bytes.text(most as f64));
    canvas.text(&words, (plot.x0 + 18.0, middle), Anchor::Start, TICK_PT);
}

/// Where each layer's name fits inside its area; none unless all fit.
fn inside_labels(layers: &[Layer], steps: &Curve, plot: &Rect, x: &Axis, y: &Axis) -> Option<Vec<Point>> {
    let place = |layer: &Layer| {
        let columns: Vec<Rect> = steps
            .iter()
            .map(|step| {
                let (low, high) = edges(&step.bytes, layer.index);
                Rect::new(x.x(plot, step.start), y.y(plot, high), x.x(plot, step.end), y.y(plot, low))
            })
            .collect();
        roomiest(&columns, text_width(&layer.name, LABEL_PT) + 6.0, LABEL_PT + 2.0)
    };
    layers.iter().map(place).collect()
}

/// The middle of the largest rectangle inside neighbouring columns that is at least `wide` and `high`.
fn roomiest(columns: &[Rect], wide: f64, high: f64) -> Option<Point> {
    let mut best: Option<(f64, Point)> = None;
    for (i, first) in columns.iter().enumerate() {
        let mut room = *first;
        for column in &columns[i..] {
            room = Rect::new(room.x0, room.y0.max(column.y0), column.x1, room.y1.min(column.y1));
            if room.height() < high {
                break;
            }
            let area = room.width() * room.height();
            if room.width() >= wide && best.is_none_or(|b| area > b.0) {
                best = Some((area, (room.middle_x(), room.middle_y())));
            }
        }
    }
    best.map(|b| b.1)
}

/// Least room in which a tensor's name that is cut still tells which one it is, points.
const LEAST_NAME_PT: f64 = 80.0;

/// The capacity, and how it is shown.
struct Limit {
    capacity: f64,
    /// Seconds until memory first passes it: the exact moment, which a thinned curve no longer has.
    passed: Option<f64>,
    /// The request that fails, in words and with its tensor: first all that is known, then less.
    failed: Vec<(String, String)>,
    /// Bytes that the device would hold with it, or nothing.
    needed: f64,
    peak: f64,
    /// Whether it is a line in the picture.
    line: bool,
    /// Lines of text above the curve.
    lines: f64,
    /// Of these, such as stand above what is said of the capacity.
    above: f64,
}

impl Limit {
    fn new(rank: &TimelineRank, peak: f64) -> Self {
        let capacity = rank.capacity_bytes as f64;
        let failed = rank.failed_request.as_ref();
        let needed = failed.map_or(0.0, |failed| failed.needed_bytes as f64);
        let line = rank.capacity_bytes > 0 && capacity <= FAR_ABOVE * peak;
        let over = |point: &&MemoryPoint| point.total() > rank.capacity_bytes;
        let passed = rank.memory.iter().find(over).map(|point| point.at_s);
        let passed = failed.map(|failed| failed.at_s).or(passed);
        let above = if rank.reserved.is_empty() { 0.0 } else { 1.0 };
        let marked = line && (peak > capacity || failed.is_some());
        let failed = failed.map_or_else(Vec::new, |failed| {
            let requested = Quantity::Bytes.text(failed.requested_bytes as f64);
            let at = Quantity::Seconds.text(failed.at_s);
            let which = if failed.step == 0 { " of the first step" } else { "" };
            let tensor = &failed.tensor;
            vec![
                (format!("out of memory at {at}{which}: {requested} for "), tensor.clone()),
                (format!("out of memory at {at}: {requested} for "), tensor.clone()),
                (format!("out of memory at {at}{which}: {requested}"), String::new()),
                (format!("out of memory at {at}: {requested}"), String::new()),
            ]
        });
        let lines = above + if marked { 2.0 } else { 1.0 };
        Self { capacity, passed, failed, needed, peak, line, lines, above }
    }

    fn draw(&self, canvas: &mut Canvas, steps: &Curve, plot: &Rect, x: &Axis, y: &Axis) {
        let (capacity, peak) = (Quantity::Bytes.text(self.capacity), Quantity::Bytes.text(self.peak));
        let top = plot.y0 + LINE_PT / 2.0 + self.above * LINE_PT;
        if !self.line {
            let words = if self.capacity > 0.0 {
                format!("peak {peak}; capacity {capacity}, far above")
            } else {
                format!("peak {peak}")
            };
            canvas.text(&words, (plot.x1 - 2.0, top), Anchor::End, TICK_PT);
            return;
        }
        let line = y.y(plot, self.capacity);
        canvas.dashed((plot.x0, line), (plot.x1, line), 0.8);
        let label_y = line - LINE_PT / 2.0 - 0.6;
        let Some(passed) = self.passed else {
            let words = format!("capacity {capacity} (peak {peak})");
            canvas.text(&words, (plot.x1 - 2.0, label_y), Anchor::End, TICK_PT);
            return;
        };
        let at = x.x(plot, passed);
        let label = format!("capacity {capacity}");
        let room = self.free_place(steps, plot, x, at, text_width(&label, TICK_PT) + 6.0);
        let seconds = Quantity::Seconds.text(passed);
        let words = match (self.failure(plot.width() - 4.0), room) {
            (Some(failure), _) => failure,
            (None, Some(_)) => format!("exceeded at {seconds} (peak {peak})"),
            (None, None) => format!("capacity {capacity} exceeded at {seconds}"),
        };
        let half = text_width(&words, TICK_PT) / 2.0 + 2.0;
        let words_x = at.min(plot.x1 - half).max(plot.x0 + half);
        let mark = y.y(plot, self.needed.max(self.capacity));
        canvas.line((at, line), (at, top + LINE_PT / 2.0), BLACK, AXIS_PT);
        canvas.text(&words, (words_x, top), Anchor::Middle, TICK_PT);
        canvas.dot((at, mark), 2.6, BLACK);
        canvas.dot((at, mark), 2.0, VERMILION);
        match room {
            Some(middle) => canvas.text_on(WHITE, &label, (middle, label_y), Anchor::Middle, TICK_PT),
            // Over the areas where nothing else says it, on the side where the mark is not.
            None if !self.failed.is_empty() => {
                let left = at > plot.middle_x();
                let (x, anchor) =
                    if left { (plot.x0 + 3.0, Anchor::Start) } else { (plot.x1 - 3.0, Anchor::End) };
                canvas.text_on(WHITE, &label, (x, label_y), anchor, TICK_PT);
            }
            None => {}
        }
    }

    /// What is said of the request that fails, if one does: as much as fits. A tensor's name is cut if enough of it stays.
    fn failure(&self, room: f64) -> Option<String> {
        let said = self.failed.iter().find_map(|(words, tensor)| {
            let left = room - text_width(words, TICK_PT);
            let enough = text_width(tensor, TICK_PT).min(LEAST_NAME_PT);
            (left >= enough).then(|| format!("{words}{}", shorten(tensor, left, TICK_PT)))
        });
        said.or_else(|| self.failed.last().map(|(words, _)| shorten(words, room, TICK_PT)))
    }

    /// The middle of the leftmost stretch of this width where the curve and the mark at `avoid` leave the
    /// space above the line free.
    fn free_place(&self, steps: &Curve, plot: &Rect, x: &Axis, avoid: f64, width: f64) -> Option<f64> {
        let mut from = plot.x0;
        let blocked = steps.iter().filter(|step| step.total() > self.capacity).map(|step| {
            let mark = 4.0;
            let (x0, x1) = (x.x(plot, step.start), x.x(plot, step.end));
            (
                if x0 <= avoid { x0.min(avoid - mark) } else { x0 },
                if x0 <= avoid { x1.max(avoid + mark) } else { x1 },
            )
        });
        for (x0, x1) in blocked.chain(std::iter::once((plot.x1, plot.x1))) {
            if x0 - from >= width {
                return Some(from + width / 2.0);
            }
            from = from.max(x1);
        }
        None
    }
}
