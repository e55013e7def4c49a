//! What would keep a stack from being made or its boxes from starting, found before anything is changed: one line each.

use chrono::TimeDelta;
use gpuctl_control::ports::PortError;
use gpuctl_core::offering::CapacityType;
use gpuctl_core::suggest::did_you_mean;
use gpuctl_core::units::show_duration;

use crate::Site;
use crate::ports::{Account, Caller, Stack};
use crate::template::{Parameter, Resource, Template, Values};
use crate::trouble::{Kind, Trouble};

/// From here on AWS rejects requests by their date.
const CLOCK_MAX: TimeDelta = TimeDelta::minutes(5);
/// How far the comparison of the clocks may be off: a `Date` has whole seconds, and a response takes its time.
const CLOCK_ERROR_MAX: TimeDelta = TimeDelta::seconds(10);
/// The largest policy that the function reads from S3.
pub(crate) const POLICY_BYTES_MAX: usize = 1 << 20;

/// Whose credentials these are.
///
/// # Errors
/// When AWS does not accept them, and then also if the clock is the cause.
pub(crate) async fn identify(account: &dyn Account) -> Result<Caller, Trouble> {
    let (caller, ahead) = account.caller().await;
    caller.map_err(|error| clock_trouble(&error, ahead).unwrap_or_else(|| error.into()))
}

/// The clock as the cause of an error, if it is that far off.
fn clock_trouble(error: &PortError, ahead: Option<TimeDelta>) -> Option<Trouble> {
    let ahead = ahead.filter(|ahead| ahead.abs() >= CLOCK_MAX - CLOCK_ERROR_MAX)?;
    let way = if ahead < TimeDelta::zero() { "behind" } else { "ahead of" };
    let off = show_duration(TimeDelta::seconds(ahead.abs().num_seconds()));
    let trouble = Trouble::new(Kind::Blocked, format!("this machine's clock is {off} {way} AWS's"));
    let hint =
        "synchronise it with chrony or systemd-timesyncd: AWS rejects requests by their date";
    Some(trouble.because(error.to_string()).hint(hint))
}

/// Checks values against the template's parameters.
///
/// # Errors
/// All values that cannot be used.
pub fn check_values(template: &Template, given: &Values) -> Result<(), Trouble> {
    let parameters = template.parameters();
    let find = |name: &str| parameters.iter().find(|one| one.name == name);
    let mut problems: Vec<String> = Vec::new();
    for (name, value) in given {
        match find(name) {
            Some(parameter) => problems.extend(parameter.problem(value)),
            None => problems.push(unknown(name, &parameters)),
        }
    }
    all(problems, Kind::Invalid, "parameters cannot be used")
        .map_err(|trouble| trouble.hint("infra/README.md lists the parameters"))
}

impl Parameter {
    /// What is wrong with a value, if something is.
    fn problem(&self, value: &str) -> Option<String> {
        let name = &self.name;
        if !self.allowed.is_empty() && !self.allowed.iter().any(|one| one == value) {
            return Some(format!("{name}: `{value}` is none of {}", self.allowed.join(", ")));
        }
        if !self.is_number {
            return None;
        }
        let (least, most) = (self.least.unwrap_or(i64::MIN), self.most.unwrap_or(i64::MAX));
        match value.parse::<i64>() {
            Ok(number) if (least..=most).contains(&number) => None,
            Ok(_) if self.most.is_none() => Some(format!("{name}: `{value}` is less than {least}")),
            Ok(_) => Some(format!("{name}: `{value}` is not from {least} to {most}")),
            Err(_) => Some(format!("{name}: `{value}` is not a number")),
        }
    }
}

fn unknown(name: &str, parameters: &[Parameter]) -> String {
    let near = did_you_mean(name, parameters.iter().map(|one| one.name.as_str()));
    let hint = near.map(|near| format!(" ({near})")).unwrap_or_default();
    format!("{name}: there is no such parameter{hint}")
}

/// Checks the region and the account, for a stack with all of these values.
///
/// # Errors
/// Everything that stands in the way. What cannot be checked is a warning.
pub(crate) async fn check_account(
    site: &Site<'_>,
    template: &Template,
    values: &Values,
    is_new: bool,
) -> Result<(), Trouble> {
    let account = site.account;
    let mut problems = Vec::new();
    for parameter in template.parameters().iter().filter(|one| !values.contains_key(&one.name)) {
        problems.push(format!("{}: a value is needed", parameter.name));
    }
    for one in template.resources(values) {
        let found = match one.kind {
            "AWS::EC2::LaunchTemplate" => boxes(site, template, one, values).await?,
            _ if is_new => taken(account, template, one, values).await?,
            _ => Vec::new(),
        };
        problems.extend(found);
    }
    problems.extend(subnets(account, values).await?);
    let others = site.stacks.others(&values["AWS::StackName"]).await?;
    problems.extend(others.iter().flat_map(|other| shared_pools(values, other)));
    problems.sort();
    problems.dedup();
    all(problems, Kind::Blocked, "things would keep the stack from working")
}

