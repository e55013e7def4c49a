//! Files are stored in S3 and fetched within their limit, also when the connection is interrupted.

use gpuctl_aws::S3Files;
use gpuctl_control::clock::SystemClock;
use gpuctl_control::input::InputRejected;
use gpuctl_control::job::JobId;
use gpuctl_control::ports::{
    AttemptName, Clock, PortError, PortErrorClass, ResultFile, WorkingFile,
};
use serde_json::json;
use tempfile::TempDir;

use crate::recorder::Recorder;
use crate::support::{self, a_bucket};

fn attempt() -> AttemptName {
    AttemptName::new(0, &"gpu-1".parse().unwrap(), "2026-11-21T12:00:00Z".parse().unwrap())
}

/// The code of an error that no other try would change.
fn code(error: &PortError) -> Option<&'static str> {
    let refusal = error.cause.as_ref()?.downcast_ref::<InputRejected>()?;
    Some(refusal.code())
}

async fn keep(files: &S3Files, job: &JobId, name: &str, bytes: &[u8]) -> Result<String, PortError> {
    files.keep(&ResultFile { job, attempt: &attempt(), name, bytes }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_file_is_fetched_unless_it_exceeds_the_limit() {
    let aws = support::aws(&support::moto().await.url());
    let files = S3Files::new(&aws, &a_bucket(&aws).await, "/gpuctl/");
    let job = JobId::new(SystemClock.now());
    let bytes = vec![7; 100_000];
    let uri = keep(&files, &job, "sound.wav", &bytes).await.unwrap();
    let attempt = attempt();
    assert!(uri.ends_with(&format!("/gpuctl/jobs/{job}/{}/sound.wav", attempt.as_str())), "{uri}");
    let file = files.fetch(&uri, 100_000, None).await.unwrap();
    assert_eq!(std::fs::read(file.path()).unwrap(), bytes);
    let path = file.path().to_owned();
    drop(file);
    assert!(!path.exists(), "it is deleted with the answer");
    let error = files.fetch(&uri, 99_999, None).await.unwrap_err();
    assert_eq!(code(&error), Some("input.too_large"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_is_uploaded_once_and_its_name_survives() {
    let aws = support::aws(&support::moto().await.url());
    let bucket = a_bucket(&aws).await;
    let files = S3Files::new(&aws, &bucket, "");
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ä b+c%.wav");
    std::fs::write(&path, b"one").unwrap();
    let first = files.upload(&path).await.unwrap();
    assert!(first.ends_with("/ä b+c%.wav"), "{first}");
    assert_eq!(files.upload(&path).await.unwrap(), first);
    assert_eq!(std::fs::read(files.fetch(&first, 10, None).await.unwrap().path()).unwrap(), b"one");
    std::fs::write(&path, b"two").unwrap();
    assert_ne!(files.upload(&path).await.unwrap(), first);
    let all = aws.s3().list_objects_v2().bucket(bucket).send().await.unwrap();
    assert_eq!(all.contents().len(), 2);
    let empty = folder.path().join("empty");
    std::fs::write(&empty, b"").unwrap();
    let uri = files.upload(&empty).await.unwrap();
    assert_eq!(std::fs::read(files.fetch(&uri, 0, None).await.unwrap().path()).unwrap(), b"");
    assert!(files.upload(&folder.path().join("missing")).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_object_is_not_found() {
    let aws = support::aws(&support::moto().await.url());
    let files = S3Files::new(&aws, &a_bucket(&aws).await, "");
    for uri in ["s3://gpuctl-no-such-bucket/a", &format!("s3://{}/a", a_bucket(&aws).await)] {
        let error = files.fetch(uri, 10, None).await.unwrap_err();
        assert_eq!(error.class, PortErrorClass::NotFound, "{uri}: {error}");
        assert_eq!(code(&error), Some("input.missing"), "{uri}: {error}");
        assert!(error.what.contains(uri), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_download_continues_where_it_was() {
    let emulator = support::moto().await;
    let direct = support::aws(&emulator.url());
    let bucket = a_bucket(&direct).await;
    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).take(3_000_000).collect();
    let job = JobId::new(SystemClock.now());
    let uri = keep(&S3Files::new(&direct, &bucket, ""), &job, "a", &bytes).await.unwrap();
    let proxy = support::faults(emulator).await;
    let broken = support::aws(&proxy.url());
    proxy.break_by(&json!([
        { "service": "s3", "operation": "GetObject", "times": 2, "response": { "abort_frac": 0.5 } }
    ]));
    let file = S3Files::new(&broken, &bucket, "").fetch(&uri, 5_000_000, None).await.unwrap();
    assert!(std::fs::read(file.path()).unwrap() == bytes, "the parts do not fit together");
    assert_eq!(proxy.fired(), 2);
}

/// Another try of one attempt has other bytes, since models draw noise: those that a result may name stay.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_an_attempt_has_kept_is_not_replaced() {
    let aws = support::aws(&support::moto().await.url());
    let files = S3Files::new(&aws, &a_bucket(&aws).await, "");
    let job = JobId::new(SystemClock.now());
    let first = keep(&files, &job, "speech.wav", b"first").await.unwrap();
    assert_eq!(keep(&files, &job, "speech.wav", b"second").await.unwrap(), first);
    assert_eq!(files.text(&first, 100).await.unwrap(), "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_attempts_go_on_with_is_replaced_and_is_that_of_its_generation() {
    let aws = support::aws(&support::moto().await.url());
    let bucket = a_bucket(&aws).await;
    let files = S3Files::new(&aws, &bucket, "gpuctl");
    let job = JobId::new(SystemClock.now());
    let here = tempfile::NamedTempFile::new().unwrap();
    let of =
        |generation| WorkingFile { job: &job, generation, name: "checkpoint", path: here.path() };
    assert!(files.working(&of(0)).await.unwrap().is_none());
    for text in ["one", "another"] {
        std::fs::write(here.path(), text).unwrap();
        files.keep_working(&of(0)).await.unwrap();
        let kept = files.working(&of(0)).await.unwrap().unwrap();
        assert_eq!(std::fs::read_to_string(kept.path()).unwrap(), text);
    }
    assert!(files.working(&of(1)).await.unwrap().is_none());
    for _ in 0..2 {
        files.remove_working(&job, 0).await.unwrap();
        assert!(files.working(&of(0)).await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_an_attempt_or_of_a_job_are_removed_and_no_others() {
    let aws = support::aws(&support::moto().await.url());
    let bucket = a_bucket(&aws).await;
    let files = S3Files::new(&aws, &bucket, "gpuctl");
    let (job, other) = (JobId::new(SystemClock.now()), JobId::new(SystemClock.now()));
    let later = AttemptName::new(1, &"gpu-1".parse().unwrap(), SystemClock.now());
    for name in ["a", "b"] {
        keep(&files, &job, name, b"x").await.unwrap();
    }
    keep(&files, &other, "a", b"x").await.unwrap();
    let kept = ResultFile { job: &job, attempt: &later, name: "a", bytes: b"y" };
    files.keep(&kept).await.unwrap();
    let count = async || {
        let all = aws.s3().list_objects_v2().bucket(&bucket).send().await.unwrap();
        all.contents().len()
    };
    assert_eq!(count().await, 4);
    files.remove(&job, Some(&attempt())).await.unwrap();
    assert_eq!(count().await, 2);
    files.remove(&job, Some(&attempt())).await.unwrap();
    files.remove(&job, None).await.unwrap();
    assert_eq!(count().await, 1);
    files.probe().await.unwrap();
    assert_eq!((count().await, files.has_lifecycle().await), (1, Some(false)));
}

/// Which bucket of that name is meant: a foreign one would cost traffic and tell its owner who asks.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_another_account_is_not_read() {
    let upstream = support::moto().await;
    let direct = support::aws(&upstream.url());
    let bucket = a_bucket(&direct).await;
    let job = JobId::new(SystemClock.now());
    let uri = keep(&S3Files::new(&direct, &bucket, ""), &job, "a", b"x").await.unwrap();
    let recorder = Recorder::before(upstream.port);
    let files = S3Files::new(&support::aws(&recorder.url()), &bucket, "");
    files.fetch(&uri, 10, Some("123456789012")).await.unwrap();
    assert!(
        recorder
            .heads()
            .iter()
            .any(|head| head.contains("x-amz-expected-bucket-owner: 123456789012"))
    );
}

/// A throttled, denied or unknown answer says nothing about the input: another box, or another time, may read it.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_of_s3_but_a_missing_object_is_blamed_on_the_input() {
    let emulator = support::moto().await;
    let direct = support::aws(&emulator.url());
    let bucket = a_bucket(&direct).await;
    let job = JobId::new(SystemClock.now());
    let uri = keep(&S3Files::new(&direct, &bucket, ""), &job, "a", b"x").await.unwrap();
    let proxy = support::faults(emulator).await;
    let files = S3Files::new(&support::aws(&proxy.url()), &bucket, "");
    for (answer, status, class) in [
        ("SlowDown", 503, PortErrorClass::Throttled),
        ("AccessDenied", 403, PortErrorClass::Denied),
        ("ExpiredToken", 400, PortErrorClass::Denied),
        ("RequestTimeTooSkewed", 403, PortErrorClass::Denied),
        ("PermanentRedirect", 301, PortErrorClass::Denied),
        ("AuthorizationHeaderMalformed", 400, PortErrorClass::Denied),
        ("KMS.NotFoundException", 400, PortErrorClass::Denied),
        ("KMS.DisabledException", 400, PortErrorClass::Denied),
        ("InvalidRange", 416, PortErrorClass::Unavailable),
        ("SomethingNew", 400, PortErrorClass::Unavailable),
        ("InternalError", 500, PortErrorClass::Unavailable),
    ] {
        proxy.break_by(&json!([
            { "service": "s3", "operation": "GetObject", "error": { "code": answer, "status": status } }
        ]));
        let error = files.fetch(&uri, 10, None).await.unwrap_err();
        assert_eq!((error.class, code(&error)), (class, None), "{answer}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_object_and_a_key_that_s3_cannot_have_are_the_input_s_own_faults() {
    let emulator = support::moto().await;
    let proxy = support::faults(emulator).await;
    let files = S3Files::new(&support::aws(&proxy.url()), "bucket", "");
    for (answer, status, expected) in [
        ("InvalidObjectState", 403, "input.archived"),
        ("KeyTooLongError", 400, "input.key_too_long"),
    ] {
        proxy.break_by(&json!([
            { "service": "s3", "operation": "GetObject", "error": { "code": answer, "status": status } }
        ]));
        let error = files.fetch("s3://bucket/key", 10, None).await.unwrap_err();
        assert_eq!(code(&error), Some(expected), "{answer}: {error:?}");
        assert!(error.hint.is_some(), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_kept_although_another_write_of_it_is_under_way() {
    let emulator = support::moto().await;
    let bucket = a_bucket(&support::aws(&emulator.url())).await;
    let proxy = support::faults(emulator).await;
    let files = S3Files::new(&support::aws(&proxy.url()), &bucket, "");
    let job = JobId::new(SystemClock.now());
    let conflict = |times: u32| {
        proxy.break_by(&json!([{
            "service": "s3", "operation": "PutObject", "times": times,
            "error": { "code": "ConditionalRequestConflict", "status": 409 },
        }]));
    };
    conflict(3);
    let uri = keep(&files, &job, "a", b"x").await.unwrap();
    assert_eq!(files.text(&uri, 10).await.unwrap(), "x");
    // For as long as it lasts it is a fault of the service, of which the worker takes care.
    conflict(4);
    let error = keep(&files, &job, "b", b"x").await.unwrap_err();
    assert_eq!((error.class, proxy.fired()), (PortErrorClass::Unavailable, 7), "{error:?}");
}
