//! Reads a cluster of GPU nodes.

use steptime_models::Dimension;

use super::error::CatalogueError;
use super::reader::Section;
use super::{fabric, fabric_from_catalogue, gpu, gpu_from_catalogue, host_from_catalogue, network};
use crate::backing::{Backing, Drives};
use crate::cluster::{Cluster, FrameworkCost, Host, LaunchCost};
use crate::fabric::Fabric;
use crate::fact::Fact;

/// Keys of a cluster file.
pub(super) const KEYS: [&str; 7] = ["name", "gpu", "gpus_per_node", "nodes", "fabric", "network", "host"];
/// Keys of what Megatron-LM costs a host, each with the launches of eager execution that take the host as long: the
/// ratios of `hosts/x86-pcie5.toml`.
const MEGATRON: [(&str, f64); 8] = [
    ("block_forward", 250.0),
    ("block_backward", 152.5),
    ("collective", 20.3),
    ("chunk_pass", 101.6),
    ("routing", 65.6),
    ("expert", 32.8),
    ("tensor", 3.44),
    ("step", 2656.0),
];
/// Keys of a host.
pub(super) const HOST_KEYS: [&str; 12] = [
    "name",
    "megatron",
    "eager_forward_launch",
    "eager_backward_launch",
    "compiled_launch",
    "cuda_graphs_launch",
    "sync_latency",
    "launch_queue",
    "pinned_bandwidth",
    "pageable_bandwidth",
    "memory",
    "offload",
];
/// Keys of a host's `[offload]`.
const OFFLOAD_KEYS: [&str; 6] =
    ["gpus_per_socket", "gpus_per_root", "memory_bandwidth", "streaming_share", "vector_flops", "nvme"];
/// Those of a host without a name of its own.
pub(super) const OWN_HOST_KEYS: &[&str] = HOST_KEYS.split_at(1).1;

pub(super) fn read(root: &Section<'_>) -> Result<Cluster, CatalogueError> {
    let source = root.own_source()?.to_owned();
    let mut counts = Vec::new();
    let gpu = if root.has_table("gpu") {
        gpu::read(&root.section("gpu", &gpu::KEYS)?)?
    } else {
        let name = root.name("gpu")?;
        gpu_from_catalogue(name).map_err(|error| root.error_at("gpu", format!("`gpu`: {error}")))?
    };
    let gpus_per_node = root.count("gpus_per_node", &mut counts)?;
    let nodes = root.count("nodes", &mut counts)?;
    let fabric = fabric(root)?;
    let cluster = Cluster {
        name: root.name("name")?.to_owned(),
        source,
        gpu,
        gpus_per_node,
        nodes: 1,
        domain: None,
        mix: None,
        topology: None,
        network: network::read(root, gpus_per_node)?,
        host: host(root, &fabric)?,
        fabric,
    };
    let sized = cluster.in_domain(gpus_per_node).with_size(nodes, gpus_per_node);
    sized.map_err(|_| {
        let problem = format!("`nodes` is {nodes}, but the file has no [network] between nodes");
        root.error_at("nodes", problem)
    })
}

fn fabric(root: &Section<'_>) -> Result<Fabric, CatalogueError> {
    if root.has_table("fabric") {
        return fabric::read(&root.section("fabric", &fabric::KEYS)?, root.name("name")?);
    }
    let name = root.name("fabric")?;
    fabric_from_catalogue(name).map_err(|error| root.error_at("fabric", format!("`fabric`: {error}")))
}

/// The `[host]` table, the preset that `host` names, or the one that machines with such a fabric usually have.
fn host(root: &Section<'_>, fabric: &Fabric) -> Result<Host, CatalogueError> {
    if root.has_table("host") || (!root.has("host") && fabric.host.is_empty()) {
        let mut own = read_host(&root.section("host", &HOST_KEYS)?)?;
        if let (None, Ok(usual)) = (own.backing, host_from_catalogue(&fabric.host)) {
            own.backing = usual.backing;
            own.facts.extend(
                usual
                    .facts
                    .into_iter()
                    .filter(|fact| fact.what.starts_with("offload."))
                    .map(|fact| Fact { what: format!("host.{}", fact.what), ..fact }),
            );
        }
        return Ok(own);
    }
    let name = if root.has("host") { root.name("host")? } else { &fabric.host };
    host_from_catalogue(name).map_err(|error| root.error_at("host", format!("`host`: {error}")))
}

