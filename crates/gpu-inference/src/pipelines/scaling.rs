//! Pictures in the size that a model takes, as detectors and segmenters prepare them.

use image::RgbImage;

use crate::input::{Content, Load, Prepared};
use crate::preparation::{Form, Prepare};
use crate::preprocess::pixels::{Filter, FloatWidth, Normalisation, Planes, resize};
use crate::run::RunError;
use crate::size::Size;

/// A scaled picture, and the size that it had.
pub(crate) struct Scaled {
    pub(crate) planes: Planes,
    pub(crate) picture: Size,
}

impl Form for Scaled {
    fn load(&self) -> Load {
        self.planes.load()
    }
}

/// How pictures are scaled for a model.
pub(crate) struct Scaling {
    planes: Box<dyn Fn(&RgbImage) -> Planes + Send + Sync>,
    bytes_max: u64,
}

impl Scaling {
    /// To a square, whatever a picture's shape.
    pub(crate) fn to_square(
        side: u32,
        filter: Filter,
        normalisation: Normalisation,
        width: FloatWidth,
    ) -> Self {
        let square = Size::square(side);
        Self::by(Planes::bytes(square, width), move |picture| {
            Planes::of(&resize(picture, square, filter), &normalisation, width)
        })
    }

    /// As `planes` does it; the result takes at most `bytes_max`.
    pub(crate) fn by(
        bytes_max: u64,
        planes: impl Fn(&RgbImage) -> Planes + Send + Sync + 'static,
    ) -> Self {
        Self { planes: Box::new(planes), bytes_max }
    }
}

impl Prepare for Scaling {
    type Form = Scaled;

    fn prepare(&self, input: &Prepared) -> Result<Scaled, RunError> {
        let Content::Picture(picture) = input.content() else {
            return Err(RunError::WrongInput { index: 0, wanted: "a picture" });
        };
        let picture = picture.rgb();
        Ok(Scaled { planes: (self.planes)(picture), picture: picture.dimensions().into() })
    }

    fn bytes_max(&self) -> u64 {
        self.bytes_max
    }
}
