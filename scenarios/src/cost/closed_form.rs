//! Closed forms of work with failures and checkpoints: exponential failures, one after the other.

/// Seconds of work between checkpoints that cost `write` each where the mean time between failures is `mean`:
/// `sqrt(2 write mean)` (Young 1974, A first order approximation to the optimum checkpoint interval, CACM 17(9)).
pub fn young_interval(write: f64, mean: f64) -> f64 {
    (2.0 * write * mean).sqrt()
}

/// The same to a higher order (Daly 2006, A higher order estimate of the optimum checkpoint interval for restart dumps,
/// Future Generation Computer Systems 22(3), equation 37):
/// `sqrt(2 d M) (1 + sqrt(d / 2M) / 3 + (d / 2M) / 9) - d` for `d < 2M`, else `M`.
pub fn daly_interval(write: f64, mean: f64) -> f64 {
    if mean.is_infinite() {
        return f64::INFINITY;
    }
    if write >= 2.0 * mean {
        return mean;
    }
    let ratio = write / (2.0 * mean);
    young_interval(write, mean) * (1.0 + ratio.sqrt() / 3.0 + ratio / 9.0) - write
}

/// Share of the time that goes into work that is kept (Daly 2006, equation 20, which is exact for exponential failures):
/// after every `interval` seconds of work a checkpoint takes `write`, and after a failure `restart` seconds pass, in which
/// failures happen, too:
///
/// ```text
/// interval / (M exp(restart / M) (exp((interval + write) / M) - 1))
/// ```
pub fn expected_goodput(interval: f64, write: f64, restart: f64, mean: f64) -> f64 {
    if interval <= 0.0 {
        return 0.0;
    }
    if mean.is_infinite() {
        return if interval.is_infinite() { 1.0 } else { interval / (interval + write) };
    }
    if interval.is_infinite() {
        return 0.0;
    }
    interval / (mean * libm::exp(restart / mean) * libm::expm1((interval + write) / mean))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked by hand: checkpoints of 60 s, a failure every 10,000 s on average. Young: sqrt(2 x 60 x 10,000) = 1095.445;
    /// Daly: d / 2M = 0.003, 1095.445 x (1 + 0.0547723 / 3 + 0.003 / 9) - 60 = 1055.810.
    #[test]
    fn intervals_are_those_of_the_papers() {
        assert!((young_interval(60.0, 1e4) - 1095.445).abs() < 1e-3);
        assert!((daly_interval(60.0, 1e4) - 1055.810).abs() < 1e-2, "{}", daly_interval(60.0, 1e4));
        assert!((daly_interval(3e4, 1e4) - 1e4).abs() < 1e-9);
    }

    /// The best interval is where the derivative of the closed form vanishes; Daly's is within a percent of its goodput.
    #[test]
    fn dalys_interval_is_all_but_the_best() {
        for (write, mean) in [(60.0, 1e4), (10.0, 3600.0), (300.0, 5e3)] {
            let at = |interval: f64| expected_goodput(interval, write, 120.0, mean);
            let best = (1..4000).map(|k| at(mean * f64::from(k) / 1000.0)).fold(0.0, f64::max);
            let daly = at(daly_interval(write, mean));
            assert!(daly <= best * (1.0 + 1e-6) && daly > best * 0.9999, "{daly} of {best}");
        }
    }

    #[test]
    fn without_failures_only_checkpoints_cost() {
        assert!((expected_goodput(900.0, 100.0, 60.0, f64::INFINITY) - 0.9).abs() < 1e-12);
        assert!((expected_goodput(f64::INFINITY, 100.0, 60.0, f64::INFINITY) - 1.0).abs() < 1e-12);
    }
}
