//! Bytes and FLOPs of a plan are those of the model.

use steptime_clusters::{Fabric, FabricKind};
use steptime_core::{Recorder, simulate};

use super::fixtures::{cluster, model, plan, workload};
use crate::bucket::{Holding, buckets};
use crate::lower::lower;
use crate::plan::Plan;
use crate::schedule::ScheduleKind;
use crate::workload::{Checkpointing, Workload};
use crate::zero::ZeroStage;

#[test]
fn flops_do_not_depend_on_the_plan() {
    let gpt = model("gpt2", 8);
    let of = |data, pipeline, checkpointing| {
        let work = Workload { checkpointing, ..workload(16 / data) };
        let p = plan(data, pipeline, ScheduleKind::GPipe, ZeroStage::Zero);
        let lowered = lower(&gpt, &cluster("dgx-h100"), &p, &work).expect("legal");
        (lowered.model_flops, lowered.executed_flops)
    };
    let none = of(8, 1, Checkpointing::None);
    let same = |a: (f64, f64), b: (f64, f64)| (a.0 - b.0).abs() + (a.1 - b.1).abs() < 0.5;
    assert!(same(none, (none.0, none.0)));
    assert!(same(none, of(1, 8, Checkpointing::None)));
    assert!(same(none, of(2, 4, Checkpointing::None)));
    let full = of(8, 1, Checkpointing::Full);
    assert!((full.0 - none.0).abs() < 0.5);
    // Full checkpointing runs the forward of every block again, but not of the embedding and the head.
    let shape = workload(1).shape();
    let forward =
        |layer| gpt.work(layer, &shape).forward.iter().map(|op| op.kernel.model_flops().0).sum::<u64>();
    let again: u64 = (1..=8).map(|layer| 16 * forward(layer)).sum();
    assert!((full.1 - none.0 - again as f64).abs() < 0.5);
}

#[test]
fn buckets_hold_every_gradient_once() {
    let gpt = model("gpt2", 12);
    for cap in [1_u64, 1 << 20, 25 << 20, 1 << 40] {
        let all = buckets(
            &gpt,
            0..gpt.layers.len(),
            Holding {
                embedding: true,
                division: steptime_models::Division::tensor(1),
                share: crate::bucket::Share::Common,
            },
            4,
            [1 << 20, cap],
        );
        assert_eq!(all.iter().map(|bucket| bucket.elements).sum::<u64>(), gpt.parameters());
        // Ready in the order of backward.
        assert!(all.windows(2).all(|pair| pair[0].ready_after >= pair[1].ready_after));
        // Every bucket but the last has reached its cap.
        let full = |index: usize, bucket: &crate::Bucket| {
            bucket.elements * 4 >= if index == 0 { cap.min(1 << 20) } else { cap }
        };
        assert!(all[..all.len() - 1].iter().enumerate().all(|(index, bucket)| full(index, bucket)));
    }
}

#[test]
fn gradients_cross_the_wire_as_the_closed_forms_say() {
    // All-reduce sends 2 (n-1)/n of the gradients through every port, reduce-scatter and all-gather (n-1)/n
    // each (Thakur et al. 2005). Ports of equal speed for all kinds keep the bytes unscaled.
    let llama = model("llama3-8b", 4);
    let parameters = llama.parameters();
    let mut dgx = cluster("dgx-h100");
    dgx.fabric = Fabric::flat(FabricKind::NvSwitch, dgx.fabric.bandwidth);
    let micro_batches = 3;
    let sent = |zero| {
        let p = plan(8, 1, ScheduleKind::GPipe, zero);
        let lowered = lower(&llama, &dgx, &p, &workload(micro_batches)).expect("legal");
        let mut recorder = Recorder::default();
        simulate(&lowered.world, &mut recorder).expect("no deadlock");
        recorder.flows().iter().map(|flow| flow.bytes).sum::<u64>() as f64
    };
    let once = 2.0 * parameters as f64 * 7.0 / 8.0;
    let m = micro_batches as f64;
    // ZeRO 2 reduces in every micro-batch; ZeRO 3 also gathers twice in each (Rajbhandari et al. 2020,
    // section 7: 1.5 times the traffic of plain data parallelism at one micro-batch).
    for (zero, times) in [
        (ZeroStage::Zero, 2.0),
        (ZeroStage::One, 2.0),
        (ZeroStage::Two, m + 1.0),
        (ZeroStage::Three, 3.0 * m),
    ] {
        let found = sent(zero);
        let expected = once * times;
        assert!((found / expected - 1.0).abs() < 1e-4, "{zero:?}: {found} against {expected}");
    }
}

