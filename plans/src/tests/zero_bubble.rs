//! Schedules with split backwards: idle time and memory as published, and every schedule legal at every size.
//!
//! Qi et al. 2024, Zero Bubble Pipeline Parallelism, table 2: ZB-H1 idles `(p - 1) (F + B - W)` and holds `p` micro-batches,
//! ZB-H2 `(p - 1) (F + B - 2 W)` and `2 p - 1`. Qi et al. 2024, Pipeline Parallelism with Controllable Memory, section 4:
//! V-Half about half of 1F1B's memory, V-Min a third. DeepSeek-V3 (2024), table 2: DualPipe idles
//! `(p/2 - 1) (F&B + B - 3 W)`, `F&B` being a forward and a backward in one and `B` a whole backward, and holds `p + 1`.

use proptest::prelude::*;

use super::fixtures::{cluster, equal_partitions, free_links, model, plan, play, workload};
use crate::plan::Plan;
use crate::schedule::{
    Action, ChunkOrder, PassCost, Pipeline, Schedule, ScheduleError, ScheduleKind, StageTimes,
};
use crate::zero::ZeroStage;

const SPLIT: [ScheduleKind; 9] = [
    ScheduleKind::ZeroBubbleH1,
    ScheduleKind::ZeroBubbleH2,
    ScheduleKind::ZeroBubbleOne,
    ScheduleKind::ZeroBubbleTwo,
    ScheduleKind::ZeroBubbleV,
    ScheduleKind::VHalf,
    ScheduleKind::VMin,
    ScheduleKind::DualPipeV,
    ScheduleKind::DualPipe,
];

/// Idle time of each stage between its first pass and its last, when passes take these times and links are free.
fn idle(schedule: &Schedule, times: [u64; 3]) -> Vec<u64> {
    idle_and_busy(schedule, |_| times).into_iter().map(|(idle, _)| idle).collect()
}

/// The same and what it is busy, where the stages' times differ.
fn idle_and_busy(schedule: &Schedule, times: impl Fn(usize) -> [u64; 3]) -> Vec<(u64, u64)> {
    let cost = |stage| {
        let [forward, input, weight] = times(stage);
        PassCost { forward, input, weight, ..PassCost::EQUAL }
    };
    let stages = schedule.timed(cost, 0);
    stages.iter().map(|passes| StageTimes::of(passes)).map(|it| (it.idle(), it.busy)).collect()
}

fn most_held(schedule: &Schedule) -> u64 {
    (0..schedule.stages.len()).map(|stage| schedule.in_flight(stage)).max().unwrap_or(0)
}

#[test]
fn handcrafted_zero_bubble_schedules_idle_and_hold_what_the_paper_says() {
    for p in [2_usize, 3, 4, 8, 16] {
        for [f, b, w] in [[10, 10, 10], [10, 12, 8], [18, 20, 14]] {
            let m = 3 * p as u32;
            let h1 = Schedule::named(ScheduleKind::ZeroBubbleH1, p, 1, m).unwrap();
            let h2 = Schedule::named(ScheduleKind::ZeroBubbleH2, p, 1, m).unwrap();
            let gaps = p as u64 - 1;
            assert_eq!(idle(&h1, [f, b, w]).into_iter().max(), Some(gaps * (f + b - w)), "p = {p}");
            assert_eq!(idle(&h2, [f, b, w])[0], gaps * (f + b - 2 * w), "p = {p}");
            for stage in 0..p {
                assert_eq!(h1.in_flight(stage), p as u64);
                assert_eq!(h2.in_flight(stage), 2 * p as u64 - 1);
            }
        }
    }
}

#[test]
fn equal_passes_leave_no_bubble_in_the_schedules_named_for_it() {
    for p in [2_usize, 4, 8] {
        for kind in [ScheduleKind::ZeroBubbleH2, ScheduleKind::ZeroBubbleTwo] {
            let schedule = Schedule::named(kind, p, 1, 4 * p as u32).unwrap();
            assert_eq!(idle(&schedule, [1, 1, 1]), vec![0; p], "{kind:?}");
        }
        // ZB-V fills its V from both ends: only the first passes wait for the way down and back.
        let v = Schedule::named(ScheduleKind::ZeroBubbleV, p, 2, 4 * p as u32).unwrap();
        assert!(idle(&v, [1, 1, 1]).into_iter().max() < Some(p as u64));
        assert_eq!(most_held(&v), 2 * p as u64);
    }
}

