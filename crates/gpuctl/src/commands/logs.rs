//! `gpuctl logs`: the output of boxes on this machine; on AWS the function's log, or a box's console.

use std::path::Path;

use gpuctl_core::units::{BoxId, Timestamp};
use gpuctl_local::{BoxLine, BoxLogs};

use crate::arguments::LogsArguments;
use crate::context::Context;
use crate::documents::logs::{LogLineDocument, LogsDocument};
use crate::failure::{Code, Failure};
use crate::render::{LogOwner, Output, Printer};

pub(crate) async fn logs(
    context: &Context,
    printer: &Printer,
    wanted: &LogsArguments,
) -> Result<Output, Failure> {
    #[cfg(feature = "aws")]
    if let Some(account) = &context.backend.account {
        return match &wanted.r#box {
            Some(id) => aws::console(account, id, wanted).await,
            None => until_interrupted(aws::function(account, context, printer, wanted)).await,
        };
    }
    until_interrupted(here(context, printer, wanted)).await
}

async fn until_interrupted(
    work: impl Future<Output = Result<Output, Failure>>,
) -> Result<Output, Failure> {
    tokio::select! {
        output = work => output,
        _ = tokio::signal::ctrl_c() => Ok(Output::Nothing),
    }
}

async fn here(
    context: &Context,
    printer: &Printer,
    wanted: &LogsArguments,
) -> Result<Output, Failure> {
    let state = &context.config.state;
    let mut logs = BoxLogs::new(state, wanted.r#box.clone());
    if let Some(id) = &wanted.r#box
        && logs.boxes()?.is_empty()
    {
        return Err(no_log(state, id)?);
    }
    let since = wanted.since.map_or(Timestamp::UNIX_EPOCH, |span| context.now() - span);
    let mut lines = logs.read_on()?;
    lines.retain(|line| line.order >= since);
    let older = lines.len().saturating_sub(wanted.limit);
    lines.drain(..older);
    if !wanted.follow {
        let lines = documents(&lines);
        return Ok(Output::Logs(LogsDocument { older_left_out: older > 0, lines }));
    }
    let owner = if wanted.r#box.is_some() { LogOwner::Omitted } else { LogOwner::Shown };
    while printer.lines(&documents(&lines), owner) {
        tokio::time::sleep(context.poll_every()).await;
        lines = logs.read_on()?;
    }
    Ok(Output::Nothing)
}

fn documents(lines: &[BoxLine]) -> Vec<LogLineDocument> {
    let document = |line: &BoxLine| LogLineDocument::of(line.box_id.as_str(), &line.line);
    lines.iter().map(document).collect()
}

fn no_log(state: &Path, id: &BoxId) -> Result<Failure, Failure> {
    let known: Vec<String> =
        BoxLogs::new(state, None).boxes()?.iter().map(ToString::to_string).collect();
    let hint = if known.is_empty() {
        "no box has run on this machine yet".to_owned()
    } else {
        format!("known logs: {}", known.join(", "))
    };
    Ok(Failure::new(Code::BoxUnknown, format!("there is no log of box `{id}`")).hint(hint))
}

#[cfg(feature = "aws")]
mod aws {
    //! The function's log group, and a box's console.

    use std::collections::BTreeMap;

    use chrono::TimeDelta;
    use gpuctl_aws::{Account, FunctionLog, WantedLines};

    use super::super::invoke;
    use super::*;
    use crate::render::Format;

    /// The default of --since: a tick per minute writes some hundred lines an hour.
    const SINCE_DEFAULT: TimeDelta = TimeDelta::hours(1);
    /// How late a line may arrive in the log: streams are delivered in batches.
    const LATE_MAX: TimeDelta = TimeDelta::seconds(30);
    /// The most lines that one poll of --follow prints.
    const FOLLOW_LINES_MAX: usize = 10_000;

    pub(super) async fn function(
        account: &Account,
        context: &Context,
        printer: &Printer,
        wanted: &LogsArguments,
    ) -> Result<Output, Failure> {
        let (_, name) =
            invoke::function(&context.config, wanted.function.as_ref()).map_err(|failure| {
                let hint = failure.hint.clone().unwrap_or_default();
                failure.hint(format!("{hint}; `gpuctl logs BOX` shows the console of a box"))
            })?;
        let mut tail = Tail {
            log: FunctionLog::new(&account.aws, name),
            source: name,
            since: context.now() - wanted.since.unwrap_or(SINCE_DEFAULT),
            noise: printer.format() == Format::Json,
            shown: BTreeMap::new(),
        };
        let document = tail.read(wanted.limit).await?;
        if !wanted.follow {
            return Ok(Output::Logs(document));
        }
        let mut is_read = printer.lines(&document.lines, LogOwner::Omitted);
        while is_read {
            tokio::time::sleep(context.poll_every()).await;
            match tail.read(FOLLOW_LINES_MAX).await {
                Ok(document) => is_read = printer.lines(&document.lines, LogOwner::Omitted),
                // The next poll is the retry.
                Err(failure) => printer.report_failure(&failure),
            }
        }
        Ok(Output::Nothing)
    }

    /// The end of a function's log, read again and again; each line is returned once.
    struct Tail<'a> {
        log: FunctionLog,
        source: &'a str,
        since: Timestamp,
        noise: bool,
        /// The lines since `since`, by their ids.
        shown: BTreeMap<String, Option<Timestamp>>,
    }

    impl Tail<'_> {
        async fn read(&mut self, lines_max: usize) -> Result<LogsDocument, Failure> {
            let wanted = WantedLines { since: self.since, lines_max, with_noise: self.noise };
            let tail = self.log.read(wanted).await?;
            let mut lines = Vec::new();
            for (id, line) in tail.lines {
                if self.shown.insert(id, line.at).is_none() {
                    lines.push(LogLineDocument::of(self.source, &line));
                }
            }
            let newest = self.shown.values().flatten().max().copied();
            let since = newest.map_or(self.since, |newest| self.since.max(newest - LATE_MAX));
            self.shown.retain(|_, at| at.is_none_or(|at| at >= since));
            self.since = since;
            Ok(LogsDocument { older_left_out: tail.is_cut, lines })
        }
    }

    pub(super) async fn console(
        account: &Account,
        id: &BoxId,
        wanted: &LogsArguments,
    ) -> Result<Output, Failure> {
        if wanted.follow || wanted.since.is_some() {
            return Err(Failure::new(Code::UsageConflict, "the console of a box has no timestamps and cannot be followed")
                .hint(
                    "leave out --since and --follow: EC2 returns the end of the console, some minutes old",
                ));
        }
        let lines = account.ec2.console(id).await?;
        let older = lines.len().saturating_sub(wanted.limit);
        let lines = lines[older..].iter().map(|line| LogLineDocument::of(id.as_str(), line));
        Ok(Output::Logs(LogsDocument { older_left_out: older > 0, lines: lines.collect() }))
    }
}
