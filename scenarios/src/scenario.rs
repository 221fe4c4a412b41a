//! A scenario: model, cluster, workload and plan, read from a file and checked.

use steptime_clusters::{Cluster, ClusterEntry, VehicleCluster};
use steptime_models::Model;
use steptime_plans::{FormulaParameters, Plan, Workload, partition_layers};

use crate::batch::{self, Batch};
use crate::error::InputError;
use crate::model::ModelSection;
use crate::parallelism::{self, Placement};
use crate::section::Section;
use crate::tree::{self, Node, Origin};
use crate::workload::{self, GpuDefaults};
use crate::{cluster, model};

/// A checked scenario.
#[derive(Debug)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// The model.
    pub model: Model,
    /// Where and how it runs.
    pub job: Job,
    /// Arithmetic of the batch.
    pub batch: Batch,
    /// Where sections begin, for errors that show up only when the plan is lowered.
    pub(crate) parallelism_origin: Origin,
    pub(crate) workload_origin: Origin,
}

/// Where and how a model runs.
#[derive(Debug)]
pub enum Job {
    /// On GPUs.
    Gpus {
        /// The GPUs and what connects them.
        cluster: Box<Cluster>,
        /// How the job is spread.
        plan: Plan,
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

/// What a scenario may refer to besides itself.
pub trait Files {
    /// The text of a file that a scenario names, relative to the scenario's own place.
    ///
    /// # Errors
    /// What the system says when the file cannot be read.
    fn read(&self, name: &str) -> Result<String, String>;
}

impl Scenario {
    /// Reads a scenario. `file` is how errors name it; `options` are `--set` options in order.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn read(file: &str, text: &str, options: &[String], files: &dyn Files) -> Result<Self, InputError> {
        let mut root = tree::parse(file, text)?;
        for option in options {
            tree::set(&mut root, option)?;
        }
        Self::from_tree(&root, files)
    }

    fn from_tree(root: &Node, files: &dyn Files) -> Result<Self, InputError> {
        let top = Section::top(root)?;
        let name = top.text("name")?;
        for section in ["model", "cluster", "workload", "parallelism", "simulation"] {
            top.node(section)?;
        }
        for (section, what) in [
            ("input", "modelling of data loading"),
            ("variability", "modelling of jitter and stragglers"),
            ("sweep", "sweeping over points"),
        ] {
            if top.node(section)?.is_some() {
                return Err(top.conflict(section, format!("{what} is not supported by this version")));
            }
        }
        top.finish()?;
        let cluster = cluster::read(root, files)?;
        let workload = Section::of(root, "workload", workload::ALIASES)?;
        let parallelism = Section::of(root, "parallelism", parallelism::ALIASES)?;
        let simulation = Section::of(root, "simulation", &[])?;
        let ModelSection { model, sequence_length, sequence_origin } = model::read(root, files)?;
        let name = name.map_or_else(|| model.name.clone(), |(name, _)| name);
        let parallelism_origin = parallelism.origin().clone();
        let workload_origin = workload.origin().clone();
        let (job, batch) = match cluster.entry {
            ClusterEntry::Nodes(nodes) => {
                gpu_job(nodes, (&model, sequence_length, sequence_origin), workload, parallelism, simulation)?
            }
            ClusterEntry::Vehicles(vehicles) => {
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
                vehicle_job(vehicles, cluster.formula, &model, workload, parallelism, simulation)?
            }
        };
        Ok(Self { name, model, job, batch, parallelism_origin, workload_origin })
    }
}

fn gpu_job(
    cluster: Cluster,
    (model, sequence_length, sequence_origin): (&Model, Option<u64>, Origin),
    workload: Section<'_>,
    parallelism: Section<'_>,
    simulation: Section<'_>,
) -> Result<(Job, Batch), InputError> {
    let gpus = u64::from(cluster.nodes) * u64::from(cluster.gpus_per_node);
    let explicit = simulation.flag("explicit")?.unwrap_or(false);
    simulation.finish()?;
    let plan = parallelism::read_plan(&parallelism, gpus, &cluster, explicit)?;
    if let Err(error) = partition_layers(model, plan.pipeline as usize, plan.stages.as_deref()) {
        let key = if plan.stages.is_some() { "stages" } else { "pipeline" };
        return Err(parallelism.conflict(key, error.to_string()));
    }
    let batch = batch::read(&workload, plan.data)?;
    let defaults = GpuDefaults { model, cluster: &cluster, sequence_length, sequence_origin };
    let workload_values = workload::read(&workload, &defaults, &batch)?;
    parallelism.finish()?;
    workload.finish()?;
    Ok((Job::Gpus { cluster: Box::new(cluster), plan, workload: workload_values }, batch))
}

fn vehicle_job(
    cluster: VehicleCluster,
    formula: cluster::FormulaKeys,
    model: &Model,
    workload: Section<'_>,
    parallelism: Section<'_>,
    simulation: Section<'_>,
) -> Result<(Job, Batch), InputError> {
    simulation.finish()?;
    let batch = batch::read(&workload, 1)?;
    workload::read_vehicles(&workload)?;
    let placement = parallelism::read_placement(&parallelism, &cluster, model)?;
    let schedule = parallelism::read_schedule(&parallelism)?;
    parallelism.finish()?;
    workload.finish()?;
    let formula = FormulaParameters {
        batch: u32::try_from(batch.global).unwrap_or(u32::MAX),
        utilization: formula.utilization,
        overhead: formula.memory_overhead,
    };
    let micro_batches = u32::try_from(batch.accumulation).unwrap_or(u32::MAX);
    let replay = Replay { micro_batches, schedule };
    Ok((Job::Vehicles { cluster, placement, formula, replay }, batch))
}
