{{- /* The folder of an API's key. */}}
{{- define "cekura-exporter.keys" -}}
{{ if eq . "default" }}/run/secrets/cekura{{ else }}/run/secrets/cekura-{{ . }}{{ end }}
{{- end }}

{{- /* The name of the volume of an API's key. Names of APIs are no names of volumes. Takes all and one. */}}
{{- define "cekura-exporter.volume" -}}
{{- $one := index . 1 }}
{{- if eq $one "default" }}api-key
{{- else }}{{ range $index, $name := index . 0 | keys | sortAlpha }}{{ if eq $name $one }}api-key-{{ $index }}{{ end }}{{ end }}
{{- end }}
{{- end }}

{{- /* A configuration with the files of the keys in it. Takes the values and the configuration. */}}
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

{{- /* The terminationGracePeriodSeconds that a configuration needs: its shutdown.linger, the 10 s that requests in
progress get, and some more. */}}
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
