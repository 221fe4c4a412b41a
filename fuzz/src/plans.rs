//! Plans put together from drawn sizes and words: more of them are legal than of spoiled texts, and more is played.

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use steptime_scenarios::{Job, NoFiles, Scenario, run};

use crate::play::{complains, play};

pub(crate) fn plans(data: &[u8]) {
    let Ok(text) = scenario(&mut Unstructured::new(data)) else { return };
    if std::env::var_os("STEPTIME_FUZZ_SHOW").is_some() {
        eprintln!("{text}");
    }
    match Scenario::read("plan.toml", &text, &[], &NoFiles) {
        Ok(scenario) => {
            play(&scenario);
            folded_equals_explicit(&scenario, &text);
        }
        Err(error) => complains(&error.to_string()),
    }
}

/// Replicas that see the same do the same: playing all of them changes no number.
fn folded_equals_explicit(scenario: &Scenario, text: &str) {
    let Job::Gpus { plan, workload, .. } = &scenario.job else { return };
    if plan.explicit || plan.ranks() > 4 || workload.accumulation > 2 || scenario.model.layers.len() > 6 {
        return;
    }
    let text = format!("{text}[simulation]\nexplicit = true\n");
    let Ok(explicit) = Scenario::read("plan.toml", &text, &[], &NoFiles) else { return };
    let (Ok(folded), Ok(explicit)) = (run(scenario, false), run(&explicit, false)) else { return };
    assert_eq!(folded.report.step_time_s, explicit.report.step_time_s);
    assert_eq!(folded.report.peak_memory.allocated_bytes, explicit.report.peak_memory.allocated_bytes);
}

const MODELS: [&str; 12] = [
    "gpt2",
    "llama3-8b",
    "switch-vit-32",
    "vit_b_16",
    "vit-cifar",
    "mistral-7b",
    "resnet50",
    "mixtral-8x7b",
    "deepseek-v3",
    "t5-base",
    "bert-base",
    "qwen3-30b-a3b",
];

const CLUSTERS: [(&str, u64); 8] = [
    ("dgx-a100-80gb", 8),
    ("h100-efa", 8),
    ("a5000-pcie-2", 2),
    ("rtx8000-pcie-4", 4),
    ("dgx-b200", 8),
    ("gb200-nvl72", 4),
    ("dgx-v100-16gb", 8),
    ("rtx4090-pcie-8", 8),
];

/// Lines of the sections; each is in a plan or not.
const WORKLOAD: [&str; 30] = [
    "optimizer = \"sgd\"",
    "optimizer = \"adam\"",
    "optimizer = \"muon\"",
    "attention = \"eager\"",
    "attention = \"flash\"",
    "execution = \"compiled\"",
    "execution = \"cuda-graphs\"",
    "activation_checkpointing = \"full\"",
    "activation_checkpointing = \"selective\"",
    "task = \"inference\"",
    "framework = \"megatron\"",
    "framework = \"deepspeed\"",
    "autocast = true",
    "gradient_dtype = \"fp32\"",
    "gradient_accumulation_fusion = true",
    "optimizer_implementation = \"for-loop\"",
    "optimizer_implementation = \"foreach\"",
    "gradient_clipping = \"device\"",
    "gradient_clipping = \"host\"",
    "lora = { rank = 4 }",
    "cross_entropy = \"fused\"",
    "router = { zipf = 0.5 }",
    "router = { dirichlet = 0.1 }",
    "fused_kernels = \"transformer-engine\"",
    "memory_format = \"channels-last\"",
    "deterministic = true",
    "recompute_method = \"block\"\nrecompute_num_layers = 1",
    "moe_grouped_gemm = false",
    "loss_scaling = true",
    "log_num_zeros_in_grad = true",
];

