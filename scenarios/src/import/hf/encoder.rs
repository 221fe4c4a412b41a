//! Encoders: BERT, RoBERTa and XLM-R, DistilBERT, ViT.

use super::common::{Config, Sizes};
use crate::error::InputError;
use crate::import::architecture::{Transformer, limits};
use crate::import::fields::reason;
use crate::import::node::Value;
use crate::import::write::{Document, whole};

/// Norms after each half, learned positions, biases everywhere.
fn encoder() -> Transformer {
    Transformer {
        causal: false,
        position: "learned",
        embedding_norm: true,
        norm: "layer",
        norm_placement: "post",
        qkv_bias: true,
        projection_bias: true,
        mlp_bias: true,
        gated: false,
        ..Transformer::default()
    }
}

/// The head by the class that the file names; without one, the bare model.
fn set_head(config: &Config<'_, '_>, model: &mut Transformer, bare: &'static str) -> Result<(), InputError> {
    let class = config.class();
    if class.ends_with("ForMaskedLM") || class.ends_with("ForPreTraining") {
        model.head = "masked-lm";
        if class.ends_with("ForPreTraining") {
            model.pooler = true;
            config.fields.note(format!("{class}: the sentence head (two classes) is left out"));
        }
    } else if class.ends_with("ForSequenceClassification") {
        model.head = "classifier";
        model.pooler = true;
        model.classes = config.classes()?;
    } else {
        model.head = bare;
        if !(class.is_empty() || class.ends_with("Model")) {
            config.fields.note(format!("{class} is taken without its head"));
        }
    }
    config.fields.ignore_all(&["id2label", "num_labels"], "only classifiers have labels");
    Ok(())
}

fn refuse_decoder(config: &Config<'_, '_>) -> Result<(), InputError> {
    if config.flag("is_decoder", false)? {
        return Err(config.fields.conflict("is_decoder", "found true, allowed: false (an encoder)"));
    }
    Ok(())
}

/// What BERT and RoBERTa share; `types` are the token types of the class.
fn bert_like(config: &Config<'_, '_>, sizes: Sizes, types: u64) -> Result<Transformer, InputError> {
    let fields = &config.fields;
    refuse_decoder(config)?;
    let sized = config.sizes(sizes)?;
    config.check_heads(&sized, "num_attention_heads", "hidden_size")?;
    fields.choice("position_embedding_type", &[("absolute", ())])?;
    let mut dropout = config.drops(&["hidden_dropout_prob"], 0.1)?;
    dropout |= config.drops(&["attention_probs_dropout_prob"], 0.1)?;
    let mut model = Transformer {
        layers: sized.layers,
        hidden: sized.hidden,
        heads: sized.heads,
        kv_heads: sized.heads,
        feed_forward: sized.feed_forward,
        vocabulary: sized.vocabulary,
        positions: sized.positions,
        token_types: fields.count("type_vocab_size", 0, limits::VOCABULARY)?.unwrap_or(types),
        activation: config.activation("hidden_act", "gelu")?,
        dropout,
        ..encoder()
    };
    set_head(config, &mut model, "pooler")?;
    fields.ignore("tie_word_embeddings", "the head of a masked language model shares the embedding");
    fields.ignore_all(&["classifier_dropout", "normalize_embeddings"], reason::NO_EFFECT);
    fields.ignore_all(
        &[
            "pooler_fc_size",
            "pooler_num_attention_heads",
            "pooler_num_fc_layers",
            "pooler_size_per_head",
            "pooler_type",
            "directionality",
        ],
        "read by the TensorFlow original only",
    );
    Ok(model)
}

pub(super) fn bert(config: &Config<'_, '_>) -> Result<String, InputError> {
    let sizes = Sizes {
        vocabulary: 30_522,
        hidden: 768,
        feed_forward: 3072,
        layers: 12,
        heads: 12,
        kv_heads: 0,
        positions: 512,
    };
    Ok(config.write(&bert_like(config, sizes, 2)?))
}

/// RoBERTa and XLM-R: BERT whose positions begin behind the padding index.
pub(super) fn roberta(config: &Config<'_, '_>) -> Result<String, InputError> {
    let sizes = Sizes {
        vocabulary: 50_265,
        hidden: 768,
        feed_forward: 3072,
        layers: 12,
        heads: 12,
        kv_heads: 0,
        positions: 514,
    };
    let mut model = bert_like(config, sizes, 2)?;
    let padding = config.fields.count("pad_token_id", 0, limits::VOCABULARY)?.unwrap_or(1);
    let rows = model.positions;
    model.position_rows = rows;
    model.positions = rows.checked_sub(padding + 1).filter(|&left| left > 0).ok_or_else(|| {
        let message = format!("found {rows}, allowed: more than pad_token_id + 1 ({})", padding + 1);
        config.fields.conflict("max_position_embeddings", message)
    })?;
    Ok(config.write(&model))
}

