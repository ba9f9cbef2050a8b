{{- /* Combinations that cannot work, each refused with what to do instead. */}}

{{- define "notifier.check" -}}
{{- include "notifier.checkName" . }}
{{- include "notifier.checkImage" . }}
{{- include "notifier.checkConfig" . }}
{{- include "notifier.checkTokens" . }}
{{- include "notifier.checkSecrets" . }}
{{- range $role := list "gateway" "router" "api" }}
{{- include "notifier.checkRole" (dict "root" $ "role" $role) }}
{{- end }}
{{- include "notifier.checkScaling" . }}
{{- include "notifier.checkMemory" . }}
{{- include "notifier.checkNetwork" . }}
{{- end }}

{{- /* Services' names are the strictest, and the first objects would be there when one is refused. */}}
{{- define "notifier.checkName" -}}
{{- $name := include "notifier.fullname" . }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) }}
{{- fail (printf "%s cannot be the name of a Service: it begins with a lower-case letter, and has lower-case letters, digits and - only; set fullnameOverride" $name) }}
{{- end }}
{{- end }}

{{- define "notifier.checkImage" -}}
{{- if not .Values.image.repository }}
{{- fail "image.repository is required, there is no public image of notifier: build one (docker build --tag registry.example/notifier:VERSION .), push it to a registry of yours or load it into your cluster, and name it here without its tag" }}
{{- end }}
{{- if .Chart.IsRoot }}
{{- range $name, $_ := omit (default dict .Values.global) "imageRegistry" "imagePullSecrets" }}
{{- fail (printf "global.%s is not a value of this chart: it takes global.imageRegistry and global.imagePullSecrets; leave it out" $name) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "notifier.checkConfig" -}}
{{- range $name, $_ := .Values.config }}
{{- if hasKey $.Values.secrets $name }}
{{- fail (printf "config.%s is a secret: put it into a Secret and name that in existingSecret, or set secrets.%s" $name $name) }}
{{- end }}
{{- end }}
{{- range $name, $own := .Values.secrets }}
{{- if and $own.value $own.existingSecret }}
{{- fail (printf "secrets.%s has a value and an existingSecret: leave one out" $name) }}
{{- end }}
{{- end }}
{{- with .Values.config }}
{{- if and .NOTIFIER_HOST (not (has .NOTIFIER_HOST (list "0.0.0.0" "::"))) }}
{{- fail (printf "config.NOTIFIER_HOST is %s: pods have to listen on all their addresses; leave it out, or set it to :: for IPv6" .NOTIFIER_HOST) }}
{{- end }}
{{- range regexSplit "[,\\s]+" (include "notifier.text" (default "" .NOTIFIER_ALLOWED_ORIGINS)) -1 | compact }}
{{- if not (regexMatch "^(\\*|[A-Za-z][A-Za-z0-9+.-]*://(\\[[0-9A-Fa-f:.]+\\]|([A-Za-z0-9_.*-]+\\.)?[A-Za-z0-9_-]+)(:([0-9]{1,5}|\\*))?)$" .) }}
{{- fail (printf "config.NOTIFIER_ALLOWED_ORIGINS has %s: an origin is scheme, host and port if any, such as https://app.example or https://*.app.example, without a path, and in punycode (xn--); or * for any" .) }}
{{- end }}
{{- end }}
{{- if has .NOTIFIER_PRIVATE_PORT (list .NOTIFIER_GATEWAY_PORT .NOTIFIER_API_PORT) }}
{{- fail (printf "config.NOTIFIER_PRIVATE_PORT is %v, as is a public port: /metrics would be public; set another" .NOTIFIER_PRIVATE_PORT) }}
{{- end }}
{{- end }}
{{- if and .Values.ca.existingSecret .Values.ca.existingConfigMap }}
{{- fail "ca.existingSecret and ca.existingConfigMap: leave one out" }}
{{- end }}
{{- end }}

