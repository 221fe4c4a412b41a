//! Whole jobs, from the text of their scenarios.

use std::sync::atomic::{AtomicU64, Ordering};

use steptime_plans::{Lowered, lower, lower_times};
use steptime_scenarios::{
    Draft, Files, Job, PointVerdict, Report, Scenario, Sweep, SweepRow, goodput, run, search,
};

use crate::SetUp;

/// GPT-3 175B on 1,024 GPUs: eight stages of twelve blocks, 128 replicas of eight micro-batches of one
/// sequence. ZeRO 1 leaves more than 80 GB on a GPU; the engine notes that and plays on.
pub const GPT3: &str = r#"
name = "gpt3-175b, 128 DGX A100"

[model]
name = "gpt3-175b"
sequence_length = 2048

[cluster]
name = "dgx-a100-80gb"
nodes = 128
gpus_per_node = 8

[workload]
micro_batch_size = 1
global_batch_size = 1024
precision = "bf16"
optimizer = "adam"
attention = "flash"
activation_checkpointing = "full"

[parallelism]
data = 128
pipeline = 8
schedule = "1f1b"
zero_stage = 1
"#;

/// MT-NLG 530B as vTrain plays it (Bang et al. 2024, section V): 35 stages of 3 blocks, each shared by 8 ranks, 8 replicas,
/// 1,920 sequences.
pub const MEGATRON_530B: &str = r#"
name = "megatron-530b, 280 DGX A100"

[model]
name = "megatron-530b"

[cluster]
name = "dgx-a100-80gb"
nodes = 280

[workload]
micro_batch_size = 1
global_batch_size = 1920
precision = "bf16"
optimizer = "adam"
attention = "eager"
activation_checkpointing = "full"

[parallelism]
data = 8
tensor = 8
pipeline = 35
"#;

/// Plans of LLaMA 3 70B on up to 2,048 GPUs, some 10,000.
const SEARCH: &str = r#"
name = "llama3-70b, which plan"

[model]
name = "llama3-70b"

[cluster]
name = "dgx-h100"
nodes = 8

[workload]
micro_batch_size = 1
global_batch_size = 1024
precision = "bf16"

[search]
nodes = [8, 16, 32, 48, 64, 128, 256]
tensor = [1, 2, 4, 8]
"#;

/// Points of LLaMA 3 8B on 32 GPUs, played in part.
const SWEEP: &str = r#"
name = "llama3-8b, which plan"

[model]
name = "llama3-8b"

[cluster]
name = "dgx-h100"
nodes = 4

[workload]
micro_batch_size = 1
gradient_accumulation_steps = 32
precision = "bf16"

[sweep]
play = "part"
"parallelism.tensor" = [1, 2, 4, 8]
"parallelism.pipeline" = [1, 2, 4]
"parallelism.zero_stage" = [0, 1]
"workload.activation_checkpointing" = ["none", "full"]
"#;

/// The same over batches and numbers of nodes too: some 10,000 points, of which many have steps in common.
const LARGE_SWEEP: &str = r#"
name = "llama3-8b, which plan for which batch"

[model]
name = "llama3-8b"

[cluster]
name = "dgx-h100"

[workload]
precision = "bf16"

[sweep]
play = "part"
"cluster.nodes" = [2, 4, 8, 16]
"parallelism.tensor" = [1, 2, 4, 8]
"parallelism.pipeline" = [1, 2, 4]
"parallelism.zero_stage" = [0, 1]
"workload.activation_checkpointing" = ["none", "full"]
"workload.micro_batch_size" = [1, 2, 4]
"workload.global_batch_size" = { from = 512, to = 4864, step = 256 }
"#;

/// Which plan is best for LLaMA 3 70B on 64 H100.
const SEARCH_64: &str = r#"
name = "llama3-70b, which plan on 64 H100"

[model]
name = "llama3-70b"

[cluster]
name = "dgx-h100"
nodes = 8

