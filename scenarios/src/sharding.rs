//! Keys of groups that partition the model states, and of where ranks sit.

use steptime_plans::{Dimension, RankOrder, Sharding, ZeroStage};

use crate::error::InputError;
use crate::section::Section;

/// Most ranks along one dimension.
const MOST: u64 = 1 << 20;

/// The shard and replica degrees that give the number of replicas between them.
pub(crate) struct Degrees {
    /// Groups that hold all states once each (torchtitan's `data_parallel_replicate_degree`).
    pub(crate) replicate: Option<u64>,
    /// Data-parallel ranks of one of them (`data_parallel_shard_degree`).
    pub(crate) shard: Option<u64>,
}

/// Reads `replicate` and `data_parallel_shard_degree`.
pub(crate) fn degrees(section: &Section<'_>) -> Result<Degrees, InputError> {
    let replicate = section.count("replicate", MOST)?;
    let shard = section.count("data_parallel_shard_degree", MOST)?;
    if shard.is_some() && section.node("data")?.is_some() {
        let message = "gives the number of replicas, together with replicate, and so does `data`; keep one";
        return Err(section.conflict("data_parallel_shard_degree", message));
    }
    Ok(Degrees { replicate, shard })
}

impl Degrees {
    /// Data-parallel ranks, where both degrees say it.
    pub(crate) fn data(&self) -> Option<u64> {
        self.shard.map(|shard| shard.saturating_mul(self.replicate.unwrap_or(1)))
    }
}

/// Reads `shard_group`, `sum_replicas` and `secondary_group`, for so many ranks with equal parameters, of which `context`
/// at a time share sequences.
pub(crate) fn read(
    section: &Section<'_>,
    degrees: &Degrees,
    (replicas, context): (u64, u64),
    zero: ZeroStage,
) -> Result<Sharding, InputError> {
    let group = section.count("shard_group", MOST)?;
    let group = match (group, degrees.replicate) {
        (Some(_), Some(_)) => {
            let message = "says the same as replicate in another way; keep one";
            return Err(section.conflict("shard_group", message));
        }
        (None, Some(copies)) if !replicas.is_multiple_of(copies) => {
            let message = format!("found {copies}, allowed: a divisor of data x context = {replicas}");
            return Err(section.conflict("replicate", message));
        }
        (None, Some(copies)) => Some(("replicate", replicas / copies)),
        (Some(group), None) if !replicas.is_multiple_of(group) => {
            let message = format!("found {group}, allowed: a divisor of data x context = {replicas}");
            return Err(section.conflict("shard_group", message));
        }
        (Some(group), None) => Some(("shard_group", group)),
        (None, None) => {
            degrees.shard.map(|shard| ("data_parallel_shard_degree", shard.saturating_mul(context)))
        }
    };
    let group = group.filter(|&(_, group)| group != replicas);
    if let Some((key, _)) = group.filter(|_| zero == ZeroStage::Zero) {
        let message = "is about partitioned states: needs zero_stage 1, 2 or 3";
        return Err(section.conflict(key, message));
    }
    let sums = section.choice("sum_replicas", &[("micro-batch", false), ("step", true)])?;
    if sums == Some(true) && group.is_none() {
        let message = "needs several groups that partition the states (shard_group); leave this key out";
        return Err(section.conflict("sum_replicas", message));
    }
    let secondary = section.count("secondary_group", MOST)?.filter(|&ranks| ranks > 1);
    let whole = group.map_or(replicas, |(_, group)| group);
    if let Some(ranks) = secondary {
        if zero != ZeroStage::Three {
            let message = "is a second copy of partitioned parameters: needs zero_stage = 3";
            return Err(section.conflict("secondary_group", message));
        }
        if !whole.is_multiple_of(ranks) {
            let message =
                format!("found {ranks}, allowed: a divisor of the {whole} ranks that partition the states");
            return Err(section.conflict("secondary_group", message));
        }
    }
    Ok(Sharding { group: group.map(|(_, group)| group), sums_once: sums.unwrap_or(false), secondary })
}

/// Names of the dimensions in Megatron-LM's orders.
const DIMENSIONS: [(&str, Dimension); 4] = [
    ("tp", Dimension::Tensor),
    ("cp", Dimension::Context),
    ("dp", Dimension::Data),
    ("pp", Dimension::Pipeline),
];

/// Reads `order` and `rank_to_gpu`, for so many GPUs.
pub(crate) fn read_order(section: &Section<'_>, gpus: u64, spreads: bool) -> Result<RankOrder, InputError> {
    let order = match section.text("order")? {
        Some((text, _)) => Some(parse_order(section, &text, spreads)?),
        None => None,
    };
    let Some(listed) = section.counts("rank_to_gpu")? else { return Ok(RankOrder { order, gpus: None }) };
    if listed.len() as u64 != gpus {
        let message = format!("lists {} GPUs, allowed: one for each of the {gpus} ranks", listed.len());
        return Err(section.conflict("rank_to_gpu", message));
    }
    let mut sorted = listed.clone();
    sorted.sort_unstable();
    if let Some((wanted, found)) = (0..).zip(&sorted).find(|(wanted, found)| wanted != *found) {
        let message = if *found > wanted {
            format!("GPU {wanted} has no rank")
        } else {
            format!("GPU {found} has two ranks")
        };
        return Err(section
            .conflict("rank_to_gpu", format!("{message}, allowed: every GPU from 0 to {} once", gpus - 1)));
    }
    Ok(RankOrder { order, gpus: Some(listed.into_iter().map(|gpu| gpu as u32).collect()) })
}

/// `tp-cp-ep-dp-pp`, the innermost first. Experts take the ranks of a stage as tensor, context and data count them, so that
/// `ep` says nothing but that it comes before `dp`.
fn parse_order(section: &Section<'_>, text: &str, spreads: bool) -> Result<[Dimension; 4], InputError> {
    let allowed = "tp, cp, dp and pp once each, the innermost first, such as \"tp-cp-ep-dp-pp\"";
    let refuse = |why: &str| section.conflict("order", format!("found \"{text}\", {why}"));
    let words: Vec<&str> = text.split('-').collect();
    let place = |wanted: &str| words.iter().position(|word| *word == wanted);
    let mut dimensions = Vec::new();
    for word in &words {
        match DIMENSIONS.iter().find(|(name, _)| name == word) {
            Some((_, dimension)) if !dimensions.contains(dimension) => dimensions.push(*dimension),
            None if *word == "ep" => {}
            _ => return Err(refuse(&format!("allowed: {allowed}"))),
        }
    }
    if place("cp").is_none()
        && let Some(tensor) = place("tp")
    {
        // Left out as in older orders, where there was none.
        let at = dimensions.iter().position(|it| *it == Dimension::Tensor).unwrap_or(tensor);
        dimensions.insert(at + 1, Dimension::Context);
    }
    if spreads && (place("ep") > place("dp") || place("cp") > place("dp") || place("tp") > place("dp")) {
        return Err(refuse("allowed with experts over ranks of their own: tp, cp and ep before dp"));
    }
    <[Dimension; 4]>::try_from(dimensions).map_err(|_| refuse(&format!("allowed: {allowed}")))
}
