//! `steptime plot manifest`: a paper's figures and tables from saved results, all by one file.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use steptime_plots::{
    Figure, FigureKind, Table, TableSpec, TextFormat, Width, breakdown, memory_over_time, parity,
    pipeline_gantt, text_table, variant_comparison,
};
use steptime_scenarios::{Report, Timeline, digest};

use super::plays::{Facts, Play, Played};
use super::{facts_of, parse, render};
use crate::cli::ManifestArguments;
use crate::failure::{Answer, Failure};
use crate::output::{self, Output};

/// What a manifest lists, in the order in which it is drawn.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    /// Figures of tables of results.
    #[serde(default)]
    figure: Vec<TableSpec>,
    /// Figures of saved runs.
    #[serde(default)]
    run_figure: Vec<RunFigure>,
    /// Tables for a paper's text.
    #[serde(default)]
    table: Vec<TextTable>,
    /// Tables that are played first.
    #[serde(default)]
    play: Vec<Play>,
}

/// A figure of one or several folders that `run --out` wrote, or of a saved validation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunFigure {
    name: String,
    kind: String,
    results: Vec<PathBuf>,
    #[serde(default = "two_column")]
    width: String,
    rank: Option<u64>,
}

fn two_column() -> String {
    Width::TwoColumn.name().to_owned()
}

/// Columns of a table as text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TextTable {
    name: String,
    data: PathBuf,
    format: String,
    #[serde(default)]
    columns: Vec<String>,
    #[serde(default)]
    only: std::collections::BTreeMap<String, String>,
}

/// Draws all that the manifest lists; nothing is written unless all of it could be drawn.
pub(crate) fn manifest(arguments: &ManifestArguments) -> Result<Answer, Failure> {
    let file = &arguments.file;
    let text = output::read(file)?;
    let manifest: Manifest = toml::from_str(&text).map_err(|error| Failure::File {
        path: file.clone(),
        message: format!("{}{}", line_of(&text, error.span()), error.message()),
    })?;
    let beside = file.parent().unwrap_or(Path::new("."));
    let folder = arguments.out.clone().unwrap_or_else(|| beside.join("figures"));
    let mut names: Vec<(&str, &str)> = Vec::new();
    names.extend(manifest.figure.iter().map(|figure| (figure.name.as_str(), "figure")));
    names.extend(manifest.run_figure.iter().map(|figure| (figure.name.as_str(), "figure")));
    names.extend(manifest.table.iter().map(|table| (table.name.as_str(), "table")));
    names.extend(manifest.play.iter().map(|play| (play.name.as_str(), "play")));
    check_names(file, &names)?;
    let failed = |name: &str, failure: Failure| Failure::File {
        path: file.clone(),
        message: format!("`{name}`: {failure}"),
    };
    let played = Played::of(&manifest.play, beside).map_err(|(name, failure)| failed(&name, failure))?;
    let mut figures = Vec::new();
    for spec in &manifest.figure {
        figures.push(table_figure((beside, &played), spec).map_err(|failure| failed(&spec.name, failure))?);
    }
    for spec in &manifest.run_figure {
        figures.push(run_figure(beside, spec).map_err(|failure| failed(&spec.name, failure))?);
    }
    let mut outputs = render(&folder, &figures, &arguments.figures)?;
    for spec in &manifest.table {
        outputs
            .push(written((beside, &played), &folder, spec).map_err(|failure| failed(&spec.name, failure))?);
    }
    for (name, text) in played.texts() {
        outputs.push(Output::new(folder.join(format!("{name}.csv")), text.clone()));
    }
    output::write_all(&outputs)?;
    for output in &outputs {
        output::print(&format!("{}\n", output.path.display()))?;
    }
    Ok(Answer::Yes)
}

/// `line 3: `, for a place in the text.
fn line_of(text: &str, span: Option<std::ops::Range<usize>>) -> String {
    let before = span.and_then(|span| text.get(..span.start));
    before.map_or_else(String::new, |before| format!("line {}: ", before.matches('\n').count() + 1))
}

