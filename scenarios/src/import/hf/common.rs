//! What all types share: keys of the base class, and checks between widths and heads.

use crate::error::InputError;
use crate::import::architecture::{Transformer, limits};
use crate::import::fields::{Fields, reason};
use crate::import::node::Value;

/// Keys that change nothing.
const NO_EFFECT: [&str; 64] = [
    "_num_labels",
    "attention_type",
    "attn_output_multiplier",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "cls_token_id",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "init_std",
    "initializer_factor",
    "initializer_range",
    "label2id",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "length_penalty",
    "mask_token_id",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "norm_eps",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "pad_token_id",
    "pretraining_tp",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "rms_norm_eps",
    "rope_interleave",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "token_type_ids",
    "top_k",
    "top_p",
    "torchscript",
    "typical_p",
    "unk_token_id",
    "use_bfloat16",
    "use_cache",
    "use_mrope",
    "use_return_dict",
    "vocab_file",
];

/// Keys that only say where a file comes from.
const LABELS: [&str; 7] = [
    "_commit_hash",
    "_diffusers_version",
    "auto_map",
    "finetuning_task",
    "prefix",
    "tokenizer_class",
    "transformers_version",
];

/// Sequences beyond this are rarely trained at: worth a word.
const LONG: u64 = 16_384;

/// A model's name by the place of its file: the folder of a `config.json`, else the file's own name.
fn name_of(file: &str) -> Option<&str> {
    let path = std::path::Path::new(file);
    let stem = path.file_stem()?.to_str()?;
    let name = if stem == "config" { path.parent()?.file_name()?.to_str()? } else { stem };
    (!name.trim().is_empty() && !name.starts_with(['.', '<']) && !name.chars().any(char::is_control))
        .then_some(name)
}

/// Numbers by default.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) vocabulary: u64,
    pub(super) hidden: u64,
    pub(super) feed_forward: u64,
    pub(super) layers: u64,
    pub(super) heads: u64,
    /// 0: as many as heads.
    pub(super) kv_heads: u64,
    pub(super) positions: u64,
}

/// A configuration of a known type.
pub(super) struct Config<'a, 't> {
    pub(super) fields: Fields<'a, 't>,
    pub(super) kind: &'static str,
    name: String,
    architecture: Option<&'a str>,
}

impl<'a, 't> Config<'a, 't> {
    pub(super) fn new(fields: Fields<'a, 't>, kind: &'static str) -> Result<Self, InputError> {
        let path = fields.text("_name_or_path")?.or(fields.text("name_or_path")?).unwrap_or_default();
        let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let usable = !last.trim().is_empty() && last != "." && !last.chars().any(char::is_control);
        let name = if usable { last } else { name_of(fields.file()).unwrap_or(kind) };
        let architecture = match fields.find("architectures").map(|node| &node.value) {
            Some(Value::List(items)) => match items.first().map(|item| &item.value) {
                Some(Value::Text(text)) => Some(text.as_str()),
                _ => None,
            },
            Some(_) => return Err(fields.conflict("architectures", "must be a list of names of classes")),
            None => None,
        };
        Ok(Self { name: name.to_owned(), fields, kind, architecture })
    }

