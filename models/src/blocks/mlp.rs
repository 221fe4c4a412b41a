//! Feed-forward halves: two linear layers around an activation, or three with a gate (GLU variants, Shazeer 2020).

use super::attention::split_columns;
use super::linear::{Linear, linear};
use super::pointwise::{Function, activation, activation_by_result, dropout, multiply};
use crate::tape::{Names, Tape, Tensor, names};
use crate::work_shape::Fusion;

/// The function in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    Silu,
    /// Exact or by its tanh form: one kernel either way.
    Gelu,
    Relu,
    /// The square of ReLU (Primer, So et al. 2021).
    SquaredRelu,
}

/// What a feed-forward does between its linear layers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FeedForward {
    pub(crate) activation: Activation,
    /// `act(gate(x)) * up(x)` in the middle in place of `act(up(x))`.
    pub(crate) gated: bool,
    /// Dropout before the last linear layer (T5).
    pub(crate) dropout: bool,
}

/// Names of its operations.
pub(crate) struct Parts {
    gate: Names,
    gate_up: Names,
    up: Names,
    down: Names,
    fc1: Names,
    fc2: Names,
    silu: Names,
    gelu: Names,
    relu: Names,
    square: Names,
    product: Names,
    dropout: Names,
}

macro_rules! parts {
    ($scope:literal) => {
        Parts {
            gate: names!($scope, ".gate"),
            gate_up: names!($scope, ".gate_up"),
            up: names!($scope, ".up"),
            down: names!($scope, ".down"),
            fc1: names!($scope, ".fc1"),
            fc2: names!($scope, ".fc2"),
            silu: names!($scope, ".silu"),
            gelu: names!($scope, ".gelu"),
            relu: names!($scope, ".relu"),
            square: names!($scope, ".square"),
            product: names!($scope, ".product"),
            dropout: names!($scope, ".hidden_dropout"),
        }
    };
}

pub(crate) const MLP: Parts = parts!("mlp");
pub(crate) const EXPERTS: Parts = parts!("moe.experts");
pub(crate) const SHARED_EXPERT: Parts = parts!("moe.shared");

/// Which of its linear layers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Gate,
    Up,
    Down,
}

/// The feed-forward with its linear layers as `project` runs them.
pub(crate) fn feed_forward(
    tape: &mut Tape<'_>,
    form: FeedForward,
    parts: &Parts,
    x: Tensor,
    mut project: impl FnMut(&mut Tape<'_>, Part, Names, Tensor) -> Tensor,
) -> Tensor {
    let wide = if form.gated {
        let gate = project(tape, Part::Gate, parts.gate, x);
        if tape.shape.fusion == Fusion::None {
            let gate = activate(tape, form.activation, parts, gate);
            let up = project(tape, Part::Up, parts.up, x);
            multiply(tape, parts.product, gate, up)
        } else {
            // A fused activation and product wait for both projections.
            let up = project(tape, Part::Up, parts.up, x);
            let gate = activate(tape, form.activation, parts, gate);
            multiply(tape, parts.product, gate, up)
        }
    } else {
        let wide = project(tape, Part::Up, parts.fc1, x);
        activate(tape, form.activation, parts, wide)
    };
    let wide = dropout(tape, parts.dropout, wide, form.dropout);
    project(tape, Part::Down, if form.gated { parts.down } else { parts.fc2 }, wide)
}

fn activate(tape: &mut Tape<'_>, kind: Activation, parts: &Parts, x: Tensor) -> Tensor {
    match kind {
        Activation::Silu => activation(tape, parts.silu, Function::Silu, x),
        Activation::Gelu => activation(tape, parts.gelu, Function::Gelu, x),
        Activation::Relu => activation_by_result(tape, parts.relu, x),
        Activation::SquaredRelu => {
            let positive = activation_by_result(tape, parts.relu, x);
            activation(tape, parts.square, Function::Simple, positive)
        }
    }
}

/// Linear layers of a dense feed-forward: modules of gate, up and down, widths of the middle and of the result. The
/// middle is divided among the tensor group; the result is this rank's summand.
#[derive(Clone, Copy)]
pub(crate) struct Dense<'n> {
    pub(crate) modules: [&'n str; 3],
    /// A layer in place of gate and up, whose result is split.
    pub(crate) packed: Option<&'n str>,
    pub(crate) middle: u64,
    pub(crate) width: u64,
    pub(crate) bias: bool,
}

/// A dense feed-forward.
pub(crate) fn dense_feed_forward(
    tape: &mut Tape<'_>,
    form: FeedForward,
    parts: &Parts,
    dense: Dense<'_>,
    x: Tensor,
) -> Tensor {
    let [gate, up, down] = dense.modules;
    if let Some(module) = dense.packed {
        let layer = Linear::new(module, parts.gate_up, 2 * dense.middle).columns();
        let both = linear(tape, layer.bias(dense.bias), x);
        let [gate, up] = split_columns(tape, parts.gate_up, both);
        let gate = activate(tape, form.activation, parts, gate);
        let wide = multiply(tape, parts.product, gate, up);
        let wide = dropout(tape, parts.dropout, wide, form.dropout);
        let layer = Linear::new(down, parts.down, dense.width).rows();
        return linear(tape, layer.bias(dense.bias), wide);
    }
    feed_forward(tape, form, parts, x, |tape, part, names, x| {
        let layer = match part {
            Part::Gate => Linear::new(gate, names, dense.middle).columns(),
            Part::Up => Linear::new(up, names, dense.middle).columns(),
            Part::Down => Linear::new(down, names, dense.width).rows(),
        };
        linear(tape, layer.bias(dense.bias), x)
    })
}
