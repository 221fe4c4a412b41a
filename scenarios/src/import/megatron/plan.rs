//! Batch, precision and parallelism among the arguments.

use toml::Value as Toml;

use crate::error::InputError;
use crate::import::architecture::Transformer;
use crate::import::fields::Fields;
use crate::import::node::Value;
use crate::import::run::Run;
use crate::import::write::{inline, whole};

/// Most ranks along one dimension.
pub(super) const MOST: u64 = 1 << 20;

pub(super) fn plan(fields: &Fields<'_, '_>, model: &Transformer, run: &mut Run) -> Result<(), InputError> {
    let length = fields.need("seq-length", 1 << 24)?;
    run.model.push(("sequence_length", whole(length)));
    let data = parallelism(fields, model, run)?;
    batch(fields, data, run)?;
    let precision = precision(fields)?;
    run.workload.push(("precision", precision.into()));
    if precision == "fp8" {
        fp8_recipe(fields, run)?;
    }
    super::framework::framework(fields, model, precision, run)?;
    optimizer(fields, run)?;
    attention(fields, run)?;
    sharding(fields, run)
}

/// Sizes of the dimensions. Returns the data-parallel ranks where the number of GPUs is known.
fn parallelism(
    fields: &Fields<'_, '_>,
    model: &Transformer,
    run: &mut Run,
) -> Result<Option<u64>, InputError> {
    let nodes = fields.count("nnodes", 1, MOST)?;
    let per_node = fields.count("nproc-per-node", 1, 1 << 10)?;
    run.cluster.extend(nodes.map(|value| ("nodes", whole(value))));
    run.cluster.extend(per_node.map(|value| ("gpus_per_node", whole(value))));
    let mut ranks = 1_u64;
    let mut sizes = Vec::new();
    for (key, ours) in [
        ("tensor-model-parallel-size", "tensor"),
        ("pipeline-model-parallel-size", "pipeline"),
        ("context-parallel-size", "context"),
    ] {
        let size = fields.count(key, 1, MOST)?.unwrap_or(1);
        ranks = ranks.saturating_mul(size);
        if size > 1 {
            sizes.push((ours, whole(size)));
        }
    }
    let pipeline = fields.count("pipeline-model-parallel-size", 1, MOST)?.unwrap_or(1);
    let data = nodes.zip(per_node).map(|(nodes, per_node)| nodes * per_node);
    let data = match data {
        Some(gpus) if gpus.is_multiple_of(ranks) => Some(gpus / ranks),
        Some(gpus) => {
            let message = format!(
                "tensor x pipeline x context parallelism is {ranks} ranks, which do not divide the {gpus} GPUs of \
                 nnodes x nproc_per_node"
            );
            return Err(fields.conflict("tensor-model-parallel-size", message));
        }
        None => None,
    };
    run.parallelism.extend(data.map(|data| ("data", whole(data))));
    run.parallelism.extend(sizes);
    if let Some(expert) = fields.count("expert-model-parallel-size", 1, MOST)?.filter(|&size| size > 1) {
        run.parallelism.push(("expert", whole(expert)));
    }
    if let Some(ways) = fields.count("expert-tensor-parallel-size", 1, MOST)? {
        run.parallelism.push(("expert_tensor", whole(ways)));
    }
    if fields.flag("sequence-parallel")?.unwrap_or(false) {
        if run.parallelism.iter().any(|(key, _)| *key == "tensor") {
            run.parallelism.push(("sequence_parallel", true.into()));
        } else {
            fields.note("sequence-parallel acts only with tensor parallelism, of which there is none");
        }
    }
    pieces(fields, run)?;
    stages(fields, model, pipeline, run)?;
    Ok(data)
}

/// Products in pieces beside their collectives (Transformer Engine's user buffers), which are about divided sequences.
fn pieces(fields: &Fields<'_, '_>, run: &mut Run) -> Result<(), InputError> {
    if !fields.flag("tp-comm-overlap")?.unwrap_or(false) {
        return Ok(());
    }
    if run.parallelism.iter().any(|(key, _)| *key == "sequence_parallel") {
        run.parallelism.push(("tensor_pieces", true.into()));
    } else {
        fields.note("tp-comm-overlap acts only with sequence parallelism, of which there is none");
    }
    Ok(())
}

