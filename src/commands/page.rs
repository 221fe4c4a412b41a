//! The page of a run: what it shows besides the result.

use steptime_plots::RunPage;
use steptime_scenarios::{Draft, RunResult, Scenario, Sensitivity, sensitivity};

use crate::failure::Failure;

/// Share by which the hardware is made better and worse.
const SHARE: f64 = 0.1;
/// Spans of the largest timeline whose job is played a dozen times more to see what would help.
const MOST_SPANS: usize = 1_000_000;

/// Where a result comes from, and how it follows the hardware.
pub(crate) struct Origin {
    scenario: String,
    sensitivity: Option<Sensitivity>,
    note: Option<String>,
}

impl Origin {
    /// Plays the scenario on better and worse hardware, if it is not too large for that.
    pub(crate) fn of(draft: &Draft, scenario: &Scenario, result: &RunResult) -> Self {
        let spans: usize =
            result.timeline.iter().flat_map(|timeline| &timeline.ranks).map(|rank| rank.spans.len()).sum();
        let (sensitivity, note) = if result.report.step_time_s.is_none() {
            (None, None)
        } else if spans > MOST_SPANS {
            let why =
                "The job is large: `steptime sensitivity` says what faster hardware would do to the step.";
            (None, Some(why.to_owned()))
        } else {
            match sensitivity(scenario, SHARE) {
                Ok(found) => (Some(found), None),
                Err(error) => (None, Some(format!("Nothing is said of faster hardware: {error}"))),
            }
        };
        Self { scenario: draft.toml(), sensitivity, note }
    }

    /// The same without a word about the hardware.
    #[cfg(feature = "serve")]
    pub(crate) fn plain(draft: &Draft) -> Self {
        Self { scenario: draft.toml(), sensitivity: None, note: None }
    }

    /// The page's data and text.
    pub(crate) fn page<'a>(&'a self, result: &'a RunResult) -> RunPage<'a> {
        RunPage {
            report: &result.report,
            timeline: result.timeline.as_ref(),
            sensitivity: self.sensitivity.as_ref(),
            note: self.note.as_deref(),
            scenario: &self.scenario,
        }
    }

    /// The page.
    pub(crate) fn html(&self, result: &RunResult) -> Result<String, Failure> {
        Ok(self.page(result).html()?)
    }
}
