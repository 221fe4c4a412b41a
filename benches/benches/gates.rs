//! `cargo bench -p steptime-benches --bench gates`: work of the sizes that the project promises, each in a process of its
//! own, beside its limit. Limits that are ratios come from a loop that is timed in the same process.

#![expect(clippy::print_stdout, reason = "a table is what it is for")]

use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use steptime_benches as set_up;
use steptime_benches::{Delays, SetUp};
use steptime_core::allocator::{Allocator, Config};
use steptime_core::{NoObserver, simulate};

/// What a row measured, and what it may be at most.
struct Row {
    measured: f64,
    limit: f64,
    unit: &'static str,
    note: String,
}

/// A name, what is measured, and the most memory of the process that it may take, MiB.
type Gate = (&'static str, fn() -> SetUp<Row>, Option<f64>);

const GATES: [Gate; 12] = [
    ("queue, 100 pending, std heap = 1", || Ok(hold(100)), None),
    ("queue, 10,000 pending, std heap = 1", || Ok(hold(10_000)), None),
    ("queue, 1,000,000 pending, std heap = 1", || Ok(hold(1_000_000)), None),
    ("allocator, an alloc and a free", allocator, None),
    ("GPT-3 175B, 1F1B, 1,024 GPUs folded, with memory", || job(set_up::GPT3, &[], 15.0), None),
    ("the same explicit, with memory accounting", explicit, Some(200.0)),
    ("Megatron 530B, 2,240 GPUs folded, with memory", || job(set_up::MEGATRON_530B, &[], 100.0), Some(80.0)),
    ("Megatron 530B, step time alone", megatron_times, Some(80.0)),
    ("ring all-reduce, 2,048 ranks, 8.4 M messages", ring, Some(64.0)),
    ("first number of a small scenario", || job(set_up::SCENARIOS[1].1, &[], 10.0), None),
    ("GPT-3 175B on 100,352 GPUs folded", large, None),
    ("growth of explicit play with ranks, exponent", growth, None),
];

fn main() -> SetUp<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|it| it == "--row") {
        let number: usize = arguments.get(at + 1).map_or(Ok(0), |it| it.parse())?;
        let row = GATES[number].1()?;
        println!(
            "{}\t{}\t{}\t{}\t{}",
            row.measured,
            row.limit,
            row.unit,
            peak_mib().unwrap_or(0.0),
            row.note
        );
        return Ok(());
    }
    println!("{:<52} {:>10} {:>10} {:>7} {:>16}", "work", "ours", "limit", "ratio", "memory, MiB");
    for (number, (name, _, memory)) in GATES.iter().enumerate() {
        let output = Command::new(std::env::current_exe()?).args(["--row", &number.to_string()]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut fields = text.trim_end().split('\t');
        let mut next = || fields.next().unwrap_or_default().to_owned();
        let (measured, limit, unit, peak, note) = (next(), next(), next(), next(), next());
        let (measured, limit) = (measured.parse::<f64>()?, limit.parse::<f64>()?);
        let peak: f64 = peak.parse()?;
        let memory = match memory {
            Some(most) => format!("{peak:.0} of {most:.0} {}", if peak <= *most { "" } else { "!" }),
            None => format!("{peak:.0}"),
        };
        let verdict = if measured <= limit { "" } else { "!" };
        let (measured, limit, ratio) = (shown(measured, &unit), shown(limit, &unit), measured / limit);
        println!("{name:<52} {measured:>10} {limit:>10} {ratio:>6.2}{verdict:1} {memory:>16}  {note}");
    }
    Ok(())
}

fn shown(value: f64, unit: &str) -> String {
    format!("{value:.3} {unit}")
}

/// Most memory of this process so far, where the system says.
fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

/// Least seconds of some runs.
fn best<T>(runs: u32, mut work: impl FnMut() -> T) -> f64 {
    let one = |_| {
        let start = Instant::now();
        black_box(work());
        start.elapsed().as_secs_f64()
    };
    (0..runs).map(one).fold(f64::INFINITY, f64::min)
}

