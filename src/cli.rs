//! The command line.

mod calibrate;
mod clusters;
#[cfg(feature = "serve")]
mod serve;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use steptime_plots::Format;

pub(crate) use calibrate::{
    Calibrate, CalibrateArguments, CalibrateCatalogue, CalibrateFabric, CalibrateGpu, CalibrateHost,
    CalibrateOperations, CalibrateOutput, CalibrateSteps, TracedExecution,
};
pub(crate) use clusters::ClustersArguments;
#[cfg(feature = "serve")]
pub(crate) use serve::ServeArguments;

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
    /// Predict every point of a scenario's `[sweep]`
    Sweep(SweepArguments),
    /// Put the parts of a sweep that ran in shards together
    Merge(MergeArguments),
    /// Find the best plan of a scenario
    Search(SearchArguments),
    /// Judge somebody's plan: legal, complete, fits, and what its author claims
    Check(CheckArguments),
    /// What faster and slower hardware would do to the step
    Sensitivity(SensitivityArguments),
    /// Compare the predictions of two scenarios part by part
    Diff(DiffArguments),
    /// Play a long run of a scenario with the failures of its `[failures]`: goodput, time and cost to the end
    Goodput(GoodputArguments),
    /// List the models of the catalogue, or show one
    Models(ModelsArguments),
    /// List the clusters and GPUs of the catalogue, or show one
    Clusters(ClustersArguments),
    /// Find the largest micro-batch of a scenario that fits
    MaxBatch(MaxBatchArguments),
    /// Score predictions against measured training steps
    Validate(ValidateArguments),
    /// Fit a GPU, a fabric or a host to measurements
    Calibrate(CalibrateArguments),
    /// Open a page on this machine that predicts as its controls are moved
    #[cfg(feature = "serve")]
    Serve(ServeArguments),
    /// Draw figures from saved results
    Plot(PlotArguments),
    /// Turn descriptions of other tools into model, cluster and scenario files
    Import(ImportArguments),
    /// Play execution traces of MLCommons Chakra on a cluster
    Replay(ReplayArguments),
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
    /// Write report.html, report.json, report.csv, timeline.json, a trace and figures into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Traces that `--out` writes, separated by commas; chakra needs `simulation.explicit = true`
    #[arg(
        long,
        value_name = "FORMATS",
        value_delimiter = ',',
        value_enum,
        default_value = "auto",
        requires = "out"
    )]
    pub(crate) trace: Vec<TraceFormat>,
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

