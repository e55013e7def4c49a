//! `[cloud] kind = "aws"` and where a pool's boxes come from there. Nothing is asked of AWS here.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::ops::Range;

use super::section::Section;
use super::{Aws, Boxes, LaunchTemplate, Pool, Work};

/// What Lambda takes as a function: a name of 64 characters, or an ARN with a qualifier.
const FUNCTION_CHARS_MAX: usize = 140;
/// Boxes that one pool may name: their ids go into one describe call, whose filter takes 200 values.
const INSTANCES_MAX: usize = 200;
/// Tags that one pool may be selected by: EC2's limit on the tags of a box.
const TAGS_MAX: usize = 50;
/// Types and subnets of one pool together: a fleet request takes 300 overrides.
const OFFERINGS_MAX: usize = 50;

pub(super) fn aws(section: &mut Section<'_, '_, '_>) -> Aws {
    let results = section.text("results").and_then(|(span, text)| {
        let bucket = text.strip_prefix("s3://").and_then(|rest| rest.split('/').next());
        if bucket.is_none_or(str::is_empty) {
            let hint = Some("as `s3://bucket` or `s3://bucket/prefix`".to_owned());
            section.problem("results", span, format!("`{text}` is no place in S3"), hint);
            return None;
        }
        Some(text.trim_end_matches('/').to_owned())
    });
    let notify = section.text("notify").and_then(|(span, text)| {
        if !text.starts_with("arn:") || !text.contains(":sns:") {
            let hint =
                Some("the topic's ARN, as `arn:aws:sns:us-east-1:123456789012:gpuctl`".to_owned());
            section.problem("notify", span, format!("`{text}` is no SNS topic"), hint);
            return None;
        }
        Some(text)
    });
    let function = function(section);
    let mut word = |key| section.text(key).map(|(_, text)| text);
    let (region, profile, table) = (word("region"), word("profile"), word("table"));
    Aws { region, profile, table, results, notify, function }
}

fn function(section: &mut Section<'_, '_, '_>) -> Option<String> {
    let (span, text) = section.text("function")?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_:$".contains(c);
    if text.is_empty() || text.len() > FUNCTION_CHARS_MAX || !text.chars().all(fits) {
        let hint = Some("its name, as `gpuctl`, or its ARN".to_owned());
        section.problem("function", span, format!("`{text}` is no Lambda function"), hint);
        return None;
    }
    Some(text)
}

