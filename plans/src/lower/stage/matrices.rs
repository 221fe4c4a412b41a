//! What is done once a step to the matrices of blocks: copies of them in 8 or 4 bits, and Muon's iterations.

use steptime_core::Label;
use steptime_models::{Bytes, Dtype, Kernel, LayerRole, MemoryBoundKind, Pass};

use super::{StageBuilder, StageInput};
use crate::classes;
use crate::error::PlanError;
use crate::workload::OptimizerKind;
use crate::zero::ZeroStage;

/// Newton-Schulz iterations of an update (Jordan et al. 2024).
const ITERATIONS: u64 = 5;

impl StageInput<'_> {
    /// This rank's values in matrices of blocks, trained or not.
    fn all_matrices(&self) -> u64 {
        let blocks = self.layers().filter(|&layer| self.model.layers[layer].role == LayerRole::Block);
        blocks.map(|layer| self.count(layer, |it| it.dimensions.len() == 2)).sum()
    }

    /// Bytes of the copies of weights that products in less than 16 bits take, kept from one update to the next. With
    /// ZeRO 3 they are made of what was gathered and given back with it.
    pub(super) fn converted_weights(&self) -> u64 {
        if self.plan.zero == ZeroStage::Three {
            return 0;
        }
        self.workload.converted_weight_bytes(self.all_matrices())
    }
}

impl StageBuilder<'_> {
    /// Weights converted for the next step: read once, written in two layouts.
    pub(super) fn convert_weights(&mut self, label: Label) -> Result<(), PlanError> {
        let written = self.input.converted_weights();
        if written == 0 {
            return Ok(());
        }
        let read = self.input.all_matrices() * self.storage;
        let kind = MemoryBoundKind::Elementwise;
        let kernel = Kernel::memory(kind, Bytes(read), Bytes(written));
        let cost = self.pricer.kernel(kernel, self.input.trained_tensors().max(1), Pass::Forward)?;
        self.kernel(classes::OPTIMIZER, label, cost)
    }

    /// Muon: five iterations X <- a X + (b A + c A^2) X with A = X X^T on each matrix of m x n values that the rank holds,
    /// m <= n, in 16 bits: 2 m^2 n + 2 m^3 + 2 m^2 n FLOPs each. Matrices divided among ranks are treated by parts
    /// (Megatron-LM's blockwise mode).
    pub(super) fn orthogonalize(&mut self, label: Label) -> Result<(), PlanError> {
        let input = self.input;
        if input.workload.optimizer != OptimizerKind::Muon {
            return Ok(());
        }
        let division = input.plan.division();
        for layer in input.layers().filter(|&layer| input.model.layers[layer].role == LayerRole::Block) {
            for parameter in input.model.layers[layer].parameters.iter().filter(|it| it.trainable) {
                let [rows, columns] = parameter.dimensions[..] else { continue };
                let held = parameter.held_in(&division);
                if held == 0 {
                    continue;
                }
                let part = parameter.count.div_ceil(held).max(1);
                let (long, short) = (rows.max(columns), rows.min(columns));
                // The longer side is the one that is most often divided; the product of both is the same either way.
                let long = long.div_ceil(part);
                self.iterate(label, long.min(short), long.max(short))?;
            }
        }
        Ok(())
    }

    fn iterate(&mut self, label: Label, m: u64, n: u64) -> Result<(), PlanError> {
        let product = |n, k| Kernel::Gemm { batch: 1, m, n, k, dtype: Dtype::Bf16 };
        for kernel in [product(m, n), product(m, m), product(n, m)] {
            let cost = self.pricer.kernel(kernel, 1, Pass::Forward)?;
            for _ in 0..ITERATIONS {
                self.kernel(classes::OPTIMIZER, label, cost)?;
            }
        }
        Ok(())
    }
}
