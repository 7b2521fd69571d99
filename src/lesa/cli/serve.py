"""`lesa serve`: a page and an HTTP interface for a bundle, on this computer."""

import ipaddress
import os
import socket
import threading
import webbrowser
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lesa.cli.options import PATH, bundle_option, one_thread, vectors_option
from lesa.errors import LesaError

if TYPE_CHECKING:
    import uvicorn

    from lesa.web.service import Service

NEEDED = ("fastapi", "uvicorn", "python_multipart")
"""The libraries of the extra `web`."""
PATIENCE = 3
"""Seconds for open requests to end when the server is stopped."""


@click.command()
@bundle_option
@click.option(
    "--index", type=PATH, help="The index that `lesa index` made with this bundle; with it, the page can also search."
)
@vectors_option
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; by default, only this computer reaches it.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8750,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option("--allow-host", "hosts", multiple=True, help="Another name or address of the server. May be repeated.")
@click.option("--open", "browse", is_flag=True, help="Open the page in the browser.")
def serve(
    bundle: Path,
    index: Path | None,
    vectors: tuple[str, ...],
    host: str,
    port: int,
    hosts: tuple[str, ...],
    browse: bool,
) -> None:
    """A local page: drop photos, type words, see tags and their places in the photo; search an index.

    Photos and words are sent to no other server. Programs can use the same server: POST /v1/tag, POST /v1/search,
    GET /health; /openapi.json describes the requests and answers.

    \b
    Example:
      lesa serve --open
      lesa serve --bundle mine.lesa --index photos.index --port 8000
    """
    one_thread()
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise LesaError(f"`lesa serve` needs {', '.join(missing)}: pip install 'lesa-zsl[web]'")
    from lesa.index.search import Index
    from lesa.tagger import Tagger
    from lesa.web.service import Service

    names = {host, *map(parse_host, hosts)}
    with listen(host, port) as listener:
        tagger = Tagger(bundle, vectors)
        service = Service(tagger, Index(index, tagger) if index else None, vectors=vectors)
        url = page_url(host, listener.getsockname()[1])
        click.echo(f"lesa: {url} serves {bundle.name}; stop it with Ctrl+C")
        if not is_loopback(host):
            click.echo("lesa: anyone who reaches this address can use it and see the photos of the index", err=True)
        if browse:
            # The socket listens already: the browser waits until the server takes the connection. A browser in the
            # terminal returns only when people leave it, so it runs in a thread.
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        make_server(service, names).run(sockets=[listener])


def make_server(service: "Service", hosts: Collection[str]) -> "uvicorn.Server":
    """Return a server of a service, for sockets that its `run` gets; `hosts` are its names and addresses."""
    import uvicorn

    from lesa.web.app import make_app

    config = uvicorn.Config(
        make_app(service, hosts),
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=service.limits.connections,
        timeout_graceful_shutdown=PATIENCE,
    )
    return uvicorn.Server(config)


def parse_host(host: str) -> str:
    """Return a name or address of the server as the guard compares it, without a port.

    Raises:
        LesaError: it is not a name or an address.
    """
    from lesa.web.guard import host_name

    name = host_name(host) or host_name(f"[{host}]")
    if name is None:
        raise LesaError(f"--allow-host is {host!r}: give a name or an address, such as tower.local or [fe80::1]")
    return name


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address and port.

    Raises:
        LesaError: the port is taken, or there is no such address.
    """
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise LesaError(f"cannot listen on {host!r} ({error}): give an address of this computer with --host") from None
    try:
        if os.name == "posix":
            # Without it, a port cannot be used for a minute after a server stopped. On Windows it would share the port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen()
    except OSError as error:
        listener.close()
        raise LesaError(
            f"cannot listen on port {port} of {host} ({error.strerror}): stop what uses it, or give another one "
            "with --port"
        ) from None
    return listener


def page_url(host: str, port: int) -> str:
    """Return the page's address, for a browser on this computer."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{port}/"


def is_loopback(host: str) -> bool:
    """Return whether only this computer reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
