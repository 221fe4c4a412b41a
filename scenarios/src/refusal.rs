//! A job that cannot be lowered or played, as an error about a key of the scenario.

use steptime_core::{ProgramError, SimulationError, TimeError};
use steptime_models::Sample;
use steptime_plans::{PlanError, ReplayError};

use crate::error::InputError;
use crate::scenario::{Job, Scenario};

/// The key that decides what was refused, and why, in the words of a scenario.
pub(crate) fn explain(scenario: &Scenario, source: PlanError) -> InputError {
    let places = &scenario.places;
    let samples = samples(scenario);
    let large =
        |why: String| (&places.micro_batch, format!("micro-batches of {samples} are too large: {why}"));
    let (place, message) = match &source {
        PlanError::Time(error) => large(too_long("an operation", error)),
        PlanError::Replay(ReplayError::Time { vehicle, partition, error }) => large(too_long(
            &format!("partition {partition} on vehicle {vehicle}{}", factors(scenario)),
            error,
        )),
        PlanError::Program(error) | PlanError::Replay(ReplayError::Program(error)) => match error {
            ProgramError::TooMuchMemory { .. } => {
                large("the tensors of a device would add up to more than 8 EiB".to_owned())
            }
            ProgramError::MessageTooLarge { bytes, .. } => large(format!(
                "{:.1e} bytes would be sent at once, but at most 2.8e14 (256 TiB) can be",
                *bytes as f64
            )),
            ProgramError::TooMany { what, .. } => (
                &places.accumulation,
                format!("the step has too many {what} to be played; use fewer micro-batches"),
            ),
            // Anything else is a fault of the lowering, which no key mends.
            _ => (&places.parallelism, source.to_string()),
        },
        PlanError::Simulation(SimulationError::Overflow { .. }) => {
            let count = scenario.batch.accumulation;
            let place = if count > 1 { &places.accumulation } else { &places.micro_batch };
            let step = format!("a step of {count} micro-batches of {samples}");
            (place, format!("{step} takes longer than the 213 days that can be played"))
        }
        PlanError::World(error) | PlanError::Replay(ReplayError::World(error)) => {
            (&places.cluster, format!("its links cannot be played: {error}"))
        }
        PlanError::UnknownLink { .. } if scenario.variability.is_some() => {
            let place = scenario.variability.as_ref().map_or(&places.cluster, |it| &it.place);
            (place, source.to_string())
        }
        PlanError::Topology(_) => (&places.cluster, source.to_string()),
        PlanError::Offload { .. } => (&places.offload, source.to_string()),
        PlanError::Price(_) => (&places.precision, source.to_string()),
        _ if about_micro_batches(scenario, &source) => (&places.accumulation, source.to_string()),
        _ => (&places.parallelism, source.to_string()),
    };
    InputError::Plan { origin: place.origin.clone(), key: place.key.clone(), message, source }
}

/// Whether fewer micro-batches would mend it.
fn about_micro_batches(scenario: &Scenario, error: &PlanError) -> bool {
    match error {
        PlanError::TooManyRecords { .. }
        | PlanError::TooManyPlayed { .. }
        | PlanError::Replay(ReplayError::MicroBatches { .. }) => true,
        // The other number that can be too large is that of the ranks.
        PlanError::TooLarge { found, .. } => *found == scenario.batch.accumulation,
        _ => false,
    }
}

/// A micro-batch in words: `8 sequences of 4096 tokens`.
fn samples(scenario: &Scenario) -> String {
    let count = scenario.batch.micro;
    match (&scenario.job, scenario.model.sample) {
        (Job::Gpus { workload, .. }, Sample::Tokens { .. }) => {
            format!("{count} sequences of {} tokens", workload.sequence_length)
        }
        _ => format!("{count} samples"),
    }
}

/// What a vehicle's time depends on besides the batch.
fn factors(scenario: &Scenario) -> String {
    match &scenario.job {
        Job::Vehicles { formula, .. } => {
            format!(" (utilization {}, memory_overhead {})", formula.utilization, formula.overhead)
        }
        Job::Gpus { .. } => String::new(),
    }
}

fn too_long(what: &str, error: &TimeError) -> String {
    match error {
        TimeError::Seconds(seconds) => {
            format!("{what} would take {seconds:.1e} s, but at most 1.8e7 s (213 days) can be played")
        }
        TimeError::Overflow | TimeError::Negative => {
            format!("{what} would take longer than the 213 days that can be played")
        }
    }
}
