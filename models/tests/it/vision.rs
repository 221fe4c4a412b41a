//! Vision models: parameters and arithmetic as published, sizes for any image, messages.

use steptime_models::{
    AttentionKind, Bytes, ConvolutionPass, Convolutions, Dtype, FieldValue, Formats, Kernel, LayerRole,
    MemoryFormat, Model, Operation, Overrides, Sample, WorkShape,
};

use crate::{model, shape};

const TORCHVISION: &str = "torchvision, num_params of the weights";
const TIMM: &str = "timm 1.0.31, parameters of the model as created with 1000 classes";

/// Entry, parameters, where the number is from.
pub(crate) const PUBLISHED_VISION: [(&str, u64, &str); 55] = [
    ("convnext_base", 88_591_464, TORCHVISION),
    ("convnext_large", 197_767_336, TORCHVISION),
    ("convnext_small", 50_223_688, TORCHVISION),
    ("convnext_tiny", 28_589_128, TORCHVISION),
    ("deit_base_patch16_224", 86_567_656, TIMM),
    ("deit_small_patch16_224", 22_050_664, TIMM),
    ("deit_tiny_patch16_224", 5_717_416, TIMM),
    ("densenet121", 7_978_856, TORCHVISION),
    ("densenet161", 28_681_000, TORCHVISION),
    ("densenet169", 14_149_480, TORCHVISION),
    ("densenet201", 20_013_928, TORCHVISION),
    ("efficientnet_b0", 5_288_548, TORCHVISION),
    ("efficientnet_v2_l", 118_515_272, TORCHVISION),
    ("efficientnet_v2_m", 54_139_356, TORCHVISION),
    ("efficientnet_v2_s", 21_458_488, TORCHVISION),
    ("efficientnetv2_rw_m", 53_236_442, TIMM),
    ("efficientnetv2_rw_s", 23_941_296, TIMM),
    ("efficientnetv2_rw_t", 13_649_388, TIMM),
    ("inception_v3", 27_161_264, TORCHVISION),
    ("mobilenet_v2", 3_504_872, TORCHVISION),
    ("resnet101", 44_549_160, TORCHVISION),
    ("resnet152", 60_192_808, TORCHVISION),
    ("resnet18", 11_689_512, TORCHVISION),
    ("resnet34", 21_797_672, TORCHVISION),
    ("resnet50", 25_557_032, TORCHVISION),
    ("resnext101_32x8d", 88_791_336, TORCHVISION),
    ("resnext101_64x4d", 83_455_272, TORCHVISION),
    ("resnext50_32x4d", 25_028_904, TORCHVISION),
    ("vgg11", 132_863_336, TORCHVISION),
    ("vgg11_bn", 132_868_840, TORCHVISION),
    ("vgg13", 133_047_848, TORCHVISION),
    ("vgg13_bn", 133_053_736, TORCHVISION),
    ("vgg16", 138_357_544, TORCHVISION),
    ("vgg16_bn", 138_365_992, TORCHVISION),
    ("vgg19", 143_667_240, TORCHVISION),
    ("vgg19_bn", 143_678_248, TORCHVISION),
    // 32 blocks of 12 h^2 + 13 h; patches 3 * 256 h + h, class token h, 65 h positions, norm 2 h, 1000 (h + 1).
    ("vit-huge-128", 632_030_440, "Dosovitskiy et al. 2021, table 1, worked out"),
    ("vit_b_32", 88_224_232, TORCHVISION),
    ("vit_base_patch16_224", 86_567_656, TIMM),
    ("vit_base_patch16_384", 86_859_496, TIMM),
    ("vit_base_patch32_224", 88_224_232, TIMM),
    ("vit_base_patch32_384", 88_297_192, TIMM),
    ("vit_h_14", 632_045_800, TORCHVISION),
    ("vit_l_32", 306_535_400, TORCHVISION),
    ("vit_large_patch16_224", 304_326_632, TIMM),
    ("vit_large_patch16_384", 304_715_752, TIMM),
    ("vit_large_patch32_224", 306_535_400, "timm, 305,510,400 without classes and 1000 (1024 + 1)"),
    ("vit_large_patch32_384", 306_632_680, TIMM),
    ("vit_small_patch16_224", 22_050_664, TIMM),
    ("vit_small_patch16_384", 22_196_584, TIMM),
    ("vit_small_patch32_224", 22_878_952, TIMM),
    ("vit_small_patch32_384", 22_915_432, TIMM),
    ("vit_tiny_patch16_224", 5_717_416, TIMM),
    ("wide_resnet101_2", 126_886_696, TORCHVISION),
    ("wide_resnet50_2", 68_883_240, TORCHVISION),
];

