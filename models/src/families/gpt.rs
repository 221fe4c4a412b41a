//! Decoders with learned positions, LayerNorm before each half, biases, GELU and dropout: parameters in Megatron's
//! layout, kernels of plain PyTorch modules (Megatron fuses scale, mask and softmax, and looks positions up one by
//! one).

use super::transformer::{Head, MEGATRON, Norm, Placement, Position, QueryKeyNorm, Transformer};
use super::{hidden_and_heads, limits};
use crate::blocks::Activation;
use crate::document::Section;
use crate::error::ModelError;

/// Reads the fields of the family `gpt`.
pub(super) fn read(section: &Section) -> Result<Transformer, ModelError> {
    section.only(&[
        "layers",
        "hidden",
        "heads",
        "feed_forward",
        "vocabulary",
        "positions",
        "tied",
        "dropout",
    ])?;
    let (hidden, heads) = hidden_and_heads(section)?;
    let layers = section.count("layers", limits::LAYERS)?;
    let feed_forward = section.range("feed_forward", 1, limits::FEED_FORWARD)?.unwrap_or(4 * hidden);
    let vocabulary = section.count("vocabulary", limits::VOCABULARY)?;
    let positions = section.count("positions", limits::POSITIONS)?;
    Ok(Transformer {
        layers,
        encoder_layers: 0,
        hidden,
        heads,
        kv_heads: heads,
        head_dim: hidden / heads,
        feed_forward,
        vocabulary,
        positions,
        default_length: positions,
        tied: section.flag("tied", true)?,
        causal: true,
        position: Position::Learned(positions),
        token_types: 0,
        embedding_dim: hidden,
        embedding_norm: false,
        embedding_scale: false,
        norm: Norm::Layer { bias: true },
        placement: Placement::Pre,
        final_norm: true,
        qkv_bias: true,
        projection_bias: true,
        mlp_bias: true,
        activation: Activation::Gelu,
        gated: false,
        query_key_norm: QueryKeyNorm::None,
        attention_softcap: false,
        attention_sinks: false,
        unpads: false,
        logit_softcap: false,
        window: 0,
        window_every: 1,
        dropout: section.flag("dropout", true)?,
        softmax_fp32: false,
        head: Head::Language,
        pooler: false,
        routed: None,
        latent: None,
        predictions: 0,
        maw: None,
        naming: &MEGATRON,
    })
}
