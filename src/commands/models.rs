//! `steptime models`: the catalogue of models as a list, one model layer by layer, one layer operation by operation.

use std::path::Path;

use serde_json::json;
use steptime_models::{
    AttentionKind, Dtype, FieldValue, Fusion, Layer, LayerWork, Model, Operation, Overrides, Sample,
    SavedTensor, TensorParallel, WorkShape, catalogue_names,
};

use crate::cli::{Attention, FusedKernels, ModelsArguments, Precision};
use crate::failure::{Answer, Failure};
use crate::output;
use crate::present::{bytes, right_align, significant, table, thousands, trimmed, whole_names};

/// `steptime models [NAME]`.
pub(crate) fn models(arguments: &ModelsArguments) -> Result<Answer, Failure> {
    let text = match &arguments.name {
        None => {
            let load = |name| {
                Model::from_catalogue(name, &Overrides::none()).map_err(|error| Failure::model(&error))
            };
            let all = catalogue_names().into_iter().map(load).collect::<Result<Vec<_>, _>>()?;
            if arguments.json {
                output::json(&all.iter().map(summary_json).collect::<Vec<_>>())?
            } else {
                model_list(&all)
            }
        }
        Some(name) => {
            let model = load(name, &overrides(&arguments.set)?)?;
            let view = View { shape: shape(arguments, &model)?, model };
            match &arguments.layer {
                Some(layer) => view.layer(layer, arguments.json)?,
                None if arguments.json => output::json(&view.json())?,
                None => view.text(),
            }
        }
    };
    output::print(&trimmed(&text))?;
    Ok(Answer::Yes)
}

/// An entry of the catalogue, or a file where one of that name exists and ends like one.
fn load(name: &str, overrides: &Overrides) -> Result<Model, Failure> {
    let path = Path::new(name);
    if path.extension().is_none_or(|extension| !extension.eq_ignore_ascii_case("toml")) {
        return Model::from_catalogue(name, overrides).map_err(|error| Failure::model(&error));
    }
    let text = std::fs::File::open(path)
        .and_then(output::text_of)
        .map_err(|error| Failure::Message(format!("cannot read {name}: {error}")))?;
    Model::from_toml(&text, overrides).map_err(|error| Failure::Message(format!("{name}: {error}")))
}

/// `field=value` options; a value is a number, true, false or a word.
fn overrides(options: &[String]) -> Result<Overrides, Failure> {
    let mut overrides = Overrides::none();
    for option in options {
        let (field, value) =
            option.split_once('=').filter(|(field, _)| !field.is_empty()).ok_or_else(|| {
                Failure::Message(format!("--set {option}: must be FIELD=VALUE, such as layers=12"))
            })?;
        overrides.set(field, FieldValue::from_word(value));
    }
    Ok(overrides)
}

fn shape(arguments: &ModelsArguments, model: &Model) -> Result<WorkShape, Failure> {
    let sequence_length = match (arguments.sequence_length, model.sample) {
        (Some(length), Sample::Tokens { .. }) => u64::from(length),
        (None, Sample::Tokens { default_length }) => default_length,
        (None, Sample::Image { .. } | Sample::Opaque) => 1,
        (Some(_), Sample::Image { .. } | Sample::Opaque) => {
            return Err(Failure::Message(format!(
                "--sequence-length: {} takes no sequences; leave it out",
                model.name
            )));
        }
    };
    let format = match arguments.precision {
        Precision::Fp32 => Dtype::Fp32,
        Precision::Fp16 => Dtype::Fp16,
        Precision::Bf16 => Dtype::Bf16,
    };
    if let Some(longest) = model.longest_sequence().filter(|&longest| sequence_length > longest) {
        return Err(Failure::Message(format!(
            "--sequence-length: found {sequence_length}, but {} has learned positions for {longest} tokens, \
             allowed: at most {longest}, or --set positions={sequence_length}",
            model.name
        )));
    }
    Ok(WorkShape {
        micro_batch: u64::from(arguments.micro_batch_size),
        sequence_length,
        compute: format,
        activation: format,
        attention: match arguments.attention {
            Attention::Flash => AttentionKind::Flash,
            Attention::Eager => AttentionKind::Eager,
        },
        training: true,
        tensor: tensor_parallel(arguments, model)?,
        fusion: match arguments.fused_kernels {
            FusedKernels::None => Fusion::None,
            FusedKernels::Compiled => Fusion::Compiled,
            FusedKernels::TransformerEngine => Fusion::TransformerEngine,
        },
        ..WorkShape::default()
    })
}

/// The ranks that share each layer, where the model's layers can be shared so.
fn tensor_parallel(arguments: &ModelsArguments, model: &Model) -> Result<TensorParallel, Failure> {
    let tensor = TensorParallel { size: u64::from(arguments.tensor), sequence: arguments.sequence_parallel };
    if tensor.size == 1 && tensor.sequence {
        return Err(Failure::Message("--sequence-parallel: needs --tensor above 1".to_owned()));
    }
    match model.tensor_parallel_fault(tensor.size) {
        Some(fault) => Err(Failure::Message(format!("--tensor: {fault}"))),
        None => Ok(tensor),
    }
}

