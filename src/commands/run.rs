//! `steptime run`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Instant;

use steptime_plots::{Format, Width};
use steptime_scenarios::{
    Draft, Files, Report, RunResult, Scenario, Verdict, memory_csv, memory_snapshot, remedies, report_csv,
    run as play,
};

use super::page::Origin;
use super::plot::RunTables;
use crate::cli::{RunArguments, TraceFormat};
use crate::color;
use crate::failure::{Answer, Failure};
use crate::output::{self, Output};
use crate::present;

/// Identifies the document that several scenarios give.
const REPORTS_SCHEMA: &str = "steptime.reports/1";

/// Identifies the document beside a run's files.
const PROVENANCE_SCHEMA: &str = "steptime.provenance/1";

/// Reads, plays and reports scenarios.
pub(crate) fn run(arguments: &RunArguments) -> Result<Answer, Failure> {
    let start = Instant::now();
    let mut results = Vec::with_capacity(arguments.scenarios.len());
    let mut pages = Vec::new();
    for path in &arguments.scenarios {
        let (draft, files) = draft(path, &arguments.set)?;
        let scenario = draft.scenario(&files)?;
        let mut result = play(&scenario, arguments.out.is_some())?;
        result.report.scenario_hash = Some(draft.digest(&files));
        // The verdict alone is asked for where it is to be quick.
        if result.report.verdict == Verdict::OutOfMemory && !arguments.quiet {
            result.report.remedies = remedies(&draft, &files);
        }
        if arguments.out.is_some() {
            pages.push(Origin::of(&draft, &scenario, &result));
        }
        results.push(result);
    }
    let played = start.elapsed();
    if let Some(folder) = &arguments.out {
        let wanted = Wanted { figures: &arguments.figures, traces: &arguments.trace };
        output::write_all(&render(folder, &results, &pages, &wanted)?)?;
    }
    let reports: Vec<&Report> = results.iter().map(|result| &result.report).collect();
    if arguments.json {
        output::print(&document(&reports)?)?;
    } else if arguments.quiet {
        for report in &reports {
            output::print(&format!("{}\n", present::verdict_line(report)))?;
        }
    } else {
        let text = present::reports(&reports);
        let fits = reports.iter().all(|report| report.verdict == Verdict::Fits);
        output::print(&if color::wanted() { color::painted(&text, fits) } else { text })?;
    }
    // Timings differ from run to run: they are for a person at a terminal.
    if !arguments.quiet && std::io::stderr().is_terminal() {
        let count = results.len();
        let noun = if count == 1 { "scenario" } else { "scenarios" };
        output::remark(&format!("{count} {noun} in {:.1} ms\n", played.as_secs_f64() * 1e3))?;
        if let Some(folder) = &arguments.out {
            output::remark(&format!("results in {}\n", folder.display()))?;
        }
    }
    let fits = reports.iter().all(|report| report.verdict == Verdict::Fits);
    Ok(if fits { Answer::Yes } else { Answer::No })
}

fn document(reports: &[&Report]) -> Result<String, Failure> {
    match reports {
        [report] => output::json(report),
        several => output::json(&serde_json::json!({ "schema": REPORTS_SCHEMA, "reports": several })),
    }
}

/// Files beside a scenario.
pub(crate) struct Beside(PathBuf);

