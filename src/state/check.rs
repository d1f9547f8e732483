//! What is true of every state: everything that is kept beside the truth is counted again.
//!
//! Never here: rules about one change; `apply` has those.

use super::{State, group, lease};
use crate::ids::GroupId;
use std::fmt;

/// Something that is not as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Of one group, or of the store.
    pub(crate) group: Option<GroupId>,
    pub(crate) what: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            Some(group) => write!(f, "group {group}: {}", self.what),
            None => f.write_str(self.what),
        }
    }
}

impl State {
    /// All violations; empty unless this code is wrong. Looks at everything.
    pub(crate) fn check(&self) -> Vec<Violation> {
        let mut faults = Vec::new();
        self.check_catalog(&mut |what| faults.push(Violation { group: None, what }));
        let mut fault = |what| faults.push(Violation { group: None, what });
        self.cursors.check(&mut fault);
        self.dedup.check(&mut fault);
        self.schedules.check(&mut fault);
        self.check_ages(&mut fault);
        self.check_uniques(&mut fault);
        if !self.exclusive_fits() {
            faults.push(Violation { group: None, what: "the exclusive lease is not what its message says" });
        }
        for (id, group) in self.groups() {
            let mut fault = |what| faults.push(Violation { group: Some(id), what });
            self.check_group(id, group, &mut fault);
            group::check_derived(group, &mut fault);
            lease::check_entries(group, &mut fault);
        }
        faults
    }
}
