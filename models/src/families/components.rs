//! Models of components: one layer a partition.

use std::sync::Arc;

use crate::component::ComponentGraph;
use crate::model::{Layer, LayerRole, WorkShape};
use crate::operation::{Kernel, LayerWork};
use crate::tape::single;
use crate::units::{Bytes, Flops};

pub(super) fn layers(graph: &ComponentGraph) -> Vec<Layer> {
    graph
        .partitions
        .iter()
        .enumerate()
        .map(|(index, partition)| Layer {
            name: partition.name.clone(),
            role: LayerRole::Component,
            signature: index as u32,
            parameters: Arc::from([]),
            active_parameters: 0,
            stated_memory: Bytes(graph.partition_capacity(index).round() as u64),
        })
        .collect()
}

/// One operation forward and one backward. The source states the FLOPs of one direction only; backward is taken to
/// cost twice as much, as it does for matrix products (one product forward, two backward).
///
/// A partition receives what the one before it sends (the first receives nothing) and keeps nothing beyond its
/// stated memory.
pub(super) fn work(graph: &ComponentGraph, index: usize, shape: &WorkShape) -> LayerWork {
    let samples = shape.micro_batch as f64;
    let sent = |partition: Option<usize>| {
        let volume =
            partition.and_then(|at| graph.partitions.get(at)).map_or(0.0, |it| it.communication_volume);
        Bytes((volume * samples).round() as u64)
    };
    let operation = |name, passes: f64| {
        let flops = Flops((graph.partition_flops(index) * samples * passes).round() as u64);
        single(name, Kernel::Component { flops, dtype: shape.compute })
    };
    LayerWork {
        forward: vec![operation("component.forward", 1.0)],
        backward: if shape.training { vec![operation("component.backward", 2.0)] } else { Vec::new() },
        input: sent(index.checked_sub(1)),
        output: sent(Some(index)),
        ..LayerWork::default()
    }
}
