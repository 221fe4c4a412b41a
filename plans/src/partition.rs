//! Which layers each pipeline stage holds.

use std::ops::Range;

use steptime_models::{LayerRole, Model};

use crate::error::PlanError;

/// Splits the model's layers over `stages` stages.
///
/// Without `given`, blocks are spread evenly, the first stages taking one more where they do not divide; an
/// embedding layer goes with the first stage and a head with the last, on top of their share (Megatron-LM's
/// rule). `given` lists the blocks (or components) of each stage and must use every one of them.
///
/// # Errors
/// More stages than blocks, a stage without a block, or a list that does not add up; the message shows the sum.
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
    Ok(ranges)
}

fn check_given(list: &[u64], stages: usize, blocks: usize) -> Result<(), PlanError> {
    let terms = list.iter().map(u64::to_string).collect::<Vec<_>>().join(" + ");
    let sum: u64 = list.iter().fold(0, |sum, &count| sum.saturating_add(count));
    if list.len() != stages {
        return Err(PlanError::StageList {
            message: format!("it lists {} stages, `pipeline` is {stages}", list.len()),
        });
    }
    if let Some(empty) = list.iter().position(|&count| count == 0) {
        return Err(PlanError::StageList { message: format!("stage {empty} has no layer") });
    }
    if sum != blocks as u64 {
        return Err(PlanError::StageList {
            message: format!("{terms} = {sum} layers, the model has {blocks} blocks"),
        });
    }
    Ok(())
}
