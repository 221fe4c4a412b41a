//! A quantity over another, a line a series; with the ideal line where it is scaling that is shown.

use crate::axis::Quantity;
use crate::canvas::Canvas;
use crate::error::PlotError;
use crate::marker::Look;
use crate::plane::{Along, Plane, ran_out};
use crate::scale::ScaleKind;
use crate::spec::{Ideal, TableKind, TableSpec};
use crate::style::AXIS_PT;
use crate::table::{Table, distinct};
use crate::{Figure, PlotError as Error};

/// One point of a line.
#[derive(Clone, Copy, Debug)]
struct Spot {
    x: f64,
    y: f64,
    ends: Option<(f64, f64)>,
}

/// Draws figures of the kinds `scaling` and `lines`. Rows that ran out of memory, or whose cell of `y` is empty, have
/// no point; how many ran out is said above.
pub(crate) fn lines(spec: &TableSpec, table: &Table) -> Result<Figure, PlotError> {
    let scaling = spec.kind == TableKind::Scaling;
    let x_column = spec.column("x", spec.x.as_ref())?;
    let y_column = spec.column("y", spec.y.as_ref())?;
    let (x, y) = (table.numbers(x_column)?, table.numbers(y_column)?);
    let whiskers = match (&spec.low, &spec.high) {
        (Some(low), Some(high)) => Some((table.numbers(low)?.values, table.numbers(high)?.values)),
        _ => None,
    };
    let names = match &spec.series {
        Some(column) => table.texts(column)?,
        None => vec![""; table.len()],
    };
    let out = spec.out_of_memory(table)?;
    let series: Vec<(&str, Vec<Spot>)> = distinct(&names)
        .into_iter()
        .map(|name| {
            let own = (0..table.len()).filter(|row| names[*row] == name && !out[*row]);
            let mut spots: Vec<Spot> = own
                .filter_map(|row| {
                    let ends = whiskers.as_ref().and_then(|(low, high)| Some((low[row]?, high[row]?)));
                    Some(Spot { x: x.values[row]?, y: y.values[row]?, ends })
                })
                .collect();
            spots.sort_by(|a, b| a.x.total_cmp(&b.x));
            (name, spots)
        })
        .filter(|(_, spots)| !spots.is_empty())
        .collect();
    if series.is_empty() {
        return Err(Error::Empty(format!(
            "no row of `{}` has both `{x_column}` and `{y_column}`",
            spec.name
        )));
    }
    let all = || series.iter().flat_map(|(_, spots)| spots.iter());
    let ideal = scaling.then(|| ideal_line(spec, y_column, y.quantity, &series)).flatten();
    let mut heights: Vec<f64> = all().map(|spot| spot.y).collect();
    heights.extend(all().filter_map(|spot| spot.ends).flat_map(|(low, high)| [low, high]));
    heights.extend(ideal.iter().flat_map(|line| line.iter().map(|point| point.1)));
    let kind = |given: Option<ScaleKind>, otherwise| {
        given.unwrap_or(if scaling { otherwise } else { ScaleKind::Linear })
    };
    let across = Along {
        kind: kind(spec.x_scale, ScaleKind::LogTwo),
        quantity: x.quantity,
        values: all().map(|spot| spot.x).collect(),
        label: spec.x_text(x_column),
    };
    let up = Along {
        kind: kind(spec.y_scale, ScaleKind::Log),
        quantity: y.quantity,
        values: heights,
        label: spec.y_text(y_column),
    };
    let named: Vec<String> = series.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut notes = ran_out(out.iter().filter(|out| **out).count());
    notes.extend(spec.series_label.as_ref().map(|label| format!("lines: {label}")));
    if ideal.is_some() {
        notes.insert(0, "dashed: ideal".to_owned());
    }
    let canvas = Canvas::new(&spec.name, &format!("{} over {}", up.label, across.label), spec.width);
    let mut plane = Plane::new(canvas, spec.width, (&across, &up), &named, &notes)?;
    if let Some([from, to]) = ideal {
        let (from, to) = (plane.at(from.0, from.1), plane.at(to.0, to.1));
        plane.canvas.dashed(from, to, AXIS_PT);
    }
    draw(&mut plane, &series);
    plane.finish()
}

fn draw(plane: &mut Plane, series: &[(&str, Vec<Spot>)]) {
    let mut ends = Vec::new();
    for (index, (name, spots)) in series.iter().enumerate() {
        let look = Look::of(index);
        for spot in spots {
            if let Some((low, high)) = spot.ends {
                plane.whisker(spot.x, low, high, look);
            }
        }
        let points: Vec<_> = spots.iter().map(|spot| plane.at(spot.x, spot.y)).collect();
        plane.series(&points, look);
        if let (Some(end), false) = (points.last(), name.is_empty()) {
            ends.push(((*name).to_owned(), *end, look));
        }
    }
    plane.names(&ends);
}

/// The ends of the ideal line: from the first point of the series that starts with the least, to the last number.
/// None where the ideal cannot be drawn straight: it is on both logarithmic axes, or where it is constant.
fn ideal_line(
    spec: &TableSpec,
    y_column: &str,
    quantity: Quantity,
    series: &[(&str, Vec<Spot>)],
) -> Option<[(f64, f64); 2]> {
    let ideal = spec.ideal.unwrap_or(if y_column.contains("per_gpu") || y_column.contains("utilization") {
        Ideal::Constant
    } else if quantity == Quantity::Seconds {
        Ideal::Inverse
    } else {
        Ideal::Proportional
    });
    let logarithmic = |given: Option<ScaleKind>| given != Some(ScaleKind::Linear);
    let straight = logarithmic(spec.x_scale) && logarithmic(spec.y_scale);
    if !straight && ideal != Ideal::Constant {
        return None;
    }
    let firsts = series.iter().filter_map(|(_, spots)| spots.first());
    let first = firsts.min_by(|a, b| a.x.total_cmp(&b.x))?;
    let last = series.iter().filter_map(|(_, spots)| Some(spots.last()?.x)).fold(first.x, f64::max);
    let end = match ideal {
        Ideal::Proportional => first.y * last / first.x,
        Ideal::Inverse => first.y * first.x / last,
        Ideal::Constant => first.y,
    };
    (last > first.x).then_some([(first.x, first.y), (last, end)])
}
