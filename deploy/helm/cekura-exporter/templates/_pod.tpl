{{- /* The security context of a pod, without what OpenShift chooses. */}}
{{- define "cekura-exporter.podsecurity" -}}
{{- $context := .Values.podSecurityContext | default dict }}
{{- if .Values.openshift }}
{{- $context = omit $context "runAsUser" "runAsGroup" "fsGroup" "fsGroupChangePolicy" }}
{{- end }}
{{- with $context }}{{ toYaml . }}{{ end }}
{{- end }}

{{- /* A probe, over HTTPS if that is what the exporter serves. Takes the context and the probe. */}}
{{- define "cekura-exporter.probe" -}}
{{- $probe := deepCopy .probe }}
{{- if and $probe.httpGet .context.Values.tls.enabled (not $probe.httpGet.scheme) }}
{{- $_ := set $probe.httpGet "scheme" "HTTPS" }}
{{- end }}
{{- toYaml $probe }}
{{- end }}

{{- /* The environment of the exporter's container, if there is any. */}}
{{- define "cekura-exporter.environment" -}}
{{- with .Values.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* The annotations of the exporter's pod, if it has any. */}}
{{- define "cekura-exporter.podannotations" -}}
{{- $annotations := dict }}
{{- if .Values.rolloutOnConfigChange }}
{{- $_ := set $annotations "checksum/config" (include "cekura-exporter.central.config" . | sha256sum) }}
{{- end }}
{{- /* Where the state is cannot change while the exporter runs. */}}
{{- $central := include "cekura-exporter.central.config" . | fromYaml }}
{{- if or .Values.database.existingSecret .Values.config.state_file }}
{{- $_ := set $annotations "checksum/state" (pick $central "database" "state_file" | toJson | sha256sum) }}
{{- end }}
{{- if .Values.scrapeAnnotations.enabled }}
{{- $_ := set $annotations "prometheus.io/scrape" "true" }}
{{- $_ := set $annotations "prometheus.io/port" "10058" }}
{{- $_ := set $annotations "prometheus.io/path" "/metrics" }}
{{- end }}
{{- if or .Values.scrapeAnnotations.enabled .Values.tls.enabled }}
{{- $_ := set $annotations "prometheus.io/scheme" (ternary "https" "http" .Values.tls.enabled) }}
{{- end }}
{{- with mergeOverwrite $annotations .Values.podAnnotations }}{{ toYaml . }}{{ end }}
{{- end }}
