//! What the tables of Lambda's PyTorch benchmark leave unsaid. It runs NVIDIA's published training scripts with batches
//! that fill the memory, and its rows called `resnet50` hold two of them: the classifier and the detector SSD300, whose
//! backbone is a ResNet-50. The benchmark's configurations (lambdal/deeplearning-benchmark, `pytorch/scripts`) give every
//! board's batches of both, which never come near each other.

use steptime_clusters::{ClusterEntry, cluster_from_catalogue};

use super::measurement::Measurement;

/// The benchmark, as the tables' column `source` names it.
const BENCHMARK: &str = "lambdal/deeplearning-benchmark";

/// The detector in the model catalogue.
const DETECTOR: &str = "ssd300-resnet50";

/// Images in 16 bits for each GiB of memory: the classifier's published batches are 16 to 20 (half of them in 32 bits),
/// the detector's 5.5 to 6.7.
const BETWEEN: f64 = 10.5;

/// The model that a row trains, where its batch says that it is another than the one it is called by.
pub(super) fn model(row: &Measurement, cluster: &str) -> Option<&'static str> {
    if row.model != "resnet50" || row.source != BENCHMARK {
        return None;
    }
    let Ok(ClusterEntry::Nodes(cluster)) = cluster_from_catalogue(cluster) else { return None };
    let memory = cluster.gpu.memory.0 as f64 / super::GIB;
    let values = if row.precision == "fp16" { 1.0 } else { 2.0 };
    (row.micro_batch? as f64 * values / memory < BETWEEN).then_some(DETECTOR)
}

/// Whether the update loops over tensors in Python: NVIDIA's script fine-tunes BERT in 32 bits by an optimizer of its
/// own (`BertAdam` in `optimization.py`), and only in 16 bits by Apex's fused one.
pub(super) fn updates_in_a_loop(row: &Measurement) -> bool {
    row.source == BENCHMARK && row.model.starts_with("bert-") && row.precision != "fp16"
}

/// What NVIDIA's script does to BERT's gradients: it clips them by a norm that the host reads, and in 16 bits has Apex
/// scale the loss (`run_squad.py`).
pub(super) fn gradients(row: &Measurement) -> &'static str {
    if row.source != BENCHMARK || !row.model.starts_with("bert-") {
        ""
    } else if row.precision == "fp16" {
        "gradient_clipping = \"host\"\nloss_scaling = true\n"
    } else {
        "gradient_clipping = \"host\"\n"
    }
}

/// Whether GPUs reach each other's memory: the benchmark sets `NCCL_P2P_DISABLE=1` for all tasks (`benchmark_pytorch.sh`),
/// so that bridged and unbridged boards come out alike.
pub(super) fn has_peer_access(row: &Measurement) -> bool {
    row.source != BENCHMARK || row.gpus_per_node == 1
}

/// What the time of BERT's steps covers: `run_squad.py` makes one step more than the 100 that it divides by, unless its two
/// passes over the samples end before, and starts its clock before the first.
///
/// The start takes 4 s: what published times of single boards leave over a hundred steps, 3 to 5 s on all from the RTX
/// 3090 to the H100 (handles of libraries, kernels compiled at first use).
pub(super) fn benchmark(row: &Measurement) -> String {
    if row.source != BENCHMARK || !row.model.starts_with("bert-") {
        return String::new();
    }
    let Some(micro) = row.micro_batch else { return String::new() };
    let (micro, gpus) = (micro.max(1), row.gpus_per_node.max(1));
    if row.framework.contains("NGC")
        && let Some(batch) = micro.checked_mul(gpus)
        && let Some(samples) = samples_of_older_script(row, batch)
    {
        return older_benchmark(row, samples, batch);
    }
    let pass = SQUAD_SAMPLES.div_ceil(gpus).div_ceil(micro);
    let run = (2 * pass).min(101);
    format!("\n[benchmark]\nsteps = 100\nsteps_run = {run}\nstart_seconds = 4\n")
}

/// Samples of a pass for boards before Ampere, whose runs were made with an older `run_squad.py`: it reads as many samples
/// as it is told steps (`max_steps` of their configurations), and a few more that complete a text. `None` for other boards.
fn samples_of_older_script(row: &Measurement, batch: u64) -> Option<u64> {
    if row.gpu.starts_with("rtx8000") {
        // On one board as on eight (logs).
        Some(if row.precision == "fp16" { 2055 } else { 1033 })
    } else if row.gpu.starts_with("v100") {
        // Batches a pass in configurations of two and of eight boards and in logs: 35 to 40 of the smaller model, 42 to 78
        // of the larger. The last is half full.
        let of_pass = if row.model.starts_with("bert-base") { 38 } else { 60 };
        Some(batch.saturating_mul(of_pass).saturating_sub(batch / 2))
    } else {
        None
    }
}

