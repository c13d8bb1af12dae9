{{- /* The exporter as a native sidecar, for other charts: an element of initContainers. */}}
{{- define "cekura-exporter.sidecar.container" -}}
name: cekura-exporter
image: {{ include "cekura-exporter.image" . }}
{{- with .Values.image.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
restartPolicy: Always
args:
  - --config.file=/etc/cekura-exporter/config.yaml
  {{- with .Values.extraArgs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with include "cekura-exporter.environment" . }}
{{- . }}
{{- end }}
ports:
  - name: cekura-metrics
    containerPort: 10058
resources:
  {{- toYaml .Values.sidecar.resources | nindent 2 }}
{{- $own := .Values.securityContext | default dict }}
{{- $of_pod := include "cekura-exporter.podsecurity" . | fromYaml }}
{{- with merge (deepCopy $own) (pick $of_pod "runAsNonRoot" "runAsUser" "runAsGroup" "seccompProfile") }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
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
  {{- with .Values.sidecar.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
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
    name: {{ include "cekura-exporter.fullname" . }}-sidecar
{{- range $name, $key := .Values.apis }}
- name: cekura-{{ include "cekura-exporter.volume" (list $.Values.apis $name) }}
  secret:
    secretName: {{ $key.existingSecret }}
    optional: true
{{- end }}
{{- with .Values.sidecar.extraVolumes }}
{{ toYaml . }}
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
