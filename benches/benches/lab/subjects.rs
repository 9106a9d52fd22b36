//! All balancers that can be tried.

use crate::ours::ours;
use crate::peers::peers;
use crate::subject::Subject;

/// All, in the order of the table.
pub(crate) fn all() -> Vec<Subject> {
    [peers(), ours()].concat()
}
