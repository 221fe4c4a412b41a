use std::fs::File;
use std::path::PathBuf;

use super::*;
use crate::collective::Placement;

/// The folder of measured kernels, which is no part of the project.
fn measurements() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/kernels");
    let folder = std::env::var_os("STEPTIME_KERNELS").map_or(beside, PathBuf::from);
    let there = folder.join("collectives.csv").exists();
    if !there {
        eprintln!(
            "SKIPPED: no measured collectives; set STEPTIME_KERNELS to their folder to check the catalogue"
        );
    }
    there.then_some(folder)
}

fn cluster(fabric: &str) -> Cluster {
    Cluster::assemble("h100-80gb-sxm", fabric, None, 1, 8).unwrap()
}

fn written_by_fit(folder: &str, name: &str) -> String {
    let file =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("catalog").join(folder).join(format!("{name}.toml"));
    let text = std::fs::read_to_string(file).unwrap();
    text.split_once(MARKER).unwrap().1.to_owned()
}

/// The catalogue holds what the fit says of the measurements, to the letter. Bounds by fabric on rows that the fit has
/// not seen: pooled errors would be those of the fabric with the most rows.
#[test]
fn the_catalogue_is_the_outcome_of_the_fit() {
    let Some(folder) = measurements() else { return };
    let rows = read_collectives(File::open(folder.join("collectives.csv")).unwrap()).unwrap();
    for (name, most_from_mebibyte, most_median) in [
        ("nvswitch-3", 0.05, 0.05),
        ("nvswitch-4", 0.05, 0.05),
        ("pcie4", 0.04, 0.05),
        ("nvlink-bridge-a100", 0.02, 0.02),
        ("nvlink-bridge-h100", 0.02, 0.02),
    ] {
        let fit = fit(&cluster(name), &rows_of_preset(name, &rows));
        assert_eq!(written_by_fit("fabrics", name), fit.to_toml(), "run steptime calibrate catalogue");
        let errors = |band: &str| {
            fit.errors.iter().find(|found| found.operation.is_none() && found.band == band).unwrap().after
        };
        let (large, all) = (errors("from 1 MiB"), errors("all"));
        assert!(large.mean <= most_from_mebibyte, "{name}: {large:?}");
        assert!(all.median <= most_median, "{name}: {all:?}");
    }
}

#[test]
fn the_shipped_network_is_the_outcome_of_the_fit() {
    let Some(folder) = measurements() else { return };
    let table = File::open(folder.join("collectives_multinode.csv")).unwrap();
    let rows = read_spread(table, MULTINODE_BYTES, MULTINODE_SOURCE).unwrap();
    let cluster = Cluster::assemble("h100-80gb-sxm", "nvswitch-4", Some(("efa", 3200.0)), 2, 8).unwrap();
    let fit = fit_jobs(&cluster, &rows).unwrap();
    assert_eq!(written_by_fit("networks", "efa"), fit.to_toml(), "run steptime calibrate catalogue");
    // Medians over jobs that differ up to eightfold. Rings, of which the message is fitted: half of the error is gone, and all but
    // one prediction lie between the fastest and the slowest tenth of the jobs.
    let before = Cluster::assemble("h100-80gb-sxm", "nvswitch-4", Some(("efa", 3200.0)), 2, 8).unwrap();
    let (mut before, after) = (before.clone(), before);
    before.network.as_mut().unwrap().message_s = 0.0;
    let ring = |row: &&SpreadRow| row.median.operation != Operation::Collective(CollectiveKind::AllReduce);
    let several: Vec<&SpreadRow> = rows.iter().filter(|row| row.median.placement.nodes > 1).collect();
    let of = |wanted: &dyn Fn(&&SpreadRow) -> bool| -> (f64, f64, Vec<(u32, f64)>) {
        let rows: Vec<&SpreadRow> = several.iter().copied().filter(|row| wanted(row)).collect();
        let mean = |cluster: &Cluster| CollectiveErrors::of(cluster, rows.iter().map(|row| &row.median)).mean;
        let outside = rows.iter().filter_map(|row| {
            let ratio = row.median.predicted_s(&after) / row.median.seconds;
            (!(row.fastest..=row.slowest).contains(&ratio)).then_some((row.median.placement.nodes, ratio))
        });
        (mean(&before), mean(&after), outside.collect())
    };
    let (before_rings, after_rings, outside) = of(&ring);
    assert!(
        after_rings < 0.5 * before_rings && outside.len() <= 1,
        "{before_rings} {after_rings} {outside:?}"
    );
    // All-reduces are trees, of which nothing is fitted: over 2 nodes half as slow again as measured, over 8 half as long as in the
    // median job, the others between the jobs.
    let (before_trees, after_trees, outside) = of(&|row| !ring(row));
    assert!(after_trees < before_trees && outside.len() <= 2, "{before_trees} {after_trees} {outside:?}");
}

