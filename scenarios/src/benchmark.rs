//! The `[benchmark]` section: what a measured mean counts beside steps at their pace.

use crate::error::InputError;
use crate::report::{Provenance, Report, TimeBreakdown};
use crate::section::Section;

/// Most steps of a benchmark.
const MOST_STEPS: u64 = 1 << 32;
/// Longest start, seconds.
const LONGEST: f64 = 86_400.0;

/// A mean over few steps, the start of the libraries counted in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Benchmark {
    /// Steps that the time is divided by.
    pub steps: u64,
    /// Steps that the time covers.
    pub steps_run: u64,
    /// Time within the measured one before steps run at their pace, seconds.
    pub start_s: f64,
}

impl Benchmark {
    /// Reads the section.
    pub(crate) fn read(section: Section<'_>) -> Result<Option<Self>, InputError> {
        if !section.is_present() {
            return Ok(None);
        }
        let needed = "a whole number: the steps that the measured time is divided by";
        let steps = section.count("steps", MOST_STEPS)?.ok_or_else(|| section.missing("steps", needed))?;
        let steps_run = section.count("steps_run", MOST_STEPS)?.unwrap_or(steps);
        let start_s = section.factor("start_seconds", 0.0, LONGEST)?.unwrap_or(0.0);
        section.finish()?;
        Ok(Some(Self { steps, steps_run, start_s }))
    }

    /// The report with the mean that such a benchmark finds: `(start + steps run x step) / steps`.
    pub(crate) fn mean(self, report: Report) -> Report {
        let Some(alone) = report.step_time_s.filter(|step| *step > 0.0) else { return report };
        let steps = self.steps as f64;
        let mean = (self.start_s + self.steps_run as f64 * alone) / steps;
        let slower = alone / mean;
        // Where fewer steps ran than the time is divided by, the mean holds a part of a step.
        let held = (self.steps_run as f64 / steps).min(1.0);
        let report = report.with_rates(slower).with_shares(slower * held);
        let own = report.time_breakdown_s;
        let parts = own.with(&own, |part, _| part * held);
        let mut provenance = report.provenance;
        provenance.push(Provenance {
            what: "benchmark".to_owned(),
            kind: "formula".to_owned(),
            source: format!(
                "time of {} steps of {alone:.4} s and {} s of start over {} steps, as the scenario gives them",
                self.steps_run, self.start_s, self.steps
            ),
            error: "none beside the step's own".to_owned(),
        });
        let other = parts.other + (mean - alone * held).max(0.0);
        Report {
            step_time_s: Some(mean),
            time_breakdown_s: TimeBreakdown { other, ..parts },
            provenance,
            ..report
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::files::NoFiles;
    use crate::run::run;
    use crate::scenario::Scenario;

    fn report(section: &str) -> crate::report::Report {
        let text = format!(
            "[model]\nname = \"resnet18\"\n[cluster]\nname = \"a5000-pcie-2\"\ngpus_per_node = 1\n[workload]\n\
             micro_batch_size = 32\nprecision = \"fp32\"\n{section}"
        );
        run(&Scenario::read("case", &text, &[], &NoFiles).unwrap(), false).unwrap().report
    }

    /// 2 s over 100 steps are 20 ms a step; 110 steps for 100 are a tenth more.
    #[test]
    fn a_mean_counts_the_start_and_all_steps() {
        let alone = report("");
        let step = alone.step_time_s.unwrap();
        let mean = report("[benchmark]\nsteps = 100\nsteps_run = 110\nstart_seconds = 2\n");
        let expected = 1.1 * step + 0.02;
        assert!((mean.step_time_s.unwrap() - expected).abs() < 1e-12);
        assert!((mean.samples_per_s.unwrap() - 32.0 / expected).abs() < 1e-6);
        let parts: f64 = mean.time_breakdown_s.entries().iter().map(|(_, part)| part).sum();
        assert!((parts - expected).abs() < 1e-9);
        assert_eq!(mean.peak_memory, alone.peak_memory);
    }

    /// 50 steps counted as 100: half a step, each part of it halved, and no stage is busy for longer than it.
    #[test]
    fn fewer_steps_than_counted_leave_a_part_of_each() {
        let alone = report("");
        let mean = report("[benchmark]\nsteps = 100\nsteps_run = 50\n");
        for ((name, part), (_, whole)) in
            mean.time_breakdown_s.entries().iter().zip(alone.time_breakdown_s.entries())
        {
            assert!((part - whole / 2.0).abs() < 1e-12, "{name}: {part} of {whole}");
        }
        assert!((mean.stages[0].busy_fraction - alone.stages[0].busy_fraction).abs() < 1e-12);
    }
}
