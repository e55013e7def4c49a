//! A CloudFormation template, as far as gpuctl must understand it without asking AWS: its parameters, which resources they bring about,
//! and what those are called.

mod yaml;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::trouble::{Kind, Trouble};
use yaml::text_of;

/// The largest template that CloudFormation takes with a call (AWS CloudFormation quotas).
pub const TEMPLATE_BYTES_MAX: usize = 51_200;
/// How deep conditions and values may refer to each other.
const DEPTH_MAX: u32 = 32;

/// The values of a stack's parameters, by name.
pub type Values = BTreeMap<String, String>;

/// A template.
#[derive(Clone, Debug)]
pub struct Template {
    pub text: String,
    root: Value,
}

/// A parameter, and what its values may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub name: String,
    /// `None`: a value must be given.
    pub default: Option<String>,
    pub allowed: Vec<String>,
    pub is_number: bool,
    pub least: Option<i64>,
    pub most: Option<i64>,
}

/// A resource of a template.
#[derive(Clone, Copy, Debug)]
pub struct Resource<'t> {
    /// Its logical name.
    pub name: &'t str,
    /// E.g. `AWS::SQS::Queue`.
    pub kind: &'t str,
    definition: &'t Value,
}

impl Template {
    /// # Errors
    /// When the text is too large, or not a template.
    pub fn parse(text: &str) -> Result<Self, Trouble> {
        if text.len() > TEMPLATE_BYTES_MAX {
            let what = format!(
                "the template has {} bytes, CloudFormation takes {TEMPLATE_BYTES_MAX}",
                text.len()
            );
            return Err(Trouble::new(Kind::Invalid, what));
        }
        let root = yaml::read(text).map_err(|error| {
            Trouble::new(Kind::Invalid, "the template is not valid YAML").because(error)
        })?;
        if !root["Resources"].is_object() {
            return Err(Trouble::new(Kind::Invalid, "the template has no resources"));
        }
        Ok(Self { text: text.to_owned(), root })
    }

    /// The parameters, by name.
    #[must_use]
    pub fn parameters(&self) -> Vec<Parameter> {
        members(&self.root["Parameters"]).map(|(name, one)| parameter(name, one)).collect()
    }

    /// All values of a stack of this name: what is given, the defaults, and what CloudFormation fills in itself.
    #[must_use]
    pub fn values(&self, given: &Values, name: &str, region: &str) -> Values {
        let defaults =
            self.parameters().into_iter().filter_map(|one| Some((one.name, one.default?)));
        let mut values: Values = defaults.collect();
        values.extend(given.clone());
        values.insert("AWS::StackName".to_owned(), name.to_owned());
        values.insert("AWS::Region".to_owned(), region.to_owned());
        values
    }

    /// The resources that a stack with these values has. What a condition says that cannot be read counts as true.
    pub fn resources<'t>(&'t self, values: &'t Values) -> impl Iterator<Item = Resource<'t>> {
        self.all().filter(move |one| match one.definition["Condition"].as_str() {
            Some(condition) => self.holds(condition, values, 0).unwrap_or(true),
            None => true,
        })
    }

    /// Every resource, whatever its condition.
    pub fn all(&self) -> impl Iterator<Item = Resource<'_>> {
        members(&self.root["Resources"]).map(|(name, definition)| Resource {
            name,
            kind: definition["Type"].as_str().unwrap_or_default(),
            definition,
        })
    }

    /// What a value of a resource is, with these values; `None` if only AWS can say.
    #[must_use]
    pub fn value(&self, value: &Value, values: &Values) -> Option<String> {
        self.resolved(value, values, 0)
    }

    fn resolved(&self, value: &Value, values: &Values, depth: u32) -> Option<String> {
        if depth > DEPTH_MAX {
            return None;
        }
        let Some((function, of)) = only_member(value) else { return text_of(value) };
        match function {
            "Ref" => values.get(of.as_str()?).cloned(),
            "Fn::Sub" => substituted(of.as_str()?, values),
            "Fn::If" => {
                let branch = if self.holds(of[0].as_str()?, values, depth + 1)? { 1 } else { 2 };
                self.resolved(&of[branch], values, depth + 1)
            }
            _ => None,
        }
    }

    fn holds(&self, condition: &str, values: &Values, depth: u32) -> Option<bool> {
        self.is_true(self.root["Conditions"].get(condition)?, values, depth)
    }

    fn is_true(&self, rule: &Value, values: &Values, depth: u32) -> Option<bool> {
        if depth > DEPTH_MAX {
            return None;
        }
        let (function, of) = only_member(rule)?;
        let each = || of.as_array().into_iter().flatten();
        let holds = |one: &Value| self.is_true(one, values, depth + 1);
        match function {
            "Condition" => self.holds(of.as_str()?, values, depth + 1),
            "Fn::Equals" => {
                let side = |index: usize| self.resolved(&of[index], values, depth + 1);
                Some(side(0)? == side(1)?)
            }
            "Fn::Not" => Some(!holds(&of[0])?),
            "Fn::And" => each().map(holds).try_fold(true, |all, one| Some(all & one?)),
            "Fn::Or" => each().map(holds).try_fold(false, |any, one| Some(any | one?)),
            _ => None,
        }
    }
}