#[test]
fn what_goes_from_stage_to_stage_is_sent_in_parts_and_gathered() {
    // Narayanan et al. 2021, section 4.1: of an activation of b s h values each of t ranks sends b s h / t, and an
    // all-gather among the t ranks passes (t - 1) / t of it through every port.
    let gpt = model("gpt2", 4);
    let mut dgx = cluster("dgx-a100-80gb");
    dgx.fabric = Fabric::flat(FabricKind::NvSwitch, dgx.fabric.bandwidth);
    let traffic = |scatter_gather| {
        let base = plan(1, 2, ScheduleKind::GPipe, ZeroStage::Zero);
        let p = Plan { tensor: 4, scatter_gather, ..base };
        let lowered = lower(&gpt, &dgx, &p, &workload(3)).expect("legal");
        let mut recorder = Recorder::default();
        simulate(&lowered.world, &mut recorder).expect("no deadlock");
        recorder.flows().iter().map(|flow| flow.bytes).sum::<u64>()
    };
    // Of each of 3 micro-batches an activation and its gradient, in 16 bits; one lane stands for all four.
    let shape = workload(3).shape();
    let activation = shape.micro_batch * shape.sequence_length * 768 * 2;
    let sent = |part: u64| 3 * 2 * activation / part;
    let gathered = 3 * 2 * activation * 3 / 4;
    assert_eq!(traffic(true) + sent(1), traffic(false) + sent(4) + gathered);
}

#[test]
fn rings_through_far_cards_share_what_the_host_passes_on() {
    // 16 GPUs, tensor parallel 4: four rings of two GPUs a node, each with 2 (n - 1) / n of a quarter of the gradients,
    // leave a node together at the rate of its far cards once all else has been waited for.
    let gpt = model("gpt2", 2);
    let gpus = cluster("a100-80gb-ib-800").with_size(2, 8).expect("two nodes");
    let step = |far: Option<f64>| {
        let mut gpus = gpus.clone();
        gpus.network.as_mut().expect("a network").far_bandwidth = far;
        let base = plan(4, 1, ScheduleKind::GPipe, ZeroStage::Zero);
        let p = Plan { tensor: 4, gradient_overlap: false, ..base };
        let lowered = lower(&gpt, &gpus, &p, &workload(1)).expect("legal");
        simulate(&lowered.world, &mut Recorder::default()).expect("no deadlock").end
    };
    let (slow, slower) = (step(Some(2e9)), step(Some(1e9)));
    let division = steptime_models::Division::tensor(4);
    let parameters = gpt.layers.iter().flat_map(|layer| layer.parameters.iter());
    let held: u64 = parameters.filter(|it| !it.tied).map(|it| it.held_in(&division)).sum();
    let leaves = 4.0 * 2.0 * 3.0 / 4.0 * 2.0 * held as f64;
    let expected = leaves / 1e9 - leaves / 2e9;
    let found = slower.seconds() - slow.seconds();
    assert!((found / expected - 1.0).abs() < 0.02, "{found} against {expected}");
    assert_eq!(step(Some(1e12)), step(None));
    assert!(step(None) < slow);
}

#[test]
fn kernels_beside_collectives_lose_the_multiprocessors_of_their_channels() {
    let gpt = model("gpt2", 6);
    let dgx = cluster("dgx-a100-80gb");
    // Busy time of the compute and the end, with so many channels.
    let play = |channels: u32, gradient_overlap| {
        let mut dgx = dgx.clone();
        dgx.fabric.overlap.channels = channels;
        let base = plan(8, 1, ScheduleKind::GPipe, ZeroStage::Zero);
        let p = Plan { gradient_overlap, ..base };
        let lowered = lower(&gpt, &dgx, &p, &workload(1)).expect("legal");
        let mut recorder = Recorder::default();
        let outcome = simulate(&lowered.world, &mut recorder).expect("no deadlock");
        let busy = outcome.ranks[0].streams[0].busy.iter().map(|time| time.picos()).sum::<u64>();
        (busy, outcome.end)
    };
    // What is reduced after all kernels takes nothing from them.
    assert_eq!(play(0, false), play(54, false));
    let [none, quarter, half] = [0, 27, 54].map(|channels| play(channels, true).0);
    let (lost, twice) = (quarter - none, half - none);
    assert!(lost > 0 && 4 * lost < none, "{lost} of {none}");
    // A half of the 108 multiprocessors is twice a quarter, up to a picosecond for each kernel.
    assert!(twice.abs_diff(2 * lost) < 10_000, "{lost}, {twice}");
}

#[test]
fn steps_of_more_than_64_bits_of_flops_are_counted() {
    // 33.5 million tokens of GPT-3 on 1,024 ranks: 6 x 175e9 x 33.5e6 = 3.5e19, more than 2^64 = 1.8e19.
    let gpt = model("gpt3-175b", 96);
    let gpus = cluster("dgx-a100-80gb").with_size(128, 8).expect("a possible size");
    let work = Workload { sequence_length: 2048, checkpointing: Checkpointing::Full, ..workload(512) };
    let p = plan(32, 32, ScheduleKind::OneForwardOneBackward, ZeroStage::Zero);
    let lowered = lower(&gpt, &gpus, &p, &work).expect("legal");
    let expected = 6.0 * 175e9 * 32.0 * 512.0 * 2048.0;
    assert!((lowered.model_flops / expected - 1.0).abs() < 0.1, "{}", lowered.model_flops);
    assert!((lowered.executed_flops / lowered.model_flops - 4.0 / 3.0).abs() < 0.02);
}

