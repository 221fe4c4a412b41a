//! Errors of a fit on shapes that it has not seen.

/// A measured time and what is known about its row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Measured {
    pub(super) seconds: f64,
    pub(super) flops: f64,
    pub(super) held_out: bool,
}

/// Relative errors, fractions of the measured time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Errors {
    /// Rows that they are taken over.
    pub rows: usize,
    /// Middle of the absolute errors.
    pub median: f64,
    /// Mean of the absolute errors.
    pub mean: f64,
    /// 80 % of the rows have less.
    pub p80: f64,
    /// 90 % of the rows have less.
    pub p90: f64,
    /// Mean of the signed errors; above zero: predicted too slow.
    pub bias: f64,
}

impl Errors {
    pub(super) fn new(pairs: impl Iterator<Item = (Measured, f64)>) -> Self {
        let signed: Vec<f64> =
            pairs.map(|(measured, predicted)| predicted / measured.seconds - 1.0).collect();
        let mut absolute: Vec<f64> = signed.iter().map(|error| error.abs()).collect();
        absolute.sort_by(f64::total_cmp);
        let rows = absolute.len();
        let at = |share: f64| absolute.get((share * rows as f64) as usize).copied().unwrap_or_default();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / rows.max(1) as f64;
        Self { rows, median: at(0.5), mean: mean(&absolute), p80: at(0.8), p90: at(0.9), bias: mean(&signed) }
    }
}

/// Held-out errors of the rows of one size.
#[derive(Clone, Debug, PartialEq)]
pub struct Band {
    /// Which rows, e.g. `from 2 GFLOP`.
    pub name: &'static str,
    /// With the coefficients that the GPU had.
    pub before: Errors,
    /// With the fitted ones.
    pub after: Errors,
}

/// Errors before and after a fit.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Rows that the fit saw.
    pub fitted_rows: usize,
    /// Bands of size, held-out rows only: all of them first.
    pub bands: Vec<Band>,
}

const BANDS: [(&str, f64, f64); 4] = [
    ("all", 0.0, f64::INFINITY),
    ("from 2 GFLOP", 2e9, f64::INFINITY),
    ("0.1 to 2 GFLOP", 1e8, 2e9),
    ("below 0.1 GFLOP", 1.0, 1e8),
];

impl Report {
    pub(super) fn new(fitted_rows: usize, before: &[(Measured, f64)], after: &[(Measured, f64)]) -> Self {
        let errors = |pairs: &[(Measured, f64)], low: f64, high: f64| {
            let within = |(measured, _): &&(Measured, f64)| {
                measured.held_out && measured.flops >= low && measured.flops < high
            };
            Errors::new(pairs.iter().filter(within).copied())
        };
        let band = |(name, low, high): (&'static str, f64, f64)| Band {
            name,
            before: errors(before, low, high),
            after: errors(after, low, high),
        };
        let bands = BANDS.map(band).into_iter().filter(|band| band.after.rows > 0).collect();
        Self { fitted_rows, bands }
    }

    /// Over all held-out rows, after the fit.
    pub fn after(&self) -> Errors {
        self.bands.first().map_or_else(Errors::default, |band| band.after)
    }

    /// Rows of a band, after the fit; `None` when it has none.
    pub fn band(&self, name: &str) -> Option<Errors> {
        self.bands.iter().find(|band| band.name == name).map(|band| band.after)
    }
}
