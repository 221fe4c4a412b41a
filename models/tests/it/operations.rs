//! FLOPs against closed forms, and what kernels a layer launches.

use steptime_models::{
    AttentionKind, Bytes, CrossEntropy, Dtype, Flops, Kernel, LayerWork, Model, Operation, Overrides, Sample,
    WorkShape, catalogue_names,
};

use crate::{model, shape};

fn gemm_flops(operations: &[Operation]) -> u64 {
    // A pooler whose result nothing uses runs forward only.
    let unused = operations.iter().any(|operation| operation.name == "head.mean");
    let gemms = operations.iter().filter(|operation| {
        matches!(operation.kernel, Kernel::Gemm { .. }) && !(unused && operation.name == "head.pooler")
    });
    gemms.map(|operation| operation.kernel.flops().0).sum()
}

fn launches(operations: &[Operation]) -> u32 {
    operations.iter().map(|operation| operation.launches).sum()
}

fn names(operations: &[Operation]) -> Vec<&'static str> {
    operations.iter().map(|operation| operation.name).collect()
}

fn work(name: &str, layer: usize, attention: AttentionKind) -> LayerWork {
    model(name).work(layer, &shape(2, 128, Dtype::Bf16, attention))
}

#[test]
fn gpt_forward_is_the_closed_form() {
    // Narayanan et al. 2021, appendix: 24 b s h^2 l (1 + s / 6h) + 2 b s h V, one forward pass.
    for (name, layers, h, v) in [("gpt2", 12, 768, 50_257), ("gpt-18b", 40, 6144, 51_200)] {
        for (b, s) in [(1, 128), (4, 1000), (3, 1024)] {
            let flops = model(name).forward_flops(&shape(b, s, Dtype::Fp16, AttentionKind::Eager));
            assert_eq!(flops, Flops(layers * (24 * b * s * h * h + 4 * b * s * s * h) + 2 * b * s * h * v));
        }
    }
}

#[test]
fn flash_attention_computes_half_of_a_causal_square() {
    let eager = work("gpt2", 1, AttentionKind::Eager).forward_flops().0;
    let flash = work("gpt2", 1, AttentionKind::Flash).forward_flops().0;
    // Two products of b a s^2 d multiply-adds each: 4 * 2 * 12 * 128^2 * 64 FLOPs, half of them masked.
    assert_eq!(eager - flash, 4 * 2 * 12 * 128 * 128 * 64 / 2);
}

#[test]
fn llama_forward_is_the_closed_form() {
    // Llama 3 8B, a token: projections 4096 * (4096 + 2 * 1024 + 4096), three of the feed-forward 4096 * 14336,
    // attention over s keys 2 s * 4096 multiply-adds, logits 4096 * 128256.
    let (b, s) = (2, 512);
    let a_token = 32 * (4096 * 10_240 + 3 * 4096 * 14_336 + 2 * s * 4096) + 4096 * 128_256;
    let flops = model("llama3-8b").forward_flops(&shape(b, s, Dtype::Bf16, AttentionKind::Eager));
    assert_eq!(flops, Flops(2 * b * s * a_token));
}

#[test]
fn vit_forward_is_as_published() {
    // torchvision: vit_b_16 17.56, vit_l_16 61.55 GMAC an image (attention products included).
    for (name, gmac) in [("vit_b_16", 17.56), ("vit_l_16", 61.55)] {
        let flops = model(name).forward_flops(&shape(1, 0, Dtype::Fp32, AttentionKind::Eager));
        let found = flops.0 as f64 / 2e9;
        assert!((found / gmac - 1.0).abs() < 0.01, "{name}: {found} GMAC, published {gmac}");
    }
}

#[test]
fn matrix_products_cost_twice_as_much_backward() {
    for name in catalogue_names() {
        let model = model(name);
        for attention in [AttentionKind::Eager, AttentionKind::Flash] {
            for layer in [0, 1, model.layers.len() - 1] {
                let work = model.work(layer, &shape(2, 96, Dtype::Bf16, attention));
                assert_eq!(
                    gemm_flops(&work.backward),
                    2 * gemm_flops(&work.forward),
                    "{name}, layer {layer}"
                );
            }
        }
    }
}

