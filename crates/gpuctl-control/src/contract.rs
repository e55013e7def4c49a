//! What every adapter guarantees: one suite, run on the embedded store, on AWS's services and on the simulated world.
//!
//! Each function is a test, and panics at the first guarantee that is broken. It uses names of its own where the ports allow it, so that
//! all may run on one ledger; its queue must be empty. Nothing here reads a clock or sleeps: the subject lets time pass.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

pub mod cancel;
pub mod cloud;
pub mod fences;
pub mod generations;
pub mod jobs;
pub mod keys;
pub mod ledger;
pub mod priority;
pub mod queue;
pub mod scheduled;
pub mod urgent;

use async_trait::async_trait;
use chrono::TimeDelta;
use gpuctl_core::policy::Policy;
use gpuctl_core::units::{QueueName, Timestamp};

use crate::ports::{NewMessage, Ports, ReceiveRequest, Received};

/// Receives after which a message of the subject's queue is dead.
pub const RECEIVES_MAX: u32 = 2;

/// A lease that no test outlasts.
const LONG: TimeDelta = TimeDelta::minutes(10);

/// How often a test tries again until what it waits for has come; an eighth of a lease passes between two tries.
const TRIES_MAX: u32 = 200;

/// An adapter under test.
#[async_trait]
pub trait Subject: Send + Sync {
    fn ports(&self) -> &Ports;

    /// An empty queue, whose messages are dead after `RECEIVES_MAX` receives.
    fn queue(&self) -> &QueueName;

    /// The shortest lease that its queue gives: a second for SQS.
    fn lease_min(&self) -> TimeDelta;

    /// Lets time pass: a simulated world moves its clock, others wait.
    async fn let_time_pass(&self, span: TimeDelta);
}

/// An adapter on which time passes by waiting. `kept` is what must last as long as the ports, such as a temporary folder.
pub struct WaitingSubject<K = ()> {
    /// The ports under test.
    pub ports: Ports,
    /// As [`Subject::queue`] says.
    pub queue: QueueName,
    /// The policy; its first pool is the one under test.
    pub policy: Policy,
    /// As [`Subject::lease_min`] says.
    pub lease_min: TimeDelta,
    /// Dropped with the subject.
    pub kept: K,
}

#[async_trait]
impl<K: Send + Sync> Subject for WaitingSubject<K> {
    fn ports(&self) -> &Ports {
        &self.ports
    }

    fn queue(&self) -> &QueueName {
        &self.queue
    }

    fn lease_min(&self) -> TimeDelta {
        self.lease_min
    }

    async fn let_time_pass(&self, span: TimeDelta) {
        tokio::time::sleep(span.to_std().unwrap()).await;
    }
}

impl<K: Send + Sync> cloud::CloudSubject for WaitingSubject<K> {
    fn policy(&self) -> &Policy {
        &self.policy
    }
}

