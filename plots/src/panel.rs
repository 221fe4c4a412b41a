//! One panel of bars of a comparison: values beside the bars, whiskers, capacity, and words where there is no
//! number.

use steptime_scenarios::Report;

use crate::axis::{Direction, Quantity, Unit};
use crate::bar_text::{Slot, write_value, write_word};
use crate::bars::Outcome;
use crate::bars::axis_end;
use crate::canvas::{Anchor, Canvas, Rect};
use crate::font::text_width;
use crate::frame::Axis;
use crate::style::{AXIS_PT, BLACK, Fill, Hatch, MARGIN_PT, MISSING, TICK_PT};
use crate::table::Numbers;

/// A capacity further above the largest bar than this is told in words only.
const FAR_ABOVE: f64 = 3.0;
const OUT_OF_MEMORY: &str = "out of memory";
/// Where the words do not fit.
const OUT_OF_MEMORY_SHORT: &str = "OOM";

/// One bar, or the word in its place.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    /// Seconds or bytes; none where nothing could run.
    pub(crate) value: Option<f64>,
    pub(crate) interval: Option<[f64; 2]>,
    /// Texts beside it, the best first; the first that fits is used.
    pub(crate) texts: Vec<String>,
    pub(crate) hatched: bool,
}

/// Bars of one quantity.
pub(crate) struct Panel {
    bars: Vec<Bar>,
    fill: Fill,
    pub(crate) axis: Axis,
    /// Capacity by bar, bytes; empty for time.
    capacities: Vec<f64>,
}

fn largest(bars: &[Bar]) -> f64 {
    bars.iter().filter_map(|bar| bar.value).fold(0.0, f64::max)
}

impl Panel {
    /// Step times.
    pub(crate) fn time(reports: &[Report], fill: Fill, room: f64) -> Self {
        let max = reports.iter().filter_map(|r| r.step_time_s).fold(0.0, f64::max);
        let unit = Quantity::Seconds.unit(max);
        let bar = |report: &Report| {
            let value = if Outcome::of(report) == Outcome::Infeasible { None } else { report.step_time_s };
            let text = value.map(|v| Quantity::Seconds.text_on_axis(v, unit));
            Bar {
                value,
                interval: value.and(report.step_time_interval_s),
                texts: text.map_or_else(|| words(Outcome::of(report)), |text| vec![text]),
                hatched: Outcome::of(report) == Outcome::OutOfMemory,
            }
        };
        let bars: Vec<Bar> = reports.iter().map(bar).collect();
        let axis = axis(Quantity::Seconds, &bars, room, 0.0);
        Self { bars, fill, axis, capacities: Vec::new() }
    }

    /// Peak memory of the fullest device, all that is in use on it.
    pub(crate) fn memory(reports: &[Report], fill: Fill, room: f64) -> Self {
        let bytes = |report: &Report| match Outcome::of(report) {
            Outcome::Infeasible => None,
            Outcome::Fits | Outcome::OutOfMemory => Some(report.peak_memory.device_bytes as f64),
        };
        let max = reports.iter().filter_map(bytes).fold(0.0, f64::max);
        let unit = Quantity::Bytes.unit(max);
        let bar = |report: &Report| {
            let value = bytes(report);
            Bar {
                value,
                interval: None,
                texts: memory_texts(Outcome::of(report), value, unit),
                hatched: Outcome::of(report) == Outcome::OutOfMemory,
            }
        };
        let bars: Vec<Bar> = reports.iter().map(bar).collect();
        let capacities: Vec<f64> = reports.iter().map(|r| r.peak_memory.capacity_bytes as f64).collect();
        let drawn = capacities.iter().filter(|c| **c <= FAR_ABOVE * max).fold(0.0, |a: f64, b| a.max(*b));
        let axis = axis(Quantity::Bytes, &bars, room, drawn);
        Self { bars, fill, axis, capacities }
    }

