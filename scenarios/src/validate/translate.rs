//! From a row to the scenario that a user would write for it.

use std::fmt::Write;

use steptime_models::is_in_catalogue;

use super::fine_tuning;
use super::measurement::Measurement;
use super::memory_filling;
use super::mosaic::Mosaic;
use super::pipeline;
use super::unsaid;
use crate::files::Files;

/// A scenario and the model file that it refers to.
pub(super) struct Translated {
    pub(super) scenario: String,
    model: Option<String>,
}

const MODEL_FILE: &str = "model.toml";

impl Files for Translated {
    fn read(&self, name: &str) -> Result<String, String> {
        match &self.model {
            Some(text) if name == MODEL_FILE => Ok(text.clone()),
            _ => Err(format!("{name} is not part of the row")),
        }
    }
}

impl Translated {
    /// Both files in one text, for looking at.
    pub(super) fn shown(&self) -> String {
        match &self.model {
            Some(model) => format!("{}\n# {MODEL_FILE}\n{model}", self.scenario),
            None => self.scenario.clone(),
        }
    }
}

/// The scenario of a row, or why there is none.
pub(super) fn scenario(row: &Measurement) -> Result<Translated, String> {
    let cluster_name = cluster_name(row)?;
    let told = memory_filling::model(row, cluster_name).map(str::to_owned);
    let (name, model) = match told.or_else(|| catalogued(&row.model)) {
        Some(name) => (format!("name = \"{name}\"\n"), None),
        None => (format!("file = \"{MODEL_FILE}\"\n"), Some(model_file(row)?)),
    };
    let mut text = format!("[model]\n{name}");
    if let Some(length) = row.seq_len {
        let _ = writeln!(text, "sequence_length = {length}");
    }
    if let Some(overrides) = variant(&row.model) {
        let _ = writeln!(text, "overrides = {overrides}");
    }
    if let Some(size) = pipeline::number_after(&row.notes, "image size ") {
        let _ = writeln!(text, "image_size = {size}");
    }
    let _ = write!(
        text,
        "\n[cluster]\nname = \"{cluster_name}\"\nnodes = {}\ngpus_per_node = {}\n",
        row.nodes, row.gpus_per_node
    );
    if !memory_filling::has_peer_access(row) {
        text += "peer_access = false\n";
    }
    text += &workload(row)?;
    text += &parallelism(row)?;
    text += &memory_filling::benchmark(row);
    Ok(Translated { scenario: text, model })
}

/// Published models by the names that tables give them.
const CATALOGUED: [(&str, &str); 16] = [
    ("LLAMA2-7B", "llama2-7b"),
    ("LLAMA2-13B", "llama2-13b"),
    ("LLAMA2-70B", "llama2-70b"),
    ("LLAMA3_8B", "llama3-8b"),
    ("LLAMA3-8B", "llama3-8b"),
    ("LLAMA3_70B", "llama3-70b"),
    ("LLAMA3.1_405B", "llama3.1-405b"),
    ("GPT3-175B", "gpt3-175b"),
    ("Qwen3_30B_a3B", "qwen3-30b-a3b"),
    ("Qwen3_235B_a22B", "qwen3-235b-a22b"),
    ("DeepSeekV3", "deepseek-v3"),
    ("DeepSeekV3 (w/o MTP)", "deepseek-v3"),
    ("Nemotron-340B", "nemotron-4-340b"),
    ("GPT OSS 120B", "gpt-oss-120b"),
    ("bert-base-squad", "bert-base"),
    ("bert-large-squad", "bert-large"),
];

fn catalogued(model: &str) -> Option<String> {
    // `(w/o MTP)` and the like are variants of a model in how it is trained.
    let bare = model.split(" (").next().unwrap_or(model);
    let listed =
        CATALOGUED.iter().find(|(name, _)| *name == model || *name == bare).map(|&(_, name)| name.to_owned());
    let entry = || is_in_catalogue(model).then(|| model.to_owned());
    listed.or_else(entry)
}

