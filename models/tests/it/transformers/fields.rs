//! Fields of the family and what contradicts what.

use steptime_models::{AttentionKind, Dtype, FieldValue, Model, Overrides, TensorParallel};

use crate::{model, shape};

const SMALL: &str = r#"
name = "mine"
family = "transformer"
source = "me"

[architecture]
layers = 4
hidden = 64
heads = 4
feed_forward = 128
vocabulary = 100
positions = 32
"#;

fn build(more: &str) -> Result<Model, String> {
    Model::from_toml(&format!("{SMALL}{more}"), &Overrides::none()).map_err(|error| error.to_string())
}

fn message(more: &str) -> String {
    build(more).unwrap_err()
}

#[test]
fn defaults_are_those_of_llama() {
    // 100 * 64 twice, 4 blocks of 4 * 64^2 + 3 * 64 * 128 + 2 * 64, and a norm.
    let model = build("").unwrap();
    assert_eq!(model.parameters(), 2 * 6400 + 4 * (4 * 4096 + 3 * 8192 + 128) + 64);
    let llama = Model::from_toml(&SMALL.replace("transformer", "llama"), &Overrides::none()).unwrap();
    for attention in [AttentionKind::Eager, AttentionKind::Flash] {
        let shape = shape(2, 16, Dtype::Bf16, attention);
        for layer in 0..6 {
            assert_eq!(model.work(layer, &shape), llama.work(layer, &shape));
            assert_eq!(model.layers[layer].parameters, llama.layers[layer].parameters);
        }
    }
}

/// nanotron's projections: one of queries, keys and values, one of the gate and what it is multiplied with. Parameters and
/// arithmetic are Llama's; a block has six tensors in place of nine, and four products forward in place of seven.
#[test]
fn packed_projections_hold_and_compute_the_same() {
    let (llama, packed) = (build("").unwrap(), build("naming = \"nanotron\"\n").unwrap());
    assert_eq!(packed.parameters(), llama.parameters());
    let names: Vec<&str> = packed.layers[1].parameters.iter().map(|it| it.name.as_str()).collect();
    assert!(names.iter().any(|name| name.contains("attn.qkv_proj.weight")), "{names:?}");
    assert!(names.iter().any(|name| name.contains("mlp.gate_up_proj.weight")), "{names:?}");
    assert_eq!((names.len(), llama.layers[1].parameters.len()), (6, 9));
    let mut shape = shape(2, 16, Dtype::Bf16, AttentionKind::Flash);
    for size in [1, 4] {
        shape.tensor = TensorParallel { size, sequence: size > 1 };
        let [one, other] = [&packed, &llama].map(|model| model.work(1, &shape));
        let products = |work: &steptime_models::LayerWork| {
            let flops = work.forward.iter().map(|it| it.kernel.model_flops().0).filter(|flops| *flops > 0);
            (flops.clone().count() - 1, flops.sum::<u64>())
        };
        let (packed, apart) = (products(&one), products(&other));
        // Attention itself is one more.
        assert_eq!((packed.0, apart.0, packed.1), (4, 7, apart.1));
    }
    let grouped = build("kv_heads = 2\nnaming = \"nanotron\"\n").unwrap_err();
    assert!(grouped.contains("nanotron"), "{grouped}");
}

#[test]
fn gpt_is_one_of_them() {
    let gpt = Model::from_toml(
        &SMALL
            .replace("\"transformer\"", "\"gpt\"")
            .replace("feed_forward = 128\n", "feed_forward = 128\ntied = true\n"),
        &Overrides::none(),
    )
    .unwrap();
    let fields = "tied = true\nposition = \"learned\"\nnorm = \"layer\"\nqkv_bias = true\nprojection_bias = true\n\
                  mlp_bias = true\nactivation = \"gelu\"\ngated = false\ndropout = true\nnaming = \"megatron\"\n";
    let model = build(fields).unwrap();
    assert_eq!(model.parameters(), gpt.parameters());
    let shape = shape(2, 16, Dtype::Bf16, AttentionKind::Eager);
    assert_eq!(model.work(1, &shape), gpt.work(1, &shape));
    assert_eq!(model.longest_sequence(), Some(32));
}

#[test]
fn fields_that_change_nothing_are_refused() {
    for (more, expected) in [
        (
            "relative_buckets = 32",
            "line 13, column 1: `relative_buckets` is 32, but must be left out: it acts only with position = \"relative\"",
        ),
        (
            "norm_bias = true",
            "line 13, column 1: `norm_bias` is true, but must be left out: it acts only with norm = \"layer\"",
        ),
        (
            "window_every = 2",
            "line 13, column 1: `window_every` is 2, but must be left out: it acts only with a window",
        ),
        (
            "classes = 2",
            "line 13, column 1: `classes` is 2, but must be left out: it acts only with head = \"classifier\"",
        ),
        (
            "moe_every = 2",
            "line 13, column 1: `moe_every` is 2, but must be left out: it acts only with [architecture.experts]",
        ),
        (
            "pooler = true",
            "line 13, column 1: `pooler` is true, but must be left out: it acts only with a head other than \"lm\"",
        ),
        (
            "position = \"none\"\nrotary_fraction = 0.5",
            "line 14, column 1: `rotary_fraction` is 0.5, but must be left out: it acts only with position = \"rotary\"",
        ),
    ] {
        assert_eq!(message(more), expected);
    }
}

