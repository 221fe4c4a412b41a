//! A plot of two axes of numbers with series in it, each named beside its last point.

use crate::axis::{Direction, Quantity};
use crate::canvas::{Anchor, Canvas, Point, Rect};
use crate::error::PlotError;
use crate::font::{shorten, text_width};
use crate::frame::X_AXIS_HEIGHT;
use crate::marker::Look;
use crate::scale::{Scale, ScaleKind};
use crate::style::{AXIS_PT, BLACK, LABEL_PT, MARGIN_PT, RULE, TICK_PT};
use crate::{Figure, Width};

/// Distance between names beside the plot, points.
const NAME_PT: f64 = 9.5;
/// Room for the line from a series to its name, points.
const LEADER_PT: f64 = 11.0;
/// Width of a series' line, points.
const LINE_PT: f64 = 0.9;

/// One axis, before it is known how long it is.
#[derive(Clone, Debug)]
pub(crate) struct Along {
    pub(crate) kind: ScaleKind,
    pub(crate) quantity: Quantity,
    /// All values that must lie on it.
    pub(crate) values: Vec<f64>,
    pub(crate) label: String,
}

impl Along {
    /// Checks that every value can stand on the axis.
    pub(crate) fn check(&self) -> Result<(), PlotError> {
        let bad = |value: &&f64| match self.kind {
            ScaleKind::Linear | ScaleKind::LinearRange => **value < 0.0,
            ScaleKind::Log | ScaleKind::LogTwo => **value <= 0.0,
        };
        match self.values.iter().find(bad) {
            Some(value) => Err(PlotError::Damaged(format!(
                "{value} cannot stand on the {} axis of `{}`",
                self.kind, self.label
            ))),
            None => Ok(()),
        }
    }
}

/// A sheet with axes laid out on it.
pub(crate) struct Plane {
    pub(crate) canvas: Canvas,
    pub(crate) plot: Rect,
    pub(crate) x: Scale,
    pub(crate) y: Scale,
    labels: (String, String),
}

impl Plane {
    /// Lays axes out on a sheet. `beside` are names that will stand at the right, `notes` lines of words above.
    pub(crate) fn new(
        mut canvas: Canvas,
        width: Width,
        (x, y): (&Along, &Along),
        beside: &[String],
        notes: &[String],
    ) -> Result<Self, PlotError> {
        x.check()?;
        y.check()?;
        let height = if width.is_wide() { 190.0 } else { 140.0 };
        let top = MARGIN_PT + 4.0 + notes.len() as f64 * (TICK_PT + 2.0);
        let vertical = Scale::new(y.kind, y.quantity, &y.values, height, Direction::Vertical);
        let left = MARGIN_PT + vertical.left_room();
        let most = canvas.width() * 0.3;
        let widest = beside.iter().map(|name| text_width(&shorten(name, most, LABEL_PT), LABEL_PT));
        let names = widest.fold(0.0, f64::max);
        let named = if names > 0.0 { names + LEADER_PT } else { 0.0 };
        let scale = |length: f64| Scale::new(x.kind, x.quantity, &x.values, length, Direction::Horizontal);
        let room = canvas.width() - MARGIN_PT - left;
        let length = room - named.max(scale(room - named).overhang());
        let plot = Rect::new(left, top, left + length, top + height);
        for (line, note) in notes.iter().enumerate() {
            let at = (left, MARGIN_PT + (line as f64 + 0.5) * (TICK_PT + 2.0));
            canvas.text(&shorten(note, room, TICK_PT), at, Anchor::Start, TICK_PT);
        }
        let labels = (x.label.clone(), y.label.clone());
        Ok(Self { canvas, plot, x: scale(length), y: vertical, labels })
    }

    /// Where two values lie on the sheet.
    pub(crate) fn at(&self, x: f64, y: f64) -> Point {
        (self.x.x(&self.plot, x), self.y.y(&self.plot, y))
    }

    /// The line of a series and its points, if it has few enough to tell them apart.
    pub(crate) fn series(&mut self, points: &[Point], look: Look) {
        if points.len() > 1 {
            self.canvas.path(points.to_vec(), look.color, LINE_PT);
        }
        if points.len() <= 40 {
            for point in points {
                look.draw(&mut self.canvas, *point);
            }
        }
    }

    /// A whisker from `low` to `high` at a point.
    pub(crate) fn whisker(&mut self, x: f64, low: f64, high: f64, look: Look) {
        let (from, to) = (self.at(x, low), self.at(x, high));
        self.canvas.line(from, to, look.color, AXIS_PT);
        for (x, y) in [from, to] {
            self.canvas.line((x - 1.8, y), (x + 1.8, y), look.color, AXIS_PT);
        }
    }

    /// Names beside the plot, each at the height of the end of its series or as near to it as there is room.
    pub(crate) fn names(&mut self, ends: &[(String, Point, Look)]) {
        let mut order: Vec<usize> = (0..ends.len()).collect();
        order.sort_by(|a, b| ends[*a].1.1.total_cmp(&ends[*b].1.1).then(a.cmp(b)));
        let mut heights: Vec<f64> = order.iter().map(|index| ends[*index].1.1).collect();
        for i in 1..heights.len() {
            heights[i] = heights[i].max(heights[i - 1] + NAME_PT);
        }
        // What was pushed out at the bottom goes back up.
        let mut floor = self.plot.y1 - LABEL_PT / 2.0;
        for height in heights.iter_mut().rev() {
            *height = height.min(floor);
            floor = *height - NAME_PT;
        }
        let x = self.plot.x1 + LEADER_PT;
        let room = self.canvas.width() - MARGIN_PT - x;
        for (index, height) in order.into_iter().zip(heights) {
            let (name, end, look) = &ends[index];
            self.canvas.path(
                vec![(end.0 + 2.5, end.1), (self.plot.x1 + 3.0, height), (x - 1.5, height)],
                RULE,
                0.5,
            );
            look.draw(&mut self.canvas, *end);
            self.canvas.text(&shorten(name, room, LABEL_PT), (x, height), Anchor::Start, LABEL_PT);
        }
    }

    /// A key of the series beside the plot, for figures whose series end nowhere near it.
    pub(crate) fn key(&mut self, entries: &[(String, Look)]) {
        let x = self.plot.x1 + LEADER_PT;
        let room = self.canvas.width() - MARGIN_PT - x;
        for (line, (name, look)) in entries.iter().enumerate() {
            let y = self.plot.y0 + (line as f64 + 0.5) * NAME_PT;
            look.draw(&mut self.canvas, (x - 5.0, y));
            self.canvas.text(&shorten(name, room, LABEL_PT), (x, y), Anchor::Start, LABEL_PT);
        }
    }

    /// Draws the axes and ends the figure.
    pub(crate) fn finish(mut self) -> Result<Figure, PlotError> {
        self.x.draw_below(&mut self.canvas, &self.plot, &self.labels.0);
        self.y.draw_left(&mut self.canvas, &self.plot, &self.labels.1);
        self.canvas.line((self.plot.x0, self.plot.y1), (self.plot.x1, self.plot.y1), BLACK, AXIS_PT);
        self.canvas.finish(self.plot.y1 + X_AXIS_HEIGHT + MARGIN_PT)
    }
}

/// How many rows are not drawn because they ran out of memory, in words.
pub(crate) fn ran_out(count: usize) -> Vec<String> {
    match count {
        0 => Vec::new(),
        1 => vec!["1 point ran out of memory".to_owned()],
        more => vec![format!("{more} points ran out of memory")],
    }
}
