{{/*
The certificate of `source: generated`, as {"tls.crt", "tls.key", "ca.crt"} in base64. It is made once for a rendering,
and kept in the release's values, since the Secret and the webhook's configuration must agree. That of a Secret which is
there already stays.
*/}}
{{- define "sidecar.generated" -}}
{{- if not (hasKey .Values.certificate "made") -}}
{{- $secret := lookup "v1" "Secret" .Release.Namespace (include "sidecar.secret" .) -}}
{{- $has := dict -}}
{{- with $secret }}{{ $has = .data | default dict }}{{ end -}}
{{- if and (hasKey $has "tls.crt") (hasKey $has "tls.key") (hasKey $has "ca.crt") -}}
{{- $_ := set .Values.certificate "made" $has -}}
{{- else -}}
{{- $host := include "sidecar.host" . -}}
{{- $days := int .Values.certificate.days -}}
{{- $ca := genCA (printf "%s CA" (include "sidecar.webhook" .)) $days -}}
{{- $own := genSignedCert $host nil (list $host) $days $ca -}}
{{- $made := dict "tls.crt" ($own.Cert | b64enc) "tls.key" ($own.Key | b64enc) "ca.crt" ($ca.Cert | b64enc) -}}
{{- $_ := set .Values.certificate "made" $made -}}
{{- end -}}
{{- end -}}
{{- toJson .Values.certificate.made -}}
{{- end -}}

{{/* What the API server knows the certificate by, in base64; nothing where cert-manager puts it in. */}}
{{- define "sidecar.caBundle" -}}
{{- if eq .Values.certificate.source "generated" -}}
{{- index (include "sidecar.generated" . | fromJson) "ca.crt" -}}
{{- else if eq .Values.certificate.source "secret" -}}
{{- .Values.certificate.ca | b64enc -}}
{{- end -}}
{{- end -}}
