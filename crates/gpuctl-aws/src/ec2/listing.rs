//! Reads the boxes of all pools: by id and by tag, a page of a thousand at a time, and the spot requests of those that have one.
//!
//! A box that is named and not found is shown as one that cannot be started, and reported: it hides no other (S5).

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::{Filter, Instance};
use gpuctl_control::ports::{Listing, PortError, PortErrorClass};
use gpuctl_core::observation::{BoxState, SeenBox};
use gpuctl_core::offering::{ANY_ZONE, Offering};
use gpuctl_core::policy::{Boxes, LaunchTemplate, Policy, Pool};
use gpuctl_core::units::{BoxId, Timestamp};

use super::seen::{self, Requests};
use super::{Ec2Cloud, Known, Last, failed};
use crate::calls::show;

/// Rows that one call may answer with: the most that EC2 gives.
const PAGE_ROWS_MAX: i32 = 1_000;
/// Values of one filter: EC2's limit.
const FILTER_VALUES_MAX: usize = 200;

impl Ec2Cloud {
    pub(super) async fn list(&self, policy: &Policy) -> Result<(Listing, Last), PortError> {
        let mut instances: BTreeMap<String, Instance> = BTreeMap::new();
        for filters in filters(policy) {
            for instance in self.describe(filters).await? {
                if let Some(id) = instance.instance_id() {
                    instances.insert(id.to_owned(), instance);
                }
            }
        }
        let requests = self.requests(instances.values()).await?;
        let mut listed = Listed {
            requests,
            now: self.clock.now(),
            region: &self.region,
            listing: Listing::default(),
            last: Last::default(),
        };
        for pool in &policy.pools {
            listed.pool(pool, &instances);
        }
        Ok((listed.listing, listed.last))
    }

    pub(super) async fn describe(&self, filters: Vec<Filter>) -> Result<Vec<Instance>, PortError> {
        show(format_args!("ec2 describe-instances --filters {}", words(&filters)));
        let call = self.client.describe_instances().set_filters(Some(filters));
        let mut pages = call.into_paginator().page_size(PAGE_ROWS_MAX).send();
        let mut all = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| {
                failed("ec2:DescribeInstances", "the boxes cannot be read".to_owned(), error)
            })?;
            let reservations = page.reservations.unwrap_or_default();
            all.extend(reservations.into_iter().filter_map(|one| one.instances).flatten());
        }
        Ok(all)
    }

    async fn requests(
        &self,
        instances: impl Iterator<Item = &Instance>,
    ) -> Result<Requests, PortError> {
        let ids: BTreeSet<String> =
            instances.filter_map(|one| one.spot_instance_request_id().map(str::to_owned)).collect();
        let mut all = Requests::new();
        let ids: Vec<String> = ids.into_iter().collect();
        for some in ids.chunks(FILTER_VALUES_MAX) {
            let shown = some.join(",");
            show(format_args!(
                "ec2 describe-spot-instance-requests --filters Name=spot-instance-request-id,Values={shown}"
            ));
            let call = self.client.describe_spot_instance_requests();
            let call = call.filters(filter("spot-instance-request-id", some.to_vec()));
            let answer = call.send().await.map_err(|error| {
                let what = "the spot requests cannot be read".to_owned();
                failed("ec2:DescribeSpotInstanceRequests", what, error)
            })?;
            for request in answer.spot_instance_requests.unwrap_or_default() {
                if let Some(id) = request.spot_instance_request_id() {
                    all.insert(id.to_owned(), request);
                }
            }
        }
        Ok(all)
    }
}

