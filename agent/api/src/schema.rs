//! The API as documents: an OpenAPI description, and the JSON schema of each type.
//!
//! Both are made from [`Operation`] and from the types that go over the socket, are kept in `docs/api`, and are written anew by
//! `cargo xtask api`.

use hyper::Method;
use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{
    AgentView, AttachRequest, Attached, Begun, Detached, EventView, Events, Explanation, Flows,
    History, Operation, Problem, ProblemKind, RolloutView, SCHEMA, ServiceView, Services,
    UndoRequest, UpgradeAnswer, UpgradeRequest,
};

/// The documents, by their names in `docs/api`.
pub fn documents() -> [(&'static str, String); 2] {
    [("openapi.json", text(&open_api())), ("schema.json", text(&json_schema()))]
}

fn text(document: &Value) -> String {
    format!("{document:#}\n")
}

/// OpenAPI 3.1, whose schemas are those of JSON Schema 2020-12.
fn open_api() -> Value {
    let mut types = Types::at("#/components/schemas");
    let mut paths: Map<String, Value> = Map::new();
    for operation in Operation::ALL {
        let path = paths.entry(operation.path()).or_insert_with(|| json!({}));
        path[operation.method().as_str().to_lowercase()] = described(operation, &mut types);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "The agent's control socket",
            "version": SCHEMA.to_string(),
            "description": "HTTP/1.1 over the Unix socket `agent.sock` in the agent's runtime directory, for root. \
                Times are text: spans as people write them, moments by RFC 3339. \
                Within one version paths and fields may be added: pass over what you do not know. \
                A path of another version is answered with 501 and a problem that names both versions.",
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "servers": [{
            "url": "http://agent",
            "description": "`curl --unix-socket /run/agent/agent.sock http://agent/…`",
        }],
        "paths": paths,
        "components": {"schemas": types.definitions()},
    })
}

fn json_schema() -> Value {
    let mut types = Types::at("#/$defs");
    for operation in Operation::ALL {
        types.request(operation);
        types.answer(operation);
    }
    types.problem();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What goes over the agent's control socket",
        "description": format!("Version {SCHEMA}."),
        "$defs": types.definitions(),
    })
}

fn described(operation: Operation, types: &mut Types) -> Value {
    let mut responses = Map::new();
    let content = content(operation, types);
    responses.insert("200".to_owned(), json!({"description": "Done.", "content": content}));
    let problem = types.problem();
    for kind in refusals(operation) {
        let content = json!({"application/json": {"schema": problem}});
        let refusal = json!({"description": meaning(kind), "content": content});
        responses.insert(kind.http_status().to_string(), refusal);
    }
    let mut described = json!({
        "operationId": format!("{operation:?}"),
        "summary": summary(operation),
        "parameters": parameters(operation),
        "responses": responses,
    });
    if let Some(body) = types.request(operation) {
        described["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": body}}});
    }
    described
}

fn content(operation: Operation, types: &mut Types) -> Value {
    let whole = json!({"application/json": {"schema": types.answer(operation)}});
    let Some(each) = types.of_stream(operation) else { return whole };
    let stream = json!({"schema": {
        "type": "string",
        "description": "Server-sent events, the data of each one such value.",
        "contentMediaType": "application/json",
        "contentSchema": each,
    }});
    match operation {
        Operation::Progress => json!({"text/event-stream": stream}),
        _ => json!({"application/json": whole["application/json"], "text/event-stream": stream}),
    }
}

/// The first line of each operation's documentation.
const fn summary(operation: Operation) -> &'static str {
    match operation {
        Operation::Agent => "Says what the agent is.",
        Operation::Services => "Shows all services.",
        Operation::Attach => "Takes charge of a port.",
        Operation::Service => "Shows one service.",
        Operation::Detach => "Gives a service back to the kernel.",
        Operation::Upgrade => "Brings a new generation in, or says what that would do.",
        Operation::Undo => "Puts the previous generation back.",
        Operation::AllFlows => "Lists the flows of all services.",
        Operation::Flows => "Lists the flows of one service.",
        Operation::AllHistory => "Lists the rollouts of all services.",
        Operation::History => "Lists the rollouts of one service.",
        Operation::Rollout => "Shows one rollout.",
        Operation::Progress => "Follows a rollout until it has ended.",
        Operation::Explain => "Says where the kernel would steer a connection, and why.",
        Operation::Events => "Lists the last events, or follows them.",
    }
}

fn parameters(operation: Operation) -> Vec<Value> {
    let parameter = |name: &str, place: &str, required: bool, schema: Value, description: &str| {
        json!({
            "name": name, "in": place, "required": required, "schema": schema, "description": description,
        })
    };
    let text = || json!({"type": "string"});
    let path = operation.path();
    let mut all = Vec::new();
    if path.contains("{service}") {
        all.push(parameter("service", "path", true, text(), "Its name, or one of its ports."));
    }
    if path.contains("{id}") {
        let number = json!({"type": "integer", "minimum": 0});
        all.push(parameter("id", "path", true, number, "The rollout's number within the service."));
    }
    match operation {
        Operation::Explain => all.extend([
            parameter("local", "query", true, text(), "Where to, as ADDRESS:PORT."),
            parameter("remote", "query", false, text(), "Where from, as ADDRESS:PORT."),
        ]),
        Operation::Events => {
            let flag = json!({"type": "boolean", "default": false});
            all.push(parameter("follow", "query", false, flag, "Go on with each that comes."));
        }
        _ => {}
    }
    all
}