/// Entry and multiply-adds of an image in units of 10^9: torchvision, `_ops` of the weights, printed with three
/// decimals, at the entry's image size.
const MULTIPLY_ADDS: [(&str, f64); 37] = [
    ("convnext_base", 15.355),
    ("convnext_large", 34.361),
    ("convnext_small", 8.684),
    ("convnext_tiny", 4.456),
    ("densenet121", 2.834),
    ("densenet161", 7.728),
    ("densenet169", 3.36),
    ("densenet201", 4.291),
    ("efficientnet_b0", 0.386),
    ("efficientnet_v2_l", 56.08),
    ("efficientnet_v2_m", 24.582),
    ("efficientnet_v2_s", 8.366),
    ("inception_v3", 5.713),
    ("mobilenet_v2", 0.301),
    ("resnet101", 7.801),
    ("resnet152", 11.514),
    ("resnet18", 1.814),
    ("resnet34", 3.664),
    ("resnet50", 4.089),
    ("resnext101_32x8d", 16.414),
    ("resnext101_64x4d", 15.46),
    ("resnext50_32x4d", 4.23),
    ("vgg11", 7.609),
    ("vgg11_bn", 7.609),
    ("vgg13", 11.308),
    ("vgg13_bn", 11.308),
    ("vgg16", 15.47),
    ("vgg16_bn", 15.47),
    ("vgg19", 19.632),
    ("vgg19_bn", 19.632),
    ("vit_b_16", 17.564),
    ("vit_b_32", 4.409),
    ("vit_h_14", 167.295),
    ("vit_l_16", 61.555),
    ("vit_l_32", 15.378),
    ("wide_resnet101_2", 22.753),
    ("wide_resnet50_2", 11.398),
];

/// One image without training.
fn inference() -> WorkShape {
    WorkShape { training: false, ..shape(1, 0, Dtype::Fp32, AttentionKind::Eager) }
}

fn with(name: &str, field: &str, value: i64) -> Model {
    Model::from_catalogue(name, &Overrides::none().with(field, value)).unwrap()
}

#[test]
fn counts_are_the_published_ones() {
    for (name, parameters, source) in PUBLISHED_VISION {
        assert_eq!(model(name).parameters(), parameters, "{name}: {source}");
    }
}

#[test]
fn arithmetic_is_the_published_to_its_last_digit() {
    for (name, published) in MULTIPLY_ADDS {
        let found = model(name).forward_flops(&inference()).0 as f64 / 2e9;
        assert!((found - published).abs() <= 0.0005 + 1e-9, "{name}: {found}, published {published}");
    }
    // The weights that were tuned at larger images.
    for (name, size, published) in
        [("vit_b_16", 384, 55.484), ("vit_l_16", 512, 361.986), ("vit_h_14", 518, 1016.717)]
    {
        let found = with(name, "image_size", size).forward_flops(&inference()).0 as f64 / 2e9;
        assert!((found - published).abs() <= 0.0005 + 1e-9, "{name} at {size}: {found}");
    }
}

#[test]
fn variants_of_an_entry_have_their_counts() {
    // torchvision's SWAG weights at larger images; timm's without auxiliary classifier or without classes.
    assert_eq!(with("vit_l_16", "image_size", 512).parameters(), 305_174_504);
    assert_eq!(with("vit_h_14", "image_size", 518).parameters(), 633_470_440);
    assert_eq!(with("vit_large_patch32_224", "classes", 0).parameters(), 305_510_400);
    let mut alone = Overrides::none();
    alone.set("auxiliary", FieldValue::Bool(false));
    assert_eq!(Model::from_catalogue("inception_v3", &alone).unwrap().parameters(), 23_834_568);
    // A classifier for ten classes: 990 (512 + 1) fewer.
    assert_eq!(with("resnet18", "classes", 10).parameters(), 11_689_512 - 990 * 513);
    // One channel in place of three: two times 64 filters of 49.
    assert_eq!(with("resnet18", "channels", 1).parameters(), 11_689_512 - 2 * 64 * 49);
    for (alias, entry) in [("efficientnetv2_s", "efficientnet_v2_s"), ("mobilenetv2_100", "mobilenet_v2")] {
        assert_eq!(model(alias).parameters(), model(entry).parameters());
    }
}

