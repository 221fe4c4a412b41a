//! Images and feature maps: tensors with channels, rows and columns of pixels.

use crate::tape::{Tape, Tensor};
use crate::units::product;

/// A batch of feature maps. The tensor has a row for each pixel and a column for each channel, however it lies in
/// memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Feature {
    pub(crate) tensor: Tensor,
    /// Images of the batch.
    pub(crate) images: u64,
    pub(crate) channels: u64,
    pub(crate) height: u64,
    pub(crate) width: u64,
}

impl Feature {
    /// A tensor as feature maps of `images` images.
    pub(crate) fn new(tensor: Tensor, images: u64, [height, width]: [u64; 2]) -> Self {
        Self { tensor, images, channels: tensor.width, height, width }
    }

    /// A new feature map of activations for the same images.
    pub(crate) fn output(
        self,
        tape: &mut Tape<'_>,
        name: &'static str,
        channels: u64,
        [height, width]: [u64; 2],
    ) -> Self {
        let tensor = tape.result(name, product(&[self.images, height, width]), channels, &[self.tensor]);
        Self { tensor, channels, height, width, ..self }
    }

    /// The same sizes with another tensor.
    pub(crate) fn with(self, tensor: Tensor) -> Self {
        Self { tensor, ..self }
    }

    /// Rows and columns.
    pub(crate) fn grid(self) -> [u64; 2] {
        [self.height, self.width]
    }

    /// One row of all values for each image: what `flatten` makes, a view.
    pub(crate) fn flat(self) -> Tensor {
        self.tensor.reshaped(self.images, product(&[self.channels, self.height, self.width]))
    }

    /// Whether an image is too small for the windows before: nothing is left of it.
    pub(crate) fn is_empty(self) -> bool {
        self.height == 0 || self.width == 0
    }
}

/// A window that moves over an image: of a convolution or of pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Rows and columns.
    pub(crate) size: [u64; 2],
    pub(crate) stride: u64,
    /// Rows and columns of padding on each side.
    pub(crate) padding: [u64; 2],
}

impl Window {
    /// One pixel.
    pub(crate) const PIXEL: Self = Self::square(1, 1, 0);

    /// A square window.
    pub(crate) const fn square(size: u64, stride: u64, padding: u64) -> Self {
        Self { size: [size; 2], stride, padding: [padding; 2] }
    }

    /// A square window of an odd size that keeps an image's size, or divides it by `stride`.
    pub(crate) const fn same(size: u64, stride: u64) -> Self {
        Self::square(size, stride, (size - 1) / 2)
    }

    /// A window of odd sizes that keeps an image's size.
    pub(crate) const fn oblong(height: u64, width: u64) -> Self {
        Self { size: [height, width], stride: 1, padding: [(height - 1) / 2, (width - 1) / 2] }
    }

    /// Rows and columns of the result: `floor((pixels + 2 padding - size) / stride) + 1`, or 0 where the window does
    /// not fit.
    pub(crate) fn over(self, grid: [u64; 2]) -> [u64; 2] {
        [0, 1].map(|axis| {
            let padded = grid[axis] + 2 * self.padding[axis];
            padded.checked_sub(self.size[axis]).map_or(0, |room| room / self.stride + 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Window;

    #[test]
    fn sizes_are_rounded_down() {
        // The first layers of ResNet and of Inception v3.
        assert_eq!(Window::same(7, 2).over([224, 224]), [112, 112]);
        assert_eq!(Window::square(3, 2, 1).over([112, 112]), [56, 56]);
        assert_eq!(Window::square(3, 2, 0).over([299, 299]), [149, 149]);
        assert_eq!(Window::oblong(1, 7).over([17, 17]), [17, 17]);
        assert_eq!(Window::same(3, 2).over([7, 7]), [4, 4]);
    }

    #[test]
    fn a_window_larger_than_the_image_leaves_nothing() {
        assert_eq!(Window::square(2, 2, 0).over([1, 1]), [0, 0]);
        assert_eq!(Window::square(5, 3, 0).over([4, 5]), [0, 1]);
        assert_eq!(Window::same(7, 2).over([1, 1]), [1, 1]);
    }
}
