//! The `[workload]` section.

use steptime_clusters::{Cluster, Framework, Gpu, GpuArchitecture};
use steptime_models::{
    AttentionKind, Convolutions, CrossEntropy, Dtype, Fusion, MemoryFormat, Model, Modules, Sample, Scaling,
};
use steptime_plans::{
    Clipping, Execution, OptimizerImplementation, OptimizerKind, Precision, Router, Task, Workload,
};

use crate::batch::Batch;
use crate::checkpointing;
use crate::error::InputError;
use crate::files::Files;
use crate::groups;
use crate::model::ModelSection;
use crate::section::{Aliases, Section, list};

/// Names of DeepSpeed, Megatron-LM and torchtitan that mean the same.
pub(crate) const ALIASES: Aliases = &[
    ("train_micro_batch_size_per_gpu", "micro_batch_size"),
    ("local_batch_size", "micro_batch_size"),
    ("train_batch_size", "global_batch_size"),
    ("num_micro_batches", "gradient_accumulation_steps"),
    ("seq_length", "sequence_length"),
    ("seq_len", "sequence_length"),
    ("recompute_granularity", "activation_checkpointing"),
    ("transformer_impl", "transformer_implementation"),
    ("deterministic_mode", "deterministic"),
    ("create_attention_mask_in_dataloader", "attention_mask"),
];

const PRECISIONS: [(&str, Precision); 6] = [
    ("fp32", Precision::Fp32),
    ("tf32", Precision::Tf32),
    ("fp16", Precision::Fp16),
    ("bf16", Precision::Bf16),
    ("fp8", Precision::Fp8),
    ("nvfp4", Precision::Fp4),
];

const FRAMEWORKS: [(&str, Framework); 3] =
    [("pytorch", Framework::PyTorch), ("megatron", Framework::Megatron), ("nanotron", Framework::Nanotron)];

/// What the defaults of a GPU job depend on.
pub(crate) struct GpuDefaults<'a> {
    pub(crate) section: &'a ModelSection,
    pub(crate) cluster: &'a Cluster,
    pub(crate) files: &'a dyn Files,
}

