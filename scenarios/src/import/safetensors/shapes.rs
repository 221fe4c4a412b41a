//! Shapes that a configuration gives to tensors of known names.

use toml::Value;

use super::table::TensorTable;
use crate::error::InputError;

/// Widths of a model.
pub(super) struct Widths {
    hidden: u64,
    query: u64,
    key: u64,
    head: u64,
    feed_forward: u64,
    vocabulary: u64,
    positions: u64,
    layers: u64,
    /// Whether the output projection is the embedding.
    pub(super) tied: bool,
    /// Whether feed-forward layers are routed or attention is latent: their tensors have other names and shapes.
    special: bool,
}

impl Widths {
    /// The widths that a model file gives; none for models without heads.
    pub(super) fn read(toml: &str) -> Option<Self> {
        let file: toml::Table = toml.parse().ok()?;
        let architecture = file.get("architecture")?.as_table()?;
        let number = |key: &str| {
            architecture.get(key).and_then(Value::as_integer).and_then(|value| u64::try_from(value).ok())
        };
        let hidden = number("hidden")?;
        let heads = number("heads").filter(|&heads| heads > 0)?;
        let head = number("head_dim").unwrap_or(hidden / heads);
        let rows = number("position_rows").unwrap_or(0);
        Some(Self {
            hidden,
            query: heads * head,
            key: number("kv_heads").unwrap_or(heads) * head,
            head,
            feed_forward: number("feed_forward").unwrap_or(4 * hidden),
            vocabulary: number("vocabulary").unwrap_or(0),
            positions: if rows > 0 { rows } else { number("positions").unwrap_or(0) },
            layers: number("layers")?,
            tied: architecture
                .get("tied")
                .and_then(Value::as_bool)
                .unwrap_or(file.get("family").and_then(Value::as_str) == Some("gpt")),
            special: architecture.contains_key("experts") || architecture.contains_key("latent"),
        })
    }

    /// The shape of a tensor by its module and kind, as Llama's and GPT-2's code in the transformers library name
    /// them.
    fn expected(&self, name: &str) -> Option<Vec<u64>> {
        let parts: Vec<&str> = name.rsplit('.').collect();
        let [kind, module, ..] = parts[..] else { return None };
        let (h, f, q, k) = (self.hidden, self.feed_forward, self.query, self.key);
        let of_width =
            ["embed_tokens", "lm_head", "norm"].contains(&module) || module.ends_with("_layernorm");
        if self.special && (!of_width || module.contains("_a_")) {
            return None;
        }
        let block = parts.get(2).copied().unwrap_or_default();
        Some(match (module, kind) {
            ("embed_tokens" | "wte" | "lm_head", "weight") => vec![self.vocabulary, h],
            ("wpe", "weight") => vec![self.positions, h],
            ("norm" | "ln_f" | "ln_1" | "ln_2", "weight" | "bias") | ("c_proj", "bias") => vec![h],
            (norm, "weight" | "bias") if norm.ends_with("_layernorm") => vec![h],
            ("q_norm" | "k_norm", "weight") => vec![self.head],
            ("q_proj", "weight") => vec![q, h],
            ("q_proj", "bias") => vec![q],
            ("k_proj" | "v_proj", "weight") => vec![k, h],
            ("k_proj" | "v_proj", "bias") => vec![k],
            ("o_proj", "weight") => vec![h, q],
            ("gate_proj" | "up_proj", "weight") => vec![f, h],
            // GPT-2 keeps its matrices transposed, from input to output.
            ("down_proj" | "c_fc", "weight") => vec![h, f],
            ("c_attn", "weight") => vec![h, 3 * h],
            ("c_attn", "bias") => vec![3 * h],
            ("c_fc", "bias") => vec![f],
            ("c_proj", "weight") if block == "mlp" => vec![f, h],
            ("c_proj", "weight") => vec![h, h],
            _ => return None,
        })
    }
}

/// Compares every tensor whose shape the model file gives. Returns how many they are.
pub(super) fn check(table: &TensorTable, widths: &Widths) -> Result<usize, InputError> {
    let mut checked = 0;
    for (name, tensor) in table.iter() {
        if let Some(block) = block_number(name)
            && block >= widths.layers
            && !widths.special
        {
            let message = format!(
                "the tensor {name} is of block {block}, but the configuration has {} blocks",
                widths.layers
            );
            return Err(table.conflict(message));
        }
        // Weights of 4 bits are packed; their shapes are not those of the matrices.
        if ["U8", "I32", "U32"].contains(&tensor.format) {
            continue;
        }
        let Some(expected) = widths.expected(name) else { continue };
        if expected != tensor.shape {
            let message = format!(
                "the tensor {name} has the shape {:?}, but the configuration gives {expected:?}",
                tensor.shape
            );
            return Err(table.conflict(message));
        }
        checked += 1;
    }
    Ok(checked)
}

/// The block that a tensor belongs to: the number behind `layers.` or `h.`.
pub(super) fn block_number(name: &str) -> Option<u64> {
    let mut parts = name.split('.');
    parts.find(|part| ["layers", "h"].contains(part))?;
    parts.next()?.parse::<u32>().ok().map(u64::from)
}
