//! Where the value or the word of a bar stands.

use plotters::style::RGBColor;

use crate::bars::VALUE_GAP;
use crate::canvas::{Anchor, Canvas, Rect};
use crate::font::text_width;
use crate::panel::Bar;
use crate::style::{Fill, TICK_PT, WHITE};

/// The room for the text of one bar.
pub(crate) struct Slot<'a> {
    pub(crate) plot: &'a Rect,
    pub(crate) fill: Fill,
    /// Where the bar and its whisker end, points.
    pub(crate) end: f64,
    /// Where a line crosses the row, points.
    pub(crate) avoid: Option<f64>,
    pub(crate) middle: f64,
}

/// Writes the word of a bar that has no value.
pub(crate) fn write_word(canvas: &mut Canvas, plot: &Rect, bar: &Bar, middle: f64) {
    let fits = |text: &&String| text_width(text, TICK_PT) + 4.0 <= plot.width();
    if let Some(text) = bar.texts.iter().find(fits) {
        canvas.text_on(WHITE, text, (plot.middle_x(), middle), Anchor::Middle, TICK_PT);
    }
}

impl Slot<'_> {
    /// The end of the room right of the plot, up to the next panel or the edge of the sheet.
    fn last(&self) -> f64 {
        self.plot.x1 + 6.0
    }

    /// Where a text of this width fits: its point, which end of it stands there, and what is under it. It
    /// stands behind the bar, just behind the line, or inside the bar; on the line only if `strict` is false.
    fn place(&self, width: f64, may_stand_inside: bool, strict: bool) -> Option<(f64, Anchor, RGBColor)> {
        let clear =
            |start: f64| !strict || self.avoid.is_none_or(|x| x < start - 1.5 || x > start + width + 1.5);
        let line_is_near = |x: &f64| *x > self.end && *x - self.end < 10.0;
        let starts = [Some(self.end), self.avoid.filter(line_is_near)];
        let behind = starts.into_iter().flatten().map(|x| x + VALUE_GAP);
        let mut free = behind.filter(|&start| start + width <= self.last() && clear(start));
        if let Some(start) = free.next() {
            return Some((start, Anchor::Start, WHITE));
        }
        let inside = self.avoid.filter(|_| strict).map_or(self.end, |x| x.min(self.end));
        let fits = may_stand_inside && self.plot.x0 + width + 5.0 <= inside;
        fits.then_some((inside - 2.5, Anchor::End, self.fill.color))
    }
}

/// Writes the first text that fits, clear of the line if there is such a place. An abbreviation (the last of
/// several texts) comes after all places for the words.
pub(crate) fn write_value(canvas: &mut Canvas, slot: &Slot<'_>, bar: &Bar) {
    let width = |text: &String| text_width(text, TICK_PT);
    let words = match bar.texts.split_last() {
        Some((_, words)) if !words.is_empty() => words,
        _ => &bar.texts,
    };
    let tries = words.iter().map(|text| (text, true)).chain(words.iter().rev().map(|text| (text, false)));
    let inside = bar.interval.is_none();
    for (text, strict) in tries.chain(bar.texts.last().map(|text| (text, false))) {
        if let Some((x, anchor, under)) = slot.place(width(text), inside, strict) {
            canvas.text_on(under, text, (x, slot.middle), anchor, TICK_PT);
            return;
        }
    }
    // No place is free: the shortest text stands on a patch at the end of the room.
    if let Some(text) = bar.texts.last() {
        let start = (slot.end + VALUE_GAP).min(slot.last() - width(text));
        canvas.text_on(WHITE, text, (start, slot.middle), Anchor::Start, TICK_PT);
    }
}
