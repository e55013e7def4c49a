//! Pictures as a model's input: scaled as PIL scales, and laid out as planes of numbers.
//!
//! Models are trained on pictures that PIL has scaled with its antialiased filters; another filter changes results by more
//! than a model's precision does. The pipelines say which size, filter and numbers a model takes.

mod pil;

use crate::input::Load;
use crate::preparation::Form;
use crate::size::{Offset, Size};
use fast_image_resize as fir;
use fast_image_resize::images::{Image, ImageRef};
use half::f16;
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

/// The width of a graph's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FloatWidth {
    Single,
    Half,
}

/// A picture as a graph takes it: three planes (red, green, blue) of numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Planes {
    pub(crate) size: Size,
    pub(crate) numbers: Numbers,
}

/// Numbers in a graph's width.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Numbers {
    Single(Vec<f32>),
    Half(Vec<f16>),
}

impl Planes {
    /// All of a picture.
    pub(crate) fn of(picture: &RgbImage, normalisation: &Normalisation, width: FloatWidth) -> Self {
        let ground = Ground { size: picture.dimensions().into(), number: 0.0 };
        Self::on(ground, Offset { left: 0, top: 0 }, picture, normalisation, width)
    }

    /// A picture somewhere on a ground that is as large or larger.
    pub(crate) fn on(
        ground: Ground,
        corner: Offset,
        picture: &RgbImage,
        normalisation: &Normalisation,
        width: FloatWidth,
    ) -> Self {
        let numbers = match width {
            FloatWidth::Single => Numbers::Single(planes(ground, corner, picture, normalisation)),
            FloatWidth::Half => Numbers::Half(planes(ground, corner, picture, normalisation)),
        };
        Self { size: ground.size, numbers }
    }

    /// The memory that planes of this size take.
    pub(crate) fn bytes(size: Size, width: FloatWidth) -> u64 {
        let number = match width {
            FloatWidth::Single => size_of::<f32>(),
            FloatWidth::Half => size_of::<f16>(),
        };
        3 * size.pixels() * number as u64
    }
}

impl Form for Planes {
    fn load(&self) -> Load {
        let bytes = match &self.numbers {
            Numbers::Single(numbers) => size_of_val(numbers.as_slice()),
            Numbers::Half(numbers) => size_of_val(numbers.as_slice()),
        };
        Load { bytes: bytes as u64, cost: self.size.pixels(), shape_bucket: 0 }
    }
}

/// What planes are filled with around a picture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ground {
    pub(crate) size: Size,
    pub(crate) number: f32,
}

/// A number in a graph's width.
trait Number: Copy {
    fn of(value: f32) -> Self;
}

impl Number for f32 {
    fn of(value: f32) -> Self {
        value
    }
}

impl Number for f16 {
    fn of(value: f32) -> Self {
        Self::from_f32(value)
    }
}

fn planes<N: Number>(
    ground: Ground,
    corner: Offset,
    picture: &RgbImage,
    normalisation: &Normalisation,
) -> Vec<N> {
    let (width, height) = (ground.size.width as usize, ground.size.height as usize);
    let (left, top) = (corner.left as usize, corner.top as usize);
    let mut target = vec![N::of(ground.number); 3 * width * height];
    let table: [[N; 256]; 3] = std::array::from_fn(|channel| {
        std::array::from_fn(|byte| {
            N::of(normalisation.of(channel, u8::try_from(byte).expect("below 256")))
        })
    });
    let lines = picture.as_raw().chunks_exact(3 * picture.width() as usize);
    for (y, line) in lines.enumerate() {
        let (pixels, _) = line.as_chunks::<3>();
        for (channel, table) in table.iter().enumerate() {
            let start = (channel * height + top + y) * width + left;
            let target = &mut target[start..][..pixels.len()];
            for (target, pixel) in target.iter_mut().zip(pixels) {
                *target = table[usize::from(pixel[channel])];
            }
        }
    }
    target
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
            let scaled = resize(&picture, Size::square(224), Filter::Bilinear);
            let planes = Planes::of(&scaled, &Normalisation::SIGNED, FloatWidth::Single);
            let Numbers::Single(numbers) = planes.numbers else { panic!("in 32 bits") };
            let Elements::F32(expected) = reference(name) else { panic!("not floats") };
            let off = numbers.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
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
    fn a_picture_on_a_ground_has_the_same_numbers_in_either_width() {
        let picture = image::imageops::crop_imm(&photograph(), 100, 100, 7, 5).to_image();
        let (ground, corner) =
            (Ground { size: (9, 8).into(), number: 0.25 }, Offset { left: 1, top: 2 });
        let on =
            |width| Planes::on(ground, corner, &picture, &Normalisation::IMAGENET, width).numbers;
        let (Numbers::Single(single), Numbers::Half(half)) =
            (on(FloatWidth::Single), on(FloatWidth::Half))
        else {
            panic!("each in its width")
        };
        let at = |channel: usize, x: usize, y: usize| single[(channel * 8 + y) * 9 + x];
        let around = [at(0, 0, 0), at(1, 8, 7), at(2, 1, 1)];
        assert_eq!(around.map(f32::to_bits), [0.25_f32.to_bits(); 3]);
        let pixel = picture.get_pixel(6, 4).0;
        assert_eq!(at(2, 7, 6).to_bits(), Normalisation::IMAGENET.of(2, pixel[2]).to_bits());
        let rounded: Vec<f16> = single.iter().map(|&number| f16::from_f32(number)).collect();
        assert_eq!(half, rounded);
    }

    #[test]
    fn a_map_is_enlarged_between_the_middles_of_its_cells() {
        let found = enlarge(&[0.0, 4.0], (2, 1).into(), (4, 2).into());
        assert_eq!(found, [0.0, 1.0, 3.0, 4.0, 0.0, 1.0, 3.0, 4.0]);
        assert_eq!(enlarge(&[7.0], Size::square(1), (2, 1).into()), [7.0, 7.0]);
    }
}
