//! `agent explain`.

use agent_api::{ExitCode, Explanation, Offer, Problem};

use super::{
    Context,
    arguments::ExplainArguments,
    output::{Answer, Look},
    words,
};

/// Says what the kernel would do with a connection.
pub(super) async fn run(
    context: &Context,
    arguments: &ExplainArguments,
) -> Result<ExitCode, Problem> {
    let explanation = context.client.explain(arguments.local, arguments.from).await?;
    context.console.answer(&explanation)?;
    Ok(ExitCode::Done)
}

impl Answer for Explanation {
    fn text(&self, _look: Look) -> String {
        let Self { schema: _, local, service, offers, steps } = self;
        let mut text = match service {
            Some(service) => format!("{local} belongs to {service}\n"),
            None => format!("{local} belongs to no service\n"),
        };
        for step in steps {
            text.push_str(&format!("  {}\n", words::line(step)));
        }
        for (place, Offer { generation, listeners }) in (1..).zip(offers) {
            let listeners: Vec<String> = listeners
                .iter()
                .map(|listener| format!("{} (socket {})", listener.bound, listener.cookie))
                .collect();
            let listeners =
                if listeners.is_empty() { "no listener".to_owned() } else { listeners.join(", ") };
            text.push_str(&format!("{place}. generation {generation}: {listeners}\n"));
        }
        text
    }
}
