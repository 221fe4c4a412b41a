//! Gradient buckets: which gradients are reduced together, and when a bucket is ready.

use std::ops::Range;

use steptime_models::{Division, Model, Parameter};

/// Gradients that are reduced by one collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Values.
    pub elements: u64,
    /// Parameter tensors.
    pub tensors: u64,
    /// Layer after whose backward the bucket is complete.
    pub ready_after: usize,
}

/// Parameters whose copies lie on the same ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// All of them, where experts are divided like other layers; else those outside the experts.
    Common,
    /// Those of experts that are spread over ranks of their own.
    Experts,
}

impl Share {
    /// Whether a parameter is among them.
    pub fn contains(self, parameter: &Parameter, division: &Division) -> bool {
        let spread = division.expert.is_some() && parameter.expert.is_some();
        spread == (self == Self::Experts)
    }
}

/// What of the parameters the rank has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Whether it holds the embedding, whose other names then count for nothing.
    pub embedding: bool,
    /// How the ranks of a stage divide the parameters.
    pub division: Division,
    /// Which of them are meant.
    pub share: Share,
}

/// Fills buckets with the trained parameters of `layers`, last registered first, as backward produces them. A bucket
/// closes as soon as it holds `cap` bytes or more; a parameter is never split (PyTorch DDP,
/// `compute_bucket_assignment_by_size`).
///
/// `first_cap` closes the first bucket: DDP takes 1 MiB there so that communication begins early.
pub fn buckets(
    model: &Model,
    layers: Range<usize>,
    holding: Holding,
    element_bytes: u64,
    [first_cap, cap]: [u64; 2],
) -> Vec<Bucket> {
    let mut done = Vec::new();
    let mut open: Option<Bucket> = None;
    for layer in layers.rev() {
        for parameter in model.layers[layer].parameters.iter().rev() {
            let held = parameter.held_in(&holding.division);
            let meant = holding.share.contains(parameter, &holding.division) && held > 0;
            if !meant || !parameter.trainable || parameter.tied && holding.embedding {
                continue;
            }
            let bucket = open.get_or_insert(Bucket { elements: 0, tensors: 0, ready_after: layer });
            bucket.elements += held;
            bucket.tensors += 1;
            bucket.ready_after = layer;
            let limit = if done.is_empty() { first_cap.min(cap) } else { cap };
            if bucket.elements * element_bytes >= limit {
                done.extend(open.take());
            }
        }
    }
    done.extend(open);
    done
}
