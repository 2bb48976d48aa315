//! What a generation was given when it was started, as far as its successor gets it.

use serde::{Deserialize, Serialize};

use crate::{
    daemon::world_error::WorldError,
    host::{
        context::Context,
        launch::{self, Unfit, Usage},
        os_text::OsText,
        process::{Pid, ProcessIdentity},
        process_table::ProcessTable,
    },
};

/// What a successor is given, before the operator's own options.
#[derive(Debug)]
pub(in crate::daemon) struct Inherited {
    pub(in crate::daemon) context: Context,
    /// The process to take the context's namespaces from.
    pub(in crate::daemon) namespaces_of: Option<ProcessIdentity>,
    /// One that runs where the next one is to run.
    pub(in crate::daemon) directory_of: Option<ProcessIdentity>,
    /// What is not as it is for the running server, for the operator to know.
    pub(in crate::daemon) warnings: Vec<String>,
}

/// What a generation was given: what it was launched with, or, where it was found, what its process showed then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Given {
    context: Context,
    /// Whether it may have been started as root, and have given that up when it had its listener.
    #[serde(alias = "started_as_root")]
    may_have_been_root: bool,
    /// What its successor is not given of it, in words.
    left_out: Vec<String>,
}

impl Given {
    /// That of one that we launch.
    pub(in crate::daemon) const fn launched_with(context: Context) -> Self {
        Self { context, may_have_been_root: false, left_out: Vec::new() }
    }

    /// That of one that shows nothing which could be believed: who is to run the next one has to be said.
    pub(in crate::daemon) fn of_nobody_knows_whom() -> Self {
        let left_out = vec!["nothing of the running server's surroundings is known".to_owned()];
        Self { context: Context::unknown(), may_have_been_root: true, left_out }
    }

    /// That of a server that somebody started and that shows this context, without what was meant for the running process alone.
    ///
    /// # Errors
    ///
    /// When its process cannot be looked at.
    pub(super) fn found(
        mut context: Context,
        root: Pid,
        may_have_been_root: bool,
    ) -> Result<Self, WorldError> {
        let (limits, changed) = launch::fitting(&context.limits, &Usage::of(root)?);
        context.limits = limits;
        let why = "the running server lowered it for itself, and could not start with it";
        let mut left_out: Vec<_> = changed.iter().map(|unfit| limit_warning(unfit, why)).collect();
        left_out.extend(drop_handovers(&mut context.environment));
        left_out.extend(stand_in_for_environment(&mut context));
        Ok(Self { context, may_have_been_root, left_out })
    }

    /// The same, of one that was started as root, whoever it became.
    pub(super) fn by_root(self) -> Self {
        Self { may_have_been_root: true, ..self }
    }

    pub(super) const fn may_have_been_root(&self) -> bool {
        self.may_have_been_root
    }

    pub(super) const fn uid(&self) -> u32 {
        self.context.uid
    }

    pub(super) fn environment(&self) -> &[(OsText, OsText)] {
        &self.context.environment
    }

    /// What its successor gets if nobody says otherwise.
    pub(in crate::daemon) fn passed_on(&self) -> Inherited {
        Inherited { warnings: self.left_out.clone(), ..Inherited::remembered(&self.context) }
    }
}

impl Inherited {
    pub(super) fn remembered(context: &Context) -> Self {
        let context = context.clone();
        Self { context, namespaces_of: None, directory_of: None, warnings: Vec::new() }
    }

    /// The kernel counts the processes of a user, whatever server they are of (`is_rlimit_overlimit`), and root's not at all.
    pub(super) fn make_room_beside(&mut self, pids: &[Pid]) -> Result<(), WorldError> {
        use crate::host::limit::Resource::Nproc;
        let Context { uid, limits, .. } = &self.context;
        let soft = limits.iter().find(|it| it.resource == Nproc).and_then(|it| it.soft);
        let Some(soft) = soft.filter(|_| *uid != ROOT) else { return Ok(()) };
        let own = ProcessTable::read_these(pids)?.rows().map(|row| u64::from(row.threads)).sum();
        let others = launch::tasks_of_user(*uid, soft.saturating_sub(own))?;
        let (limits, changed) = launch::with_tasks(limits, others + own);
        self.context.limits = limits;
        self.warnings.extend(changed.iter().map(|unfit| {
            let why = "two generations of its processes would not fit beside each other";
            limit_warning(unfit, why)
        }));
        Ok(())
    }
}

/// Removes the variables that were meant for the running process alone, and says which.
fn drop_handovers(environment: &mut Vec<(OsText, OsText)>) -> Option<String> {
    let mut dropped = Vec::new();
    environment.retain(|(name, _)| match launch::mechanism_of(name.as_bytes()) {
        Some(mechanism) => {
            dropped.push(format!("{} ({mechanism})", name.as_os_str().display()));
            false
        }
        None => true,
    });
    (!dropped.is_empty()).then(|| {
        format!(
            "not inherited, because it was handed to the running process alone: {}",
            dropped.join(", ")
        )
    })
}

/// Of an environment that is written over nobody knows what it was.
fn stand_in_for_environment(context: &mut Context) -> Option<String> {
    if std::mem::replace(&mut context.is_environment_known, true) {
        return None;
    }
    context.environment = vec![("PATH".into(), path_of(context.uid).into())];
    Some(
        "the running server has written a title over its environment, which is not inherited therefore: say with `--env` what \
         the new generation needs"
            .to_owned(),
    )
}

fn limit_warning(unfit: &Unfit, why: &str) -> String {
    let Unfit { limit, needed, instead } = unfit;
    let name = format!("{:?}", limit.resource).to_ascii_lowercase();
    let value = |value: Option<u64>| value.map_or("unlimited".to_owned(), |it| it.to_string());
    let gets = match instead {
        Some(instead) => format!("{name}={}", value(instead.soft)),
        None => "the agent's own".to_owned(),
    };
    format!(
        "the limit {name}={}:{} is not inherited: {why} (at least {needed}); the new generation gets {gets}, or what `--limit {name}=…` says",
        value(limit.soft),
        value(limit.hard),
    )
}

/// As login gives it.
pub(super) const fn path_of(user: u32) -> &'static str {
    match user {
        ROOT => "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        _ => "/usr/local/bin:/usr/bin:/bin",
    }
}

const ROOT: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handovers_are_dropped_and_named_once() {
        let mut environment = vec![
            ("PATH".into(), "/bin".into()),
            ("GUNICORN_FD".into(), "5".into()),
            ("LISTEN_PID".into(), "7".into()),
        ];
        let said = drop_handovers(&mut environment).unwrap();
        assert_eq!(environment, [("PATH".into(), "/bin".into())]);
        assert!(said.ends_with("GUNICORN_FD (gunicorn), LISTEN_PID (socket activation)"), "{said}");
        assert_eq!(drop_handovers(&mut environment), None);
    }
}
