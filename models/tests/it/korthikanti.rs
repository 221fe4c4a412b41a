//! The divided and recomputed forms of the activation memory of Korthikanti et al. 2022, Reducing Activation
//! Recomputation in Large Transformer Models, sections 4 and 5 and table 2: bytes of a layer in 16 bits on one rank, for
//! a tensor-parallel group of t.

use steptime_models::{
    AttentionKind, Dtype, Kernel, LayerWork, Model, Overrides, SavedTensor, TensorParallel, WorkShape,
};

use crate::{model, shape};

/// Sequence, batch, hidden width, heads and ranks of the tensor group; the models of the paper's table 3 among them.
const CASES: [[u64; 5]; 5] = [
    [2048, 4, 6144, 64, 8],
    [2048, 1, 12_288, 96, 8],
    [2048, 1, 20_480, 128, 8],
    [2048, 1, 25_600, 160, 8],
    [1024, 8, 768, 12, 2],
];

fn block(case: [u64; 5], attention: AttentionKind, sequence: bool) -> LayerWork {
    let [s, b, h, a, t] = case;
    let overrides = Overrides::none().with("hidden", h.cast_signed()).with("heads", a.cast_signed());
    let mut shape = shape(b, s, Dtype::Fp16, attention);
    shape.tensor = TensorParallel { size: t, sequence };
    Model::from_catalogue("gpt3-175b", &overrides).unwrap().work(1, &shape)
}

/// Bytes of the saved tensors that are kept, the statistics of the norms apart: the paper leaves them out.
fn bytes(work: &LayerWork, keep: impl Fn(&SavedTensor) -> bool) -> u64 {
    let kept = work.saved.iter().filter(|it| keep(it) && !it.name.ends_with("norm.statistics"));
    kept.map(|it| it.bytes.0).sum()
}

#[test]
fn equation_2_tensor_parallel() {
    for case @ [s, b, h, a, t] in CASES {
        let work = block(case, AttentionKind::Eager, false);
        // s b h (10 + 24 / t + 5 a s / (h t)).
        assert_eq!(
            bytes(&work, |_| true),
            10 * s * b * h + (24 * s * b * h + 5 * a * s * s * b) / t,
            "{case:?}"
        );
    }
}

#[test]
fn equation_4_tensor_and_sequence_parallel() {
    for case @ [s, b, h, a, t] in CASES {
        let work = block(case, AttentionKind::Eager, true);
        // s b h / t (34 + 5 a s / h).
        assert_eq!(bytes(&work, |_| true), (34 * s * b * h + 5 * a * s * s * b) / t, "{case:?}");
    }
}

#[test]
fn table_2_selective_recomputation() {
    for case @ [s, b, h, _, t] in CASES {
        // What the recomputation makes again is left out: 34 s b h / t with sequence parallelism, and without it
        // s b h (10 + 24 / t).
        let kept =
            |sequence| bytes(&block(case, AttentionKind::Eager, sequence), |it| !it.is_attention_core());
        assert_eq!(kept(true), 34 * s * b * h / t, "{case:?}");
        assert_eq!(kept(false), 10 * s * b * h + 24 * s * b * h / t, "{case:?}");
    }
}

#[test]
fn table_2_full_recomputation() {
    for case @ [s, b, h, _, t] in CASES {
        let kept =
            |sequence| bytes(&block(case, AttentionKind::Eager, sequence), SavedTensor::is_layer_input);
        assert_eq!(kept(false), 2 * s * b * h, "{case:?}");
        // The paper's number is for the whole input; under sequence parallelism each rank has its part of it.
        assert_eq!(kept(true), 2 * s * b * h / t, "{case:?}");
    }
}

#[test]
fn flash_attention_saves_what_selective_recomputation_does() {
    for case @ [s, b, h, a, t] in CASES {
        let work = block(case, AttentionKind::Flash, true);
        let row_sums = 4 * b * a * s / t;
        assert_eq!(bytes(&work, |_| true), 34 * s * b * h / t + row_sums, "{case:?}");
    }
}

#[test]
fn one_rank_is_equation_1() {
    for [s, b, h, a, _] in CASES {
        let work = block([s, b, h, a, 1], AttentionKind::Eager, true);
        assert_eq!(bytes(&work, |_| true), 34 * s * b * h + 5 * a * s * s * b);
    }
}

#[test]
fn ranks_beyond_the_heads_of_keys_hold_the_same_ones() {
    // Qwen2.5 3B has 2 heads of keys and values, 128 wide: each of 8 ranks has one of them, whole.
    let qwen = model("qwen2.5-3b");
    let shape = WorkShape {
        tensor: TensorParallel { size: 8, sequence: false },
        ..shape(1, 2048, Dtype::Bf16, AttentionKind::Flash)
    };
    let work = qwen.work(1, &shape);
    let key = work.forward.iter().find(|operation| operation.name == "attention.key").unwrap();
    assert_eq!(key.kernel, Kernel::Gemm { batch: 1, m: 2048, n: 128, k: 2048, dtype: Dtype::Bf16 });
    let weight = qwen.layers[1].parameters.iter().find(|it| it.name.ends_with("k_proj.weight")).unwrap();
    assert_eq!((weight.count, weight.held_by_rank(8)), (256 * 2048, 128 * 2048));
    assert_eq!((weight.held_by_rank(1), weight.held_by_rank(2)), (256 * 2048, 128 * 2048));
}
