//! The own work of hooks on the host: of PyTorch's FSDP by units, of DeepSpeed's ZeRO by modules and gradients.
//!
//! Megatron-LM and nanotron shard with code of their own, which is part of what their blocks are known to take; what
//! DeepSpeed adds to a framework it adds to any. The reducer of `DistributedDataParallel` is C++ of a few microseconds a
//! gradient, which nobody has told from noise.

use std::collections::BTreeSet;
use std::ops::Range;

use steptime_clusters::Framework;
use steptime_models::{Parameter, Pass};

use super::{StageBuilder, StageInput};
use crate::bucket::Bucket;
use crate::error::PlanError;
use crate::fetch::FsdpVersion;
use crate::zero::ZeroStage;

impl StageInput<'_> {
    /// Whether anybody's hooks look after partitioned parameters: alone, a rank has all of them.
    pub(super) fn hooked(&self) -> bool {
        let shared = self.shares().any(|share| self.ranks(share) > 1);
        self.plan.zero == ZeroStage::Three && (shared || self.offloads_parameters())
    }

    /// Parameters of a layer that the rank holds and that are wanted.
    pub(super) fn tensors(
        &self,
        layer: usize,
        wanted: impl Fn(&Parameter) -> bool,
    ) -> impl Iterator<Item = &Parameter> {
        let division = self.plan.division();
        let parameters = self.model.layers[layer].parameters.iter();
        parameters.filter(move |it| wanted(it) && it.held_in(&division) > 0)
    }

    /// Modules of a layer that have parameters of their own, by the names of these.
    pub(super) fn modules(&self, layer: usize) -> u64 {
        let module = |it: &Parameter| it.name.rsplit_once('.').map_or(0, |(module, _)| module.len());
        let names = self.tensors(layer, |_| true).map(|it| &it.name[..module(it)]);
        names.collect::<BTreeSet<_>>().len() as u64
    }
}

impl StageBuilder<'_> {
    /// What hooks do around a pass over a layer: FSDP's at the first layer of a unit, DeepSpeed's at each module. Where
    /// backward begins with forward again, DeepSpeed's run for both.
    pub(super) fn hook_pass(
        &mut self,
        layer: usize,
        unit: &Range<usize>,
        micro_batch: u32,
        pass: Pass,
    ) -> Result<(), PlanError> {
        let input = self.input;
        if !input.hooked() {
            return Ok(());
        }
        let hooks = self.pricer.hooks();
        if input.plan.fetch.is_deepspeed() {
            let costs = hooks.deepspeed;
            let again = !input.cost(layer, micro_batch).recomputed.is_empty();
            let each = match pass {
                Pass::Forward => costs.module_forward_s,
                Pass::Backward if again => costs.module_forward_s + costs.module_backward_s,
                Pass::Backward => costs.module_backward_s,
            };
            return self.take("hooks", self.of_layers[input.slot(layer)].modules as f64 * each);
        }
        let first = match pass {
            Pass::Forward => unit.start,
            Pass::Backward => unit.end - 1,
        };
        if layer != first || input.workload.framework != Framework::PyTorch {
            return Ok(());
        }
        let costs = match input.plan.fetch.version {
            FsdpVersion::Flat => hooks.fsdp1,
            FsdpVersion::PerParameter => hooks.fsdp2,
        };
        let tensors: u64 = unit.clone().map(|it| self.of_layers[input.slot(it)].tensors).sum();
        let (whole, each) = match pass {
            Pass::Forward => (costs.unit_forward_s, costs.parameter_forward_s),
            Pass::Backward => (costs.unit_backward_s, costs.parameter_backward_s),
        };
        if tensors == 0 {
            return Ok(());
        }
        self.take("hooks", whole + tensors as f64 * each)
    }

    /// What DeepSpeed does for each parameter of a unit that is gathered now.
    pub(super) fn hook_gather(&mut self, unit: &Range<usize>) -> Result<(), PlanError> {
        let input = self.input;
        if !(input.hooked() && input.plan.fetch.is_deepspeed()) {
            return Ok(());
        }
        let gathered = |layer| input.tensors(layer, |it| !input.persists(it)).count();
        let tensors: usize = unit.clone().map(gathered).sum();
        self.take("hooks", tensors as f64 * self.pricer.hooks().deepspeed.parameter_gathered_s)
    }

    /// What DeepSpeed's stage 3 does for each gradient of layers that are reduced now.
    pub(super) fn hook_gradients(&mut self, layers: &[usize]) -> Result<(), PlanError> {
        let input = self.input;
        if !(input.hooked() && input.plan.fetch.is_deepspeed()) {
            return Ok(());
        }
        let trained = |&layer: &usize| input.tensors(layer, |it| it.trainable && input.owns(it)).count();
        let tensors: usize = layers.iter().map(trained).sum();
        self.take("hooks", tensors as f64 * self.pricer.hooks().deepspeed.gradient_stage3_s)
    }

    /// What its stages 1 and 2 do for each gradient of a bucket.
    pub(super) fn hook_bucket(&mut self, bucket: Bucket) -> Result<(), PlanError> {
        let input = self.input;
        let partitions = matches!(input.plan.zero, ZeroStage::One | ZeroStage::Two);
        if !partitions || input.workload.framework != Framework::PyTorch {
            return Ok(());
        }
        self.take("hooks", bucket.tensors as f64 * self.pricer.hooks().deepspeed.gradient_s)
    }
}
