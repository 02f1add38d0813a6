//! The Kubernetes manifests as a cluster would judge them: rendered, validated strictly against the schemas of the
//! newest versions, held against the `restricted` profile, and compared with what the programs call and read.

#![expect(clippy::unwrap_used, reason = "a story fails where it is told")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::process::Command;

use leviathan_stories::manifests::{applied, documents, find, name, python, read, said, tools};
use leviathan_stories::root;
use serde_json::{Value, json};

const OVERLAYS: &[&str] = &["current-namespace", "own-namespace", "hardened", "postgres"];

/// What the overlay with a database needs beside the one Secret of all others.
const POSTGRES_SECRETS: &str = "ops/k8s/overlays/postgres/secrets.example.yaml";

#[test]
fn control_plane_yaml_is_the_rendering_of_its_overlay() {
    let path = root().join("ops/k8s/control-plane.yaml");
    let kept = std::fs::read_to_string(&path).unwrap();
    let comment: String =
        kept.lines().take_while(|line| line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
    let expected = format!("{comment}{}", kustomize("current-namespace"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, expected).unwrap();
        return;
    }
    assert!(
        kept == expected,
        "ops/k8s/control-plane.yaml is not what ops/k8s/overlays/current-namespace renders to. \
         UPDATE=1 cargo test -p leviathan-stories --test manifests writes it anew."
    );
}

#[test]
fn every_manifest_is_valid_for_the_three_newest_versions() {
    let mut manifests = applied();
    for overlay in OVERLAYS {
        manifests.extend(rendered(overlay));
    }
    manifests.extend(read("ops/k8s/secrets.example.yaml"));
    manifests.extend(read("ops/k8s/backup.example.yaml"));
    manifests.extend(read(POSTGRES_SECRETS));
    let (versions, problems) = validate(&manifests);
    assert_eq!(versions.len(), 3, "{versions:?}");
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn the_validator_is_strict() {
    let mut manifests = applied();
    let scheduler = find_mut(&mut manifests, "Deployment", "leviathan-scheduler");
    scheduler["spec"]["template"]["spec"]["containers"][0]["imagePullPolcy"] = json!("Always");
    let (versions, problems) = validate(&manifests);
    assert_eq!(problems.len(), versions.len(), "each version refuses the misspelt field once: {problems:#?}");
    assert!(problems.iter().all(|problem| problem.contains("imagePullPolcy")), "{problems:#?}");
}

#[test]
fn every_pod_passes_the_restricted_profile() {
    for overlay in OVERLAYS {
        let pods = pods(&rendered(overlay));
        assert_eq!(pods.len(), 3, "{overlay}: {:?}", pods.keys());
        for (name, template) in pods {
            assert_eq!(unrestricted(&template["spec"]), Vec::<String>::new(), "{overlay}: {name}");
        }
    }
    assert_eq!(unrestricted(&read("ops/k8s/backup.example.yaml")[0]["spec"]), Vec::<String>::new());
}

#[test]
fn the_restricted_profile_is_more_than_a_word() {
    let relaxed: &[(&str, Value)] = &[
        ("/hostNetwork", json!(true)),
        ("/hostPID", json!(true)),
        ("/hostIPC", json!(true)),
        ("/securityContext/runAsNonRoot", json!(false)),
        ("/securityContext/runAsUser", json!(0)),
        ("/securityContext/seccompProfile/type", json!("Unconfined")),
        ("/securityContext/sysctls", json!([{"name": "kernel.msgmax", "value": "1"}])),
        ("/volumes/0", json!({"name": "host", "hostPath": {"path": "/"}})),
        ("/containers/0/securityContext/allowPrivilegeEscalation", json!(true)),
        ("/containers/0/securityContext/allowPrivilegeEscalation", Value::Null),
        ("/containers/0/securityContext/privileged", json!(true)),
        ("/containers/0/securityContext/readOnlyRootFilesystem", json!(false)),
        ("/containers/0/securityContext/runAsUser", json!(0)),
        ("/containers/0/securityContext/runAsNonRoot", json!(false)),
        ("/containers/0/securityContext/seccompProfile", json!({"type": "Unconfined"})),
        ("/containers/0/securityContext/procMount", json!("Unmasked")),
        ("/containers/0/securityContext/capabilities", json!({"drop": ["NET_RAW"]})),
        ("/containers/0/securityContext/capabilities", json!({"drop": ["ALL"], "add": ["SYS_ADMIN"]})),
        ("/containers/0/ports", json!([{"containerPort": 8000, "hostPort": 8000}])),
        ("/containers/0/resources", json!({})),
        ("/initContainers", json!([{"name": "first", "image": "leviathan"}])),
    ];
    for (name, template) in pods(&applied()) {
        for (pointer, value) in relaxed {
            let mut spec = template["spec"].clone();
            set(&mut spec, pointer, value);
            assert!(!unrestricted(&spec).is_empty(), "{name} would pass with {pointer}: {value}");
        }
    }
}

#[test]
fn the_scheduler_alone_has_a_role_and_it_ends_at_its_namespace() {
    let manifests = applied();
    let kinds: Vec<&str> = manifests
        .iter()
        .map(|manifest| text(&manifest["kind"]))
        .filter(|kind| kind.contains("Role"))
        .collect();
    assert_eq!(kinds, ["Role", "RoleBinding"]);
    let binding = find(&manifests, "RoleBinding", "leviathan-scheduler");
    assert_eq!(binding["roleRef"]["name"], "leviathan-scheduler");
    assert_eq!(binding["subjects"], json!([{"kind": "ServiceAccount", "name": "leviathan-scheduler"}]));
}

#[test]
fn only_the_scheduler_is_given_a_token_for_the_cluster() {
    let manifests = applied();
    let accounts: BTreeMap<&str, &Value> = of_kind(&manifests, "ServiceAccount")
        .map(|account| (name(account), &account["automountServiceAccountToken"]))
        .collect();
    assert_eq!(
        accounts,
        BTreeMap::from([
            ("leviathan-control-plane", &json!(false)),
            ("leviathan-executor", &json!(false)),
            ("leviathan-scheduler", &json!(true)),
        ])
    );
    for (name, template) in pods(&manifests) {
        let expected = name == "Deployment/leviathan-scheduler";
        assert_eq!(template["spec"]["automountServiceAccountToken"], expected, "{name}");
        assert!(accounts.contains_key(text(&template["spec"]["serviceAccountName"])), "{name}");
        assert_eq!(template["spec"]["enableServiceLinks"], false, "{name}");
    }
}

#[test]
fn the_names_of_the_specification_exist() {
    let manifests = applied();
    let scheduler = find(&manifests, "Deployment", "leviathan-scheduler");
    assert_eq!(scheduler["spec"]["replicas"], 1);
    let trigger = find(&manifests, "CronJob", "leviathan-scheduler");
    assert_eq!(trigger["spec"]["concurrencyPolicy"], "Forbid");
    assert_eq!(trigger["spec"]["jobTemplate"]["spec"]["backoffLimit"], 0);

    let service = find(&manifests, "Service", "control-plane");
    assert_eq!(service["spec"]["ports"][0]["port"], 8000);
    let control_plane = find(&manifests, "Deployment", "leviathan-control-plane");
    assert_eq!(control_plane["spec"]["strategy"]["type"], "Recreate");
    assert_eq!(control_plane["spec"]["replicas"], 1);
    let template = &control_plane["spec"]["template"];
    assert!(selects(&service["spec"]["selector"], &template["metadata"]["labels"]));
    assert_eq!(
        template["spec"]["containers"][0]["ports"][0]["name"],
        service["spec"]["ports"][0]["targetPort"]
    );

    for (name, template) in pods(&manifests) {
        for variable in list(&template["spec"]["containers"][0]["env"]) {
            if variable["name"] == "LEVIATHAN_CONTROL_PLANE_URL" {
                assert_eq!(variable["value"], "http://control-plane:8000", "{name}");
            }
        }
    }
}

#[test]
fn the_label_of_executors_is_on_nothing_else() {
    // `kubectl delete jobs -l app=leviathan-executor` must meet attempts alone.
    for manifest in applied() {
        let mut labels = Vec::new();
        every(&manifest, "labels", &mut labels);
        for label in labels {
            assert_eq!(label["app"], Value::Null, "{} {}", manifest["kind"], manifest["metadata"]["name"]);
            assert_eq!(label["app.kubernetes.io/name"], "leviathan", "{}", manifest["metadata"]["name"]);
        }
    }
}

#[test]
fn secrets_are_named_and_never_rendered() {
    let examples = [read("ops/k8s/secrets.example.yaml"), read(POSTGRES_SECRETS)].concat();
    let keys_of = |secret: &Value| -> BTreeSet<String> {
        secret["stringData"].as_object().unwrap().keys().cloned().collect()
    };
    let secrets: BTreeMap<&str, BTreeSet<String>> =
        examples.iter().map(|secret| (name(secret), keys_of(secret))).collect();
    let expected = [
        ("leviathan-secrets", vec!["ANTHROPIC_API_KEY", "GITHUB_TOKEN", "LEVIATHAN_CONTROL_PLANE_TOKEN"]),
        (
            "leviathan-postgres",
            vec!["LEVIATHAN_LOG_KEY", "LEVIATHAN_POSTGRES_OWNER_URL", "LEVIATHAN_POSTGRES_URL"],
        ),
    ];
    let owned = |keys: Vec<&str>| keys.into_iter().map(str::to_owned).collect();
    assert_eq!(secrets, expected.map(|(name, keys)| (name, owned(keys))).into());
    for overlay in OVERLAYS {
        let manifests = rendered(overlay);
        assert_eq!(of_kind(&manifests, "Secret").count(), 0, "{overlay}");
        for manifest in &manifests {
            let mut references = Vec::new();
            every(manifest, "secretKeyRef", &mut references);
            for reference in references {
                let keys = &secrets[text(&reference["name"])];
                assert!(keys.contains(text(&reference["key"])), "{reference}");
                assert!(overlay == &"postgres" || reference["name"] == "leviathan-secrets", "{reference}");
            }
        }
    }
    // No pod of the installation has the key of the model: that is for executors.
    assert!(!kustomize("current-namespace").contains("ANTHROPIC_API_KEY"));
}

#[test]
fn the_image_is_named_in_one_place() {
    let base = std::fs::read_to_string(root().join("ops/k8s/base/kustomization.yaml")).unwrap();
    assert!(base.contains("newTag: 0.1.0"), "{base}");
    for overlay in OVERLAYS {
        let manifests = rendered(overlay);
        for (name, template) in pods(&manifests) {
            assert_eq!(template["spec"]["containers"][0]["image"], "leviathan:0.1.0", "{overlay}: {name}");
        }
        let scheduler = find(&manifests, "Deployment", "leviathan-scheduler");
        let environment = list(&scheduler["spec"]["template"]["spec"]["containers"][0]["env"]);
        let image = environment.iter().find(|variable| variable["name"] == "LEVIATHAN_IMAGE").unwrap();
        assert_eq!(image["value"], "leviathan:0.1.0", "{overlay}");
    }
}

#[test]
fn the_programs_know_what_the_manifests_tell_them() {
    let page = |name: &str| std::fs::read_to_string(root().join("docs").join(name)).unwrap();
    let (commands, variables) = (page("cli.md"), page("configuration.md"));
    let deployed = ["hardened", "postgres"].map(|overlay| pods(&rendered(overlay)));
    for (name, template) in deployed.into_iter().flatten() {
        let container = &template["spec"]["containers"][0];
        let (program, arguments) = (text(&container["command"][0]), list(&container["args"]));
        let heading = format!("### `{program} {}`", text(&arguments[0]));
        let Some(start) = commands.find(&heading) else { panic!("{name}: docs/cli.md has no {heading}") };
        let help = &commands[start + heading.len()..];
        let help = &help[..help.find("\n### ").unwrap_or(help.len())];
        for flag in arguments.iter().map(text).filter(|argument| argument.starts_with("--")) {
            assert!(help.contains(&format!("{flag} ")), "{name}: {heading} has no {flag}");
        }
        for variable in list(&container["env"]).iter().map(|variable| text(&variable["name"])) {
            let known = variable == "HOME" || variables.contains(&format!("| `{variable}` |"));
            assert!(known, "{name}: docs/configuration.md has no {variable}");
        }
    }
}

#[test]
fn the_overlays_differ_in_what_they_say_they_do() {
    let everything = |overlay: &str| -> BTreeSet<String> {
        rendered(overlay)
            .iter()
            .map(|manifest| format!("{}/{}", text(&manifest["kind"]), name(manifest)))
            .collect()
    };
    let current = everything("current-namespace");
    let own = everything("own-namespace");
    let hardened = everything("hardened");
    assert_eq!(own.difference(&current).map(String::as_str).collect::<Vec<_>>(), ["Namespace/leviathan"]);
    assert_eq!(
        hardened.difference(&own).map(String::as_str).collect::<Vec<_>>(),
        ["LimitRange/leviathan", "ResourceQuota/leviathan"]
    );

    assert_eq!(
        everything("postgres").difference(&own).map(String::as_str).collect::<Vec<_>>(),
        ["PodDisruptionBudget/leviathan-control-plane"]
    );

    let manifests = rendered("current-namespace");
    assert!(manifests.iter().all(|manifest| manifest["metadata"]["namespace"].is_null()));
    for overlay in ["own-namespace", "hardened", "postgres"] {
        let manifests = rendered(overlay);
        let namespace = find(&manifests, "Namespace", "leviathan");
        assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
        for manifest in manifests.iter().filter(|manifest| manifest["kind"] != "Namespace") {
            assert_eq!(manifest["metadata"]["namespace"], "leviathan", "{overlay}: {}", name(manifest));
        }
    }
    let runtime_class = r#""LEVIATHAN_EXECUTOR_RUNTIME_CLASS""#;
    assert!(json!(rendered("hardened")).to_string().contains(runtime_class));
    assert!(!json!(rendered("own-namespace")).to_string().contains(runtime_class));
}

#[test]
fn two_control_planes_share_a_database() {
    let manifests = rendered("postgres");
    let control_plane = &find(&manifests, "Deployment", "leviathan-control-plane")["spec"];
    assert_eq!(control_plane["replicas"], 2);
    assert_eq!(control_plane["strategy"]["type"], "RollingUpdate");
    let environment = list(&control_plane["template"]["spec"]["containers"][0]["env"]);
    let of = |wanted: &str| environment.iter().find(|variable| variable["name"] == wanted).unwrap();
    assert_eq!(of("LEVIATHAN_BACKEND")["value"], "postgres");
    let url = &of("LEVIATHAN_POSTGRES_URL")["valueFrom"]["secretKeyRef"];
    assert_eq!((&url["name"], &url["optional"]), (&json!("leviathan-postgres"), &Value::Null));
    // Both must find an artifact that one of them took in.
    let claim = find(&manifests, "PersistentVolumeClaim", "leviathan-control-plane");
    assert_eq!(claim["spec"]["accessModes"], json!(["ReadWriteMany"]));
    // One may be taken away at a time, and both are spread over nodes: by the labels that the pods have.
    let labels = &control_plane["template"]["metadata"]["labels"];
    let budget = &find(&manifests, "PodDisruptionBudget", "leviathan-control-plane")["spec"];
    assert!(budget["minAvailable"] == 1 && selects(&budget["selector"]["matchLabels"], labels));
    let spread = &control_plane["template"]["spec"]["topologySpreadConstraints"][0];
    assert!(selects(&spread["labelSelector"]["matchLabels"], labels), "{spread}");
    // It may reach the database, and names; nothing else, and no metadata service.
    let policy = find(&manifests, "NetworkPolicy", "leviathan-control-plane");
    let reaches = |address: &str, port: u16| {
        list(&policy["spec"]["egress"]).iter().any(|rule| {
            list(&rule["ports"]).iter().any(|allowed| allowed["port"] == port)
                && list(&rule["to"]).iter().any(|peer| holds(&peer["ipBlock"], address.parse().unwrap()))
        })
    };
    assert!(reaches("10.0.0.5", 5432) && reaches("203.0.113.7", 5432) && reaches("169.254.20.10", 53));
    assert!(!reaches("203.0.113.7", 443) && !reaches("169.254.169.254", 5432));
}

#[test]
fn every_pod_is_under_a_network_policy() {
    let manifests = applied();
    let mut pods: Vec<(String, Value)> = pods(&manifests)
        .into_iter()
        .map(|(name, template)| (name, template["metadata"]["labels"].clone()))
        .collect();
    pods.push(("an executor".to_owned(), json!({"app": "leviathan-executor"})));
    for (pod, labels) in &pods {
        let policies: Vec<&Value> = of_kind(&manifests, "NetworkPolicy")
            .filter(|policy| selects(&policy["spec"]["podSelector"]["matchLabels"], labels))
            .collect();
        assert_eq!(policies.len(), 1, "{pod}");
        assert_eq!(policies[0]["spec"]["policyTypes"], json!(["Ingress", "Egress"]), "{pod}");
        // Everybody but the control plane itself may call it, and is let out to do so.
        if pod == "Deployment/leviathan-control-plane" {
            assert_eq!(list(&policies[0]["spec"]["egress"]).len(), 0);
            continue;
        }
        assert_eq!(list(&policies[0]["spec"]["ingress"]).len(), 0, "{pod}");
        let control_plane = find(&manifests, "NetworkPolicy", "leviathan-control-plane");
        let callers = list(&control_plane["spec"]["ingress"][0]["from"]);
        assert!(
            callers.iter().any(|caller| selects(&caller["podSelector"]["matchLabels"], labels)),
            "{pod} may not call the control plane"
        );
    }
}

#[test]
fn an_executor_reaches_the_outside_and_nothing_inside() {
    let manifests = applied();
    let policy = find(&manifests, "NetworkPolicy", "leviathan-executor");
    for (address, port, expected) in [
        ("140.82.112.3", 443, true),
        ("160.79.104.10", 443, true),
        ("140.82.112.3", 22, false),
        ("140.82.112.3", 80, false),
        ("169.254.169.254", 443, false),
        ("169.254.169.254", 80, false),
        ("169.254.20.10", 53, true),
        ("169.254.20.10", 443, false),
        ("10.96.0.1", 443, false),
        ("10.0.0.5", 6443, false),
        ("172.20.0.1", 443, false),
        ("192.168.1.1", 443, false),
        ("100.100.100.200", 443, false),
        ("127.0.0.1", 443, false),
        ("8.8.8.8", 53, false),
    ] {
        let reached = list(&policy["spec"]["egress"]).iter().any(|rule| {
            list(&rule["ports"]).iter().any(|allowed| allowed["port"] == port)
                && list(&rule["to"]).iter().any(|peer| holds(&peer["ipBlock"], address.parse().unwrap()))
        });
        assert_eq!(reached, expected, "{address}:{port}");
    }
}

/// Why the `restricted` profile, with what we ask beyond it (a read-only root and limits), would refuse the pod.
fn unrestricted(spec: &Value) -> Vec<String> {
    const VOLUMES: &[&str] = &[
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let mut problems = Vec::new();
    for field in ["hostNetwork", "hostPID", "hostIPC", "hostUsers"] {
        if !spec[field].is_null() {
            problems.push(format!("{field} is set"));
        }
    }
    let pod = &spec["securityContext"];
    if !pod["sysctls"].is_null() {
        problems.push("sysctls are set".to_owned());
    }
    if !["RuntimeDefault", "Localhost"].contains(&text(&pod["seccompProfile"]["type"])) {
        problems.push("the pod has no seccomp profile".to_owned());
    }
    if pod["runAsNonRoot"] != true || pod["runAsUser"] != 65532 || pod["runAsGroup"] != 65532 {
        problems.push("the pod does not run as 65532".to_owned());
    }
    for volume in list(&spec["volumes"]) {
        let kinds: Vec<&String> = volume.as_object().unwrap().keys().filter(|key| *key != "name").collect();
        if kinds.len() != 1 || !VOLUMES.contains(&kinds[0].as_str()) {
            problems.push(format!("volume {volume} is of a forbidden kind"));
        }
        if !volume["emptyDir"].is_null() && volume["emptyDir"]["sizeLimit"].is_null() {
            problems.push(format!("volume {volume} has no bound"));
        }
    }
    let mut containers = list(&spec["containers"]).to_vec();
    containers.extend(list(&spec["initContainers"]).iter().cloned());
    for container in containers {
        let context = &container["securityContext"];
        let mut refuse = |what: &str| problems.push(format!("container {}: {what}", container["name"]));
        if context["allowPrivilegeEscalation"] != false {
            refuse("privileges may grow");
        }
        if !context["privileged"].is_null() || !context["procMount"].is_null() {
            refuse("privileged, or /proc unmasked");
        }
        if context["readOnlyRootFilesystem"] != true {
            refuse("its root can be written");
        }
        if context["capabilities"] != json!({"drop": ["ALL"]}) {
            refuse("keeps capabilities");
        }
        for field in ["runAsUser", "runAsGroup", "runAsNonRoot", "seccompProfile", "seLinuxOptions"] {
            if !context[field].is_null() {
                refuse("sets for itself what is the pod's to say");
            }
        }
        if list(&container["ports"]).iter().any(|port| !port["hostPort"].is_null()) {
            refuse("takes a port of the node");
        }
        for bound in ["requests", "limits"] {
            for resource in ["cpu", "memory", "ephemeral-storage"] {
                if !container["resources"][bound][resource].is_string() {
                    refuse("has no bound for a resource");
                }
            }
        }
    }
    problems
}

/// Whether every label of the selector is one of these labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    selector
        .as_object()
        .is_some_and(|wanted| !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value))
}

/// Whether an `ipBlock` holds an address.
fn holds(block: &Value, address: Ipv4Addr) -> bool {
    let within = |cidr: &Value| {
        let Some((network, bits)) = cidr.as_str().and_then(|cidr| cidr.split_once('/')) else { return false };
        let Ok(network) = network.parse::<Ipv4Addr>() else { return false };
        let mask = u32::MAX.checked_shl(32 - bits.parse::<u32>().unwrap()).unwrap_or(0);
        network.to_bits() & mask == address.to_bits() & mask
    };
    within(&block["cidr"]) && !list(&block["except"]).iter().any(within)
}

/// Every pod template, by the kind and name of what makes pods of it.
fn pods(manifests: &[Value]) -> BTreeMap<String, Value> {
    manifests
        .iter()
        .filter_map(|manifest| {
            let spec = &manifest["spec"];
            let template = [&spec["template"], &spec["jobTemplate"]["spec"]["template"]]
                .into_iter()
                .find(|t| !t.is_null())?;
            Some((format!("{}/{}", text(&manifest["kind"]), name(manifest)), template.clone()))
        })
        .collect()
}

fn of_kind<'a>(manifests: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    manifests.iter().filter(move |manifest| manifest["kind"] == kind)
}

