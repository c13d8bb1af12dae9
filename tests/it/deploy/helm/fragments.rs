//! Values of the chart, each with what it must make of the objects.

use serde_json::{Value, json};

/// Values, and what must hold of the objects that the chart makes of them.
pub(super) struct Fragment {
    pub(super) values: Value,
    pub(super) expected: Vec<Expected>,
}

/// What must hold of the first object of a kind, at a JSON pointer that begins with the kind.
pub(super) enum Expected {
    /// It is this value.
    Is(String, Value),
    /// It is a list that has this element.
    Has(String, Value),
    /// It is a text that contains this one.
    Says(String, &'static str),
    /// There is no such thing.
    Lacks(String),
}

fn is(at: impl Into<String>, value: Value) -> Expected {
    Expected::Is(at.into(), value)
}

fn has(at: impl Into<String>, element: Value) -> Expected {
    Expected::Has(at.into(), element)
}

fn says(at: impl Into<String>, text: &'static str) -> Expected {
    Expected::Says(at.into(), text)
}

fn lacks(at: impl Into<String>) -> Expected {
    Expected::Lacks(at.into())
}

/// Where something of the pod of the central exporter is.
fn of_pod(key: &str) -> String {
    format!("Deployment/spec/template/spec/{key}")
}

/// Where something of the container of the central exporter is.
fn of_exporter(key: &str) -> String {
    of_pod(&format!("containers/0/{key}"))
}

fn fragment(values: Value, expected: impl IntoIterator<Item = Expected>) -> Fragment {
    Fragment { values, expected: expected.into_iter().collect() }
}

/// Fragments in groups. Those of different groups can be combined as one likes, those of one group exclude each other.
pub(super) fn groups() -> Vec<Vec<Fragment>> {
    [naming(), images(), configuration(), pods(), security(), traffic(), monitoring(), jobs()]
        .into_iter()
        .flatten()
        .collect()
}

fn naming() -> Vec<Vec<Fragment>> {
    vec![
        vec![fragment(
            json!({"nameOverride": "exporter"}),
            [
                is("Deployment/metadata/labels/app.kubernetes.io~1name", json!("exporter")),
                is("Deployment/spec/selector/matchLabels/app.kubernetes.io~1name", json!("exporter")),
            ],
        )],
        vec![fragment(json!({"fullnameOverride": "full"}), [is("Deployment/metadata/name", json!("full"))])],
        vec![fragment(
            json!({"namespaceOverride": "other"}),
            [is("Deployment/metadata/namespace", json!("other")), is("Service/metadata/namespace", json!("other"))],
        )],
        vec![fragment(
            json!({"commonLabels": {"cost-center": "7"}, "commonAnnotations": {"argocd.argoproj.io/sync-wave": "1"}}),
            [
                is("Deployment/metadata/annotations/argocd.argoproj.io~1sync-wave", json!("1")),
                is("Service/metadata/labels/cost-center", json!("7")),
                is("Deployment/spec/template/metadata/labels/cost-center", json!("7")),
                lacks("Deployment/spec/selector/matchLabels/cost-center"),
            ],
        )],
    ]
}

fn images() -> Vec<Vec<Fragment>> {
    let image = of_exporter("image");
    let digest = format!("sha256:{}", "0a".repeat(32));
    let version = env!("CARGO_PKG_VERSION");
    vec![
        vec![
            fragment(
                json!({"image": {"registry": "r.example.com/", "repository": "a/b", "tag": "t", "pullPolicy": "Always"}}),
                [is(&image, json!("r.example.com/a/b:t")), is(of_exporter("imagePullPolicy"), json!("Always"))],
            ),
            fragment(
                json!({"image": {"registry": "r.example.com", "tag": "ignored", "digest": digest}}),
                [
                    is(&image, json!(format!("r.example.com/cekura-exporter@{digest}"))),
                    lacks(of_exporter("imagePullPolicy")),
                ],
            ),
            fragment(
                json!({"global": {"imageRegistry": "g.example.com"}, "image": {"registry": "r.example.com"}}),
                [is(&image, json!(format!("g.example.com/cekura-exporter:{version}")))],
            ),
        ],
        vec![fragment(
            json!({"imagePullSecrets": [{"name": "pull"}]}),
            [has(of_pod("imagePullSecrets"), json!({"name": "pull"}))],
        )],
    ]
}

fn configuration() -> Vec<Vec<Fragment>> {
    let config = "ConfigMap/data/config.yaml";
    let mounts = of_exporter("volumeMounts");
    let volumes = of_pod("volumes");
    let unregistered = json!({"registrations": {"enabled": false}});
    vec![
        vec![fragment(json!({"config": {"polling": {"min_interval": "7s"}}}), [says(config, "min_interval: 7s")])],
        vec![fragment(
            json!({"externalUrl": "https://a.example.com"}),
            [says(config, "external_url: https://a.example")],
        )],
        vec![fragment(
            json!({"apis": {"default": null, "staging_2_": {"existingSecret": "staging", "key": "k"}}}),
            [
                says(config, "api_key_file: /run/secrets/cekura-staging_2_/k"),
                has(
                    &mounts,
                    json!({"name": "api-key-0", "mountPath": "/run/secrets/cekura-staging_2_", "readOnly": true}),
                ),
            ],
        )],
        vec![
            fragment(
                json!({"persistence": {
                    "size": "5Gi", "storageClass": "fast", "accessModes": ["ReadWriteOncePod"], "annotations": {"a": "b"}, "keep": true,
                }}),
                [
                    is("PersistentVolumeClaim/spec/resources/requests/storage", json!("5Gi")),
                    is("PersistentVolumeClaim/spec/storageClassName", json!("fast")),
                    is("PersistentVolumeClaim/spec/accessModes", json!(["ReadWriteOncePod"])),
                    is("PersistentVolumeClaim/metadata/annotations/a", json!("b")),
                    is("PersistentVolumeClaim/metadata/annotations/helm.sh~1resource-policy", json!("keep")),
                ],
            ),
            fragment(
                json!({"persistence": {"existingClaim": "theirs"}}),
                [
                    lacks("PersistentVolumeClaim"),
                    has(&volumes, json!({"name": "state", "persistentVolumeClaim": {"claimName": "theirs"}})),
                ],
            ),
            fragment(
                json!({"replicas": 2, "persistence": {"enabled": false}, "config": unregistered}),
                [lacks("PersistentVolumeClaim"), is("Deployment/spec/replicas", json!(2))],
            ),
            fragment(
                json!({"replicas": 3, "database": {
                    "existingSecret": "theirs", "urlKey": "uri", "passwordKey": "password", "caKey": "ca.crt", "port": 6432, "lease": "20s",
                }}),
                [
                    lacks("PersistentVolumeClaim"),
                    is("Deployment/spec/replicas", json!(3)),
                    says(config, "url_file: /run/secrets/database/uri"),
                    says(config, "password_file: /run/secrets/database/password"),
                    says(config, "ca_file: /run/secrets/database/ca.crt"),
                    says(config, "lease: 20s"),
                    has(
                        &volumes,
                        json!({"name": "database", "secret": {"secretName": "theirs", "defaultMode": 0o440}}),
                    ),
                ],
            ),
        ],
        vec![fragment(
            json!({"webConfig": {"existingSecret": "web"}}),
            [
                has(&volumes, json!({"name": "web", "secret": {"secretName": "web", "defaultMode": 0o440}})),
                has(of_exporter("args"), json!("--web.config.file=/etc/cekura-exporter-web/web.yaml")),
            ],
        )],
        vec![
            fragment(
                json!({"terminationGracePeriodSeconds": 77}),
                [is(of_pod("terminationGracePeriodSeconds"), json!(77))],
            ),
            fragment(
                json!({"config": {"shutdown": {"linger": "5m"}}}),
                [is(of_pod("terminationGracePeriodSeconds"), json!(330))],
            ),
        ],
    ]
}

fn pods() -> Vec<Vec<Fragment>> {
    let spread = json!([{
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"a": "b"}},
    }]);
    let alias = json!({"ip": "10.0.0.1", "hostnames": ["api.example.com"]});
    let dns = json!({"nameservers": ["10.0.0.2"]});
    let container = json!({"name": "proxy", "image": "proxy:1"});
    let from = json!({"secretRef": {"name": "variables"}});
    let volume = json!({"name": "ca", "configMap": {"name": "company-ca"}});
    let mount = json!({"name": "ca", "mountPath": "/etc/company-ca", "readOnly": true});
    let variable = json!({"name": "HTTPS_PROXY", "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "url"}}});
    let each = vec![
        fragment(
            json!({"resources": {"limits": {"memory": "1Gi"}}}),
            [is(of_exporter("resources/limits"), json!({"cpu": "1", "memory": "1Gi"}))],
        ),
        fragment(json!({"extraArgs": ["--log.level=debug"]}), [has(of_exporter("args"), json!("--log.level=debug"))]),
        fragment(json!({"extraEnv": [variable]}), [has(of_exporter("env"), variable.clone())]),
        fragment(json!({"extraEnvFrom": [from]}), [has(of_exporter("envFrom"), from.clone())]),
        fragment(
            json!({"extraVolumes": [volume], "extraVolumeMounts": [mount]}),
            [has(of_pod("volumes"), volume.clone()), has(of_exporter("volumeMounts"), mount.clone())],
        ),
        fragment(json!({"extraContainers": [container]}), [is(of_pod("containers/1"), container.clone())]),
        fragment(json!({"initContainers": [container]}), [is(of_pod("initContainers/0"), container.clone())]),
        fragment(
            json!({"deploymentAnnotations": {"reloader.stakater.com/auto": "true"}, "revisionHistoryLimit": 0}),
            [
                is("Deployment/metadata/annotations/reloader.stakater.com~1auto", json!("true")),
                is("Deployment/spec/revisionHistoryLimit", json!(0)),
            ],
        ),
        fragment(
            json!({"strategy": {"type": "Recreate", "rollingUpdate": null}}),
            [is("Deployment/spec/strategy/type", json!("Recreate"))],
        ),
        fragment(
            json!({"rolloutOnConfigChange": true}),
            [says("Deployment/spec/template/metadata/annotations/checksum~1config", "")],
        ),
        fragment(json!({"podLabels": {"a": "b"}}), [is("Deployment/spec/template/metadata/labels/a", json!("b"))]),
        fragment(
            json!({"podAnnotations": {"c": "d"}}),
            [is("Deployment/spec/template/metadata/annotations/c", json!("d"))],
        ),
        fragment(json!({"hostAliases": [alias]}), [has(of_pod("hostAliases"), alias.clone())]),
        fragment(
            json!({"dnsPolicy": "None", "dnsConfig": dns}),
            [is(of_pod("dnsPolicy"), json!("None")), is(of_pod("dnsConfig"), dns.clone())],
        ),
        fragment(json!({"nodeSelector": {"e": "f"}}), [is(of_pod("nodeSelector"), json!({"e": "f"}))]),
        fragment(
            json!({"tolerations": [{"operator": "Exists"}]}),
            [has(of_pod("tolerations"), json!({"operator": "Exists"}))],
        ),
        fragment(json!({"affinity": {"podAffinity": {}}}), [is(of_pod("affinity"), json!({"podAffinity": {}}))]),
        fragment(
            json!({"topologySpreadConstraints": spread}),
            [is(of_pod("topologySpreadConstraints"), spread.clone())],
        ),
        fragment(json!({"priorityClassName": "high"}), [is(of_pod("priorityClassName"), json!("high"))]),
        fragment(
            json!({"lifecycle": {"preStop": {"httpGet": {"path": "/-/healthy", "port": "metrics"}}}}),
            [is(of_exporter("lifecycle/preStop/httpGet/port"), json!("metrics"))],
        ),
        fragment(
            json!({"extraObjects": [
                {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "quota"}, "spec": {"hard": {"pods": "9"}}},
                "apiVersion: v1\nkind: LimitRange\nmetadata: {name: {{ .Release.Name }}-range}\nspec: {limits: []}",
            ]}),
            [
                is("ResourceQuota/metadata/name", json!("quota")),
                is("LimitRange/metadata/name", json!("cekura-exporter-range")),
            ],
        ),
    ];
    let alone = each.into_iter().map(|fragment| vec![fragment]);
    alone.chain([probes(), accounts()]).collect()
}