pub(super) fn distilbert(config: &Config<'_, '_>) -> Result<String, InputError> {
    let fields = &config.fields;
    refuse_decoder(config)?;
    let heads = config.size("n_heads", 12, limits::HEADS)?;
    let mut dropout = config.drops(&["dropout"], 0.1)?;
    dropout |= config.drops(&["attention_dropout"], 0.1)?;
    let mut model = Transformer {
        layers: config.size("n_layers", 6, limits::LAYERS)?,
        hidden: config.size("dim", 768, limits::WIDTH)?,
        heads,
        kv_heads: heads,
        feed_forward: config.size("hidden_dim", 3072, limits::FEED_FORWARD)?,
        vocabulary: config.size("vocab_size", 30_522, limits::VOCABULARY)?,
        positions: config.size("max_position_embeddings", 512, limits::POSITIONS)?,
        activation: config.activation("activation", "gelu")?,
        dropout,
        ..encoder()
    };
    config.check_heads(&model, "n_heads", "dim")?;
    set_head(config, &mut model, "none")?;
    fields.ignore("sinusoidal_pos_embds", "the table of positions has the same size either way");
    fields.ignore("tie_weights_", "the head of a masked language model shares the embedding");
    fields.ignore("tie_word_embeddings", "the head of a masked language model shares the embedding");
    fields.ignore_all(&["qa_dropout", "seq_classif_dropout"], reason::NO_EFFECT);
    Ok(config.write(&model))
}

/// A vision transformer: a model file of the family `vit`, whose parameters are those of torchvision's code.
pub(super) fn vit(config: &Config<'_, '_>) -> Result<String, InputError> {
    let fields = &config.fields;
    let image = side(config, "image_size", 224)?;
    let patch = side(config, "patch_size", 16)?;
    if !image.is_multiple_of(patch) {
        let message = format!("found {image}, allowed: a multiple of patch_size ({patch})");
        return Err(fields.conflict("image_size", message));
    }
    let model = Transformer {
        layers: config.size("num_hidden_layers", 12, limits::LAYERS)?,
        hidden: config.size("hidden_size", 768, limits::WIDTH)?,
        heads: config.size("num_attention_heads", 12, limits::HEADS)?,
        feed_forward: config.size("intermediate_size", 3072, limits::FEED_FORWARD)?,
        dropout: config.drops(&["hidden_dropout_prob", "attention_probs_dropout_prob"], 0.0)?,
        ..Transformer::default()
    };
    config.check_heads(&model, "num_attention_heads", "hidden_size")?;
    fields.choice("hidden_act", &[("gelu", ()), ("gelu_new", ()), ("gelu_pytorch_tanh", ())])?;
    if !config.flag("qkv_bias", true)? {
        return Err(fields.conflict("qkv_bias", "found false, allowed: true"));
    }
    let class = config.class();
    if !(class.is_empty() || class.ends_with("ForImageClassification")) {
        fields.note(format!("{class} is taken as a classifier: the family vit has no other head"));
    }
    let mut file = Document::default();
    file.entry("name", config.name()).entry("family", "vit").entry("source", config.source());
    file.section("architecture")
        .entry("implementation", "torchvision")
        .entry("image_size", whole(image))
        .entry("patch_size", whole(patch))
        .entry("channels", whole(fields.count("num_channels", 1, limits::CHANNELS)?.unwrap_or(3)))
        .entry("layers", whole(model.layers))
        .entry("hidden", whole(model.hidden))
        .entry("heads", whole(model.heads))
        .entry("feed_forward", whole(model.feed_forward))
        .entry("classes", whole(config.classes()?));
    if model.dropout {
        file.entry("dropout", true);
    }
    fields.ignore_all(
        &["encoder_stride", "pooler_act", "pooler_output_size"],
        "only for heads that are not built",
    );
    Ok(file.text())
}

/// A size in pixels: one number, or twice the same.
fn side(config: &Config<'_, '_>, key: &str, default: u64) -> Result<u64, InputError> {
    let allowed = format!("a whole number from 1 to {}, or a list of two equal ones", limits::PIXELS);
    let Some(node) = config.fields.find(key) else { return config.size(key, default, limits::PIXELS) };
    let found = match &node.value {
        Value::List(items) => match &items[..] {
            [height, width] if height.value.whole() == width.value.whole() => height.value.whole(),
            _ => None,
        },
        other => other.whole(),
    };
    found
        .filter(|pixels| (1..=limits::PIXELS).contains(pixels))
        .ok_or_else(|| config.fields.wrong(key, node, &allowed))
}
