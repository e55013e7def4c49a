//! What a stack costs: a month of doing nothing, part by part, and an hour of each kind of box. Read off the template and its values, and
//! priced by the dated tables of `gpuctl_core::cost`.

use gpuctl_core::cost::{MONTH_SECONDS, PriceTable, service_price};
use gpuctl_core::units::MicroUsd;
use serde_json::Value;

use crate::template::{Resource, Template, Values};

/// A tick each minute of a month of 30 days.
const TICKS: i64 = MONTH_SECONDS / 60;
const HOURS: i64 = MONTH_SECONDS / 3_600;
/// What a tick of two pools costs: calls counted in lambda/README.md, "Cost of a tick".
const WRITES_A_TICK: i64 = 4;
const READS_A_TICK: i64 = 8;
const QUEUE_CALLS_A_TICK: i64 = 2;
/// 128 MB for an eighth of a second, in GB-seconds a month.
const FUNCTION_GB_SECONDS: i64 = TICKS / 64;
/// About 1.5 KB of log a tick.
const LOG_MB: i64 = TICKS * 3 / 2_000;
/// Metrics of a pool with a queue and one without, where the function writes them.
const METRICS: i64 = 10;

/// A part of the bill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The resource's logical name, or what several are for.
    pub name: String,
    /// How it comes about.
    pub detail: String,
    pub month: MicroUsd,
    /// Of the price, e.g. `2026-11`; empty for what costs nothing.
    pub as_of: String,
}

/// What an hour of a box costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HourLine {
    pub name: String,
    pub detail: String,
    /// `None` if no table has the price.
    pub hour: Option<MicroUsd>,
    pub as_of: String,
}

/// What a stack costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    pub lines: Vec<Line>,
    pub hours: Vec<HourLine>,
}

impl Bill {
    /// Of a stack with these values, which have a default for each parameter and the region as `AWS::Region`.
    #[must_use]
    pub fn of(template: &Template, values: &Values, prices: &PriceTable) -> Self {
        let region = values.get("AWS::Region").map_or("us-east-1", String::as_str);
        let mut bill = Self::default();
        for one in template.resources(values) {
            match one.kind {
                "AWS::EC2::LaunchTemplate" => {
                    bill.add_template(template, one, values, (region, prices));
                }
                _ => bill.lines.extend(standing(template, one, values, region)),
            }
        }
        bill.lines.sort_by(|a, b| b.month.cmp(&a.month).then_with(|| a.name.cmp(&b.name)));
        bill
    }

    /// A month in which nothing runs.
    #[must_use]
    pub fn month(&self) -> MicroUsd {
        self.lines.iter().map(|line| line.month).sum()
    }

    /// An hour of its boxes, and the disks of those that are kept.
    fn add_template(
        &mut self,
        template: &Template,
        one: Resource<'_>,
        values: &Values,
        (region, prices): (&str, &PriceTable),
    ) {
        let data = one.property("LaunchTemplateData");
        let text = |value: &Value| template.value(value, values);
        let Some(kind) = text(&data["InstanceType"]) else { return };
        let is_spot = text(&data["InstanceMarketOptions"]["MarketType"]).as_deref() == Some("spot");
        let price = prices.price(&kind, region);
        let hour = price.and_then(|price| if is_spot { price.spot } else { Some(price.on_demand) });
        let market = if is_spot { "spot" } else { "on demand" };
        self.hours.push(HourLine {
            name: one.name.to_owned(),
            detail: format!("{kind}, {market}, while it runs"),
            hour,
            as_of: price.map(|price| price.as_of.clone()).unwrap_or_default(),
        });
        if !crate::boxes::is_kept(template, one, values) {
            return;
        }
        let disks = data["BlockDeviceMappings"].as_array().into_iter().flatten();
        let sizes = disks.filter_map(|disk| text(&disk["Ebs"]["VolumeSize"])?.parse::<i64>().ok());
        let gib: i64 = sizes.sum();
        let detail = format!("{gib} GiB of disk, stopped or not");
        self.lines.extend(line(one.name, detail, "disk", region, gib));
    }
}

/// What a resource costs other than a box.
fn standing(template: &Template, one: Resource<'_>, values: &Values, region: &str) -> Vec<Line> {
    let name = one.name;
    let priced = |detail: &str, item, units| line(name, detail.to_owned(), item, region, units);
    let lines = match one.kind {
        "AWS::CloudWatch::Alarm" => vec![priced("an alarm", "alarm", 1)],
        "AWS::EC2::EIP" => vec![priced("an address, in use or not", "address", HOURS)],
        "AWS::KMS::Key" => vec![priced("a key", "key", 1)],
        "AWS::Scheduler::Schedule" => vec![priced("a tick a minute", "schedule", TICKS)],
        "AWS::SQS::Queue" => {
            vec![priced("two counts a minute", "queue", TICKS * QUEUE_CALLS_A_TICK / 2)]
        }
        "AWS::DynamoDB::Table" => vec![
            priced("writes of a tick a minute", "table-writes", TICKS * WRITES_A_TICK),
            priced("reads of a tick a minute", "table-reads", TICKS * READS_A_TICK),
        ],
        "AWS::Lambda::Function" => vec![
            priced("a run a minute", "function-requests", TICKS),
            priced("128 MB for 125 ms a run", "function-time", FUNCTION_GB_SECONDS),
            metrics(template, one, values, region),
        ],
        "AWS::Logs::LogGroup" => vec![priced("65 MB", "log", LOG_MB)],
        "AWS::EC2::VPCEndpoint" => vec![endpoint(template, one, values, region)],
        "AWS::S3::Bucket" => vec![free(name, "empty; $0.023 a GB", "bucket", region)],
        "AWS::EFS::FileSystem" => vec![free(name, "empty; $0.30 a GB", "files", region)],
        _ => Vec::new(),
    };
    lines.into_iter().flatten().collect()
}

/// Metrics that the function writes, where its environment asks for them.
fn metrics(
    template: &Template,
    function: Resource<'_>,
    values: &Values,
    region: &str,
) -> Option<Line> {
    let variable = &function.property("Environment")["Variables"]["GPUCTL_METRICS"];
    let is_on = template
        .value(variable, values)
        .is_some_and(|is| matches!(is.as_str(), "on" | "true" | "1"));
    let detail = format!("{METRICS} metrics of two pools");
    if is_on { line(function.name, detail, "metric", region, METRICS) } else { None }
}

/// Interface endpoints cost by the hour and zone, gateway endpoints nothing.
fn endpoint(template: &Template, one: Resource<'_>, values: &Values, region: &str) -> Option<Line> {
    let kind = template.value(one.property("VpcEndpointType"), values)?;
    let zones = one.property("SubnetIds").as_array().map_or(2, Vec::len);
    let zones = i64::try_from(zones).unwrap_or(2);
    let detail = format!("an interface endpoint in {zones} zones");
    (kind == "Interface").then(|| line(one.name, detail, "endpoint", region, HOURS * zones))?
}

fn line(name: &str, detail: String, item: &str, region: &str, units: i64) -> Option<Line> {
    let price = service_price(item, region)?;
    let (name, as_of) = (name.to_owned(), price.as_of.to_owned());
    Some(Line { name, detail, month: price.of(units), as_of })
}

/// A part that costs by what lies in it, and is empty at first.
fn free(name: &str, detail: &str, item: &str, region: &str) -> Option<Line> {
    line(name, detail.to_owned(), item, region, 0)
}
