//! Model states by ZeRO stage, and activations by checkpointing.

use super::fixtures::{cluster, model, plan, play, workload};
use crate::classes;
use crate::schedule::ScheduleKind;
use crate::workload::{Checkpointing, Precision, Task, Workload};
use crate::zero::{Held, ZeroStage, state_bytes};

/// Most bytes of a category that a rank holds at once, whenever that is.
/// Most that a rank holds of a category at once.
pub(super) fn most_held(lowered: &crate::Lowered, rank: u32, category: steptime_core::Category) -> u64 {
    let mut recorder = steptime_core::Recorder::default();
    steptime_core::simulate(&lowered.world, &mut recorder).expect("no deadlock");
    let (mut held, mut most) = (0_i64, 0);
    for record in recorder.memory_records() {
        if record.rank == rank && record.category == category {
            held += record.delta;
            most = most.max(held);
        }
    }
    most.unsigned_abs()
}

const STAGES: [ZeroStage; 4] = [ZeroStage::Zero, ZeroStage::One, ZeroStage::Two, ZeroStage::Three];

#[test]
fn mixed_precision_adam_costs_what_the_zero_paper_says() {
    // Rajbhandari et al. 2020, figure 1: 16, 4 + 12/N, 2 + 14/N, 16/N bytes a parameter.
    let parameters = 7_500_000_000_u64;
    for n in [1_u64, 2, 4, 8, 64, 1000] {
        let shard = parameters / n;
        let expected =
            [16 * parameters, 4 * parameters + 12 * shard, 2 * parameters + 14 * shard, 16 * shard];
        for (stage, bytes) in STAGES.into_iter().zip(expected) {
            assert_eq!(
                state_bytes(&workload(1), stage, n, Held::trained(parameters)).total(),
                bytes,
                "{stage:?}, N = {n}"
            );
        }
    }
}

#[test]
fn the_zero_papers_example_in_gigabytes() {
    // The same figure: 7.5 B parameters over 64 ranks need 120, 31.4, 16.6 and 1.9 GB.
    let gb = |stage| state_bytes(&workload(1), stage, 64, Held::trained(7_500_000_000)).total() as f64 / 1e9;
    let rounded: Vec<f64> = STAGES.into_iter().map(|stage| (gb(stage) * 10.0).round() / 10.0).collect();
    assert_eq!(rounded, [120.0, 31.4, 16.6, 1.9]);
}

#[test]
fn other_precisions_and_tasks() {
    let base = workload(1);
    let fp32 = Workload { precision: Precision::Fp32, ..base.clone() };
    assert_eq!(state_bytes(&fp32, ZeroStage::Zero, 4, Held::trained(100)).total(), 1600);
    // Under autocast: 4 bytes of weight, 4 of gradient, 8 of moments, and no copy of the weights.
    let autocast =
        state_bytes(&Workload { autocast: true, ..base.clone() }, ZeroStage::Zero, 4, Held::trained(100));
    assert_eq!((autocast.parameters, autocast.gradients, autocast.optimizer_states), (400, 400, 800));
    let inference = Workload { task: Task::Inference, ..base };
    assert_eq!(state_bytes(&inference, ZeroStage::Zero, 4, Held::trained(100)).total(), 200);
    // Autocast: weights, gradients and both moments in 32 bits, and no other copy of the weights.
    // FSDP's mixed precision: the same 16 bytes, all of them partitioned.
    let wide = Workload { wide_parameters: true, ..workload(1) };
    assert_eq!(state_bytes(&wide, ZeroStage::Three, 4, Held::trained(100)).total(), 400);
    let autocast = Workload { autocast: true, ..workload(1) };
    assert_eq!(state_bytes(&autocast, ZeroStage::Zero, 4, Held::trained(100)).total(), 1600);
    // A shard that does not divide is padded: 10 values over 4 ranks are 3 each.
    assert_eq!(state_bytes(&fp32, ZeroStage::Three, 4, Held::trained(10)).parameters, 12);
}

