{{- /* The pods of a role. */}}

{{- define "notifier.graceSeconds" -}}
{{- $values := index .root.Values .role }}
{{- $drain := ternary .root.Values.config.NOTIFIER_DRAIN_SECONDS 0 (eq .role "gateway") }}
{{- add $values.preStopSeconds $values.flushSeconds (ceil $drain) }}
{{- end }}

{{- define "notifier.probe" -}}
httpGet:
  path: {{ .path }}
  port: private
{{ toYaml .timing }}
{{- end }}

{{- define "notifier.podTemplate" -}}
{{- $root := .root }}
{{- $role := .role }}
{{- $values := index $root.Values $role }}
{{- $pod := include "notifier.pod" . | fromJson -}}
metadata:
  labels: {{- merge (include "notifier.roleSelectorLabels" . | fromYaml) (default dict $pod.labels) $root.Values.commonLabels | toYaml | nindent 4 }}
  annotations:
    checksum/config: {{ include "notifier.config" . | sha256sum }}
    checksum/secrets: {{ include "notifier.secretValuesOf" . | sha256sum }}
    {{- with merge (dict) (default dict $pod.annotations) $root.Values.commonAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  {{- include "notifier.pullSecrets" $root | nindent 2 }}
  serviceAccountName: {{ include "notifier.serviceAccountName" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false # they would be taken for misspelt settings
  terminationGracePeriodSeconds: {{ include "notifier.graceSeconds" . }}
  securityContext: {{- toYaml $pod.securityContext | nindent 4 }}
  {{- range $key := list "nodeSelector" "tolerations" "affinity" "priorityClassName" "runtimeClassName" }}
  {{- with index $pod $key }}
  {{ $key }}: {{- if kindIs "string" . }} {{ . }}{{ else }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- end }}
  {{- end }}
  {{- with $pod.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- $selector := include "notifier.roleSelectorLabels" $ | fromYaml }}
    {{- range . }}
    - {{ merge (dict) . (dict "labelSelector" (dict "matchLabels" $selector) "matchLabelKeys" (list "pod-template-hash")) | toYaml | indent 6 | trim }}
    {{- end }}
  {{- end }}
  {{- with $pod.initContainers }}
  initContainers: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - {{ include "notifier.container" . | indent 6 | trim }}
    {{- with $pod.extraContainers }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- with include "notifier.volumes" . }}{{ nindent 2 . }}{{ end }}
{{- end }}

{{- define "notifier.container" -}}
{{- $root := .root }}
{{- $role := .role }}
{{- $values := index $root.Values $role }}
{{- $pod := include "notifier.pod" . | fromJson -}}
name: notifier
image: {{ include "notifier.image" $root }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
args: [{{ $role }}]
ports:
  {{- if ne $role "router" }}
  - name: http
    containerPort: {{ index $root.Values.config (ternary "NOTIFIER_GATEWAY_PORT" "NOTIFIER_API_PORT" (eq $role "gateway")) }}
  {{- end }}
  - name: private
    containerPort: {{ $root.Values.config.NOTIFIER_PRIVATE_PORT }}
envFrom:
  - configMapRef:
      name: {{ include "notifier.roleName" . }}
{{- include "notifier.env" . }}
livenessProbe: {{- include "notifier.probe" (dict "path" "/livez" "timing" $pod.livenessProbe) | nindent 2 }}
readinessProbe: {{- include "notifier.probe" (dict "path" "/readyz" "timing" $pod.readinessProbe) | nindent 2 }}
startupProbe: {{- include "notifier.probe" (dict "path" "/livez" "timing" $pod.startupProbe) | nindent 2 }}
{{- if $values.preStopSeconds }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ $values.preStopSeconds }}
{{- end }}
resources: {{- toYaml $values.resources | nindent 2 }}
securityContext: {{- toYaml $pod.containerSecurityContext | nindent 2 }}
{{- include "notifier.volumeMounts" . }}
{{- end }}

{{- define "notifier.env" -}}
{{- $pod := include "notifier.pod" . | fromJson }}
{{- $secrets := include "notifier.secretsOf" . | fromJson }}
{{- if or $secrets $pod.extraEnv (include "notifier.caVolume" .root) }}
env:
  {{- range $name := keys $secrets | sortAlpha }}
  - name: {{ $name }}_FILE
    value: /run/secrets/notifier/{{ $name }}
  {{- end }}
  {{- if include "notifier.caVolume" .root }}
  - name: SSL_CERT_FILE
    value: /etc/notifier/ca/ca.crt
  {{- end }}
  {{- with $pod.extraEnv }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}
{{- end }}

{{- define "notifier.volumeMounts" -}}
{{- $pod := include "notifier.pod" . | fromJson }}
{{- $secrets := include "notifier.secretsOf" . | fromJson }}
{{- if or $secrets $pod.extraVolumeMounts (include "notifier.caVolume" .root) }}
volumeMounts:
  {{- if $secrets }}
  - name: secrets
    mountPath: /run/secrets/notifier
    readOnly: true
  {{- end }}
  {{- if include "notifier.caVolume" .root }}
  - name: ca
    mountPath: /etc/notifier/ca
    readOnly: true
  {{- end }}
  {{- with $pod.extraVolumeMounts }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}
{{- end }}

{{- define "notifier.volumes" -}}
{{- $pod := include "notifier.pod" . | fromJson }}
{{- $secrets := include "notifier.secretsOf" . | fromJson }}
{{- $ca := include "notifier.caVolume" .root }}
{{- if or $secrets $pod.extraVolumes $ca -}}
volumes:
  {{- if $secrets }}
  - {{ include "notifier.secretVolume" $secrets | indent 4 | trim }}
  {{- end }}
  {{- with $ca }}
  - {{ . | indent 4 | trim }}
  {{- end }}
  {{- with $pod.extraVolumes }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}
{{- end }}

{{- define "notifier.secretVolume" -}}
name: secrets
projected:
  defaultMode: 0440
  sources:
    {{- range $name := keys . | sortAlpha }}
    {{- $place := index $ $name }}
    - secret:
        name: {{ $place.secret }}
        items:
          - key: {{ $place.key }}
            path: {{ $name }}
    {{- end }}
{{- end }}

{{- define "notifier.caVolume" -}}
{{- $items := list (dict "key" .Values.ca.key "path" "ca.crt") }}
{{- if .Values.ca.existingSecret -}}
name: ca
secret:
  secretName: {{ .Values.ca.existingSecret }}
  defaultMode: 0440
  items: {{- toYaml $items | nindent 4 }}
{{- else if .Values.ca.existingConfigMap -}}
name: ca
configMap:
  name: {{ .Values.ca.existingConfigMap }}
  defaultMode: 0444
  items: {{- toYaml $items | nindent 4 }}
{{- end }}
{{- end }}
