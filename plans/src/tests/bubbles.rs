//! Idle time of pipelines of equal stages with free links: `(p - 1) / (m + p - 1)` of the step.
//!
//! Huang et al. 2019, GPipe, section 2.3; Narayanan et al. 2021, section 2.2.1 (there relative to the ideal
//! time: `(p - 1) / m`). 1F1B moves work, not idle time.

use steptime_clusters::{Fabric, FabricKind};
use steptime_core::SimTime;

use super::fixtures::{equal_partitions, free_links, plan, play, workload};
use crate::plan::Plan;
use crate::schedule::{Action, ChunkOrder, Schedule, ScheduleError, ScheduleKind};
use crate::zero::ZeroStage;

const KINDS: [ScheduleKind; 2] = [ScheduleKind::GPipe, ScheduleKind::OneForwardOneBackward];

#[test]
fn equal_stages_and_free_links_idle_as_the_closed_form_says() {
    for kind in KINDS {
        for p in [1_u64, 2, 3, 4, 8] {
            for m in [1_u64, 2, 4, 8, 13, 64] {
                let model = equal_partitions(p as usize, "0 B");
                let cluster = free_links(1, p as u32);
                let (_, outcome) = play(&model, &cluster, &plan(1, p, kind, ZeroStage::Zero), &workload(m));
                let step = outcome.end.picos();
                for (stage, rank) in outcome.ranks.iter().enumerate() {
                    let busy = rank.streams[0].busy.iter().map(|time| time.picos()).sum::<u64>();
                    // busy : step = m : (m + p - 1), exactly, because all passes are whole picoseconds.
                    assert_eq!(busy * (m + p - 1), step * m, "{kind:?}, p = {p}, m = {m}, stage {stage}");
                }
            }
        }
    }
}

#[test]
fn interleaved_stages_idle_less_by_the_number_of_chunks() {
    // Narayanan et al. 2021, section 2.2.2: idle over ideal time is (p - 1) / (v m).
    for (p, v, m) in [(2_u64, 2_u64, 4_u64), (4, 2, 8), (4, 3, 16), (8, 4, 8), (8, 2, 64)] {
        let model = equal_partitions((p * v) as usize, "0 B");
        let cluster = free_links(1, p as u32);
        let kind = ScheduleKind::OneForwardOneBackward;
        let plan = Plan { virtual_pipeline: v, ..plan(1, p, kind, ZeroStage::Zero) };
        let (lowered, outcome) = play(&model, &cluster, &plan, &workload(m));
        let step = outcome.end.picos();
        for (stage, rank) in outcome.ranks.iter().enumerate() {
            let busy = rank.streams[0].busy.iter().map(|time| time.picos()).sum::<u64>();
            assert_eq!((step - busy) * v * m, busy * (p - 1), "p = {p}, v = {v}, m = {m}, stage {stage}");
            // The warm-up forwards and one more, a chunk each.
            let warm_up = 2 * (p - 1 - stage as u64) + (v - 1) * p;
            assert_eq!(lowered.stages[stage].in_flight, (warm_up + 1).min(m * v));
        }
    }
    let groups = Schedule::named(ScheduleKind::OneForwardOneBackward, 4, 2, 6);
    assert_eq!(groups, Err(ScheduleError::Groups { stages: 4, micro_batches: 6 }));
}

#[test]
fn one_stage_takes_the_sum_of_its_passes() {
    // 1 TFLOP forward and 2 TFLOP backward: three forwards for each micro-batch.
    let model = equal_partitions(1, "0 B");
    let cluster = free_links(1, 1);
    let p = plan(1, 1, ScheduleKind::GPipe, ZeroStage::Zero);
    let (_, one) = play(&model, &cluster, &p, &workload(1));
    let (_, five) = play(&model, &cluster, &p, &workload(5));
    let fraction = cluster.gpu.arithmetic(steptime_models::Dtype::Bf16).expect("bf16");
    let expected = 3e12 / (fraction.peak.value * fraction.gemm.value);
    assert!((one.end.seconds() / expected - 1.0).abs() < 1e-9, "{} against {expected}", one.end.seconds());
    assert_eq!(five.end.picos(), 5 * one.end.picos());
}

#[test]
fn one_forward_one_backward_holds_min_of_p_minus_s_and_m() {
    for p in 1..=8_usize {
        for m in 1..=12_u32 {
            let one_f = Schedule::named(ScheduleKind::OneForwardOneBackward, p, 1, m).unwrap();
            let gpipe = Schedule::named(ScheduleKind::GPipe, p, 1, m).unwrap();
            one_f.check().expect("legal");
            gpipe.check().expect("legal");
            for s in 0..p {
                assert_eq!(
                    one_f.in_flight(s),
                    ((p - s) as u64).min(u64::from(m)),
                    "p = {p}, m = {m}, s = {s}"
                );
                assert_eq!(gpipe.in_flight(s), u64::from(m));
            }
        }
    }
}

#[test]
fn the_check_names_the_first_violation() {
    let check = |stages: Vec<Vec<Action>>, micro_batches| {
        Schedule { stages, chunks: 1, micro_batches, chunk_order: ChunkOrder::Around }.check()
    };
    let (forward, backward) = (
        |micro_batch| Action::Forward { chunk: 0, micro_batch },
        |micro_batch| Action::Backward { chunk: 0, micro_batch },
    );
    assert_eq!(
        check(vec![vec![backward(0), forward(0)]], 1),
        Err(ScheduleError::Order { stage: 0, micro_batch: 0 })
    );
    assert_eq!(
        check(vec![vec![forward(0), backward(0), forward(0)]], 1).map_err(|error| error.to_string()),
        Err("stage 0: forward of micro-batch 0 occurs 2 times; each pass of the step's micro-batches must occur once"
            .to_owned())
    );
    assert_eq!(
        check(vec![vec![forward(0), backward(0)], vec![forward(0)]], 1).map(|()| true),
        Err(ScheduleError::Deadlock { stage: 0, action: "backward of micro-batch 0".to_owned() })
    );
    // Stage 1 wants micro-batch 1 first, stage 0 gives it only after the backward of micro-batch 0.
    let crossed = vec![
        vec![forward(0), backward(0), forward(1), backward(1)],
        vec![forward(1), forward(0), backward(0), backward(1)],
    ];
    assert_eq!(check(crossed, 2), Err(ScheduleError::Crossing { stage: 1, sent: 0, received: 1 }));
}

#[test]
fn a_slow_link_lengthens_the_step_by_its_latency_on_the_critical_path() {
    // One micro-batch over two stages: one transfer down, one up. Each takes latency plus 1 GB at 100 GB/s.
    let model = equal_partitions(2, "1 GB");
    let mut cluster = free_links(1, 2);
    cluster.fabric = Fabric::flat(FabricKind::NvSwitch, 100e9);
    let p = plan(1, 2, ScheduleKind::GPipe, ZeroStage::Zero);
    let (_, slow) = play(&model, &cluster, &p, &workload(1));
    let (_, free) = play(&equal_partitions(2, "0 B"), &cluster, &p, &workload(1));
    let transfers = SimTime::from_seconds(2.0 * 1e9 / 100e9).expect("in range");
    assert_eq!(slow.end.picos() - free.end.picos(), transfers.picos());
}
