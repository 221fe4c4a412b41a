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
//! - **gradients only where they are needed**: a tensor needs one if something before it is trained; steps between
//!   frozen parameters and inputs that need none keep nothing and have no backward;
//! - **temporaries**: an intermediate tensor lives from the operation that makes it to the last that reads it, a
//!   gradient from the step that makes it to the step that consumes it; the most alive at once is reported, and the
//!   largest by name.
//!
//! The same run lists the parameters: each primitive that has some names them ([`Tape::weight`]), so that a layer's
//! parameters and its work cannot disagree.

mod checkpoint;
mod fusion;
mod lives;
mod parameters;
mod reverse;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::operation::{
    Dtype, ExchangeGroup, ExchangeKind, Kernel, LayerWork, MemoryBoundKind, Operation, Pass, SavedTensor,
};
use crate::parameter::{ExpertPlace, Parameter};
use crate::trainable::Trainable;
use crate::units::{Bytes, product, total};
use crate::work_shape::WorkShape;
use lives::{Life, all, largest, peak};
use reverse::Reverse;

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
    pub(crate) scratch: &'static str,
    pub(crate) cast: &'static str,
    pub(crate) grad_cast: &'static str,
    pub(crate) weight_cast: &'static str,
}

/// `names!("mlp.fc1")`: the operation `mlp.fc1`, its result `mlp.fc1.output`, its backward `mlp.fc1.grad_input`...
/// Several literals are joined.
macro_rules! names {
    ($($name:literal),+) => {
        $crate::tape::Names {
            op: concat!($($name),+),
            output: concat!($($name),+, ".output"),
            mask: concat!($($name),+, ".mask"),
            statistics: concat!($($name),+, ".statistics"),
            grad: concat!($($name),+, ".grad"),
            grad_input: concat!($($name),+, ".grad_input"),
            grad_weight: concat!($($name),+, ".grad_weight"),
            grad_bias: concat!($($name),+, ".grad_bias"),
            grad_sum: concat!($($name),+, ".grad_sum"),
            scratch: concat!($($name),+, ".scratch"),
            cast: concat!($($name),+, ".cast"),
            grad_cast: concat!($($name),+, ".grad_cast"),
            weight_cast: concat!($($name),+, ".weight_cast"),
        }
    };
}
pub(crate) use names;

/// What a layer is traced for.
#[derive(Clone, Copy)]
pub(crate) struct Trace<'s> {
    pub(crate) shape: &'s WorkShape,
    pub(crate) trainable: &'s Trainable,
    /// Whether something before the layer is trained, so that its input needs a gradient.
    pub(crate) input_needs_gradient: bool,
    /// Whether parameters are listed; their names are not built otherwise.
    pub(crate) lists_parameters: bool,
}

/// A traced layer.
pub(crate) struct Traced {
    pub(crate) work: LayerWork,
    /// In the order of first use. Empty unless the trace lists them.
    pub(crate) parameters: Vec<Parameter>,
    /// Experts, and how many of them a token uses; (1, 1) without routing.
    pub(crate) routing: (u64, u64),
}

/// A tensor on the tape: `rows` x `width` values of `value_bytes` each. Views have an identity (and a gradient) of
/// their own but share the storage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tensor {
    id: usize,
    storage: usize,
    /// What a step that saves the tensor keeps: its storage, or this rank's part of a gathered tensor.
    kept_as: usize,
    /// Separate tensors that this one stands for (a list of features): each takes a kernel where gradients are summed.
    pieces: u32,
    pub(crate) rows: u64,
    pub(crate) width: u64,
    pub(crate) value_bytes: u64,
}

impl Tensor {
    /// What tells it from other tensors of the tape.
    pub(crate) const fn identity(&self) -> usize {
        self.id
    }

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

    /// The same values as a list of `pieces` separate tensors.
    pub(crate) fn as_list(self, pieces: u32) -> Self {
        Self { pieces, ..self }
    }
}

/// What happens to the gradient of a step's output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gradient {
    /// The inputs' gradients are new tensors.
    New,
    /// The inputs' gradients are the output's gradient itself, or views of it (residual addition, reshaping).
    Passed,
    /// The input's gradient takes the place of the saved tensor when the step's backward is done.
    InPlace,
}

