//! States and activations off the GPUs: what moves, what is freed, who shares what, and folding.

use proptest::prelude::*;
use steptime_clusters::{Backing, Cluster, Drives};
use steptime_core::{NoObserver, Recorder, Span, simulate};
use steptime_models::Bytes;

use super::fixtures::{Both, both, cluster, model, plan, play, workload};
use crate::classes;
use crate::lower::{Lowered, lower};
use crate::offload::{Offload, Store, page_locked};
use crate::plan::Plan;
use crate::schedule::ScheduleKind;
use crate::workload::{Checkpointing, Workload};
use crate::zero::ZeroStage;

/// Hosts whose rates are round numbers: copies at 10 GB/s, memory at 100 GB/s for two GPUs, drives at 4 and 2 GB/s.
fn host(cluster: Cluster) -> Cluster {
    let mut cluster = cluster;
    cluster.host.pinned_bandwidth = 10e9;
    cluster.host.pageable_bandwidth = 5e9;
    cluster.host.memory = Bytes(1 << 40);
    cluster.host.backing = Some(Backing {
        gpus_per_socket: 2,
        gpus_per_root: 1,
        memory_bandwidth: 100e9,
        streaming_share: 1.0,
        vector_flops: 1e15,
        drives: Some(Drives { capacity: Bytes(1 << 44), read: 4e9, write: 2e9 }),
    });
    cluster
}

fn nodes(gpus: u32) -> Cluster {
    host(cluster("dgx-h100").with_size(1, gpus).expect("a possible size"))
}

fn offloading(optimizer: Store, parameters: Store) -> Offload {
    Offload { optimizer, parameters, ..Offload::default() }
}

fn data_parallel(data: u64, zero: ZeroStage, offload: Offload) -> Plan {
    Plan { offload, ..plan(data, 1, ScheduleKind::OneForwardOneBackward, zero) }
}

/// Spans of one rank on a stream, and the bytes that crossed: time less the fixed start, times the rate.
fn spans(lowered: &Lowered, stream: &str) -> Vec<Span> {
    let mut recorder = Recorder::default();
    simulate(&lowered.world, &mut recorder).expect("no deadlock");
    let names = lowered.world.programs()[0].streams();
    let index = names.iter().position(|name| name == stream).expect("a stream of that name") as u8;
    let of_stream = |span: &&Span| span.rank == 0 && span.stream.is_some_and(|it| it.0 == index);
    recorder.spans().iter().filter(of_stream).copied().collect()
}

fn moved(lowered: &Lowered, stream: &str, rate: f64, start: f64, kind: &str) -> f64 {
    let program = &lowered.world.programs()[0];
    let wanted = |span: &&Span| program.label(span.label).split('|').nth(1) == Some(kind);
    // Kernels that convert before a copy have no kind of their own: they are told by their span's.
    let spans = spans(lowered, stream);
    let copies = spans.iter().filter(wanted).filter(|span| span.kind != steptime_core::SpanKind::Kernel);
    copies.map(|span| ((span.end.seconds() - span.start.seconds()) - start) * rate).sum()
}

fn gpt() -> steptime_models::Model {
    model("gpt2", 4)
}

/// What DeepSpeed moves, see the table in `lower/stage/offload.rs`.
#[test]
fn bytes_each_way_are_those_of_the_closed_form() {
    let gpt = gpt();
    let mut cluster = nodes(1);
    cluster.gpu.kernel_latency_s = 0.0;
    let n = gpt.parameters() as f64;
    for m in [1_u64, 3] {
        let work = workload(m);
        let count = m as f64;
        let cases = [
            (ZeroStage::One, Store::Device, 4.0 * n, 2.0 * n),
            (ZeroStage::Two, Store::Device, (4.0 + 2.0 * (count - 1.0)) * n, (2.0 * count) * n),
            (ZeroStage::Three, Store::Device, (4.0 + 2.0 * count) * n, (2.0 * count) * n),
        ];
        for (zero, parameters, down, up) in cases {
            let plan = data_parallel(1, zero, offloading(Store::Host, parameters));
            let lowered = lower(&gpt, &cluster, &plan, &work).expect("legal");
            let found = moved(&lowered, "copies to host", 10e9, 0.0, "to_host");
            assert!((found / down - 1.0).abs() < 1e-6, "{zero:?}, {m}: {found} to the host, not {down}");
            let converted = if zero == ZeroStage::Three { 2.0 * n } else { 0.0 };
            let found = moved(&lowered, "copies to device", 10e9, 0.0, "to_device");
            // What is not page-locked crosses at half of the rate and looks like twice the bytes.
            let up = up + 2.0 * converted;
            assert!((found / up - 1.0).abs() < 1e-6, "{zero:?}, {m}: {found} to the device, not {up}");
        }
    }
}

