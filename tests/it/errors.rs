//! Wrong input gets one message that says where, which key, what was found, what is allowed; exit code 2.

use crate::support::steptime;

/// A scenario that is right; each case spoils one thing.
const RIGHT: &str = r#"name = "case"

[model]
name = "llama3-8b"
sequence_length = 4096

[cluster]
name = "dgx-h100"
nodes = 1
gpus_per_node = 8

[workload]
micro_batch_size = 1
global_batch_size = 32
precision = "bf16"
optimizer = "adamw"

[parallelism]
data = 4
pipeline = 2
zero_stage = 1
"#;

/// Runs the spoiled scenario and returns the message, with the folder's path left out.
fn message(from: &str, to: &str) -> String {
    assert!(RIGHT.contains(from), "{from}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.toml");
    std::fs::write(&path, RIGHT.replace(from, to)).unwrap();
    let output = steptime(&["run", "--json", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{to}: {}", String::from_utf8_lossy(&output.stdout));
    assert!(output.stdout.is_empty(), "{to}");
    let error = String::from_utf8(output.stderr).unwrap();
    error.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn the_unspoiled_scenario_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.toml");
    std::fs::write(&path, RIGHT).unwrap();
    let output = steptime(&["run", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_mistake_has_its_message() {
    let cases = [
        ("precision = \"bf16\"", "precision = \"bf61\""),
        ("precision = \"bf16\"", "precison = \"bf16\""),
        ("[workload]", "[worklaod]"),
        ("name = \"llama3-8b\"", "name = \"lama3-8b\""),
        ("name = \"dgx-h100\"", "name = \"dgx-h1000\""),
        ("micro_batch_size = 1", "micro_batch_size = 0"),
        ("micro_batch_size = 1", "micro_batch_size = \"one\""),
        ("micro_batch_size = 1\nglobal_batch_size = 32\n", ""),
        ("global_batch_size = 32", "global_batch_size = 30"),
        ("global_batch_size = 32", "global_batch_size = 32\ngradient_accumulation_steps = 4"),
        ("data = 4", "data = 8"),
        ("data = 4\npipeline = 2", "pipeline = 3"),
        ("pipeline = 2", "pipeline = 2\nstages = [20, 11]"),
        ("zero_stage = 1", "zero_stage = 4"),
        ("zero_stage = 1", "zero_stage = 1\ntensor = 2"),
        ("zero_stage = 1", "zero_stage = 1\noffload = { optimizer = \"cpu\" }"),
        ("zero_stage = 1", "zero_stage = 1\nschedule = \"1f2b\""),
        ("pipeline = 2", "pipeline = 2\npipeline_model_parallel_size = 2"),
        ("name = \"llama3-8b\"", "name = \"llama3-8b\"\noverrides = { layers = 0 }"),
        ("name = \"llama3-8b\"", "name = \"llama3-8b\"\noverrides = { layer = 4 }"),
        ("name = \"llama3-8b\"", "name = \"llama3-8b\"\nimage_size = 32"),
        ("gpus_per_node = 8", "gpus_per_node = 16"),
        ("[parallelism]", "[parallelism"),
        ("zero_stage = 1", "zero_stage = 1\n\n[sweep]\n\"workload.micro_batch_size\" = [1, 2]"),
        (
            "name = \"dgx-h100\"\nnodes = 1\ngpus_per_node = 8",
            "name = \"dgx-a100-80gb\"\n\n[simulation]\nexplicit = 1",
        ),
        ("name = \"dgx-h100\"\nnodes = 1\ngpus_per_node = 8", "name = \"vehicles-5\""),
        ("precision = \"bf16\"", "precision = \"fp32\"\nattention = \"flash\""),
        ("global_batch_size = 32", "global_batch_size = 2"),
        ("global_batch_size = 32", "global_batch_size = 1048576"),
        ("global_batch_size = 32", "num_micro_batches = 65537"),
        ("micro_batch_size = 1\nglobal_batch_size = 32", "micro_batch_size = 4294967295"),
        ("micro_batch_size = 1\nglobal_batch_size = 32", "train_batch_size = 32\nnum_micro_batches = 3"),
        ("name = \"case\"", "name = \"\""),
        ("name = \"case\"", "name = \"case\\u001b[31m\\n\""),
        ("zero_stage = 1", "zero_stage = 1\ngradient_as_bucket_view = true"),
        ("zero_stage = 1", "zero_stage = 3\ngather_bucket_bytes = \"25 MiB\""),
        ("data = 4\npipeline = 2", "tensor = 3"),
        ("data = 4\npipeline = 2", "tensor = 8\nsequence_parallel = 1"),
        ("data = 4\npipeline = 2", "sequence_parallel = true"),
        ("data = 4\npipeline = 2", "virtual_pipeline = 2"),
        (
            "global_batch_size = 32\nprecision = \"bf16\"\noptimizer = \"adamw\"\n\n[parallelism]",
            "global_batch_size = 36\n\n[parallelism]\nvirtual_pipeline = 2",
        ),
        ("pipeline = 2", "pipeline = 2\nvirtual_pipeline = 32"),
        ("optimizer = \"adamw\"", "execution = \"compiled\"\nfused_kernels = \"transformer-engine\""),
        ("optimizer = \"adamw\"", "fused_kernels = \"some\""),
        ("optimizer = \"adamw\"", "lora = { targets = [\"q_proj\"] }"),
        ("optimizer = \"adamw\"", "lora = { rank = 16, targets = [\"q_projj\"] }"),
        ("optimizer = \"adamw\"", "lora = { rank = 16, targets = [] }"),
        ("optimizer = \"adamw\"", "lora = { rank = 16, alpha = 32 }"),
        ("optimizer = \"adamw\"", "trainable = \"some\""),
        ("optimizer = \"adamw\"", "trainable = \"all\"\nlora = { rank = 16 }"),
        ("optimizer = \"adamw\"", "task = \"inference\"\nlora = { rank = 16 }"),
        ("precision = \"bf16\"", "precision = \"tf32\"\ncudnn_allow_tf32 = false"),
        ("zero_stage = 1", "zero_stage = 1\n\n[input]\nworkers = 4"),
        ("zero_stage = 1", "zero_stage = 1\n\n[input]\nworkers = 241\nseconds_per_sample = 1e-3"),
        ("zero_stage = 1", "zero_stage = 1\n\n[input]\nseconds_per_sample = -1"),
        ("zero_stage = 1", "zero_stage = 1\n\n[input]\nseconds_per_sample = 1e-3\nworker = 4"),
        ("zero_stage = 1", "zero_stage = 1\n\n[input]\nseconds_per_sample = 1e-3\nprefetch_factor = 4"),
        ("zero_stage = 1", "zero_stage = 1\n\n[input]\nseconds_per_sample = 1e-3\npersistent_workers = true"),
        (
            "zero_stage = 1",
            "zero_stage = 1\n\n[input]\nseconds_per_sample = 1e-3\nnum_workers = 2\npersistent_workers = true\n\
             worker_start_seconds = 1",
        ),
        ("zero_stage = 1", "zero_stage = 1\n\n[input]\nseconds_per_sample = 1e-3\nnon_blocking = true"),
        ("zero_stage = 1", "zero_stage = 1\n\n[input]\nseconds_per_sample = 1e-3\ndrop_last = true"),
        (
            "zero_stage = 1",
            "zero_stage = 1\n\n[input]\nseconds_per_sample = 1e-3\nworkers = 2\nworker_stop_seconds = 1",
        ),
        (
            "[workload]\nmicro_batch_size = 1\nglobal_batch_size = 32",
            "[input]\nseconds_per_sample = 1\n\n[workload]\nmicro_batch_size = 5\nglobal_batch_size = 36\n\
             last_micro_batch = \"smaller\"",
        ),
        ("global_batch_size = 32", "gradient_accumulation_steps = 4\nlast_micro_batch = \"smaller\""),
        ("precision = \"bf16\"", "precision = \"bf16\"\ncudnn_allow_tf32 = false"),
        ("precision = \"bf16\"", "precision = \"bf16\"\ngradient_dtype = \"fp16\""),
        ("precision = \"bf16\"", "precision = \"bf16\"\nframework = \"megatronn\""),
        ("pipeline = 2", "pipeline = 2\nstages = \"balancd\""),
        ("pipeline = 2", "pipeline = 2\nstages = \"balanced\"\nlayers_in_last_stage = 3"),
        ("zero_stage = 1", "zero_stage = 1\ntensor_overlap = false"),
        ("zero_stage = 1", "zero_stage = 1\nscatter_gather = true"),
        ("zero_stage = 1", "zero_stage = 1\nwrap_blocks = 2"),
    ];
    let mut all = String::new();
    for (from, to) in cases {
        all += &format!(
            "{}\n    {}\n",
            to.replace('\n', " / "),
            message(from, to).trim_end().replace('\n', "\n    ")
        );
    }
    insta::assert_snapshot!(all);
}

#[test]
fn the_gpu_must_have_the_format() {
    let file = "scenarios/vit-rtx8000.toml";
    let output = steptime(&["run", file, "--set", "workload.precision=bf16"]);
    assert_eq!(output.status.code(), Some(2));
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap());
}

#[test]
fn options_and_files_are_checked_too() {
    let file = "scenarios/vit-rtx8000.toml";
    let mut all = String::new();
    for arguments in [
        &["run", "scenarios/none.toml"][..],
        &["run", file, "--set", "workload.micro_batch_size"],
        &["run", file, "--set", "workload.micro_batch_size=many"],
        &["run", file, "--set", "name.first=1"],
        &["run", file, "--set", "=1"],
        &["models", "gtp2"],
        &["models", "gpt2", "--sequence-length", "1025"],
        &["models", "gpt2", "--sequence-parallel"],
        &["models", "gpt2", "--tensor", "8"],
        &["models", "resnet50", "--tensor", "2"],
        &["import", "deepspeed", "tests/it/import/deepspeed/zero2.json", "--model", "gtp2"],
        &["import", "deepspeed", "tests/it/import/deepspeed/zero2.json", "--cluster", "dgx-h1000"],
        &["clusters", "rtx-a500"],
        &["plot", "scenarios"],
    ] {
        let output = steptime(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        all += &format!("{}\n    {}", arguments.join(" "), String::from_utf8(output.stderr).unwrap());
    }
    insta::assert_snapshot!(all);
}

/// Messages of scenarios of the checkout with options, each of which is refused.
fn refusals(cases: &[(&str, &[&str])]) -> String {
    let mut all = String::new();
    for (file, options) in cases {
        let path = format!("scenarios/{file}.toml");
        let mut arguments = vec!["run", "--json", &path];
        arguments.extend(options.iter().flat_map(|option| ["--set", option]));
        let output = steptime(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        all += &format!("{file}: {}\n    {error}", options.join(", "));
    }
    all
}

const GPT: &str = "gpt-18b-dgx-a100";
const LLAMA: &str = "llama3-8b-h100-zero3";
const MIXED: &str = "llama3-8b-mixed-gpus";
const SWITCH: &str = "switch-vit-32-rtx8000";
const COMPONENTS: &str = "visionencoder-small-h100";
const VEHICLES: &str = "visionencoder-small-vehicles";

#[test]
fn what_the_hardware_or_the_model_cannot_do_is_refused() {
    let all = refusals(&[
        (SWITCH, &["workload.attention=flash"]),
        (SWITCH, &["workload.attention=flash", "workload.precision=fp16"]),
        (SWITCH, &["workload.execution=cuda-graphs"]),
        (GPT, &["workload.activation_checkpointing=selective"]),
        (SWITCH, &["workload.cudnn_allow_tf32=true"]),
        (GPT, &["workload.memory_format=channels-last"]),
        (SWITCH, &["workload.autocast=true"]),
        ("vit-l-16-a5000", &["workload.precision=tf32", "workload.cudnn_allow_tf32=false"]),
        (GPT, &["model.sequence_length=4096"]),
        (GPT, &["workload.seq_len=4096"]),
    ]);
    insta::assert_snapshot!(all);
}

/// Kernels that the GPU, or one of several kinds of GPUs, does not have.
#[test]
fn what_one_of_the_gpus_has_no_kernels_for_is_refused() {
    let [fp8, mx, blocks] =
        ["precision=fp8", "fp8_recipe=mx", "fp8_recipe=blockwise"].map(|it| format!("workload.{it}"));
    let [fp8, mx, blocks] = [&*fp8, &*mx, &*blocks];
    let ada = "cluster.name=rtx4090-pcie-8";
    let (pieces, parts) = ("parallelism.tensor_pieces=true", ["parallelism.tensor=4", "parallelism.data=2"]);
    let along = "parallelism.sequence_parallel=true";
    let all = refusals(&[
        (LLAMA, &[fp8, mx]),
        (LLAMA, &[fp8, mx, ada]),
        (LLAMA, &[fp8, blocks, ada]),
        (LLAMA, &[fp8, mx, "cluster.name=dgx-a100-80gb"]),
        (LLAMA, &[mx]),
        (MIXED, &[fp8]),
        (LLAMA, &["workload.attention=flash", "model.overrides={head_dim=512}"]),
        (LLAMA, &["workload.attention=flash-1", "model.overrides={head_dim=256}"]),
        (LLAMA, &[pieces, along, parts[0], parts[1], ada]),
        (LLAMA, &[pieces, along, parts[0], parts[1], "cluster.peer_access=false"]),
    ]);
    insta::assert_snapshot!(all);
}

/// The second group of nodes is as good a reason as the first.
#[test]
fn kernels_that_only_some_gpus_have_are_refused_and_not_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.toml");
    let run = |attention: &str, options: &[&str]| {
        let text =
            std::fs::read_to_string(crate::support::root().join(format!("scenarios/{MIXED}.toml"))).unwrap();
        let text =
            text.replace("dgx-a100-80gb", "dgx-v100-32gb").replace("attention = \"flash\"\n", attention);
        std::fs::write(&path, text).unwrap();
        let mut arguments = vec!["run", "--json", path.to_str().unwrap()];
        arguments.extend(options.iter().flat_map(|option| ["--set", option]));
        let output = steptime(&arguments);
        let (out, error) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        (output.status.code(), out, error)
    };
    let fp16 = "workload.precision=fp16";
    let (code, _, error) = run("attention = \"flash\"\n", &[fp16]);
    let expected = "case.toml:27:13: workload.attention: found \"flash\", whose kernels need an Ampere or newer GPU \
                    (v100-32gb-sxm2 is Volta), allowed: \"eager\"";
    assert!(code == Some(2) && error.contains(expected), "{error}");
    let (code, _, error) = run("", &[]);
    let expected =
        "workload.precision: found \"bf16\", which v100-32gb-sxm2 does not have, allowed: fp32, fp16";
    assert!(code == Some(2) && error.contains(expected), "{error}");
    let step = |attention: &str| {
        let (code, report, error) = run(attention, &[fp16]);
        assert!(matches!(code, Some(0 | 1)), "{error}");
        report.lines().find(|line| line.contains("\"step_time_s\"")).map(str::to_owned)
    };
    let usual = step("");
    assert!(usual.is_some());
    assert_eq!(usual, step("attention = \"eager\"\n"));
}

/// Each recipe runs on the first GPUs that have it.
#[test]
fn recipes_of_8_bits_run_where_their_products_do() {
    for (recipe, cluster) in [
        ("delayed", "rtx4090-pcie-8"),
        ("current", "rtx4090-pcie-8"),
        ("blockwise", "dgx-h100"),
        ("blockwise", "dgx-b200"),
        ("mx", "dgx-b200"),
    ] {
        let cluster = format!("cluster.name={cluster}");
        let recipe = format!("workload.fp8_recipe={recipe}");
        let path = format!("scenarios/{LLAMA}.toml");
        let sets = ["workload.precision=fp8", &recipe, &cluster, "model.overrides={layers=2}"];
        let mut arguments = vec!["run", &path];
        arguments.extend(sets.iter().flat_map(|option| ["--set", option]));
        let code = steptime(&arguments).status.code();
        assert!(matches!(code, Some(0 | 1)), "{arguments:?}: {code:?}");
    }
}

/// The line of the file is named.
#[test]
fn a_recipe_that_the_gpu_does_not_have_is_refused_where_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.toml");
    let text = RIGHT.replace("precision = \"bf16\"", "precision = \"fp8\"\nfp8_recipe = \"mx\"");
    std::fs::write(&path, text).unwrap();
    let output = steptime(&["run", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    let expected = "workload.fp8_recipe: found \"mx\", whose products need a Blackwell or newer GPU (h100-80gb-sxm is \
                    Hopper), allowed: delayed, current, blockwise";
    assert!(error.contains("case.toml:16:14: ") && error.contains(expected), "{error}");
}

/// A length that stands in `[workload]`, where other tools have it, is refused there.
#[test]
fn a_sequence_too_long_is_refused_where_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.toml");
    let text = RIGHT
        .replace("name = \"llama3-8b\"\nsequence_length = 4096", "name = \"gpt2\"")
        .replace("precision", "seq_len = 4096\nprecision");
    std::fs::write(&path, text).unwrap();
    let output = steptime(&["run", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("case.toml:14:11: workload.seq_len: found 4096, but gpt2 has learned positions"),
        "{error}"
    );
}

/// Flash attention is the default where its kernels run, and eager elsewhere.
#[test]
fn attention_follows_the_gpu() {
    let without = |file: &str| {
        let text = std::fs::read_to_string(crate::support::root().join(file)).unwrap();
        text.replace("attention = \"eager\"\n", "")
    };
    let step = |text: String, precision: &str, attention: Option<&str>| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("case.toml");
        std::fs::write(&path, text).unwrap();
        let precision = format!("workload.precision={precision}");
        let mut arguments = vec![path.to_str().unwrap().to_owned(), "--set".to_owned(), precision];
        if let Some(attention) = attention {
            arguments.extend(["--set".to_owned(), format!("workload.attention={attention}")]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        crate::support::report(&arguments)["step_time_s"].clone()
    };
    let turing = without("scenarios/vit-rtx8000.toml");
    assert_eq!(step(turing.clone(), "fp16", None), step(turing, "fp16", Some("eager")));
    let ampere = without("scenarios/vit-l-16-a5000.toml");
    assert_eq!(step(ampere.clone(), "bf16", None), step(ampere.clone(), "bf16", Some("flash")));
    assert_ne!(step(ampere.clone(), "bf16", None), step(ampere.clone(), "bf16", Some("eager")));
    assert_eq!(step(ampere.clone(), "fp32", None), step(ampere, "fp32", Some("eager")));
}

#[test]
fn keys_that_cannot_act_are_refused() {
    let inference = "workload.task=inference";
    let all = refusals(&[
        (COMPONENTS, &["parallelism.pipeline=2"]),
        (COMPONENTS, &["parallelism.pipeline=2", "parallelism.data=2"]),
        (COMPONENTS, &["cluster.nodes=4", "parallelism.pipeline=4"]),
        (COMPONENTS, &["parallelism.zero_stage=1"]),
        (COMPONENTS, &["parallelism.bucket_bytes=25 MiB"]),
        (COMPONENTS, &["parallelism.gradient_as_bucket_view=true"]),
        (COMPONENTS, &["workload.optimizer=adam"]),
        (COMPONENTS, &["workload.optimizer_implementation=fused"]),
        (COMPONENTS, &["workload.activation_checkpointing=full"]),
        (COMPONENTS, &["workload.attention=eager"]),
        (COMPONENTS, &["workload.memory_format=channels-last"]),
        (LLAMA, &[inference]),
        ("vit-rtx8000", &[inference]),
        (LLAMA, &[inference, "workload.optimizer_implementation=fused"]),
        ("llama3-8b-h100-zero0", &[inference, "workload.cross_entropy=fused"]),
        ("llama3-8b-h100-zero0", &[inference, "workload.gradient_dtype=fp32"]),
        ("llama3-8b-h100-zero0", &[inference, "workload.gradient_accumulation_fusion=true"]),
        (COMPONENTS, &["workload.gradient_dtype=fp32"]),
        (COMPONENTS, &["workload.framework=megatron"]),
        (LLAMA, &["parallelism.gather_bucket_bytes=25 MiB"]),
        (LLAMA, &["parallelism.gradient_as_bucket_view=true"]),
    ]);
    insta::assert_snapshot!(all);
}

/// What asks for nothing, or is about more ranks than there are, may stay in the file.
#[test]
fn neutral_values_are_accepted() {
    let run = |file: &str, options: &[&str]| {
        let path = format!("scenarios/{file}.toml");
        let mut arguments = vec![path.as_str()];
        arguments.extend(options.iter().flat_map(|option| ["--set", option]));
        let mut report = crate::support::report(&arguments);
        // What is written differs, and with it its hash.
        let hash = report.as_object_mut().and_then(|report| report.remove("scenario_hash"));
        assert!(hash.is_some(), "{file}");
        report
    };
    let neutral = [
        "workload.activation_checkpointing=none",
        "parallelism.zero_stage=0",
        "parallelism.gradient_as_bucket_view=false",
    ];
    assert_eq!(run(COMPONENTS, &neutral), run(COMPONENTS, &[]));
    let one_gpu = ["cluster.gpus_per_node=1", "parallelism.data=1", "model.overrides.layers=4"];
    let idle = ["parallelism.zero_stage=2", "parallelism.gradient_as_bucket_view=true"];
    run(LLAMA, &[&one_gpu[..], &idle].concat());
    run(LLAMA, &[&one_gpu[..], &["parallelism.bucket_bytes=25 MiB"]].concat());
}

/// A scenario that asks for inference, with each key that only training has.
#[test]
fn inference_refuses_what_belongs_to_training() {
    let text = RIGHT
        .replace("optimizer = \"adamw\"", "task = \"inference\"")
        .replace("zero_stage = 1", "zero_stage = 0");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let mut all = String::new();
    for option in [
        "workload.optimizer=adamw",
        "workload.optimizer_implementation=fused",
        "workload.activation_checkpointing=full",
        "parallelism.bucket_bytes=25 MiB",
        "parallelism.gradient_as_bucket_view=true",
        "parallelism.zero_stage=1",
        "parallelism.zero_stage=2",
    ] {
        let output = steptime(&["run", path, "--set", option]);
        assert_eq!(output.status.code(), Some(2), "{option}");
        all += &String::from_utf8(output.stderr).unwrap();
    }
    insta::assert_snapshot!(all);
    for option in ["parallelism.zero_stage=3", "workload.activation_checkpointing=none"] {
        assert_eq!(steptime(&["run", path, "--set", option]).status.code(), Some(0), "{option}");
    }
}

#[test]
fn numbers_that_are_too_large_name_their_key() {
    let steps = "workload.gradient_accumulation_steps=4294967296";
    let all = refusals(&[
        (LLAMA, &["workload.micro_batch_size=4294967296"]),
        (LLAMA, &["workload.micro_batch_size=134217727"]),
        (LLAMA, &["workload.micro_batch_size=67108864"]),
        (LLAMA, &["workload.gradient_accumulation_steps=65536"]),
        (LLAMA, &[steps]),
        (GPT, &["workload.global_batch_size=4194304"]),
        (GPT, &["workload.micro_batch_size=1048576", "workload.global_batch_size=2147483648"]),
        (VEHICLES, &[steps]),
        (VEHICLES, &["workload.micro_batch_size=4294967296"]),
        (VEHICLES, &["workload.micro_batch_size=4294967295"]),
        (VEHICLES, &["workload.micro_batch_size=65536", "workload.gradient_accumulation_steps=65535"]),
        (
            VEHICLES,
            &["workload.micro_batch_size=65536", "cluster.utilization=0.001", "cluster.memory_overhead=100"],
        ),
        (VEHICLES, &["cluster.utilization=1e-300"]),
        (VEHICLES, &["cluster.utilization=1e300"]),
        (VEHICLES, &["cluster.memory_overhead=0.5"]),
        (VEHICLES, &["cluster.memory_overhead=101"]),
    ]);
    insta::assert_snapshot!(all);
}

#[test]
fn nothing_is_written_when_the_input_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let files = ["scenarios/vit-rtx8000.toml", "scenarios/none.toml"];
    let output = steptime(&["run", files[0], files[1], "--out", out.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!out.exists());
}

/// A result that cannot take its place keeps all others from theirs.
#[test]
fn nothing_is_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    std::fs::create_dir_all(out.join("report.csv")).unwrap();
    let files = ["scenarios/vit-rtx8000.toml", "scenarios/visionencoder-xlarge-vehicles.toml"];
    let output = steptime(&["run", files[0], files[1], "--out", out.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.ends_with("out/report.csv: is a folder\n"), "{error}");
    let mut folders = vec![out];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            assert!(entry.file_type().unwrap().is_dir(), "{}", entry.path().display());
            folders.push(entry.path());
        }
    }
}

/// Results are as readable as a file that the user creates.
#[cfg(unix)]
#[test]
fn results_have_the_mode_of_plain_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let run = steptime(&["run", "scenarios/vit-rtx8000.toml", "--out", out.to_str().unwrap()]);
    assert_eq!(run.status.code(), Some(0));
    let plain = out.join("plain");
    std::fs::write(&plain, "").unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode();
    for name in ["report.json", "report.csv", "timeline.json", "figures/breakdown.svg"] {
        assert_eq!(mode(&out.join(name)), mode(&plain), "{name}");
    }
}

#[test]
fn formats_that_do_not_go_together_are_refused() {
    let bf16 = "precision = \"bf16\"";
    let zero = "zero_stage = 1";
    let cases = [
        (bf16, "precision = \"fp32\"\nautocast = true"),
        (bf16, "precision = \"bf16\"\nautocast = \"yes\""),
        (bf16, "precision = \"bf16\"\nlow_precision_norms = true"),
        (bf16, "precision = \"bf16\"\nloss_metrics = 17"),
        (bf16, "precision = \"bf16\"\nattention = \"flash-4\""),
        (zero, "zero_stage = 1\ngather_dtype = \"bf16\""),
        (zero, "zero_stage = 3\ngather_dtype = \"fp32\""),
        (zero, "zero_stage = 3\nreduce_dtype = \"fp16\""),
        (zero, "zero_stage = 3\nreduce_dtype = \"int8\""),
    ];
    let messages: Vec<String> = cases.iter().map(|(from, to)| message(from, to)).collect();
    insta::assert_snapshot!(messages.concat());
}