fn find_mut<'a>(manifests: &'a mut [Value], kind: &str, wanted: &str) -> &'a mut Value {
    manifests.iter_mut().find(|manifest| manifest["kind"] == kind && name(manifest) == wanted).unwrap()
}

/// Everything that stands under `key`, at any depth.
fn every<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    if let Some(fields) = value.as_object() {
        for (name, field) in fields {
            if name == key {
                found.push(field);
            }
            every(field, key, found);
        }
    }
    for item in list(value) {
        every(item, key, found);
    }
}

/// Sets what stands at a JSON pointer, whether it was there or not.
fn set(value: &mut Value, pointer: &str, new: &Value) {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = value.pointer_mut(parent).unwrap();
    match field.parse::<usize>() {
        Ok(index) => parent[index] = new.clone(),
        Err(_) => parent[field] = new.clone(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn rendered(overlay: &str) -> Vec<Value> {
    documents(&kustomize(overlay))
}

fn kustomize(overlay: &str) -> String {
    let output = Command::new(tools().join("kubectl"))
        .arg("kustomize")
        .arg(root().join("ops/k8s/overlays").join(overlay))
        .env("KUBECONFIG", "/dev/null")
        .output()
        .unwrap();
    said(&output)
}

/// The three newest Kubernetes versions that there are schemas of, and what they refuse.
fn validate(manifests: &[Value]) -> (Vec<String>, Vec<String>) {
    let program = r#"
import json, sys, kubernetes_validate as kv
from kubernetes_validate.utils import all_versions, major_minor
versions = list(dict.fromkeys(major_minor(v) for v in all_versions()))[-3:]
problems = []
for manifest in json.load(sys.stdin):
    where = manifest["kind"] + "/" + manifest["metadata"]["name"]
    for version in versions:
        try:
            kv.validate(manifest, version, strict=True)
        except Exception as error:
            problems.append(f"{where} in {version}: {getattr(error, 'message', error)}")
print(json.dumps([versions, problems]))
"#;
    serde_json::from_str(&python(program, &json!(manifests).to_string())).unwrap()
}
