//! Models of components: one layer a partition.

use super::{Architecture, LayerPlan};
use crate::component::ComponentGraph;
use crate::model::{LayerRole, Sample};
use crate::operation::{Kernel, LayerWork, WeightGradients};
use crate::tape::{Trace, Traced, single};
use crate::units::{Bytes, Flops};

impl Architecture for ComponentGraph {
    fn sample(&self) -> Sample {
        Sample::Opaque
    }

    fn layers(&self) -> Vec<LayerPlan> {
        let numbered = (0..).zip(&self.partitions);
        numbered.map(|(kind, it)| LayerPlan::new(&it.name, LayerRole::Component, kind)).collect()
    }

    /// One operation forward and two backward. The source states the FLOPs of one direction only; backward is taken
    /// to cost twice as much, as it does for matrix products: one product forward, one for the gradients of inputs and
    /// one for those of weights.
    ///
    /// A partition receives what the one before it sends (the first receives nothing) and keeps nothing beyond its
    /// stated memory.
    fn trace(&self, kind: u32, trace: Trace<'_>) -> Traced {
        let (index, shape) = (kind as usize, trace.shape);
        let samples = shape.micro_batch as f64;
        let sent = |partition: Option<usize>| {
            let volume =
                partition.and_then(|at| self.partitions.get(at)).map_or(0.0, |it| it.communication_volume);
            Bytes((volume * samples).round() as u64)
        };
        let operation = |name| {
            let flops = Flops((self.partition_flops(index) * samples).round() as u64);
            single(name, Kernel::Component { flops, dtype: shape.compute })
        };
        let (backward, operations) = if shape.training {
            (vec![operation("component.grad_input"), operation("component.grad_weight")], vec![1])
        } else {
            (Vec::new(), Vec::new())
        };
        let work = LayerWork {
            forward: vec![operation("component.forward")],
            backward,
            weight_gradients: WeightGradients { operations, ..WeightGradients::default() },
            input: sent(index.checked_sub(1)),
            output: sent(Some(index)),
            ..LayerWork::default()
        };
        Traced { work, parameters: Vec::new(), routing: (1, 1) }
    }

    fn stated_memory(&self, kind: u32) -> Bytes {
        Bytes(self.partition_capacity(kind as usize).round() as u64)
    }

    fn components(&self) -> Option<&ComponentGraph> {
        Some(self)
    }
}
