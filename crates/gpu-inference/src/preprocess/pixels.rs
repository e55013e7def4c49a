//! Pictures as a model's input: scaled as PIL scales, and laid out as planes of numbers.
//!
//! Models are trained on pictures that PIL has scaled with its antialiased filters; another filter changes results by more
//! than a model's precision does. The pipelines say which size, filter and numbers a model takes.

mod pil;

use crate::size::Size;
use fast_image_resize as fir;
use fast_image_resize::images::{Image, ImageRef};
use image::{GrayImage, RgbImage};

/// PIL's filters, by its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filter {
    /// `BILINEAR`: a triangle as wide as the scale.
    Bilinear,
    /// `BICUBIC`.
    Bicubic,
    /// `LANCZOS`.
    Lanczos,
}

/// How a channel's byte becomes a number: `(byte * scale - mean) / deviation`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Normalisation {
    pub(crate) scale: f32,
    pub(crate) mean: [f32; 3],
    pub(crate) deviation: [f32; 3],
}

/// ImageNet's mean and deviation, which most vision models take over.
pub(crate) const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

impl Normalisation {
    /// From 0 to 1.
    pub(crate) const UNIT: Self = Self { scale: 1.0 / 255.0, mean: [0.0; 3], deviation: [1.0; 3] };
    /// From -1 to 1.
    pub(crate) const SIGNED: Self =
        Self { scale: 1.0 / 255.0, mean: [0.5; 3], deviation: [0.5; 3] };
    /// As bytes are.
    pub(crate) const BYTES: Self = Self { scale: 1.0, mean: [0.0; 3], deviation: [1.0; 3] };
    /// By ImageNet's mean and deviation.
    pub(crate) const IMAGENET: Self =
        Self { scale: 1.0 / 255.0, mean: IMAGENET.0, deviation: IMAGENET.1 };

    fn of(&self, channel: usize, byte: u8) -> f32 {
        (f32::from(byte) * self.scale - self.mean[channel]) / self.deviation[channel]
    }
}

const FITS: &str = "both are of one kind with sides of at least 1";

/// The picture in another size, each byte as PIL has it.
pub(crate) fn resize(source: &RgbImage, size: Size, filter: Filter) -> RgbImage {
    if Size::from(source.dimensions()) == size {
        return source.clone();
    }
    let source =
        pil::Bytes { size: source.dimensions().into(), channels: 3, bytes: source.as_raw() };
    let bytes = source.scaled(size, filter);
    RgbImage::from_raw(size.width, size.height, bytes).expect(FITS)
}

/// The grey picture in another size, each byte as PIL has it.
pub(crate) fn resize_grey(source: &GrayImage, size: Size, filter: Filter) -> GrayImage {
    if Size::from(source.dimensions()) == size {
        return source.clone();
    }
    let source =
        pil::Bytes { size: source.dimensions().into(), channels: 1, bytes: source.as_raw() };
    let bytes = source.scaled(size, filter);
    GrayImage::from_raw(size.width, size.height, bytes).expect(FITS)
}

/// The picture in another size, quickly: a byte may be off by one or two. For models that read shapes, not shades.
pub(crate) fn resize_quickly(source: &RgbImage, size: Size) -> RgbImage {
    if Size::from(source.dimensions()) == size {
        return source.clone();
    }
    let pixels = fir::PixelType::U8x3;
    let view = ImageRef::new(source.width(), source.height(), source.as_raw(), pixels).expect(FITS);
    let mut target = Image::new(size.width, size.height, pixels);
    let bilinear = fir::ResizeAlg::Convolution(fir::FilterType::Bilinear);
    let options = fir::ResizeOptions::new().resize_alg(bilinear);
    fir::Resizer::new().resize(&view, &mut target, &options).expect(FITS);
    RgbImage::from_raw(size.width, size.height, target.into_vec()).expect(FITS)
}