    /// The class that the file says it is for, without the library's name of the type.
    pub(super) fn class(&self) -> &'a str {
        self.architecture.unwrap_or_default()
    }

    /// A size; the library's own value if the file leaves it out, and 0 stands for no such value.
    pub(super) fn size(&self, key: &str, default: u64, most: u64) -> Result<u64, InputError> {
        match self.fields.count(key, 1, most)? {
            Some(value) => Ok(value),
            None if default == 0 => self.fields.need(key, most),
            None => {
                self.fields
                    .note(format!("{key} is absent: {default}, as in the library's configuration class"));
                Ok(default)
            }
        }
    }

    fn note_default(&self, key: &str, default: u64) {
        self.fields.note(format!("{key} is absent: {default}, as in the library's configuration class"));
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, InputError> {
        Ok(self.fields.flag(key)?.unwrap_or(default))
    }

    /// Whether any of these probabilities, of which the first stands at `default`, is above zero.
    pub(super) fn drops(&self, keys: &[&str], default: f64) -> Result<bool, InputError> {
        let mut any = false;
        for (index, key) in keys.iter().enumerate() {
            let default = if index == 0 { default } else { 0.0 };
            let value = self.fields.number(key)?.unwrap_or(default);
            if !(0.0..=1.0).contains(&value) {
                return Err(self
                    .fields
                    .conflict(key, format!("found {value:?}, allowed: a probability, 0 to 1")));
            }
            any |= value > 0.0;
        }
        Ok(any)
    }

    /// The activation under our name.
    pub(super) fn activation(&self, key: &str, default: &'static str) -> Result<&'static str, InputError> {
        let words = [
            ("silu", "silu"),
            ("swish", "silu"),
            ("gelu", "gelu"),
            ("gelu_new", "gelu-tanh"),
            ("gelu_pytorch_tanh", "gelu-tanh"),
            ("gelu_fast", "gelu-tanh"),
            ("relu", "relu"),
            ("relu2", "squared-relu"),
        ];
        Ok(self.fields.choice(key, &words)?.unwrap_or(default))
    }

    /// The sizes that nearly every decoder and encoder has, under the names of Llama's configuration.
    pub(super) fn sizes(&self, sizes: Sizes) -> Result<Transformer, InputError> {
        let mut model = Transformer {
            layers: self.size("num_hidden_layers", sizes.layers, limits::LAYERS)?,
            hidden: self.size("hidden_size", sizes.hidden, limits::WIDTH)?,
            heads: self.size("num_attention_heads", sizes.heads, limits::HEADS)?,
            feed_forward: self.size("intermediate_size", sizes.feed_forward, limits::FEED_FORWARD)?,
            vocabulary: self.size("vocab_size", sizes.vocabulary, limits::VOCABULARY)?,
            positions: self.size("max_position_embeddings", sizes.positions, limits::POSITIONS)?,
            ..Transformer::default()
        };
        model.kv_heads = model.heads;
        Ok(model)
    }

    /// Key-value heads and the width of a head, checked against each other.
    pub(super) fn groups(&self, model: &mut Transformer, sizes: Sizes) -> Result<(), InputError> {
        // An absent key has the class's own value; null stands for one key-value head a head.
        let fallback = if self.fields.has("num_key_value_heads") || sizes.kv_heads == 0 {
            model.heads
        } else {
            self.note_default("num_key_value_heads", sizes.kv_heads);
            sizes.kv_heads
        };
        model.kv_heads = self.fields.count("num_key_value_heads", 1, limits::HEADS)?.unwrap_or(fallback);
        model.head_dim = self.fields.count("head_dim", 1, limits::WIDTH)?.or(model.head_dim);
        self.check_heads(model, "num_attention_heads", "hidden_size")?;
        if model.heads.is_multiple_of(model.kv_heads) {
            return Ok(());
        }
        Err(self.fields.conflict(
            "num_key_value_heads",
            format!("found {}, allowed: a divisor of num_attention_heads ({})", model.kv_heads, model.heads),
        ))
    }

    /// Heads divide the hidden width unless they have a width of their own.
    pub(super) fn check_heads(
        &self,
        model: &Transformer,
        heads: &str,
        hidden: &str,
    ) -> Result<(), InputError> {
        if model.head_dim.is_some() || model.hidden.is_multiple_of(model.heads) {
            return Ok(());
        }
        let message = format!("found {}, allowed: a divisor of {hidden} ({})", model.heads, model.hidden);
        Err(self.fields.conflict(heads, message))
    }

    /// Classes of a classifier.
    pub(super) fn classes(&self) -> Result<u64, InputError> {
        let labels = match self.fields.find("id2label") {
            None => None,
            Some(node) => match &node.value {
                Value::Table(labels) => Some(labels.len() as u64),
                _ => return Err(self.fields.wrong("id2label", node, "a table from numbers to labels")),
            },
        };
        let given = self.fields.count("num_labels", 1, limits::VOCABULARY)?;
        Ok(labels.or(given).unwrap_or(2))
    }

    /// The head of a decoder: that of a language model unless the class says otherwise.
    pub(super) fn decoder_head(&self, model: &mut Transformer) -> Result<(), InputError> {
        let class = self.class();
        if class.ends_with("ForSequenceClassification") {
            model.head = "classifier";
            model.classes = self.classes()?;
            return Ok(());
        }
        self.fields.ignore_all(&["id2label", "num_labels"], "only classifiers have labels");
        if class.ends_with("Model") && !class.ends_with("LMHeadModel") {
            model.head = "none";
            self.fields.note(format!("{class} has no head: neither projection to the vocabulary nor loss"));
        } else if !(class.is_empty()
            || class.ends_with("ForCausalLM")
            || class.ends_with("LMHeadModel")
            || class.ends_with("ForConditionalGeneration"))
        {
            self.fields
                .note(format!("{class} is taken as a language model: projection to the vocabulary and loss"));
        }
        Ok(())
    }

    /// The model file.
    pub(super) fn write(&self, model: &Transformer) -> String {
        if model.positions > LONG {
            self.fields.note(format!(
                "the longest sequence is {}, which is also the length of a run where [model] sequence_length does not \
                 say otherwise",
                model.positions
            ));
        }
        model.file(&self.name, &self.source())
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn source(&self) -> String {
        format!("config.json of {}, model_type {}", self.name, self.kind)
    }

    /// Ignores the keys of the base class and refuses what is left.
    pub(super) fn finish(self) -> Result<(), InputError> {
        let fields = self.fields;
        if fields.flag("add_cross_attention")?.unwrap_or(false) {
            return Err(fields.conflict("add_cross_attention", "found true, allowed: false"));
        }
        let chunk = fields.count("chunk_size_feed_forward", 0, 1 << 24)?.unwrap_or(0);
        if chunk != 0 {
            return Err(fields.conflict("chunk_size_feed_forward", format!("found {chunk}, allowed: 0")));
        }
        fields.ignore_all(&NO_EFFECT, reason::NO_EFFECT);
        fields.ignore_all(&LABELS, reason::LABEL);
        fields.ignore_all(&["torch_dtype", "dtype"], "the precision is the scenario's: [workload] precision");
        fields.ignore_all(
            &[
                "gradient_checkpointing",
                "_attn_implementation",
                "_attn_implementation_autoset",
                "_flash_attn_2_enabled",
                "attn_implementation",
            ],
            "the scenario says it: [workload] activation_checkpointing and attention",
        );
        fields.ignore_all(&["quantization_config", "pruned_heads"], reason::NOT_MODELLED);
        fields.ignore_all(
            &["is_decoder", "is_encoder_decoder", "cross_attention_hidden_size"],
            "follows from the type",
        );
        fields.finish()
    }
}