/// What the older script's time covers, as its logs show: two passes, of which the time that its progress bar has smoothed
/// counts, 0.7 of the first and 0.3 of the second; over the steps of a pass, in the later logs (RTX 8000) one less.
///
/// The first step takes longer than others by 0.8 s on one board, 1.6 s on four, 3.4 to 6 s on eight, whose collective
/// library starts in it: half a second a board.
fn older_benchmark(row: &Measurement, samples: u64, batch: u64) -> String {
    let of_pass = samples.div_ceil(batch);
    let steps = if row.gpu.starts_with("rtx8000") { (of_pass - 1).max(1) } else { of_pass };
    let run = samples.saturating_mul(2).saturating_add(batch / 2) / batch;
    let start = 2.0 * 0.7 * 0.5 * row.gpus_per_node.max(1) as f64;
    format!("\n[benchmark]\nsteps = {}\nsteps_run = {run}\nstart_seconds = {start:.2}\n", 2 * steps)
}

/// Windows of 384 tokens, 128 apart, that the training questions of SQuAD 1.1 are cut into (logs of `run_squad.py`).
const SQUAD_SAMPLES: u64 = 88_524;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_batch_tells_the_detector_from_the_classifier() {
        let row = |batch, precision: &str| Measurement {
            model: "resnet50".to_owned(),
            source: BENCHMARK.to_owned(),
            micro_batch: Some(batch),
            precision: precision.to_owned(),
            ..Measurement::default()
        };
        // config_pytorch_QuadroRTX8000.sh: 928 and 496 images of the classifier, 288 and 158 of the detector.
        for (batch, precision, detects) in [
            (928, "fp16", false),
            (496, "fp32 (tf32 possible)", false),
            (288, "fp16", true),
            (158, "fp32", true),
        ] {
            let found = model(&row(batch, precision), "rtx8000-pcie-8");
            assert_eq!(found, detects.then_some(DETECTOR), "{batch} in {precision}");
        }
        let other = Measurement { source: "elsewhere".to_owned(), ..row(288, "fp16") };
        assert_eq!(model(&other, "rtx8000-pcie-8"), None);
    }

    /// 88,524 samples over 8 boards are 11,066, in batches of 320 35 steps a pass.
    #[test]
    fn steps_end_with_the_samples() {
        let row = |gpus, batch, gpu: &str| Measurement {
            model: "bert-base-squad".to_owned(),
            source: BENCHMARK.to_owned(),
            gpu: gpu.to_owned(),
            framework: "pytorch NGC 2020-2021".to_owned(),
            gpus_per_node: gpus,
            micro_batch: Some(batch),
            ..Measurement::default()
        };
        assert!(benchmark(&row(8, 320, "h100-sxm5-80gb")).contains("steps_run = 70\n"));
        assert!(benchmark(&row(4, 320, "h100-sxm5-80gb")).contains("steps_run = 101\n"));
        // Batches that no number holds.
        for batch in [1 << 32, u64::MAX, u64::MAX / 2] {
            for gpus in [1, 2, 1 << 32] {
                benchmark(&row(gpus, batch, "rtx8000"));
                benchmark(&row(gpus, batch, "v100-sxm2-32gb"));
            }
        }
        // Logs of eight and of one RTX 8000: 8 and 37 steps a pass, of which 7 and 36 are counted; of 8 V100: 36 of 36.
        let older = |gpus, batch, gpu, precision: &str| {
            benchmark(&Measurement { precision: precision.to_owned(), ..row(gpus, batch, gpu) })
        };
        let rest = |start| format!("start_seconds = {start}\n");
        let eight = older(8, 36, "rtx8000", "fp16");
        assert!(eight.contains("steps = 14\nsteps_run = 14\n") && eight.ends_with(&rest("5.60")), "{eight}");
        let one = older(1, 28, "rtx8000", "fp32");
        assert!(one.contains("steps = 72\nsteps_run = 74\n") && one.ends_with(&rest("0.70")), "{one}");
        let volta = older(8, 72, "v100-sxm2-32gb", "fp16");
        assert!(volta.contains("steps = 76\nsteps_run = 75\n"), "{volta}");
        assert!(!has_peer_access(&row(2, 36, "rtx8000")) && has_peer_access(&row(1, 36, "rtx8000")));
    }
}
