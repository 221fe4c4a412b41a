//! The operations of a model's layers one by one, with what they compute, move and take.

use steptime_clusters::{Cluster, traffic};
use steptime_core::SimTime;
use steptime_models::{Bytes, Flops, Kernel, Model, Operation};

use super::cost::{Cost, LayerCost};
use super::pricing::costs_of_first_rank;
use crate::error::PlanError;
use crate::plan::Plan;
use crate::workload::{Task, Workload};

/// An operation of a layer on one micro-batch, as a rank runs it.
#[derive(Clone, Debug, PartialEq)]
pub struct PricedOperation {
    /// The first layer that has it.
    pub layer: String,
    /// Layers that are alike, this one among them.
    pub layers: u64,
    /// `forward` or `backward`.
    pub pass: &'static str,
    /// Its name, e.g. `attention.qkv`.
    pub operation: &'static str,
    /// `matmul`, `attention`, `convolution`, `memory` or `other`.
    pub kind: &'static str,
    /// What it does, in words.
    pub shape: String,
    /// Arithmetic; zero where it is not counted, of everything that memory limits.
    pub flops: Flops,
    /// Bytes that it must read and write once.
    pub bytes: Bytes,
    /// Device time.
    pub time: SimTime,
}

/// The operations of every distinct layer, where all GPUs and micro-batches are alike (else those of the first rank);
/// transfers, updates and what checkpointing runs again are left out.
///
/// # Errors
/// As [`super::layer_times`].
pub fn operations(
    model: &Model,
    cluster: &Cluster,
    plan: &Plan,
    workload: &Workload,
) -> Result<Vec<PricedOperation>, PlanError> {
    let Some(costs) = costs_of_first_rank(model, cluster, plan, workload)? else { return Ok(Vec::new()) };
    let mut kinds: Vec<(&LayerCost, usize, u64)> = Vec::new();
    for layer in 0..model.layers.len() {
        let cost = costs.layer(layer);
        match kinds.iter_mut().find(|(known, ..)| std::ptr::eq(*known, cost)) {
            Some((.., count)) => *count += 1,
            None => kinds.push((cost, layer, 1)),
        }
    }
    let trains = workload.task == Task::Training;
    let mut all = Vec::new();
    for (cost, layer, layers) in kinds {
        let name = &model.layers[layer].name;
        let passes = [
            ("forward", &cost.work.forward, &cost.forward),
            ("backward", &cost.work.backward, &cost.backward),
        ];
        for (pass, listed, prices) in passes.into_iter().filter(|(pass, ..)| trains || *pass == "forward") {
            let rows = listed.iter().zip(prices.iter());
            all.extend(rows.filter_map(|(operation, price)| row(name, layers, pass, operation, price)));
        }
    }
    Ok(all)
}

fn row(
    layer: &str,
    layers: u64,
    pass: &'static str,
    operation: &Operation,
    price: &Cost,
) -> Option<PricedOperation> {
    let Cost::Kernel(cost) = price else { return None };
    let last = cost.last.map_or(0, |(device, _)| device.picos());
    Some(PricedOperation {
        layer: layer.to_owned(),
        layers,
        pass,
        operation: operation.name,
        kind: match operation.kernel {
            Kernel::Gemm { .. } => "matmul",
            Kernel::Attention(_) => "attention",
            Kernel::Convolution(_) => "convolution",
            Kernel::MemoryBound { .. } | Kernel::Embedding { .. } => "memory",
            _ => "other",
        },
        shape: operation.kernel.to_string(),
        flops: operation.kernel.flops(),
        bytes: traffic(&operation.kernel),
        time: SimTime::from_picos(cost.first.0.picos().saturating_add(last)),
    })
}
