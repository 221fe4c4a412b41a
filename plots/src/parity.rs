//! Predicted over measured step times: one panel a suite, both axes logarithmic and alike.

use std::collections::{BTreeMap, BTreeSet};

use steptime_scenarios::{ValidatedRow, Validation};

use crate::canvas::{Anchor, Canvas, Point, Rect};
use crate::error::PlotError;
use crate::font::{shorten, text_width};
use crate::log_axis::LogAxis;
use crate::marker::Look;
use crate::style::{AXIS_PT, BLACK, FAR_BAND, LABEL_PT, MARGIN_PT, NEAR_BAND, TICK_LENGTH_PT, TICK_PT};
use crate::{Figure, FigureKind, Width};

/// Height of the two lines above a panel, points.
const HEAD_PT: f64 = 20.0;
/// Room below a panel for its ticks.
const FOOT_PT: f64 = TICK_LENGTH_PT + 2.0 + TICK_PT + 7.0;
/// Room at the left of a panel for its ticks.
const SIDE_PT: f64 = 23.0;
/// Points of one series closer than this are drawn once.
const GRID_PT: f64 = 0.8;
const LEGEND_LINE_PT: f64 = 11.0;

/// A suite's panel: its rows with both step times, by series.
struct Panel<'a> {
    suite: &'a str,
    median: f64,
    pairs: Vec<(usize, f64, f64)>,
}

/// Draws predicted over measured step times of every suite that has any. Bands show errors of 10 and 25 %.
///
/// # Errors
/// [`PlotError::Empty`] when no row has both times, [`PlotError::Damaged`] when one is no length of time.
pub fn parity(validation: &Validation, width: Width) -> Result<Figure, PlotError> {
    let scored: Vec<(&ValidatedRow, f64, f64)> = validation
        .rows
        .iter()
        .filter_map(|row| Some((row, row.measured_step_time_s?, row.predicted_step_time_s?)))
        .collect();
    if scored.is_empty() {
        return Err(PlotError::Empty("no row has a measured and a predicted step time".to_owned()));
    }
    if let Some((row, ..)) = scored.iter().find(|(_, a, b)| !(*a > 0.0 && *b > 0.0 && (a + b).is_finite())) {
        return Err(PlotError::Damaged(format!("a step time of `{}` is no length of time", row.run_id)));
    }
    let mut series: BTreeMap<String, usize> = scored.iter().map(|(row, ..)| (product(&row.gpu), 0)).collect();
    series.values_mut().enumerate().for_each(|(index, number)| *number = index);
    let panels: Vec<Panel<'_>> = validation
        .suites
        .iter()
        .filter_map(|suite| {
            let own = scored.iter().filter(|(row, ..)| row.suite == suite.suite);
            let pairs =
                own.filter_map(|(row, a, b)| Some((*series.get(&product(&row.gpu))?, *a, *b))).collect();
            Some(Panel { suite: &suite.suite, median: suite.time?.median_ape, pairs })
        })
        .collect();
    draw(&panels, &series, width)
}

/// A GPU without the size of its memory and its socket: `h100-80gb-sxm` is an H100.
fn product(gpu: &str) -> String {
    let words = gpu
        .split('-')
        .take_while(|word| !(word.ends_with("gb") && word.starts_with(|c: char| c.is_ascii_digit())));
    let name = |word: &str| if word == "quadro" { "Quadro".to_owned() } else { word.to_ascii_uppercase() };
    words.map(name).collect::<Vec<_>>().join(" ")
}

