//! What Megatron-LM and its libraries hold, tensor by tensor.

use steptime_clusters::Framework;
use steptime_models::{AttentionKind, CrossEntropy, Modules};

use super::fixtures::{cluster, model, plan, play, workload};
use crate::classes;
use crate::schedule::ScheduleKind;
use crate::workload::{Checkpointing, Workload};
use crate::zero::ZeroStage;

const MIB: u64 = 1 << 20;

/// Four sequences of 1,024 tokens, as Megatron-LM trains.
fn megatron(micro_batches: u64) -> Workload {
    Workload {
        framework: Framework::Megatron,
        modules: Modules::TransformerEngine,
        cross_entropy: CrossEntropy::VocabularyParallel,
        attention: AttentionKind::Flash3,
        wide_gradients: true,
        micro_batch_size: 4,
        sequence_length: 1024,
        ..workload(micro_batches)
    }
}

/// Bytes at the fullest moment of the only rank, and after the step, without the CUDA context.
fn held(work: &Workload, gpus: &str) -> [u64; 2] {
    let gpt = model("gpt2", 12);
    let gpus = cluster(gpus).with_size(1, 1).expect("one of eight");
    let p = plan(1, 1, ScheduleKind::OneForwardOneBackward, ZeroStage::Zero);
    let memory = play(&gpt, &gpus, &p, work).1.ranks[0].memory.clone();
    let context = gpus.gpu.context.0;
    [memory.peak - context, memory.end_by_category.iter().sum::<u64>() - context]
}

#[test]
fn the_fullest_moment_is_the_sum_of_its_tensors() {
    // The loss, forward: logits in 16 and in 32 bits. Beside them what checkpoints of whole blocks keep, the input of the
    // last norm, its result, and its two statistics a row; the mask of the embedding's dropout; ids and labels, the ids
    // once more as what the embedding keeps, and the mask that the loader made.
    let work = Workload { checkpointing: Checkpointing::Full, attention_mask: true, ..megatron(1) };
    let [peak, after] = held(&work, "dgx-h100");
    let (rows, width, vocabulary) = (4 * 1024_u64, 768, 50_257);
    let hidden = 2 * rows * width;
    let kept = 12 * hidden + 2 * hidden + 8 * rows + rows * width;
    let batch = 2 * 8 * rows + 8 * rows + 4 * 1024 * 1024;
    assert_eq!(peak - after, 6 * rows * vocabulary + kept + batch);
    let parameters = model("gpt2", 12).parameters();
    assert_eq!(after, 18 * parameters + 3 * 32 * MIB);
}

#[test]
fn workspaces_follow_library_and_gpu() {
    let parameters = model("gpt2", 12).parameters();
    let workspace = |work: &Workload, gpus| held(work, gpus)[1] - 18 * parameters;
    let base = megatron(1);
    let torch = Workload { modules: Modules::PyTorch, framework: Framework::PyTorch, ..base.clone() };
    // Two handles of `:4096:2:16:8` before Hopper, of 32 MiB from there on.
    assert_eq!(workspace(&torch, "dgx-a100-80gb"), 2 * (8 * MIB + (128 << 10)));
    assert_eq!(workspace(&torch, "dgx-h100"), 64 * MIB);
    assert_eq!(workspace(&base, "dgx-a100-80gb"), 2 * (8 * MIB + (128 << 10)) + 4 * MIB);
    assert_eq!(workspace(&base, "dgx-h100"), 96 * MIB);
    let deterministic = Workload { deterministic: true, ..base.clone() };
    assert_eq!(workspace(&deterministic, "dgx-a100-80gb"), 68 * MIB);
    // The scores of one layer, 12 heads, in the buffer of all: a measured run of Megatron-LM (12 layers of 512, 8 heads)
    // holds 128 MiB beside its states, of which 64 are such scores.
    let local =
        Workload { modules: Modules::MegatronLocal, attention: AttentionKind::Eager, ..deterministic };
    assert_eq!(workspace(&local, "dgx-a100-80gb"), 64 * MIB + 2 * 4 * 12 * 1024 * 1024);
}

#[test]
fn stand_ins_have_the_shapes_of_one_block() {
    let fused = Workload { accumulation_fusion: true, ..megatron(1) };
    let matrices = 12 * 768 * 768_u64;
    assert_eq!(held(&fused, "dgx-h100")[1] - held(&megatron(1), "dgx-h100")[1], 2 * matrices);
    let local = |accumulation_fusion| Workload {
        accumulation_fusion,
        modules: Modules::MegatronLocal,
        ..megatron(1)
    };
    assert_eq!(held(&local(true), "dgx-h100")[1], held(&local(false), "dgx-h100")[1]);
}

#[test]
fn stages_keep_their_last_input_and_its_gradient() {
    let gpt = model("gpt2", 12);
    let gpus = cluster("dgx-h100").with_size(1, 2).expect("two of eight");
    let p = plan(1, 2, ScheduleKind::OneForwardOneBackward, ZeroStage::Zero);
    let buffers = |work: &Workload| {
        let outcome = play(&gpt, &gpus, &p, work).1;
        [0, 1].map(|rank: usize| outcome.ranks[rank].memory.end_by_category[usize::from(classes::BUFFERS.0)])
    };
    let hidden = 2 * 4 * 1024 * 768;
    assert_eq!(buffers(&megatron(4)), [0, 2 * hidden]);
    let torch = Workload { framework: Framework::PyTorch, modules: Modules::PyTorch, ..megatron(4) };
    assert_eq!(buffers(&torch), [0, 0]);
}

#[test]
fn gradients_of_16_bits_are_widened_for_the_update() {
    // 2 + 2 + 12 bytes a parameter while backward runs, and 4 more from the update on.
    let narrow = Workload { wide_gradients: false, ..megatron(1) };
    let wide = held(&megatron(1), "dgx-h100");
    let found = held(&narrow, "dgx-h100");
    let parameters = model("gpt2", 12).parameters();
    assert_eq!(wide[0] - found[0], 2 * parameters);
    assert_eq!(found[1] - wide[1], 2 * parameters);
}

#[test]
fn the_package_flash_attn_takes_copies_of_several_sequences() {
    // One result a block more is kept: the kernel's own, and the copy with the sequence outermost that the projection
    // keeps. Queries, keys and values are kept as copies in the place of what the product made.
    let flash = |size, attention| {
        held(&Workload { micro_batch_size: size, attention, ..megatron(1) }, "dgx-a100-80gb")[0]
    };
    let more = |size| flash(size, AttentionKind::Flash) - flash(size, AttentionKind::Flash3);
    assert_eq!(more(4), 12 * 2 * 4 * 1024 * 768);
    assert_eq!(more(1), 0);
}

#[test]
fn compiled_losses_hold_a_second_copy() {
    let peak = |cross_entropy| held(&Workload { cross_entropy, ..megatron(1) }, "dgx-h100")[0];
    let more = peak(CrossEntropy::VocabularyParallelCompiled) - peak(CrossEntropy::VocabularyParallel);
    assert_eq!(more, 4 * 4 * 1024 * 50_257);
}
