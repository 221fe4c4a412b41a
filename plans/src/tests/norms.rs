//! What a step looks at beside training, and the host's own work, reckoned by hand.

use proptest::test_runner::TestCaseError;
use steptime_clusters::{Cluster, Framework, FrameworkCost, price};
use steptime_core::SimTime;
use steptime_models::{Bytes, Kernel, MemoryBoundKind, Model};

use super::fixtures::{both, cluster, free_links, model, plan, play, workload};
use crate::plan::Plan;
use crate::schedule::ScheduleKind;
use crate::workload::Workload;
use crate::zero::ZeroStage;

/// What a framework costs the host if one thing takes so many seconds.
type Cost = fn(f64) -> FrameworkCost;

fn one_rank() -> Plan {
    plan(1, 1, ScheduleKind::GPipe, ZeroStage::Zero)
}

fn end(model: &Model, cluster: &Cluster, workload: &Workload) -> u64 {
    play(model, cluster, &one_rank(), workload).1.end.picos()
}

/// Picoseconds of a kernel that moves so much.
fn moved(cluster: &Cluster, kind: MemoryBoundKind, read: u64, written: u64) -> u64 {
    let kernel = Kernel::memory(kind, Bytes(read), Bytes(written));
    let seconds = price(&cluster.gpu, &cluster.host, &kernel).expect("a known kind").seconds;
    SimTime::from_seconds(seconds).expect("a short time").picos()
}

/// A host that takes 10 s more at something makes a step longer by 10 s each time that it does it.
#[test]
fn the_hosts_own_work_counts_once_a_step_a_tensor_and_a_pass() {
    const MICRO_BATCHES: u64 = 3;
    let gpt = model("gpt2", 2);
    let work = Workload { framework: Framework::Megatron, ..workload(MICRO_BATCHES) };
    let with = |cost: FrameworkCost| {
        let mut cluster = free_links(1, 1);
        cluster.host.megatron = cost;
        end(&gpt, &cluster, &work)
    };
    let tensors: usize = gpt.layers.iter().map(|it| it.parameters.iter().filter(|it| !it.tied).count()).sum();
    let none = FrameworkCost::default();
    let ten_seconds_more: [(u64, Cost); 3] = [
        (1, |step_s| FrameworkCost { step_s, ..FrameworkCost::default() }),
        (tensors as u64, |tensor_s| FrameworkCost { tensor_s, ..FrameworkCost::default() }),
        (2 * MICRO_BATCHES, |chunk_pass_s| FrameworkCost { chunk_pass_s, ..FrameworkCost::default() }),
    ];
    assert!(with(none) < SimTime::from_seconds(1.0).expect("short").picos());
    for (times, cost) in ten_seconds_more {
        let more = with(cost(20.0)) - with(cost(10.0));
        assert_eq!(more, SimTime::from_seconds(10.0).expect("short").picos() * times);
    }
}

/// Reading a loss costs the host a wait for each micro-batch, beside that for its input.
#[test]
fn losses_are_read_once_a_micro_batch() {
    let gpt = model("gpt2", 2);
    let with = |check_for_nan, sync_latency_s| {
        let mut cluster = free_links(1, 1);
        cluster.host.sync_latency_s = sync_latency_s;
        end(&gpt, &cluster, &Workload { check_for_nan, ..workload(4) })
    };
    let second = SimTime::from_seconds(1.0).expect("short").picos();
    assert_eq!(with(false, 2.0) - with(false, 1.0), 4 * second);
    assert_eq!(with(true, 2.0) - with(true, 1.0), 8 * second);
}

/// Results of products, norms, softmax and attention are filled before they are written.
#[test]
fn deterministic_algorithms_fill_results_first() {
    let (gpt, cluster) = (model("gpt2", 2), free_links(1, 1));
    let work = workload(1);
    let mut fills = 0;
    for layer in 0..gpt.layers.len() {
        let ops = gpt.work(layer, &work.shape());
        for operation in ops.forward.iter().chain(&ops.backward) {
            let bytes = match operation.kernel {
                Kernel::Gemm { batch, m, n, .. } => 2 * batch * m * n,
                Kernel::MemoryBound {
                    kind: MemoryBoundKind::Norm | MemoryBoundKind::Softmax,
                    written,
                    ..
                } => written.0,
                // GPT-2: 12 heads of 64, 128 tokens; backward makes three gradients.
                Kernel::Attention(shape) => match shape.pass {
                    steptime_models::Pass::Forward => 2 * 128 * 768,
                    steptime_models::Pass::Backward => 3 * 2 * 128 * 768,
                },
                _ => continue,
            };
            fills += moved(&cluster, MemoryBoundKind::Fill, 0, bytes);
        }
    }
    let plain = end(&gpt, &cluster, &work);
    let deterministic = end(&gpt, &cluster, &Workload { deterministic: true, ..work });
    assert!(fills > 0);
    assert_eq!(deterministic - plain, fills);
}

/// Experts of which a rank holds half: 10 s more for each of them and pass.
#[test]
fn experts_one_after_the_other_count_each() {
    let mixtral = model("mixtral-8x7b", 2);
    let with = |sequential_experts, expert_s| {
        let mut cluster = free_links(1, 2);
        cluster.host.megatron = FrameworkCost { expert_s, ..FrameworkCost::default() };
        let plan = Plan { expert: 2, ..plan(2, 1, ScheduleKind::GPipe, ZeroStage::Zero) };
        let work = Workload { framework: Framework::Megatron, sequential_experts, ..workload(1) };
        play(&mixtral, &cluster, &plan, &work).1.end.picos()
    };
    // Two blocks, four experts, two passes.
    let more = with(true, 20.0) - with(true, 10.0);
    assert_eq!(more, 2 * 4 * 2 * SimTime::from_seconds(10.0).expect("short").picos());
    assert_eq!(with(false, 20.0), with(false, 10.0));
}

/// All of it at once, folded and with every rank, through the queue and not.
#[test]
fn ranks_that_look_at_the_same_are_folded() -> Result<(), TestCaseError> {
    let gpt = model("gpt2", 4);
    let work = Workload {
        framework: Framework::Megatron,
        clipping: crate::Clipping::Host,
        check_for_nan: true,
        log_num_zeros_in_grad: true,
        log_params_norm: true,
        deterministic: true,
        ..workload(4)
    };
    for zero in [ZeroStage::Zero, ZeroStage::One] {
        let plan = Plan { tensor: 2, ..plan(2, 2, ScheduleKind::OneForwardOneBackward, zero) };
        both(&gpt, &cluster("dgx-h100"), &plan, &work)?;
    }
    Ok(())
}