/// What a table's variant of a catalogued model changes: modules that predict further left out, or tokens beyond an
/// expert's equal share dropped.
fn variant(model: &str) -> Option<&'static str> {
    if model.ends_with("(w/o MTP)") {
        Some("{ multi_token_prediction = 0 }")
    } else if model.ends_with("(tokendrop)") {
        Some("{ experts = { capacity_factor = 1.0 } }")
    } else {
        None
    }
}

/// Llama 3's feed-forward widths by layers and hidden width (its model card; Llama 3.2's): gated decoders of these sizes
/// are sweeps over that family.
const LLAMA_3: [(u64, u64, u64); 5] =
    [(16, 2048, 8192), (28, 3072, 8192), (32, 4096, 14336), (80, 8192, 28672), (126, 16384, 53248)];

/// The feed-forward width of a gated decoder that has a published size and does not state it.
fn published_feed_forward(row: &Measurement) -> Option<u64> {
    let sizes = (row.layers?, row.hidden?);
    let known = LLAMA_3.iter().find(|&&(layers, hidden, _)| (layers, hidden) == sizes);
    known.filter(|_| row.gated_mlp == Some(true)).map(|&(_, _, width)| width)
}

/// An architecture file from the row's sizes: gated decoders are Llama's kind, those of the MPT trainer and the others are
/// GPT's kind, the former without dropout; any of them may have routed experts.
fn model_file(row: &Measurement) -> Result<String, String> {
    let needed = |value: Option<u64>, column: &str| {
        value.ok_or_else(|| {
            format!("the model {} is not in the catalogue, and {column} is not stated", row.model)
        })
    };
    let (layers, hidden) = (needed(row.layers, "layers")?, needed(row.hidden, "hidden")?);
    let ffn = row.ffn.or_else(|| published_feed_forward(row));
    let (heads, ffn) = (needed(row.heads, "heads")?, needed(ffn, "ffn")?);
    let (vocab, length) = (needed(row.vocab, "vocab")?, needed(row.seq_len, "seq_len")?);
    let padded = || vocab.checked_next_multiple_of(PADDED_VOCABULARY.checked_mul(row.tp)?);
    let vocab = is_megatron(row).then(padded).flatten().unwrap_or(vocab);
    let kv_heads = row.kv_heads.unwrap_or(heads);
    let gated = row.gated_mlp.unwrap_or(false);
    let tied = row.tied_embeddings.unwrap_or(!gated);
    let mosaic = Mosaic::of(row);
    let position = if gated { "rotary" } else { "learned" };
    let norm = if gated { "norm = \"rms\"" } else { "norm = \"layer\"" };
    let activation = if gated { "silu" } else { "gelu" };
    let biases = !gated;
    let corrected = row.corrected.map(|evidence| format!("; vocabulary: {evidence}")).unwrap_or_default();
    let mut text = format!(
        "name = \"{}\"\nsource = \"the row itself{corrected}\"\nfamily = \"transformer\"\n\n[architecture]\n\
         layers = {layers}\nhidden = {hidden}\nheads = {heads}\nkv_heads = {kv_heads}\nfeed_forward = {ffn}\n\
         vocabulary = {vocab}\npositions = {length}\ntied = {tied}\nposition = \"{position}\"\n{norm}\n\
         activation = \"{activation}\"\ngated = {gated}\n",
        row.model
    );
    if biases {
        text += "qkv_bias = true\nprojection_bias = true\n";
        if row.experts.is_none() {
            text += "mlp_bias = true\n";
        }
    }
    if let Some(mosaic) = &mosaic {
        let _ = write!(text, "naming = \"mpt\"\nunpads = {}\n", mosaic.unpads);
    }
    if fetches_as_deepspeed(row) {
        text += "naming = \"megatron\"\n";
    }
    if row.framework == "nanotron" && kv_heads == heads {
        text += "naming = \"nanotron\"\n";
    }
    // Trainers of the GPT kind drop out unless they are told not to.
    let _ = writeln!(text, "dropout = {}", biases && mosaic.is_none());
    if let Some(count) = row.experts {
        let used = needed(row.top_k, "top_k")?;
        let width = row.moe_ffn.unwrap_or(ffn);
        let _ = write!(
            text,
            "\n[architecture.experts]\ncount = {count}\ntop_k = {used}\nfeed_forward = {width}\n"
        );
    }
    Ok(text)
}

