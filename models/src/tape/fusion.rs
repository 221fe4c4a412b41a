//! Chains of memory-bound operations as one kernel, forward and backward.
//!
//! A *run* is a chain of neighbouring fusible operations each of which reads what the run has made. One kernel does it
//! all: it reads what comes from outside, and writes what is read or kept outside; what passes inside stays in
//! registers. A value that only the run's own backward wants is computed again from the run's inputs instead of kept;
//! dropout masks and statistics are kept. The steps of a run have one kernel in backward as well, but for sums over
//! rows (gradients of weights), which stay by themselves.

use std::ops::Range;

use super::Tape;
use crate::operation::{Kernel, MemoryBoundKind, Operation};
use crate::units::{Bytes, total};
use crate::work_shape::Fusion;

/// Operations that Transformer Engine and Megatron-LM fuse, by their names: scaling, masking and softmax of scores;
/// the two halves of SwiGLU, in experts with the probabilities; dropout with the residual; and rotation, which is one kernel.
const FUSED_BY_HAND: [&[&str]; 7] = [
    &["attention.core.scale", "attention.core.mask", "attention.core.softmax", "attention.core.softmax_cast"],
    &["mlp.silu", "mlp.gelu", "mlp.product"],
    &["moe.experts.silu", "moe.experts.product", "moe.weigh"],
    &["moe.shared.silu", "moe.shared.gelu", "moe.shared.product"],
    &["attention.output_dropout", "attention.residual"],
    &["mlp.dropout", "mlp.residual"],
    &["attention.rotary_query", "attention.rotary_key"],
];

/// The end of a name behind its last dot: what a tensor is, or what an operation makes.
fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Whether an operation can be part of a fused kernel.
fn fusible(operation: &Operation) -> bool {
    use MemoryBoundKind::{Elementwise, Norm, Softmax};
    let kind = matches!(operation.kernel, Kernel::MemoryBound { kind: Elementwise | Norm | Softmax, .. });
    kind && !operation.host_sync
}

/// Whether the fusion takes an operation at all, and a second one into the run of the first.
fn joins(fusion: Fusion, first: &Operation, second: &Operation) -> bool {
    match fusion {
        Fusion::None => false,
        Fusion::Compiled => fusible(first) && fusible(second),
        Fusion::TransformerEngine => {
            let both = |list: &&[&str]| list.contains(&first.name) && list.contains(&second.name);
            fusible(first) && fusible(second) && FUSED_BY_HAND.iter().any(both)
        }
    }
}

/// Bytes that an operation reads and writes; nothing for those that compute.
fn traffic(operation: &Operation) -> (u64, u64) {
    match operation.kernel {
        Kernel::MemoryBound { read, written, .. } => (read.0, written.0),
        _ => (0, 0),
    }
}

/// One kernel for several, with new traffic. It is as slow as its slowest kind: a softmax or norm goes over rows.
fn merged(operations: &[Operation], read: u64, written: u64) -> Operation {
    use MemoryBoundKind::{Elementwise, Norm, Softmax};
    let has = |wanted| {
        operations.iter().any(|it| matches!(it.kernel, Kernel::MemoryBound { kind, .. } if kind == wanted))
    };
    let kind = if has(Softmax) {
        Softmax
    } else if has(Norm) {
        Norm
    } else {
        Elementwise
    };
    // Some operations touch less than the tensors that they are given (slices, broadcasts).
    let apart = |side: fn((u64, u64)) -> u64| {
        operations.iter().map(|it| side(traffic(it))).fold(0, u64::saturating_add)
    };
    let (read, written) = (read.min(apart(|it| it.0)), written.min(apart(|it| it.1)));
    // Rows of the widest part pass twice, and every value goes through all of the arithmetic.
    let (row, instructions) = operations.iter().fold((Bytes(0), 0_u64), |(row, count), it| match it.kernel {
        Kernel::MemoryBound { row: own, instructions, .. } => {
            (row.max(own), count.saturating_add(instructions))
        }
        _ => (row, count),
    });
    let kernel = Kernel::MemoryBound { kind, read: Bytes(read), written: Bytes(written), row, instructions };
    Operation { kernel, launches: 1, ..operations[0] }
}

