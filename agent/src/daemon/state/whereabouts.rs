//! Where an agent has its pins and its control groups, which steer and hold processes when it is gone: another one goes on there, and
//! nowhere else.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use agent_api::{Problem, ProblemKind};
use serde::{Deserialize, Serialize};

use crate::{host::os_text::OsText, places::Places};

/// What is written down of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whereabouts {
    pin_dir: OsText,
    /// Which its own groups are below, as a directory.
    cgroup: OsText,
}

impl Whereabouts {
    /// Of an agent with these places, and this group above its own.
    pub fn new(places: &Places, group: &Path) -> Self {
        let pin_dir = std::path::absolute(&places.pin_dir);
        let pin_dir = pin_dir.unwrap_or_else(|_no_directory| places.pin_dir.clone());
        Self { pin_dir: pin_dir.into(), cgroup: group.to_owned().into() }
    }

    /// Refuses an agent that would go on elsewhere: what is there would steer on when it has detached all, and nobody would know of
    /// it. What is gone keeps nobody from having it elsewhere.
    ///
    /// # Errors
    ///
    /// With the options that name these places.
    pub fn refuse_others(&self, other: &Self, state: &Path) -> Result<(), Problem> {
        let (was, is) = (PathBuf::from(self.pin_dir.as_os_str()), other.pin_dir.as_ref());
        let pins =
            differ(&was, is, |it| (it.dev(), it.ino())).then_some(("pins", "--pin-dir", was));
        let (was, is) = (PathBuf::from(self.cgroup.as_os_str()), other.cgroup.as_ref());
        // The hierarchy may be mounted more than once; a group has one number in all of them.
        let groups = differ(&was, is, Metadata::ino).then_some(("control groups", "--cgroup", was));
        let elsewhere: Vec<_> = pins.into_iter().chain(groups).collect();
        if elsewhere.is_empty() {
            return Ok(());
        }
        let told = |form: fn(&(&str, &str, PathBuf)) -> String, between: &str| {
            elsewhere.iter().map(form).collect::<Vec<_>>().join(between)
        };
        let message = format!(
            "what `{}` has attached is steered from elsewhere: its {}",
            state.display(),
            told(|(what, _, place)| format!("{what} are in `{}`", place.display()), ", its ")
        );
        Err(Problem::new(ProblemKind::Preflight, message).fix(format!(
            "give `{}`; to have it elsewhere, detach all services before",
            told(|(_, option, place)| format!("{option} {}", place.display()), " ")
        )))
    }
}

/// Whether what was somewhere is there and not here, by what makes both the same.
fn differ<T: PartialEq>(was: &Path, is: &Path, identity: impl Fn(&Metadata) -> T) -> bool {
    let known = fs::metadata(was).ok();
    was != is
        && known.is_some_and(|it| !fs::metadata(is).is_ok_and(|is| identity(&it) == identity(&is)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_other_places_is_told_the_options_and_what_is_gone_is_no_obstacle() {
        let root = tempfile::tempdir().unwrap();
        let [pins, other, group, link] =
            ["pins", "other", "group", "link"].map(|name| root.path().join(name));
        let whereabouts = |pins: &Path, group: &Path| {
            let places =
                Places { runtime_dir: PathBuf::new(), pin_dir: pins.to_owned(), cgroup: None };
            Whereabouts::new(&places, group)
        };
        let state = Path::new("/run/agent/state.json");
        let (was, moved) = (whereabouts(&pins, &group), whereabouts(&other, &other));
        was.refuse_others(&moved, state).unwrap();
        fs::create_dir(&pins).unwrap();
        std::os::unix::fs::symlink(&pins, &link).unwrap();
        was.refuse_others(&whereabouts(&link, &group), state).unwrap();
        let fix = |refused: Result<(), Problem>| refused.unwrap_err().fix.unwrap();
        let refused = fix(was.refuse_others(&moved, state));
        assert!(refused.starts_with(&format!("give `--pin-dir {}`", pins.display())), "{refused}");
        fs::create_dir(&group).unwrap();
        let refused = fix(was.refuse_others(&moved, state));
        assert!(refused.contains(&format!(" --cgroup {}`", group.display())), "{refused}");
        was.refuse_others(&was, state).unwrap();
    }
}
