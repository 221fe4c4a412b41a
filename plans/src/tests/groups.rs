//! Context and expert parallelism: what is held, what crosses the wire, and what folding may not change.

use proptest::prelude::*;
use steptime_models::{ContextMethod, Model, Overrides};

use super::fixtures::{Both, both, cluster, model, plan, play, twin, workload};
use crate::classes;
use crate::error::PlanError;
use crate::lower::lower;
use crate::plan::Plan;
use crate::router::Router;
use crate::schedule::ScheduleKind;
use crate::workload::{OptimizerKind, Precision, Workload};
use crate::zero::ZeroStage;

/// A small decoder with 8 experts in every block.
fn experts(layers: i64) -> Model {
    let overrides = Overrides::none()
        .with("layers", layers)
        .with("hidden", 256)
        .with("heads", 8)
        .with("kv_heads", 8)
        .with("vocabulary", 1024);
    Model::from_catalogue("mixtral-8x7b", &overrides).expect("a smaller Mixtral")
}

fn one_stage(data: u64, zero: ZeroStage) -> Plan {
    plan(data, 1, ScheduleKind::OneForwardOneBackward, zero)
}

#[test]
fn flops_do_not_depend_on_who_holds_sequences_and_experts() {
    let mixtral = experts(2);
    let dgx = cluster("dgx-h100");
    let of = |plan: &Plan, accumulation| {
        let lowered = lower(&mixtral, &dgx, plan, &workload(accumulation)).expect("legal");
        lowered.model_flops
    };
    let base = of(&one_stage(8, ZeroStage::Zero), 1);
    for expert in [2, 4, 8] {
        assert!((of(&Plan { expert, ..one_stage(8, ZeroStage::Zero) }, 1) / base - 1.0).abs() < 1e-12);
    }
    for context_method in [ContextMethod::Ring, ContextMethod::AllToAll] {
        let shared = Plan { context: 4, context_method, expert: 4, ..one_stage(2, ZeroStage::Zero) };
        assert!((of(&shared, 4) / base - 1.0).abs() < 1e-12);
    }
    // A router that favours some lengthens the step, and not the arithmetic.
    let hot = Workload { router: Router::Zipf(1.0), ..workload(1) };
    let spread = Plan { expert: 8, ..one_stage(8, ZeroStage::Zero) };
    let lowered = lower(&mixtral, &dgx, &spread, &hot).expect("legal");
    assert!((lowered.model_flops / base - 1.0).abs() < 1e-12);
}

#[test]
fn popular_experts_cost_time_and_memory() {
    let mixtral = model("mixtral-8x7b", 2);
    let dgx = cluster("dgx-h100");
    let spread = Plan { expert: 8, ..one_stage(8, ZeroStage::One) };
    let of = |router| {
        let work = Workload { router, sequence_length: 4096, ..workload(1) };
        let (_, outcome) = play(&mixtral, &dgx, &spread, &work);
        (outcome.end, outcome.ranks[0].memory.peak_by_category[classes::ACTIVATIONS.0 as usize])
    };
    let (even, hot) = (of(Router::Uniform), of(Router::Zipf(0.5)));
    assert!(hot.0 > even.0 && hot.1 > even.1, "{even:?} {hot:?}");
}

