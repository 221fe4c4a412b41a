//! What is trained and how: batch, precision, optimizer, execution.

pub(crate) use crate::recompute::{CheckpointedBlocks, Checkpointing};
use steptime_clusters::Framework;
use steptime_models::{
    AttentionKind, Convolutions, CrossEntropy, Dtype, Formats, Fusion, Modules, Scaling, WorkShape,
};

use crate::clipping::Clipping;
use crate::router::Router;

/// Training or inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Forward, backward and update.
    Training,
    /// Forward only; nothing is saved for backward.
    Inference,
}

/// Number format of a run, as users name it.
///
/// With a 16-bit or 8-bit format, weights and gradients are 16-bit and the optimizer keeps a 32-bit master
/// copy beside its states (mixed precision in the sense of the ZeRO paper, section 3.1), unless autocast keeps the
/// weights in 32 bits ([`Workload::autocast`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit throughout, products on the CUDA cores.
    Fp32,
    /// 32-bit storage, products on tensor cores with a 10-bit mantissa.
    Tf32,
    /// Mixed precision with fp16.
    Fp16,
    /// Mixed precision with bfloat16.
    Bf16,
    /// bfloat16 with matrix products of linear layers in 8-bit floats.
    Fp8,
    /// bfloat16 with matrix products of linear layers in 4-bit floats (NVFP4).
    Fp4,
}

impl Precision {
    /// Format of matrix products.
    pub const fn compute(self) -> Dtype {
        match self {
            Self::Fp32 => Dtype::Fp32,
            Self::Tf32 => Dtype::Tf32,
            Self::Fp16 => Dtype::Fp16,
            Self::Bf16 => Dtype::Bf16,
            Self::Fp8 => Dtype::Fp8,
            Self::Fp4 => Dtype::Fp4,
        }
    }

    /// Format of stored activations, weights and gradients.
    pub const fn storage(self) -> Dtype {
        match self {
            Self::Fp32 | Self::Tf32 => Dtype::Fp32,
            Self::Fp16 => Dtype::Fp16,
            Self::Bf16 | Self::Fp8 | Self::Fp4 => Dtype::Bf16,
        }
    }

    /// Whether the optimizer keeps a 32-bit copy of the weights.
    pub const fn has_master_copy(self) -> bool {
        !matches!(self, Self::Fp32 | Self::Tf32)
    }
}

/// Update rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptimizerKind {
    /// Adam: two moments.
    Adam,
    /// Adam with decoupled weight decay: the same states.
    AdamW,
    /// Plain gradient descent: no state.
    Sgd,
    /// Gradient descent with one momentum.
    SgdMomentum,
    /// Momentum made orthogonal by Newton-Schulz iterations for the matrices of blocks, Adam for the rest (Jordan et
    /// al. 2024; Liu et al. 2025, Muon is Scalable for LLM Training).
    Muon,
}

impl OptimizerKind {
    /// 32-bit values kept for each parameter, the master copy not counted.
    ///
    /// Of Muon's matrices there is one less: [`OptimizerKind::matrix_moments`].
    pub const fn moments(self) -> u64 {
        match self {
            Self::Adam | Self::AdamW | Self::Muon => 2,
            Self::SgdMomentum => 1,
            Self::Sgd => 0,
        }
    }
}

impl OptimizerKind {
    /// The same of a matrix of a block.
    pub const fn matrix_moments(self) -> u64 {
        match self {
            Self::Muon => 1,
            _ => self.moments(),
        }
    }
}

/// How the update runs on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptimizerImplementation {
    /// One kernel for each elementary step and tensor (PyTorch's default before 2.0, and optimizers written out in
    /// Python).
    ForLoop,
    /// One kernel for each elementary step over lists of tensors (PyTorch's default).
    Foreach,
    /// One kernel for the whole update of many tensors (`fused=True`, Apex, DeepSpeed, Megatron).
    Fused,
}

