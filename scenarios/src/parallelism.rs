//! The `[parallelism]` section.

use steptime_clusters::{Cluster, VehicleCluster};
use steptime_models::{Dtype, Model};
use steptime_plans::{CheckpointedBlocks, ExchangeFormats, PathPlan, Plan, Store, Workload, ZeroStage};

use crate::error::{InputError, nearest};
use crate::pipeline::PipelineKeys;
use crate::section::{Aliases, Section, list, wrong};
use crate::tree::{Node, Value};
use crate::{fetch, groups, offload, sharding};

/// Names of DeepSpeed, Megatron-LM and torchtitan that mean the same.
pub(crate) const ALIASES: Aliases = &[
    ("data_parallel_size", "data"),
    ("tensor_model_parallel_size", "tensor"),
    ("tensor_parallel_degree", "tensor"),
    ("pipeline_model_parallel_size", "pipeline"),
    ("pipeline_parallel_degree", "pipeline"),
    ("pipeline_parallel_schedule", "schedule"),
    ("microbatch_group_size_per_virtual_pipeline_stage", "micro_batch_group"),
    ("num_layers_in_first_pipeline_stage", "layers_in_first_stage"),
    ("num_layers_in_last_pipeline_stage", "layers_in_last_stage"),
    ("account_for_embedding_in_pipeline_split", "count_embedding_as_layer"),
    ("account_for_loss_in_pipeline_split", "count_head_as_layer"),
    ("scatter_gather_tensors_in_pipeline", "scatter_gather"),
    ("tp_comm_overlap", "tensor_pieces"),
    ("context_parallel_size", "context"),
    ("context_parallel_degree", "context"),
    ("expert_model_parallel_size", "expert"),
    ("expert_parallel_degree", "expert"),
    ("expert_tensor_parallel_size", "expert_tensor"),
    ("expert_tensor_parallel_degree", "expert_tensor"),
    ("data_parallel_replicate_degree", "replicate"),
    ("num_distributed_optimizer_instances", "replicate"),
    ("mics_shard_size", "shard_group"),
    ("zero_hpz_partition_size", "secondary_group"),
    ("overlap_comm", "gradient_overlap"),
    ("stage3_prefetch_bucket_size", "prefetch_values"),
    ("stage3_max_live_parameters", "live_values"),
    ("stage3_max_reuse_distance", "reuse_values"),
    ("stage3_param_persistence_threshold", "persistence_threshold"),
];

/// Most ranks along one dimension.
const MOST: u64 = 1 << 20;

/// Who places the partitions of a component model on vehicles.
#[derive(Clone, Debug, PartialEq)]
pub enum Placement {
    /// The greedy baseline of the source.
    Greedy,
    /// The scenario itself.
    Given(PathPlan),
}