/// Jobs made by known messages: 20 us in the median job over 2 nodes, 5 and 80 us in the fastest and slowest tenth of jobs over 8.
/// Jobs that differ by more than a factor of two have a part in the spread alone, and what the links inside a node
/// take is no message.
#[test]
fn known_messages_are_found_again() {
    let mut truth = Cluster::assemble("h100-80gb-sxm", "nvswitch-4", Some(("efa", 3200.0)), 2, 8).unwrap();
    let seconds = |truth: &mut Cluster, row: &CollectiveRow, message_s: f64| {
        truth.network.as_mut().unwrap().message_s = message_s;
        1e-4 + row.predicted_s(truth)
    };
    let mut rows = Vec::new();
    for (nodes, median_s, fastest_s, slowest_s) in
        [(1, 0.0, 0.0, 0.0), (2, 20e-6, 15e-6, 25e-6), (8, 60e-6, 5e-6, 80e-6)]
    {
        for kind in [CollectiveKind::AllGather, CollectiveKind::ReduceScatter] {
            let row = CollectiveRow {
                gpu: String::new(),
                topology: String::new(),
                operation: Operation::Collective(kind),
                placement: Placement { ranks: 8 * nodes, nodes },
                bytes: MULTINODE_BYTES,
                seconds: 1.0,
                source: "made up".to_owned(),
            };
            let median = seconds(&mut truth, &row, median_s);
            let fastest = seconds(&mut truth, &row, fastest_s) / median;
            let slowest = seconds(&mut truth, &row, slowest_s) / median;
            rows.push(SpreadRow { median: CollectiveRow { seconds: median, ..row }, fastest, slowest });
        }
    }
    let fit = fit_jobs(&truth, &rows).unwrap();
    let close = |found: f64, expected: f64| assert!((found - expected).abs() < 2e-9, "{found} {expected}");
    assert_eq!((fit.seen, fit.after.rows), (2, 4));
    close(fit.message_s, 20e-6);
    close(fit.spread[0].fastest_s, 15e-6);
    close(fit.spread[1].fastest_s, 5e-6);
    close(fit.spread[1].slowest_s, 80e-6);
}

/// Hops of 8 and 21 us, messages of 1.5 and 6 us, 86 % of the line rate, sends at 70 % of that.
fn known_network() -> Cluster {
    let mut truth =
        Cluster::assemble("h100-80gb-sxm", "nvswitch-4", Some(("infiniband", 3200.0)), 4, 8).unwrap();
    let network = truth.network.as_mut().unwrap();
    let factor = 0.86 / network.share;
    network.share = 0.86;
    network.bandwidth *= factor;
    network.gpu_bandwidth *= factor;
    (network.latency_s, network.bulk_latency_s) = (8e-6, 21e-6);
    (network.ll_message_s, network.message_s, network.point_to_point) = (1.5e-6, 6e-6, 0.7);
    truth
}

