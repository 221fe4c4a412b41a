//! Job files (TOML) of torchtitan.
//!
//! Sections and keys are those of `torchtitan/config/job_config.py` and its older forms.

use std::cell::RefCell;

use super::check_length;
use super::fields::{Fields, reason};
use super::node::Value;
use super::report::{Frame, Imported, Log};
use super::run::Run;
use super::source::Source;
use super::write::whole;
use super::yaml;
use crate::error::InputError;

const MOST: u64 = 1 << 20;

/// Models and flavours of torchtitan that the catalogue has: their context of 131,072 tokens is Llama 3.1's.
const FLAVOURS: [(&str, &str, &str); 4] = [
    ("llama3", "8B", "llama3.1-8b"),
    ("llama3", "70B", "llama3.1-70b"),
    ("llama3", "405B", "llama3.1-405b"),
    ("llama2", "7B", "llama2-7b"),
];

/// Sections with nothing that acts on a step.
const IGNORED: [&str; 12] = [
    "checkpoint",
    "comm",
    "debug",
    "experimental",
    "fault_tolerance",
    "job",
    "logging",
    "lr_scheduler",
    "memory_estimation",
    "metrics",
    "profiling",
    "validation",
];

/// Reads a job file of torchtitan: one file, `scenario.toml`.
///
/// # Errors
/// Not TOML, an unknown section or key, a value of the wrong kind or out of range.
pub fn torchtitan(file: &str, text: &str, frame: &Frame) -> Result<Imported, InputError> {
    check_length(file, text)?;
    let source = Source::new(file, text);
    let root = yaml::parse_toml(&source)?;
    let log = RefCell::new(Log::default());
    let fields = Fields::root(&source, &root, &log)?;
    let mut run = Run::default();
    let converters = model(&fields, frame, &mut run)?;
    let micro_from_pipeline = parallelism(&fields, &mut run)?;
    training(&fields, micro_from_pipeline, &converters, &mut run)?;
    optimizer(&fields, &mut run)?;
    checkpointing(&fields, &mut run)?;
    number_formats(&fields)?;
    for section in IGNORED {
        if let Some(table) = fields.section(section)? {
            table.ignore_rest(reason::STEADY);
        }
    }
    fields.finish()?;
    let mut log = log.into_inner();
    let scenario = run.scenario(frame, &mut log);
    Ok(log.finish("torchtitan", vec![("scenario.toml", scenario)]))
}

/// `[model]`. Returns the converters.
fn model(fields: &Fields<'_, '_>, frame: &Frame, run: &mut Run) -> Result<Vec<String>, InputError> {
    let Some(section) = fields.section("model")? else { return Ok(Vec::new()) };
    let name = section.text("name")?.unwrap_or("llama3");
    let flavour = section.text("flavor")?.unwrap_or("debugmodel");
    // 8B_flex and 8B_varlen have another attention kernel, and the same shapes.
    let size = flavour.trim_end_matches("_flex").trim_end_matches("_varlen");
    let known = FLAVOURS.iter().find(|&&(model, other, _)| model == name && other == size);
    match known {
        Some((_, _, entry)) => run.model.push(("name", (*entry).into())),
        None if frame.model.is_none() => {
            let listed: Vec<String> =
                FLAVOURS.iter().map(|(model, size, _)| format!("{model} {size}")).collect();
            fields.note(format!("{name} {flavour} is not in the catalogue, which has {}", listed.join(", ")));
        }
        None => {}
    }
    let mut converters = Vec::new();
    if let Some(node) = section.find("converters") {
        let Value::List(items) = &node.value else {
            return Err(section.wrong("converters", node, "a list of names"));
        };
        for item in items {
            match &item.value {
                Value::Text(text) if ["float8", "mx", "quantize.linear.float8"].contains(&text.as_str()) => {
                    converters.push(text.clone());
                }
                Value::Text(text) => fields.note(format!("the converter {text} is not modelled")),
                _ => return Err(section.wrong("converters", item, "a name in quotes")),
            }
        }
    }
    section.ignore_all(&["tokenizer_path", "hf_assets_path"], reason::LABEL);
    section.ignore_all(&["print_after_conversion", "norm_type"], reason::NO_EFFECT);
    section.finish()?;
    Ok(converters)
}

