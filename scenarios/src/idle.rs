//! Keys that could not act in a GPU job are refused, so that nobody believes that they did.

use steptime_models::Model;
use steptime_plans::{Plan, Task, ZeroStage};

use crate::error::InputError;
use crate::section::Section;
use crate::tree::Value;

/// The sections of a GPU job that have such keys, and what they are about.
pub(crate) struct Idle<'a, 'f> {
    pub(crate) model: &'a Model,
    pub(crate) task: Task,
    pub(crate) plan: &'a Plan,
    pub(crate) workload: &'a Section<'f>,
    pub(crate) parallelism: &'a Section<'f>,
}

impl Idle<'_, '_> {
    /// Refuses the first key that could not act.
    ///
    /// With a single data-parallel rank, `zero_stage`, `bucket_bytes` and `gradient_as_bucket_view` are left
    /// alone: the same file is often run on one GPU and on many.
    pub(crate) fn refuse(&self) -> Result<(), InputError> {
        if self.model.components().is_some() {
            self.refuse_for_components()?;
        }
        if self.task == Task::Inference {
            self.refuse_for_inference()?;
        }
        if self.parallelism.node("fsdp_version")?.is_some() && is_set(self.workload, "framework")? {
            let why = "is about the hooks of PyTorch's FSDP, and other frameworks shard with code of their own, allowed: \
                       framework = \"pytorch\"";
            return Err(self.parallelism.conflict("fsdp_version", why));
        }
        if self.plan.replicas() > 1 { self.refuse_for_zero() } else { Ok(()) }
    }

    fn refuse_for_components(&self) -> Result<(), InputError> {
        let Plan { data, pipeline, .. } = *self.plan;
        let name = &self.model.name;
        let known = format!("{name} is a component model, known by its FLOPs, memory and transfers only");
        if data > 1 {
            let gpus = data.saturating_mul(pipeline);
            let partitions = self.model.layers.len() as u64;
            let allowed = if gpus <= partitions {
                format!("pipeline = {gpus}, one stage a GPU")
            } else {
                format!(
                    "at most {partitions} GPUs, one for each partition, and pipeline equal to their number"
                )
            };
            let key = if self.parallelism.node("data")?.is_some() { "data" } else { "pipeline" };
            return Err(self.parallelism.conflict(
                key,
                format!(
                    "pipeline {pipeline} on {gpus} GPUs leaves data {data}, but {known}: it has no gradients that \
                     data-parallel ranks could reduce, allowed: {allowed}"
                ),
            ));
        }
        let nothing = [
            (self.workload, "optimizer", "it has no parameters to update"),
            (self.workload, "optimizer_implementation", "it has no parameters to update"),
            (self.workload, "weight_decay", "it has no parameters to update"),
            (self.workload, "activation_checkpointing", "it has no activations to recompute"),
            (self.workload, "gradient_dtype", "it has no gradients"),
            (self.workload, "gradient_accumulation_fusion", "it has no gradients"),
            (self.workload, "gradient_clipping", "it has no gradients"),
            (self.workload, "loss_scaling", "it has no gradients"),
            (self.workload, "framework", "it is one kernel a pass"),
            (self.workload, "deterministic", "it is one kernel a pass"),
            (self.workload, "check_for_nan", "its loss is not known"),
            (self.workload, "log_num_zeros_in_grad", "it has no gradients"),
            (self.workload, "log_params_norm", "it has no parameters"),
            (self.workload, "attention", "whether it has attention is not known"),
            (self.workload, "memory_format", "whether it has convolutions is not known"),
            (self.workload, "cudnn_allow_tf32", "whether it has convolutions is not known"),
            (self.workload, "autocast", "its tensors are not known"),
            (self.workload, "parameter_dtype", "its tensors are not known"),
            (self.workload, "loss_metrics", "its loss is not known"),
            (self.workload, "cross_entropy", "its loss is not known"),
            (self.parallelism, "zero_stage", "it has no parameters to partition"),
            (self.parallelism, "bucket_bytes", "it has no gradients to reduce"),
            (self.parallelism, "gradient_as_bucket_view", "it has no gradients to reduce"),
            (self.parallelism, "gradient_overlap", "it has no gradients to reduce"),
        ];
        for (section, key, why) in nothing {
            if is_set(section, key)? {
                return Err(section.conflict(key, format!("{known}: {why}; leave this key out")));
            }
        }
        Ok(())
    }

