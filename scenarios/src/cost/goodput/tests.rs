//! Long runs against closed forms.

use super::*;
use crate::files::NoFiles;

fn failures(section: &str) -> Failures {
    let text = format!(
        "[model]\nname = \"gpt2\"\n[cluster]\nname = \"dgx-h100\"\n[workload]\nmicro_batch_size = 1\nprecision = \"bf16\"\n\
         [failures]\n{section}\n"
    );
    Scenario::read("case", &text, &[], &NoFiles).unwrap().failures.unwrap()
}

fn times(blocks_s: f64, write_s: f64, read_s: f64) -> Times {
    Times { blocks: blocks_s, write: write_s, read: read_s }
}

fn near(found: Share, expected: f64, what: &str) {
    let error = (found.confidence[1] - found.mean) / 1.96;
    assert!((found.mean - expected).abs() < 4.0 * error + 1e-4, "{what}: {} for {expected}", found.mean);
}

/// Daly 2006, equation 20, is exact for exponential failures that also strike during checkpoints and restarts.
#[test]
fn exponential_failures_give_dalys_closed_form() {
    let section = "components = [{ name = \"gpu\", per = \"gpu\", mean_hours = 20480 }]\n\
                   checkpoint = { write_seconds = 60 }\nrestart_seconds = 300";
    let failures = failures(section);
    for (gpus, interval, write, read) in
        [(1024, 2000.0, 60.0, 120.0), (16_384, 500.0, 60.0, 120.0), (16_384, 3000.0, 20.0, 0.0)]
    {
        let times = times(write, write, read);
        let job = Job { failures: &failures, gpus, nodes: gpus / 8, times, end: End::Time(365.0 * 86_400.0) };
        let runs = job.runs(interval, 60);
        let mean = failures.mean_between(gpus, gpus / 8);
        let expected = expected_goodput(interval, write, 300.0 + read, mean);
        near(spread(runs.iter().map(|run| run.kept / run.wall).collect()), expected, "goodput");
        let rate = mean_of(&runs, |run| run.failures as f64 / run.wall) * mean;
        assert!((rate - 1.0).abs() < 0.01, "{rate}");
    }
}

/// Failures at a constant rate and one crew that repairs are an M/M/1 queue: more than `s` nodes are away for
/// `rho^(s + 1)` of the time. With crews without end they are M/M/infinity: Poisson with mean `rho`.
#[test]
fn waiting_for_nodes_follows_queues() {
    for (crews, spares, load) in
        [("1", 0, 0.5), ("1", 1, 0.5), ("1", 3, 0.7), ("1000", 1, 0.5), ("1000", 0, 0.3)]
    {
        // 1,000 nodes that fail every 10,000 h: one failure every 10 h.
        let section = format!(
            "components = [{{ name = \"node\", per = \"node\", mean_hours = 10000, repair_hours = {} }}]\n\
             checkpoint = {{ write_seconds = 0 }}\nspare_nodes = {spares}\nrepair_crews = {crews}",
            10.0 * load
        );
        let failures = failures(&section);
        let job = Job {
            failures: &failures,
            gpus: 8000,
            nodes: 1000,
            times: times(0.0, 0.0, 0.0),
            end: End::Time(4e8),
        };
        let runs = job.runs(36_000.0, 40);
        let expected = if crews == "1" {
            libm::pow(load, f64::from(spares + 1))
        } else {
            let mut term = libm::exp(-load);
            let mut below = term;
            for k in 1..=spares {
                term *= load / f64::from(k);
                below += term;
            }
            1.0 - below
        };
        near(
            spread(runs.iter().map(|run| run.waiting / run.wall).collect()),
            expected,
            &format!("{crews} {spares}"),
        );
    }
}

#[test]
fn parts_of_a_run_are_all_of_it() {
    let section = "components = [{ name = \"gpu\", per = \"gpu\", mean_hours = 5000, weibull_shape = 0.8, repair_hours = 24 }, \
                   { name = \"network\", per = \"job\", mean_hours = 300 }]\n\
                   checkpoint = { write_seconds = 120, asynchronous = true, blocks_seconds = 5 }\nrestart_seconds = 300\n\
                   detect_seconds = 60\nspare_nodes = 2\nrepair_crews = 2\nmaintenance = { every_days = 20, hours = 8 }";
    let failures = failures(section);
    for end in [End::Time(1e7), End::Work(5e6)] {
        let job = Job { failures: &failures, gpus: 256, nodes: 32, times: times(5.0, 120.0, 60.0), end };
        for run in job.runs(1800.0, 8) {
            let parts = run.kept + run.lost + run.checkpoints + run.restarts + run.waiting + run.maintenance;
            assert!((parts - run.wall).abs() < 1e-6 * run.wall, "{run:?}: {parts}");
            assert!(
                [run.kept, run.lost, run.checkpoints, run.restarts, run.maintenance]
                    .iter()
                    .all(|part| *part > 0.0)
            );
            match end {
                End::Time(seconds) => assert!((run.wall - seconds).abs() < 10.0 * 3600.0, "{run:?}"),
                End::Work(seconds) => assert!((run.kept - seconds).abs() < 1e-3, "{run:?}"),
            }
        }
    }
}

/// A run does not depend on the threads that play it, and the best interval is no worse than Daly's.
#[test]
fn runs_repeat_and_the_best_interval_is_best() {
    let section = "components = [{ name = \"gpu\", per = \"gpu\", mean_hours = 10000 }]\n\
                   checkpoint = { write_seconds = 60 }\nrestart_seconds = 300";
    let failures = failures(section);
    let job = Job {
        failures: &failures,
        gpus: 4096,
        nodes: 512,
        times: times(60.0, 60.0, 60.0),
        end: End::Time(4e6),
    };
    let goodput = |interval: f64| mean_of(&job.runs(interval, 24), |run| run.kept / run.wall);
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(|| goodput(800.0));
    assert!((alone - goodput(800.0)).abs() < f64::EPSILON);
    let daly = crate::cost::daly_interval(60.0, failures.mean_between(4096, 512));
    assert!(goodput(job.best_interval(daly)) >= goodput(daly));
    assert!(goodput(4.0 * daly) < goodput(daly) && goodput(daly / 4.0) < goodput(daly));
}
