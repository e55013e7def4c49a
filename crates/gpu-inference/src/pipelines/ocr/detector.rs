//! Where text is on a page: the detector's map of probabilities.

use ndarray::{ArrayView2, Axis, Ix4};
use ort::value::DynValue;

use super::sessions::{Kept, Sessions};
use super::shapes::Shapes;
use super::tensor::{Canvas, Shape};
use super::{float, run, wrong};
use crate::models::{DimSpec, IoName, ModelError, Opener};
use crate::run::{Cancel, RunError, failed};

const ROLE: &str = "detect";
const STAGE: &str = "text detection";
/// Most pixels of the canvases that have a session at once, where shapes are few: the eight canvases of pages of a dozen sizes, whose
/// sessions took 5 GB of a GPU.
const DETECTORS_PIXELS_MAX: u64 = 16 << 20;

pub(super) struct Detector {
    sessions: Sessions,
}

/// How likely each pixel of a canvas is text.
pub(super) struct Map(DynValue);

impl Detector {
    pub(super) fn open(opener: &mut Opener<'_>, shapes: Shapes) -> Result<Self, ModelError> {
        const PAGES: &[DimSpec] = &[DimSpec::Free, DimSpec::Is(3), DimSpec::Free, DimSpec::Free];
        const MAPS: &[DimSpec] = &[DimSpec::Free, DimSpec::Is(1), DimSpec::Free, DimSpec::Free];
        let (input, output) = (float(IoName::Is("x"), PAGES), float(IoName::Only, MAPS));
        let first = opener.session(ROLE, &[input], &[output])?;
        let sessions = Sessions::new(
            opener,
            (ROLE, STAGE),
            first,
            (shapes, Kept::Pixels(DETECTORS_PIXELS_MAX)),
        )?;
        Ok(Self { sessions })
    }

    /// Looks at one page or part of one: a call with four took as long for each.
    pub(super) fn look(&mut self, canvas: &Canvas, cancel: &Cancel) -> Result<Map, RunError> {
        let map = run(self.sessions.of(canvas.shape())?, canvas, STAGE, cancel)?;
        let Shape { count, size } = canvas.shape();
        let wanted = [count, 1, size.height as usize, size.width as usize];
        let found = map.try_extract_array::<f32>().map_err(failed(STAGE))?.shape().to_vec();
        if found == wanted { Ok(Map(map)) } else { Err(wrong(STAGE, &found)) }
    }
}

impl Map {
    pub(super) fn values(&self) -> Result<ArrayView2<'_, f32>, RunError> {
        let values = self.0.try_extract_array::<f32>().map_err(failed(STAGE))?;
        let values = values.into_dimensionality::<Ix4>().map_err(|_| wrong(STAGE, &[]))?;
        Ok(values.index_axis_move(Axis(0), 0).index_axis_move(Axis(0), 0))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::size::Size;

    #[test]
    fn the_canvases_of_pages_of_a_dozen_sizes_have_a_session_each() {
        let pages = [
            (1_200, 1_700),
            (1_240, 1_754),
            (1_100, 1_600),
            (1_000, 1_414),
            (1_300, 1_800),
            (1_654, 2_339),
            (900, 1_300),
            (1_500, 1_100),
            (1_700, 1_200),
            (800, 1_100),
            (1_400, 2_000),
            (1_280, 720),
        ];
        let size = |page: (u32, u32)| super::super::tensor::detection_size(Size::from(page));
        let canvases: BTreeSet<(u32, u32)> =
            pages.into_iter().map(size).map(|size| (size.width, size.height)).collect();
        assert_eq!(canvases.len(), 8);
        let pixels: u64 = canvases.into_iter().map(|size| Size::from(size).pixels()).sum();
        assert!(pixels <= DETECTORS_PIXELS_MAX, "{pixels}");
    }
}