/// How the framework runs the model's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execution {
    /// Each operation issued from Python.
    Eager,
    /// A compiled model: the host issues kernels from generated code.
    Compiled,
    /// Whole graphs replayed by the device.
    CudaGraphs,
}

/// The work of one step on every data-parallel rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Training or inference.
    pub task: Task,
    /// Samples a micro-batch and data-parallel rank.
    pub micro_batch_size: u64,
    /// Micro-batches a step.
    pub accumulation: u64,
    /// Samples of the last micro-batch of a step, where it is smaller than the others.
    pub last_micro_batch_size: Option<u64>,
    /// Tokens a sequence; ignored for images.
    pub sequence_length: u64,
    /// Documents that a sequence is packed from: fused attention stays within each. 1 for whole sequences.
    pub documents: u64,
    /// Number format.
    pub precision: Precision,
    /// How values are scaled to 8 bits.
    pub scaling: Scaling,
    /// How many tokens each routed expert gets.
    pub router: Router,
    /// Whether `torch.autocast` chooses each operation's format; parameters, gradients and states are then 32-bit.
    pub autocast: bool,
    /// Whether parameters, gradients and states are 32-bit though modules find their parameters in 16 bits: FSDP's
    /// `MixedPrecision(param_dtype)`, `MixedPrecisionPolicy`. Goes with ZeRO 3.
    pub wide_parameters: bool,
    /// Whether norms stay in 16 bits under autocast.
    pub low_precision_norms: bool,
    /// Cross-entropies of the logits that are computed once more as metrics, for each micro-batch.
    pub loss_metrics: u64,
    /// Whose kernels compute the loss of language models.
    pub cross_entropy: CrossEntropy,
    /// Update rule.
    pub optimizer: OptimizerKind,
    /// How it is implemented.
    pub implementation: OptimizerImplementation,
    /// A share of each weight is added to its gradient before Adam's or gradient descent's update: one elementary step
    /// more. Decoupled decay is part of the others.
    pub weight_decay: bool,
    /// Whether the loss is multiplied by a scale, so that gradients are found in fp16's range, and gradients are divided
    /// by it before the update.
    pub loss_scaling: bool,
    /// How gradients are clipped.
    pub clipping: Clipping,
    /// How attention is computed.
    pub attention: AttentionKind,
    /// How operations are issued.
    pub execution: Execution,
    /// What issues them.
    pub framework: Framework,
    /// Which memory-bound operations are one kernel, where the execution does not decide it.
    pub fusion: Fusion,
    /// What is recomputed.
    pub checkpointing: Checkpointing,
    /// In which blocks, where whole ones are.
    pub checkpointed: CheckpointedBlocks,
    /// Whether gradients are added up over micro-batches, kept and reduced in 32 bits whatever the weights have.
    pub wide_gradients: bool,
    /// Whether the products that make gradients of weights add to them at once (Megatron-LM's
    /// `gradient_accumulation_fusion`); otherwise each tensor is added by a kernel of its own.
    pub accumulation_fusion: bool,
    /// Whether the experts that a rank holds run one after the other, and not in grouped products.
    pub sequential_experts: bool,
    /// Whether the host looks at each micro-batch's loss.
    pub check_for_nan: bool,
    /// Whether each step counts the zeros among the gradients.
    pub log_num_zeros_in_grad: bool,
    /// Whether each step takes the norm of the parameters.
    pub log_params_norm: bool,
    /// How convolutions run.
    pub convolutions: Convolutions,
    /// Whose modules the blocks are made of.
    pub modules: Modules,
    /// Whether PyTorch's deterministic algorithms are on, which cuBLAS needs a workspace of a fixed size for
    /// (`CUBLAS_WORKSPACE_CONFIG=:4096:8`).
    pub deterministic: bool,
    /// Whether the loader makes a mask of one byte for each query and key of a sequence, which the first and the last
    /// stage hold while they run forward (Megatron-LM's `create_attention_mask`).
    pub attention_mask: bool,
    /// Whether batches are made on the device, once, instead of being copied to it.
    pub synthetic_data: bool,
}

