{{/* The rules of deploy/monitoring, with the place of your runbooks. Their own templates are Prometheus', not Helm's. */}}
{{- define "sidecar.alerts" -}}
{{- .Files.Get "files/alerts.yaml" | replace "https://runbooks.example/sidecar" (trimSuffix "/" .Values.monitoring.rules.runbooks) -}}
{{- end -}}
