//! What every adapter promises: one suite, run on the embedded store, on AWS's services and on the simulated world.
//!
//! A function is a test: it panics at the first broken promise. It uses names of its own where the ports let it, so that all
//! may run on one ledger; a queue it wants empty. Nothing here reads a clock or sleeps: the subject lets time pass.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

pub mod cloud;
pub mod jobs;
pub mod ledger;
pub mod queue;

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_core::units::{QueueName, Timestamp};

use crate::ports::{NewMessage, Ports, ReceiveRequest, Received};

/// Receives after which a message of the subject's queue is dead.
pub const RECEIVES_MAX: u32 = 2;

/// A lease that no test outlasts.
const LONG: TimeDelta = TimeDelta::minutes(10);

/// How often a test looks again for what must come; with an eighth of a lease between, this is many leases.
const LOOKS_MAX: u32 = 200;

/// An adapter under test.
#[async_trait]
pub trait Subject: Send + Sync {
    /// Its ports.
    fn ports(&self) -> &Ports;

    /// A queue that is empty, and buries after `RECEIVES_MAX` receives.
    fn queue(&self) -> &QueueName;

    /// The shortest lease that its queue gives: a second for SQS.
    fn lease_min(&self) -> TimeDelta;

    /// Lets time pass: a simulated world moves its clock, others wait.
    async fn pass(&self, span: TimeDelta);
}

/// A test for each promise: `contract_tests!(queue, setup)`, `(redrive, setup)`, `(ledger, setup)`, `(jobs, setup)` or
/// `(cloud, setup)`, where `setup().await` makes a `Subject`, for the last a `CloudSubject`.
#[macro_export]
macro_rules! contract_tests {
    (queue, $setup:path) => {
        $crate::contract_tests!(@ queue, $setup:
            a_message_keeps_its_text_and_its_attributes,
            a_message_has_one_holder_and_the_counts_follow,
            a_lease_that_runs_out_gives_the_message_to_the_next_and_voids_the_receipt,
            a_lease_that_is_extended_stays,
            a_message_given_back_comes_again_and_its_receipt_is_void,
            an_acked_message_never_comes_again,
            too_many_receives_end_in_the_dead_letters,
            a_delayed_message_waits_its_time,
            a_full_batch_arrives_whole,
            a_receipt_that_nobody_gave_is_a_lost_lease,
            a_purge_takes_what_waits,
            a_purge_of_the_dead_leaves_the_living,
        );
    };
    (redrive, $setup:path) => {
        $crate::contract_tests!(@ queue, $setup: redrive_brings_the_dead_back_with_a_count_of_zero,);
    };
    (ledger, $setup:path) => {
        $crate::contract_tests!(@ ledger, $setup:
            the_loop_has_one_holder_and_a_number_that_grows,
            a_late_release_takes_the_lease_from_nobody,
            a_lease_on_the_loop_runs_out,
            a_hold_stands_in_place_of_the_one_before,
            what_a_run_has_stays_and_what_it_lacks_is_filled_in,
            every_part_of_a_run_comes_back,
            an_open_run_is_remembered_however_many_came_after,
            runs_since_are_those_that_were_up_oldest_first,
            a_queue_is_remembered_as_last_read,
            equal_records_are_taken_again_and_again,
            the_last_recorded_pass_is_the_last_look,
            a_report_is_taken,
        );
    };
    (cloud, $setup:path) => {
        $crate::contract_tests!(@ cloud, $setup:
            every_box_is_listed_once,
            an_order_given_twice_starts_one_box_once,
            a_box_that_is_told_to_stop_stops_and_may_start_again,
            a_box_that_is_stopped_already_may_be_told_to_stop,
        );
    };
    (jobs, $setup:path) => {
        $crate::contract_tests!(@ jobs, $setup:
            the_first_result_stays,
            a_result_is_kept_also_of_a_job_that_was_never_noted,
            a_job_is_queued_then_running_then_succeeded,
            a_job_that_no_worker_finishes_is_dead,
            a_purged_job_is_purged,
            jobs_are_listed_newest_first_by_state_and_time,
            a_job_that_nobody_submitted_is_unknown,
        );
    };
    (@ $module:ident, $setup:path: $($name:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let subject = $setup().await;
                $crate::contract::$module::$name(&subject).await;
            }
        )+
    };
}

/// To the microsecond, which is what adapters keep.
fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_timestamp_micros(at.timestamp_micros()).unwrap()
}

fn message(body: &str) -> NewMessage {
    NewMessage {
        body: body.to_owned(),
        attributes: vec![
            ("job_id".to_owned(), format!("id of {body}")),
            ("task".to_owned(), "vision.ocr".to_owned()),
        ],
        delay: TimeDelta::zero(),
    }
}

async fn send(subject: &dyn Subject, bodies: &[&str]) {
    let batch: Vec<NewMessage> = bodies.iter().map(|body| message(body)).collect();
    subject.ports().queue.send(subject.queue(), &batch).await.unwrap();
}

/// What is there now.
async fn receive(subject: &dyn Subject, max: u32, visibility: TimeDelta) -> Vec<Received> {
    let request = ReceiveRequest { max, visibility, wait: TimeDelta::zero() };
    subject.ports().queue.receive(subject.queue(), request).await.unwrap()
}

/// One message, however long it takes within reason.
async fn receive_soon(subject: &dyn Subject, visibility: TimeDelta) -> Received {
    for _ in 0..LOOKS_MAX {
        if let Some(received) = receive(subject, 1, visibility).await.pop() {
            return received;
        }
        subject.pass(subject.lease_min() / 8).await;
    }
    unreachable!("no message came");
}

/// Receives a message for the last time that it may be, and gives it back.
async fn wear_out(subject: &dyn Subject) {
    for count in 1..=RECEIVES_MAX {
        let held = receive_soon(subject, LONG).await;
        assert_eq!(held.receive_count, count);
        let given_back =
            subject.ports().queue.change_visibility(&held.receipt, TimeDelta::zero()).await;
        given_back.unwrap();
    }
    // It is the next look that buries it.
    assert!(receive(subject, 1, LONG).await.is_empty());
}

/// Waits until visible, in flight, delayed and dead are these: SQS's counts come true a moment later.
async fn counts_become(subject: &dyn Subject, wanted: (u64, u64, u64, u64)) {
    let mut found = wanted;
    for _ in 0..LOOKS_MAX {
        let seen = subject.ports().queue.counts(subject.queue()).await.unwrap();
        found = (seen.visible, seen.in_flight, seen.delayed, seen.dead);
        assert!(seen.visible > 0 || seen.oldest_sent_at.is_none(), "nothing waits, yet has an age");
        if found == wanted {
            return;
        }
        subject.pass(subject.lease_min() / 8).await;
    }
    assert_eq!(found, wanted, "visible, in flight, delayed, dead");
}
