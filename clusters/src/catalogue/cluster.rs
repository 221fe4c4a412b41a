//! Reads a cluster of GPU nodes.

use steptime_models::Dimension;

use super::error::CatalogueError;
use super::reader::Section;
use super::{gpu, gpu_from_catalogue};
use crate::cluster::{BusBandwidth, Cluster, Fabric, FabricKind, Host, LaunchCost, Network, NetworkKind};

/// Keys of a cluster file.
pub(super) const KEYS: [&str; 7] = ["name", "gpu", "gpus_per_node", "nodes", "fabric", "network", "host"];

pub(super) fn read(root: &Section<'_>) -> Result<Cluster, CatalogueError> {
    let mut counts = Vec::new();
    let cluster = Cluster {
        name: root.name("name")?.to_owned(),
        source: root.own_source()?.to_owned(),
        gpu: if root.has_table("gpu") {
            gpu::read(&root.section("gpu", &gpu::KEYS)?)?
        } else {
            let name = root.name("gpu")?;
            gpu_from_catalogue(name).map_err(|error| root.error_at("gpu", format!("`gpu`: {error}")))?
        },
        gpus_per_node: root.count("gpus_per_node", &mut counts)?,
        nodes: root.count("nodes", &mut counts)?,
        fabric: fabric(root)?,
        network: network(root)?,
        host: host(root)?,
    };
    if cluster.nodes > 1 && cluster.network.is_none() {
        let problem = format!("`nodes` is {}, but the file has no [network] between nodes", cluster.nodes);
        return Err(root.error_at("nodes", problem));
    }
    Ok(cluster)
}

fn fabric(root: &Section<'_>) -> Result<Fabric, CatalogueError> {
    let mut facts = Vec::new();
    let keys = ["kind", "bandwidth", "latency", "launch", "shared_bandwidth", "bus_bandwidth"];
    let section = root.section("fabric", &keys)?;
    let bandwidth = section.quantity("bandwidth", Dimension::BytesPerSecond, &mut facts)?.value;
    let names = ["all_reduce", "all_gather", "reduce_scatter", "broadcast", "all_to_all", "point_to_point"];
    let bus = section.section("bus_bandwidth", &names)?;
    let mut reached = |key: &str| {
        let value = bus.quantity(key, Dimension::BytesPerSecond, &mut facts)?.value;
        if value <= bandwidth {
            return Ok(value);
        }
        let path = bus.key(key);
        let problem = format!("`{path}` is more than `fabric.bandwidth`, which must be the best of them");
        Err(bus.error_at(key, problem))
    };
    let bus_bandwidth = BusBandwidth {
        all_reduce: reached("all_reduce")?,
        all_gather: reached("all_gather")?,
        reduce_scatter: reached("reduce_scatter")?,
        broadcast: reached("broadcast")?,
        all_to_all: reached("all_to_all")?,
        point_to_point: reached("point_to_point")?,
    };
    let shared_bandwidth = if section.has("shared_bandwidth") {
        Some(section.quantity("shared_bandwidth", Dimension::BytesPerSecond, &mut facts)?.value)
    } else {
        None
    };
    Ok(Fabric {
        kind: section.choice("kind", &FabricKind::NAMES)?,
        bandwidth,
        bus_bandwidth,
        latency_s: section.quantity("latency", Dimension::Seconds, &mut facts)?.value,
        launch_s: section.quantity("launch", Dimension::Seconds, &mut facts)?.value,
        shared_bandwidth,
        facts,
    })
}

fn network(root: &Section<'_>) -> Result<Option<Network>, CatalogueError> {
    let keys = ["kind", "bandwidth", "gpu_bandwidth", "cards", "latency"];
    let Some(section) = root.optional_section("network", &keys)? else {
        return Ok(None);
    };
    let mut facts = Vec::new();
    let bandwidth = section.quantity("bandwidth", Dimension::BytesPerSecond, &mut facts)?.value;
    let gpu_bandwidth = section.quantity("gpu_bandwidth", Dimension::BytesPerSecond, &mut facts)?.value;
    if gpu_bandwidth > bandwidth {
        let problem = "`network.gpu_bandwidth` is more than `network.bandwidth`, the whole node's".to_owned();
        return Err(section.error_at("gpu_bandwidth", problem));
    }
    Ok(Some(Network {
        kind: section.choice("kind", &NetworkKind::NAMES)?,
        bandwidth,
        gpu_bandwidth,
        cards: section.count("cards", &mut facts)?,
        latency_s: section.quantity("latency", Dimension::Seconds, &mut facts)?.value,
        facts,
    }))
}

fn host(root: &Section<'_>) -> Result<Host, CatalogueError> {
    let mut facts = Vec::new();
    let keys = [
        "eager_forward_launch",
        "eager_backward_launch",
        "compiled_launch",
        "cuda_graphs_launch",
        "sync_latency",
        "launch_queue",
        "pinned_bandwidth",
        "pageable_bandwidth",
        "memory",
    ];
    let section = root.section("host", &keys)?;
    let mut seconds = |key: &str| Ok(section.quantity(key, Dimension::Seconds, &mut facts)?.value);
    let launch = LaunchCost {
        eager_forward_s: seconds("eager_forward_launch")?,
        eager_backward_s: seconds("eager_backward_launch")?,
        compiled_s: seconds("compiled_launch")?,
        cuda_graphs_s: seconds("cuda_graphs_launch")?,
    };
    let sync_latency_s = seconds("sync_latency")?;
    Ok(Host {
        launch,
        sync_latency_s,
        launch_queue: section.count("launch_queue", &mut facts)?,
        pinned_bandwidth: section.quantity("pinned_bandwidth", Dimension::BytesPerSecond, &mut facts)?.value,
        pageable_bandwidth: section
            .quantity("pageable_bandwidth", Dimension::BytesPerSecond, &mut facts)?
            .value,
        memory: section.bytes("memory", &mut facts)?,
        facts,
    })
}