fn model_list(models: &[Model]) -> String {
    let mut list = table(&["model", "family", "parameters", "active"]);
    for model in models {
        let (all, active) = (model.parameters(), model.active_parameters());
        let share = if active == all { String::new() } else { short(active) };
        list.add_row([model.name.clone(), model.family.to_string(), count(all), share]);
    }
    right_align(&mut list, 2);
    // The longest name and the largest count fill a line; the space after the last column is cut off anyway.
    if let Some(last) = list.column_mut(3) {
        last.set_padding((1, 0));
    }
    format!("{list}\n")
}

/// A count in millions or billions.
fn short(value: u64) -> String {
    let value = value as f64;
    if value < 1e9 {
        format!("{} M", significant(value / 1e6))
    } else {
        format!("{} B", significant(value / 1e9))
    }
}

fn count(value: u64) -> String {
    if value == 0 { "-".to_owned() } else { thousands(value) }
}

fn summary_json(model: &Model) -> serde_json::Value {
    json!({
        "name": model.name,
        "family": model.family.to_string(),
        "source": model.source,
        "parameters": { "total": model.parameters(), "active": model.active_parameters() },
        "layers": model.layers.len(),
    })
}

/// A model and the micro-batch that its work is shown for.
struct View {
    model: Model,
    shape: WorkShape,
}

impl View {
    /// Layers that follow each other and do the same: index of the first, how many.
    fn runs(&self) -> Vec<(usize, usize)> {
        let layers = &self.model.layers;
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            match runs.last_mut() {
                Some((first, length)) if layers[*first].signature == layer.signature => *length += 1,
                _ => runs.push((index, 1)),
            }
        }
        runs
    }

    fn text(&self) -> String {
        let model = &self.model;
        let mut text = format!("{} ({})\nsource: {}\n", model.name, model.family, model.source);
        if model.components().is_some() {
            return text + &self.partitions();
        }
        let (parameters, active) = (thousands(model.parameters()), thousands(model.active_parameters()));
        text += &format!("parameters: {parameters} ({active} active)\n");
        text += &self.sample();
        let mut list = table(&["layers", "count", "parameters each", "GFLOP", "saved each"]);
        let mut saved = 0_u64;
        for (first, length) in self.runs() {
            let layer = &model.layers[first];
            let work = model.work(first, &self.shape);
            saved = saved.saturating_add(work.saved_bytes().0.saturating_mul(length as u64));
            list.add_row([
                names(&model.layers[first..first + length]),
                length.to_string(),
                thousands(layer.parameter_count()),
                significant(work.forward_flops().0 as f64 / 1e9),
                bytes(work.saved_bytes().0),
            ]);
        }
        right_align(&mut list, 1);
        text + &format!("kept for backward: {}\n\n{list}\n", bytes(saved))
    }

    /// What one sample is, and what the micro-batch asks for.
    fn sample(&self) -> String {
        let (model, shape) = (&self.model, &self.shape);
        let flops = model.forward_flops(shape).0 as f64;
        let samples = shape.micro_batch as f64;
        let what = match model.sample {
            Sample::Tokens { .. } => format!("a sequence of {} tokens", thousands(shape.sequence_length)),
            Sample::Image { size, tokens, .. } if tokens > 1 => {
                format!("an image of {size} x {size} pixels, {tokens} tokens")
            }
            Sample::Image { size, .. } => format!("an image of {size} x {size} pixels"),
            Sample::Opaque => "unknown inside".to_owned(),
        };
        let mut text =
            format!("sample: {what}\nforward: {} GFLOP a sample", significant(flops / samples / 1e9));
        if matches!(model.sample, Sample::Tokens { .. }) {
            let tokens = samples * shape.sequence_length as f64;
            text += &format!(", {} GFLOP a token", significant(flops / tokens / 1e9));
        }
        text += &format!("\nmicro-batch: {} {}", shape.micro_batch, plural(shape.micro_batch, "sample"));
        if shape.tensor.size > 1 {
            let sequence = if shape.tensor.sequence { ", sequence parallel" } else { "" };
            text += &format!(", one of {} ranks that share each layer{sequence}", shape.tensor.size);
        }
        text + "\n"
    }

    fn partitions(&self) -> String {
        let Some(graph) = self.model.components() else { return String::new() };
        let mut parts = table(&["partition", "GFLOP/sample", "capacity", "sends/sample"]);
        for (index, partition) in graph.partitions.iter().enumerate() {
            parts.add_row([
                partition.name.clone(),
                significant(graph.partition_flops(index) / 1e9),
                format!("{:.2} GB", graph.partition_capacity(index) / 1e9),
                format!("{:.2} GB", partition.communication_volume / 1e9),
            ]);
        }
        right_align(&mut parts, 1);
        format!("\n{parts}\n")
    }

    fn json(&self) -> serde_json::Value {
        let model = &self.model;
        let layers: Vec<_> = model
            .layers
            .iter()
            .enumerate()
            .map(|(index, layer)| layer_json(layer, &model.work(index, &self.shape)))
            .collect();
        json!({
            "name": model.name,
            "family": model.family.to_string(),
            "source": model.source,
            "parameters": { "total": model.parameters(), "active": model.active_parameters() },
            "micro_batch_size": self.shape.micro_batch,
            "tokens_per_sample": model.tokens_per_sample(&self.shape),
            "forward_flops": model.forward_flops(&self.shape).0,
            "layers": layers,
        })
    }

    /// One layer: its parameters, operations and saved tensors.
    fn layer(&self, name: &str, as_json: bool) -> Result<String, Failure> {
        let layers = &self.model.layers;
        let Some(index) = layers.iter().position(|layer| layer.name == name) else {
            let known: Vec<_> = layers.iter().map(|layer| layer.name.as_str()).collect();
            let shown = if known.len() > 12 {
                format!("{} ... {}", known[..8].join(", "), known[known.len() - 2..].join(", "))
            } else {
                known.join(", ")
            };
            return Err(Failure::Message(format!(
                "{} has no layer `{name}`; its layers are {shown}",
                self.model.name
            )));
        };
        let (layer, work) = (&layers[index], self.model.work(index, &self.shape));
        if as_json {
            let mut document = layer_json(layer, &work);
            document["operations"] = json!({
                "forward": work.forward.iter().map(operation_json).collect::<Vec<_>>(),
                "backward": work.backward.iter().map(operation_json).collect::<Vec<_>>(),
            });
            document["saved"] = work.saved.iter().map(saved_json).collect();
            return output::json(&document);
        }
        let heading = format!("{} of {}\n", layer.name, self.model.name);
        let lists = [parameter_list(layer), operation_list("forward", &work.forward)];
        let more = [operation_list("backward", &work.backward), saved_list(&work)];
        Ok(heading + &lists.concat() + &more.concat())
    }
}

