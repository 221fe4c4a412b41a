//! The share of rows that lie at or below a value: a staircase a series.

use crate::axis::Quantity;
use crate::canvas::{Canvas, Point};
use crate::error::PlotError;
use crate::marker::Look;
use crate::plane::{Along, Plane, ran_out};
use crate::scale::ScaleKind;
use crate::spec::TableSpec;
use crate::table::{Table, distinct};
use crate::{Figure, style::RULE};

/// Draws a figure of the kind `cdf` of column `x`. Its horizontal axis is linear over the values unless
/// `x_scale` says otherwise.
pub(crate) fn cdf(spec: &TableSpec, table: &Table) -> Result<Figure, PlotError> {
    let column = spec.column("x", spec.x.as_ref())?;
    let values = table.numbers(column)?;
    let names = match &spec.series {
        Some(column) => table.texts(column)?,
        None => vec![""; table.len()],
    };
    let out = spec.out_of_memory(table)?;
    let series: Vec<(&str, Vec<f64>)> = distinct(&names)
        .into_iter()
        .map(|name| {
            let own = (0..table.len()).filter(|row| names[*row] == name && !out[*row]);
            let mut sorted: Vec<f64> = own.filter_map(|row| values.values[row]).collect();
            sorted.sort_by(f64::total_cmp);
            (name, sorted)
        })
        .filter(|(_, sorted)| !sorted.is_empty())
        .collect();
    let all: Vec<f64> = series.iter().flat_map(|(_, sorted)| sorted.iter().copied()).collect();
    if all.is_empty() {
        return Err(PlotError::Empty(format!("no row of `{}` has a `{column}`", spec.name)));
    }
    let across = Along {
        kind: spec.x_scale.unwrap_or(ScaleKind::LinearRange),
        quantity: values.quantity,
        values: all,
        label: spec.x_text(column),
    };
    let up = Along {
        kind: ScaleKind::Linear,
        quantity: Quantity::Number,
        values: vec![100.0],
        label: spec.y_label.clone().unwrap_or_else(|| "Share of runs (%)".to_owned()),
    };
    let named: Vec<String> = series.iter().map(|(name, _)| (*name).to_owned()).collect();
    let notes = ran_out(out.iter().filter(|out| **out).count());
    let canvas = Canvas::new(&spec.name, &format!("Distribution of {}", across.label), spec.width);
    let mut plane = Plane::new(canvas, spec.width, (&across, &up), &named, &notes)?;
    let (left, right) = (plane.plot.x0, plane.plot.x1);
    let half = plane.at(across.values[0], 50.0).1;
    plane.canvas.line((left, half), (right, half), RULE, 0.4);
    for (index, (_, sorted)) in series.iter().enumerate() {
        let look = Look::of(index);
        let stairs = staircase(&plane, sorted);
        plane.canvas.path(stairs, look.color, 0.9);
        // The second cue: the series' mark where half of it is passed.
        let median = sorted[(sorted.len() - 1) / 2];
        // The stairs rise through the half there.
        let at = plane.at(median, 50.0);
        look.draw(&mut plane.canvas, at);
    }
    let entries = named.into_iter().enumerate().map(|(index, name)| (name, Look::of(index)));
    plane.key(&entries.filter(|(name, _)| !name.is_empty()).collect::<Vec<_>>());
    plane.finish()
}

/// The corners of the stairs of sorted values.
fn staircase(plane: &Plane, sorted: &[f64]) -> Vec<Point> {
    let mut corners = vec![plane.at(sorted[0], 0.0)];
    for (index, value) in sorted.iter().enumerate() {
        if sorted.get(index + 1) == Some(value) {
            continue;
        }
        let height = 100.0 * (index + 1) as f64 / sorted.len() as f64;
        let before = corners[corners.len() - 1].1;
        let (x, y) = plane.at(*value, height);
        corners.extend([(x, before), (x, y)]);
    }
    corners
}
