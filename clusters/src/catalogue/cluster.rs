//! Reads a cluster of GPU nodes.

use steptime_models::Dimension;

use super::error::CatalogueError;
use super::hooks::hooks_of;
use super::reader::Section;
use super::{fabric, fabric_from_catalogue, gpu, gpu_from_catalogue, host_from_catalogue, network};
use crate::backing::{Backing, Drives};
use crate::calibrate_host::FRAMEWORK_COSTS;
use crate::cluster::{Cluster, FrameworkCost, Host, LaunchCost};
use crate::fabric::Fabric;
use crate::fact::Fact;

/// Keys of a cluster file.
pub(super) const KEYS: [&str; 7] = ["name", "gpu", "gpus_per_node", "nodes", "fabric", "network", "host"];
/// The preset whose framework costs a host of unknown make takes.
const PYTHON_OF: &str = "x86-pcie5";
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
        let usual = if fabric.host.is_empty() { PYTHON_OF } else { &fabric.host };
        let mut own = read_host(&root.section("host", &HOST_KEYS)?, usual)?;
        if own.framework_from.is_empty() {
            root.name("name")?.clone_into(&mut own.framework_from);
        }
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
///
/// One that does not say what a framework costs it takes that of the preset `usual`, as much longer or shorter as its launches
/// take.
pub(super) fn read_host(section: &Section<'_>, usual: &str) -> Result<Host, CatalogueError> {
    let mut facts = Vec::new();
    let mut seconds = |key: &str| Ok(section.quantity(key, Dimension::Seconds, &mut facts)?.value);
    let launch = LaunchCost {
        eager_forward_s: seconds("eager_forward_launch")?,
        eager_backward_s: seconds("eager_backward_launch")?,
        compiled_s: seconds("compiled_launch")?,
        cuda_graphs_s: seconds("cuda_graphs_launch")?,
    };
    let sync_latency_s = seconds("sync_latency")?;
    let hooks = hooks_of(&launch, &mut facts)?;
    let said = read_megatron(section, &mut facts)?;
    let (framework_from, megatron) = match said {
        Some(costs) => (String::new(), costs),
        None => framework_of(usual, &launch)?,
    };
    Ok(Host {
        framework_from,
        megatron,
        hooks,
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

/// The framework costs of a preset for a host with these launches, and the preset's name.
fn framework_of(usual: &str, launch: &LaunchCost) -> Result<(String, FrameworkCost), CatalogueError> {
    let preset = host_from_catalogue(usual)?;
    let ratio = launch.eager_forward_s / preset.launch.eager_forward_s;
    Ok((preset.framework_from, preset.megatron.scaled(ratio)))
}

/// What Megatron-LM's layers cost the host, where it says; every preset does.
pub(super) fn read_megatron(
    section: &Section<'_>,
    facts: &mut Vec<Fact>,
) -> Result<Option<FrameworkCost>, CatalogueError> {
    if !section.has_table("megatron") {
        return Ok(None);
    }
    let table = section.section("megatron", &FRAMEWORK_COSTS.map(|(key, _)| key))?;
    let mut costs = [0.0; FRAMEWORK_COSTS.len()];
    for (cost, (key, _)) in costs.iter_mut().zip(FRAMEWORK_COSTS) {
        *cost = table.quantity(key, Dimension::Seconds, facts)?.value;
    }
    Ok(Some(FrameworkCost::from_values(costs)))
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
