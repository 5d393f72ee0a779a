"""The simulated platform: a process of its own that measures what runs, starts the enclave, and signs for it.

It, not the enclave, says what runs. The enclave has one way to it, an inherited socket (``line.py``), by which it can ask
for two things: a quote of 64 bytes, and the endorsements. Nothing that it sends can change what is measured. Who owns the
machine can read the keys, though, and change anything: there is no hardware protection, and the evidence is named so.

See ``spec/attestation.md``.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from strongroom import wire
from strongroom.attest.appraisal import MAX_CLOCK_SKEW_S
from strongroom.attest.evidence import REPORT_DATA_BYTES, Endorsements, Evidence, Measurement
from strongroom.attest.simulated import Claims, PlatformEndorsement
from strongroom.errors import PlatformFailed, StrongroomError
from strongroom.wire import JSON

from . import launch
from .keys import PlatformKeys
from .line import read_frame, write_frame
from .measure import FileDigests, Installation

ENDORSED_S = 30 * 86_400  # how long an endorsement of the platform key holds; it is renewed when half is over
STOP_S = 5.0  # how long an enclave that was asked to end may take
FRAME_S = 5.0  # how long a frame that was begun may take

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class SimulatedPlatform:
    """Measures and signs. Implements ``attest.evidence.Platform``.

    Args:
        keys: its keys.
        measure: measures what the enclave can execute, now.
        clock: unix seconds.
        debugged: whether somebody may look into the enclave, now.
        entropy: fresh random bytes.

    Attributes:
        started: what was measured when the platform started.
    """

    def __init__(
        self,
        keys: PlatformKeys,
        measure: Callable[[], Measurement],
        *,
        clock: Callable[[], float] = time.time,
        debugged: Callable[[], bool] = lambda: False,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._keys, self._measure, self._clock, self._debugged, self._entropy = keys, measure, clock, debugged, entropy
        self.started = measure()
        self._changed: Measurement | None = None
        self._was_debugged = False
        self._endorsed: tuple[int, Endorsements] = (0, Endorsements())

    def produce(self, report_data: bytes) -> Evidence:
        """Measure again, and sign. What was once seen changed, or debugged, stays so: the enclave may have loaded it.

        Raises:
            NotMeasurable: something cannot be read now; nothing is signed.
        """
        if len(report_data) != REPORT_DATA_BYTES:
            raise PlatformFailed(f"report data is not {REPORT_DATA_BYTES} bytes long")
        found = self._measure()
        if found != self.started and self._changed is None:
            self._changed = found
        self._was_debugged = self._was_debugged or self._debugged()
        claims = Claims(
            report_data=report_data,
            measurement=self._changed or found,
            debug=self._was_debugged,
            produced_at=int(self._clock()),
        )
        return claims.sign(self._keys.platform)

    def endorsements(self) -> Endorsements:
        """The root's endorsement of the platform key, renewed when half its time is over."""
        now = int(self._clock())
        renew_at, endorsed = self._endorsed
        if now >= renew_at:
            endorsement = PlatformEndorsement(
                platform_key=self._keys.platform.public,
                not_before=now - MAX_CLOCK_SKEW_S,  # a verifier's clock may be behind this one
                not_after=now + ENDORSED_S,
                serial=self._entropy(16),
            )
            endorsed = Endorsements((endorsement.sign(self._keys.root),))
            self._endorsed = now + ENDORSED_S // 2, endorsed
        return endorsed


def _answer(platform: SimulatedPlatform, request: bytes) -> bytes:
    answer: dict[str, JSON]
    try:
        if request:
            evidence = platform.produce(request)
            answer = {"evidence": evidence.to_json()}
        else:
            answer = {"endorsements": platform.endorsements().to_json()}
    except StrongroomError as error:
        answer = {"error": {"code": error.code, "message": error.message}}
    return wire.encode(answer)


