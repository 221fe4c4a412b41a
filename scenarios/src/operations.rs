//! The operations of a scenario's model as a table, for rooflines.

use steptime_plans::operations;

use crate::error::InputError;
use crate::refusal;
use crate::report_csv::quote;
use crate::scenario::{Job, Scenario};

/// One line for every operation of every distinct layer on one micro-batch of a rank: FLOPs, bytes, seconds, and what the
/// device could do at most in the scenario's format. None for paths of vehicles.
///
/// # Errors
/// The plan does not fit the cluster.
pub fn operations_csv(scenario: &Scenario) -> Result<Option<String>, InputError> {
    let Job::Gpus { cluster, plan, workload } = &scenario.job else { return Ok(None) };
    let rows = operations(&scenario.model, cluster, plan, workload)
        .map_err(|error| refusal::explain(scenario, error))?;
    let own = cluster.kind(0);
    let peak = own.gpu.peak(workload.precision.compute()).map_or_else(String::new, |peak| peak.to_string());
    let bandwidth = own.gpu.memory_bandwidth;
    let mut text = String::from(
        "layer,layers,pass,operation,kind,shape,flops,bytes,seconds,peak_flops_per_s,peak_bytes_per_s\n",
    );
    for row in rows {
        let (layer, shape) = (quote(&row.layer), quote(&row.shape));
        let seconds = row.time.seconds();
        text += &format!(
            "{layer},{},{},{},{},{shape},{},{},{seconds},{peak},{bandwidth}\n",
            row.layers, row.pass, row.operation, row.kind, row.flops.0, row.bytes.0
        );
    }
    Ok(Some(text))
}
