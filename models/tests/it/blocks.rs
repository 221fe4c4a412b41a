//! Architectures written block by block, against the families that know them and against published counts.

use steptime_models::{
    AttentionKind, Bytes, Dtype, Family, FieldValue, Flops, Kernel, LayerRole, Lora, Model, Operation,
    Overrides, Sample, TensorParallel, Trainable, WorkShape,
};

use crate::{model, shape};

const GPT2: &str = include_str!("files/gpt2.toml");
const LLAMA: &str = include_str!("files/llama3-8b.toml");
const BERT: &str = include_str!("files/bert-base.toml");
const MIXTRAL: &str = include_str!("files/mixtral-8x7b.toml");
const RESNET: &str = include_str!("files/resnet18.toml");

fn file(text: &str) -> Model {
    Model::from_toml(text, &Overrides::none()).unwrap()
}

fn message(text: &str) -> String {
    Model::from_toml(text, &Overrides::none()).unwrap_err().to_string()
}

fn small(attention: AttentionKind) -> WorkShape {
    shape(2, 128, Dtype::Bf16, attention)
}

/// Micro-batches whole and divided, in training and not.
fn shapes() -> Vec<WorkShape> {
    let mut all = Vec::new();
    for attention in [AttentionKind::Eager, AttentionKind::Flash] {
        for (size, sequence) in [(1, false), (4, false), (4, true)] {
            for training in [true, false] {
                let tensor = TensorParallel { size, sequence };
                all.push(WorkShape { training, tensor, ..small(attention) });
            }
        }
    }
    all
}

#[test]
fn a_spelled_out_transformer_is_the_familys() {
    for (text, name) in [(GPT2, "gpt2"), (LLAMA, "llama3-8b")] {
        let (spelled, known) = (file(text), model(name));
        assert_eq!(spelled.parameters(), known.parameters(), "{name}");
        assert_eq!((spelled.sample, spelled.layers.len()), (known.sample, known.layers.len()));
        assert_eq!(spelled.longest_sequence(), known.longest_sequence());
        assert_eq!(spelled.widest_head(), known.widest_head());
        for shape in shapes() {
            for (index, (layer, other)) in spelled.layers.iter().zip(&known.layers).enumerate() {
                assert_eq!((&layer.name, layer.role), (&other.name, other.role));
                assert_eq!(layer.held_parameter_count(), other.held_parameter_count());
                let sizes = |layer: &steptime_models::Layer| {
                    layer
                        .parameters
                        .iter()
                        .map(|it| (it.dimensions.clone(), it.split, it.tied))
                        .collect::<Vec<_>>()
                };
                assert_eq!(sizes(layer), sizes(other));
                // The same operations, saved tensors and temporaries, to their names.
                assert_eq!(spelled.work(index, &shape), known.work(index, &shape), "{name}, layer {index}");
            }
        }
    }
}

#[test]
fn bert_has_the_published_count() {
    // Hugging Face, google-bert/bert-base-uncased with pooler.
    let bert = file(BERT);
    assert_eq!(bert.parameters(), 109_482_240);
    assert_eq!(bert.layers[1].parameter_count(), 12 * 768 * 768 + 13 * 768);
    let names: Vec<&str> = bert.layers[1].parameters.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names[0], "attention.q_proj.weight");
    assert_eq!(names[8..10], ["attention_norm.weight", "attention_norm.bias"]);
    assert_eq!(names[10], "mlp.up_proj.weight");
    // 2 b s (12 h^2 + 2 s h) a block and b h^2 for the pooler, which looks at one token.
    let flops = bert.forward_flops(&small(AttentionKind::Flash));
    let (b, s, h) = (2, 128, 768);
    assert_eq!(flops, Flops(2 * (12 * b * s * (12 * h * h + 2 * s * h) + b * h * h)));
}

#[test]
fn routed_experts_have_the_published_counts() {
    // Hugging Face, parameters of mistralai/Mixtral-8x7B-v0.1; 12.9 billion for a token, Jiang et al. 2024.
    let mixtral = file(MIXTRAL);
    assert_eq!(mixtral.parameters(), 46_702_792_704);
    assert_eq!((mixtral.active_parameters() + 50_000_000) / 100_000_000, 129);
    // A token: attention's projections 4096 x 10240 and scores, the router, and two experts of three matrices.
    let (b, s) = (2, 128);
    let work = mixtral.work(1, &small(AttentionKind::Eager));
    let token = 4096 * 10_240 + 2 * s * 4096 + 4096 * 8 + 2 * 3 * 4096 * 14_336;
    assert_eq!(work.forward_flops(), Flops(2 * b * s * token));
    assert_eq!(work.backward_flops().0, 2 * work.forward_flops().0);
    let grouped =
        work.forward.iter().filter(|it| it.name.starts_with("moe.")).filter_map(|it| match it.kernel {
            Kernel::Gemm { batch: 8, m, .. } => Some(m),
            _ => None,
        });
    assert_eq!(grouped.collect::<Vec<_>>(), [b * s * 2 / 8; 3]);
}

