//! `steptime validate`: predictions against measured training steps.

mod fidelity;
mod text;

use std::path::Path;

use steptime_plots::{Width, parity};
use steptime_scenarios::{
    Baseline, Intervals, Predictions, Validation, published, scenarios_of, validation_csv,
};

use crate::cli::ValidateArguments;
use crate::commands::plot::render;
use crate::failure::{Answer, Failure};
use crate::output::{self, Output};
use crate::present::trimmed;

/// `steptime validate [--data FILE...]`.
pub(crate) fn validate(arguments: &ValidateArguments) -> Result<Answer, Failure> {
    let tables = arguments
        .data
        .iter()
        .map(|path| Ok((path.display().to_string(), output::read(path)?)))
        .collect::<Result<Vec<_>, Failure>>()?;
    if let Some(wanted) = &arguments.scenario {
        output::print(&scenario(&tables, wanted)?)?;
        return Ok(Answer::Yes);
    }
    let baseline = arguments.baseline.as_deref().map(read_baseline).transpose()?;
    let predictions = if tables.is_empty() { published()?.1 } else { Predictions::of(&tables)? };
    let fitted = arguments.write_intervals.as_ref().map(|_| predictions.intervals());
    let intervals = fitted.as_ref().unwrap_or_else(|| Intervals::shipped());
    let validation = predictions.scored(intervals);
    let mut outputs = Vec::new();
    if let (Some(path), Some(fitted)) = (&arguments.write_intervals, &fitted) {
        outputs.push(Output::new(path.clone(), fitted.text()));
    }
    if let Some(path) = &arguments.write_baseline {
        outputs.push(Output::new(path.clone(), Baseline::of(&validation).text()));
    }
    if let Some(folder) = &arguments.out {
        outputs.extend(results(folder, &validation, arguments)?);
    }
    if let Some(path) = &arguments.fidelity {
        outputs.extend(fidelity::page(path, &validation, intervals)?);
    }
    output::write_all(&outputs)?;
    let changes = baseline.map(|before| before.changes(&Baseline::of(&validation))).unwrap_or_default();
    let shown = text::changes(&changes);
    if arguments.json {
        output::print(&output::json(&validation)?)?;
        output::remark(&trimmed(&shown))?;
    } else {
        output::print(&trimmed(&(text::text(&validation, arguments.worst) + &shown)))?;
    }
    Ok(if changes.iter().any(|change| change.worse) { Answer::No } else { Answer::Yes })
}

fn read_baseline(path: &Path) -> Result<Baseline, Failure> {
    Ok(Baseline::read(&path.display().to_string(), &output::read(path)?)?)
}

/// The files of `--out`.
fn results(
    folder: &Path,
    validation: &Validation,
    arguments: &ValidateArguments,
) -> Result<Vec<Output>, Failure> {
    let mut outputs = vec![
        Output::new(folder.join("validation.json"), output::json(validation)?),
        Output::new(folder.join("validation.csv"), validation_csv(validation)),
    ];
    let any = validation.suites.iter().any(|suite| suite.time.is_some());
    let figures = if any { vec![parity(validation, Width::TwoColumn)?] } else { Vec::new() };
    outputs.extend(render(&folder.join("figures"), &figures, &arguments.figures)?);
    Ok(outputs)
}

/// What a row becomes.
fn scenario(tables: &[(String, String)], wanted: &str) -> Result<String, Failure> {
    for (name, text) in tables {
        let rows = scenarios_of(name, text)?;
        if let Some((_, scenario)) = rows.into_iter().find(|(run_id, _)| run_id == wanted) {
            return scenario
                .map_err(|reason| Failure::Message(format!("{wanted} cannot be played: {reason}")));
        }
    }
    if tables.is_empty()
        && let Some(fact) = published()?.0.into_iter().find(|fact| fact.id == wanted)
    {
        return Ok(fact.scenario().to_owned());
    }
    Err(Failure::Message(format!("no row is named `{wanted}`")))
}
