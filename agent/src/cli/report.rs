//! How a problem is told.

use agent_api::Problem;

use super::{output::Paint, words};

/// What failed, because of what, and what to do about it.
pub(super) fn text(problem: &Problem, colour: bool) -> String {
    let Problem { kind: _, message, causes, fix } = problem;
    let mut text = format!("{} {}\n", Paint::Error.on("error:", colour), words::lines(message));
    for cause in causes {
        text.push_str(&format!("  because {}\n", words::lines(cause)));
    }
    if let Some(fix) = fix {
        text.push_str(&format!("  {} {}\n", Paint::Fix.on("fix:", colour), words::lines(fix)));
    }
    text
}

#[cfg(test)]
mod tests {
    use agent_api::ProblemKind;

    use super::*;

    #[test]
    fn a_problem_says_what_why_and_what_to_do() {
        let problem = Problem {
            causes: vec!["open `/sys/fs/bpf`".into(), "permission denied".into()],
            ..Problem::new(ProblemKind::Preflight, "cannot pin the maps").fix("run it with sudo")
        };
        insta::assert_snapshot!(text(&problem, false));
        assert!(text(&problem, true).starts_with("\x1b["));
    }
}
