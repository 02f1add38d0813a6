//! The rules of the house, as tests: which crate may use which, and what no file may contain.

#![expect(clippy::unwrap_used, reason = "a story fails where it is told")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use leviathan_stories::root;

/// Every allowed edge between our crates in a normal build.
const EDGES: &[(&str, &[&str])] = &[
    ("leviathan-model", &[]),
    ("leviathan-journal", &[]),
    ("leviathan-api", &["leviathan-model"]),
    ("leviathan-control-plane", &["leviathan-model", "leviathan-journal", "leviathan-api"]),
    ("leviathan-target", &["leviathan-model"]),
    ("leviathan-executor", &["leviathan-model", "leviathan-api", "leviathan-target"]),
    ("leviathan-scheduler", &["leviathan-model", "leviathan-api", "leviathan-target"]),
    (
        "leviathan",
        &[
            "leviathan-model",
            "leviathan-journal",
            "leviathan-api",
            "leviathan-control-plane",
            "leviathan-target",
            "leviathan-executor",
            "leviathan-scheduler",
        ],
    ),
    ("leviathanctl", &["leviathan-model", "leviathan-api", "leviathan-journal"]),
    (
        "leviathan-harness",
        &["leviathan-model", "leviathan-journal", "leviathan-target", "leviathan-executor"],
    ),
    ("leviathan-test-support", &[]),
    ("leviathan-stories", &["leviathan-test-support"]),
];

#[test]
fn dependencies_run_one_way() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed: BTreeMap<_, _> = EDGES.iter().copied().collect();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let used: BTreeSet<&str> = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|dependency| dependency["kind"].is_null() && dependency["source"].is_null())
            .map(|dependency| dependency["name"].as_str().unwrap())
            .collect();
        let Some(allowed) = allowed.get(name) else { panic!("crate {name} is not in the list of the house") };
        for dependency in used {
            assert!(allowed.contains(&dependency), "{name} must not use {dependency}");
        }
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{} has no module documentation", path.display());
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--", "*.rs"])
        .current_dir(root())
        .output()
        .unwrap()
        .stdout;
    listed
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| root().join(std::str::from_utf8(name).unwrap()))
        .filter_map(|path| std::fs::read_to_string(&path).ok().map(|text| (path, text)))
        .collect()
}