pub(crate) fn read(
    section: &Section<'_>,
    defaults: &GpuDefaults<'_>,
    batch: &Batch,
) -> Result<Workload, InputError> {
    let task = read_task(section)?;
    let precision = section.choice("precision", &PRECISIONS)?.unwrap_or(Precision::Fp32);
    check_precision(section, defaults.cluster, precision)?;
    let optimizers = [
        ("adam", OptimizerKind::Adam),
        ("adamw", OptimizerKind::AdamW),
        ("sgd", OptimizerKind::Sgd),
        ("sgd-momentum", OptimizerKind::SgdMomentum),
        ("muon", OptimizerKind::Muon),
    ];
    let optimizer = section.choice("optimizer", &optimizers)?.unwrap_or(OptimizerKind::AdamW);
    let implementations = [
        ("for-loop", OptimizerImplementation::ForLoop),
        ("foreach", OptimizerImplementation::Foreach),
        ("fused", OptimizerImplementation::Fused),
    ];
    let autocast = read_autocast(section, defaults, precision)?;
    let wide_parameters = read_parameters(section, precision, autocast)?;
    let usual = if precision.has_master_copy() && !autocast && !wide_parameters {
        OptimizerImplementation::Fused
    } else {
        OptimizerImplementation::Foreach
    };
    let implementation = section.choice("optimizer_implementation", &implementations)?.unwrap_or(usual);
    let weight_decay = read_weight_decay(section, optimizer, implementation)?;
    let attention = read_attention(section, defaults, precision)?;
    let executions = [
        ("eager", Execution::Eager),
        ("compiled", Execution::Compiled),
        ("cuda-graphs", Execution::CudaGraphs),
    ];
    let execution = section.choice("execution", &executions)?.unwrap_or(Execution::Eager);
    let fusions = [("none", Fusion::None), ("transformer-engine", Fusion::TransformerEngine)];
    let fusion = section.choice("fused_kernels", &fusions)?.unwrap_or(Fusion::None);
    if fusion != Fusion::None && execution == Execution::Compiled {
        let message = "contradicts execution = \"compiled\", which fuses by itself, allowed: \"none\"";
        return Err(section.conflict("fused_kernels", message));
    }
    let (checkpointing, checkpointed) = checkpointing::read(section, attention, execution)?;
    let low_precision_norms = section.flag("low_precision_norms")?.unwrap_or(false);
    if low_precision_norms && !autocast {
        return Err(section.conflict("low_precision_norms", "needs autocast = true, allowed: false"));
    }
    let loss_metrics = section.number("loss_metrics", 0, 16)?.unwrap_or(0);
    if loss_metrics > 0 && task == Task::Inference {
        return Err(section.conflict("loss_metrics", "needs task = \"training\", allowed: 0"));
    }
    let framework = section.choice("framework", &FRAMEWORKS)?.unwrap_or(Framework::PyTorch);
    let sequence_length = read_sequence_length(section, defaults)?;
    let workload = Workload {
        task,
        low_precision_norms,
        loss_metrics,
        cross_entropy: read_cross_entropy(section, framework)?,
        micro_batch_size: batch.micro,
        accumulation: batch.accumulation,
        last_micro_batch_size: batch.last,
        sequence_length,
        documents: read_documents(section, sequence_length, attention)?,
        precision,
        scaling: read_scaling(section, defaults.cluster, precision)?,
        router: read_router(section, defaults)?,
        optimizer,
        implementation,
        weight_decay,
        loss_scaling: read_loss_scaling(section, precision)?,
        clipping: read_clipping(section, task, framework)?,
        attention,
        execution,
        framework,
        fusion,
        checkpointing,
        checkpointed,
        wide_gradients: read_gradients(section, precision, autocast)? == Dtype::Fp32,
        accumulation_fusion: section.flag("gradient_accumulation_fusion")?.unwrap_or(false),
        sequential_experts: read_sequential_experts(section, &defaults.section.model, framework)?,
        check_for_nan: section.flag("check_for_nan")?.unwrap_or(framework == Framework::Megatron),
        log_num_zeros_in_grad: section.flag("log_num_zeros_in_grad")?.unwrap_or(false),
        log_params_norm: section.flag("log_params_norm")?.unwrap_or(false),
        convolutions: read_convolutions(section, defaults, precision)?,
        autocast,
        wide_parameters,
        modules: read_modules(section, framework)?,
        deterministic: section.flag("deterministic")?.unwrap_or(false),
        attention_mask: read_attention_mask(section, defaults)?,
        synthetic_data: section.flag("synthetic_data")?.unwrap_or(false),
    };
    check_capture(section, &defaults.section.model, &workload)?;
    Ok(workload)
}

/// `loss_scaling`: whether the loss is scaled into the range of fp16.
fn read_loss_scaling(section: &Section<'_>, precision: Precision) -> Result<bool, InputError> {
    let scales = section.flag("loss_scaling")?.unwrap_or(false);
    if scales && precision != Precision::Fp16 {
        let message = "is for the range of fp16, needs precision = \"fp16\", allowed: false";
        return Err(section.conflict("loss_scaling", message));
    }
    Ok(scales)
}

/// `gradient_clipping`: Megatron-LM clips unless it is told not to.
fn read_clipping(section: &Section<'_>, task: Task, framework: Framework) -> Result<Clipping, InputError> {
    let kinds = [("none", Clipping::None), ("device", Clipping::Device), ("host", Clipping::Host)];
    let trains = task == Task::Training && framework == Framework::Megatron;
    let usual = if trains { Clipping::Host } else { Clipping::None };
    Ok(section.choice("gradient_clipping", &kinds)?.unwrap_or(usual))
}

/// `moe_grouped_gemm`: whether the experts of a rank run in grouped products; otherwise Megatron-LM's Python goes from one
/// to the next.
fn read_sequential_experts(
    section: &Section<'_>,
    model: &Model,
    framework: Framework,
) -> Result<bool, InputError> {
    let sequential = section.flag("moe_grouped_gemm")? == Some(false);
    if sequential && (model.experts() == 0 || framework != Framework::Megatron) {
        let message = "is about routed experts with framework = \"megatron\", allowed: true";
        return Err(section.conflict("moe_grouped_gemm", message));
    }
    Ok(sequential)
}

