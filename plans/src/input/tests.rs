//! Loaders reckoned by hand.

use proptest::prelude::*;
use steptime_clusters::{Cluster, ClusterEntry, cluster_from_catalogue};
use steptime_core::SimTime;

use super::{BatchTime, Epoch, Loader, Loading};

/// A second a sample to load, 100 bytes a sample, and nothing else that takes time.
fn loader(workers: u64) -> Loader {
    Loader {
        workers,
        prefetch_factor: 2,
        seconds_per_sample: 1.0,
        collate_seconds_per_sample: 0.0,
        sample_bytes: 0,
        pin_memory: false,
        non_blocking: false,
        persistent_workers: false,
        cpu_cores: None,
        worker_start_s: 0.0,
        worker_stop_s: 0.0,
        receive_s: 0.0,
        receive_bandwidth: f64::INFINITY,
    }
}

/// Two GPUs whose copies run at 100 bytes/s from pageable and 200 bytes/s from page-locked memory.
fn cluster() -> Cluster {
    let Ok(ClusterEntry::Nodes(mut cluster)) = cluster_from_catalogue("a5000-pcie-2") else {
        panic!("a cluster of nodes")
    };
    cluster.gpu.kernel_latency_s = 0.0;
    cluster.host.sync_latency_s = 0.0;
    cluster.host.pageable_bandwidth = 100.0;
    cluster.host.pinned_bandwidth = 200.0;
    cluster
}

fn batch(samples: u64, device: f64, host: f64) -> BatchTime {
    let time = |seconds| SimTime::from_seconds(seconds).unwrap();
    BatchTime { samples, device: time(device), host: time(host) }
}

fn epoch_s(loader: &Loader, batch: BatchTime, count: u64, last: Option<BatchTime>) -> f64 {
    Loading { loader, cluster: &cluster() }.epoch_s(Epoch { batch, count, last }).unwrap()
}

fn steady_s(loader: &Loader, batch: BatchTime) -> f64 {
    Loading { loader, cluster: &cluster() }.micro_batch_s(batch).unwrap()
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{found} against {expected}");
}

#[test]
fn without_workers_nothing_overlaps_the_loading() {
    // Load 4, issue 1; the device's 3 run on while the next 4 are loaded.
    near(steady_s(&loader(0), batch(4, 3.0, 1.0)), 5.0);
    // 3 x (4 + 1), and what is left of the device's last 3.
    near(epoch_s(&loader(0), batch(4, 3.0, 1.0), 3, None), 17.0);
}

#[test]
fn workers_take_turns() {
    // Each worker takes 4 s a batch: two deliver one every 2 s, whatever faster devices could do.
    near(steady_s(&loader(2), batch(4, 1.0, 0.0)), 2.0);
    near(steady_s(&loader(8), batch(4, 1.0, 0.0)), 1.0);
    // Five batches: workers deliver at 4, 4, 8, 8, 12; the last one runs 1 s.
    near(epoch_s(&loader(2), batch(4, 1.0, 0.0), 5, None), 13.0);
}

#[test]
fn the_first_batch_waits_for_all_workers_and_is_loaded_by_one() {
    let cluster = cluster();
    let slow = Loader { worker_start_s: 0.5, worker_stop_s: 0.25, receive_s: 0.1, ..loader(8) };
    let first = |loader: &Loader| Loading { loader, cluster: &cluster }.first_batch_s(4).unwrap();
    near(first(&slow), 8.0 * 0.5 + 4.0 + 0.1);
    near(first(&Loader { persistent_workers: true, ..slow.clone() }), 4.1);
    // Ended workers count too: 4 + 4 + 0.1, the device's 1, and 8 x 0.25.
    near(epoch_s(&slow, batch(4, 1.0, 0.0), 1, None), 4.0 + 4.1 + 1.0 + 2.0);
}

#[test]
fn a_smaller_last_batch_is_loaded_faster() {
    // One worker: 4, 8, 9; the last one runs half a second.
    near(epoch_s(&loader(1), batch(4, 1.0, 0.0), 2, Some(batch(1, 0.5, 0.0))), 9.5);
}

