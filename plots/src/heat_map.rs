//! A quantity over two axes of a sweep: a cell each, darker where it is more.

use plotters::style::RGBColor;

use crate::Figure;
use crate::axis::{Quantity, Tick, three_digits};
use crate::canvas::{Anchor, Canvas, Rect};
use crate::error::PlotError;
use crate::font::{shorten, text_width};
use crate::frame::{X_AXIS_HEIGHT, below, left, left_room};
use crate::spec::TableSpec;
use crate::style::{BLACK, Fill, Hatch, MARGIN_PT, PALE, TICK_PT, WHITE, luma};
use crate::table::{Table, distinct};

/// Colours of the least and the most: one hue from light to dark, so that greyscale keeps the order.
const LIGHT: (f64, f64, f64) = (236.0, 244.0, 250.0);
const DEEP: (f64, f64, f64) = (8.0, 64.0, 129.0);
/// Shades darker than this carry white numbers: at this lightness black and white contrast alike (WCAG 2.1).
const MIDDLE: f64 = 118.0;
/// Height of the key above the cells.
const KEY_PT: f64 = 14.0;

/// What stands in a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cell {
    /// No row has both values.
    Missing,
    OutOfMemory,
    Value(f64),
}

/// Draws a figure of the kind `heat_map`. Rows that ran out of memory are hatched and say so where there is room;
/// cells without a row stay empty.
pub(crate) fn heat_map(spec: &TableSpec, table: &Table) -> Result<Figure, PlotError> {
    let x_column = spec.column("x", spec.x.as_ref())?;
    let y_column = spec.column("y", spec.y.as_ref())?;
    let value_column = spec.column("value", spec.value.as_ref())?;
    let (xs, ys) = (table.texts(x_column)?, table.texts(y_column)?);
    let values = table.numbers(value_column)?;
    let out = spec.out_of_memory(table)?;
    let (columns, rows) = (distinct(&xs), distinct(&ys));
    let mut cells = vec![vec![Cell::Missing; columns.len()]; rows.len()];
    for row in 0..table.len() {
        let place = (ys[row], xs[row]);
        let found = rows.iter().position(|y| *y == place.0).zip(columns.iter().position(|x| *x == place.1));
        let Some((j, i)) = found else { continue };
        if cells[j][i] != Cell::Missing {
            return Err(PlotError::Damaged(format!(
                "two rows have `{x_column}` = {} and `{y_column}` = {}: choose one with `only`",
                place.1, place.0
            )));
        }
        cells[j][i] = match values.values[row] {
            _ if out[row] => Cell::OutOfMemory,
            Some(value) => Cell::Value(value),
            None => Cell::Missing,
        };
    }
    let known =
        || cells.iter().flatten().filter_map(|cell| if let Cell::Value(v) = cell { Some(*v) } else { None });
    let most = known().fold(f64::NEG_INFINITY, f64::max);
    let least = known().fold(f64::INFINITY, f64::min);
    if !most.is_finite() {
        return Err(PlotError::Empty(format!("no row of `{}` has a `{value_column}`", spec.name)));
    }
    let range = Range { least, most, quantity: values.quantity };
    let what = spec.value.as_deref().map(crate::spec::words).unwrap_or_default();
    let labels = (spec.x_text(x_column), spec.y_text(y_column), range.quantity.unit(most).label(&what));
    draw(spec, (&columns, &rows), &cells, range, &labels)
}

/// The values that the colours stand for.
#[derive(Clone, Copy, Debug)]
struct Range {
    least: f64,
    most: f64,
    quantity: Quantity,
}

impl Range {
    fn share(&self, value: f64) -> f64 {
        if self.most > self.least { (value - self.least) / (self.most - self.least) } else { 0.5 }
    }

    fn text(&self, value: f64) -> String {
        three_digits(value / self.quantity.unit(self.most).size)
    }
}

/// The colour of a share from 0 to 1.
pub(crate) fn color(share: f64) -> RGBColor {
    let mix = |light: f64, deep: f64| (light + (deep - light) * share).round() as u8;
    RGBColor(mix(LIGHT.0, DEEP.0), mix(LIGHT.1, DEEP.1), mix(LIGHT.2, DEEP.2))
}