/// `[training]` and `[compile]`.
fn training(
    fields: &Fields<'_, '_>,
    pipeline_micro: Option<u64>,
    converters: &[String],
    run: &mut Run,
) -> Result<(), InputError> {
    let compiled = match fields.section("compile")? {
        None => false,
        Some(section) => {
            let enabled = section.flag("enable")?.unwrap_or(false);
            section.ignore_all(&["components", "backend"], reason::NOT_MODELLED);
            section.finish()?;
            enabled
        }
    };
    let Some(section) = fields.section("training")? else {
        return Err(fields.missing("training", "the batch and the sequence length stand there"));
    };
    let older = if section.has("batch_size") { "batch_size" } else { "local_batch_size" };
    let local = section.count(older, 1, MOST)?.unwrap_or(8);
    let length = section.count("seq_len", 1, 1 << 24)?.unwrap_or(2048);
    run.model.push(("sequence_length", whole(length)));
    match pipeline_micro {
        // A pipeline cuts the local batch into micro-batches of its own.
        Some(micro) if local.is_multiple_of(micro) => {
            run.workload.push(("micro_batch_size", whole(micro)));
            run.workload.push(("gradient_accumulation_steps", whole(local / micro)));
        }
        Some(micro) => {
            let message =
                format!("found {local}, allowed: a multiple of pipeline_parallel_microbatch_size ({micro})");
            return Err(section.conflict(older, message));
        }
        None => run.workload.push(("micro_batch_size", whole(local))),
    }
    match section.find("global_batch_size").map(|node| (node, node.value.whole())) {
        None => {}
        Some((_, Some(global))) if pipeline_micro.is_none() => {
            run.workload.push(("global_batch_size", whole(global)));
        }
        Some((node, _)) if matches!(node.value, Value::Integer(-1)) => {}
        Some((_, Some(_))) => {
            // The batch of a pipeline is fully said by its micro-batches; more would be accumulated beyond it.
            fields.note(
                "global_batch_size beside a pipeline is left out: micro-batches of the pipeline are written",
            );
        }
        Some((node, None)) => {
            return Err(section.wrong("global_batch_size", node, "a whole number from 1, or -1"));
        }
    }
    let words = [("bfloat16", "bf16"), ("float32", "fp32"), ("float16", "fp16")];
    let precision = section.choice("mixed_precision_param", &words)?.unwrap_or("bf16");
    run.workload.push(("precision", if converters.is_empty() { precision } else { "fp8" }.into()));
    let compiled = section.flag("compile")?.unwrap_or(false) || compiled;
    run.workload.push(("execution", if compiled { "compiled" } else { "eager" }.into()));
    if section.flag("enable_cpu_offload")?.unwrap_or(false) {
        let both = [("optimizer", "cpu".into()), ("parameters", "cpu".into())];
        run.parallelism.push(("offload", super::write::inline(both)));
    }
    section.ignore_all(&["dataset", "dataset_path", "steps", "gc_freq", "gc_debug"], reason::STEADY);
    section.ignore_all(
        &["seed", "deterministic", "warmup_steps", "debug_moe_force_load_balance"],
        reason::NO_EFFECT,
    );
    section.ignore("max_norm", reason::UNTIMED);
    mixed_precision(&section, run, precision)?;
    section.finish()
}

