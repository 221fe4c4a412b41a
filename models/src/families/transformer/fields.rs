//! Fields of `[architecture]` of the family `transformer`, their defaults, and what contradicts what.

use super::form::{Head, Latent, Norm, Placement, Position, QueryKeyNorm, Routed, Transformer};
use super::naming::{self, Naming};
use crate::blocks::{Activation, Maw, Moe, Scoring};
use crate::document::Section;
use crate::error::ModelError;
use crate::families::{hidden_and_heads, limits};

const FIELDS: [&str; 47] = [
    "layers",
    "encoder_layers",
    "hidden",
    "heads",
    "kv_heads",
    "head_dim",
    "feed_forward",
    "vocabulary",
    "positions",
    "default_sequence",
    "tied",
    "causal",
    "position",
    "position_rows",
    "relative_buckets",
    "rotary_fraction",
    "token_types",
    "embedding_dim",
    "embedding_norm",
    "embedding_scale",
    "norm",
    "norm_bias",
    "norm_placement",
    "final_norm",
    "qkv_bias",
    "projection_bias",
    "mlp_bias",
    "activation",
    "gated",
    "query_key_norm",
    "attention_softcap",
    "attention_sinks",
    "unpads",
    "logit_softcap",
    "window",
    "window_every",
    "dropout",
    "head",
    "pooler",
    "classes",
    "dense_layers",
    "moe_every",
    "multi_token_prediction",
    "naming",
    "experts",
    "latent",
    "maw",
];

/// Largest number of routed experts.
const EXPERTS: u64 = 1 << 12;

impl Transformer {
    /// Reads and checks the fields.
    pub(crate) fn read(section: &Section) -> Result<Self, ModelError> {
        section.only(&FIELDS)?;
        let latent = read_latent(section)?;
        let (hidden, heads, kv_heads, head_dim) = read_heads(section, latent)?;
        let causal = section.flag("causal", true)?;
        let (norm, placement) = (read_norm(section)?, read_placement(section)?);
        let positions = section.count("positions", limits::POSITIONS)?;
        let position = read_position(section, positions, latent.map_or(head_dim, |it| it.rope_dim))?;
        let gated = section.flag("gated", true)?;
        let query_key_norm = match section.choice_if_given("query_key_norm", &["none", "head", "full"])? {
            Some(1) => QueryKeyNorm::Head,
            Some(2) => QueryKeyNorm::Full,
            _ => QueryKeyNorm::None,
        };
        let (head, pooler) = read_head(section)?;
        let default_length = section.range("default_sequence", 1, limits::POSITIONS)?.unwrap_or(positions);
        let window = section.range("window", 0, limits::POSITIONS)?.unwrap_or(0);
        let layers = section.count("layers", limits::LAYERS)?;
        let mut model = Self {
            layers,
            encoder_layers: section.range("encoder_layers", 0, limits::LAYERS)?.unwrap_or(0),
            hidden,
            heads,
            kv_heads,
            head_dim,
            feed_forward: section.range("feed_forward", 1, limits::FEED_FORWARD)?.unwrap_or(0),
            vocabulary: section.count("vocabulary", limits::VOCABULARY)?,
            positions,
            default_length,
            tied: section.flag("tied", false)?,
            causal,
            position,
            token_types: section.range("token_types", 0, limits::VOCABULARY)?.unwrap_or(0),
            embedding_dim: match section.range("embedding_dim", 0, limits::WIDTH)? {
                None | Some(0) => hidden,
                Some(width) => width,
            },
            embedding_norm: section.flag("embedding_norm", false)?,
            embedding_scale: section.flag("embedding_scale", false)?,
            norm,
            placement,
            final_norm: section.flag("final_norm", placement != Placement::Post)?,
            qkv_bias: section.flag("qkv_bias", false)?,
            projection_bias: section.flag("projection_bias", false)?,
            mlp_bias: section.flag("mlp_bias", false)?,
            activation: read_activation(section)?,
            gated,
            query_key_norm,
            attention_softcap: section.flag("attention_softcap", false)?,
            attention_sinks: section.flag("attention_sinks", false)?,
            unpads: section.flag("unpads", false)?,
            logit_softcap: section.flag("logit_softcap", false)?,
            window,
            window_every: section.range("window_every", 1, limits::LAYERS)?.unwrap_or(1),
            dropout: section.flag("dropout", false)?,
            softmax_fp32: true,
            head,
            pooler,
            routed: None,
            latent,
            predictions: section.range("multi_token_prediction", 0, limits::LAYERS)?.unwrap_or(0),
            maw: None,
            naming: &naming::LLAMA,
        };
        let table = section.table("experts")?;
        model.naming = read_naming(section, &model, table.as_ref())?;
        model.softmax_fp32 = !matches!(model.naming.name, "bert" | "megatron");
        model.routed = read_routed(section, &model, table.as_ref())?;
        model.maw = read_maw(section, &model)?;
        check(section, &model)?;
        Ok(model)
    }
}

