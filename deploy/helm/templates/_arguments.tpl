{{/* The flags of `sidecar webhook` that `inject` says, one a line: true is the flag alone, false is nothing. */}}
{{- define "sidecar.arguments" -}}
{{- range $key, $value := .Values.inject -}}
{{- $flag := printf "--%s" (kebabcase $key) -}}
{{- if kindIs "bool" $value -}}
{{- if $value }}
- {{ $flag }}
{{- end -}}
{{- else if eq $key "env" -}}
{{- range $value }}
- {{ printf "%s=%s" $flag . | quote }}
{{- end -}}
{{- else if kindIs "slice" $value -}}
{{- $words := list -}}
{{- range $value }}{{ $words = append $words (include "sidecar.word" .) }}{{ end }}
- {{ printf "%s=%s" $flag (join "," $words) | quote }}
{{- else }}
- {{ printf "%s=%s" $flag (include "sidecar.word" $value) | quote }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A number as it was written: Helm has them as floats, which would print 1000680000 as 1.00068e+09. */}}
{{- define "sidecar.word" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}
