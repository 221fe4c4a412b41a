//! Prices of a model's layers: every distinct layer and pass once.

use std::ops::Range;

use steptime_clusters::{
    Basis, Cluster, CollectiveKind, ExecutionStyle, FrameworkCost, HookCost, Transfer, collective,
    memory_bound, point_to_point, price,
};
use steptime_core::SimTime;
use steptime_models::{
    Bytes, ExchangeGroup, ExchangeKind, Kernel, LayerRole, LayerWork, MemoryBoundKind, Model, Operation,
    Pass, Temporary, WorkShape,
};

use super::overlap::{Move, moves};
use super::pieces::Ring;
use super::placement::{Along, Placements};
use super::views::Links;
use crate::error::PlanError;
use crate::plan::Plan;
use crate::recompute::Recomputed;
use crate::router::Router;
use crate::workload::{Execution, Workload};

/// An operation of a layer, priced.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cost {
    /// Kernels on the device.
    Kernel(OpCost),
    /// A transfer among the ranks of a group.
    Exchange(Exchange),
    /// Products in pieces, with the transfers beside them.
    Ring(Ring),
    /// Nothing: another operation does it.
    Done,
}

/// A transfer within a layer, priced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange {
    /// Among which ranks.
    pub(super) along: Along,
    /// Whether it runs beside the operation that follows.
    pub(super) beside: bool,
    pub(super) transfer: Transfer,
}

/// Kernels, priced.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpCost {
    /// Time on the device and host time to launch it.
    pub(super) first: (SimTime, SimTime),
    /// The same for the last of several launches. The host is still launching while the device runs the first
    /// ones: with `n` equal kernels the last can start when all are launched, the others after one launch.
    pub(super) last: Option<(SimTime, SimTime)>,
    /// Kernels that it launches.
    pub(super) launches: u64,
    /// Whether the host waits for it.
    pub(super) host_sync: bool,
    /// Whether memory limits it, not arithmetic.
    pub(super) by_memory: bool,
    /// What the price rests on.
    pub(super) basis: Basis,
}

/// A layer's work on one micro-batch, priced.
#[derive(Clone, Debug)]
pub(super) struct LayerCost {
    pub(super) work: LayerWork,
    pub(super) forward: Vec<Cost>,
    pub(super) backward: Vec<Cost>,
    /// How backward's operations follow each other.
    pub(super) order: Vec<Move>,
    /// What backward recomputes.
    pub(super) recomputes: Recomputed,
    /// Indices of the forward operations that backward runs again.
    pub(super) recomputed: Vec<usize>,
    /// For each saved tensor whether forward keeps it (checkpointing drops some).
    pub(super) kept: Vec<bool>,
    /// Short-lived tensors of forward.
    pub(super) forward_temporary: Short,
    /// The same while forward runs again in backward.
    pub(super) again_temporary: Short,
    /// The same of activation gradients in backward.
    pub(super) backward_temporary: Short,
    /// The same where the gradients of weights are made later.
    pub(super) split_temporary: Short,
    /// Short-lived tensors of forward, where checkpointing keeps less than [`LayerWork::short_lived`] takes for granted.
    pub(super) bare: Option<Vec<Temporary>>,
}

impl LayerCost {
    /// Short-lived tensors of forward as it runs first.
    pub(super) fn forward_lives(&self) -> impl Iterator<Item = &Temporary> + Clone {
        let lives = self.bare.as_ref().unwrap_or(&self.work.short_lived);
        lives.iter().filter(|it| it.pass == Pass::Forward)
    }

    /// The same of a pass that keeps everything for backward, or of backward.
    pub(super) fn lives(&self, pass: Pass) -> impl Iterator<Item = &Temporary> + Clone {
        self.work.short_lived.iter().filter(move |it| it.pass == pass)
    }
}

/// Short-lived memory of a pass of a layer, at the moment when the pass is fullest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Short {
    /// All that is alive at that moment beside what the layer keeps.
    pub(super) bytes: u64,
    /// The largest tensor in it, if that is large enough to have a name of its own in a verdict.
    pub(super) largest: Option<(&'static str, u64)>,
    /// The operation of the pass at which it is fullest.
    pub(super) at: usize,
}

