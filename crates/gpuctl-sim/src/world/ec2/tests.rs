use super::*;

const DAY: &str = "2026-01-05T00:00:00Z";

fn at(seconds: i64) -> Timestamp {
    DAY.parse::<Timestamp>().unwrap() + TimeDelta::seconds(seconds)
}

fn account() -> Ec2 {
    let settings = Ec2Settings {
        zones: ["us-east-1a", "us-east-1b"].map(str::to_owned).to_vec(),
        pending: (TimeDelta::seconds(20), TimeDelta::seconds(20)),
        stopping: (TimeDelta::seconds(10), TimeDelta::seconds(10)),
        shutdown_max: TimeDelta::seconds(90),
        shutdown: Shutdown::After(TimeDelta::seconds(10)),
        vcpus_spot: 8,
        vcpus_on_demand: 8,
    };
    Ec2::new(settings, 7)
}

fn wanted(market: MarketOptions) -> RunInstances {
    RunInstances {
        client_token: None,
        launch_template: None,
        image_id: Some("ami-1".to_owned()),
        instance_type: Some("g4dn.xlarge".to_owned()),
        zone: Some("us-east-1a".to_owned()),
        market: Some(market),
        count: 1,
        tags: BTreeMap::from([("gpuctl:pool".to_owned(), "gpu".to_owned())]),
        shutdown: ShutdownBehaviour::Stop,
    }
}

fn persistent() -> MarketOptions {
    MarketOptions::Spot(SpotOptions { kind: SpotKind::Persistent, valid_until: None })
}

fn spot_in_a() -> Offering {
    Offering {
        instance_type: "g4dn.xlarge".to_owned(),
        zone: "us-east-1a".to_owned(),
        capacity: CapacityType::Spot,
    }
}

fn launch(ec2: &mut Ec2, market: MarketOptions) -> String {
    ec2.run_instances(at(0), &wanted(market)).unwrap().remove(0).id
}

fn state(ec2: &mut Ec2, seconds: i64, id: &str) -> InstanceState {
    ec2.advance(at(seconds));
    ec2.state(id)
}

fn status(ec2: &Ec2, id: &str) -> (RequestState, &'static str) {
    let request = ec2.request_of(id).unwrap();
    (request.state, request.status_code)
}

fn start(ec2: &mut Ec2, seconds: i64, id: &str) -> Result<(), &'static str> {
    let answer = ec2.start_instances(at(seconds), &[id.to_owned()]);
    answer.map(drop).map_err(|error| error.code)
}

fn stop(ec2: &mut Ec2, seconds: i64, id: &str) -> Result<(), &'static str> {
    let answer = ec2.stop_instances(at(seconds), &[id.to_owned()], Ec2StopMode::Shutdown);
    answer.map(drop).map_err(|error| error.code)
}

#[test]
fn s4_a_box_goes_through_its_states_and_is_started_only_once_it_has_stopped() {
    let mut ec2 = account();
    let id = launch(&mut ec2, MarketOptions::OnDemand);
    assert_eq!(stop(&mut ec2, 5, &id), Err("IncorrectInstanceState"));
    assert_eq!(state(&mut ec2, 20, &id), InstanceState::Running);
    assert_eq!(start(&mut ec2, 30, &id), Ok(()), "a start of what runs changes nothing");
    assert_eq!(stop(&mut ec2, 80, &id), Ok(()));
    assert_eq!(
        ec2.instance(&id).unwrap().state_transition_reason,
        "User initiated (2026-01-05 00:01:20 GMT)"
    );
    assert_eq!(start(&mut ec2, 90, &id), Err("IncorrectInstanceState"));
    assert_eq!(state(&mut ec2, 100, &id), InstanceState::Stopped);
    assert_eq!(start(&mut ec2, 120, &id), Ok(()));
    assert_eq!(ec2.instance(&id).unwrap().launch_time, at(120));
    let bill: Vec<_> = ec2.meter().iter().map(|one| (one.from, one.to)).collect();
    assert_eq!(bill, [(at(20), Some(at(80)))], "billed from running to stopping");
}

