//! `[command.NAME]`: programs that jobs of the task `command.NAME` run. A job names one and gives it params; it never brings a command line.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;

use chrono::TimeDelta;

use super::Pool;
use super::section::Section;
use crate::text::excerpt;
use crate::units::{PoolId, show_duration};

/// How the tasks of commands begin.
pub const COMMAND_TASK: &str = "command.";
/// How long a worker may take for a command beyond its limit: to fetch its checkpoint, to end it, and to keep its files.
pub const COMMAND_MARGIN: TimeDelta = TimeDelta::minutes(30);

/// The most commands of a policy, and the most params of one.
const COMMANDS_MAX: usize = 100;
const PARAMS_MAX: usize = 50;
/// The longest that a command can be allowed to run on this machine.
const HARD_MAX: TimeDelta = TimeDelta::days(30);
/// On AWS SQS ends a lease twelve hours after the receive, and the margin comes on top.
const HARD_MAX_AWS: TimeDelta = TimeDelta::minutes(11 * 60 + 30);
/// The longest text of a param, and what applies where none is set.
const CHARS_MAX: u32 = 10_000;
const CHARS_DEFAULT: u32 = 1_000;
/// The largest file that S3 takes at once is 5 GiB.
const CHECKPOINT_MIB_MAX: u32 = 4_096;
/// A result's files are held in memory until they are kept.
const OUTPUT_MIB_MAX: u32 = 4_096;
/// Paths that a command gets beside its params.
pub const PLACES: [&str; 3] = ["input", "output_dir", "checkpoint_dir"];

/// `[command.NAME]`: a program that jobs may run.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// The program and its words; `{NAME}` in a word stands for a param or one of [`PLACES`].
    pub argv: Vec<String>,
    pub params: BTreeMap<String, CommandParam>,
    /// The pools whose boxes run it; `None`: all with a queue.
    pub pools: Option<BTreeSet<String>>,
    /// Variables of its environment.
    pub env: BTreeMap<String, String>,
    /// Variables whose values are read from these files.
    pub secrets: BTreeMap<String, String>,
    /// When it is told to come to an end.
    pub soft_max: TimeDelta,
    /// When it is ended; both count the time of earlier attempts.
    pub hard_max: TimeDelta,
    /// How long it has to end by itself once it is told to.
    pub grace: TimeDelta,
    pub checkpoint_every: TimeDelta,
    pub checkpoint_mib_max: u32,
    pub output_mib_max: u32,
    pub log_mib_max: u32,
    /// Exit codes after which it is run again, 128 and the number for a signal.
    pub retry_exit_codes: BTreeSet<u32>,
    /// How often.
    pub retries_max: u32,
}

/// What a job may say to a command.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandParam {
    pub kind: CommandParamKind,
    /// As the program gets it; `None`: a job must have the param.
    pub default: Option<String>,
}

/// Type and range of a param; `Display` describes it. Ranges include both ends.
#[derive(Clone, Debug, PartialEq)]
pub enum CommandParamKind {
    Integer { min: i64, max: i64 },
    Number { min: f64, max: f64 },
    Text { chars_max: u32 },
    Choice(Vec<String>),
    Flag,
}

impl CommandParamKind {
    /// Whether a value may be given to a program, as text.
    #[must_use]
    pub fn accepts(&self, value: &str) -> bool {
        match self {
            Self::Integer { min, max } => {
                value.parse().is_ok_and(|number| (*min..=*max).contains(&number))
            }
            Self::Number { min, max } => {
                value.parse().is_ok_and(|number| (*min..=*max).contains(&number))
            }
            // A text that begins with a dash could be taken for an option.
            Self::Text { chars_max } => {
                value.chars().count() <= *chars_max as usize
                    && !value.starts_with('-')
                    && !value.chars().any(char::is_control)
            }
            Self::Choice(known) => known.iter().any(|one| one == value),
            Self::Flag => ["true", "false"].contains(&value),
        }
    }
}

