//! What a table leaves unsaid, and the age of the software or the memory that there was tells.

use steptime_clusters::{ClusterEntry, cluster_from_catalogue};

use super::measurement::Measurement;
use super::pipeline;

/// Year of a publication, where its citation names one: `Narayanan et al. 2021, ...`.
fn year(source: &str) -> Option<u64> {
    let numbers = source.split(|c: char| !c.is_ascii_digit()).filter(|digits| digits.len() == 4);
    numbers.filter_map(|digits| digits.parse().ok()).find(|year| (2012..=2060).contains(year))
}

/// Whether a run of Megatron-LM is older than the products that add to gradients, and than the sums over
/// tensor-parallel ranks beside products: both came in the winter after 2021
/// (`--no-gradient-accumulation-fusion`, `--no-async-tensor-model-parallel-allreduce` switch them off since).
pub(super) fn precedes_fusion(row: &Measurement) -> bool {
    year(&row.source).is_some_and(|year| year <= 2021)
}

/// From here on larger micro-batches make products of large models no faster (Narayanan et al. 2021, figures 7 and 8).
const LARGE_ENOUGH: u64 = 8;

/// Sequences of a micro-batch. Where a table says that its source does not list them, its number stands for nothing;
/// what authors take who want throughput is then the largest that is of use, unless stages would wait for it.
pub(super) fn micro_batch(row: &Measurement) -> Option<u64> {
    let listed = !row.notes.contains("microbatch size not listed");
    if listed || row.pp > 1 {
        return row.micro_batch;
    }
    let samples = pipeline::global_batch(row)?.checked_div(row.dp?)?;
    let sizes = (0..).map(|power| 1_u64 << power).take_while(|size| *size <= LARGE_ENOUGH);
    sizes.filter(|&size| samples.is_multiple_of(size)).last().or(row.micro_batch)
}

/// Bytes of a parameter of 16 bits under Adam: weight and gradient, and what the optimizer has in 32 bits.
const ON_EVERY_RANK: f64 = 4.0;
const OF_THE_OPTIMIZER: f64 = 12.0;

/// Whether a run that ended well must have had its parameters sharded: as the row has it, weights, gradients and
/// optimizer states alone are more than the memory of the GPU. Of dense models whose sizes the row states.
pub(super) fn must_shard(row: &Measurement, cluster: &str) -> bool {
    must_shard_in(row, cluster).unwrap_or(false)
}

fn must_shard_in(row: &Measurement, cluster: &str) -> Option<bool> {
    let trains = row.task != "inference" && row.task != "LoRA";
    if !trains || row.experts.is_some() || row.outcome.as_deref() != Some("ok") {
        return Some(false);
    }
    let Ok(ClusterEntry::Nodes(cluster)) = cluster_from_catalogue(cluster) else { return None };
    let (layers, hidden, ffn) = (row.layers? as f64, row.hidden? as f64, row.ffn? as f64);
    let (heads, kv_heads) = (row.heads? as f64, row.kv_heads.or(row.heads)? as f64);
    let attention = hidden * hidden * (2.0 + 2.0 * kv_heads / heads);
    let mlp = hidden * ffn * if row.gated_mlp == Some(true) { 3.0 } else { 2.0 };
    let held = layers * (attention + mlp) / (row.tp as f64 * row.pp as f64);
    let parts = if row.zero_stage > 0 { row.dp.unwrap_or(1).max(1) } else { 1 };
    let states = held * (ON_EVERY_RANK + OF_THE_OPTIMIZER / parts as f64);
    Some(states > cluster.gpu.memory.0 as f64)
}

/// How DeepSpeed's ZeRO 3 fetches parameters unless it is told otherwise (`deepspeed/runtime/zero/config.py`,
/// `constants.py`), and how its versions of 2021 did it: one by one, through lists.
pub(super) const DEEPSPEED: &str =
    "prefetch_values = 50000000\npersistence_threshold = 100000\ngather_lists = true\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn citations_tell_years() {
        assert_eq!(year("Narayanan et al. 2021, Efficient (arXiv 2104.04473) T1"), Some(2021));
        assert_eq!(year("Zero Bubble Pipeline Parallelism, arXiv 2401.10241 T4"), None);
        assert_eq!(year("NVIDIA/NeMo:docs/source/performance/performance_summary.md"), None);
    }

    #[test]
    fn sizes_beyond_all_memory_are_told() {
        let row = |tp, pp| Measurement {
            task: "train".to_owned(),
            outcome: Some("ok".to_owned()),
            layers: Some(u64::MAX),
            hidden: Some(u64::MAX),
            ffn: Some(4096),
            heads: Some(16),
            tp,
            pp,
            ..Measurement::default()
        };
        assert!(must_shard(&row(1, 1), "dgx-h100"));
        assert!(must_shard(&row(u64::MAX, u64::MAX), "dgx-h100"));
    }

    #[test]
    fn an_unlisted_micro_batch_is_as_large_as_is_of_use() {
        let row = |global, pp, notes: &str| Measurement {
            micro_batch: Some(1),
            global_batch: Some(global),
            dp: Some(32),
            pp,
            notes: notes.to_owned(),
            ..Measurement::default()
        };
        let unlisted = "microbatch size not listed";
        assert_eq!(micro_batch(&row(512, 1, unlisted)), Some(8));
        assert_eq!(micro_batch(&row(384, 1, unlisted)), Some(4));
        assert_eq!(micro_batch(&row(512, 2, unlisted)), Some(1));
        assert_eq!(micro_batch(&row(512, 1, "")), Some(1));
    }

    /// GPT of 96 layers of 12,288 has 174e9 parameters in its blocks: 2.8 TB of states, 29 GB over 96 ranks.
    #[test]
    fn states_beyond_the_memory_were_sharded() {
        let row = |tp, pp| Measurement {
            outcome: Some("ok".to_owned()),
            layers: Some(96),
            hidden: Some(12288),
            heads: Some(96),
            ffn: Some(49152),
            tp,
            pp,
            ..Measurement::default()
        };
        assert!(must_shard(&row(1, 1), "dgx-a100-80gb"));
        assert!(!must_shard(&row(8, 12), "dgx-a100-80gb"));
        let failed = Measurement { outcome: Some("out_of_memory".to_owned()), ..row(1, 1) };
        assert!(!must_shard(&failed, "dgx-a100-80gb"));
    }
}
