//! GPUs of several kinds, switches between nodes, and other jobs on them, from the scenario to the report.

use serde_json::Value;

use crate::support::{number, report, steptime};

const MIXED: &str = "scenarios/llama3-8b-mixed-gpus.toml";
const TREE: &str = "scenarios/llama3-8b-h100-fat-tree.toml";

fn step(arguments: &[&str]) -> f64 {
    number(&report(arguments)["step_time_s"])
}

#[test]
fn a_mixed_job_reports_both_kinds() {
    let document = report(&[MIXED]);
    let device = |stage: usize| document["stages"][stage]["device"].as_str().unwrap().to_owned();
    assert_eq!([device(0), device(1)], ["h100-80gb-sxm", "a100-80gb-sxm"]);
    assert_eq!(document["gpus"], 16);
    // Equal micro-batches leave the throttled GPUs more to do, equal stages the older ones.
    let equal = step(&[MIXED, "--set", "parallelism.micro_batches=[2, 2, 2, 2, 2, 2, 2, 2]"]);
    let even = step(&[MIXED, "--set", "parallelism.stages=[4, 4]"]);
    let own = number(&document["step_time_s"]);
    assert!(own < even, "{own} {even}");
    assert!((own - equal).abs() > 1e-6, "{own} {equal}");
}

/// The GPU with the least memory decides whether a job fits, wherever it is.
#[test]
fn the_smaller_device_runs_out_first() {
    let text = |groups: &str| {
        format!(
            "[model]\nname = \"gpt2-xl\"\n{groups}[workload]\nmicro_batch_size = 5\nprecision = \"bf16\"\n"
        )
    };
    let of = |groups: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text(groups)).unwrap();
        report(&[file.path().to_str().unwrap()])
    };
    let group = |name: &str| format!("[[cluster.groups]]\nname = \"{name}\"\nnodes = 1\n");
    let large = of(&group("dgx-a100-80gb"));
    let both = of(&(group("dgx-a100-80gb") + &group("dgx-a100-40gb")));
    assert_eq!(large["verdict"], "fits");
    // What a rank holds is more than 40 GB and less than 80.
    assert_eq!(both["verdict"], "out_of_memory");
    assert!(both["out_of_memory"]["rank"].as_u64().unwrap() >= 8, "{}", both["out_of_memory"]);
}

#[test]
fn narrow_switches_and_other_jobs_take_time() {
    let shared = step(&[TREE]);
    let alone = step(&[TREE, "--set", "jobs=[]"]);
    let wide = step(&[TREE, "--set", "jobs=[]", "--set", "cluster.topology.oversubscription=0.25"]);
    assert!(wide < alone && alone < shared, "{wide} {alone} {shared}");
    let without = step(&["scenarios/llama3-8b-h100-beside.toml", "--set", "parallelism.zero_stage=1"]);
    assert!((wide / without - 1.0).abs() < 1e-3, "{wide} against {without} without switches");
}