#[test]
fn controllable_memory_holds_half_and_a_third() {
    for p in [4_usize, 8, 16, 32] {
        let m = 4 * p as u32;
        let [half, min] =
            [ScheduleKind::VHalf, ScheduleKind::VMin].map(|kind| Schedule::named(kind, p, 2, m).unwrap());
        // A chunk is half of what a stage of 1F1B has: 2 p passes of one are the memory of 1F1B.
        let share = |schedule: &Schedule| most_held(schedule) as f64 / (2 * p) as f64;
        let turns = 3.0 / p as f64;
        assert!((0.5..=0.5 + turns).contains(&share(&half)), "p = {p}: {}", share(&half));
        assert!((1.0 / 3.0..=1.0 / 3.0 + turns).contains(&share(&min)), "p = {p}: {}", share(&min));
        // 1F1B idles 3 (p - 1) passes of two chunks each.
        let one = 6 * (p as u64 - 1);
        let [a, b] = [&half, &min].map(|schedule| idle(schedule, [1, 1, 1]).into_iter().max().unwrap_or(0));
        assert!(a <= b && b < one, "p = {p}: {a}, {b}, {one}");
    }
}

#[test]
fn automatic_schedules_obey_their_limit_and_beat_the_handcrafted_ones() {
    // Times of a model with a heavy last stage.
    let cost = |forward, input, weight| PassCost { forward, input, weight, saved: 4, kept: 2 };
    let mut costs = vec![cost(18, 19, 15); 8];
    costs[7] = cost(30, 31, 26);
    for (kind, by_hand, limit) in [
        (ScheduleKind::ZeroBubbleOne, ScheduleKind::ZeroBubbleH1, 8),
        (ScheduleKind::ZeroBubbleTwo, ScheduleKind::ZeroBubbleH2, 16),
    ] {
        let pipeline =
            Pipeline { stages: 8, chunks: 1, micro_batches: 24, group: None, costs: &costs, transfer: 0 };
        let automatic = Schedule::of(kind, &pipeline).unwrap();
        automatic.check().expect("legal");
        for (stage, order) in automatic.stages.iter().enumerate() {
            let mut held = 0_i64;
            for action in order {
                held += match action {
                    Action::Forward { .. } => 4,
                    _ => -2,
                };
                assert!(held <= 4 * limit, "stage {stage}");
            }
        }
        let longest = |schedule: &Schedule| {
            let stages = idle_and_busy(schedule, |stage| {
                [costs[stage].forward, costs[stage].input, costs[stage].weight]
            });
            stages.into_iter().map(|(idle, busy)| idle + busy).max()
        };
        let handcrafted = Schedule::named(by_hand, 8, 1, 24).unwrap();
        assert!(longest(&automatic) <= longest(&handcrafted), "{kind:?}");
    }
}

#[test]
fn two_pipelines_from_both_ends_idle_and_hold_what_the_paper_says() {
    for p in (2..=16_usize).step_by(2) {
        for m in [2 * p as u32, 3 * p as u32 + p as u32 % 4, 8 * p as u32] {
            let schedule = Schedule::named(ScheduleKind::DualPipe, p, 2, m).unwrap();
            schedule.check().expect("legal");
            assert_eq!(most_held(&schedule), p as u64 + 1, "p = {p}, m = {m}");
            let most = |[forward, input, weight]: [u64; 3], pair: Option<u64>| {
                let cost = PassCost { forward, input, weight, ..PassCost::EQUAL };
                let stages = schedule.timed_in_pairs(|_| cost, 0, pair);
                stages.iter().map(|passes| StageTimes::of(passes).idle()).max().unwrap_or(0)
            };
            let half = p as u64 / 2 - 1;
            // Table 2 of the paper, for passes of equal lengths joined and not shortened by that: F&B = 3, B = 2, W = 1.
            assert_eq!(most([10, 10, 10], Some(30)), half * (30 + 20 - 30), "p = {p}, m = {m}");
            // Others idle no longer than it says.
            for (times, pair) in [([10, 12, 8], 30), ([10, 12, 8], 26), ([10, 10, 10], 26)] {
                let [_, input, weight] = times;
                assert!(most(times, Some(pair)) <= half * (pair + input + weight - 3 * weight));
            }
            // One after the other, a forward's result does not wait for the end of the backward beside it.
            assert_eq!(most([10, 10, 10], None), half * (10 + 20 - 2 * 10));
        }
    }
    let odd = Schedule::named(ScheduleKind::DualPipe, 3, 2, 8).unwrap_err().to_string();
    assert!(odd.ends_with("allowed: an even number of stages, each with one opposite to it"), "{odd}");
    assert_eq!(Schedule::named(ScheduleKind::DualPipe, 2, 2, 5), Err(ScheduleError::Odd { found: 5 }));
}

