//! Decoders with routed experts.

use super::common::{Config, Sizes};
use super::decoder::{MISTRAL, decoder, qwen_window, set_window};
use crate::error::InputError;
use crate::import::architecture::{Experts, Latent, Transformer, limits};
use crate::import::fields::reason;
use crate::import::node::Value;

/// Keys of routers that change neither shapes nor kernels.
const ROUTER: [&str; 16] = [
    "aux_loss_alpha",
    "ep_size",
    "n_group",
    "norm_topk_prob",
    "output_router_logits",
    "routed_scaling_factor",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "router_z_loss_coef",
    "scoring_func",
    "seq_aux",
    "topk_group",
    "topk_method",
    "moe_z_loss_coeff",
    "router_dtype",
    "add_router_probs",
];

/// Experts and experts a token, checked against each other.
fn routed(
    config: &Config<'_, '_>,
    count: (&str, u64),
    top_k: (&str, u64),
    feed_forward: u64,
) -> Result<Experts, InputError> {
    let experts = Experts {
        count: config.size(count.0, count.1, limits::EXPERTS)?,
        top_k: config.size(top_k.0, top_k.1, limits::EXPERTS)?,
        feed_forward,
        ..Experts::default()
    };
    if experts.top_k > experts.count {
        let message = format!("found {}, allowed: at most {} ({})", experts.top_k, count.0, experts.count);
        return Err(config.fields.conflict(top_k.0, message));
    }
    config.fields.ignore_all(&ROUTER, reason::NO_EFFECT);
    Ok(experts)
}

pub(super) fn mixtral(config: &Config<'_, '_>) -> Result<String, InputError> {
    let mut model = decoder(config, MISTRAL, false, ("hidden_act", "silu"))?;
    set_window(config, &mut model, 0)?;
    let experts = routed(config, ("num_local_experts", 8), ("num_experts_per_tok", 2), model.feed_forward)?;
    model.experts = Some(experts);
    Ok(config.write(&model))
}

/// Grok-1 as the community's ports have it. Their classes differ in their defaults, so sizes must be given.
pub(super) fn grok(config: &Config<'_, '_>) -> Result<String, InputError> {
    let sizes =
        Sizes { vocabulary: 0, hidden: 0, feed_forward: 0, layers: 0, heads: 0, kv_heads: 0, positions: 0 };
    let mut model = decoder(config, sizes, true, ("hidden_act", "gelu"))?;
    let fields = &config.fields;
    let count = if fields.has("num_local_experts") { "num_local_experts" } else { "num_experts" };
    model.experts = Some(routed(config, (count, 0), ("num_experts_per_tok", 0), model.feed_forward)?);
    model.norm_placement = "both";
    model.attention_softcap = true;
    model.embedding_scale = true;
    fields.ignore_all(
        &["max_attn_value", "embedding_multiplier_scale", "output_multiplier_scale"],
        "the factor does not change time or memory; that there is one is in the model",
    );
    Ok(config.write(&model))
}

pub(super) fn qwen_moe(config: &Config<'_, '_>) -> Result<String, InputError> {
    let newer = config.kind == "qwen3_moe";
    let sizes = Sizes {
        vocabulary: 151_936,
        hidden: 2048,
        feed_forward: if newer { 6144 } else { 5632 },
        layers: 24,
        heads: if newer { 32 } else { 16 },
        kv_heads: if newer { 4 } else { 16 },
        positions: 32_768,
    };
    let mut model = decoder(config, sizes, false, ("hidden_act", "silu"))?;
    let width = config.size("moe_intermediate_size", if newer { 768 } else { 1408 }, limits::FEED_FORWARD)?;
    let (count, top_k) = if newer { (128, 8) } else { (60, 4) };
    let mut experts = routed(config, ("num_experts", count), ("num_experts_per_tok", top_k), width)?;
    if newer {
        model.query_key_norm = "head";
        model.qkv_bias = config.flag("attention_bias", false)?;
        model.projection_bias = model.qkv_bias;
    } else {
        model.qkv_bias = config.flag("qkv_bias", true)?;
        experts.shared = 1;
        experts.shared_feed_forward =
            config.size("shared_expert_intermediate_size", 5632, limits::FEED_FORWARD)?;
        experts.shared_gate = true;
    }
    qwen_window(config, &mut model)?;
    model.experts = Some(experts);
    model.moe_every = config.fields.count("decoder_sparse_step", 1, limits::LAYERS)?.unwrap_or(1);
    dense_layers(config, &mut model)?;
    Ok(config.write(&model))
}