/// Hidden width, heads, heads of keys and values, width of a head.
fn read_heads(section: &Section, latent: Option<Latent>) -> Result<(u64, u64, u64, u64), ModelError> {
    let hidden = section.count("hidden", limits::WIDTH)?;
    if let Some(latent) = latent {
        for name in ["kv_heads", "head_dim"] {
            section.only_with(name, false, "a model without [architecture.latent]")?;
        }
        let heads = section.count("heads", limits::HEADS)?;
        return Ok((hidden, heads, heads, latent.rope_dim + latent.nope_dim));
    }
    // With a width of heads of its own, the heads need not divide the hidden width.
    let (heads, head_dim) = if let Some(head_dim) = section.range("head_dim", 1, limits::WIDTH)? {
        (section.count("heads", limits::HEADS)?, head_dim)
    } else {
        let (hidden, heads) = hidden_and_heads(section)?;
        (heads, hidden / heads)
    };
    let kv_heads = section.range("kv_heads", 1, limits::HEADS)?.unwrap_or(heads);
    if heads.is_multiple_of(kv_heads) {
        return Ok((hidden, heads, kv_heads, head_dim));
    }
    Err(section.refuse("kv_heads", kv_heads, format!("a divisor of heads ({heads})")))
}

fn read_norm(section: &Section) -> Result<Norm, ModelError> {
    let layer = section.choice_if_given("norm", &["rms", "layer"])? == Some(1);
    section.only_with("norm_bias", layer, "norm = \"layer\"")?;
    Ok(if layer { Norm::Layer { bias: section.flag("norm_bias", true)? } } else { Norm::Rms })
}

fn read_placement(section: &Section) -> Result<Placement, ModelError> {
    Ok(match section.choice_if_given("norm_placement", &["pre", "post", "both", "parallel"])? {
        Some(1) => Placement::Post,
        Some(2) => Placement::Both,
        Some(3) => Placement::Parallel,
        _ => Placement::Pre,
    })
}

/// `rotated` is what of a head can be rotated.
fn read_position(section: &Section, positions: u64, rotated: u64) -> Result<Position, ModelError> {
    let words = ["rotary", "learned", "alibi", "relative", "none"];
    let chosen = section.choice_if_given("position", &words)?.unwrap_or(0);
    section.only_with("rotary_fraction", chosen == 0, "position = \"rotary\"")?;
    section.only_with("position_rows", chosen == 1, "position = \"learned\"")?;
    section.only_with("relative_buckets", chosen == 3, "position = \"relative\"")?;
    Ok(match chosen {
        0 => {
            let fraction = section.number("rotary_fraction", 0.0, 1.0)?.unwrap_or(1.0);
            let values = (rotated as f64 * fraction) as u64;
            if values == 0 {
                let allowed = format!("a share of {rotated} values that is not zero");
                return Err(section.refuse("rotary_fraction", fraction, allowed));
            }
            Position::Rotary(values)
        }
        1 => {
            let rows = section.range("position_rows", 0, limits::POSITIONS)?.unwrap_or(0);
            let rows = if rows == 0 { positions } else { rows };
            if rows < positions {
                let allowed = format!("at least positions ({positions})");
                return Err(section.refuse("position_rows", rows, allowed));
            }
            Position::Learned(rows)
        }
        2 => Position::Alibi,
        3 => Position::Relative(section.range("relative_buckets", 1, limits::WIDTH)?.unwrap_or(32)),
        _ => Position::None,
    })
}

fn read_activation(section: &Section) -> Result<Activation, ModelError> {
    let words = ["silu", "gelu", "gelu-tanh", "relu", "squared-relu"];
    Ok(match section.choice_if_given("activation", &words)? {
        Some(1 | 2) => Activation::Gelu,
        Some(3) => Activation::Relu,
        Some(4) => Activation::SquaredRelu,
        _ => Activation::Silu,
    })
}

