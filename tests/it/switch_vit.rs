//! ViT and Switch-ViT on four RTX 8000: parameters, and where the growth with the experts comes from.

use crate::support::{number, report};

fn run(name: &str) -> serde_json::Value {
    report(&[&format!("scenarios/{name}-rtx8000.toml")])
}

#[test]
fn parameters_are_exact() {
    for (name, parameters) in
        [("vit", 12_798_490_u64), ("switch-vit-32", 238_732_426), ("switch-vit-64", 464_669_962)]
    {
        assert_eq!(run(name)["parameters"]["total"], parameters, "{name}");
    }
}

/// The measured medians of the training logs of anand-vishwakarma-1/switch-vit (690ffc8): 0.0600, 0.3504 and
/// 0.6514 s a step. Nothing here was fitted to them. The dense model's small products and kernels, borrowed from the T4, come out too
/// slow by more than the 8 % that the others stay within.
#[test]
fn steps_are_of_the_measured_size() {
    for (name, measured, most) in
        [("vit", 0.0600, 0.16), ("switch-vit-32", 0.3504, 0.08), ("switch-vit-64", 0.6514, 0.08)]
    {
        let predicted = number(&run(name)["step_time_s"]);
        let error = predicted / measured - 1.0;
        eprintln!("{name}: {predicted} s against {measured} s, {:+.1} %", 100.0 * error);
        assert!(error.abs() < most, "{name}: {predicted} against {measured}");
    }
}

/// The step grows almost linearly in the experts, by the loop over experts (host and small kernels), the update
/// and the gradients that have to be reduced.
#[test]
fn growth_is_linear_and_explained() {
    let [dense, half, full] = ["vit", "switch-vit-32", "switch-vit-64"].map(run);
    let step = |document: &serde_json::Value| number(&document["step_time_s"]);
    let first = (step(&half) - step(&dense)) / 32.0;
    let second = (step(&full) - step(&half)) / 32.0;
    assert!((second / first - 1.0).abs() < 0.5, "{first} and {second} s an expert");
    let part = |document: &serde_json::Value, name: &str| number(&document["time_breakdown_s"][name]);
    let grown = |name| part(&full, name) - part(&half, name);
    assert!(grown("host") > 0.0 && grown("optimizer") > 0.0 && grown("compute") > 0.0);
    // The update moves 72 bytes for each parameter (Adam, foreach): twice the experts, about twice the time.
    let ratio = part(&full, "optimizer") / part(&half, "optimizer");
    assert!((ratio - 464_669_962.0 / 238_732_426.0).abs() < 0.1, "{ratio}");
}
