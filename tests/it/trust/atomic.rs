//! Writers that are killed at any moment leave each file as it was or as it shall be, never half of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::SMALL;
use crate::support::{Case, root};

/// What is killed: how to make what was there before, and what shall be there after. `OUT` stands for where it goes.
struct Writer<'a> {
    before: Vec<&'a str>,
    after: Vec<&'a str>,
}

fn start(arguments: &[&str], out: &str) -> Child {
    let arguments = arguments.iter().map(|it| it.replace("OUT", out));
    Command::new(env!("CARGO_BIN_EXE_steptime"))
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// All files below a folder but those that a killed process was still writing, and journals, which are read line by line.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !name.starts_with(".tmp") && !name.ends_with(".journal") {
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Whether a file is being written somewhere below.
fn is_writing(folder: &Path) -> bool {
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        entry.file_name().to_string_lossy().starts_with(".tmp")
            || entry.file_type().is_ok_and(|it| it.is_dir()) && is_writing(&entry.path())
    })
}

impl Writer<'_> {
    fn make(arguments: &[&str]) -> (tempfile::TempDir, BTreeMap<PathBuf, Vec<u8>>, Duration) {
        let folder = tempfile::tempdir().unwrap();
        let began = Instant::now();
        let status = start(arguments, folder.path().to_str().unwrap()).wait().unwrap();
        assert!(status.code().is_some_and(|code| code < 2), "{arguments:?}: {status}");
        let made = files(folder.path());
        assert!(!made.is_empty(), "{arguments:?} wrote nothing");
        (folder, made, began.elapsed())
    }

    /// Kills it at moments spread over its run, and at the first sign of writing and a little later.
    fn survives(&self) {
        let (_old_folder, old, _) = Self::make(&self.before);
        let (_new_folder, new, took) = Self::make(&self.after);
        assert_ne!(old, new, "{:?}", self.after);
        for trial in 0..12_u32 {
            let folder = tempfile::tempdir().unwrap();
            for (name, bytes) in &old {
                let path = folder.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
            let mut child = start(&self.after, folder.path().to_str().unwrap());
            if trial < 4 {
                std::thread::sleep(took * trial / 4);
            } else {
                while !is_writing(folder.path()) && child.try_wait().unwrap().is_none() {
                    std::hint::spin_loop();
                }
                std::thread::sleep(Duration::from_micros(300) * (trial - 4));
            }
            child.kill().unwrap();
            child.wait().unwrap();
            let left = files(folder.path());
            for (name, bytes) in &left {
                let is = |files: &BTreeMap<PathBuf, Vec<u8>>| files.get(name) == Some(bytes);
                assert!(
                    is(&old) || is(&new),
                    "{:?}, trial {trial}: {} is half written",
                    self.after,
                    name.display()
                );
            }
            assert!(
                old.keys().all(|name| left.contains_key(name)),
                "{:?}, trial {trial}: a file is gone",
                self.after
            );
        }
    }
}

#[test]
fn killed_writers_leave_whole_files() {
    let case = Case::new(SMALL);
    let sweep = Case::new(&format!("{SMALL}[sweep]\n\"workload.micro_batch_size\" = [1, 2, 3, 4]\n"));
    let (path, swept) = (case.path(), sweep.path());
    let results = case.file("results").display().to_string();
    let other = case.file("other").display().to_string();
    for (out, layers) in [(&results, "model.overrides.layers=3"), (&other, "model.overrides.layers=4")] {
        let code = start(&["run", &path, "--out", "OUT", "--set", layers], out).wait().unwrap().code();
        assert_eq!(code, Some(0));
    }
    let set = "workload.micro_batch_size=2";
    let page = "OUT/page.html";
    let config = |name: &str| format!("tests/it/import/hf/{name}.json");
    let (gpt, llama) = (config("gpt2"), config("llama-3-8b"));
    let data = "tests/it/calibration/memory_bound.csv";
    let products = "tests/it/calibration/gemm.csv";
    let calibrate = ["calibrate", "gpu", "--gpu", "rtx-a5000", "--out", "OUT/gpu.toml", "--data"];
    for (before, after) in [
        (
            vec!["run", &path, "--out", "OUT"],
            vec!["run", &path, "--out", "OUT", "--set", set, "--figures", "svg,pdf"],
        ),
        (
            vec!["sweep", &swept, "--out", "OUT", "--report", page],
            vec![
                "sweep",
                &swept,
                "--out",
                "OUT",
                "--report",
                page,
                "--restart",
                "--set",
                "workload.precision=fp16",
            ],
        ),
        (
            vec!["plot", &results, "--out", "OUT"],
            vec!["plot", &other, "--out", "OUT", "--figures", "svg,pdf"],
        ),
        (
            vec!["import", "hf", &gpt, "--out", "OUT/model.toml"],
            vec!["import", "hf", &llama, "--out", "OUT/model.toml"],
        ),
        ([&calibrate[..], &[products]].concat(), [&calibrate[..], &[products, "--data", data]].concat()),
    ] {
        Writer { before, after }.survives();
    }
}

