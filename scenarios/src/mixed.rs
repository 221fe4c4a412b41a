//! Reports of jobs whose GPUs or micro-batches are not all alike.

use steptime_clusters::Cluster;
use steptime_models::Dtype;
use steptime_plans::{
    Lowered, Plan, PlanError, PlayedRank, RankMemory, Traced, Varied, Workload, memory_of, trace_of,
};

use crate::scenario::Scenario;

/// What all GPUs do at their peaks in so many seconds, FLOPs; `None` if one does not compute in the format.
pub(crate) fn most_flops(cluster: &Cluster, dtype: Dtype, seconds: f64) -> Option<f64> {
    if !cluster.is_mixed() {
        return cluster.gpu.peak(dtype).map(|peak| seconds * cluster.gpus() as f64 * peak);
    }
    let peaks = (0..cluster.gpus()).map(|gpu| cluster.kind(cluster.kind_of(gpu)).gpu.peak(dtype));
    peaks.sum::<Option<f64>>().map(|all| seconds * all)
}

/// Memory of a rank's device, bytes.
pub(crate) fn capacity(cluster: &Cluster, lowered: &Lowered, rank: u64) -> u64 {
    let played = lowered.ranks.iter().find(|played| played.rank == rank);
    cluster.kind(played.map_or(0, |played| played.kind)).gpu.memory.0
}

/// Names of the devices of a stage, each once.
pub(crate) fn devices(cluster: &Cluster, lowered: &Lowered, stage: usize) -> String {
    let mut names: Vec<&str> = Vec::new();
    for rank in lowered.ranks.iter().filter(|rank| rank.stage == stage) {
        let name = &cluster.kind(rank.kind).gpu.name;
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.join(" + ")
}

/// What a job is made of.
type Parts<'a> = (&'a Cluster, &'a Plan, &'a Workload);

/// Jobs of one kind of GPU, and one size and number of micro-batches each, with the stages and ranks of which each is true. What a rank
/// holds depends on its own kind and samples, and not on those of others.
fn alike<T>(
    (cluster, plan, workload): Parts<'_>,
    lowered: &Lowered,
    replay: impl Fn(Parts<'_>) -> Result<Vec<T>, PlanError>,
) -> Result<Vec<(T, PlayedRank)>, PlanError> {
    let mut known: Vec<(usize, Option<u64>, Option<u64>)> = Vec::new();
    let mut all = Vec::new();
    for &PlayedRank { kind, samples, count, .. } in &lowered.ranks {
        if known.contains(&(kind, samples, count)) {
            continue;
        }
        known.push((kind, samples, count));
        let (nodes, gpus_per_node) = (cluster.nodes, cluster.gpus_per_node);
        let own = Cluster { nodes, gpus_per_node, ..cluster.kind(kind).clone() };
        let plan = Plan { micro_batches: None, micro_batch_counts: None, ..plan.clone() };
        let micro_batch_size = samples.unwrap_or(workload.micro_batch_size);
        let accumulation = count.unwrap_or(workload.accumulation);
        let workload = Workload { micro_batch_size, accumulation, ..workload.clone() };
        let of_stages = replay((&own, &plan, &workload))?;
        for (stage, result) in of_stages.into_iter().enumerate() {
            let wanted = |rank: &&PlayedRank| {
                (rank.stage, rank.kind, rank.samples, rank.count) == (stage, kind, samples, count)
            };
            all.extend(lowered.ranks.iter().find(wanted).map(|rank| (result, *rank)));
        }
    }
    all.sort_by_key(|(_, rank)| rank.rank);
    Ok(all)
}

fn in_flight(lowered: &Lowered) -> Vec<u64> {
    lowered.stages.iter().map(|stage| stage.in_flight).collect()
}

/// Memory of a rank of every kind and size of micro-batch on every stage.
pub(crate) fn memories(
    scenario: &Scenario,
    parts: Parts<'_>,
    lowered: &Lowered,
    varied: Option<Varied<'_>>,
) -> Result<Vec<RankMemory>, PlanError> {
    let held = in_flight(lowered);
    let all = alike(parts, lowered, |(cluster, plan, workload)| {
        memory_of((&scenario.model, cluster, plan, workload), &scenario.allocator, &held, varied)
    })?;
    Ok(all.into_iter().map(|(memory, rank)| RankMemory { rank: rank.rank, ..memory }).collect())
}

/// What the allocator of the first of them on each stage did.
pub(crate) fn traces(
    scenario: &Scenario,
    parts: Parts<'_>,
    lowered: &Lowered,
    varied: Option<Varied<'_>>,
) -> Result<Vec<Traced>, PlanError> {
    let held = in_flight(lowered);
    let all = alike(parts, lowered, |(cluster, plan, workload)| {
        trace_of((&scenario.model, cluster, plan, workload), &scenario.allocator, &held, varied)
    })?;
    let mut stages = Vec::new();
    let mut traces = Vec::new();
    for (trace, rank) in all {
        if !stages.contains(&rank.stage) {
            stages.push(rank.stage);
            traces.push(trace);
        }
    }
    Ok(traces)
}
