//! What faster or slower hardware would do to a step, one thing at a time.

use serde::{Deserialize, Serialize};
use steptime_clusters::{Cluster, VehicleCluster};

use crate::error::InputError;
use crate::run::play_time;
use crate::scenario::{Job, Scenario};

/// Identifies the form of [`Sensitivity`].
pub const SENSITIVITY_SCHEMA: &str = "steptime.sensitivity/1";

/// The step with one thing better and worse.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// What is changed.
    pub what: String,
    /// Seconds a step where it is better by the share.
    pub better_s: f64,
    /// Seconds a step where it is worse by the share.
    pub worse_s: f64,
    /// `(better - base) / base`: below zero where the step gets shorter.
    pub change: f64,
}

/// How a step follows the hardware.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// [`SENSITIVITY_SCHEMA`].
    pub schema: String,
    /// The scenario's name.
    pub name: String,
    /// Seconds a step as the scenario is.
    pub step_time_s: f64,
    /// The share by which things change, 0.1 being 10 %.
    pub share: f64,
    /// Effects, the largest first.
    pub effects: Vec<Effect>,
    /// Version of the program.
    pub version: String,
}

/// A change of GPUs and what joins them, for a factor above 1 to the better.
type Change = fn(&mut Cluster, f64);

const CHANGES: [(&str, Change); 6] = [
    ("GPU arithmetic", arithmetic),
    ("GPU memory bandwidth", |cluster, factor| cluster.gpu.memory_bandwidth *= factor),
    ("link bandwidth in nodes", |cluster, factor| cluster.fabric.speed_up(factor)),
    ("network bandwidth", |cluster, factor| {
        if let Some(network) = &mut cluster.network {
            network.bandwidth *= factor;
            network.gpu_bandwidth *= factor;
            network.far_bandwidth = network.far_bandwidth.map(|rate| rate * factor);
        }
    }),
    ("latency of kernels and network", |cluster, factor| {
        cluster.gpu.kernel_latency_s /= factor;
        if let Some(network) = &mut cluster.network {
            network.latency_s /= factor;
            network.bulk_latency_s /= factor;
            network.message_s /= factor;
        }
    }),
    ("host speed", |cluster, factor| cluster.host.speed_up(factor)),
];

/// Peaks of all formats.
fn arithmetic(cluster: &mut Cluster, factor: f64) {
    for format in &mut cluster.gpu.arithmetic {
        format.peak.value *= factor;
    }
}

/// The same of vehicles.
type VehicleChange = fn(&mut VehicleCluster, f64);

const VEHICLE_CHANGES: [(&str, VehicleChange); 2] = [
    ("computing capability", |cluster, factor| {
        cluster.vehicles.iter_mut().for_each(|vehicle| vehicle.compute *= factor);
    }),
    ("communication capability", |cluster, factor| {
        cluster.vehicles.iter_mut().for_each(|vehicle| vehicle.communication *= factor);
    }),
];

/// Plays a scenario with each thing better and worse by a share.
///
/// # Errors
/// The scenario cannot be played.
pub fn sensitivity(scenario: &Scenario, share: f64) -> Result<Sensitivity, InputError> {
    let step =
        |scenario: &Scenario| Ok::<_, InputError>(play_time(scenario)?.step_time_s.unwrap_or(f64::INFINITY));
    let base = step(scenario)?;
    let mut effects = Vec::new();
    let mut add = |what: &str, with: &dyn Fn(f64) -> Scenario| -> Result<(), InputError> {
        let (better_s, worse_s) = (step(&with(1.0 + share))?, step(&with(1.0 / (1.0 + share)))?);
        effects.push(Effect { what: what.to_owned(), better_s, worse_s, change: (better_s - base) / base });
        Ok(())
    };
    match &scenario.job {
        Job::Gpus { cluster, .. } => {
            if cluster.is_mixed() || cluster.topology.is_some() {
                let why = "mixed GPUs and described topologies have no one rate to change";
                return Err(scenario.places.cluster.conflict(why));
            }
            for (what, change) in CHANGES {
                add(what, &|factor| {
                    let mut other = scenario.clone();
                    if let Job::Gpus { cluster, .. } = &mut other.job {
                        change(cluster, factor);
                    }
                    other
                })?;
            }
        }
        Job::Vehicles { .. } => {
            for (what, change) in VEHICLE_CHANGES {
                add(what, &|factor| {
                    let mut other = scenario.clone();
                    if let Job::Vehicles { cluster, .. } = &mut other.job {
                        change(cluster, factor);
                    }
                    other
                })?;
            }
        }
    }
    // Equal effects stay in the order above.
    effects.sort_by(|a, b| (b.worse_s - b.better_s).total_cmp(&(a.worse_s - a.better_s)));
    Ok(Sensitivity {
        schema: SENSITIVITY_SCHEMA.to_owned(),
        name: scenario.name.clone(),
        step_time_s: base,
        share,
        effects,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}