impl Short {
    /// From this size on a tensor is told from the rest: one that matters on any GPU.
    const NAMED_FROM: u64 = 256 << 20;

    /// The fullest moment of a pass of `operations` operations: beside the short-lived tensors are those that stay, each
    /// so many bytes from one operation to another. Of equal moments the first. What is born before an operation is there
    /// when it begins.
    fn of(lives: &[&Temporary], operations: usize, stays: impl Iterator<Item = (u64, usize, usize)>) -> Self {
        let last = operations.max(1) - 1;
        let mut short = Level::new(last);
        for life in lives {
            short.add(life.bytes.0, life.born, life.freed);
        }
        let mut beside = Level::new(last);
        for (bytes, from, to) in stays {
            beside.add(bytes, from, to);
        }
        let (mut at, mut most) = (0, 0);
        for (index, (short, beside)) in short.totals().zip(beside.totals()).enumerate() {
            let total = short.saturating_add(beside);
            if total > most {
                (at, most) = (index, total);
            }
        }
        let alive = lives.iter().filter(|it| it.born <= at && at <= it.freed);
        let bytes = alive.clone().map(|it| it.bytes.0).fold(0, u64::saturating_add);
        let named = alive.filter(|it| it.bytes.0 >= Self::NAMED_FROM);
        let largest = named.rev().max_by_key(|it| it.bytes.0);
        Self { bytes, largest: largest.map(|it| (it.name, it.bytes.0)), at }
    }
}

/// Bytes alive at each operation, as what is born before it and what has died.
struct Level {
    changes: Vec<(u64, u64)>,
}

impl Level {
    fn new(last: usize) -> Self {
        Self { changes: vec![(0, 0); last + 2] }
    }

    /// Something alive from one operation to another, both included.
    fn add(&mut self, bytes: u64, from: usize, to: usize) {
        let end = self.changes.len() - 1;
        if from >= end || to < from {
            return;
        }
        let dies = to.saturating_add(1).min(end);
        self.changes[from].0 = self.changes[from].0.saturating_add(bytes);
        self.changes[dies].1 = self.changes[dies].1.saturating_add(bytes);
    }

    fn totals(&self) -> impl Iterator<Item = u64> + '_ {
        let operations = &self.changes[..self.changes.len() - 1];
        operations.iter().scan(0_u64, |alive, &(born, died)| {
            *alive = alive.saturating_sub(died).saturating_add(born);
            Some(*alive)
        })
    }
}

/// A layer's passes at their fullest moments.
struct Passes<'a> {
    work: &'a LayerWork,
    kept: &'a [bool],
    recomputed: &'a [usize],
}

impl Passes<'_> {
    fn lives(work: &LayerWork, pass: Pass) -> Vec<&Temporary> {
        work.short_lived.iter().filter(|it| it.pass == pass).collect()
    }

    /// Saved tensors that forward keeps, or those that it drops, from their birth on.
    fn born(&self, kept: bool) -> impl Iterator<Item = (u64, usize, usize)> {
        let saved = self.work.saved.iter().zip(self.kept).filter(move |(_, it)| **it == kept);
        saved.map(|(it, _)| (it.bytes.0, it.born, usize::MAX))
    }

    /// Forward, of whose tensors checkpointing keeps some; `bare` is its work where it keeps none.
    fn forward(&self, bare: Option<&LayerWork>) -> Short {
        let first = bare.unwrap_or(self.work);
        let operations = first.forward.len().min(self.work.forward.len());
        Short::of(&Self::lives(first, Pass::Forward), operations, self.born(true))
    }

    /// The operations of forward that backward runs again.
    fn again(&self) -> Short {
        if self.recomputed.is_empty() {
            return Short::default();
        }
        let run = |at: usize| self.recomputed.binary_search(&at).is_ok();
        let lives: Vec<&Temporary> =
            Self::lives(self.work, Pass::Forward).into_iter().filter(|it| run(it.born)).collect();
        let fullest = Short::of(&lives, self.work.forward.len(), self.born(false));
        // Where nothing runs at that moment, before the next operation that does.
        let at = self.recomputed.iter().copied().find(|&at| at >= fullest.at).unwrap_or(fullest.at);
        Short { at, ..fullest }
    }

    /// Backward; without the products that make gradients of weights, what these need stays.
    fn backward(&self, later: bool) -> Short {
        let late = &self.work.weight_gradients.saved;
        let saved = self.work.saved.iter().enumerate().map(|(slot, it)| {
            let stays = later && late.contains(&slot);
            (it.bytes.0, 0, if stays { usize::MAX } else { it.freed })
        });
        Short::of(&Self::lives(self.work, Pass::Backward), self.work.backward.len(), saved)
    }
}