/// `cross_entropy`: whose kernels compute the loss; Megatron-LM and nanotron have their own.
fn read_cross_entropy(section: &Section<'_>, framework: Framework) -> Result<CrossEntropy, InputError> {
    let kinds = [
        ("torch", CrossEntropy::Torch),
        ("vocabulary-parallel", CrossEntropy::VocabularyParallel),
        ("vocabulary-parallel-compiled", CrossEntropy::VocabularyParallelCompiled),
        ("flash-attn", CrossEntropy::FlashAttn),
        ("fused", CrossEntropy::Fused),
    ];
    let usual = match framework {
        Framework::Megatron | Framework::Nanotron => CrossEntropy::VocabularyParallel,
        Framework::PyTorch => CrossEntropy::Torch,
    };
    Ok(section.choice("cross_entropy", &kinds)?.unwrap_or(usual))
}

/// `attention_mask`: whether the loader makes one, for models that take sequences.
fn read_attention_mask(section: &Section<'_>, defaults: &GpuDefaults<'_>) -> Result<bool, InputError> {
    let makes = section.flag("attention_mask")?.unwrap_or(false);
    let model = &defaults.section.model;
    if makes && !matches!(model.sample, Sample::Tokens { .. }) {
        return Err(
            section.conflict("attention_mask", format!("{} takes no sequences, allowed: false", model.name))
        );
    }
    Ok(makes)
}

/// `transformer_implementation`: whose modules blocks are made of; Megatron-LM has two sets.
fn read_modules(section: &Section<'_>, framework: Framework) -> Result<Modules, InputError> {
    let kinds = [("transformer-engine", Modules::TransformerEngine), ("local", Modules::MegatronLocal)];
    let given = section.choice("transformer_implementation", &kinds)?;
    match (framework, given) {
        (Framework::Megatron, given) => Ok(given.unwrap_or(Modules::TransformerEngine)),
        (_, None) => Ok(Modules::PyTorch),
        (_, Some(_)) => Err(section.conflict(
            "transformer_implementation",
            "chooses between Megatron-LM's modules; needs framework = \"megatron\"; leave this key out",
        )),
    }
}

/// `parameter_dtype`: whether parameters are kept in 32 bits though the computation has 16.
fn read_parameters(section: &Section<'_>, precision: Precision, autocast: bool) -> Result<bool, InputError> {
    let formats = [("fp32", Dtype::Fp32), ("fp16", Dtype::Fp16), ("bf16", Dtype::Bf16)];
    let own = if autocast { Dtype::Fp32 } else { precision.storage() };
    let given = section.choice("parameter_dtype", &formats)?.unwrap_or(own);
    if given == own {
        return Ok(false);
    }
    if given == Dtype::Fp32 && precision.has_master_copy() {
        return Ok(true);
    }
    let message = "parameters have the format of `precision` (32 bits with autocast) or 32 bits, allowed: that of `precision`, \"fp32\"";
    Err(section.conflict("parameter_dtype", message))
}

/// Format of kept gradients: that of the weights, or 32 bits.
fn read_gradients(section: &Section<'_>, precision: Precision, autocast: bool) -> Result<Dtype, InputError> {
    let storage = if autocast { Dtype::Fp32 } else { precision.storage() };
    let formats = [("fp32", Dtype::Fp32), ("fp16", Dtype::Fp16), ("bf16", Dtype::Bf16)];
    let given = section.choice("gradient_dtype", &formats)?.unwrap_or(storage);
    if given == storage || given == Dtype::Fp32 {
        return Ok(given);
    }
    let message = "gradients have the format of the weights or 32 bits, allowed: that of `precision` (without autocast), \"fp32\"";
    Err(section.conflict("gradient_dtype", message))
}

/// How attention is computed, and by whose kernels.
const ATTENTION: [(&str, AttentionKind); 5] = [
    ("flash", AttentionKind::Flash),
    ("flash-3", AttentionKind::Flash3),
    ("flash-1", AttentionKind::Flash1),
    ("flash-triton", AttentionKind::FlashTriton),
    ("eager", AttentionKind::Eager),
];

