//! What vision models keep for backward, worked out by hand and against autograd itself.

use steptime_models::{AttentionKind, Dtype, LayerWork, Model, Overrides};

use crate::{model, shape};

const IMAGES: u64 = 3;

/// A layer's work on three images.
fn work(name: &str, layer: &str, dtype: Dtype) -> LayerWork {
    let model = model(name);
    let index = model.layers.iter().position(|it| it.name == layer).unwrap();
    model.work(index, &shape(IMAGES, 0, dtype, AttentionKind::Flash))
}

/// Checks a layer's saved bytes in 32 and 16 bits: activation values an image, and bytes of other formats.
fn keeps(name: &str, layer: &str, values: u64, other: u64) {
    for (dtype, bytes) in [(Dtype::Fp32, 4), (Dtype::Fp16, 2)] {
        let saved = work(name, layer, dtype).saved_bytes().0;
        assert_eq!(saved, IMAGES * values * bytes + other, "{name} {layer} {dtype:?}");
    }
}

/// Mean and reciprocal deviation of each channel of some batch norms.
fn statistics(channels: &[u64]) -> u64 {
    2 * 4 * channels.iter().sum::<u64>()
}

#[test]
fn a_basic_block_keeps_four_tensors() {
    // Input; the first convolution's result; the first ReLU's, which the second convolution keeps too; the second
    // convolution's. The last ReLU's is the next block's input.
    keeps("resnet18", "layer1.0", 4 * 64 * 56 * 56, statistics(&[64, 64]));
    // With a projection its result in addition; what it projects is the input.
    let values = 64 * 56 * 56 + 3 * 128 * 28 * 28 + 128 * 28 * 28;
    keeps("resnet18", "layer2.0", values, statistics(&[128, 128, 128]));
}

#[test]
fn a_bottleneck_keeps_six_tensors() {
    let values = (256 + 2 * 64 + 2 * 64 + 256) * 56 * 56;
    keeps("resnet50", "layer1.1", values, statistics(&[64, 64, 256]));
    // The stride is in the second convolution: the first's result is still large.
    let values = (256 + 2 * 128) * 56 * 56 + (2 * 128 + 512 + 512) * 28 * 28;
    keeps("resnet50", "layer2.0", values, statistics(&[128, 128, 512, 512]));
}

#[test]
fn relu6_in_place_keeps_a_copy() {
    // Input and the last convolution's result, 24 channels; twice 144: a convolution's result, the copy of the norm's
    // that ReLU6 writes over, and ReLU6's.
    keeps("mobilenet_v2", "features.3", (2 * 24 + 2 * 3 * 144) * 56 * 56, statistics(&[144, 144, 24]));
}

#[test]
fn squeeze_and_excitation_keeps_means_and_factors() {
    // 384 pixels: 24 a side here. Twice three tensors of 512 channels, and the scaled one; of one value an image and
    // channel the mean, two of the squeeze, and the sigmoid's; the random number of stochastic depth.
    let values = (2 * 128 + (2 * 3 + 1) * 512) * 24 * 24 + 512 + 2 * 32 + 512 + 1;
    keeps("efficientnet_v2_s", "features.4.1", values, statistics(&[512, 512, 128]));
    // The first block is never dropped: convolution's input and result, the copy before SiLU. SiLU's result is where
    // the residual is added, and the next block's input.
    keeps("efficientnet_v2_s", "features.1.0", 3 * 24 * 192 * 192, statistics(&[24]));
}

#[test]
fn a_dense_layer_keeps_all_features_joined() {
    // Third layer: 64 + 2 * 32 channels joined, and normed; the narrow convolution's result, and normed. What was
    // joined is not kept.
    let values = (2 * 128 + 2 * 128) * 56 * 56;
    keeps("densenet121", "features.denseblock1.denselayer3", values, statistics(&[128, 128]));
    // A transition joins 256 channels, and average pooling keeps its input of 128.
    keeps("densenet121", "features.transition1", (2 * 256 + 128) * 56 * 56, statistics(&[256]));
}