/// Megatron-LM pads the vocabulary so that every rank's part of it is a multiple of this
/// (`--make-vocab-size-divisible-by`).
const PADDED_VOCABULARY: u64 = 128;

/// Whether Megatron-LM or what builds on it ran the row.
fn is_megatron(row: &Measurement) -> bool {
    let named = ["megatron", "Megatron", "NeMo"].iter().any(|name| row.framework.starts_with(name));
    named && !fetches_as_deepspeed(row)
}

/// Whether it was Megatron-LM before its core became a library of its own, or DeepSpeed's branch of that.
fn is_megatron_lm(row: &Measurement) -> bool {
    ["megatron-lm", "megatron-deepspeed"].contains(&row.framework.as_str())
}

/// Clusters by GPU and interconnect; the first that fits, an empty interconnect standing for any.
const CLUSTERS: [(&str, &str, &str); 27] = [
    ("h100-sxm5-80gb", "efa-3200gbps-per-node", "h100-efa"),
    ("h100-sxm5-80gb", "", "dgx-h100"),
    ("h100-pcie-80gb", "", "h100-80gb-pcie-8"),
    ("h200", "", "dgx-h200"),
    ("b200-sxm", "", "dgx-b200"),
    ("b300-sxm", "", "dgx-b300"),
    ("gb200", "", "gb200-nvl72"),
    ("gb300", "", "gb300-nvl72"),
    ("a100-sxm4-80gb", "ib-800gbps-per-node", "a100-80gb-ib-800"),
    ("a100-sxm4-80gb", "roce-1600gbps-per-node", "a100-80gb-roce"),
    ("a100-sxm4-80gb", "roce-per-node-unstated", "a100-80gb-roce"),
    ("a100-sxm4-80gb", "", "dgx-a100-80gb"),
    ("a100-sxm4-40gb", "roce-1600gbps-per-node", "a100-40gb-roce"),
    ("a100-sxm4-40gb", "", "dgx-a100-40gb"),
    ("a100-pcie-80gb", "", "a100-80gb-pcie-8"),
    ("a100-pcie-40gb", "", "a100-40gb-pcie-8"),
    ("a6000", "", "a6000-pcie-8"),
    ("a5000", "", "a5000-pcie-4"),
    ("a40", "", "a40-pcie-4"),
    ("rtx3090", "", "rtx3090-pcie-8"),
    ("rtx4090", "", "rtx4090-pcie-8"),
    ("rtx8000", "PCIe3 + NVLink bridges (pairs)", "rtx8000-nvlink-8"),
    ("rtx8000", "", "rtx8000-pcie-8"),
    ("v100-sxm2-16gb", "", "dgx-v100-16gb"),
    ("v100-sxm2-32gb", "", "dgx-v100-32gb"),
    ("rtx-a5000", "", "a5000-pcie-4"),
    ("quadro-rtx-8000", "", "rtx8000-pcie-8"),
];

fn cluster_name(row: &Measurement) -> Result<&'static str, String> {
    let known = CLUSTERS.iter().find(|(gpu, interconnect, _)| {
        *gpu == row.gpu && (interconnect.is_empty() || *interconnect == row.interconnect)
    });
    known
        .map(|&(_, _, name)| name)
        .ok_or_else(|| format!("no cluster of {} GPUs with interconnect {}", row.gpu, row.interconnect))
}

