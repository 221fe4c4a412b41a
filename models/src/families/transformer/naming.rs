//! Names of modules, as the reference implementations print them, without the number of the block.

use crate::blocks::MoeModules;

/// Names of one implementation's modules.
#[derive(Debug)]
pub(crate) struct Naming {
    /// As the field `naming` says it.
    pub(super) name: &'static str,
    pub(super) tokens: &'static str,
    pub(super) positions: &'static str,
    pub(super) types: &'static str,
    pub(super) embedding_norm: &'static str,
    pub(super) attention_norm: &'static str,
    /// After the attention, where there is a norm before it too.
    pub(super) attention_post_norm: &'static str,
    pub(super) query: &'static str,
    pub(super) key: &'static str,
    pub(super) value: &'static str,
    /// One projection for all three in their place.
    pub(super) packed: Option<&'static str>,
    pub(super) projection: &'static str,
    pub(super) query_norm: &'static str,
    pub(super) key_norm: &'static str,
    pub(super) relative: &'static str,
    pub(super) mlp_norm: &'static str,
    pub(super) mlp_post_norm: &'static str,
    pub(super) gate: &'static str,
    /// Beside a gate.
    pub(super) gated_up: &'static str,
    /// One projection for the gate and what is beside it in their place.
    pub(super) packed_gate: Option<&'static str>,
    pub(super) up: &'static str,
    pub(super) down: &'static str,
    pub(super) moe: MoeModules,
    pub(super) final_norm: &'static str,
    pub(super) output: &'static str,
}

const LLAMA_MOE: MoeModules = MoeModules {
    router: "mlp.gate",
    experts: "mlp.experts.",
    layers: ["gate_proj", "up_proj", "down_proj"],
    shared: ["mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj", "mlp.shared_experts.down_proj"],
    shared_gate: "mlp.shared_expert_gate",
};

/// Llama, Mistral, Qwen, DeepSeek, Nemotron in Hugging Face's library.
pub(crate) static LLAMA: Naming = LLAMA_BASE;

const LLAMA_BASE: Naming = Naming {
    name: "llama",
    tokens: "embed_tokens",
    positions: "embed_positions",
    types: "embed_token_types",
    embedding_norm: "embed_norm",
    attention_norm: "input_layernorm",
    attention_post_norm: "post_attention_layernorm",
    query: "self_attn.q_proj",
    key: "self_attn.k_proj",
    value: "self_attn.v_proj",
    packed: None,
    projection: "self_attn.o_proj",
    query_norm: "self_attn.q_norm",
    key_norm: "self_attn.k_norm",
    relative: "self_attn.relative_attention_bias",
    mlp_norm: "post_attention_layernorm",
    mlp_post_norm: "post_feedforward_layernorm",
    gate: "mlp.gate_proj",
    gated_up: "mlp.up_proj",
    packed_gate: None,
    up: "mlp.up_proj",
    down: "mlp.down_proj",
    moe: LLAMA_MOE,
    final_norm: "norm",
    output: "lm_head",
};

/// Gemma 2: Llama's with four norms.
pub(super) static GEMMA: Naming =
    Naming { name: "gemma", mlp_norm: "pre_feedforward_layernorm", ..LLAMA_BASE };

/// Mixtral.
pub(super) static MIXTRAL: Naming = Naming {
    name: "mixtral",
    moe: MoeModules {
        router: "block_sparse_moe.gate",
        experts: "block_sparse_moe.experts.",
        layers: ["w1", "w3", "w2"],
        ..LLAMA_MOE
    },
    ..LLAMA_BASE
};

/// Qwen2-MoE: a single shared expert.
pub(super) static QWEN2_MOE: Naming = Naming {
    name: "qwen2-moe",
    moe: MoeModules {
        shared: ["mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj", "mlp.shared_expert.down_proj"],
        ..LLAMA_MOE
    },
    ..LLAMA_BASE
};

pub(super) static OPT: Naming = Naming {
    name: "opt",
    attention_norm: "self_attn_layer_norm",
    projection: "self_attn.out_proj",
    mlp_norm: "final_layer_norm",
    up: "fc1",
    down: "fc2",
    final_norm: "final_layer_norm",
    ..LLAMA_BASE
};

pub(super) static MPT: Naming = Naming {
    name: "mpt",
    tokens: "wte",
    positions: "wpe",
    attention_norm: "norm_1",
    packed: Some("attn.Wqkv"),
    projection: "attn.out_proj",
    mlp_norm: "norm_2",
    up: "ffn.up_proj",
    down: "ffn.down_proj",
    final_norm: "norm_f",
    ..LLAMA_BASE
};

