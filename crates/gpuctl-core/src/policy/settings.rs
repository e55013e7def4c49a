//! What each setting means and its default, for the configuration page and `gpuctl config`. Types and ranges are in `sections.rs`.

/// A section of `gpuctl.toml`.
pub struct SectionDoc {
    pub heading: &'static str,
    /// E.g. `pool.NAME`.
    pub path: &'static str,
    pub about: &'static str,
    pub settings: &'static [SettingDoc],
}

pub struct SettingDoc {
    pub key: &'static str,
    pub default: DefaultValue,
    pub meaning: &'static str,
    /// In place of the type that `sections.rs` asks for.
    pub takes: Option<&'static str>,
}

#[derive(Clone, Copy)]
pub enum DefaultValue {
    /// As it is written in the file.
    Value(&'static str),
    ValueOf {
        local: &'static str,
        aws: &'static str,
    },
    Words(&'static str),
}

use DefaultValue::{Value, ValueOf, Words};

const NONE: DefaultValue = Words("none");

const fn setting(key: &'static str, default: DefaultValue, meaning: &'static str) -> SettingDoc {
    SettingDoc { key, default, meaning, takes: None }
}

impl SettingDoc {
    const fn takes(self, takes: &'static str) -> Self {
        Self { takes: Some(takes), ..self }
    }
}

pub const SECTIONS: &[SectionDoc] = &[
    SectionDoc {
        heading: "[cloud]",
        path: "cloud",
        about: "Where boxes, queue and ledger are: on this machine, or in an AWS account. The settings from `region` on are for \
            `kind = \"aws\"` only.",
        settings: CLOUD,
    },
    SectionDoc {
        heading: "[pool.NAME]",
        path: "pool.NAME",
        about: "A named group of boxes. A pool has a `queue`, or a `command`, or neither: then only its boxes are started and \
            stopped, by schedule or hold. The name has 1 to 80 of a-z A-Z 0-9 - _, and must not be `all`. At most 100 pools.",
        settings: POOL,
    },
    SectionDoc {
        heading: "[[pool.NAME.schedule]]",
        path: "pool.NAME.schedule",
        about: "When at least one box is up: a window (`begin`, `end` and days), or `start` and `stop` in EventBridge's grammar. A \
            pool can have up to 100 entries. [SCHEDULES.md](SCHEDULES.md) has the rules.",
        settings: SCHEDULE,
    },
    SectionDoc {
        heading: "[[pool.NAME.quiet]]",
        path: "pool.NAME.quiet",
        about: "Quiet hours of a pool with a queue: while such a window lasts, waiting jobs start no box. Boxes that are up finish \
            their work, and a hold (`gpuctl start`) or the schedule still starts boxes. The keys are those of a schedule's window; \
            up to 100 entries.",
        settings: QUIET,
    },
    SectionDoc {
        heading: "[[pool.NAME.submit]]",
        path: "pool.NAME.submit",
        about: "A job that is submitted at certain times, once for each, by whatever controller is running: a time such as `begin = \
            \"02:00\"` on the days of a schedule's window, or `start`. The pool's calendar counts for it. One that no controller was there for is \
            submitted up to an hour late, else left out, and never are several made up for at once. A table `[pool.NAME.submit.params]` has the \
            task's params as texts. Up to 100 entries.",
        settings: SUBMIT,
    },
    SectionDoc {
        heading: "[pool.NAME.calendar]",
        path: "pool.NAME.calendar",
        about: "Dates that differ from the schedule. [SCHEDULES.md](SCHEDULES.md#several-entries-and-the-calendar) has the rules.",
        settings: CALENDAR,
    },
    SectionDoc {
        heading: "[worker]",
        path: "worker",
        about: "Settings of `gpu-worker`.",
        settings: WORKER,
    },
    SectionDoc {
        heading: "[model.NAME]",
        path: "model.NAME",
        about: "Settings of one model. The name is that of its folder.",
        settings: MODEL,
    },
    SectionDoc {
        heading: "[command.NAME]",
        path: "command.NAME",
        about: "A program that jobs of the task `command.NAME` run, such as a training. A job names it and gives it params, never a command \
            line. The name has 1 to 80 of a-z A-Z 0-9 - _. [gpu-worker](../gpu-worker/COMMANDS.md) has an example, and says what the \
            program finds and what becomes of its files.",
        settings: COMMAND,
    },
    SectionDoc {
        heading: "[command.NAME.params.NAME]",
        path: "command.NAME.params.NAME",
        about: "What a job may say to the command: `gpuctl submit command.NAME --param NAME=VALUE`. The name has a-z, 0-9 and _.",
        settings: COMMAND_PARAM,
    },
    SectionDoc {
        heading: "[cost]",
        path: "cost",
        about: "The prices of budgets and of `gpuctl cost`. `gpuctl cost prices` lists the known ones.",
        settings: COST,
    },
    SectionDoc {
        heading: "[http]",
        path: "http",
        about: "The HTTP API of `gpuctl serve`. [gpuctl-http](../gpuctl-http/README.md) describes it; what is limited otherwise is in its \
            `/openapi.json`.",
        settings: HTTP,
    },
];

const CLOUD: &[SettingDoc] = &[
    setting(
        "kind",
        Value("\"local\""),
        "`\"local\"`: boxes are worker processes on this machine, and the queue is a file. \
        `\"aws\"`: boxes are EC2 instances, and the queue is in SQS.",
    ),
    setting(
        "state",
        Words("`.gpuctl`, or `~/.local/state/gpuctl` without a file"),
        "The folder of queue file, logs, locks and fetched \
        prices.",
    ),
    setting(
        "file_mib_max",
        Value("4096"),
        "The largest size of the queue file, in MiB. Where three quarters are in use, the oldest finished jobs are deleted with their results, but none that ended within the last hour; while that is not enough, `submit` is refused.",
    ),
    setting(
        "jobs_kept",
        Value("\"90d\""),
        "How long a job is kept in the queue file after it has ended, with its results.",
    ),
    setting(
        "dead_letters_kept",
        Value("\"30d\""),
        "How long a message stays in the dead letters of the queue file; its job is `expired` then, and `gpuctl retry` still sends it again.",
    ),
    setting(
        "results_mib_max",
        Value("10240"),
        "The largest size of the results' files in the state folder, in MiB: beyond it those of the jobs that ended first are deleted.",
    ),
    setting(
        "tick",
        ValueOf { local: "\"1s\"", aws: "\"1m\"" },
        "The time between two reconciles if nothing changes.",
    ),
    setting("region", Words("that of the environment or profile"), "The AWS region."),
    setting("profile", Words("that of the environment"), "The profile in the AWS configuration."),
    setting(
        "table",
        Words("the ledger is on this machine"),
        "The DynamoDB table of ledger and results. Pools with a queue need it, unless their `worker` is `\"own\"`.",
    ),
    setting(
        "results",
        NONE,
        "Where inputs are uploaded to and result files are kept, e.g. `s3://bucket/prefix`.",
    ),
    setting(
        "notify",
        NONE,
        "The ARN of the SNS topic that gets notices of late starts, quotas, budgets and dead jobs.",
    ),
    setting(
        "function",
        NONE,
        "The name or ARN of the Lambda function that `gpuctl invoke` and `gpuctl logs` use.",
    ),
    setting(
        "metrics",
        Value("false"),
        "Whether the function prints metrics for CloudWatch: 7 for a pool with a queue, 3 for another, each $0.30 a month beyond the ten that are \
        free. `gpuctl status --json` shows the same figures without.",
    ),
];

const POOL: &[SettingDoc] = &[
    setting("queue", NONE, "The queue whose jobs the boxes do; on AWS the name or URL of an SQS queue. A queue belongs to one pool."),
    setting("queue_high", NONE, "On AWS: the queue of this pool's jobs with the priority `high`; without one they are refused. On this machine \
        one queue has all priorities."),
    setting("queue_low", NONE, "On AWS: the queue of those with the priority `low`."),
    setting("command", NONE, "A command that runs in the foreground while schedule or hold want it, as a list of its words. Not on AWS."),
    setting("instances", NONE, "The ids of the EC2 instances that are the boxes, up to 200. On AWS, a pool has exactly one of \
        `instances`, `select` and `launch_template`."),
    setting("select", NONE, "The tags of the EC2 instances that are the boxes, up to 50, e.g. `{ \"gpuctl:pool\" = \"gpu\" }`.")
        .takes("table of texts"),
    setting("launch_template", NONE, "The name or id of the launch template from which boxes are launched; they are terminated when idle."),
    setting("launch_template_version", Words("the default version"), "The version of the launch template."),
    setting("instance_types", Words("required with `launch_template`"), "The instance types to launch, in order of preference."),
    setting("subnets", Words("that of the template"), "The subnets to launch in, and with them the zones. With `instance_types` at most 50 \
        pairs."),
    setting("boxes_max", Value("1"), "The most boxes at once."),
    setting("max_wait", Value("\"0s\""), "How long a job may wait for a box. A box starts as late as this allows."),
    setting("start_depth", NONE, "Start a box at this number of waiting jobs, however long they have waited."),
    setting("jobs_per_box", Words("as many boxes as clear the backlog within `max_wait`"), "Waiting jobs per box: with 10, one box is wanted for every ten of them."),
    setting("idle_stop", Value("\"auto\""), "How long an idle box stays up. `\"auto\"`: not at all if `max_wait` leaves room for a boot, \
        else as long as a boot takes.")
        .takes("`\"auto\"` or a duration"),
    setting("visibility", Value("\"60s\""), "How long after its worker crashed a job is delivered again."),
    setting("receives_max", Value("5"), "The number of receives after which a job goes to the dead-letter queue. On AWS, `maxReceiveCount` of the queue's redrive policy should be two more."),
    setting("worker", Value("\"gpu-worker\""), "`\"own\"` if another program than `gpu-worker` receives the jobs: then no reports are \
        expected of it."),
    setting("capacity", Value("[\"spot\", \"on-demand\"]"), "The capacity types of boxes, in order of preference.")
        .takes("list of `\"spot\"` and `\"on-demand\"`"),
    setting("capacity_deadline", Value("\"0s\""), "How long only the first purchase option of `capacity` is tried. `max_wait` is met all the same."),
    setting("budget_usd_month", NONE, "What the boxes may cost in a month (UTC). Once it is spent, the queue starts no more boxes, and a \
        hold only with `--over-budget`. Schedules still do, and a box that is up continues."),
    setting("budget_usd_day", NONE, "The same for a day (UTC)."),
    setting("foreign_hold", Value("\"2h\""), "How long a start or stop outside gpuctl, e.g. in the AWS console, counts as a hold. `\"0s\"`: \
        not at all."),
    setting("run_min", Value("\"0s\""), "The least time that a box is up before it stops because it is idle."),
    setting("boot_default", ValueOf { local: "\"5s\"", aws: "\"2m\"" }, "How long a boot is expected to take before one was seen."),
    setting("boot_deadline", Value("\"5m\""), "A box that is not ready by then is stopped."),
    setting("retire_stopped_after", NONE, "A box on EC2 that was stopped for this long is terminated with its disk, so that a forgotten one \
        costs nothing more; not while a start is asked for. Only for pools with `instances` or `select`, which then lack that box; needs the \
        permission `Retire`."),
    setting("lifetime_max", Value("\"24h\""), "A box is drained this long after its start, even if it has work or a user keeps it up. A \
        restart of its worker does not count."),
    setting("starts_per_hour_max", Value("60"), "The most starts within an hour."),
    setting("starts_without_result_max", Value("3"), "After this many boxes in a row that were started for the queue and ended without a \
        result, further starts are delayed, from one minute up to one hour. Boxes that did not get ready, or whose worker could do no job, \
        count, too."),
];

const SCHEDULE: &[SettingDoc] = &[
    setting(
        "zone",
        Words("required for a window, else `UTC`"),
        "An IANA time zone, e.g. `\"Asia/Tokyo\"`.",
    ),
    setting(
        "begin",
        Words("the start of the day"),
        "The time of day at which the window begins, e.g. `\"09:00\"`.",
    ),
    setting(
        "end",
        Words("the end of the day"),
        "The time of day at which it ends. An end before the begin is on the next day.",
    ),
    setting(
        "weekdays",
        Words("every day"),
        "The days of the week on which it begins, e.g. `\"mon-fri\"`, `\"sat,sun\"`, `\"mon#1\"` or \
        `\"fri#L\"`.",
    ),
    setting(
        "monthdays",
        Words("every day"),
        "The days of the month on which it begins, e.g. `\"1-15\"`, `\"L\"`, `\"15W\"` or `\"1/10\"`.",
    ),
    setting(
        "months",
        Words("every month"),
        "The months in which it begins, e.g. `\"jan-mar\"` or `\"1,7\"`.",
    ),
    setting(
        "start",
        NONE,
        "When boxes start: `cron(…)`, `rate(…)` or `at(…)`, e.g. `\"cron(0 9 ? * MON-FRI *)\"`.",
    ),
    setting("stop", NONE, "When they stop, in the same grammar."),
];

const SUBMIT: &[SettingDoc] = &[
    setting(
        "name",
        Words("required"),
        "Names it; with the time it makes the job's id, so that no time is submitted twice.",
    ),
    setting("task", Words("required"), "The task, e.g. `\"vision.ocr\"`."),
    setting(
        "input",
        Words("required"),
        "The input: the absolute path of a file, `s3://BUCKET/KEY` or `data:,TEXT`. On AWS a file is one of the box.",
    ),
    setting("model", Words("the task's"), "The model."),
    setting("priority", Value("\"normal\""), "`\"high\"`, `\"normal\"` or `\"low\"`."),
    setting(
        "zone",
        Words("required for a time of day, else `UTC`"),
        "An IANA time zone, e.g. `\"Asia/Tokyo\"`.",
    ),
    setting("begin", NONE, "The time of day, e.g. `\"02:00\"`."),
    setting("weekdays", Words("every day"), "The days of the week, as in a schedule."),
    setting("monthdays", Words("every day"), "The days of the month, as in a schedule."),
    setting("months", Words("every month"), "The months, as in a schedule."),
    setting("start", NONE, "In place of `begin` and days: `cron(…)`, `rate(…)` or `at(…)`."),
];

/// The keys of a window.
const QUIET: &[SettingDoc] = SCHEDULE.split_at(6).0;

const CALENDAR: &[SettingDoc] = &[
    setting(
        "skip",
        NONE,
        "Dates on which nothing begins, e.g. `[\"2026-12-25\", \"2026-12-31..2027-01-03\"]`.",
    ),
    setting(
        "skip_file",
        NONE,
        "An iCalendar file whose all-day events are such dates, or a list of up to 20 files.",
    ),
    setting("extra", NONE, "Dates on which every entry applies, whatever its days are."),
    setting("extra_file", NONE, "A file, or files, of such dates likewise."),
];

const WORKER: &[SettingDoc] = &[
    setting("device", Value("\"auto\""), "The device of models without one of their own."),
    setting("models", Words("in the cache"), "The folder with a folder for each model."),
    setting("onnxruntime", Words("in the cache"), "The library of ONNX Runtime."),
    setting(
        "input_roots",
        Words("anywhere; on AWS: nowhere"),
        "The folders in which inputs may be. On AWS a box reads no `file://` input unless this is set: who may send a message could \
         have each file of the box read.",
    ),
    setting(
        "input_buckets",
        Words("that of `results`"),
        "On AWS: the buckets in which inputs may be, beside that of `results`, e.g. `[\"recordings\"]`. With the account that owns it, \
         as in `\"123456789012/recordings\"`, a bucket of that name in another account is not read.",
    ),
    setting("threads", Words("the number of cores"), "The threads of one inference session."),
    setting("audio_seconds_max", Value("14400"), "The longest accepted recording, in seconds."),
    setting("image_pixels_max", Value("100000000"), "The largest accepted picture, in pixels."),
    setting(
        "job_max",
        Value("\"1h\""),
        "How long a job may take, counted from when its model begins with it. A job that takes longer is told to stop, and fails with \
         `job.timeout`: no other worker tries it. If it goes on for another minute, its worker drains and ends with exit code 13.",
    ),
    setting(
        "power_off",
        Value("[\"systemctl\", \"poweroff\"]"),
        "The command with which a worker shuts down its EC2 box, as a list of its words; or `\"exit-code\"`: a hook of the \
         service manager does it, where the worker ends with an exit code from 10 to 15 other than 12.",
    ),
    setting(
        "drain",
        Value("\"30s\""),
        "How long a stopping worker may continue with the jobs it holds.",
    ),
];

const MODEL: &[SettingDoc] = &[
    setting("device", Words("that of `[worker]`"), "The device of this model."),
    setting("job_max", Words("that of `[worker]`"), "How long each job of this model may take."),
];

const COMMAND: &[SettingDoc] = &[
    setting(
        "argv",
        NONE,
        "Required: the program and its words. `{NAME}` in a word stands for a param, for `{input}`, `{output_dir}` or `{checkpoint_dir}`. \
         There is no shell.",
    ),
    setting(
        "pools",
        Words("all with a queue"),
        "The pools whose boxes run it, e.g. `[\"train\"]`; elsewhere its jobs fail with `command.pool`. Boxes of these pools may be up for longer than \
         `lifetime_max` while they hold a job, and their dead man's timer is later by `hard_max` and half an hour.",
    ),
    setting(
        "env",
        NONE,
        "Variables of its environment, e.g. `env = { OMP_NUM_THREADS = \"4\" }`. Of the worker's own it gets few: `PATH`, \
         `HOME`, the language, and those of CUDA.",
    ),
    setting(
        "secrets",
        NONE,
        "Variables whose values are secret, each with the absolute path of a file on the box that only its owner may read (mode 0600). \
         No ledger, log or page has the value; where the program prints it, the log has `***`. A worker does not read SSM by itself.",
    ),
    setting(
        "soft_max",
        Words("an hour less than `hard_max`"),
        "After so long it gets SIGTERM: it may save and end. If it ends with 0, that is its result. The time of earlier attempts counts.",
    ),
    setting(
        "hard_max",
        ValueOf { local: "\"24h\"", aws: "\"11h30m\"" },
        "After so long it is killed, and the job fails with `command.timeout`. On AWS at most 11h30m: SQS ends a lease after 12 hours. \
         While it runs, `lifetime_max` does not stop the box.",
    ),
    setting(
        "grace",
        Value("\"20s\""),
        "How long after SIGTERM it is killed, where its box is to stop. `[worker] drain` is longer, so that the last checkpoint is stored, and an interruption leaves two \
         minutes.",
    ),
    setting(
        "checkpoint_every",
        Value("\"10m\""),
        "How often its checkpoint is stored, if it has changed; also whenever its box is to stop.",
    ),
    setting(
        "checkpoint_mib_max",
        Value("4096"),
        "The largest checkpoint, in MiB; beyond that the job fails with `command.full`.",
    ),
    setting(
        "output_mib_max",
        Value("1024"),
        "The largest size of all its result's files, in MiB, which are held in memory while they are stored.",
    ),
    setting("log_mib_max", Value("64"), "The largest log, in MiB; what comes beyond is left out."),
    setting(
        "retry_exit_codes",
        NONE,
        "Exit codes after which it is run again from its checkpoint, e.g. `[75]`; a signal counts as 128 and its number.",
    ),
    setting("retries_max", Value("3"), "How often it is run again for these."),
];

const COMMAND_PARAM: &[SettingDoc] = &[
    setting(
        "type",
        NONE,
        "Required: what its values are. A text is one line, and must not begin with `-`.",
    ),
    setting("min", NONE, "The least `integer` or `number`."),
    setting("max", NONE, "The greatest one."),
    setting("chars_max", Words("1000"), "The longest `text`."),
    setting("choices", NONE, "The values of a `choice`."),
    setting("default", Words("none: a job must have it"), "The value of jobs that leave it out."),
];

const COST: &[SettingDoc] = &[
    setting(
        "instance_type",
        Value("\"g4dn.xlarge\""),
        "The instance type of boxes on this machine, and of comparisons.",
    ),
    setting("region", Value("\"us-east-1\""), "The region of its price."),
    setting("usd_hour", Words("the price of the tables"), "The price of an hour of any box."),
    setting(
        "disk_gib",
        Value("0"),
        "The size of each box's disk, which is billed even while the box is stopped.",
    ),
    setting(
        "disk_usd_gib_month",
        Value("0.08"),
        "The price of a GiB of disk a month. The default is gp3 in us-east-1.",
    ),
    setting(
        "public_ipv4",
        Value("false"),
        "Whether each box keeps a public IPv4 address, which is billed all the time.",
    ),
];

const HTTP: &[SettingDoc] = &[
    setting(
        "address",
        Value("\"127.0.0.1:8686\""),
        "Where it listens. Any other than a loopback address of this machine needs a key in force (`gpuctl keys create`), and a proxy in front \
        that speaks TLS. Port 0 takes a free one, which is printed.",
    )
    .takes("IP address and port"),
    setting(
        "hosts",
        Value("[]"),
        "Names under which it may be called, beside `localhost` and the loopback addresses, e.g. that of a container.",
    ),
    setting("upload_mib_max", Value("512"), "The largest file that a client may upload, in MiB."),
    setting("connections_max", Value("512"), "The most connections at once; further ones wait to be accepted."),
    setting(
        "waiting_max",
        Value("64"),
        "The most requests that wait for a job at once; further ones are answered at once, as if their wait were over.",
    ),
    setting(
        "wait_max",
        Value("\"570s\""),
        "How long a request may wait for a job. Set it lower than the limit of a proxy in front: nginx and AWS's load balancer cut a \
        request after 60 s, Cloudflare after 100 s.",
    ),
    setting("queued_max", Value("10000"), "The most jobs that may wait in the queue; beyond that no job is taken."),
];