/// Where the pool's boxes come from: `instances`, `select` or `launch_template`.
pub(super) fn boxes(section: &mut Section<'_, '_, '_>) -> Option<Boxes> {
    let instances = section.texts("instances");
    let select = section.has("select").then(|| tags(section.section("select")));
    let template = section.text("launch_template");
    let version = section.text("launch_template_version").map(|(_, text)| text);
    let types = section.texts("instance_types").map(|(_, texts)| texts).unwrap_or_default();
    let subnets = section.texts("subnets").map(|(_, texts)| texts).unwrap_or_default();
    let given = [instances.is_some(), select.is_some(), template.is_some()];
    if given.iter().filter(|given| **given).count() > 1 {
        let hint = "boxes are named, selected by tag, or launched: one of the three".to_owned();
        let message = "several of `instances`, `select` and `launch_template`".to_owned();
        section.problem("", section.span.clone(), message, Some(hint));
        return None;
    }
    if template.is_none() && !(types.is_empty() && subnets.is_empty() && version.is_none()) {
        let message =
            "`instance_types`, `subnets` and `launch_template_version` need a `launch_template`";
        let hint = "named and selected boxes are what they are".to_owned();
        section.problem("", section.span.clone(), message.to_owned(), Some(hint));
    }
    if types.len() * subnets.len().max(1) > OFFERINGS_MAX {
        let message = format!("more than {OFFERINGS_MAX} pairs of type and subnet");
        section.problem("instance_types", section.span.clone(), message, None);
    }
    match (instances, select, template) {
        (Some((span, ids)), ..) => instances_of(section, span, ids),
        (_, Some(tags), _) => tags.map(Boxes::Select),
        (.., Some((span, name))) => {
            if types.is_empty() {
                let hint =
                    "in order of preference, as `[\"g4dn.xlarge\", \"g5.xlarge\"]`".to_owned();
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
        let hint = "ids look like `i-0123456789abcdef0`; `select` takes tags".to_owned();
        section.problem("instances", span, format!("`{wrong}` is no instance id"), Some(hint));
        return None;
    }
    let distinct: BTreeSet<&String> = ids.iter().collect();
    if ids.is_empty() || distinct.len() < ids.len() || ids.len() > INSTANCES_MAX {
        let message = format!("must name 1 to {INSTANCES_MAX} boxes, each once");
        section.problem("instances", span, message, None);
        return None;
    }
    Some(Boxes::Instances(ids))
}

fn tags(mut section: Section<'_, '_, '_>) -> Option<BTreeMap<String, String>> {
    let tags = section.texts_by_name();
    if tags.is_empty() || tags.len() > TAGS_MAX {
        let hint = "as `select = { \"gpuctl:pool\" = \"gpu\" }`".to_owned();
        let message = format!("must name 1 to {TAGS_MAX} tags");
        section.problem("", section.span.clone(), message, Some(hint));
        return None;
    }
    Some(tags)
}

/// What goes together on AWS and what does not, once all of a pool is read.
pub(super) fn check(root: &mut Section<'_, '_, '_>, aws: Option<&Aws>, pools: &[Pool]) {
    let mut owners: BTreeMap<&str, &Pool> = BTreeMap::new();
    for pool in pools {
        let mut problem = |message: String, hint: &str| {
            root.problem(&format!("pool.{}", pool.id), 0..0, message, Some(hint.to_owned()));
        };
        match (aws, &pool.boxes) {
            (None, Some(_)) => problem(
                "names EC2 boxes, but `[cloud] kind` is not \"aws\"".to_owned(),
                "set `kind = \"aws\"` in `[cloud]`",
            ),
            (None, None) if pool.queue().is_some_and(|queue| queue.name.is_url()) => problem(
                "has a queue's URL, but `[cloud] kind` is not \"aws\"".to_owned(),
                "a queue on this machine has a plain name",
            ),
            (Some(_), None) => problem(
                "has no boxes".to_owned(),
                "give it `instances = [\"i-…\"]`, `select = { … }` or `launch_template = \"…\"`",
            ),
            _ => {}
        }
        let Some(aws) = aws else { continue };
        if matches!(pool.work, Work::Command(_)) {
            problem(
                "runs a `command`, which is for boxes on this machine".to_owned(),
                "leave it out: what an EC2 box runs is in its image",
            );
        }
        if pool.queue().is_some_and(|queue| queue.reports) && aws.table.is_none() {
            problem(
                "has a queue, and `[cloud]` has no `table`".to_owned(),
                "gpu-worker keeps results and its reports there: name a DynamoDB table (`gpuctl doctor --fix` makes it), or set `worker = \"own\"` if another program drains the queue",
            );
        }
        if let Some(Boxes::Instances(ids)) = &pool.boxes {
            for id in ids {
                // R8: two pools would pull at one box.
                if let Some(first) = owners.insert(id, pool) {
                    problem(
                        format!("box `{id}` already belongs to pool `{}`", first.id),
                        "one box, one pool",
                    );
                }
            }
            if pool.boxes_max > NonZeroU32::MIN && pool.boxes_max.get() as usize > ids.len() {
                problem(
                    format!("boxes_max is {} and there are {} boxes", pool.boxes_max, ids.len()),
                    "name more boxes, or lower it",
                );
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
    fn boxes_are_named_selected_or_launched_and_a_minute_is_the_tick() {
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
    fn what_cannot_be_meant_on_aws_is_refused_with_a_hint() {
        let id = "i-0123456789abcdef0";
        for (text, expected) in [
            (format!("[pool.a]\ninstances = [\"{id}\"]"), "`[cloud] kind` is not \"aws\""),
            (
                "[cloud]\nregion = \"eu-west-1\"\n[pool.a]\nqueue = \"q\"".into(),
                "names AWS settings",
            ),
            ("[pool.a]\nqueue = \"https://sqs/1/q\"".into(), "a queue's URL"),
            (format!("{AWS}[pool.a]\nqueue = \"q\""), "has no boxes"),
            (format!("{AWS}[pool.a]\ninstances = [\"i-xyz\"]"), "is no instance id"),
            (format!("{AWS}[pool.a]\ninstances = [\"{id}\", \"{id}\"]"), "each once"),
            (format!("{AWS}[pool.a]\ninstances = [\"{id}\"]\nboxes_max = 2"), "there are 1 boxes"),
            (
                format!("{AWS}[pool.a]\ninstances = [\"{id}\"]\n[pool.b]\ninstances = [\"{id}\"]"),
                "already belongs to pool `a`",
            ),
            (format!("{AWS}[pool.a]\nlaunch_template = \"t\""), "instance_types: is missing"),
            (
                format!("{AWS}[pool.a]\ninstances = [\"{id}\"]\nsubnets = [\"s\"]"),
                "need a `launch_template`",
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
                "no place in S3",
            ),
            (format!("{AWS}notify = \"me\"\n[pool.a]\ninstances = [\"{id}\"]"), "no SNS topic"),
            (
                format!("{AWS}function = \"my function\"\n[pool.a]\ninstances = [\"{id}\"]"),
                "no Lambda function",
            ),
        ] {
            let found = Policy::parse(&text).unwrap_err();
            let all: Vec<String> = found.0.iter().map(ToString::to_string).collect();
            assert!(all.iter().any(|problem| problem.contains(expected)), "{text}\n{all:?}");
        }
    }
}
