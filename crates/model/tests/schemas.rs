//! The shipped JSON Schemas are those of the types. `UPDATE=1 cargo test` writes them anew.

use std::fs;
use std::path::Path;

use leviathan_model::documents::schemas;

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
