//! The processes that names are looked for, as far as it is known of all of them at once.

use std::collections::{HashMap, HashSet};

use crate::host::{
    process::{Pid, ProcessError},
    process_table::{ProcessTable, Row},
};

/// Processes that may go by a name. There may be thousands, and none of them is asked.
#[derive(Clone, Debug)]
pub struct Owners {
    pids: Vec<Pid>,
    /// By their numbers, here and in a PID namespace of their own.
    by_number: HashMap<i32, Vec<Row>>,
    users: HashSet<u32>,
}

impl Owners {
    /// These processes, as far as they run.
    ///
    /// # Errors
    ///
    /// When they cannot be listed.
    pub fn of(pids: Vec<Pid>) -> Result<Self, ProcessError> {
        let table = ProcessTable::read_these(&pids)?;
        let mut by_number = HashMap::<_, Vec<_>>::new();
        for row in table.rows() {
            for number in HashSet::from([row.pid, row.inside]) {
                by_number.entry(number.get()).or_default().push(*row);
            }
        }
        let users = table.rows().map(|row| row.user).collect();
        Ok(Self { pids, by_number, users })
    }

    /// All of them.
    pub fn pids(&self) -> &[Pid] {
        &self.pids
    }

    /// By whose root names are opened; our own, where nobody is left.
    pub fn first(&self) -> Pid {
        self.pids.first().copied().unwrap_or_else(Pid::ours)
    }

    /// Those that have this number, here or where they live.
    pub(super) fn with_number(&self, number: i32) -> impl Iterator<Item = &Row> {
        self.by_number.get(&number).into_iter().flatten()
    }

    /// Whether one of them has this number, here or where it lives.
    pub(super) fn have_number(&self, number: i32) -> bool {
        self.by_number.contains_key(&number)
    }

    /// Whether one of them is this user.
    pub(super) fn are_user(&self, user: u32) -> bool {
        self.users.contains(&user)
    }
}