/// A test for each guarantee: `contract_tests!(queue, setup)`, `(lists, setup)`, `(redrive, setup)`, `(ledger, setup)`,
/// `(fences, setup)`, `(jobs, setup)`, `(generations, setup)`, `(cancel, setup)`, `(priority, setup)`, `(urgent, setup)`, `(scheduled, setup)`, `(keys, setup)`, `(problems, setup)`, `(deletion, setup)` or
/// `(cloud, setup)`, where `setup().await` makes a `Subject`, for the last a `CloudSubject`.
#[macro_export]
macro_rules! contract_tests {
    (queue, $setup:path) => {
        $crate::contract_tests!(@ queue, $setup:
            a_message_keeps_its_text_and_its_attributes,
            a_message_has_one_holder_and_is_counted_accordingly,
            a_lease_that_runs_out_voids_the_receipt_and_the_message_comes_again,
            a_lease_that_is_extended_stays,
            a_message_released_to_the_queue_comes_again_and_its_receipt_is_void,
            an_acked_message_never_comes_again,
            too_many_receives_end_in_the_dead_letters,
            a_delayed_message_waits_its_time,
            a_full_batch_arrives_whole,
            an_unknown_receipt_is_a_lost_lease,
            a_purge_deletes_the_waiting_messages,
            a_purge_of_dead_messages_keeps_the_others,
        );
    };
    (lists, $setup:path) => {
        $crate::contract_tests!(@ queue, $setup: leases_are_changed_and_acked_as_a_list, a_buried_message_is_dead_at_once,);
        $crate::contract_tests!(@ generations, $setup: results_are_committed_as_a_list, a_result_may_ack_its_message,);
    };
    (fences, $setup:path) => {
        $crate::contract_tests!(@ fences, $setup:
            a_run_is_not_changed_by_an_older_fence,
            a_remembered_queue_is_not_changed_by_an_older_fence,
            no_record_is_added_by_an_older_fence,
        );
    };
    (generations, $setup:path) => {
        $crate::contract_tests!(@ generations, $setup:
            a_new_generation_is_a_new_try_and_older_results_stay,
            a_late_result_is_kept_with_its_own_generation,
        );
    };
    (cancel, $setup:path) => {
        $crate::contract_tests!(@ cancel, $setup:
            a_waiting_job_is_cancelled_and_never_run,
            a_result_that_came_before_the_cancellation_stays,
            a_running_job_is_cancelled_and_its_worker_told,
            a_job_has_its_result_or_is_cancelled,
            a_cancelled_job_stays_so_whatever_becomes_of_its_message,
        );
    };
    (priority, $setup:path) => {
        $crate::contract_tests!(@ priority, $setup:
            higher_priorities_come_first,
            no_priority_waits_for_ever,
            a_message_of_another_priority_is_released_and_buried_like_any_other,
        );
    };
    (urgent, $setup:path) => {
        $crate::contract_tests!(@ urgent, $setup:
            the_job_with_the_least_patience_is_found,
            a_job_that_a_worker_has_begun_is_urgent_no_more,
            a_purged_job_is_urgent_no_more,
        );
    };
    (keys, $setup:path) => {
        $crate::contract_tests!(@ keys, $setup: a_key_is_kept_under_its_name, a_revoked_key_stays_so,);
    };
    (scheduled, $setup:path) => {
        $crate::contract_tests!(@ scheduled, $setup: each_time_has_one_job,);
    };
    (problems, $setup:path) => {
        $crate::contract_tests!(@ cancel, $setup:
            a_cancelled_job_may_be_sent_again,
            what_was_sent_again_meanwhile_is_cancelled_too,
        );
        $crate::contract_tests!(@ generations, $setup:
            a_problem_is_shown_until_there_is_a_result,
            a_buried_job_is_dead_with_its_reason,
            a_job_that_is_only_known_by_its_problem_is_dead,
            a_retry_that_could_not_be_sent_is_dead_and_can_be_tried_again,
        );
    };
    (deletion, $setup:path) => {
        $crate::contract_tests!(@ generations, $setup: old_jobs_that_have_ended_are_deleted,);
    };
    (redrive, $setup:path) => {
        $crate::contract_tests!(@ queue, $setup: a_redrive_moves_dead_messages_back_with_a_count_of_zero,);
    };
    (ledger, $setup:path) => {
        $crate::contract_tests!(@ ledger, $setup:
            the_lease_has_one_holder_and_a_number_that_grows,
            a_late_release_does_not_end_the_lease_of_another,
            a_lease_that_is_not_released_runs_out,
            a_hold_replaces_the_one_before,
            a_hold_from_the_future_keeps_no_later_one_out,
            what_a_run_has_stays_and_what_it_lacks_is_filled_in,
            every_part_of_a_run_comes_back,
            an_open_run_is_remembered_however_many_came_after,
            runs_since_are_those_that_were_up_oldest_first,
            a_period_s_jobs_and_runs_are_added_up,
            a_queue_is_remembered_as_last_read,
            equal_records_are_accepted,
            the_last_record_is_the_last_reconcile,
            a_report_is_accepted,
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
            a_job_that_was_never_submitted_is_unknown,
            jobs_are_found_by_what_they_say,
            when_jobs_waited_and_ran_is_told_newest_first,
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

/// The messages that can be received now.
async fn receive(subject: &dyn Subject, max: u32, visibility: TimeDelta) -> Vec<Received> {
    let request = ReceiveRequest { max, visibility, wait: TimeDelta::zero() };
    subject.ports().queue.receive(subject.queue(), request).await.unwrap()
}

/// One message, as soon as one can be received.
async fn receive_soon(subject: &dyn Subject, visibility: TimeDelta) -> Received {
    for _ in 0..TRIES_MAX {
        if let Some(received) = receive(subject, 1, visibility).await.pop() {
            return received;
        }
        subject.let_time_pass(subject.lease_min() / 8).await;
    }
    unreachable!("no message was received");
}

/// Receives a message as often as it may be, and releases it to the queue each time.
async fn exhaust_receives(subject: &dyn Subject) {
    for count in 1..=RECEIVES_MAX {
        let held = receive_soon(subject, LONG).await;
        assert_eq!(held.receive_count, count);
        let queue = &subject.ports().queue;
        queue.change_one(&held.receipt, TimeDelta::zero()).await.unwrap();
    }
    // The next receive finds that it was received too often.
    assert!(receive(subject, 1, LONG).await.is_empty());
}

/// Waits until visible, in flight, delayed and dead are these: SQS's counts are right some time later.
async fn counts_become(subject: &dyn Subject, wanted: (u64, u64, u64, u64)) {
    let mut found = wanted;
    for _ in 0..TRIES_MAX {
        let seen = subject.ports().queue.counts(subject.queue()).await.unwrap();
        found = (seen.visible, seen.in_flight, seen.delayed, seen.dead);
        assert!(seen.visible > 0 || seen.oldest_sent_at.is_none(), "nothing waits, yet has an age");
        if found == wanted {
            return;
        }
        subject.let_time_pass(subject.lease_min() / 8).await;
    }
    assert_eq!(found, wanted, "visible, in flight, delayed, dead");
}
