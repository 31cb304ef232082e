{{/* Names, labels and images. */}}

{{- define "sidecar.name" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "sidecar.webhook" -}}
{{- printf "%s-webhook" (include "sidecar.name" .) -}}
{{- end -}}

{{/* A Service's name, as the certificate and the API server say it. */}}
{{- define "sidecar.host" -}}
{{- printf "%s.%s.svc" (include "sidecar.webhook" .) .Release.Namespace -}}
{{- end -}}

{{- define "sidecar.secret" -}}
{{- .Values.certificate.secretName | default (printf "%s-tls" (include "sidecar.webhook" .)) -}}
{{- end -}}

{{/* Of one part: (list . "sidecar-webhook"). */}}
{{- define "sidecar.selector" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end -}}

{{- define "sidecar.labels" -}}
{{ include "sidecar.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* An image's whole name: (list VALUES DEFAULT-TAG). */}}
{{- define "sidecar.image" -}}
{{- $image := index . 0 -}}
{{- with $image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default (index . 1) }}{{ end -}}
{{- end -}}
