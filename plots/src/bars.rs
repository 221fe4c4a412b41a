//! Horizontal bars: where the step time goes, and how variants compare.

use steptime_scenarios::{Report, Verdict};

use crate::axis::{Direction, Quantity};
use crate::canvas::{Anchor, Canvas, Rect};
use crate::error::PlotError;
use crate::font::{text_width, wrap};
use crate::frame::{Axis, X_AXIS_HEIGHT};
use crate::panel::Panel;
use crate::style::{
    AXIS_PT, BLACK, LABEL_PT, MARGIN_PT, MEMORY_BAR, TICK_PT, TIME_BAR, breakdown_fill, readable,
};
use crate::{Figure, FigureKind, Width, check, legend};

/// Distance between lines of a wrapped name, points.
const NAME_LINE_PT: f64 = 9.0;
/// Height of bars beside names of one line and of two, points.
const BAR_PT: [f64; 2] = [9.0, 11.0];
/// Gap between a bar and its value, points.
pub(crate) const VALUE_GAP: f64 = 3.0;
/// Seconds or bytes that no bar of any length stands for.
const NOTHING: f64 = 1e-15;

/// How a prediction ended, as the figures tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Fits,
    OutOfMemory,
    /// Some partition fits on no device, so there is nothing to time.
    Infeasible,
}

impl Outcome {
    pub(crate) fn of(report: &Report) -> Self {
        match report.verdict {
            _ if report.infeasible.is_some() => Self::Infeasible,
            Verdict::OutOfMemory => Self::OutOfMemory,
            Verdict::Fits => Self::Fits,
        }
    }
}

/// Draws where the step time of each report goes: one stacked bar a report, seconds from zero, its total
/// beside it. Reports that ran out of memory or could not be placed say so. Parts that are zero everywhere are
/// left out of the legend.
///
/// # Errors
/// [`PlotError::Empty`] without reports, [`PlotError::Damaged`] for impossible times.
pub fn breakdown(reports: &[Report], width: Width) -> Result<Figure, PlotError> {
    let kind = FigureKind::Breakdown;
    checked(reports, kind)?;
    let mut canvas = Canvas::new(kind.name(), "Where the step time goes", width);
    let entries = parts(reports);
    let whole = canvas.width() - 2.0 * MARGIN_PT;
    let top = MARGIN_PT + legend::lines(&mut canvas, &entries, MARGIN_PT, MARGIN_PT, whole);
    let names = Names::new(&named(reports), canvas.width() * if width.is_wide() { 0.3 } else { 0.34 });
    let left = MARGIN_PT + names.width + 4.0;
    let total = |report: &Report| report.time_breakdown_s.entries().iter().map(|part| part.1).sum::<f64>();
    let largest = reports.iter().map(total).fold(0.0, f64::max);
    let unit = Quantity::Seconds.unit(largest);
    let words: Vec<String> = reports
        .iter()
        .map(|report| {
            let value = Quantity::Seconds.text_on_axis(total(report), unit);
            match Outcome::of(report) {
                Outcome::Fits => value,
                Outcome::OutOfMemory if total(report) > 0.0 => format!("{value}, out of memory"),
                Outcome::OutOfMemory => "out of memory".to_owned(),
                Outcome::Infeasible => "infeasible".to_owned(),
            }
        })
        .collect();
    let bars = || reports.iter().map(total).zip(&words).map(|(v, text)| (v, text_width(text, TICK_PT)));
    let axis = |right: f64| {
        let room = right - left;
        let max = axis_end(bars(), room).unwrap_or(largest);
        Axis::new(Quantity::Seconds, largest, max, room, Direction::Horizontal)
    };
    let right = canvas.width() - MARGIN_PT;
    let right = right - axis(right).overhang();
    let axis = axis(right);
    let plot = Rect::new(left, top, right, top + names.pitch() * reports.len() as f64 + 2.0);
    for (i, (report, text)) in reports.iter().zip(&words).enumerate() {
        let middle = names.middle(&plot, i);
        let end = stacked(&mut canvas, report, &axis, (&plot, middle, names.bar_height()));
        canvas.text(text, (end + VALUE_GAP, middle), Anchor::Start, TICK_PT);
    }
    names.draw(&mut canvas, &plot);
    axis.draw_below(&mut canvas, &plot, "Time per step");
    canvas.finish(plot.y1 + X_AXIS_HEIGHT + MARGIN_PT)
}

/// Draws one stacked bar in a plot, at a height, of a height; returns where it ends.
fn stacked(
    canvas: &mut Canvas,
    report: &Report,
    axis: &Axis,
    (plot, middle, high): (&Rect, f64, f64),
) -> f64 {
    let (y0, y1) = (middle - high / 2.0, middle + high / 2.0);
    let mut from = 0.0;
    for (part, value) in report.time_breakdown_s.entries() {
        let (x0, x1) = (axis.x(plot, from), axis.x(plot, from + value));
        from += value;
        if value > 0.0 {
            canvas.fill(Rect::new(x0, y0, x1, y1), breakdown_fill(part));
        }
    }
    let end = axis.x(plot, from);
    if end - plot.x0 > 0.5 {
        canvas.outline(Rect::new(plot.x0, y0, end, y1), 0.3);
    }
    end
}

