//! Points of two quantities, and the front of those that no other beats in both.

use crate::canvas::{Anchor, Canvas, Point, Rect};
use crate::error::PlotError;
use crate::font::{shorten, text_width};
use crate::marker::Look;
use crate::plane::{Along, Plane, ran_out};
use crate::scale::ScaleKind;
use crate::spec::{Better, TableSpec};
use crate::style::{LABEL_PT, RULE, TICK_PT, WHITE};
use crate::table::Table;
use crate::{Figure, PlotError as Error};

/// One row that can be drawn.
#[derive(Clone, Copy, Debug)]
struct Spot<'a> {
    x: f64,
    y: f64,
    name: &'a str,
}

/// Draws a figure of the kind `pareto`: the front in colour with its names beside it, the others pale.
pub(crate) fn pareto(spec: &TableSpec, table: &Table) -> Result<Figure, PlotError> {
    let x_column = spec.column("x", spec.x.as_ref())?;
    let y_column = spec.column("y", spec.y.as_ref())?;
    let (x, y) = (table.numbers(x_column)?, table.numbers(y_column)?);
    let names = match &spec.label {
        Some(column) => table.texts(column)?,
        None => vec![""; table.len()],
    };
    let out = spec.out_of_memory(table)?;
    let spots: Vec<Spot<'_>> = (0..table.len())
        .filter(|row| !out[*row])
        .filter_map(|row| Some(Spot { x: x.values[row]?, y: y.values[row]?, name: names[row] }))
        .collect();
    if spots.is_empty() {
        return Err(Error::Empty(format!(
            "no row of `{}` has both `{x_column}` and `{y_column}`",
            spec.name
        )));
    }
    let better = (spec.x_better.unwrap_or(Better::Lower), spec.y_better.unwrap_or(Better::Lower));
    let front = front(&spots, better);
    let across = Along {
        kind: spec.x_scale.unwrap_or(ScaleKind::Linear),
        quantity: x.quantity,
        values: spots.iter().map(|spot| spot.x).collect(),
        label: spec.x_text(x_column),
    };
    let up = Along {
        kind: spec.y_scale.unwrap_or(ScaleKind::Linear),
        quantity: y.quantity,
        values: spots.iter().map(|spot| spot.y).collect(),
        label: spec.y_text(y_column),
    };
    let arrow = |better, one, other| if better == Better::Lower { one } else { other };
    let mut notes = vec![format!(
        "better: {} and {}; line: no other is better in both",
        arrow(better.0, "left", "right"),
        arrow(better.1, "down", "up")
    )];
    notes.extend(ran_out(out.iter().filter(|out| **out).count()));
    let canvas = Canvas::new(&spec.name, &format!("{} against {}", up.label, across.label), spec.width);
    let mut plane = Plane::new(canvas, spec.width, (&across, &up), &[], &notes)?;
    let pale = Look { color: RULE, ..Look::of(0) };
    for (index, spot) in spots.iter().enumerate() {
        if !front.contains(&index) {
            let at = plane.at(spot.x, spot.y);
            pale.draw(&mut plane.canvas, at);
        }
    }
    draw_front(&mut plane, &spots, &front, better);
    plane.finish()
}

/// The rows that no other beats, from the best in `x` on. Of equal rows the first counts.
fn front(spots: &[Spot<'_>], better: (Better, Better)) -> Vec<usize> {
    let mut order: Vec<usize> = (0..spots.len()).collect();
    let by = |better: Better, a: f64, b: f64| match better {
        Better::Lower => a.total_cmp(&b),
        Better::Higher => b.total_cmp(&a),
    };
    order.sort_by(|a, b| {
        let (a, b) = (&spots[*a], &spots[*b]);
        by(better.0, a.x, b.x).then(by(better.1, a.y, b.y))
    });
    let mut front: Vec<usize> = Vec::new();
    for index in order {
        if front.last().is_none_or(|last| better.1.beats(spots[index].y, spots[*last].y)) {
            front.push(index);
        }
    }
    front
}

fn draw_front(plane: &mut Plane, spots: &[Spot<'_>], front: &[usize], better: (Better, Better)) {
    let look = Look::of(1);
    let points: Vec<Point> = front.iter().map(|index| plane.at(spots[*index].x, spots[*index].y)).collect();
    let mut stairs: Vec<Point> = Vec::new();
    for point in &points {
        // From the best in x on, a plan between two points of the front is as bad in x as the second.
        if let Some(before) = stairs.last().copied() {
            stairs.push((point.0, before.1));
        }
        stairs.push(*point);
    }
    plane.canvas.path(stairs, look.color, 0.8);
    for point in &points {
        look.draw(&mut plane.canvas, *point);
    }
    let taken: Vec<Rect> = spots.iter().map(|spot| Rect::around(plane.at(spot.x, spot.y))).collect();
    let names: Vec<(&str, Point)> = front.iter().map(|index| spots[*index].name).zip(points).collect();
    name_points(plane, &names, taken, better);
}

/// Writes names beside their points where there is room; those without room stay unnamed.
pub(crate) fn name_points(
    plane: &mut Plane,
    names: &[(&str, Point)],
    mut taken: Vec<Rect>,
    (x_better, y_better): (Better, Better),
) {
    let plot = plane.plot;
    for (name, (x, y)) in names.iter().filter(|(name, _)| !name.is_empty()) {
        let label = shorten(name, plot.width() * 0.5, TICK_PT);
        let (wide, high) = (text_width(&label, TICK_PT), LABEL_PT);
        // The better side is the empty one: nothing lies beyond the front.
        let right =
            (x + 4.0, Anchor::Start, Rect::new(x + 3.0, y - high / 2.0, x + 5.0 + wide, y + high / 2.0));
        let left = (x - 4.0, Anchor::End, Rect::new(x - 5.0 - wide, y - high / 2.0, x - 3.0, y + high / 2.0));
        let lift = if y_better == Better::Lower { 7.0 } else { -7.0 };
        let moved = |(at, anchor, area): (f64, Anchor, Rect), by: f64| {
            (at, anchor, y + by, Rect::new(area.x0, area.y0 + by, area.x1, area.y1 + by))
        };
        let (first, second) = if x_better == Better::Lower { (left, right) } else { (right, left) };
        let places = [
            moved(first, 0.0),
            moved(first, lift),
            moved(second, lift),
            moved(second, 0.0),
            moved(second, -lift),
            moved(first, -lift),
        ];
        let inside = |area: &Rect| {
            area.x0 >= plot.x0 + 1.0 && area.x1 <= plot.x1 && area.y0 >= plot.y0 && area.y1 <= plot.y1 - 1.0
        };
        let apart = |a: &Rect, b: &Rect| a.x1 <= b.x0 || b.x1 <= a.x0 || a.y1 <= b.y0 || b.y1 <= a.y0;
        let fits = |area: &Rect| inside(area) && taken.iter().all(|other| apart(area, other));
        if let Some((at, anchor, height, area)) = places.into_iter().find(|(.., area)| fits(area)) {
            plane.canvas.text_on(WHITE, &label, (at, height), anchor, TICK_PT);
            taken.push(area);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_is_what_nothing_beats() {
        let spot = |x, y| Spot { x, y, name: "" };
        let spots = [spot(3.0, 1.0), spot(1.0, 3.0), spot(2.0, 3.0), spot(2.0, 2.0), spot(4.0, 1.0)];
        assert_eq!(front(&spots, (Better::Lower, Better::Lower)), [1, 3, 0]);
        assert_eq!(front(&spots, (Better::Higher, Better::Higher)), [4, 2]);
    }
}