#[test]
fn p2_a_spot_box_starts_again_only_once_its_request_has_seen_the_stop() {
    let mut ec2 = account();
    let id = launch(&mut ec2, persistent());
    ec2.advance(at(60));
    assert_eq!(stop(&mut ec2, 60, &id), Ok(()));
    assert_eq!(status(&ec2, &id), (RequestState::Active, "marked-for-stop"));
    assert_eq!(state(&mut ec2, 80, &id), InstanceState::Stopped);
    assert_eq!(start(&mut ec2, 82, &id), Err("IncorrectSpotRequestState"));
    ec2.advance(at(90));
    assert_eq!(status(&ec2, &id), (RequestState::Disabled, "instance-stopped-by-user"));
    assert_eq!(start(&mut ec2, 90, &id), Ok(()));
    assert_eq!(status(&ec2, &id), (RequestState::Open, "pending-evaluation"));
    ec2.advance(at(120));
    assert_eq!(status(&ec2, &id), (RequestState::Active, "fulfilled"));
}

#[test]
fn p4_what_ec2_has_stopped_ec2_alone_starts_again_when_there_is_capacity() {
    let mut ec2 = account();
    let id = launch(&mut ec2, persistent());
    ec2.plan_capacity(at(100), spot_in_a(), false);
    ec2.plan_capacity(at(1_000), spot_in_a(), true);
    ec2.advance(at(100));
    let notice = SpotAction { action: "stop", at: at(220) };
    assert_eq!(ec2.spot_action(&id), Some(notice));
    assert_eq!(state(&mut ec2, 219, &id), InstanceState::Running);
    assert_eq!(state(&mut ec2, 240, &id), InstanceState::Stopped);
    assert_eq!(status(&ec2, &id), (RequestState::Disabled, "instance-stopped-no-capacity"));
    assert_eq!(start(&mut ec2, 300, &id), Err("IncorrectSpotRequestState"));
    assert_eq!(state(&mut ec2, 1_000, &id), InstanceState::Stopped);
    assert_eq!(state(&mut ec2, 1_700, &id), InstanceState::Running);
    assert_eq!(ec2.counts().interruptions, 1);
}

#[test]
fn p18_a_stop_of_ours_inside_an_interruption_leaves_the_box_to_ec2() {
    let mut ec2 = account();
    let id = launch(&mut ec2, persistent());
    ec2.plan_capacity(at(100), spot_in_a(), false);
    ec2.advance(at(110));
    assert_eq!(stop(&mut ec2, 110, &id), Ok(()));
    assert_eq!(state(&mut ec2, 140, &id), InstanceState::Stopped);
    assert_eq!(status(&ec2, &id), (RequestState::Disabled, "instance-stopped-no-capacity"));
}

#[test]
fn p5_terminating_without_a_cancel_brings_a_new_box_and_p6_cancelling_a_stopped_one_ends_it() {
    let mut ec2 = account();
    let id = launch(&mut ec2, persistent());
    ec2.advance(at(60));
    ec2.terminate_instances(at(60), std::slice::from_ref(&id)).unwrap();
    ec2.advance(at(120));
    let up: Vec<String> =
        ec2.instances().filter(|one| one.state.is_on()).map(|one| one.id.clone()).collect();
    assert_eq!(up.len(), 1, "a new one is there");
    assert_ne!(up[0], id);
    stop(&mut ec2, 200, &up[0]).unwrap();
    ec2.advance(at(240));
    let request = ec2.request_of(&up[0]).unwrap().id.clone();
    ec2.cancel_spot_instance_requests(at(240), &[request]).unwrap();
    assert_eq!(state(&mut ec2, 300, &up[0]), InstanceState::Terminated);
    assert_eq!(ec2.instances().filter(|one| one.is_there()).count(), 0);
    ec2.advance(at(300) + LINGERS);
    assert_eq!(ec2.instances().count(), 0, "their rows are gone after an hour");
}

