//! Lists the boxes of all pools: by id and by tag, a page of a thousand at a time, and the spot requests of those that have one.
//!
//! A box that is named and not found is listed as one that cannot be started, and reported; the others are not affected (S5).
//! What an instance means is read in `seen`.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, Instance};
use gpuctl_control::ports::{Listing, PortError, PortErrorClass};
use gpuctl_core::observation::{BoxState, SeenBox};
use gpuctl_core::offering::{ANY_ZONE, CapacityType, Offering};
use gpuctl_core::policy::{Boxes, LaunchTemplate, Policy, Pool, Work};
use gpuctl_core::units::{BoxId, Timestamp};
use tokio::task::JoinSet;

use super::seen::{self, Requests};
use super::{Ec2Cloud, Known, LastListing, failed, outdated};
use crate::calls::show;

/// Rows in one page: the most that EC2 returns.
const PAGE_ROWS_MAX: i32 = 1_000;
/// Values in one filter: EC2's limit.
pub(super) const FILTER_VALUES_MAX: usize = 200;

impl Ec2Cloud {
    /// Lists the boxes of all pools; also returns what later calls need to know about them.
    pub(super) async fn list(&self) -> Result<(Listing, LastListing), PortError> {
        let mut calls = JoinSet::new();
        for filters in filters(&self.policy) {
            calls.spawn(describe(self.client.clone(), filters));
        }
        let mut instances: BTreeMap<String, Instance> = BTreeMap::new();
        for found in calls.join_all().await {
            let found = found?.into_iter();
            let with_id = found.filter_map(|one| Some((one.instance_id()?.to_owned(), one)));
            instances.extend(with_id);
        }
        let requests = self.requests(instances.values()).await?;
        let mut listed = Listed {
            requests,
            region: &self.region,
            listing: Listing::default(),
            last: LastListing::default(),
            unclear: false,
        };
        for pool in &self.policy.pools {
            listed.pool(pool, &instances);
        }
        Ok((listed.listing, listed.last))
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
            let output = call.send().await.map_err(|error| {
                let what = "the spot requests cannot be read".to_owned();
                failed("ec2:DescribeSpotInstanceRequests", what, error)
            })?;
            for request in output.spot_instance_requests.unwrap_or_default() {
                if let Some(id) = request.spot_instance_request_id() {
                    all.insert(id.to_owned(), request);
                }
            }
        }
        Ok(all)
    }
}

