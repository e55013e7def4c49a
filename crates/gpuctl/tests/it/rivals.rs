//! Two deployments of one stack at the same time.

use chrono::TimeDelta;
use gpuctl_control::clock::SystemClock;
use gpuctl_control::ports::Clock;
use gpuctl_sim::wire::Rival;

use crate::stacks::Place;

#[tokio::test(flavor = "multi_thread")]
async fn of_two_deployments_at_once_neither_withdraws_what_the_other_proposes() {
    let place = Place::new("rivals").await;
    // It was there before: a new one is waited for, an old one was left behind.
    place.cloudformation.proposed("theirs", SystemClock.now());
    let refused = place.run("deploy", &["--yes"]).expect(1);
    assert!(refused.stderr.contains("its change set theirs was made"), "{}", refused.stderr);
    assert_eq!(place.cloudformation.calls(), Vec::<String>::new());
    place.cloudformation.proposed("theirs", SystemClock.now() - TimeDelta::hours(1));
    place.run("deploy", &["--yes"]).expect(0);
    let anew = ["DeleteStack", "CreateChangeSet", "ExecuteChangeSet"];
    assert_eq!(place.cloudformation.calls(), anew);
    // It comes at the same moment, and ours is not accepted.
    let place = Place::new("joined").await;
    place.cloudformation.rival(Rival::Proposes("theirs"));
    place.cloudformation.reject("Template format error");
    place.run("deploy", &["--yes"]).expect(2);
    assert_eq!(place.cloudformation.calls(), ["CreateChangeSet", "DeleteChangeSet"]);
    assert_eq!(place.cloudformation.status().as_deref(), Some("REVIEW_IN_PROGRESS"));
    // It is faster: its stack is not taken for ours.
    let place = Place::new("faster").await;
    place.cloudformation.rival(Rival::Executes("theirs"));
    let refused = place.run("deploy", &["--yes"]).expect(1);
    assert!(refused.stderr.contains("another deployment is changing stack"), "{}", refused.stderr);
    assert!(refused.stderr.contains("its change set is theirs"), "{}", refused.stderr);
    assert_eq!(place.cloudformation.calls(), ["CreateChangeSet", "ExecuteChangeSet"]);
    assert_eq!(place.cloudformation.status().as_deref(), Some("CREATE_IN_PROGRESS"));
}
