//! A transformer as importers find it, written as the smallest family of model files that can hold it.

use toml::Value;

use super::write::{Document, whole};

/// Largest values, those of model files.
pub(super) mod limits {
    pub(in crate::import) const LAYERS: u64 = 10_000;
    pub(in crate::import) const WIDTH: u64 = 1 << 17;
    pub(in crate::import) const FEED_FORWARD: u64 = 1 << 20;
    pub(in crate::import) const HEADS: u64 = 1 << 14;
    pub(in crate::import) const VOCABULARY: u64 = 1 << 24;
    pub(in crate::import) const POSITIONS: u64 = 1 << 24;
    pub(in crate::import) const EXPERTS: u64 = 1 << 10;
    pub(in crate::import) const PIXELS: u64 = 1 << 14;
    pub(in crate::import) const CHANNELS: u64 = 1 << 12;
}

/// Routed experts.
#[derive(Clone, Debug, Default)]
pub(super) struct Experts {
    pub(super) count: u64,
    pub(super) top_k: u64,
    /// Width of one expert.
    pub(super) feed_forward: u64,
    pub(super) shared: u64,
    /// Width of all shared experts together.
    pub(super) shared_feed_forward: u64,
    pub(super) shared_gate: bool,
    pub(super) router_bias: bool,
    /// 0: no token is dropped.
    pub(super) capacity_factor: f64,
}

/// Multi-head latent attention.
#[derive(Clone, Debug, Default)]
pub(super) struct Latent {
    /// 0: queries are projected directly.
    pub(super) query_rank: u64,
    pub(super) kv_rank: u64,
    pub(super) rope_dim: u64,
    pub(super) nope_dim: u64,
    pub(super) value_dim: u64,
}

/// Fields of `[architecture]` of the family `transformer`, under their names there.
#[derive(Clone, Debug)]
pub(super) struct Transformer {
    pub(super) layers: u64,
    pub(super) hidden: u64,
    pub(super) heads: u64,
    pub(super) kv_heads: u64,
    /// `None`: hidden / heads.
    pub(super) head_dim: Option<u64>,
    pub(super) feed_forward: u64,
    pub(super) vocabulary: u64,
    pub(super) positions: u64,
    pub(super) tied: bool,
    pub(super) causal: bool,
    pub(super) position: &'static str,
    pub(super) position_rows: u64,
    pub(super) relative_buckets: u64,
    pub(super) rotary_fraction: f64,
    pub(super) token_types: u64,
    pub(super) embedding_norm: bool,
    pub(super) embedding_dim: u64,
    pub(super) norm: &'static str,
    pub(super) norm_bias: bool,
    pub(super) norm_placement: &'static str,
    /// `None`: what goes with the placement.
    pub(super) final_norm: Option<bool>,
    pub(super) qkv_bias: bool,
    pub(super) projection_bias: bool,
    pub(super) mlp_bias: bool,
    pub(super) activation: &'static str,
    pub(super) gated: bool,
    pub(super) query_key_norm: &'static str,
    pub(super) attention_softcap: bool,
    pub(super) logit_softcap: bool,
    pub(super) embedding_scale: bool,
    pub(super) window: u64,
    pub(super) window_every: u64,
    pub(super) dropout: bool,
    pub(super) head: &'static str,
    pub(super) pooler: bool,
    pub(super) classes: u64,
    pub(super) dense_layers: u64,
    pub(super) moe_every: u64,
    pub(super) encoder_layers: u64,
    pub(super) experts: Option<Experts>,
    pub(super) latent: Option<Latent>,
}

