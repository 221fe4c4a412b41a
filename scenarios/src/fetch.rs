//! Keys of how ZeRO 3 fetches parameters, by the names of PyTorch's FSDP and of DeepSpeed.

use steptime_plans::{BackwardPrefetch, ByValues, Fetch, FsdpVersion, ZeroStage};

use crate::error::InputError;
use crate::section::Section;

/// Most blocks and values.
const MOST: u64 = 1 << 50;

/// Keys of fetching unit by unit, and of fetching by amounts.
const BY_UNITS: [&str; 3] = ["forward_prefetch", "backward_prefetch", "limit_all_gathers"];
const BY_VALUES: [&str; 3] = ["prefetch_values", "live_values", "reuse_values"];

/// Reads them.
pub(crate) fn read(section: &Section<'_>, zero: ZeroStage, offloads: bool) -> Result<Fetch, InputError> {
    let usual = Fetch::default();
    let policies = [
        ("pre", BackwardPrefetch::Before),
        ("post", BackwardPrefetch::After),
        ("none", BackwardPrefetch::None),
    ];
    let version = match section.count("fsdp_version", 2)? {
        Some(2) => FsdpVersion::PerParameter,
        Some(_) => FsdpVersion::Flat,
        None => usual.version,
    };
    let fetch = Fetch {
        version,
        unit: section.count("wrap_blocks", MOST)?.unwrap_or(usual.unit),
        forward_ahead: section.flag("forward_prefetch")?.unwrap_or(usual.forward_ahead),
        backward: section.choice("backward_prefetch", &policies)?.unwrap_or(usual.backward),
        limited: section.flag("limit_all_gathers")?.unwrap_or(usual.limited),
        by_values: read_values(section)?,
        persistent_below: section.number("persistence_threshold", 0, MOST)?.unwrap_or(usual.persistent_below),
        lists: section.flag("gather_lists")?.unwrap_or(usual.lists),
    };
    if section.node("fsdp_version")?.is_some() && fetch.is_deepspeed() {
        let message = "is about the hooks of PyTorch's FSDP, and prefetch_values, live_values, reuse_values and \
                       gather_lists are DeepSpeed's; keep one kind";
        return Err(section.conflict("fsdp_version", message));
    }
    if fetch == usual {
        return Ok(fetch);
    }
    let mut given = Vec::new();
    for key in BY_UNITS.into_iter().chain(BY_VALUES).chain([
        "fsdp_version",
        "wrap_blocks",
        "persistence_threshold",
        "gather_lists",
    ]) {
        if section.node(key)?.is_some() {
            given.push(key);
        }
    }
    if let (Some(key), true) = (given.first(), zero != ZeroStage::Three) {
        let message = "is about parameters that are gathered layer by layer: needs zero_stage = 3";
        return Err(section.conflict(key, message));
    }
    if let (Some(key), true) = (given.iter().find(|key| BY_UNITS.contains(key)), fetch.by_values.is_some()) {
        let message = "is about fetching unit by unit (FSDP), and prefetch_values, live_values and reuse_values about \
                       fetching by amounts (DeepSpeed); keep one kind";
        return Err(section.conflict(key, message));
    }
    let small = if fetch.unit > 1 { "wrap_blocks" } else { "persistence_threshold" };
    if offloads && (fetch.unit > 1 || fetch.persistent_below > 0) {
        let message =
            "does not go with parameters that are offloaded, which come layer by layer; leave this key out";
        return Err(section.conflict(small, message));
    }
    Ok(fetch)
}

/// DeepSpeed's amounts, if one of them is given; the others are then its defaults.
fn read_values(section: &Section<'_>) -> Result<Option<ByValues>, InputError> {
    let usual = ByValues::USUAL;
    let [ahead, live, reuse] = BY_VALUES.map(|key| section.number(key, 0, MOST));
    let (ahead, live, reuse) = (ahead?, live?, reuse?);
    if ahead.is_none() && live.is_none() && reuse.is_none() {
        return Ok(None);
    }
    Ok(Some(ByValues {
        ahead: ahead.unwrap_or(usual.ahead),
        live: live.unwrap_or(usual.live),
        reuse: reuse.unwrap_or(usual.reuse),
    }))
}