fn hold(pending: u64) -> Row {
    const HOLDS: u64 = 200_000;
    let (mut left, mut right) = (Delays::default(), Delays::default());
    let mut queue = set_up::event_queue(pending, &mut left);
    let mut heap = set_up::binary_heap(pending, &mut right);
    let (mut ours, mut theirs) = (f64::INFINITY, f64::INFINITY);
    // In turns, so that whatever else the machine does hits both.
    for _ in 0..9 {
        ours = ours.min(best(1, || {
            for _ in 0..HOLDS {
                black_box(set_up::hold_in_event_queue(&mut queue, &mut left));
            }
        }));
        theirs = theirs.min(best(1, || {
            for _ in 0..HOLDS {
                black_box(set_up::hold_in_binary_heap(&mut heap, &mut right));
            }
        }));
    }
    let nanos = |seconds: f64| seconds / HOLDS as f64 * 1e9;
    let note = format!("{:.1} ns, std {:.1} ns", nanos(ours), nanos(theirs));
    Row { measured: ours / theirs, limit: 1.0, unit: "x", note }
}

fn allocator() -> SetUp<Row> {
    let turns = set_up::training_step();
    let mut allocator = Allocator::new(Config::default())?;
    let mut slots = set_up::slots();
    let seconds = best(200, || set_up::play_step(&mut allocator, &mut slots, &turns).is_ok());
    let pairs = turns.len() as f64 / 2.0;
    let note = format!("{:.1} million pairs/s", pairs / seconds / 1e6);
    Ok(Row { measured: seconds / pairs * 1e9, limit: 200.0, unit: "ns", note })
}

/// From the text of a scenario to its report, once from the start of the process and then again.
fn job(text: &str, options: &[String], limit_ms: f64) -> SetUp<Row> {
    let start = Instant::now();
    let report = set_up::read_and_run_with("scenario.toml", text, options)?;
    let first = start.elapsed().as_secs_f64();
    let again = best(4, || set_up::read_and_run_with("scenario.toml", text, options).is_ok());
    let step = report.step_time_s.unwrap_or_default();
    let note = format!("then {:.1} ms; a step of {step:.3} s", again * 1e3);
    Ok(Row { measured: first.min(again) * 1e3, limit: limit_ms, unit: "ms", note })
}

fn explicit() -> SetUp<Row> {
    let scenario = set_up::gpt3(true)?;
    let start = Instant::now();
    let lowered = set_up::lower_scenario(&scenario)?;
    let outcome = simulate(&lowered.world, &mut NoObserver)?;
    let seconds = start.elapsed().as_secs_f64();
    let note = format!("{:.1} M records", outcome.operations as f64 / 1e6);
    Ok(Row { measured: seconds * 1e3, limit: 250.0, unit: "ms", note })
}

fn megatron_times() -> SetUp<Row> {
    let scenario = set_up::read("megatron.toml", set_up::MEGATRON_530B)?;
    let start = Instant::now();
    let lowered = set_up::lower_scenario_times(&scenario)?;
    let outcome = simulate(&lowered.world, &mut NoObserver)?;
    let seconds = start.elapsed().as_secs_f64();
    let note = format!("{:.2} M records", outcome.operations as f64 / 1e6);
    Ok(Row { measured: seconds * 1e3, limit: 100.0, unit: "ms", note })
}

fn ring() -> SetUp<Row> {
    let start = Instant::now();
    let world = set_up::ring(2048, 1 << 20)?;
    let outcome = simulate(&world, &mut NoObserver)?;
    let seconds = start.elapsed().as_secs_f64();
    let note = format!("ends at {:.3} ms", outcome.end.seconds() * 1e3);
    Ok(Row { measured: seconds, limit: 0.8, unit: "s", note })
}

fn large() -> SetUp<Row> {
    let options = ["cluster.nodes=12544", "parallelism.data=12544", "workload.global_batch_size=100352"];
    job(set_up::GPT3, &options.map(str::to_owned), 50.0)
}

/// Slope of the logarithms of time and ranks between 128 and 1,024 ranks.
fn growth() -> SetUp<Row> {
    let seconds = |nodes: u32| -> SetUp<(f64, f64)> {
        let sizes = [
            ("cluster.nodes", nodes),
            ("parallelism.data", nodes),
            ("workload.global_batch_size", 8 * nodes),
        ];
        let options = sizes.map(|(key, value)| format!("{key}={value}"));
        let scenario = set_up::gpt3_with(true, &options)?;
        let lowered = set_up::lower_scenario(&scenario)?;
        let operations = simulate(&lowered.world, &mut NoObserver)?.operations as f64;
        Ok((operations, best(5, || simulate(&lowered.world, &mut NoObserver).is_ok())))
    };
    let ((few, fast), (many, slow)) = (seconds(16)?, seconds(128)?);
    let exponent = (slow / fast).ln() / (many / few).ln();
    let note = format!("{:.1} and {:.1} ns a record", fast / few * 1e9, slow / many * 1e9);
    Ok(Row { measured: exponent, limit: 1.05, unit: "", note })
}
