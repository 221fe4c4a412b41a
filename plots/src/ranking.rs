//! Bars of one or two quantities of a table, a row each: how schedules, variants or machines compare.

use crate::Figure;
use crate::bars::Names;
use crate::canvas::{Canvas, Rect};
use crate::error::PlotError;
use crate::frame::X_AXIS_HEIGHT;
use crate::panel::Panel;
use crate::spec::TableSpec;
use crate::style::{AXIS_PT, BLACK, MARGIN_PT, MEMORY_BAR, TIME_BAR};
use crate::table::Table;

/// Draws a figure of the kind `bars`: a panel for `x`, and one for `y` where it is named. Rows that ran out of memory
/// are hatched and say so.
pub(crate) fn bars(spec: &TableSpec, table: &Table) -> Result<Figure, PlotError> {
    let labels = table.texts(spec.column("label", spec.label.as_ref())?)?;
    let first = spec.column("x", spec.x.as_ref())?;
    let out = spec.out_of_memory(table)?;
    let mut panels = vec![(first, spec.x_text(first), TIME_BAR)];
    if let Some(second) = spec.y.as_deref() {
        panels.push((second, spec.y_text(second), MEMORY_BAR));
    }
    let words: Vec<&str> = panels.iter().map(|panel| panel.1.as_str()).collect();
    let mut canvas = Canvas::new(&spec.name, &words.join(" and "), spec.width);
    let names = Names::new(&labels, canvas.width() * if spec.width.is_wide() { 0.26 } else { 0.3 });
    let left = MARGIN_PT + names.width + 4.0;
    // Every panel keeps room for the tick label that sticks out at its right.
    let overhang = 9.0;
    let count = panels.len() as f64;
    let gap = overhang + 7.0;
    let wide = (canvas.width() - MARGIN_PT - overhang - left - gap * (count - 1.0)) / count;
    let height = names.pitch() * labels.len() as f64 + 2.0;
    for (index, (column, label, fill)) in panels.iter().enumerate() {
        let numbers = table.numbers(column)?;
        if numbers.values.iter().flatten().any(|value| *value < 0.0) {
            return Err(PlotError::Damaged(format!("a `{column}` of `{}` is below zero", spec.name)));
        }
        let panel = Panel::plain(&numbers, &out, *fill, wide);
        let x0 = left + index as f64 * (wide + gap);
        let plot = Rect::new(x0, MARGIN_PT, x0 + wide, MARGIN_PT + height);
        let rows: Vec<f64> = (0..labels.len()).map(|row| names.middle(&plot, row)).collect();
        panel.draw(&mut canvas, &plot, &rows, names.pitch(), names.bar_height());
        canvas.line((plot.x0, plot.y0), (plot.x0, plot.y1), BLACK, AXIS_PT);
        panel.axis.draw_below(&mut canvas, &plot, label);
    }
    names.draw(&mut canvas, &Rect::new(left, MARGIN_PT, left + wide, MARGIN_PT + height));
    canvas.finish(MARGIN_PT + height + X_AXIS_HEIGHT + MARGIN_PT)
}
