//! What an error of a job is blamed on: that decides whether the job has failed. Each error says it of itself, by a method `blame`.

/// What an error of a job is blamed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The job's own: its bytes, params, task or model name. Every box would end with the same error, so the error is the result.
    Input,
    /// The box's, as it is now: its models, device, memory, programs or files. Another box, or this one later, can do the job, so the
    /// error is never a result.
    Box,
}
