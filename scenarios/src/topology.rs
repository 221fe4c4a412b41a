//! `[cluster.topology]`: switches between nodes, and links inside them.

use std::sync::Arc;

use steptime_clusters::{Blueprint, Cluster, Fault, Inside, PcieTree, Shape, Topology};
use steptime_models::Dimension;

use crate::error::InputError;
use crate::offload::amount;
use crate::section::{Section, tables, wrong};
use crate::tree::{Node, Value};

/// Most nodes, switches of a level, and ways.
const MOST: u64 = 1 << 16;

/// A rate, as messages show it.
const RATE: &str = "a rate such as \"50 GB/s\"";

/// Kinds of shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    FatTree,
    RailFatTree,
    Dragonfly,
    Torus,
    Explicit,
}

const KINDS: [(&str, Kind); 5] = [
    ("fat-tree", Kind::FatTree),
    ("rail-fat-tree", Kind::RailFatTree),
    ("dragonfly", Kind::Dragonfly),
    ("torus", Kind::Torus),
    ("explicit", Kind::Explicit),
];

/// Reads `topology` of a cluster; gives what it is made for, too, so that other jobs can be put on it.
pub(crate) fn read(
    cluster_section: &Section<'_>,
    cluster: Cluster,
) -> Result<(Cluster, Option<Blueprint>), InputError> {
    let Some(node) = cluster_section.node("topology")? else { return Ok((cluster, None)) };
    let section = Section::inner(node, "cluster.topology")?;
    let kind = section.choice("kind", &KINDS)?;
    let inside = match section.node("inside")? {
        Some(node) => Some(read_inside(Section::inner(node, "cluster.topology.inside")?)?),
        None => None,
    };
    if kind.is_none() && inside.is_none() {
        return Err(section.missing(
            "kind",
            "how nodes are joined (fat-tree, ...), or `inside`: how the GPUs of a node are",
        ));
    }
    if kind.is_some() && cluster.network.is_none() {
        let message = format!("{} has no network whose switches could be described", cluster.name);
        return Err(section.conflict("kind", message));
    }
    let places = section.count("places", MOST)?.unwrap_or(u64::from(cluster.nodes)) as u32;
    let at = match section.counts("at")? {
        Some(at) => at.into_iter().map(|place| u32::try_from(place).unwrap_or(u32::MAX)).collect(),
        None => (0..cluster.nodes).collect::<Vec<u32>>(),
    };
    if at.len() as u64 != u64::from(cluster.nodes) {
        let message = format!("names {} places for {} nodes", at.len(), cluster.nodes);
        return Err(section.conflict("at", message));
    }
    let shape = kind.map(|kind| read_shape(&section, kind, &cluster)).transpose()?;
    let blueprint = Blueprint {
        shape,
        inside,
        places,
        at,
        gpus_per_node: cluster.gpus_per_node,
        node_bandwidth: cluster.network.as_ref().map_or(0.0, |network| network.bandwidth),
        ways: section.count("ways", 1 << 10)?.unwrap_or(1) as u32,
        faults: faults(&section)?,
    };
    let topology = Topology::new(&blueprint).map_err(|error| {
        let key = match &error {
            steptime_clusters::TopologyError::Place { .. } => "at",
            steptime_clusters::TopologyError::NotJoined { .. } => "faults",
            steptime_clusters::TopologyError::Inside(_) => "inside",
            _ => "kind",
        };
        section.conflict(key, error.to_string())
    })?;
    section.finish()?;
    Ok((Cluster { topology: Some(Arc::new(topology)), ..cluster }, Some(blueprint)))
}

