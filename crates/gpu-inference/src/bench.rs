//! How fast a graph is: calls with synthetic inputs, without pre- and post-processing.
//!
//! The inputs' values are the same in `scripts/bench-models.py`, which measures the same in Python. It says nothing about the
//! quality of results.

use std::time::{Duration, Instant};

use half::f16;
use ort::session::{Session, SessionInputValue};
use ort::value::{Outlet, TensorElementType, ValueType};

use crate::input::tensors::{Elements, Tensor, Tensors};
use crate::models::{DevicePreference, ModelError, ModelStore, Runtime};
use crate::open::open_session;
use crate::run::{RunError, failed};

const STAGE: &str = "bench";
/// Calls before the measured ones: the first allocates, and on a GPU plans.
const WARM_UP: usize = 2;
/// Fewest measured calls, however long they take.
const CALLS_MIN: usize = 3;
/// Most measured calls: the median of more says no more.
const CALLS_MAX: usize = 10_000;

/// Lengths of what a graph leaves open, besides the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenSides {
    /// Height and width of pictures.
    pub picture: usize,
    /// Anything else, e.g. tokens of a text.
    pub length: usize,
}

impl Default for OpenSides {
    fn default() -> Self {
        Self { picture: 320, length: 128 }
    }
}

/// How long calls of one batch took.
#[derive(Debug, Clone, PartialEq)]
pub struct Speed {
    /// Items per call.
    pub batch: usize,
    /// Calls measured.
    pub calls: usize,
    /// The median call.
    pub call_p50: Duration,
    /// All calls together.
    pub total: Duration,
}

/// A graph that is measured.
pub struct Bench {
    session: Session,
    /// How long opening took.
    pub load: Duration,
}

impl Bench {
    /// Opens a graph as [`crate::open_raw`] does.
    ///
    /// # Errors
    /// As there.
    pub fn open(
        runtime: &Runtime,
        store: &ModelStore,
        graph: &str,
        device: DevicePreference,
    ) -> Result<Self, ModelError> {
        let began = Instant::now();
        let session = open_session(runtime, store, graph, device)?;
        Ok(Self { session, load: began.elapsed() })
    }

    /// Whether the graph takes batches of this size.
    #[must_use]
    pub fn takes(&self, batch: usize) -> bool {
        // A vector of a fixed length is a setting, as Piper's scales.
        let fixed = |input: &Outlet| match input.dtype().tensor_shape() {
            Some(shape) if shape.len() > 1 => shape.first().copied().filter(|&side| side >= 0),
            _ => None,
        };
        let fits = |side: i64| usize::try_from(side) == Ok(batch);
        self.session.inputs().iter().filter_map(fixed).all(fits)
    }

    /// Calls the graph with batches of `batch` for about `duration`.
    ///
    /// # Errors
    /// There is no synthetic input of the kind that the graph takes, or a call fails.
    pub fn measure(
        &mut self,
        batch: usize,
        sides: OpenSides,
        duration: Duration,
    ) -> Result<Speed, RunError> {
        let inputs = self.session.inputs().iter();
        let tensors: Result<Tensors, RunError> = inputs
            .map(|input| Ok((input.name().to_owned(), synthetic_input(input, batch, sides)?)))
            .collect();
        let tensors = tensors?;
        for _ in 0..WARM_UP {
            self.call(&tensors)?;
        }
        let mut calls = Vec::new();
        let mut total = Duration::ZERO;
        while calls.len() < CALLS_MIN || (total < duration && calls.len() < CALLS_MAX) {
            let began = Instant::now();
            self.call(&tensors)?;
            let took = began.elapsed();
            total += took;
            calls.push(took);
        }
        calls.sort_unstable();
        Ok(Speed { batch, calls: calls.len(), call_p50: calls[calls.len() / 2], total })
    }

    fn call(&mut self, tensors: &Tensors) -> Result<(), RunError> {
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(tensors.len());
        for (name, tensor) in tensors {
            inputs.push((name, tensor.to_input().map_err(failed(STAGE))?));
        }
        self.session.run(inputs).map(drop).map_err(failed(STAGE))
    }
}

/// An input: numbers from -1 to 1; ones where they are whole, or settings; of the open length where they say that.
fn synthetic_input(input: &Outlet, batch: usize, sides: OpenSides) -> Result<Tensor, RunError> {
    let unfit = || RunError::Unfit { problem: format!("{} is {}", input.name(), input.dtype()) };
    let ValueType::Tensor { ty, shape, dimension_symbols } = input.dtype() else {
        return Err(unfit());
    };
    let picture = shape.len() == 4;
    // A decoder's past may be empty: what the exporter calls so is.
    let open = |(axis, symbol): (usize, &String)| match axis {
        _ if symbol.contains("past") => 0,
        0 => batch,
        2.. if picture => sides.picture,
        _ => sides.length,
    };
    let open: Vec<usize> = dimension_symbols.iter().enumerate().map(open).collect();
    let side = |(&side, open): (&i64, usize)| usize::try_from(side).unwrap_or(open);
    let shape: Vec<usize> = shape.iter().zip(open).map(side).collect();
    let count = shape.iter().product();
    let length = i64::try_from(sides.length).unwrap_or(i64::MAX);
    let elements = match ty {
        TensorElementType::Float32 if shape.len() == 1 => Elements::F32(vec![1.0; count]),
        TensorElementType::Int64 if input.name().ends_with("lengths") => {
            Elements::I64(vec![length; count])
        }
        TensorElementType::Float32 => Elements::F32(numbers(count)),
        TensorElementType::Float16 => {
            Elements::F16(numbers(count).into_iter().map(f16::from_f32).collect())
        }
        TensorElementType::Float64 => {
            Elements::F64(numbers(count).into_iter().map(f64::from).collect())
        }
        TensorElementType::Int64 => Elements::I64(vec![1; count]),
        TensorElementType::Int32 => Elements::I32(vec![1; count]),
        TensorElementType::Uint8 => Elements::U8(vec![1; count]),
        TensorElementType::Bool => Elements::Bool(vec![true; count]),
        _ => return Err(unfit()),
    };
    Tensor::new(shape, elements).ok_or_else(unfit)
}

/// Numbers that repeat after 1,009: `(n * 37 mod 1009) / 504.5 - 1`.
fn numbers(count: usize) -> Vec<f32> {
    const PERIOD: usize = 1_009;
    const HALF: f32 = 504.5;
    (0..count).map(|n| (n * 37 % PERIOD) as f32 / HALF - 1.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synthetic_numbers_are_those_of_the_script() {
        let found = numbers(1_100);
        assert!((found[0] + 1.0).abs() < 1e-6 && (found[1] - (37.0 / 504.5 - 1.0)).abs() < 1e-6);
        assert!(found.iter().all(|number| (-1.0..=1.0).contains(number)));
        assert!((found[1_009] - found[0]).abs() < 1e-6);
    }
}
