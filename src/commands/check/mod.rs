//! `steptime check`.

mod source;
mod text;

use serde::Serialize;
use steptime_scenarios::{CheckReport, PlanVerdict, Violation, check_path, check_scenario};

use crate::cli::CheckArguments;
use crate::failure::{Answer, Failure};
use crate::output;
use crate::present::trimmed;
use source::{Plan, Source};

/// Plans of one file.
#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    /// The plan that the file proposes.
    proposed: &'a CheckReport,
    /// The others in it.
    others: &'a [CheckReport],
}

/// Identifies the document of a file with several plans.
const SCHEMA: &str = "steptime.checks/1";

/// Judges a plan. The answer is that about the plan that the file proposes.
pub(crate) fn check(arguments: &CheckArguments) -> Result<Answer, Failure> {
    let source = Source::read(arguments)?;
    let (proposed, others) = match &source.plan {
        Plan::Scenario { violations } => {
            let mut report = check_scenario(&source.draft, &source.files, source.claim, arguments.plays)?;
            // A list that does not place every layer once says so by name, not by its sums.
            if !violations.is_empty() {
                report.violations.retain(|violation| violation.rule == "fits" || violation.rule == "claim");
                report.complete = false;
                report.verdict = PlanVerdict::Rejected;
                let named = violations
                    .iter()
                    .map(|message| Violation { rule: "complete".to_owned(), message: message.clone() });
                report.violations.splice(0..0, named);
            }
            (report, Vec::new())
        }
        Plan::Paths(paths) => {
            let mut proposed = None;
            let mut others = Vec::new();
            for path in paths {
                let report = check_path(&source.draft, &source.files, path)?;
                if path.proposed && proposed.is_none() {
                    proposed = Some(report);
                } else {
                    others.push(report);
                }
            }
            let Some(proposed) = proposed else {
                return Err(Failure::Message("the file proposes no plan".to_owned()));
            };
            (proposed, others)
        }
    };
    let text = if arguments.json {
        if others.is_empty() {
            output::json(&proposed)?
        } else {
            output::json(&Document { schema: SCHEMA, proposed: &proposed, others: &others })?
        }
    } else if arguments.quiet {
        text::verdict(&proposed)
    } else {
        text::full(&proposed, &others)
    };
    output::print(&trimmed(&text))?;
    Ok(if proposed.verdict == PlanVerdict::Accepted { Answer::Yes } else { Answer::No })
}
