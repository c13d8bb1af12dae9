//! What pods of Kubernetes objects must be, whichever tool rendered them.

use std::collections::BTreeSet;

use serde_json::Value;

/// A pod, or the template of one, and the object that it is of.
pub(crate) struct Pod<'a> {
    pub(crate) of: String,
    pub(crate) labels: &'a Value,
    pub(crate) spec: &'a Value,
}

impl Pod<'_> {
    /// All containers: those that start first, too.
    pub(crate) fn containers(&self) -> impl Iterator<Item = &Value> {
        ["initContainers", "containers"].into_iter().flat_map(|list| each(&self.spec[list]))
    }

    /// The exporter's container, as a sidecar or alone.
    pub(crate) fn exporter(&self) -> &Value {
        let exporter = self.containers().find(|container| container["name"] == "cekura-exporter");
        exporter.unwrap_or_else(|| panic!("{} has no exporter", self.of))
    }

    /// The volume of this name.
    pub(crate) fn volume(&self, name: &Value) -> &Value {
        let volume = each(&self.spec["volumes"]).find(|volume| volume["name"] == *name);
        volume.unwrap_or_else(|| panic!("{} has no volume {name}", self.of))
    }
}

/// The elements of a list; none where there is no list.
pub(crate) fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The objects of this kind.
pub(crate) fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |of| of["kind"] == kind)
}

/// The pods of all objects.
pub(crate) fn pods(objects: &[Value]) -> Vec<Pod<'_>> {
    objects.iter().filter_map(pod).collect()
}

fn pod(of: &Value) -> Option<Pod<'_>> {
    let template = match of["kind"].as_str().unwrap() {
        "Pod" => "",
        "Deployment" | "StatefulSet" | "Job" => "/spec/template",
        "CronJob" => "/spec/jobTemplate/spec/template",
        _ => return None,
    };
    let pod = of.pointer(template).unwrap();
    Some(Pod { of: name(of), labels: &pod["metadata"]["labels"], spec: &pod["spec"] })
}

/// The kind and name of an object.
pub(crate) fn name(of: &Value) -> String {
    format!("{} {}", of["kind"].as_str().unwrap(), of["metadata"]["name"].as_str().unwrap())
}

/// What keeps a container of a pod from the *restricted* level of the Pod Security Standard.
pub(crate) fn unrestricted(pod: &Pod<'_>, container: &Value) -> Vec<String> {
    let (of_pod, own) = (&pod.spec["securityContext"], &container["securityContext"]);
    let either = |key: &str| if own[key].is_null() { &of_pod[key] } else { &own[key] };
    let namespaces = ["hostNetwork", "hostPID", "hostIPC"].iter().all(|key| pod.spec[key] != true);
    let kinds =
        ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];
    let volumes = each(&pod.spec["volumes"])
        .all(|volume| volume.as_object().unwrap().keys().all(|key| key == "name" || kinds.contains(&key.as_str())));
    let added = each(&own["capabilities"]["add"]).all(|capability| capability == "NET_BIND_SERVICE");
    let profiles = ["RuntimeDefault", "Localhost"];
    let rules = [
        ("it uses namespaces of the host", namespaces),
        ("it has a volume of another kind", volumes),
        ("it has a port of the host", each(&container["ports"]).all(|port| port["hostPort"].is_null())),
        ("it is privileged", own["privileged"] != true),
        ("it may gain privileges", own["allowPrivilegeEscalation"] == false),
        ("it keeps capabilities", each(&own["capabilities"]["drop"]).any(|capability| capability == "ALL") && added),
        ("it may be root", *either("runAsNonRoot") == true && *either("runAsUser") != 0),
        (
            "its system calls are not filtered",
            profiles.iter().any(|profile| either("seccompProfile")["type"] == *profile),
        ),
        ("it sees processes of the host", own["procMount"].is_null() || own["procMount"] == "Default"),
    ];
    let broken = rules.into_iter().filter(|(_, holds)| !holds);
    broken.map(|(what, _)| format!("{}, {}: {what}", pod.of, container["name"])).collect()
}

/// What must hold of the exporter in any pod.
pub(crate) fn hardened(pod: &Pod<'_>) {
    let exporter = pod.exporter();
    assert_eq!(unrestricted(pod, exporter), [] as [String; 0]);
    assert_eq!(exporter["securityContext"]["readOnlyRootFilesystem"], true, "{}", pod.of);
    for (kind, what) in [("requests", "cpu"), ("requests", "memory"), ("limits", "cpu"), ("limits", "memory")] {
        assert!(exporter["resources"][kind][what].is_string(), "{}: no {kind} of {what}", pod.of);
    }
    let ports: BTreeSet<_> = each(&exporter["ports"]).map(|port| port["name"].as_str().unwrap()).collect();
    assert!(each(&exporter["ports"]).any(|port| port["containerPort"] == 10_058), "{}", pod.of);
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let port = &exporter[probe]["httpGet"]["port"];
        assert!(port.is_null() || ports.contains(port.as_str().unwrap()), "{}: {probe} asks at {port}", pod.of);
    }
    for mount in each(&exporter["volumeMounts"]) {
        pod.volume(&mount["name"]);
    }
}

/// What objects refer to and is not among them. Secrets are not: those are the users'.
pub(crate) fn dangling(objects: &[Value]) -> Vec<String> {
    let known: BTreeSet<_> = objects.iter().map(name).collect();
    let mut missing = Vec::new();
    for pod in pods(objects) {
        let mut wants = |kind: &str, name: &Value| {
            if let Some(name) = name.as_str().filter(|name| !known.contains(&format!("{kind} {name}"))) {
                missing.push(format!("{}: {kind} {name}", pod.of));
            }
        };
        wants("ServiceAccount", &pod.spec["serviceAccountName"]);
        for volume in each(&pod.spec["volumes"]) {
            wants("ConfigMap", &volume["configMap"]["name"]);
            wants("PersistentVolumeClaim", &volume["persistentVolumeClaim"]["claimName"]);
        }
    }
    missing
}

/// Whether a selector by labels selects what has these.
pub(crate) fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object().filter(|wanted| !wanted.is_empty());
    wanted.is_some_and(|wanted| wanted.iter().all(|(key, value)| labels[key] == *value))
}

/// A value with the lists in it, of which order says nothing, in one order.
pub(crate) fn in_order(value: &Value) -> Value {
    match value {
        Value::Array(list) => {
            let mut list: Vec<_> = list.iter().map(in_order).collect();
            list.sort_by_key(Value::to_string);
            list.into()
        }
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), in_order(value))).collect(),
        other => other.clone(),
    }
}
