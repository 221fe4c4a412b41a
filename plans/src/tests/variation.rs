//! Slow GPUs, slow links and jitter, on jobs small enough to reckon by hand.

use steptime_core::{NoObserver, Outcome, Recorder, Span, SpanKind, World, simulate};

use super::fixtures::{cluster, equal_partitions, free_links, model, plan, workload};
use crate::classes;
use crate::lower::{Lowered, lower};
use crate::plan::Plan;
use crate::router::Router;
use crate::schedule::ScheduleKind;
use crate::variation::{Busiest, LinkOwner, Repetition, SlowLink, Straggler, Stragglers, Variation};
use crate::workload::Workload;
use crate::zero::ZeroStage;

fn straggler(rank: u64, factor: f64, clock: f64) -> Straggler {
    Straggler { which: Stragglers::Ranks(vec![rank]), factor, clock, after_s: 0.0 }
}

fn explicit(plan: Plan) -> Plan {
    Plan { explicit: true, ..plan }
}

fn play(world: &World) -> Outcome {
    simulate(world, &mut NoObserver).expect("no deadlock")
}

fn varied(lowered: &Lowered, variation: &Variation, number: u32, begins_s: f64) -> Outcome {
    play(&variation.world(lowered, Repetition { number, begins_s }).expect("links of these names"))
}

/// Four equal partitions over free links, sent by 1F1B.
fn pipeline(micro_batches: u64) -> Lowered {
    let plan = explicit(plan(1, 4, ScheduleKind::OneForwardOneBackward, ZeroStage::Zero));
    let model = equal_partitions(4, "0 B");
    lower(&model, &free_links(1, 4), &plan, &workload(micro_batches)).expect("legal")
}

/// With `p` equal stages whose passes take F and B = 2F, 1F1B of m micro-batches ends after (m + p - 1)(F + B). Stage s,
/// counted from 0, twice as slow, takes 2m (F + B) for its own. It waits s F for the first micro-batch; it has done its
/// p - 1 - s forwards in advance, of 2F each, when the first backward comes back after as many forwards and backwards of
/// the stages behind it, which makes it wait (p - 1 - s)(F + B - 2F) = (p - 1 - s) F; and its last backward is followed by
/// s B of the stages before it.
#[test]
fn a_slow_stage_paces_the_pipeline() {
    let (m, p) = (8, 4);
    let lowered = pipeline(m);
    let even = play(&lowered.world).end.picos();
    let pass = even / (m + p - 1);
    assert_eq!(even, pass * (m + p - 1));
    for rank in 0..p {
        let slow = Variation { stragglers: vec![straggler(rank, 2.0, 1.0)], ..Variation::default() };
        let outcome = varied(&lowered, &slow, 0, 0.0);
        let (end, expected) = (outcome.end.picos(), (2 * m + rank) * pass + (p - 1 - rank) * pass / 3);
        assert!(end.abs_diff(expected) <= 2 * m, "{end} against {expected}");
        // The slow stage is on the critical path: it is busy for all of the step but these waits.
        let busy: u64 = outcome.ranks[rank as usize].streams[0].busy.iter().map(|it| it.picos()).sum();
        assert!(busy.abs_diff(2 * m * pass) <= m);
    }
}

/// What of a step's critical path each rank runs, in picoseconds: from the end backwards along the kernels of a rank, and
/// where it waited for others to come to a meeting, on with the kernel that ended last before they had.
fn critical_path(world: &World) -> Vec<u64> {
    let mut recorder = Recorder::new();
    simulate(world, &mut recorder).expect("no deadlock");
    let mut kernels: Vec<&Span> = recorder.spans().iter().filter(|it| it.kind == SpanKind::Kernel).collect();
    kernels.sort_by_key(|span| span.end);
    let before = |at: u64| kernels[..kernels.partition_point(|it| it.end.picos() <= at)].iter().rev();
    let mut path = vec![0; world.ranks().len()];
    let mut next = kernels.last().copied();
    while let Some(kernel) = next {
        let (rank, at) = (kernel.rank, kernel.start.picos());
        path[rank as usize] += kernel.end.picos() - at;
        let own = before(at).find(|it| it.rank == rank).copied();
        let idle_from = own.map_or(0, |it| it.end.picos());
        let waits = recorder.spans().iter().filter(|it| {
            // Transfers that take no time take a picosecond.
            it.rank == rank
                && it.kind == SpanKind::Waiting
                && it.end.picos() > idle_from + 8
                && it.end.picos() <= at
        });
        next = match waits.map(|it| it.end.picos()).max() {
            Some(met) => before(met).find(|it| it.rank != rank).copied(),
            None => own,
        };
    }
    path
}

fn slowed(lowered: &Lowered, rank: u64) -> Vec<u64> {
    let slow = Variation { stragglers: vec![straggler(rank, 2.0, 1.0)], ..Variation::default() };
    critical_path(&slow.world(lowered, Repetition::default()).expect("no links are named"))
}