/// Whether boxes of a launch template can start: type, image and quota.
async fn boxes(
    site: &Site<'_>,
    template: &Template,
    one: Resource<'_>,
    values: &Values,
) -> Result<Vec<String>, Trouble> {
    let Site { account, show, .. } = site;
    let data = one.property("LaunchTemplateData");
    let mut problems = Vec::new();
    if let Some(image) = template.value(&data["ImageId"], values)
        && account.image(&image).await?.is_none()
    {
        problems.push(format!("{}: {} has no image {image}", one.name, account.region()));
    }
    let Some(kind) = template.value(&data["InstanceType"], values) else { return Ok(problems) };
    match account.offers(&kind).await {
        Ok(false) => {
            let region = account.region();
            problems.push(format!("{}: no zone of {region} has {kind}", one.name));
            return Ok(problems);
        }
        Ok(_) => {}
        Err(error) => show.warn(&format!("not checked whether {kind} is offered: {error}")),
    }
    let market = template.value(&data["InstanceMarketOptions"]["MarketType"], values);
    let is_spot = market.as_deref() == Some("spot");
    let capacity = if is_spot { CapacityType::Spot } else { CapacityType::OnDemand };
    match account.quota(&kind, capacity).await {
        Ok(Some(quota)) if quota.vcpus < quota.needed => problems.push(format!(
            "{}: the {} quota {} ({}) is {} vCPUs, {kind} needs {}: ask for more in Service Quotas",
            one.name,
            if is_spot { "spot" } else { "on-demand" },
            quota.code,
            quota.name,
            quota.vcpus,
            quota.needed
        )),
        Ok(_) => {}
        Err(error) => {
            show.warn(&format!("not checked whether the quota for {kind} is enough: {error}"));
        }
    }
    Ok(problems)
}

/// Whether another resource has the name that the stack would give to this one.
async fn taken(
    account: &dyn Account,
    template: &Template,
    one: Resource<'_>,
    values: &Values,
) -> Result<Vec<String>, Trouble> {
    let property = match one.kind {
        "AWS::SQS::Queue" => "QueueName",
        "AWS::DynamoDB::Table" => "TableName",
        "AWS::Logs::LogGroup" => "LogGroupName",
        _ => return Ok(Vec::new()),
    };
    let Some(name) = template.value(one.property(property), values) else { return Ok(Vec::new()) };
    if !account.is_taken(one.kind, &name).await? {
        return Ok(Vec::new());
    }
    let kind = one.kind.rsplit("::").next().unwrap_or_default();
    Ok(vec![format!(
        "{kind} {name} is there already: delete it, or deploy with another --stack NAME"
    )])
}

/// Pools that another stack has as well: launched boxes are known by their pool alone, so that one stack would end the other's.
fn shared_pools(values: &Values, other: &Stack) -> Vec<String> {
    let is = |of: &Values, name: &str, value: &str| of.get(name).is_some_and(|one| one == value);
    let launches = |of: &Values| is(of, "GpuBoxes", "launched");
    if !launches(values) && !launches(&other.parameters) {
        return Vec::new();
    }
    let pools = |of: &Values| -> Vec<(&'static str, String)> {
        let has_app = is(of, "Layout", "gpu-and-app");
        let names = ["GpuPool", "AppPool"].into_iter().filter(|name| *name == "GpuPool" || has_app);
        names.filter_map(|name| Some((name, of.get(name)?.clone()))).collect()
    };
    let theirs = pools(&other.parameters);
    let shared =
        pools(values).into_iter().filter(|(_, pool)| theirs.iter().any(|(_, one)| one == pool));
    let problem = |(name, pool)| {
        format!(
            "{name}: stack {} has a pool `{pool}` too, and launched boxes are known by their pool: set another, e.g. {name}={pool}-2",
            other.name
        )
    };
    shared.map(problem).collect()
}

/// Whether the subnets that were named exist, in two zones.
async fn subnets(account: &dyn Account, values: &Values) -> Result<Vec<String>, Trouble> {
    let names = ["ExistingSubnetA", "ExistingSubnetB", "ExistingSubnetC"];
    let named = names.iter().filter_map(|name| values.get(*name));
    let named: Vec<String> = named.filter(|id| !id.is_empty()).cloned().collect();
    if named.is_empty() {
        return default_zones(account, values).await;
    }
    let zones = account.zones(&named).await?;
    let missing = named.iter().filter(|id| !zones.contains_key(*id));
    let mut problems: Vec<String> =
        missing.map(|id| format!("{} has no subnet {id}", account.region())).collect();
    let all_in_one = zones.values().all(|zone| Some(zone) == zones.values().next());
    if problems.is_empty() && zones.len() > 1 && all_in_one {
        problems.push("the subnets are all in one zone: spot needs a choice".to_owned());
    }
    Ok(problems)
}

