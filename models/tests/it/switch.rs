//! The expert loop of Switch-ViT: why its step grows by a fixed time for each expert.

use steptime_models::{AttentionKind, Dtype, Kernel, LayerWork, MemoryBoundKind, Operation};

use crate::{model, shape};

const TOKENS: u64 = 65 * 64;

/// A block with 64 images on a GPU.
fn block(name: &str) -> LayerWork {
    model(name).work(1, &shape(64, 0, Dtype::Fp32, AttentionKind::Eager))
}

fn launches(operations: &[Operation]) -> i64 {
    operations.iter().map(|operation| i64::from(operation.launches)).sum()
}

fn count(operations: &[Operation], name: &str) -> usize {
    operations.iter().filter(|operation| operation.name == name).count()
}

#[test]
fn each_expert_computes_its_capacity() {
    for (name, experts, hidden, capacity) in
        [("switch-vit-32", 32, 1010, 130), ("switch-vit-64", 64, 994, 65)]
    {
        let work = block(name);
        assert_eq!(count(&work.forward, "expert.layer1"), experts);
        let layer1 = work.forward.iter().find(|operation| operation.name == "expert.layer1").unwrap();
        let expected = Kernel::Gemm { batch: 1, m: capacity, n: hidden, k: 300, dtype: Dtype::Fp32 };
        assert_eq!(layer1.kernel, expected);
        assert_eq!(experts as u64 * capacity, TOKENS, "the split leaves no token over");
    }
}

#[test]
fn launches_grow_by_32_an_expert() {
    // Forward: eq, nonzero (4), half of a permutation copied and applied (2), gather, linear, GELU, dropout, linear,
    // dropout, assignment. Backward: assignment (4), dropout, linear (3), dropout, GELU, linear (3), gather (7), sum.
    let (small, large) = (block("switch-vit-32"), block("switch-vit-64"));
    assert_eq!(launches(&large.forward) - launches(&small.forward), 32 * (1 + 4 + 1 + 7));
    assert_eq!(launches(&large.backward) - launches(&small.backward), 32 * (4 + 10 + 6 + 1));
}

#[test]
fn the_host_waits_for_every_expert() {
    let waits = |work: &LayerWork| work.forward.iter().filter(|operation| operation.host_sync).count();
    // Each nonzero, the counts, and the permutation of half of the experts.
    assert_eq!(waits(&block("switch-vit-32")), 32 + 1 + 16);
    assert_eq!(waits(&block("switch-vit-64")), 64 + 1 + 32);
    assert!(block("switch-vit-64").backward.iter().all(|operation| !operation.host_sync));
}

#[test]
fn backward_makes_a_full_size_gradient_for_each_gather() {
    let full = TOKENS * 300 * 4;
    for (name, experts) in [("switch-vit-32", 32), ("switch-vit-64", 64)] {
        let work = block(name);
        let fills = work.backward.iter().filter(|operation| {
            operation.name.starts_with("switch.gather")
                && matches!(operation.kernel, Kernel::MemoryBound { kind: MemoryBoundKind::Fill, written, .. } if written.0 == full)
        });
        // Each expert's tokens and the dropped ones.
        assert_eq!(fills.count(), experts + 1);
        // The contributions of gathers, dropped tokens and router: one addition less than contributions.
        let sums = work.backward.iter().filter(|operation| {
            matches!(operation.kernel, Kernel::MemoryBound { read, written, .. } if read.0 == 2 * full && written.0 == full)
                && operation.name.ends_with("grad_sum")
                && (operation.name.starts_with("switch"))
        });
        assert_eq!(sums.count(), experts + 1);
        // Every assignment but the first hands a copy of the whole gradient on.
        assert_eq!(count(&work.backward, "switch.assign.grad_input"), experts - 1);
    }
}

#[test]
fn saved_tensors_by_hand() {
    let work = block("switch-vit-64");
    let sum = |prefix: &str| -> u64 {
        work.saved.iter().filter(|tensor| tensor.name.starts_with(prefix)).map(|tensor| tensor.bytes.0).sum()
    };
    let (d, f) = (300, 994);
    // Experts: linear 1 keeps the gathered tokens, GELU its input, linear 2 the dropped hidden values; two masks.
    assert_eq!(sum("switch.gather."), TOKENS * d * 4);
    assert_eq!(sum("expert."), TOKENS * (f * 4 + f * 4 + f + d));
    // Router probabilities, chosen experts, indices; result and probability of the scaling.
    assert_eq!(sum("switch.softmax"), TOKENS * 64 * 4);
    assert_eq!(sum("switch.routes"), TOKENS * 8);
    assert_eq!(sum("switch.indices"), TOKENS * 8);
    assert_eq!(sum("switch.result"), TOKENS * d * 4);
    assert_eq!(sum("switch.max"), TOKENS * 4);
    // labml's attention keeps softmax result, mask and dropped result: 9 bytes a score.
    assert_eq!(sum("attention.core.softmax") + sum("attention.core.dropout"), 64 * 12 * 65 * 65 * 9);
}

#[test]
fn routed_arithmetic_is_that_of_one_narrower_feed_forward() {
    // A token meets one expert: 2 * 2 * 300 * 994 FLOPs, beside 2 * 2 * 300 * 1024 of the dense model.
    let gemms = |name: &str, prefix: &str| -> u64 {
        let work = block(name);
        let chosen = work.forward.iter().filter(|operation| operation.name.starts_with(prefix));
        chosen.map(|operation| operation.kernel.flops().0).sum()
    };
    assert_eq!(gemms("switch-vit-64", "expert."), TOKENS * 4 * 300 * 994);
    assert_eq!(gemms("vit-cifar", "mlp."), TOKENS * 4 * 300 * 1024);
    assert_eq!(gemms("switch-vit-64", "switch.router"), TOKENS * 2 * 300 * 64);
}