#[test]
fn every_rank_holds_its_states_to_the_end_of_the_step() {
    let gpt = model("gpt2", 4);
    for stage in STAGES {
        let p = plan(4, 2, ScheduleKind::OneForwardOneBackward, stage);
        let (lowered, outcome) = play(&gpt, &cluster("dgx-h100"), &p, &workload(4));
        for (played, rank) in lowered.ranks.iter().zip(&outcome.ranks) {
            let states = lowered.stages[played.stage].states;
            let end = rank.memory.end_by_category;
            let held = |category: steptime_core::Category| end[usize::from(category.0)];
            assert_eq!(held(classes::PARAMETERS), states.parameters);
            // Gradients are flat buffers with ZeRO 1 and 2; else they go with the update.
            let flat = matches!(stage, ZeroStage::One | ZeroStage::Two);
            assert_eq!(held(classes::GRADIENTS), if flat { states.gradients } else { 0 });
            assert_eq!(held(classes::OPTIMIZER_STATES), states.optimizer_states);
            assert_eq!(held(classes::ACTIVATIONS), 0, "activations outlive the step");
        }
    }
}

#[test]
fn parameters_of_the_stages_add_up_to_the_model() {
    // GPT-2 shares the embedding with the head: the last of several stages holds a copy of it.
    let gpt = model("gpt2", 12);
    let copy = 50_257 * 768;
    for pipeline in [1_u64, 2, 4] {
        let p = plan(8 / pipeline, pipeline, ScheduleKind::GPipe, ZeroStage::Zero);
        let (lowered, _) = play(&gpt, &cluster("dgx-h100"), &p, &workload(4));
        let held: u64 = lowered.stages.iter().map(|stage| stage.parameters).sum();
        assert_eq!(held, gpt.parameters() + if pipeline > 1 { copy } else { 0 });
    }
}

#[test]
fn checkpointing_trades_activations_for_time() {
    let gpt = model("gpt3-175b", 4);
    let mut peaks = Vec::new();
    let mut times = Vec::new();
    for checkpointing in [Checkpointing::None, Checkpointing::Selective, Checkpointing::Full] {
        let work = Workload {
            checkpointing,
            attention: steptime_models::AttentionKind::Eager,
            sequence_length: 2048,
            ..workload(1)
        };
        let p = plan(1, 4, ScheduleKind::GPipe, ZeroStage::Zero);
        let dgx = cluster("dgx-h100").with_size(1, 4).expect("four of eight");
        let (lowered, outcome) = play(&gpt, &dgx, &p, &work);
        peaks.push(most_held(&lowered, 1, classes::ACTIVATIONS));
        times.push(outcome.end);
    }
    // Korthikanti et al. 2022, equation 1: one layer keeps sbh (34 + 5 as/h) bytes. With one layer a stage both
    // kinds of checkpointing make all of it again at the start of backward; they differ in what they keep until
    // then, and full checkpointing runs more again.
    let (s, h, a) = (2048_u64, 12288_u64, 96_u64);
    let none = s * h * 34 + 5 * a * s * s;
    for peak in &peaks {
        assert!((*peak as f64 / none as f64 - 1.0).abs() < 0.01, "{peak} against {none}");
    }
    assert!(times[0] < times[1] && times[1] < times[2], "{times:?}");
}

#[test]
fn a_micro_batch_that_waits_holds_what_checkpointing_keeps() {
    // Two micro-batches in flight on the middle stage of GPipe: one holds a whole layer in backward, the other
    // what it kept: sbh (34 + 5 as/h), 34 sbh, or the input alone, 2 sbh (Korthikanti et al. 2022, table 2).
    let gpt = model("gpt3-175b", 3);
    let (s, h, a) = (2048_u64, 12288_u64, 96_u64);
    let whole = s * h * 34 + 5 * a * s * s;
    for (checkpointing, kept) in [
        (Checkpointing::None, whole),
        (Checkpointing::Selective, 34 * s * h),
        (Checkpointing::Full, 2 * s * h),
    ] {
        let work = Workload {
            checkpointing,
            attention: steptime_models::AttentionKind::Eager,
            sequence_length: s,
            ..workload(2)
        };
        let p = plan(1, 3, ScheduleKind::GPipe, ZeroStage::Zero);
        let dgx = cluster("dgx-h100").with_size(1, 3).expect("three of eight");
        let (lowered, _) = play(&gpt, &dgx, &p, &work);
        let peak = most_held(&lowered, 1, classes::ACTIVATIONS);
        let expected = (whole + kept) as f64;
        assert!((peak as f64 / expected - 1.0).abs() < 0.001, "{checkpointing:?}: {peak} against {expected}");
    }
}