pub(crate) fn read_plan(
    section: &Section<'_>,
    (cluster, gpus): (&Cluster, u64),
    keys: PipelineKeys,
    explicit: bool,
) -> Result<Plan, InputError> {
    let pipeline = keys.pipeline;
    let pairs = keys.written.is_none() && keys.schedule.has_pairs();
    let tensor = section.count("tensor", MOST)?.unwrap_or(1);
    let sequence_parallel = section.flag("sequence_parallel")?.unwrap_or(false);
    if section.flag("tensor_overlap")? == Some(false) && tensor == 1 {
        return Err(section.conflict("tensor_overlap", "needs tensor above 1; leave this key out"));
    }
    if sequence_parallel && tensor == 1 {
        return Err(section.conflict("sequence_parallel", "needs tensor above 1, allowed: false"));
    }
    let scatter_gather = read_scatter_gather(section, pipeline, tensor, sequence_parallel)?;
    let groups = groups::read(section, tensor)?;
    let context = groups.context;
    let degrees = sharding::degrees(section)?;
    let data = section.count("data", MOST)?.or(degrees.data());
    let data_key = if degrees.shard.is_some() { "data_parallel_shard_degree" } else { "data" };
    let others = pipeline.saturating_mul(tensor).saturating_mul(context);
    let product = |data: String| {
        let factor =
            |name: &str, size: u64| if size == 1 { String::new() } else { format!(" x {name} {size}") };
        let (context, tensor) = (factor("context", context), factor("tensor", tensor));
        format!("data {data}{context}{tensor} x pipeline {pipeline}")
    };
    let nodes = format!("{} x {} = {gpus}", cluster.nodes, cluster.gpus_per_node);
    let data = match data {
        Some(data) if data.saturating_mul(others) != gpus => {
            return Err(section.conflict(
                data_key,
                format!(
                    "{} = {} ranks, but nodes x gpus_per_node = {nodes} GPUs",
                    product(data.to_string()),
                    data.saturating_mul(others)
                ),
            ));
        }
        Some(data) => data,
        None if gpus.is_multiple_of(others) => gpus / others,
        None if context > 1 => {
            let message = format!(
                "{context} ranks that share each sequence x {tensor} that share each layer x {pipeline} stages do not \
                 divide nodes x gpus_per_node = {nodes} GPUs"
            );
            return Err(section.conflict("context", message));
        }
        None if tensor > 1 => {
            let message = format!(
                "{tensor} ranks that share each layer x {pipeline} stages do not divide nodes x gpus_per_node = \
                 {nodes} GPUs"
            );
            return Err(section.conflict("tensor", message));
        }
        None => {
            let message = format!("{pipeline} stages do not divide nodes x gpus_per_node = {nodes} GPUs");
            return Err(section.conflict("pipeline", message));
        }
    };
    let stage = section.number("zero_stage", 0, 3)?.and_then(ZeroStage::from_number);
    let zero = stage.unwrap_or(ZeroStage::Zero);
    let spreads = groups.expert > 1 || groups.expert_tensor.is_some_and(|ways| ways != tensor);
    let replicas = data.saturating_mul(context);
    let offload = offload::read(section, zero)?;
    Ok(Plan {
        data,
        tensor,
        sequence_parallel,
        context,
        context_method: groups.context_method,
        expert: groups.expert,
        expert_tensor: groups.expert_tensor,
        pipeline,
        virtual_pipeline: keys.virtual_pipeline,
        schedule: keys.schedule,
        written: keys.written,
        micro_batch_group: keys.micro_batch_group,
        stages: keys.stages,
        micro_batches: section.counts("micro_batches")?,
        micro_batch_counts: section.counts("micro_batch_counts")?,
        zero,
        sharding: sharding::read(section, &degrees, (replicas, context), zero)?,
        rank_order: sharding::read_order(section, gpus, spreads)?,
        exchange: read_exchange(section, stage)?,
        fetch: fetch::read(section, zero, offload.parameters != Store::Device)?,
        gather_bucket_bytes: read_gather_bucket(section, zero)?,
        bucket_bytes: read_bucket(section, "bucket_bytes")?,
        gradient_as_bucket_view: section.flag("gradient_as_bucket_view")?.unwrap_or(false),
        tensor_overlap: section.flag("tensor_overlap")?.unwrap_or(true),
        tensor_pieces: read_pieces(section, cluster, (tensor, sequence_parallel))?,
        pair_overlap: read_pair_overlap(section, pairs)?,
        scatter_gather,
        gradient_overlap: section.flag("gradient_overlap")?.unwrap_or(true),
        offload,
        explicit,
    })
}

/// Whether products run in pieces beside the transfers of their parts; refused where there are none.
fn read_pieces(
    section: &Section<'_>,
    cluster: &Cluster,
    (tensor, sequence_parallel): (u64, bool),
) -> Result<bool, InputError> {
    let given = section.flag("tensor_pieces")?.unwrap_or(false);
    if given && !sequence_parallel {
        let message = "is about what is gathered and scattered along the sequence: needs tensor above 1 and \
                       sequence_parallel = true";
        return Err(section.conflict("tensor_pieces", message));
    }
    if given && !u64::from(cluster.gpus_per_node).is_multiple_of(tensor) {
        let message = format!("needs the {tensor} ranks that share a layer on one node");
        return Err(section.conflict("tensor_pieces", message));
    }
    // User buffers are memory of the neighbours' that copy engines write to.
    if given && cluster.kinds().iter().any(|kind| kind.stages_in_host()) {
        let message = "needs GPUs that reach each other's memory, and what those of this cluster send goes through the \
                       host's, allowed: false";
        return Err(section.conflict("tensor_pieces", message));
    }
    Ok(given)
}

/// Whether exchanges of a forward run beside the backward that it is joined with; refused where the schedule joins none.
fn read_pair_overlap(section: &Section<'_>, pairs: bool) -> Result<bool, InputError> {
    let given = section.flag("pair_overlap")?;
    if given.is_some() && !pairs {
        let message = "is about the pairs of schedule dualpipe and dualpipe-v; leave this key out";
        return Err(section.conflict("pair_overlap", message));
    }
    Ok(given.unwrap_or(true))
}