/// `fp8_recipe`: how values are scaled to 8 bits.
fn read_scaling(
    section: &Section<'_>,
    cluster: &Cluster,
    precision: Precision,
) -> Result<Scaling, InputError> {
    // The first architecture that multiplies values scaled so: one scale a tensor has every one with 8 bits, blocks have
    // products in cuBLASLt from Hopper on, and microscaling is the tensor cores' own from Blackwell on (Transformer Engine's
    // `check_fp8_block_scaling_support` and `check_mxfp8_support`).
    let recipes = [
        ("delayed", Scaling::Delayed, GpuArchitecture::Ada),
        ("current", Scaling::Current, GpuArchitecture::Ada),
        ("blockwise", Scaling::Blockwise, GpuArchitecture::Hopper),
        ("mx", Scaling::Microscaling, GpuArchitecture::Blackwell),
    ];
    let given = section.choice("fp8_recipe", &recipes.map(|(name, scaling, _)| (name, scaling)))?;
    if given.is_some() && precision != Precision::Fp8 {
        return Err(section.conflict("fp8_recipe", "needs precision = \"fp8\"; leave this key out"));
    }
    let Some((name, scaling, least)) = recipes.into_iter().find(|(_, scaling, _)| Some(*scaling) == given)
    else {
        return Ok(Scaling::default());
    };
    let multiplies = |least| lacking(cluster, move |gpu| gpu.architecture >= least);
    match multiplies(least) {
        None => Ok(scaling),
        Some(gpu) => Err(InputError::Value {
            origin: section.place("fp8_recipe"),
            key: section.full("fp8_recipe"),
            found: format!(
                "\"{name}\", whose products need a {least} or newer GPU ({} is {})",
                gpu.name, gpu.architecture
            ),
            allowed: list(recipes.iter().filter(|it| multiplies(it.2).is_none()).map(|it| it.0)),
            nearest: None,
        }),
    }
}

/// The first kind of GPU of a cluster that lacks something.
fn lacking(cluster: &Cluster, has: impl Fn(&Gpu) -> bool) -> Option<&Gpu> {
    cluster.kinds().into_iter().map(|kind| &kind.gpu).find(|gpu| !has(gpu))
}

/// `router`: how many tokens each expert gets.
fn read_router(section: &Section<'_>, defaults: &GpuDefaults<'_>) -> Result<Router, InputError> {
    let router = groups::read_router(section, defaults.files)?;
    let model = &defaults.section.model;
    if router != Router::Uniform && model.experts() == 0 {
        let message = format!("{} has no routed experts; leave this key out", model.name);
        return Err(section.conflict("router", message));
    }
    Ok(router)
}

/// Autocast chooses between 32 bits and the 16 bits of the precision.
fn read_autocast(
    section: &Section<'_>,
    defaults: &GpuDefaults<'_>,
    precision: Precision,
) -> Result<bool, InputError> {
    let autocast = section.flag("autocast")?.unwrap_or(false);
    let model = &defaults.section.model;
    if autocast && !precision.has_master_copy() {
        let message =
            "chooses between 32 and 16 bits; needs precision = \"fp16\", \"bf16\" or \"fp8\", allowed: false";
        return Err(section.conflict("autocast", message));
    }
    if autocast && !model.follows_autocast() {
        let message = format!("is not modelled for {} (family {}), allowed: false", model.name, model.family);
        return Err(section.conflict("autocast", message));
    }
    Ok(autocast)
}

/// Weight decay that is added to gradients: a step of its own, where the optimizer has steps and does not decay anyway.
fn read_weight_decay(
    section: &Section<'_>,
    optimizer: OptimizerKind,
    implementation: OptimizerImplementation,
) -> Result<bool, InputError> {
    let decays = section.flag("weight_decay")?.unwrap_or(false);
    if decays && matches!(optimizer, OptimizerKind::AdamW | OptimizerKind::Muon) {
        let message = "adamw and muon decay weights in any case, allowed: false, or optimizer = \"adam\"";
        return Err(section.conflict("weight_decay", message));
    }
    if decays && implementation == OptimizerImplementation::Fused {
        let message = "a fused update decays weights on the way, allowed: false, or optimizer_implementation = \
                       \"foreach\"";
        return Err(section.conflict("weight_decay", message));
    }
    Ok(decays)
}

