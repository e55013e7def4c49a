//! Width and height, and a position, in whole pixels.

/// Width and height of a picture, canvas or map, in pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size {
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// The top left corner of something on a canvas, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offset {
    pub(crate) left: u32,
    pub(crate) top: u32,
}

impl Size {
    pub(crate) const fn square(side: u32) -> Self {
        Self { width: side, height: side }
    }

    pub(crate) fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    pub(crate) fn long_side(self) -> u32 {
        self.width.max(self.height)
    }
}

impl From<(u32, u32)> for Size {
    /// From the dimensions that the crate `image` uses.
    fn from((width, height): (u32, u32)) -> Self {
        Self { width, height }
    }
}