#[test]
fn a_gpt_block_launches_what_its_code_does() {
    let work = work("gpt2", 1, AttentionKind::Eager);
    let forward = [
        "attention.norm",
        "attention.qkv",
        "attention.split_heads",
        "attention.core.scores",
        "attention.core.scale",
        "attention.core.mask",
        "attention.core.softmax",
        "attention.core.dropout",
        "attention.core.context",
        "attention.merge_heads",
        "attention.projection",
        "attention.output_dropout",
        "attention.residual",
        "mlp.norm",
        "mlp.fc1",
        "mlp.gelu",
        "mlp.fc2",
        "mlp.dropout",
        "mlp.residual",
    ];
    assert_eq!(names(&work.forward), forward);
    let backward = [
        "mlp.dropout.grad",
        "mlp.fc2.grad_input",
        "mlp.fc2.grad_weight",
        "mlp.fc2.grad_bias",
        "mlp.gelu.grad",
        "mlp.fc1.grad_input",
        "mlp.fc1.grad_weight",
        "mlp.fc1.grad_bias",
        "mlp.norm.grad_input",
        "mlp.norm.grad_weight",
        "mlp.norm.grad_sum",
        "attention.output_dropout.grad",
        "attention.projection.grad_input",
        "attention.projection.grad_weight",
        "attention.projection.grad_bias",
        "attention.merge_heads.grad",
        "attention.core.context.grad_probability",
        "attention.core.context.grad_value",
        "attention.core.dropout.grad",
        "attention.core.softmax.scratch",
        "attention.core.softmax.grad",
        "attention.core.mask.grad",
        "attention.core.scale.grad",
        "attention.core.scores.grad_query",
        "attention.core.scores.grad_key",
        "attention.split_heads.grad",
        "attention.qkv.grad_input",
        "attention.qkv.grad_weight",
        "attention.qkv.grad_bias",
        "attention.norm.grad_input",
        "attention.norm.grad_weight",
        "attention.norm.grad_sum",
    ];
    assert_eq!(names(&work.backward), backward);
    assert_eq!(launches(&work.forward), 19 + 2, "the split copies three times");
    assert!(work.forward.iter().chain(&work.backward).all(|operation| !operation.host_sync));
}

#[test]
fn a_llama_block_adds_up_the_gradients_of_shared_inputs() {
    let work = work("llama3-8b", 1, AttentionKind::Flash);
    let sums = names(&work.backward).into_iter().filter(|name| name.ends_with("grad_sum"));
    // The norms feed three and two projections; the residual stream two branches each.
    let expected = [
        "mlp.gate.grad_sum",
        "mlp.norm.grad_sum",
        "attention.key.grad_sum",
        "attention.query.grad_sum",
        "attention.norm.grad_sum",
    ];
    assert_eq!(sums.collect::<Vec<_>>(), expected);
    let gemms = |operations: &[Operation]| {
        operations.iter().filter(|operation| matches!(operation.kernel, Kernel::Gemm { .. })).count()
    };
    assert_eq!((gemms(&work.forward), gemms(&work.backward)), (7, 14));
}

#[test]
fn inference_keeps_nothing_and_has_no_backward() {
    for name in catalogue_names() {
        let model = model(name);
        for layer in 0..model.layers.len() {
            let mut inference = shape(2, 64, Dtype::Bf16, AttentionKind::Eager);
            inference.training = false;
            let work = model.work(layer, &inference);
            assert!(work.backward.is_empty() && work.saved.is_empty(), "{name}");
            assert!(
                !names(&work.forward).iter().any(|name| name.contains("dropout") || name.contains("loss"))
            );
        }
    }
}

#[test]
fn layers_fit_together() {
    for name in catalogue_names() {
        let model = model(name);
        let shape = shape(3, 128, Dtype::Bf16, AttentionKind::Flash);
        for layer in 1..model.layers.len() {
            let output = model.work(layer - 1, &shape).output;
            assert_eq!(model.work(layer, &shape).input, output, "{name}, layer {layer}");
        }
    }
}

