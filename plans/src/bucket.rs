//! Gradient buckets: which gradients are reduced together, and when a bucket is ready.

use std::ops::Range;

use steptime_models::Model;

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

/// What of the parameters the rank has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Whether it holds the embedding, whose other names then count for nothing.
    pub embedding: bool,
    /// Ranks that share the layers.
    pub tensor: u64,
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
            if !parameter.trainable || parameter.tied && holding.embedding {
                continue;
            }
            let bucket = open.get_or_insert(Bucket { elements: 0, tensors: 0, ready_after: layer });
            bucket.elements += parameter.held_by_rank(holding.tensor);
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