[workload]
global_batch_size = 1024
precision = "bf16"
"#;

/// Scenarios that come with the workspace: file name and text.
pub const SCENARIOS: [(&str, &str); 2] = [
    ("switch-vit-64-rtx8000.toml", include_str!("../../scenarios/switch-vit-64-rtx8000.toml")),
    ("llama3-8b-h100-zero3.toml", include_str!("../../scenarios/llama3-8b-h100-zero3.toml")),
];

/// For scenarios that refer to nothing but the catalogues.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFiles;

impl Files for NoFiles {
    fn read(&self, name: &str) -> Result<String, String> {
        Err(format!("{name}: a benchmark reads no files"))
    }
}

/// [`MEGATRON_530B`] with so many sequences a step, which are as many micro-batches of its 8 replicas.
///
/// # Errors
/// The scenario is refused.
pub fn megatron(sequences: u64) -> SetUp<Scenario> {
    let options = [format!("workload.global_batch_size={sequences}")];
    Ok(Scenario::read("megatron.toml", MEGATRON_530B, &options, &NoFiles)?)
}

/// Reads a scenario from its text.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn read(file: &str, text: &str) -> SetUp<Scenario> {
    Ok(Scenario::read(file, text, &[], &NoFiles)?)
}

/// [`GPT3`], with one replica standing for all or, if `explicit`, every rank on its own.
///
/// # Errors
/// The scenario is refused.
pub fn gpt3(explicit: bool) -> SetUp<Scenario> {
    gpt3_with(explicit, &[])
}

/// The same with some keys set otherwise, as `section.key=value`.
///
/// # Errors
/// The scenario is refused.
pub fn gpt3_with(explicit: bool, options: &[String]) -> SetUp<Scenario> {
    let options = [&[format!("simulation.explicit={explicit}")], options].concat();
    Ok(Scenario::read("gpt3-175b.toml", GPT3, &options, &NoFiles)?)
}

/// Reads a scenario and runs it to its report.
///
/// # Errors
/// The scenario or its plan is refused.
pub fn read_and_run(file: &str, text: &str) -> SetUp<Report> {
    read_and_run_with(file, text, &[])
}

/// The same with some keys set otherwise, as `section.key=value`.
///
/// # Errors
/// The scenario or its plan is refused.
pub fn read_and_run_with(file: &str, text: &str, options: &[String]) -> SetUp<Report> {
    Ok(run(&Scenario::read(file, text, options, &NoFiles)?, false)?.report)
}

/// Lowers a scenario on GPUs for its times alone.
///
/// # Errors
/// As [`lower_scenario`].
pub fn lower_scenario_times(scenario: &Scenario) -> SetUp<Lowered> {
    match &scenario.job {
        Job::Gpus { cluster, plan, workload } => Ok(lower_times(&scenario.model, cluster, plan, workload)?),
        Job::Vehicles { .. } => Err(format!("{} is not a job on GPUs", scenario.name).into()),
    }
}

/// Lowers a scenario on GPUs.
///
/// # Errors
/// The plan does not fit, or the scenario is one of vehicles.
pub fn lower_scenario(scenario: &Scenario) -> SetUp<Lowered> {
    match &scenario.job {
        Job::Gpus { cluster, plan, workload } => Ok(lower(&scenario.model, cluster, plan, workload)?),
        Job::Vehicles { .. } => Err(format!("{} is not a job on GPUs", scenario.name).into()),
    }
}

/// Screens the plans of a search without playing any; returns how many there are.
///
/// # Errors
/// The scenario is refused.
pub fn screen(options: &[&str]) -> SetUp<u64> {
    let options: Vec<String> = options.iter().map(|&it| it.to_owned()).collect();
    let draft = Draft::read("search.toml", SEARCH, &options)?;
    Ok(search(&draft, &NoFiles, 0)?.counts.plans)
}

