//! The way of tokens to experts on other ranks and back (GShard, Lepikhin et al. 2020; Megatron-LM's `alltoall`
//! dispatcher).
//!
//! With T tokens of width h on this rank, k experts a token, E experts over n ranks, each divided among t ranks:
//!
//! ```text
//! rows     = x[order / k]                       # T k x h, sorted by expert
//! received = all_to_all(rows)                   # T k x h, balanced
//! gathered = all_gather(received)               # t T k x h, where t ranks share an expert
//! chunks   = sort(gathered)                     # by local expert, where a rank has several
//! ...                                           # the E / n experts, and all of it backwards
//! ```

use super::pointwise::moved;
use crate::division::ExpertParallel;
use crate::operation::{ExchangeGroup, ExchangeKind, MemoryBoundKind};
use crate::tape::{Names, Tape, Tensor, exchange_in, memory, names};
use crate::units::product;

/// What is told to the other ranks before the tokens leave: the count of each expert's rows on every rank.
pub(super) fn exchange_counts(tape: &mut Tape<'_>, spread: &ExpertParallel, experts: u64) {
    let bytes = product(&[experts, spread.ways(), 8]);
    let gather = exchange_in(ExchangeGroup::Expert, "moe.exchange_counts", ExchangeKind::AllGather, bytes);
    tape.run(&[gather], &[]);
}

/// Rows sorted by expert sent to the ranks of their experts: those that this rank receives, sorted by local expert.
pub(super) fn dispatch(tape: &mut Tape<'_>, spread: &ExpertParallel, local: u64, rows: Tensor) -> Tensor {
    let received = spread.received(rows.rows);
    let there = all_to_all(tape, names!("moe.dispatch"), rows, received);
    let there = if spread.tensor_ways() == 1 {
        there
    } else {
        let whole = product(&[there.rows, spread.tensor_ways()]);
        let names = names!("moe.expert_tensor.enter");
        let kinds = [ExchangeKind::AllGather, ExchangeKind::ReduceScatter];
        resize(tape, names, there, whole, kinds)
    };
    sort_chunks(tape, names!("moe.sort_chunks"), local, there)
}

/// The way back: results in the order in which the rows were sent, `sent` of them.
pub(super) fn combine(
    tape: &mut Tape<'_>,
    spread: &ExpertParallel,
    [local, sent]: [u64; 2],
    results: Tensor,
) -> Tensor {
    let results = sort_chunks(tape, names!("moe.unsort_chunks"), local, results);
    let here = if spread.tensor_ways() == 1 {
        results
    } else {
        let part = results.rows / spread.tensor_ways();
        let names = names!("moe.expert_tensor.leave");
        let kinds = [ExchangeKind::ReduceScatter, ExchangeKind::AllGather];
        resize(tape, names, results, part, kinds)
    };
    all_to_all(tape, names!("moe.combine"), here, sent)
}

/// Rows sent to their ranks; the gradients come back the same way. The busier direction sets the size: that of a rank
/// with popular experts.
fn all_to_all(tape: &mut Tape<'_>, names: Names, x: Tensor, rows: u64) -> Tensor {
    let y = tape.tensor(names.output, rows, x.width, x.value_bytes);
    let bytes = x.bytes().max(y.bytes());
    let send = |name| exchange_in(ExchangeGroup::Expert, name, ExchangeKind::AllToAll, bytes);
    moved(tape, names, [x, y], send(names.op), send(names.grad));
    y
}

/// The tokens of all ranks that share an expert, or this rank's part of their sum.
fn resize(
    tape: &mut Tape<'_>,
    names: Names,
    x: Tensor,
    rows: u64,
    [forward, backward]: [ExchangeKind; 2],
) -> Tensor {
    let y = tape.tensor(names.output, rows, x.width, x.value_bytes);
    let whole = x.bytes().max(y.bytes());
    let run = |name, kind| exchange_in(ExchangeGroup::ExpertTensor, name, kind, whole);
    moved(tape, names, [x, y], run(names.op, forward), run(names.grad, backward));
    y
}

/// Rows come sorted by sender and expert; the experts of a rank want theirs next to each other: a copy, unless there is
/// one expert.
fn sort_chunks(tape: &mut Tape<'_>, names: Names, local: u64, x: Tensor) -> Tensor {
    if local == 1 {
        return x;
    }
    let y = tape.tensor(names.output, x.rows, x.width, x.value_bytes);
    let copy = |name| memory(name, MemoryBoundKind::Indexing, x.bytes(), y.bytes());
    moved(tape, names, [x, y], copy(names.op), copy(names.grad));
    y
}