fn plural(count: u64, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

fn names(layers: &[Layer]) -> String {
    match layers {
        [] => String::new(),
        [only] => only.name.clone(),
        [first, .., last] => format!("{} to {}", first.name, last.name),
    }
}

fn layer_json(layer: &Layer, work: &LayerWork) -> serde_json::Value {
    json!({
        "name": layer.name,
        "parameters": layer.parameter_count(),
        "active_parameters": layer.active_parameters,
        "forward_flops": work.forward_flops().0,
        "backward_flops": work.backward_flops().0,
        "saved_bytes": work.saved_bytes().0,
        "input_bytes": work.input.0,
        "output_bytes": work.output.0,
    })
}

fn operation_json(operation: &Operation) -> serde_json::Value {
    json!({
        "name": operation.name,
        "kernel": format!("{:?}", operation.kernel),
        "flops": operation.kernel.flops().0,
        "launches": operation.launches,
        "host_sync": operation.host_sync,
    })
}

fn saved_json(tensor: &SavedTensor) -> serde_json::Value {
    json!({ "name": tensor.name, "bytes": tensor.bytes.0, "born": tensor.born, "freed": tensor.freed })
}

fn parameter_list(layer: &Layer) -> String {
    let mut list = table(&["parameter", "shape", "values"]);
    for parameter in layer.parameters.iter() {
        let dimensions: Vec<_> = parameter.dimensions.iter().map(u64::to_string).collect();
        let tied = if parameter.tied { " (the embedding's)" } else { "" };
        list.add_row([
            format!("{}{tied}", parameter.name),
            dimensions.join(" x "),
            thousands(parameter.count),
        ]);
    }
    right_align(&mut list, 1);
    format!("\n{list}\n")
}

fn operation_list(pass: &str, operations: &[Operation]) -> String {
    let mut list = table(&[pass, "work", "GFLOP", "launches"]);
    for operation in operations {
        let flops = operation.kernel.flops().0;
        let gigaflops = if flops == 0 { "-".to_owned() } else { significant(flops as f64 / 1e9) };
        let waits = if operation.host_sync { ", host waits" } else { "" };
        list.add_row([
            operation.name.to_owned(),
            operation.kernel.to_string(),
            gigaflops,
            format!("{}{waits}", operation.launches),
        ]);
    }
    whole_names(&mut list);
    right_align(&mut list, 2);
    format!("\n{list}\n")
}

fn saved_list(work: &LayerWork) -> String {
    let mut list = table(&["kept for backward", "size"]);
    for tensor in &work.saved {
        list.add_row([tensor.name.to_owned(), bytes(tensor.bytes.0)]);
    }
    list.add_row(["together".to_owned(), bytes(work.saved_bytes().0)]);
    right_align(&mut list, 1);
    format!("\n{list}\n")
}