    /// A column of a table; rows for which `out` is true ran out of memory.
    pub(crate) fn plain(numbers: &Numbers, out: &[bool], fill: Fill, room: f64) -> Self {
        let max = numbers.values.iter().flatten().copied().fold(0.0, f64::max);
        let unit = numbers.quantity.unit(max);
        let bar = |(value, out): (&Option<f64>, &bool)| {
            let outcome = if *out { Outcome::OutOfMemory } else { Outcome::Fits };
            let text = value.map(|v| numbers.quantity.text_on_axis(v, unit));
            let texts = match (text, out) {
                (Some(text), false) => vec![text],
                (Some(text), true) => {
                    vec![format!("{text}, {OUT_OF_MEMORY}"), format!("{text}, {OUT_OF_MEMORY_SHORT}")]
                }
                (None, _) => words(outcome),
            };
            Bar { value: *value, interval: None, texts, hatched: *out && value.is_some() }
        };
        let bars: Vec<Bar> = numbers.values.iter().zip(out).map(bar).collect();
        let axis = axis(numbers.quantity, &bars, room, 0.0);
        Self { bars, fill, axis, capacities: Vec::new() }
    }

    /// Draws the bars, one at each height of `rows`.
    pub(crate) fn draw(&self, canvas: &mut Canvas, plot: &Rect, rows: &[f64], pitch: f64, bar_height: f64) {
        let band = |middle: f64, end: f64| {
            Rect::new(plot.x0, middle - bar_height / 2.0, end, middle + bar_height / 2.0)
        };
        let end = |bar: &Bar| bar.value.map_or(plot.x0, |value| self.axis.x(plot, value));
        for (bar, &middle) in self.bars.iter().zip(rows).filter(|(bar, _)| end(bar) > plot.x0) {
            let hatch = if bar.hatched { Hatch::Falling } else { self.fill.hatch };
            canvas.fill(band(middle, end(bar)), Fill { hatch, ..self.fill });
            canvas.outline(band(middle, end(bar)), 0.3);
        }
        self.draw_capacities(canvas, plot, rows, pitch);
        for (i, (bar, &middle)) in self.bars.iter().zip(rows).enumerate() {
            if bar.value.is_none() {
                canvas.fill(band(middle, plot.x1), MISSING);
                write_word(canvas, plot, bar, middle);
            } else {
                let after = self.draw_whisker(canvas, plot, bar, middle).max(end(bar));
                let avoid = self.capacity_seen(i).map(|capacity| self.axis.x(plot, capacity));
                write_value(canvas, &Slot { plot, fill: self.fill, end: after, avoid, middle }, bar);
            }
        }
    }

    /// Draws the interval; returns where it ends.
    fn draw_whisker(&self, canvas: &mut Canvas, plot: &Rect, bar: &Bar, middle: f64) -> f64 {
        let Some([low, high]) = bar.interval else {
            return plot.x0;
        };
        let (x0, x1) = (self.axis.x(plot, low), self.axis.x(plot, high));
        canvas.line((x0, middle), (x1, middle), BLACK, AXIS_PT);
        for x in [x0, x1] {
            canvas.line((x, middle - 1.8), (x, middle + 1.8), BLACK, AXIS_PT);
        }
        x1
    }

    /// One line through all bars where the capacity is the same for all, else one for each run of bars with
    /// the same.
    fn draw_capacities(&self, canvas: &mut Canvas, plot: &Rect, rows: &[f64], pitch: f64) {
        let mut runs: Vec<(f64, f64, f64)> = Vec::new();
        if let Some(capacity) = self.common_capacity() {
            if self.capacity_in_sight(capacity) {
                runs.push((capacity, plot.y0, plot.y1));
            }
        } else {
            for (i, middle) in rows.iter().enumerate() {
                let Some(capacity) = self.capacity_seen(i) else {
                    continue;
                };
                let (y0, y1) = (middle - pitch / 2.0, middle + pitch / 2.0);
                match runs.last_mut() {
                    Some(run) if (run.0 - capacity).abs() < 0.5 && (run.2 - y0).abs() < 1e-6 => run.2 = y1,
                    _ => runs.push((capacity, y0, y1)),
                }
            }
        }
        for (capacity, y0, y1) in runs {
            let x = self.axis.x(plot, capacity);
            canvas.dashed((x, y0), (x, y1), 0.7);
        }
    }

    /// The capacity of a bar, if it is drawn.
    fn capacity_seen(&self, row: usize) -> Option<f64> {
        let capacity = *self.capacities.get(row)?;
        (self.bars[row].value.is_some() && self.capacity_in_sight(capacity)).then_some(capacity)
    }

