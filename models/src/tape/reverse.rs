//! Backward, derived from the recorded steps in reverse.

use std::ops::Range;

use super::fusion::{FusedGroup, regroup};
use super::lives::Life;
use super::{Gradient, Names, Node, Storage, Tensor, exchange, memory};
use crate::operation::{ExchangeKind, GATHER_AGAIN, Kernel, MemoryBoundKind, Operation, WeightGradients};
use crate::units::{Bytes, total};

/// The backward pass while it is derived.
pub(super) struct Reverse {
    pub(super) operations: Vec<Operation>,
    /// Gradient of each tensor, as an index into `lives`.
    gradients: Vec<Option<usize>>,
    pub(super) lives: Vec<Life>,
    /// Last operation that needs each storage.
    pub(super) freed: Vec<usize>,
    /// Gathered tensors that were dropped after forward and are here again, with their index into `lives`.
    gathered: Vec<(usize, usize)>,
    /// The fused kernel whose steps are being played, and those that are done: their operations, bytes read and written.
    group: Option<FusedGroup>,
    groups: Vec<(Range<usize>, u64, u64)>,
    /// Operations that make gradients of weights, the storages that they read, and the gradients, as indices into
    /// `lives`.
    weight_operations: Vec<usize>,
    weight_storages: Vec<usize>,
    weight_lives: Vec<usize>,
}

/// Whether an operation makes gradients of weights by a product.
fn makes_weight_gradients(operation: &Operation) -> bool {
    let product =
        matches!(operation.kernel, Kernel::Gemm { .. } | Kernel::Convolution(_) | Kernel::Component { .. });
    product && operation.makes_weight_gradient()
}

impl Reverse {
    pub(super) fn new(tensors: usize, storages: usize) -> Self {
        Self {
            operations: Vec::new(),
            gradients: vec![None; tensors],
            lives: Vec::new(),
            freed: vec![0; storages],
            gathered: Vec::new(),
            group: None,
            groups: Vec::new(),
            weight_operations: Vec::new(),
            weight_storages: Vec::new(),
            weight_lives: Vec::new(),
        }
    }

    /// The gradient that comes in from the next layer, or of a loss, alive from the start.
    pub(super) fn seed(&mut self, output: Tensor) {
        self.gradients[output.id] = Some(self.lives.len());
        self.lives.push(Life { name: "output.grad", bytes: output.bytes(), born: 0, last: 0 });
    }

    /// A gradient that later layers have begun, alive to the end.
    pub(super) fn arrived(&mut self, tensor: Tensor) {
        self.gradients[tensor.id] = Some(self.lives.len());
        let (bytes, last) = (tensor.bytes(), usize::MAX - 1);
        self.lives.push(Life { name: "outside.grad", bytes, born: 0, last });
    }

    /// Runs the backward of one step.
    pub(super) fn play(&mut self, node: &Node, storages: &[Storage]) {
        let incoming: Vec<usize> = node.outputs.iter().filter_map(|&output| self.gradients[output]).collect();
        if incoming.is_empty() {
            return;
        }
        let weights = node.trains && node.backward.iter().any(makes_weight_gradients);
        let gathers = self.operations.len();
        self.gather_again(node);
        let start = self.operations.len();
        if weights {
            // What is gathered again is the input of the product that makes the weights' gradients.
            self.weight_operations.extend(gathers..start);
            let numbered = node.backward.iter().zip(start..);
            self.weight_operations
                .extend(numbered.filter(|(it, _)| makes_weight_gradients(it)).map(|(_, at)| at));
            self.weight_storages.extend_from_slice(&node.saves);
            self.weight_lives.extend(
                incoming.iter().filter(|it| !self.weight_lives.contains(it)).copied().collect::<Vec<_>>(),
            );
        }
        self.enter_group(node, &incoming, storages);
        self.operations.extend_from_slice(&node.backward);
        if !node.backward.is_empty() {
            let end = self.operations.len() - 1;
            for &gradient in &incoming {
                self.lives[gradient].last = self.lives[gradient].last.max(end);
            }
            for &storage in &node.saves {
                self.freed[storage] = self.freed[storage].max(end);
            }
            let name = node.names.scratch;
            self.lives.push(Life { name, bytes: node.scratch, born: start, last: end });
        }
        for input in &node.inputs {
            let contribution = match node.gradient {
                Gradient::Passed => incoming[0],
                Gradient::InPlace => self.alive(node.names.grad_input, input.bytes(), self.operations.len()),
                Gradient::New => {
                    let made = self.alive(node.names.grad_input, input.bytes(), start);
                    self.group.iter_mut().for_each(|group| group.made.push(made));
                    made
                }
            };
            self.receive(*input, contribution, node.names);
        }
        let end = self.operations.len();
        self.group.iter_mut().for_each(|group| group.operations.end = end);
    }