/// `dtype`, that of the shards, and `mixed_precision_reduce`: formats of FSDP, which shards whatever has several replicas.
fn mixed_precision(section: &Fields<'_, '_>, run: &mut Run, precision: &str) -> Result<(), InputError> {
    let words = [("bfloat16", "bf16"), ("float32", "fp32"), ("float16", "fp16")];
    let kept = section.choice("dtype", &words)?.unwrap_or("fp32");
    let reduced = section.choice("mixed_precision_reduce", &words)?.unwrap_or("fp32");
    // Where parameters stay gathered, and where nothing is sharded, this is not what the scenario plays.
    let sharded = run.parallelism.iter().any(|(key, value)| *key == "zero_stage" && *value == whole(3));
    if sharded && precision != "fp32" && kept == "fp32" {
        run.workload.push(("parameter_dtype", kept.into()));
        run.parallelism.push(("reduce_dtype", reduced.into()));
    }
    Ok(())
}

/// `[parallelism]`. Returns the micro-batch of a pipeline, if there is one.
fn parallelism(fields: &Fields<'_, '_>, run: &mut Run) -> Result<Option<u64>, InputError> {
    let Some(section) = fields.section("parallelism")? else {
        run.parallelism.push(("zero_stage", whole(3)));
        run.parallelism.push(("fsdp_version", whole(2)));
        return Ok(None);
    };
    let replicate = section.count("data_parallel_replicate_degree", 1, MOST)?.unwrap_or(1);
    let rest = matches!(
        section.find("data_parallel_shard_degree").map(|node| &node.value),
        None | Some(Value::Integer(-1))
    );
    let shard = if rest { None } else { section.count("data_parallel_shard_degree", 1, MOST)? };
    if let Some(shard) = shard {
        run.parallelism.push(("data", whole(shard * replicate)));
    }
    for (key, ours) in [
        ("tensor_parallel_degree", "tensor"),
        ("pipeline_parallel_degree", "pipeline"),
        ("context_parallel_degree", "context"),
        ("expert_parallel_degree", "expert"),
    ] {
        if let Some(degree) = section.count(key, 1, MOST)? {
            run.parallelism.push((ours, whole(degree)));
            if key == "tensor_parallel_degree" && degree > 1 {
                // torchtitan's tensor parallelism always shards the sequence between the products.
                run.parallelism.push(("sequence_parallel", true.into()));
            }
        }
    }
    let pipelined = section.count("pipeline_parallel_degree", 1, MOST)?.unwrap_or(1) > 1;
    sharding(&section, replicate, shard, pipelined, run)?;
    let micro = section.count("pipeline_parallel_microbatch_size", 1, MOST)?;
    let schedules = [
        ("1F1B", ("1f1b", 1)),
        ("GPipe", ("gpipe", 1)),
        ("Interleaved1F1B", ("1f1b", 2)),
        ("ZBVZeroBubble", ("zb-v", 1)),
        ("DualPipeV", ("dualpipe-v", 1)),
        ("LoopedBFS", ("looped-bfs", 2)),
    ];
    if pipelined {
        let (schedule, virtual_stages) =
            section.choice("pipeline_parallel_schedule", &schedules)?.unwrap_or(("1f1b", 1));
        run.parallelism.push(("schedule", schedule.into()));
        if virtual_stages > 1 {
            run.parallelism.push(("virtual_pipeline", whole(virtual_stages)));
            section.note("two stages a rank are written, torchtitan's default for schedules of several");
        }
    } else {
        section.ignore("pipeline_parallel_schedule", "there is one stage");
    }
    section.ignore_all(
        &[
            "pipeline_parallel_split_points",
            "pipeline_parallel_layers_per_stage",
            "module_fqns_per_model_part",
            "pipeline_parallel_first_stage_less_layers",
            "pipeline_parallel_last_stage_less_layers",
            "pipeline_parallel_schedule_csv",
        ],
        "not modelled: blocks are spread evenly; write `stages` for another split",
    );
    section.ignore_all(
        &[
            "enable_async_tensor_parallel",
            "disable_loss_parallel",
            "enable_compiled_autograd",
            "context_parallel_rotate_method",
            "expert_tensor_parallel_degree",
            "expert_parallel_comm_backend",
            "enable_approx_mid_point_offset",
            "context_parallel_load_balancer",
        ],
        reason::NOT_MODELLED,
    );
    section.finish()?;
    Ok(pipelined.then(|| micro.unwrap_or(1)))
}

