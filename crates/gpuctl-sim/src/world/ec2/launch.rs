//! New instances: `RunInstances`, `CreateFleet`, launch templates, and client tokens (R4).

use gpuctl_core::offering::{CapacityType, Offering};
use gpuctl_core::units::Timestamp;

use super::throttle::Bucket;
use super::types::{
    CreateFleet, Ec2Error, FleetResult, Instance, InstanceState, LaunchTemplate, MarketOptions,
    RequestState, RunInstances, SpotKind, SpotOptions, SpotRequest,
};
use super::{Ec2, Event, InstanceRecord, Token};

/// What is launched, after defaults and template are applied.
struct Wanted {
    offering: Offering,
    spot: Option<SpotOptions>,
    image_id: String,
    template: Option<String>,
}

impl Ec2 {
    /// Adds a launch template, in place of one with its id, and returns the id.
    pub fn add_template(&mut self, template: LaunchTemplate) -> String {
        let id = template.id.clone();
        self.templates.retain(|one| one.id != id);
        self.templates.push(template);
        id
    }

    /// `RunInstances`.
    ///
    /// # Errors
    /// As EC2.
    pub fn run_instances(
        &mut self,
        now: Timestamp,
        asked: &RunInstances,
    ) -> Result<Vec<Instance>, Ec2Error> {
        self.call(now, Bucket::Run)?;
        if let Some(known) = self.known(asked.client_token.as_ref(), &format!("{asked:?}"))? {
            return Ok(known);
        }
        let wanted = self.wanted(asked)?;
        self.admit(&wanted.offering, asked.count)?;
        let count = asked.count.max(1);
        let launched: Vec<Instance> =
            (0..count).map(|_| self.launch(now, &wanted, asked)).collect();
        self.remember(asked.client_token.as_ref(), format!("{asked:?}"), &launched);
        Ok(launched)
    }

    /// `CreateFleet` of type `instant`: launches what has capacity, in the order of the overrides.
    ///
    /// # Errors
    /// As EC2, if nothing is tried; refusals are in the result.
    pub fn create_fleet(
        &mut self,
        now: Timestamp,
        asked: &CreateFleet,
    ) -> Result<FleetResult, Ec2Error> {
        self.call(now, Bucket::Run)?;
        let fleet_id = format!("fleet-{:032x}", u128::from(self.names.bits()));
        if let Some(instances) = self.known(asked.client_token.as_ref(), &format!("{asked:?}"))? {
            return Ok(FleetResult { fleet_id, instances, errors: Vec::new() });
        }
        let template = self.template(&asked.launch_template)?.clone();
        let anywhere = [(None, None)];
        let overrides = if asked.overrides.is_empty() { &anywhere[..] } else { &asked.overrides };
        let mut result = FleetResult { fleet_id, instances: Vec::new(), errors: Vec::new() };
        for (instance_type, zone) in overrides {
            let market = match asked.market {
                CapacityType::OnDemand => MarketOptions::OnDemand,
                CapacityType::Spot => {
                    MarketOptions::Spot(SpotOptions { kind: SpotKind::OneTime, valid_until: None })
                }
            };
            let one = RunInstances {
                client_token: None,
                launch_template: Some(template.id.clone()),
                image_id: None,
                instance_type: instance_type.clone(),
                zone: zone.clone(),
                market: Some(market),
                count: 1,
                tags: asked.tags.clone(),
                shutdown: super::ShutdownBehaviour::Stop,
            };
            let wanted = self.wanted(&one)?;
            while result.instances.len() < asked.target as usize {
                if let Err(error) = self.admit(&wanted.offering, 1) {
                    let Offering { instance_type, zone, .. } = wanted.offering.clone();
                    result.errors.push((error, instance_type, zone));
                    break;
                }
                result.instances.push(self.launch(now, &wanted, &one));
            }
        }
        self.remember(asked.client_token.as_ref(), format!("{asked:?}"), &result.instances);
        Ok(result)
    }

    /// Launches one instance; quota and capacity are checked before.
    fn launch(&mut self, now: Timestamp, wanted: &Wanted, asked: &RunInstances) -> Instance {
        let id = format!("i-{:017x}", self.names.bits());
        let spot_request_id =
            wanted.spot.as_ref().map(|spot| self.add_request(now, wanted, spot, &id));
        let mut tags = asked.tags.clone();
        if let Some(template) = wanted.template.as_ref().and_then(|name| self.template(name).ok()) {
            for (key, value) in &template.tags {
                tags.entry(key.clone()).or_insert_with(|| value.clone());
            }
            tags.insert("aws:ec2launchtemplate:id".to_owned(), template.id.clone());
            let version = template.version.to_string();
            tags.insert("aws:ec2launchtemplate:version".to_owned(), version);
        }
        let instance = Instance {
            id: id.clone(),
            instance_type: wanted.offering.instance_type.clone(),
            image_id: wanted.image_id.clone(),
            zone: wanted.offering.zone.clone(),
            market: wanted.offering.capacity,
            spot_request_id,
            state: InstanceState::Pending,
            launch_time: now,
            state_reason: None,
            state_transition_reason: String::new(),
            transition_at: now,
            tags,
            shutdown: asked.shutdown,
            client_token: asked.client_token.clone(),
        };
        self.add_instance(now, instance.clone());
        instance
    }

