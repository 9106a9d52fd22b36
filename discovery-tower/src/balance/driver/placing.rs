//! Where an endpoint belongs: among those that can be used, or in the rest. Whatever happens to one ends
//! here, so that all that is counted of them is counted at one place.

use std::time::Duration;

use tracing::debug;

use super::books::Books;
use super::entry::{Panic, Phase};
use crate::balance::attributes::Availability;
use crate::balance::logged::Logged;
use crate::balance::member::{FULL, Gate, Standing};
use crate::balance::parts::Parts;

impl<T: Parts> Books<T> {
    /// Puts an endpoint where it belongs: among those that can be used, or not.
    pub(super) fn place(&mut self, id: usize) {
        let panic = self.panic;
        let nobody_else = self.first_resort == 0;
        let Some(entry) = self.entries.get_mut(id) else { return };
        let usable = entry.is_usable(panic);
        let healthy = entry.is_usable(Panic::No);
        self.healthy += usize::from(healthy);
        self.healthy -= usize::from(std::mem::replace(&mut entry.healthy, healthy));
        let last_resort = entry.availability == Availability::LastResort;
        if usable && (!last_resort || nobody_else) {
            let on_probation = entry.trouble.as_ref().is_some_and(|trouble| trouble.to_pass > 0);
            let gate =
                if on_probation && panic == Panic::No { Gate::Probation } else { Gate::Open };
            entry.member().set_gate(gate);
            if !entry.used {
                let former = entry.place;
                let place = self.lists.add_ready(&entry.endpoint, entry.member().own_weight());
                (entry.place, entry.used) = (place as u32, true);
                let ramp_from = entry.trouble.as_ref().and_then(|trouble| trouble.ramp_from);
                let ramp = if ramp_from.is_some() {
                    self.rules.slow_start.ramp(Duration::ZERO)
                } else {
                    FULL
                };
                entry.member().set_ramp(ramp);
                if ramp < FULL {
                    self.ramping.insert(id);
                }
                self.leave_rest(former);
                if !last_resort {
                    self.first_resort += 1;
                    if nobody_else {
                        self.place_last_resort();
                    }
                }
            }
        } else {
            entry.member().set_gate(Gate::Closed);
            self.withdraw(id);
        }
        self.stand(id);
        self.changed = true;
    }

    /// Takes an endpoint out of those that can be used.
    pub(super) fn withdraw(&mut self, id: usize) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if !std::mem::take(&mut entry.used) {
            return;
        }
        let last_resort = entry.availability == Availability::LastResort;
        let weight = entry.member().own_weight();
        let former = entry.place;
        entry.place = self.lists.rest.push(entry.endpoint.clone()) as u32;
        self.ramping.remove(&id);
        if let Some(moved) = self.lists.remove_ready(former as usize, weight)
            && let Some(moved) = self.entries.get_mut(moved)
        {
            moved.place = former;
        }
        self.changed = true;
        if !last_resort {
            self.first_resort -= 1;
            if self.first_resort == 0 {
                self.place_last_resort();
            }
        }
    }

    /// Takes one out of the rest, where the last one moves to its place.
    pub(super) fn leave_rest(&mut self, place: u32) {
        if let Some(moved) = self.lists.rest.remove(place as usize).map(|moved| moved.id)
            && let Some(moved) = self.entries.get_mut(moved)
        {
            moved.place = place;
        }
    }

    fn place_last_resort(&mut self) {
        for id in self.last_resort.clone() {
            self.place(id);
        }
    }

    /// Says of an endpoint how it stands.
    fn stand(&mut self, id: usize) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let member = entry.member();
        let standing = match entry.phase {
            Phase::Connecting => Standing::Connecting,
            Phase::Failed => Standing::Failed,
            Phase::Connected if entry.is_out() && !entry.used => Standing::Ejected,
            Phase::Connected if member.own_weight() == 0 => Standing::Out,
            Phase::Connected if entry.availability == Availability::Out => Standing::Out,
            Phase::Connected if !entry.used => Standing::LastResort,
            Phase::Connected if member.gate() == Gate::Probation => Standing::Probation,
            Phase::Connected => Standing::Up,
        };
        let former = member.set_standing(standing);
        if former != standing {
            debug!(
                endpoint = ?Logged(member.key()),
                from = former.name(),
                to = standing.name(),
                "endpoint stands differently"
            );
        }
    }
}
