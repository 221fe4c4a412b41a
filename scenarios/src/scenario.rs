//! A scenario: model, cluster, workload and plan, read from a file and checked.

use steptime_clusters::{Cluster, ClusterEntry, Gpu, VehicleCluster};
use steptime_models::Model;
use steptime_plans::{
    AllocatorSettings, FormulaParameters, Plan, Router, Workload, balanced_stages, partition_layers,
    stage_rates,
};

use crate::batch::{self, Batch, BatchSection};
use crate::benchmark::Benchmark;
use crate::cost::{Cost, Failures};
use crate::draft::Draft;
use crate::error::InputError;
use crate::files::Files;
use crate::idle::Idle;
use crate::input::{self, Input};
use crate::model::ModelSection;
use crate::parallelism::{self, Placement};
use crate::section::{KeyPlace, Section, wrong};
use crate::tree::{Node, Value};
use crate::variability::{self, Variability};
use crate::workload::{self, GpuDefaults};
use crate::{allocator, cluster, jobs, model, pipeline, trainable};

/// A checked scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// The model.
    pub model: Model,
    /// Where and how it runs.
    pub job: Job,
    /// Arithmetic of the batch.
    pub batch: Batch,
    /// Calibration files that are laid over the cluster.
    pub(crate) calibration: Vec<String>,
    /// How samples are loaded, if the scenario says.
    pub input: Option<Input>,
    /// What a measured mean would count beside steps, if the scenario says.
    pub benchmark: Option<Benchmark>,
    /// How steps differ from each other, if the scenario says.
    pub variability: Option<Variability>,
    /// Other jobs on the same switches.
    pub jobs: Vec<Self>,
    /// How the allocator of device memory is set.
    pub allocator: AllocatorSettings,
    /// Prices and powers, if the scenario says.
    pub(crate) cost: Option<Cost>,
    /// What fails, if the scenario says.
    pub(crate) failures: Option<Failures>,
    /// Keys that errors name which show up only when the plan is lowered or played.
    pub(crate) places: Places,
}

/// Keys of a scenario that decide how large a job is.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) cluster: KeyPlace,
    pub(crate) parallelism: KeyPlace,
    pub(crate) offload: KeyPlace,
    pub(crate) precision: KeyPlace,
    pub(crate) micro_batch: KeyPlace,
    pub(crate) accumulation: KeyPlace,
}

/// Where and how a model runs.
#[derive(Clone, Debug)]
pub enum Job {
    /// On GPUs.
    Gpus {
        /// The GPUs and what connects them.
        cluster: Box<Cluster>,
        /// How the job is spread.
        plan: Box<Plan>,
        /// What a step does.
        workload: Workload,
    },
    /// A component model on a path of vehicles.
    Vehicles {
        /// The vehicles.
        cluster: VehicleCluster,
        /// Who places the partitions.
        placement: Placement,
        /// Batch, utilization and overhead of the source's formula.
        formula: FormulaParameters,
        /// Micro-batches of the replay, and whether it runs 1F1B (else GPipe).
        replay: Replay,
    },
}

/// How a path of vehicles is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Micro-batches that the batch is cut into.
    pub micro_batches: u32,
    /// Order of the passes.
    pub schedule: steptime_plans::ScheduleKind,
}

impl Scenario {
    /// The same job with another number of micro-batches.
    pub(crate) fn with_micro_batches(&self, count: u64) -> Self {
        let mut other = self.clone();
        other.batch = self.batch.with_micro_batches(count);
        if let Job::Gpus { workload, .. } = &mut other.job {
            workload.accumulation = count;
        }
        other
    }