/// Two stages, each with both halves of the layers: twice the parameters of one half, and gradients summed over both.
#[test]
fn every_layer_is_held_twice_and_its_gradients_are_summed() {
    let gpt = model("gpt2", 8);
    let gpus = free_links(1, 4);
    let run = |kind| {
        play(&gpt, &gpus, &Plan { virtual_pipeline: 2, ..plan(1, 4, kind, ZeroStage::Zero) }, &workload(8))
    };
    let (dual, outcome) = run(ScheduleKind::DualPipe);
    let held: Vec<u64> = dual.stages.iter().map(|stage| stage.parameters).collect();
    assert_eq!(held[0], held[3]);
    assert_eq!(held[1], held[2]);
    // Embedding and head share their values on both ends.
    assert_eq!(held[0] + held[1], gpt.parameters());
    let mut recorder = steptime_core::Recorder::default();
    steptime_core::simulate(&dual.world, &mut recorder).expect("no deadlock");
    // 2 (n - 1) / n of 2 bytes for each value, n = 2.
    let sums: u64 = held[..2].iter().map(|values| 2 * values).sum();
    let mut sent: Vec<u64> = recorder.flows().iter().map(|flow| flow.bytes).collect();
    sent.sort_unstable();
    let largest: u64 = sent.iter().rev().take(2).sum();
    assert_eq!(largest, sums);
    assert!((dual.model_flops / run(ScheduleKind::ZeroBubbleV).0.model_flops - 1.0).abs() < 1e-12);
    assert!(outcome.end.picos() > 0);
}

#[test]
fn schedules_are_refused_where_they_mean_nothing() {
    let chunks = Schedule::named(ScheduleKind::ZeroBubbleV, 4, 1, 8);
    assert_eq!(chunks, Err(ScheduleError::Chunks { allowed: 2, found: 1 }));
    let few = Schedule::named(ScheduleKind::DualPipeV, 4, 2, 7);
    assert_eq!(few, Err(ScheduleError::TooFew { needed: 8, found: 7 }));
    let grouped = |micro_batches, group| {
        let pipeline =
            Pipeline { stages: 4, chunks: 3, micro_batches, group: Some(group), costs: &[], transfer: 0 };
        Schedule::of(ScheduleKind::OneForwardOneBackward, &pipeline).map(|schedule| schedule.check())
    };
    // Megatron-LM takes 5 micro-batches over 4 stages in one group of 5, and 9 as 5 and 4.
    assert_eq!(grouped(5, 5), Ok(Ok(())));
    assert_eq!(grouped(9, 5), Ok(Ok(())));
    assert_eq!(grouped(8, 5), Err(ScheduleError::GroupSize { stages: 4, micro_batches: 8, group: 5 }));
    assert_eq!(grouped(8, 3), Err(ScheduleError::GroupSize { stages: 4, micro_batches: 8, group: 3 }));
}

#[test]
fn gradients_of_weights_follow_those_of_inputs() {
    let schedule = Schedule::parse("F0 W0 I0\n").unwrap();
    let error = schedule.check().map_err(|error| error.to_string());
    assert_eq!(
        error,
        Err("stage 0: backward (weights) of micro-batch 0 stands before its gradients of inputs".to_owned())
    );
    let twice = Schedule::parse("F0 B0 W0\n").unwrap().check().map_err(|error| error.to_string());
    assert_eq!(
        twice,
        Err("stage 0: backward (weights) of micro-batch 0 occurs 2 times; each pass of the step's micro-batches must \
             occur once"
            .to_owned())
    );
}

#[test]
fn written_schedules_are_read_line_by_line() {
    let text = "order = v # chunk 1 comes back\n\nF0 F0.1 I0.1 W0.1 B0\nF0 F0.1 I0.1 W0.1 B0\n";
    let schedule = Schedule::parse(text).unwrap();
    assert_eq!((schedule.chunks, schedule.micro_batches, schedule.stages.len()), (2, 1, 2));
    assert_eq!(schedule.chunk_order, ChunkOrder::BackAndForth);
    schedule.check().expect("legal");
    let error = |text| Schedule::parse(text).unwrap_err().to_string();
    assert_eq!(
        error("F0 B0\nF0 X1\n"),
        "line 2: found `X1`, allowed: F, B, I or W with a micro-batch and, behind a dot, a chunk, such as F0 or B3.1"
    );
    assert_eq!(
        error("order = w"),
        "line 1: found `order = w`, allowed: order = around, order = v, order = both"
    );
    assert_eq!(
        error("# nothing\n"),
        "it has no stage; write one line of passes for each stage, such as F0 F1 B0 B1"
    );
}