pub(super) static GPT_NEOX: Naming = Naming {
    name: "gpt-neox",
    tokens: "embed_in",
    packed: Some("attention.query_key_value"),
    projection: "attention.dense",
    up: "mlp.dense_h_to_4h",
    down: "mlp.dense_4h_to_h",
    final_norm: "final_layer_norm",
    output: "embed_out",
    ..LLAMA_BASE
};

/// Megatron-LM's GPT.
pub(crate) static MEGATRON: Naming = Naming {
    name: "megatron",
    tokens: "word_embeddings",
    positions: "position_embeddings",
    packed: Some("self_attention.query_key_value"),
    projection: "self_attention.dense",
    up: "mlp.dense_h_to_4h",
    down: "mlp.dense_4h_to_h",
    final_norm: "final_layernorm",
    output: "output_layer",
    ..LLAMA_BASE
};

/// nanotron's Llama: a projection for queries, keys and values, and one for the gate and what it is multiplied with.
pub(super) static NANOTRON: Naming = Naming {
    name: "nanotron",
    tokens: "token_position_embeddings.token_embedding",
    packed: Some("attn.qkv_proj"),
    projection: "attn.o_proj",
    packed_gate: Some("mlp.gate_up_proj"),
    final_norm: "final_layer_norm",
    ..LLAMA_BASE
};

pub(super) static BERT: Naming = Naming {
    name: "bert",
    tokens: "embeddings.word_embeddings",
    positions: "embeddings.position_embeddings",
    types: "embeddings.token_type_embeddings",
    embedding_norm: "embeddings.LayerNorm",
    attention_norm: "attention.output.LayerNorm",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    projection: "attention.output.dense",
    mlp_norm: "output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    output: "cls.predictions.decoder",
    ..LLAMA_BASE
};

/// T5's encoder.
pub(super) static T5: Naming = T5_BASE;

const T5_BASE: Naming = Naming {
    name: "t5",
    tokens: "shared",
    attention_norm: "layer.0.layer_norm",
    query: "layer.0.SelfAttention.q",
    key: "layer.0.SelfAttention.k",
    value: "layer.0.SelfAttention.v",
    projection: "layer.0.SelfAttention.o",
    relative: "layer.0.SelfAttention.relative_attention_bias",
    mlp_norm: "layer.1.layer_norm",
    gate: "layer.1.DenseReluDense.wi_0",
    gated_up: "layer.1.DenseReluDense.wi_1",
    up: "layer.1.DenseReluDense.wi",
    down: "layer.1.DenseReluDense.wo",
    moe: MoeModules {
        router: "layer.1.mlp.router.classifier",
        experts: "layer.1.mlp.experts.expert_",
        layers: ["wi_0", "wi", "wo"],
        ..LLAMA_MOE
    },
    final_norm: "final_layer_norm",
    ..LLAMA_BASE
};

/// T5's decoder, where the feed-forward comes third.
pub(super) static T5_DECODER: Naming = Naming {
    mlp_norm: "layer.2.layer_norm",
    gate: "layer.2.DenseReluDense.wi_0",
    gated_up: "layer.2.DenseReluDense.wi_1",
    up: "layer.2.DenseReluDense.wi",
    down: "layer.2.DenseReluDense.wo",
    moe: MoeModules {
        router: "layer.2.mlp.router.classifier",
        experts: "layer.2.mlp.experts.expert_",
        layers: ["wi_0", "wi", "wo"],
        ..LLAMA_MOE
    },
    ..T5_BASE
};

/// T5's attention from the decoder to the encoder: norm, query, key, value, output projection.
pub(super) const CROSS: [&str; 5] = [
    "layer.1.layer_norm",
    "layer.1.EncDecAttention.q",
    "layer.1.EncDecAttention.k",
    "layer.1.EncDecAttention.v",
    "layer.1.EncDecAttention.o",
];

/// All that a model file may name.
static ALL: [&Naming; 11] =
    [&LLAMA, &GEMMA, &MIXTRAL, &QWEN2_MOE, &OPT, &MPT, &GPT_NEOX, &MEGATRON, &NANOTRON, &BERT, &T5];

/// Names of all of them.
pub(super) fn all() -> Vec<&'static str> {
    ALL.iter().map(|naming| naming.name).collect()
}

/// The one of an index into [`all`].
pub(super) fn by_index(index: usize) -> &'static Naming {
    ALL.get(index).copied().unwrap_or(&LLAMA)
}
