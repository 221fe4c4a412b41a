//! One block: grouping attention at each scale, then attention over the tokens of all scales.

use super::{NEIGHBOURHOOD, Rat};
use crate::blocks::{
    Attention, Convolution, Feature, Function, Grouping, Linear, Rotation, Window, accumulate, activation,
    add, attention, concatenate_rows, conv2d, copy, dropout, empty_maps, grouping_attention, layer_norm,
    linear, rotary_spatial, scale_learned, split_to_copies,
};
use crate::operation::{MemoryBoundKind, Operation};
use crate::parameter::Split;
use crate::tape::{Gradient, Names, Step, Tape, Tensor, Trace, Traced, memory, names};
use crate::units::{product, total};
use crate::work_shape::{AttentionKind, WorkShape};

/// One scale in one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    /// Tokens a side of the grid that comes in.
    fine: u64,
    /// Tokens a side of the grid that goes out.
    coarse: u64,
    /// Tokens of the grid that the maps handed on refer to; of a sparse block, those of a neighbourhood.
    origin: u64,
    /// Blocks whose maps are multiplied in the map handed on. A sparse map has its neighbours for columns and
    /// multiplies with nothing: it, and the dense block after it, begin anew.
    links: Links,
    /// The same of the block before.
    earlier: Option<(u64, Links)>,
}

/// How many blocks' maps an accumulated map is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Links {
    /// None: before the first block.
    None,
    /// A sparse block's alone.
    Sparse,
    /// A dense block's alone.
    One,
    /// Several dense blocks'.
    Many,
}

impl Scale {
    /// Before the first block.
    pub(super) fn first(side: u64) -> Self {
        Self { fine: side, coarse: side, origin: 0, links: Links::None, earlier: None }
    }

    /// The next block at this scale.
    pub(super) fn next(self, strider: Window, sparse: bool) -> Self {
        let fine = self.coarse;
        let coarse = if strider.stride == 1 { fine } else { strider.over([fine; 2])[0] };
        let (origin, links) = match self.links {
            _ if sparse => (NEIGHBOURHOOD.min(product(&[fine, fine])), Links::Sparse),
            Links::One | Links::Many => (self.origin, Links::Many),
            Links::None | Links::Sparse => (product(&[fine, fine]), Links::One),
        };
        let earlier = (self.links != Links::None).then_some((self.origin, self.links));
        Self { fine, coarse, origin, links, earlier }
    }

    /// Tokens of the grid that comes in.
    fn tokens(&self) -> u64 {
        product(&[self.fine, self.fine])
    }

    /// Tokens of the grid that goes out.
    fn groups(&self) -> u64 {
        product(&[self.coarse, self.coarse])
    }

    /// Columns of the two maps that come in beside the tokens. In training a block's own maps are kept by that block
    /// and not counted again.
    fn received(&self, training: bool) -> Option<u64> {
        let (origin, links) = self.earlier?;
        (links == Links::Many || !training).then_some(origin)
    }
}

/// A block at all scales.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pyramid {
    pub(super) sparse: bool,
    /// Whether the tokens of each scale come in an array of their own.
    pub(super) first: bool,
    pub(super) scales: Vec<Scale>,
}

impl Pyramid {
    /// Groups of all scales.
    fn groups(&self) -> u64 {
        self.scales.iter().map(Scale::groups).sum()
    }

    /// Values that go in beside the tokens: two maps a scale.
    fn received(&self, batch_heads: u64, training: bool) -> u64 {
        let values = self
            .scales
            .iter()
            .map(|scale| product(&[2, batch_heads, scale.tokens(), scale.received(training).unwrap_or(0)]));
        values.fold(0, u64::saturating_add)
    }
}

/// What a block or head receives, apart again.
pub(super) struct Received {
    /// Tokens of each scale.
    pub(super) tokens: Vec<Tensor>,
    /// The two accumulated maps of each scale, where they are not kept elsewhere.
    maps: Vec<Option<[Tensor; 2]>>,
}

impl Rat {
    pub(super) fn block(&self, pyramid: &Pyramid, trace: Trace<'_>) -> Traced {
        let shape = trace.shape;
        let (mut tape, received) = self.receive(pyramid, trace);
        let tape = &mut tape;
        let mut handed_on = Vec::new();
        let mut grouped = Vec::new();
        for ((scale, &tokens), earlier) in pyramid.scales.iter().zip(&received.tokens).zip(&received.maps) {
            let (groups, maps) = self.group(tape, pyramid.sparse, scale, tokens);
            grouped.push(groups);
            let g = self.grouping(shape, scale, pyramid.sparse);
            match scale.links {
                Links::Many => handed_on.extend([0, 1].map(|which: usize| {
                    accumulate(tape, &g, maps[which], earlier.map(|pair| pair[which]), scale.origin)
                })),
                _ if shape.training => {}
                _ => handed_on.extend(maps),
            }
        }
        let x = concatenate_rows(tape, names!("attention.concatenate"), &grouped);
        let x = self.mix(tape, pyramid, x);
        tape.finish_with(&[x], &handed_on)
    }

