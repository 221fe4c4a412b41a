//! Pipeline schedules, uneven stages and uneven batches, from the command line.

use crate::support::{Case, number, steptime};

/// Four stages of a GPT on one node.
const CASE: &str = r#"name = "case"

[model]
name = "gpt2"
sequence_length = 1024

[cluster]
name = "dgx-a100-80gb"
gpus_per_node = 4

[workload]
micro_batch_size = 4
gradient_accumulation_steps = 12
precision = "bf16"

[parallelism]
pipeline = 4
"#;

#[test]
fn less_bubble_costs_more_memory() {
    let case = Case::new(CASE);
    let run = |name: &str| case.report(&[&format!("parallelism.schedule={name}")]);
    let bubble = |report: &serde_json::Value| number(&report["time_breakdown_s"]["pipeline_bubble"]);
    let memory = |report: &serde_json::Value| report["peak_memory"]["allocated_bytes"].as_u64().unwrap();
    let [one, h1, h2, v, half, min] = ["1f1b", "zb-h1", "zb-h2", "zb-v", "v-half", "v-min"].map(run);
    assert!(bubble(&h1) < bubble(&one));
    assert!(memory(&h2) > memory(&h1) && memory(&h1) > memory(&one));
    assert!(memory(&min) < memory(&half) && memory(&half) < memory(&v));
    for name in ["zb-1p", "zb-2p", "zb-v", "dualpipe-v"] {
        let report = run(name);
        assert!(number(&report["step_time_s"]) < number(&one["step_time_s"]), "{name}");
        let flops = |report: &serde_json::Value| number(&report["flops_per_step"]);
        assert!((flops(&report) / flops(&one) - 1.0).abs() < 1e-12, "{name}");
    }
    // Embedding and head meet on the first stage of a V.
    let layers = &run("zb-v")["stages"][0]["layers"];
    let names: Vec<&str> = layers.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert!(names.contains(&"embedding") && names.contains(&"head"), "{names:?}");
}

#[test]
fn a_schedule_of_ones_own_is_proven_and_played() {
    let case = Case::new(CASE);
    let write = |text: &str| std::fs::write(case.file("mine.txt"), text).unwrap();
    let keys = [
        "parallelism.schedule={ file = \"mine.txt\" }",
        "parallelism.pipeline=2",
        "cluster.gpus_per_node=2",
        "workload.gradient_accumulation_steps=3",
    ];
    // The example of the documentation.
    let manual = include_str!("../../docs/scenario.md");
    let (_, example) = manual.split_once("```text\n").unwrap();
    write(example.split_once("```").unwrap().0);
    let named = ["parallelism.schedule=zb-h1", keys[1], keys[2], keys[3]];
    let (mine, named) = (case.report(&keys), case.report(&named));
    assert_eq!(mine["step_time_s"], named["step_time_s"]);
    assert_eq!(mine["peak_memory"], named["peak_memory"]);

    write("F0 F1 B0 B1\nF0 X\n");
    assert!(
        case.error(&keys).ends_with(
            "mine.txt: line 2: found `X`, allowed: F, B, I or W with a micro-batch and, behind a dot, a chunk, such \
             as F0 or B3.1"
        ),
        "{}",
        case.error(&keys)
    );
    write("F0 F1 B0 B1\nF0 F1 B0 B1\n");
    assert!(case.error(&keys).ends_with("the schedule has 2 micro-batches, but the plan has 3"));
    write("F0 F1 F2\nF0 F1 F2\n");
    assert!(case.error(&keys).contains("stage 0: backward of micro-batch 0 occurs 0 times"));
    write("F0 B0 F1 F2 B1 B2\nF1 F0 B0 B1 F2 B2\n");
    assert!(
        case.error(&keys).ends_with("stage 1 takes micro-batch 1 where its neighbour sends micro-batch 0")
    );
    write("B0 F0 F1 F2 B1 B2\nF0 B0 F1 B1 F2 B2\n");
    assert!(case.error(&keys).ends_with("stage 0: backward of micro-batch 0 stands before its forward"));
    std::fs::remove_file(case.file("mine.txt")).unwrap();
    assert!(case.error(&keys).contains("parallelism.schedule.file: mine.txt cannot be read"));
}

#[test]
fn keys_that_contradict_the_schedule_are_refused() {
    let case = Case::new(CASE);
    let error = |keys: &[&str]| case.error(keys);
    assert!(
        error(&["parallelism.schedule=zb-h3"]).contains("nearest: zb-h1")
            || error(&["parallelism.schedule=zb-h3"]).contains("zb-h1")
    );
    assert!(
        error(&["parallelism.schedule=zb-h1", "parallelism.virtual_pipeline=3"])
            .ends_with("parallelism.virtual_pipeline: is 3, but schedule zb-h1 is made for 1, allowed: 1")
    );
    assert!(error(&["parallelism.micro_batch_group=5"]).contains("is about interleaved 1F1B"));
    assert!(
        error(&["parallelism.schedule=zb-v", "parallelism.pipeline=1", "cluster.gpus_per_node=1"])
            .ends_with("zb-v has 2 chunks of layers on each stage and needs pipeline above 1")
    );
    assert!(
        error(&["parallelism.schedule=dualpipe-v", "workload.gradient_accumulation_steps=7"])
            .ends_with("the schedule needs at least 8 micro-batches, two for each stage, but the step has 7")
    );
    let interleaved = ["parallelism.virtual_pipeline=3", "workload.gradient_accumulation_steps=5"];
    assert!(error(&interleaved).contains("in groups of 4, one for each stage, but the step has 5"));
    let grouped = case.report(&[interleaved[0], interleaved[1], "parallelism.micro_batch_group=5"]);
    assert_eq!(grouped["verdict"], "fits");
}

