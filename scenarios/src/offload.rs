//! What a scenario keeps off the GPUs: `[parallelism] offload`, and `[cluster] host`, which says onto what.

use steptime_clusters::{Backing, Cluster, Drives, HOOK_COSTS, HookCost};
use steptime_models::{Bytes, Dimension, parse_quantity};
use steptime_plans::{Offload, Store, ZeroStage};

use crate::error::InputError;
use crate::section::Section;

/// Where states may be.
const STORES: [(&str, Store); 3] = [("none", Store::Device), ("cpu", Store::Host), ("nvme", Store::Drive)];
/// The same for activations, for which nobody uses drives.
const ACTIVATIONS: [(&str, bool); 2] = [("none", false), ("cpu", true)];
/// Least and most of a processor's speed, of that of the catalogue's host.
const SPEEDS: (f64, f64) = (0.05, 20.0);
/// Most values of a buffer or group.
const MOST: u64 = 1 << 42;

/// `[parallelism] offload`.
pub(crate) fn read(parallelism: &Section<'_>, zero: ZeroStage) -> Result<Offload, InputError> {
    let Some(node) = parallelism.node("offload")? else { return Ok(Offload::default()) };
    let section = Section::inner(node, "parallelism.offload")?;
    let usual = Offload::default();
    let optimizer = section.choice("optimizer", &STORES)?.unwrap_or_default();
    let parameters = section.choice("parameters", &STORES)?.unwrap_or_default();
    let activations = section.choice("activations", &ACTIVATIONS)?.unwrap_or(false);
    let needs = |key: &'static str, acts: bool, needed: &str| -> Result<(), InputError> {
        match section.node(key)? {
            Some(_) if !acts => Err(section.conflict(key, format!("needs {needed}; leave this key out"))),
            _ => Ok(()),
        }
    };
    let drives = |store: Store| store == Store::Drive;
    let any = optimizer != Store::Device || parameters != Store::Device || activations;
    needs("pin_memory", any, "something that is offloaded")?;
    needs("overlap_activations", activations, "activations = \"cpu\"")?;
    let grouped = optimizer != Store::Device && zero == ZeroStage::Three;
    needs("sub_group_size", grouped, "an offloaded optimizer and zero_stage = 3")?;
    needs("nvme_pipeline", drives(optimizer), "optimizer = \"nvme\"")?;
    needs("optimizer_buffers", drives(optimizer), "optimizer = \"nvme\"")?;
    needs("parameter_buffers", drives(parameters), "parameters = \"nvme\"")?;
    needs("parameter_buffer_size", drives(parameters), "parameters = \"nvme\"")?;
    let (buffers, values) = usual.parameter_buffers;
    let offload = Offload {
        optimizer,
        parameters,
        activations,
        overlap_activations: section.flag("overlap_activations")?.unwrap_or(usual.overlap_activations),
        pin_memory: section.flag("pin_memory")?.unwrap_or(usual.pin_memory),
        sub_group: section.count("sub_group_size", MOST)?.unwrap_or(usual.sub_group),
        drive_pipeline: section.flag("nvme_pipeline")?.unwrap_or(usual.drive_pipeline),
        optimizer_buffers: section.count("optimizer_buffers", 1 << 10)?.unwrap_or(usual.optimizer_buffers),
        parameter_buffers: (
            section.count("parameter_buffers", 1 << 10)?.unwrap_or(buffers),
            section.count("parameter_buffer_size", MOST)?.unwrap_or(values),
        ),
    };
    section.finish()?;
    Ok(offload)
}