/// Prices operations for one kind of GPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pricer<'a> {
    pub(super) cluster: &'a Cluster,
    /// What its groups are priced by.
    pub(super) links: Links<'a>,
    pub(super) workload: &'a Workload,
    pub(super) plan: &'a Plan,
    /// Routed experts of the model.
    pub(super) experts: u64,
    /// Where the groups sit, by [`Along`].
    pub(super) placements: Placements,
}

impl Pricer<'_> {
    /// How the host issues work.
    pub(super) fn style(self) -> ExecutionStyle {
        match self.workload.execution {
            Execution::Eager => ExecutionStyle::Eager,
            Execution::Compiled => ExecutionStyle::Compiled,
            Execution::CudaGraphs => ExecutionStyle::CudaGraphs,
        }
    }

    /// Host time of `launches` kernel launches in this pass.
    pub(super) fn issue(self, pass: Pass, launches: u64) -> Result<SimTime, PlanError> {
        let each = self.cluster.host.launch_s(self.style(), pass);
        Ok(SimTime::from_seconds(each * launches as f64)?)
    }

    /// Host time that the framework adds to launches.
    pub(super) fn framework(self) -> FrameworkCost {
        self.cluster.host.framework(self.workload.framework, self.style())
    }

    /// Host time of hooks.
    pub(super) fn hooks(self) -> HookCost {
        self.cluster.host.hook_costs(self.style())
    }

    /// Device and host time of an operation. Launches beyond the first add their fixed start.
    pub(super) fn operation(self, operation: &Operation, pass: Pass) -> Result<OpCost, PlanError> {
        let price = price(&self.cluster.gpu, &self.cluster.host, &operation.kernel)?;
        let launches = u64::from(operation.launches.max(1));
        let seconds = price.seconds + (launches - 1) as f64 * self.cluster.gpu.kernel_latency_s;
        let device = SimTime::from_seconds(seconds)?;
        let (host_sync, basis) = (operation.host_sync, price.basis);
        let by_memory = matches!(
            operation.kernel,
            Kernel::MemoryBound { .. } | Kernel::Embedding { .. } | Kernel::Optimizer { .. }
        );
        if launches == 1 {
            return Ok(OpCost {
                first: (device, self.issue(pass, 1)?),
                last: None,
                launches,
                host_sync,
                by_memory,
                basis,
            });
        }
        let last = SimTime::from_picos(device.picos() / launches);
        let first = device.checked_sub(last)?;
        let last = (last, self.issue(pass, launches - 1)?);
        let first = (first, self.issue(pass, 1)?);
        Ok(OpCost { first, last: Some(last), launches, host_sync, by_memory, basis })
    }

    /// Device and host time of a kernel that the plan adds to the model's own.
    pub(super) fn kernel(self, kernel: Kernel, launches: u64, pass: Pass) -> Result<OpCost, PlanError> {
        let launches = u32::try_from(launches).unwrap_or(u32::MAX);
        self.operation(&Operation { name: "", kernel, launches, host_sync: false }, pass)
    }

    /// Price of an operation of a layer.
    fn layer_operation(self, operation: &Operation, pass: Pass) -> Result<Cost, PlanError> {
        match operation.kernel {
            Kernel::Exchange { group, kind, bytes } => Ok(Cost::Exchange(self.exchange(group, kind, bytes))),
            _ => Ok(Cost::Kernel(self.added_up(operation, self.filled(operation, pass)?)?)),
        }
    }

    /// The product of a weight's gradient that adds to what there is. When nothing is left of a tile's sums, what there is has to be
    /// read, in the gradients' format, before it can be added: arithmetic does not hide that. The new result is written behind the
    /// next tile's sums, as that of any product. Measured on such products, 4,096 tokens long (MooreThreads/SimuMax,
    /// `configs/system`, entries with `accumulate=True` against the same ones without): 3.3 bytes a value longer on an A100, 4.0
    /// on a B200, at the rate of elementwise kernels, where 32-bit gradients are 4 bytes to read and 4 to write.
    fn added_up(self, operation: &Operation, cost: OpCost) -> Result<OpCost, PlanError> {
        let Kernel::Gemm { batch, m, n, .. } = operation.kernel else { return Ok(cost) };
        if !(self.workload.accumulation_fusion && operation.makes_weight_gradient()) {
            return Ok(cost);
        }
        let values = batch.saturating_mul(m).saturating_mul(n);
        let more = self.workload.gradients().bytes();
        let traffic = Bytes(values.saturating_mul(more));
        let price = memory_bound(&self.cluster.gpu, MemoryBoundKind::Elementwise, traffic);
        let seconds = price.seconds - self.cluster.gpu.kernel_latency_s;
        let device = cost.first.0.checked_add(SimTime::from_seconds(seconds)?)?;
        Ok(OpCost { first: (device, cost.first.1), basis: cost.basis.max(price.basis), ..cost })
    }

    /// An operation, and with deterministic algorithms the kernel before it that fills the memory of its result.
    fn filled(self, operation: &Operation, pass: Pass) -> Result<OpCost, PlanError> {
        let cost = self.operation(operation, pass)?;
        let Some(written) = fresh_bytes(&operation.kernel).filter(|_| self.workload.deterministic) else {
            return Ok(cost);
        };
        let fill = Kernel::memory(MemoryBoundKind::Fill, Bytes(0), Bytes(written));
        let fill = self.kernel(fill, 1, pass)?;
        let first = (cost.first.0.checked_add(fill.first.0)?, cost.first.1.checked_add(fill.first.1)?);
        let launches = cost.launches + 1;
        Ok(OpCost { first, launches, basis: cost.basis.max(fill.basis), ..cost })
    }

    fn exchange(self, group: ExchangeGroup, kind: ExchangeKind, bytes: Bytes) -> Exchange {
        let along = match group {
            ExchangeGroup::Tensor => Along::Tensor,
            ExchangeGroup::Context => Along::Context,
            ExchangeGroup::Expert => Along::Expert,
            ExchangeGroup::ExpertTensor => Along::ExpertTensor,
        };
        let placement = self.placements[along as usize];
        let transfer = match collective_kind(kind) {
            Some(kind) => collective(self.links.along(along), kind, placement, bytes.0),
            // In a ring the slowest hop counts, and everybody waits for it.
            None => point_to_point(self.links.along(along), placement.nodes > 1, bytes.0),
        };
        Exchange { along, beside: kind == ExchangeKind::SendReceive, transfer }
    }

    fn layer(self, model: &Model, index: usize, recomputes: Recomputed) -> Result<LayerCost, PlanError> {
        let shape = self.plan.shape(self.workload, self.experts, index);
        let work = model.work(index, &shape);
        let all = |operations: &[Operation], pass| {
            let priced = operations.iter().map(|operation| self.layer_operation(operation, pass));
            priced.collect::<Result<Vec<_>, _>>()
        };
        let mut forward = all(&work.forward, Pass::Forward)?;
        let mut backward = all(&work.backward, Pass::Backward)?;
        if model.layers[index].role == LayerRole::Block {
            self.in_pieces(&work.forward, &mut forward, Pass::Forward)?;
            self.in_pieces(&work.backward, &mut backward, Pass::Backward)?;
        }
        let again = |&op: &usize| recomputes.again(&work.forward[op]);
        let recomputed: Vec<usize> = (0..work.forward.len()).filter(again).collect();
        let kept: Vec<bool> = work.saved.iter().map(|tensor| recomputes.keeps(&work, tensor)).collect();
        let bare = recomputes.is_whole().then(|| model.work(index, &WorkShape { training: false, ..shape }));
        let passes = Passes { work: &work, kept: &kept, recomputed: &recomputed };
        Ok(LayerCost {
            forward_temporary: passes.forward(bare.as_ref()),
            again_temporary: passes.again(),
            backward_temporary: passes.backward(false),
            split_temporary: passes.backward(true),
            bare: bare.map(|bare| bare.short_lived),
            order: moves(&work.backward, self.plan.tensor_overlap),
            work,
            forward,
            backward,
            recomputes,
            recomputed,
            kept,
        })
    }
}

