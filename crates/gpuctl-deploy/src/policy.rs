//! The `gpuctl.toml` of a new stack: it names what the stack has.

use std::fmt::Write;

use crate::ports::Stack;
use crate::template::Template;

/// Where it lies in the stack's bucket, which is also where the function reads it.
pub(crate) const KEY: &str = "gpuctl.toml";

/// The text for a stack that has none yet.
pub(crate) fn of(template: &Template, stack: &Stack, name: &str, region: &str) -> String {
    let values = template.values(&stack.parameters, name, region);
    let value = |name: &str| values.get(name).map(String::as_str).unwrap_or_default();
    let output = |name: &str| stack.outputs.get(name).map(String::as_str).unwrap_or_default();
    let mut text = format!(
        "# Written by `gpuctl deploy` for stack {name}. Change it and run `gpuctl deploy` again: it is uploaded to\n# {}.\n[cloud]\nkind = \"aws\"\nregion = \"{region}\"\n",
        output("Policy")
    );
    for (setting, from) in
        [("table", "Table"), ("results", "Results"), ("notify", "Topic"), ("function", "Function")]
    {
        let _ = writeln!(text, "{setting} = \"{}\"", output(from));
    }
    let _ = write!(text, "\n[pool.{}]\nqueue = \"{}\"\n", value("GpuPool"), output("QueueName"));
    if value("GpuBoxes") == "launched" {
        text +=
            &launched(output("GpuLaunchedTemplate"), value("GpuInstanceType"), output("Subnets"));
    } else {
        text += &selected(name, value("GpuPool"));
    }
    if value("Layout") == "gpu-and-app" {
        let pool = value("AppPool");
        let _ = write!(
            text,
            "\n# Up only by `gpuctl start {pool}` until it has a schedule.\n[pool.{pool}]\n{}",
            selected(name, pool)
        );
    }
    text += "\n[worker]\npower_off = \"exit-code\" # a hook of the service powers the box off\n";
    let _ = write!(
        text,
        "\n[cost]\ninstance_type = \"{}\"\nregion = \"{region}\"\n",
        value("GpuInstanceType")
    );
    text
}

/// Kept boxes are known by their tags.
fn selected(stack: &str, pool: &str) -> String {
    format!("select = {{ \"gpuctl:stack\" = \"{stack}\", \"gpuctl:pool\" = \"{pool}\" }}\n")
}

/// Launched boxes are made from a template, of which only the newest version counts.
fn launched(template: &str, instance_type: &str, subnets: &str) -> String {
    let subnets: Vec<String> = subnets.split(',').map(|subnet| format!("\"{subnet}\"")).collect();
    format!(
        "launch_template = \"{template}\"\nlaunch_template_version = \"$Latest\"\ninstance_types = [\"{instance_type}\"]\nsubnets = [{}]\n",
        subnets.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use gpuctl_core::policy::{Boxes, Policy};

    use super::*;
    use crate::template::Values;

    #[test]
    fn the_policy_of_each_layout_is_valid_and_names_the_stack() {
        let template = Template::parse(crate::TEMPLATE).unwrap();
        let outputs = [
            ("Table", "gpuctl"),
            ("Results", "s3://b/gpuctl"),
            ("Topic", "arn:aws:sns:eu-west-1:123456789012:gpuctl"),
            ("Function", "gpuctl"),
            ("QueueName", "gpuctl-jobs"),
            ("Subnets", "subnet-1,subnet-2"),
            ("GpuLaunchedTemplate", "lt-0123456789abcdef0"),
        ];
        let text = |values: &[(&str, &str)]| {
            let own = |pairs: &[(&str, &str)]| {
                pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Values>()
            };
            let stack =
                Stack { parameters: own(values), outputs: own(&outputs), ..Stack::default() };
            of(&template, &stack, "gpuctl", "eu-west-1")
        };
        let kept = Policy::parse(&text(&[])).unwrap();
        assert_eq!(kept.pools.len(), 1);
        assert!(matches!(&kept.pools[0].boxes, Some(Boxes::Select(tags)) if tags.len() == 2));
        let both = Policy::parse(&text(&[("Layout", "gpu-and-app")])).unwrap();
        assert_eq!(both.pools.len(), 2);
        let launched = Policy::parse(&text(&[("GpuBoxes", "launched")])).unwrap();
        let Some(Boxes::Launch(from)) = &launched.pools[0].boxes else { unreachable!() };
        assert_eq!((from.name.as_str(), from.subnets.len()), ("lt-0123456789abcdef0", 2));
        assert_eq!(from.version.as_deref(), Some("$Latest"));
    }
}
