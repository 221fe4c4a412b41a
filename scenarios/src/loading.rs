//! From a step whose samples are there to steps, and epochs, that wait for them.

use steptime_clusters::{Cluster, host_copy};
use steptime_core::{NoObserver, Outcome, SimTime, simulate};
use steptime_models::Bytes;
use steptime_plans::{BatchTime, Epoch, Loading, Plan, PlanError, Workload, lower};

use crate::input::Input;
use crate::report::{InputReport, Provenance, Report, Stage, TimeBreakdown};
use crate::run::breakdown;
use crate::scenario::Scenario;

/// A job whose samples are loaded.
pub(crate) struct Loaded<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) input: &'a Input,
    pub(crate) cluster: &'a Cluster,
    pub(crate) plan: &'a Plan,
    pub(crate) workload: &'a Workload,
}

impl Loaded<'_> {
    /// The report of many steps, from that of one whose samples wait in pageable memory.
    pub(crate) fn apply(&self, report: Report, outcome: &Outcome) -> Result<Report, PlanError> {
        let Some(alone) = report.step_time_s else { return Ok(report) };
        let loading = Loading { loader: &self.input.loader, cluster: self.cluster };
        let batch = self.batch_time(self.workload, &report.time_breakdown_s, outcome)?;
        let step = loading.micro_batch_s(batch)? * self.workload.accumulation as f64;
        let loader_rate = loading.most_samples_per_s(batch.samples)?;
        let input = InputReport {
            first_batch_s: loading.first_batch_s(batch.samples)?,
            loader_samples_per_s: loader_rate.map(|rate| rate * self.plan.data as f64),
        };
        let end_to_end_s = match self.input.samples {
            Some(samples) => Some(loading.epoch_s(self.epoch(batch, samples)?)?),
            None => None,
        };
        Ok(Report { input: Some(input), end_to_end_s, ..slowed(report, alone, step) })
    }

    /// A micro-batch without its copies, which are the loader's.
    fn batch_time(
        &self,
        workload: &Workload,
        parts: &TimeBreakdown,
        outcome: &Outcome,
    ) -> Result<BatchTime, PlanError> {
        let (count, samples) = (workload.accumulation, workload.micro_batch_size);
        let device = SimTime::from_seconds((outcome.end.seconds() - parts.data_loading).max(0.0))?;
        let bytes = Bytes(self.scenario.model.sample_bytes(&workload.shape()).0.saturating_mul(samples));
        let copies = if bytes.0 == 0 {
            0.0
        } else {
            let host = &self.cluster.host;
            host_copy(&self.cluster.gpu, host, bytes, false).seconds + host.sync_latency_s
        };
        let host_end = outcome.ranks.first().map_or(SimTime::ZERO, |rank| rank.host_end);
        let host = SimTime::from_seconds((host_end.seconds() - copies * count as f64).max(0.0))?;
        let each = |time: SimTime| SimTime::from_picos(time.picos() / count.max(1));
        Ok(BatchTime { samples, device: each(device), host: each(host.min(device)) })
    }

    /// What a rank goes through: samplers give every data-parallel rank equally many samples, rounded up.
    fn epoch(&self, batch: BatchTime, samples: u64) -> Result<Epoch, PlanError> {
        let own = samples.div_ceil(self.plan.data.max(1));
        let (count, rest) = (own / batch.samples, own % batch.samples);
        let last = if rest == 0 || self.input.drop_last { None } else { Some(self.partial(rest)?) };
        Ok(Epoch { batch, count, last })
    }

    /// A micro-batch of fewer samples.
    fn partial(&self, samples: u64) -> Result<BatchTime, PlanError> {
        let workload = Workload { micro_batch_size: samples, ..self.workload.clone() };
        let lowered = lower(&self.scenario.model, self.cluster, self.plan, &workload)?;
        let outcome = simulate(&lowered.world, &mut NoObserver)?;
        let parts = breakdown(&lowered.ranks, &outcome, self.plan.pipeline > 1);
        self.batch_time(&workload, &parts, &outcome)
    }
}

/// The report of a step that takes `step` seconds instead of `alone`: what it takes longer is data loading.
fn slowed(report: Report, alone: f64, step: f64) -> Report {
    let slower = alone / step;
    let mut report = report.with_rates(slower).with_shares(slower);
    without_copies(&mut report.stages, slower - 1.0);
    let parts = report.time_breakdown_s;
    let data_loading = (parts.data_loading + step - alone).max(0.0);
    let mut provenance = report.provenance;
    provenance.push(Provenance {
        what: "data loading".to_owned(),
        kind: "formula".to_owned(),
        source:
            "workers, hand-over and copies played batch by batch; seconds a sample as the scenario gives them"
                .to_owned(),
        error: "storage is not looked at; cost of workers and hand-over from one host".to_owned(),
    });
    Report {
        step_time_s: Some(step),
        time_breakdown_s: TimeBreakdown { data_loading, ..parts },
        provenance,
        ..report
    }
}

/// Takes what a step became shorter by, a share of it, out of its stages: copies of the first, which workers and pinned memory
/// hide, and the others' wait for it. Nothing where the step became longer.
fn without_copies(stages: &mut [Stage], share: f64) {
    for (number, stage) in stages.iter_mut().enumerate() {
        let shorter = share.max(0.0);
        let waited = if number == 0 { 0.0 } else { shorter.min(stage.bubble_fraction) };
        stage.bubble_fraction -= waited;
        stage.busy_fraction = (stage.busy_fraction - (shorter - waited)).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use crate::files::NoFiles;
    use crate::run::run;
    use crate::scenario::Scenario;

    /// Workers and pinned memory hide copies: the step is shorter than one whose samples wait in pageable memory, and no stage is in
    /// more than all of it.
    #[test]
    fn a_step_that_loading_shortens_is_shared_out_once() {
        let report = |input: &str| {
            let text = format!(
                "[model]\nname = \"qwen3-30b-a3b\"\noverrides = {{ layers = 1 }}\n[cluster]\nname = \"dgx-a100-80gb\"\n\
                 gpus_per_node = 4\n[workload]\nprecision = \"fp16\"\nmicro_batch_size = 64\noptimizer = \"sgd\"\n\
                 gradient_accumulation_steps = 5\n[parallelism]\nzero_stage = 3\n{input}"
            );
            run(&Scenario::read("case", &text, &[], &NoFiles).unwrap(), false).unwrap().report
        };
        let (alone, hidden) = (report(""), report("[input]\nworkers = 2\nseconds_per_sample = 1e-3\n"));
        assert!(hidden.step_time_s < alone.step_time_s);
        let stage = &hidden.stages[0];
        let shares = stage.busy_fraction + stage.bubble_fraction + stage.communication_fraction;
        assert!((0.99..=1.0 + 1e-12).contains(&shares), "{stage:?}");
    }
}
