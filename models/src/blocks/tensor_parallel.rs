//! Where a region that a tensor-parallel group divides begins and ends: `f` and `g` of Shoeybi et al. 2019, section 3,
//! and their forms under sequence parallelism (Korthikanti et al. 2022, section 4.2.2).

use crate::operation::ExchangeKind;
use crate::tape::{Gradient, Step, Tape, Tensor, exchange, names};

/// Before linear layers divided by columns. Forward nothing, backward an all-reduce of the gradient; under sequence
/// parallelism an all-gather of the tokens, and a reduce-scatter. What is kept of the gathered tokens is this rank's
/// part.
pub(crate) fn enter_tensor_parallel(tape: &mut Tape<'_>, x: Tensor) -> Tensor {
    let parallel = tape.shape.tensor;
    if parallel.ways() == 1 {
        return x;
    }
    let names = names!("tensor_parallel.enter");
    if !parallel.sequence {
        let y = tape.view(x, x.rows, x.width);
        let sum = exchange(names.grad, ExchangeKind::AllReduce, x.bytes());
        tape.record(&Step {
            names,
            forward: &[],
            reads: &[],
            saves: &[],
            inputs: &[x],
            outputs: &[y],
            backward: &[sum],
            scratch: 0,
            gradient: Gradient::Passed,
            trains: false,
        });
        return y;
    }
    let y = tape.gathered(names.output, x, parallel.ways());
    tape.record(&Step {
        names,
        forward: &[exchange(names.op, ExchangeKind::AllGather, y.bytes())],
        reads: &[x],
        saves: &[],
        inputs: &[x],
        outputs: &[y],
        backward: &[exchange(names.grad, ExchangeKind::ReduceScatter, y.bytes())],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    y
}

/// After a linear layer divided by rows. Forward an all-reduce in place, backward nothing; under sequence parallelism a
/// reduce-scatter along the tokens, and an all-gather.
pub(crate) fn leave_tensor_parallel(tape: &mut Tape<'_>, x: Tensor) -> Tensor {
    let parallel = tape.shape.tensor;
    if parallel.ways() == 1 {
        return x;
    }
    let names = names!("tensor_parallel.leave");
    let (y, forward, backward) = if parallel.sequence {
        let y = tape.tensor(names.output, parallel.rows(x.rows), x.width, x.value_bytes);
        let scatter = exchange(names.op, ExchangeKind::ReduceScatter, x.bytes());
        (y, scatter, Some(exchange(names.grad, ExchangeKind::AllGather, x.bytes())))
    } else {
        (tape.view(x, x.rows, x.width), exchange(names.op, ExchangeKind::AllReduce, x.bytes()), None)
    };
    tape.record(&Step {
        names,
        forward: &[forward],
        reads: &[x],
        saves: &[],
        inputs: &[x],
        outputs: &[y],
        backward: backward.as_slice(),
        scratch: 0,
        gradient: if parallel.sequence { Gradient::New } else { Gradient::Passed },
        trains: false,
    });
    y
}