{{- define "notifier.checkTokens" -}}
{{- $extra := (include "notifier.extraSettings" (dict "root" . "role" "gateway") | fromJson).names }}
{{- range $name, $why := dict "NOTIFIER_JWT_ISSUER" "what a token's iss must be" "NOTIFIER_JWT_AUDIENCE" "what a token's aud must contain" }}
{{- $found := and (eq $name "NOTIFIER_JWT_ISSUER") (or $.Values.config.NOTIFIER_JWT_DISCOVERY_URL (has "NOTIFIER_JWT_DISCOVERY_URL" $extra)) }}
{{- if not (or (index $.Values.config $name) (has $name $extra) $found) }}
{{- fail (printf "config.%s is required (%s), or tokens issued for others would be accepted" $name $why) }}
{{- end }}
{{- end }}
{{- $keys := list }}
{{- range $name := list "NOTIFIER_JWT_DISCOVERY_URL" "NOTIFIER_JWKS_URL" "NOTIFIER_JWT_PUBLIC_KEY" }}
{{- if or (index $.Values.config $name) (has $name $extra) }}{{ $keys = append $keys $name }}{{ end }}
{{- end }}
{{- if or .Values.secrets.NOTIFIER_JWT_SECRET (has "NOTIFIER_JWT_SECRET" $extra) }}{{ $keys = append $keys "NOTIFIER_JWT_SECRET" }}{{ end }}
{{- if gt (len $keys) 1 }}
{{- fail (printf "%s: the gateway takes tokens by one of them, leave the others out" (join " and " $keys)) }}
{{- end }}
{{- end }}

{{- define "notifier.checkSecrets" -}}
{{- $missing := list }}
{{- range $role := list "gateway" "router" "api" }}
{{- range $name, $place := include "notifier.secretsOf" (dict "root" $ "role" $role) | fromJson }}
{{- if not $place.secret }}{{ $missing = append $missing $name }}{{ end }}
{{- end }}
{{- end }}
{{- with $missing | uniq | sortAlpha }}
{{- fail (printf "%s required: name a Secret that has these keys in existingSecret, or say in secrets where each is%s" (join ", " .) (ternary " (or set config.NOTIFIER_JWKS_URL in place of NOTIFIER_JWT_SECRET)" "" (has "NOTIFIER_JWT_SECRET" .))) }}
{{- end }}
{{- end }}

