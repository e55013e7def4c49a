//! `gpuctl invoke`: calls the deployed function, which reconciles by its own policy.
//!
//! Only the account and the function's name come from the configuration here: the pools are the function's.

use gpuctl_aws::{Aws, Function};
use gpuctl_control::config::Config;
use gpuctl_control::hold;
use gpuctl_control::wire::function::EventDocument;
use gpuctl_core::policy;
use gpuctl_core::units::{parse_duration, show_duration};

use crate::arguments::InvokeArguments;
use crate::context::user;
use crate::failure::{Code, Exit, Failure};
use crate::render::Output;

pub(crate) async fn invoke(config: &Config, wanted: &InvokeArguments) -> Result<Output, Failure> {
    let event = event(wanted)?;
    let (account, name) = function(config, wanted.function.as_ref())?;
    let aws = Aws::connect(account.region.as_deref(), account.profile.as_deref()).await?;
    let invoked = Function::new(&aws, name).ask(&event).await?;
    let is_success = invoked.is_success();
    let output = Output::Invoked(Box::new(invoked));
    Ok(if is_success { output } else { output.exit(Exit::Failed) })
}

/// The account, and the function's name: from the flag, else from the configuration.
pub(super) fn function<'a>(
    config: &'a Config,
    flag: Option<&'a String>,
) -> Result<(&'a policy::Aws, &'a str), Failure> {
    let account = config.policy.cloud.aws.as_ref().ok_or_else(|| {
        Failure::new(Code::UsageNoAws, "the function runs on AWS, but `[cloud] kind` is not \"aws\"")
            .hint("on this machine `gpuctl start POOL`, `stop POOL`, `release POOL` and `status` do the same")
    })?;
    let name = flag.or(account.function.as_ref()).ok_or_else(|| {
        Failure::new(Code::FunctionUnnamed, "no function is configured")
            .hint("set `function = \"…\"` under [cloud], or give --function NAME")
    })?;
    Ok((account, name))
}

fn event(wanted: &InvokeArguments) -> Result<EventDocument, Failure> {
    let holds = ["start", "stop"].into_iter().find(|action| *action == wanted.action);
    let action = holds.unwrap_or(if wanted.action == "release" { "release" } else { "status" });
    if wanted.lasts.is_some() && holds.is_none() {
        return Err(Failure::new(Code::UsageConflict, format!("`{action}` takes no duration"))
            .hint("--for is for `start` and `stop`"));
    }
    if let Some(lasts) = wanted.lasts {
        hold::check_length(lasts)?;
    }
    let lasts = wanted.lasts.map(|lasts| {
        // `show_duration` writes two units: a duration that needs three is written in seconds.
        let text = show_duration(lasts);
        let is_exact = parse_duration(&text).is_ok_and(|read| read == lasts);
        if is_exact { text } else { format!("{}s", lasts.num_seconds()) }
    });
    Ok(EventDocument { action, target: wanted.target.clone(), length: lasts, by: user() })
}
