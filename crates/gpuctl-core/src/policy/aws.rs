//! `[cloud] kind = "aws"`, and which EC2 instances are a pool's boxes. Nothing here calls AWS.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::ops::Range;

use super::section::Section;
use super::{Aws, Boxes, LaunchTemplate, Pool, Work};

/// The longest function that Lambda accepts: a name of 64 characters, or an ARN with a qualifier.
const FUNCTION_CHARS_MAX: usize = 140;
/// The most instances of one pool: their ids go into one DescribeInstances call, whose filter takes 200 values.
const INSTANCES_MAX: usize = 200;
/// The most tags to select a pool by: EC2's limit for the tags of an instance.
const TAGS_MAX: usize = 50;
/// The most pairs of instance type and subnet of one pool: a fleet request takes 300 overrides.
const OFFERINGS_MAX: usize = 50;

pub(super) fn aws(section: &mut Section<'_, '_, '_>) -> Aws {
    let results = section.text("results").and_then(|(span, text)| {
        let bucket = text.strip_prefix("s3://").and_then(|rest| rest.split('/').next());
        if bucket.is_none_or(str::is_empty) {
            let hint = Some("e.g. `s3://bucket` or `s3://bucket/prefix`".to_owned());
            section.problem("results", span, format!("`{text}` is not a valid S3 location"), hint);
            return None;
        }
        Some(text.trim_end_matches('/').to_owned())
    });
    let notify = section.text("notify").and_then(|(span, text)| {
        if !text.starts_with("arn:") || !text.contains(":sns:") {
            let hint = Some(
                "the ARN of the topic, e.g. `arn:aws:sns:us-east-1:123456789012:gpuctl`".to_owned(),
            );
            section.problem("notify", span, format!("`{text}` is not a valid SNS topic"), hint);
            return None;
        }
        Some(text)
    });
    let function = function(section);
    let metrics = section.flag("metrics").unwrap_or(false);
    let mut word = |key| section.text(key).map(|(_, text)| text);
    let (region, profile, table) = (word("region"), word("profile"), word("table"));
    Aws { region, profile, table, results, notify, function, metrics }
}

fn function(section: &mut Section<'_, '_, '_>) -> Option<String> {
    let (span, text) = section.text("function")?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_:$".contains(c);
    if text.is_empty() || text.len() > FUNCTION_CHARS_MAX || !text.chars().all(fits) {
        let hint = Some("its name, e.g. `gpuctl`, or its ARN".to_owned());
        section.problem(
            "function",
            span,
            format!("`{text}` is not a valid name of a Lambda function"),
            hint,
        );
        return None;
    }
    Some(text)
}

/// Which instances are the pool's boxes: `instances`, `select` or `launch_template`.
pub(super) fn boxes(section: &mut Section<'_, '_, '_>) -> Option<Boxes> {
    let instances = section.texts("instances");
    let select = section.optional_section("select").map(tags);
    let template = section.text("launch_template");
    let version = section.text("launch_template_version").map(|(_, text)| text);
    let types = section.texts("instance_types").map(|(_, texts)| texts).unwrap_or_default();
    let subnets = section.texts("subnets").map(|(_, texts)| texts).unwrap_or_default();
    let given = [instances.is_some(), select.is_some(), template.is_some()];
    if given.iter().filter(|given| **given).count() > 1 {
        let hint = "use one of the three".to_owned();
        let message = "has several of `instances`, `select` and `launch_template`".to_owned();
        section.problem("", section.span.clone(), message, Some(hint));
        return None;
    }
    if template.is_none() && !(types.is_empty() && subnets.is_empty() && version.is_none()) {
        let message = "has `instance_types`, `subnets` or `launch_template_version` without a `launch_template`";
        let hint = "they say what to launch; existing boxes cannot be changed".to_owned();
        section.problem("", section.span.clone(), message.to_owned(), Some(hint));
    }
    if types.len() * subnets.len().max(1) > OFFERINGS_MAX {
        let message = format!("makes more than {OFFERINGS_MAX} pairs with `subnets`");
        section.problem("instance_types", section.span.clone(), message, None);
    }
    match (instances, select, template) {
        (Some((span, ids)), ..) => instances_of(section, span, ids),
        (_, Some(tags), _) => tags.map(Boxes::Select),
        (.., Some((span, name))) => {
            if types.is_empty() {
                let hint =
                    "in order of preference, e.g. `[\"g4dn.xlarge\", \"g5.xlarge\"]`".to_owned();
                section.problem("instance_types", span, "is missing".to_owned(), Some(hint));
            }
            Some(Boxes::Launch(LaunchTemplate { name, version, instance_types: types, subnets }))
        }
        _ => None,
    }
}

