//! Backward, derived from the recorded steps in reverse.

use super::lives::Life;
use super::{Gradient, Names, Node, Tensor, exchange, memory};
use crate::operation::{ExchangeKind, Group, MemoryBoundKind, Operation};
use crate::units::total;

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
}

impl Reverse {
    pub(super) fn new(tensors: usize, storages: usize) -> Self {
        Self {
            operations: Vec::new(),
            gradients: vec![None; tensors],
            lives: Vec::new(),
            freed: vec![0; storages],
            gathered: Vec::new(),
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
    pub(super) fn play(&mut self, node: &Node) {
        let incoming: Vec<usize> = node.outputs.iter().filter_map(|&output| self.gradients[output]).collect();
        if incoming.is_empty() {
            return;
        }
        self.gather_again(node);
        let start = self.operations.len();
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
                Gradient::New => self.alive(node.names.grad_input, input.bytes(), start),
            };
            self.receive(*input, contribution, node.names);
        }
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
            let name = "tensor_parallel.gather_again";
            self.lives.push(Life { name, bytes: whole.bytes(), born: self.operations.len(), last: end });
            let (kind, group) = (ExchangeKind::AllGather, Group::Tensor);
            self.operations.push(exchange(name, kind, group, whole.bytes()));
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
        }
        self.gradients[tensor.id] = Some(self.alive(names.grad_sum, bytes, at));
    }

    fn alive(&mut self, name: &'static str, bytes: u64, born: usize) -> usize {
        let last = self.operations.len().saturating_sub(1).max(born);
        self.lives.push(Life { name, bytes, born, last });
        self.lives.len() - 1
    }
}
