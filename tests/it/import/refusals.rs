//! Every mistake has one message: where, which key, what was found, what is allowed.

use std::time::{Duration, Instant};

use steptime_scenarios::InputError;
use steptime_scenarios::import::{Frame, Imported, deepspeed, hf, megatron, swift, torchtitan};

use super::fixture;

fn message(result: Result<Imported, InputError>) -> String {
    match result {
        Ok(imported) => panic!("imported: {imported:?}"),
        Err(error) => error.to_string(),
    }
}

/// Imports a fixture with one thing spoiled.
fn spoil(
    name: &str,
    cases: &[(&str, &str)],
    import: impl Fn(&str) -> Result<Imported, InputError>,
) -> String {
    let right = fixture(name);
    assert!(import(&right).is_ok(), "{name}");
    let mut all = String::new();
    for (from, to) in cases {
        assert!(right.contains(from), "{name}: {from}");
        all +=
            &format!("{}\n    {}\n", to.replace('\n', " / "), message(import(&right.replacen(from, to, 1))));
    }
    all
}

#[test]
fn configurations_of_models() {
    let mut all = spoil(
        "hf/llama-3-8b.json",
        &[
            ("\"model_type\": \"llama\",", ""),
            ("\"model_type\": \"llama\"", "\"model_type\": \"lama\""),
            ("\"model_type\": \"llama\"", "\"model_type\": \"falcon\""),
            ("\"num_attention_heads\": 32", "\"num_attention_heads\": 0"),
            ("\"num_attention_heads\": 32", "\"num_attention_heads\": 33"),
            ("\"num_attention_heads\": 32", "\"num_attention_heads\": -1"),
            ("\"num_attention_heads\": 32", "\"num_attention_heads\": 32.5"),
            ("\"num_key_value_heads\": 8", "\"num_key_value_heads\": 5"),
            ("\"hidden_size\": 4096", "\"hidden_size\": \"4096\""),
            ("\"hidden_size\": 4096", "\"hidden_size\": 1e30"),
            ("\"vocab_size\": 128256", "\"vocab_size\": 99999999999999999999"),
            ("\"hidden_act\": \"silu\"", "\"hidden_act\": \"mish\""),
            ("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": 0"),
            ("\"attention_dropout\": 0.0", "\"attention_dropout\": 2"),
            ("\"rms_norm_eps\"", "\"rms_norm_epsilon\""),
            ("\"hidden_size\": 4096", "\"hidden_size\": 4096, \"hidden_size\": 4096"),
            ("\"rope_theta\": 500000.0", "\"rope_theta\": NaN"),
            ("\"architectures\": [", "\"architectures\": 1, \"x\": ["),
            ("\"use_cache\": true,", "\"use_cache\": true"),
            ("\n}", ""),
        ],
        |text| hf("config.json", text),
    );
    all += &spoil(
        "hf/qwen1.5-moe-a2.7b.json",
        &[
            ("\"num_experts_per_tok\": 4", "\"num_experts_per_tok\": 61"),
            ("\"use_sliding_window\": false", "\"use_sliding_window\": true"),
            ("\"num_experts\": 60", "\"num_experts\": 60, \"mlp_only_layers\": [3]"),
            ("\"num_experts\": 60", "\"num_experts\": 60, \"layer_types\": [\"linear_attention\"]"),
        ],
        |text| hf("config.json", text),
    );
    all += &spoil("hf/grok-1.json", &[("\"num_experts\": 8,", "")], |text| hf("config.json", text));
    all += &spoil(
        "hf/mpt-7b.json",
        &[("\"multihead_attention\"", "\"multiquery_attention\""), ("\"qk_ln\": false", "\"qk_ln\": true")],
        |text| hf("config.json", text),
    );
    all += &spoil(
        "hf/vit-base-patch16-224.json",
        &[
            ("\"image_size\": 224", "\"image_size\": [224, 112]"),
            ("\"patch_size\": 16", "\"patch_size\": 15"),
        ],
        |text| hf("config.json", text),
    );
    insta::assert_snapshot!(all);
}

#[test]
fn configurations_of_launchers() {
    let frame = Frame::default();
    let mut all = spoil(
        "deepspeed/zero2.json",
        &[
            ("\"train_batch_size\": 32", "\"train_batch_size\": 30"),
            ("\"stage\": 2", "\"stage\": 4"),
            ("\"stage\": 2", "\"stage\": 2, \"offload_param\": {\"device\": \"cpu\"}"),
            ("\"stage\": 2", "\"stage\": 1, \"offload_optimizer\": {\"device\": \"disk\"}"),
            ("\"bf16\"", "\"fp16\": {\"enabled\": true}, \"bf16\""),
            ("\"reduce_bucket_size\"", "\"reduce_buket_size\""),
            ("\"type\": \"Adam\",", ""),
        ],
        |text| deepspeed("ds_config.json", text, &frame),
    );
    all += &spoil(
        "torchtitan/llama3-405b.toml",
        &[
            ("\"Interleaved1F1B\"", "\"Interleaved1F2B\""),
            ("tensor_parallel_degree = 8", "tensor_parallel_degree = 0"),
            ("tensor_parallel_degree", "tensor_paralel_degree"),
            ("[compile]", "[compiler]"),
            ("local_batch_size = 2", "local_batch_size = \"2\""),
            ("pipeline_parallel_microbatch_size = 1", "pipeline_parallel_microbatch_size = 3"),
            ("[model]", "[model"),
        ],
        |text| torchtitan("job.toml", text, &frame),
    );
    all += &spoil(
        "megatron/llama3-8b.sh",
        &[
            ("--num-layers 32", ""),
            ("--num-layers 32", "--num-layers thirty-two"),
            ("--num-layers 32", "--num-layers $(cat layers)"),
            ("--num-query-groups 8", "--num-query-groups 5"),
            ("--vocab-size 128256", ""),
            ("--seq-length 8192", "--seq-length 16384"),
            ("--global-batch-size 32", "--global-batch-size 30"),
            ("--bf16", "--bf16 --fp16"),
            ("--bf16", "--bf61"),
            ("--nproc-per-node=8", "--nproc-per-node=8 --tensor-model-parallel-size 3"),
            ("--mock-data", "--mock-data 'x"),
            ("--bf16 ", "--bf16 ) ("),
        ],
        |text| megatron("run.sh", text, &frame),
    );
    all += &spoil(
        "megatron/gpt.yaml",
        &[
            ("num_layers: 24", "num_layers: [24"),
            ("num_layers: 24", "num_layers: &a 24"),
            ("num_layers: 24", "num_layers: 24\n  num_layers: 24"),
            ("num_layers: 24", "layers: 24"),
            ("\"LayerNorm\"", "\"BatchNorm\""),
        ],
        |text| megatron("run.yaml", text, &frame),
    );
    insta::assert_snapshot!(all);
}

#[test]
fn files_of_the_planner() {
    let mut all = spoil(
        "swift/model.xml",
        &[
            ("<components>", "<parts>"),
            ("<component name=\"Camera\"", "<component"),
            ("<component name=\"Lidar\"", "<component name=\"Camera\""),
            ("<component_ref name=\"Lidar\" />", "<component_ref name=\"Lidr\" />"),
            ("<component_ref name=\"Encoder\" />", ""),
            ("<component_ref name=\"Encoder\" />", "<component_ref name=\"Camera\" />"),
            ("capacity=\"3e9\"", "capacity=\"__import__('os')\""),
            ("capacity=\"3e9\"", "capacity=\"-1\""),
            ("capacity=\"3e9\"", "capacitty=\"3e9\""),
            ("<model ", "<!DOCTYPE m [<!ENTITY a \"b\">]><model "),
            ("<model name", "<plan name"),
            ("</partitions>", ""),
        ],
        |text| swift("model.xml", text),
    );
    all += &spoil(
        "swift/cluster.xml",
        &[
            ("id=\"v1\"", ""),
            ("source=\"v2\"", "source=\"v3\""),
            ("</dependencies>", "<dependency source=\"v1\" target=\"v2\" /></dependencies>"),
            ("comp_capability=\"8e9\"", "comp_capability=\"8 GFLOP/s\""),
        ],
        |text| swift("cluster.xml", text),
    );
    all += &message(swift("cluster.xml", "<cluster name=\"c\"><dependencies/></cluster>"));
    insta::assert_snapshot!(all);
}

/// Whatever is thrown at an importer, it answers at once and in one line.
#[test]
fn nothing_takes_long() {
    let megabytes = 10 << 20;
    let inputs = [
        "\u{0}\u{1}garbage".repeat(megabytes / 9),
        "[".repeat(megabytes),
        "[".repeat(1 << 20),
        "{\"a\":".repeat(1 << 18),
        format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20)),
        "<a>".repeat(1 << 18),
        format!("<model>{}{}</model>", "<a>".repeat(1 << 18), "</a>".repeat(1 << 18)),
        "A=$A$A\n".repeat(1 << 16),
        format!("A=xx\n{}", "A=$A$A\n".repeat(64)),
        format!("A=(x x)\n{}", "A=(${A[@]} ${A[@]})\n".repeat(64)),
        "${A:-".repeat(1 << 18),
        "\"$(".repeat(1 << 18),
        "- ".repeat(1 << 19),
        "a: &a [*a]\n".to_owned(),
        "((".repeat(1 << 19),
        "a.".repeat(1 << 19),
    ];
    for input in &inputs {
        let start = Instant::now();
        let frame = Frame::default();
        for result in [
            hf("x", input),
            deepspeed("x", input, &frame),
            megatron("x", input, &frame),
            megatron("x", &format!("#!\n{input}"), &frame),
            torchtitan("x", input, &frame),
            swift("x", input),
        ] {
            let message = message(result);
            assert!(message.len() < 5000 && !message.contains('\n'), "{message}");
        }
        let shown: String = input.chars().take(20).collect();
        assert!(start.elapsed() < Duration::from_mins(1), "{shown}: {:?}", start.elapsed());
    }
}
