//! The shape of EC2's calls against an emulator of another project: what moto makes of the calls, and the adapter of its responses.
//!
//! moto has no delays and no spot requests that stop, and takes minutes to fill a page of a thousand boxes: these are tested on
//! the simulated EC2.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::Builder;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_sdk_ec2::types::{
    InstanceType, RequestLaunchTemplateData, ResourceType, Tag, TagDescription, TagSpecification,
};
use gpuctl_aws::Ec2Cloud;
use gpuctl_control::clock::SystemClock;
use gpuctl_control::ports::{Clock, Cloud, PortError, PortErrorClass, StartOrder};
use gpuctl_core::observation::{BoxState, HoldWants, SeenBox};
use gpuctl_core::offering::CapacityType;
use gpuctl_core::plan::StopMode;
use gpuctl_core::policy::Policy;

use super::emulators::moto;
use super::support::aws;

/// One of the images that moto knows from the start.
const IMAGE: &str = "ami-12c6146b";

/// How long moto may take for its first response: it reads all of EC2's types.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// moto's EC2, with the boxes of one test in it.
pub(super) struct Moto {
    pub(super) client: Client,
    /// A tag's value and a name that no other test has.
    pub(super) mark: String,
    url: String,
}

impl Moto {
    pub(super) async fn open() -> Self {
        let url = moto().await.url();
        // moto ignores client tokens: a launch that is requested twice is two launches.
        let patient = TimeoutConfig::builder().operation_attempt_timeout(START_TIME_MAX).build();
        let settings = Builder::from(aws(&url).sdk()).timeout_config(patient);
        let client = Client::from_conf(settings.retry_config(RetryConfig::disabled()).build());
        Self { client, mark: format!("test-{}", uuid::Uuid::new_v4()), url }
    }

    /// Launches boxes, which run at once.
    pub(super) async fn run(&self, count: i32) -> Vec<String> {
        self.run_as(&self.mark, count).await
    }

    /// The same with this role.
    pub(super) async fn run_as(&self, role: &str, count: i32) -> Vec<String> {
        let tag = Tag::builder().key("role").value(role).build();
        let tags = TagSpecification::builder().resource_type(ResourceType::Instance).tags(tag);
        let call = self.client.run_instances().image_id(IMAGE).min_count(count).max_count(count);
        let call = call.instance_type(InstanceType::G4dnXlarge).tag_specifications(tags.build());
        let rows = call.send().await.unwrap().instances.unwrap();
        rows.into_iter().map(|one| one.instance_id.unwrap()).collect()
    }

    /// The adapter, for a pool with these settings; `MARK` stands for the test's own name.
    pub(super) fn pool(&self, settings: &str) -> OnMoto {
        self.pool_at(&self.url, settings)
    }

    /// The same at another endpoint, as a proxy before moto.
    pub(super) fn pool_at(&self, url: &str, settings: &str) -> OnMoto {
        let settings = settings.replace("MARK", &self.mark);
        let text = format!("[cloud]\nkind = \"aws\"\n[pool.gpu]\n{settings}");
        let policy = Policy::parse(&text).unwrap();
        let cloud = Ec2Cloud::new(&aws(url), policy.clone(), Arc::new(SystemClock));
        OnMoto { cloud, policy }
    }
}

pub(super) const BY_TAG: &str = "select = { role = \"MARK\" }\nboxes_max = 1000";

pub(super) struct OnMoto {
    pub(super) cloud: Ec2Cloud,
    pub(super) policy: Policy,
}

impl OnMoto {
    pub(super) async fn boxes(&self) -> Vec<SeenBox> {
        let mut listing = self.cloud.boxes(&self.policy).await.unwrap();
        assert!(listing.errors.is_empty(), "{:?}", listing.errors);
        listing.pools.remove(&"gpu".parse().unwrap()).unwrap()
    }

