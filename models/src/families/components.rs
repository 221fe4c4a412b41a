//! Models of components: one layer a partition.

use super::{Architecture, LayerPlan};
use crate::component::ComponentGraph;
use crate::model::{LayerRole, Sample};
use crate::operation::{Kernel, LayerWork};
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

    /// One operation forward and one backward. The source states the FLOPs of one direction only; backward is taken
    /// to cost twice as much, as it does for matrix products (one product forward, two backward).
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
        let operation = |name, passes: f64| {
            let flops = Flops((self.partition_flops(index) * samples * passes).round() as u64);
            single(name, Kernel::Component { flops, dtype: shape.compute })
        };
        let work = LayerWork {
            forward: vec![operation("component.forward", 1.0)],
            backward: if shape.training { vec![operation("component.backward", 2.0)] } else { Vec::new() },
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
