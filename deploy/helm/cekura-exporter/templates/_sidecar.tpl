{{- /* The exporter as a native sidecar, for other charts: an element of initContainers. */}}
{{- define "cekura-exporter.sidecar.container" -}}
name: cekura-exporter
image: {{ include "cekura-exporter.image" . }}
{{- if ne .Values.image.pullPolicy "IfNotPresent" }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}
restartPolicy: Always
args:
  - --config.file=/etc/cekura-exporter/config.yaml
  {{- with .Values.args }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.env }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - name: cekura-metrics
    containerPort: 10058
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
  {{- include "cekura-exporter.confined" . | nindent 2 }}
startupProbe:
  httpGet: {path: /-/ready, port: cekura-metrics}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /-/healthy, port: cekura-metrics}
  timeoutSeconds: 5
volumeMounts:
  - {name: cekura-toggles, mountPath: /toggles, readOnly: true}
  - {name: cekura-exporter-config, mountPath: /etc/cekura-exporter, readOnly: true}
  - {name: cekura-exporter-state, mountPath: /var/lib/cekura-exporter}
  {{- range $name, $key := .Values.apis }}
  - name: cekura-{{ include "cekura-exporter.volume" (list $.Values.apis $name) }}
    mountPath: {{ include "cekura-exporter.keys" $name }}
    readOnly: true
  {{- end }}
{{- end }}

{{- /* Its volumes, for other charts: elements of volumes. */}}
{{- define "cekura-exporter.sidecar.volumes" -}}
- name: cekura-toggles
  emptyDir: {sizeLimit: 16Mi}
- name: cekura-exporter-state
  emptyDir: {sizeLimit: 128Mi}
- name: cekura-exporter-config
  configMap:
    name: {{ include "cekura-exporter.name" . }}-sidecar
{{- range $name, $key := .Values.apis }}
- name: cekura-{{ include "cekura-exporter.volume" (list $.Values.apis $name) }}
  secret:
    secretName: {{ $key.existingSecret }}
    optional: true
{{- end }}
{{- end }}

{{- /* The label of its pod, by which the PodMonitor finds it. */}}
{{- define "cekura-exporter.sidecar.labels" -}}
cekura-exporter/sidecar: "true"
{{- end }}

{{- /* The least terminationGracePeriodSeconds of its pod. */}}
{{- define "cekura-exporter.sidecar.grace" -}}
{{ include "cekura-exporter.grace" .Values.sidecar.config }}
{{- end }}

{{- /* The name of the volume of an API's key. Names of APIs are no names of volumes. Takes all and one. */}}
{{- define "cekura-exporter.volume" -}}
{{- $one := index . 1 }}
{{- if eq $one "default" }}api-key
{{- else }}{{ range $index, $name := index . 0 | keys | sortAlpha }}{{ if eq $name $one }}api-key-{{ $index }}{{ end }}{{ end }}
{{- end }}
{{- end }}