{{- define "notifier.checkRole" -}}
{{- $role := .role }}
{{- $seen := list }}
{{- range (include "notifier.extraSettings" . | fromJson).names }}
{{- if has . $seen }}{{ fail (printf "extraEnv has %s twice for the %s: pod.extraEnv and %s.pod.extraEnv are put together" . $role $role) }}{{ end }}
{{- $seen = append $seen . }}
{{- if has . (list "NOTIFIER_GATEWAY_PORT" "NOTIFIER_API_PORT" "NOTIFIER_PRIVATE_PORT" "NOTIFIER_PARTITIONS" "NOTIFIER_MAX_CONNECTIONS" "NOTIFIER_SEND_BUFFER_TOTAL_BYTES" "NOTIFIER_DRAIN_RATE" "NOTIFIER_DRAIN_SECONDS") }}
{{- fail (printf "extraEnv has %s: set config.%s, which the chart computes with" . .) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "notifier.checkScaling" -}}
{{- if and .Values.router.autoscaling.enabled .Values.router.keda.enabled }}
{{- fail "router.autoscaling and router.keda exclude each other: two of them would set the same replicas; enable one" }}
{{- end }}
{{- range $path, $scaling := dict "gateway.autoscaling" .Values.gateway.autoscaling "router.autoscaling" .Values.router.autoscaling "api.autoscaling" .Values.api.autoscaling "router.keda" .Values.router.keda }}
{{- if $scaling.enabled }}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) }}
{{- fail (printf "%s.minReplicas is %v, more than maxReplicas, %v" $path $scaling.minReplicas $scaling.maxReplicas) }}
{{- end }}
{{- if and (hasPrefix "router" $path) (gt (int $scaling.maxReplicas) (max (int $scaling.minReplicas) (int $.Values.config.NOTIFIER_PARTITIONS))) }}
{{- fail (printf "%s.maxReplicas is %v, config.NOTIFIER_PARTITIONS %v: a partition has one router, more of them would only stand by; raise the partitions or lower maxReplicas" $path $scaling.maxReplicas $.Values.config.NOTIFIER_PARTITIONS) }}
{{- end }}
{{- if and (hasSuffix "autoscaling" $path) (not (or $scaling.cpu $scaling.connections)) }}
{{- fail (printf "%s is enabled and scales by nothing: set %s" $path (ternary "connections or cpu" "cpu" (eq $path "gateway.autoscaling"))) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.gateway.autoscaling.enabled (gt (int .Values.gateway.autoscaling.connections) (int .Values.config.NOTIFIER_MAX_CONNECTIONS)) }}
{{- fail (printf "gateway.autoscaling.connections is %v, but a gateway refuses more than %v (config.NOTIFIER_MAX_CONNECTIONS): raise that or lower connections" .Values.gateway.autoscaling.connections .Values.config.NOTIFIER_MAX_CONNECTIONS) }}
{{- end }}
{{- $drained := mulf .Values.config.NOTIFIER_DRAIN_RATE .Values.config.NOTIFIER_DRAIN_SECONDS }}
{{- if and .Values.config.NOTIFIER_DRAIN_SECONDS (gt (float64 .Values.config.NOTIFIER_MAX_CONNECTIONS) $drained) }}
{{- fail (printf "config.NOTIFIER_MAX_CONNECTIONS is %v, but a stopping gateway moves only %v away (NOTIFIER_DRAIN_RATE × NOTIFIER_DRAIN_SECONDS) and closes the rest at once: raise one of these or lower NOTIFIER_MAX_CONNECTIONS" .Values.config.NOTIFIER_MAX_CONNECTIONS $drained) }}
{{- end }}
{{- if and .Values.router.keda.enabled (not .Values.router.keda.authenticationRef) (not (include "notifier.secretPlace" (dict "root" . "name" "NOTIFIER_AMQP_URL") | fromJson).secret) }}
{{- fail "router.keda needs NOTIFIER_AMQP_URL in a Secret: set existingSecret or secrets.NOTIFIER_AMQP_URL, or name a TriggerAuthentication in router.keda.authenticationRef" }}
{{- end }}
{{- end }}

{{- /* A gateway needs what waits for slow clients, as much for those being closed, 4 KiB a connection, and 64 MiB for itself. */}}
{{- define "notifier.checkMemory" -}}
{{- $limit := include "notifier.text" (default "" (default dict .Values.gateway.resources.limits).memory) }}
{{- $unit := regexFind "[KMGT]i?$" $limit }}
{{- $units := dict "" 1 "K" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- $needed := addf (mulf 2 .Values.config.NOTIFIER_SEND_BUFFER_TOTAL_BYTES) (mulf 4096 .Values.config.NOTIFIER_MAX_CONNECTIONS) 67108864 }}
{{- if and (regexMatch "^[0-9.]+([KMGT]i?)?$" $limit) (gt $needed (mulf (float64 (trimSuffix $unit $limit)) (index $units $unit))) }}
{{- fail (printf "gateway.resources.limits.memory is %s, but a gateway may need %.0fMi: twice NOTIFIER_SEND_BUFFER_TOTAL_BYTES, and 4 KiB for each of NOTIFIER_MAX_CONNECTIONS, and 64Mi; raise the limit or lower one of these" $limit (ceil (divf $needed 1048576))) }}
{{- end }}
{{- end }}

{{- define "notifier.checkNetwork" -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- fail "ingress.hosts is empty: name what clients connect to, such as [push.example]" }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- fail "httpRoute.parentRefs is empty: name your Gateway, such as [{name: public, namespace: gateways}]" }}
{{- end }}
{{- with .Values.networkPolicy }}
{{- if .enabled }}
{{- range $key, $who := dict "clients" "connect to the gateway" "producers" "post to the api" }}
{{- if not (index $.Values.networkPolicy $key) }}
{{- fail (printf "networkPolicy.%s is empty: nobody could %s; name peers, such as [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}]" $key $who) }}
{{- end }}
{{- end }}
{{- if and $.Values.podMonitor.enabled (not .scrapers) }}
{{- fail "networkPolicy.scrapers is empty: Prometheus could not read what podMonitor tells it to; name its namespace" }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
