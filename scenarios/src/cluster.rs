//! The `[cluster]` section.

use steptime_clusters::{
    Blueprint, CatalogueError, Cluster, ClusterEntry, cluster_from_catalogue, cluster_from_toml,
    cluster_names,
};

use crate::error::{InputError, nearest};
use crate::files::Files;
use crate::mix;
use crate::offload;
use crate::origin::Origin;
use crate::section::{Aliases, Section, list};
use crate::topology;
use crate::tree::Node;

/// Least and most of `utilization`: a vehicle that reaches less than a thousandth as good as stands still.
const UTILIZATION: (f64, f64) = (0.001, 1.0);
/// Least and most of `memory_overhead`, which stretches time and so is at least 1.
const OVERHEAD: (f64, f64) = (1.0, 100.0);

const ALIASES: Aliases = &[("num_nodes", "nodes"), ("nnodes", "nodes"), ("nproc_per_node", "gpus_per_node")];

/// The cluster of a scenario.
pub(crate) struct ClusterSection {
    pub(crate) entry: ClusterEntry,
    pub(crate) formula: FormulaKeys,
    /// Calibration files, in order.
    pub(crate) calibration: Vec<String>,
    /// What the topology was made for, where there is one.
    pub(crate) blueprint: Option<Blueprint>,
    pub(crate) origin: Origin,
}

/// What the serial formula of vehicle paths takes besides batch and model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FormulaKeys {
    /// Share of a vehicle's computing capability that it reaches.
    pub(crate) utilization: f64,
    /// Factor on compute and communication time for memory overhead.
    pub(crate) memory_overhead: f64,
}

impl FormulaKeys {
    /// Those of the source.
    const USUAL: Self = Self { utilization: 0.5, memory_overhead: 1.2 };
}

pub(crate) fn read(root: &Node, files: &dyn Files) -> Result<ClusterSection, InputError> {
    let section = Section::of(root, "cluster", ALIASES)?;
    if let Some(groups) = mix::groups(&section, files)? {
        let origin = section.place("groups");
        return of_nodes(groups, section, origin, Vec::new());
    }
    let needed = "a cluster of the catalogue (`steptime clusters` lists them)";
    let name = section.text("name")?;
    let file = section.text("file")?;
    let origin = section.place(if name.is_some() { "name" } else { "file" });
    let entry = match (name, file) {
        (Some((name, _)), None) => {
            cluster_from_catalogue(&name).map_err(|error| catalogue(&origin, error))?
        }
        (None, Some((path, origin))) => {
            let refuse = |message| InputError::Conflict { origin, key: "cluster.file".to_owned(), message };
            match files.read(&path) {
                Ok(text) => cluster_from_toml(&text).map_err(|error| refuse(format!("{path}: {error}")))?,
                Err(message) => return Err(refuse(message)),
            }
        }
        (Some(_), Some(_)) => return Err(section.conflict("file", "contradicts `name`: keep one of the two")),
        (None, None) => return Err(section.missing("name", needed)),
    };
    let mut formula = FormulaKeys::USUAL;
    let mut calibration = Vec::new();
    match entry {
        ClusterEntry::Nodes(cluster) => {
            let nodes = section.count("nodes", 1 << 17)?.map_or(cluster.nodes, |count| count as u32);
            let gpus =
                section.count("gpus_per_node", 1 << 10)?.map_or(cluster.gpus_per_node, |count| count as u32);
            let key = if gpus > cluster.gpus_per_node { "gpus_per_node" } else { "nodes" };
            let cluster = calibrated(cluster, &section, files, &mut calibration)?;
            let cluster = offload::read_host(&section, cluster)?;
            let sized = cluster.with_size(nodes, gpus);
            let sized = sized.map_err(|error| section.conflict(key, error.to_string()))?;
            let cluster = peers(sized, &section)?;
            of_nodes(cluster, section, origin, calibration)
        }
        vehicles @ ClusterEntry::Vehicles(_) => {
            if let Some(utilization) = section.factor("utilization", UTILIZATION.0, UTILIZATION.1)? {
                formula.utilization = utilization;
            }
            if let Some(overhead) = section.factor("memory_overhead", OVERHEAD.0, OVERHEAD.1)? {
                formula.memory_overhead = overhead;
            }
            section.finish()?;
            Ok(ClusterSection { entry: vehicles, formula, calibration, blueprint: None, origin })
        }
    }
}

/// The section of a cluster of nodes, with clocks and topology.
fn of_nodes(
    cluster: Cluster,
    section: Section<'_>,
    origin: Origin,
    calibration: Vec<String>,
) -> Result<ClusterSection, InputError> {
    let cluster = mix::clocks(&section, cluster)?;
    let (cluster, blueprint) = topology::read(&section, cluster)?;
    section.finish()?;
    let entry = ClusterEntry::Nodes(cluster);
    Ok(ClusterSection { entry, formula: FormulaKeys::USUAL, calibration, blueprint, origin })
}

/// The cluster with or without access of its GPUs to each other's memory.
fn peers(cluster: Cluster, section: &Section<'_>) -> Result<Cluster, InputError> {
    if section.flag("peer_access")?.unwrap_or(true) {
        return Ok(cluster);
    }
    if cluster.fabric.nodes_per_domain > 1 {
        let why = "the nodes of a rack have no other links inside it, allowed: true";
        return Err(section.conflict("peer_access", why));
    }
    cluster.without_peer_access().map_err(|error| section.conflict("peer_access", error.to_string()))
}

/// The cluster with what the calibration files say, one after the other; `names` takes theirs.
fn calibrated(
    mut cluster: Cluster,
    section: &Section<'_>,
    files: &dyn Files,
    names: &mut Vec<String>,
) -> Result<Cluster, InputError> {
    let key = section.full("calibration");
    for (path, origin) in section.texts("calibration")? {
        let refuse = |message| InputError::Conflict { origin: origin.clone(), key: key.clone(), message };
        let text = files.read(&path).map_err(refuse)?;
        cluster = cluster.calibrated(&text).map_err(|error| refuse(format!("{path}: {error}")))?;
        names.push(path);
    }
    Ok(cluster)
}

pub(crate) fn catalogue(origin: &Origin, error: CatalogueError) -> InputError {
    match error {
        CatalogueError::UnknownName { name, .. } => InputError::Value {
            origin: origin.clone(),
            key: "cluster.name".to_owned(),
            found: format!("\"{name}\""),
            allowed: list(cluster_names()),
            nearest: nearest(&name, cluster_names()),
        },
        other @ CatalogueError::Invalid { .. } => InputError::Conflict {
            origin: origin.clone(),
            key: "cluster.name".to_owned(),
            message: other.to_string(),
        },
    }
}