    pub(super) async fn start(&self, box_id: &str) -> Result<(), PortError> {
        let order = StartOrder {
            pool: "gpu".parse().unwrap(),
            box_id: box_id.parse().unwrap(),
            at: SystemClock.now(),
            // moto remembers tokens of all tests.
            token: format!("{box_id}/{}", uuid::Uuid::new_v4()),
        };
        self.cloud.start(&order).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_is_described_stopped_started_and_tagged() {
    let moto = Moto::open().await;
    let id = moto.run(1).await.remove(0);
    let pool = moto.pool(BY_TAG);
    let one = pool.boxes().await.remove(0);
    assert_eq!((one.id.as_str(), one.state), (id.as_str(), BoxState::Running));
    assert_eq!(one.offering.unwrap().to_string(), "on-demand g4dn.xlarge in us-east-1a");
    assert_eq!(one.foreign.unwrap().wants, HoldWants::Running, "this test started it, not gpuctl");
    for mode in [StopMode::Drain, StopMode::Force] {
        pool.cloud.stop(&one.id, mode).await.unwrap();
        let one = pool.boxes().await.remove(0);
        assert_eq!((one.state, one.foreign, one.last_error), (BoxState::Stopped, None, None));
    }
    pool.start(&id).await.unwrap();
    let one = pool.boxes().await.remove(0);
    assert_eq!((one.state, one.foreign), (BoxState::Running, None), "our tag says that it is ours");
    let tags = moto.client.describe_tags().send().await.unwrap().tags.unwrap();
    let of_box = tags.iter().filter(|tag| tag.resource_id() == Some(&id));
    let mut keys: Vec<&str> = of_box.filter_map(TagDescription::key).collect();
    keys.sort_unstable();
    let ours = ["gpuctl:answered", "gpuctl:order", "gpuctl:started", "gpuctl:stopped", "role"];
    assert_eq!(keys, ours);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_by_dry_run_changes_nothing() {
    let moto = Moto::open().await;
    moto.run(1).await;
    let pool = moto.pool(BY_TAG);
    let findings = pool.cloud.check().await;
    let named: Vec<&str> = findings.iter().map(|finding| finding.detail.as_str()).collect();
    let expected =
        ["1 boxes of 1 pools found", "ec2:StartInstances", "ec2:StopInstances", "ec2:CreateTags"];
    assert_eq!(named, expected);
    assert!(findings.iter().all(|finding| finding.problem.is_none()), "{findings:?}");
    assert_eq!(pool.boxes().await[0].state, BoxState::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_an_unknown_id_is_reported_and_the_others_are_listed() {
    let moto = Moto::open().await;
    let id = moto.run(1).await.remove(0);
    let gone = "i-00000000000000000";
    let pool = moto.pool(&format!("instances = [\"{gone}\", \"{id}\"]\nboxes_max = 2"));
    let listing = pool.cloud.boxes(&pool.policy).await.unwrap();
    let [missing, there] = listing.pools[&"gpu".parse().unwrap()].as_slice() else { panic!() };
    assert!(missing.unstartable.as_ref().unwrap().contains("not known to EC2"));
    assert_eq!(
        (there.state, listing.errors[0].class),
        (BoxState::Running, PortErrorClass::NotFound)
    );
    let error = pool.start(gone).await.unwrap_err();
    assert_eq!(error.class, PortErrorClass::NotFound, "{error:?}");
    assert!(error.what.contains(gone) && error.what.contains("us-east-1"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_launches_a_box_into_its_slot_and_retire_terminates_it() {
    let moto = Moto::open().await;
    let data = RequestLaunchTemplateData::builder().image_id(IMAGE).build();
    let template = moto.client.create_launch_template().launch_template_name(&moto.mark);
    template.launch_template_data(data).send().await.unwrap();
    let subnets = moto.client.describe_subnets().send().await.unwrap().subnets.unwrap();
    let subnet = subnets[0].subnet_id().unwrap();
    let settings = format!(
        "launch_template = \"MARK\"\ninstance_types = [\"g4dn.xlarge\", \"g5.xlarge\"]\nsubnets = [\"{subnet}\"]"
    );
    let pool = moto.pool(&settings);
    for (place, capacity) in
        [("gpu-spot-1", CapacityType::Spot), ("gpu-on-demand-1", CapacityType::OnDemand)]
    {
        let place_of =
            |boxes: Vec<SeenBox>| boxes.into_iter().find(|one| one.id.as_str() == place).unwrap();
        assert_eq!(place_of(pool.boxes().await).state, BoxState::Stopped);
        pool.start(place).await.unwrap();
        let one = place_of(pool.boxes().await);
        assert_eq!((one.state, one.foreign), (BoxState::Running, None));
        let offering = one.offering.unwrap();
        assert_eq!((offering.capacity, offering.instance_type.as_str()), (capacity, "g4dn.xlarge"));
        pool.cloud.retire(&one.id).await.unwrap();
        assert_eq!(place_of(pool.boxes().await).state, BoxState::Stopped);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_from_an_unknown_template_fails() {
    let moto = Moto::open().await;
    let pool = moto.pool("launch_template = \"MARK\"\ninstance_types = [\"g4dn.xlarge\"]");
    let error = pool.start("gpu-on-demand-1").await.unwrap_err();
    let cause = error.cause.unwrap().to_string();
    assert!(cause.contains("InvalidLaunchTemplateName.NotFoundException"), "{cause}");
}
