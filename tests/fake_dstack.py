"""A stand-in for dstack's guest agent, on a Unix socket of its own."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Self

import pki_dstack

GUEST = pki_dstack.Guest()


def quote(asked: dict[str, Any]) -> dict[str, Any]:
    """What an agent answers GetQuote with, under the test's own root."""
    guest = replace(GUEST, report_data=bytes.fromhex(asked["report_data"]))
    return {
        "event_log": guest.log.decode(),
        "quote": guest.world.quote().hex(),
        "report_data": asked["report_data"],
        "vm_config": '{"cpu_count": 2}',
    }


def info(_asked: dict[str, Any]) -> dict[str, Any]:
    return {
        "app_id": pki_dstack.APP_ID.hex(),
        "app_name": "an app",
        "compose_hash": pki_dstack.COMPOSE_HASH.hex(),
        "instance_id": pki_dstack.INSTANCE_ID.hex(),
        "tcb_info": "{}",
    }


class Agent:
    """The agent, in a thread.

    Args:
        path: where its socket goes.
        answers: path to what is answered: a function of the request's members, or raw bytes of the body.
        status: the answer's.
        drip: called between the pieces of a body; a body is whole where it is not given.
    """

    def __init__(
        self,
        path: Path,
        answers: dict[str, Callable[[dict[str, Any]], Any] | bytes] | None = None,
        *,
        status: int = 200,
        drip: Callable[[], None] | None = None,
    ) -> None:
        answers = {"/GetQuote": quote, "/Info": info, **(answers or {})}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                asked.append((self.path, body))
                said = answers[self.path]
                data = said if isinstance(said, bytes) else json.dumps(said(body)).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                try:
                    for at in range(0, len(data), 4096):
                        self.wfile.write(data[at : at + 4096])
                        if drip is not None:
                            drip()
                except OSError:  # who asked went away, as it should
                    pass

            def log_message(self, *_: object) -> None:
                pass

            def address_string(self) -> str:
                return "socket"

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

        self._server = Server(str(path), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
