//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use steptime_plots::Format;

/// Predicts the step time and peak memory of a deep-learning training run, before anyone pays for it.
///
/// Exit codes: 0 done (and fits), 1 ran but the verdict is no (out of memory), 2 the input is wrong.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Predict scenarios: step time, where it goes, and peak memory
    Run(RunArguments),
    /// List the models of the catalogue, or show one
    Models(CatalogueArguments),
    /// List the clusters and GPUs of the catalogue, or show one
    Clusters(CatalogueArguments),
    /// Draw figures from saved results
    Plot(PlotArguments),
    /// Print a completion script for a shell
    Completions(CompletionsArguments),
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Scenario files (TOML); `-` reads standard input. Several are compared.
    #[arg(required = true, value_name = "SCENARIO")]
    pub(crate) scenarios: Vec<PathBuf>,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// Write report.json, report.csv, timeline.json and figures into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Change a value of the scenario, e.g. `workload.micro_batch_size=8`; repeatable
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Formats of the figures that `--out` writes: svg, png, pdf, separated by commas
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', default_value = "svg", requires = "out")]
    pub(crate) figures: Vec<Format>,
    /// Print the verdict only
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CatalogueArguments {
    /// Name of an entry; all entries are listed without it
    pub(crate) name: Option<String>,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PlotArguments {
    /// Folders that `run --out` wrote; several are compared
    #[arg(required = true, value_name = "RESULTS")]
    pub(crate) results: Vec<PathBuf>,
    /// Folder for the figures; by default `figures` in the first results folder
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Formats of the figures: svg, png, pdf, separated by commas
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', default_value = "svg")]
    pub(crate) figures: Vec<Format>,
    /// Width: `one-column` (3.33 in) or `two-column` (7 in)
    #[arg(long, default_value = "two-column")]
    pub(crate) width: steptime_plots::Width,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// Shell to complete for
    pub(crate) shell: Shell,
}