/// Fully sharded data parallelism is ZeRO 3, or ZeRO 2 where parameters stay after the forward pass.
fn sharding(
    section: &Fields<'_, '_>,
    replicate: u64,
    shard: Option<u64>,
    pipelined: bool,
    run: &mut Run,
) -> Result<(), InputError> {
    // By default parameters stay in a pipeline, where every micro-batch would gather them anew.
    let policies = [("default", !pipelined), ("always", true), ("never", false)];
    let reshard = section.choice("fsdp_reshard_after_forward", &policies)?.unwrap_or(!pipelined);
    let stage = match (shard, reshard) {
        // Weights are replicated only.
        (Some(1), _) => 0,
        (_, true) => 3,
        (_, false) => 2,
    };
    run.parallelism.push(("zero_stage", whole(stage)));
    if stage == 3 {
        run.parallelism.push(("fsdp_version", whole(2)));
    }
    if replicate > 1 && stage > 0 {
        run.parallelism.push(("replicate", whole(replicate)));
    }
    Ok(())
}

fn optimizer(fields: &Fields<'_, '_>, run: &mut Run) -> Result<(), InputError> {
    let Some(section) = fields.section("optimizer")? else { return Ok(()) };
    let name = section.choice("name", &[("AdamW", "adamw"), ("Adam", "adam")])?.unwrap_or("adamw");
    run.workload.push(("optimizer", name.into()));
    let words = [("fused", "fused"), ("foreach", "foreach"), ("for-loop", "for-loop")];
    // Older files have a switch instead.
    let fused = section.flag("fused")?.map(|fused| if fused { "fused" } else { "foreach" });
    let implementation = section.choice("implementation", &words)?.or(fused).unwrap_or("fused");
    run.workload.push(("optimizer_implementation", implementation.into()));
    section.ignore_all(&["lr", "beta1", "beta2", "eps", "weight_decay"], reason::NO_EFFECT);
    section.ignore_all(&["early_step_in_backward"], reason::NOT_MODELLED);
    section.finish()
}

/// `[activation_checkpoint]`, which is selective where the file does not say otherwise.
fn checkpointing(fields: &Fields<'_, '_>, run: &mut Run) -> Result<(), InputError> {
    let modes =
        [("none", "none"), ("full", "full"), ("selective", "selective"), ("memory_budget", "memory_budget")];
    let section = fields.section("activation_checkpoint")?;
    let given = match &section {
        Some(section) => section.choice("mode", &modes)?,
        None => None,
    };
    let mode = given.unwrap_or("selective");
    if ["none", "full"].contains(&mode) {
        run.workload.push(("activation_checkpointing", mode.into()));
    } else {
        fields.note(format!(
            "activation_checkpoint.mode \"{mode}\" of torchtitan (every n-th block, or operations by a list) is not \
             modelled: none is written, which holds more memory; \"full\" holds less and takes longer"
        ));
        run.workload.push(("activation_checkpointing", "none".into()));
    }
    let Some(section) = section else { return Ok(()) };
    section.ignore_all(
        &[
            "selective_ac_option",
            "per_op_sac_force_recompute_mm_shapes_by_fqns",
            "memory_budget",
            "visualize_memory_budget_pareto",
            "early_stop",
            "preserve_rng_state",
            "determinism_check",
            "debug",
        ],
        reason::NOT_MODELLED,
    );
    section.finish()
}

/// `[float8]`, `[mx]`, `[quantize]`: how 8-bit numbers are made. That they are used is among the converters.
fn number_formats(fields: &Fields<'_, '_>) -> Result<(), InputError> {
    for name in ["float8", "mx", "quantize"] {
        if let Some(section) = fields.section(name)? {
            if name == "float8" && section.flag("enable_float8_linear")? == Some(true) {
                section.note("float8.enable_float8_linear of older files: write precision = \"fp8\"");
            }
            section.ignore_rest(
                "not modelled: scaling and casts; model.converters says whether 8-bit numbers are used",
            );
        }
    }
    Ok(())
}
