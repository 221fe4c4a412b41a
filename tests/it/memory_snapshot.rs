//! What `run --out` writes of memory, and the section `[allocator]`.

use std::process::Command;

use super::support::{number, report, root, steptime};

const SCENARIO: &str = "scenarios/llama3-8b-h100-zero0.toml";

fn scenario() -> String {
    root().join(SCENARIO).display().to_string()
}

/// Python reads the pickle as PyTorch's tools do: segments cover their blocks, and events come with their tensors.
#[test]
fn python_reads_the_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().display().to_string();
    let output = steptime(&["run", "--quiet", &scenario(), "--out", &out]);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stderr));
    let csv = std::fs::read_to_string(folder.path().join("memory.csv")).unwrap();
    assert!(csv.starts_with("rank,stage,step,time_s,event,tensor"));
    let events = csv.lines().count() - 1;
    let program = format!(
        "import pickle\n\
         s = pickle.load(open(r'{out}/memory_snapshot.pickle', 'rb'))\n\
         assert {{'segments', 'device_traces', 'allocator_settings'}} <= s.keys()\n\
         assert sum(map(len, s['device_traces'])) == {events}\n\
         for g in s['segments']:\n\
         \x20   assert sum(b['size'] for b in g['blocks']) == g['total_size']\n\
         \x20   held = [b for b in g['blocks'] if b['state'] == 'active_allocated']\n\
         \x20   assert sum(b['size'] for b in held) == g['allocated_size']\n\
         actions = {{e['action'] for t in s['device_traces'] for e in t}}\n\
         assert {{'alloc', 'free_requested', 'free_completed', 'segment_alloc'}} <= actions, actions\n\
         first = next(e for e in s['device_traces'][0] if e['action'] == 'alloc')\n\
         assert first['frames'][0]['name'].endswith('parameters'), first\n\
         assert first['frames'][0]['filename'] == 'parameters'\n"
    );
    match Command::new("python3").args(["-c", &program]).output() {
        Ok(python) => {
            assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
        }
        Err(error) => eprintln!("SKIPPED: python3 cannot be run: {error}"),
    }
}

/// A run that is out of memory ends with the request that failed, in the snapshot and in the timeline.
#[test]
fn a_failed_request_is_an_event_and_a_mark() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().display().to_string();
    let options =
        ["--set", "workload.micro_batch_size=16", "--set", "workload.gradient_accumulation_steps=1"];
    let output = steptime(&[&["run", "--quiet", &scenario(), "--out", &out], &options[..]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(folder.path().join(name)).unwrap()).unwrap()
    };
    let (report, timeline) = (read("report.json"), read("timeline.json"));
    let failure = &report["out_of_memory"];
    let mark = &timeline["ranks"][0]["failed_request"];
    for key in ["tensor", "requested_bytes", "step"] {
        assert_eq!(mark[key], failure[key], "{key}");
    }
    let capacity = number(&report["peak_memory"]["capacity_bytes"]);
    assert!(number(&mark["needed_bytes"]) > capacity);
    let levels = timeline["ranks"][0]["reserved"].as_array().unwrap();
    assert!(levels.iter().all(|level| number(&level["bytes"]) <= capacity));
    let requested = &failure["requested_bytes"];
    let program = format!(
        "import pickle\n\
         s = pickle.load(open(r'{out}/memory_snapshot.pickle', 'rb'))\n\
         last = s['device_traces'][0][-1]\n\
         assert last['action'] == 'oom' and last['size'] == {requested}, last\n\
         assert 'addr' not in last and last['device_free'] >= 0\n\
         assert sum(e['action'] == 'oom' for t in s['device_traces'] for e in t) == 1\n"
    );
    match Command::new("python3").args(["-c", &program]).output() {
        Ok(python) => assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr)),
        Err(error) => eprintln!("SKIPPED: python3 cannot be run: {error}"),
    }
}

#[test]
fn settings_of_the_allocator_act() {
    let file = scenario();
    let peak = |options: &[&str]| {
        let report = report(&[&[file.as_str()], options].concat());
        let memory = &report["peak_memory"];
        (number(&memory["allocated_bytes"]), number(&memory["reserved_bytes"]))
    };
    let plain = peak(&[]);
    let expandable = peak(&["--set", "allocator.expandable_segments=true"]);
    assert!(expandable.1 <= plain.1, "{expandable:?} against {plain:?}");
    assert!(expandable.0 <= expandable.1 && plain.0 <= plain.1);
    let rounded = peak(&["--set", "allocator.roundup_power2_divisions=1"]);
    assert!(rounded.0 >= plain.0);
    let coarse = peak(&["--set", "allocator.roundup_power2_divisions=2"]);
    assert!(coarse.0 > plain.0, "sizes are rounded up to halves of powers of two");
}

#[test]
fn wrong_settings_of_the_allocator_are_named() {
    let file = scenario();
    for (option, words) in [
        ("allocator.max_split_size_mb=19", "allocator.max_split_size_mb"),
        ("allocator.roundup_power2_divisions=3", "allowed: 0 or a power of two"),
        ("allocator.garbage_collection_threshold=0.8", "set allocator.memory_fraction, too"),
        ("allocator.expandable_segment=true", "allocator.expandable_segment"),
    ] {
        let output = steptime(&["run", &file, "--set", option]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{option}");
        assert!(error.contains(words), "{option}: {error}");
    }
}