fn read_shape(section: &Section<'_>, kind: Kind, cluster: &Cluster) -> Result<Shape, InputError> {
    let needed = |key: &'static str, what: &str| {
        section.count(key, MOST)?.map(|count| count as u32).ok_or_else(|| section.missing(key, what))
    };
    let rate = |key| amount(section, key, Dimension::BytesPerSecond, RATE);
    let needed_rate = |key| rate(key)?.ok_or_else(|| section.missing(key, RATE));
    Ok(match kind {
        Kind::FatTree | Kind::RailFatTree => {
            let cards = cluster.network.as_ref().map_or(1, |network| network.cards).max(1);
            Shape::FatTree {
                nodes_per_leaf: needed("nodes_per_leaf", "a whole number: the nodes below a leaf switch")?,
                spines: section.count("spines", MOST)?.unwrap_or(1) as u32,
                oversubscription: section.factor("oversubscription", 0.01, 1000.0)?.unwrap_or(1.0),
                rails: if kind == Kind::RailFatTree { cards } else { 1 },
            }
        }
        Kind::Dragonfly => Shape::Dragonfly {
            routers_per_group: needed("routers_per_group", "a whole number: the routers of a group")?,
            nodes_per_router: needed("nodes_per_router", "a whole number: the nodes at a router")?,
            local: needed_rate("local")?,
            global: needed_rate("global")?,
        },
        Kind::Torus => {
            let dimensions = section.counts("dimensions")?;
            let dimensions =
                dimensions.ok_or_else(|| section.missing("dimensions", "a list: nodes in each dimension"))?;
            if dimensions.iter().any(|size| !(1..=MOST).contains(size)) {
                return Err(
                    section.conflict("dimensions", format!("sizes are whole numbers from 1 to {MOST}"))
                );
            }
            let dimensions = dimensions.into_iter().map(|size| size as u32).collect();
            Shape::Torus { dimensions, link: needed_rate("link")? }
        }
        Kind::Explicit => {
            let mut links = Vec::new();
            for table in tables(section, "links")? {
                let link = Section::inner(table, "cluster.topology.links")?;
                let [a, b] = between(&link)?;
                let bandwidth = amount(&link, "bandwidth", Dimension::BytesPerSecond, RATE)?;
                links.push((a, b, bandwidth.ok_or_else(|| link.missing("bandwidth", RATE))?));
                link.finish()?;
            }
            if links.is_empty() {
                return Err(section.missing("links", "a list of tables with `between` and `bandwidth`"));
            }
            Shape::Explicit { links }
        }
    })
}

fn faults(section: &Section<'_>) -> Result<Vec<Fault>, InputError> {
    let mut faults = Vec::new();
    for table in tables(section, "faults")? {
        let fault = Section::inner(table, "cluster.topology.faults")?;
        let rate = fault.factor("rate", 0.0, 1.0)?;
        let rate =
            rate.ok_or_else(|| fault.missing("rate", "the share that is left; 0: the links are cut"))?;
        faults.push(Fault { between: between(&fault)?, rate });
        fault.finish()?;
    }
    Ok(faults)
}

/// The two vertices that links join.
fn between(section: &Section<'_>) -> Result<[String; 2], InputError> {
    let two = "two names of vertices, such as [\"leaf 0\", \"spine 1\"]";
    let names: Vec<String> = section.texts("between")?.into_iter().map(|(name, _)| name).collect();
    <[String; 2]>::try_from(names).map_err(|_| section.missing("between", two))
}

fn read_inside(section: Section<'_>) -> Result<Inside, InputError> {
    let mut inside = Inside::default();
    if let Some(node) = section.node("nvlinks")? {
        let pairs = "a list of pairs of GPUs, such as [[0, 1], [2, 3]]";
        let refuse = |node: &Node| wrong(&node.origin, &section.full("nvlinks"), &node.value, pairs);
        let Value::Array(items) = &node.value else { return Err(refuse(node)) };
        for item in items {
            let Value::Array(pair) = &item.value else { return Err(refuse(item)) };
            let gpu = |node: &Node| match node.value {
                Value::Integer(gpu) => u32::try_from(gpu).map_err(|_| refuse(node)),
                _ => Err(refuse(node)),
            };
            let [a, b] = &pair[..] else { return Err(refuse(item)) };
            inside.nvlinks.push((gpu(a)?, gpu(b)?));
        }
        let rate = amount(&section, "nvlink", Dimension::BytesPerSecond, RATE)?;
        inside.nvlink =
            rate.ok_or_else(|| section.missing("nvlink", "the rate of one of them, such as \"25 GB/s\""))?;
    }
    if let Some(node) = section.node("pcie")? {
        inside.pcie = Some(read_pcie(Section::inner(node, "cluster.topology.inside.pcie")?)?);
    }
    if inside.nvlinks.is_empty() && inside.pcie.is_none() {
        return Err(section.missing("nvlinks", "which GPUs NVLink joins, or `pcie`: what joins them all"));
    }
    section.finish()?;
    Ok(inside)
}

fn read_pcie(section: Section<'_>) -> Result<PcieTree, InputError> {
    let rate = |key| {
        amount(&section, key, Dimension::BytesPerSecond, RATE)?.ok_or_else(|| section.missing(key, RATE))
    };
    let slot = rate("slot")?;
    let uplink = amount(&section, "uplink", Dimension::BytesPerSecond, RATE)?.unwrap_or(slot);
    let between = amount(&section, "between_sockets", Dimension::BytesPerSecond, RATE)?.unwrap_or(slot);
    let tree = PcieTree {
        gpus_per_switch: section.count("gpus_per_switch", 1 << 10)?.unwrap_or(1) as u32,
        switches_per_socket: section.count("switches_per_socket", 1 << 10)?.unwrap_or(1) as u32,
        slot,
        uplink,
        between_sockets: between,
    };
    section.finish()?;
    Ok(tree)
}
