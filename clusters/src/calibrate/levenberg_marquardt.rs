//! Damped least squares (Levenberg 1944, Marquardt 1963) with a robust loss and a prior for each coefficient.

use nalgebra::{DMatrix, DVector};

use crate::coefficients::Coefficient;

/// A value that a fit may move, or not.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Parameter {
    /// Moves within its range, and leans to its prior where the data are silent.
    Free(Coefficient),
    /// Stays.
    Fixed(f64),
}

/// Residuals beyond this weigh linearly instead of quadratically (soft L1): logarithm of a ratio, so 5 %.
const SCALE: f64 = 0.05;
/// Weight of all priors, of the data's: what one spread away from a prior costs, by row.
const PRIOR: f64 = 0.0005;
const MOST_STEPS: usize = 40;
/// A step that lowers the loss by less than this share ends the search.
const ENOUGH: f64 = 1e-5;

/// The values with the least loss of `residuals`, which fills its second argument with logarithms of ratios.
/// Deterministic: derivatives are differences with fixed steps.
///
/// The search begins at the priors, and once more with each of `starts`, a parameter by index and its value. Whole tiles and
/// waves make the loss hilly: the deepest of the valleys found counts.
pub(crate) fn minimize<const N: usize>(
    parameters: &[Parameter; N],
    starts: &[(usize, f64)],
    residuals: impl Fn(&[f64; N], &mut Vec<f64>),
) -> [f64; N] {
    let priors = parameters.map(|parameter| match parameter {
        Parameter::Free(coefficient) => coefficient.prior,
        Parameter::Fixed(value) => value,
    });
    let mut best = descend(parameters, priors, &residuals);
    for &(index, value) in starts {
        let mut values = priors;
        values[index] = value;
        let found = descend(parameters, values, &residuals);
        if found.1 < best.1 {
            best = found;
        }
    }
    best.0
}

/// The valley below `values`, and its loss.
fn descend<const N: usize>(
    parameters: &[Parameter; N],
    mut values: [f64; N],
    residuals: &impl Fn(&[f64; N], &mut Vec<f64>),
) -> ([f64; N], f64) {
    let mut current = Vec::new();
    residuals(&values, &mut current);
    let mut best = loss(parameters, &values, &current);
    let mut damping = 1e-2;
    for _ in 0..MOST_STEPS {
        let (matrix, gradient) = normal_equations(parameters, &values, &current, residuals);
        let before = best;
        while damping < 1e6 {
            let trial = step(parameters, &values, &matrix, &gradient, damping);
            let mut tried = Vec::new();
            residuals(&trial, &mut tried);
            let found = loss(parameters, &trial, &tried);
            if found < best {
                (values, current, best) = (trial, tried, found);
                damping /= 4.0;
                break;
            }
            damping *= 4.0;
        }
        if before - best <= ENOUGH * before {
            break;
        }
    }
    (values, best)
}

/// Soft L1, 2 s^2 (sqrt(1 + (r / s)^2) - 1) / s^2 a row, and the squared distances from the priors.
fn loss<const N: usize>(parameters: &[Parameter; N], values: &[f64; N], residuals: &[f64]) -> f64 {
    let robust = |r: &f64| 2.0 * ((1.0 + (r / SCALE) * (r / SCALE)).sqrt() - 1.0);
    let data: f64 = residuals.iter().map(robust).sum();
    let prior: f64 = parameters
        .iter()
        .zip(values)
        .map(|(parameter, value)| match parameter {
            Parameter::Free(c) => ((value - c.prior) / c.spread) * ((value - c.prior) / c.spread),
            Parameter::Fixed(_) => 0.0,
        })
        .sum();
    data + PRIOR * residuals.len() as f64 * prior
}

/// Gauss-Newton matrix and gradient in units of each coefficient's spread, rows weighted for the robust loss.
fn normal_equations<const N: usize>(
    parameters: &[Parameter; N],
    values: &[f64; N],
    residuals_now: &[f64],
    residuals: &impl Fn(&[f64; N], &mut Vec<f64>),
) -> (DMatrix<f64>, DVector<f64>) {
    let rows = residuals_now.len();
    let weights: Vec<f64> =
        residuals_now.iter().map(|r| 1.0 / (1.0 + (r / SCALE) * (r / SCALE)).sqrt().sqrt()).collect();
    let mut jacobian = DMatrix::zeros(rows, N);
    let mut moved = Vec::new();
    for (column, parameter) in parameters.iter().enumerate() {
        let Parameter::Free(coefficient) = parameter else { continue };
        let mut trial = *values;
        // A step of 2 % of the spread sees past the steps that whole tiles and waves make.
        let up = values[column] + 0.02 * coefficient.spread <= coefficient.most;
        let step = if up { 0.02 } else { -0.02 };
        trial[column] += step * coefficient.spread;
        residuals(&trial, &mut moved);
        for (row, weight) in weights.iter().enumerate() {
            jacobian[(row, column)] = weight * (moved[row] - residuals_now[row]) / (step * SCALE);
        }
    }
    let weighted =
        DVector::from_iterator(rows, residuals_now.iter().zip(&weights).map(|(r, w)| w * r / SCALE));
    let mut matrix = jacobian.tr_mul(&jacobian);
    let mut gradient = jacobian.tr_mul(&weighted);
    for (index, parameter) in parameters.iter().enumerate() {
        match parameter {
            Parameter::Free(c) => {
                matrix[(index, index)] += PRIOR * rows as f64;
                gradient[index] += PRIOR * rows as f64 * (values[index] - c.prior) / c.spread;
                let held_low = values[index] <= c.least && gradient[index] > 0.0;
                let held_high = values[index] >= c.most && gradient[index] < 0.0;
                if held_low || held_high {
                    hold(&mut matrix, &mut gradient, index);
                }
            }
            Parameter::Fixed(_) => hold(&mut matrix, &mut gradient, index),
        }
    }
    (matrix, gradient)
}

/// Takes a coefficient out of the equations, so that one at the end of its range does not bend the others' step.
fn hold(matrix: &mut DMatrix<f64>, gradient: &mut DVector<f64>, index: usize) {
    matrix.row_mut(index).fill(0.0);
    matrix.column_mut(index).fill(0.0);
    matrix[(index, index)] = 1.0;
    gradient[index] = 0.0;
}

/// The damped step, kept within the ranges.
fn step<const N: usize>(
    parameters: &[Parameter; N],
    values: &[f64; N],
    matrix: &DMatrix<f64>,
    gradient: &DVector<f64>,
    damping: f64,
) -> [f64; N] {
    let mut damped = matrix.clone();
    for index in 0..N {
        damped[(index, index)] *= 1.0 + damping;
    }
    let Some(factors) = damped.cholesky() else { return *values };
    let direction = factors.solve(gradient);
    let mut trial = *values;
    for (index, parameter) in parameters.iter().enumerate() {
        if let Parameter::Free(c) = parameter {
            trial[index] = (values[index] - direction[index] * c.spread).clamp(c.least, c.most);
        }
    }
    trial
}
