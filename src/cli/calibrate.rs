//! Arguments of `steptime calibrate`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct CalibrateArguments {
    #[command(subcommand)]
    pub(crate) what: Calibrate,
}

/// What is fitted.
#[derive(Debug, Subcommand)]
pub(crate) enum Calibrate {
    /// Kernel prices of a GPU, from tables of measured kernels
    Gpu(CalibrateGpu),
    /// Collectives inside a node and between nodes, from tables or from the output of nccl-tests
    Fabric(CalibrateFabric),
    /// The cost of issuing an operation, from a profiler's trace or from measured steps
    Host(CalibrateHost),
    /// A GPU's convolutions and shares of the bandwidth, from measured steps
    Steps(CalibrateSteps),
    /// All that the catalogue ships, written into its folder
    Catalogue(CalibrateCatalogue),
    /// The catalogue's prices against measured operations of models, forward and backward; nothing is fitted
    Operations(CalibrateOperations),
}

#[derive(Debug, Args)]
pub(crate) struct CalibrateGpu {
    /// GPU of the catalogue, or a file in its form (TOML)
    #[arg(long, value_name = "NAME")]
    pub(crate) gpu: String,
    /// Tables of measured kernels (CSV), or system files with shares of the peak (JSON); repeatable
    #[arg(long, required = true, value_name = "FILE")]
    pub(crate) data: Vec<PathBuf>,
    /// Show what the prediction would be with the coefficients of this GPU, instead of its own, before the fit
    #[arg(long, value_name = "NAME")]
    pub(crate) like: Option<String>,
    #[command(flatten)]
    pub(crate) to: CalibrateOutput,
}

#[derive(Debug, Args)]
pub(crate) struct CalibrateSteps {
    /// GPU of the catalogue
    #[arg(long, value_name = "NAME")]
    pub(crate) gpu: String,
    /// Other GPUs whose steps say the same, with their own clocks, bandwidths and other coefficients; repeatable
    #[arg(long, value_name = "NAME")]
    pub(crate) relative: Vec<String>,
    /// Tables of measured steps (CSV), as `validate` takes them; repeatable
    #[arg(long, required = true, value_name = "FILE")]
    pub(crate) data: Vec<PathBuf>,
    /// What to fit, separated by commas: `convolution`, or kinds of memory-bound kernels
    #[arg(long, value_name = "TABLES", value_delimiter = ',', default_value = "convolution,batch_norm")]
    pub(crate) fit: Vec<String>,
    #[command(flatten)]
    pub(crate) to: CalibrateOutput,
}

#[derive(Debug, Args)]
pub(crate) struct CalibrateFabric {
    /// Cluster whose nodes were measured: of the catalogue, or a file in its form (TOML)
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: String,
    /// Tables of measured collectives, or of their spread over jobs (CSV); repeatable
    #[arg(long, required_unless_present = "nccl_tests", value_name = "FILE")]
    pub(crate) data: Vec<PathBuf>,
    /// Output of all_reduce_perf and its like; repeatable
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub(crate) nccl_tests: Vec<PathBuf>,
    /// What the output of nccl-tests is of, where neither it nor the file's name says so: e.g. `all_gather`
    #[arg(long, value_name = "NAME", requires = "nccl_tests")]
    pub(crate) operation: Option<String>,
    /// Rows of a table to take, by its column `topology`
    #[arg(long, value_name = "WORD", requires = "data")]
    pub(crate) topology: Option<String>,
    #[command(flatten)]
    pub(crate) to: CalibrateOutput,
}

#[derive(Debug, Args)]
pub(crate) struct CalibrateHost {
    /// Trace of the PyTorch profiler (JSON, also compressed by gzip)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["step", "steps", "rows"])]
    pub(crate) trace: Option<PathBuf>,
    /// How the traced program was executed
    #[arg(long, value_enum, default_value_t = TracedExecution::Eager, requires = "trace")]
    pub(crate) execution: TracedExecution,
    /// A scenario and the seconds that its step was measured to take; repeatable
    #[arg(long, value_name = "SCENARIO=SECONDS")]
    pub(crate) step: Vec<String>,
    /// A table of them (CSV) with the columns `scenario` and `step_time_s`
    #[arg(long, value_name = "FILE")]
    pub(crate) steps: Option<PathBuf>,
    /// Tables of measured steps as `validate` reads them (CSV): what a framework's Python costs beside launches; repeatable
    #[arg(long, value_name = "FILE", conflicts_with_all = ["step", "steps"])]
    pub(crate) rows: Vec<PathBuf>,
    /// Of the hosts of the rows, the one that the calibration file is of
    #[arg(long, value_name = "NAME", requires = "rows")]
    pub(crate) host: Option<String>,
    /// Write the hosts of the catalogue in this folder instead of a calibration file
    #[arg(long, value_name = "DIR", requires = "rows", conflicts_with_all = ["host", "out"])]
    pub(crate) catalogue: Option<PathBuf>,
    /// Write nothing; exit with 1 if a file of the catalogue would change
    #[arg(long, requires = "catalogue")]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) to: CalibrateOutput,
}

/// How a traced program was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TracedExecution {
    /// Operation by operation from Python
    Eager,
    /// By torch.compile
    Compiled,
}

#[derive(Debug, Args)]
pub(crate) struct CalibrateCatalogue {
    /// Folder with gemm.csv, attention.csv, memory_bound.csv, collectives.csv, collectives_multinode.csv, and system files (JSON)
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Folder of the catalogue, whose files are written
    #[arg(long, value_name = "DIR", default_value = "clusters/catalog")]
    pub(crate) catalogue: PathBuf,
    /// Write nothing; exit with 1 if a file would change
    #[arg(long)]
    pub(crate) check: bool,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CalibrateOperations {
    /// Tables of measured operations (CSV); repeatable
    #[arg(long, required = true, value_name = "FILE")]
    pub(crate) data: Vec<PathBuf>,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where a calibration file goes.
#[derive(Debug, Args)]
pub(crate) struct CalibrateOutput {
    /// Write the calibration file here instead of printing it
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}