#[test]
fn played_stages_idle_as_the_schedule_says() {
    // Components take as long forward as for each half of backward.
    for p in [2_u64, 4, 8] {
        let model = equal_partitions(p as usize, "0 B");
        let hardware = free_links(1, p as u32);
        let m = 3 * p;
        let play = |kind| play(&model, &hardware, &plan(1, p, kind, ZeroStage::Zero), &workload(m)).1;
        let pass =
            play(ScheduleKind::GPipe).ranks[0].streams[0].busy.iter().map(|it| it.picos()).sum::<u64>()
                / (3 * m);
        let end = |kind| play(kind).end.picos();
        assert_eq!(end(ScheduleKind::OneForwardOneBackward), pass * 3 * (m + p - 1));
        assert_eq!(end(ScheduleKind::ZeroBubbleH1), pass * (3 * m + p - 1));
        assert_eq!(end(ScheduleKind::ZeroBubbleOne), pass * (3 * m + p - 1));
        // The last stage begins p - 1 forwards after the first, and has as much to do.
        assert_eq!(end(ScheduleKind::ZeroBubbleH2), pass * (3 * m + p - 1));
    }
}

#[test]
fn late_weights_hold_their_inputs() {
    // With one stage, nothing is in flight, and the split changes no time, only when memory is freed.
    let gpt = model("gpt2", 8);
    let gpus = cluster("dgx-a100-80gb").with_size(1, 4).unwrap();
    let run = |kind| play(&gpt, &gpus, &plan(1, 4, kind, ZeroStage::Zero), &workload(12)).1;
    let [one, h1, h2] =
        [ScheduleKind::OneForwardOneBackward, ScheduleKind::ZeroBubbleH1, ScheduleKind::ZeroBubbleH2]
            .map(run);
    let peak = |outcome: &steptime_core::Outcome, stage: usize| outcome.ranks[stage].memory.peak;
    assert!(h1.end < one.end && h2.ranks[0].memory.peak > h1.ranks[0].memory.peak);
    // ZB-H1 holds p micro-batches on every stage; 1F1B one on the last but one.
    assert!(peak(&h1, 2) > peak(&one, 2));
    for stage in 0..4 {
        assert_eq!(one.ranks[stage].memory.end_by_category, h1.ranks[stage].memory.end_by_category);
        assert_eq!(one.ranks[stage].memory.end_by_category, h2.ranks[stage].memory.end_by_category);
    }
}

/// Stages and micro-batches near these that the schedule can have.
fn possible(kind: ScheduleKind, p: usize, m: u32) -> (usize, u32) {
    match kind {
        ScheduleKind::DualPipeV => (p, m.max(2 * p as u32)),
        ScheduleKind::DualPipe => (2 * p, (2 * m).max(4 * p as u32)),
        _ => (p, m),
    }
}

fn kind() -> impl Strategy<Value = ScheduleKind> {
    let mut kinds = vec![
        ScheduleKind::GPipe,
        ScheduleKind::OneForwardOneBackward,
        ScheduleKind::LoopedBreadthFirst,
        ScheduleKind::Hanayo,
    ];
    kinds.extend(SPLIT);
    prop::sample::select(kinds)
}