/// Whether what goes from stage to stage is sent in parts; refused where there are none.
fn read_scatter_gather(
    section: &Section<'_>,
    pipeline: u64,
    tensor: u64,
    sequence_parallel: bool,
) -> Result<bool, InputError> {
    let given = section.flag("scatter_gather")?;
    if given == Some(true) && (pipeline == 1 || tensor == 1) {
        let message = "needs pipeline and tensor above 1; leave this key out";
        return Err(section.conflict("scatter_gather", message));
    }
    if given == Some(true) && sequence_parallel {
        let message = "is for activations that every rank has whole: sequence_parallel has divided them; leave this key out";
        return Err(section.conflict("scatter_gather", message));
    }
    Ok(given.unwrap_or(false))
}

/// Number formats of FSDP's mixed precision.
const FORMATS: [(&str, Dtype); 3] = [("fp32", Dtype::Fp32), ("bf16", Dtype::Bf16), ("fp16", Dtype::Fp16)];

/// Formats in which ZeRO 3 gathers parameters and reduces gradients.
fn read_exchange(section: &Section<'_>, stage: Option<ZeroStage>) -> Result<ExchangeFormats, InputError> {
    let gather = section.choice("gather_dtype", &FORMATS)?;
    let reduce = section.choice("reduce_dtype", &FORMATS)?;
    for (key, given) in [("gather_dtype", gather), ("reduce_dtype", reduce)] {
        if given.is_some() && stage != Some(ZeroStage::Three) {
            let message =
                "needs zero_stage = 3, which gathers parameters and reduces gradients layer by layer";
            return Err(section.conflict(key, message));
        }
    }
    Ok(ExchangeFormats { gather, reduce })
}

/// Refuses formats of exchange that the number format of the run does not have.
pub(crate) fn check_exchange(
    section: &Section<'_>,
    formats: ExchangeFormats,
    workload: &Workload,
) -> Result<(), InputError> {
    let own = workload.precision.storage();
    let possible = |format: Dtype| format == own || format == Dtype::Fp32 && workload.autocast;
    let name = |format| FORMATS.iter().find(|(_, other)| *other == format).map_or("", |(name, _)| *name);
    if let Some(format) = formats.gather.filter(|format| !possible(*format)) {
        let (found, own) = (name(format), name(own));
        let message = format!(
            "\"{found}\" does not go with the workload, allowed: \"{own}\", or \"fp32\" with workload.autocast = true"
        );
        return Err(section.conflict("gather_dtype", message));
    }
    if let Some(format) = formats.reduce.filter(|format| *format != own && *format != Dtype::Fp32) {
        let (found, own) = (name(format), name(own));
        let message = format!("\"{found}\" does not go with the workload, allowed: \"{own}\", \"fp32\"");
        return Err(section.conflict("reduce_dtype", message));
    }
    Ok(())
}

/// `gather_bucket_bytes = "1 GB"`.
fn read_gather_bucket(section: &Section<'_>, zero: ZeroStage) -> Result<Option<u64>, InputError> {
    let bytes = read_bucket(section, "gather_bucket_bytes")?;
    if bytes.is_some() && !matches!(zero, ZeroStage::One | ZeroStage::Two) {
        let message = "is about parameters that are gathered after the update: needs zero_stage 1 or 2";
        return Err(section.conflict("gather_bucket_bytes", message));
    }
    Ok(bytes)
}

/// Refuses what does not go with a ZeRO stage: parameters that are wider than the computation where nothing gathers them,
/// and blocks that are recomputed together where their parameters are gathered one by one.
pub(crate) fn check_stage(
    section: &Section<'_>,
    workload: &Workload,
    zero: ZeroStage,
) -> Result<(), InputError> {
    if matches!(workload.checkpointed, CheckpointedBlocks::Groups(_)) && zero == ZeroStage::Three {
        let message =
            "recomputes blocks together, whose parameters zero_stage = 3 gathers one by one, allowed: 1";
        return Err(section.conflict("recompute_num_layers", message));
    }
    if workload.wide_parameters && zero != ZeroStage::Three {
        let message = "keeps parameters in 32 bits and gathers them in 16, which needs parallelism.zero_stage = 3 (FSDP); \
                       autocast = true goes with any stage";
        return Err(section.conflict("parameter_dtype", message));
    }
    Ok(())
}

