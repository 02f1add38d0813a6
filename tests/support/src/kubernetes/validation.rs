//! What makes an object invalid (422), as far as our objects could be.

use std::collections::BTreeSet;

use base64::Engine as _;
use serde_json::{Value, json};

use super::refusal::Problem;
use super::resources::Resource;
use super::store::text;

/// Everything that is wrong with an object.
pub(super) fn problems(resource: &Resource, object: &Value) -> Vec<Problem> {
    let mut found = Vec::new();
    metadata(resource, &object["metadata"], &mut found);
    let spec = &object["spec"];
    match resource.plural {
        "jobs" => job(spec, &mut found),
        "pods" => pod_spec(spec, "spec", &mut found),
        "leases" => lease(spec, &mut found),
        "secrets" => secret(object, &mut found),
        "configmaps" => config_map(object, &mut found),
        _ => {}
    }
    found
}

/// What may not be changed, and was.
pub(super) fn problems_of_change(resource: &Resource, before: &Value, after: &Value) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut fixed = |pointer: &str| {
        let (old, new) = (before.pointer(pointer), after.pointer(pointer));
        if old != new {
            let field = pointer.trim_start_matches('/').replace('/', ".");
            found.push(Problem::invalid(field, new.unwrap_or(&Value::Null), "field is immutable"));
        }
    };
    match resource.plural {
        "jobs" => {
            for field in [
                "completions",
                "selector",
                "template",
                "completionMode",
                "podFailurePolicy",
                "backoffLimitPerIndex",
                "managedBy",
                "successPolicy",
                "podReplacementPolicy",
            ] {
                fixed(&format!("/spec/{field}"));
            }
        }
        "secrets" => {
            fixed("/type");
            if before["immutable"] == true {
                fixed("/data");
                fixed("/immutable");
            }
        }
        "configmaps" if before["immutable"] == true => {
            fixed("/data");
            fixed("/immutable");
        }
        "pods" if before["spec"] != after["spec"] => {
            let detail = "pod updates may not change fields other than `spec.containers[*].image`, \
                          `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations`, \
                          `spec.terminationGracePeriodSeconds`";
            if without_changeable(&before["spec"]) != without_changeable(&after["spec"]) {
                found.push(Problem::forbidden("spec", detail));
            }
        }
        _ => {}
    }
    found
}

fn without_changeable(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("activeDeadlineSeconds");
        fields.remove("tolerations");
        for list in ["containers", "initContainers"] {
            let containers = fields.get_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
                container.remove("image");
            }
        }
    }
    spec
}

fn metadata(resource: &Resource, metadata: &Value, found: &mut Vec<Problem>) {
    let name = text(metadata, "/name");
    if name.is_empty() {
        found.push(Problem::required("metadata.name", "name or generateName is required"));
    } else if resource.plural == "services" && !is_dns_label(name) {
        found.push(Problem::invalid("metadata.name", &name.into(), "a DNS-1035 label must consist of …"));
    } else if !is_dns_subdomain(name) {
        found.push(Problem::invalid(
            "metadata.name",
            &name.into(),
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
             must start and end with an alphanumeric character (and be no more than 253 characters)",
        ));
    }
    labels(&metadata["labels"], "metadata.labels", found);
    let annotations = metadata["annotations"].as_object();
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        qualified_name(&key.to_lowercase(), "metadata.annotations", found);
    }
    if size > 262_144 {
        found.push(Problem::invalid(
            "metadata.annotations",
            &"".into(),
            "Too long: may not be more than 262144 bytes",
        ));
    }
    for (at, owner) in list(&metadata["ownerReferences"]).iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text(owner, &format!("/{field}")).is_empty() {
                let field = format!("metadata.ownerReferences[{at}].{field}");
                found.push(Problem::invalid(field, &"".into(), "must not be empty"));
            }
        }
    }
    for finalizer in list(&metadata["finalizers"]) {
        qualified_name(finalizer.as_str().unwrap_or_default(), "metadata.finalizers", found);
    }
}

fn labels(labels: &Value, field: &str, found: &mut Vec<Problem>) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        qualified_name(key, field, found);
        let text = value.as_str().unwrap_or_default();
        if text.len() > 63 {
            found.push(Problem::invalid(field, value, "must be no more than 63 characters"));
        }
        if !text.is_empty() && !is_name_part(text) {
            found.push(Problem::invalid(
                field,
                value,
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
                 and must start and end with an alphanumeric character",
            ));
        }
    }
}

/// `prefix/name` or `name`.
fn qualified_name(key: &str, field: &str, found: &mut Vec<Problem>) {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if name.is_empty()
        || name.len() > 63
        || !is_name_part(name)
        || prefix.is_some_and(|one| !is_dns_subdomain(one))
    {
        found.push(Problem::invalid(
            field,
            &key.into(),
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
             alphanumeric character",
        ));
    }
}