/// Where each operation goes when ranges of them become one.
pub(super) fn places(count: usize, runs: &[Range<usize>]) -> Vec<usize> {
    let mut places = Vec::with_capacity(count);
    let mut next = 0;
    for index in 0..count {
        let inside = runs.iter().any(|run| run.contains(&index) && index > run.start);
        places.push(if inside { next - 1 } else { next });
        next += usize::from(!inside);
    }
    places
}

impl Tape<'_> {
    /// Fuses the forward operations; steps learn which run they belong to.
    pub(super) fn fuse(&mut self) {
        let fusion = self.shape.fusion;
        if fusion == Fusion::None {
            return;
        }
        let runs = self.runs(fusion);
        for run in &runs {
            self.drop_inner(run);
        }
        let fused: Vec<Operation> = runs.iter().map(|run| self.run_as_one(run)).collect();
        for run in &runs {
            for index in 1..self.storages.len() {
                if self.made_in(run, index) && !self.leaves(run, index) {
                    // Registers hold it.
                    self.storages[index].bytes = 0;
                }
            }
        }
        let places = places(self.forward.len(), &runs);
        let mut forward: Vec<Operation> = Vec::new();
        for (index, operation) in self.forward.iter().enumerate() {
            match runs.iter().position(|run| run.contains(&index)) {
                None => forward.push(*operation),
                Some(run) if runs[run].start == index => forward.push(fused[run]),
                Some(_) => {}
            }
        }
        for node in &mut self.nodes {
            node.run = node.at.and_then(|at| runs.iter().position(|run| run.contains(&at)));
        }
        let last = forward.len();
        for storage in &mut self.storages {
            storage.born = places.get(storage.born).copied().unwrap_or(last);
            storage.last_read = places.get(storage.last_read).copied().unwrap_or(last);
        }
        self.forward = forward;
    }

    /// Chains of fusible operations, and single ones of several launches.
    fn runs(&self, fusion: Fusion) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for (index, operation) in self.forward.iter().enumerate() {
            if let Some(run) = runs.last_mut().filter(|run| run.end == index) {
                let previous = &self.forward[index - 1];
                if joins(fusion, previous, operation) && self.reads_from(index, run) {
                    run.end = index + 1;
                    continue;
                }
            }
            if joins(fusion, operation, operation) {
                runs.push(index..index + 1);
            }
        }
        runs.retain(|run| run.len() > 1 || self.forward[run.start].launches > 1);
        runs
    }

    fn reads_from(&self, index: usize, run: &Range<usize>) -> bool {
        let mut reads = self.reads.iter().filter(|(at, _)| *at == index);
        reads.any(|&(_, storage)| storage > 0 && run.contains(&self.storages[storage].born))
    }

    fn made_in(&self, run: &Range<usize>, storage: usize) -> bool {
        storage > 0 && run.contains(&self.storages[storage].born)
    }

    /// What only the run's own backward would keep is computed again there, if all that the run reads is kept; a result
    /// that the run rounds is replaced by the rounded one.
    fn drop_inner(&mut self, run: &Range<usize>) {
        let inside = self.reads.iter().filter(|(at, _)| run.contains(at));
        let outside: Vec<usize> =
            inside.map(|&(_, storage)| storage).filter(|&storage| !self.made_in(run, storage)).collect();
        let inputs_kept = outside.iter().all(|&storage| self.storages[storage].kept);
        for index in 1..self.storages.len() {
            let storage = &self.storages[index];
            let drawn = matches!(last_part(storage.name), "mask" | "statistics");
            if !storage.kept || drawn || !self.made_in(run, index) || storage.last_read >= run.end {
                continue;
            }
            let mut savers = self.nodes.iter().filter(|node| node.saves.contains(&index));
            let own = savers.all(|node| node.at.is_some_and(|at| run.contains(&at)));
            let rounded = self.rounded(run, index);
            if !own || !inputs_kept && rounded.is_none() {
                continue;
            }
            self.storages[index].kept = false;
            // Backward of the fused kernel reads what it wrote.
            if let Some(rounded) = rounded {
                self.storages[rounded].kept = true;
                for node in &mut self.nodes {
                    for saved in node.saves.iter_mut().filter(|saved| **saved == index) {
                        *saved = rounded;
                    }
                }
            }
        }
    }

    /// What the run rounds a result of its own softmax to.
    fn rounded(&self, run: &Range<usize>, wide: usize) -> Option<usize> {
        let mut readers = self.reads.iter().filter(|(at, read)| *read == wide && run.contains(at));
        let &(at, _) = readers.find(|(at, _)| self.forward[*at].name.ends_with("softmax_cast"))?;
        (1..self.storages.len()).find(|&it| it != wide && self.storages[it].born == at)
    }

    /// Whether something outside the run wants what it makes.
    fn leaves(&self, run: &Range<usize>, storage: usize) -> bool {
        let it = &self.storages[storage];
        // What nobody reads is the layer's result.
        it.kept || it.last_read >= run.end || it.last_read <= it.born
    }

    /// The run's kernel: reads what comes from outside (and weights, masks and other constants beside the tensors of
    /// single-launch operations), writes what is wanted outside.
    fn run_as_one(&self, run: &Range<usize>) -> Operation {
        let mut read = 0_u64;
        let mut seen = Vec::new();
        for index in run.clone() {
            let mut own = 0_u64;
            for &(_, storage) in self.reads.iter().filter(|(at, _)| *at == index) {
                let bytes = self.storages[storage].bytes;
                own = total(&[own, bytes]);
                if !self.made_in(run, storage) && !seen.contains(&storage) {
                    seen.push(storage);
                    read = total(&[read, bytes]);
                }
            }
            if self.forward[index].launches == 1 {
                read = total(&[read, traffic(&self.forward[index]).0.saturating_sub(own)]);
            }
        }
        let made = (1..self.storages.len()).filter(|&it| self.made_in(run, it) && self.leaves(run, it));
        let written = made.fold(0, |sum, it| total(&[sum, self.storages[it].bytes]));
        merged(&self.forward[run.clone()], read, written)
    }
}

