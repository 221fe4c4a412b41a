//! `steptime search` against play of every plan.

use crate::support::{number, report, steptime};

const BASE: &str = r#"name = "small"
[model]
name = "llama3.2-3b"
sequence_length = 4096
[cluster]
name = "dgx-h100"
[workload]
global_batch_size = 32
micro_batch_size = 1
precision = "bf16"
"#;

fn search(more: &str, arguments: &[&str]) -> (Option<i32>, serde_json::Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.toml");
    std::fs::write(&path, format!("{BASE}{more}")).unwrap();
    let output = steptime(&[&["search", path.to_str().unwrap(), "--json"], arguments].concat());
    let document = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let error = String::from_utf8_lossy(&output.stderr).replace(&format!("{}/", folder.path().display()), "");
    (output.status.code(), document, error)
}

const SPACE: &str = "[search]\ntensor = [1, 2, 4, 8]\npipeline = [1, 2, 4]\nvirtual_pipeline = [1, 2]\nzero_stage = [0, 1]\n\
                     micro_batch_size = [1, 2, 4]\nactivation_checkpointing = [\"none\", \"full\"]\nuneven_stages = false\n";

/// Every plan of a small space is played by a sweep: none that fits is faster than the one found, no play undercuts its bound, and the
/// keys that are printed give the time that is printed.
#[test]
fn the_best_plan_is_the_best_of_all() {
    let (code, found, error) = search(SPACE, &[]);
    assert_eq!(code, Some(0), "{error}");
    let sweep = format!(
        "{BASE}[parallelism]\ndata = 1\nsequence_parallel = false\n[sweep]\n\"parallelism.tensor\" = [1, 2, 4, 8]\n\
         \"parallelism.pipeline\" = [1, 2, 4]\n\"parallelism.data\" = [1, 2, 4, 8]\n\
         \"parallelism.virtual_pipeline\" = [1, 2]\n\"parallelism.zero_stage\" = [0, 1]\n\
         \"parallelism.sequence_parallel\" = [false, true]\n\
         \"workload.micro_batch_size\" = [1, 2, 4]\n\"workload.activation_checkpointing\" = [\"none\", \"full\"]\n\
         skip = [\"parallelism.tensor * parallelism.pipeline * parallelism.data != 8\", \
         \"parallelism.sequence_parallel != (parallelism.tensor > 1)\"]\n"
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sweep.toml");
    std::fs::write(&path, sweep).unwrap();
    let output = steptime(&["sweep", path.to_str().unwrap(), "--json"]);
    let all: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let fit = all["rows"].as_array().unwrap().iter().filter(|row| row["verdict"] == "fits");
    let least = fit.map(|row| number(&row["step_time_s"])).fold(f64::INFINITY, f64::min);
    let best = number(&found["best"]["step_time_s"]);
    assert!((best - least).abs() <= 1e-12 * least, "{best} against {least}");
    assert_eq!((&found["gap"], &found["best"]["why"]), (&0.0.into(), &"".into()));
    let counts = &found["counts"];
    let count = |key: &str| counts[key].as_u64().unwrap();
    assert_eq!(
        count("plans"),
        count("states_do_not_fit")
            + count("activations_do_not_fit")
            + count("bound_is_worse")
            + count("played")
            + count("refused")
            + count("left")
    );
    for key in ["pareto", "runners_up"] {
        for plan in found[key].as_array().unwrap() {
            assert!(number(&plan["bound_s"]) <= number(&plan["step_time_s"]), "{plan}");
        }
    }
    let plain = folder.path().join("plain.toml");
    std::fs::write(&plain, BASE).unwrap();
    let set: Vec<&str> =
        found["best"]["set"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
    let mut arguments = vec![plain.to_str().unwrap()];
    arguments.extend(set.iter().flat_map(|key| ["--set", key]));
    let run = report(&arguments);
    assert_eq!((&run["step_time_s"], &run["verdict"]), (&found["best"]["step_time_s"], &"fits".into()));
    // Threads do not matter.
    let (_, again, _) = search(SPACE, &["--jobs", "1"]);
    assert_eq!(again, found);
}

/// Bounds hold for plans of every kind, and what is ruled out by its states does run out of memory.
#[test]
fn nothing_undercuts_its_bound() {
    let (code, found, error) = search("[search]\nmicro_batch_size = [1, 2]\n", &["--plays", "60"]);
    assert_eq!(code, Some(0), "{error}");
    for plan in found["pareto"].as_array().unwrap().iter().chain(found["runners_up"].as_array().unwrap()) {
        assert!(number(&plan["bound_s"]) <= number(&plan["step_time_s"]), "{plan}");
    }
    assert!(number(&found["bound"]) <= number(&found["best"]["score"]));
}

#[test]
fn money_energy_and_the_smallest_cluster() {
    let cost = "[cost]\ngpu_hour = 2\ngpu_watts = 700\ngpu_idle_watts = 200\n";
    let narrow = "tensor = [1, 2]\npipeline = [1]\nmicro_batch_size = [1, 2]\nzero_stage = [1]\n";
    let find = |objective: &str| {
        let (code, found, error) =
            search(&format!("{cost}[search]\nobjective = \"{objective}\"\n{narrow}"), &[]);
        assert_eq!(code, Some(0), "{error}");
        found
    };
    let money = find("money");
    assert_eq!(money["best"]["score"], money["best"]["cost"]["per_step"]);
    assert_eq!(
        find("step_time")["best"]["set"],
        money["best"]["set"],
        "with one cluster the fastest is the cheapest"
    );
    let energy = find("energy");
    assert_eq!(energy["best"]["score"], energy["best"]["cost"]["energy_per_step_j"]);
    let smallest = |deadline: f64| {
        let section = format!(
            "[search]\nobjective = \"smallest_cluster\"\nnodes = [1, 2, 4]\ndeadline_seconds = {deadline}\n{narrow}"
        );
        search(&section, &[])
    };
    let alone = number(&find("step_time")["best"]["step_time_s"]);
    assert_eq!(smallest(alone * 1.01).1["best"]["gpus"], 8);
    assert_eq!(smallest(alone * 0.99).1["best"]["gpus"], 16);
    let (code, none, _) = smallest(alone * 0.01);
    assert_eq!((code, none["best"].is_null()), (Some(1), true));
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let error = search("[search]\nobjective = \"money\"\n", &[]).2;
    assert!(error.contains("objective \"money\" needs [cost]"), "{error}");
    let error = search("[search]\ntensors = [1]\n", &[]).2;
    assert!(error.contains("case.toml:12:1: search.tensors: unknown key"), "{error}");
    let error = search("[search]\nobjective = \"smallest_cluster\"\n", &[]).2;
    assert!(error.contains("needs deadline_seconds"), "{error}");
    let error = search("[parallelism]\npipeline = 2\nstages = [14, 14]\n", &[]).2;
    assert!(error.contains("parallelism.stages: is for the search to choose"), "{error}");
    let error = search("[search]\nactivation_checkpointing = [\"some\"]\n", &[]).2;
    assert!(
        error.contains("search.activation_checkpointing: found \"some\", allowed: none, selective, full"),
        "{error}"
    );
    let output = steptime(&["search", "scenarios/visionencoder-small-vehicles.toml"]);
    assert_eq!(output.status.code(), Some(2));
}

/// Every plan of a space that fits, played by a sweep over keys of the scenario; what cannot be is left out.
fn played(base: &str, axes: &str) -> Vec<serde_json::Value> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sweep.toml");
    std::fs::write(&path, format!("{base}[sweep]\n{axes}\n")).unwrap();
    let output = steptime(&["sweep", path.to_str().unwrap(), "--json"]);
    let all: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    all["rows"].as_array().unwrap().iter().filter(|row| row["verdict"] == "fits").cloned().collect()
}

/// Searches a whole space and holds what is found against play of all its plans, of which those count that `counts` says.
/// Returns the best plan's keys.
fn best_of_all(
    base: &str,
    section: &str,
    axes: &str,
    counts: impl Fn(&serde_json::Value) -> bool,
) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.toml");
    std::fs::write(&path, format!("{base}[search]\n{section}\n")).unwrap();
    let output = steptime(&["search", path.to_str().unwrap(), "--json"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    // Sizes are for the sweep to set.
    let sizes = base.contains("[parallelism]") || !axes.contains("parallelism.data");
    let swept = if sizes { base.to_owned() } else { sized(base) };
    let all = played(&swept, axes);
    let fit = all.iter().filter(|row| counts(row));
    let least = fit.map(|row| number(&row["step_time_s"])).fold(f64::INFINITY, f64::min);
    let best = number(&found["best"]["step_time_s"]);
    assert!((best - least).abs() <= 1e-12 * least, "{best} against {least} of {} plans: {found}", all.len());
    assert_eq!(found["gap"], 0.0, "{}", found["counts"]);
    assert!(number(&found["bound"]) <= best);
    found["best"]["set"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()).collect()
}

/// Sizes of 8 GPUs; sequence parallelism with tensor parallelism, as the search has it.
const EIGHT: &str = "\"parallelism.tensor\" = [1, 2, 4]\n\"parallelism.pipeline\" = [1, 2, 4]\n\
    \"parallelism.data\" = [1, 2, 4, 8]\n\"parallelism.zero_stage\" = [0, 1]\n\
    \"parallelism.sequence_parallel\" = [false, true]\n";
const EIGHT_SEARCHED: &str = "tensor = [1, 2, 4]\npipeline = [1, 2, 4]\nvirtual_pipeline = [1]\nzero_stage = [0, 1]\n\
    micro_batch_size = [1]\nactivation_checkpointing = [\"none\"]\nuneven_stages = false\n";

/// What leaves out sizes that are no 8 GPUs, with further factors.
fn eight(more: &str) -> String {
    format!(
        "skip = [\"parallelism.tensor * parallelism.pipeline * parallelism.data{more} != 8\", \
         \"parallelism.sequence_parallel != (parallelism.tensor > 1)\"]"
    )
}

fn sized(base: &str) -> String {
    format!("{base}[parallelism]\ndata = 1\nsequence_parallel = false\n")
}

#[test]
fn a_memory_limit_leaves_out_what_is_above_it() {
    let axes = format!("{EIGHT}{}", eight(""));
    let free = best_of_all(BASE, EIGHT_SEARCHED, &axes, |_| true);
    let limit = 30_u64 << 30;
    let section = format!("memory_limit = \"30 GiB\"\n{EIGHT_SEARCHED}");
    let within = |row: &serde_json::Value| row["peak_device_bytes"].as_u64().unwrap() <= limit;
    let limited = best_of_all(BASE, &section, &axes, within);
    assert_ne!(free, limited, "the fastest plan of all takes more than the limit");
    let (code, none, _) = search("[search]\nmemory_limit = \"1 GiB\"\ntensor = [1]\npipeline = [1]\n", &[]);
    assert_eq!((code, none["best"].is_null()), (Some(1), true));
    let error = search("[search]\nmemory_limit = \"much\"\n", &[]).2;
    assert!(error.contains("search.memory_limit: found \"much\", allowed: an amount such as"), "{error}");
}

/// Two nodes finish earlier and cost more: what the work may cost decides. Least money of any plan is what nobody undercuts.
#[test]
fn a_budget_leaves_out_what_costs_more() {
    let base = sized(&format!("{BASE}[cost]\ngpu_hour = 2\ntokens = 1e9\n")).replace("data = 1\n", "");
    let axes = "\"cluster.nodes\" = [1, 2]\n\"parallelism.tensor\" = [1, 2]\n\
                \"parallelism.sequence_parallel\" = [false, true]\n\"parallelism.zero_stage\" = [1, 3]\n\
                skip = \"parallelism.sequence_parallel != (parallelism.tensor > 1)\"";
    let space = "nodes = [1, 2]\ntensor = [1, 2]\npipeline = [1]\nzero_stage = [1, 3]\nmicro_batch_size = [1]\n\
                 activation_checkpointing = [\"none\"]";
    let money = |row: &serde_json::Value| number(&row["cost"]["to_finish"]["money"]);
    let all = played(&base, axes);
    let of = |nodes: u64| all.iter().filter(move |row| row["values"]["cluster.nodes"] == nodes).map(money);
    let least = |nodes| of(nodes).fold(f64::INFINITY, f64::min);
    assert!(least(1) < least(2), "{} {}", least(1), least(2));
    let nodes = |set: &[String]| set.iter().find(|key| key.starts_with("cluster.nodes")).cloned().unwrap();
    let rich = best_of_all(&base, &format!("budget = 1e9\n{space}"), axes, |_| true);
    assert_eq!(nodes(&rich), "cluster.nodes=2");
    let budget = least(2) * 0.999;
    let poor = best_of_all(&base, &format!("budget = {budget}\n{space}"), axes, |row| money(row) <= budget);
    assert_eq!(nodes(&poor), "cluster.nodes=1");
    let error = search("[search]\nbudget = 10\n", &[]).2;
    assert!(error.contains("search.budget is the money for all of the work"), "{error}");
}

#[test]
fn experts_may_be_spread_as_the_search_finds_best() {
    let base = "name = \"experts\"\n[model]\nname = \"mixtral-8x7b\"\nsequence_length = 2048\noverrides = { layers = 4 }\n\
                [cluster]\nname = \"dgx-h100\"\n[workload]\nglobal_batch_size = 16\nmicro_batch_size = 1\nprecision = \"bf16\"\n";
    let axes = format!("{EIGHT}\"parallelism.expert\" = [1, 2, 4, 8]\n{}", eight(""));
    let section = format!("expert = [1, 2, 4, 8]\n{EIGHT_SEARCHED}");
    let best = best_of_all(base, &section, &axes, |_| true);
    assert!(!best.contains(&"parallelism.expert=1".to_owned()), "{best:?}");
    let error = search("[search]\nexpert = [0]\n", &[]).2;
    assert!(error.contains("search.expert: is a list of whole numbers from 1"), "{error}");
}

#[test]
fn sequences_may_be_shared_as_the_search_finds_best() {
    let base = BASE.replace("4096", "16384").replace("size = 32", "size = 8");
    let axes = format!("{EIGHT}\"parallelism.context\" = [1, 2, 4]\n{}", eight(" * parallelism.context"));
    best_of_all(&base, &format!("context = [1, 2, 4]\n{EIGHT_SEARCHED}"), &axes, |_| true);
}

#[test]
fn schedules_are_chosen_by_play() {
    let axes = format!(
        "{EIGHT}\"parallelism.schedule\" = [\"1f1b\", \"gpipe\", \"zb-h1\", \"zb-v\"]\n{}",
        eight("")
    );
    // Pipelines alone, so that there is something to choose.
    let only = format!("{axes}\nonly = \"parallelism.pipeline > 1\"");
    let section = EIGHT_SEARCHED.replace("pipeline = [1, 2, 4]", "pipeline = [2, 4]");
    let section = format!("schedule = [\"1f1b\", \"gpipe\", \"zb-h1\", \"zb-v\"]\n{section}");
    let section = section.replace("virtual_pipeline = [1]", "virtual_pipeline = [1, 2]");
    let best = best_of_all(BASE, &section, &only, |row| row["values"]["parallelism.pipeline"] != 1);
    assert!(best.iter().any(|key| key.starts_with("parallelism.schedule=zb-")), "{best:?}");
}

/// With room for the weights and not for the states of the optimizer these go to the hosts.
#[test]
fn states_go_to_the_hosts_where_nothing_else_fits() {
    let base =
        BASE.replace("llama3.2-3b", "llama3-8b").replace("dgx-h100\"", "dgx-h100\"\ngpus_per_node = 2");
    let sizes = "\"parallelism.zero_stage\" = [0, 1, 2, 3]\n\
                 \"parallelism.offload\" = [{ optimizer = \"none\" }, { optimizer = \"cpu\" }, { optimizer = \"cpu\", parameters = \"cpu\" }]";
    let section = "tensor = [1]\npipeline = [1]\nzero_stage = [0, 1, 2, 3]\nmicro_batch_size = [1]\n\
                   activation_checkpointing = [\"none\"]\noffload = [\"none\", \"optimizer\", \"parameters\"]\n";
    let best = best_of_all(&base, section, sizes, |_| true);
    assert!(best.iter().any(|key| key.contains("optimizer=\"cpu\"")), "{best:?}");
}

/// The whole Pareto set against play of every plan (states are partitioned over two replicas or more): each is no better than some plan of the set in time and memory at once. Steps that
/// were played in part are off by a thousandth at most.
#[test]
fn the_whole_pareto_set_is_found() {
    let (base, axes) = (
        sized(BASE),
        format!(
            "{EIGHT}\"workload.activation_checkpointing\" = [\"none\", \"full\"]\n{}",
            eight("").replace(']', ", \"parallelism.data == 1 and parallelism.zero_stage == 1\"]")
        ),
    );
    let section = EIGHT_SEARCHED.replace("[\"none\"]", "[\"none\", \"full\"]");
    let (_, few, _) = search(&format!("[search]\n{section}"), &[]);
    let (code, found, error) = search(&format!("[search]\npareto = \"whole\"\n{section}"), &[]);
    assert_eq!(code, Some(0), "{error}");
    let pair = |step: &serde_json::Value, bytes: &serde_json::Value| (number(step), number(bytes));
    let of = |report: &serde_json::Value| -> Vec<(f64, f64)> {
        let plans = report["pareto"].as_array().unwrap().iter();
        plans.map(|plan| pair(&plan["step_time_s"], &plan["peak_device_bytes"])).collect()
    };
    let near = 1.0 + 1e-3;
    let beats = |a: (f64, f64), b: (f64, f64)| a.0 <= b.0 * near && a.1 <= b.1;
    let all: Vec<(f64, f64)> =
        played(&base, &axes).iter().map(|row| pair(&row["step_time_s"], &row["peak_device_bytes"])).collect();
    let front = of(&found);
    for &plan in &all {
        assert!(front.iter().any(|&it| beats(it, plan)), "{plan:?} is missing in {front:?}");
    }
    for &plan in &front {
        let worse = |it: &&(f64, f64)| it.0 * near < plan.0 && it.1 < plan.1;
        assert_eq!(all.iter().find(worse), None, "{plan:?} is beaten");
    }
    assert!(
        all.iter().any(|&plan| !of(&few).iter().any(|&it| beats(it, plan))),
        "the usual set is of what was played"
    );
    assert_eq!((&few["best"], &few["bound"]), (&found["best"], &found["bound"]));
    let counts = &found["counts"];
    let count = |key: &str| counts[key].as_u64().unwrap();
    assert!(count("played") < count("plans") - count("states_do_not_fit"), "bounds rule some out: {counts}");
    assert_eq!(count("left"), 0);

    // With one play fewer the set may lack a plan, and that is said.
    let plays = (count("played") - 1).to_string();
    let (_, short, _) = search(&format!("[search]\npareto = \"whole\"\n{section}"), &["--plays", &plays]);
    assert!(short["counts"]["left"].as_u64().unwrap() > 0, "{}", short["counts"]);
}

/// A large vocabulary on few blocks: the last stage has fewer of them, and the step is shorter than with any even split.
#[test]
fn stages_are_split_unevenly_where_that_is_faster() {
    let base = BASE.replace("llama3.2-3b", "llama3.2-1b");
    let space = "tensor = [1]\npipeline = [4]\nvirtual_pipeline = [1]\nzero_stage = [1]\nmicro_batch_size = [1]\n\
                 activation_checkpointing = [\"none\"]\n";
    let step = |uneven: bool| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("case.toml");
        std::fs::write(&path, format!("{base}[search]\n{space}uneven_stages = {uneven}\n")).unwrap();
        let output = steptime(&["search", path.to_str().unwrap(), "--json"]);
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let set = found["best"]["set"].as_array().unwrap();
        let stages =
            set.iter().find_map(|key| key.as_str()?.strip_prefix("parallelism.stages=").map(str::to_owned));
        (number(&found["best"]["step_time_s"]), stages)
    };
    let ((even, none), (uneven, some)) = (step(false), step(true));
    assert_eq!(none, None);
    let stages: Vec<u64> =
        some.unwrap().trim_matches(['[', ']']).split(',').map(|count| count.parse().unwrap()).collect();
    assert_eq!((stages.len(), stages.iter().sum::<u64>()), (4, 16));
    assert!(stages[3] < stages[0] && uneven < even * 0.97, "{stages:?}: {uneven} against {even}");
}
