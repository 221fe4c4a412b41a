//! `ds_config.json` of DeepSpeed.
//!
//! Keys are those of DeepSpeed's configuration page (docs/_pages/config-json.md of deepspeedai/DeepSpeed).

mod zero;

use std::cell::RefCell;

use toml::Value as Toml;

use super::check_length;
use super::fields::{Fields, reason};
use super::json;
use super::node::{Node, Value};
use super::report::{Frame, Imported, Log};
use super::run::Run;
use super::source::Source;
use super::write::whole;
use crate::error::InputError;

/// Most samples or micro-batches.
const MOST: u64 = 1 << 32;

/// Keys that neither change a step nor what it holds.
const STEADY: [&str; 22] = [
    "aio",
    "autotuning",
    "checkpoint",
    "comms_logger",
    "compression_training",
    "csv_monitor",
    "curriculum_learning",
    "data_efficiency",
    "data_types",
    "dump_state",
    "elasticity",
    "eigenvalue",
    "flops_profiler",
    "memory_breakdown",
    "monitor_config",
    "steps_per_print",
    "tensorboard",
    "wall_clock_breakdown",
    "wandb",
    "comet",
    "load_universal_checkpoint",
    "timers",
];

/// Keys of things that are not simulated.
const NOT_MODELLED: [&str; 18] = [
    "amp",
    "communication_data_type",
    "compile",
    "disable_allgather",
    "fp32_allreduce",
    "graph_harvesting",
    "hybrid_engine",
    "pipeline",
    "pld",
    "progressive_layer_drop",
    "quantize_training",
    "seq_parallel_communication_data_type",
    "sparse_attention",
    "sparse_gradients",
    "tensor_parallel",
    "torch_autocast",
    "use_data_before_expert_parallel_",
    "weight_quantization",
];

/// Reads a configuration of DeepSpeed: one file, `scenario.toml`, with what the configuration says of it. Values of
/// "auto" belong to whoever launches the run; they are named and left out.
///
/// # Errors
/// Not JSON, an unknown key, a value of the wrong kind, batch sizes that contradict each other.
pub fn deepspeed(file: &str, text: &str, frame: &Frame) -> Result<Imported, InputError> {
    check_length(file, text)?;
    let source = Source::new(file, text);
    let mut root = json::parse(&source)?;
    let log = RefCell::new(Log::default());
    leave_out_auto(&source, &mut root, "", &mut log.borrow_mut());
    let fields = Fields::root(&source, &root, &log)?;
    let mut run = Run::default();
    batches(&fields, &mut run)?;
    let precision = precision(&fields)?;
    run.workload.push(("precision", precision.into()));
    let on_host = zero::zero(&fields, precision, &mut run)?;
    optimizer(&fields, on_host, &mut run)?;
    checkpointing(&fields)?;
    fields.ignore("scheduler", reason::STEADY);
    fields.ignore_all(
        &[
            "gradient_clipping",
            "prescale_gradients",
            "gradient_predivide_factor",
            "zero_allow_untested_optimizer",
            "zero_force_ds_cpu_optimizer",
        ],
        reason::UNTIMED,
    );
    fields.ignore_all(&STEADY, reason::STEADY);
    fields.ignore_all(&NOT_MODELLED, reason::NOT_MODELLED);
    fields.finish()?;
    let mut log = log.into_inner();
    let scenario = run.scenario(frame, &mut log);
    Ok(log.finish("deepspeed", vec![("scenario.toml", scenario)]))
}

/// Takes every "auto" out of the tree and names it.
fn leave_out_auto(source: &Source<'_>, node: &mut Node, path: &str, log: &mut Log) {
    let Value::Table(table) = &mut node.value else { return };
    table.retain(|key, child| {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if matches!(&child.value, Value::Text(text) if text == "auto") {
            log.ignored.push(super::report::Ignored {
                key: full,
                found: child.value.shown(),
                line: source.place(child.key_at).0,
                reason: "\"auto\" is filled in by the launcher; left out".to_owned(),
            });
            return false;
        }
        leave_out_auto(source, child, &full, log);
        true
    });
}

