//! What a refusal of IAM says: who lacks which permission, and whether an administrator forbids it.

/// Explains IAM's sentence, as it stands in the reason of an event or in an error; `None` if it is another one.
///
/// E.g. `User: arn:aws:sts::123456789012:assumed-role/dev/ada is not authorized to perform: iam:CreateRole on resource: … with an explicit
/// deny in a service control policy`.
pub(crate) fn explain(reason: &str) -> Option<String> {
    let (before, after) = reason.split_once("is not authorized to perform: ")?;
    let action = first_word(after);
    let who = before.rsplit_once("User: ").map_or("the caller", |(_, who)| who.trim());
    if let Some((_, by)) = after.split_once("explicit deny in ") {
        let by = by.split([':', '.', '(']).next().unwrap_or(by).trim();
        return Some(format!(
            "{by} denies `{action}` to {who} explicitly: no policy of your own can allow it; ask who administers the account"
        ));
    }
    if after.contains("no permissions boundary allows") {
        return Some(format!(
            "the permissions boundary of {who} does not allow `{action}`: it must name it, too"
        ));
    }
    Some(format!("allow `{action}` to {who}: infra/deployer.json has what `gpuctl deploy` needs"))
}

fn first_word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != ':' && c != '-');
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_action_and_role_and_whether_it_can_be_allowed() {
        let user =
            "User: arn:aws:sts::123456789012:assumed-role/dev/ada is not authorized to perform:";
        let plain = explain(&format!(
            "Resource handler returned message: \"{user} iam:CreateRole on resource: arn:aws:iam::123456789012:role/x because no identity-based policy allows the iam:CreateRole action\""
        ));
        assert_eq!(
            plain.as_deref(),
            Some(
                "allow `iam:CreateRole` to arn:aws:sts::123456789012:assumed-role/dev/ada: infra/deployer.json has what `gpuctl deploy` needs"
            )
        );
        let organisation = explain(&format!(
            "{user} ec2:RunInstances on resource: * with an explicit deny in a service control policy: arn:aws:organizations::1:policy/p"
        ));
        let organisation = organisation.unwrap();
        assert!(
            organisation.starts_with("a service control policy denies `ec2:RunInstances` to arn:"),
            "{organisation}"
        );
        let bounded = explain(&format!(
            "{user} s3:CreateBucket because no permissions boundary allows the s3:CreateBucket action"
        ));
        assert!(bounded.unwrap().contains("the permissions boundary of arn:"));
        assert_eq!(explain("Queue already exists"), None);
    }
}