#[test]
fn a_convnext_block_keeps_six_tensors() {
    // Input, depthwise result, norm's, wide linear's (4), GELU's (4), narrow linear's for the layer scale; the random
    // number; mean and deviation of each pixel.
    let values = (1 + 1 + 1 + 4 + 4 + 1) * 96 * 56 * 56;
    let norm = 2 * 4 * IMAGES * 56 * 56;
    keeps("convnext_tiny", "features.1.0", values, norm);
    keeps("convnext_tiny", "features.1.1", values + 1, norm);
}

#[test]
fn a_vgg_group_keeps_a_tensor_a_convolution() {
    // Input; ReLU writes over each convolution's result; positions of the pooled values in 64 bits.
    let values = 64 * 112 * 112 + 2 * 128 * 112 * 112;
    keeps("vgg16", "features.5-9", values, IMAGES * 8 * 128 * 56 * 56);
}

#[test]
fn the_head_lists_what_the_last_relu_keeps() {
    // ResNet's mean keeps nothing, but the ReLU before it does; the pooled features; log-probabilities in 32 bits.
    keeps("resnet18", "head", 512 * 7 * 7 + 512, IMAGES * 1000 * 4);
    // DenseNet's head has its own ReLU.
    keeps("densenet121", "head", 2 * 1024 * 7 * 7 + 1024, statistics(&[1024]) + IMAGES * 1000 * 4);
}

/// Entry, image size, bytes that autograd keeps of two images in 32 bits, values that are dropped out, losses. Measured
/// with `torch.autograd.graph.saved_tensors_hooks` over the whole training forward and cross-entropy of torchvision
/// 0.29's and timm 1.0's models on PyTorch 2.15, each memory counted once, parameters and buffers left out.
const AUTOGRAD: [(&str, i64, u64, u64, u64); 18] = [
    ("convnext_tiny", 224, 218_319_772, 0, 1),
    ("densenet121", 224, 261_065_300, 0, 1),
    ("densenet169", 224, 315_258_452, 0, 1),
    ("efficientnet_b0", 224, 176_564_188, 0, 1),
    ("efficientnet_v2_s", 224, 308_786_212, 0, 1),
    ("efficientnet_v2_s", 384, 905_112_612, 0, 1),
    ("efficientnetv2_rw_t", 288, 414_921_172, 0, 1),
    ("inception_v3", 299, 196_745_472, 2 * 2048, 2),
    ("mobilenet_v2", 224, 156_563_540, 2 * 1280, 1),
    ("resnet18", 224, 44_406_100, 0, 1),
    ("resnet34", 224, 64_506_196, 0, 1),
    ("resnet50", 224, 172_039_508, 0, 1),
    ("resnet101", 224, 254_135_636, 0, 1),
    ("resnext50_32x4d", 224, 224_684_372, 0, 1),
    ("vgg13_bn", 224, 234_249_044, 2 * 2 * 4096, 1),
    ("vgg16", 224, 146_718_548, 2 * 2 * 4096, 1),
    ("vit_small_patch16_224", 224, 118_810_212, 0, 1),
    ("vit_base_patch32_384", 384, 176_602_724, 0, 1),
];

#[test]
fn whole_models_keep_what_autograd_keeps() {
    for (name, size, measured, dropped, losses) in AUTOGRAD {
        let model = Model::from_catalogue(name, &Overrides::none().with("image_size", size)).unwrap();
        let shape = shape(2, 0, Dtype::Fp32, AttentionKind::Flash);
        let saved: u64 = (0..model.layers.len()).map(|layer| model.work(layer, &shape).saved_bytes().0).sum();
        // A loss keeps its two labels, which belong to the sample, and the sum of the classes' weights; on a CPU, where
        // this was measured, dropout out of place keeps four bytes a value and not one.
        assert_eq!(saved + losses * (2 * 8 + 4) + 3 * dropped, measured, "{name} at {size}");
    }
}