/// Bytes of the result of an operation that asks for uninitialized memory by `torch.empty`, which PyTorch fills under
/// `torch.use_deterministic_algorithms` (`torch.utils.deterministic.fill_uninitialized_memory`). Elementwise operations
/// take their results from the allocator directly (ATen `TensorIterator`).
const fn fresh_bytes(kernel: &Kernel) -> Option<u64> {
    match *kernel {
        Kernel::Gemm { batch, m, n, dtype, .. } => {
            let width = if dtype.bytes() > 2 { dtype.bytes() } else { 2 };
            Some(batch.saturating_mul(m).saturating_mul(n).saturating_mul(width))
        }
        Kernel::MemoryBound { kind: MemoryBoundKind::Norm | MemoryBoundKind::Softmax, written, .. } => {
            Some(written.0)
        }
        Kernel::Attention(shape) => Some(shape.result_bytes()),
        _ => None,
    }
}

/// The collective of a kind; None of one that is no collective.
const fn collective_kind(kind: ExchangeKind) -> Option<CollectiveKind> {
    match kind {
        ExchangeKind::AllReduce => Some(CollectiveKind::AllReduce),
        ExchangeKind::AllGather => Some(CollectiveKind::AllGather),
        ExchangeKind::ReduceScatter => Some(CollectiveKind::ReduceScatter),
        ExchangeKind::AllToAll => Some(CollectiveKind::AllToAll),
        ExchangeKind::SendReceive => None,
    }
}

