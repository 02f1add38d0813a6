//! The pages that promise a test for each row name tests that exist.

use std::path::{Path, PathBuf};

#[test]
fn every_named_test_exists() {
    let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned();
    for (page, rows) in [("docs/specification.md", 15), ("docs/crashes.md", 15), ("docs/security.md", 25)] {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        let is_test = |text: &&str| text.contains(".rs::") && !text.contains(' ');
        let named: Vec<&str> = text.split('`').filter(is_test).collect();
        assert!(named.len() > rows, "{page} was not read");
        let missing: Vec<&&str> = named.iter().filter(|name| !exists(&root, name)).collect();
        assert!(missing.is_empty(), "{page} names tests that do not exist: {missing:#?}");
    }
}

fn exists(root: &Path, name: &str) -> bool {
    let Some((file, test)) = name.split_once("::") else { return false };
    std::fs::read_to_string(root.join(file)).is_ok_and(|text| text.contains(&format!("fn {test}(")))
}
