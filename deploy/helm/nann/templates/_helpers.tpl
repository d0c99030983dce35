{{- define "nann.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "nann.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "nann.labels" -}}
{{ include "nann.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "nann.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "nann.name" .) .Values.serviceAccount.name }}{{ else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- define "nann.adminSecret" -}}
{{- if .Values.adminKey.existingSecret }}{{ .Values.adminKey.existingSecret }}{{ else if .Values.adminKey.value }}{{ include "nann.name" . }}-admin{{ end }}
{{- end }}

{{- /* What the pods of a Deployment and of an InferenceService share. Its argument: the root, and the container's name. */ -}}
{{- define "nann.pod" -}}
{{- $root := .root }}
{{- $values := $root.Values }}
{{- $sources := list }}
{{- if $values.bundle.image.reference }}{{ $sources = append $sources "bundle.image.reference" }}{{ end }}
{{- if $values.bundle.claim.name }}{{ $sources = append $sources "bundle.claim.name" }}{{ end }}
{{- if ne (len $sources) 1 }}{{ fail (printf "expected one source of the bundle, bundle.image.reference or bundle.claim.name; got %s" (ternary "both" "none" (gt (len $sources) 1))) }}{{ end }}
{{- if and (eq $values.target "tensorrt") (not $values.plansClaim) }}{{ fail "the target tensorrt needs plansClaim: the volume with the plans of `nann build-engine`" }}{{ end }}
serviceAccountName: {{ include "nann.serviceAccount" $root }}
automountServiceAccountToken: false
terminationGracePeriodSeconds: {{ $values.drain.grace }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: { type: RuntimeDefault }
{{- with $values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $values.spreadOver }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: {{ $values.spreadOver }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "nann.selector" $root | nindent 8 }}
{{- end }}
containers:
  - name: {{ .container }}
    image: "{{ $values.image.repository }}:{{ $values.image.tag | default $root.Chart.AppVersion }}"
    imagePullPolicy: {{ $values.image.pullPolicy }}
    args:
      - --target
      - {{ $values.target }}
      {{- if $values.plansClaim }}
      - --plans
      - /plans
      {{- end }}
      {{- with $values.extraArgs }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- $secret := include "nann.adminSecret" $root }}
    {{- if or $secret $values.env }}
    env:
      {{- if $secret }}
      - name: NANN_ADMIN_KEY
        valueFrom:
          secretKeyRef: { name: {{ $secret }}, key: admin-key }
      {{- end }}
      {{- with $values.env }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- end }}
    ports: {{- toYaml .ports | nindent 6 }}
    startupProbe:
      httpGet: { path: /v2/health/ready, port: 8000 }
      {{- toYaml $values.probes.startup | nindent 6 }}
    readinessProbe:
      httpGet: { path: /v2/health/ready, port: 8000 }
      {{- toYaml $values.probes.readiness | nindent 6 }}
    livenessProbe:
      httpGet: { path: /v2/health/live, port: 8000 }
      {{- toYaml $values.probes.liveness | nindent 6 }}
    lifecycle:
      preStop:
        exec: { command: [sleep, {{ $values.drain.beforeStop | quote }}] }
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: { drop: [ALL] }
    resources: {{- toYaml $values.resources | nindent 6 }}
    volumeMounts:
      - { name: bundle, mountPath: /bundle, readOnly: true{{ with $values.bundle.claim.subPath }}, subPath: {{ . }}{{ end }} }
      - { name: repository, mountPath: /var/lib/nann }
      - { name: tmp, mountPath: /tmp }
      - { name: shared-memory, mountPath: /dev/shm }
      {{- if $values.plansClaim }}
      - { name: plans, mountPath: /plans, readOnly: true }
      {{- end }}
volumes:
  - name: bundle
    {{- if $values.bundle.image.reference }}
    image: { reference: {{ $values.bundle.image.reference | quote }}, pullPolicy: {{ $values.bundle.image.pullPolicy }} }
    {{- else }}
    persistentVolumeClaim: { claimName: {{ $values.bundle.claim.name }}, readOnly: true }
    {{- end }}
  # A pod that is made anew begins with the bundle. Changes of items reach it from the Redis stream (docs/catalog.md).
  - name: repository
    emptyDir: {}
  - name: tmp
    emptyDir: {}
  - name: shared-memory
    emptyDir: { medium: Memory, sizeLimit: {{ $values.sharedMemory }} }
  {{- if $values.plansClaim }}
  - name: plans
    persistentVolumeClaim: { claimName: {{ $values.plansClaim }}, readOnly: true }
  {{- end }}
{{- end }}

{{/* The pace of either autoscaler: up at once, down one by one after a time of calm. */}}
{{- define "nann.scaling" -}}
scaleUp: { stabilizationWindowSeconds: 0 }
scaleDown:
  stabilizationWindowSeconds: {{ .Values.autoscaling.calmSeconds }}
  policies: [{ type: Pods, value: 1, periodSeconds: 60 }]
{{- end }}
