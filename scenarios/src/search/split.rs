//! Uneven stages: the split of the blocks whose slowest stage is fastest.

use steptime_models::{LayerRole, Model};
use steptime_plans::LayerTimes;

/// Blocks of each stage, by dynamic programming over stages and blocks: `best[s][k]`, the least time of the slowest of the
/// first `s` stages when they have the first `k` blocks. The embedding is the first stage's, the head the last one's. None
/// where the even split is as good.
pub(super) fn balanced(model: &Model, times: &[LayerTimes], stages: u64) -> Option<Vec<u64>> {
    let stages = usize::try_from(stages).ok()?;
    let all = |time: &LayerTimes| time.forward.picos().saturating_add(time.backward.picos());
    let is_block = |index: usize| model.layers.get(index).is_some_and(|layer| layer.role == LayerRole::Block);
    let blocks: Vec<u64> =
        times.iter().enumerate().filter(|(index, _)| is_block(*index)).map(|(_, time)| all(time)).collect();
    let first_block = (0..times.len()).find(|&index| is_block(index))?;
    let other =
        |range: std::ops::Range<usize>| times.get(range).unwrap_or_default().iter().map(all).sum::<u64>();
    let (before, after) = (other(0..first_block), other(first_block + blocks.len()..times.len()));
    if stages < 2 || blocks.len() < stages {
        return None;
    }
    let mut sums = vec![0_u64];
    for block in &blocks {
        sums.push(sums.last().copied().unwrap_or(0).saturating_add(*block));
    }
    let load = |stage: usize, from: usize, to: usize| {
        let ends = if stage == 0 { before } else { 0 } + if stage + 1 == stages { after } else { 0 };
        sums[to] - sums[from] + ends
    };
    let count = blocks.len();
    let mut best = vec![vec![u64::MAX; count + 1]; stages + 1];
    let mut cut = vec![vec![0; count + 1]; stages + 1];
    best[0][0] = 0;
    for stage in 0..stages {
        for to in stage + 1..=count {
            for from in stage..to {
                if best[stage][from] == u64::MAX {
                    continue;
                }
                let slowest = best[stage][from].max(load(stage, from, to));
                // Of equal splits the one whose earlier stages have more.
                if slowest <= best[stage + 1][to] {
                    best[stage + 1][to] = slowest;
                    cut[stage + 1][to] = from;
                }
            }
        }
    }
    let mut split = vec![0; stages];
    let mut to = count;
    for stage in (0..stages).rev() {
        let from = cut[stage + 1][to];
        split[stage] = (to - from) as u64;
        to = from;
    }
    let even: Vec<u64> =
        (0..stages).map(|stage| (count / stages + usize::from(stage < count % stages)) as u64).collect();
    let slowest = |split: &[u64]| {
        let mut from = 0;
        let loads = split.iter().enumerate().map(|(stage, &blocks)| {
            let to = from + blocks as usize;
            let load = load(stage, from, to);
            from = to;
            load
        });
        loads.max().unwrap_or(0)
    };
    (slowest(&split) < slowest(&even)).then_some(split)
}