#[test]
fn a_convnet_is_worked_by_hand() {
    let resnet = file(RESNET);
    // torchvision, ResNet18_Weights.IMAGENET1K_V1 num_params.
    assert_eq!(resnet.parameters(), 11_689_512);
    let counts: Vec<u64> = resnet.layers.iter().map(steptime_models::Layer::parameter_count).collect();
    // A block of c channels: 2 (9 c^2 + 2 c); coarser by half with a shortcut: 9 c^2 / 2 + c^2 / 2 for the first
    // convolution and the shortcut, three norms.
    let plain = |c: u64| 2 * (9 * c * c + 2 * c);
    let first = |c: u64| 9 * c * c / 2 + 9 * c * c + c * c / 2 + 6 * c;
    assert_eq!(
        counts,
        [
            64 * 147 + 128,
            plain(64),
            plain(64),
            first(128),
            plain(128),
            first(256),
            plain(256),
            first(512),
            plain(512),
            513_000
        ]
    );
    // torchvision: 1.814 GMAC an image of 224 pixels.
    let flops = resnet.forward_flops(&small(AttentionKind::Flash)).0 as f64 / 2e9 / 2.0;
    assert!((flops - 1.814).abs() < 0.001, "{flops}");
    assert_eq!(resnet.sample, Sample::Image { size: 224, channels: 3, tokens: 1 });
    assert_eq!(resnet.layers[0].role, LayerRole::Embedding);
}

#[test]
fn a_convolutional_block_keeps_what_its_backward_needs() {
    // Batch 2, 64 channels of 56 x 56: one tensor has t values. Kept: the block's input, the first convolution's and
    // the second's result for their norms, and the ReLU's result (the second convolution's input). The last ReLU's, in
    // place of the sum, is the next layer's input and listed there. Each norm keeps 2 x 64 statistics.
    let (t, statistics) = (2 * 64 * 56 * 56, 2 * 2 * 64 * 4);
    for (dtype, bytes) in [(Dtype::Fp32, 4), (Dtype::Bf16, 2)] {
        let work = file(RESNET).work(1, &shape(2, 0, dtype, AttentionKind::Flash));
        let names: Vec<&str> = work.saved.iter().map(|it| it.name).collect();
        assert_eq!(work.saved_bytes(), Bytes(4 * t * bytes + statistics), "{names:?}");
    }
    // The stem: no gradient for the image; its pooling keeps its input and 64-bit places of a quarter as many.
    let stem = file(RESNET).work(0, &shape(2, 0, Dtype::Fp32, AttentionKind::Flash));
    let convolutions = stem.backward.iter().filter(|it| matches!(it.kernel, Kernel::Convolution(_))).count();
    assert_eq!(convolutions, 1);
    let places = stem.saved.iter().find(|it| it.name == "pool.max.mask").unwrap();
    assert_eq!(places.bytes, Bytes(8 * t));
}

#[test]
fn a_spelled_out_convnet_works_like_the_familys() {
    let (spelled, known) = (file(RESNET), model("resnet18"));
    let kernels = |operations: &[Operation]| operations.iter().map(|it| it.kernel).collect::<Vec<_>>();
    for dtype in [Dtype::Fp32, Dtype::Bf16] {
        let shape = shape(2, 0, dtype, AttentionKind::Flash);
        let work = |model: &Model| -> Vec<_> {
            let layers = 0..model.layers.len();
            layers.map(|layer| model.work(layer, &shape)).collect()
        };
        for (index, (own, other)) in work(&spelled).into_iter().zip(work(&known)).enumerate() {
            assert_eq!(spelled.layers[index].parameter_count(), known.layers[index].parameter_count());
            // The catalogue's residual is added in place; kernel by kernel that is the same.
            assert_eq!(own.saved_bytes(), other.saved_bytes(), "layer {index}");
            assert_eq!(kernels(&own.forward), kernels(&other.forward), "layer {index}");
            assert_eq!(kernels(&own.backward), kernels(&other.backward), "layer {index}");
        }
        // Autograd's sum for two images, without the labels and the sum of the classes' weights; in 16 bits it is
        // checked against the family.
        if dtype == Dtype::Fp32 {
            let saved: u64 = work(&spelled).iter().map(|it| it.saved_bytes().0).sum();
            assert_eq!(saved, 44_406_100 - (2 * 8 + 4));
        }
    }
}

