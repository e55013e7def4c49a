//! What the command line says to users beside the answer: hints, waits, and what was not necessary.

use crate::support::Sandbox;

#[test]
fn a_file_that_is_not_there_is_told_with_one_that_is_nearly_called_so() {
    let sandbox = Sandbox::new("[pool.gpu]\nqueue = \"jobs\"\n");
    sandbox.write("meeting-notes.wav", "x");
    let said = sandbox.run(&["submit", "voice.transcribe", "meeting-nots.wav"]);
    assert!(said.stderr.contains("did you mean `meeting-notes.wav`?"), "{}", said.stderr);
    let said = sandbox.run(&["submit", "voice.transcribe", "/nowhere/meeting-notes.wav"]);
    assert!(said.stderr.contains("it is read here, before the job is sent"), "{}", said.stderr);
}

#[test]
fn a_release_without_a_hold_says_so() {
    let sandbox = Sandbox::new("[pool.gpu]\nqueue = \"jobs\"\n");
    let said = sandbox.run(&["release", "gpu"]).expect(0);
    assert!(said.stderr.contains("pool `gpu` had no hold"), "{}", said.stderr);
    sandbox.run(&["stop", "gpu"]).expect(0);
    let said = sandbox.run(&["release", "gpu"]).expect(0);
    assert!(!said.stderr.contains("had no hold"), "{}", said.stderr);
}

#[test]
fn a_wait_elsewhere_than_on_a_terminal_says_for_what_and_gives_results_once() {
    let sandbox = Sandbox::new("[pool.gpu]\nqueue = \"jobs\"\n");
    let said =
        sandbox.run(&["submit", "text.embed", "--text", "hello", "--wait", "--timeout", "110s"]);
    let all = format!("{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("gpu-1 boots, about "), "{all}");
    assert!(said.stderr.contains("1 of 1 job done"), "{all}");
    assert_eq!(all.matches("(text.embed").count(), 1, "{all}");
}
