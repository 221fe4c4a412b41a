//! Whether the plan that is predicted to be the fastest is.
//!
//! Runs of one job, the same model on as many of the same GPUs with the same batch, differ by their plan: parallelism, ZeRO stage,
//! schedule, micro-batch and checkpointing. A user would take the plan that is predicted to be the fastest; what that costs is how
//! much longer its measured step is than the shortest measured one of the job.

use serde::{Deserialize, Serialize};

use super::ValidatedRow;
use super::measurement::Measurement;
use super::score::{percentile, spearman};

/// Plans that a job needs to be ranked: with fewer every order has a rank correlation of 1 or -1.
const RANKED: usize = 3;

/// How well plans of the same job are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChoiceScore {
    /// Jobs with two timed plans or more.
    pub jobs: usize,
    /// Their plans.
    pub plans: usize,
    /// Jobs of which the plan predicted to be the fastest is the fastest measured one.
    pub right: usize,
    /// Median over jobs of how much longer the plan predicted to be the fastest takes than the fastest, as a share of that.
    pub median_loss: f64,
    /// Mean of the same.
    pub mean_loss: f64,
    /// 90th percentile of the same.
    pub p90_loss: f64,
    /// Largest of the same.
    pub max_loss: f64,
    /// Median over jobs of what a plan taken blindly loses: the mean over its plans.
    pub blind_loss: f64,
    /// Spearman's rank correlation within jobs of three plans and more, the mean over jobs, each counted by its plans.
    pub spearman: Option<f64>,
}

/// What plans of the same job have in common; absent where a row does not say enough.
pub(super) fn job(row: &Measurement) -> Option<String> {
    let shape = [row.layers, row.hidden, row.heads, row.kv_heads, row.ffn, row.vocab, row.experts];
    let shape: Vec<String> =
        shape.iter().map(|size| size.map_or_else(|| "-".to_owned(), |size| size.to_string())).collect();
    Some(format!(
        "{} {} on {} {} ({}), {} {}, batch {} of {}, {} {} {}",
        row.model,
        shape.join("/"),
        row.nodes.saturating_mul(row.gpus_per_node),
        row.gpu,
        row.interconnect,
        row.framework,
        row.task,
        row.global_batch?,
        row.seq_len?,
        row.precision,
        row.attention,
        row.optimizer
    ))
}

/// The score of some rows; absent where no job has two plans.
pub(super) fn choices(rows: &[&ValidatedRow]) -> Option<ChoiceScore> {
    let mut jobs: indexmap::IndexMap<&str, Vec<(f64, f64)>> = indexmap::IndexMap::new();
    for row in rows {
        let times = row.predicted_step_time_s.zip(row.measured_step_time_s);
        if let Some((job, times)) = row.job.as_deref().zip(times) {
            jobs.entry(job).or_default().push(times);
        }
    }
    let jobs: Vec<Vec<(f64, f64)>> = jobs.into_values().filter(|plans| plans.len() > 1).collect();
    if jobs.is_empty() {
        return None;
    }
    let mut losses: Vec<f64> = jobs.iter().map(|plans| loss(plans)).collect();
    let mut blind: Vec<f64> = jobs.iter().map(|plans| mean_loss(plans)).collect();
    let right = losses.iter().filter(|&&loss| loss <= 0.0).count();
    let mean = losses.iter().sum::<f64>() / losses.len() as f64;
    losses.sort_by(f64::total_cmp);
    blind.sort_by(f64::total_cmp);
    let (mut weight, mut ranks) = (0.0, 0.0);
    for plans in jobs.iter().filter(|plans| plans.len() >= RANKED) {
        let pairs: Vec<_> = plans.iter().map(|&(predicted, measured)| (predicted, measured, None)).collect();
        if let Some(rank) = spearman(&pairs) {
            weight += plans.len() as f64;
            ranks += rank * plans.len() as f64;
        }
    }
    Some(ChoiceScore {
        jobs: jobs.len(),
        plans: jobs.iter().map(Vec::len).sum(),
        right,
        median_loss: percentile(&losses, 0.5),
        mean_loss: mean,
        p90_loss: percentile(&losses, 0.9),
        max_loss: losses.last().copied().unwrap_or(0.0),
        blind_loss: percentile(&blind, 0.5),
        spearman: (weight > 0.0).then(|| ranks / weight),
    })
}

/// The shortest measured step.
fn least(plans: &[(f64, f64)]) -> f64 {
    plans.iter().map(|plan| plan.1).fold(f64::INFINITY, f64::min)
}

/// How much longer the plan takes that is predicted to be the fastest. Of plans with the same prediction the slowest counts.
fn loss(plans: &[(f64, f64)]) -> f64 {
    let first = plans.iter().map(|plan| plan.0).fold(f64::INFINITY, f64::min);
    let taken = plans.iter().filter(|plan| plan.0 <= first).map(|plan| plan.1).fold(0.0, f64::max);
    taken / least(plans) - 1.0
}

fn mean_loss(plans: &[(f64, f64)]) -> f64 {
    plans.iter().map(|plan| plan.1).sum::<f64>() / plans.len() as f64 / least(plans) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(job: &str, predicted: f64, measured: f64) -> ValidatedRow {
        ValidatedRow {
            job: Some(job.to_owned()),
            predicted_step_time_s: Some(predicted),
            measured_step_time_s: Some(measured),
            ..ValidatedRow::default()
        }
    }

    /// Two jobs by hand: of the first the plan predicted to be the fastest takes 1.1 s where 1.0 s would do, of the second it is the
    /// fastest; a third has one plan and nothing to choose.
    #[test]
    fn the_loss_is_what_the_plan_that_is_ranked_first_costs() {
        let rows = [
            row("a", 1.0, 1.1),
            row("a", 1.2, 1.0),
            row("a", 2.0, 3.0),
            row("b", 5.0, 4.0),
            row("b", 6.0, 8.0),
            row("c", 1.0, 9.0),
        ];
        let score = choices(&rows.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!((score.jobs, score.plans, score.right), (2, 5, 1));
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} against {b}");
        near(score.median_loss, 0.05);
        near(score.mean_loss, 0.05);
        near(score.p90_loss, 0.09);
        near(score.max_loss, 0.1);
        // Blindly 1.7 s for 1.0 s, and 6 s for 4 s.
        near(score.blind_loss, 0.6);
        // Ranks 1, 2, 3 against 2, 1, 3: 1 - 6 x 2 / (3 x 8).
        near(score.spearman.unwrap(), 0.5);
    }

    #[test]
    fn equal_predictions_choose_the_slower_plan() {
        let rows = [row("a", 1.0, 1.0), row("a", 1.0, 1.5)];
        let score = choices(&rows.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!((score.right, score.median_loss, score.spearman), (0, 0.5, None));
        assert!(choices(&[]).is_none());
    }
}