/// One recorded step; see the module's description.
pub(crate) struct Step<'a> {
    pub(crate) names: Names,
    pub(crate) forward: &'a [Operation],
    pub(crate) reads: &'a [Tensor],
    pub(crate) saves: &'a [Tensor],
    /// Inputs that get a gradient, if they need one.
    pub(crate) inputs: &'a [Tensor],
    /// Results through which gradients come back.
    pub(crate) outputs: &'a [Tensor],
    pub(crate) backward: &'a [Operation],
    /// Bytes that its backward kernels need beside the tensors.
    pub(crate) scratch: u64,
    pub(crate) gradient: Gradient,
    /// Whether the step has parameters that are trained.
    pub(crate) trains: bool,
}

impl Step<'_> {
    /// A step with nothing in it: no operations, no tensors, new gradients, no parameters.
    pub(crate) const fn of(names: Names) -> Self {
        Self {
            names,
            forward: &[],
            reads: &[],
            saves: &[],
            inputs: &[],
            outputs: &[],
            backward: &[],
            scratch: 0,
            gradient: Gradient::New,
            trains: false,
        }
    }
}

struct Node {
    names: Names,
    /// The step's last forward operation, if it has any.
    at: Option<usize>,
    /// The fused kernel that it is part of.
    run: Option<usize>,
    saves: Vec<usize>,
    /// Those saved tensors of which only this rank's part is kept.
    gathered: Vec<Tensor>,
    inputs: Vec<Tensor>,
    outputs: Vec<usize>,
    backward: Vec<Operation>,
    scratch: u64,
    gradient: Gradient,
    /// Whether the step has parameters that are trained.
    trains: bool,
}

struct Storage {
    name: &'static str,
    bytes: u64,
    born: usize,
    last_read: usize,
    kept: bool,
    /// Belongs to another layer, which counts it.
    outside: bool,
}

/// Recorder of one layer's forward pass.
pub(crate) struct Tape<'s> {
    pub(crate) shape: &'s WorkShape,
    trace: Trace<'s>,
    parameters: Vec<Parameter>,
    /// Their names.
    listed: BTreeSet<String>,
    routing: (u64, u64),
    within_experts: Option<ExpertPlace>,
    /// Tensors by their identity with their copies in 8 or 4 bits.
    pub(crate) converted: Vec<(usize, Tensor)>,
    /// Set while the parameters named are not the model's own: whether they are trained.
    added: Option<bool>,
    /// Tensors of other layers that get a gradient from this one.
    outside: Vec<Tensor>,
    forward: Vec<Operation>,
    /// Which operation reads which storage.
    reads: Vec<(usize, usize)>,
    storages: Vec<Storage>,
    nodes: Vec<Node>,
    /// By tensor: whether something before it is trained.
    needs_gradient: Vec<bool>,
    /// Results beside the output from which backward starts.
    losses: Vec<Tensor>,
    /// Whether the layer before keeps this one's input for its own backward.
    input_held: bool,
    /// Bytes of the largest tensor in the buffer that layers share.
    shared_buffer: u64,
}

impl<'s> Tape<'s> {
    /// Starts a layer with its input of `rows` x `width` values of `value_bytes` each.
    pub(crate) fn start(trace: Trace<'s>, rows: u64, width: u64, value_bytes: u64) -> (Self, Tensor) {
        let mut tape = Self {
            shape: trace.shape,
            trace,
            parameters: Vec::new(),
            listed: BTreeSet::new(),
            routing: (1, 1),
            within_experts: None,
            converted: Vec::new(),
            added: None,
            outside: Vec::new(),
            forward: Vec::new(),
            reads: Vec::new(),
            storages: Vec::new(),
            nodes: Vec::new(),
            needs_gradient: Vec::new(),
            losses: Vec::new(),
            input_held: false,
            shared_buffer: 0,
        };
        let input = tape.tensor(SavedTensor::INPUT, rows, width, value_bytes);
        tape.needs_gradient[input.id] = trace.input_needs_gradient;
        (tape, input)
    }

