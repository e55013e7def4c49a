//! The ports on one account, as a policy names its parts: who controls boxes gets them all from here.

use std::sync::Arc;

use gpuctl_control::clock::SystemClock;
use gpuctl_control::notice::Notice;
use gpuctl_control::ports::{Cloud, FileStore, JobQueue, Ledger, PortError, Ports};
use gpuctl_core::policy::Policy;

use crate::notify::SnsTopic;
use crate::{Aws, DynamoLedger, Ec2Cloud, S3Files, SqsQueue};

/// An account's parts.
pub struct Account {
    /// EC2.
    pub ec2: Arc<Ec2Cloud>,
    /// SQS.
    pub sqs: Arc<SqsQueue>,
    /// The table, if the policy names one.
    pub table: Option<Arc<DynamoLedger>>,
    /// The results' place in S3, if the policy names one.
    pub files: Option<Arc<S3Files>>,
    topic: Option<SnsTopic>,
}

impl Account {
    /// The parts that `policy` names; AWS is asked nothing yet.
    ///
    /// # Errors
    /// When a part's name cannot be used.
    pub fn open(aws: Aws, policy: &Policy) -> Result<Self, PortError> {
        let named = policy.cloud.aws.clone().unwrap_or_default();
        let files = named.results.as_deref().map(|place| S3Files::at(&aws, place)).transpose()?;
        let table = named.table.as_deref().map(|table| {
            DynamoLedger::new(&aws, table, Arc::new(SystemClock), files.clone())
        });
        Ok(Self {
            ec2: Arc::new(Ec2Cloud::new(&aws, policy.clone(), Arc::new(SystemClock))),
            sqs: Arc::new(SqsQueue::new(&aws)),
            table: table.map(Arc::new),
            files: files.map(Arc::new),
            topic: named.notify.as_deref().map(|arn| SnsTopic::new(&aws, arn)),
        })
    }

    /// The ports, if the ledger is in the account.
    #[must_use]
    pub fn ports(&self) -> Option<Ports> {
        let table: Arc<dyn Ledger> = self.table.clone()?;
        Some(self.ports_with(table, None))
    }

    /// The ports with another ledger, as where the policy names no table, and with a place for files where it names none.
    #[must_use]
    pub fn ports_with(&self, ledger: Arc<dyn Ledger>, files: Option<Arc<dyn FileStore>>) -> Ports {
        let s3 = self.files.clone().map(|files| files as Arc<dyn FileStore>);
        Ports {
            cloud: Arc::clone(&self.ec2) as Arc<dyn Cloud>,
            queue: Arc::clone(&self.sqs) as Arc<dyn JobQueue>,
            ledger,
            files: s3.or(files).unwrap_or_else(|| Arc::new(crate::files::Nowhere)),
            clock: Arc::new(SystemClock),
        }
    }

    /// Sends a notice to the topic, if there is one.
    ///
    /// # Errors
    /// When SNS refuses it.
    pub async fn tell(&self, notice: &Notice) -> Result<(), PortError> {
        match &self.topic {
            Some(topic) => topic.publish(notice).await.map(drop),
            None => Ok(()),
        }
    }
}
