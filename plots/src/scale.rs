//! A horizontal or vertical axis of numbers, linear from zero or logarithmic.

use crate::axis::{Direction, Quantity, Tick, Unit, ticks, widest};
use crate::canvas::{Canvas, Rect};
use crate::frame::{self, Axis};
use crate::log_axis::LogAxis;
use crate::style::TICK_PT;

/// How numbers are laid along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleKind {
    /// Proportional to the number, from zero.
    Linear,
    /// Proportional to the number, over the values only.
    LinearRange,
    /// Proportional to its logarithm; ticks at 1, 2 and 5 times powers of ten.
    Log,
    /// Proportional to its logarithm; ticks at powers of two, as GPUs are counted.
    LogTwo,
}

impl ScaleKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Linear, Self::LinearRange, Self::Log, Self::LogTwo];

    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::LinearRange => "linear-range",
            Self::Log => "log",
            Self::LogTwo => "log2",
        }
    }
}

/// Ticks between two values, at most `steps` steps of 1, 2, 2.5 or 5 times a power of ten.
fn multiples(from: f64, to: f64, steps: usize) -> Vec<Tick> {
    let from_zero = ticks(to - from, steps);
    let [_, first, ..] = &from_zero[..] else { return from_zero };
    let decimals = first.label.split('.').nth(1).map_or(0, str::len);
    let (low, high) = ((from / first.value).ceil() as i64, (to / first.value * (1.0 + 1e-9)).floor() as i64);
    let tick = |index: i64| {
        let value = index as f64 * first.value;
        Tick { value, label: format!("{value:.decimals$}") }
    };
    (low..=high).map(tick).collect()
}

/// One axis.
#[derive(Clone, Debug)]
pub(crate) enum Scale {
    Linear(Axis),
    /// From and to in the unit.
    Range {
        from: f64,
        to: f64,
        unit: Unit,
        ticks: Vec<Tick>,
    },
    Log {
        axis: LogAxis,
        unit: Unit,
        ticks: Vec<Tick>,
    },
}

impl Scale {
    /// An axis over these values along `length` points. Values are not negative, and above zero on logarithmic axes.
    pub(crate) fn new(
        kind: ScaleKind,
        quantity: Quantity,
        values: &[f64],
        length: f64,
        direction: Direction,
    ) -> Self {
        let largest = values.iter().copied().fold(0.0, f64::max);
        if kind == ScaleKind::Linear {
            return Self::Linear(Axis::new(quantity, largest, largest * 1.05, length, direction));
        }
        if kind == ScaleKind::LinearRange {
            return Self::range(quantity, values, largest, (length, direction));
        }
        let unit =
            if kind == ScaleKind::LogTwo { Unit { name: "", size: 1.0 } } else { quantity.unit(largest) };
        let axis = LogAxis::over(values.iter().map(|value| value / unit.size));
        // Labels above each other need no more room than their height.
        let room = if direction == Direction::Vertical { length * 1.5 } else { length };
        let ticks = if kind == ScaleKind::LogTwo { axis.doubling_ticks(room) } else { axis.ticks(room) };
        Self::Log { axis, unit, ticks }
    }

    /// A linear axis from just below the least value to just above the largest.
    fn range(
        quantity: Quantity,
        values: &[f64],
        largest: f64,
        (length, direction): (f64, Direction),
    ) -> Self {
        let unit = quantity.unit(largest);
        let least = values.iter().copied().fold(largest, f64::min) / unit.size;
        let most = largest / unit.size;
        let room = if most > least { (most - least) * 0.06 } else { most.max(1.0) * 0.06 };
        let (from, to) = ((least - room).max(0.0), most + room);
        // Steps as an axis from zero of the same extent has them; labels of the far end are the widest.
        let (ticks, most_steps) = (|steps| multiples(from, to, steps), 8);
        let fits = |ticks: &Vec<Tick>| {
            let [first, second, ..] = &ticks[..] else { return true };
            let between = (second.value - first.value) / (to - from) * length;
            between >= if direction == Direction::Vertical { 2.2 * TICK_PT } else { widest(ticks) + 6.0 }
        };
        let chosen = (2..=most_steps).rev().map(ticks).find(fits).unwrap_or_else(|| ticks(2));
        Self::Range { from, to, unit, ticks: chosen }
    }

    /// Where a value lies, from 0 to 1.
    pub(crate) fn share(&self, value: f64) -> f64 {
        match self {
            Self::Linear(axis) => axis.share(value),
            Self::Range { from, to, unit, .. } => (value / unit.size - from) / (to - from),
            Self::Log { axis, unit, .. } => axis.share(value / unit.size),
        }
    }

    pub(crate) fn x(&self, plot: &Rect, value: f64) -> f64 {
        plot.x0 + self.share(value) * plot.width()
    }

    pub(crate) fn y(&self, plot: &Rect, value: f64) -> f64 {
        plot.y1 - self.share(value) * plot.height()
    }

    /// Room that the axis needs at the left of a plot, points.
    pub(crate) fn left_room(&self) -> f64 {
        match self {
            Self::Linear(axis) => axis.left_room(),
            Self::Log { ticks, .. } | Self::Range { ticks, .. } => frame::left_room(ticks),
        }
    }

    /// Half the widest tick label: what the last one may stick out at the right.
    pub(crate) fn overhang(&self) -> f64 {
        match self {
            Self::Linear(axis) => axis.overhang(),
            Self::Log { ticks, .. } | Self::Range { ticks, .. } => widest(ticks) / 2.0,
        }
    }

    /// Draws line, ticks and labels below the plot.
    pub(crate) fn draw_below(&self, canvas: &mut Canvas, plot: &Rect, label: &str) {
        match self {
            Self::Linear(axis) => axis.draw_below(canvas, plot, label),
            Self::Log { unit, ticks, .. } | Self::Range { unit, ticks, .. } => {
                let x = |tick: f64| self.x(plot, tick * unit.size);
                frame::below(canvas, plot, ticks, x, &unit.label(label));
            }
        }
    }

    /// Draws line, ticks and labels at the left of the plot.
    pub(crate) fn draw_left(&self, canvas: &mut Canvas, plot: &Rect, label: &str) {
        match self {
            Self::Linear(axis) => axis.draw_left(canvas, plot, label),
            Self::Log { unit, ticks, .. } | Self::Range { unit, ticks, .. } => {
                let y = |tick: f64| self.y(plot, tick * unit.size);
                frame::left(canvas, plot, ticks, y, &unit.label(label));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_begins_near_its_least_value() {
        let scale =
            Scale::new(ScaleKind::LinearRange, Quantity::Number, &[0.95, 1.2], 200.0, Direction::Horizontal);
        let Scale::Range { ticks, .. } = &scale else { panic!("a range") };
        let labels: Vec<&str> = ticks.iter().map(|tick| tick.label.as_str()).collect();
        assert_eq!(labels, ["0.95", "1.00", "1.05", "1.10", "1.15", "1.20"]);
        assert!(scale.share(0.95) > 0.0 && scale.share(1.2) < 1.0);
        for same in [0.0, 3.0] {
            let scale =
                Scale::new(ScaleKind::LinearRange, Quantity::Number, &[same], 200.0, Direction::Horizontal);
            assert!((0.0..1.0).contains(&scale.share(same)));
        }
    }
}