def _traced(process: int, proc: Path = Path("/proc")) -> bool:
    """Whether a debugger is attached. Only Linux says; elsewhere the platform cannot tell, and signs that none is."""
    if not (proc / "self").exists():
        return False
    try:
        lines = (proc / str(process) / "status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return True  # it should be there; what cannot be ruled out is not ruled out
    return any(line.startswith("TracerPid:") and line.split()[1] != "0" for line in lines)


@contextlib.contextmanager
def _stop_signals() -> Iterator[socket.socket]:
    """A socket that becomes readable when this process is asked to end."""
    awake, wake = socket.socketpair()
    wake.setblocking(False)
    awake.setblocking(False)
    with awake, wake:
        before = {number: signal.signal(number, lambda *_: None) for number in _STOP_SIGNALS}
        previous = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        try:
            yield awake
        finally:
            signal.set_wakeup_fd(previous)
            for number, handler in before.items():
                signal.signal(number, handler)


def _asked_to_stop(awake: socket.socket) -> bool:
    numbers = awake.recv(64)  # one byte for each signal that Python handled
    return any(number in numbers for number in _STOP_SIGNALS)


def _answer_until_end(line: socket.socket, platform: SimulatedPlatform, awake: socket.socket) -> bool:
    """Answer requests until the enclave's end closes (False), or this process is asked to stop (True).

    Raises:
        PlatformFailed: the enclave sent something that is no request.
    """
    with selectors.DefaultSelector() as ready:
        ready.register(line, selectors.EVENT_READ)
        ready.register(awake, selectors.EVENT_READ)
        while True:
            waiting = {key.fileobj for key, _ in ready.select()}
            if awake in waiting and _asked_to_stop(awake):
                return True
            if line in waiting:
                try:
                    request = read_frame(line, FRAME_S, REPORT_DATA_BYTES)
                    if len(request) not in (0, REPORT_DATA_BYTES):
                        raise PlatformFailed("the enclave asked for something that no platform does")
                    write_frame(line, FRAME_S, _answer(platform, request))
                except (EOFError, ConnectionError):
                    return False
                except TimeoutError as error:
                    raise PlatformFailed("the enclave began a request and did not end it") from error


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ask the enclave to end, and see that it does."""
    child.terminate()
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def serve(
    state: Path,
    arguments: Sequence[str] = (),
    *,
    warm: Sequence[str] = (),
    images: Path | None = None,
    installation: Installation | None = None,
    clock: Callable[[], float] = time.time,
) -> int:
    """Be a simulated platform: measure, start the enclave, sign for it, until either ends. Only from the main thread.

    The enclave is started by ``launch.Image.command``, never by a command of the caller's: what runs is part of what is
    signed. Its first arguments are ``--platform-fd N``.

    Args:
        state: the platform's own folder: keys, images, bytecode.
        arguments: further arguments for the enclave.
        warm: modules whose bytecode is compiled the first time that this measurement starts, before the enclave does.
        images: where images are kept with their bytecode, so that platforms share them; in ``state`` by default.
        installation: what to measure and start; the one that this process runs from by default.
        clock: unix seconds.

    Returns:
        the enclave's exit status; 0 after SIGTERM, SIGINT or SIGHUP to this process, which end the enclave too.

    Raises:
        PlatformFailed: the state cannot be used, or the enclave broke the protocol.
        NotMeasurable: the installation is incomplete or cannot be read.
    """
    keys = PlatformKeys.open(state)
    place = installation or Installation.here()
    digests = FileDigests()
    children: list[subprocess.Popen[bytes]] = []
    platform = SimulatedPlatform(
        keys,
        lambda: place.measure(digests),
        clock=clock,
        debugged=lambda: any(_traced(child.pid) for child in children),
    )
    image = launch.build(images or state / "images", platform.started.digest, place.links, place.interpreter, place.library)
    with launch.held(image):
        launch.warm(image, warm)
        command = image.command(place.module, parent=os.getpid())
        return _run(command, arguments, platform, children)


def _run(
    command: list[str], arguments: Sequence[str], platform: SimulatedPlatform, children: list[subprocess.Popen[bytes]]
) -> int:
    """Start the enclave and answer it until either ends; its exit status."""
    ours, theirs = socket.socketpair()
    with ours, _stop_signals() as awake:
        with theirs:
            descriptor = theirs.fileno()
            child = subprocess.Popen(  # noqa: S603 - the command is the image's own
                [*command, "--platform-fd", str(descriptor), *arguments],
                pass_fds=(descriptor,),
                env=launch.ENVIRONMENT,
                stdin=subprocess.DEVNULL,
            )
        children.append(child)
        try:
            if _answer_until_end(ours, platform, awake):
                return 0
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(STOP_S)
        finally:
            if child.poll() is None:
                _end(child)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode
