//! Committed scores, and what has changed since.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::Deserialize;

use super::{ErrorScore, SuiteScore, Validation};
use crate::error::InputError;
use crate::origin::Origin;

/// Points of the median that may be lost before it counts as a regression.
const TOLERANCE: f64 = 0.5;

/// Scores of suites as a file keeps them: percent with one decimal.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Baseline {
    suites: BTreeMap<String, Suite>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Suite {
    rows: usize,
    skipped: usize,
    /// Quantities and the outcome, in the order of the report.
    #[serde(flatten)]
    scores: IndexMap<String, IndexMap<String, f64>>,
}

/// A number of a suite that is not what it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The suite.
    pub suite: String,
    /// What is measured, e.g. `step_time median`, `skipped share`.
    pub what: String,
    /// Before, percent; absent for what is new.
    pub before: Option<f64>,
    /// Now, percent; absent for what is gone.
    pub now: Option<f64>,
    /// Whether it is a regression: a median that grew by more than half a point or is gone, or a grown share of
    /// skipped rows.
    pub worse: bool,
}

/// Percent to a tenth.
fn tenth(share: f64) -> f64 {
    (1000.0 * share).round() / 10.0
}

impl Baseline {
    /// The scores of a validation.
    pub fn of(validation: &Validation) -> Self {
        Self { suites: validation.suites.iter().map(|it| (it.suite.clone(), Suite::of(it))).collect() }
    }

    /// Reads a file; errors name it `name`.
    ///
    /// # Errors
    /// The file is no table of scores: where, and what is wrong.
    pub fn read(name: &str, text: &str) -> Result<Self, InputError> {
        toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let message = format!("is no table of scores: {}", error.message());
            InputError::Syntax { origin: Origin::at(name, line, 1), message }
        })
    }

    /// The file.
    pub fn text(&self) -> String {
        let mut text =
            "# Scores of `steptime validate` in percent; `--write-baseline` writes, `--baseline` compares.\n"
                .to_owned();
        for (name, suite) in &self.suites {
            text += &format!("\n[{name:?}]\nrows = {}\nskipped = {}\n", suite.rows, suite.skipped);
            for (quantity, numbers) in &suite.scores {
                let numbers: Vec<String> =
                    numbers.iter().map(|(name, value)| format!("{name} = {value:.1}")).collect();
                text += &format!("{quantity} = {{ {} }}\n", numbers.join(", "));
            }
        }
        text
    }

    /// What is different in `now`, suite by suite. Suites that only one side has are no change: tables may be scored
    /// one by one.
    pub fn changes(&self, now: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (name, suite) in &now.suites {
            if let Some(before) = self.suites.get(name) {
                suite.changes_since(before, name, &mut changes);
            }
        }
        changes
    }
}

impl Suite {
    fn of(score: &SuiteScore) -> Self {
        let numbers = |it: ErrorScore| {
            let numbers = [
                ("median", Some(it.median_ape)),
                ("mean", Some(it.mape)),
                ("p90", Some(it.p90_ape)),
                ("bias", Some(it.bias)),
                ("covered", it.interval_coverage),
            ];
            let scored = [("scored".to_owned(), it.scored as f64)];
            let known = numbers.into_iter().filter_map(|(name, it)| Some((name.to_owned(), tenth(it?))));
            scored.into_iter().chain(known).collect::<IndexMap<_, _>>()
        };
        let quantities = [
            ("step_time", score.time),
            ("peak_allocated", score.peak_allocated),
            ("peak_reserved", score.peak_reserved),
            ("static_allocated", score.static_allocated),
        ];
        let mut scores: IndexMap<String, IndexMap<String, f64>> =
            quantities.into_iter().filter_map(|(name, it)| Some((name.to_owned(), numbers(it?)))).collect();
        if let Some(outcome) = score.outcome {
            let shares = [
                ("accuracy", Some(outcome.accuracy)),
                ("missed", outcome.missed_oom),
                ("false", outcome.false_oom),
            ];
            let known = shares.into_iter().filter_map(|(name, it)| Some((name.to_owned(), tenth(it?))));
            scores.insert("outcome".to_owned(), known.collect());
        }
        Self { rows: score.rows, skipped: score.skipped, scores }
    }

    fn skipped_share(&self) -> f64 {
        tenth(self.skipped as f64 / self.rows.max(1) as f64)
    }

    fn changes_since(&self, before: &Self, name: &str, changes: &mut Vec<Change>) {
        let mut note = |what: String, before: Option<f64>, now: Option<f64>, worse: bool| {
            if before != now {
                changes.push(Change { suite: name.to_owned(), what, before, now, worse });
            }
        };
        let (was, is) = (before.skipped_share(), self.skipped_share());
        note("skipped share".to_owned(), Some(was), Some(is), is > was);
        let quantities =
            before.scores.keys().chain(self.scores.keys().filter(|it| !before.scores.contains_key(*it)));
        for quantity in quantities {
            for number in ["median", "accuracy", "covered"] {
                let of = |suite: &Self| suite.scores.get(quantity).and_then(|it| it.get(number)).copied();
                let (was, is) = (of(before), of(self));
                let worse = match (was, is) {
                    (Some(was), Some(is)) => number == "median" && is > was + TOLERANCE + 1e-9,
                    (was, is) => was.is_some() && is.is_none(),
                };
                note(format!("{quantity} {number}"), was, is, worse);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "[mine]\nrows = 10\nskipped = 1\nstep_time = { scored = 9.0, median = 5.0 }\n";

    fn changed(now: &str) -> Vec<(String, bool)> {
        let (before, now) = (Baseline::read("a", BEFORE).unwrap(), Baseline::read("b", now).unwrap());
        before.changes(&now).into_iter().map(|it| (it.what, it.worse)).collect()
    }

    #[test]
    fn half_a_point_is_tolerated_and_more_is_a_regression() {
        assert_eq!(changed(BEFORE), []);
        assert_eq!(changed(&BEFORE.replace("5.0", "5.5")), [("step_time median".to_owned(), false)]);
        assert_eq!(changed(&BEFORE.replace("5.0", "5.6")), [("step_time median".to_owned(), true)]);
        assert_eq!(changed(&BEFORE.replace("5.0", "3.0")), [("step_time median".to_owned(), false)]);
    }

    #[test]
    fn more_skipped_rows_are_a_regression_and_fewer_are_none() {
        assert_eq!(changed(&BEFORE.replace("= 1\n", "= 2\n")), [("skipped share".to_owned(), true)]);
        assert_eq!(changed(&BEFORE.replace("= 1\n", "= 0\n")), [("skipped share".to_owned(), false)]);
        // The share counts: twice the rows with twice the skipped ones are as before.
        assert_eq!(changed(&BEFORE.replace("= 10", "= 20").replace("= 1\n", "= 2\n")), []);
    }

    #[test]
    fn a_quantity_that_is_gone_is_a_regression() {
        let now = "[mine]\nrows = 10\nskipped = 1\n";
        assert_eq!(changed(now), [("step_time median".to_owned(), true)]);
        assert_eq!(changed("[other]\nrows = 1\nskipped = 0\n"), []);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let baseline = Baseline::read("a", BEFORE).unwrap();
        assert_eq!(Baseline::read("b", &baseline.text()).unwrap(), baseline);
        let error = Baseline::read("a.toml", "[mine]\nrows = \"many\"\n").unwrap_err().to_string();
        assert!(error.starts_with("a.toml:2") || error.contains("line 2"), "{error}");
    }
}
