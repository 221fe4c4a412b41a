//! A tape that records forward operations and derives backward from them, the way autograd does.
//!
//! A block is written as its module's `forward` is: each primitive of `blocks` takes tensors, records a [`Step`]
//! and returns tensors. A step says which tensors it reads, which it makes, which it keeps for backward, which
//! inputs get a gradient and which operations its backward runs. [`Tape::finish`] walks the steps in reverse and
//! yields the [`LayerWork`]:
//!
//! - **backward operations**: those of each step, last step first, and one addition wherever a tensor with several
//!   readers receives a further gradient (autograd accumulates them out of place);
//! - **saved tensors**: memory kept by at least one step, counted once for all views of it, freed when the first
//!   of its readers (the last one in backward) is done;
//! - **temporaries**: an intermediate tensor lives from the operation that makes it to the last that reads it, a
//!   gradient from the step that makes it to the step that consumes it; the most alive at once is reported.

use crate::model::WorkShape;
use crate::operation::{Dtype, Kernel, LayerWork, MemoryBoundKind, Operation, SavedTensor};
use crate::units::{Bytes, product, total};

/// Names of an operation, its results and its backward, all made from one literal by [`names!`].
#[derive(Clone, Copy)]
pub(crate) struct Names {
    pub(crate) op: &'static str,
    pub(crate) output: &'static str,
    pub(crate) mask: &'static str,
    pub(crate) statistics: &'static str,
    pub(crate) grad: &'static str,
    pub(crate) grad_input: &'static str,
    pub(crate) grad_weight: &'static str,
    pub(crate) grad_bias: &'static str,
    pub(crate) grad_sum: &'static str,
}

/// `names!("mlp.fc1")`: the operation `mlp.fc1`, its result `mlp.fc1.output`, its backward `mlp.fc1.grad_input`...
macro_rules! names {
    ($name:literal) => {
        $crate::tape::Names {
            op: $name,
            output: concat!($name, ".output"),
            mask: concat!($name, ".mask"),
            statistics: concat!($name, ".statistics"),
            grad: concat!($name, ".grad"),
            grad_input: concat!($name, ".grad_input"),
            grad_weight: concat!($name, ".grad_weight"),
            grad_bias: concat!($name, ".grad_bias"),
            grad_sum: concat!($name, ".grad_sum"),
        }
    };
}
pub(crate) use names;

/// A tensor on the tape: `rows` x `width` values of `value_bytes` each. Views have an identity (and a gradient) of
/// their own but share the storage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tensor {
    id: usize,
    storage: usize,
    pub(crate) rows: u64,
    pub(crate) width: u64,
    pub(crate) value_bytes: u64,
}

impl Tensor {
    pub(crate) fn values(&self) -> u64 {
        product(&[self.rows, self.width])
    }

    pub(crate) fn bytes(&self) -> u64 {
        product(&[self.rows, self.width, self.value_bytes])
    }

    /// The same tensor with other dimensions; the number of values must stay.
    pub(crate) fn reshaped(self, rows: u64, width: u64) -> Self {
        Self { rows, width, ..self }
    }
}

/// What happens to the gradient of a step's output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gradient {
    /// The inputs' gradients are new tensors.
    New,
    /// The inputs' gradients are the output's gradient itself, or views of it (residual addition, reshaping).
    Passed,
}

/// One recorded step; see the module's description.
pub(crate) struct Step<'a> {
    pub(crate) names: Names,
    pub(crate) forward: &'a [Operation],
    pub(crate) reads: &'a [Tensor],
    pub(crate) saves: &'a [Tensor],
    /// Inputs that get a gradient.
    pub(crate) inputs: &'a [Tensor],
    /// Results through which gradients come back.
    pub(crate) outputs: &'a [Tensor],
    pub(crate) backward: &'a [Operation],
    /// Bytes that its backward kernels need beside the tensors.
    pub(crate) scratch: u64,
    pub(crate) gradient: Gradient,
}

struct Node {
    names: Names,
    saves: Vec<usize>,
    inputs: Vec<Tensor>,
    outputs: Vec<usize>,
    backward: Vec<Operation>,
    scratch: u64,
    gradient: Gradient,
}

struct Storage {
    name: &'static str,
    bytes: u64,
    born: usize,
    last_read: usize,
    kept: bool,
}