/// A layer that ends in a ReLU, and what receives it.
fn after_relu(layers: &str) -> Vec<(&'static str, u64)> {
    let text = format!(
        r#"
name = "held"
family = "blocks"
source = "me"
[input]
kind = "image"
size = 8
[[layer]]
blocks = [{{ kind = "conv", channels = 4, kernel = 3 }}, {{ kind = "relu" }}]
{layers}
[[layer]]
blocks = [{{ kind = "linear", width = 10 }}]
"#
    );
    let model = file(&text);
    let shape = shape(1, 0, Dtype::Fp32, AttentionKind::Flash);
    let works = (1..model.layers.len()).map(|layer| model.work(layer, &shape));
    works.flat_map(|work| work.saved).map(|it| (it.name, it.bytes.0)).collect()
}

#[test]
fn a_result_that_a_relu_keeps_is_listed_once() {
    // 4 channels of 8 x 8 in 32 bits.
    const MAP: u64 = 4 * 64 * 4;
    let layer = |blocks: &str| format!("[[layer]]\nblocks = [{blocks}]\n");
    let flat = layer(r#"{ kind = "flatten" }"#);
    // Neither a mean nor flattening needs its input; the linear layer keeps the four means, or the flattened map.
    let mean = layer(r#"{ kind = "pool", type = "global" }"#);
    assert_eq!(after_relu(&mean), [("input", MAP), ("input", 16)]);
    assert_eq!(after_relu(&flat), [("input", MAP)]);
    // A second ReLU writes over the first's result; a repeated layer hands its own to itself.
    let relu = layer(r#"{ kind = "relu" }"#);
    assert_eq!(after_relu(&format!("{relu}{flat}")), [("input", MAP)]);
    let repeated = format!("{}repeat = 3\n", layer(r#"{ kind = "dropout" }, { kind = "relu" }"#));
    let map = |name| (name, MAP);
    let mask = ("dropout.mask", MAP / 4);
    let once = [map("input"), mask];
    let listed = [&once[..], &once, &once, &[map("input")]].concat();
    assert_eq!(after_relu(&format!("{repeated}{flat}")), listed);
    // Without a ReLU at the end of the layer before, dropout needs its mask only.
    let plain = layer(r#"{ kind = "dropout" }"#);
    assert_eq!(
        after_relu(&format!("{plain}{repeated}{flat}")),
        [&once[..], &[mask], &once, &once, &[map("input")]].concat()
    );
    // Of tokens that a ReLU keeps, all stay where one is handed on.
    let first = layer(
        r#"{ kind = "patches", size = 4, width = 6 }, { kind = "relu" }, { kind = "pool", type = "first" }"#,
    );
    assert_eq!(
        after_relu(&first),
        [("input", MAP), ("patches.convolution.output", 4 * 6 * 4), ("input", 6 * 4)]
    );
}

#[test]
fn image_sizes_can_be_overridden() {
    let larger = Model::from_toml(RESNET, &Overrides::none().with("image_size", 448)).unwrap();
    assert_eq!(larger.parameters(), 11_689_512);
    assert_eq!(larger.work(1, &small(AttentionKind::Flash)).input, Bytes(2 * 2 * 64 * 112 * 112));
    let mut overrides = Overrides::none();
    overrides.set("depth", FieldValue::Integer(3));
    assert_eq!(
        Model::from_toml(RESNET, &overrides).unwrap_err().to_string(),
        "`architecture` has no field `depth`; allowed are image_size"
    );
}

const VISION: &str = r#"
name = "patches"
family = "blocks"
source = "me"
[input]
kind = "image"
size = 32
[[layer]]
blocks = [
    { kind = "patches", size = 4, width = 192 },
    { kind = "class_token" },
    { kind = "positions", rows = 65 },
]
[[layer]]
repeat = 3
blocks = [{ kind = "residual", blocks = [{ kind = "norm" }, { kind = "attention", heads = 3, bias = true }] }]
[[layer]]
blocks = [{ kind = "pool", type = "global" }, { kind = "linear", width = 10 }]
"#;

#[test]
fn patches_make_tokens() {
    let vision = file(VISION);
    // Patches 192 x 48 + 192, class token 192, positions 65 x 192; a norm and attention; classes.
    let parts = [192 * 49 + 192 + 65 * 192, 3 * (2 * 192 + 4 * (192 * 192 + 192)), 192 * 10 + 10];
    assert_eq!(vision.parameters(), parts.iter().sum::<u64>());
    assert_eq!(vision.sample, Sample::Image { size: 32, channels: 3, tokens: 65 });
    assert_eq!(
        vision.layers.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(),
        ["layer0", "layer1.0", "layer1.1", "layer1.2", "layer2"]
    );
    assert_eq!(vision.work(1, &small(AttentionKind::Flash)).output, Bytes(2 * 65 * 192 * 2));
}

const OPAQUE: &str = r#"
name = "parts"
family = "blocks"
source = "me"
[input]
kind = "image"
size = 64
[[layer]]
name = "camera"
blocks = [{ kind = "component", flops = "3 GFLOP", parameters = 1000, saved = "2 MB", output = "0.5 MB" }]
[[layer]]
name = "planner"
blocks = [
    { kind = "component", flops = "1 GFLOP", backward_flops = "1.5 GFLOP" },
    { kind = "component", flops = "1 GFLOP", output = "8 B" },
]
"#;

#[test]
fn components_are_what_their_file_says() {
    let parts = file(OPAQUE);
    assert_eq!(parts.parameters(), 1000);
    let (camera, planner) =
        (parts.work(0, &small(AttentionKind::Flash)), parts.work(1, &small(AttentionKind::Flash)));
    assert_eq!(
        (camera.forward_flops(), camera.backward_flops()),
        (Flops(6_000_000_000), Flops(12_000_000_000))
    );
    assert_eq!((camera.saved_bytes(), camera.output), (Bytes(4_000_000), Bytes(1_000_000)));
    assert_eq!((planner.input, planner.output), (Bytes(1_000_000), Bytes(16)));
    assert_eq!(planner.backward_flops(), Flops(2 * 3_500_000_000));
}

#[test]
fn adapters_find_the_projections() {
    let targets = vec!["q_proj".to_owned(), "v_proj".to_owned()];
    let lora = |model: Model| {
        let lora = Lora { rank: 16, targets: targets.clone(), dropout: false };
        model.with_trainable(Trainable::Lora(lora)).unwrap().trainable_parameters()
    };
    // 32 blocks; queries 16 (4096 + 4096), values 16 (4096 + 1024).
    assert_eq!(lora(file(LLAMA)), 32 * 16 * (8192 + 5120));
    assert_eq!(lora(file(LLAMA)), lora(model("llama3-8b")));
}

#[test]
fn the_page_on_model_files_shows_these_files() {
    let page = include_str!("../../../docs/models.md");
    assert!(page.contains(&format!("```toml\n{LLAMA}```")));
    let stage = RESNET.find("[[layer]]\nname = \"layer2.0\"").unwrap()
        ..RESNET.find("\n[[layer]]\nname = \"layer2.1\"").unwrap();
    assert!(page.contains(&format!("```toml\n{}```", &RESNET[stage])));
    for family in Family::ALL {
        assert!(page.contains(&format!("| `{family}` | ")), "{family} is not on the page");
    }
    // The message about an unknown kind lists them all.
    let kinds = message(&VISION.replace("\"class_token\"", "\"\""));
    let kinds: Vec<&str> = kinds.split("one of ").nth(1).unwrap().split(", ").collect();
    assert_eq!(kinds.len(), 19);
    for kind in kinds {
        assert!(page.contains(&format!("| `{}` | ", kind.trim_matches('"'))), "{kind} is not on the page");
    }
}

#[test]
fn layers_of_every_file_fit_together() {
    for text in [GPT2, LLAMA, BERT, MIXTRAL, RESNET, VISION, OPAQUE] {
        let model = file(text);
        for shape in shapes() {
            for layer in 1..model.layers.len() {
                let (before, after) = (model.work(layer - 1, &shape), model.work(layer, &shape));
                assert_eq!(after.input, before.output, "{}, layer {layer}", model.name);
            }
        }
    }
}

#[test]
fn blocks_that_do_not_fit_are_told_where() {
    let changed = |from: &str, to: &str| message(&VISION.replace(from, to));
    assert_eq!(
        changed("heads = 3", "heads = 5"),
        "line 16, column 61: block 1.2 of layer `layer1`: needs a width of a multiple of heads (5), gets tokens of \
         width 192"
    );
    assert_eq!(
        changed("size = 4,", "size = 5,"),
        "line 10, column 5: block 1 of layer `layer0`: needs a square image with sides of a multiple of 5, gets an \
         image of 3 channels, 32 x 32"
    );
    assert_eq!(
        changed("{ kind = \"norm\" }, ", "{ kind = \"linear\", width = 64 }, "),
        "line 16, column 75: block 1.2 of layer `layer1`: needs a width of a multiple of heads (3), gets tokens of \
         width 64"
    );
    assert_eq!(
        changed("{ kind = \"norm\" }, ", "{ kind = \"linear\", width = 48 }, "),
        "line 16, column 11: block 1 of layer `layer1`: needs a branch that hands on tokens of width 192, to be \
         added to its input, gets tokens of width 48"
    );
    assert_eq!(
        changed(
            "{ kind = \"pool\", type = \"global\" }, ",
            "{ kind = \"conv\", channels = 8, kernel = 3 }, "
        ),
        "line 18, column 11: block 1 of layer `layer2`: needs an image, gets tokens of width 192"
    );
    assert_eq!(
        changed("repeat = 3\nblocks = [", "repeat = 3\nblocks = [{ kind = \"linear\", width = 96 }, "),
        "line 15, column 1: `repeat` is 3, but must be 1, or the layer must hand on what it takes (tokens of width \
         192) and not tokens of width 96"
    );
    assert_eq!(
        changed("rows = 65", "rows = 64"),
        "line 12, column 27: `rows` is 64, but must be at least the 65 tokens of a sample"
    );
}

#[test]
fn fields_of_blocks_are_checked() {
    let changed = |from: &str, to: &str| message(&VISION.replace(from, to));
    assert_eq!(
        changed("heads = 3", "head = 3"),
        "line 16, column 83: `attention` has no field `head`; did you mean `heads`?; allowed are kind, name, heads, \
         kv_heads, head_dim, causal, rotary, packed, bias, output_bias, dropout, softmax_fp32"
    );
    let unknown = changed("\"class_token\"", "\"class\"");
    assert!(
        unknown.starts_with("line 11, column 7: `kind` is \"class\", but must be one of \"embedding\", "),
        "{unknown}"
    );
    assert_eq!(
        changed("{ kind = \"norm\" }, ", "{ kind = \"norm\", name = \"attention\" }, "),
        "line 16, column 81: two blocks are named `attention`"
    );
    assert_eq!(
        changed("[[layer]]\nrepeat", "[[layer]]\nname = \"layer0\"\nrepeat"),
        "line 15, column 1: two layers are named `layer0`"
    );
    assert_eq!(
        message(&GPT2.replace("outputs = 50257", "outputs = 50304")),
        "line 36, column 30: block 2 of layer `head`: needs 50257 outputs and a width of 768, as the embedding has, to \
         be tied to it, gets 50304 outputs and a width of 768"
    );
    assert_eq!(
        message(&GPT2.replace(
            "{ kind = \"norm\" }, { kind = \"head\"",
            "{ kind = \"head\", outputs = 2 }, { kind = \"head\""
        )),
        "line 36, column 43: block 2 of layer `head`: needs tokens or a vector, gets the predictions of a head"
    );
    assert_eq!(
        message(&LLAMA.replace("softmax_fp32 = true", "packed = true")),
        "line 20, column 87: `packed` is true, but must be false where kv_heads differ from heads or positions are \
         rotary"
    );
    assert_eq!(
        message(&GPT2.replace("sequence_length = 1024", "sequence_length = 2048")),
        "line 14, column 27: `rows` is 1024, but must be at least the 2048 tokens of a sample"
    );
    assert_eq!(
        message(&GPT2.replace("repeat = 12", "repeat = 10000")),
        "line 20, column 1: `repeat` is 10000, but must be small enough for 10000 layers in all"
    );
    assert_eq!(
        message(
            "name = \"a\"\nfamily = \"blocks\"\nsource = \"b\"\n[input]\nkind = \"tokens\"\nsequence_length = 8\n"
        ),
        "`the file` lacks the field `layer`, which must be at least one table [[layer]]"
    );
}

#[test]
fn files_cut_anywhere_are_errors_and_no_panics() {
    for text in [VISION, OPAQUE] {
        for cut in (0..text.len() - 60).filter(|&cut| text.is_char_boundary(cut)) {
            let _ = Model::from_toml(&text[..cut], &Overrides::none());
        }
    }
    let deep = "{ kind = \"residual\", blocks = [".repeat(3000);
    assert!(
        Model::from_toml(&VISION.replace("{ kind = \"class_token\" }", &deep), &Overrides::none()).is_err()
    );
}
