//! `steptime sweep` and `steptime merge`: the same bytes for any threads, shards and interruptions.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{report, root, steptime};

/// Twelve points of a small model, two of which cannot be and one of which does not fit.
const SWEEP: &str = r#"name = "grid"

[model]
name = "gpt2"
sequence_length = 1024

[cluster]
name = "dgx-h100"

[workload]
micro_batch_size = 1
gradient_accumulation_steps = 8
precision = "bf16"

[parallelism]
zero_stage = 1

[sweep]
"workload.micro_batch_size" = [1, 4, 4096]
"parallelism.tensor" = { from = 1, to = 4, factor = 2 }
"parallelism.pipeline" = [1, 3]
skip = "workload.micro_batch_size == 4096 and parallelism.tensor > 1"
only = ["parallelism.pipeline == 1 or parallelism.tensor == 1"]
"#;

fn write(folder: &Path, text: &str) -> String {
    let path = folder.join("sweep.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Runs a sweep into a folder and returns its table and its lines.
fn swept(scenario: &str, out: &Path, more: &[&str]) -> [Vec<u8>; 2] {
    let folder = out.to_str().unwrap();
    let output = steptime(&[&["sweep", scenario, "--out", folder, "--quiet"], more].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    assert!(output.stdout.is_empty() && error.is_empty(), "{error}");
    files(out)
}

fn files(out: &Path) -> [Vec<u8>; 2] {
    let mut names: Vec<String> = std::fs::read_dir(out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["sweep.csv", "sweep.jsonl"], "nothing else is left behind");
    ["sweep.csv", "sweep.jsonl"].map(|name| std::fs::read(out.join(name)).unwrap())
}

#[test]
fn rows_say_what_runs_of_their_points_say() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = write(folder.path(), SWEEP);
    let output = steptime(&["sweep", &scenario, "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["schema"], "steptime.sweep/1");
    // 18 in the product: conditions leave out four of the largest micro-batch with tensors shared and, of the others, the
    // four whose tensors are shared and whose stages are three.
    assert_eq!((document["points"].as_u64(), document["skipped"].as_u64()), (Some(10), Some(8)));
    let rows = document["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 10);
    let values: Vec<String> = rows
        .iter()
        .map(|row| {
            row["values"].as_object().unwrap().values().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        })
        .collect();
    let order =
        ["1 1 1", "1 1 3", "1 2 1", "1 4 1", "4 1 1", "4 1 3", "4 2 1", "4 4 1", "4096 1 1", "4096 1 3"];
    assert_eq!(values, order, "nested loops, the first axis outermost");
    let plain = write(folder.path(), SWEEP.split("[sweep]").next().unwrap());
    for row in rows {
        let set: Vec<String> =
            row["values"].as_object().unwrap().iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mut arguments = vec![plain.as_str()];
        arguments.extend(set.iter().flat_map(|set| ["--set", set.as_str()]));
        if row["verdict"] == "refused" {
            assert_eq!(row["values"]["parallelism.pipeline"], 3);
            let output = steptime(&[&["run"], &arguments[..]].concat());
            assert_eq!(output.status.code(), Some(2));
            let reason = row["reason"].as_str().unwrap();
            assert!(String::from_utf8_lossy(&output.stderr).contains(reason), "{reason}");
            continue;
        }
        let run = report(&arguments);
        for key in
            ["verdict", "step_time_s", "tokens_per_s", "time_breakdown_s", "step_time_interval_s", "gpus"]
        {
            assert_eq!(row[key], run[key], "{key} of {set:?}");
        }
        assert_eq!(row["peak_reserved_bytes"], run["peak_memory"]["reserved_bytes"]);
        let largest = row["values"]["workload.micro_batch_size"] == 4096;
        assert_eq!(row["verdict"], if largest { "out_of_memory" } else { "fits" });
        assert_eq!(row["reason"].as_str().is_some_and(|reason| reason.contains("bytes short")), largest);
    }
}

#[test]
fn the_bytes_do_not_depend_on_threads() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = write(folder.path(), SWEEP);
    let run = |jobs| swept(&scenario, &folder.path().join(jobs), &["--jobs", jobs]);
    let one = run("1");
    assert_eq!(one, run("2"));
    assert_eq!(one, run("8"));
    let printed = steptime(&["sweep", &scenario, "--jobs", "8"]);
    assert_eq!(printed.stdout, one[0], "what is printed is the table that is written");
    let text = String::from_utf8(one[0].clone()).unwrap();
    let table = csv_rows(&text);
    assert_eq!(table.len(), 11);
    assert!(table.iter().all(|row| row.len() == table[0].len()));
    assert_eq!(
        table[0][..5],
        ["point", "workload.micro_batch_size", "parallelism.tensor", "parallelism.pipeline", "verdict"]
    );
}

fn csv_rows(text: &str) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
}

#[test]
fn shards_merged_are_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = write(folder.path(), SWEEP);
    let whole = swept(&scenario, &folder.path().join("whole"), &[]);
    let parts = folder.path().join("parts");
    let parts_name = parts.to_str().unwrap();
    for shard in ["3/3", "1/3", "2/3"] {
        let output = steptime(&["sweep", &scenario, "--out", parts_name, "--shard", shard, "--quiet"]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let merged = folder.path().join("merged");
    let output = steptime(&["merge", parts_name, "--out", merged.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(files(&merged), whole);
    // The same from the environment of a Slurm array.
    let array = folder.path().join("array");
    for task in 5..8 {
        let status = Command::new(env!("CARGO_BIN_EXE_steptime"))
            .args(["sweep", &scenario, "--out", array.to_str().unwrap(), "--shard", "auto", "--quiet"])
            .env("SLURM_ARRAY_TASK_ID", task.to_string())
            .env("SLURM_ARRAY_TASK_COUNT", "3")
            .env("SLURM_ARRAY_TASK_MIN", "5")
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(0));
    }
    for index in 1..=3 {
        let name = format!("sweep-{index}-of-3.jsonl");
        assert_eq!(std::fs::read(parts.join(&name)).unwrap(), std::fs::read(array.join(&name)).unwrap());
    }
    let file = |index: u32| parts.join(format!("sweep-{index}-of-3.jsonl")).to_str().unwrap().to_owned();
    let refused = |parts: &[&str]| {
        let output = steptime(&[&["merge"], parts].concat());
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap().replace(parts_name, "parts")
    };
    assert_eq!(
        refused(&[&file(1), &file(3)]),
        "error: 3 of 10 points are missing: 1, 4, 7\n",
        "a shard that is not there"
    );
    assert_eq!(
        refused(&[&file(1), &file(2), &file(2), &file(3)]),
        "error: point 1 is in parts/sweep-2-of-3.jsonl and in parts/sweep-2-of-3.jsonl; each point must be there once\n"
    );
    let text = std::fs::read_to_string(file(3)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    std::fs::write(file(3), format!("{}\n{}\n", lines[0], lines[1])).unwrap();
    assert_eq!(
        refused(&[parts_name]),
        "error: 2 of 10 points are missing: 5, 8; parts/sweep-3-of-3.jsonl has 1 of 3 points of shard 3/3\n"
    );
    // A shard of another sweep.
    let other = write(folder.path(), &SWEEP.replace("\"gpt2\"", "\"gpt2-medium\""));
    let elsewhere = folder.path().join("other");
    steptime(&["sweep", &other, "--out", elsewhere.to_str().unwrap(), "--shard", "3/3", "--quiet"]);
    let foreign = elsewhere.join("sweep-3-of-3.jsonl");
    let error = refused(&[&file(1), &file(2), foreign.to_str().unwrap()]);
    assert!(
        error.contains("is a part of another sweep than parts/sweep-1-of-3.jsonl: fingerprint"),
        "{error}"
    );
}

/// Ninety-six points, each some milliseconds.
const LONG: &str = r#"[model]
name = "llama3-8b"
sequence_length = 2048

[cluster]
name = "dgx-h100"

[workload]
micro_batch_size = 1
gradient_accumulation_steps = 4
precision = "bf16"

[parallelism]
zero_stage = 3

[sweep.workload]
micro_batch_size = [1, 2, 3]
gradient_accumulation_steps = { from = 4, to = 11, step = 1 }
activation_checkpointing = ["none", "full"]
precision = ["bf16", "fp16"]
"#;

#[test]
fn a_killed_sweep_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = write(folder.path(), LONG);
    let whole = swept(&scenario, &folder.path().join("whole"), &[]);
    let out = folder.path().join("killed");
    let mut resumed = 0;
    // SIGKILL at random moments: another seed in every run, printed where the test fails, and taken again from the environment.
    let seed: u64 = match std::env::var("STEPTIME_TEST_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
    };
    println!("STEPTIME_TEST_SEED={seed}");
    let mut state = seed;
    let mut in_the_middle = 0;
    for _ in 0..20 {
        // A linear congruential generator (Knuth's MMIX), of which the upper half is taken.
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let mut child = Command::new(env!("CARGO_BIN_EXE_steptime"))
            .args(["sweep", &scenario, "--out", out.to_str().unwrap(), "--quiet", "--jobs", "1"])
            .current_dir(root())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // At a moment after a random number of further points, so that slow and loaded machines kill in the middle too.
        let further = (state >> 33) as usize % 4;
        let pause = Duration::from_micros((state >> 40) % 4000);
        let lines =
            || std::fs::read_to_string(out.join("sweep.journal")).map_or(0, |text| text.lines().count());
        while lines() < resumed + 1 + further && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(pause);
        child.kill().unwrap();
        child.wait().unwrap();
        let journal = out.join("sweep.journal");
        if let Ok(text) = std::fs::read_to_string(&journal) {
            let rows = text.matches('\n').count().saturating_sub(1);
            assert!(rows >= resumed, "points were lost: {rows} of {resumed}");
            in_the_middle += usize::from(rows > 0 && rows < 96);
            resumed = rows;
        }
    }
    assert!(
        in_the_middle >= 5,
        "{in_the_middle} of 20 kills met the sweep between its first and its last point"
    );
    // A line that was cut off in the middle.
    let journal = out.join("sweep.journal");
    if let Ok(mut text) = std::fs::read_to_string(&journal)
        && text.lines().count() > 1
    {
        text.truncate(text.len() - 20);
        std::fs::write(&journal, text).unwrap();
    }
    assert_eq!(swept_quietly(&scenario, &out), whole);
    // Once more: it is there already.
    assert_eq!(swept_quietly(&scenario, &out), whole);
}

fn swept_quietly(scenario: &str, out: &Path) -> [Vec<u8>; 2] {
    swept(scenario, out, &[])
}

#[test]
fn a_folder_holds_one_sweep() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = write(folder.path(), SWEEP);
    let out = folder.path().join("out");
    let name = out.to_str().unwrap();
    swept(&scenario, &out, &[]);
    let changed =
        ["sweep", &scenario, "--out", name, "--quiet", "--set", "workload.gradient_accumulation_steps=4"];
    let output = steptime(&changed);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("sweep.jsonl: holds another sweep: fingerprint"), "{error}");
    assert!(error.contains("--restart"), "{error}");
    let output = steptime(&[&changed[..], &["--restart"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    files(&out);
}

/// The message of a sweep whose `[sweep]` is this.
fn refusal(section: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let base = SWEEP.split("[sweep]").next().unwrap();
    let scenario = write(folder.path(), &format!("{base}{section}"));
    let output = steptime(&["sweep", &scenario]);
    assert_eq!(output.status.code(), Some(2), "{section}: {}", String::from_utf8_lossy(&output.stdout));
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap().replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn what_is_wrong_with_axes_is_said_exactly() {
    let cases = [
        "",
        "[sweep]\n",
        "[sweep]\n\"workload.micro_batch_sise\" = [1, 2]",
        "[sweep]\n\"workload.precision\" = [\"bf16\", \"bf61\"]",
        "[sweep]\n\"worklaod.precision\" = [\"bf16\"]",
        "[sweep]\nmicro_batch_size = [1]",
        "[sweep]\n\"workload.micro_batch_size\" = 4",
        "[sweep]\n\"workload.micro_batch_size\" = []",
        "[sweep]\n\"workload.micro_batch_size\" = [1, 2, 1]",
        "[sweep]\n\"workload.micro_batch_size\" = { from = 1, to = 8 }",
        "[sweep]\n\"workload.micro_batch_size\" = { from = 1, to = 8, step = 0 }",
        "[sweep]\n\"workload.micro_batch_size\" = { from = 8, to = 1, factor = 2 }",
        "[sweep]\n\"workload.micro_batch_size\" = { from = 1, to = 8, step = 1, factor = 2 }",
        "[sweep]\n\"workload.micro_batch_size\" = { from = 1, too = 8, step = 1 }",
        "[sweep]\n\"workload.micro_batch_size\" = { from = 1, to = 1e9, step = 1 }",
        "[sweep]\n\"workload.micro_batch_size\" = [1]\nworkload.micro_batch_size = [2]",
        "[sweep]\n\"workload.micro_batch_size\" = [1, 2]\n\"parallelism.tensor\" = [1]\nzip = [[\"workload.micro_batch_size\", \"parallelism.tensor\"]]",
        "[sweep]\n\"workload.micro_batch_size\" = [1, 2]\nzip = [[\"workload.micro_batch_size\", \"parallelism.tenser\"]]",
        "[sweep]\n\"workload.micro_batch_size\" = [1, 2]\nzip = [[\"workload.micro_batch_size\"]]",
        "[sweep]\n\"workload.micro_batch_size\" = [1, 2]\nskip = \"parallelism.tensro > 1\"",
        "[sweep]\n\"workload.micro_batch_size\" = [1, 2]\nskip = \"workload.micro_batch_size >\"",
        "[sweep]\n\"workload.micro_batch_size\" = [1, 2]\nonly = \"workload.micro_batch_size > 2\"",
        "[sweep]\n\"workload.micro_batch_size\" = [1, 2]\nplay = \"some\"",
    ];
    let mut all = String::new();
    for case in cases {
        all += &format!("{}\n    {}", case.replace('\n', " / "), refusal(case));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn axes_that_move_together_are_one() {
    let folder = tempfile::tempdir().unwrap();
    let base = SWEEP.split("[sweep]").next().unwrap();
    let scenario = write(
        folder.path(),
        &format!(
            "{base}[sweep]\n\"workload.micro_batch_size\" = [1, 2]\n\"parallelism.tensor\" = [1, 2]\n\
             \"workload.gradient_accumulation_steps\" = {{ from = 8, to = 4, step = -4 }}\n\
             zip = [[\"workload.micro_batch_size\", \"workload.gradient_accumulation_steps\"]]\n"
        ),
    );
    let output = steptime(&["sweep", &scenario]);
    let rows = csv_rows(&String::from_utf8(output.stdout).unwrap());
    let values: Vec<String> = rows[1..].iter().map(|row| row[1..4].join(" ")).collect();
    assert_eq!(values, ["1 1 8", "1 2 8", "2 1 4", "2 2 4"]);
}