#[test]
fn embedding_and_head_may_stand_for_layers() {
    let case = Case::new(CASE);
    let blocks = |keys: &[&str]| -> Vec<usize> {
        let report = case.report(keys);
        let blocks = |stage: &serde_json::Value| {
            stage["layers"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|it| it.as_str().unwrap().starts_with("block"))
                .count()
        };
        report["stages"].as_array().unwrap().iter().map(blocks).collect()
    };
    assert_eq!(blocks(&[]), [3, 3, 3, 3]);
    assert_eq!(blocks(&["parallelism.layers_in_last_stage=0"]), [4, 4, 4, 0]);
    assert_eq!(
        blocks(&["parallelism.layers_in_first_stage=1", "parallelism.layers_in_last_stage=1"]),
        [1, 5, 5, 1]
    );
    let counted = ["parallelism.count_embedding_as_layer=true", "parallelism.count_head_as_layer=true"];
    assert_eq!(blocks(&[counted[0], counted[1], "model.overrides={ layers = 14 }"]), [3, 4, 4, 3]);
    assert!(
        case.error(&counted)
            .contains("makes 14 layers of the model's 12 blocks, which 4 stages cannot share")
    );
    assert!(case.error(&["parallelism.stages=[6, 0, 6, 0]"]).contains("stage 1 has no layer"));
}

#[test]
fn a_smaller_last_micro_batch_takes_less_time_than_a_full_one() {
    let case = Case::new(CASE);
    let batch = |samples: u64| {
        let global = format!("workload.global_batch_size={samples}");
        // The steps in the file are left to follow from the batch.
        let text = CASE.replace("gradient_accumulation_steps = 12\n", "global_batch_size = 48\n");
        std::fs::write(case.file("case.toml"), text).unwrap();
        case.report(&[&global, "workload.last_micro_batch=smaller"])
    };
    let [eleven, between, twelve] = [44, 46, 48].map(batch);
    let step = |report: &serde_json::Value| number(&report["step_time_s"]);
    assert!(step(&eleven) < step(&between) && step(&between) < step(&twelve));
    let rate = number(&between["samples_per_s"]) * step(&between);
    assert!((rate - 46.0).abs() < 1e-9);
    let flops = |report: &serde_json::Value| number(&report["flops_per_step"]);
    assert!((flops(&between) / flops(&twelve) - 46.0 / 48.0).abs() < 1e-9);
}