impl fmt::Display for CommandParamKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Number { min, max } => write!(f, "a number from {min} to {max}"),
            Self::Text { chars_max } => {
                write!(f, "a line of at most {chars_max} characters that does not begin with `-`")
            }
            Self::Choice(known) => write!(f, "one of {}", known.join(", ")),
            Self::Flag => f.write_str("true or false"),
        }
    }
}

impl Command {
    /// Whether boxes of this pool run it.
    #[must_use]
    pub fn runs_in(&self, pool: &PoolId) -> bool {
        self.pools.as_ref().is_none_or(|pools| pools.contains(pool.as_str()))
    }

    /// The words of the command line, with `value` in place of each `{NAME}`.
    pub fn words<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> Vec<String> {
        let filled = |word: &String| {
            let mut text = String::new();
            for part in parts(word) {
                match part {
                    Part::Text(literal) => text.push_str(literal),
                    Part::Name(name) => text.push_str(value(name).unwrap_or_default()),
                }
            }
            text
        };
        self.argv.iter().map(filled).collect()
    }
}

enum Part<'w> {
    Text(&'w str),
    Name(&'w str),
}

/// A word's literal parts and the names in braces; braces around anything else are literal.
fn parts(word: &str) -> Vec<Part<'_>> {
    let (mut parts, mut rest) = (Vec::new(), word);
    let mut from = 0;
    while let Some(open) = rest[from..].find('{').map(|at| from + at) {
        let name = rest[open + 1..].split('}').next().unwrap_or_default();
        let end = open + 1 + name.len();
        if is_name(name) && rest[end..].starts_with('}') {
            parts.extend([Part::Text(&rest[..open]), Part::Name(name)]);
            (rest, from) = (&rest[end + 1..], 0);
        } else {
            from = open + 1;
        }
    }
    parts.push(Part::Text(rest));
    parts
}

fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(fits)
}

pub(super) fn all(root: &mut Section<'_, '_, '_>, is_aws: bool) -> BTreeMap<String, Command> {
    let read = root
        .named("command", |name, section| Some((name.to_owned(), command(name, section, is_aws)?)));
    if read.len() > COMMANDS_MAX {
        root.problem("command", 0..0, format!("has more than {COMMANDS_MAX} commands"), None);
    }
    read.into_iter().collect()
}

/// A program that gets as long as the drain, or longer, would be killed before what it saved at the last is stored.
pub(super) fn check_graces(
    root: &mut Section<'_, '_, '_>,
    commands: &BTreeMap<String, Command>,
    drain: TimeDelta,
) {
    for (name, command) in commands.iter().filter(|(_, command)| command.grace >= drain) {
        let (grace, shown) = (show_duration(command.grace), show_duration(drain));
        let message = format!("is {grace}, and the worker's `drain` is only {shown}");
        let hint = "a last checkpoint is stored after the grace: raise `drain` in [worker], or lower `grace`";
        let key = format!("command.{}.grace", excerpt(name));
        root.problem(&key, 0..0, message, Some(hint.to_owned()));
    }
}

/// The pools that are named have boxes that take jobs.
pub(super) fn check_pools(
    root: &mut Section<'_, '_, '_>,
    commands: &BTreeMap<String, Command>,
    pools: &[Pool],
) {
    let has_queue =
        |name: &str| pools.iter().any(|pool| pool.id.as_str() == name && pool.queue().is_some());
    for (name, command) in commands {
        let named = command.pools.iter().flatten();
        for pool in named.filter(|pool| !has_queue(pool)) {
            let key = format!("command.{}.pools", excerpt(name));
            let message = format!("`{}` is not a pool with a queue", excerpt(pool));
            let hint = format!("write `[pool.{}]` with a `queue`, or leave it out", excerpt(pool));
            root.problem(&key, 0..0, message, Some(hint));
        }
    }
}

/// How long a command may keep a box of this pool up.
pub(super) fn longest(commands: &BTreeMap<String, Command>, pool: &PoolId) -> TimeDelta {
    let here = commands.values().filter(|command| command.runs_in(pool));
    here.map(|command| command.hard_max + COMMAND_MARGIN).max().unwrap_or_default()
}