/// The head, and whether there is a pooler.
fn read_head(section: &Section) -> Result<(Head, bool), ModelError> {
    let words = ["lm", "masked-lm", "pooler", "mean-pool", "classifier", "none"];
    let chosen = section.choice_if_given("head", &words)?.unwrap_or(0);
    section.only_with("classes", chosen == 4, "head = \"classifier\"")?;
    section.only_with("pooler", chosen != 0, "a head other than \"lm\"")?;
    let head = match chosen {
        0 => Head::Language,
        1 => Head::MaskedLanguage,
        2 => Head::Pooler,
        3 => Head::MeanPool,
        4 => Head::Classifier(section.range("classes", 1, limits::VOCABULARY)?.unwrap_or(2)),
        _ => Head::None,
    };
    if head == Head::Pooler && !section.flag("pooler", true)? {
        return Err(section.refuse("pooler", false, "true, or left out, with head = \"pooler\""));
    }
    Ok((head, section.flag("pooler", head == Head::Pooler)?))
}

fn read_latent(section: &Section) -> Result<Option<Latent>, ModelError> {
    let Some(table) = section.table("latent")? else {
        return Ok(None);
    };
    table.only(&["query_rank", "kv_rank", "rope_dim", "nope_dim", "value_dim"])?;
    Ok(Some(Latent {
        query_rank: table.range("query_rank", 0, limits::WIDTH)?.unwrap_or(0),
        kv_rank: table.count("kv_rank", limits::WIDTH)?,
        rope_dim: table.count("rope_dim", limits::WIDTH)?,
        nope_dim: table.count("nope_dim", limits::WIDTH)?,
        value_dim: table.count("value_dim", limits::WIDTH)?,
    }))
}

/// Whose names the modules have: as the file says, or those of the implementation that the other fields describe.
fn read_naming(
    section: &Section,
    model: &Transformer,
    experts: Option<&Section>,
) -> Result<&'static Naming, ModelError> {
    let found = match section.choice_if_given("naming", &naming::all())? {
        Some(index) => naming::by_index(index),
        None => implied(model, experts)?,
    };
    if found.packed.is_some() && (model.kv_heads != model.heads || model.latent.is_some()) {
        let names = format!("\"{}\"", found.name);
        return Err(section.refuse("naming", names, "one with a projection of its own for keys and values"));
    }
    Ok(found)
}

fn implied(model: &Transformer, experts: Option<&Section>) -> Result<&'static Naming, ModelError> {
    let learned = matches!(model.position, Position::Learned(_));
    let equal_heads = model.kv_heads == model.heads && model.latent.is_none();
    let shared = experts.map_or(Ok(None), |table| table.range("shared", 0, EXPERTS))?.unwrap_or(0) > 0;
    let gate = experts.map_or(Ok(false), |table| table.flag("shared_gate", false))?;
    Ok(match model {
        _ if model.encoder_layers > 0 || matches!(model.position, Position::Relative(_)) => &naming::T5,
        _ if !model.causal && model.placement == Placement::Post => &naming::BERT,
        _ if model.placement == Placement::Both => &naming::GEMMA,
        _ if model.placement == Placement::Parallel && equal_heads => &naming::GPT_NEOX,
        _ if gate => &naming::QWEN2_MOE,
        _ if experts.is_some() && !shared && model.query_key_norm == QueryKeyNorm::None => &naming::MIXTRAL,
        _ if model.position == Position::Alibi && equal_heads => &naming::MPT,
        _ if learned && !model.gated => &naming::OPT,
        _ => &naming::LLAMA,
    })
}

fn read_routed(
    section: &Section,
    model: &Transformer,
    table: Option<&Section>,
) -> Result<Option<Routed>, ModelError> {
    for name in ["dense_layers", "moe_every"] {
        section.only_with(name, table.is_some(), "[architecture.experts]")?;
    }
    let Some(table) = table else {
        return Ok(None);
    };
    table.only(&[
        "count",
        "top_k",
        "feed_forward",
        "shared",
        "shared_feed_forward",
        "shared_gate",
        "router_bias",
        "bias",
        "capacity_factor",
    ])?;
    let experts = table.count("count", EXPERTS)?;
    let top_k = table.count("top_k", experts)?;
    let middle = table.count("feed_forward", limits::FEED_FORWARD)?;
    let shared = table.range("shared", 0, EXPERTS)?.unwrap_or(0);
    for name in ["shared_feed_forward", "shared_gate"] {
        table.only_with(name, shared > 0, "shared experts (shared)")?;
    }
    // 0, like an absent field, stands for shared experts as wide as the routed ones.
    let width = table.range("shared_feed_forward", 0, limits::FEED_FORWARD)?.filter(|&width| width > 0);
    let router_bias = table.flag("router_bias", false)?;
    let bias = table.flag("bias", false)?;
    let t5 = model.is_t5();
    let moe = Moe {
        experts,
        top_k,
        middle,
        scoring: if router_bias && !t5 { Scoring::CorrectedSigmoid } else { Scoring::Softmax },
        router_bias: bias || router_bias && t5,
        expert_bias: bias,
        capacity_factor: table.number("capacity_factor", 0.0, 1e6)?.unwrap_or(0.0),
        shared: if shared == 0 { 0 } else { width.unwrap_or(shared * middle) },
        shared_gate: table.flag("shared_gate", false)?,
    };
    let deepest = model.layers.max(model.encoder_layers);
    let dense_layers = section.range("dense_layers", 0, deepest - 1)?.unwrap_or(0);
    let every = section.range("moe_every", 1, deepest)?.unwrap_or(1);
    Ok(Some(Routed { moe, dense_layers, every }))
}