#[test]
fn p7_a_stopped_box_whose_request_has_ended_starts_no_more() {
    let mut ec2 = account();
    let options = SpotOptions { kind: SpotKind::Persistent, valid_until: Some(at(500)) };
    let id = launch(&mut ec2, MarketOptions::Spot(options));
    stop(&mut ec2, 60, &id).unwrap();
    ec2.advance(at(500));
    assert_eq!(status(&ec2, &id), (RequestState::Cancelled, "schedule-expired"));
    assert_eq!(start(&mut ec2, 600, &id), Err("IncorrectSpotRequestState"));
}

#[test]
fn p1_a_one_time_spot_box_cannot_be_stopped() {
    let mut ec2 = account();
    let options = SpotOptions { kind: SpotKind::OneTime, valid_until: None };
    let id = launch(&mut ec2, MarketOptions::Spot(options));
    assert_eq!(stop(&mut ec2, 60, &id), Err("UnsupportedOperation"));
}

#[test]
fn p9_quotas_are_in_vcpus_for_each_market_and_refusals_name_zones_that_have_some() {
    let mut ec2 = account();
    launch(&mut ec2, persistent());
    launch(&mut ec2, persistent());
    // A second apart, so that the bucket of the calls does not run dry.
    let mut second = 10;
    let mut refused = |ec2: &mut Ec2, market| {
        second += 1;
        ec2.run_instances(at(second), &wanted(market)).unwrap_err()
    };
    assert_eq!(refused(&mut ec2, persistent()).code, "MaxSpotInstanceCountExceeded");
    launch(&mut ec2, MarketOptions::OnDemand);
    launch(&mut ec2, MarketOptions::OnDemand);
    assert_eq!(refused(&mut ec2, MarketOptions::OnDemand).code, "VcpuLimitExceeded");
    ec2.settings.vcpus_spot = 64;
    ec2.plan_capacity(at(0), spot_in_a(), false);
    let error = refused(&mut ec2, persistent());
    assert_eq!((error.code, error.http_status), ("InsufficientInstanceCapacity", 500));
    assert!(error.message.contains("or choosing us-east-1b"), "{error}");
    ec2.faults.no_hint = 1_000;
    assert!(!refused(&mut ec2, persistent()).message.contains("us-east-1b"));
}

#[test]
fn r4_a_token_gives_the_same_box_again_and_refuses_other_parameters() {
    let mut ec2 = account();
    let asked = RunInstances { client_token: Some("t-1".to_owned()), ..wanted(persistent()) };
    let first = ec2.run_instances(at(0), &asked).unwrap().remove(0).id;
    assert_eq!(ec2.run_instances(at(9), &asked).unwrap().remove(0).id, first);
    let other = RunInstances { instance_type: Some("g5.xlarge".to_owned()), ..asked.clone() };
    let error = ec2.run_instances(at(9), &other).unwrap_err();
    assert_eq!(error.code, "IdempotentParameterMismatch");
    let request = ec2.request_of(&first).unwrap().id.clone();
    ec2.cancel_spot_instance_requests(at(60), &[request]).unwrap();
    ec2.terminate_instances(at(60), &[first]).unwrap();
    assert_eq!(ec2.run_instances(at(90), &asked).unwrap_err().code, "IdempotentInstanceTerminated");
}

