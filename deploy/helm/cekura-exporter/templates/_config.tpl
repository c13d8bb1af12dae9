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

{{- /* The name of the Secret of the certificate. */}}
{{- define "cekura-exporter.tls" -}}
{{ .Values.tls.existingSecret | default (printf "%s-tls" (include "cekura-exporter.fullname" .)) }}
{{- end }}

{{- /* Whether the exporter keeps its state on a volume: `true` or nothing. */}}
{{- define "cekura-exporter.stateful" -}}
{{- if and .Values.persistence.enabled (not .Values.database.existingSecret) }}true{{ end }}
{{- end }}

{{- /* The configuration of the central exporter. */}}
{{- define "cekura-exporter.central.config" -}}
{{- $config := deepCopy .Values.config }}
{{- $database := .Values.database }}
{{- $stored := eq "true" (include "cekura-exporter.stateful" .) }}
{{- if hasKey $config "database" }}
{{- fail "config.database: set `database` of the chart instead: it mounts the Secret, and needs no volume" }}
{{- end }}
{{- if and $config.state_file $database.existingSecret }}
{{- fail "config.state_file: with database.existingSecret, the state is in the database: leave it out" }}
{{- end }}
{{- if and $config.state_file (not (and .Values.persistence.enabled (hasPrefix "/var/lib/cekura-exporter/" $config.state_file))) }}
{{- fail "config.state_file: the volume of persistence.enabled is at /var/lib/cekura-exporter and nowhere else: name a file there, or leave it out" }}
{{- end }}
{{- if and (gt (int .Values.replicas) 1) (not $database.existingSecret) (or .Values.persistence.enabled ($config.registrations | default dict).enabled) }}
{{- fail "replicas: several exporters share a database: set database.existingSecret, or, if each may poll everything, persistence.enabled=false and config.registrations.enabled=false" }}
{{- end }}
{{- if and (not $stored) (not $database.existingSecret) ($config.registrations | default dict).enabled }}
{{- fail "registrations must survive a restart: set persistence.enabled=true or database.existingSecret, or config.registrations.enabled=false" }}
{{- end }}
{{- if $database.existingSecret }}
{{- $of := dict "url_file" (printf "/run/secrets/database/%s" $database.urlKey) "lease" $database.lease }}
{{- with $database.passwordKey }}
{{- $_ := set $of "password_file" (printf "/run/secrets/database/%s" .) }}
{{- end }}
{{- with $database.caKey }}
{{- $_ := set $of "ca_file" (printf "/run/secrets/database/%s" .) }}
{{- end }}
{{- $_ := set $config "database" $of }}
{{- end }}
{{- if and $stored (not $config.state_file) }}
{{- $_ := set $config "state_file" "/var/lib/cekura-exporter/state" }}
{{- end }}
{{- if and .Values.externalUrl $config.external_url }}
{{- fail "externalUrl and config.external_url are the same: set one of them" }}
{{- end }}
{{- with .Values.externalUrl }}
{{- $_ := set $config "external_url" . }}
{{- end }}
{{- include "cekura-exporter.config" (dict "values" .Values "config" $config) }}
{{- end }}