fn read_maw(section: &Section, model: &Transformer) -> Result<Option<(Maw, Vec<u64>)>, ModelError> {
    let Some(table) = section.table("maw")? else {
        return Ok(None);
    };
    table.only(&["layers", "heads", "depth", "pool", "state_hidden", "state", "policy"])?;
    if model.causal || model.encoder_layers > 0 {
        return Err(section.contradict("causal", "false with [architecture.maw], which is for encoders"));
    }
    let heads = table.count("heads", limits::HEADS)?;
    if !model.hidden.is_multiple_of(heads) {
        return Err(table.refuse("heads", heads, format!("a divisor of hidden ({})", model.hidden)));
    }
    let layers = model.layers.cast_signed();
    let mut after = Vec::new();
    for number in table.integers("layers")?.unwrap_or_else(|| vec![-1]) {
        let counted = if number < 0 { number.saturating_add(layers) } else { number };
        if !(0..layers).contains(&counted) {
            let allowed = format!("numbers of the {layers} blocks, from 0, or from the end, from -1");
            return Err(table.refuse("layers", format!("a list with {number}"), allowed));
        }
        after.push(counted.cast_unsigned());
    }
    let width = |name, default| {
        table.range(name, 1, limits::WIDTH).map(|found: Option<u64>| found.unwrap_or(default))
    };
    let maw = Maw {
        heads,
        depth: table.count("depth", limits::WIDTH)?,
        pool: width("pool", 8)?,
        state: [width("state_hidden", 256)?, width("state", 128)?],
        policy: width("policy", 64)?,
        dropout: model.dropout,
    };
    Ok(Some((maw, after)))
}

/// What fields ask of each other.
fn check(section: &Section, model: &Transformer) -> Result<(), ModelError> {
    section.only_with("window_every", model.window > 0, "a window")?;
    let dense = model.routed.is_none_or(|it| it.dense_layers > 0 || it.every > 1);
    if dense && model.feed_forward == 0 {
        section.count("feed_forward", limits::FEED_FORWARD)?;
    }
    if model.routed.is_some() && model.mlp_bias {
        return Err(section.refuse("mlp_bias", true, "false with [architecture.experts]"));
    }
    let relative = matches!(model.position, Position::Relative(_));
    if model.latent.is_some() {
        if !matches!(model.position, Position::Rotary(_)) {
            return Err(section.contradict("position", "\"rotary\" with [architecture.latent]"));
        }
        section.only_with("query_key_norm", false, "a model without [architecture.latent]")?;
        section.only_with("rotary_fraction", false, "a model without [architecture.latent]")?;
    }
    if model.predictions > 0 && !(model.causal && model.head == Head::Language && !relative) {
        let allowed =
            "0 unless the model is a decoder with head = \"lm\" and positions other than relative ones";
        return Err(section.contradict("multi_token_prediction", allowed));
    }
    if model.default_length > model.positions && matches!(model.position, Position::Learned(_)) {
        let allowed = format!("at most positions ({})", model.positions);
        return Err(section.contradict("default_sequence", &allowed));
    }
    if model.encoder_layers == 0 {
        return Ok(());
    }
    if !relative {
        return Err(section.contradict("position", "\"relative\" with encoder_layers"));
    }
    let single = "a single stack (encoder_layers = 0)";
    for name in
        ["token_types", "embedding_dim", "embedding_norm", "latent", "window", "multi_token_prediction"]
    {
        section.only_with(name, false, single)?;
    }
    if !model.causal {
        return Err(section.refuse("causal", false, "true with encoder_layers: the decoder's"));
    }
    if model.head == Head::Language {
        Ok(())
    } else {
        Err(section.contradict("head", "\"lm\" with encoder_layers"))
    }
}