/// Priced layers of a model; equal layers share one price.
#[derive(Clone, Debug)]
pub(super) struct ModelCost {
    distinct: Vec<LayerCost>,
    of_layer: Vec<usize>,
}

impl ModelCost {
    /// Of a model whose stages' chunks are these layers.
    pub(super) fn new(model: &Model, pricer: Pricer<'_>, chunks: &[Range<usize>]) -> Result<Self, PlanError> {
        let recomputed = Recomputed::of_layers(model, pricer.workload, chunks);
        let mut signatures: Vec<(u32, Recomputed, u64)> = Vec::new();
        let load = |layer| {
            let (plan, workload) = (pricer.plan, pricer.workload);
            match &workload.router {
                Router::Drawn(_) => workload.router.layer_load_millionths(layer, pricer.experts, plan.expert),
                // The same in every layer.
                _ => 0,
            }
        };
        let mut distinct = Vec::new();
        let mut of_layer = Vec::with_capacity(model.layers.len());
        for (index, layer) in model.layers.iter().enumerate() {
            let own = (layer.signature, recomputed[index], load(index));
            let known = signatures.iter().position(|&signature| signature == own);
            of_layer.push(if let Some(position) = known {
                position
            } else {
                signatures.push(own);
                distinct.push(pricer.layer(model, index, recomputed[index])?);
                distinct.len() - 1
            });
        }
        Ok(Self { distinct, of_layer })
    }

    /// The weakest basis among the prices of the layers' operations.
    pub(super) fn basis(&self) -> Basis {
        let operations = self.distinct.iter().flat_map(|layer| layer.forward.iter().chain(&layer.backward));
        let kernel = |cost: &Cost| match cost {
            Cost::Kernel(cost) | Cost::Ring(Ring { piece: cost, .. }) => Some(cost.basis),
            Cost::Exchange(_) | Cost::Done => None,
        };
        operations.filter_map(kernel).max().unwrap_or(Basis::Measured)
    }

    pub(super) fn layer(&self, layer: usize) -> &LayerCost {
        &self.distinct[self.of_layer[layer]]
    }
}
