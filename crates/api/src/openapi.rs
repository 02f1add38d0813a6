//! The OpenAPI 3.1 document, made of the route table and the types.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::error::ErrorBody;
use crate::routes::{Access, Body, ROUTES, Route};

/// The document that `/openapi.json` serves.
pub fn openapi() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let error = generator.subschema_for::<ErrorBody>();
    let mut paths = Map::new();
    for route in ROUTES {
        let operation = operation(route, &error, &mut generator);
        let path = paths.entry(route.template()).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Leviathan control plane",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What happened, what runs, and how to steer it.",
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(route: &Route, error: &Schema, generator: &mut schemars::SchemaGenerator) -> Value {
    let mut operation = json!({
        "summary": route.summary,
        "parameters": parameters(route, generator),
        "responses": {
            "200": { "description": "Done.", "content": content(route.response, generator) },
            "default": { "description": "Not served.", "content": { "application/json": { "schema": error } } },
        },
        "security": match route.access {
            Access::Public => json!([]),
            Access::Operator | Access::Executor => json!([{ "bearer": [] }]),
        },
    });
    match route.request {
        Body::Empty => {}
        Body::Json(_) | Body::Bytes | Body::Text(_) => {
            operation["requestBody"] =
                json!({ "required": true, "content": content(route.request, generator) });
        }
    }
    operation
}

fn content(body: Body, generator: &mut schemars::SchemaGenerator) -> Value {
    match body {
        Body::Empty => json!({}),
        Body::Json(schema) => json!({ "application/json": { "schema": schema(generator) } }),
        Body::Bytes => json!({ "application/octet-stream": {} }),
        Body::Text(media_type) => json!({ media_type: { "schema": { "type": "string" } } }),
    }
}

fn parameters(route: &Route, generator: &mut schemars::SchemaGenerator) -> Vec<Value> {
    let template = route.template();
    let in_path = template.split('/').filter_map(|segment| {
        let name = segment.strip_prefix('{')?.strip_suffix('}')?;
        Some(json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
    });
    let mut parameters: Vec<Value> = in_path.collect();
    if let Some(query) = route.query {
        let schema = query(generator).to_value();
        let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        parameters.extend(properties.into_iter().map(
            |(name, schema)| json!({ "name": name, "in": "query", "required": false, "schema": schema }),
        ));
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        let document = openapi();
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1).map(|rest| &rest[..rest.find('"').unwrap()]) {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
        assert_eq!(
            document["paths"]["/v1/attempts/{attempt_id}"]["get"]["parameters"][0]["name"],
            "attempt_id"
        );
    }

    #[test]
    fn the_document_in_docs_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        let current = serde_json::to_string_pretty(&openapi()).unwrap() + "\n";
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &current).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            kept == current,
            "docs/openapi.json is out of date; run `UPDATE=1 cargo test -p leviathan-api`"
        );
    }
}