    /// Goes on with the node's fused kernel, or begins it.
    fn enter_group(&mut self, node: &Node, incoming: &[usize], storages: &[Storage]) {
        if self.group.as_ref().map(|group| group.run) != node.run {
            self.leave_group();
            let start = self.operations.len();
            self.group = node.run.map(|run| FusedGroup {
                run,
                operations: start..start,
                made: Vec::new(),
                shared: Vec::new(),
                read: 0,
            });
        }
        let Some(group) = &mut self.group else { return };
        if node.gradient == Gradient::New {
            for &gradient in incoming {
                if group.takes(gradient, self.lives[gradient].bytes) {
                    self.lives[gradient].bytes = 0;
                }
            }
        } else if node.inputs.len() > 1 {
            // Addition hands its gradient on without touching it.
            group.shared.extend(incoming);
        }
        for &storage in node.saves.iter().filter(|&&storage| storages[storage].kept) {
            group.read = total(&[group.read, storages[storage].bytes]);
        }
    }

    fn leave_group(&mut self) {
        if let Some(group) = self.group.take().filter(|group| !group.operations.is_empty()) {
            let written = group.made.iter().fold(0, |sum, &made| total(&[sum, self.lives[made].bytes]));
            self.groups.push((group.operations, group.read, written));
        }
    }

    /// Makes each fused kernel's operations one.
    pub(super) fn fuse(&mut self) {
        self.leave_group();
        if self.groups.is_empty() {
            return;
        }
        let (operations, places) = regroup(&self.operations, &self.groups);
        let place = |index: &mut usize| *index = places.get(*index).copied().unwrap_or(*index);
        self.freed.iter_mut().for_each(place);
        self.weight_operations.iter_mut().for_each(place);
        for life in &mut self.lives {
            place(&mut life.born);
            place(&mut life.last);
        }
        self.operations = operations;
    }

    /// What of the pass can wait; `listed` are the storages of the saved tensors.
    pub(super) fn weight_gradients(&self, listed: &[usize]) -> WeightGradients {
        let saved = (0..listed.len()).filter(|&at| self.weight_storages.contains(&listed[at])).collect();
        let gradients = self.weight_lives.iter().map(|&life| Bytes(self.lives[life].bytes)).sum();
        WeightGradients { operations: self.weight_operations.clone(), saved, gradients }
    }

    /// A tensor gathered from all ranks of the tensor group is kept as this rank's part: before the first step that
    /// needs the whole, it is gathered once more (Korthikanti et al. 2022, section 4.2.2).
    fn gather_again(&mut self, node: &Node) {
        for whole in &node.gathered {
            let end = self.operations.len() + node.backward.len();
            if let Some(&(_, life)) = self.gathered.iter().find(|(id, _)| *id == whole.id) {
                self.lives[life].last = self.lives[life].last.max(end);
                continue;
            }
            self.gathered.push((whole.id, self.lives.len()));
            let name = GATHER_AGAIN;
            self.lives.push(Life { name, bytes: whole.bytes(), born: self.operations.len(), last: end });
            self.operations.push(exchange(name, ExchangeKind::AllGather, whole.bytes()));
        }
    }

    /// Gives a tensor a gradient, adding it to the one that is already there.
    fn receive(&mut self, tensor: Tensor, contribution: usize, names: Names) {
        let Some(present) = self.gradients[tensor.id] else {
            self.gradients[tensor.id] = Some(contribution);
            return;
        };
        let bytes = tensor.bytes();
        let at = self.operations.len();
        let sum = memory(names.grad_sum, MemoryBoundKind::Elementwise, total(&[bytes, bytes]), bytes);
        self.operations.push(Operation { launches: tensor.pieces, ..sum });
        for gradient in [present, contribution] {
            self.lives[gradient].last = self.lives[gradient].last.max(at);
            if self.group.as_mut().is_some_and(|group| group.takes(gradient, bytes)) {
                self.lives[gradient].bytes = 0;
            }
        }
        let sum = self.alive(names.grad_sum, bytes, at);
        self.group.iter_mut().for_each(|group| group.made.push(sum));
        self.gradients[tensor.id] = Some(sum);
    }

    fn alive(&mut self, name: &'static str, bytes: u64, born: usize) -> usize {
        let last = self.operations.len().saturating_sub(1).max(born);
        self.lives.push(Life { name, bytes, born, last });
        self.lives.len() - 1
    }
}
