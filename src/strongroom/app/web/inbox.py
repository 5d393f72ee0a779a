"""The inbox as a page for its owner's own browser, on this machine alone.

Who opens the address that the command prints, once, gets a cookie; nobody else sees anything. The pages hold no script, load
nothing from elsewhere and can be framed by nobody. A decision is a form with a secret of the session in it, sent by this
page itself, that names the digests of what was on the page.

What stands in the way of other pages in the same browser: the ``Host`` must be this address (a name that was made to lead
here is none), ``Origin`` must be this page, the cookie is ``SameSite=Strict``, ``HttpOnly`` and sent for one random path
alone (cookies know no ports: another server on this machine would be sent it otherwise), and every form carries the secret.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from strongroom.app.client.inbox import Inbox
from strongroom.app.client.listed import Filter, day_of
from strongroom.app.client.room import LeftOut
from strongroom.app.http import application, blocking, body, status_of
from strongroom.contract import State
from strongroom.errors import NotFound, NotPermitted, StrongroomError, Unauthorised, Usage
from strongroom.review import Kind
from strongroom.wire import Fields

from .inbox_code import anchor
from .inbox_frame import Frame, Place
from .inbox_pages import listing, message, proposal

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

    from strongroom.app.client.analysis import Tried

COOKIE = "strongroom-inbox"
MAX_FORM = 64 << 10
MAX_TRIED = 8  # runs on mocks whose outcome is kept
ICON = b"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path fill="none" stroke="#36c" stroke-width="2"
 d="M2 9h3l1 2h4l1-2h3M2 9l2-6h8l2 6v4H2z"/></svg>"""
