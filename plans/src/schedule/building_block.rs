//! Schedules of two chunks in V shape from one repeated building block (Qi et al. 2024, Pipeline Parallelism with
//! Controllable Memory, section 3).
//!
//! The passes of one micro-batch are laid out on all stages in units of one pass; the same again every six units, one for
//! each pass of a stage, is the schedule, if no two of them meet. What a stage holds is how long its passes are open,
//! over six: steeper layouts hold more and wait less. Played, the layout is squeezed together.

use super::Action;

/// Passes of a stage for one micro-batch: forward, gradients of inputs and of weights of two chunks.
const PERIOD: u32 = 6;

/// When the passes of the first micro-batch begin on each stage: forward of both chunks, then gradients of inputs of
/// chunk 1 and of chunk 0.
pub(super) struct BuildingBlock {
    starts: Vec<[u32; 4]>,
}

impl BuildingBlock {
    /// V-Half: about half of what 1F1B holds.
    pub(super) fn half(stages: usize) -> Self {
        Self::with_slopes(stages, [2, 1, 2, 1])
    }

    /// V-Min: about a third of it.
    pub(super) fn min(stages: usize) -> Self {
        Self::with_slopes(stages, [1, 1, 1, 1])
    }

    /// `slopes` are the units from a stage to the next in each of the four passes; at the turns between them the
    /// block waits as little as keeps passes from meeting.
    fn with_slopes(stages: usize, slopes: [u32; 4]) -> Self {
        let mut best: Option<([u32; 3], Self)> = None;
        let longest = PERIOD + 2;
        for number in 0..longest.pow(3) {
            let turns =
                [number / longest.pow(2), number / longest % longest, number % longest].map(|it| it + 1);
            let shorter = |known: &[u32; 3]| turns.iter().sum::<u32>() < known.iter().sum();
            if best.as_ref().is_none_or(|(known, _)| shorter(known)) {
                let block = Self { starts: starts(stages, slopes, turns) };
                if block.meets_nowhere() {
                    best = Some((turns, block));
                }
            }
        }
        best.map_or_else(|| Self { starts: starts(stages, slopes, [1; 3]) }, |(_, block)| block)
    }

    fn meets_nowhere(&self) -> bool {
        let apart = |it: &[u32; 4]| (0..4).all(|a| (0..a).all(|b| it[a] % PERIOD != it[b] % PERIOD));
        self.starts.iter().all(apart)
    }

    /// The order of passes on every stage.
    pub(super) fn orders(&self, micro_batches: u32) -> Vec<Vec<Action>> {
        self.starts.iter().map(|starts| order(*starts, micro_batches)).collect()
    }
}

fn starts(stages: usize, slopes: [u32; 4], turns: [u32; 3]) -> Vec<[u32; 4]> {
    let last = stages as u32 - 1;
    let stage = |s: u32| {
        let up = last - s;
        let forward = slopes[0] * s;
        let forward_back = slopes[0] * last + turns[0] + slopes[1] * up;
        let input = slopes[0] * last + turns[0] + slopes[1] * last + turns[1] + slopes[2] * s;
        let turned = slopes[0] * last + turns[0] + slopes[1] * last + turns[1] + slopes[2] * last + turns[2];
        [forward, forward_back, input, turned + slopes[3] * up]
    };
    (0..=last).map(stage).collect()
}

/// The two free units of the period, next after the gradients of inputs, are for the weights.
fn order(starts: [u32; 4], micro_batches: u32) -> Vec<Action> {
    let mut taken: Vec<u32> = starts.iter().map(|start| start % PERIOD).collect();
    let mut free_after = |start: u32| {
        let free = (start + 1..=start + PERIOD).find(|unit| !taken.contains(&(unit % PERIOD)));
        let unit = free.unwrap_or(start + PERIOD);
        taken.push(unit % PERIOD);
        unit
    };
    let weights = [free_after(starts[2]), free_after(starts[3])];
    let passes = [
        (starts[0], Action::forward as fn(u32, u32) -> Action, 0),
        (starts[1], Action::forward, 1),
        (starts[2], Action::input, 1),
        (starts[3], Action::input, 0),
        (weights[0], Action::weight, 1),
        (weights[1], Action::weight, 0),
    ];
    let mut timed: Vec<(u64, Action)> = (0..micro_batches)
        .flat_map(|m| {
            passes.map(|(start, pass, chunk)| {
                (u64::from(start) + u64::from(PERIOD) * u64::from(m), pass(chunk, m))
            })
        })
        .collect();
    timed.sort_unstable();
    timed.into_iter().map(|(_, action)| action).collect()
}