/// Flash attention wherever its kernels run, unless the file says otherwise.
fn read_attention(
    section: &Section<'_>,
    defaults: &GpuDefaults<'_>,
    precision: Precision,
) -> Result<AttentionKind, InputError> {
    let given = section.choice("attention", &ATTENTION)?;
    let width = defaults.section.model.widest_head();
    let fits = |kind: AttentionKind| kind.widest_head().is_none_or(|most| width <= most);
    // FlashAttention-2, which PyTorch's flash backend is as well, has no kernels for Turing and none for fp32.
    let old = lacking(defaults.cluster, |gpu| gpu.architecture >= GpuArchitecture::Ampere);
    let runs = |kind| fits(kind) && old.is_none() && precision.storage().bytes() != 4;
    let usual = if runs(AttentionKind::Flash) { AttentionKind::Flash } else { AttentionKind::Eager };
    let Some(given) = given.filter(|kind| kind.is_fused() && !runs(*kind)) else {
        return Ok(given.unwrap_or(usual));
    };
    let why_not = if let Some(gpu) = old {
        format!("whose kernels need an Ampere or newer GPU ({} is {})", gpu.name, gpu.architecture)
    } else if precision.storage().bytes() == 4 {
        "whose kernels need a 16-bit precision (fp16, bf16 or fp8)".to_owned()
    } else {
        let (most, name) = (given.widest_head().unwrap_or(width), &defaults.section.model.name);
        format!("whose kernels have heads of at most {most} values ({name} has {width})")
    };
    let quoted = |name| format!("\"{name}\"");
    let others = ATTENTION.iter().filter(|(_, kind)| !kind.is_fused() || runs(*kind));
    let name = ATTENTION.iter().find(|(_, kind)| *kind == given).map_or("", |(name, _)| *name);
    Err(InputError::Value {
        origin: section.place("attention"),
        key: section.full("attention"),
        found: format!("{}, {why_not}", quoted(name)),
        allowed: others.map(|(name, _)| quoted(name)).collect::<Vec<_>>().join(", "),
        nearest: None,
    })
}

/// Contiguous feature maps, and TF32 for convolutions of 32-bit floats where the GPU has it: what PyTorch does unless
/// it is told otherwise.
fn read_convolutions(
    section: &Section<'_>,
    defaults: &GpuDefaults<'_>,
    precision: Precision,
) -> Result<Convolutions, InputError> {
    let formats = [("contiguous", MemoryFormat::Contiguous), ("channels-last", MemoryFormat::ChannelsLast)];
    let format = section.choice("memory_format", &formats)?.unwrap_or_default();
    let model = &defaults.section.model;
    if format == MemoryFormat::ChannelsLast && matches!(model.sample, Sample::Tokens { .. }) {
        let message = format!("{} has no feature maps, allowed: \"contiguous\"", model.name);
        return Err(section.conflict("memory_format", message));
    }
    let without_tf32 = lacking(defaults.cluster, |gpu| gpu.peak(Dtype::Tf32).is_some());
    let given = section.flag("cudnn_allow_tf32")?;
    if given.is_some() && matches!(model.sample, Sample::Tokens { .. }) {
        let message = format!("{} has no convolutions; leave this key out", model.name);
        return Err(section.conflict("cudnn_allow_tf32", message));
    }
    match (given, precision, without_tf32) {
        (Some(true), _, Some(gpu)) => {
            let message = format!("{} ({}) has no TF32, allowed: false", gpu.name, gpu.architecture);
            Err(section.conflict("cudnn_allow_tf32", message))
        }
        (Some(false), Precision::Tf32, _) => {
            Err(section.conflict("cudnn_allow_tf32", "contradicts precision = \"tf32\", allowed: true"))
        }
        _ => Ok(Convolutions { format, tf32: given.unwrap_or(without_tf32.is_none()) }),
    }
}

