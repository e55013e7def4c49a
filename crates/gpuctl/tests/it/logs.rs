//! What boxes of this machine wrote, and how it is followed.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Sandbox, wait_until};

/// A box that says two things, the second once there is a file.
const TALKER: &str = "\
[pool.app]
command = [\"sh\", \"-c\", \"echo one; until [ -f go ]; do sleep 0.05; done; echo two; sleep 600\"]
";

#[test]
fn what_a_box_wrote_is_shown_and_what_there_is_not_is_said() {
    let sandbox = Sandbox::new(TALKER);
    let said = sandbox.run(&["logs"]).expect(0);
    assert_eq!(said.stdout, "no lines\n");
    sandbox.run(&["start-app", "--wait"]).expect(0);
    wait_until("it has said the first", || sandbox.run(&["logs"]).stdout == "one\n");
    sandbox.write("go", "");
    wait_until("it has said both", || sandbox.run(&["logs", "app-1"]).stdout == "one\ntwo\n");
    let said = sandbox.run(&["logs", "--limit", "1"]).expect(0);
    assert!(
        said.stdout.starts_with("… older") && said.stdout.ends_with("two\n"),
        "{}",
        said.stdout
    );
    let json = sandbox.run(&["logs", "--json"]).expect(0).json();
    assert_eq!(
        (&json["lines"][1]["text"], &json["lines"][1]["source"]),
        (&"two".into(), &"app-1".into())
    );
    let said = sandbox.run(&["logs", "app-7"]).expect(1);
    assert!(said.stderr.contains("there is no log of box `app-7`"), "{}", said.stderr);
    assert!(said.stderr.contains("hint: known logs: app-1"), "{}", said.stderr);
    sandbox.run(&["logs", "--limit", "0"]).expect(2);
    sandbox.run(&["logs", "--follow", "--json"]).expect(2);
}

#[test]
fn a_log_that_is_followed_goes_on_until_it_is_interrupted() {
    let sandbox = Sandbox::new(TALKER);
    sandbox.run(&["start-app", "--wait"]).expect(0);
    let mut following =
        sandbox.command(&["logs", "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "app-1  one");
    sandbox.write("go", "");
    assert_eq!(lines.next().unwrap().unwrap(), "app-1  two");
    kill_process(Pid::from_child(&following), Signal::INT).unwrap();
    assert_eq!(following.wait().unwrap().code(), Some(0));
}
