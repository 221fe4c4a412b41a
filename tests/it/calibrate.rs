//! Fitting a GPU, a fabric and a host, and what scenarios make of it. The inputs in `calibration/` are made up.

use std::io::Write;

use crate::support::{number, report, root, shared, steptime};

const FOLDER: &str = "tests/it/calibration";

fn json(arguments: &[&str]) -> serde_json::Value {
    let output = steptime(&[arguments, &["--json"]].concat());
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Standard error of a command whose input is wrong.
fn refusal(arguments: &[&str]) -> String {
    let output = steptime(arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    error
}

/// The whole shipped catalogue is what one command makes of the measurements, to the letter, and its errors on shapes
/// that no fit has seen are those that the project promises.
#[test]
fn the_catalogue_is_what_calibrate_makes_of_the_measurements() {
    let Some(shared) = shared() else { return };
    let data = shared.join("data/kernels");
    let document = json(&["calibrate", "catalogue", "--data", data.to_str().unwrap(), "--check"]);
    assert_eq!(document["changed"], serde_json::json!([]), "run steptime calibrate catalogue");
    // Only the B200's fit needs a file that is not among the tables.
    for kept in document["kept"].as_array().unwrap() {
        assert_eq!(kept, "clusters/catalog/gpus/b200.toml");
    }
    let fits = document["fits"].as_array().unwrap();
    for (gpu, path, most) in [
        ("h100-80gb-sxm", "gemm.bf16", 0.06),
        ("a100-80gb-sxm", "gemm.bf16", 0.06),
        ("a100-80gb-sxm", "gemm.fp16", 0.06),
        ("a40", "gemm.fp16", 0.08),
        ("h100-80gb-sxm", "gemm.fp32", 0.10),
        ("a100-80gb-pcie", "gemm.fp32", 0.10),
        ("a100-40gb-pcie", "gemm.fp32", 0.10),
        ("v100-32gb-pcie", "gemm.fp32", 0.10),
        ("h100-80gb-sxm", "attention", 0.08),
        ("a100-80gb-sxm", "attention", 0.08),
    ] {
        let fit = fits.iter().find(|fit| fit["gpu"] == gpu).unwrap();
        let table = fit["tables"].as_array().unwrap().iter().find(|table| table["path"] == path).unwrap();
        let bands = table["held_out"].as_array().unwrap();
        let large = bands.iter().find(|band| band["shapes"] == "from 2 GFLOP").unwrap();
        let mean = number(&large["after"]["mean"]);
        assert!(mean <= most, "{gpu} {path}: {mean}");
    }
    // Kernels that memory limits. The A40's elementwise ones are four rows.
    let mut tables = 0;
    for fit in fits {
        for table in fit["tables"].as_array().into_iter().flatten() {
            let path = table["path"].as_str().unwrap();
            if path.starts_with("memory.") && fit["gpu"] != "a40" {
                let mean = number(&table["held_out"][0]["after"]["mean"]);
                assert!(mean <= 0.12, "{} {path}: {mean}", fit["gpu"]);
                tables += 1;
            }
        }
    }
    assert!(tables >= 15, "{tables}");
}

/// The hosts' launches in backward are the shortest times of operations that launch nothing.
#[test]
fn launches_of_the_catalogue_are_those_of_the_traces() {
    let Some(shared) = shared() else { return };
    let data = shared.join("data/kernels/forward_backward_fp32.csv");
    let document = json(&["calibrate", "operations", "--data", data.to_str().unwrap()]);
    let shortest = |gpu: &str| {
        let hosts = document["hosts"].as_array().unwrap();
        let host = hosts.iter().find(|host| host["gpu"] == gpu).unwrap();
        assert!(number(&host["operations"]) >= 8.0 && host["median_s"].as_f64() < Some(20e-6), "{host}");
        number(&host["shortest_s"])
    };
    let launch = |host: &str| {
        let text =
            std::fs::read_to_string(root().join(format!("clusters/catalog/hosts/{host}.toml"))).unwrap();
        let (_, value) = text.split_once("eager_backward_launch = \"").unwrap();
        value.split_once(" us").unwrap().0.parse::<f64>().unwrap() * 1e-6
    };
    let older = 0.5 * (shortest("v100-32gb-pcie") + shortest("l4"));
    for (host, measured) in [("x86-pcie4", shortest("a100-80gb-pcie")), ("x86-pcie3", older)] {
        assert!((launch(host) / measured - 1.0).abs() < 0.01, "{host}: {} for {measured}", launch(host));
    }
}

/// What the catalogue has from whole steps is what the commands of the page make of them.
#[test]
fn the_catalogue_has_what_calibrate_makes_of_measured_steps() {
    let Some(shared) = shared() else { return };
    let lambda = shared.join("data/measured/lambda.csv");
    for (gpu, relatives) in [
        ("a100-80gb-sxm", &["a100-40gb-sxm", "a100-40gb-pcie", "a100-80gb-pcie"][..]),
        ("h100-80gb-sxm", &["h100-80gb-pcie"][..]),
    ] {
        let mut arguments = vec![
            "calibrate",
            "steps",
            "--gpu",
            gpu,
            "--fit",
            "batch_norm",
            "--data",
            lambda.to_str().unwrap(),
        ];
        for relative in relatives {
            arguments.extend(["--relative", relative]);
        }
        let document = json(&arguments);
        let fitted = number(&document["tables"][0]["coefficients"]["share"]);
        let file = std::fs::read_to_string(root().join(format!("clusters/catalog/gpus/{gpu}.toml"))).unwrap();
        let (_, table) = file.split_once("[calibration.memory.batch_norm]").unwrap();
        let shipped = table.lines().find_map(|line| line.strip_prefix("share = ")).unwrap();
        let shipped: f64 = shipped.split(' ').next().unwrap().parse().unwrap();
        // Steps are played: what changes anything of them moves the fit a little.
        assert!(
            (fitted / shipped - 1.0).abs() < 0.05,
            "{gpu}: {fitted}, shipped {shipped}: run the command again"
        );
    }
}

/// Published shares of the peak are fitted like tables, and a catalogue's fit of which the folder has nothing stays.
#[test]
fn system_files_are_fitted_and_fits_without_rows_stay() {
    let folder = tempfile::tempdir().unwrap();
    // Kernels at 60 % of 2,250 TFLOP/s, from 60 GFLOP to 4 TFLOP.
    let sizes = [2048, 4096, 7168, 8192, 12_288, 16_384];
    let shapes = sizes.iter().flat_map(|m| sizes.iter().flat_map(move |n| sizes.map(move |k| (m, n, k))));
    let entries: Vec<String> =
        shapes.map(|(m, n, k)| format!("\"b=1, m={m}, k={k}, n={n}, accumulate=False\": 0.6")).collect();
    let path = folder.path().join("b200.json");
    let text = |entries: &str| {
        format!(
            "{{\"sys_name\": \"b200_bf16_made\", \"accelerator\": {{\"op\": {{\"matmul\": {{\"tflops\": 2250, \
             \"accurate_efficient_factor\": {{{entries}}}}}}}}}}}"
        )
    };
    std::fs::write(&path, text(&entries.join(", "))).unwrap();
    let document = json(&["calibrate", "gpu", "--gpu", "b200", "--data", path.to_str().unwrap()]);
    let table = &document["tables"][0];
    assert_eq!(table["path"], "gemm.bf16");
    let median = number(&table["held_out"][0]["after"]["median"]);
    assert!(median < 0.06, "{median}");
    std::fs::write(&path, text("\"b=1, m=8, n=8\": 0.6")).unwrap();
    let error = refusal(&["calibrate", "gpu", "--gpu", "b200", "--data", path.to_str().unwrap()]);
    assert!(error.contains("b200.json: `b=1, m=8, n=8`: expected whole numbers"), "{error}");
}

/// The calibration files that the documents use are what the commands write.
#[test]
fn shipped_calibration_files_are_what_the_commands_write() {
    let folder = tempfile::tempdir().unwrap();
    let kernels = [format!("{FOLDER}/gemm.csv"), format!("{FOLDER}/memory_bound.csv")];
    let outputs: Vec<String> =
        ["all_reduce_perf-2", "all_reduce_perf-4", "all_gather_perf-2", "all_gather_perf-4"]
            .iter()
            .map(|name| format!("{FOLDER}/{name}.txt"))
            .collect();
    let trace = format!("{FOLDER}/trace.json");
    let between = between_nodes();
    let network = vec!["fabric", "--cluster", "dgx-h100", "--nccl-tests"]
        .into_iter()
        .chain(between.iter().map(String::as_str))
        .collect::<Vec<_>>();
    let gpu = ["gpu", "--gpu", "rtx-a5000", "--data", &kernels[0], "--data", &kernels[1]];
    let fabric = vec!["fabric", "--cluster", "a5000-pcie-4", "--nccl-tests"]
        .into_iter()
        .chain(outputs.iter().map(String::as_str))
        .collect::<Vec<_>>();
    for (name, arguments) in [
        ("a5000-gpu.toml", gpu.to_vec()),
        ("a5000-fabric.toml", fabric),
        ("h100-network.toml", network),
        ("a5000-host.toml", vec!["host", "--trace", &trace]),
    ] {
        let path = folder.path().join(name);
        let out = ["--out", path.to_str().unwrap()];
        let output = steptime(&[&["calibrate"], arguments.as_slice(), &out].concat());
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let written = std::fs::read_to_string(&path).unwrap();
        let shipped = root().join(FOLDER).join(name);
        if std::env::var("UPDATE_TABLES").is_ok() {
            std::fs::write(&shipped, &written).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&shipped).unwrap(), written, "run with UPDATE_TABLES=1: {name}");
    }
}

/// What nccl-tests would print of a known network over 2 and 4 nodes.
fn between_nodes() -> Vec<String> {
    ["all_reduce-2", "all_reduce-4", "all_gather-2", "all_gather-4", "sendrecv-2"]
        .iter()
        .map(|name| format!("{FOLDER}/network/{name}.txt"))
        .collect()
}

/// The network that the files were made of: hops of 8 and 21 us, messages of 1.5 and 6 us, 86 % of the line rate, sends at 70 %
/// of that.
#[test]
fn a_network_is_fitted_to_nccl_tests_over_several_nodes() {
    let files = between_nodes();
    let names = files.iter().map(String::as_str);
    let arguments: Vec<&str> =
        ["calibrate", "fabric", "--cluster", "dgx-h100", "--nccl-tests"].into_iter().chain(names).collect();
    let network = &json(&arguments)["network"];
    assert_eq!(network["network"], "infiniband-ndr");
    for (key, known) in [
        ("share", 0.86),
        ("point_to_point", 0.70),
        ("latency_s", 8e-6),
        ("bulk_latency_s", 21e-6),
        ("message_s", 6e-6),
        ("ll_message_s", 1.5e-6),
    ] {
        let found = number(&network[key]);
        assert!((found / known - 1.0).abs() < 0.1, "{key}: {found} is not {known}");
    }
    let all = &network["held_out"][0];
    assert!(number(&all["after"]["mean"]) < 0.03 && number(&all["before"]["mean"]) > 0.1, "{all}");
}

/// The catalogue's EFA is the outcome of one documented command.
#[test]
fn the_shipped_network_is_what_one_command_makes_of_the_measurements() {
    let Some(shared) = shared() else { return };
    let data = shared.join("data/kernels/collectives_multinode.csv");
    let document = json(&["calibrate", "fabric", "--cluster", "h100-efa", "--data", data.to_str().unwrap()]);
    let output = steptime(&["clusters", "h100-efa"]);
    let shipped = String::from_utf8(output.stdout).unwrap();
    let message = format!("{:.3} us", 1e6 * number(&document["network"]["message_s"]));
    assert!(shipped.contains(&format!("network.message = {message}")), "{message}");
}

/// A bus bandwidth is one of several GPUs, and they are counted in whole numbers.
#[test]
fn jobs_of_less_than_two_gpus_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("jobs.csv");
    for (counts, said) in [("4,1", "gpus"), ("4,1e-9", "gpus"), ("0,8", "nodes"), ("2,9999999999", "gpus")] {
        let head = "gpu,interconnect,nodes,gpus,op,jobs,p10_gbps,median_gbps,p90_gbps\n";
        std::fs::write(&table, format!("{head}h100-80gb-sxm,x,{counts},AllGather,9,100,150,180\n")).unwrap();
        let output =
            steptime(&["calibrate", "fabric", "--cluster", "h100-efa", "--data", table.to_str().unwrap()]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{counts}: {error}");
        assert!(
            error.contains(said) && error.contains("whole number") && error.contains("line 2"),
            "{counts}: {error}"
        );
    }
}

/// Medians over which jobs agree say what a message costs: 15 of 20 us each, beside what the same network takes without them.
#[test]
fn a_table_of_jobs_gives_messages_and_their_spread() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("jobs.csv");
    let head = "gpu,interconnect,nodes,gpus,op,jobs,p10_gbps,median_gbps,p90_gbps\n";
    std::fs::write(&table, format!("{head}h100-80gb-sxm,x,2,16,AllGather,9,100,150,180\n")).unwrap();
    let fit = |set: &str| {
        let cluster = folder.path().join("cluster.toml");
        let text = std::fs::read_to_string(root().join("clusters/catalog/clusters/dgx-h100.toml")).unwrap();
        std::fs::write(&cluster, text.replace("cards = 8\n", &format!("cards = 8\n{set}\n"))).unwrap();
        let names = [cluster.to_str().unwrap(), table.to_str().unwrap()];
        json(&["calibrate", "fabric", "--cluster", names[0], "--data", names[1]])["network"].clone()
    };
    let (own, slower) = (fit(""), fit("bulk_latency = { value = \"314 us\", source = \"test\" }"));
    assert_eq!(own["fitted"], serde_json::json!(["message", "spread"]));
    // Of the same times, 300 us more of a hop are 20 us less of each of the 15 messages.
    let difference = number(&own["message_s"]) - number(&slower["message_s"]);
    assert!((difference - 20e-6).abs() < 1e-8, "{difference}");
    assert_eq!(number(&own["jobs"]["seen"]).to_bits(), 1.0_f64.to_bits());
}

