//! Where text is on a page: the detector's map of probabilities.

use ndarray::{ArrayView2, Axis, Ix4};
use ort::value::DynValue;

use super::sessions::Sessions;
use super::shapes::Shapes;
use super::tensor::{Canvas, Shape};
use super::{float, run, wrong};
use crate::models::{DimSpec, IoName, ModelError, Opener};
use crate::run::{Cancel, RunError, failed};

const ROLE: &str = "detect";
const STAGE: &str = "text detection";
/// Most sizes of canvases that have a session at once, where shapes are few. Each holds some 300 MB of a GPU with 16 GB or more, beside the
/// recogniser's 2 GB; pages of a dozen sizes have seven.
const DETECTORS_MAX: usize = 8;

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
        let sessions = Sessions::new(opener, (ROLE, STAGE), first, (shapes, DETECTORS_MAX))?;
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
