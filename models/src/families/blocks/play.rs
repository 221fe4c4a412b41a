//! Running the blocks of a layer on a tape.

use super::flow::{Flow, Length};
use super::kinds::{Attend, Block, Component, Kind, Mlp, Norm, Pool};
use super::moe::moe;
use super::tokens;
use crate::blocks::{
    Attention, Convolution, Feature, Function, Linear, Patches, activation, add, attention, average_pool,
    batch_norm, cast, class_token, conv2d, copy, cross_entropy, dropout, enter_tensor_parallel, first_token,
    global_average_pool, language_loss, layer_norm, leave_tensor_parallel, linear, lookup, max_pool,
    multiply, patches, position_lookup, positions, relu_in_place, rms_norm, rotary, split_heads,
    split_to_copies,
};
use crate::model::LayerRole;
use crate::operation::Kernel;
use crate::parameter::Split;
use crate::tape::{Names, Step, Tape, Tensor, Trace, Traced, names, single};
use crate::units::{Flops, product};
use crate::work_shape::AttentionKind;

/// Where in a model a block stands; decides the names of its operations only.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Embedding,
    /// In a residual branch with attention.
    Attention,
    /// In a residual branch with a feed-forward.
    Mlp,
    Head,
    Other,
}

/// The first of `choices` whose part it is, and the last for all others.
fn named<const N: usize>(part: Part, choices: [(Part, Names); N], other: Names) -> Names {
    choices.iter().find(|(at, _)| *at == part).map_or(other, |&(_, names)| names)
}

/// Whether a layer's result is kept for its own backward, or, a view of its input, for that of the layer before, which
/// keeps it if it is `held`. Such a tensor is listed by the layer that receives it.
pub(super) fn keeps_result(blocks: &[Block], held: bool) -> bool {
    blocks.iter().fold(held, |kept, block| match block.kind {
        Kind::ReluInPlace => true,
        Kind::Flatten => kept,
        _ => false,
    })
}

/// Runs one layer. `held`: the layer before keeps what this one receives.
pub(super) fn layer(input: Flow, role: LayerRole, blocks: &[Block], held: bool, trace: Trace<'_>) -> Traced {
    let (mut tape, mut x) = input.start(trace);
    if held {
        tape.hold_input();
    }
    if matches!(input, Flow::Pixels { .. }) {
        let format = tape.activation_bytes();
        x = cast(&mut tape, names!("image.cast"), x, format);
    }
    let part = match role {
        LayerRole::Embedding => Part::Embedding,
        LayerRole::Head => Part::Head,
        LayerRole::Block | LayerRole::Component => Part::Other,
    };
    let x = run(&mut tape, blocks, part, x);
    tape.finish(x)
}

fn run(tape: &mut Tape<'_>, blocks: &[Block], part: Part, x: Tensor) -> Tensor {
    blocks.iter().fold(x, |x, block| play(tape, block, part, x))
}

fn play(tape: &mut Tape<'_>, block: &Block, part: Part, x: Tensor) -> Tensor {
    let module = block.module.as_str();
    match &block.kind {
        Kind::Embedding { .. }
        | Kind::Positions { .. }
        | Kind::TokenTypes { .. }
        | Kind::Patches { .. }
        | Kind::ClassToken => beginning(tape, block, x),
        Kind::Norm(norm) => {
            let choices = [
                (Part::Attention, names!("attention.norm")),
                (Part::Mlp, names!("mlp.norm")),
                (Part::Embedding, names!("embedding.norm")),
                (Part::Head, names!("head.norm")),
            ];
            let names = named(part, choices, names!("norm"));
            match norm {
                Norm::Layer { bias } => layer_norm(tape, module, names, x, *bias),
                Norm::Rms => rms_norm(tape, module, names, x),
                Norm::Batch => {
                    let x = feature(tape, block, x);
                    batch_norm(tape, module, names, x).tensor
                }
            }
        }
        Kind::Attention(attend) => self_attention(tape, attend, block, x),
        Kind::Mlp(mlp) => feed_forward(tape, mlp, module, x),
        Kind::Moe(experts) => moe(tape, experts, module, x),
        Kind::Convolution { channels, window, groups, bias } => {
            let layer = Convolution::new(module, names!("conv"), *channels, *window).groups(*groups);
            let layer = if *bias { layer.biased() } else { layer };
            let x = feature(tape, block, x);
            conv2d(tape, &layer, x).tensor
        }
        Kind::Pool(kind) => pool(tape, *kind, block, x),
        Kind::Activation => activation(tape, names!("activation"), Function::Gelu, x),
        Kind::ReluInPlace => relu_in_place(tape, names!("relu"), x),
        Kind::Dropout => {
            let choices = [
                (Part::Attention, names!("attention.output_dropout")),
                (Part::Mlp, names!("mlp.dropout")),
                (Part::Embedding, names!("embedding.dropout")),
            ];
            dropout(tape, named(part, choices, names!("dropout")), x, true)
        }
        Kind::Linear { width, bias } => {
            linear(tape, Linear::new(module, names!("linear"), *width).bias(*bias), x)
        }
        Kind::Flatten => {
            let batch = tape.shape.micro_batch;
            x.reshaped(batch, block.output.width().unwrap_or(x.width))
        }
        Kind::Head { outputs, tied, bias } => head(tape, block, [*tied, *bias], *outputs, x),
        Kind::Component(component) => opaque(tape, component, block, x),
        Kind::Residual { branch, shortcut } => {
            let part = part_of(branch);
            let y = run(tape, branch, part, x);
            let x = run(tape, shortcut, Part::Other, x);
            let choices =
                [(Part::Attention, names!("attention.residual")), (Part::Mlp, names!("mlp.residual"))];
            add(tape, named(part, choices, names!("residual")), x, y)
        }
    }
}

