//! The 80 % interval of a predicted step: calibrated residuals, grouped by physics.
//!
//! Predictions of measured runs leave residuals, measured over predicted. Runs are divided by what their steps are
//! made of (how the GPU's kernel prices are known, nodes, shares of communication and host, ...), and the interval
//! of a new prediction is the one that holds 80 % of the residuals of its group (split conformal prediction:
//! Papadopoulos et al. 2002, Lei et al. 2018). What a suite or a row is called plays no part; whose host code issues the
//! kernels does, since the host's time is another model under each. Outside the range that the group covers, the
//! interval widens. So it does where the step depends on a network that jobs share and that is known to differ from job to
//! job: the prediction is that of the middle, and the interval holds what the network of four jobs in five makes of
//! the step (`jobs.rs`).

mod document;
mod fit;
mod jobs;
mod lookup;
#[cfg(test)]
mod tests;
mod traits;

use std::sync::LazyLock;

use crate::report::{Provenance, Report};
use crate::scenario::Scenario;

pub(crate) use self::fit::Residual;
pub(crate) use self::jobs::Jobs;
pub(crate) use self::traits::Traits;
use self::traits::{Condition, Trait};

/// Share of measurements that an interval holds.
const HELD: f64 = 0.8;
/// Tables in which each run is left out of one: its own coverage is looked up there.
const FOLDS: u64 = 5;

/// Quantiles of measured over predicted for each group of runs: one table of all runs, and as many without a part of
/// them, so that a measured run can be compared with an interval that it had no hand in.
#[derive(Clone, Debug, PartialEq)]
pub struct Intervals {
    /// Runs that the tables rest on.
    runs: usize,
    all: Vec<Group>,
    without: Vec<Vec<Group>>,
}

/// A group of runs that resemble each other in what their steps are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What they have in common.
    when: Vec<Condition>,
    /// Runs in it.
    runs: usize,
    /// Measured over predicted that a tenth of the runs stay below.
    low: f64,
    /// Measured over predicted that a tenth of the runs exceed.
    high: f64,
    /// Least and most of the traits that tell whether a prediction lies among the runs.
    covered: Vec<(Trait, f64, f64)>,
}

/// The interval of one prediction, as factors of the predicted step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) group: String,
    pub(crate) runs: usize,
    /// Why it is wider than that of its group; empty where it is not.
    pub(crate) widened: String,
}

impl Intervals {
    /// The tables that the program was built with.
    pub fn shipped() -> &'static Self {
        static SHIPPED: LazyLock<Intervals> = LazyLock::new(|| {
            // A test reads the file; without groups there are no intervals.
            Intervals::read(include_str!("residuals.toml")).unwrap_or(Intervals {
                runs: 0,
                all: Vec::new(),
                without: Vec::new(),
            })
        });
        &SHIPPED
    }

    /// The groups of the table of all runs.
    pub fn groups(&self) -> &[Group] {
        &self.all
    }

    /// Runs that the tables rest on.
    pub fn runs(&self) -> usize {
        self.runs
    }

    /// The ends for a prediction, factors of the predicted step.
    pub(crate) fn of(&self, traits: &Traits, jobs: Option<Jobs>) -> Option<Interval> {
        Some(lookup::find(&self.all, traits)?.among(jobs))
    }

    /// The same from a table that a run of this name had no hand in.
    pub(crate) fn without(&self, run_id: &str, traits: &Traits, jobs: Option<Jobs>) -> Option<Interval> {
        let table = self.without.get(fold(run_id) as usize).unwrap_or(&self.all);
        Some(lookup::find(table, traits)?.among(jobs))
    }
}

impl Group {
    /// What the runs have in common, in words.
    pub fn words(&self) -> String {
        if self.when.is_empty() {
            return "any step".to_owned();
        }
        self.when.iter().map(Condition::words).collect::<Vec<_>>().join(", ")
    }

    /// Runs in the group.
    pub fn runs(&self) -> usize {
        self.runs
    }

    /// The ends of the interval, factors of the predicted step.
    pub fn ends(&self) -> [f64; 2] {
        [self.low, self.high]
    }
}

/// The part of the runs that one of this name belongs to: the same for every program and order of rows (FNV-1a).
fn fold(run_id: &str) -> u64 {
    let hash = run_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The low bits of FNV follow the last byte closely.
    (hash ^ (hash >> 32)) % FOLDS
}

/// The report with its interval, and what that rests on.
pub(crate) fn attach(scenario: &Scenario, report: Report) -> Report {
    let jobs = Jobs::of(scenario, &report);
    let found = Traits::of(scenario, &report).and_then(|traits| Intervals::shipped().of(&traits, jobs));
    let (Some(interval), Some(step)) = (found, report.step_time_s) else { return report };
    let mut report =
        Report { step_time_interval_s: Some([step * interval.low, step * interval.high]), ..report };
    let entry = Provenance {
        what: "interval".to_owned(),
        kind: "fitted".to_owned(),
        source: format!(
            "80 % of {} measured runs took {:.2} to {:.2} times their predicted step: {}{}",
            interval.runs, interval.low, interval.high, interval.group, interval.widened
        ),
        error: "coverage by suite in docs/fidelity.md".to_owned(),
    };
    report.provenance.push(entry);
    report
}
