//! The Pod Security Standard `restricted`, as far as our pods could break it.

use serde_json::Value;

use super::resources::Resource;
use super::store::text;

/// What a Job whose pods would be refused is answered with: it is created all the same.
pub(super) fn warnings(resource: &Resource, object: &Value, restricted: bool) -> Vec<String> {
    let spec = match resource.plural {
        "jobs" | "deployments" => &object["spec"]["template"]["spec"],
        "cronjobs" => &object["spec"]["jobTemplate"]["spec"]["template"]["spec"],
        _ => return Vec::new(),
    };
    let violations = violations(spec);
    if !restricted || violations.is_empty() {
        return Vec::new();
    }
    vec![format!("would violate PodSecurity \"restricted:latest\": {}", violations.join(", "))]
}

/// What a pod does that `restricted` does not allow.
pub(super) fn violations(spec: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (field, words) in [
        ("hostNetwork", "host namespaces (hostNetwork=true)"),
        ("hostPID", "host namespaces (hostPID=true)"),
        ("hostIPC", "host namespaces (hostIPC=true)"),
    ] {
        if spec[field] == true {
            found.push(words.to_owned());
        }
    }
    let allowed = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    for volume in list(&spec["volumes"]) {
        let kinds = volume.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
        for kind in kinds.filter(|kind| *kind != "name" && !allowed.contains(kind)) {
            let name = text(volume, "/name");
            found.push(format!(
                "restricted volume types (volume {name:?} uses restricted volume type {kind:?})"
            ));
        }
    }
    let pod = &spec["securityContext"];
    for container in list(&spec["initContainers"]).iter().chain(list(&spec["containers"])) {
        let name = text(container, "/name");
        let own = &container["securityContext"];
        let setting = |field: &str| if own[field].is_null() { &pod[field] } else { &own[field] };
        let mut must = |violation: &str, what: &str| {
            found.push(format!("{violation} (container {name:?} must {what})"));
        };
        if own["privileged"] == true {
            must("privileged", "not set securityContext.privileged=true");
        }
        if own["allowPrivilegeEscalation"] != false {
            must("allowPrivilegeEscalation != false", "set securityContext.allowPrivilegeEscalation=false");
        }
        let capabilities = &own["capabilities"];
        if !list(&capabilities["drop"]).iter().any(|one| one == "ALL") {
            must("unrestricted capabilities", "set securityContext.capabilities.drop=[\"ALL\"]");
        }
        if list(&capabilities["add"]).iter().any(|one| one != "NET_BIND_SERVICE") {
            must("unrestricted capabilities", "not include anything in securityContext.capabilities.add");
        }
        if *setting("runAsNonRoot") != true {
            must("runAsNonRoot != true", "set securityContext.runAsNonRoot=true");
        }
        if *setting("runAsUser") == 0 {
            must("runAsUser=0", "not set runAsUser=0");
        }
        let seccomp = text(setting("seccompProfile"), "/type");
        if !["RuntimeDefault", "Localhost"].contains(&seccomp) {
            let what = "set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
            must("seccompProfile", what);
        }
        if list(&container["ports"]).iter().any(|port| port["hostPort"].as_u64().is_some_and(|port| port > 0))
        {
            must("hostPort", "not use hostPorts");
        }
    }
    found
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