fn workload(row: &Measurement) -> Result<String, String> {
    let inference = row.task == "inference";
    let task = if inference { "inference" } else { "training" };
    let micro = unsaid::micro_batch(row).ok_or("the micro-batch is not stated")?;
    let mut text = format!("\n[workload]\ntask = \"{task}\"\nmicro_batch_size = {micro}\n");
    if let Some(global) = pipeline::global_batch(row) {
        let _ = writeln!(text, "global_batch_size = {global}");
        // Composer, under LLM Foundry, cuts a rank's samples into micro-batches and keeps what is left over.
        if row.framework.starts_with("llm-foundry") {
            text += "last_micro_batch = \"smaller\"\n";
        }
    }
    let precision = match row.precision.as_str() {
        "fp32 (tf32 possible)" => tf32_or_fp32(&row.gpu),
        "bf16" | "fp16" | "fp32" | "tf32" | "nvfp4" => &row.precision,
        name if name.starts_with("fp8") || name == "mxfp8" => "fp8",
        other => return Err(format!("precision {other}")),
    };
    let _ = writeln!(text, "precision = \"{precision}\"");
    if let Some(recipe) = fp8_recipe(row) {
        let _ = writeln!(text, "fp8_recipe = \"{recipe}\"");
    }
    if !inference {
        let optimizer = match row.optimizer.as_str() {
            "adam" | "adamw" | "sgd" | "sgd-momentum" | "muon" => &row.optimizer,
            other => return Err(format!("optimizer {other}")),
        };
        let _ = writeln!(text, "optimizer = \"{optimizer}\"");
        if memory_filling::updates_in_a_loop(row) {
            text += "optimizer_implementation = \"for-loop\"\n";
        }
        text += memory_filling::gradients(row);
        text += &fine_tuning::workload(row, precision);
        match row.activation_checkpointing.as_str() {
            "" | "none" | "unstated" => {}
            // Of fused attention nothing is left to drop.
            "selective" if !unfused(row) => {}
            kind @ ("full" | "selective") => {
                let _ = writeln!(text, "activation_checkpointing = \"{kind}\"");
            }
            other => return Err(format!("activation checkpointing {other}")),
        }
    }
    // Megatron-LM and what builds on it come with fused softmax, SwiGLU, dropout and rotation, and add gradients of
    // weights up in the product that makes them.
    if row.framework == "nanotron" {
        text += "framework = \"nanotron\"\n";
    } else if is_megatron(row) {
        text += "framework = \"megatron\"\n";
        text += "fused_kernels = \"transformer-engine\"\n";
        if !inference {
            text += &megatron(row);
        }
    }
    if !inference && fuses_cross_entropy(row) {
        text += "cross_entropy = \"fused\"\n";
    } else if !inference && row.model.contains("cross_entropy_loss_fusion") {
        // Tests of Megatron-LM are named for the option that they test; its implementation is then its own.
        text += "cross_entropy = \"vocabulary-parallel-compiled\"\n";
    }
    // Megatron-LM adds gradients up in 32 bits with bf16; with fp16 it has loss scaling instead.
    let scales_loss = is_megatron(row) && row.precision == "fp16";
    if !inference && row.fp32_grad_accumulation == Some(true) && row.precision != "fp32" && !scales_loss {
        text += "gradient_dtype = \"fp32\"\n";
    }
    // Transformer Engine runs cuDNN's fused attention, which uses the GPU's own matrix instructions, from Hopper on; where
    // results have to be the same in every run, not on Blackwell.
    if row.attention == "flash"
        && !runs_flash_package(row)
        && (row.framework.starts_with("megatron-core")
            || row.framework.contains("TE ")
            || row.framework.starts_with("NeMo"))
    {
        text += "attention = \"flash-3\"\n";
    }
    if let Some(mosaic) = Mosaic::of(row) {
        text += &mosaic.workload();
    }
    // Without 16-bit formats, or before Ampere, attention is unfused anyway.
    if unfused(row) {
        text += "attention = \"eager\"\n";
    }
    if row.framework.split(' ').any(|word| word == "nhwc") {
        text += "memory_format = \"channels-last\"\n";
    }
    // Without a framework of its own around it, a model of images is trained in 16 bits by autocast.
    if row.seq_len.is_none() && row.framework.starts_with("pytorch") && matches!(precision, "fp16" | "bf16") {
        text += "autocast = true\n";
    }
    // Benchmarks of nanotron run without a dataset: its trainer then draws tokens on the device (`dataset: null`,
    // `dummy_infinite_data_generator`), and the host never waits for a copy.
    if row.notes.contains("synthetic data") || row.framework == "nanotron" {
        text += "synthetic_data = true\n";
    }
    Ok(text)
}

