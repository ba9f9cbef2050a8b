{{- /* Names, labels and annotations. A role's own take a dict of root and role. */}}

{{- /* A name that leaves room for a role's. A long one ends in a hash: two with one beginning stay two. */}}
{{- define "notifier.short" -}}
{{- if gt (len .) 40 }}{{ . | trunc 31 | trimSuffix "-" }}-{{ . | sha256sum | trunc 8 }}
{{- else }}{{ . | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "notifier.name" -}}
{{ include "notifier.short" (default .Chart.Name .Values.nameOverride) }}
{{- end }}

{{- define "notifier.fullname" -}}
{{- $name := include "notifier.name" . }}
{{- if .Values.fullnameOverride }}{{ include "notifier.short" .Values.fullnameOverride }}
{{- else if contains $name .Release.Name }}{{ include "notifier.short" .Release.Name }}
{{- else }}{{ include "notifier.short" (printf "%s-%s" .Release.Name $name) }}
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
{{- $registry := (default dict .Values.global).imageRegistry }}
{{- with $registry }}{{ trimSuffix "/" . }}/{{ end }}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}
{{- else }}{{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}
{{- end }}
{{- end }}

{{- /* `imagePullSecrets` and those of `global`, which may also be plain names. */}}
{{- define "notifier.pullSecrets" -}}
{{- $found := list }}
{{- range concat (default list (default dict .Values.global).imagePullSecrets) (default list .Values.imagePullSecrets) }}
{{- $found = append $found (ternary (dict "name" .) . (kindIs "string" .)) }}
{{- end }}
{{- with $found | uniq }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
