"""The one exception of the data path: an exchange, or one attempt of it, that ends without a whole answer."""

from __future__ import annotations

from sidecar.core.errors import Reason
from sidecar.core.outcome import Kind
from sidecar.upstream.streams import Processed


class GivenUp(Exception):
    """Why it ended. Becomes HTTP in `forwarding/answers.py`, and an outcome for the breaker by `kind`."""

    def __init__(
        self,
        reason: Reason,
        detail: str,
        *,
        retry_after_seconds: float = 0.0,
        is_stale: bool = False,
        is_idle: bool = False,
        processed: Processed = Processed.MAYBE,
        is_ours: bool = False,
        is_own_lack: bool = False,
        is_below: bool = False,
        is_uncounted: bool = False,
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds
        """For `Retry-After`; 0 = none is sent."""
        self.is_stale = is_stale
        """A pooled connection had been closed by the upstream before it saw the request."""
        self.is_idle = is_idle
        """No byte came either way for the route's `timeouts.idle`."""
        self.is_ours = is_ours
        """A mistake of the sidecar's own: the upstream is not judged by it."""
        self.is_own_lack = is_own_lack
        """The sidecar has no time or no room for it: no other upstream is asked either."""
        self.is_below = is_below
        """It was the breaker of the next sidecar that refused."""
        self.is_uncounted = is_uncounted
        """The upstream is judged by another attempt that failed by the same."""
        self.processed = processed
        """Whether the upstream may have acted on the request."""

    @property
    def kind(self) -> Kind:
        """How the attempt ended, for the breaker; ABANDONED for all that is not the upstream's doing."""
        if self.is_below:
            return Kind.REFUSED_BELOW
        is_blameless = self.is_ours or self.is_uncounted
        return Kind.ABANDONED if is_blameless else _KINDS.get(self.reason, Kind.ABANDONED)


_KINDS = {
    Reason.TIMEOUT: Kind.TIMED_OUT,
    Reason.CONNECTION_TIMEOUT: Kind.CONNECT_FAILED,
    Reason.CONNECTION_REFUSED: Kind.CONNECT_REFUSED,
    Reason.DNS_ERROR: Kind.CONNECT_FAILED,
    Reason.DNS_TIMEOUT: Kind.CONNECT_FAILED,
    Reason.TLS_CERTIFICATE: Kind.CONNECT_FAILED,
    Reason.TLS_PROTOCOL: Kind.CONNECT_FAILED,
    Reason.TLS_ALERT: Kind.CONNECT_FAILED,
    Reason.CONNECTION_RESET: Kind.RESET,
    Reason.INCOMPLETE_RESPONSE: Kind.RESET,
    Reason.PROTOCOL_ERROR: Kind.RESET,
    Reason.CLIENT_GONE: Kind.LEFT,
    Reason.CALLER_GONE: Kind.LEFT,
}