#[test]
fn offloaded_parameters_cross_once_a_pass_and_layer() {
    let gpt = gpt();
    let mut cluster = nodes(1);
    cluster.gpu.kernel_latency_s = 0.0;
    let plan = data_parallel(1, ZeroStage::Three, offloading(Store::Host, Store::Host));
    let lowered = lower(&gpt, &cluster, &plan, &workload(2)).expect("legal");
    let found = moved(&lowered, "copies to device", 10e9, 0.0, "to_device");
    // GPT-2's head is the embedding, fetched again under its other name.
    let each: u64 = gpt.layers.iter().flat_map(|layer| layer.parameters.iter()).map(|it| it.count).sum();
    let up = 2.0 * (2 * 2 * each + 2 * gpt.parameters()) as f64;
    assert!((found / up - 1.0).abs() < 1e-6, "{found}, not {up}");
}

/// DeepSpeed's memory estimates (`estimate_zero2_model_states_mem_needs`, `estimate_zero3_...`), without its factor for
/// buffers: 16 bytes a parameter with an offloaded optimizer, 18 with offloaded parameters; here beside 2 for gradients
/// and, up to ZeRO 2, 2 for updated parameters on their way.
#[test]
fn the_device_is_freed_of_exactly_what_is_offloaded() {
    let gpt = gpt();
    let cluster = nodes(4);
    let n = gpt.parameters();
    let held = |zero, offload| {
        let (lowered, outcome) = play(&gpt, &cluster, &data_parallel(4, zero, offload), &workload(2));
        let end: u64 = outcome.ranks[0].memory.end_by_category.iter().sum();
        (end, lowered.stages[0].host.clone())
    };
    let part = n.div_ceil(4);
    for (zero, parameters, freed) in [
        (ZeroStage::One, Store::Device, 12 * part),
        (ZeroStage::Two, Store::Device, 14 * part),
        // Without offloading, gradients of ZeRO 3 are gone when the step has ended.
        (ZeroStage::Three, Store::Device, 12 * part),
        (ZeroStage::Three, Store::Host, 14 * part),
    ] {
        let (with, host) = held(zero, offloading(Store::Host, parameters));
        let (without, _) = held(zero, Offload::default());
        assert_eq!(without - with, freed, "{zero:?}");
        // Before page-locked memory is rounded up.
        let unlocked = Offload { pin_memory: false, ..offloading(Store::Host, parameters) };
        let (_, plain) = held(zero, unlocked);
        let extra = if zero >= ZeroStage::Two { 2 * part } else { 0 };
        let weights = if parameters == Store::Host { 2 * part } else { 0 };
        let updated = if zero < ZeroStage::Three { 2 * part } else { 0 };
        assert_eq!(plain.held_bytes(), 16 * part + extra + weights + updated);
        let locked = [4 * part, 4 * part, extra, weights, updated].map(page_locked).iter().sum::<u64>();
        assert_eq!(host.held_bytes(), 8 * part + locked);
    }
}

#[test]
fn two_ranks_of_a_processor_take_twice_as_long_as_one_and_four_no_longer() {
    let gpt = gpt();
    let mut times = Vec::new();
    for gpus in [1_u64, 2, 4] {
        let mut cluster = nodes(gpus as u32);
        cluster.gpu.kernel_latency_s = 0.0;
        // Every rank updates all parameters: no partition hides the sharing.
        let offload = offloading(Store::Host, Store::Device);
        let plan = data_parallel(gpus, ZeroStage::One, offload);
        let lowered = lower(&gpt, &cluster, &plan, &workload(1)).expect("legal");
        let update: f64 = spans(&lowered, "host optimizer")
            .iter()
            .map(|span| span.end.seconds() - span.start.seconds())
            .sum();
        // 28 bytes of Adam, 8 of unscaling and 6 of conversion a value, all ranks of the processor at 100 GB/s.
        let sharing = gpus.min(2);
        let expected = (gpt.parameters().div_ceil(gpus) * 42 * sharing) as f64 / 100e9;
        assert!((update / expected - 1.0).abs() < 1e-6, "{gpus} GPUs: {update}, not {expected}");
        times.push(update);
    }
    assert!((times[1] / times[0] - 1.0).abs() < 1e-4, "halved work, halved rate");
    assert!((times[2] / times[0] - 0.5).abs() < 1e-4, "quartered work, halved rate");
}

