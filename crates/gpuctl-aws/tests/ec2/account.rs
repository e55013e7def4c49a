//! What opening an account guarantees to its controller.

use gpuctl_aws::Account;
use gpuctl_control::ports::Clock;
use gpuctl_core::policy::Policy;

use super::emulators::refusing_in_2020;
use super::support::aws;

#[tokio::test(flavor = "multi_thread")]
async fn t14_an_open_account_goes_by_aws_s_time_and_not_by_the_machine_s() {
    for table in ["table = \"gpuctl\"\n", ""] {
        let pool = "[pool.gpu]\ninstances = [\"i-0123456789abcdef0\"]";
        let policy = Policy::parse(&format!("[cloud]\nkind = \"aws\"\n{table}{pool}")).unwrap();
        let account = Account::open(aws(&refusing_in_2020()), &policy).await.unwrap();
        let year = account.aws.clock().now().format("%Y").to_string();
        assert_eq!(year, "2020", "with [{table}]");
    }
}
