{{- /* From values to notifier's settings: `config` by a ConfigMap, secret ones by mounted files. */}}

{{- /* A value as a variable's text. Numbers are floats in Helm: as text, a large one would become 1e+06. */}}
{{- define "notifier.text" -}}
{{- if kindIs "slice" . }}{{ join "," . }}
{{- else if kindIs "string" . }}{{ . }}
{{- else }}{{ toJson . }}
{{- end }}
{{- end }}

{{- /* Who reads a setting, where not all roles do: another's change must not move clients. */}}
{{- define "notifier.readers" -}}
NOTIFIER_GATEWAY_PORT: [gateway]
NOTIFIER_GATEWAY_PORT_SHARED: [gateway]
NOTIFIER_API_PORT: [api]
NOTIFIER_PARTITIONS: [router, api]
NOTIFIER_JWT_PUBLIC_KEY: [gateway]
NOTIFIER_JWKS_URL: [gateway]
NOTIFIER_JWT_DISCOVERY_URL: [gateway]
NOTIFIER_JWT_ISSUER: [gateway]
NOTIFIER_JWT_AUDIENCE: [gateway]
NOTIFIER_JWT_USER_CLAIM: [gateway]
NOTIFIER_JWT_TOPICS_CLAIM: [gateway]
NOTIFIER_JWT_LEEWAY_SECONDS: [gateway]
NOTIFIER_DOCS: [gateway, api]
NOTIFIER_ALLOWED_ORIGINS: [gateway]
NOTIFIER_TRUSTED_PROXIES: [gateway, api]
NOTIFIER_HEARTBEAT_SECONDS: [gateway]
NOTIFIER_SEND_BUFFER_BYTES: [gateway]
NOTIFIER_SEND_BUFFER_TOTAL_BYTES: [gateway]
NOTIFIER_DRAIN_RATE: [gateway]
NOTIFIER_DRAIN_SECONDS: [gateway]
NOTIFIER_MAX_CONNECTIONS: [gateway]
NOTIFIER_CONNECT_RATE: [gateway]
NOTIFIER_CONNECTIONS_PER_USER: [gateway]
NOTIFIER_TOPICS_PER_CONNECTION: [gateway]
NOTIFIER_FRAME_RATE: [gateway]
NOTIFIER_BYTE_RATE: [gateway]
NOTIFIER_MAX_CONNECTION_AGE_SECONDS: [gateway]
{{- end }}

{{- /* The settings of a role. */}}
{{- define "notifier.config" -}}
{{- $role := .role }}
{{- $readers := include "notifier.readers" . | fromYaml }}
{{- $variables := dict }}
{{- range $name, $value := .root.Values.config }}
{{- if and (not (kindIs "invalid" $value)) (has $role (default (list $role) (index $readers $name))) }}
{{- $_ := set $variables $name (include "notifier.text" $value) }}
{{- end }}
{{- end }}
{{- toYaml $variables }}
{{- end }}

{{- define "notifier.secretSettings" -}}
needed:
  gateway: [NOTIFIER_REDIS_URL, NOTIFIER_JWT_SECRET]
  router: [NOTIFIER_AMQP_URL, NOTIFIER_REDIS_URL]
  api: [NOTIFIER_AMQP_URL, NOTIFIER_API_KEYS]
taken:
  gateway: [NOTIFIER_TLS_CERTIFICATE, NOTIFIER_TLS_KEY]
  router: [NOTIFIER_RABBITMQ_MANAGEMENT_URL]
  api: [NOTIFIER_RABBITMQ_MANAGEMENT_URL]
{{- end }}

{{- /* `tls` where the gateway itself ends TLS, else nothing. */}}
{{- define "notifier.gatewayTls" -}}
{{- $gateway := dict "root" . "role" "gateway" }}
{{- $extra := (include "notifier.extraSettings" $gateway | fromJson).names }}
{{- if or (has "NOTIFIER_TLS_CERTIFICATE" $extra) (hasKey (include "notifier.secretsOf" $gateway | fromJson) "NOTIFIER_TLS_CERTIFICATE") }}tls{{ end }}
{{- end }}