fn is_name_part(text: &str) -> bool {
    let inside = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    inside && edge(text.chars().next()) && edge(text.chars().last())
}

fn is_dns_label(text: &str) -> bool {
    let inside = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    (1..=63).contains(&text.len()) && inside && !text.starts_with('-') && !text.ends_with('-')
}

fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            let inside = label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
            !label.is_empty() && inside && !label.starts_with('-') && !label.ends_with('-')
        })
}

fn job(spec: &Value, found: &mut Vec<Problem>) {
    for field in
        ["parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"]
    {
        if spec[field].as_i64().is_some_and(|number| number < 0) {
            found.push(Problem::invalid(
                format!("spec.{field}"),
                &spec[field],
                "must be greater than or equal to 0",
            ));
        }
    }
    let template = &spec["template"];
    labels(&template["metadata"]["labels"], "spec.template.labels", found);
    let pod = &template["spec"];
    pod_spec(pod, "spec.template.spec", found);
    let restart = text(pod, "/restartPolicy");
    if !["OnFailure", "Never"].contains(&restart) {
        let field = "spec.template.spec.restartPolicy";
        found.push(Problem::unsupported(field, &restart.into(), &["OnFailure", "Never"]));
    }
    let replacement = text(spec, "/podReplacementPolicy");
    if !["TerminatingOrFailed", "Failed"].contains(&replacement) {
        let supported = ["Failed", "TerminatingOrFailed"];
        found.push(Problem::unsupported("spec.podReplacementPolicy", &replacement.into(), &supported));
    }
    let policy = &spec["podFailurePolicy"];
    if policy.is_null() {
        return;
    }
    if restart != "Never" {
        let detail = "only \"Never\" is supported when podFailurePolicy is specified";
        found.push(Problem::invalid("spec.template.spec.restartPolicy", &restart.into(), detail));
    }
    if replacement != "Failed" {
        let field = "spec.podReplacementPolicy";
        found.push(Problem::unsupported(field, &replacement.into(), &["Failed"]));
    }
    let names: Vec<&str> = containers(pod).map(|(_, container)| text(container, "/name")).collect();
    for (at, rule) in list(&policy["rules"]).iter().enumerate() {
        failure_rule(rule, &format!("spec.podFailurePolicy.rules[{at}]"), &names, found);
    }
}

fn failure_rule(rule: &Value, field: &str, names: &[&str], found: &mut Vec<Problem>) {
    let actions = ["Count", "FailIndex", "FailJob", "Ignore"];
    if !actions.contains(&text(rule, "/action")) {
        found.push(Problem::unsupported(format!("{field}.action"), &rule["action"], &actions));
    }
    let codes = &rule["onExitCodes"];
    let conditions = list(&rule["onPodConditions"]);
    if codes.is_null() == conditions.is_empty() {
        let detail = if codes.is_null() {
            "specifying one of OnExitCodes and OnPodConditions is required"
        } else {
            "specifying both OnExitCodes and OnPodConditions is not supported"
        };
        found.push(Problem::invalid(field, rule, detail));
    }
    for (at, condition) in conditions.iter().enumerate() {
        if !["True", "False", "Unknown"].contains(&text(condition, "/status")) {
            let field = format!("{field}.onPodConditions[{at}].status");
            found.push(Problem::unsupported(field, &condition["status"], &["False", "True", "Unknown"]));
        }
    }
    if codes.is_null() {
        return;
    }
    let operator = text(codes, "/operator");
    if !["In", "NotIn"].contains(&operator) {
        let field = format!("{field}.onExitCodes.operator");
        found.push(Problem::unsupported(field, &codes["operator"], &["In", "NotIn"]));
    }
    let values: Vec<i64> = list(&codes["values"]).iter().filter_map(Value::as_i64).collect();
    let field_of_values = format!("{field}.onExitCodes.values");
    if values.is_empty() || values.len() > 255 {
        let detail = "at least one value is required, and at most 255";
        found.push(Problem::invalid(&field_of_values, &codes["values"], detail));
    }
    if operator == "In" && values.contains(&0) {
        let detail = "must not be 0 for the In operator";
        found.push(Problem::invalid(&field_of_values, &codes["values"], detail));
    }
    if !values.is_sorted() {
        found.push(Problem::invalid(&field_of_values, &codes["values"], "must be ordered"));
    }
    if values.windows(2).any(|pair| pair[0] == pair[1]) {
        found.push(Problem::duplicate(&field_of_values, &codes["values"]));
    }
    let container = text(codes, "/containerName");
    if !container.is_empty() && !names.contains(&container) {
        let detail = "must be one of the container or initContainer names in the pod template";
        found.push(Problem::invalid(format!("{field}.onExitCodes.containerName"), &container.into(), detail));
    }
}