/// A scenario's steps follow the network of its calibration file, and its report says so.
#[test]
fn a_scenario_takes_a_measured_network() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = folder.path().join("job.toml");
    std::fs::write(
        &scenario,
        "[model]\nname = \"gpt-18b\"\n\n[cluster]\nname = \"dgx-h100\"\nnodes = 4\n\n\
         [workload]\nmicro_batch_size = 2\nprecision = \"bf16\"\noptimizer = \"adamw\"\nattention = \"flash\"\n\n\
         [parallelism]\nzero_stage = 3\n",
    )
    .unwrap();
    let scenario = scenario.to_str().unwrap();
    let file = root().join(FOLDER).join("h100-network.toml");
    let set = format!("cluster.calibration={}", file.display());
    let (before, after) = (report(&[scenario]), report(&[scenario, "--set", &set]));
    let (before_s, after_s) = (number(&before["step_time_s"]), number(&after["step_time_s"]));
    assert!(after_s > 1.005 * before_s, "{before_s} {after_s}");
    assert!(after["provenance"].to_string().contains("h100-network.toml"), "{}", after["provenance"]);
}

/// A scenario's prices follow its calibration files, and its report says so.
#[test]
fn a_scenario_takes_calibration_files() {
    let scenario = "scenarios/vit-l-16-a5000.toml";
    let file = |name: &str| format!("../{FOLDER}/a5000-{name}.toml");
    let before = report(&[scenario]);
    let set =
        format!("cluster.calibration=[\"{}\", \"{}\", \"{}\"]", file("gpu"), file("fabric"), file("host"));
    let after = report(&[scenario, "--set", &set]);
    let (before_s, after_s) = (number(&before["step_time_s"]), number(&after["step_time_s"]));
    assert!((after_s / before_s - 1.0).abs() > 0.01, "{before_s} {after_s}");
    let provenance = after["provenance"].to_string();
    assert!(
        provenance.contains("a5000-gpu.toml") && !before["provenance"].to_string().contains("a5000-gpu.toml"),
        "{provenance}"
    );
    // One file alone may be given as text.
    let host = report(&[scenario, "--set", &format!("cluster.calibration={}", file("host"))]);
    assert!(number(&host["step_time_s"]) >= before_s);
}

