//! `zero_optimization`.

use toml::Value;

use crate::error::InputError;
use crate::import::fields::{Fields, reason};
use crate::import::node::Value as ImportedValue;
use crate::import::run::Run;
use crate::import::write::{inline, whole};

/// Keys of ZeRO++, MiCS and of internal sizes.
const NOT_MODELLED: [&str; 22] = [
    "allgather_partitions",
    "cpu_offload_use_pin_memory",
    "contiguous_gradients",
    "elastic_checkpoint",
    "ignore_unused_parameters",
    "legacy_stage1",
    "load_from_fp32_weights",
    "log_trace_cache_warnings",
    "memory_efficient_linear",
    "mics_hierarchical_params_gather",
    "module_granularity_threshold",
    "overlap_comm",
    "override_module_apply",
    "param_persistence_threshold",
    "pipeline_loading_checkpoint",
    "reduce_scatter",
    "round_robin_gradients",
    "stage3_allgather_sequential",
    "stage3_use_all_reduce_for_fetch_params",
    "use_multi_rank_bucket_allreduce",
    "zero_quantized_gradients",
    "zero_quantized_weights",
];

/// Sizes with which ZeRO 3 fetches parameters.
const STAGE_3: [&str; 14] = [
    "stage3_max_live_parameters",
    "stage3_max_reuse_distance",
    "stage3_param_persistence_threshold",
    "stage3_model_persistence_threshold",
    "stage3_prefetch_bucket_size",
    "stage3_module_granularity_threshold",
    "prefetch_bucket_size",
    "max_live_parameters",
    "max_reuse_distance",
    "model_persistence_threshold",
    "sub_group_size",
    "zero_quantized_nontrainable_weights",
    "zeropp_loco_param",
    "enable_sanity_checks",
];

/// Stage, buckets and offloading. Returns whether the optimizer works on the host.
pub(super) fn zero(fields: &Fields<'_, '_>, precision: &str, run: &mut Run) -> Result<bool, InputError> {
    let Some(section) = fields.section("zero_optimization")? else {
        run.parallelism.push(("zero_stage", whole(0)));
        return Ok(false);
    };
    let stage = section.count("stage", 0, 3)?.unwrap_or(0);
    run.parallelism.push(("zero_stage", whole(stage)));
    bucket(&section, stage, precision, run)?;
    groups(&section, stage, run)?;
    let optimizer = offload(&section, "offload_optimizer", "cpu_offload")?;
    let parameters = offload(&section, "offload_param", "cpu_offload_params")?;
    if parameters.device.is_some() && stage != 3 {
        let message = format!("offloads parameters at stage {stage}, allowed: stage 3");
        return Err(section.conflict("offload_param", message));
    }
    if optimizer.device.is_some() && stage == 0 {
        let message = "offloads the optimizer at stage 0, allowed: stage 1, 2 or 3";
        return Err(section.conflict("offload_optimizer", message));
    }
    let keys = offload_keys(&section, stage, [&optimizer, &parameters])?;
    if !keys.is_empty() {
        run.parallelism.push(("offload", inline(keys)));
    }
    section.ignore_all(&STAGE_3, "not modelled: parameters are fetched one block ahead");
    section.ignore_all(
        &[
            "stage3_gather_16bit_weights_on_model_save",
            "stage3_gather_fp16_weights_on_model_save",
            "gather_16bit_weights_on_model_save",
        ],
        reason::STEADY,
    );
    section.ignore_all(&NOT_MODELLED, reason::NOT_MODELLED);
    section.finish()?;
    Ok(optimizer.device.is_some())
}

/// Groups that partition the states (MiCS), and those that keep a second copy of the parameters (ZeRO++).
fn groups(section: &Fields<'_, '_>, stage: u64, run: &mut Run) -> Result<(), InputError> {
    let off =
        |key: &str| matches!(section.find(key).map(|node| &node.value), Some(ImportedValue::Integer(-1)));
    let group = if off("mics_shard_size") { None } else { section.count("mics_shard_size", 1, 1 << 20)? };
    let second = section.count("zero_hpz_partition_size", 1, 1 << 20)?.filter(|&ranks| ranks > 1);
    if stage < 3 {
        for (key, given) in [("mics_shard_size", group), ("zero_hpz_partition_size", second)] {
            if given.is_some() {
                section.note(format!("{key} acts at stage 3 only"));
            }
        }
        return Ok(());
    }
    if let Some(group) = group {
        run.parallelism.push(("shard_group", whole(group)));
        run.parallelism.push(("sum_replicas", "step".into()));
    }
    run.parallelism.extend(second.map(|ranks| ("secondary_group", whole(ranks))));
    Ok(())
}

