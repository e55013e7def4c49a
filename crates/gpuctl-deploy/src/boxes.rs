//! Kept boxes: made from the stack's launch templates, and stopped once their first boot is over, so that later starts find warm disks.

use std::time::Duration;

use chrono::TimeDelta;
use gpuctl_control::ports::PortErrorClass;
use tokio::time::Instant;

use crate::deploy::output;
use crate::files::MODELS;
use crate::follow::pause;
use crate::ports::{BoxOrder, Stack, StackBox, TEMPLATE_TAG};
use crate::template::{Resource, Template, Values};
use crate::trouble::{Kind, Trouble};
use crate::{Site, all_values};

/// How many boxes of a launch template are kept: one, if its boxes are stopped by their own shutdown; those that are terminated by it are
/// launched when there is work.
pub(crate) fn kept(template: &Template, one: Resource<'_>, values: &Values) -> i64 {
    let behaviour = &one.property("LaunchTemplateData")["InstanceInitiatedShutdownBehavior"];
    i64::from(template.value(behaviour, values).as_deref() == Some("stop"))
}

/// The launch templates whose boxes are kept: names, and the tags of their boxes.
fn kept_templates(template: &Template, values: &Values) -> Vec<(String, Values)> {
    let of_boxes = |one: &Resource<'_>| {
        one.kind == "AWS::EC2::LaunchTemplate" && kept(template, *one, values) > 0
    };
    let named = |one: Resource<'_>| {
        let name = template.value(one.property("LaunchTemplateName"), values)?;
        let mut tags = instance_tags(template, one, values);
        tags.insert(TEMPLATE_TAG.to_owned(), name.clone());
        Some((name, tags))
    };
    template.resources(values).filter(of_boxes).filter_map(named).collect()
}

fn instance_tags(template: &Template, one: Resource<'_>, values: &Values) -> Values {
    let specifications = one.property("LaunchTemplateData")["TagSpecifications"].as_array();
    let of_instance =
        specifications.into_iter().flatten().filter(|one| one["ResourceType"] == "instance");
    let tags = of_instance.flat_map(|one| one["Tags"].as_array().into_iter().flatten());
    let text = |value| template.value(value, values);
    tags.filter_map(|tag| Some((text(&tag["Key"])?, text(&tag["Value"])?))).collect()
}

/// Makes the kept boxes that are missing, and waits until each has booted for the first time and stopped.
///
/// # Errors
/// When one cannot be made; when one does not stop by itself in time, after it was stopped.
pub(crate) async fn make_kept(
    site: &Site<'_>,
    (template, name): (&Template, &str),
    stack: &Stack,
    first_boot_max: TimeDelta,
) -> Result<Vec<String>, Trouble> {
    let values = all_values(template, &stack.parameters, name, site.account.region());
    let is_up = |one: &StackBox| !matches!(one.state.as_str(), "terminated" | "shutting-down");
    let there: Vec<StackBox> = site.account.boxes(name).await?.into_iter().filter(is_up).collect();
    let mut made = Vec::new();
    let app = values
        .get("AppPool")
        .filter(|_| values.get("Layout").is_some_and(|one| one == "gpu-and-app"));
    let is_app = |tags: &Values| app.is_some() && tags.get("gpuctl:pool") == app;
    let is_there = |name: &str| there.iter().any(|one| one.template.as_deref() == Some(name));
    let mut missing = kept_templates(template, &values);
    missing.retain(|(name, _)| !is_there(name));
    if missing.iter().any(|(_, tags)| !is_app(tags)) {
        check_models(site, stack).await?;
    }
    for (wanted, tags) in missing {
        let id = make(site, stack, &wanted, &tags).await?;
        site.show.note(&format!(
            "made box {id} from launch template {wanted}; it boots for the first time"
        ));
        made.push((id, is_app(&tags)));
    }
    give_address(site, stack, &values, &made).await?;
    // An app box has no worker that would stop it: the function does, unless its schedule wants it up.
    for (id, _) in made.iter().filter(|(_, is_app)| !is_app) {
        first_boot(site, name, id, first_boot_max).await?;
    }
    Ok(made.into_iter().map(|(id, _)| id).collect())
}

