//! GPUs of several kinds and micro-batches of several sizes, against what is reckoned by hand.

use steptime_clusters::Cluster;
use steptime_core::{NoObserver, simulate};

use super::fixtures::{cluster, equal_partitions, free_links, model, plan, play, workload};
use crate::error::PlanError;
use crate::lower::{lower, stage_rates};
use crate::partition::balanced_stages;
use crate::plan::Plan;
use crate::schedule::ScheduleKind;
use crate::workload::{Precision, Workload};
use crate::zero::ZeroStage;

const PIPELINED: ScheduleKind = ScheduleKind::OneForwardOneBackward;

fn at_clocks(nodes: u32, gpus_per_node: u32, shares: &[f64]) -> Cluster {
    free_links(nodes, gpus_per_node).at_clocks(shares).expect("few kinds")
}

fn picos(cluster: &Cluster, plan: &Plan, work: &Workload) -> u64 {
    play(&equal_partitions(plan.pipeline as usize, "0 B"), cluster, plan, work).1.end.picos()
}

/// Two stages, of which one has twice the peak of the other; passes of the fast one take F and B = 2F, and u = F + B. As the
/// last stage the slow one waits F for the first micro-batch, works 2m u, and is followed by one B: (2m + 1) u. As the
/// first it has done one of its forwards, of 2F, in advance when after F + B its first backward comes back, and waits F:
/// 2m u + F.
#[test]
fn two_kinds_in_a_pipeline() {
    let m = 6;
    let plan = plan(1, 2, PIPELINED, ZeroStage::Zero);
    let work = workload(m);
    let even = picos(&free_links(1, 2), &plan, &work);
    let pass = even / (m + 1);
    let step = |shares: [f64; 2]| picos(&at_clocks(1, 2, &shares), &plan, &work);
    let near =
        |found: u64, expected: u64| assert!(found.abs_diff(expected) <= 8 * m, "{found} against {expected}");
    near(step([1.0, 0.5]), (2 * m + 1) * pass);
    near(step([0.5, 1.0]), 2 * m * pass + pass / 3);
    near(step([0.5, 0.5]), 2 * even);
}

/// Without anything to exchange, replicas end when the last one does. At half the clock a sample takes twice as long: three
/// samples on each take 6 t, and four on the fast and two on the slow one 4 t.
#[test]
fn larger_micro_batches_for_the_faster_gpu() {
    let cluster = at_clocks(1, 2, &[1.0, 0.5]);
    let work = Workload { micro_batch_size: 3, ..workload(2) };
    let even = plan(2, 1, PIPELINED, ZeroStage::Zero);
    let uneven = Plan { micro_batches: Some(vec![4, 2]), ..even.clone() };
    let (even, uneven) = (picos(&cluster, &even, &work), picos(&cluster, &uneven, &work));
    assert!((3 * uneven).abs_diff(2 * even) <= 100, "{uneven} against two thirds of {even}");
    // What the job computes stays the same.
    let flops = |plan: &Plan| play(&equal_partitions(1, "0 B"), &cluster, plan, &work).0.model_flops;
    let split = Plan { micro_batches: Some(vec![4, 2]), ..plan(2, 1, PIPELINED, ZeroStage::Zero) };
    assert!((flops(&split) - flops(&plan(2, 1, PIPELINED, ZeroStage::Zero))).abs() < 1.0);
}