/// Sizes doubled from 1 KiB to 1 GiB over 2 and 4 nodes, with times that lie up to 2 % beside a known network's by the hash of
/// the row.
fn rows_of_known_network(truth: &Cluster) -> Vec<CollectiveRow> {
    let mut rows = Vec::new();
    let (all_reduce, all_gather) = (CollectiveKind::AllReduce, CollectiveKind::AllGather);
    for (operation, per_node, nodes) in [
        (Operation::Collective(all_reduce), 8, 2),
        (Operation::Collective(all_reduce), 8, 4),
        (Operation::Collective(all_gather), 8, 2),
        (Operation::Collective(all_gather), 8, 4),
        (Operation::Send, 1, 2),
    ] {
        for step in 10..31_u32 {
            let mut row = CollectiveRow {
                gpu: "NVIDIA H100 80GB HBM3".to_owned(),
                topology: "nccl-tests".to_owned(),
                operation,
                placement: Placement { ranks: per_node * nodes, nodes },
                bytes: 1 << step,
                seconds: 0.0,
                source: "nccl-tests".to_owned(),
            };
            let noise = f64::from((step * 7 + nodes * 3 + per_node) % 5) - 2.0;
            row.seconds = row.predicted_s(truth) * (1.0 + 0.01 * noise);
            rows.push(row);
        }
    }
    rows
}

/// A known network is found again from times with noise: its hops, messages and rates within 10 %, the times of sizes that the fit has
/// not seen within 2 %.
#[test]
fn a_known_network_is_found_again() {
    let truth = known_network();
    let rows = rows_of_known_network(&truth);
    let start = Cluster::assemble("h100-80gb-sxm", "nvswitch-4", Some(("infiniband", 3200.0)), 4, 8).unwrap();
    let fit = fit_network(&start, &rows, &[]).unwrap();
    let (found, known) = (&fit.network, truth.network.as_ref().unwrap());
    for (what, found, known) in [
        ("share", found.share, known.share),
        ("point_to_point", found.point_to_point, known.point_to_point),
        ("latency", found.latency_s, known.latency_s),
        ("bulk_latency", found.bulk_latency_s, known.bulk_latency_s),
        ("message", found.message_s, known.message_s),
        ("ll_message", found.ll_message_s, known.ll_message_s),
    ] {
        assert!((found / known - 1.0).abs() < 0.1, "{what}: {found} is not {known}");
    }
    assert!(found.reported_latency_s < 1e-12, "{}", found.reported_latency_s);
    let all = fit.errors.first().unwrap();
    assert!(all.before.mean > 0.1 && all.after.mean < 0.02, "{:?} {:?}", all.before, all.after);
    // What is written is what a cluster takes up again.
    let taken = start.calibrated(&fit.to_calibration()).unwrap();
    for row in &rows {
        let (taken, fitted) = (
            row.predicted_s(&taken),
            row.predicted_s(&Cluster { network: Some(fit.network.clone()), ..start.clone() }),
        );
        assert!((taken / fitted - 1.0).abs() < 1e-9, "{taken} is not {fitted}");
    }
}

/// What nccl-tests would print of these rows.
fn printed(rows: &[&CollectiveRow]) -> String {
    let first = rows[0];
    let program = match first.operation {
        Operation::Collective(CollectiveKind::AllReduce) => "all_reduce_perf",
        Operation::Collective(_) => "all_gather_perf",
        Operation::Send => "sendrecv_perf",
    };
    let mut text = format!(
        "# nThread 1 nGpus 1 minBytes 1024 maxBytes 1073741824 step: 2(factor) warmup iters: 5 iters: 20 agg iters: 1 validation: 1 graph: 0\n#\n# Collective test starting: {program}\n# Using devices\n"
    );
    let per_node = first.placement.members_per_node();
    for rank in 0..first.placement.ranks {
        let (node, device) = (rank / per_node, rank % per_node);
        text += &format!(
            "#  Rank {rank:2} Group  0 Pid {:6} on node{node} device {device:2} [0x{:02x}] {}\n",
            7000 + rank,
            0x19 + 8 * device,
            first.gpu
        );
    }
    text += "#\n#                                                              out-of-place                       in-place\n#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong\n#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)\n";
    for row in rows {
        let rate = row.bytes as f64 / row.seconds / 1e9;
        let time = row.seconds * 1e6;
        text += &format!(
            "{:12} {:13}     float     sum      -1 {time:8.2} {rate:7.2} {rate:7.2}      0 {time:8.2} {rate:7.2} {rate:7.2}      0\n",
            row.bytes,
            row.bytes / 4
        );
    }
    text + "# Out of bounds values : 0 OK\n#\n"
}

