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

/// Whether nothing in the layer waits for the operation's result.
fn can_wait(operation: &Operation) -> bool {
    operation.makes_weight_gradient() || operation.makes_bias_gradient()
}

/// The moves of a backward pass; in the order of the operations where `overlap` is not wanted.
pub(super) fn moves(operations: &[Operation], overlap: bool) -> Vec<Move> {
    if !overlap {
        return (0..operations.len()).map(Move::Run).collect();
    }
    let mut moves = Vec::with_capacity(operations.len() + 2);
    let mut gathers = Vec::new();
    // Where what stands between two collectives that are waited for begins.
    let mut from = 0;
    for (index, operation) in operations.iter().enumerate() {
        if operation.gathers_input_again() {
            gathers.push(index);
            moves.push(Move::Start(index));
        } else if operation.sums_input_gradient() {
            let waits = |it: &Move| matches!(*it, Move::Run(at) if can_wait(&operations[at]));
            let (later, sooner): (Vec<Move>, Vec<Move>) = moves.drain(from..).partition(waits);
            moves.extend(sooner);
            moves.push(Move::Start(index));
            moves.extend(gathers.drain(..).map(Move::Join));
            moves.extend(later);
            moves.push(Move::Join(index));
            from = moves.len();
        } else {
            moves.push(Move::Run(index));
            if matches!(operation.kernel, Kernel::Exchange { .. }) {
                from = moves.len();
            }
        }
    }
    // A gathered input that no sum follows is waited for at once.
    for it in &mut moves {
        if let Move::Start(index) = *it
            && gathers.contains(&index)
        {
            *it = Move::Run(index);
        }
    }
    moves
}

#[cfg(test)]
mod tests {
    use steptime_models::{AttentionKind, Dtype, Fusion, Model, Overrides, TensorParallel, WorkShape};

    use super::{Move, moves};

    fn backward(sequence: bool) -> Vec<steptime_models::Operation> {
        let model = Model::from_catalogue("gpt2", &Overrides::default()).expect("an entry");
        backward_of(&model, 1, sequence)
    }

    fn backward_of(model: &Model, layer: usize, sequence: bool) -> Vec<steptime_models::Operation> {
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
        model.work(layer, &shape).backward
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
    fn every_operation_runs_once_and_every_start_is_joined_after_it() {
        for name in ["gpt2", "flan-t5-base", "llama3-8b", "mixtral-8x7b", "qwen3-14b", "deepseek-v3"] {
            let model = Model::from_catalogue(name, &Overrides::default()).expect("an entry");
            let mut known = None;
            for (layer, facts) in model.layers.iter().enumerate() {
                if known.replace(facts.signature) == Some(facts.signature) {
                    continue;
                }
                for (sequence, overlap) in [(false, false), (false, true), (true, false), (true, true)] {
                    let operations = backward_of(&model, layer, sequence);
                    let moves = moves(&operations, overlap);
                    let places = |wanted: Move| {
                        let numbered = moves.iter().enumerate().filter(|&(_, it)| *it == wanted);
                        numbered.map(|(place, _)| place).collect::<Vec<_>>()
                    };
                    for index in 0..operations.len() {
                        let [run, started, joined] =
                            [Move::Run(index), Move::Start(index), Move::Join(index)].map(places);
                        assert_eq!(run.len() + started.len(), 1, "{name}");
                        assert_eq!(started.len(), joined.len(), "{name}");
                        assert!(started <= joined, "{name}");
                    }
                }
            }
        }
    }
}
