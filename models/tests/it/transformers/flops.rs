//! Forward FLOPs against closed forms: projections, attention products and logits, two FLOPs a multiply-add.

use steptime_models::{AttentionKind, Dtype, Flops, Kernel, Model, Overrides};

use crate::{model, shape};

const B: u64 = 2;
const S: u64 = 512;

/// Multiply-adds a token in the forward pass with eager attention.
fn a_token(name: &str) -> u64 {
    let Flops(flops) = model(name).forward_flops(&shape(B, S, Dtype::Bf16, AttentionKind::Eager));
    assert_eq!(flops % (2 * B * S), 0, "{name}");
    flops / (2 * B * S)
}

#[test]
fn dense_with_grouped_queries() {
    // Queries and output 4096 x 4096, keys and values 4096 x 1024 each; gate, up and down; scores and context of s keys.
    let block = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 12_288 + 2 * S * 4096;
    assert_eq!(a_token("qwen3-8b"), 36 * block + 4096 * 151_936);
    // Heads of 256 that do not add up to the width: 8 * 256 = 2048 of 2304.
    let block = 2 * 2304 * 2048 + 2 * 2304 * 1024 + 3 * 2304 * 9216 + 2 * S * 2048;
    assert_eq!(a_token("gemma2-2b"), 26 * block + 2304 * 256_000);
}

#[test]
fn older_decoders() {
    // 12 h^2 a block in all of these, h for each of the s keys twice.
    let plain = |layers: u64, h: u64, v: u64| layers * (12 * h * h + 2 * S * h) + h * v;
    assert_eq!(a_token("opt-125m"), plain(12, 768, 50_272));
    assert_eq!(a_token("mpt-7b"), plain(32, 4096, 50_432));
    assert_eq!(a_token("pythia-1b"), plain(16, 2048, 50_304));
    // Projections from and to the narrower embedding.
    assert_eq!(a_token("opt-350m"), plain(24, 1024, 0) + 2 * 512 * 1024 + 512 * 50_272);
}

#[test]
fn routed_experts_compute_the_tokens_of_the_router() {
    let block = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 2 * S * 4096 + 4096 * 8 + 2 * 3 * 4096 * 14_336;
    assert_eq!(a_token("mixtral-8x7b"), 32 * block + 4096 * 32_000);
    // Shared expert with a gate of one value beside 8 of 64.
    let block = 2 * 3584 * 3584
        + 2 * 3584 * 512
        + 2 * S * 3584
        + 3584 * 64
        + 8 * 3 * 3584 * 2560
        + 3 * 3584 * 20_480
        + 3584;
    assert_eq!(a_token("qwen2-57b-a14b"), 28 * block + 3584 * 151_936);
}

#[test]
fn a_capacity_factor_pads_every_expert() {
    let padded = Overrides::none().with("experts.capacity_factor", 2);
    let padded = Model::from_catalogue("mixtral-8x7b", &padded).unwrap();
    let work = |model: &Model| model.work(1, &shape(B, S, Dtype::Bf16, AttentionKind::Flash));
    let rows = |model: &Model| {
        let work = work(model);
        let gate = work.forward.iter().find(|operation| operation.name == "moe.experts.gate").unwrap();
        let Kernel::Gemm { batch, m, n, k, .. } = gate.kernel else { panic!("{gate:?}") };
        assert_eq!((batch, n, k), (8, 14_336, 4096));
        m
    };
    let dropless = model("mixtral-8x7b");
    assert_eq!((rows(&dropless), rows(&padded)), (B * S * 2 / 8, B * S * 2 / 8 * 2));
    // Only without a capacity does the host wait for the counts.
    let waits = |model: &Model| work(model).forward.iter().filter(|operation| operation.host_sync).count();
    assert_eq!((waits(&dropless), waits(&padded)), (1, 0));
}

