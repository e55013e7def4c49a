//! What no emulator brings about: someone else's change in the midst of ours, and a single call that fails.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_core::offering::CapacityType;
use gpuctl_core::units::Timestamp;

use crate::boxes::make_kept;
use crate::change_set::propose;
use crate::ports::{
    Account, BUCKET, BoxOrder, Caller, Event, Jobs, Left, OpenChangeSet, Proposal, Proposed,
    QuotaFound, Stack, StackBox, Stacks,
};
use crate::{Content, Difference, Removal, Show, Site, Template, Values, code_bucket, destroy};

const ACCOUNT: &str = "000000000000";

/// Launch templates of an app box and a GPU box, both kept.
const KEPT: &str = r#"
Resources:
  App:
    Type: AWS::EC2::LaunchTemplate
    Properties:
      LaunchTemplateName: s-app
      LaunchTemplateData:
        InstanceInitiatedShutdownBehavior: stop
        TagSpecifications:
          - ResourceType: instance
            Tags:
              - Key: "gpuctl:pool"
                Value: app
  Gpu:
    Type: AWS::EC2::LaunchTemplate
    Properties:
      LaunchTemplateName: s-gpu
      LaunchTemplateData:
        InstanceInitiatedShutdownBehavior: stop
"#;

/// An account without a stack. Change sets fail and cannot be deleted, boxes stop at once and get no address.
#[derive(Default)]
struct Fake {
    /// From then on there is another stack.
    is_asked: AtomicBool,
    boxes: Mutex<Vec<StackBox>>,
    /// What was done and shown.
    log: Mutex<Vec<String>>,
}

impl Fake {
    fn site(&self) -> Site<'_> {
        Site { stacks: self, account: self, show: self }
    }

    fn log(&self, line: &str) {
        self.log.lock().unwrap().push(line.to_owned());
    }

    fn said(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    fn add_box(&self, template: &str) -> String {
        let id = format!("i-{template}");
        let template = Some(template.to_owned());
        let made = StackBox { id: id.clone(), state: "stopped".to_owned(), template };
        self.boxes.lock().unwrap().push(made);
        id
    }
}

fn refused(what: &str) -> PortError {
    PortError::new(PortErrorClass::Denied, what)
}

