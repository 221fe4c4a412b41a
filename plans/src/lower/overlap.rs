//! Which collectives of tensor parallelism run beside backward's products.
//!
//! Before a layer that the group divides by columns, backward sums the gradient of its input over the group; nothing
//! waits for that sum but the layer before. Megatron-LM (`LinearWithGradAccumulationAndAsyncCommunication`) and what
//! follows it start it as soon as the gradient of the input is there and compute the gradients of the weights
//! meanwhile. Under sequence parallelism those need the gathered input again, and that all-gather runs beside the
//! product for the input's gradient.

use steptime_models::{Kernel, Operation};

/// One thing that a pass does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Runs an operation; what comes after waits for it.
    Run(usize),
    /// Starts a collective beside what follows.
    Start(usize),
    /// Waits for a collective that was started.
    Join(usize),
}

/// Gathers a layer's input once more, under sequence parallelism.
const GATHER: &str = "tensor_parallel.gather_again";
/// Sums the gradient of a layer's input.
const SUM: &str = "tensor_parallel.enter.grad";

fn is_exchange(operation: &Operation) -> bool {
    matches!(operation.kernel, Kernel::Exchange { .. })
}

/// Whether nothing in the layer waits for the operation's result.
fn makes_weight_gradient(operation: &Operation) -> bool {
    operation.name.ends_with(".grad_weight") || operation.name.ends_with(".grad_bias")
}

/// The moves of a backward pass; in the order of the operations where `overlap` is not wanted.
pub(super) fn moves(operations: &[Operation], overlap: bool) -> Vec<Move> {
    let mut moves = Vec::with_capacity(operations.len() + 2);
    let mut gathering = None;
    let mut from = 0;
    for (index, operation) in operations.iter().enumerate() {
        if !overlap || !is_exchange(operation) {
            moves.push(Move::Run(index));
            continue;
        }
        match operation.name {
            GATHER => {
                moves.push(Move::Start(index));
                gathering = Some((index, moves.len()));
            }
            SUM => {
                let weights =
                    |it: &Move| matches!(*it, Move::Run(at) if makes_weight_gradient(&operations[at]));
                let (later, sooner): (Vec<Move>, Vec<Move>) = moves.drain(from..).partition(weights);
                moves.extend(sooner);
                moves.push(Move::Start(index));
                moves.extend(gathering.take().map(|(gather, _)| Move::Join(gather)));
                moves.extend(later);
                moves.push(Move::Join(index));
            }
            _ => moves.push(Move::Run(index)),
        }
        if operation.name != GATHER {
            from = moves.len();
        }
    }
    // A gathered input that no sum follows is waited for at once.
    if let Some((gather, place)) = gathering {
        moves.insert(place, Move::Join(gather));
    }
    moves
}

#[cfg(test)]
mod tests {
    use steptime_models::{AttentionKind, Dtype, Fusion, Model, Overrides, TensorParallel, WorkShape};

    use super::{Move, moves};

    fn backward(sequence: bool) -> Vec<steptime_models::Operation> {
        let model = Model::from_catalogue("gpt2", &Overrides::default()).expect("an entry");
        let shape = WorkShape {
            micro_batch: 1,
            sequence_length: 128,
            compute: Dtype::Bf16,
            activation: Dtype::Bf16,
            attention: AttentionKind::Flash,
            training: true,
            tensor: TensorParallel { size: 2, sequence },
            fusion: Fusion::None,
            ..WorkShape::default()
        };
        model.work(1, &shape).backward
    }

    fn names(sequence: bool) -> Vec<String> {
        let operations = backward(sequence);
        let name = |it: &Move| match *it {
            Move::Run(at) => operations[at].name.to_owned(),
            Move::Start(at) => format!("start {}", operations[at].name),
            Move::Join(at) => format!("join {}", operations[at].name),
        };
        moves(&operations, true).iter().map(name).collect()
    }

    /// The order of Megatron-LM's `LinearWithGradAccumulationAndAsyncCommunication.backward`.
    #[test]
    fn sums_run_beside_gradients_of_weights() {
        let names = names(false);
        let at = |name: &str| names.iter().position(|it| it == name).expect(name);
        assert!(at("mlp.fc1.grad_input") < at("start tensor_parallel.enter.grad"));
        assert!(at("start tensor_parallel.enter.grad") < at("mlp.fc1.grad_weight"));
        assert!(at("mlp.fc1.grad_weight") < at("join tensor_parallel.enter.grad"));
    }

    #[test]
    fn gathered_input_arrives_before_gradients_of_weights() {
        let names = names(true);
        let at = |name: &str| names.iter().position(|it| it == name).expect(name);
        assert!(at("start tensor_parallel.gather_again") < at("mlp.fc1.grad_input"));
        assert!(at("mlp.fc1.grad_input") < at("join tensor_parallel.gather_again"));
        assert!(at("join tensor_parallel.gather_again") < at("mlp.fc1.grad_weight"));
    }

    #[test]
    fn every_operation_runs_once_and_every_start_is_joined() {
        for sequence in [false, true] {
            let operations = backward(sequence);
            for overlap in [false, true] {
                let moves = moves(&operations, overlap);
                for index in 0..operations.len() {
                    let started = moves.iter().filter(|&&it| it == Move::Start(index)).count();
                    let joined = moves.iter().filter(|&&it| it == Move::Join(index)).count();
                    let run = moves.iter().filter(|&&it| it == Move::Run(index)).count();
                    assert_eq!((started, joined), if run == 0 { (1, 1) } else { (0, 0) });
                    assert!(run <= 1);
                }
            }
        }
    }
}