/// A map of numbers in another size, between the middles of its cells and without antialiasing: as PyTorch's bilinear
/// interpolation enlarges a model's mask.
pub(crate) fn enlarge(map: &[f32], from: Size, to: Size) -> Vec<f32> {
    let axis = |from: u32, to: u32| -> Vec<(usize, usize, f32)> {
        let source = |index: u32| {
            let at = ((index as f32 + 0.5) * from as f32 / to as f32 - 0.5).max(0.0);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "in the map"
            )]
            let low = (at as usize).min(from as usize - 1);
            (low, (low + 1).min(from as usize - 1), at - low as f32)
        };
        (0..to).map(source).collect()
    };
    let columns = axis(from.width, to.width);
    let mut enlarged = Vec::with_capacity(to.width as usize * to.height as usize);
    for (top, bottom, down) in axis(from.height, to.height) {
        let width = from.width as usize;
        let (above, below) = (&map[top * width..][..width], &map[bottom * width..][..width]);
        enlarged.extend(columns.iter().map(|&(left, right, along)| {
            let upper = above[left] + (above[right] - above[left]) * along;
            let lower = below[left] + (below[right] - below[left]) * along;
            upper + (lower - upper) * down
        }));
    }
    enlarged
}

/// Writes a picture as three planes (red, green, blue) at the top left of planes of `size`.
pub(crate) fn write_planes(
    target: &mut [f32],
    size: Size,
    picture: &RgbImage,
    normalisation: &Normalisation,
) {
    let (width, height) = (size.width as usize, size.height as usize);
    debug_assert_eq!(target.len(), 3 * width * height);
    let table: [[f32; 256]; 3] = std::array::from_fn(|channel| {
        std::array::from_fn(|byte| {
            normalisation.of(channel, u8::try_from(byte).expect("below 256"))
        })
    });
    for (y, pixels) in picture.rows().enumerate() {
        for (channel, table) in table.iter().enumerate() {
            let line = &mut target[(channel * height + y) * width..][..pixels.len()];
            for (target, pixel) in line.iter_mut().zip(pixels.clone()) {
                *target = table[usize::from(pixel.0[channel])];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::tensors::{self, Elements};

    /// What PIL made of the photograph: `tests/graphs/references.py`, run by scripts/make-graphs.py.
    fn reference(name: &str) -> Elements {
        let path = crate::cache_folder().join("graphs/references").join(name);
        let bytes = std::fs::read(&path).expect("run scripts/make-graphs.py");
        let tensors = tensors::decode(&bytes, &path, &crate::InputLimits::default()).unwrap();
        tensors[tensors::UNNAMED].elements().clone()
    }

    fn photograph() -> RgbImage {
        let path = crate::cache_folder().join("samples/astronaut.png");
        image::open(path).expect("run scripts/fetch-models.py").into_rgb8()
    }

    #[test]
    fn a_photograph_becomes_the_numbers_that_the_reference_makes_of_it() {
        let wide = image::imageops::crop_imm(&photograph(), 90, 40, 340, 130).to_image();
        for (picture, name) in [(photograph(), "siglip-224.npy"), (wide, "siglip-from-wide.npy")] {
            let mut planes = vec![0.0; 3 * 224 * 224];
            let scaled = resize(&picture, Size::square(224), Filter::Bilinear);
            write_planes(&mut planes, Size::square(224), &scaled, &Normalisation::SIGNED);
            let Elements::F32(expected) = reference(name) else { panic!("not floats") };
            let off = planes.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-3, "{name}: off by {off}");
        }
    }

    #[test]
    fn bicubic_is_pil_s_too() {
        let scaled = resize(&photograph(), (256, 300).into(), Filter::Bicubic);
        let Elements::U8(expected) = reference("bicubic.npy") else { panic!("not bytes") };
        let off = scaled.as_raw().iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
        assert_eq!(off, Some(0), "of 255");
    }

    #[test]
    fn a_map_is_enlarged_between_the_middles_of_its_cells() {
        let found = enlarge(&[0.0, 4.0], (2, 1).into(), (4, 2).into());
        assert_eq!(found, [0.0, 1.0, 3.0, 4.0, 0.0, 1.0, 3.0, 4.0]);
        assert_eq!(enlarge(&[7.0], Size::square(1), (2, 1).into()), [7.0, 7.0]);
    }
}