/// Blocks of the stages, and stages a rank.
fn stages(
    fields: &Fields<'_, '_>,
    model: &Transformer,
    pipeline: u64,
    run: &mut Run,
) -> Result<(), InputError> {
    let per_stage = fields.count("num-layers-per-virtual-pipeline-stage", 1, MOST)?;
    let direct = match fields.count("num-virtual-stages-per-pipeline-rank", 1, MOST)? {
        Some(count) => Some(count),
        None => fields.count("virtual-pipeline-model-parallel-size", 1, MOST)?,
    };
    let chunks = match per_stage {
        None => direct.unwrap_or(1),
        Some(blocks) => {
            let all = pipeline.saturating_mul(blocks);
            if !model.layers.is_multiple_of(all) {
                let message = format!(
                    "{pipeline} stages x {blocks} blocks do not divide the {} blocks of the model",
                    model.layers
                );
                return Err(fields.conflict("num-layers-per-virtual-pipeline-stage", message));
            }
            model.layers / all
        }
    };
    if chunks > 1 {
        run.parallelism.push(("virtual_pipeline", whole(chunks)));
    }
    let first = fields.count("decoder-first-pipeline-num-layers", 1, MOST)?;
    let last = fields.count("decoder-last-pipeline-num-layers", 1, MOST)?;
    if first.is_none() && last.is_none() {
        return Ok(());
    }
    let between = pipeline.saturating_sub(u64::from(first.is_some()) + u64::from(last.is_some()));
    let left = model.layers.checked_sub(first.unwrap_or(0).saturating_add(last.unwrap_or(0)));
    let each = left.filter(|left| between > 0 && left.is_multiple_of(between)).map(|left| left / between);
    let Some(each) = each.filter(|&each| each > 0 && pipeline <= 1 << 12) else {
        let key = if first.is_some() {
            "decoder-first-pipeline-num-layers"
        } else {
            "decoder-last-pipeline-num-layers"
        };
        let message = format!(
            "leaves blocks that the other stages cannot share evenly ({} in {pipeline} stages)",
            model.layers
        );
        return Err(fields.conflict(key, message));
    };
    let middle = std::iter::repeat_n(each, between as usize);
    let all: Vec<Toml> = first.into_iter().chain(middle).chain(last).map(whole).collect();
    run.parallelism.push(("stages", Toml::Array(all)));
    Ok(())
}

fn batch(fields: &Fields<'_, '_>, data: Option<u64>, run: &mut Run) -> Result<(), InputError> {
    let micro = fields.need("micro-batch-size", 1 << 32)?;
    run.workload.push(("micro_batch_size", whole(micro)));
    let Some(global) = fields.count("global-batch-size", 1, 1 << 32)? else {
        run.workload.push(("gradient_accumulation_steps", whole(1)));
        return Ok(());
    };
    let step = micro.saturating_mul(data.unwrap_or(1));
    if !global.is_multiple_of(step) {
        let ranks = data.map_or_else(String::new, |data| format!(" x {data} data-parallel ranks"));
        let message =
            format!("found {global}, allowed: a multiple of micro-batch-size {micro}{ranks} = {step}");
        return Err(fields.conflict("global-batch-size", message));
    }
    run.workload.push(("global_batch_size", whole(global)));
    Ok(())
}

fn precision(fields: &Fields<'_, '_>) -> Result<&'static str, InputError> {
    let bf16 = fields.flag("bf16")?.unwrap_or(false);
    let fp16 = fields.flag("fp16")?.unwrap_or(false);
    let formats = [("e4m3", ()), ("hybrid", ())];
    let fp8 = fields.choice("fp8-format", &formats)?.is_some() || fields.choice("fp8", &formats)?.is_some();
    match (bf16, fp16) {
        (true, true) => Err(fields.conflict("fp16", "contradicts `bf16`: keep one of the two")),
        _ if fp8 => Ok("fp8"),
        (true, _) => Ok("bf16"),
        (_, true) => Ok("fp16"),
        _ => Ok("fp32"),
    }
}

/// How 8-bit numbers are scaled.
fn fp8_recipe(fields: &Fields<'_, '_>, run: &mut Run) -> Result<(), InputError> {
    let recipes =
        [("delayed", "delayed"), ("tensorwise", "current"), ("blockwise", "blockwise"), ("mxfp8", "mx")];
    let recipe = fields.choice("fp8-recipe", &recipes)?;
    run.workload.extend(recipe.map(|recipe| ("fp8_recipe", recipe.into())));
    Ok(())
}

fn optimizer(fields: &Fields<'_, '_>, run: &mut Run) -> Result<(), InputError> {
    let momentum = fields.number("sgd-momentum")?.unwrap_or(0.9);
    let sgd = if momentum > 0.0 { "sgd-momentum" } else { "sgd" };
    let kind = fields.choice("optimizer", &[("adam", "adam"), ("sgd", sgd)])?.unwrap_or("adam");
    run.workload.push(("optimizer", kind.into()));
    if kind == "adam" {
        // Transformer Engine's or Apex' one kernel.
        run.workload.push(("optimizer_implementation", "fused".into()));
    }
    Ok(())
}