/// A stretch of time, in operation indices, for which some bytes are alive.
struct Life {
    bytes: u64,
    born: usize,
    last: usize,
}

/// Recorder of one layer's forward pass. Whether a tensor needs a gradient is the caller's knowledge: steps over
/// token ids and images name no `inputs`.
pub(crate) struct Tape<'s> {
    pub(crate) shape: &'s WorkShape,
    forward: Vec<Operation>,
    storages: Vec<Storage>,
    nodes: Vec<Node>,
    tensors: usize,
}

impl<'s> Tape<'s> {
    /// Starts a layer with its input of `rows` x `width` values of `value_bytes` each.
    pub(crate) fn start(shape: &'s WorkShape, rows: u64, width: u64, value_bytes: u64) -> (Self, Tensor) {
        let mut tape =
            Self { shape, forward: Vec::new(), storages: Vec::new(), nodes: Vec::new(), tensors: 0 };
        let input = tape.tensor(SavedTensor::INPUT, rows, width, value_bytes);
        (tape, input)
    }

    /// Bytes of one activation value.
    pub(crate) fn activation_bytes(&self) -> u64 {
        self.shape.activation.bytes()
    }

    /// Format of products other than linear layers': attention and convolutions have no 8-bit kernels and run in
    /// the format of the activations then (Transformer Engine does the same).
    pub(crate) fn other_products(&self) -> Dtype {
        match self.shape.compute {
            Dtype::Fp8 => self.shape.activation,
            format => format,
        }
    }

    /// A new tensor, born by the operation recorded next.
    pub(crate) fn tensor(&mut self, name: &'static str, rows: u64, width: u64, value_bytes: u64) -> Tensor {
        let tensor = Tensor { id: self.tensors, storage: self.storages.len(), rows, width, value_bytes };
        self.tensors += 1;
        let born = self.forward.len();
        self.storages.push(Storage { name, bytes: tensor.bytes(), born, last_read: born, kept: false });
        tensor
    }

    /// A new tensor of activations.
    pub(crate) fn activation(&mut self, name: &'static str, rows: u64, width: u64) -> Tensor {
        self.tensor(name, rows, width, self.shape.activation.bytes())
    }

    /// A tensor with a gradient of its own in the memory of another: a view, or the result of an operation in
    /// place.
    pub(crate) fn view(&mut self, of: Tensor, rows: u64, width: u64) -> Tensor {
        let tensor = Tensor { id: self.tensors, rows, width, ..of };
        self.tensors += 1;
        tensor
    }

    /// Records a step. Without training only its forward operations count.
    pub(crate) fn record(&mut self, step: &Step<'_>) {
        self.forward.extend_from_slice(step.forward);
        if let Some(last) = self.forward.len().checked_sub(1).filter(|_| !step.forward.is_empty()) {
            for tensor in step.reads {
                self.storages[tensor.storage].last_read = last;
            }
        }
        if !self.shape.training {
            return;
        }
        for tensor in step.saves {
            self.storages[tensor.storage].kept = true;
        }
        self.nodes.push(Node {
            names: step.names,
            saves: step.saves.iter().map(|tensor| tensor.storage).collect(),
            inputs: step.inputs.to_vec(),
            outputs: step.outputs.iter().map(|tensor| tensor.id).collect(),
            backward: step.backward.to_vec(),
            scratch: step.scratch,
            gradient: step.gradient,
        });
    }

    /// Records forward operations that autograd does not see (index arithmetic, host copies).
    pub(crate) fn run(&mut self, operations: &[Operation], reads: &[Tensor]) {
        self.forward.extend_from_slice(operations);
        if let Some(last) = self.forward.len().checked_sub(1) {
            for tensor in reads {
                self.storages[tensor.storage].last_read = last;
            }
        }
    }

