//! Whether a value is what a schema says: of JSON Schema, what ours are made of.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value};

/// Refuses a value that is not what the schema says, and one with a field that it does not name.
pub(crate) fn check(document: &Value, schema: &Value, value: &Value) -> Result<()> {
    matches(document, schema, value)?;
    if let Some(fields) = value.as_object() {
        let known = fields_of(document, schema, value)?;
        for name in fields.keys() {
            ensure!(known.contains_key(name), "`{name}` is not in the schema: {value}");
        }
    }
    Ok(())
}

fn matches(document: &Value, schema: &Value, value: &Value) -> Result<()> {
    let Some(schema) = schema.as_object() else {
        ensure!(schema == true, "nothing may be there: {value}");
        return Ok(());
    };
    for (word, says) in schema {
        let each = || says.as_array().into_iter().flatten();
        let fits = |it: &&Value| matches(document, it, value).is_ok();
        match word.as_str() {
            "$ref" => matches(document, referred(document, says)?, value)?,
            "type" => {
                let types = says.as_array().map_or(std::slice::from_ref(says), Vec::as_slice);
                let is_one = types.iter().any(|it| it.as_str().is_some_and(|it| is_of(it, value)));
                ensure!(is_one, "{value} is not of type {says}");
            }
            "const" => ensure!(says == value, "{value} is not {says}"),
            "enum" => ensure!(each().any(|it| it == value), "{value} is none of {says}"),
            "anyOf" => ensure!(each().any(|it| fits(&it)), "{value} is none of {says}"),
            "oneOf" => ensure!(each().filter(fits).count() == 1, "{value} is not one of {says}"),
            "allOf" => each().try_for_each(|it| matches(document, it, value))?,
            "required" => {
                for name in each().filter_map(Value::as_str) {
                    ensure!(value.get(name).is_some(), "`{name}` is missing: {value}");
                }
            }
            "properties" => {
                for (name, schema) in says.as_object().context("properties are an object")? {
                    if let Some(field) = value.get(name) {
                        let checked = check(document, schema, field);
                        checked.with_context(|| format!("in `{name}`"))?;
                    }
                }
            }
            "items" => {
                let items = value.as_array().into_iter().flatten();
                items.into_iter().try_for_each(|it| check(document, says, it))?;
            }
            // Of numbers: what is none may be of another type.
            "minimum" if value.is_number() => {
                ensure!(value.as_f64() >= says.as_f64(), "{value} is less than {says}");
            }
            "maximum" if value.is_number() => {
                ensure!(value.as_f64() <= says.as_f64(), "{value} is more than {says}");
            }
            // What is only said of it.
            "minimum"
            | "maximum"
            | "description"
            | "title"
            | "default"
            | "examples"
            | "format"
            | "pattern"
            | "additionalProperties"
            | "unevaluatedProperties"
            | "minLength"
            | "maxLength" => {}
            other => bail!("nobody knows `{other}` here"),
        }
    }
    Ok(())
}

/// The fields that a schema has for this value.
fn fields_of(document: &Value, schema: &Value, value: &Value) -> Result<Map<String, Value>> {
    let mut known = schema["properties"].as_object().cloned().unwrap_or_default();
    let branches = ["allOf", "anyOf", "oneOf"].map(|word| schema[word].as_array());
    let referred = schema.get("$ref").map(|it| referred(document, it)).transpose()?;
    let parts = branches.into_iter().flatten().flatten().chain(referred);
    for part in parts.filter(|part| matches(document, part, value).is_ok()) {
        known.extend(fields_of(document, part, value)?);
    }
    Ok(known)
}

fn referred<'a>(document: &'a Value, reference: &Value) -> Result<&'a Value> {
    let path = reference.as_str().and_then(|it| it.strip_prefix('#'));
    let found = path.and_then(|path| document.pointer(path));
    found.with_context(|| format!("{reference} leads nowhere"))
}

fn is_of(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => false,
    }
}
