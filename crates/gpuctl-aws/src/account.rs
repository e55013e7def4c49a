//! The parts of an account that a policy names, as ports for a controller. A worker needs fewer, and puts them together itself.

use std::sync::Arc;
use std::time::Duration;

use gpuctl_control::Reconciled;
use gpuctl_control::lanes::Lanes;
use gpuctl_control::log::shown;
use gpuctl_control::notice::{NOTIFY_AGAIN_AFTER, notices};
use gpuctl_control::ports::{FileStore, Ledger, NoFiles, PortError, Ports};
use gpuctl_core::policy::Policy;

use crate::{
    Aws, AwsFiles, DynamoLedger, Ec2Cloud, InputPlaces, S3Files, SnsTopic, SqsQueue, results,
};

/// How long opening an account waits for AWS's time: where AWS cannot be reached the first call that needs it says so.
const TIME_WAIT_MAX: Duration = Duration::from_secs(5);

/// An account's parts.
pub struct Account {
    pub aws: Aws,
    pub ec2: Arc<Ec2Cloud>,
    pub sqs: Arc<SqsQueue>,
    /// `None` if the policy names no table.
    pub table: Option<Arc<DynamoLedger>>,
    /// The folder for results and uploaded inputs; `None` if the policy names none.
    pub results: Option<S3Files>,
    /// Where inputs may be.
    pub places: InputPlaces,
    topic: Option<SnsTopic>,
    /// `sqs`, with a lane for each priority.
    queue: Arc<Lanes>,
}

impl Account {
    /// The parts that `policy` names, once AWS's time is known: nothing is decided or written by this machine's clock.
    ///
    /// # Errors
    /// When `results` is not an `s3://` URI.
    pub async fn open(aws: Aws, policy: &Policy) -> Result<Self, PortError> {
        let account = Self::of(aws, policy)?;
        account.learn_time().await;
        Ok(account)
    }

    fn of(aws: Aws, policy: &Policy) -> Result<Self, PortError> {
        let named = policy.cloud.aws.clone().unwrap_or_default();
        let results = results(&aws, &named)?;
        let sqs = Arc::new(SqsQueue::new(&aws));
        let table = named.table.as_deref().map(|table| {
            let ledger = DynamoLedger::new(&aws, table, aws.clock(), results.clone());
            Arc::new(ledger.with_queues(Arc::clone(&sqs)))
        });
        Ok(Self {
            ec2: Arc::new(Ec2Cloud::new(&aws, policy.clone(), aws.clock())),
            queue: Arc::new(Lanes::new(sqs.clone(), policy)),
            sqs,
            topic: named.notify.as_deref().map(|arn| SnsTopic::new(&aws, arn)),
            places: InputPlaces::of(policy),
            aws,
            table,
            results,
        })
    }

    /// Makes the cheapest call that needs no further permission, unless an earlier one was answered. An error's response tells the time
    /// too; why there is none, the next call says.
    async fn learn_time(&self) {
        if self.aws.knows_time() {
            return;
        }
        let ask = async {
            match &self.table {
                Some(table) => table.ask().await,
                None => self.aws.identity().await.map(drop),
            }
        };
        if let Ok(Err(error)) = tokio::time::timeout(TIME_WAIT_MAX, ask).await {
            tracing::debug!(%error, "the call that tells AWS's time failed");
        }
    }

    /// The ports of a controller without a disk; `None` if the policy names no table.
    #[must_use]
    pub fn ports(&self) -> Option<Ports> {
        let table = self.table.clone()?;
        Some(self.ports_with(table, Arc::new(NoFiles)))
    }

    /// The ports with this ledger; `local` fetches inputs that do not lie in S3.
    #[must_use]
    pub fn ports_with(&self, ledger: Arc<dyn Ledger>, local: Arc<dyn FileStore>) -> Ports {
        Ports {
            cloud: self.ec2.clone(),
            queue: self.queue.clone(),
            ledger,
            files: Arc::new(AwsFiles::new(
                &self.aws,
                self.results.clone(),
                local,
                self.places.clone(),
            )),
            clock: self.aws.clock(),
        }
    }

    /// Publishes the notices of a reconcile that are due: each at most once in `NOTIFY_AGAIN_AFTER`, however many controllers run. Returns
    /// what could not be published, which costs no job and no money.
    pub async fn notify(
        &self,
        ledger: &dyn Ledger,
        policy: &Policy,
        reconciled: &Reconciled,
    ) -> Vec<PortError> {
        let mut errors = Vec::new();
        for notice in notices(policy, reconciled) {
            match ledger.claim_notice(&notice.key, NOTIFY_AGAIN_AFTER).await {
                Ok(true) => {
                    tracing::warn!(notice = %shown(&notice.key), "{}", shown(&notice.text));
                    if let Some(topic) = &self.topic {
                        errors.extend(topic.publish(&notice).await.err());
                    }
                }
                Ok(false) => {}
                Err(error) => errors.push(error),
            }
        }
        errors
    }
}
