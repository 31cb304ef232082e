"""Names that secrets have, and names that look like one and are none: for every test of what may be told."""

from __future__ import annotations

SECRET = (
    "access_token", "apiKey", "api_keys", "assertion", "auth", "authorisation", "Authorization", "AWSAccessKeyId",
    "bearer", "client-secret", "client_assertion", "code", "code_verifier", "connect.sid", "cookie", "credential",
    "creds", "csrf", "hmac", "id_token", "idempotency_key", "jwt", "JWT", "key", "oauth_verifier", "otp", "pass",
    "passphrase", "passwd", "password", "PHPSESSID", "pin", "Proxy-Authorization", "pwd", "refresh-token",
    "SAMLResponse", "secret", "session", "sessionid", "session_id", "set-cookie", "sid", "sig", "Signature", "state",
    "token", "user_pin", "x-amz-credential", "X-Amz-Security-Token", "x-api-key", "X-Goog-Signature", "x-xsrf-token",
)  # fmt: skip
PLAIN = (
    "author", "authors", "compass", "country_code", "design", "encode", "estate", "inside", "keyboard", "keyword",
    "keywords", "limit", "max_tokens", "monkey", "page", "pinned", "q", "sort_keys", "statement", "tokens", "v",
    "x-plan", "x-tenant", "zip_code",
)  # fmt: skip
