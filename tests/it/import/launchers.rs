//! Configurations of DeepSpeed, Megatron-LM and torchtitan.

use steptime_scenarios::import::{Frame, deepspeed, megatron, torchtitan};

use super::{fixture, shown};
use crate::support::{report, shared, steptime};

fn frame(model: &str) -> Frame {
    let model = (!model.is_empty()).then(|| model.to_owned());
    Frame { model, cluster: Some("dgx-h100".to_owned()) }
}

#[test]
fn launches_become_scenarios() {
    let mut all = String::new();
    for name in ["gpt3-175b.sh", "llama3-8b.sh", "mixtral-8x7b.sh", "gpt.yaml"] {
        let imported = megatron(name, &fixture(&format!("megatron/{name}")), &frame("")).unwrap();
        all += &format!("=== {name} ===\n{}\n", shown(&imported));
    }
    for name in ["llama3-8b.toml", "llama3-405b.toml"] {
        let imported = torchtitan(name, &fixture(&format!("torchtitan/{name}")), &frame("")).unwrap();
        all += &format!("=== {name} ===\n{}\n", shown(&imported));
    }
    for name in ["zero2.json", "zero3.json"] {
        let imported = deepspeed(name, &fixture(&format!("deepspeed/{name}")), &Frame::default()).unwrap();
        all += &format!("=== {name} ===\n{}\n", shown(&imported));
    }
    insta::assert_snapshot!(all);
}