/// Plays every point of a sweep, one after the other; returns how many there are.
///
/// # Errors
/// The scenario is refused, or a point is.
pub fn sweep() -> SetUp<u64> {
    let sweep = Sweep::read(&Draft::read("sweep.toml", SWEEP, &[])?, &NoFiles)?;
    let refused =
        (0..sweep.points()).find(|point| sweep.row(*point, &NoFiles).verdict == PointVerdict::Refused);
    match refused {
        Some(point) => Err(format!("point {point} is refused").into()),
        None => Ok(sweep.points()),
    }
}

/// Plays every point of the large sweep on all cores; returns how many there are, and how many of them are refused.
///
/// # Errors
/// The scenario is refused.
pub fn large_sweep() -> SetUp<(u64, u64)> {
    let sweep = Sweep::read(&Draft::read("sweep.toml", LARGE_SWEEP, &[])?, &NoFiles)?;
    let points: Vec<u64> = (0..sweep.points()).collect();
    let refused = AtomicU64::new(0);
    let done = |row: SweepRow| {
        refused.fetch_add(u64::from(row.verdict == PointVerdict::Refused), Ordering::Relaxed);
        Ok::<_, std::convert::Infallible>(())
    };
    sweep.play(&points, &NoFiles, &done)?;
    Ok((sweep.points(), refused.into_inner()))
}

/// Searches for the best plan on 64 GPUs; returns how many plans were played, and whether the best one is proven to be it.
///
/// # Errors
/// The scenario is refused.
pub fn search_64() -> SetUp<(u64, bool)> {
    let found = search(&Draft::read("search.toml", SEARCH_64, &[])?, &NoFiles, u64::MAX)?;
    Ok((found.counts.played, found.gap == Some(0.0)))
}

/// Reads a job on 16,384 GPUs, plays its step and then as many years with failures as its scenario says; returns the mean
/// goodput.
///
/// # Errors
/// The scenario is refused.
pub fn years() -> SetUp<f64> {
    let text = include_str!("../../scenarios/what-if/llama3-405b-16k-h100.toml");
    // A run ends with its work where that is named, else after a year.
    let text: String = text
        .lines()
        .filter(|line| !line.starts_with("tokens ="))
        .map(|line| line.to_owned() + "\n")
        .collect();
    let scenario = read("llama3-405b-16k-h100.toml", &text)?;
    let step = run(&scenario, false)?.report;
    Ok(goodput(&scenario, &step)?.goodput.mean)
}

#[cfg(test)]
mod tests {
    use steptime_core::{NoObserver, simulate};

    use super::*;

    #[test]
    fn gpt3_is_lowered_to_eight_ranks_or_to_all() {
        let folded = lower_scenario(&gpt3(false).unwrap()).unwrap();
        assert_eq!((folded.folded, folded.ranks.len()), (true, 8));
        assert_eq!(folded.schedule.micro_batches, 8);
        // The embedding and the head are layers too.
        let layers: Vec<usize> =
            folded.stages.iter().map(|stage| stage.layers.iter().map(ExactSizeIterator::len).sum()).collect();
        assert_eq!(layers, [13, 12, 12, 12, 12, 12, 12, 13]);
        assert!(simulate(&folded.world, &mut NoObserver).is_ok());
        let explicit = lower_scenario(&gpt3(true).unwrap()).unwrap();
        assert_eq!((explicit.folded, explicit.ranks.len()), (false, 1024));
    }

    #[test]
    fn the_search_and_the_sweep_are_legal() {
        assert!(screen(&["search.nodes=[8]"]).unwrap() > 500);
        assert_eq!(sweep().unwrap(), 48);
    }

    #[test]
    fn a_year_has_a_goodput() {
        assert!((0.5..1.0).contains(&years().unwrap()));
    }

    #[test]
    fn the_scenarios_run() {
        for (file, text) in SCENARIOS {
            assert!(read_and_run(file, text).unwrap().step_time_s.is_some(), "{file}");
        }
    }
}
