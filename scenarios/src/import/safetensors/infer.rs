//! A model from the shapes of its tensors alone.

use super::shapes::block_number;
use super::table::{TensorEntry, TensorTable};
use crate::error::InputError;
use crate::import::architecture::Transformer;
use crate::import::report::Log;

/// The model file, as far as shapes determine it; the longest sequence never is.
pub(super) fn infer(table: &TensorTable, log: &mut Log) -> Result<String, InputError> {
    let blocks = table.iter().filter_map(|(name, _)| block_number(name)).max().map(|last| last + 1);
    let embedding = matrix(table, "embed_tokens.weight");
    let Some((blocks, (vocabulary, hidden))) = blocks.zip(embedding) else {
        return Err(unknown(table, blocks));
    };
    let query = matrix(table, "self_attn.q_proj.weight");
    let key = matrix(table, "self_attn.k_proj.weight");
    let gate = matrix(table, "mlp.gate_proj.weight");
    let (Some((query, _)), Some((key, _)), Some((feed_forward, _))) = (query, key, gate) else {
        return Err(unknown(table, Some(blocks)));
    };
    let tied = table.ending("lm_head.weight").is_none();
    let Some(head) = head_dim(table, query) else {
        return Err(table.conflict(format!(
            "found a decoder of {blocks} blocks, hidden {hidden}, feed_forward {feed_forward}, vocabulary \
             {vocabulary}, {}, but the number of heads is not in the shapes: give the model's config.json with \
             --config",
            if tied { "tied" } else { "not tied" }
        )));
    };
    if !query.is_multiple_of(head) || !key.is_multiple_of(head) {
        return Err(table
            .conflict(format!("queries of {query} and keys of {key} are no multiples of a head of {head}")));
    }
    let has = |end: &str| table.ending(end).is_some();
    let model = Transformer {
        layers: blocks,
        hidden,
        heads: query / head,
        kv_heads: key / head,
        head_dim: Some(head),
        feed_forward,
        vocabulary,
        tied,
        qkv_bias: has("self_attn.q_proj.bias"),
        projection_bias: has("self_attn.o_proj.bias"),
        mlp_bias: has("mlp.up_proj.bias"),
        query_key_norm: if has("self_attn.q_norm.weight") { "head" } else { "none" },
        norm_placement: if has("pre_feedforward_layernorm.weight") { "both" } else { "pre" },
        ..Transformer::default()
    };
    log.note("the longest sequence is not in the file: write `positions`, or [model] overrides = { positions = ... }");
    log.note(
        "the activation is not in the file: SiLU with a gate, as decoders with these names have, is written",
    );
    let source = "names and shapes of a safetensors file".to_owned();
    Ok(model.file("checkpoint", &source).replace("positions = 0\n", ""))
}

/// Rows and columns of a matrix, by the end of its name.
fn matrix(table: &TensorTable, end: &str) -> Option<(u64, u64)> {
    match table.ending(end)?.shape[..] {
        [rows, columns] if rows > 0 && columns > 0 => Some((rows, columns)),
        _ => None,
    }
}

/// The width of a head, which a norm of queries or a table of rotary frequencies tells.
fn head_dim(table: &TensorTable, query: u64) -> Option<u64> {
    let width = |tensor: &TensorEntry| match tensor.shape[..] {
        [width] if width > 0 => Some(width),
        _ => None,
    };
    // A norm over all heads says nothing.
    let norm = table.ending("self_attn.q_norm.weight").and_then(width).filter(|&width| width < query);
    norm.or_else(|| table.ending("inv_freq").and_then(width).map(|half| 2 * half))
}

/// Names that are not those of a decoder of Llama's kind.
fn unknown(table: &TensorTable, blocks: Option<u64>) -> InputError {
    let found = blocks.map_or_else(String::new, |blocks| format!(" in {blocks} blocks"));
    table.conflict(format!(
        "the shapes of the {} tensors{found} do not determine the model (heads, activation, norms): give its \
         config.json with --config",
        table.len()
    ))
}
