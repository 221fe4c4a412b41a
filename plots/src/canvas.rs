//! A sheet to draw on in points, played into plotters' SVG backend at the end.
//!
//! plotters 0.3.7 has its limits, and this is the one place that knows them:
//! - its coordinates are integers: the sheet has 1,000 units an inch and its root says its size in inches;
//! - it writes the font size divided by 1.24: sizes are multiplied beforehand;
//! - its idea of where text stands is vague: baselines are computed here from the font's own height;
//! - it knows neither dashes nor hatches nor widths of outlines: they are drawn as lines.

use plotters::prelude::{DrawingBackend, SVGBackend, ShapeStyle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontDesc, FontFamily, FontStyle, FontTransform, RGBColor, TextStyle};

use crate::error::PlotError;
use crate::font::{CAP_HEIGHT, FONT_FAMILY, clean, text_width};
use crate::style::{BLACK, DARK, Fill, HATCH_PT, HATCH_STEP_PT, Hatch, WHITE, luma};
use crate::{Figure, Width};

/// Units of the SVG in an inch.
const UNITS_PER_INCH: f64 = 1000.0;
/// Points in an inch.
const POINTS_PER_INCH: f64 = 72.0;
/// plotters divides font sizes by this.
const FONT_DIVISOR: f64 = 1.24;
/// plotters puts the baseline of text anchored at its top this share of the size below the point.
const TOP_TO_BASELINE: f64 = 0.76;

/// A point on the sheet, points from the upper left corner.
pub(crate) type Point = (f64, f64);

/// A rectangle on the sheet, points; `y0` is the upper edge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rect {
    pub(crate) x0: f64,
    pub(crate) y0: f64,
    pub(crate) x1: f64,
    pub(crate) y1: f64,
}

impl Rect {
    pub(crate) fn new(x0: f64, y0: f64, x1: f64, y1: f64) -> Self {
        Self { x0, y0, x1, y1 }
    }

    /// What a mark at a point covers.
    pub(crate) fn around((x, y): Point) -> Self {
        Self::new(x - 2.0, y - 2.0, x + 2.0, y + 2.0)
    }

    pub(crate) fn width(&self) -> f64 {
        self.x1 - self.x0
    }

    pub(crate) fn height(&self) -> f64 {
        self.y1 - self.y0
    }

    pub(crate) fn middle_y(&self) -> f64 {
        f64::midpoint(self.y0, self.y1)
    }

    pub(crate) fn middle_x(&self) -> f64 {
        f64::midpoint(self.x0, self.x1)
    }
}

/// Which part of a text stands at the given point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

#[derive(Clone, Debug)]
enum Mark {
    Rect(Rect, RGBColor),
    Polygon(Vec<Point>, RGBColor),
    Path(Vec<Point>, RGBColor, f64),
    Circle(Point, f64, RGBColor),
    Text { text: String, at: Point, anchor: Anchor, size: f64, color: RGBColor, upwards: bool },
}

/// A figure being drawn.
#[derive(Clone, Debug)]
pub(crate) struct Canvas {
    name: String,
    title: String,
    width: f64,
    marks: Vec<Mark>,
}

impl Canvas {
    /// An empty sheet; `title` is for screen readers and window titles, it is not drawn.
    pub(crate) fn new(name: &str, title: &str, width: Width) -> Self {
        Self {
            name: name.to_owned(),
            title: clean(title),
            width: width.inches() * POINTS_PER_INCH,
            marks: Vec::new(),
        }
    }

    /// Width of the sheet, points.
    pub(crate) fn width(&self) -> f64 {
        self.width
    }

    /// A filled rectangle without outline.
    pub(crate) fn rect(&mut self, rect: Rect, color: RGBColor) {
        self.marks.push(Mark::Rect(rect, color));
    }

    /// A filled and hatched rectangle.
    pub(crate) fn fill(&mut self, rect: Rect, fill: Fill) {
        self.rect(rect, fill.color);
        self.hatch(&[rect], fill.hatch);
    }

