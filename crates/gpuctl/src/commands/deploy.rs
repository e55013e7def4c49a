//! `deploy`, `diff`, `destroy` and `cost stack`: the stack of an account. What is done is in `gpuctl-deploy`; here are its files, and what
//! the user sees of it.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use gpuctl_aws::{Aws, AwsAccount, CloudFormation};
use gpuctl_control::clock::SystemClock;
use gpuctl_control::config::{Config, FILE_NAME};
use gpuctl_control::ports::Clock;
use gpuctl_core::policy::Policy;
use gpuctl_core::units::MicroUsd;
use gpuctl_deploy::bill::Bill;
use gpuctl_deploy::ports::Left;
use gpuctl_deploy::{
    Deployed, Destroyed, Difference, Files, Removal, Show, Site, TEMPLATE, Template, Values,
    Wanted, export,
};

use crate::arguments::{
    DeployArguments, DestroyArguments, DiffArguments, ParameterValue, StackArguments,
    StackCostArguments, StandaloneCommand,
};
use crate::documents::stack::{
    ChangeDocument, DeployedDocument, DestroyedDocument, DifferenceDocument, ExportDocument,
    HourCostDocument, LeftDocument, PartCostDocument, StackCostDocument,
};
use crate::failure::{Code, Exit, Failure};
use crate::render::{Output, Printer};

/// What `scripts/package.sh` calls the function's zip and the worker's folder.
const FUNCTION: &str = "gpuctl-lambda.zip";
const WORKER: &str = "worker";

pub(super) async fn run(
    command: StandaloneCommand,
    config: Config,
    printer: &Printer,
) -> Result<Output, Failure> {
    match command {
        StandaloneCommand::Diff(wanted) => diff(&config, printer, &wanted).await,
        StandaloneCommand::Deploy(wanted) => match &wanted.export {
            Some(folder) => export_to(&config, &wanted, folder),
            None if wanted.dry_run => diff(&config, printer, &wanted.what).await,
            None => deploy(&config, printer, &wanted).await,
        },
        StandaloneCommand::Destroy(wanted) => destroy(&config, printer, &wanted).await,
        _ => Ok(Output::Nothing),
    }
}

struct OnPrinter<'p>(&'p Printer);

impl Show for OnPrinter<'_> {
    fn note(&self, line: &str) {
        self.0.note(line);
    }

    fn warn(&self, line: &str) {
        self.0.warning(line);
    }

    fn difference(&self, difference: &Difference) {
        self.0.difference(&difference_document(difference));
    }

    fn confirm(&self, question: &str) -> bool {
        self.0.confirm(question).is_ok()
    }
}

/// The account and region of a stack.
struct Place<'p> {
    stacks: CloudFormation,
    account: AwsAccount,
    show: OnPrinter<'p>,
}

impl<'p> Place<'p> {
    async fn of(
        config: &Config,
        stack: &StackArguments,
        printer: &'p Printer,
    ) -> Result<Self, Failure> {
        let named = config.policy.cloud.aws.as_ref();
        let region = stack.region.as_deref().or(named.and_then(|aws| aws.region.as_deref()));
        let profile = named.and_then(|aws| aws.profile.as_deref());
        let aws = Aws::connect_to(stack.endpoint_url.as_deref(), region, profile).await?;
        let (stacks, account) = (CloudFormation::new(&aws), AwsAccount::new(&aws));
        Ok(Self { stacks, account, show: OnPrinter(printer) })
    }

    fn site(&self) -> Site<'_> {
        Site { stacks: &self.stacks, account: &self.account, show: &self.show }
    }
}

async fn diff(config: &Config, printer: &Printer, what: &DiffArguments) -> Result<Output, Failure> {
    let wanted = wanted(config, what)?;
    let place = Place::of(config, &what.of, printer).await?;
    let found = gpuctl_deploy::difference(&place.site(), &wanted).await?;
    Ok(Output::Difference(Box::new(difference_document(&found))))
}