/// `train_batch_size` = micro-batch x accumulation x GPUs; two of the first three and the GPUs give the others.
fn batches(fields: &Fields<'_, '_>, run: &mut Run) -> Result<(), InputError> {
    let global = fields.count("train_batch_size", 1, MOST)?;
    let micro = fields.count("train_micro_batch_size_per_gpu", 1, MOST)?;
    let accumulation = fields.count("gradient_accumulation_steps", 1, 1 << 16)?;
    run.workload.extend(micro.map(|value| ("micro_batch_size", whole(value))));
    run.workload.extend(accumulation.map(|value| ("gradient_accumulation_steps", whole(value))));
    run.workload.extend(global.map(|value| ("global_batch_size", whole(value))));
    let (Some(global), Some(micro)) = (global, micro) else { return Ok(()) };
    // Without accumulation nothing follows: the launcher's GPUs decide it.
    let per_gpu = micro.saturating_mul(accumulation.unwrap_or(1));
    if !global.is_multiple_of(per_gpu) {
        let steps =
            accumulation.map_or_else(String::new, |steps| format!(" x gradient_accumulation_steps {steps}"));
        return Err(fields.conflict(
            "train_batch_size",
            format!("found {global}, allowed: a multiple of train_micro_batch_size_per_gpu {micro}{steps} = {per_gpu}"),
        ));
    }
    if accumulation.is_some() {
        fields.note(format!(
            "data-parallel ranks: {global} samples a step / {per_gpu} a GPU = {}",
            global / per_gpu
        ));
        run.parallelism.push(("data", whole(global / per_gpu)));
    }
    Ok(())
}

/// fp16, bf16 or, with neither, fp32.
fn precision(fields: &Fields<'_, '_>) -> Result<&'static str, InputError> {
    let mut enabled = Vec::new();
    for key in ["fp16", "bf16", "bfloat16"] {
        let Some(section) = fields.section(key)? else { continue };
        let name = if key == "fp16" { "fp16" } else { "bf16" };
        if section.flag("enabled")?.unwrap_or(false) {
            enabled.push((key, name));
        }
        section.ignore_all(
            &[
                "loss_scale",
                "loss_scale_window",
                "initial_scale_power",
                "hysteresis",
                "consecutive_hysteresis",
                "min_loss_scale",
                "auto_cast",
            ],
            reason::NO_EFFECT,
        );
        section.ignore_all(
            &[
                "fp16_master_weights_and_grads",
                "immediate_grad_update",
                "bf16_master_weights_and_grads",
                "bf16_optimizer_states",
                "check_grad_overflow",
            ],
            reason::NOT_MODELLED,
        );
        section.finish()?;
    }
    match enabled[..] {
        [] => Ok("fp32"),
        [(_, name)] => Ok(name),
        [(first, _), (second, _), ..] => {
            Err(fields.conflict(second, format!("is enabled, and so is `{first}`; allowed: one of them")))
        }
    }
}

/// The optimizer of the configuration; another tool's may come from the launcher.
fn optimizer(fields: &Fields<'_, '_>, on_host: bool, run: &mut Run) -> Result<(), InputError> {
    let Some(section) = fields.section("optimizer")? else {
        fields.note(
            "the configuration has no optimizer: the launcher gives one, the scenario's default is adamw",
        );
        return Ok(());
    };
    let Some(kind) = section.text("type")? else {
        return Err(section.missing("type", "must be the name of an optimizer, such as \"AdamW\""));
    };
    let parameters = section.section("params")?;
    let momentum = match &parameters {
        Some(parameters) => parameters.number("momentum")?.unwrap_or(0.0),
        None => 0.0,
    };
    let plain_torch = match &parameters {
        Some(parameters) => parameters.flag("torch_adam")?.unwrap_or(false),
        None => false,
    };
    let name = match kind.to_lowercase().as_str() {
        "adam" => Some("adam"),
        "adamw" => Some("adamw"),
        "sgd" if momentum > 0.0 => Some("sgd-momentum"),
        "sgd" => Some("sgd"),
        _ => None,
    };
    match name {
        Some(name) => {
            run.workload.push(("optimizer", Toml::from(name)));
            // DeepSpeed's Adam is one fused kernel; on the host it is another, and torch's is not fused.
            if name.starts_with("adam") && !on_host && !plain_torch {
                run.workload.push(("optimizer_implementation", Toml::from("fused")));
            }
        }
        None => fields.note(format!("the optimizer {kind} is not modelled: the scenario's default is adamw")),
    }
    if let Some(parameters) = parameters {
        parameters.ignore_rest(reason::NO_EFFECT);
    }
    section.ignore("legacy_fusion", reason::NOT_MODELLED);
    section.finish()
}

/// DeepSpeed only says how to keep what is recomputed; whether blocks are is in the model's code.
fn checkpointing(fields: &Fields<'_, '_>) -> Result<(), InputError> {
    let Some(section) = fields.section("activation_checkpointing")? else { return Ok(()) };
    let why = "acts only where the model's code recomputes blocks, which is not in this file";
    section.ignore_all(
        &[
            "partition_activations",
            "cpu_checkpointing",
            "contiguous_memory_optimization",
            "number_checkpoints",
            "synchronize_checkpoint_boundary",
        ],
        why,
    );
    section.ignore("profile", reason::STEADY);
    section.finish()?;
    fields
        .note("whether blocks are recomputed is in the model's code: set workload.activation_checkpointing");
    Ok(())
}