/// What Megatron-LM's training does and keeps beside the model, as its tests and defaults have it. The recipes of its
/// functional tests switch the fusion of gradient accumulation off, and log the number of zeros in gradients and the norm of
/// the parameters in every step; those of NeMo's performance tables do not look at the loss of a micro-batch.
fn megatron(row: &Measurement) -> String {
    let mut text = String::new();
    if is_deterministic(row) {
        text += "deterministic = true\n";
    }
    if row.source.contains("functional_tests") {
        text += "log_num_zeros_in_grad = true\nlog_params_norm = true\n";
        // Names of runs tell grouped products.
        let grouped =
            ["groupedGEMM", "memory_speed", "cudagraph"].iter().any(|word| row.model.contains(word));
        if row.experts.is_some() && !grouped {
            text += "moe_grouped_gemm = false\n";
        }
    } else if !unsaid::precedes_fusion(row) {
        text += "gradient_accumulation_fusion = true\n";
    }
    // Megatron-LM looks at losses since its core became a library (2023).
    if ["NeMo", "megatron-lm", "megatron-deepspeed"].iter().any(|name| row.framework.starts_with(name)) {
        text += "check_for_nan = false\n";
    }
    // Its papers are older than Transformer Engine.
    if row.notes.contains("transformer_impl=local") || row.framework == "megatron-lm" {
        text += "transformer_implementation = \"local\"\n";
    }
    // `pretrain_gpt.py` makes a mask for each batch unless it is told not to; NeMo's recipes tell it.
    if !row.framework.starts_with("NeMo") {
        text += "attention_mask = true\n";
    }
    text
}

fn is_deterministic(row: &Measurement) -> bool {
    row.notes.contains("deterministic=True")
}

/// Whether Transformer Engine takes the package flash-attn: on Ampere, whose kernels cuDNN's do not surpass, and where
/// cuDNN has no deterministic backward (`get_attention_backend`).
fn runs_flash_package(row: &Measurement) -> bool {
    let has = |names: &[&str]| names.iter().any(|name| row.gpu.starts_with(name));
    is_megatron(row) && (has(&["a100"]) || is_deterministic(row) && has(&["b200", "b300", "gb200", "gb300"]))
}

/// Tables say so, and the recipes of NeMo's performance tables set it (`cross_entropy_fusion_impl = "te"`).
fn fuses_cross_entropy(row: &Measurement) -> bool {
    row.notes.contains("fused cross-entropy TE") || row.framework.starts_with("NeMo")
}

/// Libraries of vision models call PyTorch's fused attention where it is: from 2.0 on, written `pt2...` in the tables.
/// In training their dropout rates keep it as well.
fn calls_fused_attention(row: &Measurement) -> bool {
    row.seq_len.is_none() && row.framework.split(' ').any(|word| word.starts_with("pt2"))
}

fn unfused(row: &Measurement) -> bool {
    row.attention == "unfused" && !calls_fused_attention(row)
}

/// Transformer Engine's recipe of a row in 8 bits, where it names one: current scaling, microscaling on Blackwell, blocks
/// before.
fn fp8_recipe(row: &Measurement) -> Option<&'static str> {
    let blackwell = ["b200", "b300", "gb200", "gb300"].iter().any(|name| row.gpu.starts_with(name));
    match row.precision.as_str() {
        "fp8-cs" => Some("current"),
        "mxfp8" => Some("mx"),
        name if name.starts_with("fp8-mx") => Some(if blackwell { "mx" } else { "blockwise" }),
        _ => None,
    }
}