/// `Fn::GetAZs` names the zones with a default subnet; where only one has one, a new VPC would have no second zone.
async fn default_zones(account: &dyn Account, values: &Values) -> Result<Vec<String>, Trouble> {
    let is_open = |name: &str| values.get(name).is_some_and(String::is_empty);
    if !is_open("ZoneA") || !is_open("ZoneB") {
        return Ok(Vec::new());
    }
    let zones = account.default_zones().await?;
    let only = zones.first().filter(|_| zones.len() == 1);
    let problem = |zone| {
        format!(
            "of {}'s zones only {zone} has a default subnet: name two zones with --set ZoneA=… --set ZoneB=…",
            account.region()
        )
    };
    Ok(only.map(problem).into_iter().collect())
}

/// One problem is the error itself; several are its causes.
fn all(mut problems: Vec<String>, kind: Kind, several: &str) -> Result<(), Trouble> {
    match problems.len() {
        0 => Ok(()),
        1 => Err(Trouble::new(kind, problems.remove(0))),
        many => {
            let mut trouble = Trouble::new(kind, format!("{many} {several}"));
            trouble.causes = problems;
            Err(trouble)
        }
    }
}

#[cfg(test)]
mod tests {
    use gpuctl_control::ports::PortErrorClass;

    use super::*;

    #[test]
    fn a_clock_is_blamed_from_five_minutes_on_both_ways() {
        let refused = PortError::new(PortErrorClass::Denied, "not accepted");
        let said = |seconds| Some(clock_trouble(&refused, Some(TimeDelta::seconds(seconds)))?.what);
        for (seconds, words) in [
            (240, None),
            (-240, None),
            // AWS's limit, and what a comparison a little wrong makes of it.
            (300, Some("this machine's clock is 5m ahead of AWS's")),
            (-300, Some("this machine's clock is 5m behind AWS's")),
            (-299, Some("this machine's clock is 4m59s behind AWS's")),
            (301, Some("this machine's clock is 5m1s ahead of AWS's")),
        ] {
            assert_eq!(said(seconds).as_deref(), words, "{seconds}");
        }
        assert!(clock_trouble(&refused, None).is_none());
    }

    #[test]
    fn a_pool_of_launched_boxes_is_shared_by_no_other_stack() {
        let values = |pairs: &[(&str, &str)]| -> Values {
            let own = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            own.collect()
        };
        let kept = values(&[("GpuBoxes", "kept"), ("GpuPool", "gpu"), ("AppPool", "app")]);
        let launched = values(&[("GpuBoxes", "launched"), ("GpuPool", "gpu"), ("AppPool", "x")]);
        let elsewhere = values(&[("GpuBoxes", "launched"), ("GpuPool", "fast"), ("AppPool", "x")]);
        let both = |ours: &Values, theirs: &Values| {
            let parameters = theirs.clone();
            shared_pools(ours, &Stack { name: "other".into(), parameters, ..Stack::default() })
        };
        for (ours, theirs, count) in [
            (&kept, &kept, 0),
            (&kept, &launched, 1),
            (&launched, &kept, 1),
            (&launched, &launched, 1),
            (&launched, &elsewhere, 0),
        ] {
            assert_eq!(both(ours, theirs).len(), count, "{ours:?} {theirs:?}");
        }
        assert!(both(&launched, &kept)[0].contains("e.g. GpuPool=gpu-2"));
    }

    #[test]
    fn each_wrong_parameter_is_one_line() {
        let template = Template::parse(
            "Parameters:\n  Market: {Type: String, AllowedValues: [spot, on-demand]}\n  GiB: {Type: Number, MinValue: 30, MaxValue: 100}\n  Ports: {Type: Number, MinValue: 1}\nResources: {}\n",
        )
        .unwrap();
        let check = |pairs: &[(&str, &str)]| {
            let given = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into()));
            check_values(&template, &given.collect())
        };
        assert!(check(&[("Market", "spot"), ("GiB", "30"), ("Ports", "9")]).is_ok());
        for (name, value, words) in [
            ("Market", "cheap", "Market: `cheap` is none of spot, on-demand"),
            ("market", "spot", "market: there is no such parameter (did you mean `Market`?)"),
            ("Moon", "1", "Moon: there is no such parameter"),
            ("GiB", "29", "GiB: `29` is not from 30 to 100"),
            ("GiB", "many", "GiB: `many` is not a number"),
            ("Ports", "0", "Ports: `0` is less than 1"),
        ] {
            assert_eq!(check(&[(name, value)]).unwrap_err().to_string(), words);
        }
        let both = check(&[("GiB", "1"), ("Moon", "1")]).unwrap_err();
        assert_eq!((both.what.as_str(), both.causes.len()), ("2 parameters cannot be used", 2));
    }
}
