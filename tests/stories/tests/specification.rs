//! The table of docs/specification.md names tests that exist.

use std::path::{Path, PathBuf};

#[test]
fn every_named_test_exists() {
    let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned();
    let table = std::fs::read_to_string(root.join("docs/specification.md")).unwrap();
    let named: Vec<&str> =
        table.split('`').filter(|text| text.contains(".rs::")).filter(|text| !text.contains(' ')).collect();
    assert!(named.len() > 15, "the table was not read");
    let missing: Vec<&&str> = named.iter().filter(|name| !exists(&root, name)).collect();
    assert!(missing.is_empty(), "docs/specification.md names tests that do not exist: {missing:#?}");
}

fn exists(root: &Path, name: &str) -> bool {
    let Some((file, test)) = name.split_once("::") else { return false };
    std::fs::read_to_string(root.join(file)).is_ok_and(|text| text.contains(&format!("fn {test}(")))
}
