//! Who serves.

use agent_terms::GenerationNumber;
use serde::{Deserialize, Serialize};

/// Who gets a service's new connections, as the listeners show it, whoever should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Serving {
    /// A generation that listens.
    Generation {
        /// Which one.
        number: GenerationNumber,
    },
    /// No generation does, but others listen there, who are not the service's.
    Strangers {
        /// As far as they can be seen.
        processes: Vec<Stranger>,
    },
    /// Nothing listens there: connections are refused.
    Nobody,
}

/// A process that is not the service's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Stranger {
    /// Its number.
    pub pid: i32,
    /// Its command line.
    pub command: String,
    /// Its user, where that is another one than the service's server had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_user: Option<u32>,
}
