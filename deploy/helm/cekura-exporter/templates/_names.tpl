{{- /* The name of all that is made: the release's, unless it says nothing of the exporter. */}}
{{- define "cekura-exporter.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" (.Release.Name | trunc 34 | trimSuffix "-") .Chart.Name }}{{ end }}
{{- end }}

{{- /* By what the exporter of this release is selected, and of no other. */}}
{{- define "cekura-exporter.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "cekura-exporter.labels" -}}
{{ include "cekura-exporter.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "cekura-exporter.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* Where the folder of an API's key is. */}}
{{- define "cekura-exporter.keys" -}}
{{ if eq . "default" }}/run/secrets/cekura{{ else }}/run/secrets/cekura-{{ . }}{{ end }}
{{- end }}

{{- /* A configuration with the keys' files in it. Takes the values and the configuration. */}}
{{- define "cekura-exporter.config" -}}
{{- $config := deepCopy .config }}
{{- $apis := $config.apis | default dict }}
{{- range $name, $key := .values.apis }}
{{- $api := get $apis $name | default dict }}
{{- $_ := set $api "api_key_file" (printf "%s/%s" (include "cekura-exporter.keys" $name) $key.key) }}
{{- $_ := set $apis $name $api }}
{{- end }}
{{- $_ := set $config "apis" $apis }}
{{- toYaml $config }}
{{- end }}

{{- /* The terminationGracePeriodSeconds that a configuration needs: its shutdown.linger, the 10 s that
requests under way get, and some more. */}}
{{- define "cekura-exporter.grace" -}}
{{- $units := dict "d" 86400 "h" 3600 "m" 60 "s" 1 "ms" 0 }}
{{- $seconds := 30 }}
{{- range regexFindAll "[0-9]+(ms|d|h|m|s)" ((.shutdown | default dict).linger | default "0s") -1 }}
{{- $seconds = add $seconds (mul (regexFind "[0-9]+" . | int64) (get $units (regexFind "[a-z]+" .))) }}
{{- end }}
{{- $seconds }}
{{- end }}

{{- /* Whether the exporter keeps its state on a volume: `true` or nothing. */}}
{{- define "cekura-exporter.stateful" -}}
{{- if and .Values.persistence.enabled (not .Values.database.existingSecret) }}true{{ end }}
{{- end }}

{{- /* What keeps a container from more than it needs. */}}
{{- define "cekura-exporter.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