#[test]
fn contradictions_are_refused() {
    for (more, expected) in [
        (
            "encoder_layers = 2",
            "line 6, column 2: `architecture` lacks the field `position`, which must be \"relative\" with encoder_layers",
        ),
        (
            "encoder_layers = 2\nposition = \"learned\"",
            "line 14, column 1: `position` is \"learned\", but must be \"relative\" with encoder_layers",
        ),
        (
            "encoder_layers = 2\nposition = \"relative\"\nwindow = 8",
            "line 15, column 1: `window` is 8, but must be left out: it acts only with a single stack (encoder_layers = 0)",
        ),
        ("kv_heads = 3", "line 13, column 1: `kv_heads` is 3, but must be a divisor of heads (4)"),
        (
            "kv_heads = 2\nnaming = \"mpt\"",
            "line 14, column 1: `naming` is \"mpt\", but must be one with a projection of its own for keys and values",
        ),
        (
            "position = \"learned\"\nposition_rows = 31",
            "line 14, column 1: `position_rows` is 31, but must be at least positions (32)",
        ),
        (
            "rotary_fraction = 1.5",
            "line 13, column 1: `rotary_fraction` is 1.5, but must be a number from 0 to 1",
        ),
        (
            "causal = false\nmulti_token_prediction = 1",
            "line 14, column 1: `multi_token_prediction` is 1, but must be 0 unless the model is a decoder with head = \
             \"lm\" and positions other than relative ones",
        ),
        (
            "position = \"learned\"\ndefault_sequence = 64",
            "line 14, column 1: `default_sequence` is 64, but must be at most positions (32)",
        ),
        (
            "position = \"rope\"",
            "line 13, column 1: `position` is \"rope\", but must be one of \"rotary\", \"learned\", \"alibi\", \
             \"relative\", \"none\"",
        ),
        (
            "[architecture.experts]\ncount = 4",
            "line 13, column 15: `architecture.experts` lacks the field `top_k`, which must be a whole number from 1 to 4",
        ),
        (
            "[architecture.experts]\ncount = 4\ntop_k = 5\nfeed_forward = 8",
            "line 15, column 1: `experts.top_k` is 5, but must be a whole number from 1 to 4",
        ),
        (
            "[architecture.experts]\ncount = 4\ntop_k = 2\nfeed_forward = 8\nshared_gate = true",
            "line 17, column 1: `experts.shared_gate` is true, but must be left out: it acts only with shared experts \
             (shared)",
        ),
        (
            "[architecture.experts]\ncount = 4\ntop_k = 2\nfeed_forward = 8\nkind = 1",
            "line 17, column 1: `architecture.experts` has no field `kind`; allowed are count, top_k, feed_forward, \
             shared, shared_feed_forward, shared_gate, router_bias, bias, capacity_factor",
        ),
        (
            "kv_heads = 2\n[architecture.latent]\nkv_rank = 8\nrope_dim = 8\nnope_dim = 8\nvalue_dim = 8",
            "line 13, column 1: `kv_heads` is 2, but must be left out: it acts only with a model without \
             [architecture.latent]",
        ),
        (
            "[architecture.maw]\nheads = 4\ndepth = 8",
            "line 6, column 2: `architecture` lacks the field `causal`, which must be false with [architecture.maw], \
             which is for encoders",
        ),
        (
            "causal = false\n[architecture.maw]\nlayers = [4]\nheads = 4\ndepth = 8",
            "line 15, column 1: `maw.layers` is a list with 4, but must be numbers of the 4 blocks, from 0, or from the \
             end, from -1",
        ),
    ] {
        assert_eq!(message(more), expected);
    }
    let without = SMALL.replace("feed_forward = 128\n", "");
    let error = Model::from_toml(&without, &Overrides::none()).unwrap_err().to_string();
    assert!(error.starts_with("line 6, column 2: `architecture` lacks the field `feed_forward`"), "{error}");
}