/// Buckets of gradients. DeepSpeed counts values, a scenario bytes.
fn bucket(section: &Fields<'_, '_>, stage: u64, precision: &str, run: &mut Run) -> Result<(), InputError> {
    let reduce = section.count("reduce_bucket_size", 1, 1 << 40)?;
    if let (Some(values), 1 | 2) = (reduce, stage) {
        let width = if precision == "fp32" { 4 } else { 2 };
        run.parallelism.push(("bucket_bytes", Value::from(format!("{} B", values * width))));
    } else if reduce.is_some() {
        section.note(format!("reduce_bucket_size does not act at stage {stage} here"));
    }
    section.ignore(
        "allgather_bucket_size",
        "not modelled: parameters are gathered in buckets of the gradients' size",
    );
    Ok(())
}

/// What one of the tables of offloading says.
#[derive(Default)]
struct Table {
    device: Option<&'static str>,
    pinned: bool,
    pipeline: bool,
    buffers: Option<u64>,
    buffer_size: Option<u64>,
}

/// Values of a group that DeepSpeed updates at a time, if the file does not say.
const SUB_GROUP: u64 = 1_000_000_000;

/// The keys of a scenario's `offload`; what is as without them is left out.
fn offload_keys(
    section: &Fields<'_, '_>,
    stage: u64,
    [optimizer, parameters]: [&Table; 2],
) -> Result<Vec<(&'static str, Value)>, InputError> {
    let mut keys: Vec<(&'static str, Value)> = Vec::new();
    for (what, table) in [("optimizer", optimizer), ("parameters", parameters)] {
        keys.extend(table.device.map(|device| (what, Value::from(device))));
    }
    let in_memory = [optimizer, parameters].into_iter().filter(|table| table.device == Some("cpu"));
    let pinned: Vec<bool> = in_memory.map(|table| table.pinned).collect();
    if pinned.contains(&false) {
        if pinned.contains(&true) {
            section.note("pin_memory of the optimizer and of parameters differ; taken as false for both");
        }
        keys.push(("pin_memory", Value::from(false)));
    }
    let size = if stage == 3 && optimizer.device.is_some() {
        section.count("sub_group_size", 1, 1 << 42)?
    } else {
        None
    };
    let mut whole_key = |key, value: Option<u64>| keys.extend(value.map(|value| (key, whole(value))));
    whole_key("sub_group_size", size.filter(|size| *size != SUB_GROUP));
    if optimizer.device == Some("nvme") {
        whole_key("optimizer_buffers", optimizer.buffers);
    }
    if parameters.device == Some("nvme") {
        whole_key("parameter_buffers", parameters.buffers);
        whole_key("parameter_buffer_size", parameters.buffer_size);
    }
    if optimizer.device == Some("nvme") && optimizer.pipeline {
        keys.push(("nvme_pipeline", Value::from(true)));
    }
    Ok(keys)
}

/// What `key` says, or the older switch `switch`.
fn offload(section: &Fields<'_, '_>, key: &str, switch: &str) -> Result<Table, InputError> {
    let older = section.flag(switch)?.unwrap_or(false).then_some("cpu");
    // The older switches came with page-locked memory.
    let Some(table) = section.section(key)? else {
        return Ok(Table { device: older, pinned: true, ..Table::default() });
    };
    let devices = [("none", None), ("cpu", Some("cpu")), ("nvme", Some("nvme"))];
    let device = table.choice("device", &devices)?.unwrap_or(Some("cpu"));
    let flag = |key: &str| Ok::<bool, InputError>(table.flag(key)?.unwrap_or(false));
    let drive = device == Some("nvme");
    let sizes = if drive {
        (table.count("buffer_count", 1, 1 << 10)?, table.count("buffer_size", 1, 1 << 42)?)
    } else {
        (None, None)
    };
    let pipelines = if drive {
        ["pipeline", "pipeline_read", "pipeline_write"].map(flag)
    } else {
        [Ok(false), Ok(false), Ok(false)]
    };
    let mut pipeline = false;
    for flag in pipelines {
        pipeline |= flag?;
    }
    let found = Table {
        device: device.or(older),
        pinned: flag("pin_memory")?,
        pipeline,
        buffers: sizes.0,
        buffer_size: sizes.1,
    };
    table.ignore_all(
        &[
            "buffer_count",
            "buffer_size",
            "max_in_cpu",
            "pipeline",
            "pipeline_read",
            "pipeline_write",
            "fast_init",
            "ratio",
            "nvme_path",
            "super_offload",
            "cpuadam_cores_perc",
        ],
        reason::NOT_MODELLED,
    );
    table.finish()?;
    Ok(found)
}