{{- /* `pod` with a role's own over it: maps merged, `extra…` and `init…` lists appended. As JSON. */}}
{{- define "notifier.pod" -}}
{{- $common := .root.Values.pod }}
{{- $own := index .root.Values .role "pod" }}
{{- $pod := mergeOverwrite (deepCopy $common) (deepCopy $own) }}
{{- range $key := list "extraEnv" "extraVolumes" "extraVolumeMounts" "initContainers" "extraContainers" }}
{{- $_ := set $pod $key (concat (default list (index $common $key)) (default list (index $own $key))) }}
{{- end }}
{{- toJson $pod }}
{{- end }}

{{- /* The settings that a role's extraEnv gives, by their own name or a file's: `{names: […]}`. */}}
{{- define "notifier.extraSettings" -}}
{{- $names := list }}
{{- range (include "notifier.pod" . | fromJson).extraEnv }}
{{- $names = append $names (trimSuffix "_FILE" .name) }}
{{- end }}
{{- dict "names" $names | toJson }}
{{- end }}

{{- /* Where a secret setting is: `{secret: …, key: …}`, or `{}` when nobody said. */}}
{{- define "notifier.secretPlace" -}}
{{- $own := default dict (index .root.Values.secrets .name) }}
{{- if $own.value }}{{ dict "secret" (include "notifier.fullname" .root) "key" .name | toJson }}
{{- else if $own.existingSecret }}{{ dict "secret" $own.existingSecret "key" (default .name $own.key) | toJson }}
{{- else if .root.Values.existingSecret }}{{ dict "secret" .root.Values.existingSecret "key" .name | toJson }}
{{- else }}{}
{{- end }}
{{- end }}

{{- /* The secret settings that a role gets as files: `{NAME: {secret: …, key: …}}`. */}}
{{- define "notifier.secretsOf" -}}
{{- $root := .root }}
{{- $settings := include "notifier.secretSettings" . | fromYaml }}
{{- $extra := (include "notifier.extraSettings" . | fromJson).names }}
{{- $needed := index $settings.needed .role }}
{{- if or $root.Values.config.NOTIFIER_JWKS_URL $root.Values.config.NOTIFIER_JWT_DISCOVERY_URL (has "NOTIFIER_JWT_DISCOVERY_URL" $extra) $root.Values.config.NOTIFIER_JWT_PUBLIC_KEY (has "NOTIFIER_JWKS_URL" $extra) (has "NOTIFIER_JWT_PUBLIC_KEY" $extra) }}
{{- $needed = without $needed "NOTIFIER_JWT_SECRET" }}
{{- end }}
{{- $others := list }}
{{- range concat (values $settings.needed) (values $settings.taken) }}{{ $others = concat $others . }}{{ end }}
{{- $taken := index $settings.taken .role }}
{{- range $name, $own := $root.Values.secrets }}
{{- if and $own (or (has $name $taken) (not (has $name $others))) }}{{ $needed = append $needed $name }}{{ end }}
{{- end }}
{{- $found := dict }}
{{- range $name := $needed }}
{{- if not (has $name $extra) }}
{{- $_ := set $found $name (include "notifier.secretPlace" (dict "root" $root "name" $name) | fromJson) }}
{{- end }}
{{- end }}
{{- toJson $found }}
{{- end }}

{{- /* The values among them, which the chart itself puts into a Secret; for a role's checksum. */}}
{{- define "notifier.secretValuesOf" -}}
{{- $root := .root }}
{{- $found := dict }}
{{- range $name, $place := include "notifier.secretsOf" . | fromJson }}
{{- $_ := set $found $name (default dict (index $root.Values.secrets $name)).value }}
{{- end }}
{{- toJson $found }}
{{- end }}