/// The instances that match.
pub(super) async fn describe(
    client: Client,
    filters: Vec<Filter>,
) -> Result<Vec<Instance>, PortError> {
    show(format_args!("ec2 describe-instances --filters {}", cli_words(&filters)));
    let call = client.describe_instances().set_filters(Some(filters));
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

/// The filters of the calls that list every pool: one call for all ids, one for each tag key by which pools with a single tag are
/// selected, and one for each pool that is selected by several tags.
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

/// EC2 does not know this box: `NotFound`, and no other call is of use.
pub(super) fn no_box(id: &str, region: &str) -> PortError {
    PortError::new(PortErrorClass::NotFound, format!("there is no box {id} in {region}")).hint(
        "check its id, and whether account and region are the right ones; EC2 forgets a terminated box after an hour",
    )
}

/// The filters as arguments of the AWS CLI.
fn cli_words(filters: &[Filter]) -> String {
    let word = |filter: &Filter| {
        format!("Name={},Values={}", filter.name().unwrap_or_default(), filter.values().join(","))
    };
    filters.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// A listing while it is put together, pool by pool.
struct Listed<'a> {
    requests: Requests,
    region: &'a str,
    listing: Listing,
    last: LastListing,
    /// Whether a box of the pool cannot be read, and so the pool.
    unclear: bool,
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
                let (gone, there): (Vec<&Instance>, Vec<&Instance>) =
                    instances.values().filter(has).partition(|one| seen::is_terminated(one));
                self.gone(pool, &gone);
                let boxes = there.into_iter();
                boxes.filter_map(|one| self.instance(pool, one.instance_id()?, one)).collect()
            }
            Some(Boxes::Launch(template)) => self.slots(pool, template, instances),
            None => Vec::new(),
        };
        if !std::mem::take(&mut self.unclear) {
            self.listing.pools.insert(pool.id.clone(), boxes);
        }
    }

    /// Lists terminated boxes, for what they have cost.
    fn gone(&mut self, pool: &Pool, instances: &[&Instance]) {
        let seen =
            |one: &&Instance| seen::seen_box(one.instance_id()?.parse().ok()?, one, &self.requests);
        let gone = instances.iter().filter_map(seen).collect();
        self.listing.gone.insert(pool.id.clone(), gone);
    }

    fn named(&mut self, pool: &Pool, id: &str, instance: Option<&Instance>) -> SeenBox {
        if let Some(instance) = instance {
            if let Some(one) = self.instance(pool, id, instance) {
                return one;
            }
        } else {
            let no_box = no_box(id, self.region);
            let text = format!("{} for pool {}", no_box.what, pool.id);
            self.listing.errors.push(PortError { what: text, ..no_box });
        }
        let box_id = id.parse().expect("an instance id is a name");
        SeenBox {
            unstartable: Some(format!("is not known to EC2 in {}", self.region)),
            since_is_bound: true,
            ..SeenBox::new(box_id, BoxState::Stopped, Timestamp::UNIX_EPOCH)
        }
    }

    fn instance(&mut self, pool: &Pool, name: &str, instance: &Instance) -> Option<SeenBox> {
        let box_id: BoxId = name.parse().ok()?;
        let request = seen::request(instance, &self.requests);
        if let Some(request) = request.filter(|request| seen::is_orphaned(instance, request)) {
            let id = request.spot_instance_request_id().map(str::to_owned);
            self.last.orphaned_requests.extend(id);
        }
        let known = Known {
            instance_id: instance.instance_id()?.to_owned(),
            request_id: instance.spot_instance_request_id().map(str::to_owned),
            is_one_time: request.is_some_and(seen::is_one_time),
            request_ends: request.and_then(seen::request_ends),
            is_launched: matches!(pool.boxes, Some(Boxes::Launch(_))),
            origin: outdated::Origin::of(instance),
            drains_itself: drains_itself(pool, instance),
            told_to_drain: seen::is_told_to_drain(instance),
        };
        self.last.boxes.insert(box_id.clone(), known);
        let seen = seen::seen_box(box_id, instance, &self.requests);
        if seen.is_none() {
            self.unclear = true;
            let text = format!("EC2 does not say since when box {name} of pool {} is up", pool.id);
            self.listing.errors.push(PortError::new(PortErrorClass::Unavailable, text));
        }
        seen
    }

    /// The slots of a pool whose boxes are launched: `boxes_max` for each capacity type, each with its box or free.
    fn slots(
        &mut self,
        pool: &Pool,
        template: &LaunchTemplate,
        instances: &BTreeMap<String, Instance>,
    ) -> Vec<SeenBox> {
        // A launch tags its box with its slot too. What has only the pool's name is kept by someone, e.g. another stack: never a surplus box.
        let of_pool = |one: &&Instance| {
            seen::tag(one, seen::POOL_TAG) == Some(pool.id.as_str())
                && seen::tag(one, seen::BOX_TAG).is_some()
        };
        let mut mine: Vec<&Instance> = instances.values().filter(of_pool).collect();
        // Boxes that exist first, then the one that was terminated last: it says how the slot's last run ended.
        mine.sort_by_key(|one| (seen::is_terminated(one), one.launch_time().map(|at| -at.secs())));
        let mut all = Vec::new();
        for slot in slots_of(pool) {
            let index =
                mine.iter().position(|one| seen::tag(one, seen::BOX_TAG) == Some(slot.id.as_str()));
            let filled =
                index.and_then(|index| self.instance(pool, slot.id.as_str(), mine.remove(index)));
            let is_free = filled.as_ref().is_none_or(|one| one.state == BoxState::Stopped);
            if is_free {
                self.last.free_slots.insert(slot.id.clone());
            }
            let one = filled
                .unwrap_or_else(|| SeenBox::new(slot.id, BoxState::Stopped, Timestamp::UNIX_EPOCH));
            let unplaced = Offering {
                instance_type: template.instance_types.first().cloned().unwrap_or_default(),
                zone: ANY_ZONE.to_owned(),
                capacity: slot.capacity,
            };
            let offering = if is_free { Some(unplaced) } else { one.offering.clone() };
            all.push(SeenBox { offering, unstartable: None, foreign: None, ..one });
        }
        // A second box in one slot comes from an order that was carried out twice. It is listed by its instance id, and stopped
        // as a surplus box.
        let surplus = mine.into_iter().filter(|one| !seen::is_terminated(one));
        all.extend(surplus.filter_map(|one| self.instance(pool, one.instance_id()?, one)));
        all
    }
}