#[test]
fn states_are_partitioned_over_the_copies_of_each_part() {
    // Two blocks of Mixtral: E values in experts, D elsewhere. Over 16 ranks with 4 that hold all experts there are 4
    // copies of these and 16 of the rest: 2 + 2 bytes each, and 12 over the copies (ZeRO 1).
    let mixtral = model("mixtral-8x7b", 2);
    let inside: u64 = 2 * 8 * 3 * 4096 * 14336;
    let outside = mixtral.parameters() - inside;
    let dgx = cluster("dgx-h100").with_size(2, 8).expect("two nodes");
    let of = |plan: &Plan| {
        let lowered = lower(&mixtral, &dgx, plan, &workload(1)).expect("legal");
        lowered.stages[0].states
    };
    let spread = of(&Plan { expert: 4, ..one_stage(16, ZeroStage::One) });
    assert_eq!(spread.parameters, 2 * (outside + inside / 4));
    assert_eq!(spread.gradients, 2 * (outside + inside / 4));
    assert_eq!(spread.optimizer_states, 12 * (outside.div_ceil(16) + (inside / 4).div_ceil(4)));
    // Ranks that share sequences count as copies, too.
    let shared = of(&Plan { expert: 4, context: 4, ..one_stage(4, ZeroStage::One) });
    assert_eq!(shared, spread);
    let whole = of(&Plan { expert: 4, ..one_stage(16, ZeroStage::Three) });
    assert_eq!(whole.total(), 16 * (outside.div_ceil(16) + (inside / 4).div_ceil(4)));
}

#[test]
fn a_ring_hides_its_sends_behind_attention() {
    // At 32k tokens a rank's attention to a part takes longer than the part's way over NVLink.
    let llama = model("llama3-8b", 1);
    let dgx = cluster("dgx-h100");
    let long = |context_method| {
        let work = Workload { sequence_length: 1 << 18, ..workload(1) };
        let p = Plan { context: 8, context_method, ..one_stage(1, ZeroStage::Zero) };
        play(&llama, &dgx, &p, &work).1
    };
    let ring = long(ContextMethod::Ring);
    let rank = &ring.ranks[0];
    let exposed = rank.idle[classes::COLLECTIVE.0 as usize].seconds() / ring.end.seconds();
    assert!(exposed < 0.05, "{exposed}");
    // Seven sends forward and nine backward took time all the same, beside the attention.
    let sends: f64 =
        rank.streams.iter().skip(1).map(|it| it.busy[classes::COLLECTIVE.0 as usize].seconds()).sum();
    assert!(sends > 0.0);
    let ratio = ring.end.seconds() / long(ContextMethod::AllToAll).end.seconds();
    assert!((0.8..1.25).contains(&ratio), "{ratio}");
}

#[test]
fn groups_that_do_not_divide_are_refused() {
    let mixtral = experts(2);
    let dgx = cluster("dgx-h100");
    let refused = |plan: &Plan, work: &Workload| match lower(&mixtral, &dgx, plan, work) {
        Err(PlanError::Context { message } | PlanError::Expert { message }) => message,
        other => panic!("{other:?}"),
    };
    let three = Plan { expert: 3, ..one_stage(8, ZeroStage::Zero) };
    assert!(refused(&three, &workload(1)).contains("8 experts, which do not divide among 3 ranks"));
    let tensor = Plan { expert: 2, tensor: 2, ..one_stage(4, ZeroStage::Zero) };
    assert!(refused(&tensor, &workload(1)).contains("sequence_parallel = true"));
    let ring = Plan { context: 2, ..one_stage(4, ZeroStage::Zero) };
    let eager = Workload { attention: steptime_models::AttentionKind::Eager, ..workload(1) };
    assert!(refused(&ring, &eager).contains("fused attention"));
}

#[test]
fn muon_keeps_one_momentum_of_matrices_and_pays_for_its_iterations() {
    let llama = model("llama3-8b", 2);
    let dgx = cluster("dgx-h100").with_size(1, 1).expect("one GPU");
    let of = |optimizer| {
        let work = Workload { optimizer, ..workload(1) };
        play(&llama, &dgx, &one_stage(1, ZeroStage::Zero), &work)
    };
    let ((adam, quick), (muon, slow)) = (of(OptimizerKind::AdamW), of(OptimizerKind::Muon));
    // Two blocks of 4096^2 + 2 * 4096 * 1024 + 4096^2 and 3 * 4096 * 14336 values in matrices.
    let matrices = 2 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336);
    let saved = adam.stages[0].states.optimizer_states - muon.stages[0].states.optimizer_states;
    assert_eq!(saved, 4 * matrices);
    assert!(slow.end > quick.end);
}

