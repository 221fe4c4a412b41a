//! Schedules of two chunks in V shape: chunk 0 runs down the stages, chunk 1 back up.

use super::Action;

/// The next micro-batch of each chunk for each kind of pass, and the actions so far.
#[derive(Default)]
struct Orders {
    forwards: [u32; 2],
    inputs: [u32; 2],
    /// Gradients of weights that are left to do, oldest first.
    weights: std::collections::VecDeque<Action>,
    actions: Vec<Action>,
}

fn next(counter: &mut u32) -> u32 {
    *counter += 1;
    *counter - 1
}

impl Orders {
    fn forward(&mut self, chunk: u32) {
        let micro_batch = next(&mut self.forwards[chunk as usize]);
        self.actions.push(Action::forward(chunk, micro_batch));
    }

    /// A backward whose weights are left for later.
    fn input(&mut self, chunk: u32) {
        let micro_batch = next(&mut self.inputs[chunk as usize]);
        self.actions.push(Action::input(chunk, micro_batch));
        self.weights.push_back(Action::weight(chunk, micro_batch));
    }

    /// The oldest gradients of weights that are left.
    fn weight(&mut self) {
        self.actions.extend(self.weights.pop_front());
    }

    /// The oldest gradients of weights of a chunk that are left.
    fn weight_of(&mut self, chunk: u32) {
        if let Some(at) = self.weights.iter().position(|action| action.chunk() == chunk) {
            self.actions.extend(self.weights.remove(at));
        }
    }

    fn backward(&mut self, chunk: u32) {
        let micro_batch = next(&mut self.inputs[chunk as usize]);
        self.actions.push(Action::backward(chunk, micro_batch));
    }
}

/// ZB-V as PyTorch orders it (`ScheduleZBVZeroBubble`). Fewer than `2 p - 1` micro-batches leave out those that are
/// not there.
pub(super) fn zero_bubble_v(stages: usize, stage: usize, micro_batches: u32) -> Vec<Action> {
    let full = micro_batches.max(2 * stages as u32 - 1);
    let mut orders = Orders::default();
    for _ in 0..2 * (stages - stage) - 1 {
        orders.forward(0);
    }
    for _ in 0..stage {
        orders.forward(1);
        orders.forward(0);
    }
    for _ in 0..stages - stage {
        orders.forward(1);
        orders.input(1);
        orders.weight();
    }
    while orders.forwards[1] < orders.forwards[0] || orders.forwards[0] < full {
        if orders.forwards[0] < full {
            orders.forward(0);
        }
        orders.input(0);
        orders.weight();
        orders.forward(1);
        orders.input(1);
        orders.weight();
    }
    for _ in 0..stage {
        orders.input(0);
        orders.input(1);
    }
    for _ in 0..stages - stage {
        orders.input(0);
        orders.weight_of(0);
    }
    while orders.weights.iter().any(|action| action.chunk() == 1) {
        orders.weight_of(1);
    }
    while !orders.weights.is_empty() {
        orders.weight();
    }
    orders.actions.retain(|action| action.micro_batch() < micro_batches);
    orders.actions
}

/// DualPipeV as DeepSeek orders it, for at least two micro-batches a stage: the forward of one chunk goes with the
/// backward of the other, and only backwards that would make a stage wait leave their weights for later.
pub(super) fn dual_pipe_v(stages: usize, stage: usize, micro_batches: u32) -> Vec<Action> {
    let after = stages - stage - 1;
    let mut orders = Orders::default();
    for _ in 0..2 * after {
        orders.forward(0);
    }
    for _ in 0..=stage {
        orders.forward(0);
        orders.forward(1);
    }
    for _ in 0..after {
        orders.input(1);
        orders.weight();
        orders.forward(1);
    }
    for _ in 0..(micro_batches as usize + stage + 1).saturating_sub(2 * stages) {
        orders.forward(0);
        orders.backward(1);
        orders.forward(1);
        orders.backward(0);
    }
    for _ in 0..after {
        orders.backward(1);
        orders.forward(1);
        orders.backward(0);
    }
    // From the middle of these pairs on, weights are left for later: on odd stages from the chunk that comes first.
    for pair in 0..=stage {
        for chunk in [1, 0] {
            let turn = 2 * stage.div_ceil(2) + usize::from(stage.is_multiple_of(2));
            if 2 * pair + usize::from(chunk == 0) >= turn {
                orders.input(chunk);
            } else {
                orders.backward(chunk);
            }
        }
    }
    for _ in 0..after {
        orders.weight();
        orders.input(0);
    }
    while !orders.weights.is_empty() {
        orders.weight();
    }
    orders.actions
}

/// DualPipe as DeepSeek orders it: a stage of the first half does what one of DualPipeV with half as many stages does, chunk
/// 1 being the micro-batches that come from the other end; its opposite does the same with the ends changed.
pub(super) fn dual_pipe(stages: usize, stage: usize, micro_batches: u32) -> Vec<Action> {
    let half = micro_batches / 2;
    let opposite = stages - 1 - stage;
    let mirrored = stage > opposite;
    let from_here = |action: Action| {
        let chunk = if mirrored { 1 - action.chunk() } else { action.chunk() };
        action.at(chunk, action.micro_batch() + chunk * half)
    };
    dual_pipe_v(stages / 2, stage.min(opposite), half).into_iter().map(from_here).collect()
}