fn values(pairs: &[(&str, &str)]) -> Values {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl Show for Fake {
    fn note(&self, line: &str) {
        self.log(line);
    }

    fn warn(&self, line: &str) {
        self.log(line);
    }

    fn difference(&self, _: &Difference) {}

    fn confirm(&self, _: &str) -> bool {
        self.is_asked.store(true, Ordering::Relaxed);
        true
    }
}

#[async_trait]
impl Stacks for Fake {
    async fn stack(&self, _: &str) -> Result<Option<Stack>, PortError> {
        Ok(None)
    }

    async fn others(&self, _: &str) -> Result<Vec<Stack>, PortError> {
        let other = Stack { name: "other".to_owned(), ..Stack::default() };
        Ok(self.is_asked.load(Ordering::Relaxed).then_some(other).into_iter().collect())
    }

    async fn propose(&self, _: &Proposal) -> Result<(), PortError> {
        Ok(())
    }

    async fn proposed(&self, _: &str, _: &str) -> Result<Proposed, PortError> {
        let reason = Some("no such type".to_owned());
        Ok(Proposed { status: "FAILED".to_owned(), reason, changes: Vec::new() })
    }

    async fn execute(&self, _: &str, _: &str) -> Result<(), PortError> {
        unreachable!()
    }

    async fn open_change_sets(&self, _: &str) -> Result<Vec<OpenChangeSet>, PortError> {
        unreachable!()
    }

    async fn withdraw(&self, _: &str, _: &str) -> Result<(), PortError> {
        Err(refused("change set c was not deleted").because("no right"))
    }

    async fn delete(&self, _: &str) -> Result<(), PortError> {
        unreachable!()
    }

    async fn events(&self, _: &str, _: Option<&str>) -> Result<Vec<Event>, PortError> {
        unreachable!()
    }
}

#[async_trait]
impl Account for Fake {
    fn region(&self) -> &'static str {
        "us-east-1"
    }

    fn now(&self) -> Timestamp {
        unreachable!()
    }

    async fn caller(&self) -> (Result<Caller, PortError>, Option<TimeDelta>) {
        (Ok(Caller { account: ACCOUNT.to_owned(), arn: String::new() }), None)
    }

    async fn offers(&self, _: &str) -> Result<bool, PortError> {
        unreachable!()
    }

    async fn quota(&self, _: &str, _: CapacityType) -> Result<Option<QuotaFound>, PortError> {
        unreachable!()
    }

    async fn image(&self, _: &str) -> Result<Option<String>, PortError> {
        unreachable!()
    }

    async fn is_taken(&self, _: &str, _: &str) -> Result<bool, PortError> {
        unreachable!()
    }

    async fn zones(&self, _: &[String]) -> Result<Values, PortError> {
        unreachable!()
    }

    async fn default_zones(&self) -> Result<Vec<String>, PortError> {
        unreachable!()
    }

    async fn make_bucket(&self, _: &str) -> Result<bool, PortError> {
        unreachable!()
    }

    async fn upload(&self, _: &str, _: &str, _: &Content) -> Result<(), PortError> {
        unreachable!()
    }

    async fn has(&self, _: &str, _: &str) -> Result<bool, PortError> {
        Ok(true)
    }

    async fn replace(&self, _: &str, _: &str, _: &Content) -> Result<(), PortError> {
        unreachable!()
    }

    async fn boxes(&self, _: &str) -> Result<Vec<StackBox>, PortError> {
        Ok(self.boxes.lock().unwrap().clone())
    }

    async fn make_box(&self, order: &BoxOrder) -> Result<String, PortError> {
        Ok(self.add_box(&order.template))
    }

    async fn give_address(&self, id: &str, _: &str) -> Result<(), PortError> {
        Err(refused(&format!("box {id} did not get its address")))
    }

    async fn stop_box(&self, _: &str) -> Result<(), PortError> {
        unreachable!()
    }

    async fn cancel_requests(&self, _: &str) -> Result<Vec<String>, PortError> {
        Ok(Vec::new())
    }

    async fn terminate(&self, _: &[String]) -> Result<(), PortError> {
        unreachable!()
    }

    async fn jobs(&self, _: &str) -> Result<Option<Jobs>, PortError> {
        unreachable!()
    }

    async fn left(&self, _: &str) -> Result<Vec<Left>, PortError> {
        let id = code_bucket(ACCOUNT, self.region());
        Ok(vec![Left { kind: BUCKET, id, units: 0, item: None }])
    }

    async fn remove(&self, one: &Left) -> Result<(), PortError> {
        self.log(&format!("removed {}", one.id));
        Ok(())
    }
}

#[tokio::test]
async fn a_stack_that_is_made_after_the_question_keeps_the_code_bucket() {
    let fake = Fake::default();
    let removal = Removal {
        name: "s".to_owned(),
        everything: true,
        drain: None,
        lose_jobs: false,
        change_set: "c".to_owned(),
    };
    let gone = destroy(&fake.site(), &removal).await.unwrap();
    let code = code_bucket(ACCOUNT, "us-east-1");
    assert_eq!(fake.said(), format!("bucket {code} stays: stack other uses it"));
    assert_eq!((gone.kept.len(), gone.left.len()), (1, 0));
}

#[tokio::test]
async fn a_change_that_is_not_accepted_says_so_even_if_it_cannot_be_withdrawn() {
    let fake = Fake::default();
    let proposal = Proposal {
        stack: "s".to_owned(),
        change_set: "c".to_owned(),
        creates: false,
        template: None,
        values: Values::new(),
        role: None,
    };
    let trouble = propose(&fake.site(), &proposal).await.unwrap_err();
    assert_eq!(trouble.what, "CloudFormation does not accept the change");
    let words = "the change of stack s stays proposed: change set c was not deleted: no right";
    assert_eq!(fake.said(), words);
}

#[tokio::test]
async fn an_address_that_is_not_given_keeps_no_box_from_being_made() {
    let template = Template::parse(KEPT).unwrap();
    let stack = Stack {
        parameters: values(&[("Layout", "gpu-and-app"), ("AppPool", "app")]),
        outputs: values(&[
            ("Bucket", "b"),
            ("Subnets", "subnet-1"),
            ("AppAddressId", "eipalloc-1"),
        ]),
        ..Stack::default()
    };
    let fake = Fake::default();
    let minute = TimeDelta::minutes(1);
    let trouble = make_kept(&fake.site(), (&template, "s"), &stack, minute).await.unwrap_err();
    assert_eq!(trouble.what, "box i-s-app did not get its address");
    let said = fake.said();
    assert!(said.contains("box i-s-gpu has booted and stopped"), "{said}");
    assert!(said.contains("box i-s-app is without its address"), "{said}");
}
