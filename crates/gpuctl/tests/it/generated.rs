//! What is generated from the command line's definition: completions and man pages.

use std::process::{Command, Stdio};

use crate::support::Sandbox;

#[test]
fn completions_of_each_shell_are_scripts() {
    let sandbox = Sandbox::new("");
    for (shell, begins) in
        [("bash", "_gpuctl()"), ("zsh", "#compdef gpuctl"), ("fish", "# Print an optspec")]
    {
        let script = sandbox.run(&["completions", shell]).expect(0).stdout;
        assert!(script.starts_with(begins) && script.contains("start-gpu"), "{shell}: {script}");
    }
    let script = sandbox.run(&["completions", "bash"]).expect(0).stdout;
    let file = sandbox.write("gpuctl.bash", script);
    let checked = Command::new("bash").arg("-n").arg(file).stdin(Stdio::null()).status().unwrap();
    assert!(checked.success());
}

#[test]
fn there_is_a_man_page_for_each_command() {
    let sandbox = Sandbox::new("");
    sandbox.run(&["man", "pages"]).expect(0);
    for (page, words) in
        [("gpuctl.1", "gpuctl"), ("gpuctl-submit.1", "DURATION"), ("gpuctl-cost-report.1", "month")]
    {
        let text = std::fs::read_to_string(sandbox.path(format!("pages/{page}"))).unwrap();
        assert!(text.starts_with(".ie ") && text.contains(words), "{page}: {text}");
    }
}