#[test]
fn more_than_can_be_played_is_refused() {
    use crate::PlanError;
    let gpt = model("gpt2", 12);
    let gpus = cluster("dgx-h100").with_size(1, 1).expect("one of eight");
    let p = plan(1, 1, ScheduleKind::GPipe, ZeroStage::Zero);
    let refused = |micro_batches| lower(&gpt, &gpus, &p, &workload(micro_batches)).map(|_| ());
    assert!(matches!(refused(1 << 17), Err(PlanError::TooLarge { .. })));
    let deep = model("gpt2", 10_000);
    let found = lower(&deep, &gpus, &p, &workload(1 << 12)).map(|_| ());
    assert!(matches!(found, Err(PlanError::TooManyRecords { .. })), "{found:?}");
}

#[test]
fn a_million_folded_ranks_are_lowered_at_once() {
    let gpt = model("gpt2", 8);
    let gpus = cluster("dgx-h100");
    let gpus = cluster_of(&gpus, 1 << 17);
    let p = plan(1 << 17, 8, ScheduleKind::GPipe, ZeroStage::Zero);
    let lowered = lower(&gpt, &gpus, &p, &workload(8)).expect("legal");
    assert_eq!(lowered.ranks.len(), 8);
    assert!(lowered.folded);
    // Every GPU has its rank: 24,608 ranks on 24,576 GPUs are refused with the arithmetic.
    let gpus = cluster_of(&gpus, 3 * (1 << 10));
    let p = plan(3 * (1 << 10) + 4, 8, ScheduleKind::GPipe, ZeroStage::Zero);
    let refused = lower(&gpt, &gpus, &p, &workload(8)).map(|_| ());
    let count = |error: &crate::PlanError| {
        matches!(error, crate::PlanError::RankCount { ranks: 24_608, gpus: 24_576, .. })
    };
    assert!(refused.as_ref().is_err_and(count), "{refused:?}");
}

/// The cluster with this many nodes, joined by InfiniBand where its entry has no network.
fn cluster_of(gpus: &steptime_clusters::Cluster, nodes: u32) -> steptime_clusters::Cluster {
    let mut gpus = gpus.clone();
    if gpus.network.is_none() {
        gpus.network = cluster("dgx-a100-80gb").network;
    }
    gpus.with_size(nodes, gpus.gpus_per_node).expect("a possible size")
}

#[test]
fn model_flops_do_not_depend_on_the_attention_kernel() {
    use steptime_models::AttentionKind::{Eager, Flash};
    let llama = model("llama3-8b", 4);
    let p = plan(8, 1, ScheduleKind::GPipe, ZeroStage::Zero);
    let of = |attention| {
        let work = Workload { attention, sequence_length: 4096, ..workload(1) };
        lower(&llama, &cluster("dgx-h100"), &p, &work).expect("legal").model_flops
    };
    assert!((of(Eager) - of(Flash)).abs() < 0.5);
}

/// nanotron's copies of what a reduce-scatter brings wait on the one queue of the device: with ZeRO 1 no kernel of backward
/// runs beside the reduction of a bucket, with ZeRO 0 they do. On a slow network the step of the first is longer by
/// what is not hidden, though all-reduces carry twice the bytes.
#[test]
fn backward_of_nanotron_waits_for_scattered_buckets() {
    use steptime_clusters::Framework::{Nanotron, PyTorch};

    let gpt = model("gpt2", 8);
    let gpus = cluster("dgx-h100");
    let overlapped = |framework, zero| {
        let work = Workload { framework, wide_gradients: true, ..workload(1) };
        let plan =
            Plan { bucket_bytes: Some(4 << 20), ..plan(8, 1, ScheduleKind::OneForwardOneBackward, zero) };
        let lowered = lower(&gpt, &gpus, &plan, &work).expect("legal");
        let mut recorder = Recorder::default();
        simulate(&lowered.world, &mut recorder).expect("plays");
        let of = |class| {
            let spans = recorder.spans().iter().filter(move |span| span.rank == 0 && span.class == class);
            spans.map(|span| (span.start, span.end)).collect::<Vec<_>>()
        };
        let kernels = of(crate::classes::BACKWARD);
        let beside = |&(start, end): &(_, _)| kernels.iter().any(|&(from, to)| from < end && start < to);
        of(crate::classes::COLLECTIVE).iter().filter(|span| beside(span)).count()
    };
    assert_eq!(overlapped(Nanotron, ZeroStage::One), 0);
    assert!(overlapped(Nanotron, ZeroStage::Zero) > 1);
    assert!(overlapped(PyTorch, ZeroStage::One) > 1);
}