fn probes() -> Vec<Fragment> {
    vec![
        fragment(
            json!({
                "startupProbe": {"failureThreshold": 99}, "readinessProbe": {"periodSeconds": 3},
                "livenessProbe": {"httpGet": null, "tcpSocket": {"port": "metrics"}},
            }),
            [
                is(of_exporter("startupProbe/failureThreshold"), json!(99)),
                is(of_exporter("startupProbe/httpGet/path"), json!("/-/ready")),
                is(of_exporter("readinessProbe/periodSeconds"), json!(3)),
                is(of_exporter("livenessProbe/tcpSocket/port"), json!("metrics")),
                lacks(of_exporter("livenessProbe/httpGet")),
            ],
        ),
        fragment(
            json!({"livenessProbe": null}),
            [lacks(of_exporter("livenessProbe")), is(of_exporter("readinessProbe/httpGet/path"), json!("/-/ready"))],
        ),
    ]
}

fn accounts() -> Vec<Fragment> {
    vec![
        fragment(
            json!({"serviceAccount": {"name": "own", "annotations": {"a": "b"}, "automount": true}}),
            [
                is("ServiceAccount/metadata/name", json!("own")),
                is("ServiceAccount/metadata/annotations/a", json!("b")),
                is("ServiceAccount/automountServiceAccountToken", json!(true)),
                is(of_pod("serviceAccountName"), json!("own")),
                is(of_pod("automountServiceAccountToken"), json!(true)),
            ],
        ),
        fragment(
            json!({"serviceAccount": {"create": false}}),
            [lacks("ServiceAccount"), is(of_pod("serviceAccountName"), json!("default"))],
        ),
    ]
}

