//! Folded play equals playing every rank, and running ahead equals playing every operation through the queue.

use proptest::prelude::*;

use super::fixtures::{Both, both, cluster, model, plan, twin, workload};
use crate::plan::Plan;
use crate::schedule::ScheduleKind;
use crate::zero::ZeroStage;

fn zero() -> impl Strategy<Value = ZeroStage> {
    prop::sample::select(vec![ZeroStage::Zero, ZeroStage::One, ZeroStage::Two, ZeroStage::Three])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn folded_equals_explicit_equals_every_operation(
        shape in prop::sample::select(vec![(8_u64, 1_u64), (4, 2), (2, 4), (1, 8), (8, 2), (4, 4), (2, 8), (3, 5)]),
        micro_batches in 1_u64..6,
        gpipe in any::<bool>(),
        zero in zero(),
        pcie in any::<bool>(),
        (tensor, sequence_parallel) in prop::sample::select(vec![(1_u64, false), (2, false), (2, true), (4, true)]),
        chunks in 1_u64..3,
        (scatter_gather, far) in any::<(bool, bool)>(),
    ) {
        let (data, pipeline) = shape;
        let chunks = if pipeline == 1 { 1 } else { chunks };
        let micro_batches = if chunks > 1 { pipeline * micro_batches.div_ceil(3) } else { micro_batches };
        let schedule = if gpipe { ScheduleKind::GPipe } else { ScheduleKind::OneForwardOneBackward };
        let ranks = (data * tensor * pipeline) as u32;
        let (name, per_node) = if pcie && ranks == 8 { ("a5000-pcie-2", 2) } else { ("dgx-a100-80gb", 8) };
        let per_node = if ranks.is_multiple_of(per_node) { per_node } else { 5 };
        let mut gpus = cluster(name);
        if gpus.network.is_none() {
            gpus.network = cluster("dgx-a100-80gb").network;
        }
        if far {
            gpus.network = cluster("a100-80gb-ib-800").network;
        }
        let gpus = gpus.with_size(ranks / per_node, per_node).expect("a possible size");
        let gpt = model("gpt2", 5.max((pipeline * chunks).cast_signed()));
        let base = plan(data, pipeline, schedule, zero);
        let folded = Plan { tensor, sequence_parallel, scatter_gather, virtual_pipeline: chunks, ..base };
        let Both { folded, explicit, fast, every_rank } = both(&gpt, &gpus, &folded, &workload(micro_batches))?;
        prop_assert_eq!(explicit.ranks.len() as u64, data * tensor * pipeline);
        for (played, outcome) in explicit.ranks.iter().zip(&every_rank.ranks) {
            let twin = twin(&folded, played);
            let mut outcome = outcome.clone();
            outcome.multiplicity = fast.ranks[twin].multiplicity;
            prop_assert_eq!(&fast.ranks[twin], &outcome, "rank {}", played.rank);
        }
    }
}