STYLE = Path(__file__).with_name("inbox.css")
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'"
)
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "same-origin",  # with no-referrer a browser would not say that a form came from here
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class InboxPage:
    """One owner's inbox in one browser.

    Args:
        inbox: whose it is.
        address: of the server, ``http://127.0.0.1:PORT``.
        wheels, index: where the packages of a lock come from, where code is run on mocks.
    """

    def __init__(self, inbox: Inbox, address: str, *, wheels: Path | None = None, index: str | None = None) -> None:
        self._inbox, self._address = inbox, address
        self._wheels, self._index = wheels, index
        self._tried: dict[str, Tried] = {}
        self._host = address.removeprefix("http://")
        self._place = secrets.token_urlsafe(16)
        self._token: str | None = secrets.token_urlsafe(32)
        self._session = secrets.token_urlsafe(32)
        self._lock, self._running = threading.Lock(), threading.Lock()
        card = inbox.room.home.card
        self._frame = Frame(f"/{self._place}/", inbox.room.name, card.fingerprint, secrets.token_urlsafe(32))
        self._left_out: dict[str, LeftOut] = {}

    @property
    def entrance(self) -> str:
        """The address to open, good for one visit."""
        return f"{self._address}/{self._place}/enter/{self._token}"

    def application(self) -> Starlette:
        base = f"/{self._place}"
        return application(
            [
                Route(f"{base}/enter/{{token}}", self._guarded(self._enter, inside=False)),
                Route(f"{base}/style.css", self._guarded(self._style, inside=False)),
                Route(f"{base}/icon.svg", self._guarded(self._icon, inside=False)),
                Route(f"{base}/", self._guarded(self._list)),
                Route(f"{base}/p/{{digest}}", self._guarded(self._show)),
                Route(f"{base}/p/{{digest}}/mock/{{name}}", self._guarded(self._picture)),
                Route(f"{base}/p/{{digest}}/{{verb}}", self._guarded(self._decide), methods=["POST"]),
            ]
        )

    # --- who is asked, and by whom ---

    def _guarded(self, answer: Callable[[Request], Any], *, inside: bool = True) -> Callable[[Request], Any]:
        async def guarded(request: Request) -> Response:
            try:
                self._require_ours(request, inside=inside)
                found: Response = await answer(request)
            except StrongroomError as error:
                shown = self._frame if self._is_inside(request) else Frame("/", "", "", "")
                found = _html(message(shown, "That did not work", error.message, error=error), status_of(error))
            found.headers.update(HEADERS)
            return found

        return guarded

    def _require_ours(self, request: Request, *, inside: bool) -> None:
        if request.headers.get("host") != self._host:
            raise Unauthorised("this address is not the inbox's", hint="Open the address that the command printed.")
        if request.method not in ("GET", "HEAD") and request.headers.get("origin") != self._address:
            raise Unauthorised("the form was sent by another page", hint="Open the inbox, and decide there.")
        if inside and not self._is_inside(request):
            hint = "Start it again with `strongroom inbox --web`, and open the address that it prints."
            raise Unauthorised("this is somebody's inbox", hint=hint)

    def _is_inside(self, request: Request) -> bool:
        return hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), self._session.encode())

    async def _enter(self, request: Request) -> Response:
        with self._lock:
            token, given = self._token, request.path_params["token"]
            if token is None or not hmac.compare_digest(token.encode(), given.encode()):
                hint = "Start it again with `strongroom inbox --web`: each address is good for one visit."
                raise Unauthorised("this address was used already", hint=hint)
            self._token = None
        found = RedirectResponse(self._frame.base, 303)
        found.set_cookie(COOKIE, self._session, path=self._frame.base, httponly=True, samesite="strict")
        return found

    async def _style(self, _request: Request) -> Response:
        return Response(STYLE.read_bytes(), media_type="text/css; charset=utf-8")

    async def _icon(self, _request: Request) -> Response:
        return Response(ICON, media_type="image/svg+xml")

    # --- pages ---

    async def _list(self, request: Request) -> Response:
        said = {name: request.query_params.get(name, "").strip() for name in ("text", "state", "proposer", "asset", "since")}
        wanted = _wanted(said)

        def work() -> bytes:
            with self._lock:
                for left in self._inbox.refresh():
                    self._left_out[left.digest] = left
                rows = self._inbox.rows(wanted)
            return listing(self._frame, rows, said, left_out=self._left_out.values(), at=self._inbox.now())

        return _html(await blocking(work)())

    async def _show(self, request: Request) -> Response:
        digest, place = _digest(request), _place(request)

        def work() -> bytes:
            with self._lock:
                sheet, tried = self._inbox.show(digest), self._tried.get(digest)
                return proposal(self._frame, sheet, place, self._inbox.room.name, tried)

        return _html(await blocking(work)())

    async def _picture(self, request: Request) -> Response:
        """A picture that the code drew here of the mocks, after its rule has drawn it anew."""
        tried, name = self._tried.get(_digest(request)), request.path_params["name"]
        if tried is None or tried.kinds.get(name) != "picture" or name not in tried.outputs:
            raise NotFound("there is no such picture: run the code on the mocks first")
        return Response(tried.outputs[name], media_type="image/png")

    def _try(self, digest: str) -> None:
        """Run the code here. The inbox can be read meanwhile; one run goes at a time."""
        with self._running:
            with self._lock:
                sheet = self._inbox.show(digest)
            tried = self._inbox.run_mock(sheet, wheels=self._wheels, index=self._index)
            with self._lock:
                while len(self._tried) >= MAX_TRIED:
                    del self._tried[next(iter(self._tried))]
                self._tried[digest] = tried

    async def _decide(self, request: Request) -> Response:
        digest, verb = _digest(request), request.path_params["verb"]
        form = _form(await body(request, MAX_FORM))
        if not hmac.compare_digest(form.get("secret", "").encode(), self._frame.secret.encode()):
            raise Unauthorised("the form is not of this session", hint="Open the inbox, and decide there.")
        if verb not in ("approve", "ask", "comment", "refuse", "try"):
            raise Usage(f"nothing is called {verb[:40]!r} here")
        if verb != "comment" and form.get("proposal") != digest:
            raise NotPermitted("the form is about another proposal than its address")

        def work() -> None:
            if verb == "try":
                self._try(digest)
                return
            with self._lock:
                self._carry_out(verb, digest, form)

        await blocking(work)()
        there = "#here" if verb == "try" else _back(form)
        return RedirectResponse(self._frame.path("p", digest) + there, 303)

    def _carry_out(self, verb: str, digest: str, form: dict[str, str]) -> None:
        text = form.get("text", "").replace("\r\n", "\n")
        if verb == "approve":
            if form.get("read") != "yes":
                raise NotPermitted("you did not say that you have read it")
            self._inbox.approve(digest, form.get("bundle") or None, text)
        elif verb == "refuse":
            self._inbox.refuse(digest, text)
        elif verb == "ask":
            self._inbox.say(digest, Kind.ASK, text)
        else:
            line = form.get("line", "")
            if line and not (line.isascii() and line.isdigit() and len(line) < 8):
                raise Usage("that is no line")
            self._inbox.say(digest, Kind.COMMENT, text, file=form.get("file") or None, line=int(line) if line else None)


def _html(content: bytes, status: int = 200) -> Response:
    return Response(content, status, media_type="text/html; charset=utf-8")


def _digest(request: Request) -> str:
    return Fields({"proposal": request.path_params["digest"]}, "address").digest("proposal")


def _form(data: bytes) -> dict[str, str]:
    """The fields of a form, each once. Raises Usage."""
    try:
        found = parse_qs(
            data.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=20, errors="strict"
        )
    except ValueError as error:
        raise Usage("that is no form of this page") from error
    if any(len(values) != 1 for values in found.values()):
        raise Usage("a field of the form is there twice")
    return {name: values[0] for name, values in found.items()}


def _back(form: dict[str, str]) -> str:
    line = form.get("line", "")
    return f"#{anchor(form['file'], int(line))}" if line.isdigit() and "file" in form else ""


def _place(request: Request) -> Place:
    def number(name: str) -> int | None:
        value = request.query_params.get(name, "")
        return int(value) if value.isascii() and value.isdigit() and len(value) < 8 else None

    query = request.query_params
    return Place(query.get("file"), number("line"), query.get("whole"), max(1, number("start") or 1))


def _wanted(said: dict[str, str]) -> Filter:
    state = said["state"]
    if state not in ("", "all", *State):
        raise Usage(f"there is no state {state[:40]!r}")
    return Filter(
        waiting=state == "",
        state=State(state) if state not in ("", "all") else None,
        proposer=said["proposer"] or None,
        asset=said["asset"] or None,
        text=said["text"] or None,
        since=day_of(said["since"]) if said["since"] else None,
    )
