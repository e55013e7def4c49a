//! Buckets of a stack: made private, filled, and removed with everything in them.

use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketLocationConstraint, CreateBucketConfiguration, Delete, Object, ObjectIdentifier,
    PublicAccessBlockConfiguration,
};
use gpuctl_control::ports::{PortError, PortErrorClass};
use gpuctl_deploy::Content;

use crate::error::{class_of, code, port_error};
use crate::files::Existing;
use crate::{Aws, S3Files};

/// Pages of a bucket that are counted for its size, of a thousand objects each.
const PAGES_MAX: usize = 20;
const GB: i64 = 1_000_000_000;

/// Makes a bucket of the account `owner`; whether it was not there before.
pub(super) async fn make(aws: &Aws, name: &str, owner: &str) -> Result<bool, PortError> {
    let client = aws.s3();
    // The name can be guessed: another account's bucket of that name must not get the function's code.
    let found = client.head_bucket().bucket(name).expected_bucket_owner(owner).send().await;
    match found {
        Ok(_) => return Ok(false),
        Err(error) if error.raw_response().is_some_and(|one| one.status().as_u16() == 404) => {}
        Err(error) => {
            let what = format!("bucket {name} cannot be used");
            return Err(port_error("s3:ListBucket", what, error)
                .hint("it may be another account's: name one of yours with --code-bucket"));
        }
    }
    let place = (aws.region() != "us-east-1").then(|| {
        let region = BucketLocationConstraint::from(aws.region());
        CreateBucketConfiguration::builder().location_constraint(region).build()
    });
    let call = client.create_bucket().bucket(name).set_create_bucket_configuration(place);
    match call.send().await {
        Ok(_) => {}
        Err(error) if code(&error) == Some("BucketAlreadyOwnedByYou") => return Ok(false),
        Err(error) => {
            let what = format!("bucket {name} was not made");
            let is_taken = code(&error) == Some("BucketAlreadyExists");
            let failed = port_error("s3:CreateBucket", what, error);
            let hint = "another account has it: name one of yours with --code-bucket";
            return Err(if is_taken { failed.hint(hint) } else { failed });
        }
    }
    let closed = PublicAccessBlockConfiguration::builder()
        .block_public_acls(true)
        .block_public_policy(true)
        .ignore_public_acls(true)
        .restrict_public_buckets(true)
        .build();
    let call = client.put_public_access_block().bucket(name);
    call.public_access_block_configuration(closed).send().await.map_err(|error| {
        let what = format!("bucket {name} was not closed to the public");
        port_error("s3:PutBucketPublicAccessBlock", what, error)
    })?;
    Ok(true)
}

/// Stores an object whose key names its content; one that is there is not sent again.
pub(super) async fn add(
    aws: &Aws,
    bucket: &str,
    key: &str,
    content: &Content,
) -> Result<(), PortError> {
    let client = aws.s3();
    // Without the permission to list, S3 answers 403 for what is not there.
    if client.head_object().bucket(bucket).key(key).send().await.is_ok() {
        return Ok(());
    }
    put(aws, (bucket, key), content, Existing::Keep).await
}

/// Stores an object.
pub(super) async fn put(
    aws: &Aws,
    (bucket, key): (&str, &str),
    content: &Content,
    existing: Existing,
) -> Result<(), PortError> {
    let unreadable = |error: BoxError| {
        PortError::new(PortErrorClass::Other, format!("{key} cannot be read")).because(error)
    };
    let (body, length) = match content {
        Content::Bytes(bytes) => (ByteStream::from(bytes.clone()), bytes.len() as u64),
        Content::Path(path) => {
            let length = path.metadata().map_err(|error| unreadable(error.into()))?.len();
            let body = ByteStream::from_path(path).await;
            (body.map_err(|error| unreadable(error.into()))?, length)
        }
    };
    S3Files::new(aws, bucket, "").put(key.to_owned(), body, length, existing).await.map(drop)
}

/// Whether there is this object, or one in this folder.
pub(super) async fn has(aws: &Aws, bucket: &str, key: &str) -> Result<bool, PortError> {
    let client = aws.s3();
    let sent = client.list_objects_v2().bucket(bucket).prefix(key).max_keys(1).send().await;
    let found = sent.map_err(|error| {
        port_error("s3:ListBucket", format!("s3://{bucket}/{key} cannot be read"), error)
    })?;
    let is_it = |one: &Object| key.ends_with('/') || one.key() == Some(key);
    Ok(found.contents().iter().any(is_it))
}