#[test]
fn a_mix_is_between_its_kinds() {
    let groups = ["dgx-h100", "dgx-a100-80gb"].map(|name| cluster(name).with_size(1, 4).expect("a size"));
    let mixed = Cluster::of_groups(&groups).expect("equal nodes");
    let alone = groups.each_ref().map(|group| group.with_size(2, 4).expect("a size"));
    for (zero, tensor) in [(ZeroStage::Zero, 1), (ZeroStage::One, 2), (ZeroStage::Three, 1)] {
        let plan = Plan { tensor, ..plan(8 / tensor, 1, PIPELINED, zero) };
        let time = |cluster: &Cluster| play(&model("gpt2", 4), cluster, &plan, &workload(2)).1.end.picos();
        let [h100, a100] = alone.each_ref().map(time);
        let mixed = time(&mixed);
        assert!(h100 < mixed && mixed <= a100 + a100 / 20, "{h100} {mixed} {a100}");
    }
    let across = plan(4, 2, PIPELINED, ZeroStage::Zero);
    let (lowered, _) = play(&model("gpt2", 4), &mixed, &across, &workload(4));
    // Stages of one kind each: one lane still stands for all.
    assert!(lowered.folded);
    assert_eq!(lowered.ranks.iter().map(|rank| rank.kind).collect::<Vec<_>>(), [0, 1]);
    let capacity = |rank: usize| lowered.world.ranks()[rank].memory_capacity.expect("a device");
    assert_eq!(
        [capacity(0), capacity(1)].map(|bytes| bytes >> 21),
        [0, 1].map(|kind| mixed.kind(kind).gpu.memory.0 >> 21)
    );
    let explicit = Plan { explicit: true, ..across };
    let every = lower(&model("gpt2", 4), &mixed, &explicit, &workload(4)).expect("legal");
    let folded = simulate(&lowered.world, &mut NoObserver).expect("no deadlock").end;
    assert_eq!(folded, simulate(&every.world, &mut NoObserver).expect("no deadlock").end);
}

/// One slow GPU of eight: the step is longer, and it is the others that wait.
#[test]
fn one_slow_gpu_of_a_data_parallel_job() {
    let shares = [1.0, 1.0, 1.0, 0.7, 1.0, 1.0, 1.0, 1.0];
    let plan = plan(8, 1, PIPELINED, ZeroStage::One);
    let even = play(&model("gpt2", 4), &free_links(1, 8), &plan, &workload(2));
    let slow = play(&model("gpt2", 4), &at_clocks(1, 8, &shares), &plan, &workload(2));
    assert!(even.0.folded && !slow.0.folded);
    assert!(slow.1.end > even.1.end);
    let waits = |rank: usize| slow.1.ranks[rank].idle[usize::from(crate::classes::COLLECTIVE_WAIT.0)];
    assert!((0..8).filter(|rank| *rank != 3).all(|rank| waits(rank) > waits(3)));
}

/// The same split of the work in whole micro-batches of 3 samples: at half the clock one takes 2 t, two on each take 4 t,
/// three on the fast and one on the slow one 3 t and 2 t.
#[test]
fn more_micro_batches_for_the_faster_gpu() {
    let cluster = at_clocks(1, 2, &[1.0, 0.5]);
    let work = Workload { micro_batch_size: 3, ..workload(2) };
    let even = plan(2, 1, PIPELINED, ZeroStage::Zero);
    let uneven = Plan { micro_batch_counts: Some(vec![3, 1]), ..even.clone() };
    let (slow, fast) = (picos(&cluster, &even, &work), picos(&cluster, &uneven, &work));
    assert!((4 * fast).abs_diff(3 * slow) <= 100, "{fast} against three quarters of {slow}");
    // As much is computed in all.
    let flops = |plan: &Plan| play(&equal_partitions(1, "0 B"), &cluster, plan, &work).0.model_flops;
    assert!((flops(&uneven) - flops(&even)).abs() < 1.0);
}

/// Pipelines of different lengths of two replicas: each stage sums its gradients when both replicas have done their last
/// backward there, once a step.
#[test]
fn replicas_with_other_numbers_of_micro_batches_reduce_once() {
    let gpt = model("gpt2", 8);
    let gpus = free_links(1, 8);
    for zero in [ZeroStage::Zero, ZeroStage::One] {
        let base = plan(2, 4, PIPELINED, zero);
        let run = |counts: Option<Vec<u64>>| {
            let plan = Plan { micro_batch_counts: counts, explicit: true, ..base.clone() };
            let lowered = lower(&gpt, &gpus, &plan, &workload(6)).expect("legal");
            let mut recorder = steptime_core::Recorder::default();
            let end = simulate(&lowered.world, &mut recorder).expect("no deadlock").end;
            let mut bytes: Vec<u64> = recorder.flows().iter().map(|flow| flow.bytes).collect();
            bytes.sort_unstable();
            (lowered, end, bytes)
        };
        let ((_, even, sent), (lowered, uneven, other)) = (run(None), run(Some(vec![8, 4])));
        // The longer pipeline sets the pace: (8 + 3) / (6 + 3) of the passes, in which more of the reduction is exposed.
        assert!(uneven > even);
        let ratio = uneven.seconds() / even.seconds();
        assert!((1.15..1.3).contains(&ratio), "{ratio}");
        // As many activations cross the borders of the stages, 8 + 4 instead of 6 + 6, and as much is reduced.
        assert_eq!(sent, other);
        let counts: Vec<_> = lowered.ranks.iter().map(|rank| rank.count).collect();
        assert_eq!(counts[..2], [Some(8), Some(4)]);
    }
    let refuse = |plan: Plan| lower(&gpt, &gpus, &plan, &workload(6)).expect_err("uneven").to_string();
    let base = plan(2, 4, PIPELINED, ZeroStage::Two);
    let error = refuse(Plan { micro_batch_counts: Some(vec![8, 4]), ..base });
    assert!(error.contains("ZeRO 2 and 3"), "{error}");
    let base = plan(2, 4, PIPELINED, ZeroStage::Zero);
    let error = refuse(Plan { micro_batch_counts: Some(vec![8, 5]), ..base });
    assert!(
        error.contains(
            "the numbers add up to 13 micro-batches; gradient_accumulation_steps 6 x 2 ranks are 12"
        ),
        "{error}"
    );
}