#[test]
fn in_flight_micro_batches_set_the_activations_of_a_stage() {
    // Equal blocks on the two middle stages of four: stage 1 holds 3 micro-batches, stage 2 holds 2.
    let gpt = model("gpt2", 8);
    let p = plan(1, 4, ScheduleKind::OneForwardOneBackward, ZeroStage::Zero);
    let dgx = cluster("dgx-h100").with_size(1, 4).expect("four of eight");
    let (lowered, _) = play(&gpt, &dgx, &p, &workload(8));
    let held = |stage| most_held(&lowered, stage, classes::ACTIVATIONS);
    assert_eq!(held(1) * 2, held(2) * 3);
}

#[test]
fn inference_holds_the_logits() {
    // 32 sequences of 1,024 tokens over 50,257 words in 16 bits: 3.1 GiB beside weights of 0.23 GiB.
    let gpt = model("gpt2", 12);
    let gpus = cluster("dgx-h100").with_size(1, 1).expect("one of eight");
    let work = Workload { task: Task::Inference, micro_batch_size: 32, sequence_length: 1024, ..workload(1) };
    let p = plan(1, 1, ScheduleKind::GPipe, ZeroStage::Zero);
    let (_, outcome) = play(&gpt, &gpus, &p, &work);
    let logits = 32 * 1024 * 50_257 * 2;
    let hidden = 32 * 1024 * 768 * 2;
    let memory = &outcome.ranks[0].memory;
    let activations = memory.peak_by_category[usize::from(classes::ACTIVATIONS.0)];
    assert_eq!(activations, logits + hidden, "the head's input and output");
    assert_eq!(memory.end_by_category[usize::from(classes::ACTIVATIONS.0)], 0);
}

#[test]
fn zero_3_holds_two_gathered_layers_forward_and_three_backward() {
    // The host may be two gathered layers ahead; backward asks for one more before it waits.
    let llama = model("llama3-8b", 8);
    let p = plan(8, 1, ScheduleKind::GPipe, ZeroStage::Three);
    let gpus = cluster("dgx-h100");
    let block = 2 * llama.layers[1].parameter_count();
    let lowered = crate::lower(&llama, &gpus, &p, &workload(1)).expect("legal");
    let mut recorder = steptime_core::Recorder::default();
    steptime_core::simulate(&lowered.world, &mut recorder).expect("no deadlock");
    let program = &lowered.world.programs()[0];
    let mut held = 0_i64;
    let mut most = [0_i64; 2];
    let mut backward = false;
    for record in recorder.memory_records() {
        let spec = program.tensor_spec(record.tensor).expect("a tensor of the program");
        let name = program.label(spec.label);
        backward |= name.ends_with("backward temporaries");
        if name.starts_with("block") && name.ends_with("gathered parameters") {
            held += record.delta;
            most[usize::from(backward)] = most[usize::from(backward)].max(held);
        }
    }
    assert_eq!(most, [2 * block.cast_signed(), 3 * block.cast_signed()]);
}

#[test]
fn foreach_updates_make_a_list() {
    use crate::workload::OptimizerImplementation::{Foreach, Fused};
    let gpt = model("gpt2", 12);
    let gpus = cluster("dgx-h100").with_size(1, 1).expect("one of eight");
    let p = plan(1, 1, ScheduleKind::GPipe, ZeroStage::Zero);
    let peak = |implementation| {
        // So few tokens that the update is the fullest moment.
        let work =
            Workload { implementation, precision: Precision::Fp32, sequence_length: 16, ..workload(1) };
        play(&gpt, &gpus, &p, &work).1.ranks[0].memory.peak
    };
    let workspace = peak(Foreach) - (16 * gpt.parameters() + gpus.gpu.context.0);
    assert!(workspace >= 4 * gpt.parameters(), "{workspace}");
    assert!(peak(Fused) < peak(Foreach));
}