#[test]
fn weights_in_fewer_bits_are_held_beside_the_others() {
    let llama = model("llama3-8b", 2);
    let dgx = cluster("dgx-h100").with_size(1, 1).expect("one GPU");
    let buffers = |precision| {
        let work = Workload { precision, ..workload(1) };
        let (_, outcome) = play(&llama, &dgx, &one_stage(1, ZeroStage::Zero), &work);
        outcome.ranks[0].memory.peak_by_category[classes::BUFFERS.0 as usize]
    };
    let matrices = 2 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336);
    assert_eq!(buffers(Precision::Fp8) - buffers(Precision::Bf16), 2 * matrices);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn folded_equals_explicit(
        (data, context, tensor, expert) in prop::sample::select(vec![
            (8_u64, 1_u64, 1_u64, 4_u64), (4, 1, 2, 4), (2, 4, 1, 8), (2, 2, 2, 2), (1, 8, 1, 8), (1, 1, 4, 2),
            (4, 2, 1, 1), (3, 2, 1, 2), (16, 1, 1, 8),
        ]),
        pipeline in 1_u64..3,
        micro_batches in 1_u64..4,
        zero in prop::sample::select(vec![ZeroStage::Zero, ZeroStage::One, ZeroStage::Two, ZeroStage::Three]),
        ulysses in any::<bool>(),
        per_node in prop::sample::select(vec![8_u32, 4]),
    ) {
        let ranks = (data * context * tensor * pipeline) as u32;
        let per_node = if ranks.is_multiple_of(per_node) { per_node } else { ranks.min(2) };
        let gpus = cluster("dgx-a100-80gb").with_size(ranks / per_node, per_node).expect("a possible size");
        let mixtral = experts(2);
        let context_method = if ulysses { ContextMethod::AllToAll } else { ContextMethod::Ring };
        let folded = Plan {
            tensor,
            sequence_parallel: tensor > 1,
            context,
            context_method,
            expert,
            ..plan(data, pipeline, ScheduleKind::OneForwardOneBackward, zero)
        };
        let Both { folded, explicit, fast, every_rank } = both(&mixtral, &gpus, &folded, &workload(micro_batches))?;
        prop_assert_eq!(explicit.ranks.len() as u64, data * context * tensor * pipeline);
        for (played, outcome) in explicit.ranks.iter().zip(&every_rank.ranks) {
            let twin = twin(&folded, played);
            prop_assert_eq!(fast.ranks[twin].end, outcome.end, "rank {}", played.rank);
            prop_assert_eq!(&fast.ranks[twin].memory, &outcome.memory, "rank {}", played.rank);
        }
    }
}

/// Experts that only one rank holds have no gradients to reduce: ZeRO keeps theirs whole, and no copy is made on the way.
#[test]
fn gradients_of_experts_that_nobody_shares_are_not_sent() {
    let mixtral = experts(2);
    let dgx = cluster("dgx-h100");
    let spread = |zero| Plan { expert: 8, ..one_stage(8, zero) };
    let of_expert: u64 = {
        let block = &mixtral.layers[1];
        block.parameters.iter().filter(|it| it.expert.is_some()).map(|it| it.count).sum()
    };
    // An eighth of the experts on each rank, in 16 bits.
    let own = 2 * of_expert / 8;
    let buffers = |zero| {
        let (_, outcome) = play(&mixtral, &dgx, &spread(zero), &workload(1));
        outcome.ranks[0].memory.peak_by_category[classes::BUFFERS.0 as usize]
    };
    let common: u64 = {
        let largest = |layer: &steptime_models::Layer| {
            layer.parameters.iter().filter(|it| it.expert.is_none()).map(|it| it.count).sum::<u64>()
        };
        2 * mixtral.layers.iter().map(largest).max().unwrap_or(0)
    };
    assert!(own > common, "experts are most of a rank's block");
    // Whole gradients of what is shared alone.
    assert!(buffers(ZeroStage::Two) < own, "{} {own} {common}", buffers(ZeroStage::Two));
}
