//! `agent flows`.

use agent_api::{ExitCode, FlowView, Flows, Problem};

use super::{
    Context,
    arguments::FlowsArguments,
    output::{Answer, Look},
    table::{Side, Table},
    words,
};

/// Shows the flows of a service, or of all.
pub(super) async fn run(
    context: &Context,
    arguments: &FlowsArguments,
) -> Result<ExitCode, Problem> {
    let flows = context.client.flows(arguments.service.selected().as_ref()).await?;
    context.console.answer(&flows)?;
    Ok(ExitCode::Done)
}

impl Answer for Flows {
    fn text(&self, look: Look) -> String {
        let mut table = Table::new(&[
            ("SERVICE", Side::Left),
            ("GEN", Side::Right),
            ("REMOTE", Side::Left),
            ("LOCAL", Side::Left),
            ("STATE", Side::Left),
            ("ACCEPTED", Side::Left),
            ("IDLE", Side::Left),
        ]);
        for FlowView { service, generation, remote, local, state, accepted, idle } in &self.flows {
            let cells = [
                service.to_string(),
                generation.map_or_else(|| "-".to_owned(), |number| number.to_string()),
                remote.to_string(),
                local.to_string(),
                state.clone(),
                if *accepted { "yes" } else { "no" }.to_owned(),
                idle.map_or_else(|| "-".to_owned(), words::span),
            ];
            table.row(cells, None);
        }
        table.render(look.colour)
    }

    fn elements(&self) -> serde_json::Result<Vec<serde_json::Value>> {
        self.flows.iter().map(serde_json::to_value).collect()
    }
}
