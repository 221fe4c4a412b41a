//! `zero_optimization`.

use toml::Value;

use crate::error::InputError;
use crate::import::fields::{Fields, reason};
use crate::import::node::Value as ImportedValue;
use crate::import::run::Run;
use crate::import::write::{inline, whole};

/// Keys of ZeRO++, MiCS and of internal sizes.
const NOT_MODELLED: [&str; 20] = [
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
    "override_module_apply",
    "pipeline_loading_checkpoint",
    "reduce_scatter",
    "round_robin_gradients",
    "stage3_allgather_sequential",
    "stage3_use_all_reduce_for_fetch_params",
    "use_multi_rank_bucket_allreduce",
    "zero_quantized_gradients",
    "zero_quantized_weights",
];

/// Internal sizes of ZeRO 3 that do nothing here.
const STAGE_3: [&str; 7] = [
    "stage3_model_persistence_threshold",
    "stage3_module_granularity_threshold",
    "model_persistence_threshold",
    "sub_group_size",
    "zero_quantized_nontrainable_weights",
    "zeropp_loco_param",
    "enable_sanity_checks",
];

/// Sizes with which ZeRO 3 fetches parameters: key, older key, key of a scenario, and DeepSpeed's default.
const FETCHING: [(&str, &str, &str, u64); 4] = [
    ("stage3_prefetch_bucket_size", "prefetch_bucket_size", "prefetch_values", 50_000_000),
    ("stage3_max_live_parameters", "max_live_parameters", "live_values", 1_000_000_000),
    ("stage3_max_reuse_distance", "max_reuse_distance", "reuse_values", 1_000_000_000),
    ("stage3_param_persistence_threshold", "param_persistence_threshold", "persistence_threshold", 100_000),
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
    overlap(&section, stage, run)?;
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
    fetching(&section, stage, parameters.device.is_some(), run)?;
    section.ignore_all(&STAGE_3, reason::NOT_MODELLED);
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
    let width = if precision == "fp32" { 4 } else { 2 };
    let bytes = |values: u64| Value::from(format!("{} B", values * width));
    // Stage 3 fills a bucket with the gradients of several modules, too.
    let usual = (stage == 3).then_some(BUCKET);
    match section.count("reduce_bucket_size", 1, 1 << 40)?.or(usual) {
        Some(values) if stage > 0 => run.parallelism.push(("bucket_bytes", bytes(values))),
        Some(_) => section.note(format!("reduce_bucket_size does not act at stage {stage} here")),
        None => {}
    }
    let gather = section.count("allgather_bucket_size", 1, 1 << 40)?;
    match (gather, stage) {
        (values, 1 | 2) => {
            run.parallelism.push(("gather_bucket_bytes", bytes(values.unwrap_or(BUCKET))));
        }
        (Some(_), _) => section.note(format!("allgather_bucket_size does not act at stage {stage}")),
        (None, _) => {}
    }
    Ok(())
}

/// Values of a bucket, if the file does not say.
const BUCKET: u64 = 500_000_000;

/// Whether reductions run beside backward: at stage 3, if the file does not say.
fn overlap(section: &Fields<'_, '_>, stage: u64, run: &mut Run) -> Result<(), InputError> {
    let overlaps = section.flag("overlap_comm")?.unwrap_or(stage == 3);
    if !overlaps && stage > 0 {
        run.parallelism.push(("gradient_overlap", false.into()));
    }
    Ok(())
}

/// How stage 3 fetches parameters.
fn fetching(section: &Fields<'_, '_>, stage: u64, offloads: bool, run: &mut Run) -> Result<(), InputError> {
    for (key, older, ours, usual) in FETCHING {
        let given = section.count(key, 0, 1 << 50)?.or(section.count(older, 0, 1 << 50)?);
        if stage < 3 {
            if given.is_some() {
                section.note(format!("{key} acts at stage 3 only"));
            }
        } else if ours == "persistence_threshold" && offloads {
            section.note("small parameters are offloaded with the others here");
        } else {
            run.parallelism.push((ours, whole(given.unwrap_or(usual))));
        }
    }
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