/// The calls that see every pool: one for all ids, one for each tag key that a single tag of theirs selects by, and one for each
/// pool that is selected by several tags.
fn filters(policy: &Policy) -> Vec<Vec<Filter>> {
    let mut ids: Vec<String> = Vec::new();
    let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut calls: Vec<Vec<Filter>> = Vec::new();
    for pool in &policy.pools {
        match &pool.boxes {
            Some(Boxes::Instances(of_pool)) => ids.extend(of_pool.iter().cloned()),
            Some(Boxes::Select(tags)) if tags.len() > 1 => {
                let of_tag = |(key, value): (&String, &String)| by_tag(key, vec![value.clone()]);
                calls.push(tags.iter().map(of_tag).collect());
            }
            Some(Boxes::Select(tags)) => {
                for (key, value) in tags {
                    by_key.entry(key.clone()).or_default().push(value.clone());
                }
            }
            Some(Boxes::Launch(_)) => {
                by_key.entry(seen::POOL_TAG.to_owned()).or_default().push(pool.id.to_string());
            }
            None => {}
        }
    }
    let chunks = ids.chunks(FILTER_VALUES_MAX);
    calls.extend(chunks.map(|some| vec![filter("instance-id", some.to_vec())]));
    for (key, values) in by_key {
        calls
            .extend(values.chunks(FILTER_VALUES_MAX).map(|some| vec![by_tag(&key, some.to_vec())]));
    }
    calls
}

pub(super) fn by_tag(key: &str, values: Vec<String>) -> Filter {
    filter(&format!("tag:{key}"), values)
}

pub(super) fn filter(name: &str, values: Vec<String>) -> Filter {
    Filter::builder().name(name).set_values(Some(values)).build()
}

/// The filters as the AWS CLI takes them.
fn words(filters: &[Filter]) -> String {
    let word = |filter: &Filter| {
        format!("Name={},Values={}", filter.name().unwrap_or_default(), filter.values().join(","))
    };
    filters.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// A listing in the making.
struct Listed<'a> {
    requests: Requests,
    now: Timestamp,
    region: &'a str,
    listing: Listing,
    last: Last,
}

impl Listed<'_> {
    fn pool(&mut self, pool: &Pool, instances: &BTreeMap<String, Instance>) {
        let boxes = match &pool.boxes {
            Some(Boxes::Instances(ids)) => {
                ids.iter().map(|id| self.named(pool, id, instances.get(id))).collect()
            }
            Some(Boxes::Select(tags)) => {
                let has = |one: &&Instance| {
                    tags.iter().all(|(key, value)| seen::tag(one, key) == Some(value.as_str()))
                };
                let selected = instances.values().filter(has).filter(|one| !seen::is_gone(one));
                selected.filter_map(|one| self.instance(pool, one.instance_id()?, one)).collect()
            }
            Some(Boxes::Launch(template)) => self.places(pool, template, instances),
            None => Vec::new(),
        };
        self.listing.pools.insert(pool.id.clone(), boxes);
    }

    fn named(&mut self, pool: &Pool, id: &str, instance: Option<&Instance>) -> SeenBox {
        if let Some(one) = instance.and_then(|instance| self.instance(pool, id, instance)) {
            return one;
        }
        let text = format!("there is no box {id} in {} for pool {}", self.region, pool.id);
        self.listing.errors.push(PortError::new(PortErrorClass::NotFound, text).hint(
            "look at its id, and whether account and region are the right ones; a terminated box vanishes after an hour",
        ));
        let box_id = id.parse().expect("an instance id is a name");
        SeenBox {
            unstartable: Some(format!("is not known to EC2 in {}", self.region)),
            ..SeenBox::new(box_id, BoxState::Stopped, self.now)
        }
    }

    fn instance(&mut self, pool: &Pool, name: &str, instance: &Instance) -> Option<SeenBox> {
        let box_id: BoxId = name.parse().ok()?;
        let request = seen::request(instance, &self.requests);
        if let Some(request) = request.filter(|request| seen::is_left_behind(instance, request)) {
            self.last.left_behind.extend(request.spot_instance_request_id().map(str::to_owned));
        }
        let known = Known {
            instance: instance.instance_id()?.to_owned(),
            request: instance.spot_instance_request_id().map(str::to_owned),
            is_one_time: request.is_some_and(seen::is_one_time),
            is_launched: matches!(pool.boxes, Some(Boxes::Launch(_))),
        };
        self.last.boxes.insert(box_id.clone(), known);
        let one = seen::seen(box_id, instance, &self.requests, self.now);
        Some(settle(pool, one, self.now))
    }

    /// The places of a pool whose boxes are launched: for each way to buy one `boxes_max` of them, filled or free.
    fn places(
        &mut self,
        pool: &Pool,
        template: &LaunchTemplate,
        instances: &BTreeMap<String, Instance>,
    ) -> Vec<SeenBox> {
        let of_pool = |one: &&Instance| seen::tag(one, seen::POOL_TAG) == Some(pool.id.as_str());
        let mut mine: Vec<&Instance> = instances.values().filter(of_pool).collect();
        // The living first, then the one that ended last: it says how the last run in this place ended.
        mine.sort_by_key(|one| (seen::is_gone(one), one.launch_time().map(|at| -at.secs())));
        let mut all = Vec::new();
        for name in place_names(pool) {
            let at =
                mine.iter().position(|one| seen::tag(one, seen::BOX_TAG) == Some(name.0.as_str()));
            let filled = at.and_then(|at| self.instance(pool, name.0.as_str(), mine.remove(at)));
            let free = filled.as_ref().is_none_or(|one| one.state == BoxState::Stopped);
            if free {
                self.last.free.insert(name.0.clone());
            }
            let one = filled.unwrap_or_else(|| {
                SeenBox::new(name.0.clone(), BoxState::Stopped, Timestamp::UNIX_EPOCH)
            });
            let wish = Offering {
                instance_type: template.instance_types.first().cloned().unwrap_or_default(),
                zone: ANY_ZONE.to_owned(),
                capacity: name.1,
            };
            let offering = if free { Some(wish) } else { one.offering.clone() };
            all.push(SeenBox { offering, unstartable: None, foreign: None, ..one });
        }
        // More than one in a place: an order that was carried out twice. Each is a box, and is let go as such.
        let living: Vec<&Instance> = mine.into_iter().filter(|one| !seen::is_gone(one)).collect();
        all.extend(
            living.into_iter().filter_map(|one| self.instance(pool, one.instance_id()?, one)),
        );
        all
    }
}