const PARALLELISM: [&str; 31] = [
    "sequence_parallel = true",
    "schedule = \"gpipe\"",
    "schedule = \"zb-h1\"",
    "schedule = \"zb-h2\"",
    "schedule = \"zb-v\"",
    "schedule = \"dualpipe\"",
    "schedule = \"dualpipe-v\"",
    "schedule = \"hanayo\"",
    "schedule = \"looped-bfs\"",
    "stages = \"balanced\"",
    "count_head_as_layer = true",
    "shard_group = 2",
    "replicate = 2",
    "secondary_group = 2",
    "gather_dtype = \"bf16\"",
    "bucket_bytes = \"1 MiB\"",
    "wrap_blocks = 2",
    "forward_prefetch = true",
    "fsdp_version = 2",
    "backward_prefetch = \"post\"",
    "limit_all_gathers = false",
    "gradient_as_bucket_view = true",
    "gradient_overlap = false",
    "tensor_pieces = true",
    "scatter_gather = true",
    "context_method = \"all-to-all\"",
    "offload = { optimizer = \"cpu\" }",
    "offload = { activations = \"cpu\" }",
    "offload = { optimizer = \"cpu\", parameters = \"cpu\" }",
    "order = \"tp-cp-ep-pp-dp\"",
    "tensor_overlap = false",
];

const OTHERS: [&str; 6] = [
    "[variability]\nseed = 1\nrepetitions = 2\nkernel_jitter = 0.1\n",
    "[input]\nworkers = 2\nseconds_per_sample = 1e-3\n",
    "[cost]\ngpu_hour = 2.0\n",
    "[cluster.topology]\nkind = \"torus\"\nshape = [2]\n",
    "[allocator]\nexpandable_segments = true\n",
    "[failures]\nnode_mtbf_hours = 1000\n",
];

fn pick<'a>(input: &mut Unstructured, words: &[&'a str], most: usize) -> Result<String> {
    let mut text = String::new();
    for _ in 0..input.int_in_range(0..=most)? {
        let line = words[input.choose_index(words.len())?];
        // TOML refuses a key that stands twice before anybody sees it.
        let key = line.split(" =").next().unwrap_or_default();
        if !text.lines().any(|other| other.split(" =").next() == Some(key)) {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

fn scenario(input: &mut Unstructured) -> Result<String> {
    let model = MODELS[input.choose_index(MODELS.len())?];
    let layers = input.int_in_range(1..=6)?;
    let (cluster, most) = CLUSTERS[input.choose_index(CLUSTERS.len())?];
    let nodes = if most == 8 { input.int_in_range(1..=3)? } else { 1 };
    let gpus = input.int_in_range(1..=most)?;
    let precision = ["fp32", "tf32", "fp16", "bf16", "fp8"][input.int_in_range(0..=4)?];
    let micro = [1, 2, 3, 64, 100_000][input.int_in_range(0..=4)?];
    let mut text = format!(
        "[model]\nname = \"{model}\"\noverrides = {{ layers = {layers} }}\n[cluster]\nname = \"{cluster}\"\nnodes = {nodes}\n\
         gpus_per_node = {gpus}\n[workload]\nprecision = \"{precision}\"\nmicro_batch_size = {micro}\n\
         gradient_accumulation_steps = {}\n",
        input.int_in_range(1..=5)?
    );
    text += &pick(input, &WORKLOAD, 4)?;
    text += "[parallelism]\n";
    for key in ["tensor", "pipeline", "context", "expert"] {
        let size = [1, 1, 1, 2, 2, 3, 4, 8][input.int_in_range(0..=7)?];
        if size > 1 {
            text += &format!("{key} = {size}\n");
        }
    }
    if input.arbitrary()? {
        text += &format!("zero_stage = {}\n", input.int_in_range(0..=3)?);
    }
    if input.ratio(1, 4)? {
        text += &format!("virtual_pipeline = {}\n", input.int_in_range(1..=4)?);
    }
    text += &pick(input, &PARALLELISM, 4)?;
    if input.ratio(1, 4)? {
        text += OTHERS[input.choose_index(OTHERS.len())?];
    }
    Ok(text)
}
