//! A graph's sessions: one for every shape of input, or one for each.

use ort::session::Session;

use super::shapes::Shapes;
use super::tensor::Shape;
use crate::models::{ModelError, Opener, SessionSource};
use crate::run::RunError;

/// The sessions of one graph.
pub(super) enum Sessions {
    /// One for every shape.
    One(Box<Session>),
    /// One for each shape.
    PerShape { stage: &'static str, source: SessionSource, sessions: Recent<Session> },
}

impl Sessions {
    /// With the first session of the graph of `role`. Where shapes are few, each of the last has one, as many as `kept` says.
    pub(super) fn new(
        opener: &Opener<'_>,
        (role, stage): (&'static str, &'static str),
        first: Session,
        (shapes, kept): (Shapes, Kept),
    ) -> Result<Self, ModelError> {
        Ok(match shapes {
            Shapes::Own => Self::One(Box::new(first)),
            Shapes::Few => {
                let (source, sessions) = (opener.source(role)?, Recent::new(first, kept));
                Self::PerShape { stage, source, sessions }
            }
        })
    }

    /// The session for inputs of a shape.
    pub(super) fn of(&mut self, shape: Shape) -> Result<&mut Session, RunError> {
        match self {
            Self::One(session) => Ok(session),
            Self::PerShape { stage, source, sessions } => {
                let failed = |source| RunError::Model { stage, source };
                sessions.of(shape, || source.session().map_err(failed))
            }
        }
    }
}

/// How much is kept at once.
#[derive(Clone, Copy)]
pub(super) enum Kept {
    /// A number of shapes.
    Shapes(usize),
    /// Shapes of a number of pixels together, and one of more than that: what a session takes of the device grows with its shape.
    Pixels(u64),
}

impl Kept {
    fn fits(self, shapes: impl Iterator<Item = Shape>) -> bool {
        match self {
            Self::Shapes(most) => shapes.count() <= most,
            Self::Pixels(most) => shapes.map(|shape| shape.size.pixels()).sum::<u64>() <= most,
        }
    }
}

/// What was made for a shape, of the shapes that were last asked for.
pub(super) struct Recent<T> {
    /// From the one that was not asked for longest.
    all: Vec<(Option<Shape>, T)>,
    kept: Kept,
}

impl<T> Recent<T> {
    /// `first` is for the shape that is asked for first.
    fn new(first: T, kept: Kept) -> Self {
        Self { all: vec![(None, first)], kept }
    }

    fn of<E>(&mut self, shape: Shape, make: impl FnOnce() -> Result<T, E>) -> Result<&mut T, E> {
        let found = self.all.iter().position(|(own, _)| own.is_none_or(|own| own == shape));
        let found = match found {
            Some(index) => self.all.remove(index).1,
            None => {
                // Before the new one takes memory of the device.
                while !self.all.is_empty() && !self.has_room(shape) {
                    self.all.remove(0);
                }
                make()?
            }
        };
        self.all.push((Some(shape), found));
        Ok(&mut self.all.last_mut().expect("it was just added").1)
    }

    fn has_room(&self, shape: Shape) -> bool {
        self.kept.fits(self.all.iter().filter_map(|(own, _)| *own).chain([shape]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::size::Size;

    #[test]
    fn each_shape_has_its_own_and_the_one_that_was_not_used_longest_goes() {
        let shape = |side| Shape { count: 1, size: Size::square(side) };
        let (mut recent, mut made) = (Recent::new(0, Kept::Shapes(3)), 0);
        let mut of = |side| {
            let make = || {
                made += 1;
                Ok::<u32, ()>(made)
            };
            recent.of(shape(side), make).copied()
        };
        let asked = [10, 20, 10, 30, 20, 10, 40, 10, 20, 30];
        let expected = [0, 1, 0, 2, 1, 0, 3, 0, 1, 4];
        assert_eq!(asked.map(&mut of), expected.map(Ok));
    }

    #[test]
    fn large_shapes_leave_room_for_fewer_others() {
        let mut recent = Recent::new((), Kept::Pixels(1_000));
        let mut kept = |side| {
            recent.of(Shape { count: 1, size: Size::square(side) }, || Ok::<_, ()>(())).unwrap();
            recent.all.iter().map(|(own, ())| own.unwrap().size.width).collect::<Vec<_>>()
        };
        assert_eq!(kept(10), [10]);
        assert_eq!(kept(20), [10, 20]);
        assert_eq!(kept(15), [10, 20, 15]);
        assert_eq!(kept(10), [20, 15, 10]);
        assert_eq!(kept(25), [15, 10, 25]);
        assert_eq!(kept(50), [50]);
        assert_eq!(kept(10), [10]);
    }

    #[test]
    fn a_failure_leaves_room_for_the_next_attempt() {
        let shape = |count| Shape { count, size: Size::square(1) };
        let mut recent = Recent::new(0, Kept::Shapes(1));
        assert_eq!(recent.of(shape(1), || Err(())), Ok(&mut 0));
        assert_eq!(recent.of(shape(2), || Err("full")), Err("full"));
        assert_eq!(recent.of(shape(2), || Ok::<_, ()>(7)), Ok(&mut 7));
        assert_eq!(recent.all.len(), 1);
    }
}