/// Attention kernel and recomputation, which depend on each other.
fn attention(fields: &Fields<'_, '_>, run: &mut Run) -> Result<(), InputError> {
    let backends = [
        ("flash", Some("flash")),
        ("fused", Some("flash")),
        ("unfused", Some("eager")),
        ("local", Some("eager")),
        ("auto", None),
    ];
    let backend = fields.choice("attention-backend", &backends)?.flatten();
    let flash = fields.flag("use-flash-attn")?.unwrap_or(false).then_some("flash");
    let attention = backend.or(flash);
    run.workload.extend(attention.map(|kind| ("attention", kind.into())));
    let words = [("full", "full"), ("selective", "selective")];
    let recompute = match fields.choice("recompute-granularity", &words)? {
        Some(granularity) => granularity,
        None if fields.flag("recompute-activations")?.unwrap_or(false) => "selective",
        None if fields.flag("checkpoint-activations")?.unwrap_or(false) => "full",
        None => "none",
    };
    let modules = recomputed_modules(fields).filter(|_| recompute == "selective");
    let recompute = match recompute {
        "selective" if modules.is_some() => "selective",
        // Flash attention keeps no scores, so there is nothing to drop: Megatron repeats its forward pass for
        // nothing, and saves what a run without recomputation saves.
        "selective" if attention != Some("eager") => {
            fields.note(
                "selective recomputation with flash attention: none is written, for no scores are kept",
            );
            "none"
        }
        other => other,
    };
    run.workload.push(("activation_checkpointing", recompute.into()));
    if let Some(modules) = modules {
        run.workload.push(("recompute_modules", Toml::Array(modules.into_iter().map(Toml::from).collect())));
    }
    if recompute == "full" {
        let methods = [("uniform", "uniform"), ("block", "block")];
        let method = fields.choice("recompute-method", &methods)?;
        let count = fields.count("recompute-num-layers", 1, MOST)?;
        if let Some(method) = method {
            run.workload.push(("recompute_method", method.into()));
            run.workload.extend(count.map(|count| ("recompute_num_layers", whole(count))));
        }
    } else {
        fields.ignore_all(&["recompute-method", "recompute-num-layers"], "acts only with full recomputation");
    }
    let graphs = fields.flag("enable-cuda-graph")?.unwrap_or(false);
    if graphs {
        run.workload.push(("execution", "cuda-graphs".into()));
    }
    Ok(())
}

/// Names of modules, as several words or as one that lists them: `[layernorm mla_up_proj]`.
fn recomputed_modules(fields: &Fields<'_, '_>) -> Option<Vec<String>> {
    let text = |value: &Value| if let Value::Text(text) = value { text.clone() } else { String::new() };
    let text = match &fields.find("recompute-modules")?.value {
        Value::List(items) => items.iter().map(|item| text(&item.value)).collect::<Vec<_>>().join(" "),
        value => text(value),
    };
    let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty());
    let words: Vec<String> = words.map(str::to_owned).collect();
    (!words.is_empty()).then_some(words)
}

/// What data-parallel ranks share, as a stage of ZeRO.
fn sharding(fields: &Fields<'_, '_>, run: &mut Run) -> Result<(), InputError> {
    let flag = |key: &str| -> Result<bool, InputError> { Ok(fields.flag(key)?.unwrap_or(false)) };
    let strategies = [("no_shard", 0), ("optim", 1), ("optim_grads", 2), ("optim_grads_params", 3)];
    let strategy = fields.choice("data-parallel-sharding-strategy", &strategies)?;
    let fsdp = flag("use-megatron-fsdp")? || flag("use-custom-fsdp")?;
    let stage = if flag("use-torch-fsdp2")? {
        3
    } else if fsdp {
        strategy.unwrap_or(0)
    } else {
        u64::from(flag("use-distributed-optimizer")?)
    };
    run.parallelism.push(("zero_stage", whole(stage)));
    let instances = fields.count("num-distributed-optimizer-instances", 1, 1 << 20)?;
    if let Some(instances) = instances.filter(|&instances| instances > 1 && stage > 0) {
        run.parallelism.push(("replicate", whole(instances)));
    }
    if flag("use-tp-pp-dp-mapping")? {
        run.parallelism.push(("order", "tp-cp-ep-pp-dp".into()));
    }
    if flag("optimizer-cpu-offload")? {
        run.parallelism.push(("offload", inline([("optimizer", "cpu".into())])));
    }
    fields.ignore("optimizer-offload-fraction", "not modelled: all of it or none");
    Ok(())
}