/// What a residual branch is about.
fn part_of(branch: &[Block]) -> Part {
    let has = |wanted: fn(&Kind) -> bool| branch.iter().any(|block| wanted(&block.kind));
    if has(|kind| matches!(kind, Kind::Attention(_))) {
        Part::Attention
    } else if has(|kind| matches!(kind, Kind::Mlp(_) | Kind::Moe(_))) {
        Part::Mlp
    } else {
        Part::Other
    }
}

fn beginning(tape: &mut Tape<'_>, block: &Block, x: Tensor) -> Tensor {
    let (module, batch) = (block.module.as_str(), tape.shape.micro_batch);
    match (&block.kind, block.input) {
        (Kind::Embedding { vocabulary, width }, _) => lookup(tape, module, x, [*vocabulary, *width]),
        (Kind::Positions { rows }, Flow::Tokens { length: Length::Fixed(tokens), .. }) => {
            positions(tape, module, x, [tokens, *rows])
        }
        (Kind::Positions { rows: table } | Kind::TokenTypes { count: table }, _) => {
            position_lookup(tape, module, x, tape.shape.sequence_length, *table)
        }
        (Kind::Patches { size, width }, Flow::Image { channels, height, width: columns }) => {
            let grid = Patches { channels, size: *size, side: height / size, width: *width };
            let image = x.reshaped(batch, product(&[channels, height, columns]));
            patches(tape, module, image, &grid)
        }
        (Kind::ClassToken, _) => class_token(tape, module, x, batch),
        _ => x,
    }
}

/// Projections, attention over the tokens of each sample, and the output projection.
fn self_attention(tape: &mut Tape<'_>, a: &Attend, block: &Block, x: Tensor) -> Tensor {
    let Flow::Tokens { width, length } = block.input else { return x };
    let x = enter_tensor_parallel(tape, x);
    let [q, k, v] = projections(tape, a, &block.module, x);
    let shape = Attention {
        batch: tape.shape.micro_batch,
        length: tokens(length, tape.shape.sequence_length),
        heads: tape.shape.tensor.part(a.heads),
        kv_heads: tape.shape.tensor.part(a.kv_heads),
        head_dim: a.head_dim,
        causal: a.causal,
        dropout: a.dropout,
        softmax_fp32: a.softmax_fp32,
        sequence_first: false,
        merges_fused: false,
    };
    let context = attention(tape, &shape, q, k, v);
    let module = format!("{}.o_proj", block.module);
    let out = Linear::new(&module, names!("attention.projection"), width).bias(a.output_bias);
    let projected = linear(tape, out.rows(), context);
    leave_tensor_parallel(tape, projected)
}

fn projections(tape: &mut Tape<'_>, a: &Attend, module: &str, x: Tensor) -> [Tensor; 3] {
    let eager = tape.shape.attention == AttentionKind::Eager;
    if a.packed {
        let module = format!("{module}.qkv_proj");
        let packed = Linear::new(&module, names!("attention.qkv"), product(&[3, a.heads, a.head_dim]));
        let qkv = linear(tape, packed.bias(a.bias).columns(), x);
        return if eager { split_to_copies(tape, qkv) } else { split_heads(tape, qkv) };
    }
    let mut project = |leaf: &str, names, heads| {
        let module = format!("{module}.{leaf}");
        let width = product(&[heads, a.head_dim]);
        linear(tape, Linear::new(&module, names, width).bias(a.bias).heads(heads), x)
    };
    let mut q = project("q_proj", names!("attention.query"), a.heads);
    let mut k = project("k_proj", names!("attention.key"), a.kv_heads);
    let mut v = project("v_proj", names!("attention.value"), a.kv_heads);
    if a.rotary {
        q = rotary(tape, names!("attention.rotary_query"), q, q.width);
        k = rotary(tape, names!("attention.rotary_key"), k, k.width);
    }
    if eager {
        // The batched products want heads beside the batch; grouped keys and values get there when they are repeated.
        q = copy(tape, names!("attention.query_layout"), q);
        if a.kv_heads == a.heads {
            k = copy(tape, names!("attention.key_layout"), k);
            v = copy(tape, names!("attention.value_layout"), v);
        }
    }
    [q, k, v]
}

