//! What is kept for backward, counted by hand.

use steptime_models::{AttentionKind, Dtype, LayerWork};

use crate::{model, shape};

const B: u64 = 2;
const S: u64 = 128;
const T: u64 = B * S;

fn work(name: &str, layer: usize, attention: AttentionKind) -> LayerWork {
    model(name).work(layer, &shape(B, S, Dtype::Bf16, attention))
}

/// Saved bytes without the row statistics of norms and fused attention.
fn saved(work: &LayerWork) -> u64 {
    let kept =
        work.saved.iter().filter(|it| !it.name.ends_with(".statistics") || it.name.starts_with("moe."));
    kept.map(|it| it.bytes.0).sum()
}

/// Saved bytes under names that begin so.
fn under(work: &LayerWork, prefix: &str) -> u64 {
    work.saved.iter().filter(|it| it.name.starts_with(prefix)).map(|it| it.bytes.0).sum()
}

#[test]
fn a_bert_layer_keeps_what_equation_1_says() {
    // The norms stand elsewhere than in GPT, but each still keeps its input: Korthikanti et al. 2022, equation 1.
    let (h, a) = (768, 12);
    assert_eq!(saved(&work("bert-base", 1, AttentionKind::Eager)), 34 * T * h + 5 * a * S * S * B);
    assert_eq!(saved(&work("bert-base", 1, AttentionKind::Flash)), 34 * T * h);
}

#[test]
fn relu_keeps_its_result_only() {
    // 8 s b h less than GPT: the ReLU's input is not kept, and its result is the next layer's input anyway. Softmax is
    // kept in 32 bits; beside it the dropout's mask and its result in 16.
    let (h, a) = (768, 12);
    assert_eq!(saved(&work("opt-125m", 1, AttentionKind::Flash)), 26 * T * h);
    assert_eq!(saved(&work("opt-125m", 1, AttentionKind::Eager)), 26 * T * h + (4 + 1 + 2) * a * S * S * B);
}

#[test]
fn routed_experts_keep_the_rows_of_their_tokens() {
    let (h, f, experts, k) = (4096, 14_336, 8, 2);
    let work = work("mixtral-8x7b", 1, AttentionKind::Flash);
    // Attention as in Llama: two norms' inputs and results, queries, attention's result; keys and values of 1024.
    let attention = 2 * T * (6 * h + 2 * 1024);
    // Of each token's k rows: the gathered row, gate, its SiLU, up, their product, the expert's result.
    let rows = 2 * T * k * (2 * h + 4 * f);
    // Scores in 32 bits; of the k chosen ones the values and their sum in 32 bits, and 64-bit numbers of the experts.
    let router = T * (4 * experts + 4 * k + 4 + 8 * k);
    // Rows' order in 64 bits and their probabilities.
    let order = T * k * (8 + 2);
    assert_eq!(saved(&work), attention + rows + router + order);
}

#[test]
fn a_shared_expert_keeps_a_feed_forward_of_its_own() {
    let work = work("qwen2-57b-a14b", 1, AttentionKind::Flash);
    // Gate, SiLU, up and their product, the result, and the logistic function of its gate.
    assert_eq!(under(&work, "moe.shared"), 2 * T * (4 * 20_480 + 3584 + 1));
}

#[test]
fn latent_attention_keeps_narrow_vectors_and_assembled_heads() {
    let work = work("deepseek-v3", 1, AttentionKind::Flash);
    // Down-projection of the queries, its norm's result; the same of keys and values with the part that is rotated;
    // keys and values of all heads as one tensor; queries and keys put together from their parts; the result.
    let kept = 1536 + 1536 + 576 + 512 + 128 * 256 + 2 * 128 * 192 + 128 * 128;
    let norm = 7168;
    let statistics: u64 = work
        .saved
        .iter()
        .filter(|it| it.name.starts_with("attention.") && it.name.ends_with(".statistics"))
        .map(|it| it.bytes.0)
        .sum();
    assert_eq!(under(&work, "attention.") - statistics, 2 * T * (kept + norm + 7168));
}

#[test]
fn squared_relu_keeps_one_tensor_more() {
    // The ReLU's result, for its own backward and the square's, and the square, the next layer's input.
    let f = 24_576;
    let work = work("nemotron-4-15b", 1, AttentionKind::Flash);
    assert_eq!(under(&work, "mlp.relu") + under(&work, "mlp.square"), 2 * T * 2 * f);
    assert_eq!(under(&work, "mlp.fc1"), 0);
}

#[test]
fn soft_capping_keeps_the_scores_once_more() {
    let capped = work("gemma2-2b", 1, AttentionKind::Eager);
    assert_eq!(under(&capped, "attention.core.softcap"), 2 * 8 * S * S * B);
    assert_eq!(under(&work("gemma2-2b", 1, AttentionKind::Flash), "attention.core"), 0);
    // And so do the logits.
    assert_eq!(under(&work("gemma2-2b", 27, AttentionKind::Flash), "head.softcap"), 2 * T * 256_000);
}

#[test]
fn the_encoder_is_kept_once_for_all_decoder_blocks() {
    let (first, second) =
        (work("t5-base", 13, AttentionKind::Eager), work("t5-base", 14, AttentionKind::Eager));
    assert_eq!((first.input, first.output), (second.input, second.output));
    let cross = |work: &LayerWork| under(work, "encoder.") + under(work, "outside");
    // The norm's statistic (4 bytes a token), and its result dropped out: one byte of mask and two of the value.
    assert_eq!(cross(&first), T * 4 + T * 768 * 3);
    assert_eq!(cross(&second), 0);
    // Its gradient gathers what all blocks add: keys' and values' contributions, each added to those of later blocks.
    let sums = |work: &LayerWork| {
        work.backward
            .iter()
            .filter(|it| it.name.starts_with("cross_attention.") && it.name.ends_with("grad_sum"))
            .count()
    };
    assert_eq!(sums(&second), 1 + 2, "norm, key, value");
}

#[test]
fn distances_are_looked_up_by_the_first_block_alone() {
    let (first, second) =
        (work("t5-base", 1, AttentionKind::Eager), work("t5-base", 2, AttentionKind::Eager));
    let finds = |work: &LayerWork| work.forward.iter().filter(|it| it.name == "attention.bias").count();
    assert_eq!((finds(&first), finds(&second)), (1, 0));
    // One 64-bit bucket a pair.
    assert_eq!(under(&first, "attention.bias"), 8 * S * S);
    assert_eq!(under(&second, "attention.bias"), 0);
}