/// `[cluster] host`: what the machines have, in place of what the catalogue says.
pub(crate) fn read_host(cluster_section: &Section<'_>, mut cluster: Cluster) -> Result<Cluster, InputError> {
    let Some(node) = cluster_section.node("host")? else { return Ok(cluster) };
    let section = Section::inner(node, "cluster.host")?;
    let bytes = |key| amount(&section, key, Dimension::Bytes, "an amount of memory such as \"512 GB\"");
    let rate = |key| amount(&section, key, Dimension::BytesPerSecond, "a rate such as \"25 GB/s\"");
    let host = &mut cluster.host;
    if let Some(speed) = section.factor("one_thread", SPEEDS.0, SPEEDS.1)? {
        host.speed_up(speed);
    }
    host.hooks = read_hooks(&section, host.hooks)?;
    if let Some(memory) = bytes("memory")? {
        host.memory = Bytes(memory as u64);
    }
    for (key, place) in [
        ("pinned_bandwidth", &mut host.pinned_bandwidth),
        ("pageable_bandwidth", &mut host.pageable_bandwidth),
    ] {
        *place = rate(key)?.unwrap_or(*place);
    }
    let gpus = |key| section.count(key, 1 << 10).map(|count| count.map(|count| count as u32));
    let (at_socket, at_root) = (gpus("gpus_per_socket")?, gpus("gpus_per_root")?);
    let memory_bandwidth = rate("memory_bandwidth")?;
    let share = section.factor("streaming_share", 0.01, 1.0)?;
    let arithmetic = Dimension::FlopsPerSecond;
    let flops = amount(&section, "vector_flops", arithmetic, "a rate such as \"3 TFLOP/s\"")?;
    let (capacity, read, write) = (bytes("nvme_capacity")?, rate("nvme_read")?, rate("nvme_write")?);
    let all = |what: &str| {
        let message = format!("the catalogue says nothing of this host, so that {what} are needed together");
        section.conflict("", message)
    };
    host.backing = match (host.backing, at_socket, memory_bandwidth, flops) {
        (Some(usual), ..) => Some(Backing {
            gpus_per_socket: at_socket.unwrap_or(usual.gpus_per_socket),
            gpus_per_root: at_root.unwrap_or(usual.gpus_per_root),
            memory_bandwidth: memory_bandwidth.unwrap_or(usual.memory_bandwidth),
            streaming_share: share.unwrap_or(usual.streaming_share),
            vector_flops: flops.unwrap_or(usual.vector_flops),
            drives: usual.drives,
        }),
        (None, Some(gpus_per_socket), Some(memory_bandwidth), Some(vector_flops)) => Some(Backing {
            gpus_per_socket,
            gpus_per_root: at_root.unwrap_or(1),
            memory_bandwidth,
            streaming_share: share.ok_or_else(|| all("`streaming_share` and the others"))?,
            vector_flops,
            drives: None,
        }),
        (None, None, None, None) => None,
        _ => {
            return Err(all("`gpus_per_socket`, `memory_bandwidth`, `streaming_share` and `vector_flops`"));
        }
    };
    if let Some(backing) = &mut host.backing {
        let old = backing.drives;
        backing.drives = match (
            capacity.or(old.map(|it| it.capacity.0 as f64)),
            read.or(old.map(|it| it.read)),
            write.or(old.map(|it| it.write)),
        ) {
            (Some(capacity), Some(read), Some(write)) => {
                Some(Drives { capacity: Bytes(capacity as u64), read, write })
            }
            (None, None, None) => None,
            _ => return Err(all("`nvme_capacity`, `nvme_read` and `nvme_write`")),
        };
    }
    if let Some(domain) = &mut cluster.domain {
        domain.node_memory = cluster.host.memory;
        domain.node_drives = cluster.host.backing.and_then(|backing| backing.drives);
    }
    section.finish()?;
    Ok(cluster)
}

/// Longest that a hook may take, seconds.
const LONGEST: f64 = 10.0;

/// `[cluster] host.hooks`: what hooks take this host, in place of what they were measured to take by its launches.
fn read_hooks(host: &Section<'_>, usual: HookCost) -> Result<HookCost, InputError> {
    let Some(node) = host.node("hooks")? else { return Ok(usual) };
    let section = Section::inner(node, "cluster.host.hooks")?;
    let mut costs = usual.values();
    for (cost, key) in costs.iter_mut().zip(HOOK_COSTS) {
        let Some((text, origin)) = section.text(key)? else { continue };
        *cost = match parse_quantity(&text, Dimension::Seconds) {
            Ok(seconds) if (0.0..=LONGEST).contains(&seconds) => seconds,
            _ => {
                return Err(InputError::Value {
                    origin,
                    key: section.full(key),
                    found: format!("\"{text}\""),
                    allowed: "a time from \"0 us\" to \"10 s\"".to_owned(),
                    nearest: None,
                });
            }
        };
    }
    section.finish()?;
    Ok(HookCost::from_values(costs))
}

/// A positive amount with its unit.
pub(crate) fn amount(
    section: &Section<'_>,
    key: &'static str,
    dimension: Dimension,
    allowed: &str,
) -> Result<Option<f64>, InputError> {
    let Some((text, origin)) = section.text(key)? else { return Ok(None) };
    match parse_quantity(&text, dimension) {
        Ok(value) if (1.0..=1e18).contains(&value) => Ok(Some(value)),
        _ => Err(InputError::Value {
            origin,
            key: section.full(key),
            found: format!("\"{text}\""),
            allowed: allowed.to_owned(),
            nearest: None,
        }),
    }
}
