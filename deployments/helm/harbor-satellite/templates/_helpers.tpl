{{- define "hs.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* Labels by which a component's pods are found: (dict "root" $ "component" "worker") */}}
{{- define "hs.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "hs.labels" -}}
{{ include "hs.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: harbor-satellite
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name (.root.Chart.Version | replace "+" "_") }}
{{- end }}

{{- define "hs.image" -}}
image: {{ required "image.reference: which image? (repository@sha256:…)" .Values.image.reference | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- define "hs.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "hs.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end }}

{{- define "hs.secret" -}}
{{- .Values.secrets.existingSecret | default (include "hs.fullname" .) -}}
{{- end }}

{{- define "hs.prefectUrl" -}}
http://{{ include "hs.fullname" . }}-prefect:4200/api
{{- end }}

{{- define "hs.publicUrl" -}}
{{- if .Values.groundControl.publicUrl -}}
{{- .Values.groundControl.publicUrl -}}
{{- else if .Values.ingress.enabled -}}
https://{{ required "ingress.host: where do the sites reach Ground Control?" .Values.ingress.host }}
{{- else -}}
{{- fail "groundControl.publicUrl: where do the sites reach Ground Control, without an ingress?" -}}
{{- end -}}
{{- end }}

{{/* What every pod has: no token, no root, nobody else's variables. */}}
{{- define "hs.pod" -}}
automountServiceAccountToken: false
# Variables of other services (…_PORT=tcp://…) would be read as settings.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "hs.placing" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Pods of one component prefer different nodes: (dict "root" $ "component" "worker") */}}
{{- define "hs.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "hs.selector" . | nindent 8 }}
{{- end }}

{{- define "hs.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* name: value pairs as environment, sorted. */}}
{{- define "hs.environment" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* The Prefect API as its clients at the centre need it. */}}
{{- define "hs.prefectClientEnv" -}}
{{- include "hs.environment" (dict
  "PREFECT_API_URL" (include "hs.prefectUrl" .)
  "PREFECT_HOME" "/var/lib/harbor-satellite/prefect"
  "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED" "false"
  "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED" "false"
  "PREFECT_RESULTS_PERSIST_BY_DEFAULT" "false"
  "DO_NOT_TRACK" "1"
) }}
- name: PREFECT_API_AUTH_STRING
  valueFrom:
    secretKeyRef: {name: {{ include "hs.secret" . }}, key: prefect-auth-string}
{{- end }}

{{/* Settings of Ground Control and the worker that are no secrets. */}}
{{- define "hs.settings" -}}
{{- $prefix := "HARBOR_SATELLITE_GROUND_CONTROL_" -}}
{{- $settings := dict
  (print $prefix "SECRETS_DIR") "/run/secrets/harbor-satellite"
  (print $prefix "DATA_DIR") "/var/lib/harbor-satellite"
  (print $prefix "PUBLIC_URL") (include "hs.publicUrl" .)
  (print $prefix "SOURCE_KIND") .Values.source.kind
  (print $prefix "SOURCE_URL") (required "source.url: where is the central registry?" .Values.source.url)
  (print $prefix "SOURCE_PUBLIC_URL") .Values.source.publicUrl
  (print $prefix "SOURCE_USERNAME") .Values.source.username
  (print $prefix "RUN_RETENTION_DAYS") (.Values.prefect.runRetentionDays | toString)
-}}
{{- if .Values.source.ca.configMap -}}
{{- $_ := set $settings (print $prefix "SOURCE_CA") "/etc/harbor-satellite/ca.crt" -}}
{{- end -}}
{{- if .Values.source.htpasswd.claim -}}
{{- $_ := set $settings (print $prefix "SOURCE_HTPASSWD") (print "/var/lib/source/" .Values.source.htpasswd.file) -}}
{{- end -}}
{{- include "hs.environment" (merge (deepCopy .Values.groundControl.settings) $settings) -}}
{{- end }}

{{/* Files of those two: (dict "root" $ "keys" (dict KEY VARIABLE …)); database-url is always there. */}}
{{- define "hs.volumes" -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ include "hs.secret" .root }}
          items:
            - {key: database-url, path: HARBOR_SATELLITE_GROUND_CONTROL_DATABASE_URL}
            {{- range .needed }}
            - {key: {{ . }}, path: {{ . }}}
            {{- end }}
      {{- range $key, $variable := .optional }}
      - secret:
          name: {{ include "hs.secret" $.root }}
          optional: true
          items:
            - {key: {{ $key }}, path: HARBOR_SATELLITE_GROUND_CONTROL_{{ $variable }}}
      {{- end }}
{{- with .root.Values.source.ca.configMap }}
- name: source-ca
  configMap:
    name: {{ . }}
    items: [{key: {{ $.root.Values.source.ca.key }}, path: ca.crt}]
{{- end }}
{{- with .root.Values.source.htpasswd.claim }}
- name: source-htpasswd
  persistentVolumeClaim: {claimName: {{ . }}}
{{- end }}
{{ include "hs.scratch" . }}
{{- end }}

{{/* All that is written: nothing of it is needed after a restart. */}}
{{- define "hs.scratch" -}}
- name: data
  emptyDir: {sizeLimit: 1Gi}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
{{- end }}

{{- define "hs.mounts" -}}
- {name: secrets, mountPath: /run/secrets/harbor-satellite, readOnly: true}
{{- if .Values.source.ca.configMap }}
- {name: source-ca, mountPath: /etc/harbor-satellite, readOnly: true}
{{- end }}
{{- if .Values.source.htpasswd.claim }}
- {name: source-htpasswd, mountPath: /var/lib/source}
{{- end }}
{{ include "hs.scratchMounts" . }}
{{- end }}

{{- define "hs.scratchMounts" -}}
- {name: data, mountPath: /var/lib/harbor-satellite}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{/* Settings of a Prefect server; those of `ground-control serve` for its own, and the database, Redis and password. */}}
{{- define "hs.prefectServerEnv" -}}
{{- $settings := dict
  "PREFECT_HOME" "/var/lib/harbor-satellite/prefect"
  "PREFECT_SERVER_ANALYTICS_ENABLED" "false"
  "PREFECT_SERVER_API_KEEPALIVE_TIMEOUT" "30"
  "PREFECT_SERVER_REGISTER_BLOCKS_ON_START" "false"
  "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED" "events,flow_runs"
  "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD" (mul .Values.prefect.runRetentionDays 86400 | toString)
  "PREFECT_SERVER_EVENTS_RETENTION_PERIOD" .Values.prefect.eventRetention
  "PREFECT_RESULTS_PERSIST_BY_DEFAULT" "false"
  "PREFECT_CLI_PROMPT" "false"
  "PREFECT_SERVER_UI_ENABLED" (.Values.prefect.ui.enabled | toString)
  "PREFECT_SERVER_UI_STATIC_DIRECTORY" "/tmp/prefect-ui"
  "PREFECT_SERVER_LOGGING_LEVEL" .Values.prefect.logLevel
  "DO_NOT_TRACK" "1"
-}}
{{- if .Values.prefect.redis.enabled -}}
{{- $_ := set $settings "PREFECT_SERVER_EVENTS_MESSAGING_BROKER" "prefect_redis.messaging" -}}
{{- $_ := set $settings "PREFECT_SERVER_EVENTS_MESSAGING_CACHE" "prefect_redis.messaging" -}}
{{- $_ := set $settings "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING" "prefect_redis.ordering" -}}
{{- $_ := set $settings "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE" "prefect_redis.lease_storage" -}}
{{- $_ := set $settings "PREFECT_SERVER_WORKER_CHANNEL_CLEANUP_QUEUE_STORAGE" "prefect_redis.cleanup_queue" -}}
{{- /* The Job has migrated; several that do it together come into each other's way. */ -}}
{{- $_ := set $settings "PREFECT_SERVER_DATABASE_MIGRATE_ON_START" "false" -}}
{{- end -}}
{{- include "hs.environment" (merge (deepCopy .Values.prefect.settings) $settings) }}
- name: PREFECT_SERVER_DATABASE_CONNECTION_URL
  valueFrom:
    secretKeyRef: {name: {{ include "hs.secret" . }}, key: prefect-database-url}
- name: PREFECT_SERVER_API_AUTH_STRING
  valueFrom:
    secretKeyRef: {name: {{ include "hs.secret" . }}, key: prefect-auth-string}
{{- if .Values.prefect.redis.enabled }}
{{- range list "PREFECT_REDIS_MESSAGING_URL" "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_URL" "PREFECT_SERVER_DOCKET_URL" }}
- name: {{ . }}
  valueFrom:
    secretKeyRef: {name: {{ include "hs.secret" $ }}, key: prefect-redis-url}
{{- end }}
{{- end }}
{{- end }}

{{/* A created Secret's content restarts what has read it. */}}
{{- define "hs.podAnnotations" -}}
{{- if not .root.Values.secrets.existingSecret }}
checksum/secret: {{ toYaml .root.Values.secrets | sha256sum }}
{{- end }}
{{- with .own }}
{{ toYaml . }}
{{- end }}
{{- end }}