#[test]
fn latent_attention() {
    // Heads of 128 + 64 for queries and keys, 128 for values; keys and values by way of 512 + 64.
    let attention =
        2048 * 16 * 192 + 2048 * 576 + 512 * 16 * 256 + 16 * 128 * 2048 + S * 16 * 192 + S * 16 * 128;
    let dense = 3 * 2048 * 10_944;
    let routed = 2048 * 64 + 6 * 3 * 2048 * 1408 + 3 * 2048 * 2816;
    assert_eq!(a_token("deepseek-v2-lite"), 27 * attention + dense + 26 * routed + 2048 * 102_400);
    // With queries by way of 1536 too.
    let attention = 7168 * 1536
        + 1536 * 128 * 192
        + 7168 * 576
        + 512 * 128 * 256
        + 128 * 128 * 7168
        + S * 128 * (192 + 128);
    let dense = 3 * 7168 * 18_432;
    let routed = 7168 * 256 + 9 * 3 * 7168 * 2048;
    assert_eq!(a_token("deepseek-v3"), 61 * attention + 3 * dense + 58 * routed + 7168 * 129_280);
}

#[test]
fn flash_attention_has_heads_of_two_widths() {
    let flash = model("deepseek-v2-lite").work(1, &shape(B, S, Dtype::Bf16, AttentionKind::Flash));
    let kernel = |operations: &[steptime_models::Operation]| {
        operations.iter().find_map(|it| match it.kernel {
            Kernel::Attention(shape) => Some(shape.flops().0),
            _ => None,
        })
    };
    // Causal: half of 2 b a s^2 (192 + 128) forward; backward three products of 192 and two of 128.
    assert_eq!(kernel(&flash.forward), Some(B * 16 * S * S * (192 + 128)));
    assert_eq!(kernel(&flash.backward), Some(B * 16 * S * S * (3 * 192 + 2 * 128)));
}

#[test]
fn a_window_limits_what_a_fused_kernel_computes() {
    let length = 8192;
    let work = |layer| {
        let shape = shape(1, length, Dtype::Bf16, AttentionKind::Flash);
        let work = model("gemma2-2b").work(layer, &shape);
        let found = work.forward.iter().find_map(|it| match it.kernel {
            Kernel::Attention(shape) => Some((shape.flops().0, shape.model_flops().0)),
            _ => None,
        });
        found.unwrap()
    };
    // Blocks take turns. Of s^2 pairs a causal window of w leaves w s - w^2 / 2.
    let (heads, width, w) = (8, 256, 4096);
    assert_eq!(work(2).0, 4 * heads * width * length * length / 2);
    assert_eq!(work(1).0, 4 * heads * width * (w * length - w * w / 2));
    assert_eq!(work(1).1, 2 * work(1).0);
    // Shorter sequences do not see it.
    let short = shape(1, 1024, Dtype::Bf16, AttentionKind::Flash);
    assert_eq!(
        model("gemma2-2b").work(1, &short).forward_flops(),
        model("gemma2-2b").work(2, &short).forward_flops()
    );
}

#[test]
fn encoder_and_decoder() {
    let encoder = 4 * 768 * 768 + 2 * 768 * 3072 + 2 * S * 768;
    let decoder = 8 * 768 * 768 + 2 * 768 * 3072 + 4 * S * 768;
    assert_eq!(a_token("t5-base"), 12 * encoder + 12 * decoder + 768 * 32_128);
    // Gated: three products in place of two, of 2048.
    let gated = 3 * 768 * 2048 - 2 * 768 * 3072;
    assert_eq!(a_token("flan-t5-base"), a_token("t5-base") + 24 * gated);
    // Heads wider than the model: 32 * 128 = 4096 of 1024.
    let encoder = 4 * 1024 * 4096 + 2 * 1024 * 16_384 + 2 * S * 4096;
    let decoder = 8 * 1024 * 4096 + 2 * 1024 * 16_384 + 4 * S * 4096;
    assert_eq!(a_token("t5-3b"), 24 * encoder + 24 * decoder + 1024 * 32_128);
}

#[test]
fn encoders_see_all_pairs() {
    let flash =
        |name: &str| model(name).work(1, &shape(B, S, Dtype::Bf16, AttentionKind::Flash)).forward_flops();
    let eager =
        |name: &str| model(name).work(1, &shape(B, S, Dtype::Bf16, AttentionKind::Eager)).forward_flops();
    assert_eq!(flash("bert-base"), eager("bert-base"));
    assert_eq!(a_token("all-minilm-l6-v2") * B * S, {
        // The pooler runs on one token a sequence.
        6 * (12 * 384 * 384 + 2 * S * 384) * B * S + B * 384 * 384
    });
}
