//! `cargo bench -p steptime-benches --bench gates`: work of the sizes that the project promises, each in a process of its
//! own, beside its limit and beside a plain loop that is timed in the same process.
//!
//! `-- --markdown FILE` writes the table as the page docs/performance.md. `-- --count NAME` does a small work once, for
//! counting instructions (`.ci/instructions`); `-- --counts` lists the names.

#![expect(clippy::print_stdout, reason = "a table is what it is for")]

mod counted;
mod growth;
mod row;
mod work;

use std::hint::black_box;
use std::path::Path;
use std::process::Command;

use row::{Row, Shown};
use steptime_benches::SetUp;

/// A name, what is measured, and the most memory of the process that it may take, MiB.
type Gate = (&'static str, fn() -> SetUp<Row>, Option<f64>);

const GATES: [Gate; 29] = [
    ("queue hold, 100 pending", || Ok(work::hold(100)), None),
    ("queue hold, 10,000 pending", || Ok(work::hold(10_000)), None),
    ("queue hold, 1,000,000 pending", || Ok(work::hold(1_000_000)), None),
    ("interpreter, a kernel", || work::interpreter(0), None),
    ("interpreter, a kernel, 1,024 in flight", || work::interpreter(1024), None),
    ("allocator, an alloc and a free", work::allocator, None),
    ("max-min shares, 65,280 flows at once", work::exchange, None),
    ("lowering, GPT-3 175B folded, times", work::lowering, None),
    ("GPT-3 175B, 1F1B, 1,024 GPUs folded, with memory", work::gpt3, None),
    ("the same explicit, with memory accounting", work::explicit, Some(200.0)),
    ("the same on 16,384 GPUs, explicit, each kernel of each rank", work::explicit_16k, Some(4096.0)),
    ("Megatron 530B, 2,240 GPUs folded, with memory", work::megatron, Some(80.0)),
    ("Megatron 530B, step time alone", work::megatron_times, Some(80.0)),
    ("ring all-reduce, 2,048 ranks, 8.4 M messages", work::ring, Some(64.0)),
    ("first number of a small scenario", work::first_number, None),
    ("GPT-3 175B on 100,352 GPUs folded", work::large, None),
    ("screen of 10,000 plans, one core", work::screen, None),
    ("sweep of 10,000 points in part, no two alike, one core", work::sweep, None),
    ("sweep of 10,368 points in part over plans, nodes and batches, all cores", work::large_sweep, None),
    ("search, LLaMA 3 70B on 64 H100, all cores", work::search_64, None),
    ("failures, a year of a job on 16,384 GPUs, with its step", work::years, None),
    ("optimum of ten unequal vehicles", work::vehicles, None),
    ("growth of explicit play with ranks", growth::explicit, None),
    ("growth of folded play with replicas", growth::replicas, None),
    ("growth of folded play with micro-batches", growth::micro_batches, None),
    ("growth of folded play with micro-batches that repeat themselves", growth::rounds, None),
    ("growth of folded play with layers", growth::layers, None),
    ("growth of lowering with micro-batches", growth::lowering, None),
    ("growth of a ring with ranks", growth::ring, None),
];

fn main() -> SetUp<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |name: &str| {
        let at = arguments.iter().position(|it| it == name)?;
        Some(arguments.get(at + 1).cloned().unwrap_or_default())
    };
    if let Some(number) = after("--row") {
        keep_freed_memory();
        let gate = GATES.get(number.parse::<usize>()?).ok_or("no such row")?;
        println!("{}", gate.1()?.line(peak_mib().unwrap_or(0.0)));
        return Ok(());
    }
    if let Some(name) = after("--count") {
        return counted::run(&name);
    }
    if arguments.iter().any(|it| it == "--counts") {
        for (name, _) in counted::COUNTED {
            println!("{name}");
        }
        return Ok(());
    }
    let mut shown = Vec::with_capacity(GATES.len());
    println!("{}", Shown::HEADER);
    for (number, (name, _, memory)) in GATES.iter().enumerate() {
        let mut command = Command::new(std::env::current_exe()?);
        if !name.ends_with("all cores") {
            command.env("RAYON_NUM_THREADS", "1");
        }
        let output = command.args(["--row", &number.to_string()]).output()?;
        let row = Shown::read(name, &String::from_utf8_lossy(&output.stdout), *memory)
            .ok_or_else(|| format!("{name}: {}", String::from_utf8_lossy(&output.stderr)))?;
        println!("{}", row.text());
        shown.push(row);
    }
    if let Some(file) = after("--markdown") {
        // Cargo starts benchmarks in the folder of their crate; paths are meant from the project's.
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        std::fs::write(project.join(file), row::page(&shown))?;
    }
    Ok(())
}

/// As the program does before anything else. Without it a large run asks the system for each of its pages anew, and a small
/// one, of which the C library keeps all, does not.
fn keep_freed_memory() {
    let mut block: Vec<u8> = Vec::new();
    let _ = block.try_reserve_exact(31 << 20);
    drop(black_box(block));
}

/// Most memory of this process so far, where the system says.
fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}
