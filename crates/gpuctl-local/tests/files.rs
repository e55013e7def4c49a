//! Files: inputs from where they may be, results whole and under their own attempt.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::error::Error;
use std::path::PathBuf;

use gpuctl_control::input::InputRejected;
use gpuctl_control::job::{InputLocation, InputUri, JobId};
use gpuctl_control::ports::{AttemptName, Clock, FileStore, PortError, ResultFile, WorkingFile};
use gpuctl_core::units::Timestamp;
use gpuctl_local::{LocalFiles, SystemClock};

#[tokio::test]
async fn a_file_is_read_where_it_lies_and_a_text_as_long_as_it_is_held() {
    let folder = tempfile::tempdir().unwrap();
    let files = LocalFiles::new(&folder.path().join("state"), vec![folder.path().join("in")]);
    std::fs::create_dir(folder.path().join("in")).unwrap();
    let own = folder.path().join("in/a.wav");
    std::fs::write(&own, "sound").unwrap();
    let fetched = files.fetch(&InputUri::of_path(&own), 5).await.unwrap();
    assert_eq!(fetched.path(), own.canonicalize().unwrap());
    drop(fetched);
    assert!(own.is_file());
    let fetched = files.fetch(&InputUri::of_text("Grüße").unwrap(), 100).await.unwrap();
    let copy = fetched.path().to_owned();
    assert_eq!(std::fs::read_to_string(&copy).unwrap(), "Grüße");
    drop(fetched);
    assert!(!copy.exists());
}

#[tokio::test]
async fn what_may_not_be_read_is_refused_with_its_own_code() {
    let folder = tempfile::tempdir().unwrap();
    let files = LocalFiles::new(folder.path(), vec![folder.path().join("in")]);
    std::fs::create_dir(folder.path().join("in")).unwrap();
    for name in ["out.wav", "in/large.wav"] {
        std::fs::write(folder.path().join(name), "sound").unwrap();
    }
    let uri = |name: &str| InputUri::of_path(&folder.path().join(name));
    let cases = [
        (uri("out.wav"), "input.outside"),
        (uri("in/none.wav"), "input.missing"),
        (uri("in"), "input.folder"),
        (uri("in/large.wav"), "input.too_large"),
        ("s3://jobs/a.wav".parse().unwrap(), "input.elsewhere"),
    ];
    for (uri, code) in cases {
        let error = files.fetch(&uri, 4).await.unwrap_err();
        assert_eq!(refusal(&error).code(), code, "{uri:?}");
        assert!(error.hint.is_some());
    }
}

#[tokio::test]
async fn a_file_that_attempts_go_on_with_is_replaced_and_is_that_of_its_generation() {
    let state = tempfile::tempdir().unwrap();
    let files = LocalFiles::new(state.path(), Vec::new());
    let job = JobId::new(SystemClock.now());
    let path = state.path().join("here");
    let of = |generation| WorkingFile { job: &job, generation, name: "checkpoint", path: &path };
    assert!(files.working(&of(0)).await.unwrap().is_none());
    for text in ["one", "another"] {
        std::fs::write(&path, text).unwrap();
        files.keep_working(&of(0)).await.unwrap();
        let kept = files.working(&of(0)).await.unwrap().unwrap();
        assert_eq!(std::fs::read_to_string(kept.path()).unwrap(), text);
    }
    assert!(files.working(&of(1)).await.unwrap().is_none());
    for _ in 0..2 {
        files.remove_working(&job, 0).await.unwrap();
        assert!(files.working(&of(0)).await.unwrap().is_none());
    }
    let outside = WorkingFile { name: "../x", ..of(0) };
    assert!(files.keep_working(&outside).await.is_err());
}

#[tokio::test]
async fn a_result_is_kept_under_its_attempt_and_removed_with_it() {
    let state = tempfile::tempdir().unwrap();
    let files = LocalFiles::new(state.path(), Vec::new());
    let job = JobId::new(SystemClock.now());
    let (first, second) = (attempt(1), attempt(2));
    let keep = async |attempt: &AttemptName, name: &str, bytes: &[u8]| {
        files.keep(&ResultFile { job: &job, attempt, name, bytes }).await
    };
    let one = path(&keep(&first, "speech.wav", b"first").await.unwrap());
    let two = path(&keep(&second, "speech.wav", b"second").await.unwrap());
    assert_eq!(std::fs::read(&one).unwrap(), b"first");
    assert_eq!(std::fs::read(&two).unwrap(), b"second");
    assert_eq!(two.parent().unwrap().read_dir().unwrap().count(), 1);
    for bad in ["", "../x.wav", "a/b.wav", ".hidden", &"x".repeat(256)] {
        assert!(keep(&first, bad, b"x").await.is_err(), "{bad}");
    }
    files.remove(&job, Some(&first)).await.unwrap();
    assert!(!one.exists() && two.exists());
    files.remove(&job, None).await.unwrap();
    files.remove(&job, None).await.unwrap();
    assert!(!state.path().join("results").join(job.as_str()).exists());
}

fn attempt(second: i64) -> AttemptName {
    let received_at = Timestamp::from_timestamp(second, 0).unwrap();
    AttemptName::new(0, &"gpu-1".parse().unwrap(), received_at)
}

fn path(uri: &str) -> PathBuf {
    let InputLocation::File(path) = uri.parse::<InputUri>().unwrap().location() else {
        unreachable!("a local file's URI")
    };
    path
}

fn refusal(error: &PortError) -> &InputRejected {
    error.source().unwrap().downcast_ref().unwrap()
}