#[test]
fn overrides_reach_tables_by_dotted_names() {
    let with = |name: &str, value| Overrides::none().with(name, value);
    let more = Model::from_catalogue("mixtral-8x7b", &with("experts.count", 16)).unwrap();
    let expert = 3 * 4096 * 14_336;
    assert_eq!(more.parameters() - model("mixtral-8x7b").parameters(), 32 * 8 * (expert + 4096));
    // A table that is not there is made.
    let mut overrides = with("experts.count", 4).with("experts.top_k", 1).with("experts.feed_forward", 1024);
    overrides.set("experts.capacity_factor", FieldValue::Float(1.25));
    assert!(Model::from_catalogue("qwen3-0.6b", &overrides).unwrap().active_parameters() < 596_049_920);
    let fails =
        |name: &str, overrides: &Overrides| Model::from_catalogue(name, overrides).unwrap_err().to_string();
    assert_eq!(
        fails("mixtral-8x7b", &with("experts.top_k", 9)),
        "`experts.top_k` is 9, but must be a whole number from 1 to 8"
    );
    assert!(
        fails("mixtral-8x7b", &with("experts.kind", 1))
            .starts_with("`architecture.experts` has no field `kind`; allowed are")
    );
    assert!(
        fails("mixtral-8x7b", &with("layers.count", 1))
            .starts_with("`architecture` has no field `layers.count`;")
    );
    assert_eq!(
        fails("mixtral-8x7b", &with("experts", 8)),
        "`experts` is 8, but must be a table, [architecture.experts]"
    );
}

#[test]
fn every_combination_builds_and_fits_together() {
    let one_of = |parts: &[&str]| parts.iter().map(|&part| part.to_owned()).collect::<Vec<String>>();
    let ends = one_of(&[
        "",
        "head = \"masked-lm\"\npooler = true\n",
        "head = \"pooler\"\n",
        "head = \"mean-pool\"\n",
        "head = \"classifier\"\nclasses = 3\n",
        "head = \"none\"\n",
    ]);
    let norms = one_of(&[
        "",
        "norm_placement = \"post\"\n",
        "norm_placement = \"both\"\n",
        "norm_placement = \"parallel\"\n",
    ]);
    let positions = one_of(&[
        "",
        "position = \"learned\"\n",
        "position = \"alibi\"\n",
        "position = \"relative\"\n",
        "position = \"none\"\n",
    ]);
    let forms = one_of(&[
        "norm = \"layer\"\nqkv_bias = true\nmlp_bias = true\nprojection_bias = true\ngated = false\nactivation = \"relu\"\ndropout = true\n",
        "query_key_norm = \"head\"\nkv_heads = 2\nattention_softcap = true\nlogit_softcap = true\nwindow = 8\nwindow_every = 2\n",
        "causal = false\nquery_key_norm = \"full\"\nactivation = \"squared-relu\"\nembedding_dim = 32\ntoken_types = 2\nembedding_norm = true\n",
        "dense_layers = 1\nmoe_every = 2\n[architecture.experts]\ncount = 4\ntop_k = 2\nfeed_forward = 32\nshared = 1\nrouter_bias = true\n",
    ]);
    for (end, norm) in ends.iter().flat_map(|end| norms.iter().map(move |norm| (end, norm))) {
        for (position, form) in positions.iter().flat_map(|it| forms.iter().map(move |form| (it, form))) {
            let text = format!("{end}{norm}{position}{form}");
            let model = build(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            for attention in [AttentionKind::Eager, AttentionKind::Flash] {
                let mut shape = shape(2, 16, Dtype::Bf16, attention);
                for size in [1, 2] {
                    shape.tensor = TensorParallel { size, sequence: size == 2 };
                    let works: Vec<_> = (0..6).map(|layer| model.work(layer, &shape)).collect();
                    for pair in works.windows(2) {
                        assert_eq!(pair[0].output, pair[1].input, "{text}");
                    }
                    assert!(works[1].backward_flops() > works[1].forward_flops(), "{text}");
                }
            }
        }
    }
}

#[test]
fn a_module_predicts_further_with_the_models_own_table() {
    let one = Overrides::none().with("multi_token_prediction", 1);
    let with = Model::from_catalogue("deepseek-v3", &one).unwrap();
    let without = model("deepseek-v3");
    // A block with experts, two norms before and one after it, and a projection of two vectors to one.
    let block = without.layers[61].parameter_count();
    let more = block + 3 * 7168 + 2 * 7168 * 7168;
    assert_eq!(with.parameters() - without.parameters(), more);
    // DeepSeek-V3's notes on its weights: 11.5 billion parameters that are its own.
    assert!(more.abs_diff(11_500_000_000) < 200_000_000, "{more}");
    let shape = shape(1, 64, Dtype::Bf16, AttentionKind::Flash);
    let module = with.work(62, &shape);
    assert_eq!((module.input, module.output), (with.work(63, &shape).input, with.work(61, &shape).output));
    let flops = module.forward_flops().0 - with.work(61, &shape).forward_flops().0;
    assert_eq!(flops, 2 * 64 * (2 * 7168 * 7168 + 7168 * 129_280));
    assert!(module.backward.iter().any(|it| it.name == "prediction.projection.grad_weight"));
}
