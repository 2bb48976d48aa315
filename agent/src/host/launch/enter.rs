//! How a server comes to its directory, whose path may lead anywhere by now.

use std::{env, fs, io, os::unix::fs::MetadataExt as _, path::Path};

use nix::unistd::{Uid, setfsuid};

use super::{
    Directory, LaunchSpec,
    report::{Failure, Step},
};

/// Enters it while still root. The old process may be where its user cannot get by the path: root started it there.
pub(super) fn enter(spec: &LaunchSpec) -> Result<(), Failure> {
    let path: &Path = spec.context.working_directory.as_ref();
    let entered = match spec.directory {
        Directory::Named => env::set_current_dir(path),
        Directory::Shown { held } => match as_user(spec.context.uid, || env::set_current_dir(path))
        {
            Err(refused) if refused.kind() == io::ErrorKind::PermissionDenied => {
                enter_held(path, held, refused)
            }
            entered => entered,
        },
    };
    entered.map_err(|error| Failure::new(Step::ChangeDirectory, path.display(), error))
}

/// What is looked at is where we are already, and not the path once more.
fn enter_held(path: &Path, held: Option<(u64, u64)>, refused: io::Error) -> io::Result<()> {
    env::set_current_dir(path)?;
    let here = fs::metadata(".")?;
    if held == Some((here.dev(), here.ino())) {
        return Ok(());
    }
    env::set_current_dir("/")?;
    Err(refused)
}

/// With a user's rights to files, and our own to all else.
///
/// # Kernel
///
/// Whoever is root for files no more loses the capabilities that pass over permissions, until it is again (`cap_task_fix_setuid`).
fn as_user<T>(uid: u32, act: impl FnOnce() -> T) -> T {
    let before = setfsuid(Uid::from_raw(uid));
    let done = act();
    setfsuid(before);
    done
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// The working directory is the whole process's, so that the checks are in one test.
    #[test]
    fn a_path_that_leads_where_the_user_cannot_get_is_not_followed() {
        const USER: u32 = 65_534;
        let ours = tempfile::tempdir().unwrap();
        let closed = ours.path().join("closed");
        let inner = closed.join("inner");
        fs::create_dir_all(&inner).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(ours.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let place = |path: &Path| fs::metadata(path).map(|it| (it.dev(), it.ino())).unwrap();
        let before = env::current_dir().unwrap();
        let denied = || as_user(USER, || fs::read_dir(&inner)).map(drop).unwrap_err();
        assert_eq!(denied().kind(), io::ErrorKind::PermissionDenied);
        assert!(fs::read_dir(&inner).is_ok(), "root again");
        let enter = |held| enter_held(&inner, held, denied());
        assert!(enter(None).is_err());
        assert!(enter(Some(place(ours.path()))).is_err());
        assert_eq!(env::current_dir().unwrap(), Path::new("/"));
        assert!(enter(Some(place(&inner))).is_ok());
        assert_eq!(env::current_dir().unwrap(), inner.canonicalize().unwrap());
        env::set_current_dir(before).unwrap();
    }
}