fn security() -> Vec<Vec<Fragment>> {
    let context = of_pod("securityContext");
    vec![vec![
        fragment(
            json!({"openshift": true}),
            [is(&context, json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}))],
        ),
        fragment(
            json!({"podSecurityContext": {"fsGroup": null, "runAsUser": 1_000_650_000}}),
            [
                lacks(of_pod("securityContext/fsGroup")),
                is(of_pod("securityContext/runAsUser"), json!(1_000_650_000)),
                is(of_pod("securityContext/runAsNonRoot"), json!(true)),
            ],
        ),
        fragment(
            json!({"securityContext": {"readOnlyRootFilesystem": null, "procMount": "Default"}}),
            [
                lacks(of_exporter("securityContext/readOnlyRootFilesystem")),
                is(of_exporter("securityContext/procMount"), json!("Default")),
            ],
        ),
        fragment(
            json!({"podSecurityContext": null, "securityContext": null}),
            [lacks(&context), lacks(of_exporter("securityContext"))],
        ),
    ]]
}

fn traffic() -> Vec<Vec<Fragment>> {
    let scraper = json!({"podSelector": {"matchLabels": {"app": "scraper"}}});
    let ingress = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}});
    let certificate = json!({"hosts": ["a.example.com"], "secretName": "public"});
    let gateway = json!({"name": "public", "namespace": "gateways"});
    let header =
        json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "a", "value": "b"}]}});
    vec![
        vec![fragment(
            json!({"service": {
                "type": "LoadBalancer", "port": 80, "nodePort": 30_058, "clusterIP": "10.0.0.7", "loadBalancerClass": "c.example.com/d",
                "loadBalancerSourceRanges": ["10.0.0.0/8"], "annotations": {"a": "b"}, "labels": {"c": "d"},
                "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"], "appProtocol": "http",
            }}),
            [
                is("Service/spec/type", json!("LoadBalancer")),
                is("Service/spec/ports/0/port", json!(80)),
                is("Service/spec/ports/0/targetPort", json!("metrics")),
                is("Service/spec/ports/0/nodePort", json!(30_058)),
                is("Service/spec/ports/0/appProtocol", json!("http")),
                is("Service/spec/clusterIP", json!("10.0.0.7")),
                is("Service/spec/loadBalancerClass", json!("c.example.com/d")),
                is("Service/spec/loadBalancerSourceRanges", json!(["10.0.0.0/8"])),
                is("Service/spec/ipFamilyPolicy", json!("PreferDualStack")),
                is("Service/spec/ipFamilies", json!(["IPv6", "IPv4"])),
                is("Service/metadata/annotations/a", json!("b")),
                is("Service/metadata/labels/c", json!("d")),
            ],
        )],
        vec![fragment(
            json!({"ingress": {
                "enabled": true, "className": "nginx", "annotations": {"a": "b"}, "labels": {"c": "d"}, "tls": [certificate],
                "hosts": [{"host": "a.example.com"}, {"host": "b.example.com", "paths": [{"path": "/x", "pathType": "Exact"}]}],
            }}),
            [
                is("Ingress/spec/ingressClassName", json!("nginx")),
                is("Ingress/metadata/annotations/a", json!("b")),
                is("Ingress/metadata/labels/c", json!("d")),
                has("Ingress/spec/tls", certificate.clone()),
                is("Ingress/spec/rules/0/host", json!("a.example.com")),
                is("Ingress/spec/rules/0/http/paths/0/path", json!("/")),
                is("Ingress/spec/rules/0/http/paths/0/pathType", json!("Prefix")),
                is("Ingress/spec/rules/1/http/paths/0/path", json!("/x")),
                is("Ingress/spec/rules/1/http/paths/0/pathType", json!("Exact")),
                is("Ingress/spec/rules/1/http/paths/0/backend/service/port/name", json!("metrics")),
            ],
        )],
        vec![fragment(
            json!({"httpRoute": {
                "enabled": true, "annotations": {"a": "b"}, "labels": {"c": "d"}, "parentRefs": [gateway],
                "hostnames": ["a.example.com"], "matches": [{"path": {"type": "PathPrefix", "value": "/x"}}], "filters": [header],
                "timeouts": {"request": "11m"},
            }}),
            [
                is("HTTPRoute/metadata/annotations/a", json!("b")),
                is("HTTPRoute/metadata/labels/c", json!("d")),
                has("HTTPRoute/spec/parentRefs", gateway.clone()),
                is("HTTPRoute/spec/hostnames", json!(["a.example.com"])),
                is("HTTPRoute/spec/rules/0/matches/0/path/value", json!("/x")),
                has("HTTPRoute/spec/rules/0/filters", header.clone()),
                is("HTTPRoute/spec/rules/0/timeouts/request", json!("11m")),
            ],
        )],
        vec![
            fragment(
                json!({"networkPolicy": {
                    "scrapers": [scraper], "from": [ingress], "ports": [443, 3128], "dnsPorts": [54],
                    "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
                }}),
                [
                    is("NetworkPolicy/spec/ingress/0/from/0", scraper.clone()),
                    has("NetworkPolicy/spec/ingress/0/from", ingress.clone()),
                    has("NetworkPolicy/spec/egress/0/ports", json!({"protocol": "TCP", "port": 3128})),
                    has("NetworkPolicy/spec/egress/0/ports", json!({"protocol": "UDP", "port": 54})),
                    has("NetworkPolicy/spec/egress", json!({"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]})),
                ],
            ),
            fragment(json!({"networkPolicy": {"enabled": false}}), [lacks("NetworkPolicy")]),
        ],
        vec![fragment(json!({"podDisruptionBudget": {"enabled": false}}), [lacks("PodDisruptionBudget")])],
    ]
}

fn monitoring() -> Vec<Vec<Fragment>> {
    let drop = json!({"action": "drop", "sourceLabels": ["a"], "regex": "b"});
    let endpoint = json!({
        "enabled": true, "namespace": "monitoring", "labels": {"release": "prometheus"}, "annotations": {"a": "b"}, "interval": "7s",
        "scrapeTimeout": "6s", "honorLabels": true, "relabelings": [drop], "metricRelabelings": [drop],
    });
    let login = json!({"username": {"name": "u", "key": "k"}, "password": {"name": "p", "key": "k"}});
    let client =
        json!({"cert": {"secret": {"name": "c", "key": "tls.crt"}}, "keySecret": {"name": "c", "key": "tls.key"}});
    let mut service = endpoint.clone();
    service["basicAuth"] = login.clone();
    let mut verified = service.clone();
    verified["tlsConfig"] = client.clone();
    let of_monitor = |kind: &str, endpoints: &str| {
        [
            is(format!("{kind}/spec/{endpoints}/0/interval"), json!("7s")),
            is(format!("{kind}/spec/{endpoints}/0/scrapeTimeout"), json!("6s")),
            is(format!("{kind}/spec/{endpoints}/0/honorLabels"), json!(true)),
            has(format!("{kind}/spec/{endpoints}/0/relabelings"), drop.clone()),
            has(format!("{kind}/spec/{endpoints}/0/metricRelabelings"), drop.clone()),
            is(format!("{kind}/metadata/namespace"), json!("monitoring")),
            is(format!("{kind}/metadata/labels/release"), json!("prometheus")),
            is(format!("{kind}/metadata/annotations/a"), json!("b")),
            // It selects in the namespace of the exporter.
            says(format!("{kind}/spec/namespaceSelector/matchNames/0"), ""),
        ]
    };
    let service_monitor = || of_monitor("ServiceMonitor", "endpoints");
    let pod_monitor = of_monitor("PodMonitor", "podMetricsEndpoints");
    vec![
        vec![
            fragment(
                json!({"serviceMonitor": service}),
                service_monitor().into_iter().chain([is("ServiceMonitor/spec/endpoints/0/basicAuth", login)]),
            ),
            fragment(
                json!({"serviceMonitor": verified}),
                service_monitor().into_iter().chain([is("ServiceMonitor/spec/endpoints/0/tlsConfig", client)]),
            ),
        ],
        vec![fragment(json!({"podMonitor": endpoint}), pod_monitor)],
        vec![fragment(
            json!({"scrapeAnnotations": {"enabled": true}}),
            [is("Deployment/spec/template/metadata/annotations/prometheus.io~1scrape", json!("true"))],
        )],
        vec![fragment(
            json!({"prometheusRule": {
                "enabled": true, "namespace": "monitoring", "labels": {"release": "prometheus"}, "annotations": {"a": "b"},
                "alertLabels": {"team": "voice"}, "severities": {"critical": "page"}, "disabled": ["CekuraWatchesRejected"],
                "alerts": {"CekuraToggleStuck": {"threshold": 60}}, "runbookBaseUrl": "https://wiki.example.com/runbooks", "absent": true,
            }}),
            [
                is("PrometheusRule/metadata/namespace", json!("monitoring")),
                is("PrometheusRule/metadata/labels/release", json!("prometheus")),
                is("PrometheusRule/metadata/annotations/a", json!("b")),
            ],
        )],
        vec![fragment(
            json!({"dashboard": {
                "enabled": true, "namespace": "monitoring", "labels": {"grafana_dashboard": "yes"}, "annotations": {"grafana_folder": "Voice"},
            }}),
            [],
        )],
        vec![
            fragment(
                json!({"tls": {"enabled": true, "existingSecret": "own-tls", "caKey": "own.crt", "serverName": "a.example.com"}}),
                [
                    has(
                        of_pod("volumes"),
                        json!({"name": "tls", "secret": {"secretName": "own-tls", "defaultMode": 0o440}}),
                    ),
                    is(of_exporter("startupProbe/httpGet/scheme"), json!("HTTPS")),
                ],
            ),
            fragment(
                json!({"tls": {"enabled": true, "existingSecret": "issued", "caKey": "", "certificate": {
                    "enabled": true, "issuerRef": {"kind": "ClusterIssuer", "name": "letsencrypt"}, "dnsNames": ["a.example.com"],
                }}}),
                [
                    is("Certificate/spec/issuerRef", json!({"kind": "ClusterIssuer", "name": "letsencrypt"})),
                    is("Certificate/spec/dnsNames", json!(["a.example.com"])),
                    is("Certificate/spec/secretName", json!("issued")),
                ],
            ),
        ],
    ]
}

fn jobs() -> Vec<Vec<Fragment>> {
    let pod = "CronJob/spec/jobTemplate/spec/template/spec";
    let of_job =
        |name: &str, value: &str| has(format!("{pod}/containers/0/env"), json!({"name": name, "value": value}));
    let variable = json!({"name": "HTTPS_PROXY", "value": "http://proxy:3128"});
    let from = json!({"configMapRef": {"name": "variables"}});
    let volume = json!({"name": "tests-ca", "configMap": {"name": "company-ca"}});
    let mount = json!({"name": "tests-ca", "mountPath": "/etc/company-ca"});
    let of_sidecar = json!({"name": "sidecar-ca", "configMap": {"name": "company-ca"}});
    let mounted = json!({"name": "sidecar-ca", "mountPath": "/etc/company-ca"});
    vec![
        vec![fragment(json!({"sidecar": {"enabled": true, "config": {"shutdown": {"linger": "90s"}}}}), [])],
        vec![fragment(
            json!({
                "cronJob": {
                    "enabled": true, "name": "theirs", "schedule": "0 1 * * *", "image": "i:1", "command": ["a", "b"],
                    "cekuraUrl": "https://u", "toggleKey": {"existingSecret": "s", "key": "k"}, "agentId": 123_456_789,
                    "slot": "slot", "team": "team", "live": false, "activeDeadlineSeconds": 3_600_000, "runAsUser": 7,
                    "resources": {"limits": {"cpu": "9"}}, "extraEnv": [variable], "extraEnvFrom": [from], "extraVolumes": [volume],
                    "extraVolumeMounts": [mount],
                },
                "sidecar": {
                    "resources": {"limits": {"memory": "64Mi"}}, "extraVolumes": [of_sidecar], "extraVolumeMounts": [mounted],
                },
            }),
            [
                has(format!("{pod}/containers/0/env"), variable.clone()),
                has(format!("{pod}/containers/0/envFrom"), from.clone()),
                has(format!("{pod}/containers/0/volumeMounts"), mount.clone()),
                has(format!("{pod}/volumes"), volume.clone()),
                has(format!("{pod}/initContainers/0/volumeMounts"), mounted.clone()),
                has(format!("{pod}/volumes"), of_sidecar.clone()),
                is("CronJob/metadata/name", json!("theirs")),
                is("CronJob/spec/schedule", json!("0 1 * * *")),
                is("CronJob/spec/jobTemplate/spec/activeDeadlineSeconds", json!(3_600_000)),
                is(format!("{pod}/initContainers/0/resources/limits/memory"), json!("64Mi")),
                is(format!("{pod}/containers/0/image"), json!("i:1")),
                is(format!("{pod}/containers/0/args"), json!(["a", "b"])),
                is(format!("{pod}/containers/0/resources/limits/cpu"), json!("9")),
                of_job("CEKURA_URL", "https://u"),
                of_job("CEKURA_KEY_FILE", "/run/secrets/cekura-toggle/k"),
                of_job("AGENT_ID", "123456789"),
                of_job("SLOT", "slot"),
                of_job("TEAM", "team"),
                of_job("LIVE", "false"),
                has(
                    format!("{pod}/volumes"),
                    json!({"name": "toggle-key", "secret": {"secretName": "s", "defaultMode": 0o444}}),
                ),
            ],
        )],
    ]
}
