//! What the Kubernetes manifests say, as JSON.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::root;

/// What `kubectl apply -f ops/k8s/control-plane.yaml` applies.
pub fn applied() -> Vec<Value> {
    read("ops/k8s/control-plane.yaml")
}

/// The documents of a file of the repository.
pub fn read(path: &str) -> Vec<Value> {
    documents(&std::fs::read_to_string(root().join(path)).unwrap())
}

/// The documents of a YAML text.
pub fn documents(yaml: &str) -> Vec<Value> {
    let program = "import json, sys, yaml\n\
                   print(json.dumps([d for d in yaml.safe_load_all(sys.stdin) if d is not None]))";
    serde_json::from_str(&python(program, yaml)).unwrap()
}

/// The manifest of this kind and name.
pub fn find<'a>(manifests: &'a [Value], kind: &str, wanted: &str) -> &'a Value {
    manifests
        .iter()
        .find(|manifest| manifest["kind"] == kind && name(manifest) == wanted)
        .unwrap_or_else(|| panic!("there is no {kind} {wanted}"))
}

/// The name of a manifest.
pub fn name(manifest: &Value) -> &str {
    manifest["metadata"]["name"].as_str().unwrap_or_default()
}

/// Runs a Python program that may use the validator; its answer.
pub fn python(program: &str, input: &str) -> String {
    let mut child = Command::new(tools().join("python"))
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    said(&child.wait_with_output().unwrap())
}

/// What a program that succeeded said.
pub fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The folder of kubectl and the validator, installed by the first test that needs them.
pub fn tools() -> &'static Path {
    static TOOLS: OnceLock<PathBuf> = OnceLock::new();
    TOOLS.get_or_init(|| {
        let output = Command::new(root().join("scripts/kubernetes-tools.sh")).output().unwrap();
        said(&output);
        root().join("target/kubernetes-tools/bin")
    })
}
