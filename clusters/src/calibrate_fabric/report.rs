//! Errors of a fit on rows that it has not seen.

use super::rows::{CollectiveRow, Operation};
use crate::cluster::Cluster;

/// Relative errors, fractions of the measured time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CollectiveErrors {
    /// Rows that they are taken over.
    pub rows: usize,
    /// Middle of the absolute errors.
    pub median: f64,
    /// Mean of the absolute errors.
    pub mean: f64,
    /// The largest.
    pub most: f64,
}

impl CollectiveErrors {
    /// Of a cluster's predictions for measured rows.
    pub fn of<'a>(cluster: &Cluster, rows: impl IntoIterator<Item = &'a CollectiveRow>) -> Self {
        let error = |row: &CollectiveRow| (row.predicted_s(cluster) / row.seconds - 1.0).abs();
        let mut errors: Vec<f64> = rows.into_iter().map(error).collect();
        errors.sort_by(f64::total_cmp);
        let count = errors.len();
        Self {
            rows: count,
            median: errors.get(count / 2).copied().unwrap_or_default(),
            mean: errors.iter().sum::<f64>() / count.max(1) as f64,
            most: errors.last().copied().unwrap_or_default(),
        }
    }
}

/// Held-out errors of one operation and size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BandErrors {
    /// Which operation; `None`: all.
    pub operation: Option<Operation>,
    /// Which sizes.
    pub band: &'static str,
    /// With the costs that the fabric had.
    pub before: CollectiveErrors,
    /// With the fitted ones.
    pub after: CollectiveErrors,
}

const BANDS: [(&str, u64, u64); 6] = [
    ("all", 0, u64::MAX),
    ("from 1 MiB", 1 << 20, u64::MAX),
    ("below 64 KiB", 0, 1 << 16),
    ("64 KiB to 1 MiB", 1 << 16, 1 << 20),
    ("1 to 16 MiB", 1 << 20, 1 << 24),
    ("from 16 MiB", 1 << 24, u64::MAX),
];

/// All bands that have rows, over all operations first.
pub(super) fn errors(rows: &[&CollectiveRow], before: &Cluster, after: &Cluster) -> Vec<BandErrors> {
    let mut operations: Vec<Operation> = rows.iter().map(|row| row.operation).collect();
    operations.sort();
    operations.dedup();
    let mut list = Vec::new();
    for operation in [None].into_iter().chain(operations.into_iter().map(Some)) {
        for (band, least, below) in BANDS {
            let within = |row: &&CollectiveRow| {
                row.held_out()
                    && operation.is_none_or(|operation| row.operation == operation)
                    && (least..below).contains(&row.bytes)
            };
            let of = |cluster| CollectiveErrors::of(cluster, rows.iter().copied().filter(within));
            let band = BandErrors { operation, band, before: of(before), after: of(after) };
            if band.after.rows > 0 {
                list.push(band);
            }
        }
    }
    list
}