#[test]
fn drives_read_16_and_write_16_bytes_a_parameter() {
    let gpt = gpt();
    let cluster = nodes(1);
    let n = gpt.parameters() as f64;
    let mut ends = Vec::new();
    for drive_pipeline in [false, true] {
        let offload =
            Offload { drive_pipeline, sub_group: 20_000_000, ..offloading(Store::Drive, Store::Device) };
        let plan = data_parallel(1, ZeroStage::Three, offload);
        let (lowered, outcome) = play(&gpt, &cluster, &plan, &workload(1));
        let read = moved(&lowered, "drive reads", 4e9, 0.0, "drive_read");
        let written = moved(&lowered, "drive writes", 2e9, 0.0, "drive_write");
        assert!((read / (16.0 * n) - 1.0).abs() < 1e-6, "{read}");
        assert!((written / (16.0 * n) - 1.0).abs() < 1e-6, "{written}");
        assert_eq!(lowered.stages[0].host.drive_bytes, 16 * gpt.parameters());
        ends.push(outcome.end);
    }
    assert!(ends[1] < ends[0], "reading ahead is no slower: {ends:?}");
}

/// A group ends with the tensor that fills it, as DeepSpeed has it: there are no more groups than tensors.
#[test]
fn the_host_updates_whole_tensors_in_groups() {
    let gpt = gpt();
    let mut cluster = nodes(2);
    cluster.host.sync_latency_s = 0.0;
    // GPT-2's head has the embedding's values, which are updated once.
    let own = gpt.layers.iter().flat_map(|layer| layer.parameters.iter()).filter(|it| !it.tied);
    let parts: Vec<u64> = own.map(|it| it.count.div_ceil(2)).collect();
    let all: u64 = parts.iter().sum();
    // The embedding of tokens alone has 19.3 M values a rank, that of positions 0.4 M, a block 3.5 M.
    assert_eq!((parts[0], parts[1]), (50257 * 768 / 2, 1024 * 768 / 2));
    for (size, groups) in [(1, parts.len()), (all, 1), (all - 1, 1), (parts[0] + 1, 2), (1 << 42, 1)] {
        let offload = Offload { sub_group: size, ..offloading(Store::Host, Store::Device) };
        let (lowered, _) = play(&gpt, &cluster, &data_parallel(2, ZeroStage::Three, offload), &workload(1));
        let of_rank = spans(&lowered, "host optimizer");
        // Adam, and the conversion of what it has updated.
        assert_eq!(of_rank.len(), 2 * groups, "in groups of {size}");
        let seconds = of_rank.iter().map(|span| span.end.seconds() - span.start.seconds());
        let longest = seconds.fold(0.0, f64::max);
        let least = *parts.iter().max().expect("parts") * 36;
        assert!(longest * 100e9 >= least as f64, "the largest tensor is never cut: {longest}");
    }
}

#[test]
fn activations_come_back_as_they_left() {
    let gpt = gpt();
    let mut cluster = nodes(1);
    cluster.gpu.kernel_latency_s = 0.0;
    for checkpointing in [Checkpointing::None, Checkpointing::Full] {
        let work = Workload { checkpointing, micro_batch_size: 8, ..workload(2) };
        let blocking = Offload { activations: true, ..Offload::default() };
        let lowered =
            lower(&gpt, &cluster, &data_parallel(1, ZeroStage::Zero, blocking), &work).expect("legal");
        let down = moved(&lowered, "compute", 10e9, 0.0, "to_host");
        let up = moved(&lowered, "compute", 10e9, 0.0, "to_device");
        assert!(down > 0.0 && (down / up - 1.0).abs() < 1e-9, "{down}, {up}");
        let (_, outcome) = play(&gpt, &cluster, &data_parallel(1, ZeroStage::Zero, blocking), &work);
        let (_, plain) = play(&gpt, &cluster, &data_parallel(1, ZeroStage::Zero, Offload::default()), &work);
        let end = |outcome: &steptime_core::Outcome| outcome.ranks[0].memory.end_by_category;
        assert_eq!(end(&outcome), end(&plain));
        assert!(outcome.ranks[0].memory.peak < plain.ranks[0].memory.peak);
        let beside = Offload { overlap_activations: true, ..blocking };
        let (_, overlapped) = play(&gpt, &cluster, &data_parallel(1, ZeroStage::Zero, beside), &work);
        assert_eq!(end(&overlapped), end(&plain));
        assert!(overlapped.end < outcome.end && plain.end < overlapped.end);
    }
}

#[test]
fn waiting_for_the_host_is_offload_and_nothing_else_changes_without_it() {
    let gpt = gpt();
    let cluster = nodes(2);
    let offload = offloading(Store::Host, Store::Host);
    let (_, outcome) = play(&gpt, &cluster, &data_parallel(2, ZeroStage::Three, offload), &workload(1));
    let waited = outcome.ranks[0].idle[usize::from(classes::OFFLOAD.0)];
    // At least Adam and the conversion, which nothing hides: 42 bytes a value of two ranks.
    let least = (gpt.parameters().div_ceil(2) * 42 * 2) as f64 / 100e9;
    assert!(waited.seconds() >= least * 0.999, "{} < {least}", waited.seconds());
    let (lowered, outcome) =
        play(&gpt, &cluster, &data_parallel(2, ZeroStage::Three, Offload::default()), &workload(1));
    assert_eq!(outcome.ranks[0].idle[usize::from(classes::OFFLOAD.0)].picos(), 0);
    assert!(!lowered.world.programs()[0].streams().iter().any(|name| name.contains("host")));
}

