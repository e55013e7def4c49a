//! Kept boxes: made from the stack's launch templates, and stopped once their first boot is over, so that later starts find warm disks.

use chrono::TimeDelta;
use gpuctl_control::ports::PortErrorClass;
use tokio::time::Instant;

use crate::Site;
use crate::deploy::output;
use crate::files::MODELS;
use crate::follow::pause;
use crate::ports::{BoxOrder, Stack, StackBox, TEMPLATE_TAG};
use crate::template::{Resource, Template, Values};
use crate::trouble::{Kind, Trouble};

/// Whether the box of a launch template is kept: it is stopped by its own shutdown. Those that are terminated by it are launched when there
/// is work.
pub(crate) fn is_kept(template: &Template, one: Resource<'_>, values: &Values) -> bool {
    let behaviour = &one.property("LaunchTemplateData")["InstanceInitiatedShutdownBehavior"];
    template.value(behaviour, values).as_deref() == Some("stop")
}

/// A launch template whose box is kept.
struct Kept {
    name: String,
    /// Of its box.
    tags: Values,
    /// An app box has no worker that would stop it: the function does, unless its schedule wants it up.
    is_app: bool,
}

fn kept_templates(template: &Template, values: &Values) -> Vec<Kept> {
    let app = values
        .get("AppPool")
        .filter(|_| values.get("Layout").is_some_and(|is| is == "gpu-and-app"));
    let of_boxes = |one: &Resource<'_>| {
        one.kind == "AWS::EC2::LaunchTemplate" && is_kept(template, *one, values)
    };
    let named = |one: Resource<'_>| {
        let name = template.value(one.property("LaunchTemplateName"), values)?;
        let mut tags = instance_tags(template, one, values);
        tags.insert(TEMPLATE_TAG.to_owned(), name.clone());
        let is_app = app.is_some() && tags.get("gpuctl:pool") == app;
        Some(Kept { name, tags, is_app })
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
/// When one cannot be made, or does not get its address; when one does not stop by itself in time, after it was stopped.
pub(crate) async fn make_kept(
    site: &Site<'_>,
    (template, name): (&Template, &str),
    stack: &Stack,
    first_boot_max: TimeDelta,
) -> Result<Vec<String>, Trouble> {
    let values = template.values(&stack.parameters, name, site.account.region());
    let is_up = |one: &StackBox| !matches!(one.state.as_str(), "terminated" | "shutting-down");
    let there: Vec<StackBox> = site.account.boxes(name).await?.into_iter().filter(is_up).collect();
    let of = |kept: &Kept| there.iter().find(|one| one.template.as_ref() == Some(&kept.name));
    let kept = kept_templates(template, &values);
    check_models(site, name, stack, kept.iter().any(|one| !one.is_app && of(one).is_none()))
        .await?;
    let is_one = values.get("Layout").is_some_and(|layout| layout == "one-box");
    let mut address = stack.outputs.get("AppAddressId");
    let (mut made, mut without) = (Vec::new(), None);
    for one in &kept {
        let found = of(one).map(|found| found.id.clone());
        let id = match &found {
            Some(id) => id.clone(),
            None => make(site, stack, one).await?,
        };
        // Also to a box that is there: an earlier deployment may have been interrupted.
        if let Some(address) = address.take_if(|_| one.is_app || is_one)
            && let Err(trouble) = give(site, name, &id, address, first_boot_max).await
        {
            site.show.warn(&format!(
                "box {id} is without its address: `gpuctl deploy` gives it, and so does `aws ec2 associate-address --instance-id {id} --allocation-id {address}`"
            ));
            if trouble.kind == Kind::Interrupted {
                return Err(trouble);
            }
            without = Some(trouble);
        }
        if found.is_none() {
            made.push((id, one.is_app));
        }
    }
    for (id, _) in made.iter().filter(|(_, is_app)| !is_app) {
        first_boot(site, name, id, first_boot_max).await?;
    }
    match without {
        Some(trouble) => Err(trouble),
        None => Ok(made.into_iter().map(|(id, _)| id).collect()),
    }
}

/// Gives a box its address, once it is up: EC2 gives none to a box that is pending.
async fn give(
    site: &Site<'_>,
    name: &str,
    id: &str,
    address: &str,
    first_boot_max: TimeDelta,
) -> Result<(), Trouble> {
    leaves(site, name, id, &["pending"], first_boot_max).await?;
    Ok(site.account.give_address(id, address).await?)
}

/// A GPU box without models powers itself off at its first boot, and would only have cost money. One that is made later, for its jobs or by a
/// start, would do so, too.
async fn check_models(
    site: &Site<'_>,
    name: &str,
    stack: &Stack,
    makes_box: bool,
) -> Result<(), Trouble> {
    let bucket = output(stack, "Bucket")?;
    if site.account.has(&bucket, MODELS).await? {
        return Ok(());
    }
    let fix = format!("`gpuctl deploy --stack {name} --models FOLDER` uploads models");
    if makes_box {
        let what = format!("s3://{bucket}/{MODELS} has no models: no GPU box was made");
        let hint = format!("the stack is complete; {fix}, and makes the box");
        return Err(Trouble::new(Kind::Blocked, what).hint(hint));
    }
    site.show.warn(&format!(
        "s3://{bucket}/{MODELS} has no models: each GPU box powers itself off at its boot, and does no job; {fix}"
    ));
    Ok(())
}

/// Makes one box in the first of the stack's subnets that has room.
async fn make(site: &Site<'_>, stack: &Stack, kept: &Kept) -> Result<String, Trouble> {
    let template = &kept.name;
    let subnets = stack.outputs.get("Subnets").map(String::as_str).unwrap_or_default();
    let mut refused = None;
    for (index, subnet) in subnets.split(',').filter(|subnet| !subnet.is_empty()).enumerate() {
        let order = BoxOrder {
            template: template.clone(),
            subnet: subnet.to_owned(),
            tags: kept.tags.clone(),
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
            Ok(id) => {
                let from = format!("from launch template {template}");
                site.show.note(&format!("made box {id} {from}; it boots for the first time"));
                return Ok(id);
            }
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
    let console = format!("`gpuctl logs {id}` shows its console");
    let going = ["pending", "running", "stopping"];
    match leaves(site, name, id, &going, first_boot_max).await?.as_deref() {
        Some("stopped") => {
            site.show.note(&format!("box {id} has booted and stopped: its disk is warm"));
            Ok(())
        }
        Some(_) => {
            let what = format!("box {id} was terminated during its first boot");
            Err(Trouble::new(Kind::Failed, what).hint(console))
        }
        None => {
            site.account.stop_box(id).await?;
            let what = format!(
                "box {id} did not stop by itself after its first boot; it was told to stop"
            );
            Err(Trouble::new(Kind::TimedOut, what).hint(format!(
                "{console}; the stack is complete, and `gpuctl retire {id}` removes the box"
            )))
        }
    }
}

/// Waits until a box is in none of these states; `None` if that takes too long.
async fn leaves(
    site: &Site<'_>,
    name: &str,
    id: &str,
    states: &[&str],
    wait_max: TimeDelta,
) -> Result<Option<String>, Trouble> {
    let until = Instant::now() + wait_max.to_std().unwrap_or_default();
    let mut looks = 0;
    loop {
        let boxes = site.account.boxes(name).await?;
        let state = boxes.into_iter().find(|one| one.id == id).map(|one| one.state);
        if let Some(state) = state.filter(|state| !states.contains(&state.as_str())) {
            return Ok(Some(state));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        pause(&mut looks).await?;
    }
}
