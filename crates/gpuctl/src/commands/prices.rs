//! `cost prices`: the known prices; with `--refresh` today's from AWS, kept in the state folder.

use gpuctl_core::cost::{CostSettings, Price};

use crate::arguments::PricesArguments;
use crate::context::Context;
use crate::documents::reply::{PriceDocument, PricesDocument};
use crate::failure::{Code, Failure};
use crate::render::Output;

/// `gpuctl cost prices`.
pub(super) fn known(policy: &CostSettings, wanted: &PricesArguments) -> Result<Output, Failure> {
    let fits = |price: &&Price| {
        (wanted.instance_type.is_empty() || wanted.instance_type.contains(&price.instance_type))
            && wanted.region.as_ref().is_none_or(|region| price.region == *region)
    };
    let mut prices: Vec<&Price> = policy.prices.prices().filter(fits).collect();
    if prices.is_empty() {
        return Err(Failure::new(Code::PriceUnknown, "no price is known for this selection")
            .hint("`gpuctl cost prices --refresh` with the same flags fetches them from AWS"));
    }
    prices.sort_by_key(|price| (&price.instance_type, &price.region));
    Ok(Output::Prices(PricesDocument {
        prices: prices.into_iter().map(PriceDocument::of).collect(),
        kept_in: None,
    }))
}

/// `gpuctl cost prices --refresh`.
#[cfg(not(feature = "aws"))]
#[expect(clippy::unused_async, reason = "with AWS it asks")]
pub(super) async fn refresh(_: &Context, _: &PricesArguments) -> Result<Output, Failure> {
    Err(crate::backend::without_aws())
}

#[cfg(feature = "aws")]
pub(super) use on_aws::{refresh, types};

#[cfg(feature = "aws")]
mod on_aws {
    use std::collections::{BTreeMap, BTreeSet};

    use gpuctl_aws::{Aws, fetch_prices};
    use gpuctl_control::prices;
    use gpuctl_core::cost::region_of;
    use gpuctl_core::policy::{Boxes, Policy};

    use super::*;

    /// Types by their regions.
    pub(in super::super) type Types = BTreeMap<String, BTreeSet<String>>;

    /// `gpuctl cost prices --refresh`: all prices that were asked for, or none is changed.
    pub(in super::super) async fn refresh(
        context: &Context,
        wanted: &PricesArguments,
    ) -> Result<Output, Failure> {
        let policy = &context.config.policy;
        let aws = connect(policy).await?;
        // Where boxes are on this machine, this is the region that they are compared with.
        let region = wanted.region.as_deref().unwrap_or(aws.region());
        let types = if !wanted.instance_type.is_empty() {
            Types::from([(region.to_owned(), wanted.instance_type.iter().cloned().collect())])
        } else {
            let mut types = types(context, region).await?;
            types.retain(|known, _| wanted.region.as_ref().is_none_or(|only| known == only));
            types
        };
        if types.is_empty() {
            return Err(Failure::new(
                Code::PriceUnknown,
                format!("the configuration names no instance type in {region}"),
            )
            .hint("name them with --instance-type"));
        }
        let today = context.now().date_naive();
        let mut fetched = Vec::new();
        for (region, types) in &types {
            fetched.extend(fetch_prices(&aws, region, types, today).await?);
        }
        let documents = fetched.iter().map(PriceDocument::of).collect();
        let table = policy.cost.prices.renewed(fetched);
        let kept = prices::write(&context.config.state, &table).map_err(|error| {
            Failure::new(Code::FileUnwritable, "the prices were fetched but could not be saved")
                .because(&error)
        })?;
        Ok(Output::Prices(PricesDocument {
            prices: documents,
            kept_in: Some(kept.display().to_string()),
        }))
    }

    /// The account of the policy; where boxes are on this machine, the environment's.
    async fn connect(policy: &Policy) -> Result<Aws, Failure> {
        let named = policy.cloud.aws.as_ref();
        let region = match named {
            Some(named) => named.region.as_deref(),
            None => Some(policy.cost.region.as_str()),
        };
        Ok(Aws::connect(region, named.and_then(|named| named.profile.as_deref())).await?)
    }

    /// The instance types of the policy's boxes, existing or possible, by region, and the one that costs are compared with.
    pub(in super::super) async fn types(context: &Context, region: &str) -> Result<Types, Failure> {
        let policy = &context.config.policy;
        let mut types = Types::new();
        let mut add = |region: &str, kind: &str| {
            types.entry(region.to_owned()).or_default().insert(kind.to_owned());
        };
        add(&policy.cost.region, &policy.cost.instance_type);
        for pool in &policy.pools {
            if let Some(Boxes::Launch(template)) = &pool.boxes {
                template.instance_types.iter().for_each(|kind| add(region, kind));
            }
        }
        if policy.cloud.aws.is_some() {
            let seen = context.ports.cloud.boxes(policy).await?;
            let offerings = seen.pools.values().flatten().filter_map(|one| one.offering.as_ref());
            for offering in offerings.filter(|offering| !offering.is_unplaced()) {
                add(region_of(&offering.zone), &offering.instance_type);
            }
        }
        Ok(types)
    }
}
