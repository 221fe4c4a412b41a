//! What hooks take the host, counted by hand: by units, modules, parameters and gradients.

use proptest::test_runner::TestCaseError;
use steptime_clusters::{Cluster, Framework, HOOK_COSTS, HookCost};
use steptime_core::SimTime;
use steptime_models::Model;

use super::fixtures::{both, cluster, free_links, model, plan, play, workload};
use crate::fetch::{ByValues, Fetch, FsdpVersion};
use crate::plan::Plan;
use crate::recompute::Checkpointing;
use crate::schedule::ScheduleKind;
use crate::workload::{Execution, Workload};
use crate::zero::ZeroStage;

const BLOCKS: u64 = 3;
const MICRO_BATCHES: u64 = 2;

fn gpt() -> Model {
    model("gpt2", BLOCKS.cast_signed())
}

fn sharded(zero: ZeroStage) -> Plan {
    plan(2, 1, ScheduleKind::GPipe, zero)
}

fn with(fetch: Fetch) -> Plan {
    Plan { fetch, ..sharded(ZeroStage::Three) }
}

fn deepspeed() -> Fetch {
    Fetch { by_values: Some(ByValues { ahead: 0, live: 0, reuse: 0 }), ..Fetch::default() }
}

/// How often a step pays for a hook: a host that takes it 10 s longer makes the step longer by 10 s each time.
fn times(name: &str, plan: &Plan, work: &Workload) -> u64 {
    let place = HOOK_COSTS.iter().position(|it| *it == name).expect("a hook");
    let end = |seconds: f64| {
        let mut host = free_links(1, 2);
        let mut costs = [0.0; HOOK_COSTS.len()];
        costs[place] = seconds;
        host.host.hooks = HookCost::from_values(costs);
        play(&gpt(), &host, plan, work).1.end.picos()
    };
    let ten = SimTime::from_seconds(10.0).expect("short").picos();
    let more = end(20.0) - end(10.0);
    assert_eq!(more % ten, 0, "{name}");
    more / ten
}

/// Embedding, blocks and head are units; wrapped blocks are one.
#[test]
fn fsdps_hooks_run_once_a_unit_and_pass() {
    let work = workload(MICRO_BATCHES);
    let parameters: usize = gpt().layers.iter().map(|it| it.parameters.len()).sum();
    for (version, name) in [(FsdpVersion::Flat, "fsdp1"), (FsdpVersion::PerParameter, "fsdp2")] {
        for (unit, units) in [(1, BLOCKS + 2), (2, 2 + 2), (BLOCKS, 1 + 2)] {
            let plan = with(Fetch { unit, version, ..Fetch::default() });
            for pass in ["forward", "backward"] {
                assert_eq!(times(&format!("{name}_unit_{pass}"), &plan, &work), MICRO_BATCHES * units);
                let each = times(&format!("{name}_parameter_{pass}"), &plan, &work);
                assert_eq!(each, MICRO_BATCHES * parameters as u64);
            }
        }
        // Nothing of the other's, and none of DeepSpeed's.
        let other = if name == "fsdp1" { "fsdp2_unit_forward" } else { "fsdp1_unit_forward" };
        let plan = with(Fetch { version, ..Fetch::default() });
        for name in [other, "deepspeed_module_forward", "deepspeed_gradient_stage3", "deepspeed_gradient"] {
            assert_eq!(times(name, &plan, &work), 0, "{name}");
        }
    }
}

/// GPT's block has six modules with twelve parameters: two norms and four products, each with a bias; before the blocks come
/// two embeddings, behind them a norm and the output, which is the embedding once more.
#[test]
fn deepspeeds_hooks_run_once_a_module_parameter_and_gradient() {
    let work = workload(MICRO_BATCHES);
    let full = Workload { checkpointing: Checkpointing::Full, ..work.clone() };
    let plan = with(deepspeed());
    let (modules, parameters) = (6 * BLOCKS + 2 + 2, 12 * BLOCKS + 2 + 3);
    assert_eq!(times("deepspeed_module_forward", &plan, &work), MICRO_BATCHES * modules);
    assert_eq!(times("deepspeed_module_backward", &plan, &work), MICRO_BATCHES * modules);
    // Recomputed blocks go through forward again.
    let again = MICRO_BATCHES * (modules + 6 * BLOCKS);
    assert_eq!(times("deepspeed_module_forward", &plan, &full), again);
    assert_eq!(times("deepspeed_parameter_gathered", &plan, &work), 2 * MICRO_BATCHES * parameters);
    let gradients = parameters - 1;
    assert_eq!(times("deepspeed_gradient_stage3", &plan, &work), MICRO_BATCHES * gradients);
    assert_eq!(times("fsdp1_unit_forward", &plan, &work), 0);
    // What stays whole is not gathered; its module's hooks run, and its gradient is reduced.
    let whole = with(Fetch { persistent_below: u64::MAX, ..deepspeed() });
    assert_eq!(times("deepspeed_parameter_gathered", &whole, &work), 0);
    assert_eq!(times("deepspeed_module_forward", &whole, &work), MICRO_BATCHES * modules);
    assert_eq!(times("deepspeed_gradient_stage3", &whole, &work), MICRO_BATCHES * gradients);
    // Stage 2 reduces what every micro-batch makes, stage 1 what all together do.
    assert_eq!(times("deepspeed_gradient", &sharded(ZeroStage::Two), &work), MICRO_BATCHES * gradients);
    assert_eq!(times("deepspeed_gradient", &sharded(ZeroStage::One), &work), gradients);
    assert_eq!(times("deepspeed_gradient", &sharded(ZeroStage::Zero), &work), 0);
}