#[test]
fn a_node_has_no_more_cores_than_it_has() {
    // 2 ranks x 4 workers on 4 cores: everything takes twice as long.
    near(steady_s(&Loader { cpu_cores: Some(4), ..loader(4) }, batch(4, 0.1, 0.0)), 2.0);
    near(steady_s(&Loader { cpu_cores: Some(8), ..loader(4) }, batch(4, 0.1, 0.0)), 1.0);
}

#[test]
fn copies_hold_up_the_device_and_unless_told_otherwise_the_host() {
    let fast = |workers| Loader { seconds_per_sample: 0.0, sample_bytes: 100, ..loader(workers) };
    // Pageable: 4 x 100 bytes at 100 bytes/s, then 3 s of work; the copy waits for the device.
    near(steady_s(&fast(2), batch(4, 3.0, 1.0)), 7.0);
    // Page-locked: 2 s of copy, 3 s of work; a thread pins the next batch meanwhile, 4 s.
    let pinned = Loader { pin_memory: true, ..fast(2) };
    near(steady_s(&pinned, batch(4, 3.0, 1.0)), 5.0);
    // A host that takes 4 s to issue waits for the copy first, unless it is told not to.
    near(steady_s(&pinned, batch(4, 3.5, 4.0)), 6.0);
    near(steady_s(&Loader { non_blocking: true, ..pinned.clone() }, batch(4, 1.0, 4.0)), 4.0);
    // Without workers the training process pins by itself: 4 + 2 of copy, and 1 of issue.
    near(steady_s(&Loader { pin_memory: true, ..fast(0) }, batch(4, 3.0, 1.0)), 7.0);
}

#[test]
fn receiving_overlaps_the_device_but_not_the_host() {
    let receiving = Loader { seconds_per_sample: 0.0, receive_s: 2.0, ..loader(2) };
    near(steady_s(&receiving, batch(4, 5.0, 1.0)), 5.0);
    near(steady_s(&receiving, batch(4, 1.0, 1.0)), 3.0);
}

#[test]
fn long_epochs_are_extended_exactly() {
    let slow = Loader { worker_start_s: 0.5, worker_stop_s: 0.25, ..loader(3) };
    let last = Some(batch(1, 0.25, 0.0));
    for (count, device) in [(4999, 1.0), (5000, 1.5), (5001, 2.0)] {
        let extended = epoch_s(&slow, batch(4, device, 0.0), count, last);
        let played = Loading { loader: &slow, cluster: &cluster() }
            .end(Epoch { batch: batch(4, device, 0.0), count, last })
            .unwrap();
        near(extended, played.seconds());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A step takes at least as long as each of its parts alone, and no longer than all of them one after the other.
    #[test]
    fn a_step_lies_between_its_parts_and_their_sum(
        workers in 0_u64..9,
        prefetch_factor in 1_u64..4,
        samples in 1_u64..9,
        load in 0.0_f64..2.0,
        device in 0.0_f64..9.0,
        share in 0.0_f64..1.0,
        receive_s in 0.0_f64..1.0,
        (pin_memory, background) in (any::<bool>(), any::<bool>()),
    ) {
        let loader = Loader {
            prefetch_factor,
            seconds_per_sample: load,
            sample_bytes: 100,
            pin_memory,
            non_blocking: pin_memory && background,
            receive_s,
            ..loader(workers)
        };
        let batch = batch(samples, device, device * share);
        let step = steady_s(&loader, batch);
        let (count, copy) = (samples as f64, samples as f64 / if pin_memory { 2.0 } else { 1.0 });
        let rate = count * load / workers.max(1) as f64;
        prop_assert!(step >= (device + copy).max(rate) - 1e-6);
        prop_assert!(step <= device + copy + count * load + receive_s + count + 1e-6);
    }

    /// More workers, and longer queues, never slow a settled loader down.
    #[test]
    fn more_workers_are_never_slower(workers in 1_u64..8, load in 0.1_f64..2.0, device in 0.0_f64..9.0) {
        let steady = |workers, prefetch_factor| {
            let loader = Loader { prefetch_factor, seconds_per_sample: load, ..loader(workers) };
            steady_s(&loader, batch(4, device, 0.0))
        };
        prop_assert!(steady(workers + 1, 2) <= steady(workers, 2) + 1e-9);
        prop_assert!(steady(workers, 3) <= steady(workers, 2) + 1e-9);
    }
}