/// Reads a host: a preset of `hosts/`, or the `[host]` table of a cluster.
pub(super) fn read_host(section: &Section<'_>) -> Result<Host, CatalogueError> {
    let mut facts = Vec::new();
    let mut seconds = |key: &str| Ok(section.quantity(key, Dimension::Seconds, &mut facts)?.value);
    let launch = LaunchCost {
        eager_forward_s: seconds("eager_forward_launch")?,
        eager_backward_s: seconds("eager_backward_launch")?,
        compiled_s: seconds("compiled_launch")?,
        cuda_graphs_s: seconds("cuda_graphs_launch")?,
    };
    let sync_latency_s = seconds("sync_latency")?;
    Ok(Host {
        megatron: read_megatron(section, &launch, &mut facts)?,
        launch,
        sync_latency_s,
        launch_queue: section.count("launch_queue", &mut facts)?,
        pinned_bandwidth: section.quantity("pinned_bandwidth", Dimension::BytesPerSecond, &mut facts)?.value,
        pageable_bandwidth: section
            .quantity("pageable_bandwidth", Dimension::BytesPerSecond, &mut facts)?
            .value,
        memory: section.bytes("memory", &mut facts)?,
        backing: read_backing(section, &mut facts)?,
        facts,
    })
}

/// What Megatron-LM's layers cost the host; a host that does not say is as fast at them as at launching kernels.
pub(super) fn read_megatron(
    section: &Section<'_>,
    launch: &LaunchCost,
    facts: &mut Vec<Fact>,
) -> Result<FrameworkCost, CatalogueError> {
    let table = if section.has_table("megatron") {
        Some(section.section("megatron", &MEGATRON.map(|(key, _)| key))?)
    } else {
        None
    };
    let mut costs = [0.0; MEGATRON.len()];
    for (cost, (key, launches)) in costs.iter_mut().zip(MEGATRON) {
        *cost = match &table {
            Some(table) => table.quantity(key, Dimension::Seconds, facts)?.value,
            None if key == "block_backward" => launches * launch.eager_backward_s,
            None => launches * launch.eager_forward_s,
        };
    }
    let [
        block_forward_s,
        block_backward_s,
        collective_s,
        chunk_pass_s,
        routing_s,
        expert_s,
        tensor_s,
        step_s,
    ] = costs;
    Ok(FrameworkCost {
        block_forward_s,
        block_backward_s,
        collective_s,
        chunk_pass_s,
        routing_s,
        expert_s,
        tensor_s,
        step_s,
    })
}

/// What states that are kept off the GPUs need of a host, where it says.
pub(super) fn read_backing(
    section: &Section<'_>,
    facts: &mut Vec<Fact>,
) -> Result<Option<Backing>, CatalogueError> {
    let Some(table) = section.optional_section("offload", &OFFLOAD_KEYS)? else { return Ok(None) };
    let drives = match table.optional_section("nvme", &["capacity", "read", "write"])? {
        None => None,
        Some(nvme) => Some(Drives {
            capacity: nvme.bytes("capacity", facts)?,
            read: nvme.quantity("read", Dimension::BytesPerSecond, facts)?.value,
            write: nvme.quantity("write", Dimension::BytesPerSecond, facts)?.value,
        }),
    };
    Ok(Some(Backing {
        gpus_per_socket: table.count("gpus_per_socket", facts)?,
        gpus_per_root: table.count("gpus_per_root", facts)?,
        memory_bandwidth: table.quantity("memory_bandwidth", Dimension::BytesPerSecond, facts)?.value,
        streaming_share: table.fraction("streaming_share", facts)?.value,
        vector_flops: table.quantity("vector_flops", Dimension::FlopsPerSecond, facts)?.value,
        drives,
    }))
}