impl Default for Transformer {
    /// A decoder of Llama's kind without sizes.
    fn default() -> Self {
        Self {
            layers: 0,
            hidden: 0,
            heads: 0,
            kv_heads: 0,
            head_dim: None,
            feed_forward: 0,
            vocabulary: 0,
            positions: 0,
            tied: false,
            causal: true,
            position: "rotary",
            position_rows: 0,
            relative_buckets: 32,
            rotary_fraction: 1.0,
            token_types: 0,
            embedding_norm: false,
            embedding_dim: 0,
            norm: "rms",
            norm_bias: true,
            norm_placement: "pre",
            final_norm: None,
            qkv_bias: false,
            projection_bias: false,
            mlp_bias: false,
            activation: "silu",
            gated: true,
            query_key_norm: "none",
            attention_softcap: false,
            logit_softcap: false,
            embedding_scale: false,
            window: 0,
            window_every: 1,
            dropout: false,
            head: "lm",
            pooler: false,
            classes: 2,
            dense_layers: 0,
            moe_every: 1,
            encoder_layers: 0,
            experts: None,
            latent: None,
        }
    }
}

impl Transformer {
    /// The model file.
    pub(super) fn file(&self, name: &str, source: &str) -> String {
        let mut file = Document::default();
        let family = if self.is_gpt() {
            "gpt"
        } else if self.is_llama() {
            "llama"
        } else {
            "transformer"
        };
        file.entry("name", name).entry("family", family).entry("source", source).section("architecture");
        file.entry("layers", whole(self.layers))
            .entry("hidden", whole(self.hidden))
            .entry("heads", whole(self.heads));
        match family {
            "gpt" => self.gpt(&mut file),
            "llama" => self.llama(&mut file),
            _ => self.transformer(&mut file),
        }
        file.text()
    }

    /// Whether a decoder-only language model of plain multi-head attention, without anything unusual.
    fn is_plain(&self) -> bool {
        self.causal
            && self.head == "lm"
            && self.norm_placement == "pre"
            && self.final_norm != Some(false)
            && self.position_rows == 0
            && self.token_types == 0
            && self.embedding_dim == 0
            && self.window == 0
            && self.encoder_layers == 0
            && self.query_key_norm == "none"
            && self.experts.is_none()
            && self.latent.is_none()
            && !(self.embedding_norm
                || self.attention_softcap
                || self.logit_softcap
                || self.embedding_scale
                || self.pooler)
    }

    fn is_gpt(&self) -> bool {
        self.is_plain()
            && self.position == "learned"
            && self.norm == "layer"
            && self.norm_bias
            && self.qkv_bias
            && self.projection_bias
            && self.mlp_bias
            && self.activation.starts_with("gelu")
            && !self.gated
            && self.kv_heads == self.heads
            && self.own_head_dim().is_none()
    }

    #[allow(clippy::float_cmp, reason = "exactly all of the head")]
    fn is_llama(&self) -> bool {
        self.is_plain()
            && self.position == "rotary"
            && self.rotary_fraction == 1.0
            && self.norm == "rms"
            && !(self.qkv_bias || self.projection_bias || self.mlp_bias || self.dropout)
            && self.activation == "silu"
            && self.gated
    }

    /// The width of a head, where it does not follow from the hidden width.
    fn own_head_dim(&self) -> Option<u64> {
        self.head_dim.filter(|dim| dim.checked_mul(self.heads) != Some(self.hidden))
    }

    fn gpt(&self, file: &mut Document) {
        if self.feed_forward != 4 * self.hidden {
            file.entry("feed_forward", whole(self.feed_forward));
        }
        file.entry("vocabulary", whole(self.vocabulary)).entry("positions", whole(self.positions));
        // Both are true where a file of this family does not say otherwise.
        unless(file, "tied", self.tied, true);
        unless(file, "dropout", self.dropout, true);
    }

    /// What `llama` and `transformer` have in common.
    fn llama(&self, file: &mut Document) {
        if self.kv_heads != self.heads && self.latent.is_none() {
            file.entry("kv_heads", whole(self.kv_heads));
        }
        if self.latent.is_none() {
            file.optional("head_dim", self.own_head_dim().map(whole));
        }
        file.entry("feed_forward", whole(self.feed_forward))
            .entry("vocabulary", whole(self.vocabulary))
            .entry("positions", whole(self.positions));
        unless(file, "tied", self.tied, false);
    }

