//! The catalogue's text of a fit.

use super::{Fit, FittedTable};
use crate::coefficients::{Coefficient, CoefficientUnit};

/// First line of what `calibrate` writes into a GPU's file; everything after it is replaced by the next fit.
pub const MARKER: &str = "# Written by calibrate: coefficients of the kernel models.\n";

/// A coefficient as the catalogue writes it: three decimals of a number below 10, tenths of a microsecond and
/// below, so that the shipped coefficients are exactly those whose errors are stated.
pub(super) fn rounded(coefficient: &Coefficient, value: f64) -> f64 {
    written(coefficient, value).trim_matches('"').trim_end_matches(" ns").parse::<f64>().map_or(
        value,
        |number| match coefficient.unit {
            CoefficientUnit::Number => number,
            CoefficientUnit::Seconds => number * 1e-9,
        },
    )
}

fn written(coefficient: &Coefficient, value: f64) -> String {
    match coefficient.unit {
        CoefficientUnit::Number if value >= 10.0 => format!("{value:.1}"),
        CoefficientUnit::Number => format!("{value:.3}"),
        CoefficientUnit::Seconds if value >= 1e-6 => format!("\"{:.0} ns\"", value * 1e9),
        CoefficientUnit::Seconds => format!("\"{:.2} ns\"", value * 1e9),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

impl Fit {
    /// The tables for the GPU's file: each with its source, its held-out error and its coefficients.
    pub fn to_toml(&self) -> String {
        self.tables.iter().map(|table| table.to_toml("")).collect()
    }

    /// A calibration file ([`crate::Cluster::calibrated`]): the same tables for the GPU of a cluster.
    pub fn to_calibration(&self) -> String {
        let tables: String = self.tables.iter().map(|table| table.to_toml("gpu.")).collect();
        format!("[gpu]\nname = \"{}\"\n{tables}", self.gpu)
    }
}

/// Held-out rows that a stated error needs; with fewer it is at least [`FEW_ROWS_ERROR`].
const ENOUGH_ROWS: usize = 20;
const FEW_ROWS_ERROR: f64 = 0.15;

impl FittedTable {
    /// Relative error that 80 % of unseen shapes stay below.
    pub fn error(&self) -> f64 {
        let after = self.report.after();
        if after.rows < ENOUGH_ROWS { after.p80.max(FEW_ROWS_ERROR) } else { after.p80 }
    }

    /// One table; `root` is what stands before `calibration` in its path.
    fn to_toml(&self, root: &str) -> String {
        let after = self.report.after();
        let large = self.report.band("from 2 GFLOP").map_or_else(String::new, |large| {
            format!("; from 2 GFLOP median {}, mean {}", percent(large.median), percent(large.mean))
        });
        let rows = self.rows;
        let mut text = format!(
            "\n[{root}calibration.{}]\nsource = \"Fitted to {} {rows} of {}; on {} held-out {rows} median {}, mean {}{large}\"\n\
             basis = \"fitted\"\nerror = {:.3} # 80 % of the held-out {rows} have less\n",
            self.path,
            self.report.fitted_rows,
            self.source,
            after.rows,
            percent(after.median),
            percent(after.mean),
            self.error(),
        );
        for (coefficient, value) in self.coefficients.iter().zip(&self.values) {
            let line = format!("{} = {}", coefficient.key, written(coefficient, *value));
            text.push_str(&format!("{line} # {}\n", coefficient.meaning));
        }
        text
    }
}
