//! `agent doctor`: what this machine has, and what is missing; with `--repair`, mends what an agent left.

use agent_api::{ExitCode, Problem, SCHEMA};
use serde::{Deserialize, Serialize};

use super::{
    Context,
    arguments::DoctorArguments,
    output::{Answer, Look, Paint},
    start,
    table::{Side, Table},
    words,
};
use crate::{
    daemon::{
        Other,
        repair::{self, Repaired},
    },
    doctor::{self, Check, Verdict},
};

/// All that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Version of these types.
    pub schema: u32,
    /// In the order in which they matter.
    pub checks: Vec<Check>,
}

/// What was mended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// Version of these types.
    pub schema: u32,
    /// Whether anything was done.
    pub changed: bool,
    /// What, in this order.
    pub done: Vec<String>,
}

/// Looks at everything; ends with [`ExitCode::Preflight`] if something is missing.
pub(super) fn run(context: &Context, arguments: &DoctorArguments) -> Result<ExitCode, Problem> {
    let DoctorArguments { repair } = *arguments;
    if repair {
        return mend(context);
    }
    let diagnosis = Diagnosis { schema: SCHEMA, checks: doctor::checks(&context.places) };
    context.console.answer(&diagnosis)?;
    Ok(diagnosis.exit_code())
}

fn mend(context: &Context) -> Result<ExitCode, Problem> {
    let Repaired { mut done, start } = repair::repair(&context.places)?;
    if start {
        start::in_background(context, Other::Respect)?;
        done.push("started the agent".to_owned());
    }
    context.console.answer(&Repair { schema: SCHEMA, changed: !done.is_empty(), done })?;
    Ok(ExitCode::Done)
}

impl Answer for Repair {
    fn text(&self, _look: Look) -> String {
        if !self.changed {
            return "nothing to repair\n".to_owned();
        }
        self.done.iter().map(|step| format!("{}\n", words::line(step))).collect()
    }
}

impl Diagnosis {
    fn exit_code(&self) -> ExitCode {
        let works = !self.checks.iter().any(doctor::is_obstacle);
        if works { ExitCode::Done } else { ExitCode::Preflight }
    }
}

impl Answer for Diagnosis {
    fn text(&self, look: Look) -> String {
        let mut table =
            Table::new(&[("CHECK", Side::Left), ("", Side::Left), ("FOUND", Side::Left)]);
        for Check { name, verdict, detail, fix: _ } in &self.checks {
            let (word, paint) = match verdict {
                Verdict::Ok => ("ok", None),
                Verdict::Missing => ("missing", Some(Paint::Error)),
                Verdict::Unknown => ("unknown", Some(Paint::Warning)),
            };
            table.row([name.clone(), word.to_owned(), detail.clone()], paint);
        }
        let mut text = table.render(look.colour);
        for check in self.checks.iter().filter(|check| check.verdict != Verdict::Ok) {
            if let Some(fix) = &check.fix {
                let heading =
                    Paint::Fix.on(&format!("fix {}:", words::line(&check.name)), look.colour);
                text.push_str(&format!("{heading} {}\n", words::line(fix)));
            }
        }
        text
    }

    fn elements(&self) -> serde_json::Result<Vec<serde_json::Value>> {
        self.checks.iter().map(serde_json::to_value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples::{BLACK, diagnosis};

    #[test]
    fn what_is_missing_is_shown_with_its_fix() {
        insta::assert_snapshot!(diagnosis().text(BLACK));
        insta::assert_json_snapshot!(diagnosis());
    }

    #[test]
    fn only_what_is_missing_ends_in_failure() {
        let mut diagnosis = diagnosis();
        assert_eq!(diagnosis.exit_code(), ExitCode::Preflight);
        diagnosis.checks.retain(|check| check.verdict != Verdict::Missing);
        assert_eq!(diagnosis.exit_code(), ExitCode::Done);
    }
}
