//! The model among the arguments.

use crate::error::InputError;
use crate::import::architecture::{Experts, Latent, Transformer, limits};
use crate::import::fields::{Fields, reason};
use crate::import::node::Value;

/// Vocabularies that the name of a tokenizer tells.
const TOKENIZERS: [(&str, u64); 3] =
    [("GPT2BPETokenizer", 50_257), ("Llama2Tokenizer", 32_000), ("BertWordPieceLowerCase", 30_522)];

/// The model; its vocabulary is padded for `tensor` ranks.
pub(super) fn model(fields: &Fields<'_, '_>, tensor: u64) -> Result<Transformer, InputError> {
    let flag = |key: &str| -> Result<bool, InputError> { Ok(fields.flag(key)?.unwrap_or(false)) };
    let hidden = fields.need("hidden-size", limits::WIDTH)?;
    let length = fields.need("seq-length", limits::POSITIONS)?;
    let mut model = Transformer {
        layers: fields.need("num-layers", limits::LAYERS)?,
        hidden,
        heads: fields.need("num-attention-heads", limits::HEADS)?,
        head_dim: fields.count("kv-channels", 1, limits::WIDTH)?,
        positions: fields.count("max-position-embeddings", 1, limits::POSITIONS)?.unwrap_or(length),
        vocabulary: vocabulary(fields, tensor)?,
        tied: !flag("untie-embeddings-and-output-weights")?,
        query_key_norm: if flag("qk-layernorm")? { "head" } else { "none" },
        ..Transformer::default()
    };
    if length > model.positions {
        let message =
            format!("found {length}, allowed: at most max-position-embeddings ({})", model.positions);
        return Err(fields.conflict("seq-length", message));
    }
    groups(fields, &mut model)?;
    activation(fields, &mut model)?;
    positions(fields, &mut model)?;
    // Both are 0.1 where they are not given.
    for key in ["attention-dropout", "hidden-dropout"] {
        model.dropout |= fields.number(key)?.unwrap_or(0.1) > 0.0;
    }
    experts(fields, &mut model)?;
    latent(fields, &mut model)?;
    Ok(model)
}

/// The vocabulary as Megatron pads it: to a multiple of 128 values a tensor-parallel rank.
fn vocabulary(fields: &Fields<'_, '_>, tensor: u64) -> Result<u64, InputError> {
    let tokenizer = fields.find("tokenizer-type").and_then(|node| match &node.value {
        Value::Text(text) => Some(text.as_str()),
        _ => None,
    });
    let known = tokenizer.and_then(|name| TOKENIZERS.iter().find(|(other, _)| *other == name));
    let given = match (fields.count("vocab-size", 1, limits::VOCABULARY)?, known, tokenizer) {
        (Some(given), _, _) => given,
        (None, Some((name, size)), _) => {
            fields.note(format!("vocabulary: {size}, that of {name}"));
            *size
        }
        // The script of GPT-2's files without a type: the default tokenizer of older versions.
        (None, None, None) if fields.is_given("merge-file") => {
            fields.note("vocabulary: 50257, that of GPT-2, whose merges the script names".to_owned());
            50_257
        }
        (None, None, _) => {
            return Err(fields
                .missing("vocab-size", "the vocabulary is in the tokenizer's files, which are not read"));
        }
    };
    let divisor =
        fields.count("make-vocab-size-divisible-by", 1, limits::VOCABULARY)?.unwrap_or(128) * tensor;
    let padded = given.div_ceil(divisor) * divisor;
    if padded != given {
        fields.note(format!("vocabulary: {given} padded to {padded}, a multiple of {divisor}"));
    }
    Ok(padded)
}

fn groups(fields: &Fields<'_, '_>, model: &mut Transformer) -> Result<(), InputError> {
    let grouped = fields.flag("group-query-attention")?;
    let groups = fields.count("num-query-groups", 1, limits::HEADS)?;
    model.kv_heads = match (grouped, groups) {
        (Some(true), groups) => groups.unwrap_or(1),
        (_, None) => model.heads,
        (_, Some(groups)) => {
            fields.note(format!("num-query-groups {groups} acts only with group-query-attention"));
            model.heads
        }
    };
    if model.head_dim.is_none() && !model.hidden.is_multiple_of(model.heads) {
        let message = format!("found {}, allowed: a divisor of hidden-size ({})", model.heads, model.hidden);
        return Err(fields.conflict("num-attention-heads", message));
    }
    if model.heads.is_multiple_of(model.kv_heads) {
        return Ok(());
    }
    let message =
        format!("found {}, allowed: a divisor of num-attention-heads ({})", model.kv_heads, model.heads);
    Err(fields.conflict("num-query-groups", message))
}

/// Activation, width, norms and biases.
fn activation(fields: &Fields<'_, '_>, model: &mut Transformer) -> Result<(), InputError> {
    let flag = |key: &str| -> Result<bool, InputError> { Ok(fields.flag(key)?.unwrap_or(false)) };
    let (swiglu, squared, tanh) = (flag("swiglu")?, flag("squared-relu")?, flag("openai-gelu")?);
    fields
        .ignore_all(&["activation-func", "gated-linear-unit"], "swiglu, squared-relu and openai-gelu say it");
    model.gated = swiglu;
    model.activation = match (swiglu, squared, tanh) {
        (true, true, _) => {
            return Err(fields.conflict("squared-relu", "contradicts `swiglu`: keep one of the two"));
        }
        (true, _, _) => "silu",
        (_, true, _) => "squared-relu",
        (_, _, true) => "gelu-tanh",
        _ => "gelu",
    };
    // With a gate, two thirds of four times the width, in whole 64s.
    let usual = if swiglu { 4 * model.hidden * 2 / 3 / 64 * 64 } else { 4 * model.hidden };
    model.feed_forward = fields.count("ffn-hidden-size", 1, limits::FEED_FORWARD)?.unwrap_or(usual).max(1);
    let norms = [("LayerNorm", "layer"), ("RMSNorm", "rms")];
    model.norm = fields.choice("normalization", &norms)?.unwrap_or("layer");
    // A YAML file has the switch the other way round.
    let biased = fields.flag("add-bias-linear")?.unwrap_or(!flag("disable-bias-linear")?);
    model.projection_bias = biased;
    model.mlp_bias = biased;
    model.qkv_bias = biased || flag("add-qkv-bias")?;
    Ok(())
}

