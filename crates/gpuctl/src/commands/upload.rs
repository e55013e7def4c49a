//! Uploads inputs on this machine to S3, since EC2 boxes cannot read them here; the jobs name the copies.

use std::path::Path;

use gpuctl_aws::S3Files;
use gpuctl_control::job::{InputLocation, InputUri, Job};
use serde_json::Value;

use crate::context::Context;
use crate::failure::{Code, Failure};

/// The jobs with their local inputs, and the files among their params, in S3; each file is uploaded once.
pub(super) async fn to_s3(context: &Context, mut jobs: Vec<Job>) -> Result<Vec<Job>, Failure> {
    let Some(account) = &context.backend.account else { return Ok(jobs) };
    for job in &mut jobs {
        job.input = upload(account.results.as_ref(), &job.input).await?;
        for value in job.params.values_mut() {
            let uri = value.as_str().filter(|text| text.starts_with("file:///"));
            if let Some(uri) = uri.and_then(|text| text.parse::<InputUri>().ok()) {
                let copy = upload(account.results.as_ref(), &uri).await?;
                *value = Value::from(copy.as_str());
            }
        }
    }
    Ok(jobs)
}

async fn upload(results: Option<&S3Files>, uri: &InputUri) -> Result<InputUri, Failure> {
    let InputLocation::File(path) = uri.location() else { return Ok(uri.clone()) };
    let Some(results) = results else {
        return Err(Failure::new(Code::InputElsewhere, format!("{} is only on this machine", shown(&path)))
            .hint("set `results = \"s3://bucket/prefix\"` under [cloud] to have inputs uploaded there, or give an `s3://…` input"));
    };
    let copy = results.upload(&path).await?;
    copy.parse()
        .map_err(|_| Failure::new(Code::Internal, format!("`{copy}` is not a valid input URI")))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
