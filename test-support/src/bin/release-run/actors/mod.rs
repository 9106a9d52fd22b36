//! Who acts in a run: registrants and viewers, which use the library, and other tools, which do not.

mod foreign;
mod registrant;
mod viewer;

#[cfg(test)]
pub(crate) use self::foreign::POISON_KEYS;
pub(crate) use self::{
    foreign::{POISON, burst_key, burst_value, write},
    registrant::Registrant,
    viewer::Viewer,
};