/// The backward of one run while it is derived.
pub(super) struct FusedGroup {
    pub(super) run: usize,
    pub(super) operations: Range<usize>,
    /// Gradients made inside and not yet consumed inside.
    pub(super) made: Vec<usize>,
    /// Gradients that go to several tensors as they are.
    pub(super) shared: Vec<usize>,
    /// Bytes from outside.
    pub(super) read: u64,
}

impl FusedGroup {
    /// A gradient that an operation of the group reads. Returns whether it never leaves the registers: the group made
    /// it, and nobody else wants it.
    pub(super) fn takes(&mut self, gradient: usize, bytes: u64) -> bool {
        let Some(at) = self.made.iter().position(|&made| made == gradient) else {
            self.read = total(&[self.read, bytes]);
            return false;
        };
        let alone = !self.shared.contains(&gradient);
        if alone {
            self.made.remove(at);
        }
        alone
    }
}

/// Backward operations with each group's as one; `written` is what its gradients leave behind. Sums over rows stay.
/// Returns also where each old operation went.
pub(super) fn regroup(
    operations: &[Operation],
    groups: &[(Range<usize>, u64, u64)],
) -> (Vec<Operation>, Vec<usize>) {
    let mut new = Vec::new();
    let mut places = vec![0; operations.len()];
    let mut index = 0;
    while index < operations.len() {
        let Some((range, read, written)) = groups.iter().find(|(range, ..)| range.start == index) else {
            places[index] = new.len();
            new.push(operations[index]);
            index += 1;
            continue;
        };
        let (inner, apart): (Vec<usize>, Vec<usize>) = range
            .clone()
            .partition(|&at| fusible(&operations[at]) && last_part(operations[at].name) != "grad_weight");
        if let Some(&first) = inner.first() {
            let chain: Vec<Operation> = inner.iter().map(|&at| operations[at]).collect();
            for at in range.clone() {
                places[at] = new.len();
            }
            new.push(Operation { name: operations[first].name, ..merged(&chain, *read, *written) });
        }
        for at in apart {
            places[at] = new.len();
            new.push(operations[at]);
        }
        index = range.end;
    }
    (new, places)
}