/// Frameworks' containers let matrix products of 32-bit floats use TF32 where the GPU has it.
fn tf32_or_fp32(gpu: &str) -> &'static str {
    let without = ["v100", "rtx8000", "quadro-rtx-8000", "t4"];
    if without.iter().any(|name| gpu.starts_with(name)) { "fp32" } else { "tf32" }
}

/// Whether a run must have sharded its parameters, whatever the table says. Megatron-LM could not do that before its core
/// became a library: under its name papers list what they compare it with, DeepSpeed's ZeRO 3.
fn shards_parameters(row: &Measurement) -> bool {
    cluster_name(row).is_ok_and(|cluster| unsaid::must_shard(row, cluster))
}

/// Whether DeepSpeed fetched its parameters: Megatron-LM of that time had no stage 3 of its own.
fn fetches_as_deepspeed(row: &Measurement) -> bool {
    is_megatron_lm(row) && shards_parameters(row)
}

/// Tests of Megatron-LM that shard parameters as well are named for it, by the stage or by FSDP.
fn names_sharding(model: &str) -> bool {
    model.split('_').any(|word| word == "z3" || word == "fsdp")
}

fn parallelism(row: &Measurement) -> Result<String, String> {
    let mut text = "\n[parallelism]\n".to_owned();
    let sizes = [("tensor", row.tp), ("pipeline", row.pp), ("context", row.cp), ("expert", row.ep)];
    for (key, size) in sizes {
        if size > 1 {
            let _ = writeln!(text, "{key} = {size}");
        }
    }
    if row.framework == "nanotron" && row.pp > 1 {
        text += "stages = \"balanced\"\n";
    }
    if let Some(data) = row.dp {
        let _ = writeln!(text, "data = {data}");
    }
    if row.sequence_parallel && row.tp > 1 {
        text += "sequence_parallel = true\n";
    }
    if row.tp > 1 && row.pp > 1 && !row.sequence_parallel && is_megatron_lm(row) {
        text += "scatter_gather = true\n";
    }
    if row.tp > 1 && is_megatron(row) && row.task != "inference" && unsaid::precedes_fusion(row) {
        text += "tensor_overlap = false\n";
    }
    // The recipes behind NeMo's tables pass parts of tensor-parallel products beside them wherever there are any, but not in 4
    // bits (`tp_comm_overlap` in Megatron-Bridge's scripts/performance/configs/llama); models with experts do not say it.
    let recipe = row.framework.starts_with("NeMo") && row.ep == 1;
    if recipe && row.tp > 1 && row.sequence_parallel && row.precision != "nvfp4" {
        text += "tensor_pieces = true\n";
    }
    // Megatron-LM's names of runs say by how many ranks an expert is shared, where not by those of a layer.
    if row.ep > 1 && row.tp > 1 && row.model.contains("_etp1_") {
        text += "expert_tensor = 1\n";
    }
    // Tables of NeMo say beside the distributed optimizer whether parameters were sharded, too.
    let ranks = pipeline::number_after(&row.notes, "fsdp=").unwrap_or(0);
    let sharded = ranks > 0 || shards_parameters(row) || is_megatron(row) && names_sharding(&row.model);
    let zero_stage = if sharded { 3 } else { row.zero_stage };
    if zero_stage > 0 && row.task != "inference" {
        let _ = writeln!(text, "zero_stage = {zero_stage}");
        if fetches_as_deepspeed(row) {
            text += unsaid::DEEPSPEED;
        }
        // Tests of Megatron-LM are named for the option that they test; two instances are the fewest of several.
        if row.model.contains("multi_dist_optimizer_instances") {
            text += "replicate = 2\n";
        }
    }
    let reduces = row.task != "inference" && row.dp.unwrap_or(2) > 1;
    if row.overlap_grad_reduce == Some(false) && reduces && zero_stage < 2 {
        text += "gradient_overlap = false\n";
    }
    if let Some(mosaic) = Mosaic::of(row).filter(|_| zero_stage == 3) {
        text += &mosaic.exchange(&row.precision);
    }
    text += &pipeline::keys(row, is_megatron(row))?;
    Ok(text)
}
