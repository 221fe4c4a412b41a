//! Rates of operations over their intensity, below the roofs of a device (Williams, Waterman and Patterson,
//! "Roofline: an insightful visual performance model", 2009): no operation is above the lower of the two.

use crate::axis::Quantity;
use crate::canvas::{Canvas, Rect};
use crate::error::PlotError;
use crate::marker::Look;
use crate::pareto::name_points;
use crate::plane::{Along, Plane};
use crate::scale::ScaleKind;
use crate::spec::{Better, TableSpec};
use crate::style::BLACK;
use crate::table::{Table, distinct};
use crate::{Figure, PlotError as Error};

/// Operations that are named, those with the longest times.
const NAMED: usize = 6;

/// One operation.
#[derive(Clone, Copy, Debug)]
struct Spot<'a> {
    /// Floating-point operations a byte.
    intensity: f64,
    /// Floating-point operations a second.
    rate: f64,
    seconds: f64,
    name: &'a str,
    series: usize,
}

/// Draws a figure of the kind `roofline`. Rows without operations or bytes have no intensity and are left out; how
/// many is said above.
pub(crate) fn roofline(spec: &TableSpec, table: &Table) -> Result<Figure, PlotError> {
    let flops = table.numbers(spec.column("flops", spec.flops.as_ref())?)?.values;
    let bytes = table.numbers(spec.column("bytes", spec.bytes.as_ref())?)?.values;
    let seconds = table.numbers(spec.column("seconds", spec.seconds.as_ref())?)?.values;
    let peak = above_zero(spec, "peak_flops_per_s", roof(table, "peak_flops_per_s", spec.peak_flops_per_s)?)?;
    let bandwidth =
        above_zero(spec, "peak_bytes_per_s", roof(table, "peak_bytes_per_s", spec.peak_bytes_per_s)?)?;
    let names =
        spec.label.as_ref().map_or_else(|| Ok(vec![""; table.len()]), |column| table.texts(column))?;
    let kinds =
        spec.series.as_ref().map_or_else(|| Ok(vec![""; table.len()]), |column| table.texts(column))?;
    let counts = |row: &usize| {
        [flops[*row], bytes[*row], seconds[*row]].iter().all(|value| value.is_some_and(|value| value > 0.0))
    };
    let counted: Vec<&str> = (0..table.len()).filter(counts).map(|row| kinds[row]).collect();
    let groups = distinct(&counted);
    let mut spots: Vec<Spot<'_>> = (0..table.len())
        .filter_map(|row| {
            let (flops, bytes, seconds) = (flops[row]?, bytes[row]?, seconds[row]?);
            (flops > 0.0 && bytes > 0.0 && seconds > 0.0).then(|| Spot {
                intensity: flops / bytes,
                rate: flops / seconds,
                seconds,
                name: names[row],
                series: groups.iter().position(|group| *group == kinds[row]).unwrap_or(0),
            })
        })
        .collect();
    if spots.is_empty() {
        return Err(Error::Empty(format!("no row of `{}` has operations, bytes and a time", spec.name)));
    }
    spots.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let ridge = peak / bandwidth;
    let mut intensities: Vec<f64> = spots.iter().map(|spot| spot.intensity).collect();
    intensities.extend([ridge / 4.0, ridge * 4.0]);
    let mut rates: Vec<f64> = spots.iter().map(|spot| spot.rate).collect();
    rates.push(peak);
    let across = Along {
        kind: ScaleKind::Log,
        quantity: Quantity::Number,
        values: intensities,
        label: spec.x_label.clone().unwrap_or_else(|| "Intensity (FLOP/byte)".to_owned()),
    };
    let up = Along {
        kind: ScaleKind::Log,
        quantity: Quantity::Number,
        values: rates.iter().map(|rate| rate / 1e12).collect(),
        label: spec.y_label.clone().unwrap_or_else(|| "Rate (TFLOP/s)".to_owned()),
    };
    let left_out = table.len() - spots.len();
    let notes = match left_out {
        0 => Vec::new(),
        1 => vec!["1 operation without arithmetic or traffic is not shown".to_owned()],
        more => vec![format!("{more} operations without arithmetic or traffic are not shown")],
    };
    let shown: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
    let canvas = Canvas::new(&spec.name, "Roofline", spec.width);
    let mut plane = Plane::new(canvas, spec.width, (&across, &up), &shown, &notes)?;
    draw(&mut plane, &spots, &groups, (peak, bandwidth));
    plane.finish()
}

/// The roof that is given, or that the table has in a column of this name.
fn roof(table: &Table, column: &str, given: Option<f64>) -> Result<Option<f64>, PlotError> {
    if given.is_some() || !table.columns().iter().any(|known| known == column) {
        return Ok(given);
    }
    Ok(table.numbers(column)?.values.into_iter().flatten().reduce(f64::max))
}

fn above_zero(spec: &TableSpec, key: &'static str, value: Option<f64>) -> Result<f64, PlotError> {
    match value {
        None => Err(Error::NeedsColumn { kind: spec.kind, key }),
        Some(value) if value.is_finite() && value > 0.0 => Ok(value),
        Some(value) => {
            Err(Error::Damaged(format!("`{key}` of `{}` is {value}, which is not above zero", spec.name)))
        }
    }
}

fn draw(plane: &mut Plane, spots: &[Spot<'_>], groups: &[&str], (peak, bandwidth): (f64, f64)) {
    let tera = |rate: f64| rate / 1e12;
    // The sloping roof begins where it enters the plot: at its left edge or at its floor.
    let lowest = spots.iter().map(|spot| spot.rate).fold(peak, f64::min);
    let least = spots.iter().map(|spot| spot.intensity).fold(peak / bandwidth / 4.0, f64::min);
    let from = least.max(lowest / bandwidth);
    let most = spots.iter().map(|spot| spot.intensity).fold(peak / bandwidth * 4.0, f64::max);
    let corners = [(from, from * bandwidth), (peak / bandwidth, peak), (most, peak)];
    let roof = corners.map(|(intensity, rate)| plane.at(intensity, tera(rate)));
    plane.canvas.path(roof.to_vec(), BLACK, 0.9);
    for spot in spots.iter().rev() {
        let at = plane.at(spot.intensity, tera(spot.rate));
        Look::of(spot.series).draw(&mut plane.canvas, at);
    }
    let names: Vec<_> =
        spots.iter().take(NAMED).map(|spot| (spot.name, plane.at(spot.intensity, tera(spot.rate)))).collect();
    let mut taken: Vec<Rect> =
        spots.iter().map(|spot| Rect::around(plane.at(spot.intensity, tera(spot.rate)))).collect();
    for pair in roof.windows(2) {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        let along = |share: f64| (x0 + (x1 - x0) * share, y0 + (y1 - y0) * share);
        taken.extend((0..=60).map(|step| Rect::around(along(f64::from(step) / 60.0))));
    }
    name_points(plane, &names, taken, (Better::Higher, Better::Lower));
    let entries = groups.iter().enumerate().map(|(series, group)| ((*group).to_owned(), Look::of(series)));
    plane.key(&entries.filter(|(name, _)| !name.is_empty()).collect::<Vec<_>>());
}
