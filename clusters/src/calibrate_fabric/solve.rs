//! Non-negative least squares of relative errors, robust against single wild rows.

/// Relative errors beyond this weigh linearly instead of quadratically (soft L1).
const SCALE: f64 = 0.05;
const REWEIGHTINGS: usize = 15;
const MOST_SWEEPS: usize = 20_000;

/// A row: what each coefficient is multiplied with, and the sum that was measured (above 0).
#[derive(Clone, Debug)]
pub(super) struct Equation {
    pub(super) features: Vec<f64>,
    pub(super) measured: f64,
}

/// Coefficients, none below 0, with the least soft-L1 loss of `sum / measured - 1`. All equations have as many features
/// as the first.
pub(super) fn non_negative(equations: &[Equation]) -> Vec<f64> {
    let count = equations.first().map_or(0, |equation| equation.features.len());
    let mut weights = vec![1.0; equations.len()];
    let mut found = vec![0.0; count];
    for _ in 0..REWEIGHTINGS {
        found = weighted(equations, &weights, count);
        for (weight, equation) in weights.iter_mut().zip(equations) {
            let error = (dot(&equation.features, &found) / equation.measured - 1.0) / SCALE;
            *weight = 1.0 / (1.0 + error * error).sqrt();
        }
    }
    found
}

/// Cyclic coordinate descent on the normal equations: each coefficient in turn takes its best value that is not
/// below 0. The problem is convex, so that the end does not depend on the start.
fn weighted(equations: &[Equation], weights: &[f64], count: usize) -> Vec<f64> {
    let scale: Vec<f64> = (0..count)
        .map(|column| {
            let sum: f64 = equations
                .iter()
                .zip(weights)
                .map(|(e, w)| w * (e.features[column] / e.measured) * (e.features[column] / e.measured))
                .sum();
            sum.sqrt()
        })
        .collect();
    let at = |e: &Equation, column: usize| {
        if scale[column] > 0.0 { e.features[column] / e.measured / scale[column] } else { 0.0 }
    };
    let sum = |value: &dyn Fn(&Equation) -> f64| -> f64 {
        equations.iter().zip(weights).map(|(equation, weight)| weight * value(equation)).sum()
    };
    let gram: Vec<Vec<f64>> =
        (0..count).map(|i| (0..count).map(|j| sum(&|e| at(e, i) * at(e, j))).collect()).collect();
    let target: Vec<f64> = (0..count).map(|i| sum(&|e| at(e, i))).collect();
    let mut values = vec![0.0; count];
    for _ in 0..MOST_SWEEPS {
        let mut moved = 0.0_f64;
        for i in 0..count {
            if gram[i][i] <= 0.0 {
                continue;
            }
            let rest = target[i] - dot(&gram[i], &values);
            let next = (values[i] + rest / gram[i][i]).max(0.0);
            moved = moved.max((next - values[i]).abs());
            values[i] = next;
        }
        if moved < 1e-12 {
            break;
        }
    }
    values.iter().zip(&scale).map(|(value, scale)| if *scale > 0.0 { value / scale } else { 0.0 }).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Soft-L1 loss of a relative error.
pub(super) fn loss(error: f64) -> f64 {
    let error = error / SCALE;
    2.0 * ((1.0 + error * error).sqrt() - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times of a known law are taken apart again, and a coefficient that would be negative stays at 0.
    #[test]
    fn exact_sums_give_their_coefficients() {
        let equations: Vec<Equation> = (1..20)
            .map(f64::from)
            .map(|x| Equation { features: vec![1.0, x, x.sqrt()], measured: 3.0 + 0.5 * x })
            .collect();
        let found = non_negative(&equations);
        for (value, expected) in found.iter().zip([3.0, 0.5, 0.0]) {
            assert!((value - expected).abs() < 1e-6, "{found:?}");
        }
        let falling = [1.0, 2.0, 3.0].map(|x| Equation { features: vec![1.0, x], measured: 4.0 - x });
        assert_eq!(non_negative(&falling)[1].to_bits(), 0);
    }
}
