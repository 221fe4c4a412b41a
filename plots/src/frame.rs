//! Axes around a plot.

use crate::axis::{Direction, Quantity, Tick, Unit, fit_ticks, widest};
use crate::canvas::{Anchor, Canvas, Rect};
use crate::style::{AXIS_PT, BLACK, LABEL_PT, TICK_LENGTH_PT, TICK_PT};

/// Room below a plot for ticks, tick labels and the axis label, points.
pub(crate) const X_AXIS_HEIGHT: f64 = TICK_LENGTH_PT + 2.0 + TICK_PT + 3.0 + LABEL_PT;
const TICK_GAP: f64 = 2.0;

/// A linear axis from zero.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    /// Seconds or bytes at the far end, above zero.
    pub(crate) max: f64,
    pub(crate) unit: Unit,
    ticks: Vec<Tick>,
}

impl Axis {
    /// An axis to `max` seconds or bytes over `length` points; `largest` decides the unit.
    pub(crate) fn new(quantity: Quantity, largest: f64, max: f64, length: f64, direction: Direction) -> Self {
        let unit = quantity.unit(largest);
        let max = if max > 0.0 { max } else { unit.size };
        Self { max, unit, ticks: fit_ticks(max / unit.size, length, direction) }
    }

    /// Distance from zero of a value, as a share of the axis.
    pub(crate) fn share(&self, value: f64) -> f64 {
        value / self.max
    }

    /// Where a value lies on a horizontal axis.
    pub(crate) fn x(&self, plot: &Rect, value: f64) -> f64 {
        plot.x0 + self.share(value) * plot.width()
    }

    /// Where a value lies on a vertical axis.
    pub(crate) fn y(&self, plot: &Rect, value: f64) -> f64 {
        plot.y1 - self.share(value) * plot.height()
    }

    /// Half the widest tick label: what the last one may stick out at the right of a horizontal axis.
    pub(crate) fn overhang(&self) -> f64 {
        widest(&self.ticks) / 2.0
    }

    /// Room that a vertical axis needs at the left of the plot, points.
    pub(crate) fn left_room(&self) -> f64 {
        left_room(&self.ticks)
    }

    /// Draws line, ticks and labels below the plot.
    pub(crate) fn draw_below(&self, canvas: &mut Canvas, plot: &Rect, label: &str) {
        below(canvas, plot, &self.ticks, |tick| self.x(plot, tick * self.unit.size), &self.unit.label(label));
    }

    /// Draws line, ticks and labels at the left of the plot.
    pub(crate) fn draw_left(&self, canvas: &mut Canvas, plot: &Rect, label: &str) {
        left(canvas, plot, &self.ticks, |tick| self.y(plot, tick * self.unit.size), &self.unit.label(label));
    }
}

/// Room that ticks, their labels and the axis label need at the left of a plot, points.
pub(crate) fn left_room(ticks: &[Tick]) -> f64 {
    LABEL_PT + 3.0 + widest(ticks) + TICK_GAP + TICK_LENGTH_PT
}

/// Draws the line of a horizontal axis, its ticks where `x` puts them, and its label, which is kept on the sheet.
pub(crate) fn below(canvas: &mut Canvas, plot: &Rect, ticks: &[Tick], x: impl Fn(f64) -> f64, label: &str) {
    canvas.line((plot.x0, plot.y1), (plot.x1, plot.y1), BLACK, AXIS_PT);
    let text_y = plot.y1 + TICK_LENGTH_PT + TICK_GAP + TICK_PT / 2.0;
    for tick in ticks {
        let x = x(tick.value);
        canvas.line((x, plot.y1), (x, plot.y1 + TICK_LENGTH_PT), BLACK, AXIS_PT);
        canvas.text(&tick.label, (x, text_y), Anchor::Middle, TICK_PT);
    }
    let half = crate::font::text_width(label, LABEL_PT) / 2.0;
    let x = plot.middle_x().min(canvas.width() - half).max(half);
    canvas.text(label, (x, text_y + TICK_PT / 2.0 + 3.0 + LABEL_PT / 2.0), Anchor::Middle, LABEL_PT);
}

/// Draws the line of a vertical axis, its ticks where `y` puts them, and its label.
pub(crate) fn left(canvas: &mut Canvas, plot: &Rect, ticks: &[Tick], y: impl Fn(f64) -> f64, label: &str) {
    canvas.line((plot.x0, plot.y0), (plot.x0, plot.y1), BLACK, AXIS_PT);
    let text_x = plot.x0 - TICK_LENGTH_PT - TICK_GAP;
    for tick in ticks {
        let y = y(tick.value);
        canvas.line((plot.x0 - TICK_LENGTH_PT, y), (plot.x0, y), BLACK, AXIS_PT);
        canvas.text(&tick.label, (text_x, y), Anchor::End, TICK_PT);
    }
    let x = text_x - widest(ticks) - 3.0 - LABEL_PT / 2.0;
    canvas.text_upwards(label, (x, plot.middle_y()), LABEL_PT);
}