    /// Ends the layer with its output.
    pub(crate) fn finish(&mut self, output: Tensor) -> LayerWork {
        let forward_temporary = self.forward_peak(output);
        let input = self.storages.first().map_or(0, |storage| storage.bytes);
        let mut work = LayerWork {
            input: Bytes(input),
            output: Bytes(output.bytes()),
            forward_temporary: Bytes(forward_temporary),
            ..LayerWork::default()
        };
        if self.shape.training {
            let mut reverse = Reverse::new(self.tensors, self.storages.len());
            reverse.seed(output);
            for node in self.nodes.iter().rev() {
                reverse.play(node);
            }
            work.backward_temporary = Bytes(peak(&reverse.lives, reverse.operations.len()));
            work.saved = self
                .storages
                .iter()
                .zip(&reverse.freed)
                .filter(|(storage, _)| storage.kept)
                .map(|(storage, &freed)| SavedTensor {
                    name: storage.name,
                    bytes: Bytes(storage.bytes),
                    born: storage.born,
                    freed,
                })
                .collect();
            work.backward = reverse.operations;
        }
        work.forward = std::mem::take(&mut self.forward);
        work
    }

    /// Most bytes of temporaries alive at once in forward. The first storage is the layer's input.
    fn forward_peak(&self, output: Tensor) -> u64 {
        let lives: Vec<Life> = self
            .storages
            .iter()
            .enumerate()
            .skip(1)
            .filter(|(index, storage)| !storage.kept && *index != output.storage)
            .map(|(_, storage)| Life { bytes: storage.bytes, born: storage.born, last: storage.last_read })
            .collect();
        peak(&lives, self.forward.len())
    }
}

/// The backward pass while it is derived.
struct Reverse {
    operations: Vec<Operation>,
    /// Gradient of each tensor, as an index into `lives`.
    gradients: Vec<Option<usize>>,
    lives: Vec<Life>,
    /// Last operation that needs each storage.
    freed: Vec<usize>,
}

impl Reverse {
    fn new(tensors: usize, storages: usize) -> Self {
        Self {
            operations: Vec::new(),
            gradients: vec![None; tensors],
            lives: Vec::new(),
            freed: vec![0; storages],
        }
    }

    /// The gradient that comes in from the next layer, alive from the start.
    fn seed(&mut self, output: Tensor) {
        self.gradients[output.id] = Some(0);
        self.lives.push(Life { bytes: output.bytes(), born: 0, last: 0 });
    }

    /// Runs the backward of one step.
    fn play(&mut self, node: &Node) {
        let incoming: Vec<usize> = node.outputs.iter().filter_map(|&output| self.gradients[output]).collect();
        if incoming.is_empty() {
            return;
        }
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
            self.lives.push(Life { bytes: node.scratch, born: start, last: end });
        }
        for input in &node.inputs {
            let contribution = match node.gradient {
                Gradient::Passed => incoming[0],
                Gradient::New => self.alive(input.bytes(), start),
            };
            self.receive(*input, contribution, node.names);
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
        self.operations.push(memory(
            names.grad_sum,
            MemoryBoundKind::Elementwise,
            total(&[bytes, bytes]),
            bytes,
        ));
        for gradient in [present, contribution] {
            self.lives[gradient].last = self.lives[gradient].last.max(at);
        }
        self.gradients[tensor.id] = Some(self.alive(bytes, at));
    }

    fn alive(&mut self, bytes: u64, born: usize) -> usize {
        let last = self.operations.len().saturating_sub(1).max(born);
        self.lives.push(Life { bytes, born, last });
        self.lives.len() - 1
    }
}

/// Most bytes alive at once over `operations` operations.
fn peak(lives: &[Life], operations: usize) -> u64 {
    let mut change = vec![(0_u64, 0_u64); operations + 1];
    for life in lives {
        let born = life.born.min(operations);
        let dies = (life.last + 1).min(operations);
        change[born].0 = change[born].0.saturating_add(life.bytes);
        if dies > born {
            change[dies].1 = change[dies].1.saturating_add(life.bytes);
        }
    }
    let mut alive = 0_u64;
    let mut most = 0;
    for (born, died) in change {
        alive = alive.saturating_sub(died).saturating_add(born);
        most = most.max(alive);
    }
    most
}

/// A memory-bound operation of one launch.
pub(crate) fn memory(name: &'static str, kind: MemoryBoundKind, read: u64, written: u64) -> Operation {
    single(name, Kernel::MemoryBound { kind, read: Bytes(read), written: Bytes(written) })
}

/// An operation of one launch.
pub(crate) const fn single(name: &'static str, kernel: Kernel) -> Operation {
    Operation { name, kernel, launches: 1, host_sync: false }
}

#[cfg(test)]
mod tests;