proptest! {
    #[test]
    fn every_schedule_is_legal_and_reads_back(kind in kind(), p in 1_usize..10, m in 1_u32..40, v in 1_u32..4) {
        let chunks = kind.chunks().unwrap_or(v);
        let chunks = if kind.refused_chunks(chunks).is_some() { 2 * v } else { chunks };
        let interleaved = chunks > 1 && kind == ScheduleKind::OneForwardOneBackward;
        let m = if interleaved { m * p as u32 } else { m };
        let (p, m) = possible(kind, p, m);
        let schedule = Schedule::named(kind, p, chunks, m).expect("a possible size");
        prop_assert_eq!(schedule.check(), Ok(()));
        let read = Schedule::parse(&schedule.written()).expect("written by the schedule itself");
        prop_assert_eq!(&read, &schedule);
        let passes = u64::from(chunks) * u64::from(m);
        prop_assert!((0..p).all(|stage| schedule.in_flight(stage) <= passes));
    }

    #[test]
    fn grouped_interleaving_is_legal(p in 2_u32..7, groups in 1_u32..4, extra in 0_u32..5, rest in 0_u32..12, v in 2_u32..4) {
        let group = p + extra;
        let rest = if rest < p { 0 } else { rest % group };
        let rest = if rest < p { 0 } else { rest };
        let pipeline = Pipeline {
            stages: p as usize, chunks: v, micro_batches: groups * group + rest, group: Some(group), costs: &[], transfer: 0,
        };
        let schedule = Schedule::of(ScheduleKind::OneForwardOneBackward, &pipeline).expect("possible groups");
        prop_assert_eq!(schedule.check(), Ok(()));
    }

    #[test]
    fn one_wrong_pass_is_found(kind in kind(), p in 1_usize..6, m in 1_u32..12, at in any::<prop::sample::Index>(), stage in any::<prop::sample::Index>()) {
        let chunks = kind.usual_chunks();
        let (p, m) = possible(kind, p, m);
        let mut schedule = Schedule::named(kind, p, chunks, m).expect("a possible size");
        let order = &mut schedule.stages[stage.index(p)];
        let removed = at.index(order.len());
        order.remove(removed);
        // Forwards alone are a schedule of inference.
        let training = schedule.stages.iter().flatten().any(|action| !matches!(action, Action::Forward { .. }));
        prop_assert!(schedule.check().is_err() || !training);
    }
}

#[test]
fn folded_equals_explicit_for_split_backwards() {
    let gpt = model("gpt2", 16);
    for (kind, chunks) in SPLIT.map(|kind| (kind, kind.chunks().unwrap_or(1).into())) {
        for zero in [ZeroStage::Zero, ZeroStage::Two, ZeroStage::Three] {
            let gpus = cluster("dgx-a100-80gb").with_size(2, 8).unwrap();
            let base = Plan { tensor: 2, virtual_pipeline: chunks, ..plan(2, 4, kind, zero) };
            let m = if kind == ScheduleKind::DualPipe { 10 } else { 9 };
            let (_, folded) = play(&gpt, &gpus, &base, &workload(m));
            let (_, every) = play(&gpt, &gpus, &Plan { explicit: true, ..base.clone() }, &workload(m));
            assert_eq!(folded.end, every.end, "{kind:?} {zero:?}");
        }
    }
}

#[test]
fn waves_wait_less_the_more_there_are_and_hold_no_more_than_1f1b() {
    for p in [4_usize, 8] {
        for m in [p as u32 / 2, p as u32] {
            let one = Schedule::named(ScheduleKind::OneForwardOneBackward, p, 1, m).unwrap();
            // A stage of 1F1B has the work of all chunks: the times of a chunk are their share of it.
            let wait = |schedule: &Schedule| {
                let share = 8 / u64::from(schedule.chunks);
                idle(schedule, [share, share, share]).into_iter().max().unwrap()
            };
            let mut before = wait(&one);
            for waves in [1, 2, 4] {
                let schedule = Schedule::named(ScheduleKind::Hanayo, p, 2 * waves, m).unwrap();
                let now = wait(&schedule);
                assert!(now < before, "p = {p}, m = {m}, {waves} waves: {now} against {before}");
                before = now;
                // Passes of chunks that are open: those of p whole micro-batches at most.
                assert!(most_held(&schedule) <= p as u64 * u64::from(schedule.chunks));
            }
        }
    }
    let odd = Schedule::named(ScheduleKind::Hanayo, 4, 3, 8).unwrap_err().to_string();
    assert_eq!(
        odd,
        "the schedule cannot have 3 chunk(s) of layers on each stage, allowed: 2, 4, 6, ...: two for each wave"
    );
}

#[test]
fn transfers_delay_what_waits_for_them_and_chunks_of_a_stage_need_none() {
    // 1F1B of two stages, one micro-batch: forward down and backward up each cross once.
    let one = Schedule::named(ScheduleKind::OneForwardOneBackward, 2, 1, 1).unwrap();
    let end = |schedule: &Schedule, transfer| {
        let timed = schedule.timed(|_| PassCost::EQUAL, transfer);
        timed.iter().map(|passes| StageTimes::of(passes).end).max()
    };
    assert_eq!((end(&one, 0), end(&one, 5)), (Some(6), Some(16)));
    // A V of two stages turns on the last stage: four chunks, two crossings each way.
    let v = Schedule::parse("order = v\nF0 F0.1 B0.1 B0\nF0 F0.1 B0.1 B0\n").unwrap();
    assert_eq!((end(&v, 0), end(&v, 5)), (Some(12), Some(32)));
}