    /// Bytes of one activation value.
    pub(crate) fn activation_bytes(&self) -> u64 {
        self.shape.activation.bytes()
    }

    /// Format of the products of convolutions.
    pub(crate) fn convolution_products(&self) -> Dtype {
        match self.other_products() {
            Dtype::Fp32 if self.shape.convolutions.tf32 => Dtype::Tf32,
            format => format,
        }
    }

    /// Bytes of one value of a parameter as operations find it.
    pub(crate) fn parameter_bytes(&self) -> u64 {
        self.shape.parameters().bytes()
    }

    /// Format of products other than linear layers': attention and convolutions have no 8-bit kernels and run in
    /// the format of the activations then (Transformer Engine does the same).
    pub(crate) fn other_products(&self) -> Dtype {
        match self.shape.compute {
            Dtype::Fp8 | Dtype::Fp4 => self.shape.activation,
            format => format,
        }
    }

    /// Whether something before the tensor is trained.
    pub(crate) fn needs_gradient(&self, tensor: Tensor) -> bool {
        self.needs_gradient[tensor.id]
    }

    /// A new tensor, born by the operation recorded next.
    pub(crate) fn tensor(&mut self, name: &'static str, rows: u64, width: u64, value_bytes: u64) -> Tensor {
        let (id, storage) = (self.needs_gradient.len(), self.storages.len());
        let tensor = Tensor { id, storage, kept_as: storage, pieces: 1, rows, width, value_bytes };
        self.needs_gradient.push(false);
        let born = self.forward.len();
        let bytes = tensor.bytes();
        self.storages.push(Storage { name, bytes, born, last_read: born, kept: false, outside: false });
        tensor
    }

    /// A tensor that an earlier layer of the same stack made and keeps: its memory is counted there, and this layer's
    /// contribution to its gradient is added to those of later layers.
    pub(crate) fn outside(
        &mut self,
        rows: u64,
        width: u64,
        value_bytes: u64,
        needs_gradient: bool,
    ) -> Tensor {
        let tensor = self.tensor("outside", rows, width, value_bytes);
        self.storages[tensor.storage].outside = true;
        self.needs_gradient[tensor.id] = needs_gradient;
        if needs_gradient {
            self.outside.push(tensor);
        }
        tensor
    }

    /// A new tensor whose memory is not the layer's.
    pub(crate) fn elsewhere(&mut self, name: &'static str, rows: u64, width: u64, bytes: u64) -> Tensor {
        let tensor = self.tensor(name, rows, width, bytes);
        self.storages[tensor.storage].outside = true;
        tensor
    }

    /// A new tensor in a buffer that all layers write into in turn.
    pub(crate) fn in_shared_buffer(&mut self, name: &'static str, rows: u64, width: u64) -> Tensor {
        let tensor = self.elsewhere(name, rows, width, self.activation_bytes());
        self.shared_buffer = self.shared_buffer.max(tensor.bytes());
        tensor
    }

    /// A new tensor of activations.
    pub(crate) fn activation(&mut self, name: &'static str, rows: u64, width: u64) -> Tensor {
        self.tensor(name, rows, width, self.shape.activation.bytes())
    }

    /// A new tensor that an operation makes of others without a format of its own: in the widest of theirs under autocast,
    /// else in that of the activations.
    pub(crate) fn result(&mut self, name: &'static str, rows: u64, width: u64, of: &[Tensor]) -> Tensor {
        let widest = of.iter().map(|tensor| tensor.value_bytes).max();
        let value_bytes = widest.filter(|_| self.shape.autocasts()).unwrap_or(self.activation_bytes());
        self.tensor(name, rows, width, value_bytes)
    }

    /// A tensor with a gradient of its own in the memory of another: a view, or the result of an operation in
    /// place.
    pub(crate) fn view(&mut self, of: Tensor, rows: u64, width: u64) -> Tensor {
        let tensor = Tensor { id: self.needs_gradient.len(), rows, width, ..of };
        self.needs_gradient.push(self.needs_gradient[of.id]);
        tensor
    }

