//! A logarithmic axis over the values of a panel.

use crate::axis::Tick;
use crate::font::text_width;
use crate::style::TICK_PT;

/// Room beyond the outermost values, as a factor.
const MARGIN: f64 = 1.35;

/// From `least` to `most`, both above zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogAxis {
    least: f64,
    most: f64,
}

impl LogAxis {
    /// An axis on which all values, which are above zero, fit with some room.
    pub(crate) fn over(values: impl Iterator<Item = f64>) -> Self {
        let (least, most) =
            values.fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
        if least.is_finite() && most > 0.0 {
            // An end that is no number would be reached by no tick, and 0 has no logarithm.
            let (least, most) = (least / MARGIN, most * MARGIN);
            Self { least: least.max(f64::from_bits(1)), most: most.min(f64::MAX) }
        } else {
            Self { least: 0.1, most: 10.0 }
        }
    }

    /// How far along the axis a factor reaches, as a share of it.
    pub(crate) fn span(&self, factor: f64) -> f64 {
        libm::log(factor) / self.extent()
    }

    /// Logarithm of the axis's ends' ratio, which may be past all numbers.
    fn extent(&self) -> f64 {
        let ratio = self.most / self.least;
        if ratio.is_finite() { libm::log(ratio) } else { libm::log(self.most) - libm::log(self.least) }
    }

    /// Where a value lies, from 0 to 1.
    pub(crate) fn share(&self, value: f64) -> f64 {
        let ratio = value / self.least;
        if ratio.is_finite() {
            self.span(ratio)
        } else {
            (libm::log(value) - libm::log(self.least)) / self.extent()
        }
    }

    /// Powers of ten, and between them 2 and 5 times such where there is room; on an axis of `length` points no two
    /// labels touch.
    pub(crate) fn ticks(&self, length: f64) -> Vec<Tick> {
        let sets: [&[f64]; 3] = [&[1.0, 2.0, 5.0], &[1.0, 3.0], &[1.0]];
        let candidates = sets.map(|factors| self.multiples(factors));
        let fits = |ticks: &&Vec<Tick>| self.fit(ticks, length);
        let [_, _, decades] = &candidates;
        let chosen = candidates.iter().find(fits).unwrap_or(decades);
        let step = (1..=decades.len().max(1))
            .find(|step| fits(&&chosen.iter().step_by(*step).cloned().collect()))
            .unwrap_or(1);
        chosen.iter().step_by(step).cloned().collect()
    }

    /// Powers of two, as numbers of GPUs are counted; every second, third ... where there is no room for all.
    pub(crate) fn doubling_ticks(&self, length: f64) -> Vec<Tick> {
        let mut all = Vec::new();
        let mut value = 1.0;
        while value <= self.most {
            if value >= self.least {
                let label = if value < 1e15 { format!("{value:.0}") } else { label(value) };
                all.push(Tick { value, label });
            }
            value *= 2.0;
        }
        let chosen = |step: usize| all.iter().step_by(step).cloned().collect::<Vec<_>>();
        let step = (1..=all.len().max(1)).find(|step| self.fit(&chosen(*step), length)).unwrap_or(1);
        chosen(step)
    }

    /// Whether no two labels touch on an axis of this length.
    fn fit(&self, ticks: &[Tick], length: f64) -> bool {
        ticks.windows(2).all(|pair| {
            let gap = (self.share(pair[1].value) - self.share(pair[0].value)) * length;
            let half = |tick: &Tick| text_width(&tick.label, TICK_PT) / 2.0;
            gap >= half(&pair[0]) + half(&pair[1]) + 5.0
        })
    }

    /// Every power of ten times each factor that lies on the axis.
    fn multiples(&self, factors: &[f64]) -> Vec<Tick> {
        let mut power = 1e-12;
        let mut ticks = Vec::new();
        while power <= self.most {
            for factor in factors {
                let value = power * factor;
                if (self.least..=self.most).contains(&value) {
                    ticks.push(Tick { value, label: label(value) });
                }
            }
            power *= 10.0;
        }
        ticks
    }
}

/// `0.01`, `20`, `1e5`; values are whole multiples of a power of ten, up to rounding.
fn label(value: f64) -> String {
    if !(0.000_99..99_999.0).contains(&value) {
        return format!("{value:.0e}");
    }
    let decimals = if value >= 0.99 {
        0
    } else if value >= 0.099 {
        1
    } else if value >= 0.0099 {
        2
    } else {
        3
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decades_and_what_is_between_them() {
        let labels = |least: f64, most: f64, length: f64| {
            let axis = LogAxis::over([least, most].into_iter());
            axis.ticks(length).into_iter().map(|tick| tick.label).collect::<Vec<_>>()
        };
        assert_eq!(labels(0.02, 50.0, 100.0), ["0.1", "1", "10"]);
        assert_eq!(labels(2.0, 50.0, 100.0), ["2", "5", "10", "20", "50"]);
        assert_eq!(labels(0.002, 5000.0, 60.0), ["0.01", "1", "100"]);
    }

    /// The largest and the smallest number have an axis that ends, with few ticks.
    #[test]
    fn axes_of_absurd_values_end() {
        for values in [[1.0, f64::MAX], [f64::MIN_POSITIVE, f64::MAX], [5e-324, 1.0], [f64::MAX, f64::MAX]] {
            let axis = LogAxis::over(values.into_iter());
            for ticks in [axis.ticks(200.0), axis.doubling_ticks(200.0)] {
                assert!(ticks.len() < 20, "{values:?}: {}", ticks.len());
            }
            let shares = values.map(|value| axis.share(value));
            assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)), "{values:?}: {shares:?}");
        }
    }

    #[test]
    fn values_lie_between_the_ends() {
        let axis = LogAxis::over([1.0, 100.0].into_iter());
        assert!((axis.share(10.0) - 0.5).abs() < 1e-12);
        assert!(axis.share(1.0) > 0.0 && axis.share(100.0) < 1.0);
        assert!(LogAxis::over(std::iter::empty()).ticks(100.0).len() >= 2);
    }
}