/// Every container with whether it is an init container, those first.
pub(super) fn containers(spec: &Value) -> impl Iterator<Item = (bool, &Value)> {
    let init = list(&spec["initContainers"]).iter().map(|container| (true, container));
    init.chain(list(&spec["containers"]).iter().map(|container| (false, container)))
}

fn pod_spec(spec: &Value, at: &str, found: &mut Vec<Problem>) {
    if list(&spec["containers"]).is_empty() {
        found.push(Problem::required(format!("{at}.containers"), ""));
    }
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        let field = format!("{at}.terminationGracePeriodSeconds");
        found.push(Problem::invalid(field, &spec["terminationGracePeriodSeconds"], "must be non-negative"));
    }
    for field in ["serviceAccountName", "runtimeClassName", "priorityClassName"] {
        let name = text(spec, &format!("/{field}"));
        if !name.is_empty() && !is_dns_subdomain(name) {
            let detail = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters";
            found.push(Problem::invalid(format!("{at}.{field}"), &name.into(), detail));
        }
    }
    let mut volumes = BTreeSet::new();
    for (index, volume) in list(&spec["volumes"]).iter().enumerate() {
        let field = format!("{at}.volumes[{index}]");
        let name = text(volume, "/name");
        if !is_dns_label(name) {
            let detail =
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'";
            found.push(Problem::invalid(format!("{field}.name"), &name.into(), detail));
        }
        if !volumes.insert(name) {
            found.push(Problem::duplicate(format!("{field}.name"), &name.into()));
        }
        match volume.as_object().map_or(0, |volume| volume.len()) {
            0 | 1 => found.push(Problem::required(field, "must specify a volume type")),
            2 => {}
            _ => found.push(Problem::forbidden(field, "may not specify more than 1 volume type")),
        }
        let size = &volume["emptyDir"]["sizeLimit"];
        quantity(size, &format!("{at}.volumes[{index}].emptyDir.sizeLimit"), found);
    }
    let mut names = BTreeSet::new();
    let (mut init, mut main) = (0, 0);
    for (is_init, one) in containers(spec) {
        let (list, index) = if is_init { ("initContainers", &mut init) } else { ("containers", &mut main) };
        let field = format!("{at}.{list}[{index}]");
        *index += 1;
        container(one, &field, is_init, &volumes, found);
        if !names.insert(text(one, "/name")) {
            found.push(Problem::duplicate(format!("{field}.name"), &one["name"]));
        }
    }
}

fn container(one: &Value, at: &str, init: bool, volumes: &BTreeSet<&str>, found: &mut Vec<Problem>) {
    let name = text(one, "/name");
    if name.is_empty() {
        found.push(Problem::required(format!("{at}.name"), ""));
    } else if !is_dns_label(name) {
        let detail = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'";
        found.push(Problem::invalid(format!("{at}.name"), &name.into(), detail));
    }
    let image = text(one, "/image");
    if image.is_empty() {
        found.push(Problem::required(format!("{at}.image"), ""));
    } else if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        found.push(Problem::invalid(format!("{at}.image"), &image.into(), detail));
    }
    let restart = &one["restartPolicy"];
    if !restart.is_null() && !init {
        let detail = "may not be set for non-init containers";
        found.push(Problem::forbidden(format!("{at}.restartPolicy"), detail));
    } else if !restart.is_null() && restart != "Always" {
        found.push(Problem::unsupported(format!("{at}.restartPolicy"), restart, &["Always"]));
    }
    for (field, supported) in [
        ("imagePullPolicy", &["Always", "IfNotPresent", "Never"][..]),
        ("terminationMessagePolicy", &["FallbackToLogsOnError", "File"][..]),
    ] {
        if !supported.contains(&text(one, &format!("/{field}"))) {
            found.push(Problem::unsupported(format!("{at}.{field}"), &one[field], supported));
        }
    }
    let mut places = BTreeSet::new();
    for (index, mount) in list(&one["volumeMounts"]).iter().enumerate() {
        let field = format!("{at}.volumeMounts[{index}]");
        if !volumes.contains(text(mount, "/name")) {
            found.push(Problem::not_found(format!("{field}.name"), &mount["name"]));
        }
        let place = text(mount, "/mountPath");
        if place.is_empty() {
            found.push(Problem::required(format!("{field}.mountPath"), ""));
        } else if !places.insert(place) {
            found.push(Problem::invalid(format!("{field}.mountPath"), &place.into(), "must be unique"));
        }
    }
    for (index, variable) in list(&one["env"]).iter().enumerate() {
        environment(variable, &format!("{at}.env[{index}]"), found);
    }
    let resources = &one["resources"];
    for kind in ["limits", "requests"] {
        for (what, amount) in resources[kind].as_object().into_iter().flatten() {
            quantity(amount, &format!("{at}.resources.{kind}[{what}]"), found);
            let limit = resources["limits"].get(what).and_then(amount_of);
            let asked = amount_of(amount);
            if kind == "requests" && limit.zip(asked).is_some_and(|(limit, asked)| asked > limit) {
                let detail = format!("must be less than or equal to {what} limit");
                found.push(Problem::invalid(format!("{at}.resources.requests"), amount, detail));
            }
        }
    }
    let own = &one["securityContext"];
    if own["allowPrivilegeEscalation"] == false && own["privileged"] == true {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        found.push(Problem::invalid(format!("{at}.securityContext"), own, detail));
    }
}

