//! Playing what is small enough, and what must hold of it then.

use steptime_plans::Task;
use steptime_scenarios::{Job, Report, Scenario, Verdict, run};

/// Passes of a layer that a played scenario may have: executions take milliseconds then.
const MOST_PASSES: u64 = 600;

/// Whether a scenario is played within milliseconds.
fn is_small(scenario: &Scenario) -> bool {
    let repetitions = scenario.variability.as_ref().map_or(1, |it| u64::from(it.repetitions));
    if repetitions > 3
        || scenario.input.as_ref().is_some_and(|input| input.samples.is_some_and(|it| it > 1000))
    {
        return false;
    }
    let Job::Gpus { plan, workload, cluster } = &scenario.job else { return false };
    // Stages that neither fill whole nodes nor share one evenly may lie apart in ways that let no rank stand for another.
    let (lanes, node) = (plan.ranks() / plan.pipeline.max(1), u64::from(cluster.gpus_per_node).max(1));
    let apart = !lanes.is_multiple_of(node) && !node.is_multiple_of(lanes.max(1));
    let all =
        plan.explicit || apart || cluster.topology.is_some() || !scenario.jobs.is_empty() || repetitions > 1;
    let ranks = if all { plan.ranks() } else { plan.pipeline };
    // ZeRO 3 gathers every layer in every pass, and each group of experts is a program of its own.
    let passes = (scenario.model.layers.len() as u64 + 2 * plan.pipeline)
        .saturating_mul(workload.accumulation.saturating_add(1))
        .saturating_mul(if all { ranks / plan.pipeline.max(1) } else { 1 });
    ranks <= 64 && plan.expert <= 8 && passes <= MOST_PASSES && scenario.jobs.iter().all(is_small)
}

/// Plays a scenario if it is small, and looks at its report.
pub(crate) fn play(scenario: &Scenario) {
    if !is_small(scenario) {
        return;
    }
    match run(scenario, false) {
        Ok(played) => check(scenario, &played.report),
        Err(error) => complains(&error.to_string()),
    }
}

/// A refusal is written for its reader.
pub(crate) fn complains(message: &str) {
    assert!(!message.is_empty() && !message.contains("internal"), "{message}");
}

fn check(scenario: &Scenario, report: &Report) {
    let Some(step) = report.step_time_s else {
        assert_ne!(report.verdict, Verdict::Fits);
        return;
    };
    assert!(step > 0.0 && step.is_finite(), "{step}");
    let parts: f64 = report.time_breakdown_s.entries().iter().map(|(_, seconds)| seconds).sum();
    assert!((parts - step).abs() <= 1e-9 * step, "{parts} against {step}");
    let memory = &report.peak_memory;
    assert_eq!(memory.breakdown_bytes.values().sum::<u64>(), memory.device_bytes);
    if let Job::Gpus { workload, .. } = &scenario.job {
        let over = memory.device_bytes > memory.capacity_bytes;
        // The rank with the most in tensors is told of; where ranks or steps differ another may be the one that runs short, or a host.
        let others = report.stages.len() > 1 || scenario.variability.is_some() || memory.host.is_some();
        assert!(!over || report.out_of_memory.is_some(), "{memory:?}");
        assert!(over || others || report.out_of_memory.is_none(), "{memory:?}");
        if workload.task == Task::Training
            && let (Some(model), Some(hardware)) =
                (report.model_flops_utilization, report.hardware_flops_utilization)
        {
            assert!(0.0 <= model && model.is_finite() && hardware.is_finite(), "{model}, {hardware}");
        }
    }
    for stage in &report.stages {
        let shares = stage.busy_fraction + stage.bubble_fraction + stage.communication_fraction;
        assert!((0.0..=1.0 + 1e-9).contains(&shares), "{stage:?}");
    }
    assert!(serde_json::to_string(report).is_ok());
}