#[test]
fn what_cannot_be_offloaded_is_refused() {
    let gpt = gpt();
    let cluster = nodes(2);
    let refused = |plan: Plan, cluster: &Cluster, work: &Workload| {
        lower(&gpt, cluster, &plan, work).map(|_| ()).expect_err("refused").to_string()
    };
    let host = Store::Host;
    let work = workload(1);
    let zero = |zero, offload| data_parallel(2, zero, offload);
    for (plan, words) in [
        (
            zero(ZeroStage::Zero, offloading(host, Store::Device)),
            "an offloaded optimizer needs zero_stage = 1, 2 or 3",
        ),
        (zero(ZeroStage::Two, offloading(host, host)), "offloaded parameters need zero_stage = 3"),
        (
            zero(ZeroStage::Two, offloading(Store::Drive, Store::Device)),
            "optimizer states on drives need zero_stage = 3",
        ),
        (
            zero(ZeroStage::Three, offloading(Store::Device, host)),
            "offloaded parameters need an offloaded optimizer",
        ),
    ] {
        let message = refused(plan, &cluster, &work);
        assert!(message.starts_with(words), "{message}");
    }
    let mut bare = cluster.clone();
    bare.host.backing = None;
    let plan = zero(ZeroStage::One, offloading(host, Store::Device));
    assert!(refused(plan.clone(), &bare, &work).contains("does not say"));
    let sgd = Workload { optimizer: crate::OptimizerKind::Sgd, ..work };
    assert!(refused(plan, &cluster, &sgd).contains("allowed optimizers: adam, adamw"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn folded_equals_explicit_with_offload(
        (gpus, per_socket, per_root) in prop::sample::select(vec![(4_u32, 2_u32, 1_u32), (8, 4, 2), (8, 2, 4), (6, 4, 2), (2, 1, 1)]),
        (zero, optimizer, parameters) in prop::sample::select(vec![
            (ZeroStage::One, Store::Host, Store::Device),
            (ZeroStage::Two, Store::Host, Store::Device),
            (ZeroStage::Three, Store::Host, Store::Host),
            (ZeroStage::Three, Store::Drive, Store::Drive),
            (ZeroStage::Three, Store::Drive, Store::Host),
            (ZeroStage::Zero, Store::Device, Store::Device),
        ]),
        (activations, overlap) in prop::sample::select(vec![(false, false), (true, false), (true, true)]),
        micro_batches in 1_u64..4,
        pin_memory in any::<bool>(),
        pcie in any::<bool>(),
    ) {
        let name = if pcie { "h100-80gb-pcie-8" } else { "dgx-h100" };
        let mut gpus_of = host(cluster(name).with_size(1, gpus).expect("a possible size"));
        if let Some(backing) = &mut gpus_of.host.backing {
            backing.gpus_per_socket = per_socket;
            backing.gpus_per_root = per_root;
        }
        let offload = Offload {
            activations,
            overlap_activations: overlap,
            pin_memory,
            sub_group: 9_000_000,
            ..offloading(optimizer, parameters)
        };
        let plan = data_parallel(u64::from(gpus), zero, offload);
        let Both { folded, explicit, fast, every_rank } = both(&gpt(), &gpus_of, &plan, &workload(micro_batches))?;
        prop_assert_eq!(explicit.ranks.len() as u32, gpus);
        prop_assert_eq!(folded.folded, gpus != 6 || !plan.offload.acts());
        for rank in &every_rank.ranks {
            prop_assert_eq!(rank.memory.peak, fast.ranks[0].memory.peak);
        }
    }

    #[test]
    fn activations_of_stages_fold(micro_batches in 2_u64..6, overlap in any::<bool>()) {
        let offload = Offload { activations: true, overlap_activations: overlap, ..Offload::default() };
        let plan = Plan { offload, ..plan(2, 2, ScheduleKind::OneForwardOneBackward, ZeroStage::One) };
        both(&gpt(), &nodes(4), &plan, &workload(micro_batches))?;
    }
}

#[test]
fn a_world_of_offloaded_ranks_plays_to_its_end() {
    let plan = data_parallel(8, ZeroStage::Three, offloading(Store::Drive, Store::Drive));
    let lowered = lower(&gpt(), &nodes(8), &plan, &workload(2)).expect("legal");
    assert!(lowered.folded);
    simulate(&lowered.world, &mut NoObserver).expect("no deadlock");
}