impl Workload {
    /// Format in which gradients are added up over micro-batches, kept and reduced.
    pub const fn gradients(&self) -> Dtype {
        if self.wide_gradients { Dtype::Fp32 } else { self.parameter_format() }
    }

    /// Format in which the update finds gradients: scaled ones are divided into 32-bit copies where the weights have
    /// a 32-bit copy (Apex's master gradients), else in their place.
    pub const fn updated_gradients(&self) -> Dtype {
        if self.loss_scaling && self.has_master_copy() { Dtype::Fp32 } else { self.gradients() }
    }

    /// The shape in which the model is asked for its work.
    pub fn shape(&self) -> WorkShape {
        WorkShape {
            micro_batch: self.micro_batch_size,
            sequence_length: self.sequence_length,
            documents: self.documents,
            compute: self.precision.compute(),
            scaling: self.scaling,
            activation: self.precision.storage(),
            attention: self.attention,
            training: self.task == Task::Training,
            fusion: if self.execution == Execution::Compiled { Fusion::Compiled } else { self.fusion },
            convolutions: self.convolutions,
            formats: self.formats(self.parameter_format()),
            loss_metrics: self.loss_metrics,
            cross_entropy: self.cross_entropy,
            modules: self.modules,
            ..WorkShape::default()
        }
    }

    /// Formats of the model's operations that find its parameters in the format `parameters`.
    pub(crate) const fn formats(&self, parameters: Dtype) -> Formats {
        if self.autocast {
            Formats::Autocast { parameters, low_precision_norms: self.low_precision_norms }
        } else {
            Formats::Uniform
        }
    }

    /// Format in which ranks hold parameters and gradients.
    pub const fn parameter_format(&self) -> Dtype {
        if self.autocast || self.wide_parameters { Dtype::Fp32 } else { self.precision.storage() }
    }

    /// Whether the optimizer keeps a 32-bit copy of the weights: they have 16 bits themselves.
    pub const fn has_master_copy(&self) -> bool {
        self.precision.has_master_copy() && !self.autocast && !self.wide_parameters
    }

    /// Samples of a step on a data-parallel rank.
    pub fn samples(&self) -> u64 {
        let last = self.last_micro_batch_size.unwrap_or(self.micro_batch_size);
        self.micro_batch_size.saturating_mul(self.accumulation.saturating_sub(1)).saturating_add(last)
    }

    /// The workload with micro-batches of the size of the last one, where that is smaller.
    pub(crate) fn short_last(&self) -> Option<Self> {
        let size = self.last_micro_batch_size.filter(|&size| size < self.micro_batch_size)?;
        Some(Self { micro_batch_size: size, ..self.clone() })
    }

    /// Bytes of the copies of `values` weights that products in less than 16 bits take, with their scales: one for
    /// products forward, and in training one turned by a quarter for the gradients. 0 in other formats.
    pub fn converted_weight_bytes(&self, values: u64) -> u64 {
        let format = self.precision.compute();
        if format.bytes() > 1 {
            return 0;
        }
        let copy = self.scaling.stored_bytes(format, values);
        if self.task == Task::Training { 2 * copy } else { copy }
    }

    /// Whether weight decay is an elementary step of its own; a fused kernel does it on the way.
    fn decays_in_a_step(&self) -> bool {
        self.weight_decay && self.implementation != OptimizerImplementation::Fused
    }

