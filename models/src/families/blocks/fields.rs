//! The fields of those kinds of blocks that look at nothing but what they are given.

use super::flow::Flow;
use super::kinds::{Attend, Component, Kind, Mlp, Moe, Norm, Pool};
use super::read::{Entry, only};
use crate::error::ModelError;
use crate::families::limits;
use crate::quantity::Dimension;
use crate::units::product;

/// Functions of an activation. What they compute costs the same; each is a kernel that reads and writes once.
const FUNCTIONS: [&str; 4] = ["gelu", "silu", "relu", "tanh"];

/// Kinds of transformers' blocks.
pub(super) fn transformer(word: &str, entry: &Entry<'_>) -> Result<(Kind, Flow), ModelError> {
    let section = entry.section;
    if word == "attention" {
        return Ok((Kind::Attention(attention(entry)?), entry.flow));
    }
    let experts = ["experts", "top_k"];
    let common = ["width", "gated", "activation"];
    if word == "moe" {
        only(section, &[&common[..], &experts].concat())?;
    } else {
        only(section, &[&common[..], &["bias", "dropout"]].concat())?;
    }
    let gated = section.flag("gated", false)?;
    section.choice_or("activation", &FUNCTIONS, 0)?;
    let width = section.count("width", limits::FEED_FORWARD)?;
    if word == "mlp" {
        entry.row_width()?;
        let mlp = Mlp {
            width,
            gated,
            bias: section.flag("bias", false)?,
            dropout: section.flag("dropout", false)?,
        };
        return Ok((Kind::Mlp(mlp), entry.flow));
    }
    entry.token_width()?;
    let experts = section.count("experts", limits::EXPERTS)?;
    let top_k = section.range("top_k", 1, experts)?.unwrap_or(experts.min(2));
    Ok((Kind::Moe(Moe { experts, top_k, width, gated }), entry.flow))
}

fn attention(entry: &Entry<'_>) -> Result<Attend, ModelError> {
    let section = entry.section;
    only(
        section,
        &[
            "heads",
            "kv_heads",
            "head_dim",
            "causal",
            "rotary",
            "packed",
            "bias",
            "output_bias",
            "dropout",
            "softmax_fp32",
        ],
    )?;
    let (width, _) = entry.token_width()?;
    let heads = section.count("heads", limits::HEADS)?;
    let head_dim = match section.range("head_dim", 1, limits::WIDTH)? {
        Some(given) => given,
        None if width.is_multiple_of(heads) => width / heads,
        None => return Err(entry.needs(format!("a width of a multiple of heads ({heads})"))),
    };
    let kv_heads = section.range("kv_heads", 1, limits::HEADS)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        return Err(section.refuse("kv_heads", kv_heads, format!("a divisor of heads ({heads})")));
    }
    let (packed, rotary) = (section.flag("packed", false)?, section.flag("rotary", false)?);
    if packed && (kv_heads != heads || rotary) {
        let allowed = "false where kv_heads differ from heads or positions are rotary";
        return Err(section.refuse("packed", true, allowed));
    }
    let bias = section.flag("bias", false)?;
    Ok(Attend {
        heads,
        kv_heads,
        head_dim,
        causal: section.flag("causal", false)?,
        rotary,
        packed,
        bias,
        output_bias: section.flag("output_bias", bias)?,
        dropout: section.flag("dropout", false)?,
        softmax_fp32: section.flag("softmax_fp32", false)?,
    })
}

