//! `TASKS.md` describes exactly the tasks and params that exist.

use gpu_tasks::{Need, ParamSpec, Task};

const PAGE: &str = include_str!("../TASKS.md");

fn row(spec: &ParamSpec) -> String {
    let default = match spec.need {
        Need::Optional { default } => default,
        Need::Required => "required",
    };
    format!("| `{}` | {} | {default} | {} |", spec.name, spec.kind, spec.meaning)
}

#[test]
fn every_task_has_its_section_with_its_params_and_there_are_no_others() {
    let mut sections: Vec<(&str, Vec<&str>)> = PAGE
        .split("\n## ")
        .skip(1)
        .map(|section| {
            let (name, body) = section.split_once('\n').unwrap();
            (name, body.lines().filter(|line| line.starts_with("| `")).collect())
        })
        .collect();
    for task in Task::ALL {
        let index = sections.iter().position(|(name, _)| *name == task.name());
        let (_, rows) = sections.remove(index.unwrap_or_else(|| panic!("{task} has no section")));
        let expected: Vec<String> = task.params().iter().map(row).collect();
        assert_eq!(rows, expected, "{task}");
        let link = format!("[{task}](#{})", task.name().replace('.', ""));
        assert!(PAGE.contains(&link), "{link} is missing");
    }
    assert!(sections.is_empty(), "these are not tasks: {sections:?}");
}
