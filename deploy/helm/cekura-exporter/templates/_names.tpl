{{- /* The value of app.kubernetes.io/name. */}}
{{- define "cekura-exporter.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* The name of all objects: that of the release, with that of the chart unless it is in it. Up to 50 characters, so that
there is room for what is appended. */}}
{{- define "cekura-exporter.fullname" -}}
{{- $name := include "cekura-exporter.name" . }}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" (.Release.Name | trunc 34 | trimSuffix "-") $name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- /* The namespace of all objects. */}}
{{- define "cekura-exporter.namespace" -}}
{{ .Values.namespaceOverride | default .Release.Namespace }}
{{- end }}

{{- /* The labels that select the exporter of this release, and no other. */}}
{{- define "cekura-exporter.selector" -}}
app.kubernetes.io/name: {{ include "cekura-exporter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* The labels that say what an object belongs to. */}}
{{- define "cekura-exporter.origin" -}}
{{ include "cekura-exporter.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* The labels of an object without labels of its own. */}}
{{- define "cekura-exporter.labels" -}}
{{- mergeOverwrite (deepCopy .Values.commonLabels) (include "cekura-exporter.origin" . | fromYaml) | toYaml }}
{{- end }}

{{- /* The metadata of an object. Takes the context, what is appended to its name, and its own namespace, labels and
annotations, if it has any. */}}
{{- define "cekura-exporter.metadata" -}}
{{- $own := .own | default dict -}}
name: {{ include "cekura-exporter.fullname" .context }}{{ .suffix }}
namespace: {{ $own.namespace | default (include "cekura-exporter.namespace" .context) }}
labels:
  {{- $origin := include "cekura-exporter.origin" .context | fromYaml }}
  {{- mergeOverwrite (deepCopy .context.Values.commonLabels) ($own.labels | default dict) $origin | toYaml | nindent 2 }}
{{- with mergeOverwrite (deepCopy .context.Values.commonAnnotations) ($own.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* The image, with its registry, and by its digest if there is one. */}}
{{- define "cekura-exporter.image" -}}
{{- $image := .Values.image }}
{{- $registry := (.Values.global | default dict).imageRegistry | default $image.registry }}
{{- with $registry }}{{ trimSuffix "/" . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- /* The name of the ServiceAccount. */}}
{{- define "cekura-exporter.serviceaccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "cekura-exporter.fullname" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}
