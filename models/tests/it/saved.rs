//! Activation memory against the equations of Korthikanti et al. 2022, Reducing Activation Recomputation in Large
//! Transformer Models.

use steptime_models::{
    AttentionKind, Bytes, Dtype, LayerWork, Model, Overrides, SavedTensor, catalogue_names,
};

use crate::{model, shape};

/// Sequence, batch, hidden width and heads of some layers.
const CASES: [[u64; 4]; 4] =
    [[2048, 1, 12_288, 96], [2048, 4, 6144, 64], [1024, 8, 768, 12], [300, 3, 100, 5]];

/// A block of GPT of a given width.
fn gpt_block([s, b, h, a]: [u64; 4], dtype: Dtype, attention: AttentionKind) -> LayerWork {
    let overrides = Overrides::none().with("hidden", h.cast_signed()).with("heads", a.cast_signed());
    Model::from_catalogue("gpt3-175b", &overrides).unwrap().work(1, &shape(b, s, dtype, attention))
}

/// Bytes saved under names that end so, and all others.
fn apart(work: &LayerWork, suffix: &str) -> (u64, u64) {
    let sum = |with: bool| {
        let chosen = work.saved.iter().filter(|tensor| tensor.name.ends_with(suffix) == with);
        chosen.map(|tensor| tensor.bytes.0).sum::<u64>()
    };
    (sum(true), sum(false))
}

#[test]
fn equation_1_holds_to_the_byte() {
    for case @ [s, b, h, a] in CASES {
        for dtype in [Dtype::Fp16, Dtype::Bf16] {
            let work = gpt_block(case, dtype, AttentionKind::Eager);
            let (statistics, rest) = apart(&work, "norm.statistics");
            // s b h (34 + 5 a s / h), without the division.
            assert_eq!(rest, 34 * s * b * h + 5 * a * s * s * b, "{case:?}");
            // The paper leaves out the mean and deviation of two norms, 32 bits each.
            assert_eq!(statistics, 2 * 2 * 4 * s * b);
            assert_eq!(work.saved_bytes(), Bytes(statistics + rest));
        }
    }
}

#[test]
fn flash_attention_keeps_row_sums_instead_of_scores() {
    for case @ [s, b, h, a] in CASES {
        let work = gpt_block(case, Dtype::Bf16, AttentionKind::Flash);
        let (statistics, rest) = apart(&work, ".statistics");
        assert_eq!(rest, 34 * s * b * h, "{case:?}");
        assert_eq!(statistics, 2 * 2 * 4 * s * b + 4 * b * a * s);
    }
}

#[test]
fn in_32_bits_values_double_and_masks_stay() {
    for case @ [s, b, h, a] in CASES {
        let (_, rest) = apart(&gpt_block(case, Dtype::Fp32, AttentionKind::Eager), "norm.statistics");
        // 34 s b h is 32 of values and 2 of masks; 5 a s^2 b is 4 of values and 1 of mask.
        assert_eq!(rest, (64 + 2) * s * b * h + (8 + 1) * a * s * s * b, "{case:?}");
    }
}

#[test]
fn the_head_keeps_norm_and_projection_inputs_and_32_bit_logits() {
    // Korthikanti et al. section 4.3: 4 s b h (1 + v / h) for a head with 16-bit activations.
    let (s, b, h, v) = (1024, 2, 768, 50_257);
    let gpt2 = model("gpt2");
    let (statistics, rest) =
        apart(&gpt2.work(13, &shape(b, s, Dtype::Bf16, AttentionKind::Flash)), "norm.statistics");
    assert_eq!(rest, 4 * s * b * h + 4 * s * b * v);
    assert_eq!(statistics, 2 * 4 * s * b);
    // The embedding keeps its ids and the dropout mask.
    let embedding = gpt2.work(0, &shape(b, s, Dtype::Bf16, AttentionKind::Flash));
    assert_eq!(embedding.saved_bytes(), Bytes(8 * s * b + s * b * h));
}

#[test]
fn a_llama_block_keeps_narrow_keys_and_five_wide_tensors() {
    let (s, b, h, kv, f, a) = (1024, 2, 4096, 1024, 14_336, 32);
    let work = model("llama3-8b").work(1, &shape(b, s, Dtype::Bf16, AttentionKind::Flash));
    let (statistics, rest) = apart(&work, ".statistics");
    // Width h: two norms' inputs and outputs, queries, attention's result. Narrow: keys, values. Width f: gate, its
    // SiLU, up, their product.
    assert_eq!(rest, 2 * s * b * (6 * h + 2 * kv + 4 * f));
    assert_eq!(statistics, 2 * 4 * s * b + 4 * b * a * s);
}

#[test]
fn eager_llama_repeats_keys_and_keeps_softmax_in_both_formats() {
    let (s, b, h, f, a) = (256, 2, 4096, 14_336, 32);
    let work = model("llama3-8b").work(1, &shape(b, s, Dtype::Bf16, AttentionKind::Eager));
    let (_, rest) = apart(&work, ".statistics");
    assert_eq!(rest, 2 * s * b * (8 * h + 4 * f) + (4 + 2) * a * s * s * b);
}

#[test]
fn lives_of_saved_tensors_are_within_the_passes() {
    for name in catalogue_names() {
        let model = model(name);
        for attention in [AttentionKind::Eager, AttentionKind::Flash] {
            for layer in [0, 1, model.layers.len() - 1] {
                let work = model.work(layer, &shape(2, 64, Dtype::Bf16, attention));
                for tensor in &work.saved {
                    assert!(tensor.born < work.forward.len(), "{name}: {tensor:?}");
                    assert!(tensor.freed < work.backward.len(), "{name}: {tensor:?}");
                    assert!(!tensor.is_layer_input() || tensor.bytes == work.input, "{name}: {tensor:?}");
                }
                assert!(work.saved.iter().filter(|tensor| tensor.is_layer_input()).count() <= 1);
                assert!(work.saved.is_sorted_by_key(|tensor| tensor.born), "{name}");
            }
        }
    }
}

#[test]
fn transformer_layers_keep_their_input() {
    for name in ["gpt2", "llama3-8b", "vit_b_16", "switch-vit-32"] {
        let work = model(name).work(1, &shape(2, 64, Dtype::Bf16, AttentionKind::Flash));
        assert_eq!(work.saved[0].name, SavedTensor::INPUT, "{name}");
        assert_eq!(work.saved[0].bytes, work.input, "{name}");
    }
}

#[test]
fn temporaries_by_hand() {
    // A GPT block, s = 1024, b = 8, h = 768, a = 12, 16 bits. Scores dominate: forward holds two at a time (before
    // and after scale, and mask; the softmax's own result is kept, as is the dropout's).
    let [s, b, h, a] = CASES[2];
    let eager = gpt_block(CASES[2], Dtype::Bf16, AttentionKind::Eager);
    assert_eq!(eager.forward_temporary, Bytes(2 * 2 * a * s * s * b));
    // Backward holds two score gradients and the product between them that a softmax's backward makes, the values' gradient
    // and that of the residual stream.
    assert_eq!(eager.backward_temporary, Bytes(3 * 2 * a * s * s * b + 2 * s * b * h + 2 * s * b * h));
    // Without scores, forward's longest moment is a linear's result beside the dropped one: 2 s b h each.
    let flash = gpt_block(CASES[2], Dtype::Bf16, AttentionKind::Flash);
    assert_eq!(flash.forward_temporary, Bytes(2 * 2 * s * b * h));
}