    /// Reads a scenario. `file` is how errors name it; `options` are `--set` options in order.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn read(file: &str, text: &str, options: &[String], files: &dyn Files) -> Result<Self, InputError> {
        Draft::read(file, text, options)?.scenario(files)
    }

    /// The scenario of a document.
    pub(crate) fn from_tree(root: &Node, files: &dyn Files) -> Result<Self, InputError> {
        let top = Section::top(root)?;
        let name = read_name(&top)?;
        ask_sections(&top)?;
        top.finish()?;
        let cluster = cluster::read(root, files)?;
        let workload = Section::of(root, "workload", workload::ALIASES)?;
        let parallelism = Section::of(root, "parallelism", parallelism::ALIASES)?;
        let simulation = Section::of(root, "simulation", &[])?;
        let loading = Section::of(root, "input", input::ALIASES)?;
        let benchmark = Section::of(root, "benchmark", &[])?;
        let varied = Section::of(root, "variability", &[])?;
        let measured = KeyPlace { origin: benchmark.origin().clone(), key: "benchmark".to_owned() };
        let benchmark = Benchmark::read(benchmark)?;
        let mut model = model::read(root, files)?;
        model.model = trainable::apply(&workload, model.model)?;
        let name = match name {
            Some(name) => name,
            None => default_name(&model)?,
        };
        let parallelism_place =
            KeyPlace { origin: parallelism.origin().clone(), key: "parallelism".to_owned() };
        let offload = parallelism.key_place("offload");
        let precision = workload.key_place("precision");
        let cluster_place = KeyPlace { origin: cluster.origin.clone(), key: "cluster".to_owned() };
        let (job, batch) = match cluster.entry {
            ClusterEntry::Nodes(nodes) => {
                let all = varied.is_present() && !variability::fold(&varied)?;
                gpu_job(nodes, &model, workload, parallelism, (simulation, all), files)?
            }
            ClusterEntry::Vehicles(vehicles) => {
                let model = &model.model;
                if model.components().is_none() {
                    return Err(InputError::Conflict {
                        origin: cluster.origin,
                        key: "cluster.name".to_owned(),
                        message: format!(
                            "`{}` is made of vehicles, which run component models only; {} is of family {}",
                            vehicles.name, model.name, model.family
                        ),
                    });
                }
                vehicle_job(vehicles, cluster.formula, model, workload, parallelism, simulation)?
            }
        };
        let allocator = Section::of(root, "allocator", &[])?;
        let allocator = match &job {
            Job::Gpus { workload, plan, .. } => {
                allocator::read(allocator, workload.framework, plan.pipeline)?
            }
            Job::Vehicles { .. } => allocator::refuse(&allocator)?,
        };
        let input = read_input(loading, &model.model, &job)?;
        if let (Job::Vehicles { .. }, Some(_)) = (&job, &benchmark) {
            let why = "the formula of vehicle paths has no measured steps; leave this section out";
            return Err(measured.conflict(why));
        }
        let variability = read_variability(varied, &job, (input.is_some(), benchmark.is_some()))?;
        let cost = Section::of(root, "cost", &[])?;
        let failures = Section::of(root, "failures", &[])?;
        let (cost, failures) = read_costs(cost, failures, &job, input.as_ref())?;
        let places = Places {
            cluster: cluster_place,
            parallelism: parallelism_place,
            offload,
            precision,
            micro_batch: batch.micro,
            accumulation: batch.accumulation,
        };
        let jobs = jobs::read(root, files, cluster.blueprint.as_ref())?;
        let scenario = Self {
            name,
            model: model.model,
            job,
            batch: batch.batch,
            calibration: cluster.calibration,
            input,
            benchmark,
            variability,
            jobs,
            allocator,
            cost,
            failures,
            places,
        };
        jobs::check(&scenario)?;
        Ok(scenario)
    }
}

/// How samples are loaded; of vehicle paths nothing is known about it.
fn read_input(loading: Section<'_>, model: &Model, job: &Job) -> Result<Option<Input>, InputError> {
    match job {
        Job::Gpus { workload, .. } => input::read(loading, model, workload),
        Job::Vehicles { .. } if loading.is_present() => {
            let key = KeyPlace { origin: loading.origin().clone(), key: "input".to_owned() };
            Err(key.conflict("the formula of vehicle paths has no data loading; leave this section out"))
        }
        Job::Vehicles { .. } => Ok(None),
    }
}

/// How steps differ; `input` and `benchmark` say whether there are such sections.
fn read_variability(
    varied: Section<'_>,
    job: &Job,
    (input, benchmark): (bool, bool),
) -> Result<Option<Variability>, InputError> {
    let variability = match job {
        Job::Gpus { cluster, plan, workload } => {
            let routes = workload.router != Router::Uniform && plan.expert > 1;
            let nodes = u64::from(cluster.nodes);
            variability::read(varied, variability::Size { gpus: plan.ranks(), nodes, routes })?
        }
        Job::Vehicles { .. } if varied.is_present() => {
            let key = KeyPlace { origin: varied.origin().clone(), key: "variability".to_owned() };
            return Err(key.conflict("the formula of vehicle paths knows no chance; leave this section out"));
        }
        Job::Vehicles { .. } => None,
    };
    for (other, present) in [("input", input), ("benchmark", benchmark)] {
        if let (Some(variability), true) = (&variability, present) {
            let message = format!("is not modelled together with [{other}]; leave one of the sections out");
            return Err(variability.place.conflict(message));
        }
    }
    Ok(variability)
}

/// Asks for every section that a scenario can have, and refuses those that other commands are for.
fn ask_sections(top: &Section<'_>) -> Result<(), InputError> {
    let sections = [
        "model",
        "cluster",
        "workload",
        "parallelism",
        "allocator",
        "input",
        "benchmark",
        "simulation",
        "variability",
        "jobs",
        "cost",
        "failures",
    ];
    for section in sections {
        top.node(section)?;
    }
    for (section, why) in [
        (
            "sweep",
            "this scenario has many points, which `steptime sweep` plays; leave the section out to play one",
        ),
        ("search", "is for `steptime search`, which chooses the plan; leave the section out"),
        ("claim", "is for `steptime check`, which holds it against the prediction; leave the section out"),
    ] {
        if top.node(section)?.is_some() {
            return Err(top.conflict(section, why));
        }
    }
    Ok(())
}

