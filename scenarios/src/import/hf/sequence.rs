//! Encoder-decoders with relative positions: T5, mT5, Switch Transformers.

use super::common::Config;
use crate::error::InputError;
use crate::import::architecture::{Experts, Transformer, limits};
use crate::import::fields::reason;

/// Longest sequence where the file does not say: what T5 was trained at.
const POSITIONS: u64 = 512;

/// What the three types share; `tied` is what an absent `tie_word_embeddings` stands for, which for mT5 is what its
/// checkpoints have. With the sizes of their classes: vocabulary, width, feed-forward, layers, heads.
fn stacks(config: &Config<'_, '_>, sizes: [u64; 5], tied: bool) -> Result<Transformer, InputError> {
    let fields = &config.fields;
    let [vocabulary, hidden, feed_forward, layers, heads] = sizes;
    let encoder_layers = config.size("num_layers", layers, limits::LAYERS)?;
    let heads = config.size("num_heads", heads, limits::HEADS)?;
    let positions = fields.count("n_positions", 1, limits::POSITIONS)?;
    if positions.is_none() {
        fields.note(format!("relative positions have no longest sequence; {POSITIONS} is written"));
    }
    let model = Transformer {
        encoder_layers,
        layers: fields.count("num_decoder_layers", 1, limits::LAYERS)?.unwrap_or(encoder_layers),
        hidden: config.size("d_model", hidden, limits::WIDTH)?,
        heads,
        kv_heads: heads,
        head_dim: Some(config.size("d_kv", 64, limits::WIDTH)?),
        feed_forward: config.size("d_ff", feed_forward, limits::FEED_FORWARD)?,
        vocabulary: config.size("vocab_size", vocabulary, limits::VOCABULARY)?,
        positions: positions.unwrap_or(POSITIONS),
        tied: config.flag("tie_word_embeddings", tied)?,
        position: "relative",
        relative_buckets: config.size("relative_attention_num_buckets", 32, limits::WIDTH)?,
        dropout: config.drops(&["dropout_rate"], 0.1)?,
        ..Transformer::default()
    };
    fields.ignore_all(
        &["relative_attention_max_distance", "classifier_dropout", "dense_act_fn", "is_gated_act"],
        reason::NO_EFFECT,
    );
    let class = config.class();
    if !(class.is_empty() || class.ends_with("ForConditionalGeneration") || class.ends_with("LMHeadModel")) {
        fields.note(format!("{class} is taken as encoder and decoder with the head of a language model"));
    }
    fields.ignore_all(&["id2label", "num_labels"], "only classifiers have labels");
    Ok(model)
}

/// T5 and mT5.
pub(super) fn t5(config: &Config<'_, '_>) -> Result<String, InputError> {
    let multilingual = config.kind == "mt5";
    let sizes = if multilingual { [250_112, 512, 1024, 8, 6] } else { [32_128, 512, 2048, 6, 8] };
    // The library takes gated-gelu as GELU by its tanh form.
    let words = [
        ("relu", ("relu", false)),
        ("gelu", ("gelu", false)),
        ("gated-gelu", ("gelu-tanh", true)),
        ("gated-silu", ("silu", true)),
    ];
    let usual = if multilingual { ("gelu-tanh", true) } else { ("relu", false) };
    let (activation, gated) = config.fields.choice("feed_forward_proj", &words)?.unwrap_or(usual);
    let mut model = stacks(config, sizes, !multilingual)?;
    model.activation = activation;
    model.gated = gated;
    Ok(config.write(&model))
}

/// Switch Transformers: every n-th block of either stack has experts.
pub(super) fn switch(config: &Config<'_, '_>) -> Result<String, InputError> {
    let fields = &config.fields;
    let act = fields.choice("dense_act_fn", &[("relu", ("relu", false)), ("gelu", ("gelu", false))])?;
    let mut model = stacks(config, [32_128, 768, 2048, 12, 12], true)?;
    (model.activation, model.gated) = act.unwrap_or(("relu", false));
    let every = |key: &str, layers: u64| -> Result<u64, InputError> {
        let sparse = fields.count(key, 1, limits::LAYERS)?.unwrap_or(3);
        if sparse > layers {
            return Err(fields.conflict(key, format!("found {sparse}, allowed: at most the {layers} blocks")));
        }
        Ok(layers / sparse)
    };
    let encoder = every("num_sparse_encoder_layers", model.encoder_layers)?;
    let decoder = every("num_sparse_decoder_layers", model.layers)?;
    if encoder != decoder {
        let message = format!(
            "every {decoder} blocks of the decoder would have experts, but every {encoder} of the encoder; allowed: \
             the same in both"
        );
        return Err(fields.conflict("num_sparse_decoder_layers", message));
    }
    model.moe_every = encoder;
    model.experts = Some(Experts {
        count: config.size("num_experts", 8, limits::EXPERTS)?,
        top_k: 1,
        feed_forward: model.feed_forward,
        router_bias: config.flag("router_bias", false)?,
        ..Experts::default()
    });
    fields.ignore(
        "expert_capacity",
        "not modelled: a fixed number of tokens an expert; no token is dropped (capacity_factor in the model file)",
    );
    fields.ignore_all(
        &["router_type", "feed_forward_proj", "encoder_sparse_step", "decoder_sparse_step"],
        reason::NO_EFFECT,
    );
    fields.ignore_all(
        &[
            "add_router_probs",
            "router_aux_loss_coef",
            "router_dtype",
            "router_ignore_padding_tokens",
            "router_jitter_noise",
            "router_z_loss_coef",
            "batch_prioritized_routing",
            "num_selected_experts",
        ],
        reason::NO_EFFECT,
    );
    Ok(config.write(&model))
}