#[test]
fn samples_and_their_tokens() {
    let tokens = shape(1, 512, Dtype::Bf16, AttentionKind::Flash);
    // 512 ids and labels of 8 bytes.
    let gpt2 = model("gpt2");
    assert_eq!((gpt2.tokens_per_sample(&tokens), gpt2.sample_bytes(&tokens)), (512, Bytes(2 * 512 * 8)));
    assert_eq!(gpt2.sample, Sample::Tokens { default_length: 1024 });
    assert_eq!((gpt2.longest_sequence(), model("llama3-8b").longest_sequence()), (Some(1024), None));
    assert_eq!((gpt2.widest_head(), model("llama3-8b").widest_head()), (768 / 12, 128));
    // Queries and keys of 128 + 64 values.
    assert_eq!((model("deepseek-v3").widest_head(), model("vit_b_16").widest_head()), (192, 64));
    assert_eq!((model("resnet50").widest_head(), model("visionencoder").widest_head()), (0, 0));
    // 3 * 32 * 32 floats and a label; 64 patches and the class token.
    let vit = model("switch-vit-64");
    assert_eq!((vit.tokens_per_sample(&tokens), vit.sample_bytes(&tokens)), (65, Bytes(12_288 + 8)));
    let vit = model("vit_b_16");
    assert_eq!((vit.tokens_per_sample(&tokens), vit.sample_bytes(&tokens)), (197, Bytes(602_112 + 8)));
    let parts = model("visionencoder");
    assert_eq!((parts.tokens_per_sample(&tokens), parts.sample_bytes(&tokens)), (1, Bytes(0)));
    assert_eq!(parts.sample, Sample::Opaque);
}

#[test]
fn absurd_sizes_do_not_wrap() {
    let absurd = shape(u64::MAX / 2, u64::MAX / 2, Dtype::Fp32, AttentionKind::Eager);
    for name in catalogue_names() {
        let model = model(name);
        assert!(model.forward_flops(&absurd).0 > 1 << 60, "{name}");
        let work = model.work(1, &absurd);
        assert!(model.components().is_some() || work.saved_bytes().0 > 1 << 60, "{name}");
        let nothing = shape(0, 0, Dtype::Bf16, AttentionKind::Eager);
        assert!(model.forward_flops(&nothing).0 < 1 << 40, "{name}");
    }
}

#[test]
fn a_layer_that_is_not_there_does_nothing() {
    assert_eq!(work("gpt2", 14, AttentionKind::Flash), LayerWork::default());
}

#[test]
fn patches_have_no_input_gradient() {
    let wide = Overrides::none().with("image_size", 64);
    let vit = Model::from_catalogue("vit-cifar", &wide).unwrap();
    let work = vit.work(0, &shape(2, 0, Dtype::Fp32, AttentionKind::Eager));
    let convolutions = |operations: &[Operation]| {
        operations.iter().filter(|operation| matches!(operation.kernel, Kernel::Convolution(_))).count()
    };
    assert_eq!((convolutions(&work.forward), convolutions(&work.backward)), (1, 1));
    // 2 images, 256 patches, 48 values each, 300 channels.
    assert_eq!(work.forward_flops(), Flops(2 * 2 * 256 * 48 * 300));
}

/// Traffic of the loss in bytes a logit, 16-bit logits: `F.cross_entropy` converts (6), takes the log softmax (8; backward
/// 12), fills a gradient (4) and converts back (6); Megatron-LM's kernels move 38 forward and 14 backward, compiled 26 and 14; Transformer
/// Engine's read 16 bits twice and write 32 (8), then scale (8) and convert (6).
#[test]
fn losses_by_library() {
    let model = Model::from_catalogue("llama3-8b", &Overrides::none()).unwrap();
    let head = model.layers.len() - 1;
    let logits = 2048.0 * 128256.0;
    for (cross_entropy, expected, kept) in [
        (CrossEntropy::Torch, 36.0, 4.0),
        (CrossEntropy::VocabularyParallel, 52.0, 4.0),
        (CrossEntropy::VocabularyParallelCompiled, 40.0, 4.0),
        (CrossEntropy::FlashAttn, 8.0, 0.0),
        (CrossEntropy::Fused, 22.0, 4.0),
    ] {
        let work = model
            .work(head, &WorkShape { cross_entropy, ..shape(1, 2048, Dtype::Bf16, AttentionKind::Flash) });
        let moved: u64 = work
            .forward
            .iter()
            .chain(&work.backward)
            .filter(|operation| operation.name.contains("loss"))
            .map(|operation| match operation.kernel {
                Kernel::MemoryBound { read, written, .. } => read.0 + written.0,
                _ => 0,
            })
            .sum();
        let found = moved as f64 / logits;
        assert!((found - expected).abs() < 0.01, "{cross_entropy:?}: {found}");
        let saved: u64 = work.saved.iter().filter(|it| it.name.contains("loss")).map(|it| it.bytes.0).sum();
        assert!((saved as f64 / logits - kept).abs() < 0.01, "{cross_entropy:?}: {saved} kept");
    }
}
