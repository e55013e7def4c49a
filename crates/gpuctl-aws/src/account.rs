//! The ports on one account, as a policy names its parts: who controls boxes gets them all from here.

use std::sync::Arc;

use gpuctl_control::Reconciled;
use gpuctl_control::clock::SystemClock;
use gpuctl_control::notice::{NOTIFY_AGAIN_AFTER, notices};
use gpuctl_control::ports::{FileStore, Ledger, NoFiles, PortError, Ports};
use gpuctl_core::policy::Policy;

use crate::{Aws, AwsFiles, DynamoLedger, Ec2Cloud, S3Files, SnsTopic, SqsQueue, results};

/// An account's parts.
pub struct Account {
    /// Settings of all clients.
    pub aws: Aws,
    /// EC2.
    pub ec2: Arc<Ec2Cloud>,
    /// SQS.
    pub sqs: Arc<SqsQueue>,
    /// The table, if the policy names one.
    pub table: Option<Arc<DynamoLedger>>,
    /// The place for results and uploaded inputs, if the policy names one.
    pub results: Option<S3Files>,
    topic: Option<SnsTopic>,
}

impl Account {
    /// The parts that `policy` names; AWS is asked nothing yet.
    ///
    /// # Errors
    /// When a part's name cannot be used.
    pub fn open(aws: Aws, policy: &Policy) -> Result<Self, PortError> {
        let named = policy.cloud.aws.clone().unwrap_or_default();
        let results = results(&aws, &named)?;
        let table = named.table.as_deref().map(|table| {
            Arc::new(DynamoLedger::new(&aws, table, Arc::new(SystemClock), results.clone()))
        });
        Ok(Self {
            ec2: Arc::new(Ec2Cloud::new(&aws, policy.clone(), Arc::new(SystemClock))),
            sqs: Arc::new(SqsQueue::new(&aws)),
            topic: named.notify.as_deref().map(|arn| SnsTopic::new(&aws, arn)),
            aws,
            table,
            results,
        })
    }

    /// The ports of a controller that has no disk of its own; `None` where the policy names no table.
    #[must_use]
    pub fn ports(&self) -> Option<Ports> {
        let table = self.table.clone()?;
        Some(self.ports_with(table, Arc::new(NoFiles)))
    }

    /// The ports with this ledger; `here` fetches what does not lie in S3.
    #[must_use]
    pub fn ports_with(&self, ledger: Arc<dyn Ledger>, here: Arc<dyn FileStore>) -> Ports {
        Ports {
            cloud: self.ec2.clone(),
            queue: self.sqs.clone(),
            ledger,
            files: Arc::new(AwsFiles::new(&self.aws, self.results.clone(), here)),
            clock: Arc::new(SystemClock),
        }
    }

    /// Tells people what this reconcile has to tell, each trouble once in a while; answers what could not be told. Not telling loses no
    /// job and no money.
    pub async fn tell(
        &self,
        ledger: &dyn Ledger,
        policy: &Policy,
        reconciled: &Reconciled,
    ) -> Vec<PortError> {
        let mut errors = Vec::new();
        for notice in notices(policy, reconciled) {
            match ledger.claim_notice(&notice.key, NOTIFY_AGAIN_AFTER).await {
                Ok(true) => {
                    tracing::warn!(notice = notice.key, "{}", notice.text);
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
