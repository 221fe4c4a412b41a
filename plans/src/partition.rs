//! Which layers each pipeline stage holds.

use std::ops::Range;

use steptime_models::{Layer, LayerRole, Model};

use crate::error::PlanError;

/// Splits the model's layers over `stages` stages.
///
/// Without `given`, blocks are spread evenly, the first stages taking one more where they do not divide; an
/// embedding layer goes with the first stage and a head with the last, on top of their share (Megatron-LM's
/// rule). `given` lists the blocks (or components) of each stage and must use every one of them; the first stage may
/// have the embedding alone, and the last the head alone.
///
/// # Errors
/// More stages than blocks, a stage without a layer, or a list that does not add up; the message shows the sum.
pub fn partition_layers(
    model: &Model,
    stages: usize,
    given: Option<&[u64]>,
) -> Result<Vec<Range<usize>>, PlanError> {
    let movable = |role: LayerRole| matches!(role, LayerRole::Block | LayerRole::Component);
    let first = model.layers.iter().position(|layer| movable(layer.role)).unwrap_or(0);
    let blocks = model.layers.iter().filter(|layer| movable(layer.role)).count();
    let counts: Vec<usize> = if let Some(list) = given {
        check_given(list, stages, blocks)?;
        list.iter().map(|&count| count as usize).collect()
    } else {
        if stages > blocks {
            return Err(PlanError::TooManyStages { stages: stages as u64, blocks: blocks as u64 });
        }
        (0..stages).map(|stage| blocks / stages + usize::from(stage < blocks % stages)).collect()
    };
    let mut ranges = Vec::with_capacity(stages);
    let mut next = 0;
    let mut block = first;
    for (stage, count) in counts.into_iter().enumerate() {
        block += count;
        let end = if stage + 1 == stages { model.layers.len() } else { block };
        ranges.push(next..end);
        next = end;
    }
    if let Some(empty) = ranges.iter().position(Range::is_empty) {
        return Err(PlanError::StageList { message: format!("stage {empty} has no layer") });
    }
    Ok(ranges)
}

/// Blocks of each stage when the stages get shares in proportion to their `rates` (equal ones where all are alike) of the multiply-adds of the blocks' linear layers and of the
/// output projection: a stage takes blocks until the sum so far reaches its share (the rule of nanotron's
/// `get_block_compute_costs`). The projection is the last stage's, alone there if the blocks end before.
pub fn balanced_stages(model: &Model, rates: &[f64]) -> Vec<u64> {
    let weights = |layer: &Layer| {
        let matrices = layer.parameters.iter().filter(|it| it.dimensions.len() > 1);
        matrices.fold(0_u64, |sum, it| sum.saturating_add(it.count)) as f64
    };
    let of = |role: LayerRole| model.layers.iter().filter(move |layer| layer.role == role).map(weights);
    let blocks: Vec<f64> = of(LayerRole::Block).collect();
    let head: f64 = of(LayerRole::Head).sum();
    let shared = fill(&blocks, head, rates);
    // Blocks that end two stages early or more leave a stage empty: they are spread over all but the last instead.
    let used = shared.iter().filter(|&&count| count > 0).count() as u64;
    if used + 1 < rates.len() as u64 {
        let mut counts = fill(&blocks, 0.0, &rates[..rates.len() - 1]);
        counts.push(0);
        return counts;
    }
    shared
}

/// Gives blocks to stages in order; a stage is full once the costs so far reach its part of all of them and `rest`.
fn fill(costs: &[f64], rest: f64, rates: &[f64]) -> Vec<u64> {
    let total = costs.iter().sum::<f64>() + rest;
    let all: f64 = rates.iter().sum();
    let mut counts = vec![0; rates.len()];
    let (mut stage, mut passed) = (0, 0.0);
    let mut reached = rates.first().copied().unwrap_or(0.0);
    for (index, cost) in costs.iter().enumerate() {
        counts[stage] += 1;
        passed += cost;
        let full = passed >= total * reached / all;
        // No stage but the last goes empty while there are blocks.
        let scarce = costs.len() - index - 1 < counts.len() - stage - 1 && rest == 0.0;
        if (full || scarce) && stage + 1 < counts.len() {
            stage += 1;
            reached += rates[stage];
        }
    }
    counts
}

fn check_given(list: &[u64], stages: usize, blocks: usize) -> Result<(), PlanError> {
    let terms = list.iter().map(u64::to_string).collect::<Vec<_>>().join(" + ");
    let sum: u64 = list.iter().fold(0, |sum, &count| sum.saturating_add(count));
    if list.len() != stages {
        return Err(PlanError::StageList {
            message: format!("it lists {} stages, `pipeline` is {stages}", list.len()),
        });
    }
    if sum != blocks as u64 {
        return Err(PlanError::StageList {
            message: format!("{terms} = {sum} layers, the model has {blocks} blocks"),
        });
    }
    Ok(())
}