    /// Bytes that the update reads and writes for each parameter.
    ///
    /// Fused: the gradient and every state are read once, every state and the weight written once. Foreach
    /// runs PyTorch's `_multi_tensor_adam` (2.1 and later) step by step, each step reading and writing its lists:
    /// gradient blended into the first moment (12), second moment scaled (8), squared gradient added (12),
    /// square root (8), bias correction (8), epsilon (8), quotient added to the weight (16): 72 bytes for 32-bit
    /// Adam, and 8 more for decoupled weight decay. For-loop: `_single_tensor_adam` of PyTorch 1.13 does the same tensor
    /// by tensor, but scales the first moment (8) and adds the gradient to it (12) in two steps. Weight
    /// decay by the gradient is 12 bytes more in both.
    pub fn update_traffic_per_parameter(&self) -> u64 {
        let storage = self.parameter_format().bytes();
        let gradient = self.updated_gradients().bytes();
        let states = 4 * self.optimizer.moments();
        // Weight and gradient read, gradient written.
        let decayed = if self.decays_in_a_step() { 12 } else { 0 };
        match (self.implementation, self.optimizer) {
            (OptimizerImplementation::Fused, _) if self.has_master_copy() => {
                gradient + 2 * (states + 4) + storage
            }
            (OptimizerImplementation::Fused, _) => gradient + 2 * states + 2 * storage,
            (OptimizerImplementation::Foreach | OptimizerImplementation::ForLoop, kind) => {
                let master = if self.has_master_copy() {
                    // The gradient is widened to 32 bits first if it is narrower, the weight narrowed afterwards.
                    let widened = if gradient < 4 { gradient + 4 } else { 0 };
                    widened + storage + 4
                } else {
                    0
                };
                let scaled = if self.implementation == OptimizerImplementation::ForLoop { 8 } else { 0 };
                master
                    + decayed
                    + match kind {
                        OptimizerKind::Adam => 72 + scaled,
                        OptimizerKind::AdamW | OptimizerKind::Muon => 80 + scaled,
                        OptimizerKind::Sgd => 12,
                        OptimizerKind::SgdMomentum => 8 + 12 + 12,
                    }
            }
        }
    }

    /// Bytes of lists that the update makes for each parameter and gives back: foreach Adam takes the square root
    /// of the second moments into a list of its own, and with a master copy widens the gradients first. A loop over
    /// tensors makes them for one tensor at a time, which is not counted.
    pub fn update_temporary_per_parameter(&self) -> u64 {
        if self.implementation != OptimizerImplementation::Foreach {
            return 0;
        }
        let widened = if self.has_master_copy() && self.updated_gradients().bytes() < 4 { 4 } else { 0 };
        match self.optimizer {
            OptimizerKind::Adam | OptimizerKind::AdamW | OptimizerKind::Muon => 4 + widened,
            OptimizerKind::Sgd | OptimizerKind::SgdMomentum => widened,
        }
    }

    /// Kernels that the update launches over `tensors` parameter tensors with `parameters` values: one a step and
    /// tensor in a loop over them.
    pub fn update_launches(&self, tensors: u64, parameters: u64) -> u64 {
        let launches = list_launches(tensors, parameters);
        let steps = match (self.implementation, self.optimizer) {
            (OptimizerImplementation::Fused, _) | (_, OptimizerKind::Sgd) => 1,
            (_, OptimizerKind::Adam) => 7,
            (_, OptimizerKind::AdamW | OptimizerKind::Muon) => 8,
            (_, OptimizerKind::SgdMomentum) => 3,
        };
        let steps = steps + u64::from(self.decays_in_a_step());
        if self.implementation != OptimizerImplementation::ForLoop {
            return launches * steps;
        }
        // The first moment takes two steps; gradients are widened and weights narrowed tensor by tensor, too.
        let scaled = u64::from(self.optimizer.moments() > 1);
        let narrow = self.updated_gradients().bytes() < 4;
        let converted = if self.has_master_copy() { 1 + u64::from(narrow) } else { 0 };
        tensors.max(1) * (steps + scaled + converted)
    }
}

/// Kernels of one elementary step over lists of tensors.
///
/// A multi-tensor launch takes at most 36 to 110 tensors (by the number of lists) and 320 chunks of
/// 65,536 values (PyTorch `MultiTensorApply.cuh`); 48 tensors is the limit for four lists.
pub(crate) fn list_launches(tensors: u64, parameters: u64) -> u64 {
    tensors.div_ceil(48).max(parameters.div_ceil(320 * 65_536)).max(1)
}
