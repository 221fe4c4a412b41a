//! Groups that partition the states of one copy, and where ranks sit.

use steptime_clusters::{Fabric, FabricKind};
use steptime_core::{Recorder, simulate};

use super::fixtures::{cluster, model, plan, play, workload};
use crate::error::PlanError;
use crate::lower::lower;
use crate::plan::Plan;
use crate::rank_order::{Dimension, RankOrder};
use crate::schedule::ScheduleKind;
use crate::sharding::Sharding;
use crate::zero::ZeroStage;

fn replicas(data: u64, zero: ZeroStage, group: u64) -> Plan {
    let sharding = Sharding { group: Some(group), ..Sharding::default() };
    Plan { sharding, ..plan(data, 1, ScheduleKind::GPipe, zero) }
}

fn traffic(plan: &Plan, micro_batches: u64) -> f64 {
    let llama = model("llama3-8b", 4);
    let mut dgx = cluster("dgx-h100");
    dgx.fabric = Fabric::flat(FabricKind::NvSwitch, dgx.fabric.bandwidth);
    let lowered = lower(&llama, &dgx, plan, &workload(micro_batches)).expect("legal");
    let mut recorder = Recorder::default();
    simulate(&lowered.world, &mut recorder).expect("no deadlock");
    recorder.flows().iter().map(|flow| flow.bytes).sum::<u64>() as f64
}

fn close(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 1e-4, "{found} against {expected}");
}

/// 8 ranks in two groups of 4, `P` bytes of parameters and as many of gradients: each micro-batch gathers twice and
/// scatters once within a group, 3/4 `P` each, and sums a quarter of the gradients over two groups, 2 x 1/2 x `P` / 4.
#[test]
fn groups_gather_and_scatter_inside_and_sum_over_each_other() {
    let parameters = 2.0 * model("llama3-8b", 4).parameters() as f64;
    let hybrid = replicas(8, ZeroStage::Three, 4);
    close(traffic(&hybrid, 3), 3.0 * (3.0 * 0.75 + 0.25) * parameters);
    // MiCS sums over the groups once a step.
    let once = Sharding { sums_once: true, ..hybrid.sharding };
    close(traffic(&Plan { sharding: once, ..hybrid.clone() }, 3), (3.0 * 3.0 * 0.75 + 0.25) * parameters);
    // Instances of the distributed optimizer reduce once, and gather once.
    close(traffic(&replicas(8, ZeroStage::One, 4), 3), (2.0 * 0.75 + 0.25) * parameters);
    // A second copy within 2 of the 8 ranks: backward gathers half of it from the neighbour (ZeRO++, table 1).
    let second = Sharding { secondary: Some(2), ..Sharding::default() };
    let second = Plan { sharding: second, ..plan(8, 1, ScheduleKind::GPipe, ZeroStage::Three) };
    close(traffic(&second, 3), 3.0 * (2.0 * 0.875 + 0.5) * parameters);
}

/// 16 bytes a parameter over the ranks of a group, not over all; a second copy has 2 bytes over its own.
#[test]
fn states_are_divided_by_the_ranks_of_a_group() {
    let llama = model("llama3-8b", 4);
    let dgx = cluster("dgx-h100");
    let states =
        |plan: &Plan| lower(&llama, &dgx, plan, &workload(1)).expect("legal").stages[0].states.total();
    for group in [2, 4, 8] {
        assert_eq!(states(&replicas(8, ZeroStage::Three, group)), 16 * llama.parameters().div_ceil(group));
    }
    let peak = |secondary| {
        let sharding = Sharding { secondary, ..Sharding::default() };
        let p = Plan { sharding, ..plan(8, 1, ScheduleKind::GPipe, ZeroStage::Three) };
        let (_, outcome) = play(&llama, &dgx, &p, &workload(1));
        outcome.ranks[0].memory.peak_by_category[crate::classes::PARAMETERS.0 as usize]
    };
    assert_eq!(peak(Some(2)) - peak(None), llama.parameters());
}

