//! ZB-H1 and ZB-H2 (Qi et al. 2024, Zero Bubble Pipeline Parallelism, section 2): 1F1B whose gradients of weights come
//! late enough to fill the time in which a stage would wait.

use super::Action;

/// ZB-H1: as 1F1B warms up, stage `s` has the gradients of weights of `s` micro-batches left to do. No stage holds more
/// than `p` micro-batches.
pub(super) fn lazy_weights(stages: usize, stage: usize, micro_batches: u32) -> Vec<Action> {
    late_weights(stages - stage - 1, stage, micro_batches)
}

/// ZB-H2: twice the forwards ahead and twice the weights behind. No stage holds more than `2 p - 1` micro-batches.
pub(super) fn eager_forwards(stages: usize, stage: usize, micro_batches: u32) -> Vec<Action> {
    late_weights(2 * (stages - stage - 1), 2 * stage, micro_batches)
}

/// `ahead` forwards, then one forward and one backward in turn; gradients of weights follow those of inputs by
/// `behind` micro-batches.
fn late_weights(ahead: usize, behind: usize, micro_batches: u32) -> Vec<Action> {
    let narrow = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).min(micro_batches);
    let (ahead, behind) = (narrow(ahead), narrow(behind));
    let mut actions: Vec<Action> = (0..ahead).map(|m| Action::forward(0, m)).collect();
    for micro_batch in 0..micro_batches {
        if ahead + micro_batch < micro_batches {
            actions.push(Action::forward(0, ahead + micro_batch));
        }
        actions.push(Action::input(0, micro_batch));
        if micro_batch >= behind {
            actions.push(Action::weight(0, micro_batch - behind));
        }
    }
    actions.extend((micro_batches - behind..micro_batches).map(|m| Action::weight(0, m)));
    actions
}
