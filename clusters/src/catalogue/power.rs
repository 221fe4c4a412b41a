//! Clocks of boards that differ in the power they may draw.
//!
//! Under matrix products on tensor cores a data-centre GPU draws its limit, and its clock settles where it does. Dynamic
//! power goes as the clock times the voltage squared (Rabaey, Chandrakasan, Nikolic, Digital Integrated Circuits, section
//! 5.5.1), and the voltage falls with the clock: the clock goes as the cube root of the power that each multiprocessor may draw.

use steptime_models::Dimension;

use super::error::CatalogueError;
use super::reader::Section;

/// Power that a board's limit leaves for each multiprocessor and hertz.
#[derive(Clone, Copy, Debug)]
pub(super) struct PowerDensity(f64);

impl PowerDensity {
    /// Of the GPU that `root` describes; `None` if the file does not state the board's power.
    pub(super) fn read(root: &Section<'_>) -> Result<Option<Self>, CatalogueError> {
        if !root.has("power") {
            return Ok(None);
        }
        let mut facts = Vec::new();
        let power = root.quantity("power", Dimension::Watts, &mut facts)?.value;
        let clock = root.quantity("clock", Dimension::Hertz, &mut facts)?.value;
        let sms = root.count("streaming_multiprocessors", &mut facts)?;
        Ok(Some(Self(power / (f64::from(sms) * clock))))
    }

    /// Clock under load, of that at which one with `lender`'s power would run on this GPU.
    pub(super) fn clock(self, lender: Self) -> f64 {
        libm::cbrt(self.0 / lender.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_as_the_cube_root() {
        // A100: 250 W against 400 W for the same multiprocessors and clock, (250 / 400)^(1/3).
        let [card, module] = [250.0, 400.0].map(|power| PowerDensity(power / (108.0 * 1.41e9)));
        assert!((card.clock(module) - 0.855).abs() < 5e-4);
        assert!((module.clock(card) - 1.170).abs() < 5e-4);
    }
}
