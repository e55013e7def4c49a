//! Kept boxes that differ from their launch template: a change of the template or a new image does not change a box that is there.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::Instance;
use gpuctl_control::ports::PortError;
use gpuctl_core::units::BoxId;

use super::{Ec2Cloud, failed, seen};
use crate::calls::show;

/// The tags by which EC2 itself notes from what an instance was launched.
const TEMPLATE_ID: &str = "aws:ec2launchtemplate:id";
const TEMPLATE_VERSION: &str = "aws:ec2launchtemplate:version";

/// From what an instance was launched.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    template: String,
    version: i64,
    image: Option<String>,
}

/// What a launch template would make now.
struct Newest {
    version: i64,
    image: Option<String>,
}

impl Origin {
    /// Of an instance that was launched from a template, and that EC2 does not merely list for an hour more.
    pub(super) fn of(instance: &Instance) -> Option<Self> {
        if seen::is_terminated(instance) {
            return None;
        }
        Some(Self {
            template: seen::tag(instance, TEMPLATE_ID)?.to_owned(),
            version: seen::tag(instance, TEMPLATE_VERSION)?.parse().ok()?,
            image: instance.image_id().map(str::to_owned),
        })
    }

    /// How it differs from what the template would make now.
    fn difference(&self, newest: &Newest) -> Option<String> {
        if self.version != newest.version {
            return Some(format!(
                "was made from version {} of its launch template, which is at {}",
                self.version, newest.version
            ));
        }
        let (ours, theirs) = (self.image.as_deref()?, newest.image.as_deref()?);
        (ours != theirs).then(|| format!("has image {ours}, its launch template now has {theirs}"))
    }
}

impl Ec2Cloud {
    /// The boxes of the last listing that differ from their launch template, and how. Launched boxes are left out: the next one is new.
    ///
    /// # Errors
    /// When a template cannot be read.
    pub async fn outdated(&self) -> Result<Vec<(BoxId, String)>, PortError> {
        let kept = self.with_listing(|last| {
            let of_template = |(id, known): (&BoxId, &super::Known)| {
                Some((id.clone(), known.origin.clone().filter(|_| !known.is_launched)?))
            };
            last.boxes.iter().filter_map(of_template).collect::<Vec<(BoxId, Origin)>>()
        });
        let (mut newest, mut found) = (BTreeMap::new(), Vec::new());
        for (id, origin) in kept.await? {
            if !newest.contains_key(&origin.template) {
                let read = self.newest(&origin.template).await?;
                newest.insert(origin.template.clone(), read);
            }
            let now = newest.get(&origin.template).and_then(Option::as_ref);
            found.extend(now.and_then(|now| origin.difference(now)).map(|how| (id, how)));
        }
        Ok(found)
    }

    /// The newest version of a template; `None` if it is gone.
    async fn newest(&self, template: &str) -> Result<Option<Newest>, PortError> {
        show(format_args!(
            "ec2 describe-launch-template-versions --launch-template-id {template} --versions '$Latest' --resolve-alias"
        ));
        let call = self.client.describe_launch_template_versions().launch_template_id(template);
        let sent = call.versions("$Latest").resolve_alias(true).send().await;
        let found = match sent {
            Ok(found) => found.launch_template_versions.unwrap_or_default(),
            Err(error) if crate::error::code(&error) == Some("NotFound") => return Ok(None),
            Err(error) => {
                let what = format!("launch template {template} cannot be read");
                return Err(failed("ec2:DescribeLaunchTemplateVersions", what, error));
            }
        };
        Ok(found.into_iter().next().and_then(|one| {
            let image = one.launch_template_data.and_then(|data| data.image_id);
            Some(Newest { version: one.version_number?, image })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_differs_by_version_or_else_by_image() {
        let image = |text: &str| Some(text.to_owned());
        let origin = Origin { template: "lt-1".to_owned(), version: 2, image: image("ami-1") };
        for (version, newest, differs) in [
            (2, image("ami-1"), false),
            (3, image("ami-1"), true),
            (2, image("ami-2"), true),
            (2, None, false),
        ] {
            let how = origin.difference(&Newest { version, image: newest });
            assert_eq!(how.is_some(), differs, "{how:?}");
        }
    }
}