/// Of equal stages the last works without a pause from its first forward to its last backward, m of m + p - 1 passes; the
/// others share what comes before and after it. A slow stage takes the path over: all of its 2m passes are on it but those
/// during which the first backwards come back to it.
#[test]
fn a_slow_stage_draws_the_critical_path_to_itself() {
    let (m, p) = (8, 4);
    let lowered = pipeline(m);
    let end = play(&lowered.world).end.picos();
    let pass = end / (m + p - 1);
    let even = critical_path(&lowered.world);
    let about = |found: u64, expected: u64| found.abs_diff(expected) <= 8 * m;
    assert!(about(even.iter().sum(), end), "{even:?} of {end}");
    assert!(about(even[3], m * pass), "{even:?}, of passes of {pass}");
    for rank in 0..p as usize {
        let slow = slowed(&lowered, rank as u64);
        assert!(
            slow[rank] + 8 * m >= (2 * m - (p - 2)) * pass,
            "stage {rank}: {slow:?}, of passes of {pass}"
        );
        let others = slow.iter().sum::<u64>() - slow[rank];
        assert!(others <= end - even[rank], "stage {rank}: {slow:?} after {even:?}");
        assert!(rank == 3 || slow[3] < even[3] / 3, "stage {rank}: {slow:?} after {even:?}");
    }
}

/// Any replica's kernels may be the critical path of equal ones; with a slow one among them it runs through no other.
#[test]
fn a_slow_replica_draws_the_critical_path_to_itself() {
    let plan = explicit(plan(4, 1, ScheduleKind::OneForwardOneBackward, ZeroStage::Zero));
    let plan = Plan { gradient_overlap: false, ..plan };
    let lowered = lower(&model("gpt2", 4), &free_links(1, 4), &plan, &workload(2)).expect("legal");
    let even = critical_path(&lowered.world);
    for rank in 0..4 {
        let slow = slowed(&lowered, rank);
        let (own, all) = (slow[rank as usize], slow.iter().sum::<u64>());
        assert!(own as f64 > 1.9 * *even.iter().max().expect("four") as f64, "{slow:?} after {even:?}");
        assert!(own == all, "rank {rank}: {slow:?}");
    }
}

/// Data-parallel replicas wait for the slow one in their collective: what it is slower, the others are idle.
#[test]
fn replicas_wait_for_the_slow_one() {
    let plan = explicit(plan(4, 1, ScheduleKind::OneForwardOneBackward, ZeroStage::Zero));
    let lowered = lower(&model("gpt2", 4), &free_links(1, 4), &plan, &workload(2)).expect("legal");
    let even = play(&lowered.world);
    let slow = Variation { stragglers: vec![straggler(2, 1.5, 1.0)], ..Variation::default() };
    let outcome = varied(&lowered, &slow, 0, 0.0);
    assert!(outcome.end > even.end);
    let waits = |outcome: &Outcome, rank: usize| {
        outcome.ranks[rank].idle[usize::from(classes::COLLECTIVE_WAIT.0)].picos()
    };
    for rank in [0, 1, 3] {
        assert!(waits(&outcome, rank) > waits(&even, rank), "rank {rank} waits");
    }
    assert!(waits(&outcome, 2) <= waits(&even, 2), "nobody makes the slow one wait");
}

/// A lower clock stretches what arithmetic limits, and leaves what memory limits.
#[test]
fn a_lower_clock_is_between_nothing_and_a_slower_gpu() {
    let plan = explicit(plan(1, 1, ScheduleKind::OneForwardOneBackward, ZeroStage::Zero));
    let lowered = lower(&model("gpt2", 4), &free_links(1, 1), &plan, &workload(1)).expect("legal");
    let of = |factor, clock| {
        let variation = Variation { stragglers: vec![straggler(0, factor, clock)], ..Variation::default() };
        varied(&lowered, &variation, 0, 0.0).end.picos()
    };
    let even = play(&lowered.world).end.picos();
    let (throttled, slow) = (of(1.0, 0.5), of(2.0, 1.0));
    assert!(even < throttled && throttled < slow, "{even} {throttled} {slow}");
    assert!(
        slow.abs_diff(2 * even) < even / 100,
        "nothing but kernels takes time: {slow} against 2 x {even}"
    );
}

#[test]
fn throttling_begins_when_the_run_is_hot() {
    let lowered = pipeline(4);
    let hot = Straggler { after_s: 10.0, ..straggler(1, 1.0, 0.5) };
    let variation = Variation { stragglers: vec![hot], ..Variation::default() };
    let even = play(&lowered.world).end;
    assert_eq!(varied(&lowered, &variation, 0, 0.0).end, even);
    assert_eq!(varied(&lowered, &variation, 1, 9.999).end, even);
    assert!(varied(&lowered, &variation, 2, 10.0).end > even);
}