    /// Capacities of the bars that have a value.
    fn known_capacities(&self) -> impl Iterator<Item = f64> + '_ {
        let shown = self.capacities.iter().zip(&self.bars).filter(|(_, bar)| bar.value.is_some());
        shown.map(|(capacity, _)| *capacity).filter(|capacity| *capacity > 0.0)
    }

    fn common_capacity(&self) -> Option<f64> {
        let first = self.known_capacities().next()?;
        self.known_capacities().all(|capacity| (capacity - first).abs() < 0.5).then_some(first)
    }

    fn capacity_in_sight(&self, capacity: f64) -> bool {
        capacity > 0.0 && capacity <= FAR_ABOVE * largest(&self.bars) && capacity <= self.axis.max
    }

    /// What is said above the panel.
    fn note(&self) -> Option<String> {
        if self.bars.iter().any(|bar| bar.interval.is_some()) {
            return Some("whiskers: 80 % interval".to_owned());
        }
        match self.common_capacity() {
            Some(capacity) if self.capacity_in_sight(capacity) => {
                Some(format!("capacity {}", Quantity::Bytes.text(capacity)))
            }
            Some(capacity) => Some(format!("capacity {} →", Quantity::Bytes.text(capacity))),
            None => self
                .known_capacities()
                .any(|capacity| self.capacity_in_sight(capacity))
                .then(|| "dashed: capacity".to_owned()),
        }
    }
}

/// Texts of a bar of the memory panel, the best first.
fn memory_texts(outcome: Outcome, value: Option<f64>, unit: Unit) -> Vec<String> {
    let number = value.map(|v| Quantity::Bytes.text_on_axis(v, unit));
    match (outcome, number) {
        (Outcome::Fits, Some(number)) => vec![number],
        (Outcome::OutOfMemory, Some(number)) => {
            let mut texts = vec![format!("{number}, {OUT_OF_MEMORY}")];
            texts.extend(words(outcome));
            texts
        }
        _ => words(outcome),
    }
}

/// Words for what has no number, the best first.
fn words(outcome: Outcome) -> Vec<String> {
    let words: &[&str] = match outcome {
        Outcome::Infeasible => &["infeasible"],
        Outcome::OutOfMemory => &[OUT_OF_MEMORY, OUT_OF_MEMORY_SHORT],
        Outcome::Fits => &["unknown"],
    };
    words.iter().map(|&word| word.to_owned()).collect()
}

/// The axis on which all bars, whiskers and values fit, and which reaches `at_least`.
fn axis(quantity: Quantity, bars: &[Bar], room: f64, at_least: f64) -> Axis {
    let ends = bars.iter().filter_map(|bar| {
        let end = bar.value?.max(bar.interval.map_or(0.0, |interval| interval[1]));
        // Words can stand inside their bar; numbers stand beside it.
        Some((end, if bar.hatched { 0.0 } else { text_width(bar.texts.first()?, TICK_PT) }))
    });
    let most = largest(bars);
    let max = axis_end(ends, room).unwrap_or(most).max(at_least * 1.03);
    Axis::new(quantity, most, max, room, Direction::Horizontal)
}

/// Draws the notes of two panels above them, the second in a line of its own if they would meet. Returns the
/// height used.
pub(crate) fn notes(canvas: &mut Canvas, first: (&Panel, f64), second: (&Panel, f64), top: f64) -> f64 {
    let line = TICK_PT + 3.0;
    let right = canvas.width() - MARGIN_PT;
    let place = |(panel, x): (&Panel, f64)| {
        panel.note().map(|text| {
            let start = x.min(right - text_width(&text, TICK_PT));
            (text.clone(), start, start + text_width(&text, TICK_PT))
        })
    };
    let (a, b) = (place(first), place(second));
    let meet = matches!((&a, &b), (Some(a), Some(b)) if a.2 + 4.0 > b.1);
    let mut lines = 0.0;
    if let Some((text, x, _)) = &a {
        canvas.text(text, (*x, top + TICK_PT / 2.0), Anchor::Start, TICK_PT);
        lines = 1.0;
    }
    if let Some((text, x, _)) = &b {
        let row = if meet { 1.0 } else { 0.0 };
        canvas.text(text, (*x, top + row * line + TICK_PT / 2.0), Anchor::Start, TICK_PT);
        lines = row + 1.0;
    }
    if lines > 0.0 { lines * line + 1.0 } else { 0.0 }
}