/// Two linear layers with an activation between, or three of which two are multiplied.
fn feed_forward(tape: &mut Tape<'_>, mlp: &Mlp, module: &str, x: Tensor) -> Tensor {
    let hidden = x.width;
    let x = enter_tensor_parallel(tape, x);
    let [gate, up, down] = ["gate_proj", "up_proj", "down_proj"].map(|leaf| format!("{module}.{leaf}"));
    let mut wide = if mlp.gated {
        let gate = Linear::new(&gate, names!("mlp.gate"), mlp.width).bias(mlp.bias);
        let gate = linear(tape, gate.columns(), x);
        let gate = activation(tape, names!("mlp.silu"), Function::Silu, gate);
        let up = linear(tape, Linear::new(&up, names!("mlp.up"), mlp.width).bias(mlp.bias).columns(), x);
        multiply(tape, names!("mlp.product"), gate, up)
    } else {
        let up = Linear::new(&up, names!("mlp.fc1"), mlp.width).bias(mlp.bias);
        let wide = linear(tape, up.columns(), x);
        activation(tape, names!("mlp.gelu"), Function::Gelu, wide)
    };
    wide = dropout(tape, names!("mlp.hidden_dropout"), wide, mlp.dropout);
    let names = if mlp.gated { names!("mlp.down") } else { names!("mlp.fc2") };
    let narrow = linear(tape, Linear::new(&down, names, hidden).bias(mlp.bias).rows(), wide);
    leave_tensor_parallel(tape, narrow)
}

/// What a block receives as feature maps; tokens are an image one pixel wide.
fn feature(tape: &Tape<'_>, block: &Block, x: Tensor) -> Feature {
    let grid = match block.input {
        Flow::Image { height, width, .. } => [height, width],
        Flow::Tokens { length, .. } => [tokens(length, tape.shape.sequence_length), 1],
        _ => [1, 1],
    };
    Feature::new(x, tape.shape.micro_batch, grid)
}

fn pool(tape: &mut Tape<'_>, pool: Pool, block: &Block, x: Tensor) -> Tensor {
    let image = feature(tape, block, x);
    let y = match pool {
        Pool::Max(window) => max_pool(tape, names!("pool.max"), window, image),
        Pool::Average(window) => average_pool(tape, names!("pool.average"), window, image),
        Pool::Global => global_average_pool(tape, names!("pool.global"), image),
        Pool::First => return first_token(tape, x, tape.shape.micro_batch),
    };
    y.tensor
}

/// Output projection, and in training the loss. Over tokens it is a language model's, divided among the tensor group
/// unless it has a bias.
fn head(tape: &mut Tape<'_>, block: &Block, [tied, bias]: [bool; 2], outputs: u64, x: Tensor) -> Tensor {
    if matches!(block.input, Flow::Tokens { .. }) && !bias {
        let projection = Linear::new(&block.module, names!("head.projection"), outputs).tied(tied);
        return language_loss(tape, projection, false, x);
    }
    let layer = Linear::new(&block.module, names!("head.classifier"), outputs).bias(bias).tied(tied);
    let logits = linear(tape, layer, x);
    if tape.shape.training { cross_entropy(tape, logits, false) } else { logits }
}

/// One operation forward and one backward of the stated FLOPs.
fn opaque(tape: &mut Tape<'_>, component: &Component, block: &Block, x: Tensor) -> Tensor {
    let names = names!("component");
    let (batch, dtype) = (tape.shape.micro_batch, tape.shape.compute);
    let of_batch = |value: f64| (value * batch as f64).round() as u64;
    let trains = component.parameters > 0
        && tape.weight(&block.module, "weight", &[component.parameters], Split::Whole);
    let kernel = |flops: f64| Kernel::Component { flops: Flops(of_batch(flops)), dtype };
    let saved = tape.tensor("component.saved", of_batch(component.saved), 1, 1);
    let y = match block.output {
        Flow::Opaque { bytes } => tape.tensor(names.output, batch, bytes, 1),
        _ => tape.activation(names.output, x.rows, x.width),
    };
    let keeps = if saved.bytes() == 0 { &[][..] } else { std::slice::from_ref(&saved) };
    tape.record(&Step {
        forward: &[single(names.op, kernel(component.forward))],
        reads: &[x],
        saves: keeps,
        inputs: &[x],
        outputs: &[y],
        backward: &[single(names.grad, kernel(component.backward))],
        trains,
        ..Step::of(names)
    });
    y
}
