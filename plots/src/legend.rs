//! Keys of the colours, in lines above a plot or in a column beside it.

use crate::canvas::{Anchor, Canvas, Rect};
use crate::font::{shorten, text_width};
use crate::style::{Fill, LABEL_PT};

const SWATCH: (f64, f64) = (11.0, 7.0);
const SWATCH_GAP: f64 = 3.0;
const ENTRY_GAP: f64 = 9.0;
const LINE_PT: f64 = 11.0;

/// One entry: name and fill.
pub(crate) type Entry = (String, Fill);

/// Width of the widest entry, points.
pub(crate) fn column_width(entries: &[Entry]) -> f64 {
    let widest = entries.iter().map(|entry| text_width(&entry.0, LABEL_PT)).fold(0.0, f64::max);
    SWATCH.0 + SWATCH_GAP + widest
}

/// Draws the entries in lines from (`x`, `y`) within `width` points; returns the height used.
pub(crate) fn lines(canvas: &mut Canvas, entries: &[Entry], x: f64, y: f64, width: f64) -> f64 {
    let (mut at_x, mut line) = (x, 0);
    for (name, fill) in entries {
        let label = shorten(name, width - SWATCH.0 - SWATCH_GAP, LABEL_PT);
        let wide = SWATCH.0 + SWATCH_GAP + text_width(&label, LABEL_PT);
        if at_x > x && at_x + wide > x + width {
            at_x = x;
            line += 1;
        }
        entry(canvas, &label, *fill, at_x, y + (f64::from(line) + 0.5) * LINE_PT);
        at_x += wide + ENTRY_GAP;
    }
    if entries.is_empty() { 0.0 } else { f64::from(line + 1) * LINE_PT + 3.0 }
}

/// Draws the entries below each other from (`x`, `y`), within `width` points.
pub(crate) fn column(canvas: &mut Canvas, entries: &[Entry], x: f64, y: f64, width: f64) {
    for (i, (name, fill)) in entries.iter().enumerate() {
        let label = shorten(name, width - SWATCH.0 - SWATCH_GAP, LABEL_PT);
        entry(canvas, &label, *fill, x, y + (i as f64 + 0.5) * LINE_PT);
    }
}

/// Height of a column of so many entries, points.
pub(crate) fn column_height(entries: usize) -> f64 {
    entries as f64 * LINE_PT
}

fn entry(canvas: &mut Canvas, label: &str, fill: Fill, x: f64, middle: f64) {
    let swatch = Rect::new(x, middle - SWATCH.1 / 2.0, x + SWATCH.0, middle + SWATCH.1 / 2.0);
    canvas.fill(swatch, fill);
    canvas.outline(swatch, 0.3);
    canvas.text(label, (swatch.x1 + SWATCH_GAP, middle), Anchor::Start, LABEL_PT);
}