/// Two H100 stages and two of half the clock: rates 2 : 2 : 1 : 1 give 18 equal blocks as 6, 6, 3, 3.
#[test]
fn balanced_stages_follow_the_speed_of_their_gpus() {
    let gpt = model("gpt2", 18);
    let cluster = at_clocks(1, 4, &[1.0, 1.0, 0.5, 0.5]);
    let base = plan(1, 4, PIPELINED, ZeroStage::Zero);
    let rates = stage_rates(&cluster, &base, Precision::Bf16).expect("four GPUs");
    assert!((rates[0] - 2.0 * rates[3]).abs() < 1.0 && (rates[0] - rates[1]).abs() < 1.0);
    let blocks = balanced_stages(&gpt, &rates);
    // The head's 38.6 M multiply-adds a token are 5.4 blocks of 7.1 M: 23.4 blocks' worth, a sixth of it is 3.9.
    assert_eq!(blocks, [8, 8, 2, 0]);
    assert_eq!(balanced_stages(&gpt, &[1.0; 4]), [6, 6, 6, 0]);
    // On the slower half reversed, and where a replica of each stage sits on a slow GPU all are slow.
    let swapped = at_clocks(1, 4, &[0.5, 0.5, 1.0, 1.0]);
    let rates = stage_rates(&swapped, &base, Precision::Bf16).expect("four GPUs");
    let slow_first = balanced_stages(&gpt, &rates);
    assert!(slow_first[0] < slow_first[2], "{slow_first:?}");
    let pairs = at_clocks(1, 4, &[1.0, 0.5, 1.0, 0.5]);
    let rates =
        stage_rates(&pairs, &plan(2, 2, PIPELINED, ZeroStage::Zero), Precision::Bf16).expect("four GPUs");
    assert!((rates[0] - rates[1]).abs() < 1.0);
    // Both chunks of a V on a stage follow that stage.
    let v = Plan { virtual_pipeline: 2, ..plan(1, 4, ScheduleKind::ZeroBubbleV, ZeroStage::Zero) };
    let rates = stage_rates(&cluster, &v, Precision::Bf16).expect("four GPUs");
    assert!((rates[0] - rates[7]).abs() < 1.0 && (rates[3] - rates[4]).abs() < 1.0 && rates[0] > rates[4]);
}

#[test]
fn splits_that_cannot_be() {
    let cases: [(&[u64], &str); 3] = [
        (&[3], "1 sizes"),
        (&[6, 0], "without samples"),
        (&[4, 1], "add up to 5 samples; micro_batch_size 3 x 2 ranks are 6"),
    ];
    for (sizes, expected) in cases {
        let plan = Plan { micro_batches: Some(sizes.to_vec()), ..plan(2, 1, PIPELINED, ZeroStage::Zero) };
        let work = Workload { micro_batch_size: 3, ..workload(1) };
        let error = lower(&equal_partitions(1, "0 B"), &free_links(1, 2), &plan, &work).expect_err("uneven");
        assert!(matches!(error, PlanError::Uneven { .. }) && error.to_string().contains(expected), "{error}");
    }
}
