//! The shipped JSON Schemas are those of the types, and name the fields that the documents may have. `UPDATE=1 cargo test` writes them anew.

use std::fs;
use std::path::Path;

use leviathan_model::documents::schemas;
use leviathan_model::{Backlog, Contract, Policy, Problems};
use serde_json::Value;

#[test]
fn the_shipped_schemas_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schemas");
    for (name, schema) in schemas() {
        let file = folder.join(format!("{name}.schema.json"));
        let generated = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, &generated).unwrap();
        }
        let shipped = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(shipped, generated, "{} is out of date: run the tests with UPDATE=1", file.display());
    }
}

#[test]
fn the_schemas_name_exactly_the_fields_that_are_read() {
    let contract = |text: &str| refusal(Contract::parse("f", text.as_bytes()));
    let backlog = |text: &str| refusal(Backlog::parse("f", text.as_bytes()));
    let policy = |text: &str| refusal(Policy::parse("f", text.as_bytes()));
    let item = |list: &str| policy(&format!("{list}: [{{zzz: 1}}]"));
    for (document, definition, refusal) in [
        ("contract", None, contract("zzz: 1")),
        ("backlog", None, backlog("zzz: 1")),
        ("backlog", Some("Task"), backlog("tasks: [{zzz: 1}]")),
        ("policy", None, policy("zzz: 1")),
        ("policy", Some("Scope"), policy("scopes: {a: {zzz: 1}}")),
        ("policy", Some("Invariant"), item("invariants")),
        ("policy", Some("Setup"), item("setup")),
        ("policy", Some("Example"), item("examples")),
        ("policy", Some("Limits"), policy("limits: {zzz: 1}")),
        ("policy", Some("Network"), policy("network: {zzz: 1}")),
    ] {
        assert_eq!(
            fields_read(&refusal),
            fields_of_schema(document, definition),
            "{document} {definition:?}"
        );
    }
}

/// The message that refuses the field `zzz`; it names the fields that are known.
fn refusal<T>(parsed: Result<T, Problems>) -> String {
    let problems = parsed.err().expect("`zzz` is no field");
    let refusal = problems.iter().find(|problem| problem.message.starts_with("`zzz`"));
    refusal.expect("the refusal of `zzz`").message.clone()
}

fn fields_read(refusal: &str) -> Vec<String> {
    let (_, expected) = refusal.split_once("; expected ").expect("what is expected");
    let mut fields: Vec<String> = expected.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    fields.sort();
    fields
}

fn fields_of_schema(document: &str, definition: Option<&str>) -> Vec<String> {
    let (_, schema) = schemas().into_iter().find(|(name, _)| *name == document).expect("a schema");
    let properties = match definition {
        Some(definition) => &schema.as_value()["$defs"][definition]["properties"],
        None => &schema.as_value()["properties"],
    };
    let Value::Object(properties) = properties else { panic!("{document} {definition:?} has no properties") };
    let mut fields: Vec<String> = properties.keys().cloned().collect();
    fields.sort();
    fields
}