    /// A new tensor of which every rank of the tensor group holds a `part`: a step that saves it keeps the part and
    /// gathers it again in backward.
    pub(crate) fn gathered(&mut self, name: &'static str, part: Tensor, ways: u64) -> Tensor {
        let whole = self.tensor(name, product(&[part.rows, ways]), part.width, part.value_bytes);
        Tensor { kept_as: part.storage, ..whole }
    }

    /// Records a step. Without training only its forward operations count; so it is where neither a parameter of
    /// the step nor anything before it is trained.
    pub(crate) fn record(&mut self, step: &Step<'_>) {
        self.run(step.forward, step.reads);
        let inputs = || step.inputs.iter().filter(|input| self.needs_gradient(**input)).copied();
        if !self.shape.training || !(step.trains || inputs().next().is_some()) {
            return;
        }
        let node = Node {
            names: step.names,
            at: self.forward.len().checked_sub(1).filter(|_| !step.forward.is_empty()),
            run: None,
            saves: step.saves.iter().map(|tensor| tensor.kept_as).collect(),
            gathered: step.saves.iter().filter(|it| it.kept_as != it.storage).copied().collect(),
            inputs: inputs().collect(),
            outputs: step.outputs.iter().map(|tensor| tensor.id).collect(),
            backward: step.backward.to_vec(),
            scratch: step.scratch,
            gradient: step.gradient,
            trains: step.trains,
        };
        for &output in &node.outputs {
            self.needs_gradient[output] = true;
        }
        for &storage in &node.saves {
            self.storages[storage].kept = true;
        }
        self.nodes.push(node);
    }

    /// Records forward operations that autograd does not see (index arithmetic, host copies).
    pub(crate) fn run(&mut self, operations: &[Operation], reads: &[Tensor]) {
        self.forward.extend_from_slice(operations);
        if let Some(last) = self.forward.len().checked_sub(1).filter(|_| !operations.is_empty()) {
            for tensor in reads {
                self.reads.push((last, tensor.storage));
                self.storages[tensor.storage].last_read = last;
            }
        }
    }

    /// Says that the layer before keeps this one's input until its own backward, whatever this layer does with it: its
    /// last step is a ReLU, which keeps its result, and a layer's output belongs to the next layer.
    pub(crate) fn hold_input(&mut self) {
        self.input_held = self.shape.training && self.trace.input_needs_gradient;
    }

    /// A loss beside the layer's output: backward starts from both.
    pub(crate) fn also_start_from(&mut self, loss: Tensor) {
        self.losses.push(loss);
    }

    /// Keeps tensors alive up to the operation recorded last: a variable still names them.
    pub(crate) fn hold(&mut self, tensors: &[Tensor]) {
        if let Some(last) = self.forward.len().checked_sub(1) {
            for tensor in tensors {
                self.storages[tensor.storage].last_read = last;
            }
        }
    }

    /// Ends the layer with its output.
    pub(crate) fn finish(&mut self, output: Tensor) -> Traced {
        self.finish_with(&[output], &[])
    }