fn command(name: &str, mut section: Section<'_, '_, '_>, is_aws: bool) -> Option<Command> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if name.is_empty() || name.len() > 80 || !name.chars().all(fits) {
        let message = format!("`{}` is not a valid name of a command", excerpt(name));
        let hint = "1 to 80 of a-z A-Z 0-9 - _".to_owned();
        section.problem("", section.span.clone(), message, Some(hint));
    }
    let argv = section.texts("argv");
    let listed = section.named("params", |name, inner| Some((name.to_owned(), param(inner))));
    if listed.len() > PARAMS_MAX {
        section.problem("params", 0..0, format!("has more than {PARAMS_MAX} params"), None);
    }
    let params: BTreeMap<_, _> =
        listed.into_iter().filter_map(|(name, param)| Some((name, param?))).collect();
    let pools = section.texts("pools").map(|(_, pools)| pools.into_iter().collect());
    let env = section.section("env").texts_by_name();
    let secrets = section.section("secrets").texts_by_name();
    check_variables(&mut section, &env, &secrets);
    let limits = limits(&mut section, is_aws);
    let command = Command {
        argv: Vec::new(),
        params,
        pools,
        env,
        secrets,
        retry_exit_codes: exit_codes(&mut section),
        retries_max: section.whole("retries_max", 0..=100).unwrap_or(3),
        ..limits
    };
    section.report_unknown_keys();
    let Some((span, argv)) = argv.filter(|(_, argv)| argv.first().is_some_and(|w| !w.is_empty()))
    else {
        let hint = "e.g. `argv = [\"python3\", \"train.py\", \"--epochs={epochs}\"]`".to_owned();
        section.problem("argv", section.span.clone(), "is missing".to_owned(), Some(hint));
        return None;
    };
    let command = Command { argv, ..command };
    check_words(&mut section, &span, &command);
    check_programs(&mut section, &span, &command.argv);
    Some(command)
}

/// Its limits; the rest is the caller's.
fn limits(section: &mut Section<'_, '_, '_>, is_aws: bool) -> Command {
    let (second, hour) = (TimeDelta::seconds(1), TimeDelta::hours(1));
    let hard_most = if is_aws { HARD_MAX_AWS } else { HARD_MAX };
    let hard_default = if is_aws { HARD_MAX_AWS } else { hour * 24 };
    let hard_max = section.duration_or("hard_max", second..=hard_most, hard_default);
    let soft_default = if hard_max > hour { hard_max - hour } else { hard_max };
    let soft_default = if is_aws { soft_default.min(hour * 11) } else { soft_default };
    let soft_max = section.duration_or("soft_max", second..=HARD_MAX, soft_default);
    if soft_max > hard_max {
        let message = format!("is longer than `hard_max`, {}", show_duration(hard_max));
        section.problem("soft_max", section.span.clone(), message, None);
    }
    let mib = |section: &mut Section<'_, '_, '_>, key, most, default| {
        section.whole(key, 1..=most).unwrap_or(default)
    };
    Command {
        argv: Vec::new(),
        params: BTreeMap::new(),
        pools: None,
        env: BTreeMap::new(),
        secrets: BTreeMap::new(),
        soft_max,
        hard_max,
        grace: section.duration_or("grace", second..=hour, second * 20),
        checkpoint_every: section.duration_or(
            "checkpoint_every",
            second..=hour * 24,
            TimeDelta::minutes(10),
        ),
        checkpoint_mib_max: mib(section, "checkpoint_mib_max", CHECKPOINT_MIB_MAX, 4_096),
        output_mib_max: mib(section, "output_mib_max", OUTPUT_MIB_MAX, 1_024),
        log_mib_max: mib(section, "log_mib_max", 1_024, 64),
        retry_exit_codes: BTreeSet::new(),
        retries_max: 0,
    }
}