fn draw(
    spec: &TableSpec,
    (columns, rows): (&[&str], &[&str]),
    cells: &[Vec<Cell>],
    range: Range,
    labels: &(String, String, String),
) -> Result<Figure, PlotError> {
    let mut canvas =
        Canvas::new(&spec.name, &format!("{} by {} and {}", labels.2, labels.0, labels.1), spec.width);
    let tick = |(index, text): (usize, &&str), room: f64| Tick {
        value: index as f64,
        label: shorten(text, room, TICK_PT),
    };
    let left_ticks: Vec<Tick> = rows.iter().enumerate().map(|row| tick(row, canvas.width() * 0.25)).collect();
    let x0 = MARGIN_PT + left_room(&left_ticks);
    let wide = (canvas.width() - MARGIN_PT - x0) / columns.len() as f64;
    let tallest = if spec.width.is_wide() { 26.0 } else { 22.0 };
    let high = (wide * 0.8).clamp(9.0, tallest);
    let top = MARGIN_PT + KEY_PT;
    let plot = Rect::new(x0, top, x0 + wide * columns.len() as f64, top + high * rows.len() as f64);
    key(&mut canvas, &plot, range, &labels.2, cells);
    for (j, row) in cells.iter().enumerate() {
        for (i, cell) in row.iter().enumerate() {
            // The first category stands at the bottom, as the smallest number of an axis does.
            let y1 = plot.y1 - j as f64 * high;
            let area = Rect::new(x0 + i as f64 * wide, y1 - high, x0 + (i + 1) as f64 * wide, y1);
            draw_cell(&mut canvas, &area, *cell, range);
        }
    }
    // Labels that would touch are left out: every second, third ... stands.
    let widest = columns.iter().map(|text| text_width(text, TICK_PT)).fold(0.0, f64::max);
    let numbers = columns.iter().all(|text| text.parse::<f64>().is_ok());
    let step = if numbers { ((widest + 4.0) / wide).ceil().max(1.0) as usize } else { 1 };
    let below_ticks: Vec<Tick> = columns
        .iter()
        .enumerate()
        .step_by(step)
        .map(|column| tick(column, wide * step as f64 - 2.0))
        .collect();
    let centre = |index: f64| x0 + (index + 0.5) * wide;
    below(&mut canvas, &plot, &below_ticks, centre, &labels.0);
    left(&mut canvas, &plot, &left_ticks, |index| plot.y1 - (index + 0.5) * high, &labels.1);
    canvas.finish(plot.y1 + X_AXIS_HEIGHT + MARGIN_PT)
}

fn draw_cell(canvas: &mut Canvas, area: &Rect, cell: Cell, range: Range) {
    let inner = Rect::new(area.x0 + 0.4, area.y0 + 0.4, area.x1 - 0.4, area.y1 - 0.4);
    let (shade, text) = match cell {
        Cell::Missing => (WHITE, "–".to_owned()),
        Cell::OutOfMemory => {
            canvas.fill(inner, Fill { color: PALE, hatch: Hatch::Falling });
            (PALE, "OOM".to_owned())
        }
        Cell::Value(value) => {
            let shade = color(range.share(value));
            canvas.rect(inner, shade);
            (shade, range.text(value))
        }
    };
    if text_width(&text, TICK_PT) + 3.0 <= inner.width() && inner.height() >= TICK_PT + 1.0 {
        if cell == Cell::OutOfMemory {
            canvas.text_inside(&inner, shade, &text, TICK_PT);
        } else {
            let ink = if luma(shade) < MIDDLE { WHITE } else { BLACK };
            canvas.text_in(ink, &text, (inner.middle_x(), inner.middle_y()), Anchor::Middle, TICK_PT);
        }
    }
}

/// What the colours mean, above the cells: name, the least, the shades, the most, and the hatch.
fn key(canvas: &mut Canvas, plot: &Rect, range: Range, label: &str, cells: &[Vec<Cell>]) {
    const STEPS: u32 = 24;
    let y = MARGIN_PT + KEY_PT / 2.0 - 2.0;
    let right = canvas.width() - MARGIN_PT;
    let (least, most) = (range.text(range.least), range.text(range.most));
    let hatched = cells.iter().flatten().any(|cell| *cell == Cell::OutOfMemory);
    let words = "out of memory";
    let swatch = if hatched { 9.0 + 3.0 + text_width(words, TICK_PT) + 8.0 } else { 0.0 };
    let bar = if range.most > range.least { 48.0 } else { 0.0 };
    let numbers =
        if bar > 0.0 { text_width(&least, TICK_PT) + text_width(&most, TICK_PT) + 6.0 } else { 0.0 };
    let start = plot.x0.min(right - swatch - bar - numbers - text_width(label, TICK_PT) - 8.0).max(MARGIN_PT);
    let room = right - swatch - bar - numbers - 6.0 - start;
    let name = shorten(label, room, TICK_PT);
    canvas.text(&name, (start, y), Anchor::Start, TICK_PT);
    let mut x = start + text_width(&name, TICK_PT) + 6.0;
    if bar > 0.0 {
        canvas.text(&least, (x, y), Anchor::Start, TICK_PT);
        x += text_width(&least, TICK_PT) + 3.0;
        for step in 0..STEPS {
            let edge = |step: u32| x + bar * f64::from(step) / f64::from(STEPS);
            let shade = color((f64::from(step) + 0.5) / f64::from(STEPS));
            canvas.rect(Rect::new(edge(step), y - 3.5, edge(step + 1), y + 3.5), shade);
        }
        canvas.outline(Rect::new(x, y - 3.5, x + bar, y + 3.5), 0.3);
        x += bar + 3.0;
        canvas.text(&most, (x, y), Anchor::Start, TICK_PT);
        x += text_width(&most, TICK_PT) + 8.0;
    }
    if hatched {
        let area = Rect::new(x, y - 3.5, x + 9.0, y + 3.5);
        canvas.fill(area, Fill { color: PALE, hatch: Hatch::Falling });
        canvas.outline(area, 0.3);
        canvas.text_on(WHITE, words, (x + 12.0, y), Anchor::Start, TICK_PT);
    }
}
