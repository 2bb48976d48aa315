//! `agent status`.

mod picture;
mod watch;

pub(super) use self::picture::service;
use agent_api::{
    ExitCode, Problem, SCHEMA, Selected, ServiceState, Services,
    client::{Client, ClientError},
};

use super::{
    Context,
    arguments::StatusArguments,
    output::{Answer, Look},
};

/// Shows services once, or for as long as wanted.
pub(super) async fn run(
    context: &Context,
    arguments: &StatusArguments,
) -> Result<ExitCode, Problem> {
    let selected = arguments.service.selected();
    if arguments.watch {
        return watch::run(context, selected.as_ref()).await;
    }
    let services = look(&context.client, selected.as_ref()).await?;
    context.console.answer(&services)?;
    Ok(if arguments.exit_code { exit_code(&services) } else { ExitCode::Done })
}

/// What the agent says now: of one service or of all, in the same shape.
async fn look(client: &Client, selected: Option<&Selected>) -> Result<Services, ClientError> {
    match selected {
        None => client.services().await,
        Some(one) => {
            let service = client.service(one).await?;
            Ok(Services { schema: SCHEMA, services: vec![service] })
        }
    }
}

/// What is worst.
fn exit_code(services: &Services) -> ExitCode {
    let any = |state| services.services.iter().any(|service| service.state == state);
    if any(ServiceState::Degraded) {
        ExitCode::Degraded
    } else if any(ServiceState::RollingOut) {
        ExitCode::RollingOut
    } else {
        ExitCode::Done
    }
}

impl Answer for Services {
    fn text(&self, look: Look) -> String {
        if self.services.is_empty() {
            return "no service is attached\n".to_owned();
        }
        let pictures = self.services.iter().map(|one| service(one, look));
        pictures.collect::<Vec<_>>().join("\n")
    }

    fn elements(&self) -> serde_json::Result<Vec<serde_json::Value>> {
        self.services.iter().map(serde_json::to_value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples;

    #[test]
    fn the_worst_service_decides_how_to_end() {
        let mut services = samples::services();
        assert_eq!(exit_code(&services), ExitCode::Degraded);
        services.services.retain(|service| service.state != ServiceState::Degraded);
        assert_eq!(exit_code(&services), ExitCode::RollingOut);
        services.services.retain(|service| service.state != ServiceState::RollingOut);
        assert_eq!(exit_code(&services), ExitCode::Done);
    }
}
