//! Which etcd endpoint is used: one at a time, another one after each failure.

/// The endpoints and the place among them.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    /// As configured; never empty.
    seeds: Vec<String>,
    /// What the cluster says of itself, if it was asked.
    members: Vec<String>,
    at: usize,
}

impl Rotation {
    /// Begins with number `first`.
    pub(crate) fn new(seeds: &[String], first: usize) -> Self {
        debug_assert!(!seeds.is_empty(), "checked with the configuration");
        Self { seeds: seeds.to_vec(), members: Vec::new(), at: first }
    }

    /// What the endpoint in use is called.
    pub(crate) fn current(&self) -> &str {
        let all = self.members.iter().chain(self.extra());
        all.clone().nth(self.at % all.count().max(1)).map_or("", String::as_str)
    }

    /// Goes on to the next one.
    pub(crate) fn rotate(&mut self) {
        let all = self.members.len() + self.extra().count();
        self.at = (self.at + 1) % all.max(1);
    }

    /// The cluster has these members: new ones are used, and one that is gone is asked only when none
    /// of them answers, as a seed. The one in use stays in use.
    pub(crate) fn refresh(&mut self, members: Vec<String>) {
        if members.is_empty() {
            return;
        }
        let current = self.current().to_owned();
        self.members = members;
        let place = self.members.iter().chain(self.extra()).position(|name| *name == current);
        self.at = place.unwrap_or(0);
    }

    /// Seeds that are no members: behind all members in the turn.
    fn extra(&self) -> impl Iterator<Item = &String> + Clone {
        self.seeds.iter().filter(|seed| !self.members.contains(seed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn turn(rotation: &mut Rotation, steps: usize) -> Vec<String> {
        let step = |_| {
            let name = rotation.current().to_owned();
            rotation.rotate();
            name
        };
        (0..steps).map(step).collect()
    }

    #[test]
    fn every_endpoint_has_its_turn() {
        let mut rotation = Rotation::new(&names(&["a", "b", "c"]), 1);
        assert_eq!(turn(&mut rotation, 4), ["b", "c", "a", "b"]);
    }

    #[test]
    fn new_members_are_found_and_removed_ones_come_last() {
        let mut rotation = Rotation::new(&names(&["a", "b"]), 1);
        rotation.refresh(names(&["b", "c"]));
        assert_eq!(rotation.current(), "b", "the one in use stays in use");
        assert_eq!(turn(&mut rotation, 4), ["b", "c", "a", "b"]);
        // Everything was replaced: what was configured is still there if nobody else is.
        rotation.refresh(names(&["x", "y"]));
        assert_eq!(turn(&mut rotation, 5), ["x", "y", "a", "b", "x"]);
        rotation.refresh(Vec::new());
        assert_eq!(rotation.current(), "y");
    }
}