fn draw(panels: &[Panel<'_>], series: &BTreeMap<String, usize>, width: Width) -> Result<Figure, PlotError> {
    let mut canvas = Canvas::new(FigureKind::Parity.name(), "Predicted over measured step times", width);
    let columns = if width.is_wide() { 4 } else { 2 }.min(panels.len());
    let left = MARGIN_PT + LABEL_PT + 4.0;
    let pitch = (canvas.width() - left - MARGIN_PT) / columns as f64;
    // The last tick label may stick out at the right.
    let side = (pitch - SIDE_PT - 8.0).min(150.0);
    let top = legend(&mut canvas, series);
    let row_height = HEAD_PT + side + FOOT_PT;
    for (index, panel) in panels.iter().enumerate() {
        let (column, row) = (index % columns, index / columns);
        let x0 = left + column as f64 * pitch + SIDE_PT;
        let y0 = top + row as f64 * row_height + HEAD_PT;
        panel.draw(&mut canvas, &Rect::new(x0, y0, x0 + side, y0 + side));
    }
    let bottom = top + panels.len().div_ceil(columns) as f64 * row_height;
    let middle = f64::midpoint(left, canvas.width());
    canvas.text("Measured step time (s)", (middle, bottom + LABEL_PT / 2.0), Anchor::Middle, LABEL_PT);
    let x = MARGIN_PT + LABEL_PT / 2.0;
    canvas.text_upwards("Predicted step time (s)", (x, f64::midpoint(top, bottom)), LABEL_PT);
    canvas.finish(bottom + LABEL_PT + MARGIN_PT + 2.0)
}

/// Draws the key of the GPUs and of the bands; returns where it ends.
fn legend(canvas: &mut Canvas, series: &BTreeMap<String, usize>) -> f64 {
    const SWATCH: f64 = 7.0;
    const GAP: f64 = 10.0;
    let right = canvas.width() - MARGIN_PT;
    let (mut x, mut y) = (MARGIN_PT, MARGIN_PT + LEGEND_LINE_PT / 2.0);
    let mut place = |label: &str, swatch: f64| {
        let wide = swatch + 2.0 + text_width(label, LABEL_PT);
        if x > MARGIN_PT && x + wide > right {
            (x, y) = (MARGIN_PT, y + LEGEND_LINE_PT);
        }
        let at = (x, y);
        x += wide + GAP;
        at
    };
    for (name, number) in series {
        let (x, y) = place(name, SWATCH);
        Look::of(*number).draw(canvas, (x + SWATCH / 2.0, y));
        canvas.text(name, (x + SWATCH + 2.0, y), Anchor::Start, LABEL_PT);
    }
    for (name, color) in [("within 10 %", NEAR_BAND), ("within 25 %", FAR_BAND)] {
        let (x, y) = place(name, SWATCH + 4.0);
        let swatch = Rect::new(x, y - 3.5, x + SWATCH + 4.0, y + 3.5);
        canvas.rect(swatch, color);
        canvas.outline(swatch, 0.3);
        canvas.text(name, (x + SWATCH + 6.0, y), Anchor::Start, LABEL_PT);
    }
    y + LEGEND_LINE_PT / 2.0 + 3.0
}

impl Panel<'_> {
    fn draw(&self, canvas: &mut Canvas, plot: &Rect) {
        let axis = LogAxis::over(self.pairs.iter().flat_map(|&(_, a, b)| [a, b]));
        for (error, color) in [(0.25, FAR_BAND), (0.1, NEAR_BAND)] {
            canvas.polygon(band(plot, axis.span(1.0 - error), axis.span(1.0 + error)), color);
        }
        canvas.line((plot.x0, plot.y1), (plot.x1, plot.y0), BLACK, 0.35);
        let place = |measured: f64, predicted: f64| {
            let x = plot.x0 + axis.share(measured) * plot.width();
            (x, plot.y1 - axis.share(predicted) * plot.height())
        };
        let cell = |value: f64| (value / GRID_PT).round() as i64;
        let spots: BTreeSet<(usize, i64, i64)> = self
            .pairs
            .iter()
            .map(|&(series, measured, predicted)| {
                let (x, y) = place(measured, predicted);
                (series, cell(x), cell(y))
            })
            .collect();
        for (series, x, y) in spots {
            Look::of(series).draw(canvas, (x as f64 * GRID_PT, y as f64 * GRID_PT));
        }
        canvas.outline(*plot, AXIS_PT);
        draw_ticks(canvas, plot, &axis);
        let name = shorten(self.suite, plot.width() + SIDE_PT, LABEL_PT);
        canvas.text(&name, (plot.x0, plot.y0 - 14.5), Anchor::Start, LABEL_PT);
        let score = format!("n = {}, median {:.1} %", self.pairs.len(), 100.0 * self.median);
        canvas.text(&score, (plot.x0, plot.y0 - 5.5), Anchor::Start, TICK_PT);
    }
}

fn draw_ticks(canvas: &mut Canvas, plot: &Rect, axis: &LogAxis) {
    for tick in axis.ticks(plot.width()) {
        let share = axis.share(tick.value);
        let (x, y) = (plot.x0 + share * plot.width(), plot.y1 - share * plot.height());
        canvas.line((x, plot.y1), (x, plot.y1 + TICK_LENGTH_PT), BLACK, AXIS_PT);
        canvas.text(
            &tick.label,
            (x, plot.y1 + TICK_LENGTH_PT + 2.0 + TICK_PT / 2.0),
            Anchor::Middle,
            TICK_PT,
        );
        canvas.line((plot.x0 - TICK_LENGTH_PT, y), (plot.x0, y), BLACK, AXIS_PT);
        canvas.text(&tick.label, (plot.x0 - TICK_LENGTH_PT - 1.5, y), Anchor::End, TICK_PT);
    }
}

/// The strip of the plot between the diagonals that lie `below` (negative) and `above` the middle one, shares of the
/// axis.
fn band(plot: &Rect, below: f64, above: f64) -> Vec<Point> {
    let (below, above) = (below.max(-1.0), above.min(1.0));
    let corners =
        [(0.0, 0.0), (0.0, above), (1.0 - above, 1.0), (1.0, 1.0), (1.0, 1.0 + below), (-below, 0.0)];
    corners.map(|(u, v)| (plot.x0 + u * plot.width(), plot.y1 - v * plot.height())).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_named_by_their_product() {
        let names = ["h100-80gb-sxm", "rtx-a5000", "quadro-rtx-8000", "v100-32gb-sxm2", "gb200", "a40"];
        assert_eq!(names.map(product), ["H100", "RTX A5000", "Quadro RTX 8000", "V100", "GB200", "A40"]);
    }
}