/// Megatron-LM's `accumulate_allreduce_grads_in_fp32`: 2 + 4 + 12 bytes a parameter (Rajbhandari et al. 2020 counts
/// 2 + 2 + 12); partitioned optimizer states leave 6 + 12 / N.
#[test]
fn gradients_in_32_bits_take_two_bytes_more() {
    let wide = Workload { wide_gradients: true, ..workload(1) };
    let total = |stage, ranks| state_bytes(&wide, stage, ranks, Held::trained(100)).total();
    assert_eq!(total(ZeroStage::Zero, 4), 1800);
    assert_eq!(total(ZeroStage::One, 4), 600 + 1200 / 4);
    assert_eq!(total(ZeroStage::Two, 4), 200 + 1600 / 4);
}

#[test]
fn formats_of_exchange_follow_the_parameters_unless_given() {
    use steptime_models::Dtype;

    let sharded = plan(8, 1, ScheduleKind::OneForwardOneBackward, ZeroStage::Three);
    let uniform = workload(1);
    assert_eq!(sharded.gathered_format(&uniform), Dtype::Bf16);
    let autocast = Workload { autocast: true, ..uniform };
    assert_eq!(sharded.gathered_format(&autocast), Dtype::Fp32);
    assert_eq!(sharded.reduced_format(&autocast), Dtype::Fp32);
    let exchange = crate::ExchangeFormats { gather: Some(Dtype::Bf16), reduce: None };
    let mixed = crate::Plan { exchange, ..sharded };
    assert_eq!(mixed.reduced_format(&autocast), Dtype::Bf16);
    let formats = steptime_models::Formats::Autocast { parameters: Dtype::Bf16, low_precision_norms: false };
    assert_eq!(mixed.balanced_shape(&autocast).formats, formats);
    // A single rank gathers nothing.
    assert_eq!(crate::Plan { data: 1, ..mixed }.gathered_format(&autocast), Dtype::Fp32);
}

/// nanotron's gradients pass through PyTorch DDP's buckets with ZeRO 0 and 1, 2 bytes a parameter; with ZeRO 1 the
/// coalesced gather of the weights leaves the buffer of all parts and that of the rank's own. Other stages have neither.
#[test]
fn buffers_of_nanotron_between_steps() {
    use steptime_clusters::Framework::{Nanotron, PyTorch};

    let gpt = model("gpt2", 4);
    let gpus = cluster("dgx-h100");
    let left = |framework, zero| {
        let work = Workload { framework, wide_gradients: true, ..workload(1) };
        let plan = plan(8, 1, ScheduleKind::OneForwardOneBackward, zero);
        let memory = play(&gpt, &gpus, &plan, &work).1.ranks[0].memory.clone();
        memory.end_by_category[classes::BUFFERS.0 as usize]
    };
    let weights = 2 * gpt.parameters();
    assert_eq!(left(Nanotron, ZeroStage::Zero), weights);
    assert_eq!(left(Nanotron, ZeroStage::One), 2 * weights + weights.div_ceil(8));
    assert_eq!(left(Nanotron, ZeroStage::Three), left(PyTorch, ZeroStage::Three));
}

/// PyTorch sets gradients to None: they grow from the last layer to the first, and stay over micro-batches.
#[test]
fn gradients_grow_while_backward_makes_them() {
    let gpt = model("gpt2", 12);
    let gpus = cluster("dgx-h100").with_size(1, 1).expect("one of eight");
    let p = plan(1, 1, ScheduleKind::GPipe, ZeroStage::Zero);
    let peak = |wide_gradients, sequence_length| {
        let work = Workload { wide_gradients, sequence_length, micro_batch_size: 8, ..workload(1) };
        let (lowered, outcome) = play(&gpt, &gpus, &p, &work);
        (outcome.ranks[0].memory.peak, most_held(&lowered, 0, classes::GRADIENTS))
    };
    // So many tokens that the loss is the fullest moment, before there are any.
    let ((grown, most), (held, _)) = (peak(false, 1024), peak(true, 1024));
    assert_eq!(held - grown, 4 * gpt.parameters());
    assert_eq!(most, 2 * gpt.parameters());
    let p = plan(8, 1, ScheduleKind::GPipe, ZeroStage::Three);
    let (lowered, _) = play(&gpt, &cluster("dgx-h100"), &p, &workload(2));
    let part = most_held(&lowered, 0, classes::GRADIENTS);
    assert!(part.abs_diff(2 * gpt.parameters() / 8) < 1024, "{part}");
}
