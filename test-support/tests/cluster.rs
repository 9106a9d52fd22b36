//! A cluster elects, loses and finds its leader, on every version.

use std::time::Duration;

use discovery_test_support::{Cluster, Truth, eventually, on_each_version, slack};

const SOON: Duration = Duration::from_secs(20);

fn impatient(cluster: &Cluster, member: usize) -> Truth {
    cluster.member(member).truth().deadline(slack(Duration::from_secs(2)))
}

#[tokio::test]
async fn members_are_one_cluster() {
    on_each_version(async |version| {
        let cluster = Cluster::start(version, 3).await;
        let leader = cluster.leader().await;
        assert!(leader < 3);
        let urls = cluster.urls();
        assert_eq!(urls.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);

        cluster.member(0).truth().put("key", "value").await.unwrap();
        for member in cluster.members() {
            let kv = member.truth().get("key").await.unwrap();
            assert_eq!(kv.expect("all members have it").value, b"value");
        }
    })
    .await;
}

#[tokio::test]
async fn another_leads_when_the_leader_is_killed_or_paused() {
    on_each_version(async |version| {
        let cluster = Cluster::start(version, 3).await;
        let first = cluster.leader().await;
        cluster.member(first).kill();
        let second = cluster.leader().await;
        assert_ne!(second, first);

        cluster.member(first).restart().await;
        cluster.member(second).pause();
        let third = cluster.leader().await;
        assert_ne!(third, second);
        cluster.member(second).resume();
        cluster.member(second).wait_until_serving().await;
        assert_eq!(cluster.leader().await, third);
    })
    .await;
}

#[tokio::test]
async fn a_member_that_is_alone_serves_nobody_until_the_others_return() {
    on_each_version(async |version| {
        let cluster = Cluster::start(version, 3).await;
        cluster.member(1).pause();
        cluster.member(2).pause();
        assert!(impatient(&cluster, 0).put("key", "value").await.is_err());

        cluster.member(1).resume();
        cluster.member(2).resume();
        eventually(SOON, "the cluster takes writes", async || {
            impatient(&cluster, 0).put("key", "value").await
        })
        .await;
    })
    .await;
}
