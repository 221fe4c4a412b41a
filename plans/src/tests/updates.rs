//! Launches and traffic of the optimizer.

use steptime_clusters::memory_bound;
use steptime_models::{Bytes, MemoryBoundKind};

use super::fixtures::{free_links, model, plan, play, workload};
use crate::clipping::Clipping;
use crate::schedule::ScheduleKind;
use crate::workload::{OptimizerImplementation, OptimizerKind, Precision, Workload};
use crate::zero::ZeroStage;

fn adam(implementation: OptimizerImplementation, weight_decay: bool) -> Workload {
    let (precision, optimizer) = (Precision::Fp32, OptimizerKind::Adam);
    Workload { precision, optimizer, implementation, weight_decay, ..workload(1) }
}

#[test]
fn a_loop_launches_every_step_for_every_tensor() {
    use OptimizerImplementation::{ForLoop, Foreach, Fused};
    // `_single_tensor_adam` of PyTorch 1.13: mul, add, mul, addcmul, sqrt, div, add, addcdiv; add before with decay.
    assert_eq!(adam(ForLoop, false).update_launches(100, 1_000), 800);
    assert_eq!(adam(ForLoop, true).update_launches(100, 1_000), 900);
    assert_eq!(adam(ForLoop, true).update_traffic_per_parameter(), 80 + 12);
    // Lists of 48 tensors: three launches of seven or eight steps.
    assert_eq!(adam(Foreach, false).update_launches(100, 1_000), 21);
    assert_eq!(adam(Foreach, true).update_launches(100, 1_000), 24);
    assert_eq!(adam(Foreach, true).update_traffic_per_parameter(), 72 + 12);
    assert_eq!(adam(Fused, true).update_traffic_per_parameter(), 28);
    assert_eq!(adam(Fused, true).update_launches(100, 1_000), 3);
}

/// 16-bit gradients without loss scaling: the norm reads 2 bytes a parameter, clipping reads and writes as many. A host
/// that reads the norm waits once.
#[test]
fn clipping_is_a_norm_and_a_pass_over_the_gradients() {
    let (gpt, gpus) = (model("gpt2", 2), free_links(1, 1));
    let p = plan(1, 1, ScheduleKind::GPipe, ZeroStage::Zero);
    let end = |clipping| play(&gpt, &gpus, &p, &Workload { clipping, ..workload(1) }).1.end.seconds();
    let traffic = |bytes| Bytes(bytes * gpt.parameters());
    let passes = memory_bound(&gpus.gpu, MemoryBoundKind::Reduction, traffic(2)).seconds
        + memory_bound(&gpus.gpu, MemoryBoundKind::Elementwise, traffic(4)).seconds;
    let device = end(Clipping::Device);
    assert!((device - end(Clipping::None) - passes).abs() < 1e-9, "{passes}");
    let waited = end(Clipping::Host) - device;
    assert!((waited - gpus.host.sync_latency_s).abs() < 1e-9, "{waited}");
}

/// Apex divides the gradients into 32-bit copies: 4 bytes a parameter held, and read by the update instead of 2.
#[test]
fn a_scaled_loss_makes_32_bit_copies_of_the_gradients() {
    let (gpt, gpus) = (model("gpt2", 2), free_links(1, 1));
    let p = plan(1, 1, ScheduleKind::GPipe, ZeroStage::Zero);
    let half = Workload { precision: Precision::Fp16, ..workload(1) };
    let scaled = Workload { loss_scaling: true, ..half.clone() };
    let peak = |work: &Workload| play(&gpt, &gpus, &p, work).1.ranks[0].memory.peak;
    assert_eq!(peak(&scaled) - peak(&half), 4 * gpt.parameters());
    assert_eq!(scaled.update_traffic_per_parameter(), half.update_traffic_per_parameter() + 2);
    let autocast = Workload { autocast: true, ..scaled };
    assert_eq!(autocast.updated_gradients(), steptime_models::Dtype::Fp32);
    assert_eq!(
        autocast.update_traffic_per_parameter(),
        Workload { loss_scaling: false, ..autocast.clone() }.update_traffic_per_parameter()
    );
}

/// Products that add to gradients read them in their own format: 2 or 4 bytes a weight of a linear layer. GPT-2 has 12 h^2 of them a block, and 50,257 h in the head; h is 768.
#[test]
fn a_product_that_adds_to_gradients_reads_and_writes_them() {
    let (gpt, gpus) = (model("gpt2", 2), free_links(1, 1));
    let p = plan(1, 1, ScheduleKind::GPipe, ZeroStage::Zero);
    let work = Workload { micro_batch_size: 64, ..workload(1) };
    let end = |work: Workload| play(&gpt, &gpus, &p, &work).1.end.seconds();
    let plain = end(work.clone());
    let fused = Workload { accumulation_fusion: true, ..work };
    let wide = Workload { wide_gradients: true, ..fused.clone() };
    let linear: u64 = 2 * 12 * 768 * 768 + 50_257 * 768;
    let time = |bytes: u64| {
        let traffic = Bytes(bytes * linear);
        memory_bound(&gpus.gpu, MemoryBoundKind::Elementwise, traffic).seconds - gpus.gpu.kernel_latency_s
    };
    let narrow = end(fused);
    assert!((narrow - plain - time(2)).abs() < 1e-9, "{} {}", narrow - plain, time(2));
    // The update reads 2 bytes a parameter more of wide gradients.
    let read = memory_bound(&gpus.gpu, MemoryBoundKind::Elementwise, Bytes(2 * gpt.parameters())).seconds
        - gpus.gpu.kernel_latency_s;
    let more = end(wide) - narrow;
    assert!((more - time(2) - read).abs() < 1e-9, "{more} {} {read}", time(2));
}
