//! Dense decoders with rotary positions.

use super::common::{Config, Sizes};
use crate::error::InputError;
use crate::import::architecture::{Transformer, limits};
use crate::import::fields::reason;
use crate::import::node::Value;

/// Sizes, key-value heads, activation, tying, dropout and head: all but what a type has of its own.
pub(super) fn decoder(
    config: &Config<'_, '_>,
    sizes: Sizes,
    tied: bool,
    activation: (&str, &'static str),
) -> Result<Transformer, InputError> {
    let mut model = config.sizes(sizes)?;
    config.groups(&mut model, sizes)?;
    model.activation = config.activation(activation.0, activation.1)?;
    model.tied = config.flag("tie_word_embeddings", tied)?;
    model.dropout = config.drops(&["attention_dropout"], 0.0)?;
    config.decoder_head(&mut model)?;
    Ok(model)
}

pub(super) fn llama(config: &Config<'_, '_>) -> Result<String, InputError> {
    let sizes = Sizes {
        vocabulary: 32_000,
        hidden: 4096,
        feed_forward: 11_008,
        layers: 32,
        heads: 32,
        kv_heads: 0,
        positions: 2048,
    };
    let mut model = decoder(config, sizes, false, ("hidden_act", "silu"))?;
    model.qkv_bias = config.flag("attention_bias", false)?;
    model.projection_bias = model.qkv_bias;
    model.mlp_bias = config.flag("mlp_bias", false)?;
    Ok(config.write(&model))
}

/// What MistralConfig and MixtralConfig say where a configuration is silent.
pub(super) const MISTRAL: Sizes = Sizes {
    vocabulary: 32_000,
    hidden: 4096,
    feed_forward: 14_336,
    layers: 32,
    heads: 32,
    kv_heads: 8,
    positions: 131_072,
};

pub(super) fn mistral(config: &Config<'_, '_>) -> Result<String, InputError> {
    let mut model = decoder(config, MISTRAL, false, ("hidden_act", "silu"))?;
    // null, as newer checkpoints have it, is no window; only an absent key is the class's own.
    let absent = if config.fields.has("sliding_window") { 0 } else { 4096 };
    set_window(config, &mut model, absent)?;
    Ok(config.write(&model))
}

/// `sliding_window` in every block; a window as long as the longest sequence is none.
pub(super) fn set_window(
    config: &Config<'_, '_>,
    model: &mut Transformer,
    absent: u64,
) -> Result<(), InputError> {
    let window = config.fields.count("sliding_window", 0, limits::POSITIONS)?.unwrap_or(absent);
    model.window = if window >= model.positions { 0 } else { window };
    layer_types(config, model)
}

/// `layer_types`: which blocks have the window. Blocks that take turns in any other way than one by one cannot be
/// written.
fn layer_types(config: &Config<'_, '_>, model: &mut Transformer) -> Result<(), InputError> {
    let Some(node) = config.fields.find("layer_types") else { return Ok(()) };
    let Value::List(items) = &node.value else {
        return Err(config.fields.wrong("layer_types", node, "a list of kinds of attention"));
    };
    let mut windowed = Vec::with_capacity(items.len());
    for item in items {
        windowed.push(match &item.value {
            Value::Text(text) if text == "sliding_attention" => true,
            Value::Text(text) if text == "full_attention" => false,
            _ => {
                let allowed = "a list of \"full_attention\" and \"sliding_attention\"";
                return Err(config.fields.wrong("layer_types", item, allowed));
            }
        });
    }
    if windowed.len() as u64 != model.layers {
        let message = format!("found {} kinds for {} blocks", windowed.len(), model.layers);
        return Err(config.fields.conflict("layer_types", message));
    }
    let alternating = windowed.windows(2).all(|pair| pair[0] != pair[1]);
    if windowed.iter().all(|&windowed| !windowed) {
        model.window = 0;
    } else if windowed.iter().all(|&windowed| windowed) {
        model.window_every = 1;
    } else if alternating {
        model.window_every = 2;
    } else {
        let message = "blocks with and without a window must take turns one by one, or all be of one kind";
        return Err(config.fields.conflict("layer_types", message));
    }
    Ok(())
}

/// Qwen's window: off unless asked for, and then in the blocks from `max_window_layers` on.
pub(super) fn qwen_window(config: &Config<'_, '_>, model: &mut Transformer) -> Result<(), InputError> {
    let fields = &config.fields;
    if !config.flag("use_sliding_window", false)? {
        fields.ignore_all(&["sliding_window", "max_window_layers"], "use_sliding_window is false");
        layer_types(config, model)?;
        model.window = 0;
        return Ok(());
    }
    set_window(config, model, 4096)?;
    let first = fields.count("max_window_layers", 0, limits::LAYERS)?.unwrap_or(28);
    if first >= model.layers {
        model.window = 0;
    } else if first > 0 && !fields.has("layer_types") {
        let message = format!(
            "the window begins at block {first} of {}, but blocks with and without a window must take turns one by \
             one, or all be of one kind",
            model.layers
        );
        return Err(fields.conflict("max_window_layers", message));
    }
    Ok(())
}

/// What Qwen2Config and Qwen3Config say where a configuration is silent.
const QWEN: Sizes = Sizes {
    vocabulary: 151_936,
    hidden: 4096,
    feed_forward: 22_016,
    layers: 32,
    heads: 32,
    kv_heads: 32,
    positions: 32_768,
};

pub(super) fn qwen2(config: &Config<'_, '_>) -> Result<String, InputError> {
    let mut model = decoder(config, QWEN, false, ("hidden_act", "silu"))?;
    // Qwen2Attention has biases on queries, keys and values, whatever the configuration.
    model.qkv_bias = true;
    qwen_window(config, &mut model)?;
    Ok(config.write(&model))
}

pub(super) fn qwen3(config: &Config<'_, '_>) -> Result<String, InputError> {
    let mut model = decoder(config, QWEN, false, ("hidden_act", "silu"))?;
    model.head_dim = model.head_dim.or(Some(128));
    model.query_key_norm = "head";
    model.qkv_bias = config.flag("attention_bias", false)?;
    model.projection_bias = model.qkv_bias;
    qwen_window(config, &mut model)?;
    Ok(config.write(&model))
}

pub(super) fn gemma2(config: &Config<'_, '_>) -> Result<String, InputError> {
    let sizes = Sizes {
        vocabulary: 256_000,
        hidden: 2304,
        feed_forward: 9216,
        layers: 26,
        heads: 8,
        kv_heads: 4,
        positions: 8192,
    };
    let fields = &config.fields;
    let mut model = decoder(config, sizes, true, ("hidden_activation", "gelu-tanh"))?;
    fields.ignore("hidden_act", "Gemma 2 uses hidden_activation");
    fields.ignore("query_pre_attn_scalar", reason::NO_EFFECT);
    model.head_dim = model.head_dim.or(Some(256));
    model.norm_placement = "both";
    model.embedding_scale = true;
    model.qkv_bias = config.flag("attention_bias", false)?;
    model.projection_bias = model.qkv_bias;
    for (key, default, capped) in [
        ("attn_logit_softcapping", 50.0, &mut model.attention_softcap),
        ("final_logit_softcapping", 30.0, &mut model.logit_softcap),
    ] {
        // null turns the cap off; only an absent key is the class's own.
        let absent = if fields.has(key) { 0.0 } else { default };
        *capped = fields.number(key)?.unwrap_or(absent) > 0.0;
    }
    if config.flag("use_bidirectional_attention", false)? {
        return Err(fields.conflict("use_bidirectional_attention", "found true, allowed: false"));
    }
    model.window_every = 2;
    fields.ignore("cache_implementation", "only for generation");
    set_window(config, &mut model, if fields.has("sliding_window") { 0 } else { 4096 })?;
    Ok(config.write(&model))
}

pub(super) fn nemotron(config: &Config<'_, '_>) -> Result<String, InputError> {
    let sizes = Sizes {
        vocabulary: 256_000,
        hidden: 6144,
        feed_forward: 24_576,
        layers: 32,
        heads: 48,
        kv_heads: 0,
        positions: 4096,
    };
    let mut model = decoder(config, sizes, false, ("hidden_act", "squared-relu"))?;
    model.gated = false;
    // NemotronLayerNorm1P: weight and bias.
    model.norm = "layer";
    model.qkv_bias = config.flag("attention_bias", false)?;
    model.projection_bias = model.qkv_bias;
    model.mlp_bias = config.flag("mlp_bias", false)?;
    let key = if config.fields.has("rope_percent") { "rope_percent" } else { "partial_rotary_factor" };
    model.rotary_fraction = config.fields.number(key)?.unwrap_or(0.5);
    if !(model.rotary_fraction > 0.0 && model.rotary_fraction <= 1.0) {
        let message = format!("found {:?}, allowed: above 0 and at most 1", model.rotary_fraction);
        return Err(config.fields.conflict(key, message));
    }
    config.fields.ignore_all(&["rope_percent", "partial_rotary_factor"], "the other name of it is given");
    Ok(config.write(&model))
}