/// The size of what is in a bucket, in whole GB, rounded up; of a very large bucket a part.
pub(super) async fn gigabytes(aws: &Aws, bucket: &str) -> i64 {
    let client = aws.s3();
    let mut pages = client.list_objects_v2().bucket(bucket).into_paginator().send();
    let (mut bytes, mut seen) = (0, 0);
    while let Some(Ok(page)) = pages.next().await {
        bytes += page.contents().iter().filter_map(Object::size).sum::<i64>();
        seen += 1;
        if seen == PAGES_MAX {
            break;
        }
    }
    in_gb(bytes)
}

/// In whole GB, rounded up.
pub(super) fn in_gb(bytes: i64) -> i64 {
    (bytes + GB - 1) / GB
}

/// Deletes a bucket with all versions of everything in it. One that is not there is a success.
pub(super) async fn remove(aws: &Aws, bucket: &str) -> Result<(), PortError> {
    let client = aws.s3();
    let what = || format!("bucket {bucket} was not emptied");
    loop {
        let page = match client.list_object_versions().bucket(bucket).send().await {
            Ok(page) => page,
            Err(error) if code(&error) == Some("NoSuchBucket") => return Ok(()),
            Err(error) => return Err(port_error("s3:ListBucketVersions", what(), error)),
        };
        let version = |key: &Option<String>, id: &Option<String>| {
            let object = ObjectIdentifier::builder().set_key(key.clone());
            object.set_version_id(id.clone()).build().ok()
        };
        let versions = page.versions().iter().filter_map(|one| version(&one.key, &one.version_id));
        let markers =
            page.delete_markers().iter().filter_map(|one| version(&one.key, &one.version_id));
        let objects: Vec<ObjectIdentifier> = versions.chain(markers).collect();
        if objects.is_empty() {
            break;
        }
        let these = Delete::builder().set_objects(Some(objects)).quiet(true).build();
        let these = these.expect("it has objects");
        let deleted = client.delete_objects().bucket(bucket).delete(these).send().await;
        let deleted =
            deleted.map_err(|error| port_error("s3:DeleteObjectVersion", what(), error))?;
        if let Some(error) = deleted.errors().first() {
            let code = error.code().unwrap_or_default();
            return Err(PortError::new(class_of(code), what())
                .because(format!("{code}: {}", error.message().unwrap_or_default())));
        }
    }
    let gone = client.delete_bucket().bucket(bucket).send().await;
    gone.map(drop).map_err(|error| {
        port_error("s3:DeleteBucket", format!("bucket {bucket} was not deleted"), error)
    })
}

/// The buckets of this region whose names begin like this. The list of an account is that of all regions.
pub(super) async fn named(aws: &Aws, prefix: &str) -> Result<Vec<String>, PortError> {
    let client = aws.s3();
    let call = client.list_buckets().prefix(prefix).bucket_region(aws.region());
    let mut pages = call.into_paginator().send();
    let mut all = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| {
            port_error("s3:ListAllMyBuckets", "the buckets cannot be listed", error)
        })?;
        // Not every server of S3 knows prefix and region.
        let buckets = page.buckets.unwrap_or_default().into_iter();
        let here =
            buckets.filter(|one| one.bucket_region().is_none_or(|region| region == aws.region()));
        all.extend(here.filter_map(|one| one.name).filter(|name| name.starts_with(prefix)));
    }
    Ok(all)
}

/// The tags of a bucket.
pub(super) async fn tags(aws: &Aws, bucket: &str) -> Result<Vec<(String, String)>, PortError> {
    let client = aws.s3();
    let found = client.get_bucket_tagging().bucket(bucket).send().await;
    match found {
        Ok(found) => Ok(found.tag_set.into_iter().map(|tag| (tag.key, tag.value)).collect()),
        Err(error) if matches!(code(&error), Some("NoSuchTagSet" | "NoSuchBucket")) => {
            Ok(Vec::new())
        }
        Err(error) => {
            let what = format!("the tags of bucket {bucket} cannot be read");
            Err(port_error("s3:GetBucketTagging", what, error))
        }
    }
}
