//! Tables that a manifest has played: a row for each run of a scenario, and rows of numbers that others published.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use steptime_plots::Table;
use steptime_scenarios::{Draft, Report, digest, max_batch, planners, report_csv, run as play};

use crate::commands::run::{Beside, draft};
use crate::failure::Failure;

/// A table to play, by the name that figures call it by: `data = "@name"`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Play {
    pub(super) name: String,
    /// Columns that are another one times a number: `epoch_s = ["step_time_s", 196]`.
    #[serde(default)]
    times: BTreeMap<String, (String, f64)>,
    #[serde(default)]
    run: Vec<PlayedRun>,
    /// Rows as they are, of published numbers.
    #[serde(default)]
    row: Vec<BTreeMap<String, toml::Value>>,
}

/// One run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlayedRun {
    scenario: std::path::PathBuf,
    #[serde(default)]
    set: Vec<String>,
    /// Cells of further columns.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// A row for each planner of paths of vehicles instead, in a column `planner`.
    #[serde(default)]
    planners: bool,
    /// The largest micro-batch that fits, in a column `largest_micro_batch`.
    #[serde(default)]
    max_batch: bool,
}

/// What something was made from: pairs of a name and a text.
pub(super) type Facts = Vec<(String, String)>;

/// A row by column.
type Row = Vec<(String, String)>;

impl Play {
    /// Plays all of it; returns the table as comma-separated values, and what its figures were made from.
    pub(super) fn table(&self, beside: &Path) -> Result<(String, Facts), Failure> {
        let (mut rows, mut hashes): (Vec<Row>, Vec<String>) = (Vec::new(), Vec::new());
        for run in &self.run {
            let (draft, files) = draft(&beside.join(&run.scenario), &run.set)?;
            hashes.push(draft.digest(&files));
            rows.extend(run.rows(&draft, &files)?);
        }
        for row in &self.row {
            let cell = |value: &toml::Value| match value {
                toml::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            rows.push(row.iter().map(|(name, value)| (name.clone(), cell(value))).collect());
        }
        for row in &mut rows {
            for (name, (of, factor)) in &self.times {
                let value =
                    row.iter().find(|(known, _)| known == of).and_then(|(_, cell)| cell.parse::<f64>().ok());
                row.extend(value.map(|value| (name.clone(), (value * factor).to_string())));
            }
        }
        let facts = vec![
            ("steptime".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            (format!("runs of {}", self.name), hashes.len().to_string()),
            ("scenario_hashes".to_owned(), digest(hashes)),
        ];
        Ok((written(&rows)?, facts))
    }
}

impl PlayedRun {
    fn rows(&self, draft: &Draft, files: &Beside) -> Result<Vec<Row>, Failure> {
        let labels = || self.labels.iter().map(|(name, cell)| (name.clone(), cell.clone()));
        let scenario = draft.scenario(files)?;
        if self.planners {
            let compared = planners(&scenario)?.unwrap_or_default();
            let row = |it: steptime_scenarios::Compared| {
                let verdict = if it.step_time_s.is_some() { "fits" } else { "infeasible" };
                let time = it.step_time_s.map_or_else(String::new, |time| time.to_string());
                let planner = it.planner.split(" (").next().unwrap_or_default().to_owned();
                let own = [("planner", planner), ("verdict", verdict.to_owned()), ("step_time_s", time)];
                labels().chain(own.map(|(name, cell)| (name.to_owned(), cell))).collect()
            };
            return Ok(compared.into_iter().map(row).collect());
        }
        if self.max_batch {
            let largest = max_batch(draft, files, 1)?.micro_batch_size;
            let cell = largest.map_or_else(|| "0".to_owned(), |size| size.to_string());
            return Ok(vec![labels().chain([("largest_micro_batch".to_owned(), cell)]).collect()]);
        }
        let report = play(&scenario, false)?.report;
        Ok(vec![labels().chain(of_report(&report)?).collect()])
    }
}

/// The columns of report.csv.
fn of_report(report: &Report) -> Result<Row, Failure> {
    let text = report_csv(std::slice::from_ref(report));
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let failed = |error: csv::Error| Failure::Message(error.to_string());
    let heads = reader.headers().map_err(failed)?.clone();
    let Some(row) = reader.records().next() else { return Ok(Row::new()) };
    let row = row.map_err(failed)?;
    Ok(heads.iter().zip(&row).map(|(name, cell)| (name.to_owned(), cell.to_owned())).collect())
}

/// The rows as comma-separated values; columns in the order in which they are first met.
fn written(rows: &[Row]) -> Result<String, Failure> {
    let mut columns: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flatten() {
        if !columns.contains(&name.as_str()) {
            columns.push(name);
        }
    }
    let failed = |error: csv::Error| Failure::Message(error.to_string());
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(&columns).map_err(failed)?;
    for row in rows {
        let cell =
            |column: &&str| row.iter().find(|(name, _)| name == column).map_or("", |(_, cell)| cell.as_str());
        writer.write_record(columns.iter().map(cell)).map_err(failed)?;
    }
    let bytes = writer.into_inner().map_err(|error| Failure::Message(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| Failure::Message(error.to_string()))
}

/// The tables that a manifest has played, by `@name`.
#[derive(Debug, Default)]
pub(super) struct Played(BTreeMap<String, (String, Facts)>);

impl Played {
    pub(super) fn of(plays: &[Play], beside: &Path) -> Result<Self, (String, Failure)> {
        let mut all = BTreeMap::new();
        for it in plays {
            let table = it.table(beside).map_err(|failure| (it.name.clone(), failure))?;
            all.insert(it.name.clone(), table);
        }
        Ok(Self(all))
    }

    /// A table that is called `@name`, and what it was made from.
    pub(super) fn table(&self, data: &str) -> Option<Result<(Table, Facts), Failure>> {
        let name = data.strip_prefix('@')?;
        let Some((text, facts)) = self.0.get(name) else {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            let message = format!("no [[play]] is named `{name}`; allowed: {}", known.join(", "));
            return Some(Err(Failure::Message(message)));
        };
        Some(Table::from_csv(text).map(|table| (table, facts.clone())).map_err(Failure::from))
    }

    /// All tables, by name.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter().map(|(name, (text, _))| (name, text))
    }
}
