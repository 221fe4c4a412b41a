//! The section `[allocator]`: PyTorch's caching allocator of device memory, by the names of `PYTORCH_CUDA_ALLOC_CONF`.

use steptime_clusters::Framework;
use steptime_core::allocator::{Config, ConfigError, ROUNDUP_INTERVALS};
use steptime_plans::AllocatorSettings;

use crate::error::InputError;
use crate::section::{Section, wrong};
use crate::tree::{Node, Value};

/// Reads the section of a job on GPUs.
pub(crate) fn read(
    section: Section<'_>,
    framework: Framework,
    pipeline: u64,
) -> Result<AllocatorSettings, InputError> {
    let config = Config {
        expandable_segments: section.flag("expandable_segments")?.unwrap_or(false),
        max_split_size: section.number("max_split_size_mb", 20, 1 << 20)?.map(|mebibytes| mebibytes << 20),
        garbage_collection_threshold: section.factor("garbage_collection_threshold", 0.0, 1.0)?,
        roundup_power2_divisions: divisions(&section)?,
        ..Config::default()
    };
    if let Err(error) = config.check() {
        let (key, message) = explain(&error);
        return Err(section.conflict(key, message));
    }
    let memory_fraction = section.factor("memory_fraction", 0.01, 1.0)?;
    if config.garbage_collection_threshold.is_some() && memory_fraction.is_none() {
        let message = "collects nothing unless the process limits itself, as in PyTorch; set allocator.memory_fraction, too";
        return Err(section.conflict("garbage_collection_threshold", message));
    }
    if config.garbage_collection_threshold.is_some() && config.expandable_segments {
        let message =
            "cannot act with expandable_segments, whose pages are not collected; leave one of them out";
        return Err(section.conflict("garbage_collection_threshold", message));
    }
    // In nanotron's pipelines the host does not get ahead of the device, for it looks at the sizes of all that it sends
    // and receives; measured runs show nothing of memory that waits for collectives there. See docs/limits.md.
    let avoids = framework == Framework::Nanotron && pipeline > 1;
    let avoid_record_streams = section.flag("avoid_record_streams")?.unwrap_or(avoids);
    section.finish()?;
    Ok(AllocatorSettings { config, memory_fraction, avoid_record_streams })
}

/// Vehicles have no such allocator.
pub(crate) fn refuse(section: &Section<'_>) -> Result<AllocatorSettings, InputError> {
    if section.is_present() {
        let key = section.origin().clone();
        return Err(InputError::Conflict {
            origin: key,
            key: "allocator".to_owned(),
            message: "the formula of vehicle paths holds stated memory as it is; leave this section out"
                .to_owned(),
        });
    }
    Ok(AllocatorSettings::default())
}

/// The key of a setting that PyTorch refuses, and what it allows.
fn explain(error: &ConfigError) -> (&'static str, String) {
    match error {
        ConfigError::MaxSplitSize { found } => {
            ("max_split_size_mb", format!("found {}, allowed: 20 or more", found >> 20))
        }
        ConfigError::Threshold { found } => {
            ("garbage_collection_threshold", format!("found {found}, allowed: above 0 and below 1"))
        }
        ConfigError::Divisions { found } => {
            ("roundup_power2_divisions", format!("found {found}, allowed: 0 or a power of two"))
        }
    }
}

/// One number for all sizes, or a table from sizes in MiB (powers of two; `">"` for all beyond) to numbers, as
/// PyTorch's `[256:1,512:2,>:8]`.
fn divisions(section: &Section<'_>) -> Result<[u64; ROUNDUP_INTERVALS], InputError> {
    let key = "roundup_power2_divisions";
    let mut all = [0; ROUNDUP_INTERVALS];
    match section.node(key)? {
        None => {}
        Some(Node { value: Value::Table(table), .. }) => {
            let mut from = 0;
            for (size, node) in table {
                let count = natural(node, &section.full(key))?;
                let interval = match size.parse::<u64>() {
                    Ok(mebibytes) if mebibytes.is_power_of_two() => mebibytes.ilog2() as usize,
                    _ if size == ">" => ROUNDUP_INTERVALS - 1,
                    _ => {
                        let message = format!("found size `{size}`, allowed: powers of two in MiB, and `>`");
                        return Err(section.conflict(key, message));
                    }
                };
                let interval = interval.min(ROUNDUP_INTERVALS - 1);
                if interval < from {
                    return Err(section.conflict(key, format!("size `{size}` is not above the one before")));
                }
                // PyTorch takes a size for itself and, the last one, for all beyond.
                all[interval] = count;
                if size == ">" {
                    all[from..].fill(count);
                }
                from = interval + 1;
            }
        }
        Some(node) => all.fill(natural(node, &section.full(key))?),
    }
    Ok(all)
}

fn natural(node: &Node, key: &str) -> Result<u64, InputError> {
    match &node.value {
        Value::Integer(count) if *count >= 0 => Ok(count.unsigned_abs()),
        other => Err(wrong(&node.origin, key, other, "a whole number of parts")),
    }
}
