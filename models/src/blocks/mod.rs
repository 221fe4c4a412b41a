//! Primitives from which the families build their layers: each records what PyTorch's eager mode launches for one
//! line of a module's `forward`, what autograd keeps for it, and what its backward launches.
//!
//! Traffic counts each tensor that a kernel reads or writes once. Parameters are in the format of the
//! activations, but under autocast. Masks of dropout take one byte a value, norm statistics are 32-bit floats, indices 64-bit
//! integers.

mod attention;
mod autocast;
mod batch_norm;
mod channel_scale;
mod columns;
mod context_parallel;
mod convolution;
mod embedding;
mod expert_parallel;
mod experts;
mod feature;
mod grouped;
mod grouping;
mod in_place;
mod joining;
mod kept_result;
mod linear;
mod loss;
mod low_precision;
mod maw;
mod mlp;
mod norm;
mod pointwise;
mod pooling;
mod relative;
mod routing;
mod tensor_parallel;

pub(crate) use attention::{
    Attention, Bias, Extras, attention, attention_with, split_heads, split_in_projection, split_to_copies,
};
pub(crate) use batch_norm::batch_norm;
pub(crate) use channel_scale::{layer_scale, squeeze_excitation};
pub(crate) use columns::{expand, join_columns, split};
pub(crate) use convolution::{
    Convolution, ConvolutionNames, InPlace, Normed, activate, conv_norm, conv2d, convolution_names,
};
pub(crate) use embedding::{
    Patches, class_token, first_token, lookup, patches, position_lookup, positions, shared_lookup,
    type_lookup,
};
pub(crate) use experts::{Moe, MoeModules, Scoring, experts};
pub(crate) use feature::{Feature, Window};
pub(crate) use grouping::{
    Grouping, Rotation, accumulate, empty_maps, grouping_attention, query_attention, rotary_spatial,
    scale_learned,
};
pub(crate) use in_place::{add_in_place, dropout_in_place, relu_in_place, stochastic_depth};
pub(crate) use joining::{append, concatenate, concatenate_rows};
pub(crate) use kept_result::{sigmoid, softmax};
pub(crate) use linear::{Linear, linear};
pub(crate) use loss::{cross_entropy, language_loss};
pub(crate) use maw::{Maw, maw};
pub(crate) use mlp::{Activation, Dense, FeedForward, MLP, dense_feed_forward};
pub(crate) use norm::{layer_norm, rms_norm};
pub(crate) use pointwise::{
    Function, activation, activation_by_result, add, cast, copy, dropout, mean_pool, multiply, rotary, scale,
};
pub(crate) use pooling::{
    adaptive_average_pool, average_pool, global_average_pool, max_pool, resize_bilinear,
};
pub(crate) use relative::relative_bias;
pub(crate) use routing::{Switch, switch_feed_forward};
pub(crate) use tensor_parallel::{enter_tensor_parallel, leave_tensor_parallel};

use crate::units::product;
use crate::work_shape::WorkShape;

/// Tokens of a micro-batch.
pub(crate) fn all_tokens(shape: &WorkShape) -> u64 {
    product(&[shape.micro_batch, shape.sequence_length])
}
