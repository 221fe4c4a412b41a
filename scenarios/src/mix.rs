//! Clusters whose GPUs are not all alike: `[[cluster.groups]]` and `[[cluster.clocks]]`.

use steptime_clusters::{Cluster, ClusterEntry, cluster_from_catalogue, cluster_from_toml};

use crate::cluster::catalogue;
use crate::error::InputError;
use crate::files::Files;
use crate::section::{Section, tables};

/// Smallest share of a clock that is left.
const SLOWEST: f64 = 0.001;
/// Keys that describe a cluster of one kind.
const OF_ONE_KIND: [&str; 6] = ["name", "file", "nodes", "calibration", "host", "peer_access"];

/// The cluster of `groups`; `None` where there are none.
pub(crate) fn groups(section: &Section<'_>, files: &dyn Files) -> Result<Option<Cluster>, InputError> {
    let listed = tables(section, "groups")?;
    if listed.is_empty() {
        return Ok(None);
    }
    for key in OF_ONE_KIND {
        if section.node(key)?.is_some() {
            let message = "is about nodes of one kind; `groups` say what each group of nodes is";
            return Err(section.conflict(key, message));
        }
    }
    let per_node = section.count("gpus_per_node", 1 << 10)?.map(|count| count as u32);
    let mut groups = Vec::new();
    for table in listed {
        let group = Section::inner(table, "cluster.groups")?;
        let cluster = kind(&group, files)?;
        let nodes = group.count("nodes", 1 << 17)?.map_or(1, |count| count as u32);
        let sized = cluster.with_size(nodes, per_node.unwrap_or(cluster.gpus_per_node));
        let sized = sized.map_err(|error| group.conflict("nodes", error.to_string()))?;
        let clock = group.factor("clock", SLOWEST, 1.0)?;
        let gpu = clock.map_or_else(|| sized.gpu.clone(), |share| sized.gpu.clone().at_clock(share));
        groups.push(Cluster { gpu, ..sized });
        group.finish()?;
    }
    Cluster::of_groups(&groups).map(Some).map_err(|error| section.conflict("groups", error.to_string()))
}

/// What the nodes of a group are.
fn kind(group: &Section<'_>, files: &dyn Files) -> Result<Cluster, InputError> {
    let entry = match (group.text("name")?, group.text("file")?) {
        (Some((name, origin)), None) => {
            cluster_from_catalogue(&name).map_err(|error| catalogue(&origin, error))?
        }
        (None, Some((path, _))) => {
            let text = files.read(&path).map_err(|message| group.conflict("file", message))?;
            cluster_from_toml(&text).map_err(|error| group.conflict("file", format!("{path}: {error}")))?
        }
        (Some(_), Some(_)) => return Err(group.conflict("file", "contradicts `name`: keep one of the two")),
        (None, None) => {
            return Err(group.missing("name", "a cluster of the catalogue (`steptime clusters` lists them)"));
        }
    };
    match entry {
        ClusterEntry::Nodes(cluster) => Ok(cluster),
        ClusterEntry::Vehicles(vehicles) => {
            let message = format!("`{}` is made of vehicles, which are no group of nodes", vehicles.name);
            Err(group.conflict("name", message))
        }
    }
}

/// The cluster with the clocks of `clocks`: GPUs or whole nodes that run slower.
pub(crate) fn clocks(section: &Section<'_>, cluster: Cluster) -> Result<Cluster, InputError> {
    let listed = tables(section, "clocks")?;
    if listed.is_empty() {
        return Ok(cluster);
    }
    let (gpus, per_node) = (cluster.gpus(), u64::from(cluster.gpus_per_node));
    let mut shares = vec![1.0; usize::try_from(gpus).unwrap_or(0)];
    for table in listed {
        let slower = Section::inner(table, "cluster.clocks")?;
        let clock = slower.factor("clock", SLOWEST, 1.0)?;
        let clock = clock.ok_or_else(|| slower.missing("clock", "the share of the clock that is left"))?;
        let (key, named, each) = match (slower.counts("gpus")?, slower.counts("nodes")?) {
            (Some(named), None) => ("gpus", named, 1),
            (None, Some(named)) => ("nodes", named, per_node),
            (Some(_), Some(_)) => {
                return Err(slower.conflict("nodes", "contradicts `gpus`: keep one of the two"));
            }
            (None, None) => return Err(slower.missing("gpus", "a list of GPUs, or `nodes`: a list of nodes")),
        };
        for number in named {
            let first = number.saturating_mul(each);
            if first >= gpus {
                let message = format!("there is no number {number}, allowed: 0 to {}", (gpus - 1) / each);
                return Err(slower.conflict(key, message));
            }
            for share in shares.iter_mut().skip(first as usize).take(each as usize) {
                *share *= clock;
            }
        }
        slower.finish()?;
    }
    cluster.at_clocks(&shares).map_err(|error| section.conflict("clocks", error.to_string()))
}