fn positions(fields: &Fields<'_, '_>, model: &mut Transformer) -> Result<(), InputError> {
    let kinds = [
        ("learned_absolute", "learned"),
        ("rope", "rotary"),
        ("mrope", "rotary"),
        ("yarn", "rotary"),
        ("none", "none"),
    ];
    let given = fields.choice("position-embedding-type", &kinds)?;
    let rotary = fields.flag("use-rotary-position-embeddings")?.unwrap_or(false);
    let removed = fields.flag("no-position-embedding")?.unwrap_or(false)
        || fields.flag("add-position-embedding")? == Some(false);
    model.position = match given {
        Some("learned") | None if rotary => "rotary",
        Some("learned") | None if removed => "none",
        Some(kind) => kind,
        None => "learned",
    };
    if let Some(share) = fields.number("rotary-percent")? {
        if !(share > 0.0 && share <= 1.0) {
            return Err(
                fields.conflict("rotary-percent", format!("found {share:?}, allowed: above 0 and at most 1"))
            );
        }
        model.rotary_fraction = share;
    }
    Ok(())
}

fn experts(fields: &Fields<'_, '_>, model: &mut Transformer) -> Result<(), InputError> {
    let key = if fields.has("num-moe-experts") { "num-moe-experts" } else { "num-experts" };
    let Some(count) = fields.count(key, 1, limits::EXPERTS)? else {
        let why = "there are no experts";
        fields.ignore_where(|key| key.starts_with("moe-").then_some(why));
        return Ok(());
    };
    let top_k = fields.count("moe-router-topk", 1, limits::EXPERTS)?.unwrap_or(2);
    if top_k > count {
        return Err(
            fields.conflict("moe-router-topk", format!("found {top_k}, allowed: at most {key} ({count})"))
        );
    }
    let width = fields.count("moe-ffn-hidden-size", 1, limits::FEED_FORWARD)?;
    let shared = fields.count("moe-shared-expert-intermediate-size", 1, limits::FEED_FORWARD)?;
    layers(fields, model)?;
    model.experts = Some(Experts {
        count,
        top_k,
        feed_forward: width.unwrap_or(model.feed_forward),
        shared: u64::from(shared.is_some()),
        shared_feed_forward: shared.unwrap_or(0),
        shared_gate: fields.flag("moe-shared-expert-gate")?.unwrap_or(false),
        router_bias: fields.flag("moe-router-enable-expert-bias")?.unwrap_or(false),
        capacity_factor: fields.number("moe-expert-capacity-factor")?.unwrap_or(0.0).max(0.0),
    });
    Ok(())
}

/// `moe-layer-freq`: every n-th block, or a pattern such as `([0]*3+[1]*58)`, of which the form with dense blocks
/// first can be written.
fn layers(fields: &Fields<'_, '_>, model: &mut Transformer) -> Result<(), InputError> {
    let Some(node) = fields.find("moe-layer-freq") else { return Ok(()) };
    if let Some(every) = node.value.whole().filter(|every| (1..=model.layers).contains(every)) {
        model.moe_every = every;
        return Ok(());
    }
    let allowed = "every n-th block as n, or dense blocks first as ([0]*3+[1]*58)";
    let wrong = || fields.wrong("moe-layer-freq", node, allowed);
    let Value::Text(text) = &node.value else { return Err(wrong()) };
    let plain: String = text.chars().filter(|c| !c.is_whitespace() && !"()".contains(*c)).collect();
    let times = |part: &str, kind: &str| part.strip_prefix(kind)?.parse::<u64>().ok();
    let parts = plain
        .split_once('+')
        .and_then(|(dense, routed)| Some((times(dense, "[0]*")?, times(routed, "[1]*")?)));
    match parts {
        Some((dense, routed)) if dense.checked_add(routed) == Some(model.layers) && routed > 0 => {
            model.dense_layers = dense;
            Ok(())
        }
        _ => Err(wrong()),
    }
}

fn latent(fields: &Fields<'_, '_>, model: &mut Transformer) -> Result<(), InputError> {
    let keys = ["q-lora-rank", "kv-lora-rank", "qk-head-dim", "qk-pos-emb-head-dim", "v-head-dim"];
    if !fields.flag("multi-latent-attention")?.unwrap_or(false) {
        fields.ignore_all(&keys, "acts only with multi-latent-attention");
        return Ok(());
    }
    model.latent = Some(Latent {
        query_rank: fields.count(keys[0], 1, limits::WIDTH)?.unwrap_or(0),
        kv_rank: fields.need(keys[1], limits::WIDTH)?,
        nope_dim: fields.count(keys[2], 1, limits::WIDTH)?.unwrap_or(128),
        rope_dim: fields.count(keys[3], 1, limits::WIDTH)?.unwrap_or(64),
        value_dim: fields.count(keys[4], 1, limits::WIDTH)?.unwrap_or(128),
    });
    model.query_key_norm = "none";
    fields.ignore("rotary-percent", reason::NO_EFFECT);
    Ok(())
}