/// The names of a pool's places, and how each is bought.
fn place_names(pool: &Pool) -> Vec<(BoxId, gpuctl_core::offering::CapacityType)> {
    let of = |capacity: &gpuctl_core::offering::CapacityType| {
        let capacity = *capacity;
        (1..=pool.boxes_max.get()).filter_map(move |index| {
            Some((format!("{}-{capacity}-{index}", pool.id).parse().ok()?, capacity))
        })
    };
    pool.capacity.iter().flat_map(of).collect()
}

/// A box whose program says nothing counts as ready once a boot's time is over.
fn settle(pool: &Pool, one: SeenBox, now: Timestamp) -> SeenBox {
    let silent = pool.queue().is_some_and(|queue| !queue.reports);
    if !silent || one.state != BoxState::Running {
        return one;
    }
    let ready_at = one.since + pool.boot_default;
    if ready_at > now {
        return SeenBox { state: BoxState::Pending, ..one };
    }
    SeenBox { since: ready_at, ..one }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pools_are_seen_with_one_call_for_ids_and_one_for_each_tag_key() {
        let mut text = "[cloud]\nkind = \"aws\"\n".to_owned();
        for n in 0..30 {
            text += &format!("[pool.a{n}]\ninstances = [\"i-0123456789abcd{n:03}\"]\n");
            text += &format!("[pool.b{n}]\nselect = {{ role = \"b{n}\" }}\n");
            text += &format!(
                "[pool.c{n}]\nlaunch_template = \"t\"\ninstance_types = [\"g4dn.xlarge\"]\n"
            );
        }
        assert_eq!(filters(&Policy::parse(&text).unwrap()).len(), 3);
    }

    #[test]
    fn a_launched_pool_has_places_for_each_way_to_buy() {
        let text = "[cloud]\nkind = \"aws\"\n[pool.gpu]\nlaunch_template = \"t\"\n\
            instance_types = [\"g4dn.xlarge\"]\nboxes_max = 2";
        let policy = Policy::parse(text).unwrap();
        let names: Vec<String> =
            place_names(&policy.pools[0]).into_iter().map(|(id, _)| id.to_string()).collect();
        assert_eq!(names, ["gpu-spot-1", "gpu-spot-2", "gpu-on-demand-1", "gpu-on-demand-2"]);
    }
}