/// `mlp_only_layers`: blocks without experts. Only the first ones can be written.
fn dense_layers(config: &Config<'_, '_>, model: &mut Transformer) -> Result<(), InputError> {
    let Some(node) = config.fields.find("mlp_only_layers") else { return Ok(()) };
    let allowed = "the first blocks, as [0, 1, 2]";
    let Value::List(items) = &node.value else {
        return Err(config.fields.wrong("mlp_only_layers", node, allowed));
    };
    for (index, item) in items.iter().enumerate() {
        if item.value.whole() != Some(index as u64) {
            return Err(config.fields.wrong("mlp_only_layers", item, allowed));
        }
    }
    model.dense_layers = items.len() as u64;
    if model.dense_layers < model.layers {
        return Ok(());
    }
    Err(config
        .fields
        .conflict("mlp_only_layers", format!("leaves no block of {} with experts", model.layers)))
}

pub(super) fn deepseek(config: &Config<'_, '_>) -> Result<String, InputError> {
    let newer = config.kind == "deepseek_v3";
    let sizes = if newer {
        Sizes {
            vocabulary: 129_280,
            hidden: 7168,
            feed_forward: 18_432,
            layers: 61,
            heads: 128,
            kv_heads: 0,
            positions: 4096,
        }
    } else {
        Sizes {
            vocabulary: 32_000,
            hidden: 4096,
            feed_forward: 11_008,
            layers: 32,
            heads: 32,
            kv_heads: 0,
            positions: 2048,
        }
    };
    let fields = &config.fields;
    let mut model = config.sizes(sizes)?;
    fields.ignore_all(
        &["num_key_value_heads", "head_dim", "qk_head_dim"],
        "latent attention has its own widths: kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim",
    );
    model.activation = config.activation("hidden_act", "silu")?;
    model.tied = config.flag("tie_word_embeddings", false)?;
    model.dropout = config.drops(&["attention_dropout"], 0.0)?;
    config.decoder_head(&mut model)?;
    for key in ["attention_bias", "mlp_bias"] {
        if config.flag(key, false)? {
            return Err(fields.conflict(key, "found true, allowed: false"));
        }
    }
    // null: queries are projected directly. Only an absent key is the class's own.
    let query = if fields.has("q_lora_rank") { 0 } else { 1536 };
    model.latent = Some(Latent {
        query_rank: fields.count("q_lora_rank", 1, limits::WIDTH)?.unwrap_or(query),
        kv_rank: config.size("kv_lora_rank", 512, limits::WIDTH)?,
        rope_dim: config.size("qk_rope_head_dim", 64, limits::WIDTH)?,
        nope_dim: config.size("qk_nope_head_dim", 128, limits::WIDTH)?,
        value_dim: config.size("v_head_dim", 128, limits::WIDTH)?,
    });
    deepseek_experts(config, &mut model, newer)?;
    Ok(config.write(&model))
}

fn deepseek_experts(config: &Config<'_, '_>, model: &mut Transformer, newer: bool) -> Result<(), InputError> {
    let fields = &config.fields;
    let width =
        config.size("moe_intermediate_size", if newer { 2048 } else { 1407 }, limits::FEED_FORWARD)?;
    let count = ("n_routed_experts", if newer { 256 } else { 64 });
    // The class of DeepSeek-V2 has no default here.
    let mut experts = routed(config, count, ("num_experts_per_tok", if newer { 8 } else { 0 }), width)?;
    let shared = if newer { 1 } else { 2 };
    experts.shared = fields.count("n_shared_experts", 0, limits::EXPERTS)?.unwrap_or(shared);
    experts.shared_feed_forward = experts.shared * width;
    experts.router_bias = newer;
    model.experts = Some(experts);
    let dense =
        fields.count("first_k_dense_replace", 0, limits::LAYERS)?.unwrap_or(if newer { 3 } else { 0 });
    if dense >= model.layers {
        let message = format!("found {dense}, allowed: less than num_hidden_layers ({})", model.layers);
        return Err(fields.conflict("first_k_dense_replace", message));
    }
    model.dense_layers = dense;
    model.moe_every = fields.count("moe_layer_freq", 1, limits::LAYERS)?.unwrap_or(1);
    fields.ignore(
        "num_nextn_predict_layers",
        "the library does not build them; multi_token_prediction in the model file does",
    );
    Ok(())
}