impl<'t> Resource<'t> {
    /// A property, `Null` if it is not set.
    #[must_use]
    pub fn property(self, name: &str) -> &'t Value {
        &self.definition["Properties"][name]
    }

    /// Whether deleting the stack leaves the resource.
    #[must_use]
    pub fn is_kept(self) -> bool {
        self.policy("DeletionPolicy")
    }

    /// Whether replacing the resource leaves the old one.
    #[must_use]
    pub fn is_kept_when_replaced(self) -> bool {
        self.policy("UpdateReplacePolicy")
    }

    fn policy(self, name: &str) -> bool {
        self.definition[name].as_str().is_some_and(|policy| policy.starts_with("Retain"))
    }
}

fn members(object: &Value) -> impl Iterator<Item = (&str, &Value)> {
    object.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn only_member(value: &Value) -> Option<(&str, &Value)> {
    let pairs = value.as_object().filter(|pairs| pairs.len() == 1)?;
    pairs.iter().next().map(|(name, value)| (name.as_str(), value))
}

fn parameter(name: &str, one: &Value) -> Parameter {
    let allowed = one["AllowedValues"].as_array().into_iter().flatten().filter_map(text_of);
    Parameter {
        name: name.to_owned(),
        default: text_of(&one["Default"]),
        allowed: allowed.collect(),
        is_number: one["Type"] == "Number",
        least: one["MinValue"].as_i64(),
        most: one["MaxValue"].as_i64(),
    }
}

/// `${Name}` of parameters replaced; `None` if something else is named.
fn substituted(text: &str, values: &Values) -> Option<String> {
    let mut parts = text.split("${");
    let mut made = parts.next()?.to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}')?;
        made.push_str(values.get(name)?);
        made.push_str(rest);
    }
    Some(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Parameters:
  Size: {Type: Number, Default: 100, MinValue: 50, MaxValue: 1000}
  Efs: {Type: String, Default: \"false\", AllowedValues: [\"true\", \"false\"], Description: shared files}
  Bucket: {Type: String}
Conditions:
  HasEfs: !Equals [!Ref Efs, \"true\"]
  Large: !Not [!Equals [!Ref Size, 100]]
  Both: !And [!Condition HasEfs, !Condition Large]
  Unknown: !Equals [!Ref AWS::Partition, aws]
Resources:
  Jobs: {Type: AWS::SQS::Queue, Properties: {QueueName: !Sub \"${AWS::StackName}-jobs\"}}
  Files: {Type: AWS::EFS::FileSystem, Condition: HasEfs, DeletionPolicy: Retain}
  Both: {Type: AWS::SNS::Topic, Condition: Both, Properties: {TopicName: !If [Large, !Ref Size, x]}}
  There: {Type: AWS::SNS::Topic, Condition: Unknown}
";

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn conditions_choose_the_resources_and_what_cannot_be_read_counts_as_there() {
        let template = Template::parse(TEXT).unwrap();
        let names = |given: &[(&str, &str)]| {
            let all = template.values(&values(given), "s", "mars-1");
            template.resources(&all).map(|one| one.name.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), ["Jobs", "There"]);
        assert_eq!(names(&[("Efs", "true")]), ["Files", "Jobs", "There"]);
        assert_eq!(names(&[("Efs", "true"), ("Size", "120")]), ["Both", "Files", "Jobs", "There"]);
    }

    #[test]
    fn values_follow_parameters() {
        let template = Template::parse(TEXT).unwrap();
        let all = template.values(&values(&[("Size", "60")]), "s", "mars-1");
        let of = |name: &str, property: &str| {
            let one = template.all().find(|one| one.name == name).unwrap();
            template.value(one.property(property), &all)
        };
        assert_eq!(of("Jobs", "QueueName").as_deref(), Some("s-jobs"));
        assert_eq!(of("Both", "TopicName").as_deref(), Some("60"));
        assert_eq!(of("Jobs", "KmsMasterKeyId"), None);
        let kept: Vec<_> = template.all().filter(|one| one.is_kept()).map(|one| one.name).collect();
        assert_eq!(kept, ["Files"]);
    }

    #[test]
    fn what_is_no_template_is_one_line() {
        let large = format!("Resources: {{}}\n#{}", "x".repeat(TEMPLATE_BYTES_MAX));
        for (text, words) in
            [("a: [", "not valid YAML"), ("a: 1", "no resources"), (&large, "takes 51200")]
        {
            let error = Template::parse(text).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
