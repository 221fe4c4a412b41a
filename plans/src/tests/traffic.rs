//! Bytes and FLOPs of a plan are those of the model.

use steptime_core::{Recorder, simulate};
use steptime_models::Flops;

use super::fixtures::{cluster, model, plan, workload};
use crate::bucket::buckets;
use crate::lower::lower;
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
    assert_eq!(none.0, none.1);
    assert_eq!(none, of(1, 8, Checkpointing::None));
    assert_eq!(none, of(2, 4, Checkpointing::None));
    let full = of(8, 1, Checkpointing::Full);
    assert_eq!(full.0, none.0);
    // Full checkpointing runs the forward of every block again, but not of the embedding and the head.
    let shape = workload(1).shape();
    let again: u64 = (1..=8).map(|layer| gpt.work(layer, &shape).forward_flops().0 * 16).sum();
    assert_eq!(full.1, Flops(none.0.0 + again));
}

#[test]
fn buckets_hold_every_gradient_once() {
    let gpt = model("gpt2", 12);
    for cap in [1_u64, 1 << 20, 25 << 20, 1 << 40] {
        let all = buckets(&gpt, 0..gpt.layers.len(), true, 4, 1 << 20, cap);
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
    let gpt = model("gpt2", 4);
    let parameters = gpt.parameters();
    let mut dgx = cluster("dgx-h100");
    let port = dgx.fabric.bandwidth;
    let bus = &mut dgx.fabric.bus_bandwidth;
    bus.all_reduce = port;
    bus.all_gather = port;
    bus.reduce_scatter = port;
    let micro_batches = 3;
    let sent = |zero| {
        let p = plan(8, 1, ScheduleKind::GPipe, zero);
        let lowered = lower(&gpt, &dgx, &p, &workload(micro_batches)).expect("legal");
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