/// The time that a scenario takes is found again from the step that it predicts, and from a table.
#[test]
fn a_measured_step_gives_the_cost_of_a_launch() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = root().join("scenarios/switch-vit-64-rtx8000.toml");
    let slow = folder.path().join("slow.toml");
    std::fs::write(
        &slow,
        "[host]\neager_forward_launch = { value = \"20 us\", source = \"test\" }\n\
        eager_backward_launch = { value = \"18.604651 us\", source = \"test\" }\n",
    )
    .unwrap();
    let text = std::fs::read_to_string(&scenario).unwrap();
    let copy = folder.path().join("job.toml");
    std::fs::write(&copy, text).unwrap();
    let measured = report(&[copy.to_str().unwrap(), "--set", "cluster.calibration=slow.toml"]);
    let seconds = number(&measured["step_time_s"]);
    let table = folder.path().join("steps.csv");
    std::fs::write(&table, format!("scenario,step_time_s\njob.toml,{seconds}\n")).unwrap();
    let step = format!("{}={seconds}", copy.display());
    for arguments in [["--step", &step], ["--steps", table.to_str().unwrap()]] {
        let document = json(&[&["calibrate", "host"], arguments.as_slice()].concat());
        let host = number(&document["constants"]["eager_forward_launch"]);
        assert!((host - 20e-6).abs() < 0.2e-6, "{document}");
        assert!((number(&document["steps"][0]["after_s"]) / seconds - 1.0).abs() < 1e-3, "{document}");
    }
}

