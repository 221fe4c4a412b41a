//! Decoders before rotary positions: GPT-2, OPT, MPT.

use super::common::Config;
use crate::error::InputError;
use crate::import::architecture::{Transformer, limits};
use crate::import::fields::reason;

/// LayerNorm, biases everywhere, no gate.
fn with_biases() -> Transformer {
    Transformer {
        norm: "layer",
        qkv_bias: true,
        projection_bias: true,
        mlp_bias: true,
        gated: false,
        position: "learned",
        ..Transformer::default()
    }
}

pub(super) fn gpt2(config: &Config<'_, '_>) -> Result<String, InputError> {
    let fields = &config.fields;
    let hidden = config.size("n_embd", 768, limits::WIDTH)?;
    let mut model = Transformer {
        layers: config.size("n_layer", 12, limits::LAYERS)?,
        hidden,
        heads: config.size("n_head", 12, limits::HEADS)?,
        feed_forward: fields.count("n_inner", 1, limits::FEED_FORWARD)?.unwrap_or(4 * hidden),
        vocabulary: config.size("vocab_size", 50_257, limits::VOCABULARY)?,
        positions: config.size("n_positions", 1024, limits::POSITIONS)?,
        tied: config.flag("tie_word_embeddings", true)?,
        activation: config.activation("activation_function", "gelu-tanh")?,
        ..with_biases()
    };
    model.kv_heads = model.heads;
    config.check_heads(&model, "n_head", "n_embd")?;
    // Each of the three is 0.1 where the file does not say otherwise.
    for key in ["resid_pdrop", "embd_pdrop", "attn_pdrop"] {
        model.dropout |= config.drops(&[key], 0.1)?;
    }
    config.decoder_head(&mut model)?;
    fields.ignore("n_ctx", "n_positions is the longest sequence");
    fields.ignore_all(
        &[
            "summary_activation",
            "summary_first_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
        ],
        "only for heads with several choices",
    );
    fields.ignore_all(
        &["scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"],
        reason::NOT_MODELLED,
    );
    Ok(config.write(&model))
}

pub(super) fn opt(config: &Config<'_, '_>) -> Result<String, InputError> {
    let fields = &config.fields;
    let hidden = config.size("hidden_size", 768, limits::WIDTH)?;
    let positions = config.size("max_position_embeddings", 2048, limits::POSITIONS)?;
    let bias = config.flag("enable_bias", true)?;
    let before = config.flag("do_layer_norm_before", true)?;
    let mut model = Transformer {
        layers: config.size("num_hidden_layers", 12, limits::LAYERS)?,
        hidden,
        heads: config.size("num_attention_heads", 12, limits::HEADS)?,
        feed_forward: config.size("ffn_dim", 3072, limits::FEED_FORWARD)?,
        vocabulary: config.size("vocab_size", 50_272, limits::VOCABULARY)?,
        positions,
        // OPTLearnedPositionalEmbedding leaves out the first two rows.
        position_rows: positions + 2,
        embedding_dim: fields.count("word_embed_proj_dim", 1, limits::WIDTH)?.unwrap_or(hidden),
        tied: config.flag("tie_word_embeddings", true)?,
        activation: config.activation("activation_function", "relu")?,
        norm_placement: if before { "pre" } else { "post" },
        dropout: config.drops(&["dropout", "attention_dropout", "activation_dropout"], 0.1)?,
        qkv_bias: bias,
        projection_bias: bias,
        mlp_bias: bias,
        ..with_biases()
    };
    model.kv_heads = model.heads;
    config.check_heads(&model, "num_attention_heads", "hidden_size")?;
    if before && config.flag("_remove_final_layer_norm", false)? {
        model.final_norm = Some(false);
    }
    if !config.flag("layer_norm_elementwise_affine", true)? {
        let message = "found false, allowed: true (a norm has its weight)";
        return Err(fields.conflict("layer_norm_elementwise_affine", message));
    }
    config.decoder_head(&mut model)?;
    fields.ignore("_remove_final_layer_norm", "a stack that normalizes after each half has no final norm");
    fields.ignore("layerdrop", reason::NOT_MODELLED);
    Ok(config.write(&model))
}

pub(super) fn mpt(config: &Config<'_, '_>) -> Result<String, InputError> {
    let fields = &config.fields;
    let hidden = config.size("d_model", 2048, limits::WIDTH)?;
    let ratio = config.size("expansion_ratio", 4, 64)?;
    let bias = !config.flag("no_bias", true)?;
    let mut model = Transformer {
        layers: config.size("n_layers", 24, limits::LAYERS)?,
        hidden,
        heads: config.size("n_heads", 16, limits::HEADS)?,
        feed_forward: ratio * hidden,
        vocabulary: config.size("vocab_size", 50_368, limits::VOCABULARY)?,
        positions: config.size("max_seq_len", 2048, limits::POSITIONS)?,
        tied: config.flag("tie_word_embeddings", true)?,
        activation: "gelu",
        // MptBlock and MptModel take the norms' biases away, whatever no_bias says.
        norm_bias: false,
        dropout: config.drops(&["resid_pdrop", "emb_pdrop"], 0.0)?,
        qkv_bias: bias,
        projection_bias: bias,
        mlp_bias: bias,
        ..with_biases()
    };
    model.kv_heads = model.heads;
    config.check_heads(&model, "n_heads", "d_model")?;
    let learned = config.flag("learned_pos_emb", true)?;
    let alibi = mpt_attention(config, &mut model)?;
    model.position = match (alibi, learned) {
        (true, _) => "alibi",
        (false, true) => "learned",
        (false, false) => "none",
    };
    config.decoder_head(&mut model)?;
    fields.ignore_all(
        &["logit_scale", "embedding_fraction", "verbose", "init_device", "init_config"],
        reason::NO_EFFECT,
    );
    fields.ignore_all(&["tokenizer_name"], reason::LABEL);
    fields.ignore("norm_type", "the library has one kind of norm for MPT, a LayerNorm without bias");
    Ok(config.write(&model))
}

/// `attn_config`: dropout enters the model; whether positions are slopes of the scores (`ALiBi`) comes back.
fn mpt_attention(config: &Config<'_, '_>, model: &mut Transformer) -> Result<bool, InputError> {
    let Some(attention) = config.fields.section("attn_config")? else { return Ok(true) };
    let alibi = attention.flag("alibi")?.unwrap_or(true);
    model.dropout |= attention.number("attn_pdrop")?.unwrap_or(0.0) > 0.0;
    attention.choice("attn_type", &[("multihead_attention", ())])?;
    if attention.flag("qk_ln")? == Some(true) {
        return Err(attention.conflict("qk_ln", "found true, allowed: false"));
    }
    if attention.flag("prefix_lm")? == Some(true) {
        return Err(attention.conflict("prefix_lm", "found true, allowed: false"));
    }
    attention.ignore("attn_impl", "the scenario says it: [workload] attention");
    attention.ignore_all(&["softmax_scale", "alibi_bias_max", "attn_uses_sequence_id"], reason::NO_EFFECT);
    attention.ignore_all(&["clip_qkv"], reason::NOT_MODELLED);
    attention.ignore_all(&["model_type"], reason::LABEL);
    attention.finish()?;
    Ok(alibi)
}