#[test]
fn ssd_has_its_backbone_maps_and_boxes() {
    let ssd = model("ssd300-resnet50");
    // ResNet-50 less its last stage (14,964,736) and its classifier (2,049,000); five coarser maps and twelve
    // convolutions of the predictions as in NVIDIA's `ssd/model.py`.
    let norms = |channels: u64| 2 * channels;
    let maps = [(1024, 256, 512), (512, 256, 512), (512, 128, 256), (256, 128, 256), (256, 128, 256)];
    let coarser: u64 = maps
        .iter()
        .map(|&(from, inner, out)| from * inner + norms(inner) + 9 * inner * out + norms(out))
        .sum();
    let boxes = [(1024, 4), (512, 6), (512, 6), (256, 6), (256, 4), (256, 4)];
    let predictions: u64 = boxes.iter().map(|&(from, count)| (9 * from + 1) * count * (4 + 81)).sum();
    assert_eq!(ssd.parameters(), 25_557_032 - 14_964_736 - 2_049_000 + coarser + predictions);
    assert_eq!(ssd.parameters(), 22_894_902);
    // 8,732 boxes (Liu et al. 2016, section 3.1): 38^2, 19^2, 10^2, 5^2, 3^2, 1 pixels with 4 or 6 each.
    let work = ssd.work(ssd.layers.len() - 1, &inference());
    let joined = work.forward.iter().find(|operation| operation.name == "confidences").unwrap();
    let Kernel::MemoryBound { written, .. } = joined.kernel else { panic!("a copy") };
    assert_eq!(written, Bytes(4 * 81 * 8732));
    // The coarsest map is a pixel; of a smaller image nothing is left.
    let small = Model::from_catalogue("ssd300-resnet50", &Overrides::none().with("image_size", 200));
    assert!(small.unwrap_err().to_string().contains("nothing is left of the image"));
    let none = Model::from_catalogue("ssd300-resnet50", &Overrides::none().with("classes", 0));
    assert!(none.unwrap_err().to_string().contains("detector"));
}

#[test]
fn vit_huge_has_its_629_million_in_the_blocks() {
    let huge = model("vit-huge-128");
    let matrices = huge.layers.iter().filter(|layer| layer.role == LayerRole::Block).flat_map(|layer| {
        layer.parameters.iter().filter(|parameter| parameter.dimensions.len() == 2).map(|it| it.count)
    });
    assert_eq!(matrices.sum::<u64>(), 12 * 1280 * 1280 * 32);
    assert_eq!(huge.sample, Sample::Image { size: 128, channels: 3, tokens: 65 });
}

#[test]
fn layers_are_the_modules() {
    let names = |name: &str| -> Vec<String> { model(name).layers.iter().map(|it| it.name.clone()).collect() };
    let resnet = names("resnet50");
    assert_eq!(resnet.len(), 1 + 16 + 1);
    assert_eq!(
        (resnet[1].as_str(), resnet[4].as_str(), resnet[16].as_str()),
        ("layer1.0", "layer2.0", "layer4.2")
    );
    let dense = names("densenet121");
    assert_eq!(dense.len(), 1 + 58 + 3 + 1);
    assert_eq!(dense[7], "features.transition1");
    assert_eq!(dense[61], "features.denseblock4.denselayer16");
    assert_eq!(names("efficientnet_v2_s")[1], "features.1.0");
    assert_eq!(names("mobilenet_v2").last().unwrap(), "head");
    assert_eq!(names("mobilenet_v2")[18], "features.18");
    assert_eq!(names("convnext_tiny")[4], "features.2");
    assert_eq!(names("vgg16")[1], "features.5-9");
    assert_eq!(names("inception_v3")[9], "Mixed_7a");
    // Only what has the same sizes has the same signature: the first block of a stage stands alone.
    let signatures: Vec<u32> = model("resnet18").layers.iter().map(|layer| layer.signature).collect();
    assert_eq!(signatures, [0, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
    let signatures: Vec<u32> = model("resnet34").layers[1..5].iter().map(|layer| layer.signature).collect();
    assert_eq!(signatures, [1, 1, 1, 2]);
}

#[test]
fn sizes_are_rounded_down_for_any_image() {
    // 225 pixels: 113 after the stem's convolution, 57 after its pooling, then 29, 15 and 8.
    let odd = with("resnet18", "image_size", 225);
    let shape = shape(1, 0, Dtype::Fp32, AttentionKind::Eager);
    let outputs: Vec<u64> = (0..10).map(|layer| odd.work(layer, &shape).output.0 / 4).collect();
    let expected = [64 * 57 * 57, 64 * 57 * 57, 64 * 57 * 57, 128 * 29 * 29, 128 * 29 * 29, 256 * 15 * 15];
    assert_eq!(outputs[..6], expected);
    assert_eq!(outputs[8..], [512 * 8 * 8, 1]);
    // The published least sizes of torchvision's weights.
    for (name, least) in [
        ("resnet18", 1),
        ("vgg16", 32),
        ("densenet121", 29),
        ("mobilenet_v2", 1),
        ("efficientnet_b0", 1),
        ("convnext_tiny", 32),
    ] {
        assert!(with(name, "image_size", least).forward_flops(&inference()).0 > 0, "{name}");
        if least > 1 {
            let smaller = Overrides::none().with("image_size", least - 1);
            let message = Model::from_catalogue(name, &smaller).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("`image_size` is {}, but must be larger", least - 1)),
                "{message}"
            );
        }
    }
}