    /// Ends the layer with several outputs, and with tensors that it hands on beside them and through which no gradient
    /// comes back.
    pub(crate) fn finish_with(&mut self, outputs: &[Tensor], beside: &[Tensor]) -> Traced {
        let sent = self.sent();
        self.fuse();
        let handed_on: Vec<usize> = outputs.iter().chain(beside).map(|it| it.storage).collect();
        // An output that is a small part of a larger tensor does not keep the whole of it.
        let whole = |output: &&Tensor| output.bytes() == self.storages[output.storage].bytes;
        let passed_on = outputs.first().filter(whole).map(|output| output.storage);
        let lives = self.forward_lives(&handed_on);
        let mut work = LayerWork {
            input: Bytes(self.storages.first().map_or(0, |storage| storage.bytes)),
            output: Bytes(outputs.iter().chain(beside).fold(0, |sum, it| total(&[sum, it.bytes()]))),
            forward_temporary: Bytes(peak(&lives, self.forward.len())),
            shared_buffer: Bytes(self.shared_buffer),
            temporaries: largest(&lives, Pass::Forward, &self.forward),
            short_lived: all(&lives, Pass::Forward, &self.forward),
            ..LayerWork::default()
        };
        if self.shape.training {
            let mut reverse = Reverse::new(self.needs_gradient.len(), self.storages.len());
            for start in outputs.iter().chain(&self.losses).filter(|start| self.needs_gradient(**start)) {
                reverse.seed(*start);
            }
            for &tensor in &self.outside {
                reverse.arrived(tensor);
            }
            for node in self.nodes.iter().rev() {
                reverse.play(node, &self.storages);
            }
            reverse.fuse();
            work.backward_temporary = Bytes(peak(&reverse.lives, reverse.operations.len()));
            if self.input_held {
                self.storages[0].kept = true;
                reverse.freed[0] = reverse.operations.len().saturating_sub(1);
            }
            work.temporaries.extend(largest(&reverse.lives, Pass::Backward, &reverse.operations));
            work.short_lived.extend(all(&reverse.lives, Pass::Backward, &reverse.operations));
            // An output that the layer keeps (a ReLU's result) is listed by the next layer.
            let listed = |index: &usize| {
                let storage = &self.storages[*index];
                Some(*index) != passed_on && storage.kept && !storage.outside
            };
            let listed: Vec<usize> = (0..self.storages.len()).filter(listed).collect();
            let saved = |&index: &usize| {
                let storage = &self.storages[index];
                SavedTensor {
                    name: storage.name,
                    bytes: Bytes(storage.bytes),
                    born: storage.born,
                    last_read: storage.last_read,
                    freed: reverse.freed[index],
                    sent: sent[index],
                }
            };
            work.saved = listed.iter().map(saved).collect();
            work.weight_gradients = reverse.weight_gradients(&listed);
            work.backward = reverse.operations;
        }
        work.forward = std::mem::take(&mut self.forward);
        Traced { work, parameters: std::mem::take(&mut self.parameters), routing: self.routing }
    }

    /// By storage: whether a collective of forward reads or makes it.
    fn sent(&self) -> Vec<bool> {
        let exchange = |at: usize| self.forward.get(at).is_some_and(Operation::records_streams);
        let mut sent: Vec<bool> = self.storages.iter().map(|storage| exchange(storage.born)).collect();
        if let Some(input) = sent.first_mut() {
            // The layer before made it.
            *input = false;
        }
        for &(at, storage) in self.reads.iter().filter(|(at, _)| exchange(*at)) {
            sent[storage] |= exchange(at);
        }
        sent
    }

    /// Lives of the temporaries in forward: neither kept, nor handed on, nor the first storage, the layer's input.
    fn forward_lives(&self, handed_on: &[usize]) -> Vec<Life> {
        let inner = self.storages.iter().enumerate().skip(1);
        inner
            .filter(|(index, storage)| !(storage.kept || storage.outside || handed_on.contains(index)))
            .map(|(_, it)| Life { name: it.name, bytes: it.bytes, born: it.born, last: it.last_read })
            .collect()
    }
}

/// A memory-bound operation of one launch.
pub(crate) fn memory(name: &'static str, kind: MemoryBoundKind, read: u64, written: u64) -> Operation {
    single(name, Kernel::memory(kind, Bytes(read), Bytes(written)))
}

/// A collective among the ranks of the tensor group over an array of `bytes` in all.
pub(crate) fn exchange(name: &'static str, kind: ExchangeKind, bytes: u64) -> Operation {
    exchange_in(ExchangeGroup::Tensor, name, kind, bytes)
}

/// The same among the ranks of another group.
pub(crate) fn exchange_in(
    group: ExchangeGroup,
    name: &'static str,
    kind: ExchangeKind,
    bytes: u64,
) -> Operation {
    single(name, Kernel::Exchange { group, kind, bytes: Bytes(bytes) })
}

/// An operation of one launch.
pub(crate) const fn single(name: &'static str, kernel: Kernel) -> Operation {
    Operation { name, kernel, launches: 1, host_sync: false }
}