/// Whether the box's worker sees that it is told to drain, and ends the box afterwards.
fn drains_itself(pool: &Pool, instance: &Instance) -> bool {
    let has_worker = matches!(&pool.work, Work::Queue(queue) if queue.reports);
    has_worker && seen::is_running(instance)
}

/// A slot of a pool whose boxes are launched: the name of a box that may not exist, and how it is bought.
struct Slot {
    id: BoxId,
    capacity: CapacityType,
}

/// The slots of a pool in its order of capacity types, e.g. `gpu-spot-1`, `gpu-on-demand-1`.
fn slots_of(pool: &Pool) -> Vec<Slot> {
    let of_type = |capacity: CapacityType| {
        (1..=pool.boxes_max.get()).filter_map(move |number| {
            let id = format!("{}-{capacity}-{number}", pool.id).parse().ok()?;
            Some(Slot { id, capacity })
        })
    };
    pool.capacity.iter().copied().flat_map(of_type).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pools_are_listed_with_one_call_for_ids_and_one_for_each_tag_key() {
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
    fn r1_a_terminated_box_is_listed_for_what_it_cost_and_for_nothing_else() {
        use aws_sdk_ec2::types::{InstanceState, InstanceStateName, InstanceType, Placement, Tag};
        let text = "[cloud]\nkind = \"aws\"\n[pool.gpu]\nselect = { role = \"gpu\" }";
        let policy = Policy::parse(text).unwrap();
        let terminated = Instance::builder()
            .instance_id("i-1")
            .instance_type(InstanceType::from("g4dn.xlarge"))
            .placement(Placement::builder().availability_zone("us-east-1a").build())
            .tags(Tag::builder().key("role").value("gpu").build())
            .launch_time(aws_sdk_ec2::primitives::DateTime::from_secs(1_800_000_000))
            .state(InstanceState::builder().name(InstanceStateName::Terminated).build())
            .state_transition_reason("User initiated (2027-01-15 09:00:00 GMT)")
            .build();
        let mut listed = Listed {
            requests: Requests::new(),
            region: "us-east-1",
            listing: Listing::default(),
            last: LastListing::default(),
            unclear: false,
        };
        listed.pool(&policy.pools[0], &[("i-1".to_owned(), terminated)].into());
        assert_eq!(listed.listing.pools[&policy.pools[0].id], []);
        let [gone] = listed.listing.gone[&policy.pools[0].id].as_slice() else { panic!("one") };
        assert_eq!((gone.state, gone.since_is_bound), (BoxState::Stopped, false));
        assert_eq!((gone.since - gone.run_started_at.unwrap()).num_minutes(), 60);
    }

    #[test]
    fn a_launched_pool_has_slots_for_each_capacity_type() {
        let text = "[cloud]\nkind = \"aws\"\n[pool.gpu]\nlaunch_template = \"t\"\n\
            instance_types = [\"g4dn.xlarge\"]\nboxes_max = 2";
        let policy = Policy::parse(text).unwrap();
        let names: Vec<String> =
            slots_of(&policy.pools[0]).into_iter().map(|slot| slot.id.to_string()).collect();
        assert_eq!(names, ["gpu-spot-1", "gpu-spot-2", "gpu-on-demand-1", "gpu-on-demand-2"]);
    }
}