/// Rows of measured runs, made up, that took so long.
fn measured(case: &Case, name: &str, seconds: f64) -> String {
    let columns = "run_id,suite,gpu,nodes,gpus_per_node,interconnect,task,model,layers,hidden,heads,ffn,gated_mlp,vocab,\
        seq_len,micro_batch,global_batch,dp,tp,pp,zero_stage,precision,optimizer,step_time_s,peak_reserved_gib,outcome\n";
    let row = |run: u32| {
        format!(
            "run-{run},mine,h100-sxm5-80gb,1,8,nvswitch,train,llama,{run},1024,16,4096,True,32000,2048,1,8,8,1,1,0,bf16,\
             adamw,{},12,ok\n",
            seconds * f64::from(run)
        )
    };
    let path = case.file(name);
    std::fs::write(&path, columns.to_owned() + &(4..10).map(row).collect::<String>()).unwrap();
    path.display().to_string()
}

fn runs(arguments: &[&str], out: &str) {
    let code = start(arguments, out).wait().unwrap().code();
    assert_eq!(code, Some(0), "{arguments:?}");
}

/// What writes several files of its own: validation, search, merged sweeps, replays and figures.
#[test]
fn killed_writers_of_tables_and_pages_leave_whole_files() {
    let case = Case::new(SMALL);
    let path = case.path();
    let (slow, fast) = (measured(&case, "slow.csv", 0.02), measured(&case, "fast.csv", 0.01));
    let validate = |data: &'static str| {
        let files = [
            "--write-intervals",
            "OUT/i.toml",
            "--write-baseline",
            "OUT/b.toml",
            "--fidelity",
            "OUT/page/f.md",
        ];
        [&["validate", "--out", "OUT/validation", "--data", data][..], &files].concat()
    };
    let search = Case::new(&format!("{SMALL}[search]\ntensor = [1, 2]\npipeline = [1, 2]\n"));
    let searched = search.path();
    let sweep = Case::new(&format!("{SMALL}[sweep]\n\"workload.micro_batch_size\" = [1, 2, 3, 4, 5]\n"));
    let swept = sweep.path();
    let folder = |name: &str| case.file(name).display().to_string();
    let (parts, others) = (folder("parts"), folder("others"));
    let (traces, longer) = (folder("traces"), folder("longer"));
    for (part, precision) in [(&parts, "bf16"), (&others, "fp16")] {
        for shard in ["1/2", "2/2"] {
            let precision = format!("workload.precision={precision}");
            runs(&["sweep", &swept, "--shard", shard, "--out", "OUT", "--set", &precision], part);
        }
    }
    for (trace, layers) in [(&traces, "model.overrides.layers=2"), (&longer, "model.overrides.layers=3")] {
        let explicit = ["--set", "simulation.explicit=true", "--set", layers, "--trace", "chakra"];
        runs(&[&["run", &path, "--out", "OUT"][..], &explicit].concat(), trace);
    }
    let (traces, longer) = (format!("{traces}/chakra"), format!("{longer}/chakra"));
    let schedule = ["plot", "schedule", "1f1b", "--out", "OUT", "--pipeline", "4", "--micro-batches"];
    let slow_of = validate(Box::leak(slow.into_boxed_str()));
    let fast_of = validate(Box::leak(fast.into_boxed_str()));
    let replay = |folder| vec!["replay", folder, "--cluster", "dgx-h100", "--out", "OUT"];
    for (before, after) in [
        (slow_of, fast_of),
        (
            vec!["search", &searched, "--report", "OUT/page.html"],
            vec!["search", &searched, "--report", "OUT/page.html", "--set", "workload.precision=fp16"],
        ),
        (
            vec!["merge", &parts, "--out", "OUT", "--report", "OUT/page.html"],
            vec!["merge", &others, "--out", "OUT", "--report", "OUT/page.html"],
        ),
        (replay(&traces), replay(&longer)),
        ([&schedule[..], &["4"]].concat(), [&schedule[..], &["8"]].concat()),
    ] {
        Writer { before, after }.survives();
    }
}

/// What a killed writer left is removed by the next one, once it is old and nobody holds it; all else stays.
#[test]
fn what_killed_writers_left_goes_and_nothing_else() {
    let case = Case::new(SMALL);
    let out = tempfile::tempdir().unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_hours(2);
    let made = |name: &str, old: bool| {
        let path = out.path().join(name);
        let file = std::fs::File::create(&path).unwrap();
        if old {
            file.set_modified(long_ago).unwrap();
        }
        (path, file)
    };
    let (left, _) = made(".tmp-steptime-left", true);
    let (held, lock) = made(".tmp-steptime-held", true);
    let (fresh, _) = made(".tmp-steptime-fresh", false);
    let (foreign, _) = made(".tmp-else", true);
    lock.lock().unwrap();
    let folder = out.path().join(".tmp-steptime-folder");
    std::fs::create_dir(&folder).unwrap();
    runs(&["run", &case.path(), "--out", "OUT"], out.path().to_str().unwrap());
    assert!(!left.exists() && out.path().join("report.json").is_file());
    assert!(held.exists() && fresh.exists() && foreign.exists() && folder.exists());
}