/// Names become files of one folder: they must differ and stay in it.
fn check_names(file: &Path, names: &[(&str, &str)]) -> Result<(), Failure> {
    let refuse = |message: String| Err(Failure::File { path: file.to_owned(), message });
    if names.is_empty() {
        return refuse("lists nothing; allowed: [[figure]], [[run_figure]], [[table]]".to_owned());
    }
    for (index, name) in names.iter().enumerate() {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
        if name.0.is_empty() || !name.0.chars().all(plain) {
            return refuse(format!(
                "name: found `{}`, allowed: letters, digits, hyphens and underscores",
                name.0
            ));
        }
        if names[..index].contains(name) {
            return refuse(format!("two of the {}s are named `{}`", name.1, name.0));
        }
    }
    Ok(())
}

/// A table and what it was made from: of a file, or of what was played.
fn table((beside, played): (&Path, &Played), data: &Path) -> Result<(Table, Facts), Failure> {
    let name = data.display().to_string();
    if let Some(table) = played.table(&name) {
        return table;
    }
    let path = beside.join(data);
    let text = output::read(&path)?;
    let table = Table::from_csv(&text).map_err(|error| Failure::File { path, message: error.to_string() })?;
    Ok((table, facts_of_files(&[(name, digest([text]))])))
}

/// What a figure of files was made from. Tables of a sweep carry scenario and seed in their folder's sweep.jsonl.
fn facts_of_files(files: &[(String, String)]) -> Facts {
    let mut facts = vec![("steptime".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
    facts.extend(files.iter().map(|(file, hash)| (format!("data {file}"), hash.clone())));
    facts
}

fn table_figure(beside: (&Path, &Played), spec: &TableSpec) -> Result<Figure, Failure> {
    if spec.data.is_empty() {
        return Err(Failure::Message("`data`, the file of its table, is missing".to_owned()));
    }
    let (table, facts) = table(beside, Path::new(&spec.data))?;
    Ok(spec.draw(&table)?.with_facts(facts))
}

fn run_figure(beside: &Path, spec: &RunFigure) -> Result<Figure, Failure> {
    let kind: FigureKind = spec.kind.parse()?;
    let width: Width = spec.width.parse()?;
    let [first, rest @ ..] = &spec.results[..] else {
        return Err(Failure::Message(
            "`results` is empty; expected folders that `run --out` wrote".to_owned(),
        ));
    };
    let several = matches!(kind, FigureKind::Breakdown | FigureKind::VariantComparison);
    if !rest.is_empty() && !several {
        return Err(Failure::Message(format!(
            "figures of kind `{kind}` show one of `results`, found {}",
            1 + rest.len()
        )));
    }
    let timeline = || parse::<Timeline>(&beside.join(first).join("timeline.json"));
    let reports = || {
        let folders = spec.results.iter();
        folders
            .map(|folder| parse::<Report>(&beside.join(folder).join("report.json")))
            .collect::<Result<Vec<_>, _>>()
    };
    let figure = match kind {
        FigureKind::PipelineGantt => pipeline_gantt(&timeline()?, width)?,
        FigureKind::MemoryOverTime => {
            let fullest = || Ok::<_, Failure>(reports()?.first().map(|report| report.peak_memory.rank));
            memory_over_time(&timeline()?, spec.rank.map_or_else(fullest, |rank| Ok(Some(rank)))?, width)?
        }
        FigureKind::Breakdown => breakdown(&reports()?, width)?,
        FigureKind::VariantComparison => variant_comparison(&reports()?, width)?,
        FigureKind::Parity => parity(&parse(&beside.join(first))?, width)?,
    };
    let facts = match kind {
        FigureKind::Parity => {
            let text = output::read(&beside.join(first))?;
            facts_of_files(&[(first.display().to_string(), digest([text]))])
        }
        _ => facts_of(&reports()?),
    };
    Ok(Figure { name: spec.name.clone(), ..figure }.with_facts(facts))
}

fn written(beside: (&Path, &Played), folder: &Path, spec: &TextTable) -> Result<Output, Failure> {
    let format: TextFormat = spec.format.parse()?;
    let (table, facts) = table(beside, &spec.data)?;
    let table = table.only(spec.only.iter().map(|(column, text)| (column.as_str(), text.as_str())))?;
    let text = text_table(&table, &spec.columns, format)? + &format.comment(&facts);
    Ok(Output::new(folder.join(format!("{}.{}", spec.name, format.extension())), text))
}
