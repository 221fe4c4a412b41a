//! Launches and traffic of the optimizer.

use super::fixtures::workload;
use crate::workload::{OptimizerImplementation, OptimizerKind, Precision, Workload};

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