fn instances_of(
    section: &mut Section<'_, '_, '_>,
    span: Range<usize>,
    ids: Vec<String>,
) -> Option<Boxes> {
    let is_id = |id: &&String| {
        let hex = id.strip_prefix("i-").unwrap_or_default();
        (8..=17).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit())
    };
    if let Some(wrong) = ids.iter().find(|id| !is_id(id)) {
        let hint = "ids look like `i-0123456789abcdef0`; to select by tag, use `select`".to_owned();
        section.problem(
            "instances",
            span,
            format!("`{wrong}` is not a valid instance id"),
            Some(hint),
        );
        return None;
    }
    let distinct: BTreeSet<&String> = ids.iter().collect();
    if ids.is_empty() || distinct.len() < ids.len() || ids.len() > INSTANCES_MAX {
        let message = format!("must have 1 to {INSTANCES_MAX} ids, each once");
        section.problem("instances", span, message, None);
        return None;
    }
    Some(Boxes::Instances(ids))
}

fn tags(mut section: Section<'_, '_, '_>) -> Option<BTreeMap<String, String>> {
    let tags = section.texts_by_name();
    if tags.is_empty() || tags.len() > TAGS_MAX {
        let hint = "e.g. `select = { \"gpuctl:pool\" = \"gpu\" }`".to_owned();
        let message = format!("must have 1 to {TAGS_MAX} tags");
        section.problem("", section.span.clone(), message, Some(hint));
        return None;
    }
    Some(tags)
}

/// Reports settings of different sections that do not fit together on AWS.
pub(super) fn check(root: &mut Section<'_, '_, '_>, aws: Option<&Aws>, pools: &[Pool]) {
    for pool in pools {
        let problems = [
            wrong_backend(aws, pool),
            aws.and_then(|_| wrong_work(pool)),
            aws.and_then(|aws| missing_table(aws, pool)),
            aws.and_then(|_| too_few_instances(pool)),
        ];
        for (message, hint) in problems.into_iter().flatten() {
            root.problem(&format!("pool.{}", pool.id), 0..0, message, Some(hint.to_owned()));
        }
    }
    if aws.is_some() {
        check_owners(root, pools);
    }
}

