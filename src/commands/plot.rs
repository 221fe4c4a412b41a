//! `steptime plot`.

mod manifest;
mod plays;
mod schedule;

use std::path::{Path, PathBuf};

use steptime_plots::{
    Figure, Format, PlotError, Table, TableKind, TableSpec, Width, breakdown, memory_over_time,
    pipeline_gantt, variant_comparison,
};
use steptime_scenarios::{Report, Timeline};

use crate::cli::{PlotArguments, PlotCommand};
use crate::failure::{Answer, Failure};
use crate::output::{self, Output};

/// Draws the figures of saved results.
pub(crate) fn plot(arguments: &PlotArguments) -> Result<Answer, Failure> {
    match &arguments.what {
        Some(PlotCommand::Schedule(arguments)) => return schedule::schedule(arguments),
        Some(PlotCommand::Manifest(arguments)) => return manifest::manifest(arguments),
        None => {}
    }
    let style = &arguments.style;
    let mut reports: Vec<Report> = Vec::new();
    let mut timelines: Vec<Option<Timeline>> = Vec::new();
    for folder in &arguments.results {
        reports.push(parse(&folder.join("report.json"))?);
        let path = folder.join("timeline.json");
        timelines.push(if path.exists() { Some(parse(&path)?) } else { None });
    }
    let figures = match (&reports[..], &timelines[..]) {
        ([report], [timeline]) => {
            let tables = RunTables::saved(&arguments.results[0])?;
            run_figures(report, timeline.as_ref(), &tables, style.width)?
        }
        _ => comparison_figures(&reports, style.width)?,
    };
    let default: PathBuf = arguments.results[0].join("figures");
    let folder = arguments.out.as_ref().unwrap_or(&default);
    let outputs = render(folder, &figures, &style.figures)?;
    output::write_all(&outputs)?;
    for output in &outputs {
        output::print(&format!("{}\n", output.path.display()))?;
    }
    Ok(Answer::Yes)
}

/// The figures of one run: where the step goes and, with a timeline, what happens when and the memory curve.
pub(crate) fn run_figures(
    report: &Report,
    timeline: Option<&Timeline>,
    tables: &RunTables,
    width: Width,
) -> Result<Vec<Figure>, PlotError> {
    let mut figures = Vec::new();
    if report.step_time_s.is_some() {
        figures.push(breakdown(std::slice::from_ref(report), width)?);
    }
    if let Some(timeline) = timeline {
        figures.push(pipeline_gantt(timeline, width)?);
        figures.push(memory_over_time(timeline, Some(report.peak_memory.rank), width)?);
    }
    figures.extend(tables.figures(width)?);
    Ok(figures.into_iter().map(|figure| figure.with_facts(report.facts())).collect())
}

/// Tables of a run that figures are drawn from.
#[derive(Debug, Default)]
pub(crate) struct RunTables {
    /// operations.csv.
    pub(crate) operations: Option<String>,
    /// links.csv.
    pub(crate) links: Option<String>,
}

impl RunTables {
    /// Those of a folder that `run --out` wrote.
    fn saved(folder: &Path) -> Result<Self, Failure> {
        let read = |name: &str| {
            let path = folder.join(name);
            if path.exists() { output::read(&path).map(Some) } else { Ok(None) }
        };
        Ok(Self { operations: read("operations.csv")?, links: read("links.csv")? })
    }

    /// The roofline of the operations, where any computes, and the load of the network's links, where any has ends.
    fn figures(&self, width: Width) -> Result<Vec<Figure>, PlotError> {
        let mut figures = Vec::new();
        let column = |name: &str| Some(name.to_owned());
        if let Some(text) = &self.operations {
            let spec = TableSpec {
                flops: column("flops"),
                bytes: column("bytes"),
                seconds: column("seconds"),
                label: column("operation"),
                series: column("kind"),
                ..TableSpec::new("roofline", TableKind::Roofline, width)
            };
            figures.push(drawn(&spec, text)?);
        }
        if let Some(text) = &self.links {
            let spec = TableSpec {
                x: column("from"),
                y: column("to"),
                value: column("load"),
                ..TableSpec::new("topology", TableKind::Topology, width)
            };
            figures.push(drawn(&spec, text)?);
        }
        Ok(figures.into_iter().flatten().collect())
    }
}

/// A figure of a table; none if the table has nothing that it could show.
fn drawn(spec: &TableSpec, text: &str) -> Result<Option<Figure>, PlotError> {
    let table = Table::from_csv(text)?;
    match spec.draw(&table) {
        Ok(figure) => Ok(Some(figure)),
        Err(PlotError::Empty(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Figures that compare several runs.
pub(crate) fn comparison_figures(reports: &[Report], width: Width) -> Result<Vec<Figure>, PlotError> {
    let figures = [breakdown(reports, width)?, variant_comparison(reports, width)?];
    Ok(figures.map(|figure| figure.with_facts(facts_of(reports))).to_vec())
}

/// What makes several results again.
pub(crate) fn facts_of(reports: &[Report]) -> Vec<(String, String)> {
    if let [report] = reports {
        return report.facts();
    }
    let mut facts: Vec<(String, String)> = Vec::new();
    for (name, text) in reports.iter().flat_map(Report::facts) {
        match facts.iter_mut().find(|(known, _)| *known == name) {
            // One version and one seed are said once; scenarios are listed.
            Some((_, all)) if *all == text && !name.starts_with("scenario") => {}
            Some((_, all)) => *all += &format!("; {text}"),
            None => facts.push((name, text)),
        }
    }
    facts
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text = output::read(path)?;
    serde_json::from_str(&text).map_err(|error| Failure::File {
        path: path.to_owned(),
        message: format!("not a saved result: {error}"),
    })
}

/// Every figure in every format, as files of a folder.
pub(crate) fn render(
    folder: &Path,
    figures: &[Figure],
    formats: &[Format],
) -> Result<Vec<Output>, PlotError> {
    let mut outputs: Vec<Output> = Vec::new();
    for figure in figures {
        for &format in formats {
            let path = folder.join(format!("{}.{}", figure.name, format.name()));
            // A format that is asked for twice is drawn once.
            if outputs.iter().all(|output| output.path != path) {
                outputs.push(Output::new(path, figure.bytes(format)?));
            }
        }
    }
    Ok(outputs)
}
