//! Relative positions as T5 has them (Raffel et al. 2020, section 2.1): one learned number for each head and bucket of
//! distances, added to the scores.

use super::embedding::rows_of_table;
use crate::operation::{Dtype, MemoryBoundKind, Operation};
use crate::parameter::Split;
use crate::tape::{Tape, Tensor, memory, names};
use crate::units::product;

/// Element-wise kernels that turn distances into buckets: difference, sign, absolute value, comparison, logarithm and
/// its scaling, casts, minimum, choice, sum.
const BUCKET_LAUNCHES: u32 = 14;

/// The biases of `heads` heads (this rank's part of `all_heads`) for all pairs of `length` tokens, as heads * length rows
/// of one value a key. Keeps the buckets, one 64-bit integer a pair.
pub(crate) fn relative_bias(
    tape: &mut Tape<'_>,
    module: &str,
    [buckets, all_heads]: [u64; 2],
    length: u64,
) -> Tensor {
    tape.weight(module, "weight", &[buckets, all_heads], Split::Whole);
    let heads = tape.shape.tensor.part(all_heads);
    let pairs = product(&[length, length]);
    let found = tape.tensor("attention.bias.buckets", pairs, 1, Dtype::Int64.bytes());
    let passes = product(&[u64::from(BUCKET_LAUNCHES), found.bytes()]);
    let buckets_of = memory("attention.bias.buckets", MemoryBoundKind::Elementwise, passes, passes);
    tape.run(&[Operation { launches: BUCKET_LAUNCHES, ..buckets_of }], &[]);
    let format = tape.parameter_bytes();
    let bias = tape.tensor("attention.bias.output", pairs, heads, format);
    rows_of_table(tape, names!("attention.bias"), &[found], bias, buckets);
    // The mask is added to it, once for all blocks of the stack.
    tape.run(
        &[memory("attention.bias.mask", MemoryBoundKind::Elementwise, bias.bytes(), bias.bytes())],
        &[bias],
    );
    bias.reshaped(product(&[heads, length]), length)
}
