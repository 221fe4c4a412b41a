//! Products in pieces beside the collectives of tensor parallelism (Transformer Engine's user buffers, `tp_comm_overlap`;
//! Wang et al. 2023, Overlap Communication with Dependent Computation via Decomposition).
//!
//! Under sequence parallelism a layer's input is gathered before its products, and their result is scattered after them. In
//! pieces, `t` ranks pass parts of `1 / t` round a ring while each computes on the part that it has: of `t` products of a
//! `t`-th of the rows all but one have a transfer beside them. The copies are made by copy engines, which take no
//! multiprocessors. Gathers and sums of backward that run beside whole products anyway stay as they are.

use steptime_clusters::{Basis, Transfer, point_to_point};
use steptime_core::SimTime;
use steptime_models::{Bytes, ExchangeKind, Kernel, MemoryBoundKind, Operation, Pass};

use super::cost::{Cost, OpCost, Pricer};
use super::placement::Along;
use crate::error::PlanError;

/// Products in pieces, with the transfers of the parts that they take or make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    /// Ranks, and so many pieces.
    pub(super) pieces: u32,
    /// One part's way to the next rank.
    pub(super) hop: Transfer,
    /// The products of one piece.
    pub(super) piece: OpCost,
    /// What puts the parts together that have been scattered.
    pub(super) sum: Option<OpCost>,
}

impl Ring {
    /// Device time when nothing else runs.
    pub(super) fn alone(&self, hop: SimTime) -> SimTime {
        let pieces = u64::from(self.pieces);
        let one = self.piece.first.0.picos();
        let longer = one.max(hop.picos()).saturating_mul(pieces.saturating_sub(1));
        let sum = self.sum.map_or(0, |sum| sum.first.0.picos());
        SimTime::from_picos(longer.saturating_add(one).saturating_add(sum))
    }
}

/// Whether an operation is a product whose rows are tokens.
fn rows_are_tokens(operation: &Operation) -> bool {
    matches!(operation.kernel, Kernel::Gemm { batch: 1, .. }) && !operation.makes_weight_gradient()
}

fn exchanges(operation: &Operation, wanted: ExchangeKind) -> Option<u64> {
    match operation.kernel {
        Kernel::Exchange { kind, bytes, .. } if kind == wanted => Some(bytes.0),
        _ => None,
    }
}

impl Pricer<'_> {
    /// Puts products in pieces into the place of whole ones and of the collectives beside them.
    pub(super) fn in_pieces(
        self,
        operations: &[Operation],
        costs: &mut [Cost],
        pass: Pass,
    ) -> Result<(), PlanError> {
        let group = self.placements[Along::Tensor as usize];
        if !self.plan.tensor_pieces || group.ranks < 2 {
            return Ok(());
        }
        for at in 0..operations.len() {
            let operation = &operations[at];
            // These run beside whole products.
            if operation.gathers_input_again() || operation.sums_input_gradient() {
                continue;
            }
            let run = |first: usize| {
                let rest = operations[first..].iter();
                first..first + rest.take_while(|it| rows_are_tokens(it)).count()
            };
            if let Some(bytes) = exchanges(operation, ExchangeKind::AllGather) {
                let products = run(at + 1);
                if !products.is_empty() {
                    let ring = self.ring(&operations[products.clone()], bytes, pass, false)?;
                    costs[at] = Cost::Done;
                    costs[products.clone()].fill(Cost::Done);
                    costs[products.start] = Cost::Ring(ring);
                }
            } else if let Some(bytes) = exchanges(operation, ExchangeKind::ReduceScatter)
                && at > 0
                && rows_are_tokens(&operations[at - 1])
                && matches!(costs[at - 1], Cost::Kernel(_))
            {
                let ring = self.ring(&operations[at - 1..at], bytes, pass, true)?;
                costs[at - 1] = Cost::Done;
                costs[at] = Cost::Ring(ring);
            }
        }
        Ok(())
    }

    fn ring(self, products: &[Operation], bytes: u64, pass: Pass, sums: bool) -> Result<Ring, PlanError> {
        let placement = self.placements[Along::Tensor as usize];
        let pieces = placement.ranks;
        let nothing = OpCost {
            first: (SimTime::ZERO, SimTime::ZERO),
            last: None,
            launches: 0,
            host_sync: false,
            by_memory: false,
            basis: Basis::Measured,
        };
        let mut piece = nothing;
        for product in products {
            let Kernel::Gemm { batch, m, n, k, dtype } = product.kernel else { continue };
            let part = Kernel::Gemm { batch, m: m.div_ceil(u64::from(pieces)), n, k, dtype };
            let cost = self.operation(&Operation { kernel: part, ..*product }, pass)?;
            piece.first.0 = piece.first.0.checked_add(cost.first.0)?;
            piece.first.1 = piece.first.1.checked_add(cost.first.1)?;
            piece.launches += cost.launches;
            piece.basis = piece.basis.max(cost.basis);
        }
        let part = bytes.div_ceil(u64::from(pieces));
        let read = Bytes(part.saturating_mul(u64::from(pieces)));
        let sum = Kernel::memory(MemoryBoundKind::Elementwise, read, Bytes(part));
        let sum = if sums { Some(self.kernel(sum, 1, pass)?) } else { None };
        let hop = point_to_point(self.links.along(Along::Tensor), placement.nodes > 1, part);
        Ok(Ring { pieces, hop, piece, sum })
    }
}
