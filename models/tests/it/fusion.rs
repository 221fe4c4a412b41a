//! Chains of memory-bound operations as one kernel.

use steptime_models::{
    AttentionKind, Bytes, Dtype, Fusion, Kernel, LayerWork, MemoryBoundKind, Operation, WorkShape,
    catalogue_names,
};

use crate::{model, shape};

fn block(name: &str, attention: AttentionKind, fusion: Fusion) -> LayerWork {
    let shape = WorkShape { fusion, ..shape(1, 2048, Dtype::Bf16, attention) };
    model(name).work(1, &shape)
}

fn names(operations: &[Operation]) -> Vec<&'static str> {
    operations.iter().map(|operation| operation.name).collect()
}

fn find<'w>(operations: &'w [Operation], name: &str) -> &'w Operation {
    operations.iter().find(|operation| operation.name == name).unwrap()
}

fn kernel(kind: MemoryBoundKind, read: u64, written: u64) -> Kernel {
    Kernel::memory(kind, Bytes(read), Bytes(written))
}

/// What a kernel moves, without its rows and its arithmetic.
fn traffic_of(operation: &Operation) -> Kernel {
    let Kernel::MemoryBound { kind, read, written, .. } = operation.kernel else {
        return operation.kernel;
    };
    Kernel::memory(kind, read, written)
}

/// Bytes of a row that passes twice, and instructions.
fn rows_and_instructions(operation: &Operation) -> (u64, u64) {
    let Kernel::MemoryBound { row, instructions, .. } = operation.kernel else { return (0, 0) };
    (row.0, instructions)
}

#[test]
fn a_compiled_gpt_block_has_one_kernel_between_two_products() {
    let work = block("gpt3-175b", AttentionKind::Flash, Fusion::Compiled);
    assert_eq!(
        names(&work.forward),
        [
            "attention.norm",
            "attention.qkv",
            "attention.flash",
            "attention.projection",
            "attention.output_dropout",
            "mlp.fc1",
            "mlp.gelu",
            "mlp.fc2",
            "mlp.dropout"
        ]
    );
    // Dropout, residual and norm: reads the projection, the residual stream and the norm's two parameters; writes the
    // mask, the new stream, the normalized one and the statistics.
    let (s, h) = (2048, 12_288);
    let (x, few) = (2 * s * h, 2 * 2 * h);
    let middle = find(&work.forward, "attention.output_dropout");
    assert_eq!(traffic_of(middle), kernel(MemoryBoundKind::Norm, 2 * x + few, s * h + 2 * x + 2 * 4 * s));
    // Backward: the norm's input, statistics, the mask, its result's gradient and the residual's come in; the sum of
    // the two goes to the stream, and what dropout makes of it to the projection.
    let back = find(&work.backward, "mlp.norm.grad_input");
    assert_eq!(traffic_of(back), kernel(MemoryBoundKind::Norm, 3 * x + 2 * 4 * s + s * h, 2 * x));
    assert_eq!(back.launches, 1);
    // The norm's rows pass twice: one in and one out, and one more in backward.
    assert_eq!(rows_and_instructions(middle), (4 * h, 0));
    assert_eq!(rows_and_instructions(back), (6 * h, 0));
    // GELU of four widths of 2,048 tokens: 36 instructions a value, 50 backward.
    assert_eq!(rows_and_instructions(find(&work.forward, "mlp.gelu")), (0, 36 * s * 4 * h));
    assert_eq!(rows_and_instructions(find(&work.backward, "mlp.gelu.grad")), (0, 50 * s * 4 * h));
    // What is kept is what eager mode keeps: every chain's inputs and results are wanted by products.
    assert_eq!(work.saved_bytes(), block("gpt3-175b", AttentionKind::Flash, Fusion::None).saved_bytes());
}

#[test]
fn transformer_engine_fuses_what_it_has_kernels_for() {
    let fused = block("llama3-8b", AttentionKind::Eager, Fusion::TransformerEngine);
    let eager = block("llama3-8b", AttentionKind::Eager, Fusion::None);
    let (s, f, a) = (2048, 14_336, 32);
    // SwiGLU: both projections in, the product out; the activation is computed again in backward.
    let wide = 2 * s * f;
    let swiglu = find(&fused.forward, "mlp.silu");
    assert_eq!(traffic_of(swiglu), kernel(MemoryBoundKind::Elementwise, 2 * wide, wide));
    assert_eq!(rows_and_instructions(swiglu), (0, 21 * s * f));
    let back = find(&fused.backward, "mlp.product.grad");
    assert_eq!(
        (traffic_of(back), back.launches),
        (kernel(MemoryBoundKind::Elementwise, 3 * wide, 2 * wide), 1)
    );
    // Scale, mask, softmax and its rounding: scores and one square mask in, rounded probabilities out.
    let (scores, mask) = (2 * a * s * s, s * s);
    let softmax = find(&fused.forward, "attention.core.scale");
    assert_eq!(traffic_of(softmax), kernel(MemoryBoundKind::Softmax, scores + mask, scores));
    // The activation's result, and the softmax's in 32 bits, are not kept.
    let saved = eager.saved_bytes().0 - fused.saved_bytes().0;
    assert_eq!(saved, wide + 4 * a * s * s);
    let rotation = find(&fused.forward, "attention.rotary_query");
    assert_eq!(
        (rotation.launches, rotation.kernel),
        (1, kernel(MemoryBoundKind::Elementwise, 2 * s * 4096, 2 * s * 4096))
    );
    assert!(names(&fused.forward).contains(&"attention.norm"));
}

#[test]
fn fusion_moves_no_arithmetic_and_never_more_bytes() {
    for name in catalogue_names() {
        for attention in [AttentionKind::Eager, AttentionKind::Flash] {
            for fusion in [Fusion::Compiled, Fusion::TransformerEngine] {
                let model = model(name);
                let eager = shape(2, 128, Dtype::Bf16, attention);
                for index in [0, 1, model.layers.len() / 2, model.layers.len() - 1] {
                    let (plain, fused) =
                        (model.work(index, &eager), model.work(index, &WorkShape { fusion, ..eager }));
                    let what = format!("{name} layer {index} {attention:?} {fusion:?}");
                    assert_eq!(plain.forward_flops(), fused.forward_flops(), "{what}");
                    assert_eq!(plain.backward_flops(), fused.backward_flops(), "{what}");
                    assert!(fused.saved_bytes() <= plain.saved_bytes(), "{what}");
                    for (before, after) in
                        [(&plain.forward, &fused.forward), (&plain.backward, &fused.backward)]
                    {
                        let (a, b) = (moved(before), moved(after));
                        assert!(b <= a, "{what}: {a} bytes become {b}");
                        assert!(after.len() <= before.len(), "{what}");
                    }
                    assert!(fused.saved.iter().all(|it| it.born < fused.forward.len().max(1)), "{what}");
                    assert!(fused.saved.iter().all(|it| it.freed < fused.backward.len().max(1)), "{what}");
                }
            }
        }
    }
}

fn moved(operations: &[Operation]) -> u64 {
    let bytes = |operation: &Operation| match operation.kernel {
        Kernel::MemoryBound { read, written, .. } => read.0 + written.0,
        _ => 0,
    };
    operations.iter().map(bytes).sum()
}