#[test]
fn a_compressed_trace_gives_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json.gz");
    let trace = std::fs::read(root().join(FOLDER).join("trace.json")).unwrap();
    let file = std::fs::File::create(&path).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    encoder.write_all(&trace).unwrap();
    encoder.finish().unwrap();
    let plain = json(&["calibrate", "host", "--trace", &format!("{FOLDER}/trace.json")]);
    assert_eq!(plain, json(&["calibrate", "host", "--trace", path.to_str().unwrap()]));
    assert!((number(&plain["constants"]["eager_forward_launch"]) - 10.5e-6).abs() < 0.3e-6, "{plain}");
    assert!((number(&plain["constants"]["eager_backward_launch"]) - 7.0e-6).abs() < 0.3e-6, "{plain}");
}

/// One clear error each, exit code 2, nothing on standard output, nothing written.
#[test]
fn wrong_inputs_are_refused_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let gemm = std::fs::read_to_string(root().join(FOLDER).join("gemm.csv")).unwrap();
    let nccl = std::fs::read_to_string(root().join(FOLDER).join("all_reduce_perf-4.txt")).unwrap();
    let collectives = "gpu,topology,op,gpus,nodes,bytes,time_us,source\n";
    let row = "rtx-a5000,here,all_reduce,4,1,1024,10,mine\n";
    let trace = std::fs::read_to_string(root().join(FOLDER).join("trace.json")).unwrap();
    let mut all = String::new();
    let mut check = |arguments: &[&str]| {
        let error = refusal(&[&["calibrate"], arguments].concat());
        assert!(!error.contains("panicked"), "{error}");
        all += &error.replace(&format!("{}/", folder.path().display()), "");
    };
    let gpu = |check: &mut dyn FnMut(&[&str]), name: &str, text: &str| {
        check(&["gpu", "--gpu", "rtx-a5000", "--data", &write(name, text)]);
    };
    gpu(&mut check, "negative.csv", &gemm.replacen(",gemm,1,", ",gemm,-1,", 1));
    gpu(&mut check, "format.csv", &gemm.replacen(",tf32,", ",int4,", 1));
    gpu(
        &mut check,
        "short.csv",
        &(gemm.lines().take(40).collect::<Vec<_>>().join("\n") + "\na5000,tf32,gemm\n"),
    );
    gpu(&mut check, "few.csv", &gemm.lines().take(40).collect::<Vec<_>>().join("\n"));
    gpu(&mut check, "other.csv", "a,b\n1,2\n");
    gpu(&mut check, "column.csv", &gemm.replacen("time_us", "time_ms", 1));
    gpu(&mut check, "empty.csv", "");
    check(&["gpu", "--gpu", "rtx-a4000", "--data", &format!("{FOLDER}/gemm.csv")]);
    check(&["gpu", "--gpu", "t4", "--data", &format!("{FOLDER}/gemm.csv")]);
    let fabric = |check: &mut dyn FnMut(&[&str]), kind: &str, name: &str, text: &str| {
        check(&["fabric", "--cluster", "a5000-pcie-4", kind, &write(name, text)]);
    };
    fabric(&mut check, "--nccl-tests", "wrong.txt", &nccl.replacen("      0  ", "      3  ", 1));
    fabric(
        &mut check,
        "--nccl-tests",
        "unnamed.txt",
        &nccl.replace("# Collective test starting: all_reduce_perf\n", ""),
    );
    fabric(&mut check, "--nccl-tests", "nothing.txt", "mpirun: command not found\n");
    fabric(&mut check, "--data", "nodes.csv", &format!("{collectives}{}", row.replace(",4,1,", ",4,0,")));
    fabric(&mut check, "--data", "many.csv", &format!("{collectives}{}", row.replace(",4,1,", ",16,1,")));
    fabric(&mut check, "--data", "few.csv", &format!("{collectives}{row}"));
    fabric(&mut check, "--data", "gpu.csv", &format!("{collectives}{}", row.replace("rtx-a5000", "t4")));
    fabric(&mut check, "--data", "two.csv", &format!("{collectives}{row}{}", row.replace("here", "there")));
    fabric(&mut check, "--data", "column.csv", "gpu,op\n");
    check(&["fabric", "--cluster", "vehicles-3", "--data", "x.csv"]);
    check(&["host", "--trace", &write("cut.json", &trace[..trace.len() / 2])]);
    check(&["host", "--trace", &write("none.json", "{\"traceEvents\": []}")]);
    check(&["host", "--trace", "no-such-trace.json"]);
    check(&["host"]);
    check(&["host", "--step", "scenarios/vit-rtx8000.toml"]);
    check(&["host", "--step", "scenarios/vit-rtx8000.toml=soon"]);
    check(&["host", "--step", "scenarios/vit-rtx8000.toml=0.06"]);
    check(&["host", "--step", "scenarios/visionencoder-small-vehicles.toml=1"]);
    check(&["host", "--steps", &write("steps.csv", "scenario,seconds\na,1\n")]);
    check(&["catalogue", "--data", "no-such-folder"]);
    insta::assert_snapshot!(all);
}

