//! Inference on an RTX A5000 with and without loading its images, against published times.
//!
//! Alsatian (SIGMOD 2025): torchvision models in fp32 with PyTorch's defaults, no classifier, Imagenette images or their
//! tensors saved to files, pageable copies. A worker takes 3.45 ms an image and 0.45 ms a tensor: whole runs with one
//! worker over their samples.

use std::collections::BTreeMap;
use std::path::Path;

use steptime_scenarios::{NoFiles, Report, Scenario, run};

use crate::support::shared;

/// Seconds that one worker takes for an image, and for a tensor.
const PER_IMAGE: f64 = 3.45e-3;
const PER_TENSOR: f64 = 0.45e-3;

/// A line of a table, by column.
type Row = BTreeMap<String, String>;

/// A run of the experiment.
struct Case<'a> {
    model: &'a str,
    batch: &'a str,
    workers: &'a str,
    seconds_per_sample: f64,
    samples: u64,
}

impl Case<'_> {
    fn report(&self) -> Report {
        let name = match self.model {
            "eff_net_v2_s" => "efficientnet_v2_s",
            "eff_net_v2_l" => "efficientnet_v2_l",
            own => own,
        };
        let Self { batch, workers, seconds_per_sample, samples, .. } = self;
        let text = format!(
            "[model]\nname = \"{name}\"\nimage_size = 224\n[cluster]\nname = \"a5000-pcie-2\"\ngpus_per_node = 1\n\
             [workload]\ntask = \"inference\"\nmicro_batch_size = {batch}\nprecision = \"fp32\"\n[input]\n\
             workers = {workers}\nseconds_per_sample = {seconds_per_sample}\nsamples = {samples}\n"
        );
        run(&Scenario::read("case", &text, &[], &NoFiles).unwrap(), false).unwrap().report
    }
}

/// The rows of a table as columns by name.
fn rows(path: &Path) -> Vec<Row> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned));
    let header: Vec<String> = lines.next().unwrap().collect();
    lines.map(|fields| header.iter().cloned().zip(fields).collect()).collect()
}

/// Relative errors by model, printed; returns the median of all without their signs.
fn median_error(what: &str, errors: &[(String, f64)]) -> f64 {
    let mut by_model: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (model, error) in errors {
        by_model.entry(model).or_default().push(*error);
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    for (model, errors) in by_model {
        let (count, median) = (errors.len(), median(errors));
        eprintln!("{what} {model}: median {:+.1} % of {count}", 100.0 * median);
    }
    let all = median(errors.iter().map(|(_, error)| error.abs()).collect());
    eprintln!("{what}: median error {:.1} % of {}", 100.0 * all, errors.len());
    all
}

fn number(row: &Row, column: &str) -> f64 {
    row[column].parse().unwrap()
}

#[test]
fn batches_take_the_published_times() {
    let Some(folder) = shared() else { return };
    let errors: Vec<_> = rows(&folder.join("seeds/data/model-search/inference_times.csv"))
        .iter()
        .map(|row| {
            let (model, batch) = (&row["model"], &row["batch_size"]);
            let case = Case { model, batch, workers: "8", seconds_per_sample: 0.0, samples: 10_240 };
            let report = case.report();
            // Only the device's own part was measured.
            let inference = report.step_time_s.unwrap() - report.time_breakdown_s.data_loading;
            (model.clone(), inference / number(row, "seconds_per_batch") - 1.0)
        })
        .collect();
    assert!(median_error("a batch", &errors) <= 0.08);
}

#[test]
fn whole_runs_take_the_published_times() {
    let Some(folder) = shared() else { return };
    let folder = folder.join("seeds/data/model-search");
    let error = |row: &Row, batch: &str, workers: &str, seconds_per_sample: f64, samples: u64| {
        let model = &row["model"];
        let report = Case { model, batch, workers, seconds_per_sample, samples }.report();
        (model.clone(), report.end_to_end_s.unwrap() / number(row, "end_to_end_s") - 1.0)
    };
    let by_batch = rows(&folder.join("batch_size_impact.csv"));
    let by_batch = by_batch.iter().map(|row| error(row, &row["batch"], "8", PER_IMAGE, 9469));
    let by_workers = rows(&folder.join("end_to_end_by_workers.csv"));
    let by_workers = by_workers.iter().map(|row| {
        let seconds = if row["dataset"] == "imagenette" { PER_IMAGE } else { PER_TENSOR };
        error(row, &row["batch_size"], &row["num_workers"], seconds, 9216)
    });
    let medians = [
        median_error("8 workers", &by_batch.collect::<Vec<_>>()),
        median_error("1 to 64 workers", &by_workers.collect::<Vec<_>>()),
    ];
    assert!(medians.iter().all(|median| *median <= 0.1), "{medians:?}");
}