/// On two nodes, groups that fill a node gather over NVLink: of a slow network they use a fraction.
#[test]
fn groups_inside_nodes_leave_the_network_to_sums() {
    let llama = model("llama3-8b", 4);
    let gpus = cluster("dgx-a100-80gb").with_size(2, 8).expect("two nodes");
    let end = |plan: &Plan| play(&llama, &gpus, plan, &workload(2)).1.end;
    let hybrid = end(&replicas(16, ZeroStage::Three, 8));
    let whole = end(&plan(16, 1, ScheduleKind::GPipe, ZeroStage::Three));
    assert!(hybrid < whole, "{hybrid:?} {whole:?}");
}

/// Stages before replicas: with two stages of tensor parallel 4 on nodes of 8, activations stay inside and gradients
/// leave; in the usual order it is the other way round where the replicas of a stage fill a node.
#[test]
fn the_order_of_ranks_decides_what_leaves_a_node() {
    let llama = model("llama3-8b", 4);
    let gpus = cluster("dgx-a100-80gb").with_size(2, 8).expect("two nodes");
    let order = [Dimension::Tensor, Dimension::Context, Dimension::Pipeline, Dimension::Data];
    let base = Plan { tensor: 4, ..plan(2, 2, ScheduleKind::OneForwardOneBackward, ZeroStage::Zero) };
    let inner = Plan { rank_order: RankOrder { order: Some(order), gpus: None }, ..base.clone() };
    let left = |plan: &Plan| {
        let lowered = lower(&llama, &gpus, plan, &workload(4)).expect("legal");
        assert!(lowered.folded);
        let mut recorder = Recorder::default();
        simulate(&lowered.world, &mut recorder).expect("no deadlock");
        let leaves = |group: steptime_core::GroupId| {
            let path = lowered.world.groups()[group.0 as usize].path();
            let name = |link: steptime_core::LinkId| lowered.world.links()[link.0 as usize].name.clone();
            path.iter().any(|it| name(it.link).starts_with("node"))
        };
        let flows = recorder.flows().iter().filter(|flow| leaves(flow.group));
        flows.fold((0, 0), |(count, bytes), flow| (count + 1, bytes + flow.bytes))
    };
    // Forward and back of 4 micro-batches; the ranks' gradients of half of the model.
    let ((count, sent), (_, gradients)) = (left(&base), left(&inner));
    assert_eq!(count, 8);
    assert!(gradients > 10 * sent, "{gradients} {sent}");
    // The same laid out by hand: rank `r` of the usual order on the GPU that the other order gives it.
    let usual = |rank: u32| {
        let (stage, data, part) = (rank / 8, rank / 4 % 2, rank % 4);
        (data * 2 + stage) * 4 + part
    };
    let gpus_of = (0..16).map(usual).collect();
    let by_hand = Plan { rank_order: RankOrder { order: None, gpus: Some(gpus_of) }, ..base.clone() };
    let end = |plan: &Plan| play(&llama, &gpus, plan, &workload(4)).1.end;
    assert_eq!(end(&by_hand), end(&inner));
    assert_ne!(end(&base), end(&inner));
}

#[test]
fn groups_and_seats_that_cannot_be_are_refused() {
    let llama = model("llama3-8b", 2);
    let dgx = cluster("dgx-h100");
    let refused = |plan: &Plan| match lower(&llama, &dgx, plan, &workload(1)) {
        Err(PlanError::Sharding { message }) => message,
        other => panic!("{other:?}"),
    };
    assert!(refused(&replicas(8, ZeroStage::Three, 3)).contains("groups of 3 ranks"));
    assert!(refused(&replicas(8, ZeroStage::Zero, 4)).contains("zero_stage 1, 2 or 3"));
    let twice = RankOrder { order: None, gpus: Some(vec![0, 1, 2, 3, 4, 5, 6, 6]) };
    let twice = Plan { rank_order: twice, ..plan(8, 1, ScheduleKind::GPipe, ZeroStage::Zero) };
    assert!(refused(&twice).contains("GPU 6 is given to two ranks"));
}