fn exit_codes(section: &mut Section<'_, '_, '_>) -> BTreeSet<u32> {
    let Some((span, codes)) = section.scalars("retry_exit_codes") else { return BTreeSet::new() };
    let read: Option<BTreeSet<u32>> = codes
        .iter()
        .map(|code| code.parse().ok().filter(|code| (1..=255).contains(code)))
        .collect();
    if read.is_none() {
        let hint = "whole numbers from 1 to 255, e.g. `[75, 137]`".to_owned();
        section.problem(
            "retry_exit_codes",
            span,
            "is not a list of exit codes".to_owned(),
            Some(hint),
        );
    }
    read.unwrap_or_default()
}

/// Each name in braces must be known, and each param used.
fn check_words(
    section: &mut Section<'_, '_, '_>,
    span: &std::ops::Range<usize>,
    command: &Command,
) {
    let mut unused: BTreeSet<&str> = command.params.keys().map(String::as_str).collect();
    for name in command.argv.iter().flat_map(|word| parts(word)) {
        let Part::Name(name) = name else { continue };
        unused.remove(name);
        if !command.params.contains_key(name) && !PLACES.contains(&name) {
            let message = format!("`{{{name}}}` is not a param of this command");
            let hint = format!(
                "add `[{}.params.{name}]`; {} are always there",
                section.path,
                PLACES.join(", ")
            );
            section.problem("argv", span.clone(), message, Some(hint));
        }
    }
    for name in unused {
        let message = format!("no word has the param `{name}`");
        let hint = format!("write `{{{name}}}` where it belongs, e.g. `--{name}={{{name}}}`");
        section.problem("argv", span.clone(), message, Some(hint));
    }
}

/// Programs that run the text after a `-c`, and those that run the text after an `-e`.
const RUN_AFTER_C: [&str; 7] = ["sh", "bash", "dash", "zsh", "ksh", "ash", "python"];
const RUN_AFTER_E: [&str; 3] = ["perl", "ruby", "node"];

/// No job chooses which program runs, or brings a part of a script: neither is a value that a program takes.
fn check_programs(
    section: &mut Section<'_, '_, '_>,
    span: &std::ops::Range<usize>,
    argv: &[String],
) {
    if let Some(name) = first_name(&argv[0]) {
        let message = format!("`{{{name}}}` would let a job choose the program");
        let hint = "name the program itself; for a choice of programs write a command for each";
        section.problem("argv", span.clone(), message, Some(hint.to_owned()));
    }
    if let Some(name) = script(argv).into_iter().find_map(first_name) {
        let message = format!("`{{{name}}}` is in a script, so that a job could run anything");
        let hint = format!(
            "give it as a word after the script: `[\"sh\", \"-c\", \"train \\\"$1\\\"\", \"sh\", \"{{{name}}}\"]`"
        );
        section.problem("argv", span.clone(), message, Some(hint));
    }
}

/// The words that a shell or another interpreter of the command line takes as a script: the option, to which it may be attached, and the next
/// word that is not an option.
fn script(argv: &[String]) -> Vec<&str> {
    let letter_of = |word: &String| {
        let name =
            word.rsplit('/').next()?.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        let takes = |letter, names: &[&str]| names.contains(&name).then_some(letter);
        takes('c', &RUN_AFTER_C).or_else(|| takes('e', &RUN_AFTER_E))
    };
    let found = argv.iter().enumerate().find_map(|(at, word)| Some((at, letter_of(word)?)));
    let Some((at, letter)) = found else { return Vec::new() };
    let (mut script, mut words) = (Vec::new(), argv[at + 1..].iter());
    while let Some(word) = words.next() {
        if !word.starts_with(['-', '+']) {
            script.extend((!script.is_empty()).then_some(word.as_str()));
            break;
        }
        if !word.starts_with("--") && word.to_ascii_lowercase().contains(letter) {
            script.push(word);
        } else if word.ends_with(['o', 'O', 'W', 'X']) {
            // `-o pipefail`, `-W error`: the next word is the option's.
            words.next();
        }
    }
    script
}

fn first_name(word: &str) -> Option<&str> {
    parts(word).into_iter().find_map(|part| match part {
        Part::Name(name) => Some(name),
        Part::Text(_) => None,
    })
}

