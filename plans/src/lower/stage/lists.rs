//! ZeRO 3 with a collective of its own for each parameter, over lists of one tensor a rank.
//!
//! DeepSpeed before 0.5 (`_allgather_param`, `_reduce_scatter_gradient` in its `partition_parameters.py`): a buffer is filled
//! with zeros and cut into views, one a rank; the host waits for the device; and PyTorch's collectives of lists copy every
//! rank's part between the list and the flat buffer that NCCL takes, a kernel each. With a thousand ranks the host spends
//! tens of milliseconds on a parameter.

use std::ops::Range;

use steptime_clusters::CollectiveKind;
use steptime_models::{Parameter, Pass};

use super::data_parallel::copied;
use super::{Along, StageBuilder, StageInput};
use crate::bucket::Share;
use crate::classes;
use crate::error::PlanError;

/// Operations that the host issues for a rank's part: a view of it, and its copy.
const EACH: u64 = 2;

/// Records of the program that they are.
const RECORDS: u64 = 2;

impl StageInput<'_> {
    /// This rank's values of each of a layer's parameters that are wanted, by parameter.
    fn counts_in(&self, share: Share, layer: usize, wanted: impl Fn(&Parameter) -> bool) -> Vec<u64> {
        let division = self.plan.division();
        let parameters = self.model.layers[layer].parameters.iter();
        let meant = parameters.filter(|it| share.contains(it, &division) && wanted(it));
        meant.map(|it| it.held_in(&division)).filter(|values| *values > 0).collect()
    }
}

impl StageBuilder<'_> {
    /// Gathers the parameters of a unit one by one.
    ///
    /// Between recomputation and backward a parameter is given back, and gathered again, if more than
    /// [`crate::fetch::ByValues::reuse`] values are used meanwhile: everything behind it, twice.
    pub(super) fn gather_lists(
        &mut self,
        unit: &Range<usize>,
        (share, along): (Share, Along),
        (format, pass): (u64, Pass),
        micro_batch: u32,
    ) -> Result<(), PlanError> {
        let input = self.input;
        let reuse = input.plan.fetch.by_values.map_or(u64::MAX, |most| most.reuse);
        for layer in unit.clone() {
            let twice = pass == Pass::Backward && input.cost(layer, micro_batch).recomputes.is_whole();
            let counts = input.counts_in(share, layer, |it| !input.persists(it));
            let mut behind: u64 = counts.iter().sum();
            for values in counts {
                behind -= values;
                let times = if twice && behind.saturating_mul(2) > reuse { 2 } else { 1 };
                for _ in 0..times {
                    self.gather_list(layer, along, values * format, micro_batch)?;
                }
            }
        }
        Ok(())
    }

    /// Gathers one parameter.
    fn gather_list(
        &mut self,
        layer: usize,
        along: Along,
        bytes: u64,
        micro_batch: u32,
    ) -> Result<(), PlanError> {
        let names = (self.input.model.layers[layer].name.as_str(), "all_gather");
        let label = self.label(names.0, names.1, Some(micro_batch));
        self.pass_over(label, 0, bytes)?;
        self.program.host_sync(self.streams.collective);
        self.wait_for_device(label)?;
        let way = (self.streams.collective, along);
        self.collective_along(way, CollectiveKind::AllGather, names, bytes, Some(micro_batch))?;
        let ranks = u64::from(self.input.placements[along as usize].ranks);
        self.copy_list(names, ranks, bytes, Some(micro_batch))
    }

    /// Reduces the gradients of layers parameter by parameter.
    pub(super) fn reduce_lists(
        &mut self,
        layers: &[usize],
        share: Share,
        format: u64,
        micro_batch: Option<u32>,
    ) -> Result<(), PlanError> {
        let input = self.input;
        for &layer in layers {
            let name = input.model.layers[layer].name.as_str();
            for values in input.counts_in(share, layer, |it| it.trainable && input.owns(it)) {
                let (names, bytes) = ((name, "reduce_scatter"), values * format);
                self.copy_list(names, input.ranks(share), bytes, micro_batch)?;
                self.collective(share, CollectiveKind::ReduceScatter, names.0, names.1, bytes, micro_batch)?;
            }
        }
        Ok(())
    }

    /// Copies the parts of all ranks between a list and a flat buffer, on the stream of the collective.
    fn copy_list(
        &mut self,
        (name, word): (&str, &str),
        ranks: u64,
        bytes: u64,
        micro_batch: Option<u32>,
    ) -> Result<(), PlanError> {
        let cost = self.pricer.kernel(copied(bytes, bytes), EACH.saturating_mul(ranks), Pass::Forward)?;
        let label = self.label(name, word, micro_batch);
        let entries = self.entries;
        self.kernel_on(self.streams.collective, classes::COLLECTIVE, label, cost);
        // The device copies a part sooner than the host issues the next one: they do not fill the queue of launches.
        self.entries = entries + RECORDS;
        Ok(())
    }
}