/// Forms of traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TraceFormat {
    /// Chrome's JSON, or Perfetto's protobuf where that would be large
    Auto,
    /// trace.json, for ui.perfetto.dev and chrome://tracing
    Chrome,
    /// trace.perfetto-trace, for ui.perfetto.dev
    Perfetto,
    /// A folder `chakra` with an execution trace of each rank
    Chakra,
    /// None
    None,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArguments {
    /// Execution traces of MLCommons Chakra (`.et`), one file a rank, or a folder with them
    #[arg(required = true, value_name = "TRACE")]
    pub(crate) traces: Vec<PathBuf>,
    /// Cluster on which they are played: of the catalogue, or a file in its form (TOML)
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: String,
    /// Nodes of the cluster; by default as many as the ranks need
    #[arg(long, value_name = "NODES", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub(crate) nodes: Option<u32>,
    /// GPUs that the ranks take of each node; by default all
    #[arg(long, value_name = "GPUS", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) gpus_per_node: Option<u32>,
    /// Ranks of process groups, as ASTRA-sim takes them (JSON); by default what traces and `comm_groups.json` beside them say
    #[arg(long, value_name = "FILE")]
    pub(crate) groups: Option<PathBuf>,
    /// What computations on the GPU take is multiplied by this
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub(crate) compute_scale: f64,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// Write replay.json and a trace into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SweepArguments {
    /// Scenario file (TOML) with a section `[sweep]`; `-` reads standard input
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenario: PathBuf,
    /// Write sweep.csv and sweep.jsonl into this folder, and keep a journal there while the sweep runs: started
    /// again, it goes on where it was
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Play one of several shares of the points: `2/8`, or `auto` for the task of a Slurm array
    #[arg(long, value_name = "I/N", requires = "out")]
    pub(crate) shard: Option<String>,
    /// Write a page for browsers: all points as a table that can be sorted and filtered, and as dots between two axes
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Threads; by default one for each core
    #[arg(long, value_name = "THREADS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) jobs: Option<u16>,
    /// Give up what the folder holds of an earlier sweep
    #[arg(long, requires = "out")]
    pub(crate) restart: bool,
    /// Write sweep.parquet too, the same rows in typed columns
    #[cfg(feature = "parquet")]
    #[arg(long, requires = "out", conflicts_with = "shard")]
    pub(crate) parquet: bool,
    /// Change a value of the scenario, e.g. `workload.precision=bf16`; repeatable
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// Print nothing but errors where the results go into a folder
    #[arg(long, short, requires = "out")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SearchArguments {
    /// Scenario file (TOML), with what is wanted in `[search]`; `-` reads standard input
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenario: PathBuf,
    /// Most plans that are played
    #[arg(long, value_name = "COUNT", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) plays: u64,
    /// Write a page for browsers: the plans as a table that can be sorted and filtered, and as dots between two axes
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Threads; by default one for each core
    #[arg(long, value_name = "THREADS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) jobs: Option<u16>,
    /// Change a value of the scenario, e.g. `cluster.nodes=8`; repeatable
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the answer only
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SensitivityArguments {
    /// Scenario file (TOML); `-` reads standard input
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenario: PathBuf,
    /// How much better and worse
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
    pub(crate) percent: f64,
    /// Change a value of the scenario, e.g. `workload.precision=bf16`; repeatable
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArguments {
    /// Scenario file (TOML)
    #[arg(value_name = "FIRST")]
    pub(crate) first: PathBuf,
    /// Scenario file (TOML); may be the same
    #[arg(value_name = "SECOND")]
    pub(crate) second: PathBuf,
    /// Change a value of both scenarios, e.g. `workload.precision=bf16`; repeatable
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Change a value of the second one; repeatable
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub(crate) set_second: Vec<String>,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a plan is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanKind {
    /// A scenario (TOML), with what is claimed in `[claim]`
    Scenario,
    /// ds_config.json of DeepSpeed
    Deepspeed,
    /// A launch script or YAML file of Megatron-LM
    Megatron,
    /// A job file of torchtitan
    Torchtitan,
    /// swift_results.json, pipelines_*.csv, or a path with its assignment (JSON)
    Swift,
    /// Stages as Alpa's ManualStageOption lists them (JSON)
    Stages,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// The plan; `-` reads standard input
    #[arg(value_name = "PLAN")]
    pub(crate) plan: PathBuf,
    /// What it is written in; by default what its name and keys say
    #[arg(long, value_enum)]
    pub(crate) kind: Option<PlanKind>,
    /// Model of the catalogue, where the plan names none; for plans of vehicles also a file (TOML or the planner's XML)
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Cluster of the catalogue, where the plan names none; for plans of vehicles also a file
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    /// Seconds a step that its author claims
    #[arg(long, value_name = "SECONDS")]
    pub(crate) claim_time: Option<f64>,
    /// Peak memory of the fullest GPU that its author claims, e.g. `70GiB`
    #[arg(long, value_name = "BYTES")]
    pub(crate) claim_memory: Option<String>,
    /// Plans of GPUs that a search for a better one may play; 0: no search
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(crate) plays: u64,
    /// Change a value of the scenario that the plan becomes, e.g. `workload.micro_batch_size=8`; repeatable
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the verdict only
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GoodputArguments {
    /// Scenario file (TOML) with a section `[failures]`; `-` reads standard input
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenario: PathBuf,
    /// Change a value of the scenario, e.g. `failures.spare_nodes=4`; repeatable
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MergeArguments {
    /// Parts that `sweep --shard` wrote, or folders with them
    #[arg(required = true, value_name = "PART")]
    pub(crate) parts: Vec<PathBuf>,
    /// Write sweep.csv and sweep.jsonl into this folder; without it, the CSV is printed
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Write a page for browsers, as `sweep --report` does
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Write sweep.parquet too, the same rows in typed columns
    #[cfg(feature = "parquet")]
    #[arg(long, requires = "out")]
    pub(crate) parquet: bool,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ModelsArguments {
    /// Name of an entry, or a model file (TOML); all entries are listed without it
    pub(crate) name: Option<String>,
    /// Samples of the micro-batch that the layers' work is shown for
    #[arg(long, value_name = "SAMPLES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) micro_batch_size: u32,
    /// Tokens a sequence, where the model takes sequences; by default its own length
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub(crate) sequence_length: Option<u32>,
    /// Number format: `fp32`, `fp16` or `bf16`
    #[arg(long, value_enum, default_value_t = Precision::Bf16)]
    pub(crate) precision: Precision,
    /// How attention is computed
    #[arg(long, value_enum, default_value_t = Attention::Flash)]
    pub(crate) attention: Attention,
    /// Which chains of memory-bound operations are one kernel
    #[arg(long, value_enum, default_value_t = FusedKernels::None)]
    pub(crate) fused_kernels: FusedKernels,
    /// Ranks that share each layer
    #[arg(long, value_name = "RANKS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) tensor: u32,
    /// Divide what lies between the shared layers along the sequence
    #[arg(long)]
    pub(crate) sequence_parallel: bool,
    /// Change a field of the architecture, e.g. `layers=12`; repeatable
    #[arg(long = "set", value_name = "FIELD=VALUE", requires = "name")]
    pub(crate) set: Vec<String>,
    /// Show the operations and saved tensors of a layer, by its name
    #[arg(long, value_name = "LAYER", requires = "name")]
    pub(crate) layer: Option<String>,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

/// Number formats of activations.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Precision {
    /// 32-bit floats
    Fp32,
    /// 16-bit IEEE floats
    Fp16,
    /// bfloat16
    Bf16,
}

/// Chains of memory-bound operations that are one kernel.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FusedKernels {
    /// None: eager execution
    None,
    /// Every chain, as `torch.compile` makes them
    Compiled,
    /// Those of Transformer Engine and Megatron-LM
    TransformerEngine,
}

/// Ways to compute attention.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Attention {
    /// One fused kernel
    Flash,
    /// Every product and softmax a kernel of its own
    Eager,
}

#[derive(Debug, Args)]
pub(crate) struct ValidateArguments {
    /// Tables of measured runs (CSV), one row a run; repeatable. Without it, published facts that come along
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Vec<PathBuf>,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// How many of the worst rows to show, with where their predicted steps go
    #[arg(long, value_name = "ROWS", default_value_t = 20)]
    pub(crate) worst: usize,
    /// Print the scenario of one row instead
    #[arg(
        long,
        value_name = "RUN_ID",
        conflicts_with_all = ["json", "out", "baseline", "write_baseline", "write_intervals", "fidelity"]
    )]
    pub(crate) scenario: Option<String>,
    /// Write validation.json, validation.csv and the parity figure into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Formats of the figure that `--out` writes: svg, png, pdf, separated by commas
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', default_value = "svg", requires = "out")]
    pub(crate) figures: Vec<Format>,
    /// Compare with scores that `--write-baseline` kept; exit code 1 if a median grew by more than half a point or
    /// more rows are skipped
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,
    /// Keep the scores for later comparison (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) write_baseline: Option<PathBuf>,
    /// Fit the 80 % intervals to these rows and write their tables (TOML)
    #[arg(long, value_name = "FILE", requires = "data")]
    pub(crate) write_intervals: Option<PathBuf>,
    /// Write the page about accuracy (Markdown), with its figure beside it in `figures`
    #[arg(long, value_name = "FILE", requires = "data")]
    pub(crate) fidelity: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct MaxBatchArguments {
    /// Scenario file (TOML); `-` reads standard input
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenario: PathBuf,
    /// Try multiples of this many samples only
    #[arg(long, value_name = "SAMPLES", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub(crate) granularity: u64,
    /// Change a value of the scenario, e.g. `workload.precision="bf16"`; repeatable
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the answer only
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct PlotArguments {
    #[command(subcommand)]
    pub(crate) what: Option<PlotCommand>,
    /// Folders that `run --out` wrote; several are compared
    #[arg(required = true, value_name = "RESULTS")]
    pub(crate) results: Vec<PathBuf>,
    /// Folder for the figures; by default `figures` in the first results folder
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) style: FigureStyle,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PlotCommand {
    /// Draw a pipeline schedule by itself: equal stages, passes of given times
    Schedule(ScheduleArguments),
    /// Draw the whole set of figures and tables that a manifest lists
    Manifest(ManifestArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ManifestArguments {
    /// Manifest (TOML), see docs/figures.md; its files are named relative to it
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Folder for the figures; by default `figures` beside the manifest
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Formats of the figures: svg, png, pdf, separated by commas
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', default_value = "svg")]
    pub(crate) figures: Vec<Format>,
}

#[derive(Debug, Args)]
pub(crate) struct ScheduleArguments {
    /// A name of `[parallelism] schedule`, or a file with a schedule written as in docs/scenario.md
    #[arg(value_name = "NAME")]
    pub(crate) schedule: String,
    /// Pipeline stages; 4 by default
    #[arg(long, value_name = "STAGES", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) pipeline: Option<u32>,
    /// Chunks of layers on each stage; by default what the schedule is made for
    #[arg(long, value_name = "CHUNKS", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) virtual_pipeline: Option<u32>,
    /// Micro-batches; by default two for each stage
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) micro_batches: Option<u32>,
    /// Milliseconds of a stage's forward of one micro-batch, all its chunks together
    #[arg(long, value_name = "MS", default_value_t = 10.0)]
    pub(crate) forward: f64,
    /// Milliseconds of its gradients of inputs
    #[arg(long, value_name = "MS", default_value_t = 10.0)]
    pub(crate) backward_input: f64,
    /// Milliseconds of its gradients of weights
    #[arg(long, value_name = "MS", default_value_t = 10.0)]
    pub(crate) backward_weight: f64,
    /// Milliseconds from the end of a pass to when the neighbour has its result
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    pub(crate) transfer: f64,
    /// Milliseconds that a forward and a backward of one chunk each take together where the schedule puts them next to each
    /// other to be one (`dualpipe`, `dualpipe-v`); by default they run one after the other
    #[arg(long, value_name = "MS")]
    pub(crate) pair: Option<f64>,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// Folder for the figure; without it none is drawn
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) style: FigureStyle,
}

/// How figures are drawn.
#[derive(Debug, Args)]
pub(crate) struct FigureStyle {
    /// Formats of the figures: svg, png, pdf, separated by commas
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', default_value = "svg")]
    pub(crate) figures: Vec<Format>,
    /// Width: `one-column` (3.33 in) or `two-column` (7 in)
    #[arg(long, default_value = "two-column")]
    pub(crate) width: steptime_plots::Width,
}

/// What wrote the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportKind {
    /// config.json of the transformers library
    Hf,
    /// A .safetensors file or model.safetensors.index.json; only headers are read
    Safetensors,
    /// XML of the SWIFT planner: a model, a cluster, or one of each
    Swift,
    /// ds_config.json of DeepSpeed
    Deepspeed,
    /// A launch script or YAML file of Megatron-LM
    Megatron,
    /// A job file of torchtitan
    Torchtitan,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// What wrote the input
    pub(crate) kind: ImportKind,
    /// The input; `-` reads standard input. Two files for a model and a cluster of `swift`
    #[arg(required = true, num_args = 1..=2, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// config.json of a safetensors checkpoint; by default the one beside it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Model of the catalogue for the scenario, where the input names none
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Cluster of the catalogue for the scenario
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    /// Write into this file, or this folder if there are several files, instead of printing
    #[arg(long, value_name = "PATH")]
    pub(crate) out: Option<PathBuf>,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// Shell to complete for
    pub(crate) shell: Shell,
}