/// A calibration file of other hardware, or with an error, is refused where the scenario names it.
#[test]
fn wrong_calibration_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = folder.path().join("job.toml");
    std::fs::copy(root().join("scenarios/vit-l-16-a5000.toml"), &scenario).unwrap();
    let mut all = String::new();
    for text in [
        "[gpu]\nname = \"t4\"\n",
        "[fabric]\nname = \"nvswitch-4\"\n",
        "[host]\neager_forward_launch = \"10 us\"\n",
        "[host]\neager_launch = { value = \"10 us\", source = \"x\" }\n",
        "[fabric.pair.ll]\nsource = \"x\"\nstart = \"1 us\"\n",
        "[gpu.calibration.gemm.bf16]\nsource = \"x\"\nbasis = \"fitted\"\nerror = 0.1\n",
        "[gpu.calibration.memory.norm]\nborrowed_from = \"t4\"\n",
        "[host]\nname = \"grace\"\n",
        "[network]\n",
    ] {
        std::fs::write(folder.path().join("mine.toml"), text).unwrap();
        let error = refusal(&["run", scenario.to_str().unwrap(), "--set", "cluster.calibration=mine.toml"]);
        all += &error.replace(&format!("{}/", folder.path().display()), "");
    }
    insta::assert_snapshot!(all);
}