fn check_variables(
    section: &mut Section<'_, '_, '_>,
    env: &BTreeMap<String, String>,
    secrets: &BTreeMap<String, String>,
) {
    let is_variable = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !name.starts_with("GPUCTL_")
    };
    let at = section.span.clone();
    for (key, name) in
        env.keys().map(|name| ("env", name)).chain(secrets.keys().map(|name| ("secrets", name)))
    {
        if !is_variable(name) {
            let message = format!("`{}` cannot be a variable of a command", excerpt(name));
            let hint = "letters, digits and _; those that begin with GPUCTL_ are set by the worker"
                .to_owned();
            section.problem(key, at.clone(), message, Some(hint));
        }
    }
    for (name, place) in secrets {
        if !place.starts_with('/') {
            let message = format!("`{}` names no file", excerpt(name));
            let hint = "give the absolute path of a file of mode 0600, never the secret itself; a box's setup can write it from SSM".to_owned();
            section.problem("secrets", at.clone(), message, Some(hint));
        }
        if env.contains_key(name) {
            section.problem(
                "secrets",
                at.clone(),
                format!("`{}` is in `env`, too", excerpt(name)),
                None,
            );
        }
    }
}

const TYPES: [&str; 5] = ["integer", "number", "text", "choice", "flag"];

fn param(mut section: Section<'_, '_, '_>) -> Option<CommandParam> {
    let name = section.path.rsplit('.').next().unwrap_or_default().to_owned();
    let at = section.span.clone();
    if !is_name(&name) || PLACES.contains(&name.as_str()) {
        let message = format!("`{}` cannot be the name of a param", excerpt(&name));
        let hint = format!("a-z, 0-9 and _, a letter first; not {}", PLACES.join(", "));
        section.problem("", at.clone(), message, Some(hint));
    }
    let kind = section.word("type", &TYPES);
    let [min, max] = ["min", "max"].map(|key| section.scalar(key));
    let chars_max = section.whole("chars_max", 1..=CHARS_MAX);
    let choices = section.texts("choices").map(|(_, choices)| choices);
    let default = section.scalar("default");
    section.report_unknown_keys();
    let kind = match kind.as_deref() {
        Some("integer") => whole(&mut section, min, max)?,
        Some("number") => number(&mut section, min, max)?,
        Some("text") => CommandParamKind::Text { chars_max: chars_max.unwrap_or(CHARS_DEFAULT) },
        Some("flag") => CommandParamKind::Flag,
        Some(_) => {
            CommandParamKind::Choice(choices.filter(|all| !all.is_empty()).or_else(|| {
                let hint = "e.g. `choices = [\"n\", \"s\"]`".to_owned();
                section.problem("choices", at, "is missing".to_owned(), Some(hint));
                None
            })?)
        }
        None => {
            if !section.has("type") {
                let hint = format!("one of: {}", TYPES.join(", "));
                section.problem("type", at, "is missing".to_owned(), Some(hint));
            }
            return None;
        }
    };
    if let Some((span, value)) = &default
        && !kind.accepts(value)
    {
        section.problem("default", span.clone(), format!("is not {kind}"), None);
    }
    Some(CommandParam { kind, default: default.map(|(_, value)| value) })
}

type Bound = Option<(std::ops::Range<usize>, String)>;

fn whole(section: &mut Section<'_, '_, '_>, min: Bound, max: Bound) -> Option<CommandParamKind> {
    let range = bounds(section, min, max, i64::MIN..=i64::MAX)?;
    Some(CommandParamKind::Integer { min: *range.start(), max: *range.end() })
}

fn number(section: &mut Section<'_, '_, '_>, min: Bound, max: Bound) -> Option<CommandParamKind> {
    let range = bounds(section, min, max, f64::MIN..=f64::MAX)?;
    Some(CommandParamKind::Number { min: *range.start(), max: *range.end() })
}

