//! What is done with a decoded input before its batch runs, once its model is open: it is scaled, laid out in planes, or turned into tokens.
//!
//! That needs a processor only, so a worker does it on the threads that decode, for several inputs at once; the model's thread then stacks
//! the batch and runs the graph. An input that was decoded before its model was open is prepared by the pipeline, to the same form.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::input::{Content, Load, Prepared, Ready};
use crate::run::RunError;

/// How an opened model prepares an input.
pub(crate) trait Prepare: Send + Sync + 'static {
    /// What the model takes of one input.
    type Form: Form;

    /// The form of an input that was only decoded.
    ///
    /// # Errors
    /// The model cannot use the input.
    fn prepare(&self, input: &Prepared) -> Result<Self::Form, RunError>;

    /// The most memory that a form takes, as far as it is known before.
    fn bytes_max(&self) -> u64;
}

/// What a model takes of one input.
pub(crate) trait Form: Any + Send + Sync {
    fn load(&self) -> Load;
}

/// The preparation of one opened model, as its pipeline has it.
pub(crate) struct Stage<P> {
    shared: Arc<Shared<P>>,
}

struct Shared<P> {
    id: u64,
    prepare: P,
    /// Inputs that the pipeline prepared itself.
    late: AtomicU64,
}

impl<P: Prepare> Stage<P> {
    pub(crate) fn new(prepare: P) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let id = LAST.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::new(Shared { id, prepare, late: AtomicU64::new(0) }) }
    }

    /// What prepares.
    pub(crate) fn own(&self) -> &P {
        &self.shared.prepare
    }

    /// The same for the threads that decode.
    pub(crate) fn preparation(&self) -> Preparation {
        Preparation { shared: self.shared.clone() }
    }

    /// The inputs' forms, in order; those that have none yet are prepared here.
    pub(crate) fn forms(&self, batch: &[Prepared]) -> Result<Vec<Arc<P::Form>>, RunError> {
        batch.iter().enumerate().map(|(index, input)| self.form(index, input)).collect()
    }

    fn form(&self, index: usize, input: &Prepared) -> Result<Arc<P::Form>, RunError> {
        let form = match input.content() {
            Content::Ready(ready) => {
                let foreign = || RunError::WrongInput { index, wanted: "prepared for this model" };
                let own = (ready.by == self.shared.id).then(|| Arc::clone(&ready.form));
                return own.and_then(|form| form.downcast().ok()).ok_or_else(foreign);
            }
            _ => self.shared.prepare.prepare(input),
        };
        self.shared.late.fetch_add(1, Ordering::Relaxed);
        form.map(Arc::new).map_err(|error| match error {
            RunError::WrongInput { wanted, .. } => RunError::WrongInput { index, wanted },
            other => other,
        })
    }
}

/// How an opened model's inputs are prepared. Cloning shares it.
#[derive(Clone)]
pub struct Preparation {
    shared: Arc<dyn AnyStage>,
}

/// A [`Stage`] whatever its form.
trait AnyStage: Send + Sync {
    fn id(&self) -> u64;
    fn late(&self) -> u64;
    fn bytes_max(&self) -> u64;
    fn ready(&self, input: &Prepared) -> Result<Ready, RunError>;
}

impl<P: Prepare> AnyStage for Shared<P> {
    fn id(&self) -> u64 {
        self.id
    }

    fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    fn bytes_max(&self) -> u64 {
        self.prepare.bytes_max()
    }

    fn ready(&self, input: &Prepared) -> Result<Ready, RunError> {
        let form = self.prepare.prepare(input)?;
        Ok(Ready { by: self.id, load: form.load(), form: Arc::new(form) })
    }
}

impl Preparation {
    /// The input in the model's form, in place of what was decoded. Needs no model and no GPU, so it can run while a batch does.
    ///
    /// # Errors
    /// Those that [`crate::Pipeline::run`] would have for this input alone.
    pub fn apply(&self, input: Prepared) -> Result<Prepared, RunError> {
        if matches!(input.content(), Content::Ready(_)) {
            return Ok(input);
        }
        let ready = catch_unwind(AssertUnwindSafe(|| self.shared.ready(&input)));
        Ok(input.made_ready(ready.unwrap_or(Err(RunError::Panicked))?))
    }

    /// The most memory that an input takes in this form, as far as it is known before.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.shared.bytes_max()
    }

    /// How many inputs the pipeline has prepared itself, since they came without.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.shared.late()
    }

    /// Whether this preparation made it.
    pub(crate) fn made(&self, ready: &Ready) -> bool {
        ready.by == self.shared.id()
    }
}
