{{- /* Names, labels and annotations. A role's own take a dict of root and role. */}}

{{- define "notifier.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "notifier.fullname" -}}
{{- $name := include "notifier.name" . }}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "notifier.roleName" -}}
{{ include "notifier.fullname" .root }}-{{ .role }}
{{- end }}

{{- define "notifier.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "notifier.fullname" .) .Values.serviceAccount.name }}
{{- else }}{{ default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "notifier.selectorLabels" -}}
app.kubernetes.io/name: {{ include "notifier.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "notifier.roleSelectorLabels" -}}
{{ include "notifier.selectorLabels" .root }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{- /* What every object's metadata begins with. `role`, `labels` and `annotations` may be left out. */}}
{{- define "notifier.metadata" -}}
{{- $labels := include "notifier.selectorLabels" .root | fromYaml }}
{{- with .role }}{{ $_ := set $labels "app.kubernetes.io/component" . }}{{ end }}
{{- $_ := set $labels "app.kubernetes.io/version" .root.Chart.AppVersion }}
{{- $_ := set $labels "app.kubernetes.io/managed-by" .root.Release.Service }}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels: {{- merge $labels (default dict .labels) .root.Values.commonLabels | toYaml | nindent 2 }}
{{- with merge (dict) (default dict .annotations) .root.Values.commonAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "notifier.image" -}}
{{- $image := .Values.image }}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}
{{- else }}{{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}
{{- end }}
{{- end }}