    /// Starts the tape of what comes after `pyramid`'s predecessor: tokens of all scales, and maps, as one array.
    pub(super) fn receive<'s>(&self, pyramid: &Pyramid, trace: Trace<'s>) -> (Tape<'s>, Received) {
        let shape = trace.shape;
        let batch_heads = product(&[shape.micro_batch, self.heads]);
        let rows = |scale: &Scale| product(&[shape.micro_batch, scale.tokens()]);
        let all: u64 = pyramid.scales.iter().map(rows).fold(0, u64::saturating_add);
        let maps = pyramid.received(batch_heads, shape.training);
        let values = total(&[product(&[all, self.dims]), maps]);
        let (mut tape, input) = Tape::start(trace, values, 1, shape.activation.bytes());
        let joined = tape.view(input, all, self.dims);
        let tokens: Vec<Tensor> =
            pyramid.scales.iter().map(|scale| tape.view(input, rows(scale), self.dims)).collect();
        if !pyramid.first {
            split_scales(&mut tape, joined, &tokens);
        }
        let maps = pyramid
            .scales
            .iter()
            .map(|scale| {
                let columns = scale.received(shape.training)?;
                let rows = product(&[batch_heads, scale.tokens()]);
                Some([(); 2].map(|()| tape.view(input, rows, columns)))
            })
            .collect();
        (tape, Received { tokens, maps })
    }

    fn grouping(&self, shape: &WorkShape, scale: &Scale, sparse: bool) -> Grouping {
        let tokens = scale.tokens();
        Grouping {
            batch: shape.micro_batch,
            heads: self.heads,
            head_dim: self.dims / self.heads,
            groups: scale.groups(),
            tokens,
            seen: if sparse { tokens.min(NEIGHBOURHOOD) } else { tokens },
        }
    }

    /// `SpatialGroupingAttention` at one scale: the coarse grid's tokens, and the maps of the last iteration.
    fn group(&self, tape: &mut Tape<'_>, sparse: bool, scale: &Scale, x: Tensor) -> (Tensor, [Tensor; 2]) {
        let d = self.dims;
        // The filler of masked pixels; without masks it is held, but nothing is computed with it.
        tape.weight("sga.mask_embedding", "", &[d], Split::Whole);
        let strider = Convolution::new("sga.strider", names!("grouping.strider"), d, self.strider()).biased();
        let fine = Feature::new(x, tape.shape.micro_batch, [scale.fine; 2]);
        let coarse = conv2d(tape, &strider, fine);
        let mut groups = layer_norm(tape, "sga.norm1", names!("grouping.norm"), coarse.tensor, true);
        let g = self.grouping(tape.shape, scale, sparse);
        let mut maps = empty_maps(tape, &g);
        for _ in 0..self.iterations {
            let kv = linear(tape, Linear::new("sga.kv", names!("grouping.key_value"), 2 * d).bias(true), x);
            let [k, v] = halves(tape, kv);
            let k = self.rotate(tape, "sga.rose", names!("grouping.rotary_key"), k, [g.tokens, 1]);
            let k = scale_learned(tape, "sga.temp", names!("grouping.temperature"), k);
            let q = linear(tape, Linear::new("sga.q", names!("grouping.query"), d).bias(true), groups);
            let q = self.rotate(tape, "sga.rose", names!("grouping.rotary_query"), q, [g.groups, 1]);
            // Heads go beside the batch; the values are made contiguous.
            let q = copy(tape, names!("grouping.query_layout"), q);
            let k = copy(tape, names!("grouping.key_layout"), k);
            let v = copy(tape, names!("grouping.value_layout"), v);
            let (context, made) = grouping_attention(tape, &g, [q, k, v], maps);
            maps = made;
            let normed = layer_norm(tape, "sga.norm2", names!("grouping.context_norm"), context, true);
            groups = add(tape, names!("grouping.residual"), groups, normed);
            let fed = self.feed_forward(tape, "sga.mlp", groups);
            let fed = add(tape, names!("mlp.shortcut"), fed, groups);
            let normed = layer_norm(tape, "sga.norm3", names!("mlp.output_norm"), fed, true);
            groups = add(tape, names!("mlp.residual"), groups, normed);
        }
        (groups, maps)
    }

    fn rotate(
        &self,
        tape: &mut Tape<'_>,
        module: &str,
        names: Names,
        x: Tensor,
        [tokens, grids]: [u64; 2],
    ) -> Tensor {
        let rotation =
            Rotation { module, heads: self.heads / 2, head_dim: self.dims / self.heads, tokens, grids };
        rotary_spatial(tape, &rotation, names, x)
    }

    /// Two linear layers with GELU between, dropout after each.
    fn feed_forward(&self, tape: &mut Tape<'_>, module: &str, x: Tensor) -> Tensor {
        let [first, second] = [format!("{module}.fc1"), format!("{module}.fc2")];
        let wide = linear(tape, Linear::new(&first, names!("mlp.fc1"), self.feed_forward).bias(true), x);
        let wide = activation(tape, names!("mlp.gelu"), Function::Gelu, wide);
        let wide = dropout(tape, names!("mlp.hidden_dropout"), wide, self.dropout);
        let narrow = linear(tape, Linear::new(&second, names!("mlp.fc2"), self.dims).bias(true), wide);
        dropout(tape, names!("mlp.dropout"), narrow, self.dropout)
    }

    /// `MultiRes_RoSE_Block`: a pre-norm transformer block over the tokens of all scales. Each scale's queries and keys
    /// are rotated by its own grid and written over copies of the plain ones.
    fn mix(&self, tape: &mut Tape<'_>, pyramid: &Pyramid, x: Tensor) -> Tensor {
        let d = self.dims;
        let normed = layer_norm(tape, "mr_attn.norm1", names!("attention.norm"), x, true);
        let qkv = linear(tape, Linear::new("mr_attn.qkv", names!("attention.qkv"), 3 * d).bias(true), normed);
        let [q, k, mut v] = split_to_copies(tape, qkv);
        let length = pyramid.groups();
        let grids = [length, pyramid.scales.len() as u64];
        let mut q = self.rotate(tape, "mr_attn.rose", names!("attention.rotary_query"), q, grids);
        let mut k = self.rotate(tape, "mr_attn.rose", names!("attention.rotary_key"), k, grids);
        if tape.shape.attention == AttentionKind::Eager {
            q = copy(tape, names!("attention.query_layout"), q);
            k = copy(tape, names!("attention.key_layout"), k);
            v = copy(tape, names!("attention.value_layout"), v);
        }
        let shape = Attention {
            batch: tape.shape.micro_batch,
            length,
            heads: self.heads,
            kv_heads: self.heads,
            head_dim: d / self.heads,
            causal: false,
            dropout: false,
            softmax_fp32: false,
            sequence_first: false,
            merges_fused: false,
        };
        let context = attention(tape, &shape, q, k, v);
        let projection = Linear::new("mr_attn.proj", names!("attention.projection"), d).bias(true);
        let projected = linear(tape, projection, context);
        let x = add(tape, names!("attention.residual"), x, projected);
        let normed = layer_norm(tape, "mr_attn.norm2", names!("mlp.norm"), x, true);
        let fed = self.feed_forward(tape, "mr_attn.mlp", normed);
        add(tape, names!("mlp.residual"), x, fed)
    }
}

