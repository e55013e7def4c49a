//! What a change set does to each resource, what of it loses data, and what must be allowed by name.

use crate::template::{Resource, Template};
use crate::trouble::{Kind, Trouble};

/// Resources that hold what cannot be made again.
const WITH_DATA: [&str; 5] = [
    "AWS::DynamoDB::Table",
    "AWS::EFS::FileSystem",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
    "AWS::SQS::Queue",
];

/// What CloudFormation says that it would do to a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub name: String,
    pub kind: String,
    pub action: Action,
}

impl Change {
    /// Of a resource of a new stack.
    pub(crate) fn addition(one: Resource<'_>) -> Self {
        Self { name: one.name.to_owned(), kind: one.kind.to_owned(), action: Action::Add }
    }
}

/// What happens to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Add,
    Modify,
    /// Made anew, and the old one deleted, if a value that is not known yet changes.
    MayReplace,
    Replace,
    Remove,
}

impl Action {
    /// As a user reads it.
    #[must_use]
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Modify => "change",
            Self::MayReplace => "may replace",
            Self::Replace => "replace",
            Self::Remove => "remove",
        }
    }
}

/// A change, and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    pub change: Change,
    /// Data are lost with it, for good.
    pub loses_data: bool,
    /// It must be allowed by name.
    pub is_gated: bool,
}

impl Judged {
    /// One line, e.g. `replace Jobs (AWS::SQS::Queue): what is in it is lost`.
    fn line(&self) -> String {
        let Change { name, kind, action } = &self.change;
        let loss = if self.loses_data { ": what is in it is lost" } else { "" };
        format!("{} {name} ({kind}){loss}", action.verb())
    }
}

/// Judges changes, by the policies of the template: a resource that it has no more counts as one whose data are lost.
#[must_use]
pub fn judge(changes: &[Change], template: &Template) -> Vec<Judged> {
    let find = |name: &str| template.all().find(|one| one.name == name);
    let judged = |change: &Change| {
        let has_data = WITH_DATA.contains(&change.kind.as_str());
        let (goes, is_kept) = match change.action {
            Action::Add | Action::Modify => (false, false),
            Action::MayReplace | Action::Replace => {
                (true, find(&change.name).is_some_and(Resource::is_kept_when_replaced))
            }
            Action::Remove => (true, find(&change.name).is_some_and(Resource::is_kept)),
        };
        let loses_data = goes && has_data && !is_kept;
        let is_gated = loses_data || change.action == Action::Replace;
        Judged { change: change.clone(), loses_data, is_gated }
    };
    changes.iter().map(judged).collect()
}

/// Fails if a change needs a permission that was not given.
///
/// # Errors
/// Names every such resource, and the flags.
pub fn check(judged: &[Judged], allowed: &[String]) -> Result<(), Trouble> {
    let gated: Vec<&Judged> =
        judged.iter().filter(|one| one.is_gated && !allowed.contains(&one.change.name)).collect();
    if gated.is_empty() {
        return Ok(());
    }
    let what = format!("{} resources would be replaced or lose data", gated.len());
    let mut trouble = Trouble::new(Kind::Gated, what);
    trouble.causes = gated.iter().copied().map(Judged::line).collect();
    let flags: Vec<String> =
        gated.iter().map(|one| format!("--allow-replace {}", one.change.name)).collect();
    Err(trouble.hint(format!("to allow it: {}", flags.join(" "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacements_and_lost_data_must_be_allowed_by_name() {
        let template = Template::parse(
            "Resources:\n  Jobs: {Type: AWS::SQS::Queue}\n  Table: {Type: AWS::DynamoDB::Table, UpdateReplacePolicy: Retain}\n",
        )
        .unwrap();
        let change = |name: &str, kind: &str, action| {
            let (name, kind) = (name.to_owned(), kind.to_owned());
            judge(&[Change { name, kind, action }], &template).remove(0)
        };
        for (name, kind, action, loses_data, is_gated) in [
            ("Jobs", "AWS::SQS::Queue", Action::Modify, false, false),
            ("Jobs", "AWS::SQS::Queue", Action::MayReplace, true, true),
            ("Jobs", "AWS::SQS::Queue", Action::Replace, true, true),
            ("Jobs", "AWS::SQS::Queue", Action::Remove, true, true),
            ("Table", "AWS::DynamoDB::Table", Action::Replace, false, true),
            ("Table", "AWS::DynamoDB::Table", Action::Remove, true, true),
            ("Rule", "AWS::Events::Rule", Action::MayReplace, false, false),
            ("Rule", "AWS::Events::Rule", Action::Replace, false, true),
            ("Rule", "AWS::Events::Rule", Action::Remove, false, false),
        ] {
            let judged = change(name, kind, action);
            assert_eq!((judged.loses_data, judged.is_gated), (loses_data, is_gated), "{judged:?}");
        }
        let both = [
            change("Jobs", "AWS::SQS::Queue", Action::Replace),
            change("Table", "AWS::DynamoDB::Table", Action::Replace),
        ];
        let error = check(&both, &["Table".to_owned()]).unwrap_err();
        assert_eq!(error.causes, ["replace Jobs (AWS::SQS::Queue): what is in it is lost"]);
        assert_eq!(error.hint.as_deref(), Some("to allow it: --allow-replace Jobs"));
        assert!(check(&both, &["Table".to_owned(), "Jobs".to_owned()]).is_ok());
    }
}
