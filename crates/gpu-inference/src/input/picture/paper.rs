//! What is transparent becomes paper, on which what is drawn can be seen.

use image::{DynamicImage, RgbImage, RgbaImage};

/// Papers, the usual one first.
const PAPERS: [u8; 3] = [255, 0, 128];
/// A difference in brightness that can be read.
const CONTRAST_MIN: u8 = 80;
/// Of 100 pixels at the edges of what is drawn, how many more another paper must show than the usual one.
const GAIN_PERCENT_MIN: usize = 10;
/// From this alpha on a pixel is rather drawn than not.
const OPAQUE_MIN: u8 = 128;
/// Highest value of a channel.
const FULL: u32 = 255;

/// The picture without transparency. One that is transparent everywhere shows the colours that it has.
pub(super) fn flatten(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let mut rgba = picture.into_rgba8();
    if rgba.pixels().all(|pixel| pixel.0[3] == 0) {
        rgba.pixels_mut().for_each(|pixel| pixel.0[3] = u8::MAX);
    }
    let paper = u32::from(paper(&rgba));
    let mut rgb = RgbImage::new(rgba.width(), rgba.height());
    for (target, source) in rgb.pixels_mut().zip(rgba.pixels()) {
        let alpha = u32::from(source.0[3]);
        for (target, &source) in target.0.iter_mut().zip(&source.0) {
            let mixed = (u32::from(source) * alpha + paper * (FULL - alpha)) / FULL;
            *target = u8::try_from(mixed).expect("a mean of two bytes is a byte");
        }
    }
    rgb
}

/// White, unless another paper shows more of what is drawn: white letters need a black one.
fn paper(picture: &RgbaImage) -> u8 {
    let (mut edges, mut shown) = (0_usize, [0_usize; PAPERS.len()]);
    for brightness in edge_brightnesses(picture) {
        edges += 1;
        for (shown, paper) in shown.iter_mut().zip(PAPERS) {
            *shown += usize::from(brightness.abs_diff(paper) >= CONTRAST_MIN);
        }
    }
    let gain = edges * GAIN_PERCENT_MIN / 100;
    let better = (1..PAPERS.len()).filter(|&other| shown[other] > shown[0] + gain);
    let best = better.max_by_key(|&other| (shown[other], std::cmp::Reverse(other)));
    PAPERS[best.unwrap_or(0)]
}

/// The brightness of drawn pixels that have a transparent neighbour in their line.
fn edge_brightnesses(picture: &RgbaImage) -> impl Iterator<Item = u8> {
    let brightness = |pixel: &[u8]| {
        let [red, green, blue] = [0, 1, 2].map(|channel| u32::from(pixel[channel]));
        u8::try_from((299 * red + 587 * green + 114 * blue) / 1000).expect("a mean of bytes")
    };
    let lines = picture.as_raw().chunks_exact(4 * (picture.width() as usize).max(1));
    lines.flat_map(|line| line.windows(8).step_by(4)).filter_map(move |pair| {
        let (left, right) = (&pair[..4], &pair[4..]);
        match (left[3] >= OPAQUE_MIN, right[3] >= OPAQUE_MIN) {
            (true, false) => Some(brightness(left)),
            (false, true) => Some(brightness(right)),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgba;

    /// Stripes of these colours with nothing between them.
    fn stripes(colours: &[[u8; 3]]) -> DynamicImage {
        let colour = |x: u32| colours[(x / 4) as usize % colours.len()];
        RgbaImage::from_fn(80, 3, |x, _| {
            let [red, green, blue] = colour(x);
            Rgba([red, green, blue, if x % 4 < 2 { 255 } else { 0 }])
        })
        .into()
    }

    fn papers(colours: &[[u8; 3]]) -> u8 {
        flatten(stripes(colours)).get_pixel(3, 0).0[0]
    }

    #[test]
    fn the_paper_is_the_one_on_which_most_can_be_seen() {
        assert_eq!(papers(&[[0; 3]]), 255);
        assert_eq!(papers(&[[255; 3]]), 0);
        assert_eq!(papers(&[[255, 255, 0]]), 0);
        assert_eq!(papers(&[[150; 3]]), 255, "both would do");
        assert_eq!(papers(&[[255; 3], [0; 3]]), 128);
        let few_light = [[[0; 3]; 19].as_slice(), &[[255; 3]]].concat();
        assert_eq!(papers(&few_light), 255);
    }

    #[test]
    fn what_is_transparent_everywhere_shows_its_colours() {
        let clear = RgbaImage::from_pixel(2, 2, Rgba([7, 8, 9, 0]));
        assert_eq!(flatten(clear.into()).get_pixel(0, 0).0, [7, 8, 9]);
    }
}