fn environment(variable: &Value, at: &str, found: &mut Vec<Problem>) {
    let name = text(variable, "/name");
    if name.is_empty() {
        found.push(Problem::required(format!("{at}.name"), ""));
    } else if !name.chars().all(|c| (' '..='~').contains(&c) && c != '=') {
        let detail = "a valid environment variable name must consist only of printable ASCII characters other \
                      than '='";
        found.push(Problem::invalid(format!("{at}.name"), &name.into(), detail));
    }
    let source = &variable["valueFrom"];
    if source.is_null() {
        return;
    }
    if !text(variable, "/value").is_empty() {
        let detail = "may not be specified when `value` is not empty";
        found.push(Problem::invalid(format!("{at}.valueFrom"), &"".into(), detail));
    }
    if source.as_object().map_or(0, |source| source.len()) != 1 {
        let detail = "must specify exactly one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or \
                      `secretKeyRef`";
        found.push(Problem::invalid(format!("{at}.valueFrom"), &"".into(), detail));
    }
    for kind in ["secretKeyRef", "configMapKeyRef"].iter().filter(|kind| !source[**kind].is_null()) {
        for field in ["name", "key"] {
            if text(&source[*kind], &format!("/{field}")).is_empty() {
                found.push(Problem::required(format!("{at}.valueFrom.{kind}.{field}"), ""));
            }
        }
    }
}

fn lease(spec: &Value, found: &mut Vec<Problem>) {
    if spec["leaseDurationSeconds"].as_i64().is_some_and(|seconds| seconds <= 0) {
        let field = "spec.leaseDurationSeconds";
        found.push(Problem::invalid(field, &spec["leaseDurationSeconds"], "must be greater than 0"));
    }
    if spec["leaseTransitions"].as_i64().is_some_and(|count| count < 0) {
        let detail = "must be greater than or equal to 0";
        found.push(Problem::invalid("spec.leaseTransitions", &spec["leaseTransitions"], detail));
    }
    if spec["holderIdentity"] == "" {
        found.push(Problem::invalid("spec.holderIdentity", &json!(""), "must not be empty"));
    }
}

fn secret(object: &Value, found: &mut Vec<Problem>) {
    let mut size = 0;
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        data_key(key, found);
        match base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or_default()) {
            Ok(bytes) => size += bytes.len(),
            Err(error) => found.push(Problem::invalid(format!("data[{key}]"), value, error)),
        }
    }
    if size > 1_048_576 {
        found.push(Problem::invalid("data", &"".into(), "Too long: may not be more than 1048576 bytes"));
    }
}

fn config_map(object: &Value, found: &mut Vec<Problem>) {
    let data = object["data"].as_object().into_iter().flatten();
    let size: usize = data
        .map(|(key, value)| {
            data_key(key, found);
            value.as_str().map_or(0, str::len)
        })
        .sum();
    if size > 1_048_576 {
        found.push(Problem::invalid("", &"".into(), "Too long: may not be more than 1048576 bytes"));
    }
}

fn data_key(key: &str, found: &mut Vec<Problem>) {
    let plain = key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if key.is_empty() || key.len() > 253 || !plain || key == "." || key.starts_with("..") {
        let detail = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        found.push(Problem::invalid(format!("data[{key}]"), &key.into(), detail));
    }
}

fn quantity(value: &Value, field: &str, found: &mut Vec<Problem>) {
    if !value.is_null() && amount_of(value).is_none_or(|amount| amount < 0.0) {
        let detail = "quantities must match the regular expression \
                      '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$', and must not be negative";
        found.push(Problem::invalid(field, value, detail));
    }
}

/// A quantity such as `500m`, `2Gi` or `1.5`.
fn amount_of(value: &Value) -> Option<f64> {
    let text = value.as_str()?;
    let end = text.find(|c: char| !(c.is_ascii_digit() || "+-.".contains(c))).unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let factor = match &text[end..] {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some(number * factor)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