/// What needs no kind of parallelism that is still to come runs as it is.
#[test]
fn imported_scenarios_run() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let scenario = folder.path().join("scenario.toml");
    let scenario = scenario.to_str().unwrap();
    for arguments in [
        &["import", "megatron", "tests/it/import/megatron/llama3-8b.sh"][..],
        &["import", "torchtitan", "tests/it/import/torchtitan/llama3-8b.toml"],
        &["import", "deepspeed", "tests/it/import/deepspeed/zero2.json", "--model", "gpt2"],
    ] {
        let output = steptime(&[arguments, &["--cluster", "dgx-h100", "--out", out]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(report(&[scenario])["verdict"], "fits", "{arguments:?}");
    }
}

/// What Megatron-LM does unless it is told otherwise, and what each argument changes of it (`megatron/training/arguments.py`).
#[test]
fn arguments_say_what_sets_megatron_apart() {
    let scenario = |arguments: &str| {
        let script = format!(
            "torchrun --nproc_per_node 8 --nnodes 1 pretrain_gpt.py --num-layers 24 --hidden-size 1024 \
             --num-attention-heads 16 --seq-length 1024 --vocab-size 50257 --micro-batch-size 4 --disable-bias-linear {arguments}\n"
        );
        let imported = megatron("x.sh", &script, &frame("")).unwrap();
        imported.files.iter().find(|file| file.name == "scenario.toml").unwrap().toml.clone()
    };
    let usual = scenario("--bf16");
    for line in [
        "framework = \"megatron\"",
        "transformer_implementation = \"transformer-engine\"",
        "fused_kernels = \"transformer-engine\"",
        "gradient_dtype = \"fp32\"",
        "gradient_accumulation_fusion = true",
    ] {
        assert!(usual.lines().any(|it| it == line), "{line}: {usual}");
    }
    for (arguments, line, there) in [
        ("--bf16 --grad-reduce-in-bf16", "gradient_dtype", false),
        ("--bf16 --no-gradient-accumulation-fusion", "gradient_accumulation_fusion", false),
        ("--bf16 --no-bias-dropout-fusion", "fused_kernels", false),
        ("--bf16 --bias-swiglu-fusion", "fused_kernels", true),
        ("--bf16 --transformer-impl local", "transformer_implementation = \"local\"", true),
        ("--fp16", "gradient_dtype", false),
        ("--fp16", "loss_scaling = true", true),
        ("--bf16 --num-experts 8", "moe_grouped_gemm = false", true),
        ("--bf16 --num-experts 8 --moe-grouped-gemm", "moe_grouped_gemm", false),
        ("--bf16 --no-check-for-nan-in-loss-and-grad", "check_for_nan = false", true),
        ("--bf16 --clip-grad 0.0", "gradient_clipping = \"none\"", true),
        ("--bf16 --clip-grad 1.0", "gradient_clipping", false),
        ("--bf16 --cross-entropy-loss-fusion", "cross_entropy = \"vocabulary-parallel-compiled\"", true),
        (
            "--bf16 --cross-entropy-loss-fusion --cross-entropy-fusion-impl te",
            "cross_entropy = \"fused\"",
            true,
        ),
        ("--bf16 --deterministic-mode", "deterministic = true", true),
    ] {
        let text = scenario(arguments);
        assert_eq!(text.contains(line), there, "{arguments}: {text}");
        // What is written is a scenario.
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("x.sh");
        let plain = "torchrun --nproc_per_node 8 --nnodes 1 pretrain_gpt.py --num-layers 24 --hidden-size 1024 \
                     --num-attention-heads 16 --seq-length 1024 --vocab-size 50257 --micro-batch-size 4 \
                     --disable-bias-linear";
        std::fs::write(&script, format!("{plain} {arguments}\n")).unwrap();
        let paths = [script.to_str().unwrap(), folder.path().to_str().unwrap()];
        let output = steptime(&["import", "megatron", paths[0], "--cluster", "dgx-h100", "--out", paths[1]]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let played = report(&[folder.path().join("scenario.toml").to_str().unwrap()]);
        assert!(played["step_time_s"].as_f64().unwrap() > 0.0, "{arguments}");
    }
}

/// A script says the same in its spellings: one line, lists, texts, variables.
#[test]
fn scripts_of_any_form_say_the_same() {
    let plain = "torchrun --nproc_per_node 8 --nnodes 2 pretrain_gpt.py --num-layers 24 --hidden-size 1024 \
                 --num-attention-heads 16 --seq-length 1024 --vocab-size 50257 --micro-batch-size 4 --bf16\n";
    let list = "N=2\nA=(--num-layers 24 # blocks\n --hidden-size $((512 * N)))\nA+=( --num-attention-heads '16' )\n\
                torchrun --nproc_per_node=8 --nnodes=${N} pretrain_gpt.py \"${A[@]}\" --seq-length 1024 \\\n  \
                --vocab-size \"50257\" --micro-batch-size 4 --bf16 > log 2>&1 &\n";
    let text = "export A=\" --num-layers 24 \\\n --hidden-size 1024 --num-attention-heads 16\"\nif true; then\nA=x\nfi\n\
                python -m torch.distributed.run --nproc_per_node ${G:-8} --nnodes 2 pretrain_gpt.py $A \
                --seq-length 1024 --vocab-size 50257 --micro-batch-size 4 --bf16 | tee log\n";
    let import = |script: &str| megatron("x.sh", script, &frame("")).unwrap().files;
    assert_eq!(import(list), import(plain));
    assert_eq!(import(text), import(plain));
}

/// The configurations of a real repository.
#[test]
fn configurations_of_rat_import() {
    let Some(folder) = shared() else { return };
    for (name, stage, micro) in [("deepspeed_config.json", 2, 4), ("deepspeed_stage3_config.json", 3, 2)] {
        let text = std::fs::read_to_string(folder.join("seeds/data/rat").join(name)).unwrap();
        let imported = deepspeed(name, &text, &Frame::default()).unwrap();
        let scenario = imported.file("scenario.toml").unwrap();
        assert!(scenario.contains(&format!("zero_stage = {stage}\n")), "{scenario}");
        assert!(scenario.contains(&format!("micro_batch_size = {micro}\n")), "{scenario}");
        assert!(scenario.contains("data = 8\n"), "{scenario}");
        assert_eq!(scenario.contains("offload = { optimizer = \"cpu\", parameters = \"cpu\" }"), stage == 3);
    }
}

/// `--tp-comm-overlap` becomes products in pieces, which need a divided sequence.
#[test]
fn overlapped_tensor_parallelism_is_taken_over() {
    let script = |more: &str| {
        format!(
            "torchrun --nproc_per_node 8 --nnodes 1 pretrain_gpt.py --num-layers 4 --hidden-size 1024 \
             --num-attention-heads 16 --seq-length 1024 --vocab-size 50257 --micro-batch-size 4 --bf16 \
             --tensor-model-parallel-size 4 --tp-comm-overlap {more}\n"
        )
    };
    let import = |more: &str| megatron("x.sh", &script(more), &frame("")).unwrap();
    let divided = import("--sequence-parallel");
    assert!(shown(&divided).contains("tensor_pieces = true"), "{}", shown(&divided));
    assert!(!shown(&divided).contains("tp-comm-overlap"), "{}", shown(&divided));
    let whole = import("");
    assert!(!shown(&whole).contains("tensor_pieces"));
    assert!(shown(&whole).contains("acts only with sequence parallelism"), "{}", shown(&whole));
}