/// `bucket_bytes = "25 MiB"`.
fn read_bucket(section: &Section<'_>, key: &'static str) -> Result<Option<u64>, InputError> {
    let Some((text, origin)) = section.text(key)? else { return Ok(None) };
    let bytes = steptime_models::parse_quantity(&text, steptime_models::Dimension::Bytes);
    match bytes {
        Ok(bytes) if (1.0..=1e15).contains(&bytes) => Ok(Some(bytes as u64)),
        _ => Err(InputError::Value {
            origin,
            key: section.full(key),
            found: format!("\"{text}\""),
            allowed: "an amount of memory such as \"25 MiB\"".to_owned(),
            nearest: None,
        }),
    }
}

/// `placement = "greedy"` or `placement = { path = ["v1", ...], assignment = { v1 = ["Part", ...] } }`.
pub(crate) fn read_placement(
    section: &Section<'_>,
    cluster: &VehicleCluster,
    model: &Model,
) -> Result<Placement, InputError> {
    let Some(node) = section.node("placement")? else { return Ok(Placement::Greedy) };
    let key = section.full("placement");
    let allowed = "\"greedy\", or a table with `path` and `assignment`";
    match &node.value {
        Value::Text(text) if text == "greedy" => Ok(Placement::Greedy),
        Value::Table(_) => read_path(node, cluster, model).map(Placement::Given),
        other => Err(wrong(&node.origin, &key, other, allowed)),
    }
}

fn read_path(node: &Node, cluster: &VehicleCluster, model: &Model) -> Result<PathPlan, InputError> {
    let Value::Table(table) = &node.value else {
        return Err(wrong(&node.origin, "parallelism.placement", &node.value, "a table"));
    };
    if let Some((key, value)) = table.iter().find(|(key, _)| !["path", "assignment"].contains(&key.as_str()))
    {
        return Err(InputError::UnknownKey {
            origin: value.key_origin.clone(),
            key: format!("parallelism.placement.{key}"),
            allowed: "path, assignment".to_owned(),
            nearest: nearest(key, ["path", "assignment"]),
        });
    }
    let entry = |key: &str| {
        table.get(key).ok_or_else(|| InputError::Missing {
            origin: node.origin.clone(),
            key: format!("parallelism.placement.{key}"),
            needed: "a placement has `path` and `assignment`".to_owned(),
        })
    };
    let vehicles: Vec<&str> = cluster.vehicles.iter().map(|vehicle| vehicle.id.as_str()).collect();
    let partitions: Vec<&str> = model
        .components()
        .map(|graph| graph.partitions.iter().map(|partition| partition.name.as_str()).collect())
        .unwrap_or_default();
    let order = names(entry("path")?, "parallelism.placement.path", &vehicles)?;
    let assignment = entry("assignment")?;
    let Value::Table(parts) = &assignment.value else {
        let allowed = "a table from vehicles to lists of partitions";
        return Err(wrong(
            &assignment.origin,
            "parallelism.placement.assignment",
            &assignment.value,
            allowed,
        ));
    };
    let mut of_vehicle = vec![Vec::new(); vehicles.len()];
    for (id, list_node) in parts {
        let key = format!("parallelism.placement.assignment.{id}");
        let Some(index) = vehicles.iter().position(|vehicle| vehicle == id) else {
            return Err(InputError::UnknownKey {
                origin: list_node.key_origin.clone(),
                key,
                allowed: list(vehicles.iter().copied()),
                nearest: nearest(id, vehicles.iter().copied()),
            });
        };
        of_vehicle[index] = names(list_node, &key, &partitions)?;
    }
    Ok(PathPlan { order, assignment: of_vehicle })
}

/// Indices of the names in a list.
fn names(node: &Node, key: &str, known: &[&str]) -> Result<Vec<usize>, InputError> {
    let Value::Array(items) = &node.value else {
        return Err(wrong(&node.origin, key, &node.value, "a list of names"));
    };
    let index = |item: &Node| match &item.value {
        Value::Text(name) => known.iter().position(|other| other == name).ok_or_else(|| InputError::Value {
            origin: item.origin.clone(),
            key: key.to_owned(),
            found: item.value.describe(),
            allowed: list(known.iter().copied()),
            nearest: nearest(name, known.iter().copied()),
        }),
        other => Err(wrong(&item.origin, key, other, &list(known.iter().copied()))),
    };
    items.iter().map(index).collect()
}