/// Prices, powers and failures; not for vehicles.
fn read_costs(
    cost: Section<'_>,
    failures: Section<'_>,
    job: &Job,
    input: Option<&Input>,
) -> Result<(Option<Cost>, Option<Failures>), InputError> {
    if let Job::Vehicles { .. } = job {
        for (section, name) in [(&cost, "cost"), (&failures, "failures")] {
            if section.is_present() {
                let key = KeyPlace { origin: section.origin().clone(), key: name.to_owned() };
                let why =
                    "paths of vehicles are rented from nobody and run one batch; leave this section out";
                return Err(key.conflict(why));
            }
        }
    }
    Ok((Cost::read(cost, input.and_then(|input| input.samples))?, Failures::read(failures)?))
}

/// The scenario's name, if it has one. It stands in tables, file names and figures.
fn read_name(top: &Section<'_>) -> Result<Option<String>, InputError> {
    let Some((name, origin)) = top.text("name")? else { return Ok(None) };
    if name.trim().is_empty() || name.chars().any(char::is_control) {
        let allowed = "text that is not empty and has no control characters (line breaks, tabs, escapes)";
        return Err(wrong(&origin, "name", &Value::Text(name), allowed));
    }
    Ok(Some(name))
}

/// The model's name, which has to be fit for a scenario's.
fn default_name(section: &ModelSection) -> Result<String, InputError> {
    let name = &section.model.name;
    if name.chars().any(char::is_control) {
        let found = Value::Text(name.clone()).describe();
        let message =
            format!("the model is named {found}, with control characters; give the scenario a name");
        return Err(section.named.conflict(message));
    }
    Ok(name.clone())
}

fn gpu_job(
    cluster: Cluster,
    section: &ModelSection,
    workload: Section<'_>,
    parallelism: Section<'_>,
    (simulation, all): (Section<'_>, bool),
    files: &dyn Files,
) -> Result<(Job, BatchSection), InputError> {
    let model = &section.model;
    let gpus = u64::from(cluster.nodes) * u64::from(cluster.gpus_per_node);
    let explicit = simulation.flag("explicit")?.unwrap_or(false) || all;
    simulation.finish()?;
    let keys = pipeline::read(&parallelism, model, files)?;
    let balanced = keys.balanced;
    let mut plan = parallelism::read_plan(&parallelism, (&cluster, gpus), keys, explicit)?;
    if let Err(error) = partition_layers(model, plan.layer_stages() as usize, plan.stages.as_deref()) {
        let key = if plan.stages.is_some() { "stages" } else { "pipeline" };
        return Err(parallelism.conflict(key, error.to_string()));
    }
    let task = workload::read_task(&workload)?;
    Idle { model, task, plan: &plan, workload: &workload, parallelism: &parallelism }.refuse()?;
    let batch = batch::read(&workload, plan.data)?;
    let defaults = GpuDefaults { section, cluster: &cluster, files };
    let workload_values = workload::read(&workload, &defaults, &batch.batch)?;
    if balanced && cluster.is_mixed() && plan.stages.is_some() {
        let rates = stage_rates(&cluster, &plan, workload_values.precision);
        let rates = rates.map_err(|error| parallelism.conflict("stages", error.to_string()))?;
        plan.stages = Some(balanced_stages(model, &rates));
    }
    let cluster = cluster.with_gpus(Gpu::sustained);
    parallelism::check_exchange(&parallelism, plan.exchange, &workload_values)?;
    parallelism::check_stage(&workload, &workload_values, plan.zero)?;
    parallelism.finish()?;
    workload.finish()?;
    Ok((Job::Gpus { cluster: Box::new(cluster), plan: Box::new(plan), workload: workload_values }, batch))
}

fn vehicle_job(
    cluster: VehicleCluster,
    formula: cluster::FormulaKeys,
    model: &Model,
    workload: Section<'_>,
    parallelism: Section<'_>,
    simulation: Section<'_>,
) -> Result<(Job, BatchSection), InputError> {
    simulation.finish()?;
    let batch = batch::read(&workload, 1)?;
    if batch.batch.last.is_some() {
        return Err(
            workload.conflict("last_micro_batch", "vehicles replay equal micro-batches, allowed: \"full\"")
        );
    }
    let too_large = |_| workload.conflict("micro_batch_size", "more samples a step than the formula counts");
    let global = u32::try_from(batch.batch.global).map_err(too_large)?;
    let micro_batches = u32::try_from(batch.batch.accumulation).map_err(too_large)?;
    workload::read_vehicles(&workload)?;
    let placement = parallelism::read_placement(&parallelism, &cluster, model)?;
    let schedule = pipeline::read_whole_schedule(&parallelism)?;
    parallelism.finish()?;
    workload.finish()?;
    let formula = FormulaParameters {
        batch: global,
        utilization: formula.utilization,
        overhead: formula.memory_overhead,
    };
    let replay = Replay { micro_batches, schedule };
    Ok((Job::Vehicles { cluster, placement, formula, replay }, batch))
}
