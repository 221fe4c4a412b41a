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
/// passes over the samples end before, and starts its clock before the first. Boards before Ampere were given a
/// thousand steps and more (`config_v0`) in the older container, over which the start does not count.
///
/// The start takes 4 s: what published times of single boards leave over a hundred steps, 3 to 5 s on all from the RTX
/// 3090 to the H100 (handles of libraries, kernels compiled at first use).
pub(super) fn benchmark(row: &Measurement) -> String {
    let older = ["v100", "rtx8000"].iter().any(|name| row.gpu.starts_with(name));
    let many = older && row.framework.contains("NGC");
    let micro =
        row.micro_batch.filter(|_| row.source == BENCHMARK && row.model.starts_with("bert-") && !many);
    let Some(micro) = micro else { return String::new() };
    let pass = SQUAD_SAMPLES.div_ceil(row.gpus_per_node.max(1)).div_ceil(micro.max(1));
    let run = (2 * pass).min(101);
    format!("\n[benchmark]\nsteps = 100\nsteps_run = {run}\nstart_seconds = 4\n")
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
        assert_eq!(benchmark(&row(4, 108, "rtx8000")), "");
        assert!(!has_peer_access(&row(2, 36, "rtx8000")) && has_peer_access(&row(1, 36, "rtx8000")));
    }
}
