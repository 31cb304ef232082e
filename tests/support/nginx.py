"""nginx, with one server of the test's: started, stopped, and started again on its port."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.ports import free_ports, until_it_listens

PROGRAM = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needs_nginx = pytest.mark.skipif(PROGRAM is None, reason="no nginx here")
CONFIG = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  client_max_body_size 100m;
  server {{ listen 127.0.0.1:{listen}; {server} }}
}}
"""


class Nginx:
    """`listen`: a port, and what belongs to it. `server`: further lines of the server."""

    def __init__(self, folder: Path, listen: str, server: str) -> None:
        self._port = int(listen.split()[0])
        self._folder = folder
        self._file = folder / "nginx.conf"
        self._file.write_text(CONFIG.format(folder=folder, listen=listen, server=server))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it listens."""
        assert PROGRAM is not None
        command = [PROGRAM, "-p", str(self._folder), "-c", str(self._file)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until_it_listens(self._process, self._port)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


@contextmanager
def nginx_by_tls(folder: Path, server: str) -> Iterator[int]:
    """Run it until the end of the block, for both versions of HTTP; its port."""
    (port,) = free_ports(1)
    one = Nginx(folder, f"{port} ssl http2", server)
    try:
        one.start()
        yield port
    finally:
        one.stop()