impl Files for Beside {
    fn read(&self, name: &str) -> Result<String, String> {
        let path = self.0.join(name);
        let text = std::fs::File::open(&path).and_then(output::text_of);
        text.map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// A scenario from a file, with the changes of `--set`; `-` reads standard input.
pub(crate) fn read(path: &Path, options: &[String]) -> Result<Scenario, Failure> {
    let (draft, files) = draft(path, options)?;
    Ok(draft.scenario(&files)?)
}

/// The same before it is checked, and the files beside it.
pub(crate) fn draft(path: &Path, options: &[String]) -> Result<(Draft, Beside), Failure> {
    let (name, text, folder) = if path == Path::new("-") {
        let text = output::text_of(std::io::stdin())
            .map_err(|error| Failure::File { path: path.to_owned(), message: error.to_string() })?;
        ("<standard input>".to_owned(), text, PathBuf::from("."))
    } else {
        let folder = path.parent().map_or_else(PathBuf::new, Path::to_owned);
        (path.display().to_string(), output::read(path)?, folder)
    };
    Ok((Draft::read(&name, &text, options)?, Beside(folder)))
}

/// Longest file name made of a scenario's name, in bytes: file systems allow 255.
const LONGEST_NAME: usize = 100;

/// What `--out` writes beside the numbers.
struct Wanted<'a> {
    figures: &'a [Format],
    traces: &'a [TraceFormat],
}

/// All results as files. One scenario fills the folder itself; several get a folder each, and figures that compare
/// them. Nothing is written yet: what cannot be drawn must not leave half of the results behind.
fn render(
    folder: &Path,
    results: &[RunResult],
    pages: &[Origin],
    wanted: &Wanted<'_>,
) -> Result<Vec<Output>, Failure> {
    if let ([result], [page]) = (results, pages) {
        return render_one(folder, result, page, wanted);
    }
    let mut outputs = Vec::new();
    let mut taken = vec!["report.csv".to_owned(), "figures".to_owned()];
    for (result, page) in results.iter().zip(pages) {
        let mut name = file_name(&result.report.name);
        while taken.contains(&name) {
            name.push('_');
        }
        outputs.extend(render_one(&folder.join(&name), result, page, wanted)?);
        taken.push(name);
    }
    let reports: Vec<Report> = results.iter().map(|result| result.report.clone()).collect();
    outputs.push(Output::new(folder.join("report.csv"), report_csv(&reports)));
    let figures = super::plot::comparison_figures(&reports, Width::TwoColumn)?;
    outputs.extend(super::plot::render(&folder.join("figures"), &figures, wanted.figures)?);
    Ok(outputs)
}

fn render_one(
    folder: &Path,
    result: &RunResult,
    page: &Origin,
    wanted: &Wanted<'_>,
) -> Result<Vec<Output>, Failure> {
    let csv = report_csv(std::slice::from_ref(&result.report));
    let mut outputs = vec![
        Output::new(folder.join("report.json"), output::json(&result.report)?),
        Output::new(folder.join("report.csv"), csv),
        Output::new(folder.join("report.html"), page.html(result)?),
    ];
    if let Some(timeline) = &result.timeline {
        outputs.push(Output::new(folder.join("timeline.json"), output::json(timeline)?));
    }
    if !result.memory.is_empty() {
        let step = result.report.step_time_s.unwrap_or(0.0);
        outputs.push(Output::new(folder.join("memory.csv"), memory_csv(&result.memory)));
        let snapshot = memory_snapshot(&result.memory, step);
        outputs.push(Output::new(folder.join("memory_snapshot.pickle"), snapshot));
    }
    let links = result.recording.as_ref().map(steptime_traces::links_csv);
    let tables = RunTables { operations: result.operations.clone(), links };
    for (name, text) in [("operations.csv", &tables.operations), ("links.csv", &tables.links)] {
        outputs.extend(text.as_ref().map(|text| Output::new(folder.join(name), text.clone())));
    }
    let figures =
        super::plot::run_figures(&result.report, result.timeline.as_ref(), &tables, Width::TwoColumn)?;
    outputs.extend(super::plot::render(&folder.join("figures"), &figures, wanted.figures)?);
    if let Some(recording) = &result.recording {
        let (timeline, facts) = (result.timeline.as_ref(), result.report.facts());
        outputs.extend(super::trace::traces(folder, recording, timeline, &facts, wanted.traces)?);
    }
    outputs.push(provenance(folder, &result.report, &outputs)?);
    Ok(outputs)
}

/// What makes the files of a folder again, for those that have no place for it.
fn provenance(folder: &Path, report: &Report, outputs: &[Output]) -> Result<Output, Failure> {
    let name = |output: &Output| {
        let inside = output.path.strip_prefix(folder).unwrap_or(&output.path);
        inside.display().to_string().replace('\\', "/")
    };
    let files: Vec<String> = outputs.iter().map(name).collect();
    let document = serde_json::json!({
        "schema": PROVENANCE_SCHEMA,
        "scenario": report.name,
        "scenario_hash": report.scenario_hash,
        "version": report.version,
        "seed": report.seed(),
        "files": files,
    });
    Ok(Output::new(folder.join("provenance.json"), output::json(&document)?))
}

/// A scenario's name as a file name: letters, digits, `-`, `_` and `.`; anything else becomes `-`.
fn file_name(name: &str) -> String {
    let mut clean = String::new();
    for c in name.chars() {
        let keep = c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        if keep {
            clean.push(c);
        } else if !clean.ends_with('-') {
            clean.push('-');
        }
    }
    let clean = clean.trim_start_matches(['-', '.']);
    let clean = clean[..clean.floor_char_boundary(LONGEST_NAME)].trim_end_matches(['-', '.']);
    if clean.is_empty() { "scenario".to_owned() } else { clean.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_file_names() {
        for (name, file) in [
            ("llama3-8b, 8 H100, ZeRO 3", "llama3-8b-8-H100-ZeRO-3"),
            ("../../etc/passwd", "etc-passwd"),
            ("...", "scenario"),
            ("Zwölf Bäume", "Zwölf-Bäume"),
        ] {
            assert_eq!(file_name(name), file);
        }
    }

    #[test]
    fn file_names_end_within_what_file_systems_take() {
        assert_eq!(file_name(&"a".repeat(300)), "a".repeat(100));
        // 99 bytes and a letter of two: the letter does not fit any more.
        assert_eq!(file_name(&format!("{}ö", "a".repeat(99))), "a".repeat(99));
        assert_eq!(file_name(&format!("{} b", "a".repeat(99))), "a".repeat(99));
    }
}
