//! What single changes do to a result: bars to both sides of where it stands, the largest on top.

use crate::axis::{Tick, ticks, widest};
use crate::canvas::{Anchor, Canvas, Rect};
use crate::error::PlotError;
use crate::font::{shorten, text_width};
use crate::frame::{X_AXIS_HEIGHT, below};
use crate::spec::TableSpec;
use crate::style::{AXIS_PT, BLACK, LABEL_PT, MARGIN_PT, MEMORY_BAR, TICK_PT, TIME_BAR};
use crate::table::Table;
use crate::{Figure, legend};

/// Distance between bars, points.
const PITCH_PT: f64 = 13.0;
const BAR_PT: f64 = 9.0;

/// One change: its name and what it does, shares of the base.
struct Change<'a> {
    name: &'a str,
    ends: [f64; 2],
}

impl Change<'_> {
    fn span(&self) -> f64 {
        (self.ends[1] - self.ends[0]).abs().max(self.ends[0].abs()).max(self.ends[1].abs())
    }
}

/// Draws a figure of the kind `tornado`: `low` and `high` are the results at the lower and the upper setting of what
/// `label` names, `base` the result without any change. The axis shows percent of the base.
pub(crate) fn tornado(spec: &TableSpec, table: &Table) -> Result<Figure, PlotError> {
    let names = table.texts(spec.column("label", spec.label.as_ref())?)?;
    let low_column = spec.column("low", spec.low.as_ref())?;
    let low = table.numbers(low_column)?;
    let high = table.numbers(spec.column("high", spec.high.as_ref())?)?;
    let base = spec.base.ok_or(PlotError::NeedsColumn { kind: spec.kind, key: "base" })?;
    if !(base.is_finite() && base > 0.0) {
        return Err(PlotError::Damaged(format!(
            "`base` of `{}` is {base}, which is not above zero",
            spec.name
        )));
    }
    let share = |value: Option<f64>| value.map(|value| 100.0 * (value / base - 1.0));
    let mut changes: Vec<Change<'_>> = (0..table.len())
        .filter_map(|row| {
            let ends = [share(low.values[row])?, share(high.values[row])?];
            Some(Change { name: names[row], ends })
        })
        .collect();
    if changes.is_empty() {
        return Err(PlotError::Empty(format!("no row of `{}` has both ends", spec.name)));
    }
    changes.sort_by(|a, b| b.span().total_cmp(&a.span()));
    let what = spec.x_label.clone().unwrap_or_else(|| crate::spec::words(low_column));
    draw(spec, &changes, &format!("{what}, change (%)"))
}

/// Ticks from `-most` to `most`, the same to both sides.
fn both_sides(most: f64, length: f64) -> Vec<Tick> {
    let fits = |right: &[Tick]| {
        let [_, first, ..] = right else { return true };
        first.value / (2.0 * most) * length >= widest(right) + 10.0
    };
    let candidates = (1..=4).rev().map(|steps| ticks(most, steps));
    let right = candidates.into_iter().find(|right| fits(right)).unwrap_or_else(|| ticks(most, 1));
    let left = right
        .iter()
        .skip(1)
        .rev()
        .map(|tick| Tick { value: -tick.value, label: format!("−{}", tick.label) });
    left.chain(right.iter().cloned()).collect()
}

fn draw(spec: &TableSpec, changes: &[Change<'_>], label: &str) -> Result<Figure, PlotError> {
    let mut canvas = Canvas::new(&spec.name, "What single changes do", spec.width);
    let right = canvas.width() - MARGIN_PT - 8.0;
    let entries = [("lower setting".to_owned(), TIME_BAR), ("upper setting".to_owned(), MEMORY_BAR)];
    let whole = canvas.width() - 2.0 * MARGIN_PT;
    let top = MARGIN_PT + legend::lines(&mut canvas, &entries, MARGIN_PT, MARGIN_PT, whole);
    let most_name = canvas.width() * 0.36;
    let names: Vec<String> = changes.iter().map(|change| shorten(change.name, most_name, LABEL_PT)).collect();
    let left = MARGIN_PT + names.iter().map(|name| text_width(name, LABEL_PT)).fold(0.0, f64::max) + 5.0;
    let plot = Rect::new(left, top, right, top + PITCH_PT * changes.len() as f64 + 2.0);
    let ends = || changes.iter().flat_map(|change| change.ends);
    let largest = ends().map(f64::abs).fold(0.0, f64::max);
    let most = if largest > 0.0 { largest * 1.3 } else { 1.0 };
    let x = |value: f64| plot.middle_x() + value / most * plot.width() / 2.0;
    for (row, (change, name)) in changes.iter().zip(&names).enumerate() {
        let middle = plot.y0 + 1.0 + (row as f64 + 0.5) * PITCH_PT;
        canvas.text(name, (plot.x0 - 4.0, middle), Anchor::End, LABEL_PT);
        // Where both settings pull the same way, the shorter bar stands before the longer one.
        let mut bars = [(change.ends[0], TIME_BAR), (change.ends[1], MEMORY_BAR)];
        bars.sort_by(|a, b| b.0.abs().total_cmp(&a.0.abs()));
        for (end, fill) in bars {
            let (from, to) = (x(0.0).min(x(end)), x(0.0).max(x(end)));
            if to - from > 0.2 {
                let area = Rect::new(from, middle - BAR_PT / 2.0, to, middle + BAR_PT / 2.0);
                canvas.fill(area, fill);
                canvas.outline(area, 0.3);
            }
        }
        values(&mut canvas, change, middle, x);
    }
    canvas.line((x(0.0), plot.y0), (x(0.0), plot.y1), BLACK, AXIS_PT);
    below(&mut canvas, &plot, &both_sides(most, plot.width()), x, label);
    canvas.finish(plot.y1 + X_AXIS_HEIGHT + MARGIN_PT)
}

/// Writes how far the bars go at their outer ends.
fn values(canvas: &mut Canvas, change: &Change<'_>, middle: f64, x: impl Fn(f64) -> f64) {
    let text = |value: f64| format!("{}{:.1}", if value < 0.0 { "−" } else { "+" }, value.abs());
    let least = change.ends[0].min(change.ends[1]);
    let most = change.ends[0].max(change.ends[1]);
    if least < -0.05 {
        canvas.text(&text(least), (x(least) - 3.0, middle), Anchor::End, TICK_PT);
    }
    if most > 0.05 {
        canvas.text(&text(most), (x(most) + 3.0, middle), Anchor::Start, TICK_PT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_the_same_to_both_sides() {
        let labels: Vec<String> = both_sides(20.0, 200.0).into_iter().map(|tick| tick.label).collect();
        assert_eq!(labels, ["−20", "−15", "−10", "−5", "0", "5", "10", "15", "20"]);
    }
}
