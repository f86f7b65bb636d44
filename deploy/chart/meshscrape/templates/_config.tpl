{{/* The configuration file. */}}
{{- define "meshscrape.config" -}}
{{- if .Values.config.file }}
{{- .Values.config.file }}
{{- else -}}
global:
  scrape_interval: {{ .Values.config.scrapeInterval }}
  require_identity: true
  {{- with .Values.config.externalLabels }}
  external_labels:
    {{- toYaml . | nindent 4 }}
  {{- end }}
scrape_configs:
  {{- include "meshscrape.job" (dict "name" "istio-secure-merged-metrics" "port" "merged" "root" .) | nindent 2 }}
  {{- include "meshscrape.job" (dict "name" "istio-secure-envoy-metrics" "port" "envoy" "root" .) | nindent 2 }}
  {{- with .Values.config.extraScrapeConfigs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
remote_write:
  {{- toYaml .Values.config.remoteWrite | nindent 2 }}
{{ end }}
{{- end }}

{{- define "meshscrape.job" -}}
- job_name: {{ .name }}
  istio_sd_configs:
    - port: {{ .port }}
      scope: {{ eq .root.Values.kind "DaemonSet" | ternary "node" "cluster" }}
      {{- with .root.Values.rbac.namespaces }}
      namespaces:
        names:
          {{- toYaml . | nindent 10 }}
      {{- end }}
  {{- if eq .root.Values.certificates.from "csi-driver-spiffe" }}
  tls_config:
    cert_file: /var/run/secrets/spiffe.io/tls.crt
    key_file: /var/run/secrets/spiffe.io/tls.key
    ca_file: /var/run/secrets/spiffe.io/ca.crt
    spiffe: {}
  {{- end }}
  {{- if and (eq .root.Values.kind "StatefulSet") (not .root.Values.replicated) }}
  relabel_configs:
    # Pods are dealt to the agents by the hash of their UID; the number of this one stands between two labels that do not
    # exist.
    - source_labels: [__meta_kubernetes_pod_uid]
      action: hashmod
      modulus: ${SHARDS}
      target_label: __tmp_shard
    - source_labels: [__tmp_none, __tmp_none]
      separator: ${SHARD}
      target_label: __tmp_own_shard
    - source_labels: [__tmp_shard]
      action: keepequal
      target_label: __tmp_own_shard
  {{- end }}
{{- end }}
