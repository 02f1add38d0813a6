//! The JSON Schemas of the three documents, generated from the types, for editors.

use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

use super::{Backlog, Contract, Policy};

/// The name and the JSON Schema of each document: `contract`, `backlog`, `policy`.
pub fn schemas() -> [(&'static str, Schema); 3] {
    [
        ("contract", schema_of::<Contract>("contract.yaml of a Leviathan target")),
        ("backlog", schema_of::<Backlog>("backlog.yaml of a Leviathan target")),
        ("policy", schema_of::<Policy>("policy.yaml of a Leviathan target")),
    ]
}

fn schema_of<T: JsonSchema>(title: &str) -> Schema {
    let mut schema = SchemaGenerator::default().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    AllowExtensions.transform(&mut schema);
    RefuseNull.transform(&mut schema);
    schema
}

/// Fields that begin with `x-` are allowed everywhere and ignored.
struct AllowExtensions;

impl Transform for AllowExtensions {
    fn transform(&mut self, schema: &mut Schema) {
        if schema.get("additionalProperties") == Some(&json!(false)) {
            schema.insert("patternProperties".to_owned(), json!({ "^x-": true }));
        }
        transform_subschemas(self, schema);
    }
}

/// An optional field is left out; it is never written without a value.
struct RefuseNull;

impl Transform for RefuseNull {
    fn transform(&mut self, schema: &mut Schema) {
        if let Some(Value::Array(types)) = schema.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                schema.insert("type".to_owned(), only);
            }
        }
        if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
            choices.retain(|choice| *choice != json!({ "type": "null" }));
        }
        transform_subschemas(self, schema);
    }
}