/// Of what kind the problems can be.
fn refusals(operation: Operation) -> Vec<ProblemKind> {
    use ProblemKind::{Ending, Failed, Locked, NotFound, NotReady, Preflight, Usage, Version};
    let all = [Usage, NotFound, Locked, Preflight, NotReady, Failed, Version, Ending];
    let reads = operation.method() == Method::GET;
    all.into_iter().filter(|kind| !(reads && matches!(kind, Locked | NotReady))).collect()
}

const fn meaning(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::Usage => "`usage`: the request makes no sense.",
        ProblemKind::NotFound => "`not_found`: there is no such service, port or rollout.",
        ProblemKind::Preflight => {
            "`preflight`: something that is needed is missing, or what was found cannot be taken charge of."
        }
        ProblemKind::NotReady => "`not_ready`: the new generation did not become ready.",
        ProblemKind::Locked => {
            "`locked`: another change is under way, or the generation was not the expected one."
        }
        ProblemKind::Failed => "`failed`: the system said no.",
        ProblemKind::Ending => {
            "`ending`: the agent is about to end, and has not looked at the request: ask again."
        }
        ProblemKind::Version => "`version`: the agent speaks another version of the API.",
        ProblemKind::Unknown => "A kind that a later version knows.",
    }
}

/// The types, each as it is seen by who sends it a request or reads its answers.
struct Types {
    requests: SchemaGenerator,
    answers: SchemaGenerator,
}

impl Types {
    fn at(definitions: &str) -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|it| {
                it.definitions_path = definitions.to_owned().into();
                it.meta_schema = None;
            })
        };
        Self {
            requests: settings().for_deserialize().into_generator(),
            answers: settings().for_serialize().into_generator(),
        }
    }

    fn request(&mut self, operation: Operation) -> Option<Schema> {
        let requests = &mut self.requests;
        match operation {
            Operation::Attach => Some(requests.subschema_for::<AttachRequest>()),
            Operation::Upgrade => Some(requests.subschema_for::<UpgradeRequest>()),
            Operation::Undo => Some(requests.subschema_for::<UndoRequest>()),
            _ => None,
        }
    }

    fn answer(&mut self, operation: Operation) -> Schema {
        let answers = &mut self.answers;
        match operation {
            Operation::Agent => answers.subschema_for::<AgentView>(),
            Operation::Services => answers.subschema_for::<Services>(),
            Operation::Attach => answers.subschema_for::<Attached>(),
            Operation::Service => answers.subschema_for::<ServiceView>(),
            Operation::Detach => answers.subschema_for::<Detached>(),
            Operation::Upgrade => answers.subschema_for::<UpgradeAnswer>(),
            Operation::Undo => answers.subschema_for::<Begun>(),
            Operation::AllFlows | Operation::Flows => answers.subschema_for::<Flows>(),
            Operation::AllHistory | Operation::History => answers.subschema_for::<History>(),
            Operation::Rollout | Operation::Progress => answers.subschema_for::<RolloutView>(),
            Operation::Explain => answers.subschema_for::<Explanation>(),
            Operation::Events => answers.subschema_for::<Events>(),
        }
    }

    /// What comes one after the other, if anything does.
    fn of_stream(&mut self, operation: Operation) -> Option<Schema> {
        match operation {
            Operation::Progress => Some(self.answers.subschema_for::<RolloutView>()),
            Operation::Events => Some(self.answers.subschema_for::<EventView>()),
            _ => None,
        }
    }

    fn problem(&mut self) -> Schema {
        self.answers.subschema_for::<Problem>()
    }

    /// All of them by their names, sorted.
    fn definitions(&mut self) -> Value {
        let mut all: Map<String, Value> = Map::new();
        let requests = self.requests.take_definitions(true);
        for (name, definition) in requests.into_iter().chain(self.answers.take_definitions(true)) {
            let before = all.insert(name.clone(), definition.clone());
            assert!(
                before.is_none_or(|it| it == definition),
                "`{name}` is written otherwise than it is read: give one of them another name"
            );
        }
        Value::Object(all)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_documents_are_those_of_the_types() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api");
        for (name, text) in documents() {
            let there = fs::read_to_string(folder.join(name)).unwrap_or_default();
            assert!(there == text, "`docs/api/{name}` is of other types: run `cargo xtask api`");
        }
    }

    #[test]
    fn every_operation_and_every_problem_is_described() {
        let document = open_api();
        for operation in Operation::ALL {
            let path = &document["paths"][operation.path()];
            let described = &path[operation.method().as_str().to_lowercase()];
            assert_eq!(described["operationId"], format!("{operation:?}"));
            for status in ["200", "400", "404", "412", "500", "501", "503"] {
                assert!(described["responses"][status].is_object(), "{operation:?} {status}");
            }
        }
    }

    /// A number without a unit would be a question.
    #[test]
    fn no_time_is_a_number() {
        let document = json_schema();
        let types = document["$defs"].as_object().unwrap();
        for (name, definition) in types {
            for (field, schema) in definition["properties"].as_object().into_iter().flatten() {
                let endings = ["seconds", "_ms", "_at", "timeout"];
                let is_time = endings.iter().any(|ending| field.ends_with(ending));
                let is_number = ["integer", "number"].map(Value::from).contains(&schema["type"]);
                assert!(!(is_time && is_number), "{name}.{field}");
            }
        }
    }
}