#[test]
fn r5_describing_lags_and_a_start_may_answer_200_and_fall_back() {
    let mut ec2 = account();
    let id = launch(&mut ec2, persistent());
    stop(&mut ec2, 60, &id).unwrap();
    ec2.advance(at(120));
    ec2.faults =
        Ec2Faults { lag_max: TimeDelta::seconds(30), fall_back: 1_000, ..Ec2Faults::default() };
    assert_eq!(start(&mut ec2, 200, &id), Ok(()));
    assert_eq!(ec2.state(&id), InstanceState::Pending);
    let shown = |ec2: &mut Ec2, seconds| {
        ec2.describe_instances(at(seconds), &Describe::default()).unwrap().rows.remove(0)
    };
    assert_eq!(shown(&mut ec2, 200).state, InstanceState::Stopped);
    let one = shown(&mut ec2, 240);
    assert_eq!(one.state, InstanceState::Stopped);
    assert_eq!(one.state_reason.unwrap().code, "Client.InternalError");
    assert_eq!(one.launch_time, at(200));
}

#[test]
fn start_calls_have_a_bucket_of_five_and_two_a_second() {
    let mut ec2 = account();
    let id = launch(&mut ec2, MarketOptions::OnDemand);
    let answers: Vec<_> = (0..7).map(|_| start(&mut ec2, 60, &id)).collect();
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 5);
    assert_eq!(answers[6], Err("RequestLimitExceeded"));
    assert_eq!(start(&mut ec2, 61, &id), Ok(()));
}

#[test]
fn rows_are_filtered_and_come_in_pages() {
    let mut ec2 = account();
    let mut ids: Vec<String> = (0..2).map(|_| launch(&mut ec2, MarketOptions::OnDemand)).collect();
    ids.sort();
    let filter = |name: &str, value: &str| (name.to_owned(), vec![value.to_owned()]);
    let mut wanted = Describe {
        filters: vec![filter("tag:gpuctl:pool", "gpu"), filter("instance-state-name", "pending")],
        max_results: Some(1),
        ..Describe::default()
    };
    let first = ec2.describe_instances(at(1), &wanted).unwrap();
    wanted.next_token = first.next_token;
    let second = ec2.describe_instances(at(1), &wanted).unwrap();
    assert_eq!((&first.rows[0].id, &second.rows[0].id), (&ids[0], &ids[1]));
    assert_eq!(second.next_token, None);
    wanted = Describe { ids: vec!["i-0".to_owned()], ..Describe::default() };
    assert_eq!(
        ec2.describe_instances(at(1), &wanted).unwrap_err().code,
        "InvalidInstanceID.NotFound"
    );
    wanted = Describe { filters: vec![filter("colour", "red")], ..Describe::default() };
    assert_eq!(ec2.describe_instances(at(1), &wanted).unwrap_err().code, "InvalidParameterValue");
}

#[test]
fn an_instant_fleet_takes_what_it_can_get_and_says_what_was_refused() {
    let mut ec2 = account();
    let template = LaunchTemplate {
        id: "lt-1".to_owned(),
        name: "gpu".to_owned(),
        version: 1,
        image_id: "ami-1".to_owned(),
        instance_type: "g4dn.xlarge".to_owned(),
        market: persistent(),
        tags: BTreeMap::from([("gpuctl:pool".to_owned(), "gpu".to_owned())]),
    };
    ec2.add_template(template);
    ec2.plan_capacity(at(0), spot_in_a(), false);
    let zone = |zone: &str| (None, Some(zone.to_owned()));
    let asked = CreateFleet {
        client_token: Some("f-1".to_owned()),
        launch_template: "gpu".to_owned(),
        overrides: vec![zone("us-east-1a"), zone("us-east-1b")],
        market: CapacityType::Spot,
        target: 1,
        tags: BTreeMap::new(),
    };
    let answer = ec2.create_fleet(at(1), &asked).unwrap();
    assert_eq!(answer.instances[0].zone, "us-east-1b");
    assert_eq!(answer.instances[0].tags["aws:ec2launchtemplate:id"], "lt-1");
    assert_eq!(answer.errors[0].0.code, "InsufficientInstanceCapacity");
    assert_eq!(ec2.create_fleet(at(2), &asked).unwrap().instances, answer.instances);
    assert_eq!(stop(&mut ec2, 60, &answer.instances[0].id), Err("UnsupportedOperation"));
}