#[test]
fn hooks_run_where_python_does() {
    let name = "fsdp1_unit_forward";
    let plan = with(Fetch::default());
    let issued = |execution| Workload { execution, ..workload(1) };
    assert_eq!(times(name, &plan, &issued(Execution::Compiled)), BLOCKS + 2);
    assert_eq!(times(name, &plan, &issued(Execution::CudaGraphs)), 0);
    // Megatron-LM's own sharding is part of what its blocks take; DeepSpeed's comes on top of it.
    let megatron = Workload { framework: Framework::Megatron, ..workload(1) };
    assert_eq!(times(name, &plan, &megatron), 0);
    assert_eq!(times("deepspeed_module_forward", &with(deepspeed()), &megatron), 6 * BLOCKS + 2 + 2);
    let alone = Plan { data: 1, ..plan };
    let mut host = free_links(1, 1);
    let before = play(&gpt(), &host, &alone, &workload(1)).1.end;
    host.host.hooks = HookCost::from_values([10.0; HOOK_COSTS.len()]);
    assert_eq!(play(&gpt(), &host, &alone, &workload(1)).1.end, before, "nothing is shared with nobody");
}

/// A step of the catalogue's host, and of the same one without hooks, seconds.
fn steps(model: &Model, plan: &Plan, work: &Workload) -> [f64; 2] {
    let mut host: Cluster = cluster("dgx-h100").with_size(1, 8).expect("a node");
    let end = |host: &Cluster| play(model, host, plan, work).1.end.picos() as f64 * 1e-12;
    let with = end(&host);
    host.host.hooks = HookCost::default();
    [with, end(&host)]
}

/// The step of a small model is its host's; that of a large one hides what its host does.
#[test]
fn small_models_wait_for_hooks_and_large_ones_do_not() {
    let costs = cluster("dgx-h100").host.hooks;
    let small = gpt();
    let eight = |fetch| Plan { data: 8, ..with(fetch) };
    let [hooked, bare] = steps(&small, &eight(Fetch::default()), &workload(1));
    let parameters: usize = small.layers.iter().map(|it| it.parameters.len()).sum();
    let unit = costs.fsdp1.unit_forward_s + costs.fsdp1.unit_backward_s;
    let each = costs.fsdp1.parameter_forward_s + costs.fsdp1.parameter_backward_s;
    let all = (BLOCKS + 2) as f64 * unit + parameters as f64 * each;
    assert!((0.7 * all..=1.01 * all).contains(&(hooked - bare)), "{hooked} {bare} {all}");
    let whole = Plan { zero: ZeroStage::Zero, ..eight(Fetch::default()) };
    let [hooked, bare] = steps(&small, &whole, &workload(1));
    assert!((hooked - bare).abs() < 1e-15, "replicas have none");
    let long = Workload { sequence_length: 8192, ..workload(1) };
    let llama = model("llama3-8b", 4);
    for fetch in
        [Fetch::default(), Fetch { version: FsdpVersion::PerParameter, ..Fetch::default() }, deepspeed()]
    {
        let [hooked, bare] = steps(&llama, &eight(fetch), &long);
        assert!(bare <= hooked && hooked < 1.02 * bare, "{fetch:?} {hooked} {bare}");
    }
}

#[test]
fn folded_hooks_take_as_long_as_everybodys() -> Result<(), TestCaseError> {
    let host = cluster("dgx-h100").with_size(1, 4).expect("four GPUs");
    for fetch in [Fetch::default(), deepspeed()] {
        both(&gpt(), &host, &Plan { data: 4, ..with(fetch) }, &workload(MICRO_BATCHES))?;
    }
    both(&gpt(), &host, &Plan { data: 4, ..sharded(ZeroStage::Two) }, &workload(MICRO_BATCHES))?;
    Ok(())
}
