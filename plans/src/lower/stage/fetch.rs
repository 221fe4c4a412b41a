//! Parameters and gradients that ZeRO 3 has partitioned: gathered unit by unit before they are used, reduced unit by unit.

use std::ops::Range;

use steptime_clusters::CollectiveKind;
use steptime_core::{Event, Stream, Tensor};
use steptime_models::{LayerRole, Parameter, Pass};

use super::data_parallel::{Pending, copied};
use super::passes::Turn;
use super::{Along, StageBuilder, StageInput};
use crate::bucket::Share;
use crate::classes;
use crate::error::PlanError;
use crate::fetch::BackwardPrefetch;
use crate::zero::ZeroStage;

/// Units that are whole at a time where the host waits for them (PyTorch FSDP's rate limiter).
const MOST_UNITS: usize = 2;

/// A unit's parameters, gathered from all ranks.
#[derive(Clone, Debug)]
pub(super) struct Gathered {
    unit: Range<usize>,
    micro_batch: u32,
    tensor: Tensor,
    values: u64,
    /// When this rank's part has come from the host.
    fetched: Option<Event>,
    arrived: Event,
}

/// A gathered unit whose compute has been issued.
#[derive(Clone, Copy, Debug)]
pub(super) struct Release {
    tensor: Tensor,
    values: u64,
    /// When the compute on it has ended.
    done: Event,
}

impl StageInput<'_> {
    /// Whether a parameter stays whole on every rank.
    pub(super) fn persists(&self, parameter: &Parameter) -> bool {
        self.plan.zero == ZeroStage::Three && parameter.count < self.plan.fetch.persistent_below
    }

    /// The layers that are gathered together with one.
    pub(super) fn unit(&self, layer: usize) -> Range<usize> {
        let size = (self.plan.fetch.unit as usize).max(1);
        let block = |layer: usize| self.model.layers[layer].role == LayerRole::Block;
        let chunk = self.chunks.iter().find(|chunk| chunk.layers.contains(&layer));
        let Some(chunk) = chunk.filter(|_| size > 1 && block(layer)) else { return layer..layer + 1 };
        let first = chunk.layers.clone().find(|&it| block(it)).unwrap_or(layer);
        let start = layer - (layer - first) % size;
        let end = (start..chunk.layers.end.min(start + size)).find(|&it| !block(it));
        start..end.unwrap_or(chunk.layers.end.min(start + size))
    }

    /// Values of a layer that have to be gathered before it runs.
    fn gathered_values(&self, share: Share, layer: usize) -> u64 {
        self.count_in(share, layer, |it| !self.persists(it))
    }
}