    fn transformer(&self, file: &mut Document) {
        self.llama(file);
        positive(file, "encoder_layers", self.encoder_layers);
        unless(file, "causal", self.causal, true);
        file.entry("position", self.position);
        positive(file, "position_rows", self.position_rows);
        if self.position == "relative" {
            file.entry("relative_buckets", whole(self.relative_buckets));
        }
        if self.position == "rotary" && self.rotary_fraction < 1.0 {
            file.entry("rotary_fraction", self.rotary_fraction);
        }
        positive(file, "token_types", self.token_types);
        unless(file, "embedding_norm", self.embedding_norm, false);
        unless(file, "embedding_scale", self.embedding_scale, false);
        if self.embedding_dim != self.hidden {
            positive(file, "embedding_dim", self.embedding_dim);
        }
        file.entry("norm", self.norm);
        if self.norm == "layer" {
            unless(file, "norm_bias", self.norm_bias, true);
        }
        file.entry("norm_placement", self.norm_placement);
        file.optional("final_norm", self.final_norm.filter(|&norm| norm != (self.norm_placement != "post")));
        for (key, value) in [
            ("qkv_bias", self.qkv_bias),
            ("projection_bias", self.projection_bias),
            ("mlp_bias", self.mlp_bias),
        ] {
            unless(file, key, value, false);
        }
        file.entry("activation", self.activation).entry("gated", self.gated);
        if self.query_key_norm != "none" {
            file.entry("query_key_norm", self.query_key_norm);
        }
        unless(file, "attention_softcap", self.attention_softcap, false);
        unless(file, "logit_softcap", self.logit_softcap, false);
        if self.window > 0 {
            file.entry("window", whole(self.window));
            if self.window_every > 1 {
                file.entry("window_every", whole(self.window_every));
            }
        }
        unless(file, "dropout", self.dropout, false);
        if self.head != "lm" {
            file.entry("head", self.head);
        }
        unless(file, "pooler", self.pooler, false);
        if self.head == "classifier" {
            file.entry("classes", whole(self.classes));
        }
        self.experts(file);
        self.latent(file);
    }

    fn experts(&self, file: &mut Document) {
        let Some(experts) = &self.experts else { return };
        positive(file, "dense_layers", self.dense_layers);
        if self.moe_every > 1 {
            file.entry("moe_every", whole(self.moe_every));
        }
        file.section("architecture.experts")
            .entry("count", whole(experts.count))
            .entry("top_k", whole(experts.top_k))
            .entry("feed_forward", whole(experts.feed_forward));
        positive(file, "shared", experts.shared);
        positive(file, "shared_feed_forward", experts.shared_feed_forward);
        unless(file, "shared_gate", experts.shared_gate, false);
        unless(file, "router_bias", experts.router_bias, false);
        if experts.capacity_factor > 0.0 {
            file.entry("capacity_factor", experts.capacity_factor);
        }
    }

    fn latent(&self, file: &mut Document) {
        let Some(latent) = &self.latent else { return };
        file.section("architecture.latent")
            .entry("query_rank", whole(latent.query_rank))
            .entry("kv_rank", whole(latent.kv_rank))
            .entry("rope_dim", whole(latent.rope_dim))
            .entry("nope_dim", whole(latent.nope_dim))
            .entry("value_dim", whole(latent.value_dim));
    }
}

/// Writes a switch where it is not at its default.
fn unless(file: &mut Document, key: &str, value: bool, default: bool) {
    if value != default {
        file.entry(key, Value::Boolean(value));
    }
}

/// Writes a count where it is not 0.
fn positive(file: &mut Document, key: &str, value: u64) {
    if value > 0 {
        file.entry(key, whole(value));
    }
}