/// A ring is as slow as its slowest link: at half the rate, the transfer's flow takes twice as long.
#[test]
fn a_slow_link_slows_the_ring_that_crosses_it() {
    let plan = explicit(plan(4, 1, ScheduleKind::OneForwardOneBackward, ZeroStage::Zero));
    let plan = Plan { gradient_overlap: false, ..plan };
    let lowered = lower(&model("gpt2", 4), &free_links(1, 4), &plan, &workload(1)).expect("legal");
    let time = |rate| {
        let slow = SlowLink { owner: LinkOwner::Gpu(1), rate, after_s: 0.0 };
        let variation = Variation { slow_links: vec![slow], ..Variation::default() };
        varied(&lowered, &variation, 0, 0.0).end.picos()
    };
    let [whole, half, quarter] = [1.0, 0.5, 0.25].map(time);
    assert_eq!(whole, play(&lowered.world).end.picos());
    // Times at the rates 1, 1/2 and 1/4 are T, T + f and T + 3f.
    assert!((quarter - whole).abs_diff(3 * (half - whole)) <= 4, "{whole} {half} {quarter}");
    let unknown = SlowLink { owner: LinkOwner::Name("moon".to_owned()), rate: 0.5, after_s: 0.0 };
    let variation = Variation { slow_links: vec![unknown], ..Variation::default() };
    let error = variation.world(&lowered, Repetition::default()).expect_err("no such link");
    assert!(error.to_string().contains("`moon`"), "{error}");
}

#[test]
fn jitter_of_nothing_changes_nothing_and_of_kernels_makes_ranks_wait() {
    let plan = explicit(plan(4, 1, ScheduleKind::OneForwardOneBackward, ZeroStage::Zero));
    let lowered = lower(&model("gpt2", 4), &free_links(1, 4), &plan, &workload(4)).expect("legal");
    let even = play(&lowered.world);
    assert_eq!(varied(&lowered, &Variation::default(), 0, 0.0), even);
    let jitter = Variation { seed: 1, kernel_jitter: 0.2, step_jitter: 0.05, ..Variation::default() };
    let first = varied(&lowered, &jitter, 0, 0.0);
    assert_eq!(first, varied(&lowered, &jitter, 0, 0.0), "the same numbers for the same seed");
    assert_ne!(first.end, varied(&lowered, &jitter, 1, 0.0).end);
    let mean = (0..40).map(|number| varied(&lowered, &jitter, number, 0.0).end.picos()).sum::<u64>() / 40;
    assert!(mean > even.end.picos(), "the step ends with the slowest of four ranks: {mean}");
}

/// Every layer's router draws for itself: what layers prefer has nothing to do with each other, each layer's busiest rank has
/// the expected maximum, and the rank with most tokens in all layers has fewer than the busiest ones of each.
#[test]
fn layers_are_routed_by_themselves() {
    let mixtral = model("mixtral-8x7b", 4);
    let p = Plan { expert: 8, ..plan(8, 2, ScheduleKind::OneForwardOneBackward, ZeroStage::One) };
    let work = Workload { router: Router::Dirichlet(1.0), ..workload(2) };
    let lowered = lower(&mixtral, &cluster("dgx-h100").with_size(2, 8).unwrap(), &p, &work).expect("legal");
    let variation = Variation { seed: 5, routing: true, ..Variation::default() };
    let draw = |number, busiest| {
        let at = Repetition { number, begins_s: 0.0 };
        let routed = variation.routed((&mixtral, &p, &work), &lowered.stages, busiest, at).expect("differs");
        let load = |layer| routed.router.layer_load_millionths(layer, 8, 8) as f64 / 1e6;
        (0..mixtral.layers.len()).map(load).collect::<Vec<f64>>()
    };
    let count = 2_000_u32;
    let steps: Vec<Vec<f64>> = (0..count).map(|number| draw(number, Busiest::InEachLayer)).collect();
    let mean = |of: &dyn Fn(&Vec<f64>) -> f64| steps.iter().map(of).sum::<f64>() / f64::from(count);
    // Blocks are layers 1 to 4; of 8 exponential variables the largest is in the mean the harmonic number of 8 times theirs.
    let means: Vec<f64> = (1..=4).map(|layer| mean(&|step| step[layer])).collect();
    assert!(means.iter().all(|it| (it - 2.717_857).abs() < 0.08), "{means:?}");
    let covariance = mean(&|step| (step[1] - means[0]) * (step[2] - means[1]));
    let variance = mean(&|step| (step[1] - means[0]) * (step[1] - means[0]));
    // Of independent draws: 0 +- 1 / sqrt(2000).
    assert!((covariance / variance).abs() < 0.1, "{covariance} {variance}");
    // Embedding and head route nothing.
    assert!(steps.iter().all(|step| step[0].to_bits() == 1.0_f64.to_bits() && step[5] <= 1.0));
    let mut fewer = 0;
    for number in 0..200 {
        let (each, stages) = (draw(number, Busiest::InEachLayer), draw(number, Busiest::OfStages));
        for layers in [1..=2, 3..=4] {
            let sum = |loads: &[f64]| loads[layers.clone()].iter().sum::<f64>();
            assert!(layers.clone().all(|layer| stages[layer] <= each[layer]));
            // No less than the mean rank, which has as many as a balanced router sends.
            assert!(sum(&stages) >= 2.0 - 1e-5, "{number}: {stages:?}");
            fewer += u32::from(sum(&stages) < sum(&each) - 1e-5);
        }
    }
    // Two layers have the same busiest rank of eight in every eighth step.
    assert!((300..=380).contains(&fewer), "{fewer}");
}