/// A CUDA graph is captured without the host knowing any result: a model that asks the device for one in the
/// middle of a layer cannot be.
fn check_capture(section: &Section<'_>, model: &Model, workload: &Workload) -> Result<(), InputError> {
    if workload.execution != Execution::CudaGraphs {
        return Ok(());
    }
    let mut known = None;
    for (index, layer) in model.layers.iter().enumerate() {
        if known.replace(layer.signature) == Some(layer.signature) {
            continue;
        }
        let work = model.work(index, &workload.shape());
        if let Some(operation) =
            work.forward.iter().chain(&work.backward).find(|operation| operation.host_sync)
        {
            return Err(section.conflict(
                "execution",
                format!(
                    "\"cuda-graphs\" cannot capture {}: in {} the host waits for the device at {}, allowed: \
                     \"eager\", \"compiled\"",
                    model.name, layer.name, operation.name
                ),
            ));
        }
    }
    Ok(())
}

pub(crate) fn read_task(section: &Section<'_>) -> Result<Task, InputError> {
    let tasks = [("training", Task::Training), ("inference", Task::Inference)];
    Ok(section.choice("task", &tasks)?.unwrap_or(Task::Training))
}

/// A vehicle path trains with the source's formula; nothing of precision or optimizer is known there.
pub(crate) fn read_vehicles(section: &Section<'_>) -> Result<(), InputError> {
    if read_task(section)? == Task::Inference {
        return Err(section.conflict("task", "vehicle paths are modelled for \"training\" only"));
    }
    Ok(())
}

/// Every kind of GPU must have the number format.
fn check_precision(section: &Section<'_>, cluster: &Cluster, precision: Precision) -> Result<(), InputError> {
    let Some(gpu) = lacking(cluster, |gpu| gpu.peak(precision.compute()).is_some()) else { return Ok(()) };
    let everywhere = |other: Precision| lacking(cluster, |gpu| gpu.peak(other.compute()).is_some()).is_none();
    let supported = PRECISIONS.iter().filter(|(_, other)| everywhere(*other));
    let name = PRECISIONS.iter().find(|(_, other)| *other == precision).map_or("", |(name, _)| *name);
    Err(InputError::Value {
        origin: section.place("precision"),
        key: section.full("precision"),
        found: format!("\"{name}\", which {} does not have", gpu.name),
        allowed: list(supported.map(|(name, _)| *name)),
        nearest: None,
    })
}

/// `document_length`: how long the documents are that a sequence is packed from; returns how many there are.
fn read_documents(
    section: &Section<'_>,
    sequence_length: u64,
    attention: AttentionKind,
) -> Result<u64, InputError> {
    let Some(length) = section.count("document_length", 1 << 24)? else { return Ok(1) };
    if sequence_length == 0 {
        return Err(section.conflict("document_length", "the model takes no sequences; leave it out"));
    }
    if length > sequence_length {
        let message = format!("found {length}, allowed: at most the {sequence_length} tokens of a sequence");
        return Err(section.conflict("document_length", message));
    }
    if !attention.is_fused() {
        let message = "is for fused kernels, which take each document by itself: eager attention computes all pairs of a \
                       sequence; leave it out";
        return Err(section.conflict("document_length", message));
    }
    Ok(sequence_length.div_ceil(length))
}

/// The sequence length belongs to `[model]`; here it is taken under the names that other tools give it.
fn read_sequence_length(section: &Section<'_>, defaults: &GpuDefaults<'_>) -> Result<u64, InputError> {
    let given = section.count("sequence_length", 1 << 24)?;
    let ModelSection { model, sequence_length, sequence_key, .. } = defaults.section;
    let length = match (model.sample, *sequence_length, given) {
        (_, Some(_), Some(_)) => {
            return Err(section.conflict("sequence_length", "is also given in [model]; keep one of the two"));
        }
        (Sample::Tokens { default_length }, own, given) => own.or(given).unwrap_or(default_length),
        (_, _, None) => 0,
        (_, _, Some(_)) => {
            let message = format!("{} takes no sequences; leave it out", model.name);
            return Err(section.conflict("sequence_length", message));
        }
    };
    match model.longest_sequence() {
        Some(longest) if length > longest => {
            let key =
                if given.is_some() { section.key_place("sequence_length") } else { sequence_key.clone() };
            Err(key.conflict(format!(
                "found {length}, but {} has learned positions for {longest} tokens, allowed: at most {longest}, or \
                 model.overrides = {{ positions = {length} }}",
                model.name
            )))
        }
        _ => Ok(length),
    }
}
