use super::*;
use crate::cluster::Cluster;

/// A host that issues an operation every `forward` and `backward` microseconds, and a device whose kernels take `kernel`
/// microseconds and begin 4 microseconds after their launch or when the one before has ended. 100 operations forward on
/// thread 1, 100 backward on thread 2, a wait at the end.
fn trace(forward: f64, backward: f64, kernel: f64) -> String {
    let mut events = vec![
        r#"{"ph": "M", "name": "process_name", "pid": "Spans", "args": {"labels": ["CPU"]}}"#.to_owned(),
    ];
    let (mut now, mut free) = (1_700_000_000_000_000.5, 0.0_f64);
    let mut push = |thread: u32, at: f64, correlation: u32, name: &str| {
        let start = free.max(at + 4.0);
        free = start + kernel;
        events.push(format!(
            r#"{{"ph": "X", "cat": "cuda_runtime", "name": "{name}", "pid": 7, "tid": {thread}, "ts": {at:.3}, "dur": 3.1, "args": {{"External id": 1, "cbid": 211, "correlation": {correlation}}}}}"#
        ));
        events.push(format!(
            r#"{{"ph": "X", "cat": "kernel", "name": "add", "pid": 0, "tid": 7, "ts": {start:.3}, "dur": {kernel:.3}, "args": {{"grid": [1, 1, 1], "stream": 7, "device": 0, "correlation": {correlation}}}}}"#
        ));
    };
    for index in 0..100 {
        push(1, now, index, "cudaLaunchKernel");
        now += forward;
    }
    let begin = now;
    for index in 100..200 {
        push(2, now, index, "cuLaunchKernelEx");
        now += backward;
    }
    events.push(format!(
        r#"{{"ph": "X", "cat": "cpu_op", "name": "autograd::engine::evaluate_function: AddmmBackward0", "pid": 7, "tid": 2, "ts": {begin:.3}, "dur": {:.3}, "args": {{"Sequence number": 5}}}}"#,
        now - begin
    ));
    format!(
        r#"{{"schemaVersion": 1, "deviceProperties": [{{"id": 0}}], "traceEvents": [{}], "traceName": "x"}}"#,
        events.join(",\n")
    )
}

fn fit(text: &str, style: ExecutionStyle) -> Result<(HostTimes, HostFit), TraceError> {
    from_trace(&Trace::read(text.as_bytes())?, style)
}

#[test]
fn a_host_bound_trace_gives_the_cost_of_each_pass() {
    let (times, fit) = fit(&trace(9.0, 6.5, 2.0), ExecutionStyle::Eager).unwrap();
    assert_eq!((times.launches, times.idle), (200, 199));
    let (forward, backward) = (times.forward.unwrap(), times.backward.unwrap());
    assert!((forward.mean_s - 9.0e-6).abs() < 1e-9 && (backward.median_s - 6.5e-6).abs() < 1e-9);
    assert_eq!((forward.count, backward.count), (99, 99));
    assert!((times.launch_latency.unwrap().median_s - 4e-6).abs() < 1e-9);
    let keys: Vec<_> = fit.constants.iter().map(|constant| constant.key).collect();
    assert_eq!(keys, ["eager_forward_launch", "eager_backward_launch"]);
    let cluster = Cluster::assemble("a40", "pcie4", None, 1, 2).unwrap();
    let calibrated = cluster.calibrated(&fit.to_calibration()).unwrap();
    assert!((calibrated.host.launch.eager_forward_s - 9.0e-6).abs() < 1e-12);
    assert!((calibrated.host.launch.compiled_s - cluster.host.launch.compiled_s).abs() < 1e-18);
    assert_eq!(calibrated.host.facts.len(), cluster.host.facts.len());
    assert!(
        calibrated.host.facts[0].source.starts_with("Mean of 99 intervals"),
        "{:?}",
        calibrated.host.facts[0]
    );
}

#[test]
fn compiled_code_has_one_cost() {
    let (_, fit) = fit(&trace(4.0, 4.0, 1.0), ExecutionStyle::Compiled).unwrap();
    assert_eq!(fit.constants.len(), 1);
    assert_eq!(fit.constants[0].key, "compiled_launch");
}

/// Kernels of 50 us keep the device busy: what the host does meanwhile hides behind them.
#[test]
fn a_device_bound_trace_is_refused() {
    let error = fit(&trace(9.0, 6.5, 50.0), ExecutionStyle::Eager).unwrap_err();
    assert!(error.to_string().starts_with("only 0 of 200 launches found the device idle"), "{error}");
}

#[test]
fn loading_and_waiting_are_no_cost_of_operations() {
    let wait = r#"{"ph": "X", "cat": "cuda_runtime", "name": "cudaStreamSynchronize", "pid": 7, "tid": 1, "ts": 1700000000000455.5, "dur": 12, "args": {}}"#;
    let text = trace(9.0, 6.5, 2.0).replace("\"traceEvents\": [", &format!("\"traceEvents\": [{wait},"));
    let (times, _) = fit(&text, ExecutionStyle::Eager).unwrap();
    assert_eq!(times.forward.unwrap().count, 98, "the interval with the wait does not count");
}

#[test]
fn what_is_no_trace_is_refused() {
    let message = |text: &str| fit(text, ExecutionStyle::Eager).unwrap_err().to_string();
    assert!(message("{\"traceEvents\": [\n{\"ph\": ]}").contains("line 2 column 8"));
    assert!(message("[]").starts_with("no event launches a kernel"));
    assert!(message("3").starts_with("not a trace in JSON"));
    assert!(message("{\"traceEvents\": {}}").starts_with("no event launches a kernel"));
    let half = trace(9.0, 6.5, 2.0);
    assert!(message(&half[..half.len() / 2]).contains("EOF"));
    let without = half.replace("\"cat\": \"kernel\"", "\"cat\": \"other\"");
    assert!(message(&without).starts_with("no event of category `kernel`"));
}

#[test]
fn a_cost_scales_for_its_style_only() {
    let cluster = Cluster::assemble("a40", "pcie4", None, 1, 2).unwrap();
    let fit = HostFit::scaled(&cluster.host.launch, ExecutionStyle::Eager, 2.0, "a step");
    let calibrated = cluster.calibrated(&fit.to_calibration()).unwrap();
    let (before, after) = (cluster.host.launch, calibrated.host.launch);
    assert!((after.eager_forward_s - 2.0 * before.eager_forward_s).abs() < 1e-9);
    assert!((after.eager_backward_s - 2.0 * before.eager_backward_s).abs() < 1e-9);
    assert!((after.compiled_s - before.compiled_s).abs() < 1e-18);
}