/// The files that the documentation fits a network to are what a program would print of a known network. With
/// `STEPTIME_WRITE_FIXTURES` they are written anew.
#[test]
fn the_documented_outputs_are_those_of_a_known_network() {
    let rows = rows_of_known_network(&known_network());
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/it/calibration/network");
    for (name, operation, nodes) in [
        ("all_reduce-2.txt", "all_reduce", 2),
        ("all_reduce-4.txt", "all_reduce", 4),
        ("all_gather-2.txt", "all_gather", 2),
        ("all_gather-4.txt", "all_gather", 4),
        ("sendrecv-2.txt", "send_recv", 2),
    ] {
        let of: Vec<&CollectiveRow> = rows
            .iter()
            .filter(|row| row.operation.name() == operation && row.placement.nodes == nodes)
            .collect();
        let text = printed(&of);
        if std::env::var_os("STEPTIME_WRITE_FIXTURES").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(name), &text).unwrap();
        }
        let read = read_nccl_tests(&text, None, "nccl-tests").unwrap();
        assert_eq!(read.len(), of.len());
        assert!(read.iter().zip(&of).all(|(a, b)| a.placement == b.placement && a.operation == b.operation));
        // Prices inside nodes are refitted now and then: the files hold those of the day on which they were made.
        let kept = read_nccl_tests(&std::fs::read_to_string(folder.join(name)).unwrap(), None, "").unwrap();
        assert!(kept.iter().zip(&of).all(|(a, b)| (a.seconds / b.seconds - 1.0).abs() < 0.2), "{name}");
    }
}

/// Times made by a known fabric are found again on sizes that the fit has not seen.
#[test]
fn a_known_fabric_is_found_again() {
    let truth = cluster("nvswitch-3");
    let mut rows = Vec::new();
    for kind in [RINGS.as_slice(), &[CollectiveKind::AllToAll]].concat() {
        for ranks in [2, 4, 8] {
            for step in 0..44_u32 {
                let mut row = CollectiveRow {
                    gpu: "test".to_owned(),
                    topology: "test".to_owned(),
                    operation: Operation::Collective(kind),
                    placement: Placement { ranks, nodes: 1 },
                    bytes: (2 + u64::from(step % 2)) << (8 + step / 2),
                    seconds: 0.0,
                    source: "test".to_owned(),
                };
                row.seconds = row.predicted_s(&truth);
                rows.push(row);
            }
        }
    }
    let mut start = truth.clone();
    start.fabric.costs.ll.start_s *= 2.0;
    start.fabric.costs.all_reduce.wire /= 2.0;
    start.fabric.costs.all_gather.touch /= 3.0;
    let fit = fit(&start, &rows);
    let all = fit.errors.first().unwrap();
    assert!(all.before.mean > 0.2 && all.after.mean < 0.01, "{:?} {:?}", all.before, all.after);
    assert_eq!(fit.fitted.len(), 7, "{:?}", fit.fitted);
}

#[test]
fn rows_are_held_out_by_their_case_alone() {
    let table = "gpu,topology,op,gpus,nodes,bytes,time_us,source\n\
                 a,x,all_reduce,8,1,1024,10,s\nb,y,all_reduce,8,1,1024,99,t\n";
    let rows = read_collectives(table.as_bytes()).unwrap();
    assert_eq!(rows[0].held_out(), rows[1].held_out());
    assert!((rows[1].seconds - 99e-6).abs() < 1e-18);
    let count =
        (0..3000_u64).filter(|size| CollectiveRow { bytes: *size, ..rows[0].clone() }.held_out()).count();
    assert!((900..1100).contains(&count), "{count} of 3000");
}