/// Both ends, each with its default; they must be numbers, and in order.
fn bounds<T: std::str::FromStr + PartialOrd + Copy>(
    section: &mut Section<'_, '_, '_>,
    min: Bound,
    max: Bound,
    all: RangeInclusive<T>,
) -> Option<RangeInclusive<T>> {
    let mut read = |key: &str, given: Bound, default: T| match given {
        None => Some(default),
        Some((span, text)) => {
            let number = text.parse().ok();
            if number.is_none() {
                section.problem(key, span, "is not such a number".to_owned(), None);
            }
            number
        }
    };
    let (min, max) = (read("min", min, *all.start()), read("max", max, *all.end()));
    let (min, max) = (min?, max?);
    if min > max {
        section.problem("min", section.span.clone(), "is greater than `max`".to_owned(), None);
    }
    Some(min..=max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    const TRAIN: &str = "[pool.gpu]\nqueue = \"jobs\"\n[command.train]\nargv = [\"python3\", \"t.py\", \"--epochs={epochs}\", \"{output_dir}\"]\n\
        [command.train.params.epochs]\ntype = \"integer\"\nmin = 1\nmax = 100\n";

    fn problems(text: &str) -> String {
        let problems = Policy::parse(text).unwrap_err();
        problems.0.iter().map(|one| format!("{one}\n")).collect()
    }

    #[test]
    fn a_command_has_words_with_params_and_defaults() {
        let policy = Policy::parse(TRAIN).unwrap();
        let command = policy.command("command.train").unwrap();
        let words = command.words(|name| Some(if name == "epochs" { "3" } else { "/out" }));
        assert_eq!(words, ["python3", "t.py", "--epochs=3", "/out"]);
        assert_eq!(
            (command.soft_max, command.hard_max),
            (TimeDelta::hours(23), TimeDelta::hours(24))
        );
        assert_eq!(policy.pools[0].command_max, TimeDelta::hours(24) + COMMAND_MARGIN);
        assert!(policy.command("train").is_none() && policy.command("command.x").is_none());
    }

    #[test]
    fn only_boxes_of_pools_that_run_a_command_may_be_up_longer_for_it() {
        let two = format!("[pool.train]\nqueue = \"long\"\n{TRAIN}");
        let longest = |text: &str| {
            let policy = Policy::parse(text).unwrap();
            ["gpu", "train"].map(|id| policy.pool(&id.parse().unwrap()).unwrap().command_max)
        };
        let (day, none) = (TimeDelta::hours(24) + COMMAND_MARGIN, TimeDelta::zero());
        assert_eq!(longest(&two), [day, day]);
        let named = |pools: &str| {
            two.replace("[command.train]\n", &format!("[command.train]\npools = {pools}\n"))
        };
        assert_eq!(longest(&named("[\"train\"]")), [none, day]);
        assert_eq!(longest(&named("[]")), [none, none]);
        let said = problems(&named("[\"trian\"]"));
        assert!(said.contains("command.train.pools: `trian` is not a pool with a queue"), "{said}");
    }

    #[test]
    fn braces_around_anything_but_a_name_are_literal() {
        let literal = |word: &str| parts(word).iter().all(|part| matches!(part, Part::Text(_)));
        for word in ["{", "{}", "{\"a\": 1}", "{A}", "{{", "a{b", "{ä}"] {
            assert!(literal(word), "{word}");
        }
        assert!(!literal("{{a}}"));
    }

    #[test]
    fn what_a_param_accepts_is_told_by_its_type_and_range() {
        let whole = CommandParamKind::Integer { min: 1, max: 9 };
        let text = CommandParamKind::Text { chars_max: 3 };
        assert_eq!(
            ["1", "9", "0", "x", "1.0"].map(|v| whole.accepts(v)),
            [true, true, false, false, false]
        );
        assert_eq!(
            ["abc", "", "abcd", "-a", "a\n"].map(|v| text.accepts(v)),
            [true, true, false, false, false]
        );
        let number = CommandParamKind::Number { min: 0.0, max: 1.0 };
        assert_eq!(
            ["1e-4", "1.5", "NaN", "inf"].map(|v| number.accepts(v)),
            [true, false, false, false]
        );
    }

    #[test]
    fn no_param_is_a_program_or_a_part_of_a_script() {
        let choice = "`{epochs}` would let a job choose the program";
        let in_script = "`{epochs}` is in a script";
        let argv = |words: &str| {
            let text = TRAIN.replace("\"python3\", \"t.py\", \"--epochs={epochs}\"", words);
            Policy::parse(&text).map_or_else(|_| problems(&text), |_| String::new())
        };
        for (words, wanted) in [
            ("'{epochs}'", choice),
            ("'/opt/{epochs}/train', '{epochs}'", choice),
            ("'sh', '-c', 'train {epochs}'", in_script),
            ("'/bin/bash', '-euo', 'pipefail', '-c', 'train {epochs}'", in_script),
            ("'bash', '-lc', '-x', 'train {epochs}'", in_script),
            ("'env', 'A=b', 'zsh', '-c', '{epochs}'", in_script),
            ("'python3.12', '-uc', 'print({epochs})'", in_script),
            ("'python3', '-cprint({epochs})'", in_script),
            ("'perl', '-ne', 'print {epochs}'", in_script),
        ] {
            assert!(argv(words).contains(wanted), "{words}: {}", argv(words));
            assert!(
                argv(words).ends_with(
                    ")
"
                ),
                "with a hint: {}",
                argv(words)
            );
        }
        for words in [
            "'sh', '-c', 'train \"$1\"', 'sh', '{epochs}'",
            "'bash', '/opt/train.sh', '-c', '{epochs}'",
            "'python3', '-u', 't.py', '-c', '{epochs}'",
            "'python3', '-m', 'train', '-c', '{epochs}'",
            "'/opt/train', '-c', '{epochs}'",
        ] {
            assert_eq!(argv(words), "", "{words}");
        }
    }

    #[test]
    fn what_could_not_be_run_is_rejected_with_a_hint() {
        let aws = "[cloud]\nkind = \"aws\"\ntable = \"t\"\nresults = \"s3://b\"\n";
        let on_aws =
            format!("{aws}{}", TRAIN.replace("\"jobs\"\n", "\"jobs\"\nselect = { a = \"b\" }\n"));
        assert!(Policy::parse(&on_aws).is_ok(), "{}", problems(&on_aws));
        for (text, wanted) in [
            (TRAIN.replace("{epochs}", "{epoch}"), "`{epoch}` is not a param"),
            (
                format!("{TRAIN}[worker]\ndrain = \"20s\"\n"),
                "command.train.grace: is 20s, and the worker's `drain` is only 20s",
            ),
            (TRAIN.replace("{epochs}", "3"), "no word has the param `epochs`"),
            (
                TRAIN.replace("min = 1\n", "min = 1\ndefault = 0\n"),
                "default: is not a whole number",
            ),
            (TRAIN.replace("min = 1\n", "min = 101\n"), "is greater than `max`"),
            (TRAIN.replace("type = \"integer\"\n", ""), "type: is missing"),
            (TRAIN.replace("argv = [", "args = ["), "argv: is missing"),
            (
                TRAIN.replace("[command.train]", "[command.train]\nsoft_max = \"25h\""),
                "longer than `hard_max`",
            ),
            (
                TRAIN.replace("[command.train]", "[command.train]\nretry_exit_codes = [0]"),
                "list of exit codes",
            ),
            (
                TRAIN.replace("[command.train]", "[command.train]\nenv = { GPUCTL_JOB = \"x\" }"),
                "cannot be a variable",
            ),
            (
                TRAIN.replace("[command.train]", "[command.train]\nsecrets = { KEY = \"value\" }"),
                "names no file",
            ),
            (
                on_aws.replace("[command.train]", "[command.train]\nhard_max = \"12h\""),
                "hard_max: `12h` is out of range",
            ),
        ] {
            let all = problems(&text);
            assert!(all.contains(wanted), "{text}\n{all}");
        }
    }
}