    fn refuse_for_inference(&self) -> Result<(), InputError> {
        let update = "inference updates no parameters; leave this key out";
        let gradients = "inference has no gradients to reduce; leave this key out";
        let none = "inference has no gradients; leave this key out";
        let mut nothing = vec![
            (self.workload, "gradient_dtype", none),
            (self.workload, "gradient_accumulation_fusion", none),
            (self.workload, "gradient_clipping", none),
            (self.workload, "loss_scaling", none),
            (self.workload, "cross_entropy", "inference computes no loss; leave this key out"),
            (self.workload, "optimizer", update),
            (self.workload, "optimizer_implementation", update),
            (self.workload, "weight_decay", update),
            (self.workload, "log_num_zeros_in_grad", none),
            (self.workload, "check_for_nan", "inference computes no loss; leave this key out"),
            (self.workload, "log_params_norm", update),
            (
                self.workload,
                "activation_checkpointing",
                "inference keeps no activations for a backward pass, allowed: \"none\"",
            ),
        ];
        if self.plan.replicas() > 1 {
            nothing.push((self.parallelism, "bucket_bytes", gradients));
            nothing.push((self.parallelism, "gradient_as_bucket_view", gradients));
            nothing.push((self.parallelism, "gradient_overlap", gradients));
            nothing.push((self.parallelism, "reduce_dtype", gradients));
            nothing.push((self.parallelism, "sum_replicas", gradients));
            let why = "is what backward gathers from, which inference does not have; leave this key out";
            nothing.push((self.parallelism, "secondary_group", why));
            if matches!(self.plan.zero, ZeroStage::One | ZeroStage::Two) {
                let why = "stages 1 and 2 partition optimizer states and gradients, which inference does not have, \
                           allowed: 0, 3";
                nothing.push((self.parallelism, "zero_stage", why));
            }
        }
        for (section, key, why) in nothing {
            if is_set(section, key)? {
                return Err(section.conflict(key, why));
            }
        }
        Ok(())
    }

    fn refuse_for_zero(&self) -> Result<(), InputError> {
        if self.plan.zero > ZeroStage::Zero && is_set(self.parallelism, "gradient_as_bucket_view")? {
            let why = "is about the buckets of plain data parallelism, zero_stage 0; leave this key out";
            return Err(self.parallelism.conflict("gradient_as_bucket_view", why));
        }
        Ok(())
    }
}

/// Whether a key is given and asks for something: not for what happens without it.
fn is_set(section: &Section<'_>, key: &'static str) -> Result<bool, InputError> {
    Ok(section.node(key)?.is_some_and(|node| match (key, &node.value) {
        ("activation_checkpointing" | "gradient_clipping", Value::Text(text)) => text != "none",
        (
            "gradient_as_bucket_view"
            | "gradient_accumulation_fusion"
            | "autocast"
            | "weight_decay"
            | "loss_scaling"
            | "check_for_nan"
            | "log_num_zeros_in_grad"
            | "log_params_norm"
            | "deterministic",
            Value::Boolean(on),
        ) => *on,
        ("gradient_overlap", Value::Boolean(on)) => !*on,
        ("framework", Value::Text(text)) => text != "pytorch",
        ("cross_entropy", Value::Text(text)) => text != "torch",
        ("memory_format", Value::Text(text)) => text != "contiguous",
        ("loss_metrics", Value::Integer(number)) => *number != 0,
        ("zero_stage", Value::Integer(stage)) => *stage != 0,
        _ => true,
    }))
}