/// Header and rows in the form of nccl-tests 2.13 (`src/common.cu`), numbers made up.
const OUTPUT: &str = "\
# nThread 1 nGpus 1 minBytes 0 maxBytes 2097152 step: 2(factor) warmup iters: 5 iters: 20 agg iters: 1 validation: 1 graph: 0
#
# Collective test starting: all_gather_perf
# Using devices
#  Rank  0 Group  0 Pid   6151 on   first device  0 [0x01] NVIDIA H100 80GB HBM3
#  Rank  1 Group  0 Pid   6152 on  second device  0 [0x01] NVIDIA H100 80GB HBM3
#
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
           0             0     float    none      -1     4.30    0.00    0.00      0     4.99    0.00    0.00      0
     1048576        131072     float    none      -1    47.38   22.13   11.06      0    46.84   22.39   11.19    N/A
     2097152        262144     float    none      -1    70.44   29.77   14.89      0    69.77   30.06   15.03      0
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 6.6
";

#[test]
fn output_of_nccl_tests_is_read() {
    let rows = read_nccl_tests(OUTPUT, None, "mine").unwrap();
    assert_eq!(rows.len(), 2);
    let first = &rows[0];
    assert_eq!(first.operation, Operation::Collective(CollectiveKind::AllGather));
    assert_eq!(first.placement, Placement { ranks: 2, nodes: 2 });
    assert_eq!((first.bytes, first.gpu.as_str()), (1 << 20, "NVIDIA H100 80GB HBM3"));
    assert!((first.seconds - 47.38e-6).abs() < 1e-15);
    let unnamed = OUTPUT.replace("# Collective test starting: all_gather_perf\n", "");
    assert!(matches!(read_nccl_tests(&unnamed, None, ""), Err(CollectiveRowsError::NoOperation)));
    let given = read_nccl_tests(&unnamed, Some(Operation::Send), "").unwrap();
    assert_eq!(given[1].operation, Operation::Send);
    // What the output says of itself holds.
    let told = read_nccl_tests(OUTPUT, Some(Operation::Send), "").unwrap();
    assert_eq!(told[1].operation, first.operation);
    assert!(matches!(read_nccl_tests("# nothing\n", None, ""), Err(CollectiveRowsError::NoRows)));
    let broken = OUTPUT.replace("70.44", "fast");
    let message = read_nccl_tests(&broken, None, "").unwrap_err().to_string();
    assert_eq!(message, "line 13: `time` is \"fast\", expected microseconds above 0");
}

#[test]
fn wrong_tables_name_line_and_column() {
    let error = |row: &str| {
        let table = format!("gpu,topology,op,gpus,nodes,bytes,time_us,source\n{row}\n");
        read_collectives(table.as_bytes()).unwrap_err().to_string()
    };
    assert_eq!(
        error("a,x,all_redoce,8,1,1024,10,s"),
        "line 2: `op` is \"all_redoce\", expected an operation, e.g. all_reduce"
    );
    assert_eq!(
        error("a,x,all_reduce,8,1,1024,-1,s"),
        "line 2: `time_us` is \"-1\", expected microseconds above 0"
    );
    assert_eq!(error("a,x,all_reduce,8,1,1e3,1,s"), "line 2: `bytes` is \"1e3\", expected a whole number");
    let table =
        "gpu,interconnect,nodes,gpus,op,jobs,p10_gbps,median_gbps,p90_gbps\na,x,2,16,AllReduce,1,0,2,3\n";
    let message = read_spread(table.as_bytes(), 1, "s").unwrap_err().to_string();
    assert_eq!(message, "line 2: `p10_gbps` is \"0\", expected a number above 0");
}
