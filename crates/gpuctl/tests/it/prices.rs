//! Prices from AWS: spot by moto's EC2, on demand by a server of this test's own, since the Price List is in no emulator. Its rows
//! have the shape of AWS's API reference.

use gpuctl_sim::wire::Canned;
use serde_json::{Value, json};

use crate::emulators;
use crate::support::Sandbox;

/// Types on which the Price List has a row here, with the price of an hour.
const LISTED: [(&str, &str); 2] = [("g4dn.xlarge", "0.7200000000"), ("c7i.large", "0.1121000000")];

/// A place whose prices come from `list`.
async fn sandbox(list: &Canned, config: &str) -> Sandbox {
    let moto = emulators::moto().await;
    Sandbox::new(config)
        .with("AWS_ACCESS_KEY_ID", "test")
        .with("AWS_SECRET_ACCESS_KEY", "test")
        .with("AWS_ENDPOINT_URL", moto.url())
        .with("AWS_ENDPOINT_URL_PRICING", list.url())
}

fn filter<'a>(input: &'a Value, field: &str) -> Option<&'a str> {
    let filters = input["Filters"].as_array()?;
    filters.iter().find(|one| one["Field"] == field)?["Value"].as_str()
}

pub(crate) async fn price_list() -> Canned {
    let list = Canned::open().await.unwrap();
    list.answer("GetProducts", |input| {
        let wanted = filter(input, "instanceType").unwrap();
        let listed = LISTED.iter().filter(|(kind, _)| *kind == wanted);
        let rows: Vec<String> = listed.map(|(kind, usd)| row(kind, usd)).collect();
        Ok(json!({ "FormatVersion": "aws_v1", "PriceList": rows }))
    });
    list
}

fn row(instance_type: &str, usd: &str) -> String {
    let rate = json!({ "unit": "Hrs", "beginRange": "0", "endRange": "Inf", "pricePerUnit": { "USD": usd } });
    let attributes = json!({ "instanceType": instance_type, "marketoption": "OnDemand" });
    json!({
        "product": { "productFamily": "Compute Instance", "sku": "S", "attributes": attributes },
        "serviceCode": "AmazonEC2",
        "terms": { "OnDemand": { "S.T": { "sku": "S", "priceDimensions": { "S.T.R": rate } } } },
    })
    .to_string()
}

const ON_AWS: &str = "[cloud]\nkind = \"aws\"\nregion = \"ap-northeast-1\"\n[pool.gpu]\nlaunch_template = \"t\"\n\
    instance_types = [\"g4dn.xlarge\", \"c7i.large\"]\n[cost]\nregion = \"ap-northeast-1\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn fetched_prices_win_over_the_shipped_ones_wherever_something_is_priced() {
    let list = price_list().await;
    let sandbox = sandbox(&list, ON_AWS).await;
    let estimate =
        || sandbox.run(&["cost", "estimate", "--hours-per-day", "1", "--json"]).expect(0).json();
    assert_eq!(estimate()["usd_hour"], 0.71);
    let said = sandbox.run(&["cost", "prices", "--refresh"]).expect(0);
    assert!(said.stdout.contains("saved to"), "{}", said.stdout);
    for (_, input) in list.asked() {
        let wanted =
            ["regionCode", "operatingSystem", "tenancy", "preInstalledSw", "capacitystatus"];
        let found = wanted.map(|field| filter(&input, field).unwrap());
        assert_eq!(found, ["ap-northeast-1", "Linux", "Shared", "NA", "Used"]);
    }
    let after = estimate();
    assert_eq!(after["usd_hour"], 0.72);
    let from = after["usd_hour_from"].as_str().unwrap();
    assert!(from.starts_with("prices fetched on 20"), "{from}");
    let report = sandbox.run(&["cost", "prices", "--region", "ap-northeast-1", "--json"]).expect(0);
    let prices = report.json()["prices"].as_array().unwrap().clone();
    let row = |kind: &str| prices.iter().find(|one| one["instance_type"] == kind).unwrap();
    // moto knows one price of spot.
    let cells = |kind: &str| (row(kind)["table"].clone(), row(kind)["spot_usd_hour"].clone());
    assert_eq!(cells("g4dn.xlarge"), (json!("fetched"), json!(0.00001)));
    assert_eq!(cells("c7i.large").0, json!("fetched"));
    assert_eq!(row("g5.xlarge")["table"], "shipped");
    sandbox.write("trace.csv", "t_s,service_s\n0,10\n");
    let said = sandbox.run(&["simulate", "--demand", "trace.csv"]).expect(0);
    assert!(said.stdout.contains("$0.7200 an hour (prices fetched on 20"), "{}", said.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_fails_keeps_the_prices_that_there_were() {
    let list = price_list().await;
    let sandbox = sandbox(&list, ON_AWS).await;
    sandbox.run(&["cost", "prices", "--refresh"]).expect(0);
    let kept = || std::fs::read_to_string(sandbox.path(".gpuctl/prices.csv")).unwrap();
    let before = kept();
    let failing =
        sandbox.run(&["cost", "prices", "--refresh", "--instance-type", "g4dn.xlarge", "p9.huge"]);
    let said = failing.expect(1).stderr;
    assert!(said.contains("AWS lists no price of p9.huge in ap-northeast-1"), "{said}");
    list.answer("GetProducts", |_| Err("AccessDeniedException".to_owned()));
    let said = sandbox.run(&["cost", "prices", "--refresh"]).expect(4).stderr;
    assert!(said.contains("hint: allow `pricing:GetProducts`"), "{said}");
    list.answer("GetProducts", |_| Ok(json!({ "PriceList": ["{\"product\": 1}"] })));
    let said = sandbox.run(&["cost", "prices", "--refresh"]).expect(1).stderr;
    assert!(said.contains("cannot be read"), "{said}");
    assert_eq!(kept(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_without_a_price_is_fetched_first_and_named_then() {
    let list = price_list().await;
    let sandbox = sandbox(&list, "[pool.gpu]\nqueue = \"jobs\"\n").await;
    let named = "[pool.gpu]\nqueue = \"jobs\"\n[cost]\ninstance_type = \"c7i.large\"\nregion = \"eu-west-1\"\n";
    let other = sandbox.write("other.toml", named);
    let other = other.to_str().unwrap();
    let fetch =
        ["cost", "prices", "--refresh", "--instance-type", "c7i.large", "--region", "eu-west-1"];
    let said = sandbox.run(&["cost", "report", "--config", other]).expect(2).stderr;
    assert!(said.contains(&format!("`gpuctl {}", fetch[..5].join(" "))), "{said}");
    sandbox.run(&fetch).expect(0);
    let report = sandbox.run(&["cost", "report", "--config", other, "--json"]).expect(0).json();
    assert_eq!(report["priced_as"]["on_demand_usd_hour"], 0.1121, "{report}");
    assert_eq!(report["priced_as"]["table"], "fetched");
}

#[test]
fn a_broken_price_table_is_reported_and_stops_nothing() {
    let sandbox = Sandbox::new("[pool.app]\ncommand = [\"sleep\", \"600\"]");
    std::fs::create_dir(sandbox.path(".gpuctl")).unwrap();
    sandbox.write(".gpuctl/prices.csv", "g4dn.xlarge,us-east-1,cheap,,2026-11-22\n");
    let said = sandbox.run(&["status"]).expect(0);
    assert!(said.stderr.contains("line 1"), "{}", said.stderr);
    assert!(said.stderr.contains("cost prices --refresh"), "{}", said.stderr);
}
