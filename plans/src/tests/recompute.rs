//! What is recomputed: modules by themselves, and some of a chunk's blocks.

use steptime_models::AttentionKind;

use super::fixtures::{cluster, model, plan, play, workload};
use super::memory::most_held;
use crate::classes;
use crate::recompute::{CheckpointedBlocks, Checkpointing, Recomputed, RecomputedModule, RecomputedModules};
use crate::schedule::ScheduleKind;
use crate::workload::Workload;
use crate::zero::ZeroStage;

/// DeepSeek-V3's block: hidden 7168, 128 heads of 128 + 64 for queries and keys and 128 for values, compressed to 1536 and
/// 512; dense feed-forward of 18432, experts of 2048, 8 a token and one shared. Two bytes a value.
#[test]
fn a_module_drops_what_it_makes_and_keeps_what_enters_it() {
    let deepseek = model("deepseek-v3", 5);
    let work = workload(1);
    let tokens = work.sequence_length * work.micro_batch_size;
    let p = plan(1, 1, ScheduleKind::GPipe, ZeroStage::Zero);
    let shape = p.shape(&work, deepseek.experts(), 0);
    let (dense, routed) = (1, 5);
    let heads = 128 * (192 + 192) + 128 * 256;
    for (module, layer, dropped) in [
        // Both norms' results and, 32-bit, what they divide by.
        (RecomputedModule::LayerNorm, dense, tokens * 2 * (7168 * 2 + 4)),
        // Queries and keys joined from both parts, keys and values as they come, and the two compressed ones' norms.
        (RecomputedModule::UpProjection, dense, tokens * ((heads + 1536 + 512) * 2 + 2 * 4)),
        // Gate, its activation, up, and their product.
        (RecomputedModule::Mlp, dense, tokens * 4 * 18432 * 2),
        // The logarithms of the softmax's sums, 32-bit; the result is the projection's to keep.
        (RecomputedModule::CoreAttention, dense, tokens * 128 * 4),
        // The activation of the gate and its product with the other half.
        (RecomputedModule::MoeActivation, routed, tokens * 8 * 2 * 2048 * 2),
        (RecomputedModule::SharedExperts, routed, tokens * 4 * 2048 * 2),
        (RecomputedModule::Moe, dense, 0),
        (RecomputedModule::Mlp, routed, 0),
    ] {
        let recomputes = Recomputed::Modules(RecomputedModules::default().with(module));
        let layer = deepseek.work(layer, &shape);
        let gone = layer.saved.iter().filter(|tensor| !recomputes.keeps(&layer, tensor));
        assert_eq!(gone.map(|tensor| tensor.bytes.0).sum::<u64>(), dropped, "{module:?}");
        assert_eq!(layer.forward.iter().any(|operation| recomputes.again(operation)), dropped > 0);
    }
}

/// Two blocks on the middle of three stages, GPipe with two micro-batches: one waits with what it kept while the other
/// goes back. A block keeps sbh (34 + 5 as/h) bytes, 2 sbh of them its input (Korthikanti et al. 2022, equation 1).
#[test]
fn some_blocks_of_a_chunk_keep_everything() {
    let gpt = model("gpt3-175b", 6);
    let (s, h, a) = (2048_u64, 12288_u64, 96_u64);
    let (whole, input) = (s * h * 34 + 5 * a * s * s, 2 * s * h);
    let played = |checkpointing, checkpointed| {
        let work = Workload {
            checkpointing,
            checkpointed,
            attention: AttentionKind::Eager,
            sequence_length: s,
            ..workload(2)
        };
        let p = plan(1, 3, ScheduleKind::GPipe, ZeroStage::Zero);
        let dgx = cluster("dgx-h100").with_size(1, 3).expect("three of eight");
        let (lowered, outcome) = play(&gpt, &dgx, &p, &work);
        (most_held(&lowered, 1, classes::ACTIVATIONS), outcome.end, lowered.executed_flops)
    };
    let full = |checkpointed| played(Checkpointing::Full, checkpointed);
    let none = played(Checkpointing::None, CheckpointedBlocks::Each);
    let each = full(CheckpointedBlocks::Each);
    for (found, expected) in [
        (none, 4 * whole),
        // Of one micro-batch two inputs, of the other an input and the block that is going back.
        (each, 3 * input + whole),
        // The first block's input and all of the second, of both.
        (full(CheckpointedBlocks::First(1)), 2 * (input + whole)),
        // One input for both blocks, which come back together.
        (full(CheckpointedBlocks::Groups(2)), input + 2 * whole),
    ] {
        let (found, expected) = (found.0 as f64, expected as f64);
        assert!((found / expected - 1.0).abs() < 0.001, "{found} against {expected}");
    }
    assert_eq!(full(CheckpointedBlocks::First(2)), each);
    let half = full(CheckpointedBlocks::First(1));
    assert!(none.1 < half.1 && half.1 < each.1, "fewer blocks, less time");
    // Forward of all blocks again, of half of them, or of none.
    assert!((half.2 - none.2 - (each.2 - none.2) / 2.0).abs() < 1e-6 * none.2);
    assert!((full(CheckpointedBlocks::Groups(2)).2 / each.2 - 1.0).abs() < 1e-12);
}
