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

#[cfg(test)]
mod tests {
    use steptime_core::SimTime;

    use super::*;
    use crate::draft::Draft;
    use crate::files::NoFiles;

    /// Times of the slowest stage over all ways to cut blocks into stages; the first stage also has what comes before the
    /// blocks, the last one what comes after.
    fn least(blocks: &[u64], stages: usize, before: u64, after: u64) -> u64 {
        if stages == 1 {
            return before + blocks.iter().sum::<u64>() + after;
        }
        let cuts = 1..=blocks.len() + 1 - stages;
        let slowest = |cut: usize| {
            let (own, rest) = blocks.split_at(cut);
            (before + own.iter().sum::<u64>()).max(least(rest, stages - 1, 0, after))
        };
        cuts.map(slowest).min().unwrap_or(u64::MAX)
    }

    /// Splits of random times against every split there is.
    #[test]
    fn no_split_has_a_faster_slowest_stage() {
        let text = "[model]\nname = \"gpt2\"\nsequence_length = 1024\n[cluster]\nname = \"dgx-h100\"\n[workload]\n\
                    micro_batch_size = 1\ngradient_accumulation_steps = 1\nprecision = \"bf16\"\n";
        let model = Draft::read("case", text, &[]).unwrap().scenario(&NoFiles).unwrap().model;
        let is_block = |index: &usize| model.layers[*index].role == LayerRole::Block;
        let (mut state, mut uneven) = (7_u64, 0);
        // A linear congruential generator (Knuth's MMIX), of which the upper half is taken.
        let mut draw = |most: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % most
        };
        for case in 0..200 {
            let most = [3, 100, 1_000_000][case % 3];
            let time = |ps| SimTime::from_picos(ps);
            let times: Vec<LayerTimes> = (0..model.layers.len())
                .map(|_| LayerTimes { forward: time(draw(most)), backward: time(draw(most)), kept: 0 })
                .collect();
            let of = |index: usize| times[index].forward.picos() + times[index].backward.picos();
            let all: Vec<usize> = (0..times.len()).collect();
            let blocks: Vec<u64> =
                all.iter().filter(|index| is_block(index)).map(|&index| of(index)).collect();
            let first = all.iter().copied().find(|index| is_block(index)).unwrap();
            let before = (0..first).map(of).sum();
            let after = (first + blocks.len()..times.len()).map(of).sum();
            for stages in [2, 3, 4, 6, 12] {
                let found = balanced(&model, &times, stages);
                uneven += usize::from(found.is_some());
                let even: Vec<u64> =
                    (0..stages).map(|stage| 12 / stages + u64::from(stage < 12 % stages)).collect();
                let split = found.unwrap_or(even);
                assert_eq!((split.len() as u64, split.iter().sum::<u64>()), (stages, 12));
                let mut rest = &blocks[..];
                let mut slowest = 0;
                for (stage, &count) in split.iter().enumerate() {
                    let (own, others) = rest.split_at(count as usize);
                    let ends =
                        if stage == 0 { before } else { 0 } + if others.is_empty() { after } else { 0 };
                    slowest = slowest.max(own.iter().sum::<u64>() + ends);
                    rest = others;
                }
                assert_eq!(slowest, least(&blocks, stages as usize, before, after), "case {case}, {split:?}");
            }
        }
        assert!(uneven > 500, "{uneven}");
        assert_eq!(balanced(&model, &[], 2), None, "nothing to split");
    }
}