fn refused(cluster: &str, rest: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "[model]\nname = \"gpt2\"\n[cluster]\n{cluster}\n[workload]\nmicro_batch_size = 1\nprecision = \"bf16\"\n{rest}"
    );
    std::fs::write(file.path(), text).unwrap();
    let output = steptime(&["run", file.path().to_str().unwrap()]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{cluster}{rest}: {error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

#[test]
fn what_cannot_be_is_refused() {
    let two = "name = \"dgx-h100\"\nnodes = 2\n";
    let torus = "[cluster.topology]\nkind = \"torus\"\nlink = \"50 GB/s\"\n";
    let cases = [
        (format!("{two}[cluster.topology]\n"), "cluster.topology.kind"),
        (format!("{two}[cluster.topology]\nkind = \"mesh\"\n"), "fat-tree, rail-fat-tree, dragonfly"),
        (format!("{two}[cluster.topology]\nkind = \"fat-tree\"\n"), "nodes_per_leaf"),
        (format!("{two}{torus}"), "cluster.topology.dimensions"),
        (format!("{two}{torus}dimensions = [3]\n"), "2 nodes do not fit the 3 places"),
        (format!("{two}{torus}dimensions = [2]\nat = [0]\n"), "names 1 places for 2 nodes"),
        (format!("{two}{torus}dimensions = [2]\nat = [0, 2]\n"), "node 1 cannot be at place 2"),
        (
            format!(
                "{two}{torus}dimensions = [2]\nfaults = [{{ between = [\"node 0\", \"moon\"], rate = 0 }}]\n"
            ),
            "node 0 and moon are not joined",
        ),
        (
            format!(
                "{two}{torus}dimensions = [2]\nfaults = [{{ between = [\"node 0\", \"node 1\"], rate = 0 }}]\n"
            ),
            "no way is left from node 0 to node 1",
        ),
        (
            format!("{two}[cluster.topology.inside]\nnvlinks = [[0, 1]]\nnvlink = \"50 GB/s\"\n"),
            "nothing joins GPU 2 of a node with GPU 0",
        ),
        (
            format!("{two}[[cluster.clocks]]\ngpus = [16]\nclock = 0.5\n"),
            "there is no number 16, allowed: 0 to 15",
        ),
        (format!("{two}[[cluster.clocks]]\ngpus = [1]\n"), "cluster.clocks.clock"),
        (format!("{two}[[cluster.groups]]\nname = \"dgx-h100\"\n"), "is about nodes of one kind"),
        ("[[cluster.groups]]\nname = \"dgx-h1000\"\n".to_owned(), "\"dgx-h1000\""),
        (
            "[[cluster.groups]]\nname = \"dgx-h100\"\n[[cluster.groups]]\nname = \"a5000-pcie-2\"\n"
                .to_owned(),
            "cannot be mixed",
        ),
    ];
    for (cluster, expected) in cases {
        let error = refused(&cluster, "");
        assert!(error.contains(expected), "{cluster}: {error}");
    }
    let error = refused("name = \"dgx-h100\"\n", "[parallelism]\nmicro_batches = [2, 1]\n");
    assert!(error.contains("2 sizes of micro-batches for 8 data-parallel ranks"), "{error}");
    let error = refused(two, "[[jobs]]\nfile = \"other.toml\"\nat = [0]\n");
    assert!(error.contains("needs cluster.topology"), "{error}");
}

#[test]
fn a_lower_clock_is_in_the_report() {
    let slow = |clocks: &str| -> Value { report(&["scenarios/llama3-8b-h100-zero2.toml", "--set", clocks]) };
    let half = slow("cluster.clocks=[{ nodes = [0], clock = 0.5 }]");
    let one = slow("cluster.clocks=[{ gpus = [3], clock = 0.5 }]");
    let whole = step(&["scenarios/llama3-8b-h100-zero2.toml"]);
    let [half, one] = [half, one].map(|document| number(&document["step_time_s"]));
    assert!(whole < one && one <= half * 1.001, "{whole} {one} {half}");
}

/// One collective of `steptime clusters NAME --collectives --json`, by size.
fn table_of(arguments: &[&str], collective: &str) -> Vec<Value> {
    let output = steptime(&[&["clusters"], arguments, &["--collectives", "--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = document["collectives"].as_array().unwrap();
    rows.iter().filter(|row| row["collective"] == collective).cloned().collect()
}

/// The ways that NCCL logs on such machines: LL for small arrays; NVLS for large all-reduces of a whole HGX node, and for no
/// other collective; trees between nodes while latency counts; rings alone where there are no switches.
#[test]
fn the_way_of_each_collective_is_shown() {
    let way =
        |row: &Value| format!("{} {}", row["algorithm"].as_str().unwrap(), row["protocol"].as_str().unwrap());
    let of = |arguments: &[&str], collective: &str, bytes: u64| {
        let rows = table_of(arguments, collective);
        way(rows.iter().find(|row| row["bytes"] == bytes).unwrap())
    };
    assert_eq!(of(&["dgx-h100"], "all_reduce", 1 << 10), "Ring LL");
    assert_eq!(of(&["dgx-h100"], "all_reduce", 1 << 30), "NVLS Simple");
    assert_eq!(of(&["dgx-h100"], "all_gather", 1 << 30), "Ring Simple");
    assert_eq!(of(&["dgx-h100", "--nodes", "8"], "all_reduce", 1 << 10), "Tree LL");
    assert_eq!(of(&["dgx-h100", "--nodes", "8"], "all_reduce", 1 << 26), "NVLSTree Simple");
    // Parts of 16 KiB are the last that all-to-alls send in LL.
    assert_eq!(of(&["dgx-h100", "--gpus-per-node", "4"], "all_to_all", 1 << 16), "direct LL");
    assert_eq!(of(&["dgx-h100", "--gpus-per-node", "4"], "all_to_all", 1 << 18), "direct Simple");
    for row in table_of(&["rtx8000-pcie-4"], "all_reduce") {
        assert_eq!(row["algorithm"], "Ring", "{row}");
    }
}

/// 2 (n - 1) / n of an all-reduce's array pass each link, and more bytes never take less time.
#[test]
fn times_of_collectives_grow_and_bus_bandwidths_follow_from_them() {
    for (collective, factor) in [
        ("all_reduce", 1.75),
        ("reduce_scatter", 0.875),
        ("all_to_all", 0.875),
        ("broadcast", 1.0),
        ("send_recv", 1.0),
    ] {
        let rows = table_of(&["dgx-a100-80gb"], collective);
        assert_eq!(rows.len(), 12);
        for row in &rows {
            let bus = factor * number(&row["bytes"]) / number(&row["time_s"]);
            assert!((number(&row["bus_bytes_per_second"]) / bus - 1.0).abs() < 1e-12, "{row}");
        }
        assert!(rows.windows(2).all(|pair| number(&pair[0]["time_s"]) <= number(&pair[1]["time_s"])));
        // No collective is faster than NVLink's 300 GB/s, but a send of 1 GiB comes near.
        assert!(rows.iter().all(|row| number(&row["bus_bytes_per_second"]) < 300e9));
    }
}

#[test]
fn collectives_of_what_has_none_are_refused() {
    for (arguments, words) in [
        (&["vehicles-9"][..], "vehicles"),
        (&["h100-80gb-sxm"], "is a GPU"),
        (&["rtx8000-pcie-4", "--nodes", "2"], "no [network]"),
        (&["dgx-h100", "--gpus-per-node", "9"], "8"),
        (&["dgx-h100", "--nodes", "0"], "start at 1"),
        (&["dgx-h100", "--gpus-per-node", "1"], "at least 2"),
        (&["dgx-h100", "--nodes", "4294967295"], "at most"),
    ] {
        let output = steptime(&[&["clusters"], arguments, &["--collectives"]].concat());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(words) && error.lines().count() == 1, "{arguments:?}: {error}");
    }
}
