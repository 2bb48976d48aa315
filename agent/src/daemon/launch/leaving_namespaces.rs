//! What a next generation keeps that does not live in the namespaces of the one before.

use agent_api::{Command, NamespacesOf};

use super::{error::NotLaunched, given::Inherited};
use crate::host::context::{Context, Namespace};

/// Has the next one live in our namespaces, if the operator says so. What the server got in its own ones means nothing here: whoever
/// makes a user namespace has all capabilities in it, and the path of a root directory in another mount namespace leads anywhere.
///
/// # Errors
///
/// When the namespaces ended with the server and the operator has not said that the next one may do without, or they had its root
/// directory.
pub(super) fn leave_namespaces(
    inherited: &mut Inherited,
    command: &Command,
) -> Result<(), NotLaunched> {
    let is_wanted = command.namespaces == NamespacesOf::Agent;
    if inherited.context.namespaces.is_empty() || inherited.namespaces_of.is_some() && !is_wanted {
        return Ok(());
    }
    if !is_wanted {
        let namespaces = inherited.context.namespaces.clone();
        return Err(NotLaunched::NamespacesGone { namespaces });
    }
    inherited.namespaces_of = None;
    leave(&mut inherited.context)
}

fn leave(context: &mut Context) -> Result<(), NotLaunched> {
    let left = std::mem::take(&mut context.namespaces);
    let Some(confinement) = &mut context.confinement else { return Ok(()) };
    if let Some(root) = confinement.root.as_ref().filter(|_| left.contains(&Namespace::Mount)) {
        return Err(NotLaunched::RootElsewhere { root: root.as_os_str().into() });
    }
    if left.contains(&Namespace::User) {
        confinement.capabilities.give_up_all();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::process::{Pid, Process};

    fn inherited(namespaces: &[Namespace]) -> Inherited {
        let mut context = Context::of(Pid::ours(), Pid::ours()).unwrap();
        context.namespaces = namespaces.to_vec();
        Inherited::remembered(&context)
    }

    fn asked(namespaces: NamespacesOf) -> Command {
        Command { namespaces, ..Command::default() }
    }

    #[test]
    fn whoever_leaves_a_user_namespace_leaves_its_capabilities_there() {
        let mut left = inherited(&[Namespace::Mount, Namespace::User]);
        leave_namespaces(&mut left, &asked(NamespacesOf::Agent)).unwrap();
        assert_eq!(left.context.namespaces, []);
        let capabilities = left.context.confinement.unwrap().capabilities;
        let sets = [capabilities.bounding, capabilities.inheritable, capabilities.ambient];
        assert_eq!((sets, capabilities.of_root), ([0; 3], Some(0)));
        let mut stays = inherited(&[Namespace::User]);
        stays.namespaces_of = Some(Process::open(Pid::ours()).unwrap().identity());
        let before = stays.context.clone();
        leave_namespaces(&mut stays, &asked(NamespacesOf::Replaced)).unwrap();
        assert_eq!(stays.context, before);
    }

    #[test]
    fn namespaces_that_ended_are_not_left_unasked() {
        let mut gone = inherited(&[Namespace::Mount]);
        let refused = leave_namespaces(&mut gone, &asked(NamespacesOf::Replaced)).unwrap_err();
        assert!(refused.to_string().contains("(mnt)"), "{refused:?}");
        assert!(refused.fix().unwrap().contains("--namespaces agent"));
    }

    #[test]
    fn a_root_directory_of_another_mount_namespace_is_none_here() {
        let mut left = inherited(&[Namespace::Mount]);
        left.context.confinement.as_mut().unwrap().root = Some("/jail".into());
        let refused = leave_namespaces(&mut left, &asked(NamespacesOf::Agent)).unwrap_err();
        assert!(refused.to_string().contains("`/jail`"), "{refused:?}");
        let mut beside = inherited(&[Namespace::Uts]);
        beside.context.confinement.as_mut().unwrap().root = Some("/jail".into());
        leave_namespaces(&mut beside, &asked(NamespacesOf::Agent)).unwrap();
        assert!(beside.context.confinement.unwrap().root.is_some());
    }
}