async fn deploy(
    config: &Config,
    printer: &Printer,
    arguments: &DeployArguments,
) -> Result<Output, Failure> {
    let wanted = Wanted {
        allow_replace: arguments.allow_replace.clone(),
        role: arguments.role_arn.clone(),
        models: arguments.models.clone(),
        first_boot_max: arguments.boot_timeout,
        ..wanted(config, &arguments.what)?
    };
    if let (Some(file), None, Some(_)) = (&config.file, &wanted.policy, &config.policy.cloud.aws) {
        let name = &wanted.name;
        printer.note(&format!(
            "{} is of another stack, and is not uploaded for {name}",
            file.display()
        ));
    }
    let place = Place::of(config, &arguments.what.of, printer).await?;
    let done = gpuctl_deploy::deploy(&place.site(), &wanted).await?;
    let file = match &done.new_policy {
        Some(text) => write_policy(config, printer, &wanted.name, text)?,
        None => None,
    };
    deployed_document(done, file).map(|document| Output::Deployed(Box::new(document)))
}

/// Writes a new stack's `gpuctl.toml`, where the user has none for AWS; what is there stays.
fn write_policy(
    config: &Config,
    printer: &Printer,
    stack: &str,
    text: &str,
) -> Result<Option<String>, Failure> {
    let name = match &config.file {
        None => FILE_NAME.to_owned(),
        Some(_) => format!("gpuctl-{stack}.toml"),
    };
    match File::create_new(&name).and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => Ok(Some(name)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            printer.note(&format!("{name} is there already, and stays: the stack has a new one"));
            Ok(None)
        }
        Err(error) => {
            let what = format!("{name} cannot be written");
            Err(Failure::new(Code::FileUnwritable, what).because(&error))
        }
    }
}

async fn destroy(
    config: &Config,
    printer: &Printer,
    arguments: &DestroyArguments,
) -> Result<Output, Failure> {
    let place = Place::of(config, &arguments.of, printer).await?;
    let removal = Removal {
        name: arguments.of.stack.clone(),
        everything: arguments.everything,
        drain: arguments.drain,
        lose_jobs: arguments.lose_jobs,
        change_set: change_set(),
    };
    let done = gpuctl_deploy::destroy(&place.site(), &removal).await?;
    let is_clean = done.left.is_empty();
    let output = Output::Destroyed(destroyed_document(removal.name, done));
    Ok(if is_clean { output } else { output.exit(Exit::Failed) })
}

/// `gpuctl cost stack`.
pub(super) fn bill(policy: &Policy, wanted: &StackCostArguments) -> Result<Output, Failure> {
    let template = Template::parse(TEMPLATE)?;
    let set = values(&wanted.set);
    gpuctl_deploy::check_values(&template, &set)?;
    let named = policy.cloud.aws.as_ref().and_then(|aws| aws.region.clone());
    let region = wanted.region.clone().or(named).unwrap_or_else(|| "us-east-1".to_owned());
    let all = template.values(&set, "gpuctl", &region);
    let bill = Bill::of(&template, &all, &policy.cost.prices);
    Ok(Output::StackCost(bill_document(&bill, &region)))
}

/// `gpuctl deploy --export`.
fn export_to(
    config: &Config,
    arguments: &DeployArguments,
    folder: &Path,
) -> Result<Output, Failure> {
    let wanted = wanted(config, &arguments.what)?;
    let files = export::files(&wanted, arguments.what.of.region.as_deref())?;
    let unwritable = |error: std::io::Error| {
        let what = format!("{} cannot be written", folder.display());
        Failure::new(Code::FileUnwritable, what).because(&error)
    };
    std::fs::create_dir_all(folder).map_err(unwritable)?;
    for (name, text) in &files {
        std::fs::write(folder.join(name), text).map_err(unwritable)?;
    }
    let files = files.into_iter().map(|(name, _)| name.to_owned()).collect();
    Ok(Output::StackExport(ExportDocument { folder: folder.display().to_string(), files }))
}

fn wanted(config: &Config, what: &DiffArguments) -> Result<Wanted, Failure> {
    let text = match &what.template {
        Some(path) => read(path)?,
        None => TEMPLATE.to_owned(),
    };
    let policy = own_policy(config, &what.of.stack).map(read).transpose()?;
    Ok(Wanted {
        name: what.of.stack.clone(),
        template: Template::parse(&text)?,
        set: values(&what.set),
        files: files(what)?,
        code_bucket: what.code_bucket.clone(),
        allow_replace: Vec::new(),
        role: None,
        policy,
        models: None,
        first_boot_max: chrono::TimeDelta::zero(),
        change_set: change_set(),
        prices: config.policy.cost.prices.clone(),
    })
}

