//! Kept boxes that differ from what their launch template would make now.

use gpuctl_control::ports::Clock;
use gpuctl_sim::world::ec2::{LaunchTemplate, RunInstances};

use super::support::{Account, Wanted, on_demand, run, template};

/// The sentence on the pool's one box, if it is outdated.
async fn how(account: &Account) -> Option<String> {
    let _ = account.list().await;
    let found = account.cloud.outdated().await.unwrap();
    assert!(found.len() < 2, "{found:?}");
    found.into_iter().next().map(|(_, how)| how)
}

#[tokio::test]
async fn a_new_version_or_image_of_its_template_makes_a_kept_box_outdated() {
    let pool = "[pool.gpu]\nselect = { role = \"gpu\" }";
    // One box is of no template: it is never outdated.
    let account = Account::open(Wanted { boxes: &[on_demand()], pool }).await;
    let of_template = RunInstances {
        launch_template: Some("gpu".to_owned()),
        image_id: None,
        instance_type: None,
        ..run(on_demand())
    };
    let now = account.clock.now();
    account.front.ec2().run_instances(now, &of_template).unwrap();
    assert_eq!(how(&account).await, None);
    let change = |to: LaunchTemplate| drop(account.front.ec2().add_template(to));
    change(LaunchTemplate { image_id: "ami-2".to_owned(), ..template() });
    let image = "has image ami-1, its launch template now has ami-2";
    assert_eq!(how(&account).await.as_deref(), Some(image));
    change(LaunchTemplate { version: 2, ..template() });
    let version = "was made from version 1 of its launch template, which is at 2";
    assert_eq!(how(&account).await.as_deref(), Some(version));

    let findings = account.cloud.check().await;
    let told = findings.iter().find(|finding| finding.detail.contains(version)).unwrap();
    assert!(told.is_warning, "{told:?}");
    let hint = told.problem.as_ref().and_then(|problem| problem.hint.clone()).unwrap();
    assert!(hint.contains("gpuctl retire --outdated"), "{hint}");

    account.front.deny("DescribeLaunchTemplateVersions");
    let denied = account.cloud.outdated().await.unwrap_err();
    let hint = denied.hint.unwrap();
    assert!(hint.contains("ec2:DescribeLaunchTemplateVersions"), "{hint}");
}

#[tokio::test]
async fn a_box_that_is_launched_for_its_jobs_is_never_outdated() {
    let pool = "[pool.gpu]\nlaunch_template = \"gpu\"\ninstance_types = [\"g4dn.xlarge\"]\ncapacity = [\"on-demand\"]";
    let account = Account::open(Wanted { boxes: &[], pool }).await;
    account.start("gpu-on-demand-1").await.unwrap();
    account.front.ec2().add_template(LaunchTemplate { version: 2, ..template() });
    assert_eq!(how(&account).await, None);
    assert_eq!(account.boxes().await.iter().filter(|one| one.is_up()).count(), 1);
}
