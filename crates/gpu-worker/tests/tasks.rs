//! What the command line offers is what the worker can do.

use gpu_inference::Task;
use gpuctl_control::job::TASKS;

#[test]
fn the_command_line_offers_exactly_the_worker_s_tasks() {
    assert_eq!(Task::ALL.map(|task| task.to_string()), TASKS);
}
