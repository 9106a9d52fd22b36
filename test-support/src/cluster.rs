//! Several etcd members that elect a leader among them.

use std::time::Duration;

use crate::{Builder, Etcd, Status, Version, wait::eventually};

/// Longer than any election on a busy machine.
const ELECTION: Duration = Duration::from_secs(20);
/// A member that says nothing is not waited for.
const QUESTION: Duration = Duration::from_secs(1);

/// A cluster of etcd members. Dropping it kills all and removes their data.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Etcd>,
}

impl Cluster {
    /// Starts so many members with etcd's own defaults and waits until all serve.
    ///
    /// # Panics
    ///
    /// As [`Builder::start`].
    pub async fn start(version: Version, members: usize) -> Self {
        Self::start_with(Etcd::builder(version), members).await
    }

    /// Starts so many members, each told the same.
    ///
    /// # Panics
    ///
    /// As [`Builder::start`]; and if more than one member shall use a data directory that is given.
    pub async fn start_with(builder: Builder, members: usize) -> Self {
        assert!(builder.has_own_data() || members < 2, "members cannot share a data directory");
        Self { members: builder.start_members(members).await }
    }

    /// The members, in the order of their numbers.
    pub fn members(&self) -> &[Etcd] {
        &self.members
    }

    /// The member of this number, from 0.
    pub fn member(&self, number: usize) -> &Etcd {
        &self.members[number]
    }

    /// Where each member serves clients.
    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(Etcd::url).collect()
    }

    /// The number of the leader that a majority follows. Waits for an election that is under way.
    ///
    /// # Panics
    ///
    /// If there is none within 20 s by [`slack`](crate::slack), as when a majority is gone or paused.
    pub async fn leader(&self) -> usize {
        eventually(ELECTION, "a leader that a majority follows", async || {
            let seen = self.statuses().await;
            leader_in(&seen).ok_or(seen)
        })
        .await
    }

    /// What each member says about itself, `None` from one that says nothing.
    async fn statuses(&self) -> Vec<Option<Status>> {
        let mut asked = tokio::task::JoinSet::new();
        for (number, member) in self.members.iter().enumerate() {
            let truth = member.truth().deadline(QUESTION);
            asked.spawn(async move { (number, truth.status().await.ok()) });
        }
        let mut seen = vec![None; self.members.len()];
        while let Some(answer) = asked.join_next().await {
            let (number, status) = answer.expect("asking for the status does not panic");
            seen[number] = status;
        }
        seen
    }
}

/// The number of the member that more than half of all take for the leader, all in the same term: one that
/// has lost its followers goes on for a while as if nothing had happened.
fn leader_in(seen: &[Option<Status>]) -> Option<usize> {
    seen.iter().position(|candidate| {
        candidate.as_ref().is_some_and(|candidate| {
            let follows =
                |other: &&Status| other.leader == candidate.member && other.term == candidate.term;
            seen.iter().flatten().filter(follows).count() * 2 > seen.len()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members of these numbers that say who leads in which term.
    fn statuses(said: [Option<(u64, u64, u64)>; 3]) -> [Option<Status>; 3] {
        said.map(|said| {
            let (member, leader, term) = said?;
            Some(Status { member, leader, term, revision: 1, release: String::new() })
        })
    }

    #[test]
    fn a_leader_is_who_leads_more_than_half() {
        let leader = |said| leader_in(&statuses(said));
        assert_eq!(leader([Some((7, 8, 2)), Some((8, 8, 2)), Some((9, 8, 2))]), Some(1));
        assert_eq!(leader([None, Some((8, 8, 2)), Some((9, 8, 2))]), Some(1));

        assert_eq!(leader([None, Some((8, 8, 2)), None]), None, "it is alone");
        assert_eq!(leader([None, Some((8, 8, 2)), Some((9, 0, 2))]), None, "it has no follower");
        assert_eq!(leader([None, Some((8, 8, 2)), Some((9, 8, 3))]), None, "it was the leader");
        assert_eq!(leader([Some((7, 8, 2)), None, Some((9, 8, 2))]), None, "it says nothing");
    }
}