/// A GPU box without models powers itself off at its first boot, and would only have cost money.
async fn check_models(site: &Site<'_>, stack: &Stack) -> Result<(), Trouble> {
    let bucket = output(stack, "Bucket")?;
    if site.account.has(&bucket, MODELS).await? {
        return Ok(());
    }
    let what = format!("s3://{bucket}/{MODELS} has no models: no GPU box was made");
    Err(Trouble::new(Kind::Blocked, what).hint(
        "the stack is complete; `gpuctl deploy --models FOLDER` uploads models, and makes the box",
    ))
}

/// The stack's Elastic IP goes to the box with the app.
async fn give_address(
    site: &Site<'_>,
    stack: &Stack,
    values: &Values,
    made: &[(String, bool)],
) -> Result<(), Trouble> {
    let Some(address) = stack.outputs.get("AppAddressId") else { return Ok(()) };
    let is_one = values.get("Layout").is_some_and(|layout| layout == "one-box");
    match made.iter().find(|(_, is_app)| *is_app || is_one) {
        Some((id, _)) => Ok(site.account.give_address(id, address).await?),
        None => Ok(()),
    }
}

/// Makes one box in the first of the stack's subnets that has room.
async fn make(
    site: &Site<'_>,
    stack: &Stack,
    template: &str,
    tags: &Values,
) -> Result<String, Trouble> {
    let subnets = stack.outputs.get("Subnets").map(String::as_str).unwrap_or_default();
    let subnets: Vec<&str> = subnets.split(',').filter(|subnet| !subnet.is_empty()).collect();
    let mut refused = None;
    for (index, subnet) in subnets.iter().enumerate() {
        let order = BoxOrder {
            template: template.to_owned(),
            subnet: Some((*subnet).to_owned()),
            tags: tags.clone(),
            // A repeated order makes one box; a stack that was made again is another stack, with another id.
            token: format!("{}/{template}/{index}", stack.id),
        };
        let mut made = site.account.make_box(&order).await;
        if made.as_ref().is_err_and(|error| error.class == PortErrorClass::Conflict) {
            // The box of this order was terminated since: another order.
            let token = format!("{}/{}", order.token, site.account.now().timestamp());
            made = site.account.make_box(&BoxOrder { token, ..order }).await;
        }
        match made {
            Ok(id) => return Ok(id),
            Err(error) if matches!(error.class, PortErrorClass::Refused(_)) => {
                refused = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    let refused = refused.map(Trouble::from).unwrap_or_else(|| {
        Trouble::new(Kind::Failed, "the stack has no output `Subnets`: boxes cannot be placed")
    });
    Err(refused.hint("the stack is complete without the box: run `gpuctl deploy` again later, or set GpuMarket to on-demand"))
}

/// Waits until the box has stopped itself, which it does when its worker finds no job.
async fn first_boot(
    site: &Site<'_>,
    name: &str,
    id: &str,
    first_boot_max: TimeDelta,
) -> Result<(), Trouble> {
    let until = Instant::now() + first_boot_max.to_std().unwrap_or(Duration::ZERO);
    let mut looks = 0;
    loop {
        let boxes = site.account.boxes(name).await?;
        match boxes.iter().find(|one| one.id == id).map(|one| one.state.as_str()) {
            Some("stopped") => {
                site.show.note(&format!("box {id} has booted and stopped: its disk is warm"));
                return Ok(());
            }
            Some("terminated" | "shutting-down") => {
                let what = format!("box {id} was terminated during its first boot");
                return Err(Trouble::new(Kind::Failed, what)
                    .hint(format!("`gpuctl logs {id}` shows its console")));
            }
            _ => {}
        }
        if Instant::now() >= until {
            site.account.stop_box(id).await?;
            let what = format!(
                "box {id} did not stop by itself after its first boot; it was told to stop"
            );
            return Err(Trouble::new(Kind::TimedOut, what).hint(format!(
                "`gpuctl logs {id}` shows its console; the stack is complete, and `gpuctl retire {id}` removes the box"
            )));
        }
        pause(&mut looks).await?;
    }
}
