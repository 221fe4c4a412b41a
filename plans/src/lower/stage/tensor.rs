//! What runs beside the compute: collectives of tensor parallelism, and what all collectives take from it.

use steptime_core::{Channel, Class, Label, Load};

use super::{Along, Meeting, StageBuilder};
use crate::classes;
use crate::error::PlanError;
use crate::lower::cost::Cost;
use crate::lower::pieces::Ring;

impl StageBuilder<'_> {
    /// A collective of tensor parallelism beside what the compute stream is given from here on.
    pub(super) fn start_exchange(&mut self, label: Label, cost: Cost) -> Result<(), PlanError> {
        let Cost::Exchange(exchange) = cost else { return Ok(()) };
        self.order(self.streams.compute, self.streams.tensor);
        let kinds = (classes::COLLECTIVE, classes::COLLECTIVE_WAIT);
        self.meet(self.streams.tensor, Meeting::Group(exchange.along), kinds, label, exchange.transfer)
    }

    /// Products in pieces, with the transfers of their parts beside them.
    pub(super) fn ring_of_pieces(
        &mut self,
        class: Class,
        label: Label,
        ring: &Ring,
    ) -> Result<(), PlanError> {
        let (compute, tensor) = (self.streams.compute, self.streams.tensor);
        let kinds = (classes::COLLECTIVE, classes::COLLECTIVE_WAIT);
        let hop = |this: &mut Self| this.meet(tensor, Meeting::Pieces, kinds, label, ring.hop);
        if ring.sum.is_none() {
            self.order(compute, tensor);
        }
        for piece in 0..ring.pieces {
            let last = piece + 1 == ring.pieces;
            if ring.sum.is_none() {
                // What came with the hop before is computed on while it is passed on.
                let arrived = (piece > 0).then(|| self.program.record(tensor));
                if !last {
                    hop(self)?;
                }
                if let Some(arrived) = arrived {
                    self.program.wait(compute, arrived);
                }
            }
            self.kernel(class, label, ring.piece)?;
            if ring.sum.is_some() && !last {
                self.order(compute, tensor);
                hop(self)?;
            }
        }
        if let Some(sum) = ring.sum {
            self.order(tensor, compute);
            self.kernel(class, label, sum)?;
        }
        Ok(())
    }

    /// Slows down what runs at the same time as a collective of the stage's groups, and the collective. A send between
    /// two ranks takes a channel or two and leaves kernels alone.
    pub(super) fn contend(&mut self) {
        let load = |&(meeting, _): &(Meeting, Channel)| {
            let (along, engines) = match meeting {
                Meeting::Group(along) => (along, false),
                // Copy engines take no multiprocessors.
                Meeting::Pieces => (Along::Tensor, true),
                _ => return None,
            };
            let contention = self.input.links.along(along).contention(self.input.placements[along as usize]);
            let millionths = |share: f64| (share * 1e6).round() as u32;
            Some(Load {
                bandwidth: contention.bandwidth,
                arithmetic: if engines { 0 } else { millionths(contention.arithmetic) },
                memory: millionths(contention.memory),
                transfer: millionths(contention.transfer),
            })
        };
        let loads: Vec<Option<Load>> = self.meetings.iter().map(load).collect();
        self.program.contend(&loads);
    }
}
