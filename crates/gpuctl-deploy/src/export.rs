//! `gpuctl deploy --export`: what someone needs who makes the stack without gpuctl.

use std::fmt::Write;

use serde_json::json;

use crate::deploy::Wanted;
use crate::preflight::check_values;
use crate::template::Values;
use crate::trouble::Trouble;

/// Stands for the code bucket where none was named.
const BUCKET: &str = "BUCKET";

/// Files by name: the template, its parameters, and the commands.
///
/// # Errors
/// When a parameter cannot be used.
pub fn files(
    wanted: &Wanted,
    region: Option<&str>,
) -> Result<Vec<(&'static str, String)>, Trouble> {
    check_values(&wanted.template, &wanted.set)?;
    let bucket = wanted.code_bucket.clone().unwrap_or_else(|| BUCKET.to_owned());
    let mut values = wanted.files.values();
    values.insert("CodeBucket".to_owned(), bucket.clone());
    values.extend(wanted.set.clone());
    let parameters: Vec<_> = values
        .iter()
        .map(|(name, value)| json!({ "ParameterKey": name, "ParameterValue": value }))
        .collect();
    let parameters = serde_json::to_string_pretty(&parameters).unwrap_or_default() + "\n";
    Ok(vec![
        ("stack.yaml", wanted.template.text.clone()),
        ("parameters.json", parameters),
        ("commands.sh", commands(wanted, region, &bucket, &values)),
    ])
}

fn commands(wanted: &Wanted, region: Option<&str>, bucket: &str, values: &Values) -> String {
    let name = &wanted.name;
    let region = region.map(|region| format!("export AWS_REGION={region}\n")).unwrap_or_default();
    let mut text = format!(
        "#!/bin/sh\n# Makes stack {name}. Where {BUCKET} stands, here and in parameters.json, put a bucket of yours in the same region.\nset -eu\n{region}"
    );
    for (parameter, what) in [
        ("FunctionKey", "the function's zip"),
        ("BootKey", "the files of infra/boot"),
        ("WorkerKey", "the worker's archives"),
    ] {
        let key = values.get(parameter).map_or("(not found: see --help)", String::as_str);
        let _ = writeln!(text, "# Upload {what} to s3://{bucket}/{key} first.");
    }
    let _ = write!(
        text,
        "aws cloudformation create-change-set --stack-name {name} --change-set-name first --change-set-type CREATE \\\n  --template-body file://stack.yaml --parameters file://parameters.json --on-stack-failure DELETE \\\n  --capabilities CAPABILITY_IAM CAPABILITY_NAMED_IAM --tags Key=gpuctl:stack,Value={name}\naws cloudformation wait change-set-create-complete --stack-name {name} --change-set-name first\naws cloudformation execute-change-set --stack-name {name} --change-set-name first\naws cloudformation wait stack-create-complete --stack-name {name}\n# Then `gpuctl deploy` writes gpuctl.toml to the stack's bucket and makes the kept boxes.\n"
    );
    text
}
