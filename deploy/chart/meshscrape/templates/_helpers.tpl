{{- define "meshscrape.selector" -}}
app.kubernetes.io/name: meshscrape
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "meshscrape.labels" -}}
{{ include "meshscrape.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Of what lies outside of the release's namespace: the namespace tells releases of one name apart. */}}
{{- define "meshscrape.wideName" -}}
{{ eq .Release.Name .Release.Namespace | ternary .Release.Name (printf "%s-%s" .Release.Namespace .Release.Name) }}
{{- end }}

{{- define "meshscrape.subject" -}}
- kind: ServiceAccount
  name: {{ .Release.Name }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{/* Where the agent finds its certificates. */}}
{{- define "meshscrape.certificates" -}}
{{ eq .Values.certificates.from "csi-driver-spiffe" | ternary "/var/run/secrets/spiffe.io" "/etc/istio-certs" }}
{{- end }}

{{/* What one container may do: nothing. */}}
{{- define "meshscrape.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
