"""The API server of the cluster, as far as EndpointSlices need it: a GET of one page, and a watch line by line.

The token is read at each request, since the kubelet renews it, and once more at 401. Nothing that comes is kept
beyond a bound: `MOST_PAGE_BYTES` for a page, `MOST_LINE_BYTES` for a line of a watch.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sidecar.core.dataclass import dataclass

if TYPE_CHECKING:
    import aiohttp

MOST_PAGE_BYTES: Final = 16 * 1024 * 1024
MOST_LINE_BYTES: Final = 4 * 1024 * 1024
"""An EndpointSlice has 1,000 endpoints at most, which are 0.6 MiB."""
MOST_MESSAGE: Final = 200
"""Characters that are told of an error of the API server."""
CONNECT_SECONDS: Final = 10.0
READ_SECONDS: Final = 90.0
"""A watch without a byte for so long is dead: bookmarks come once a minute."""
PAGE_SECONDS: Final = 60.0
"""For a page in all."""
TOKEN_FOLDERS: Final = (
    "/var/run/secrets/sidecar.io/serviceaccount",
    "/var/run/secrets/kubernetes.io/serviceaccount",
)
"""Our own projected token (`sidecar.io/endpoint-slices`), then that of the app."""


class ApiError(Exception):
    """No answer, or none that helps; the text says why."""

    def __init__(self, text: str, status: int = 0, retry_after_seconds: float = 0.0) -> None:
        """`status` is 0 where there was no answer."""
        super().__init__(text)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class ApiServer:
    """Where it is, and by what it is trusted and trusts us."""

    url: str
    folder: Path
    """With `token` and `ca.crt`."""

    @classmethod
    def of(cls, environ: Mapping[str, str], folders: tuple[str, ...] = TOKEN_FOLDERS) -> ApiServer | None:
        """As a pod finds it; None outside of a cluster, or where the pod has no token."""
        host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            return None
        at = f"[{host}]" if ":" in host else host
        for folder in map(Path, folders):
            if (folder / "token").exists():
                return cls(f"https://{at}:{port}", folder)
        return None

    def token(self) -> str:
        """Blocking. Raises: ApiError."""
        try:
            return (self.folder / "token").read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ApiError(f"{self.folder / 'token'}: cannot be read: {error}") from None

    def context(self) -> ssl.SSLContext | bool:
        """Blocking. Raises: ApiError."""
        if self.url.startswith("http://"):
            return True
        try:
            context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
            # Python 3.13 sets this, and many a cluster's own CA has no key identifiers (RFC 5280 4.2.1.1).
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            return context
        except (OSError, ssl.SSLError) as error:
            raise ApiError(f"{self.folder / 'ca.crt'}: cannot be used: {error}") from None


class Api:
    """A session with the API server: the certificates are read at its beginning."""

    def __init__(self, server: ApiServer, session: aiohttp.ClientSession) -> None:
        self._server = server
        self._session = session

    async def page(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """One object. Raises: ApiError."""
        try:
            async with asyncio.timeout(PAGE_SECONDS), self._get(path, query) as response:
                return decoded(await _whole(response))
        except TimeoutError:
            raise ApiError(f"no whole answer within {PAGE_SECONDS:g} s") from None

    @asynccontextmanager
    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
        """Lines as they come, until the server ends it. Raises: ApiError, also while they are read."""
        async with (
            self._get(path, query) as response,
            aclosing(lines(response.content.iter_any())) as found,
        ):
            yield found

    @asynccontextmanager
    async def _get(self, path: str, query: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, if it is 200. Raises: ApiError."""
        import aiohttp

        try:
            response = await self._ask(path, query)
            if response.status == 401:
                response.close()
                response = await self._ask(path, query)
            async with response:
                if response.status != 200:
                    raise await _refusal(response)
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            # aiohttp reads 90 s without a byte as a TimeoutError that is a ClientError.
            raise ApiError(f"{self._server.url}: {error or type(error).__name__}") from None

    async def _ask(self, path: str, query: Mapping[str, str]) -> aiohttp.ClientResponse:
        token = await asyncio.to_thread(self._server.token)
        headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
        return await self._session.get(
            self._server.url + path, params=query, headers=headers, allow_redirects=False
        )


@asynccontextmanager
async def connected(server: ApiServer) -> AsyncIterator[Api]:
    """A session, closed at the end. Raises: ApiError."""
    # Few processes have such endpoints, and it takes 16 MiB; in a thread, since it takes 0.2 s as well.
    aiohttp = await asyncio.to_thread(import_module, "aiohttp")
    context = await asyncio.to_thread(server.context)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
    connector = aiohttp.TCPConnector(ssl=context, limit=2)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
        yield Api(server, session)


async def lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Cut a stream at its line ends; what is not ended is dropped. Raises: ApiError, for a line without an end."""
    held = bytearray()
    async for chunk in chunks:
        begin = 0
        while (end := chunk.find(b"\n", begin)) >= 0:
            held += chunk[begin:end]
            begin = end + 1
            if len(held) > MOST_LINE_BYTES:
                break
            if held.strip():
                yield bytes(held)
            held.clear()
        held += chunk[begin:]
        if len(held) > MOST_LINE_BYTES:
            raise ApiError(f"a line of more than {MOST_LINE_BYTES} bytes")


def decoded(data: bytes) -> dict[str, Any]:
    """A JSON object. Raises: ApiError."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise ApiError("the answer is no JSON") from None
    if not isinstance(value, dict):
        raise ApiError("the answer is no object")
    return value


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    found = bytearray()
    async for chunk in response.content.iter_any():
        found += chunk
        if len(found) > MOST_PAGE_BYTES:
            raise ApiError(f"an answer of more than {MOST_PAGE_BYTES} bytes")
    return bytes(found)


async def _refusal(response: aiohttp.ClientResponse) -> ApiError:
    """What another status says."""
    text = (await response.content.read(64 * 1024)).decode("utf-8", "replace")
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, RecursionError, LookupError, TypeError):
        message = response.reason or ""
    shown = "".join(one if one.isprintable() else " " for one in message[:MOST_MESSAGE])
    wait = response.headers.get("Retry-After", "")
    seconds = float(wait) if wait.isdigit() and len(wait) < 6 else 0.0
    return ApiError(f"{response.status}: {shown}", response.status, seconds)