#[test]
fn the_auxiliary_classifier_wants_17_pixels() {
    let small = |auxiliary: bool, size: i64| {
        let mut overrides = Overrides::none().with("image_size", size);
        overrides.set("auxiliary", FieldValue::Bool(auxiliary));
        Model::from_catalogue("inception_v3", &overrides).map_err(|error| error.to_string())
    };
    // torchvision's least size without it is 75.
    assert!(small(false, 75).is_ok() && small(true, 299).is_ok());
    assert_eq!(
        small(false, 74).unwrap_err(),
        "`image_size` is 74, but must be larger: nothing is left of the image in \"Mixed_7a\""
    );
    assert!(small(true, 298).is_err());
    // In training its loss is a second start of backward; its work is not there in inference.
    let inception = model("inception_v3");
    let aside = |operations: &[Operation]| {
        operations.iter().filter(|operation| operation.name.starts_with("auxiliary.conv")).count()
    };
    let work = inception.work(9, &shape(2, 0, Dtype::Fp32, AttentionKind::Eager));
    assert_eq!(aside(&work.forward), 2 * (1 + 2 + 1));
    assert_eq!(aside(&work.backward), 2 * (2 + 1 + 1));
    assert_eq!(aside(&inception.work(9, &inference()).forward), 0);
}

#[test]
fn every_convolution_but_the_first_has_two_gradients() {
    for (name, _) in MULTIPLY_ADDS.iter().filter(|(name, _)| !name.starts_with("vit")) {
        let model = model(name);
        let shape = shape(2, 0, Dtype::Fp16, AttentionKind::Eager);
        let mut passes = [0_u64; 3];
        for layer in 0..model.layers.len() {
            let work = model.work(layer, &shape);
            for operation in work.forward.iter().chain(&work.backward) {
                if let Kernel::Convolution(convolution) = operation.kernel {
                    passes[match convolution.pass {
                        ConvolutionPass::Forward => 0,
                        ConvolutionPass::GradInput => 1,
                        ConvolutionPass::GradWeight => 2,
                    }] += 1;
                }
            }
        }
        assert_eq!(passes, [passes[0], passes[0] - 1, passes[0]], "{name}");
    }
}

#[test]
fn kernels_of_a_bottleneck() {
    // layer1.1 of ResNet-50: three convolutions; each norm counts its batches apart; two ReLUs, residual, ReLU.
    let work = model("resnet50").work(2, &shape(2, 0, Dtype::Fp32, AttentionKind::Eager));
    let names: Vec<&str> = work.forward.iter().map(|operation| operation.name).collect();
    let block = [
        "conv1",
        "conv1.norm",
        "conv1.norm",
        "conv1.activation",
        "conv2",
        "conv2.norm",
        "conv2.norm",
        "conv2.activation",
        "conv3",
        "conv3.norm",
        "conv3.norm",
        "residual",
        "residual.relu",
    ];
    assert_eq!(names, block);
    // 1 + 3 (norm and two gradients) + 2 * 4, and the sum of the gradients of branch and identity.
    assert_eq!(work.backward.len(), 1 + 3 + 2 * 4 + 1);
    // Evaluation counts no batches.
    assert_eq!(model("resnet50").work(2, &inference()).forward.len(), block.len() - 3);
}

#[test]
fn a_dense_layer_adds_a_gradient_for_each_feature() {
    // The third layer of a block takes its input and two features: three additions.
    let work = model("densenet121").work(3, &shape(2, 0, Dtype::Fp32, AttentionKind::Eager));
    let sum = work.backward.iter().find(|operation| operation.name.ends_with("grad_sum")).unwrap();
    assert_eq!((sum.name, sum.launches), ("concatenate.grad_sum", 3));
}