    /// A thin outline.
    pub(crate) fn outline(&mut self, rect: Rect, width: f64) {
        let Rect { x0, y0, x1, y1 } = rect;
        self.path(vec![(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], BLACK, width);
    }

    /// A filled polygon without outline.
    pub(crate) fn polygon(&mut self, points: Vec<Point>, color: RGBColor) {
        self.marks.push(Mark::Polygon(points, color));
    }

    /// An open line through the points.
    pub(crate) fn path(&mut self, points: Vec<Point>, color: RGBColor, width: f64) {
        self.marks.push(Mark::Path(points, color, width));
    }

    /// A straight line.
    pub(crate) fn line(&mut self, from: Point, to: Point, color: RGBColor, width: f64) {
        self.path(vec![from, to], color, width);
    }

    /// A straight line of dashes.
    pub(crate) fn dashed(&mut self, from: Point, to: Point, width: f64) {
        const DASH: f64 = 4.0;
        const GAP: f64 = 2.5;
        let (across, down) = (to.0 - from.0, to.1 - from.1);
        let length = (across * across + down * down).sqrt();
        // What is longer than the largest sheet (200 inches, as PDF has it) is no line of a figure.
        if !(length > 0.0 && length <= 14_400.0) {
            return;
        }
        let at = |distance: f64| {
            let share = (distance / length).min(1.0);
            (from.0 + (to.0 - from.0) * share, from.1 + (to.1 - from.1) * share)
        };
        let dashes = (length / (DASH + GAP)).ceil() as u32;
        for i in 0..dashes {
            let start = f64::from(i) * (DASH + GAP);
            self.line(at(start), at(start + DASH), BLACK, width);
        }
    }

    /// A filled circle.
    pub(crate) fn dot(&mut self, at: Point, radius: f64, color: RGBColor) {
        self.marks.push(Mark::Circle(at, radius, color));
    }

    /// Horizontal text whose capitals are centred on `at.1`.
    pub(crate) fn text(&mut self, text: &str, at: Point, anchor: Anchor, size: f64) {
        self.write(text, at, anchor, size, BLACK, false);
    }

    /// Horizontal text in a colour.
    pub(crate) fn text_in(&mut self, color: RGBColor, text: &str, at: Point, anchor: Anchor, size: f64) {
        self.write(text, at, anchor, size, color, false);
    }

    /// Text that reads upwards, centred on `at`.
    pub(crate) fn text_upwards(&mut self, text: &str, at: Point, size: f64) {
        self.write(text, at, Anchor::Middle, size, BLACK, true);
    }

    /// Horizontal text on a patch of this colour, which keeps it readable on hatches and lines; white on dark
    /// colours.
    pub(crate) fn text_on(&mut self, color: RGBColor, text: &str, at: Point, anchor: Anchor, size: f64) {
        let width = text_width(&clean(text), size);
        let left = match anchor {
            Anchor::Start => at.0,
            Anchor::Middle => at.0 - width / 2.0,
            Anchor::End => at.0 - width,
        };
        let half = size * 0.5;
        self.rect(Rect::new(left - 1.0, at.1 - half, left + width + 1.0, at.1 + half), color);
        self.write(text, at, anchor, size, ink_on(color), false);
    }

    /// Text in the middle of an area, on a patch of this colour that stays inside it; white on dark colours.
    pub(crate) fn text_inside(&mut self, area: &Rect, color: RGBColor, text: &str, size: f64) {
        let (x, y) = (area.middle_x(), area.middle_y());
        let half = (text_width(&clean(text), size) / 2.0 + 1.0, size * 0.5);
        self.rect(
            Rect {
                x0: area.x0.max(x - half.0),
                y0: area.y0.max(y - half.1),
                x1: area.x1.min(x + half.0),
                y1: area.y1.min(y + half.1),
            },
            color,
        );
        self.write(text, (x, y), Anchor::Middle, size, ink_on(color), false);
    }

    fn write(&mut self, text: &str, at: Point, anchor: Anchor, size: f64, color: RGBColor, upwards: bool) {
        let text = clean(text);
        if !text.is_empty() {
            self.marks.push(Mark::Text { text, at, anchor, size, color, upwards });
        }
    }

    /// Hatches an area given as rectangles from left to right (one, or the steps of a curve). The lines have
    /// one phase over the whole sheet, so they run on from rectangle to rectangle.
    pub(crate) fn hatch(&mut self, area: &[Rect], hatch: Hatch) {
        match hatch {
            Hatch::None => {}
            Hatch::Cross => {
                self.hatch(area, Hatch::Rising);
                self.hatch(area, Hatch::Falling);
            }
            _ => self.hatch_one_way(area, hatch),
        }
    }

    fn hatch_one_way(&mut self, area: &[Rect], hatch: Hatch) {
        let edges = |lowest: bool, value: fn(&Rect) -> f64| {
            let start = if lowest { f64::INFINITY } else { f64::NEG_INFINITY };
            area.iter().map(value).fold(start, if lowest { f64::min } else { f64::max })
        };
        let (x0, x1) = (edges(true, |r| r.x0), edges(false, |r| r.x1));
        let (y0, y1) = (edges(true, |r| r.y0), edges(false, |r| r.y1));
        // Each line is the set of points with one value of: y, x, x + y or y - x.
        let (lowest, highest, step) = match hatch {
            Hatch::Horizontal => (y0, y1, HATCH_STEP_PT),
            Hatch::Vertical => (x0, x1, HATCH_STEP_PT),
            Hatch::Rising => (x0 + y0, x1 + y1, HATCH_STEP_PT * std::f64::consts::SQRT_2),
            _ => (y0 - x1, y1 - x0, HATCH_STEP_PT * std::f64::consts::SQRT_2),
        };
        if !(lowest.is_finite() && highest.is_finite()) {
            return;
        }
        let first = (lowest / step).ceil() as i64;
        let last = (highest / step).floor() as i64;
        for i in first..=last {
            self.hatch_line(area, hatch, i as f64 * step);
        }
    }

    /// The parts of one hatch line inside the area, joined where they meet.
    fn hatch_line(&mut self, area: &[Rect], hatch: Hatch, constant: f64) {
        let mut run: Option<(Point, Point)> = None;
        for rect in area {
            let Some((from, to)) = clip(rect, hatch, constant) else {
                continue;
            };
            run = match run {
                Some((start, end)) if (from.0 - end.0).abs() < 1e-6 && (from.1 - end.1).abs() < 1e-6 => {
                    Some((start, to))
                }
                Some((start, end)) => {
                    self.line(start, end, BLACK, HATCH_PT);
                    Some((from, to))
                }
                None => Some((from, to)),
            };
        }
        if let Some((start, end)) = run {
            self.line(start, end, BLACK, HATCH_PT);
        }
    }

    /// Plays the marks into an SVG of this height in points.
    ///
    /// # Errors
    /// [`PlotError::Drawing`] when plotters refuses.
    pub(crate) fn finish(self, height: f64) -> Result<Figure, PlotError> {
        // Whole dots at 300 dpi (10/3 units each) in height too: multiples of ten units.
        let rows = ((units(height) + 9) / 10).max(1) * 10;
        let size = (unsigned(units(self.width)), unsigned(rows));
        let mut svg = String::new();
        let mut backend = SVGBackend::with_string(&mut svg, size);
        let sheet = Mark::Rect(Rect::new(0.0, 0.0, self.width, points(rows)), WHITE);
        for mark in std::iter::once(&sheet).chain(&self.marks) {
            play(&mut backend, mark)?;
        }
        backend.present().map_err(|e| refused(&e))?;
        drop(backend);
        let svg = with_size_in_inches(&svg, size, &self.title);
        Ok(Figure { name: self.name, svg, facts: Vec::new() })
    }
}

/// The colour of text on this colour.
fn ink_on(color: RGBColor) -> RGBColor {
    if luma(color) < DARK { WHITE } else { BLACK }
}

/// Where a hatch line enters and leaves a rectangle, from left to right (or downwards).
fn clip(rect: &Rect, hatch: Hatch, c: f64) -> Option<(Point, Point)> {
    let Rect { x0, y0, x1, y1 } = *rect;
    let (from, to) = match hatch {
        Hatch::Horizontal if c >= y0 && c <= y1 => ((x0, c), (x1, c)),
        Hatch::Vertical if c >= x0 && c < x1 => ((c, y0), (c, y1)),
        Hatch::Rising => {
            let (left, right) = (x0.max(c - y1), x1.min(c - y0));
            ((left, c - left), (right, c - right))
        }
        Hatch::Falling => {
            let (left, right) = (x0.max(y0 - c), x1.min(y1 - c));
            ((left, c + left), (right, c + right))
        }
        _ => return None,
    };
    let visible = to.0 - from.0 > 1e-9 || (hatch == Hatch::Vertical && to.1 > from.1);
    visible.then_some((from, to))
}

fn units(length: f64) -> i32 {
    (length * UNITS_PER_INCH / POINTS_PER_INCH).round() as i32
}

fn points(units: i32) -> f64 {
    f64::from(units) * POINTS_PER_INCH / UNITS_PER_INCH
}

fn unsigned(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

fn place(at: Point) -> (i32, i32) {
    (units(at.0), units(at.1))
}

fn play(backend: &mut SVGBackend<'_>, mark: &Mark) -> Result<(), PlotError> {
    let played = match mark {
        Mark::Rect(rect, color) => {
            backend.draw_rect(place((rect.x0, rect.y0)), place((rect.x1, rect.y1)), color, true)
        }
        Mark::Polygon(points, color) => backend.fill_polygon(points.iter().map(|&p| place(p)), color),
        Mark::Path(points, color, width) => {
            let stroke = ShapeStyle::from(color).stroke_width(unsigned(units(*width)).max(1));
            match points[..] {
                [from, to] => backend.draw_line(place(from), place(to), &stroke),
                _ => backend.draw_path(points.iter().map(|&p| place(p)), &stroke),
            }
        }
        Mark::Circle(at, radius, color) => {
            backend.draw_circle(place(*at), unsigned(units(*radius)), color, true)
        }
        Mark::Text { .. } => return play_text(backend, mark),
    };
    played.map_err(|e| refused(&e))
}

fn play_text(backend: &mut SVGBackend<'_>, mark: &Mark) -> Result<(), PlotError> {
    let Mark::Text { text, at, anchor, size, color, upwards } = mark else {
        return Ok(());
    };
    let size_units = size * UNITS_PER_INCH / POINTS_PER_INCH;
    let transform = if *upwards { FontTransform::Rotate270 } else { FontTransform::None };
    let h_pos = match anchor {
        Anchor::Start => HPos::Left,
        Anchor::Middle => HPos::Center,
        Anchor::End => HPos::Right,
    };
    let font = FontDesc::new(FontFamily::Name(FONT_FAMILY), size_units * FONT_DIVISOR, FontStyle::Normal);
    let style = TextStyle::from(font.transform(transform)).color(color).pos(Pos::new(h_pos, VPos::Top));
    // plotters lowers the text by `TOP_TO_BASELINE`; the capitals shall be centred on the point.
    let rise = (TOP_TO_BASELINE - CAP_HEIGHT / 2.0) * size;
    let anchor_point = if *upwards { (at.0 - rise, at.1) } else { (at.0, at.1 - rise) };
    backend.draw_text(text, &style, place(anchor_point)).map_err(|e| refused(&e))
}

fn refused(error: &impl ToString) -> PlotError {
    PlotError::Drawing(error.to_string())
}

/// The document with its size in inches and its title, which plotters cannot write.
fn with_size_in_inches(svg: &str, (width, height): (u32, u32), title: &str) -> String {
    let inches = |units: u32| f64::from(units) / UNITS_PER_INCH;
    let plain = format!("<svg width=\"{width}\" height=\"{height}\"");
    let sized = format!("<svg width=\"{}in\" height=\"{}in\" role=\"img\"", inches(width), inches(height));
    let svg = svg.replacen(&plain, &sized, 1);
    svg.replacen(">\n", &format!(">\n<title>{}</title>\n", escaped(title)), 1)
}

/// Text as it may stand in an SVG.
pub(crate) fn escaped(text: &str) -> String {
    clean(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_says_its_size_in_inches() {
        let figure = Canvas::new("x", "a < b", Width::OneColumn).finish(72.0).unwrap();
        assert!(
            figure
                .svg
                .starts_with("<svg width=\"3.33in\" height=\"1in\" role=\"img\" viewBox=\"0 0 3330 1000\"")
        );
        assert!(figure.svg.contains("<title>a &lt; b</title>"));
        assert!(figure.svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn font_sizes_come_out_as_asked() {
        let mut canvas = Canvas::new("x", "x", Width::OneColumn);
        canvas.text("a", (10.0, 10.0), Anchor::Start, 7.2);
        let svg = canvas.finish(72.0).unwrap().svg;
        assert!(svg.contains("font-size=\"100\""), "7.2 pt are 0.1 in: {svg}");
    }

    #[test]
    fn hatch_lines_stay_inside_and_run_on() {
        let steps = [Rect::new(0.0, 0.0, 10.0, 20.0), Rect::new(10.0, 5.0, 20.0, 20.0)];
        for hatch in [Hatch::Rising, Hatch::Falling, Hatch::Horizontal, Hatch::Vertical] {
            let mut canvas = Canvas::new("x", "x", Width::OneColumn);
            canvas.hatch(&steps, hatch);
            assert!(canvas.marks.len() >= 8, "{hatch:?}");
            for mark in &canvas.marks {
                let Mark::Path(ends, _, _) = mark else { panic!("only lines") };
                for &(x, y) in ends {
                    let inside = steps.iter().any(|r| {
                        x >= r.x0 - 1e-9 && x <= r.x1 + 1e-9 && y >= r.y0 - 1e-9 && y <= r.y1 + 1e-9
                    });
                    assert!(inside, "{hatch:?} {x} {y}");
                }
            }
        }
    }

    #[test]
    fn horizontal_hatches_cross_steps_as_one_line() {
        let steps = [Rect::new(0.0, 0.0, 10.0, 5.0), Rect::new(10.0, 0.0, 20.0, 5.0)];
        let mut canvas = Canvas::new("x", "x", Width::OneColumn);
        canvas.hatch(&steps, Hatch::Horizontal);
        // Lines at 0, 2.4 and 4.8.
        assert_eq!(canvas.marks.len(), 3);
    }
}