/// The two halves of a projection's columns, as views.
pub(super) fn halves(tape: &mut Tape<'_>, x: Tensor) -> [Tensor; 2] {
    let parts = [(); 2].map(|()| tape.view(x, x.rows, x.width / 2));
    tape.record(&Step {
        inputs: &[x],
        outputs: &parts,
        backward: &[memory("grouping.key_value.grad_parts", MemoryBoundKind::Fill, x.bytes(), x.bytes())],
        ..Step::of(names!("grouping.parts"))
    });
    parts
}

/// The tokens of each scale as slices of those of all. Backward fills a gradient of all tokens with zeros for each slice,
/// copies the slice's into it, and adds these up. A single scale is not sliced.
fn split_scales(tape: &mut Tape<'_>, joined: Tensor, parts: &[Tensor]) {
    let names = names!("scales.split");
    let count = parts.len() as u64;
    let (bytes, sums) = (joined.bytes(), count.saturating_sub(1));
    let fill = memory(names.grad, MemoryBoundKind::Fill, bytes, product(&[count + 1, bytes]));
    let add = memory(
        names.grad_sum,
        MemoryBoundKind::Elementwise,
        product(&[2, sums, bytes]),
        product(&[sums, bytes]),
    );
    let operations =
        [Operation { launches: 2 * count as u32, ..fill }, Operation { launches: sums as u32, ..add }];
    tape.record(&Step {
        inputs: &[joined],
        outputs: parts,
        backward: if sums == 0 { &[] } else { &operations },
        scratch: product(&[sums, bytes]),
        gradient: if sums == 0 { Gradient::Passed } else { Gradient::New },
        ..Step::of(names)
    });
}