impl StageBuilder<'_> {
    /// With ZeRO 3, gathers the parameters of a layer's unit, if they are not there, asks for what comes `next` as early as
    /// the plan says, and makes the compute wait for the layer's.
    pub(super) fn fetch(
        &mut self,
        layer: usize,
        next: impl Iterator<Item = usize>,
        micro_batch: u32,
        pass: Pass,
    ) -> Result<(), PlanError> {
        if self.input.plan.zero != ZeroStage::Three {
            return Ok(());
        }
        let unit = self.input.unit(layer);
        self.hook_pass(layer, &unit, micro_batch, pass)?;
        self.gather(&unit, micro_batch, pass)?;
        let fetch = self.input.plan.fetch;
        let early = match pass {
            Pass::Forward => fetch.forward_ahead,
            Pass::Backward => fetch.backward == BackwardPrefetch::Before,
        };
        self.fetch_ahead(&unit, next, micro_batch, pass, early)?;
        if let Some(at) = self.gathered_at(&unit, micro_batch) {
            let Gathered { fetched, arrived, .. } = self.gathered[at];
            // Waiting for the host is told from waiting for the other ranks.
            if let Some(fetched) = fetched {
                self.program.wait(self.streams.compute, fetched);
            }
            self.program.wait(self.streams.compute, arrived);
        }
        Ok(())
    }

    /// What backward asks for once the gradients of a layer are on their way.
    pub(super) fn fetch_after(&mut self, layer: usize, micro_batch: u32) -> Result<(), PlanError> {
        let after = self.input.plan.fetch.backward == BackwardPrefetch::After;
        if self.input.plan.zero != ZeroStage::Three || !after {
            return Ok(());
        }
        let unit = self.input.unit(layer);
        let chunk = self.input.chunks.iter().find(|chunk| chunk.layers.contains(&layer));
        let start = chunk.map_or(layer, |chunk| chunk.layers.start);
        let next = (start..unit.start).rev();
        if layer == unit.start {
            self.fetch_ahead(&unit, next, micro_batch, Pass::Backward, true)
        } else {
            Ok(())
        }
    }

    /// Asks for the units of the layers that come next: one, or until as many values are asked for as the plan says. As in
    /// DeepSpeed (`fetch_sub_module`), what reaches that number is asked for whole, and what is there or on its way does not
    /// count.
    fn fetch_ahead(
        &mut self,
        unit: &Range<usize>,
        next: impl Iterator<Item = usize>,
        micro_batch: u32,
        pass: Pass,
        early: bool,
    ) -> Result<(), PlanError> {
        let by_values = self.input.plan.fetch.by_values;
        if by_values.is_none() && !early {
            return Ok(());
        }
        let mut before = unit.clone();
        let mut asked = 0_u64;
        let most = by_values.map(|most| most.ahead.min(most.live.saturating_sub(self.live())));
        for layer in next {
            let unit = self.input.unit(layer);
            if unit == before {
                continue;
            }
            before = unit.clone();
            if let Some(most) = most {
                if asked >= most {
                    return Ok(());
                }
                if self.gathered_at(&unit, micro_batch).is_none() {
                    asked = asked.saturating_add(self.values_of(&unit));
                }
            }
            self.gather(&unit, micro_batch, pass)?;
            if by_values.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn gathered_at(&self, unit: &Range<usize>, micro_batch: u32) -> Option<usize> {
        self.gathered.iter().position(|it| it.unit == *unit && it.micro_batch == micro_batch)
    }

    /// Values that are whole now, or not known not to be.
    fn live(&self) -> u64 {
        let released = self.releases.iter().map(|it| it.values);
        self.gathered.iter().map(|it| it.values).chain(released).fold(0, u64::saturating_add)
    }

    fn values_of(&self, unit: &Range<usize>) -> u64 {
        let of_share = |share| unit.clone().map(|it| self.input.gathered_values(share, it)).sum::<u64>();
        self.input.shares().map(of_share).sum()
    }

    /// Gathers a unit, unless it is whole.
    ///
    /// The host may be two gathered units ahead of the compute (PyTorch FSDP's rate limiter): before it
    /// gathers a third it waits until the compute on the oldest has ended. Only then can the oldest one's memory
    /// be used again.
    ///
    /// Backward gathers from the second copy, where there is one.
    fn gather(&mut self, unit: &Range<usize>, micro_batch: u32, pass: Pass) -> Result<(), PlanError> {
        let input = self.input;
        if self.gathered_at(unit, micro_batch).is_some() {
            return Ok(());
        }
        let second = pass == Pass::Backward && input.plan.sharding.secondary.is_some();
        // From the host come parts of parameters that nobody shares, too.
        let shares = input.shares().filter(|share| input.ranks(*share) > 1 || input.offloads_parameters());
        let values = |share| unit.clone().map(|layer| input.gathered_values(share, layer)).sum::<u64>();
        let parts: Vec<(Share, u64)> =
            shares.map(|share| (share, values(share))).filter(|part| part.1 > 0).collect();
        let values: u64 = parts.iter().map(|(_, values)| values).sum();
        if values == 0 {
            return Ok(());
        }
        self.hook_gather(unit)?;
        let limited = input.plan.fetch.limited && input.plan.fetch.by_values.is_none();
        if limited && self.releases.len() >= MOST_UNITS {
            let oldest = self.releases.remove(0);
            self.program.host_wait(oldest.done);
            self.program.free(self.streams.compute, oldest.tensor);
        }
        let name = input.model.layers[unit.start].name.as_str();
        let label = self.tensor_label(unit.start, "gathered parameters");
        let format = input.plan.gathered_format(input.workload).bytes();
        let tensor = self.program.tensor(values * format, classes::BUFFERS, label);
        self.program.alloc(self.streams.collective, tensor);
        let fetched = self.fetch_part(unit.start, &parts, micro_batch)?;
        if format != self.storage {
            // The rank's own part is converted before it is sent.
            let part: u64 = parts.iter().map(|&(share, values)| values.div_ceil(input.ranks(share))).sum();
            let span = self.label(name, "all_gather", Some(micro_batch));
            self.pass_over(span, part * self.storage, part * format)?;
        }
        for (share, values) in parts {
            let along = if second { Along::Secondary } else { StageInput::copies(share) };
            if input.plan.fetch.lists {
                self.gather_lists(unit, (share, along), (format, pass), micro_batch)?;
                continue;
            }
            let way = (self.streams.collective, along);
            let names = (name, "all_gather");
            self.collective_along(way, CollectiveKind::AllGather, names, values * format, Some(micro_batch))?;
        }
        let arrived = self.program.record(self.streams.collective);
        self.gathered.push(Gathered { unit: unit.clone(), micro_batch, tensor, values, fetched, arrived });
        Ok(())
    }

    /// Gives a unit back once the compute on its last layer of the pass is done, unless it stays for what uses it next.
    pub(super) fn release(&mut self, layer: usize, micro_batch: u32, pass: Pass) {
        if self.input.plan.zero != ZeroStage::Three {
            return;
        }
        let unit = self.input.unit(layer);
        let last = match pass {
            Pass::Forward => unit.end - 1,
            Pass::Backward => unit.start,
        };
        let stays = pass == Pass::Forward && (self.stays(&unit) || self.head_stays(&unit));
        if layer != last || stays {
            return;
        }
        let Some(at) = self.gathered_at(&unit, micro_batch) else { return };
        let Gathered { tensor, values, .. } = self.gathered.remove(at);
        if self.input.plan.fetch.limited && self.input.plan.fetch.by_values.is_none() {
            let done = self.program.record(self.streams.compute);
            self.releases.push(Release { tensor, values, done });
        } else {
            self.program.free(self.streams.compute, tensor);
        }
    }

    /// Whether backward uses a unit so soon after forward that it stays whole: everything behind it twice.
    fn stays(&self, unit: &Range<usize>) -> bool {
        let Some(by_values) = self.input.plan.fetch.by_values else { return false };
        if !self.input.training() || self.input.plan.pipeline > 1 || self.live() > by_values.live {
            return false;
        }
        let behind: u64 =
            (unit.end..self.input.model.layers.len()).map(|it| self.values_of(&(it..it + 1))).sum();
        behind.saturating_mul(2) <= by_values.reuse
    }

    /// Whether a unit is the last of the model, with which backward begins: FSDP's root is not resharded after forward, and
    /// torchtitan does not reshard the output layer.
    fn head_stays(&self, unit: &Range<usize>) -> bool {
        let input = self.input;
        let turns = input.training() && input.plan.pipeline == 1 && !input.offloads_parameters();
        unit.end == input.model.layers.len() && turns && self.is_fsdp()
    }

    /// Whether ZeRO 3 is FSDP's with its mixed precision: shards in 32 bits of what modules find in 16.
    fn is_fsdp(&self) -> bool {
        let workload = self.input.workload;
        workload.wide_parameters || workload.autocast
    }

    /// Frees what is left of gathered units and sent buffers at the end of the step.
    pub(super) fn retire_all(&mut self) {
        for release in std::mem::take(&mut self.releases) {
            self.program.free(self.streams.compute, release.tensor);
        }
        for gathered in std::mem::take(&mut self.gathered) {
            self.program.free(self.streams.compute, gathered.tensor);
        }
        for (stream, buffer) in std::mem::take(&mut self.sent) {
            self.program.free(stream, buffer);
        }
    }

    /// Parameters that stay whole have been updated in parts.
    pub(super) fn gather_persistent(&mut self) -> Result<(), PlanError> {
        let input = self.input;
        if input.plan.zero != ZeroStage::Three || input.plan.fetch.persistent_below == 0 {
            return Ok(());
        }
        for share in self.reducing_shares() {
            let values = input.layers().map(|layer| {
                input.count_in(share, layer, |it| it.trainable && input.owns(it) && input.persists(it))
            });
            let bytes = values.sum::<u64>() * self.storage;
            if bytes > 0 {
                self.order(self.streams.compute, self.streams.collective);
                let kind = CollectiveKind::AllGather;
                self.collective(share, kind, "small parameters", "all_gather", bytes, None)?;
                self.order(self.streams.collective, self.streams.compute);
            }
        }
        Ok(())
    }

    /// Reduces the gradients that a layer's backward completes: those of its unit, or of so many units as fill a bucket.
    pub(super) fn reduce_units(
        &mut self,
        layer: usize,
        (micro_batch, turn): (Option<u32>, Turn),
        pending: &mut Pending,
    ) -> Result<(), PlanError> {
        let input = self.input;
        self.unsent.push(layer);
        let chunk = input.chunks.iter().find(|chunk| chunk.layers.contains(&layer));
        let first = chunk.is_none_or(|chunk| chunk.layers.start == layer);
        let format = input.plan.reduced_format(input.workload).bytes();
        let filled = self.unsent.iter().map(|&it| input.reduced_trained(it) * format).sum::<u64>()
            >= input.plan.bucket_bytes.unwrap_or(0);
        if !first && (layer != input.unit(layer).start || !filled) {
            return Ok(());
        }
        let layers = std::mem::take(&mut self.unsent);
        let name = input.model.layers[layer].name.as_str();
        let values = |share| {
            layers
                .iter()
                .map(|&it| input.count_in(share, it, |it| it.trainable && input.owns(it)))
                .sum::<u64>()
        };
        let shares: Vec<Share> =
            self.reducing_shares().into_iter().filter(|share| values(*share) > 0).collect();
        let reduced = !shares.is_empty();
        if reduced {
            self.hook_gradients(&layers)?;
            let flat = self.flatten_gradients(&layers, micro_batch)?;
            for share in shares {
                if input.plan.fetch.lists {
                    self.reduce_lists(&layers, share, format, micro_batch)?;
                } else {
                    let (kind, bytes) = (CollectiveKind::ReduceScatter, values(share) * format);
                    self.collective(share, kind, name, "reduce_scatter", bytes, micro_batch)?;
                }
                let part = values(share).div_ceil(input.ranks(share));
                self.sum_over_replicas(name, part, format, (micro_batch, turn))?;
            }
            if let Some(flat) = flat {
                self.program.free(self.streams.collective, flat);
            }
        }
        let part = layers.iter().map(|&it| input.partitioned_trained(it)).sum();
        if reduced || input.offloads_optimizer() && part > 0 {
            self.part_to_host(name, part, micro_batch, turn)?;
            pending.sent(&mut self.program, self.streams.collective);
            if !input.plan.gradient_overlap {
                self.order(self.streams.collective, self.streams.compute);
            }
        }
        Ok(())
    }

    /// ZeRO 3 reduces one flat gradient a unit. Autograd copies the parameters' gradients into it on the stream of the
    /// computation; beside that, on the way to the reduction, it is converted if it is reduced in another format, and
    /// divided by a part of the number of ranks (FSDP's pre-division, against overflow). While it is put together the
    /// parameters' own gradients are still there; what is converted lives until it has been reduced, and is returned.
    fn flatten_gradients(
        &mut self,
        layers: &[usize],
        micro_batch: Option<u32>,
    ) -> Result<Option<Tensor>, PlanError> {
        let input = self.input;
        let Some(&last) = layers.last() else { return Ok(None) };
        let elements: u64 = layers.iter().map(|&layer| input.reduced_trained(layer)).sum();
        let made = elements * input.plan.gathered_format(input.workload).bytes();
        let sent = elements * input.plan.reduced_format(input.workload).bytes();
        let cost = self.pricer.kernel(copied(made, made), 1, Pass::Backward)?;
        let name = input.model.layers[last].name.as_str();
        let label = self.label(name, "backward", micro_batch);
        let own = self.passing_gradients(last, "flat gradients", made, self.streams.compute);
        self.kernel(classes::BACKWARD, label, cost)?;
        self.free(own);
        self.order(self.streams.compute, self.streams.collective);
        let label = self.label(name, "reduce_scatter", micro_batch);
        let mut converted = None;
        if sent != made {
            let stream = self.streams.collective;
            converted = self.passing_gradients(last, "gradients as they are reduced", sent, stream);
            self.pass_over(label, made, sent)?;
        }
        self.pass_over(label, sent, sent)?;
        Ok(converted)
    }

    /// A copy of a layer's gradients on their way to FSDP's reduction; DeepSpeed reduces them where they are.
    fn passing_gradients(
        &mut self,
        layer: usize,
        name: &'static str,
        bytes: u64,
        stream: Stream,
    ) -> Option<Tensor> {
        if !self.is_fsdp() {
            return None;
        }
        let label = self.tensor_label(layer, name);
        let tensor = self.program.tensor(bytes, classes::BUFFERS, label);
        self.program.alloc(stream, tensor);
        Some(tensor)
    }
}
