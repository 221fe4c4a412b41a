//! Scenarios of steptime: the file a user writes, its checks, running it, and the result.
//!
//! A scenario names a model, a cluster and a plan ([`Scenario::read`]); [`run`] lowers and plays it and
//! returns a [`Report`] and, on request, a [`Timeline`].

mod allocator;
mod batch;
mod benchmark;
mod calibrate_framework;
mod calibrate_host;
mod check;
mod checkpointing;
mod cluster;
mod cost;
mod diff;
mod draft;
mod error;
mod estimate;
mod fetch;
mod files;
mod groups;
mod host_memory;
mod idle;
pub mod import;
mod input;
mod interval;
mod jobs;
mod lines;
mod loading;
mod max_batch;
mod memory;
mod memory_snapshot;
mod mix;
mod mixed;
mod model;
mod offload;
mod operations;
mod origin;
mod parallelism;
mod pipeline;
mod refusal;
mod remedy;
mod report;
mod report_csv;
mod run;
mod scenario;
mod schedule_study;
mod search;
mod section;
mod sensitivity;
mod sharding;
mod shared;
mod sweep;
mod timeline;
mod topology;
mod trainable;
mod tree;
mod validate;
mod variability;
mod vehicles;
mod workload;

pub use batch::Batch;
pub use benchmark::Benchmark;
pub use calibrate_framework::{FrameworkHost, FrameworkHosts, StepErrors, calibrate_framework};
pub use calibrate_host::{HostFitError, MeasuredStep, StepFit, StepsFit, calibrate_host};
pub use check::{
    CHECK_SCHEMA, CheckReport, Claim, Compared, NamedPath, PlanVerdict, Repair, StageList, Violation,
    check_path, check_scenario, planners, stage_list, swift_results,
};
pub use cost::{
    CostReport, Finish, GOODPUT_SCHEMA, GoodputReport, Share, ToFinish, daly_interval, expected_goodput,
    goodput, young_interval,
};
pub use diff::{DIFF_SCHEMA, Difference, Pair, difference};
pub use draft::Draft;
pub use error::InputError;
pub use estimate::estimate;
pub use files::{Files, NoFiles};
pub use input::Input;
pub use interval::{Group, Intervals};
pub use max_batch::{LARGEST_MICRO_BATCH, MAX_BATCH_SCHEMA, MaxBatch, max_batch};
pub use memory_snapshot::{memory_csv, memory_snapshot};
pub use operations::operations_csv;
pub use origin::Origin;
pub use parallelism::Placement;
pub use remedy::{Remedy, remedies};
pub use report::{
    FailedRequest, HostMemory, Infeasible, InputReport, LevelPoint, MemoryPoint, OutOfMemory, Parameters,
    PeakMemory, Provenance, REPORT_SCHEMA, Report, Spread, Stage, TIMELINE_SCHEMA, TimeBreakdown, Timeline,
    TimelineRank, TimelineSpan, VariabilityReport, VehiclePath, Verdict,
};
pub use report_csv::report_csv;
pub use run::{RunResult, run};
pub use scenario::{Job, Replay, Scenario};
pub use schedule_study::{
    SCHEDULE_SCHEMA, ScheduleReport, ScheduleRequest, ScheduleStage, ScheduleTimes, schedule_study,
    written_schedule_study,
};
pub use search::{FoundPlan, SEARCH_SCHEMA, SearchCounts, SearchReport, search};
pub use sensitivity::{Effect, SENSITIVITY_SCHEMA, Sensitivity, sensitivity};
pub use sweep::{
    Journal, JournalError, Left, PartError, PointVerdict, SWEEP_SCHEMA, Shard, Sweep, SweepHeader, SweepPart,
    SweepRow, digest, merge_parts, part_name, read_part, sweep_csv, sweep_line,
};
pub use timeline::{Place, Recording};
pub use tree::{Node, Value};
pub use validate::{
    Baseline, Change, ChoiceScore, ErrorScore, OutcomeScore, Predictions, PublishedFact, RowScenario,
    SingleGpuSteps, SuiteScore, VALIDATION_SCHEMA, ValidatedRow, Validation, published, scenarios_of,
    score_rows, validation_csv,
};
pub use variability::Variability;