/// The user's file, unless it is not for AWS or names another stack's function: that stack's boxes are not this one's.
fn own_policy<'c>(config: &'c Config, stack: &str) -> Option<&'c Path> {
    let aws = config.policy.cloud.aws.as_ref()?;
    let is_own = aws.function.as_deref().is_none_or(|function| function == stack);
    config.file.as_deref().filter(|_| is_own)
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::new(Code::FileUnreadable, format!("{} cannot be read", path.display()))
            .because(&error)
    })
}

/// The files that are named, else those beside this program, else those in it.
fn files(what: &DiffArguments) -> Result<Files, Failure> {
    let beside = |name: &str| {
        let program = std::env::current_exe().ok()?;
        Some(program.parent()?.join(name)).filter(|path| path.exists())
    };
    let mut files = Files::default();
    if let Some(zip) = what.function.clone().or_else(|| beside(FUNCTION)) {
        files.add_function(&zip)?;
    }
    match &what.boot {
        Some(folder) => files.add_boot(folder)?,
        None => files.add_own_boot(),
    }
    if let Some(folder) = what.worker.clone().or_else(|| beside(WORKER)) {
        files.add_worker(&folder)?;
    }
    Ok(files)
}

fn values(set: &[ParameterValue]) -> Values {
    set.iter().map(|one| (one.name.clone(), one.value.clone())).collect()
}

/// A name that no other change set has.
fn change_set() -> String {
    format!("gpuctl-{}-{}", SystemClock.now().timestamp_millis(), std::process::id())
}

fn bill_document(bill: &Bill, region: &str) -> StackCostDocument {
    let part = |line: &gpuctl_deploy::bill::Line| PartCostDocument {
        name: line.name.clone(),
        detail: line.detail.clone(),
        usd_month: line.month.as_usd(),
        as_of: line.as_of.clone(),
    };
    let hour = |line: &gpuctl_deploy::bill::HourLine| HourCostDocument {
        name: line.name.clone(),
        detail: line.detail.clone(),
        usd_hour: line.hour.map(MicroUsd::as_usd),
        as_of: line.as_of.clone(),
    };
    StackCostDocument {
        region: region.to_owned(),
        usd_month: bill.month().as_usd(),
        parts: bill.lines.iter().map(part).collect(),
        hours: bill.hours.iter().map(hour).collect(),
    }
}

fn difference_document(found: &Difference) -> DifferenceDocument {
    let change = |one: &gpuctl_deploy::change::Judged| ChangeDocument {
        name: one.change.name.clone(),
        kind: one.change.kind.clone(),
        action: one.change.action.verb(),
        loses_data: one.loses_data,
        needs_permission: one.is_gated,
    };
    DifferenceDocument {
        stack: found.stack.clone(),
        region: found.region.clone(),
        is_new: found.is_new,
        changes: found.changes.iter().map(change).collect(),
        before: found.before.as_ref().map(|bill| bill_document(bill, &found.region)),
        after: bill_document(&found.after, &found.region),
    }
}

fn deployed_document(
    done: Deployed,
    policy_file: Option<String>,
) -> Result<DeployedDocument, Failure> {
    Ok(DeployedDocument {
        stack: done.difference.stack,
        region: done.difference.region,
        changes: done.difference.changes.len(),
        usd_month: done.difference.after.month().as_usd(),
        outputs: done.outputs,
        policy: done.policy_uri,
        policy_file,
        boxes: done.boxes?,
    })
}

fn destroyed_document(stack: String, done: Destroyed) -> DestroyedDocument {
    let document = |(left, month): (Left, MicroUsd)| LeftDocument {
        kind: left.kind,
        id: left.id,
        usd_month: month.as_usd(),
    };
    DestroyedDocument {
        stack,
        was_there: done.was_there,
        boxes: done.boxes,
        kept: done.kept.into_iter().map(document).collect(),
        left: done.left.into_iter().map(document).collect(),
    }
}
