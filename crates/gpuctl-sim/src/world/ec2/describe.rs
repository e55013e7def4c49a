//! `Describe…` and `CreateTags`: instances and spot requests, filtered, in pages, and late while listings lag.

use std::collections::BTreeMap;

use gpuctl_core::offering::CapacityType;
use gpuctl_core::units::Timestamp;

use super::throttle::Bucket;
use super::types::{Describe, Ec2Error, Instance, Paged, SpotRequest};
use super::{Ec2, InstanceState};

/// Rows of one response if the caller sets no limit.
const PAGE_ROWS_MAX: usize = 1_000;

impl Ec2 {
    /// `DescribeInstances`.
    ///
    /// # Errors
    /// As EC2: an unknown id, a filter that does not exist, throttling.
    pub fn describe_instances(
        &mut self,
        now: Timestamp,
        wanted: &Describe,
    ) -> Result<Paged<Instance>, Ec2Error> {
        self.call(now, Bucket::Describe)?;
        for id in &wanted.ids {
            self.shown(now, id)?;
        }
        let mut rows = Vec::new();
        for one in self.instances.values().filter_map(|record| record.at(now)) {
            if matches(wanted, &one.id, |name, values| instance_fits(one, name, values))? {
                rows.push(one.clone());
            }
        }
        page(rows, wanted)
    }

    /// `DescribeSpotInstanceRequests`.
    ///
    /// # Errors
    /// As EC2.
    pub fn describe_spot_instance_requests(
        &mut self,
        now: Timestamp,
        wanted: &Describe,
    ) -> Result<Paged<SpotRequest>, Ec2Error> {
        self.call(now, Bucket::Describe)?;
        for id in &wanted.ids {
            self.request(id)?;
        }
        let mut rows = Vec::new();
        for one in self.requests.values() {
            if matches(wanted, &one.id, |name, values| request_fits(one, name, values))? {
                rows.push(one.clone());
            }
        }
        page(rows, wanted)
    }

    /// `CreateTags`: shown at once.
    ///
    /// # Errors
    /// As EC2.
    pub fn create_tags(
        &mut self,
        now: Timestamp,
        ids: &[String],
        tags: &BTreeMap<String, String>,
    ) -> Result<(), Ec2Error> {
        self.call(now, Bucket::Tags)?;
        for id in ids {
            self.existing(id)?;
        }
        for id in ids {
            let Some(record) = self.instances.get_mut(id) else { continue };
            let all = record.shown.iter_mut().map(|(_, one)| one).chain([&mut record.actual]);
            for one in all {
                one.tags.extend(tags.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
        }
        Ok(())
    }

    /// The instance as it is shown; a new one may not be visible yet (R5).
    pub(super) fn shown(&self, now: Timestamp, id: &str) -> Result<&Instance, Ec2Error> {
        self.instances.get(id).and_then(|record| record.at(now)).ok_or_else(|| not_found(id))
    }

    pub(super) fn existing(&self, id: &str) -> Result<&Instance, Ec2Error> {
        self.instance(id).ok_or_else(|| not_found(id))
    }

    pub(super) fn request(&self, id: &str) -> Result<&SpotRequest, Ec2Error> {
        let text = format!("The spot instance request ID '{id}' does not exist");
        self.requests
            .get(id)
            .ok_or_else(|| Ec2Error::client("InvalidSpotInstanceRequestID.NotFound", text))
    }
}

fn not_found(id: &str) -> Ec2Error {
    let text = format!("The instance ID '{id}' does not exist");
    Ec2Error::client("InvalidInstanceID.NotFound", text)
}

/// Whether a row matches; `None` from `fits` means that the filter does not exist.
fn matches(
    wanted: &Describe,
    id: &String,
    fits: impl Fn(&str, &[String]) -> Option<bool>,
) -> Result<bool, Ec2Error> {
    if !wanted.ids.is_empty() && !wanted.ids.contains(id) {
        return Ok(false);
    }
    for (name, values) in &wanted.filters {
        let text = format!("The filter '{name}' is invalid");
        if !fits(name, values).ok_or_else(|| Ec2Error::client("InvalidParameterValue", text))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn instance_fits(one: &Instance, name: &str, values: &[String]) -> Option<bool> {
    let is = |text: &str| values.iter().any(|value| value == text);
    Some(match name {
        "instance-state-name" => is(one.state.name()),
        "instance-state-code" => is(&one.state.code().to_string()),
        "instance-type" => is(&one.instance_type),
        "instance-id" => is(&one.id),
        "availability-zone" => is(&one.zone),
        "instance-lifecycle" => one.market == CapacityType::Spot && is("spot"),
        "spot-instance-request-id" => one.spot_request_id.as_deref().is_some_and(is),
        "client-token" => one.client_token.as_deref().is_some_and(is),
        "tag-key" => one.tags.keys().any(|key| is(key)),
        _ => {
            let key = name.strip_prefix("tag:")?;
            one.tags.get(key).is_some_and(|value| is(value))
        }
    })
}

fn request_fits(one: &SpotRequest, name: &str, values: &[String]) -> Option<bool> {
    let is = |text: &str| values.iter().any(|value| value == text);
    Some(match name {
        "state" => is(one.state.name()),
        "status-code" => is(one.status_code),
        "instance-id" => one.instance_id.as_deref().is_some_and(is),
        "spot-instance-request-id" => is(&one.id),
        // Requests have no tags here.
        _ if name.starts_with("tag:") => false,
        _ => return None,
    })
}

fn page<T>(rows: Vec<T>, wanted: &Describe) -> Result<Paged<T>, Ec2Error> {
    let bad = || Ec2Error::client("InvalidNextToken", "The token is not valid");
    let from: usize = match &wanted.next_token {
        Some(token) => token.parse().map_err(|_| bad())?,
        None => 0,
    };
    let most = wanted.max_results.unwrap_or(PAGE_ROWS_MAX).clamp(1, PAGE_ROWS_MAX);
    let more = rows.len() > from.saturating_add(most);
    let rows: Vec<T> = rows.into_iter().skip(from).take(most).collect();
    Ok(Paged { rows, next_token: more.then(|| (from + most).to_string()) })
}

impl Instance {
    /// Whether it is neither terminated nor on its way there.
    #[must_use]
    pub fn is_there(&self) -> bool {
        !matches!(self.state, InstanceState::ShuttingDown | InstanceState::Terminated)
    }
}