/// The report of `plot schedule`.
fn laid_out(arguments: &[&str]) -> serde_json::Value {
    let mut all = vec!["plot", "schedule", "--json"];
    all.extend(arguments);
    let output = steptime(&all);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn schedules_by_themselves_idle_as_their_papers_say() {
    // Huang et al. 2019 (GPipe), section 2.3: (p - 1) / (m + p - 1) of the time.
    for (p, m) in [(4.0, 8.0), (8.0, 64.0)] {
        for name in ["gpipe", "1f1b"] {
            let [stages, micro_batches] = [p, m].map(|it: f64| it.to_string());
            let report = laid_out(&[name, "--pipeline", &stages, "--micro-batches", &micro_batches]);
            let bubble = number(&report["bubble_fraction"]);
            assert!((bubble - (p - 1.0) / (m + p - 1.0)).abs() < 1e-12, "{name}: {bubble}");
        }
    }
    // Lamy-Poirier 2023: looping divides the bubble by the chunks, and holds every micro-batch.
    let looped = laid_out(&["looped-bfs", "--virtual-pipeline", "4", "--micro-batches", "8"]);
    let bubble = number(&looped["step_time_s"]) / number(&looped["ideal_time_s"]) - 1.0;
    assert!((bubble - 3.0 / (4.0 * 8.0)).abs() < 1e-12, "{bubble}");
    assert!((number(&looped["stages"][0]["in_flight_micro_batches"]) - 8.0).abs() < 1e-12);
    // DeepSeek-V3, table 2: (p/2 - 1) (F&B + B - 3 W), B being a whole backward. Joined and not shortened.
    let joined = laid_out(&["dualpipe", "--pipeline", "8", "--micro-batches", "20", "--pair", "30"]);
    let idle = joined["stages"].as_array().unwrap().iter().map(|stage| number(&stage["idle_s"]));
    let longest = idle.fold(0.0, f64::max);
    assert!((longest - 3.0 * (0.030 + 0.020 - 0.030)).abs() < 1e-12, "{longest}");
    // A transfer of half a pass is waited for on the way down and back: 1F1B hides nothing of it there.
    let slow = laid_out(&["1f1b", "--pipeline", "2", "--micro-batches", "1", "--transfer", "5"]);
    assert!((number(&slow["exposed_communication_s"]) - 0.010).abs() < 1e-12);
}

#[test]
fn a_schedule_is_drawn_and_wrong_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("figures");
    let output = steptime(&["plot", "schedule", "hanayo", "--out", out.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    let figure = std::fs::read_to_string(out.join("pipeline_gantt.svg")).unwrap();
    assert!(figure.contains("stage 3") && figure.contains("forward"));
    let error = |arguments: &[&str]| {
        let mut all = vec!["plot", "schedule"];
        all.extend(arguments);
        let output = steptime(&all);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(error(&["zbv"]).contains("did you mean zb-v?"));
    assert!(
        error(&["hanayo", "--virtual-pipeline", "3"]).contains("allowed: 2, 4, 6, ...: two for each wave")
    );
    assert!(error(&["1f1b", "--pair", "30"]).contains("has no forward and backward that are one"));
    assert!(error(&["1f1b", "--forward", "1e9"]).contains("allowed: milliseconds from 0 to 1000"));
    assert!(
        error(&["1f1b", "--pipeline", "1024", "--micro-batches", "65536"]).contains("too many to lay out")
    );
    let mine = folder.path().join("mine.txt");
    std::fs::write(
        &mine,
        "F0 B0
F0 B0
",
    )
    .unwrap();
    let mine = mine.to_str().unwrap();
    let report = laid_out(&[mine]);
    assert!((number(&report["step_time_s"]) - 0.060).abs() < 1e-12);
    assert!(error(&[mine, "--pipeline", "2"]).contains("leave this option out"));
}

/// Passes of two chunks of one micro-batch that follow each other are two boxes, on a drawn schedule and in a played step.
#[test]
fn chunks_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let figure = |folder: &str| std::fs::read_to_string(format!("{folder}/pipeline_gantt.svg")).unwrap();
    let out = at("drawn");
    // The last stage's forwards of both chunks of the first micro-batch follow each other.
    laid_out(&["zb-v", "--pipeline", "4", "--micro-batches", "8", "--out", &out]);
    let drawn = figure(&out);
    // Eight micro-batches, two chunks, three passes, four stages, and the legend.
    let numbers = drawn.lines().filter(|line| line.trim() == "7").count();
    assert_eq!(numbers, 2 * 3 * 4, "boxes of micro-batch 7");
    assert!(drawn.contains("second chunk"));
    let out = at("played");
    let case = Case::new(CASE);
    let path = case.path();
    let mut arguments = vec!["run", path.as_str(), "--out", &out];
    for key in ["parallelism.schedule=zb-v", "parallelism.virtual_pipeline=2"] {
        arguments.extend(["--set", key]);
    }
    assert_eq!(steptime(&arguments).status.code(), Some(0));
    let timeline: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{out}/timeline.json")).unwrap()).unwrap();
    let last = timeline["ranks"].as_array().unwrap().last().unwrap();
    let forwards: Vec<&serde_json::Value> = last["spans"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|span| span["kind"] == "forward" && span["micro_batch"] == 0 && span["name"] != "loss")
        .map(|span| &span["chunk"])
        .collect();
    assert!(forwards.contains(&&0.into()) && forwards.contains(&&1.into()), "{forwards:?}");
    assert!(figure(&format!("{out}/figures")).contains("second chunk"));
}

/// Every schedule by its name: laid out with its bubble, what stages hold and what transfers cost, and drawn.
#[test]
fn every_schedule_is_drawn_by_its_name() {
    let names = [
        "1f1b",
        "gpipe",
        "zb-h1",
        "zb-h2",
        "zb-1p",
        "zb-2p",
        "zb-v",
        "v-half",
        "v-min",
        "dualpipe-v",
        "dualpipe",
        "looped-bfs",
        "hanayo",
    ];
    for name in names {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().to_str().unwrap();
        let report =
            laid_out(&[name, "--pipeline", "4", "--micro-batches", "8", "--transfer", "1", "--out", out]);
        let bubble = number(&report["bubble_fraction"]);
        assert!((0.0..0.5).contains(&bubble), "{name}: {bubble}");
        assert!(number(&report["exposed_communication_s"]) > 0.0, "{name}");
        let stages = report["stages"].as_array().unwrap();
        assert_eq!(stages.len(), 4, "{name}");
        assert!(stages.iter().all(|stage| number(&stage["in_flight_micro_batches"]) >= 1.0), "{name}");
        let figure = std::fs::read_to_string(folder.path().join("pipeline_gantt.svg")).unwrap();
        assert!(figure.contains("stage 3") && figure.contains("backward"), "{name}");
    }
}
