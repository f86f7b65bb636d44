{{/* The pod of a DaemonSet or StatefulSet. */}}
{{- define "meshscrape.pod" -}}
{{- $istio := eq .Values.certificates.from "istio" -}}
metadata:
  labels:
    {{- include "meshscrape.selector" . | nindent 4 }}
    app.kubernetes.io/version: {{ .Chart.AppVersion }}
    sidecar.istio.io/inject: {{ $istio | quote }}
    {{- if $istio }}
    security.istio.io/tlsMode: disabled
    {{- with .Values.certificates.istio.revision }}
    istio.io/rev: {{ . }}
    {{- end }}
    {{- end }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/config: {{ include "meshscrape.config" . | sha256sum }}
    kubectl.kubernetes.io/default-container: meshscrape
    {{- if $istio }}
    proxy.istio.io/config: |
      concurrency: 1
      proxyMetadata:
        OUTPUT_CERTS: /etc/istio-certs
        ISTIO_META_DNS_CAPTURE: "false"
        ENVOY_SECURE_MERGED_METRICS_PORT: "15092"
        METRICS_LOCALHOST_ACCESS_ONLY: "true"
    sidecar.istio.io/userVolumeMount: '[{"name": "certificates", "mountPath": "/etc/istio-certs"}]'
    traffic.sidecar.istio.io/includeInboundPorts: ""
    traffic.sidecar.istio.io/includeOutboundIPRanges: ""
    sidecar.istio.io/rewriteAppHTTPProbers: "false"
    prometheus.istio.io/merge-metrics: "false"
    sidecar.istio.io/proxyCPU: 10m
    sidecar.istio.io/proxyMemory: 64Mi
    sidecar.istio.io/proxyMemoryLimit: 256Mi
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ .Release.Name }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .Values.priorityClass.name }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if eq .Values.kind "DaemonSet" }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- else }}
  topologySpreadConstraints:
    - topologyKey: kubernetes.io/hostname
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "meshscrape.selector" . | nindent 10 }}
  {{- end }}
  terminationGracePeriodSeconds: 30
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    {{- if eq .Values.certificates.from "secret" }}
    fsGroup: 65532
    {{- end }}
    seccompProfile:
      type: RuntimeDefault
  {{- if eq .Values.certificates.from "spiffe-helper" }}
  initContainers:
    - name: spiffe-helper
      image: {{ .Values.certificates.spiffeHelper.image }}
      restartPolicy: Always
      args: [-config, /etc/spiffe-helper/helper.conf]
      resources:
        requests:
          cpu: 5m
          memory: 16Mi
        limits:
          memory: 64Mi
      securityContext:
        {{- include "meshscrape.securityContext" . | nindent 8 }}
      volumeMounts:
        - name: spiffe-helper
          mountPath: /etc/spiffe-helper
          readOnly: true
        - name: spiffe-workload-api
          mountPath: /spiffe-workload-api
          readOnly: true
        - name: certificates
          mountPath: /etc/istio-certs
  {{- end }}
  containers:
    - name: meshscrape
      image: {{ required "no image is published: build it (deploy/image/Containerfile), push it, and give --set image.repository=REGISTRY/meshscrape" .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
      args:
        - run
        - --config=/etc/meshscrape/meshscrape.yaml
        - --data-dir=/var/lib/meshscrape
        - --log-format=json
        {{- if .Values.meshListener.allow }}
        {{- if eq .Values.certificates.from "csi-driver-spiffe" }}
        {{- fail "meshListener needs certificates in /etc/istio-certs, and csi-driver-spiffe gives the files other names" }}
        {{- end }}
        - --mesh-listen=[::]:{{ .Values.meshListener.port }}
        {{- range .Values.meshListener.allow }}
        - --mesh-allow={{ . }}
        {{- end }}
        {{- end }}
        {{- with .Values.extraArgs }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      env:
        - name: NODE_NAME
          valueFrom:
            fieldRef:
              fieldPath: spec.nodeName
        {{- if eq .Values.kind "StatefulSet" }}
        - name: POD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        {{- if not .Values.replicated }}
        - name: SHARD
          valueFrom:
            fieldRef:
              fieldPath: metadata.labels['apps.kubernetes.io/pod-index']
        - name: SHARDS
          value: {{ .Values.replicas | quote }}
        {{- end }}
        {{- end }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: metrics
          containerPort: 9464
        {{- if .Values.meshListener.allow }}
        - name: mesh
          containerPort: {{ .Values.meshListener.port }}
        {{- end }}
      livenessProbe:
        httpGet:
          path: /-/healthy
          port: metrics
        timeoutSeconds: 5
      readinessProbe:
        httpGet:
          path: /-/ready
          port: metrics
        periodSeconds: 5
        timeoutSeconds: 5
      resources:
        {{- ternary .Values.resources .Values.clusterResources (eq .Values.kind "DaemonSet") | toYaml | nindent 8 }}
      securityContext:
        {{- include "meshscrape.securityContext" . | nindent 8 }}
      volumeMounts:
        - name: config
          mountPath: /etc/meshscrape
          readOnly: true
        - name: certificates
          mountPath: {{ include "meshscrape.certificates" . }}
          readOnly: true
        - name: api-token
          mountPath: /var/run/secrets/kubernetes.io/serviceaccount
          readOnly: true
        - name: data
          mountPath: /var/lib/meshscrape
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ .Release.Name }}
    - name: certificates
      {{- if eq .Values.certificates.from "csi-driver-spiffe" }}
      csi:
        driver: spiffe.csi.cert-manager.io
        readOnly: true
        volumeAttributes:
          spiffe.csi.cert-manager.io/fs-group: "65532"
      {{- else if eq .Values.certificates.from "secret" }}
      secret:
        secretName: {{ .Values.certificates.secret.name }}
        defaultMode: 0440
        items:
          - key: tls.crt
            path: cert-chain.pem
          - key: tls.key
            path: key.pem
          - key: ca.crt
            path: root-cert.pem
      {{- else }}
      emptyDir:
        medium: Memory
        sizeLimit: 1Mi
      {{- end }}
    - name: data
      emptyDir: {}
    {{- if eq .Values.certificates.from "spiffe-helper" }}
    - name: spiffe-helper
      configMap:
        name: {{ .Release.Name }}-spiffe-helper
    - name: spiffe-workload-api
      csi:
        driver: csi.spiffe.io
        readOnly: true
    {{- end }}
    - name: api-token
      projected:
        sources:
          - serviceAccountToken:
              path: token
              expirationSeconds: 3607
          - configMap:
              name: kube-root-ca.crt
              items:
                - key: ca.crt
                  path: ca.crt
          - downwardAPI:
              items:
                - path: namespace
                  fieldRef:
                    fieldPath: metadata.namespace
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