#[test]
fn contradictions_are_refused() {
    let refused = |name: &str, field: &str, value: FieldValue| {
        let mut overrides = Overrides::none();
        overrides.set(field, value);
        Model::from_catalogue(name, &overrides).unwrap_err().to_string()
    };
    assert_eq!(
        refused("resnet18", "groups", FieldValue::Integer(2)),
        "`groups` is 2, but must be 1 with basic blocks"
    );
    assert_eq!(
        refused("resnet18", "blocks", FieldValue::Integer(2)),
        "`blocks` is 2, but must be a list of 1 to 8 numbers, each a whole number from 1 to 256"
    );
    // The last stage: 512 / 64 * 128 * 16384 channels.
    let wide: Overrides = Overrides::none().with("groups", 1 << 14).with("group_width", 128);
    let message = Model::from_catalogue("resnext50_32x4d", &wide).unwrap_err().to_string();
    assert_eq!(
        message,
        "`width` is 64, but must be such that no convolution has more than 1048576 channels, not 16777216"
    );
    assert_eq!(
        refused("inception_v3", "classes", FieldValue::Integer(0)),
        "`classes` is 0, but must be at least 1 with the auxiliary classifier"
    );
    let file = |widths: &str| {
        let text = format!(
            "name = \"a\"\nfamily = \"vgg\"\nsource = \"me\"\n[architecture]\nconvolutions = [1, 2]\nwidths = {widths}\nimage_size = 8\nclasses = 2\n"
        );
        Model::from_toml(&text, &Overrides::none()).map_err(|error| error.to_string())
    };
    assert!(file("[8, 16]").is_ok());
    assert_eq!(
        file("[8]").unwrap_err(),
        "line 6, column 1: `widths` is a list of 1, but must be 2 numbers, one for each of `convolutions`"
    );
    assert_eq!(
        file("[8, \"x\"]").unwrap_err(),
        "line 6, column 14: `widths` is a list with \"x\", but must be a list of 1 to 16 numbers, each a whole number from 1 to 16384"
    );
}

/// Values of 16 and 32 bits under autocast: the image's format in, 32 bits between the layers of a transformer.
#[test]
fn autocast_keeps_the_residual_stream_in_32_bits() {
    let vit = model("vit_base_patch16_224");
    let plain = shape(2, 0, Dtype::Fp16, AttentionKind::Flash);
    let formats = Formats::Autocast { parameters: Dtype::Fp32, low_precision_norms: false };
    let autocast = WorkShape { formats, ..plain };
    let (halves, mixed) = (vit.work(1, &plain), vit.work(1, &autocast));
    let stream = 2 * 197 * 768;
    assert_eq!((halves.input.0, halves.output.0), (2 * stream, 2 * stream));
    assert_eq!((mixed.input.0, mixed.output.0), (4 * stream, 4 * stream));
    let traffic = |work: &steptime_models::LayerWork, name: &str| {
        let found = work.forward.iter().find(|operation| operation.name == name).unwrap();
        let Kernel::MemoryBound { read, written, .. } = found.kernel else { panic!("{name}") };
        (read.0, written.0)
    };
    // The sum of a 32-bit and a 16-bit tensor has 32 bits.
    assert_eq!(traffic(&halves, "mlp.residual"), (4 * stream, 2 * stream));
    assert_eq!(traffic(&mixed, "mlp.residual"), (6 * stream, 4 * stream));
    // Results of norms are rounded for the products, each of which is the same as before.
    let casts = mixed
        .forward
        .iter()
        .filter(|operation| operation.name.split('.').next_back() == Some("cast"))
        .count();
    assert_eq!(casts, 2);
    assert_eq!(traffic(&mixed, "mlp.fc1.cast"), (4 * stream, 2 * stream));
    assert_eq!(mixed.forward_flops(), halves.forward_flops());
}

#[test]
fn convolutions_know_their_layout_and_format() {
    let resnet = model("resnet50");
    let kernel = |work_shape: &WorkShape| {
        let work = resnet.work(1, work_shape);
        let found = work.forward.iter().find_map(|operation| match operation.kernel {
            Kernel::Convolution(shape) => Some((shape.format, shape.dtype)),
            _ => None,
        });
        found.unwrap()
    };
    let plain = shape(1, 0, Dtype::Fp32, AttentionKind::Eager);
    assert_eq!(kernel(&plain), (MemoryFormat::Contiguous, Dtype::Fp32));
    let convolutions = Convolutions { format: MemoryFormat::ChannelsLast, tf32: true };
    assert_eq!(kernel(&WorkShape { convolutions, ..plain }), (MemoryFormat::ChannelsLast, Dtype::Tf32));
    let halves = shape(1, 0, Dtype::Fp16, AttentionKind::Eager);
    assert_eq!(kernel(&WorkShape { convolutions, ..halves }), (MemoryFormat::ChannelsLast, Dtype::Fp16));
}