/// A message and its hint.
type Found = (String, &'static str);

fn wrong_backend(aws: Option<&Aws>, pool: &Pool) -> Option<Found> {
    let (message, hint) = match (aws, &pool.boxes) {
        (None, Some(_)) => (
            "has EC2 boxes, but `[cloud] kind` is not \"aws\"",
            "set `kind = \"aws\"` in `[cloud]`",
        ),
        (None, None) if pool.queue().is_some_and(|queue| queue.name.is_url()) => (
            "has the URL of an SQS queue, but `[cloud] kind` is not \"aws\"",
            "a queue on this machine has a name, e.g. `jobs`",
        ),
        (None, None) if pool.queue().is_some_and(|queue| queue.lanes().count() > 1) => (
            "has `queue_high` or `queue_low`, but `[cloud] kind` is not \"aws\"",
            "remove it: on this machine one queue has all priorities",
        ),
        (Some(_), None) => (
            "has no boxes",
            "give it `instances = [\"i-…\"]`, `select = { … }` or `launch_template = \"…\"`",
        ),
        _ => return None,
    };
    Some((message.to_owned(), hint))
}

fn wrong_work(pool: &Pool) -> Option<Found> {
    matches!(pool.work, Work::Command(_)).then(|| {
        let message = "runs a `command`, which is for boxes on this machine".to_owned();
        (message, "remove it: an EC2 box runs what its image starts")
    })
}

fn missing_table(aws: &Aws, pool: &Pool) -> Option<Found> {
    let needs_table = pool.queue().is_some_and(|queue| queue.reports);
    (needs_table && aws.table.is_none()).then(|| {
        let message = "has a queue, but `[cloud]` has no `table`".to_owned();
        (message, "gpu-worker keeps results and reports there: name a DynamoDB table (`gpuctl doctor --fix` creates it), or set `worker = \"own\"` if another program receives the jobs")
    })
}

fn too_few_instances(pool: &Pool) -> Option<Found> {
    let Some(Boxes::Instances(ids)) = &pool.boxes else { return None };
    let too_few = pool.boxes_max > NonZeroU32::MIN && pool.boxes_max.get() as usize > ids.len();
    too_few.then(|| {
        let (most, count) = (pool.boxes_max, ids.len());
        let message = format!("boxes_max is {most}, but the number of boxes is {count}");
        (message, "name more boxes, or lower it")
    })
}

/// R8: two pools would start and stop the same box.
fn check_owners(root: &mut Section<'_, '_, '_>, pools: &[Pool]) {
    let mut owners: BTreeMap<&str, &Pool> = BTreeMap::new();
    for pool in pools {
        let Some(Boxes::Instances(ids)) = &pool.boxes else { continue };
        for id in ids {
            if let Some(first) = owners.insert(id, pool) {
                let message = format!("box `{id}` already belongs to pool `{}`", first.id);
                let hint = "a box can belong to only one pool".to_owned();
                root.problem(&format!("pool.{}", pool.id), 0..0, message, Some(hint));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    const AWS: &str = "[cloud]\nkind = \"aws\"\ntable = \"gpuctl\"\n";

    #[test]
    fn boxes_are_named_or_selected_or_launched() {
        let text = "[pool.app]\ninstances = [\"i-0123456789abcdef0\"]\n\
            [pool.gpu]\nqueue = \"https://sqs.us-east-1.amazonaws.com/123456789012/jobs\"\n\
            launch_template = \"gpu\"\ninstance_types = [\"g4dn.xlarge\"]\nboxes_max = 3\n\
            [pool.batch]\nqueue = \"batch\"\nselect = { \"gpuctl:pool\" = \"batch\" }\nworker = \"own\"";
        let policy = Policy::parse(&format!("{AWS}{text}")).unwrap();
        assert_eq!(policy.cloud.tick, chrono::TimeDelta::minutes(1));
        assert_eq!(policy.pools[0].work, Work::BoxOnly);
        assert!(matches!(&policy.pools[1].boxes, Some(Boxes::Launch(one)) if one.name == "gpu"));
        assert!(matches!(&policy.pools[2].boxes, Some(Boxes::Select(tags)) if tags.len() == 1));
        assert!(
            policy.pools[1].queue().unwrap().reports && !policy.pools[2].queue().unwrap().reports
        );
    }

    #[test]
    fn settings_that_are_not_valid_on_aws_are_rejected_with_a_hint() {
        let id = "i-0123456789abcdef0";
        for (text, expected) in [
            (format!("[pool.a]\ninstances = [\"{id}\"]"), "`[cloud] kind` is not \"aws\""),
            (
                "[cloud]\nregion = \"eu-west-1\"\n[pool.a]\nqueue = \"q\"".into(),
                "has settings for AWS",
            ),
            ("[pool.a]\nqueue = \"https://sqs/1/q\"".into(), "the URL of an SQS queue"),
            ("[pool.a]\nqueue = \"q\"\nqueue_high = \"h\"".into(), "one queue has all priorities"),
            (
                format!("{AWS}[pool.a]\nqueue = \"q\"\nqueue_low = \"q\"\ninstances = [\"{id}\"]"),
                "queue `q` already belongs to pool `a`",
            ),
            (format!("{AWS}[pool.a]\nqueue = \"q\""), "has no boxes"),
            (format!("{AWS}[pool.a]\ninstances = [\"i-xyz\"]"), "is not a valid instance id"),
            (format!("{AWS}[pool.a]\ninstances = [\"{id}\", \"{id}\"]"), "each once"),
            (
                format!("{AWS}[pool.a]\ninstances = [\"{id}\"]\nboxes_max = 2"),
                "the number of boxes is 1",
            ),
            (
                format!("{AWS}[pool.a]\ninstances = [\"{id}\"]\n[pool.b]\ninstances = [\"{id}\"]"),
                "already belongs to pool `a`",
            ),
            (format!("{AWS}[pool.a]\nlaunch_template = \"t\""), "instance_types: is missing"),
            (
                format!("{AWS}[pool.a]\ninstances = [\"{id}\"]\nsubnets = [\"s\"]"),
                "without a `launch_template`",
            ),
            (format!("{AWS}[pool.a]\nselect = {{}}"), "1 to 50 tags"),
            (
                format!("{AWS}[pool.a]\nselect = {{ a = \"b\" }}\nlaunch_template = \"t\""),
                "several of",
            ),
            (
                format!("{AWS}[pool.a]\ncommand = [\"x\"]\ninstances = [\"{id}\"]"),
                "runs a `command`",
            ),
            (
                format!("[cloud]\nkind = \"aws\"\n[pool.a]\nqueue = \"q\"\ninstances = [\"{id}\"]"),
                "has no `table`",
            ),
            (
                format!("{AWS}results = \"bucket\"\n[pool.a]\ninstances = [\"{id}\"]"),
                "is not a valid S3 location",
            ),
            (
                format!("{AWS}notify = \"me\"\n[pool.a]\ninstances = [\"{id}\"]"),
                "is not a valid SNS topic",
            ),
            (
                format!("{AWS}function = \"my function\"\n[pool.a]\ninstances = [\"{id}\"]"),
                "is not a valid name of a Lambda function",
            ),
        ] {
            let found = Policy::parse(&text).unwrap_err();
            let all: Vec<String> = found.0.iter().map(ToString::to_string).collect();
            assert!(all.iter().any(|problem| problem.contains(expected)), "{text}\n{all:?}");
        }
    }
}