/// Kinds for images.
pub(super) fn image(word: &str, entry: &Entry<'_>) -> Result<(Kind, Flow), ModelError> {
    let section = entry.section;
    match word {
        "conv" => {
            only(section, &["channels", "kernel", "stride", "padding", "groups", "bias"])?;
            let channels = section.count("channels", limits::WIDTH)?;
            let groups = section.range("groups", 1, limits::WIDTH)?.unwrap_or(1);
            let inputs = entry.image()?[0];
            if !inputs.is_multiple_of(groups) || !channels.is_multiple_of(groups) {
                let allowed = format!("a divisor of the channels in ({inputs}) and out ({channels})");
                return Err(section.refuse("groups", groups, allowed));
            }
            let (window, height, width) = entry.window(Some(1), None)?;
            let kind = Kind::Convolution { channels, window, groups, bias: section.flag("bias", false)? };
            Ok((kind, Flow::Image { channels, height, width }))
        }
        "flatten" => {
            only(section, &[])?;
            Ok((Kind::Flatten, Flow::Vector { width: product(&entry.image()?) }))
        }
        _ => pool(entry),
    }
}

fn pool(entry: &Entry<'_>) -> Result<(Kind, Flow), ModelError> {
    let section = entry.section;
    let types = ["max", "average", "global", "first"];
    let kind = section.choice("type", &types)?;
    if kind >= 2 {
        only(section, &["type"])?;
        let pool = if kind == 2 { Pool::Global } else { Pool::First };
        let width = match entry.flow {
            Flow::Image { channels, .. } if pool == Pool::Global => channels,
            _ => entry.token_width()?.0,
        };
        return Ok((Kind::Pool(pool), Flow::Vector { width }));
    }
    only(section, &["type", "kernel", "stride", "padding"])?;
    let (window, height, width) = entry.window(None, Some(0))?;
    let pool = if kind == 0 { Pool::Max(window) } else { Pool::Average(window) };
    Ok((Kind::Pool(pool), Flow::Image { channels: entry.image()?[0], height, width }))
}

/// Norms, activations, dropout, linear layers.
pub(super) fn simple(word: &str, entry: &Entry<'_>) -> Result<(Kind, Flow), ModelError> {
    let (section, flow) = (entry.section, entry.flow);
    match word {
        "norm" => {
            let types = ["layer", "rms", "batch"];
            let norm = section.choice_or("type", &types, 0)?;
            only(section, if norm == 0 { &["type", "bias"] } else { &["type"] })?;
            entry.width()?;
            let norm = match norm {
                0 => Norm::Layer { bias: section.flag("bias", true)? },
                1 => Norm::Rms,
                _ => {
                    entry.image()?;
                    Norm::Batch
                }
            };
            Ok((Kind::Norm(norm), flow))
        }
        "linear" => {
            only(section, &["width", "bias"])?;
            entry.row_width()?;
            let width = section.count("width", limits::FEED_FORWARD)?;
            Ok((Kind::Linear { width, bias: section.flag("bias", true)? }, flow.with_width(width)))
        }
        "activation" => {
            only(section, &["type"])?;
            section.choice("type", &FUNCTIONS)?;
            entry.width()?;
            Ok((Kind::Activation, flow))
        }
        _ => {
            only(section, &[])?;
            entry.width()?;
            Ok((if word == "relu" { Kind::ReluInPlace } else { Kind::Dropout }, flow))
        }
    }
}

pub(super) fn component(entry: &Entry<'_>) -> Result<(Kind, Flow), ModelError> {
    let section = entry.section;
    only(section, &["flops", "backward_flops", "parameters", "saved", "output"])?;
    let optional = |name, dimension, default| {
        if section.has(name) { section.quantity(name, dimension) } else { Ok(default) }
    };
    let forward = section.quantity("flops", Dimension::Flops)?;
    let component = Component {
        forward,
        backward: optional("backward_flops", Dimension::Flops, 2.0 * forward)?,
        parameters: section.range("parameters", 0, 1 << 50)?.unwrap_or(0),
        saved: optional("saved", Dimension::Bytes, 0.0)?,
    };
    if entry.flow == Flow::Predictions {
        return Err(entry.needs("a place before the head"));
    }
    let output = if section.has("output") {
        Flow::Opaque { bytes: section.quantity("output", Dimension::Bytes)?.round() as u64 }
    } else if entry.flow == Flow::Ids {
        return Err(entry.needs("`output`, or something of the same size to hand on"));
    } else {
        entry.flow
    };
    Ok((Kind::Component(component), output))
}
