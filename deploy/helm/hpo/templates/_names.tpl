{{- define "hpo.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "hpo.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "hpo.labels" -}}
{{ include "hpo.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "hpo.image" -}}
{{- $image := index .root.Values.image .which -}}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}{{ else }}{{ $image.repository }}:{{ $image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "hpo.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "hpo.name" .) }}
{{- end }}

{{- define "hpo.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "hpo.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "hpo.placement" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{ toJson . }}
{{- end }}
{{- end }}

{{- define "hpo.snapshots" -}}
{{ .Values.snapshots.location | default "/snapshots" }}
{{- end }}

{{- define "hpo.rayAddress" -}}
{{ include "hpo.name" . }}-head-svc:6379
{{- end }}

{{- /* Settings of the service; secrets are files. */}}
{{- define "hpo.settings" -}}
- {name: HPO_SECRETS_DIR, value: /run/secrets/hpo}
- {name: HPO_LOG_FORMAT, value: {{ .Values.settings.logFormat | quote }}}
- {name: HPO_ROOTS, value: /data}
- {name: HPO_SNAPSHOTS, value: {{ include "hpo.snapshots" . | quote }}}
- {name: HPO_SNAPSHOT_KEEP_BEST, value: {{ .Values.settings.snapshotKeepBest | quote }}}
- {name: HPO_EXECUTOR, value: ray}
- {name: HPO_RAY_RESOURCE, value: {{ .Values.settings.rayResource | quote }}}
- {name: HPO_RAY_MAX_DEVICES, value: {{ .Values.settings.rayMaxDevices | quote }}}
- {name: HPO_USD_PER_GPU_HOUR, value: {{ .Values.settings.usdPerGpuHour | quote }}}
{{- range $name, $value := .Values.settings.extra }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{- define "hpo.rayEnvironment" -}}
- {name: RAY_AUTH_MODE, value: token}
- {name: RAY_AUTH_TOKEN_PATH, value: /run/secrets/hpo/ray_token}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
{{- end }}

{{- define "hpo.nodeEnvironment" -}}
{{ include "hpo.rayEnvironment" . }}
- {name: HPO_LOG_FORMAT, value: {{ .Values.settings.logFormat | quote }}}
{{- end }}

{{- define "hpo.storeEnvironment" -}}
{{- with .Values.settings.storeSecret }}
envFrom: [{secretRef: {name: {{ . }}}}]
{{- end }}
{{- end }}

{{- /* The keys (.keys) of a secret (.secret) as files that the service's user alone can read. */}}
{{- define "hpo.secretVolume" -}}
- name: secrets
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
    items:
    {{- range .keys }}
      - {key: {{ . }}, path: {{ . }}}
    {{- end }}
{{- end }}

{{- define "hpo.dataVolumes" -}}
- {name: data, persistentVolumeClaim: {claimName: {{ .Values.data.existingClaim }}, readOnly: true}}
{{- if not .Values.snapshots.location }}
- {name: snapshots, persistentVolumeClaim: {claimName: {{ .Values.snapshots.existingClaim | default (printf "%s-snapshots" (include "hpo.name" .)) }}}}
{{- end }}
{{- end }}

{{- define "hpo.dataMounts" -}}
- {name: data, mountPath: /data, readOnly: true}
{{- if not .Values.snapshots.location }}
- {name: snapshots, mountPath: /snapshots}
{{- end }}
{{- end }}