/// The parts of the step time that any report has, for the legend.
fn parts(reports: &[Report]) -> Vec<legend::Entry> {
    let Some(first) = reports.first() else {
        return Vec::new();
    };
    let names = first.time_breakdown_s.entries().map(|part| part.0);
    let used = |index: usize| reports.iter().any(|r| r.time_breakdown_s.entries()[index].1 > 0.0);
    let shown = names.into_iter().enumerate().filter(|(index, _)| used(*index));
    shown.map(|(_, name)| (readable(name), breakdown_fill(name))).collect()
}

/// Draws step time and peak memory of each report, two panels of bars side by side. Whiskers show the 80 %
/// interval of the step time, a dashed line the capacity of the devices. Reports that ran out of memory are
/// hatched and say so; those that could not be placed have a hatched strip with the word.
///
/// # Errors
/// [`PlotError::Empty`] without reports, [`PlotError::Damaged`] for impossible times.
pub fn variant_comparison(reports: &[Report], width: Width) -> Result<Figure, PlotError> {
    let kind = FigureKind::VariantComparison;
    checked(reports, kind)?;
    let mut canvas = Canvas::new(kind.name(), "Step time and peak memory of the variants", width);
    let names = Names::new(&named(reports), canvas.width() * if width.is_wide() { 0.26 } else { 0.28 });
    let left = MARGIN_PT + names.width + 4.0;
    // Both panels keep the same room for the tick label that sticks out at their right.
    let overhang = 9.0;
    let gap = overhang + 7.0;
    let wide = (canvas.width() - MARGIN_PT - overhang - left - gap) / 2.0;
    let time = Panel::time(reports, TIME_BAR, wide);
    let memory = Panel::memory(reports, MEMORY_BAR, wide);
    let second = left + wide + gap;
    let notes = crate::panel::notes(&mut canvas, (&time, left), (&memory, second), MARGIN_PT);
    let top = MARGIN_PT + notes;
    let height = names.pitch() * reports.len() as f64 + 2.0;
    for (panel, x0, label) in [(&time, left, "Step time"), (&memory, second, "Peak memory")] {
        let plot = Rect::new(x0, top, x0 + wide, top + height);
        let rows: Vec<f64> = (0..reports.len()).map(|i| names.middle(&plot, i)).collect();
        panel.draw(&mut canvas, &plot, &rows, names.pitch(), names.bar_height());
        canvas.line((plot.x0, plot.y0), (plot.x0, plot.y1), BLACK, AXIS_PT);
        panel.axis.draw_below(&mut canvas, &plot, label);
    }
    names.draw(&mut canvas, &Rect::new(left, top, left + wide, top + height));
    canvas.finish(top + height + X_AXIS_HEIGHT + MARGIN_PT)
}

fn named(reports: &[Report]) -> Vec<&str> {
    reports.iter().map(|report| report.name.as_str()).collect()
}

fn checked(reports: &[Report], kind: FigureKind) -> Result<(), PlotError> {
    if reports.is_empty() {
        return Err(PlotError::Empty(format!("{kind} needs at least one report")));
    }
    reports.iter().try_for_each(check::report)
}

/// The end of an axis of `room` points on which every bar leaves room for the text beside it. Each bar is its
/// value and the width of its text, points. None where no bar has any length.
pub(crate) fn axis_end(bars: impl Iterator<Item = (f64, f64)>, room: f64) -> Option<f64> {
    let points_per_value = bars
        .filter(|bar| bar.0 > NOTHING)
        .map(|(value, text)| (room - VALUE_GAP - text).max(room * 0.2) / value)
        .fold(f64::INFINITY, f64::min);
    points_per_value.is_finite().then(|| room / points_per_value)
}

/// The bars' names at the left, over one or two lines.
pub(crate) struct Names {
    lines: Vec<Vec<String>>,
    pub(crate) width: f64,
}

impl Names {
    /// Names within `room` points.
    pub(crate) fn new(names: &[&str], room: f64) -> Self {
        let lines: Vec<Vec<String>> = names.iter().map(|name| wrap(name, room, LABEL_PT)).collect();
        let widths = lines.iter().flatten().map(|line| text_width(line, LABEL_PT));
        let width = widths.fold(0.0, f64::max);
        Self { lines, width }
    }

    fn most_lines(&self) -> usize {
        self.lines.iter().map(Vec::len).max().unwrap_or(1)
    }

    /// Distance between bars, points.
    pub(crate) fn pitch(&self) -> f64 {
        self.most_lines() as f64 * NAME_LINE_PT + 4.5
    }

    pub(crate) fn bar_height(&self) -> f64 {
        BAR_PT[usize::from(self.most_lines() > 1)]
    }

    pub(crate) fn middle(&self, plot: &Rect, row: usize) -> f64 {
        plot.y0 + 1.0 + (row as f64 + 0.5) * self.pitch()
    }

    /// Draws the names at the left of the plot, and its left edge.
    pub(crate) fn draw(&self, canvas: &mut Canvas, plot: &Rect) {
        for (row, lines) in self.lines.iter().enumerate() {
            let first = self.middle(plot, row) - (lines.len() as f64 - 1.0) * NAME_LINE_PT / 2.0;
            for (i, line) in lines.iter().enumerate() {
                let y = first + i as f64 * NAME_LINE_PT;
                canvas.text(line, (plot.x0 - 4.0, y), Anchor::End, LABEL_PT);
            }
        }
        canvas.line((plot.x0, plot.y0), (plot.x0, plot.y1), BLACK, AXIS_PT);
    }
}
