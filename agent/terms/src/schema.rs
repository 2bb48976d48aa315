//! What is written in a form of its own, for those who read the JSON schema.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{Moment, OptionalSpan, Span};

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A time span, as people write it: numbers with their units, from the largest to the smallest.",
            "type": "string",
            "pattern": "^([0-9]+ ?[A-Za-zµ]+ ?)+$",
            "examples": ["5s", "2s 500ms", "1h 30m"],
        })
    }
}

impl JsonSchema for OptionalSpan {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "OptionalSpan".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Option::<Span>::json_schema(generator)
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A moment by the clock of the machine: RFC 3339, in UTC, with milliseconds.",
            "type": "string",
            "format": "date-time",
            "examples": ["2023-11-14T22:13:20.123Z"],
        })
    }
}