    /// Adds a pending instance and begins its boot.
    pub(super) fn add_instance(&mut self, now: Timestamp, instance: Instance) {
        let lag = self.chance.between(0, self.faults.lag_max.num_milliseconds().max(0));
        let visible_at = now + chrono::TimeDelta::milliseconds(lag);
        let id = instance.id.clone();
        self.instances.insert(id.clone(), InstanceRecord::new(instance, visible_at));
        self.counts.starts += 1;
        self.begin_boot(now, &id);
    }

    fn add_request(
        &mut self,
        now: Timestamp,
        wanted: &Wanted,
        spot: &SpotOptions,
        instance_id: &str,
    ) -> String {
        let id = format!("sir-{:08x}", self.names.bits() & 0xffff_ffff);
        let request = SpotRequest {
            id: id.clone(),
            kind: spot.kind,
            state: RequestState::Active,
            status_code: "fulfilled",
            status_at: now,
            instance_id: Some(instance_id.to_owned()),
            instance_type: wanted.offering.instance_type.clone(),
            zone: wanted.offering.zone.clone(),
            valid_until: spot.valid_until,
            created_at: now,
        };
        self.requests.insert(id.clone(), request);
        if let Some(ends) = spot.valid_until {
            self.schedule(ends, Event::RequestEnds(id.clone()));
        }
        id
    }

    fn wanted(&self, asked: &RunInstances) -> Result<Wanted, Ec2Error> {
        let template = match &asked.launch_template {
            Some(name) => Some(self.template(name)?),
            None => None,
        };
        let missing = |what: &str| {
            let text = format!("The request must contain the parameter {what}");
            Ec2Error::client("MissingParameter", text)
        };
        let instance_type = asked
            .instance_type
            .clone()
            .or_else(|| template.map(|template| template.instance_type.clone()))
            .ok_or_else(|| missing("InstanceType"))?;
        let image_id = asked
            .image_id
            .clone()
            .or_else(|| template.map(|template| template.image_id.clone()))
            .ok_or_else(|| missing("ImageId"))?;
        let market = asked.market.clone().or_else(|| template.map(|one| one.market.clone()));
        let (capacity, spot) = match market {
            Some(MarketOptions::Spot(spot)) => (CapacityType::Spot, Some(spot)),
            Some(MarketOptions::OnDemand) | None => (CapacityType::OnDemand, None),
        };
        let zone = match &asked.zone {
            Some(zone) if self.settings.zones.contains(zone) => zone.clone(),
            Some(zone) => {
                let text = format!("Invalid availability zone: [{zone}]");
                return Err(Ec2Error::client("InvalidParameterValue", text));
            }
            None => self.any_zone(&instance_type, capacity),
        };
        let offering = Offering { instance_type, zone, capacity };
        Ok(Wanted { offering, spot, image_id, template: asked.launch_template.clone() })
    }

    /// The first zone with capacity, or the first zone.
    fn any_zone(&self, instance_type: &str, capacity: CapacityType) -> String {
        let there = |zone: &&String| {
            let instance_type = instance_type.to_owned();
            self.has_capacity(&Offering { instance_type, zone: (*zone).clone(), capacity })
        };
        let zones = &self.settings.zones;
        zones.iter().find(there).or_else(|| zones.first()).cloned().unwrap_or_default()
    }

    /// A launch template, by id or name.
    ///
    /// # Errors
    /// If there is none.
    pub fn template(&self, name: &str) -> Result<&LaunchTemplate, Ec2Error> {
        let text =
            format!("The specified launch template, with template ID {name}, does not exist.");
        self.templates
            .iter()
            .find(|template| template.id == name || template.name == name)
            .ok_or_else(|| Ec2Error::client("InvalidLaunchTemplateId.NotFound", text))
    }

    /// The instances of an earlier call with this token.
    fn known(
        &self,
        token: Option<&String>,
        asked: &str,
    ) -> Result<Option<Vec<Instance>>, Ec2Error> {
        let Some(known) = token.and_then(|token| self.tokens.get(token)) else { return Ok(None) };
        if known.asked != asked {
            let text = "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).";
            return Err(Ec2Error::client("IdempotentParameterMismatch", text));
        }
        let alive =
            known.ids.iter().filter_map(|id| self.instance(id)).filter(|one| one.is_there());
        let alive: Vec<Instance> = alive.cloned().collect();
        if alive.is_empty() {
            let text = "The request cannot be completed because the resources associated with this client token have been terminated.";
            return Err(Ec2Error::client("IdempotentInstanceTerminated", text));
        }
        Ok(Some(alive))
    }

    fn remember(&mut self, token: Option<&String>, asked: String, launched: &[Instance]) {
        // A call that launched nothing may be repeated.
        if let Some(token) = token.filter(|_| !launched.is_empty()) {
            let ids = launched.iter().map(|one| one.id.clone()).collect();
            self.tokens.insert(token.clone(), Token { asked, ids });
        }
    }
}
