//! Prices of a model's layers: every distinct layer and pass once.

use steptime_clusters::{Basis, Cluster, ExecutionStyle, price};
use steptime_core::SimTime;
use steptime_models::{Kernel, LayerRole, LayerWork, Model, Operation, Pass, SavedTensor};

use crate::error::PlanError;
use crate::workload::{Checkpointing, Execution, Workload};

/// An operation, priced.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpCost {
    /// Time on the device.
    pub(super) duration: SimTime,
    /// Time that the host spends to launch it.
    pub(super) issue: SimTime,
    /// Whether the host waits for it.
    pub(super) host_sync: bool,
}

/// A layer's work on one micro-batch, priced.
#[derive(Clone, Debug)]
pub(super) struct LayerCost {
    pub(super) work: LayerWork,
    pub(super) forward: Vec<OpCost>,
    pub(super) backward: Vec<OpCost>,
    /// Indices of the forward operations that backward runs again.
    pub(super) recomputed: Vec<usize>,
    /// For each saved tensor whether forward keeps it (checkpointing drops some).
    pub(super) kept: Vec<bool>,
}

/// Prices operations for one kind of GPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pricer<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) workload: &'a Workload,
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

    /// Device and host time of an operation. Launches beyond the first add their fixed start.
    pub(super) fn operation(self, operation: &Operation, pass: Pass) -> Result<OpCost, PlanError> {
        let price = price(&self.cluster.gpu, &self.cluster.host, &operation.kernel)?;
        let more = f64::from(operation.launches.saturating_sub(1));
        let seconds = price.seconds + more * self.cluster.gpu.kernel_latency_s;
        Ok(OpCost {
            duration: SimTime::from_seconds(seconds)?,
            issue: self.issue(pass, u64::from(operation.launches))?,
            host_sync: operation.host_sync,
        })
    }

    /// Device and host time of a kernel that the plan adds to the model's own.
    pub(super) fn kernel(self, kernel: Kernel, launches: u64, pass: Pass) -> Result<OpCost, PlanError> {
        let launches = u32::try_from(launches).unwrap_or(u32::MAX);
        self.operation(&Operation { name: "", kernel, launches, host_sync: false }, pass)
    }

    fn layer(self, model: &Model, index: usize) -> Result<LayerCost, PlanError> {
        let work = model.work(index, &self.workload.shape());
        let all = |operations: &[Operation], pass| {
            operations.iter().map(|operation| self.operation(operation, pass)).collect::<Result<Vec<_>, _>>()
        };
        let forward = all(&work.forward, Pass::Forward)?;
        let backward = all(&work.backward, Pass::Backward)?;
        // Only blocks are checkpointed: the embedding and the head keep what they need.
        let checkpointing = match model.layers[index].role {
            LayerRole::Block => self.workload.checkpointing,
            LayerRole::Embedding | LayerRole::Head | LayerRole::Component => Checkpointing::None,
        };
        let again = |operation: &Operation| match checkpointing {
            Checkpointing::None => false,
            Checkpointing::Selective => operation.is_attention_core(),
            Checkpointing::Full => true,
        };
        let keep = |tensor: &SavedTensor| match checkpointing {
            Checkpointing::None => true,
            Checkpointing::Selective => !tensor.is_attention_core(),
            Checkpointing::Full => tensor.is_layer_input(),
        };
        let recomputed = (0..work.forward.len()).filter(|&op| again(&work.forward[op])).collect();
        let kept = work.saved.iter().map(keep).collect();
        Ok(LayerCost { work, forward, backward, recomputed, kept })
    }
}

/// Priced layers of a model; equal layers share one price.
#[derive(Clone, Debug)]
pub(super) struct ModelCost {
    distinct: Vec<LayerCost>,
    of_layer: Vec<usize>,
}

impl ModelCost {
    pub(super) fn new(model: &Model, pricer: Pricer<'_>) -> Result<Self, PlanError> {
        let mut signatures: Vec<u32> = Vec::new();
        let mut distinct = Vec::new();
        let mut of_layer = Vec::with_capacity(model.layers.len());
        for (index, layer) in model.layers.iter().enumerate() {
            let known = signatures.iter().position(|&signature| signature == layer.signature);
            of_layer.push(if let Some(position) = known {
                position
            } else {
                signatures.push(layer.signature);
                distinct.push(pricer.layer(model, index)?);
                distinct.len() - 1
            });
        }
        Ok(Self { distinct, of_layer })
    }

    pub(super) fn layer(&self, layer: usize) -> &LayerCost {
        &self.distinct[self.of_layer[layer]]
    }
}

/// What the prices of a model's kernels on this GPU rest on, for provenance: the weakest basis met.
pub(super) fn weakest_basis(model: &Model, pricer: Pricer<'_>) -> Result<Basis, PlanError> {
    let mut weakest = Basis::Measured;
    let mut seen = Vec::new();
    for (index, layer) in model.layers.iter().enumerate() {
        if seen.contains(&layer.signature) {
            continue;
        }
        seen.push(layer.signature);
        let work = model.work(index, &pricer.workload.shape());
        for operation in work.forward.iter().chain(&work.backward) {
            weakest = weakest.max(price(&pricer.cluster.gpu, &pricer.cluster.host, &operation.kernel)?.basis);
        }
    }
    Ok(weakest)
}
