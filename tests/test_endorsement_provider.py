"""Endorsements: shipped, carried, kept and fetched, from services that answer rightly, slowly, wrongly and not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

import endorsement_server as server
import pki_amd
import pki_azure
import pki_intel
import pki_nitro
import pki_nvidia
import real as evidence_folder
from endorsement_server import Reply, Service, chain, serving
from evidence_case import walk
from real import real
from stage import call
from strongroom import errors, wire
from strongroom.app.cli import parser_of
from strongroom.app.endorsements import amd, intel, nvidia, shipped, web
from strongroom.app.endorsements.bundle import Bundle, about_of, foreign, open_bundle
from strongroom.app.endorsements.cache import MAX_EDITIONS, Cache, default_folder
from strongroom.app.endorsements.description import describe
from strongroom.app.endorsements.provider import MAX_QUESTIONS, EndorsementProvider, answers
from strongroom.app.endorsements.request import SERVICES, Answer, Document, Problem, Request, topic
from strongroom.app.endorsements.web import Web, checked_url
from strongroom.attest import registry
from strongroom.attest.endorsements import (
    CERTIFICATE,
    CRL,
    INTEL_QE_IDENTITY,
    INTEL_TCB_INFO,
    JWK_SET,
    NVIDIA_RIM,
    OCSP_RESPONSE,
    PEM_CHAIN,
    documents,
)
from strongroom.attest.evidence import MAX_ENDORSEMENTS, Endorsement, Endorsements, Evidence
from strongroom.attest.roots import ROOTS
from strongroom.attest.x509 import Certificate, RevocationList, from_pem, require_path
from strongroom.errors import (
    BadAnswer,
    BadCertificate,
    BadEndorsement,
    BadEvidence,
    BadField,
    EmptyFile,
    NotFound,
    RateLimited,
    StrongroomError,
    TooLarge,
    Unreachable,
    Usage,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "endorsements"
SOON = 20  # seconds after which a test that should take one has hung
TDX, SGX = pki_intel.World(), pki_intel.World(tee="SGX", version=3, issuer=pki_intel.PROCESSOR_CA)
FMSPC = pki_intel.FMSPC.hex()
TCB = f"/tdx/certification/v4/tcb?fmspc={FMSPC}"
IDENTITY = "/tdx/certification/v4/qe/identity"
PLATFORM_CRL = "/sgx/certification/v4/pckcrl?ca=platform&encoding=der"
ROOT_CRL = "/IntelSGXRootCA.der"
GPU = pki_nvidia.World()


# --- the vendors' services, in small ----------------------------------------------------------------------------------


def pcs(world: pki_intel.World = TDX) -> dict[str, Reply]:
    """What Intel's PCS answers about a machine."""
    tee, ca = world.tee.lower(), "platform" if world.issuer == pki_intel.PLATFORM_CA else "processor"
    signer = pki_intel.pem(world.certificate(pki_intel.TCB_SIGNING), world.certificate(pki_intel.ROOT))
    issuer = pki_intel.pem(world.certificate(world.issuer), world.certificate(pki_intel.ROOT))
    return {
        f"/{tee}/certification/v4/tcb?fmspc={FMSPC}": Reply(
            world.tcb_info(), headers=chain("TCB-Info-Issuer-Chain", signer)
        ),
        f"/{tee}/certification/v4/qe/identity": Reply(
            world.qe_identity(), headers=chain("SGX-Enclave-Identity-Issuer-Chain", signer)
        ),
        f"/sgx/certification/v4/pckcrl?ca={ca}&encoding=der": Reply(
            world.revocation_list(world.issuer), headers=chain("SGX-PCK-CRL-Issuer-Chain", issuer)
        ),
        ROOT_CRL: Reply(world.revocation_list(pki_intel.ROOT)),
    }


def pccs(world: pki_intel.World = TDX) -> dict[str, Reply]:
    """The same from a PCCS: lists in hex, a header by its older name, the root's list at an address of its own."""
    found = pcs(world)
    crl = found.pop(PLATFORM_CRL)
    tcb = found[TCB]
    return {
        **found,
        TCB: Reply(tcb.body, headers=(("SGX-TCB-Info-Issuer-Chain", tcb.headers[0][1]),)),
        PLATFORM_CRL: Reply(crl.body.hex().encode(), headers=crl.headers),
        "/sgx/certification/v4/rootcacrl": Reply(found.pop(ROOT_CRL).body.hex().encode()),
    }


def kds(line: str = "genoa", *, kind: str = "vcek") -> dict[str, Reply]:
    """What AMD's KDS answers about a chip."""
    name = line.capitalize()
    pem = b"".join(
        Certificate(der).parsed.public_bytes(Encoding.PEM) for der in (pki_amd.issuer(line, kind), pki_amd.ark(line))
    )
    found = {f"/{kind}/v1/{name}/cert_chain": Reply(pem), f"/{kind}/v1/{name}/crl": Reply(pki_amd.crl(line))}
    if kind == "vcek":
        found[amd.vcek_path(line, pki_amd.CHIP[line], pki_amd.TCB[line])] = Reply(pki_amd.leaf(line))
    return found


def rims(world: pki_nvidia.World = GPU) -> dict[str, Reply]:
    """What NVIDIA's RIM service answers about a device."""
    from strongroom.attest import nvidia_device

    names = nvidia_device.parse(world.evidence.data).manifest_names
    return {
        f"/v1/rim/{name}": Reply(
            json.dumps({"id": name, "rim": wire.b64(m.data), "rim_format": "TCG", "sha256": "?"}).encode()
        )
        for name, m in zip(names, world.held, strict=True)
    }


class Responder(dict[str, Reply]):
    """An OCSP responder: every question is posted to one address, so that the answer depends on what was posted."""

    def __init__(self, replies: dict[str, Reply], service: Service, world: pki_nvidia.World) -> None:
        super().__init__(replies)
        said = pki_nvidia.answers(world.device, world.held)
        self._by_question = {nvidia.standing(a.certificate, a.issuer).body: Reply(a.data) for a in said}
        self._service = service

    def get(self, path: str, otherwise: Reply | None = None) -> Reply:  # type: ignore[override]
        if path == "/":
            return self._by_question.get(self._service.asked[-1][2], Reply(b"", "404 Not Found"))
        return super().get(path, otherwise)  # type: ignore[return-value]


@contextlib.contextmanager
def serve(replies: dict[str, Reply]) -> Iterator[Service]:
    with serving(Service(replies)) as service:
        yield service


@pytest.fixture
def intel_service() -> Iterator[Service]:
    with serve(pcs()) as service:
        yield service


@pytest.fixture
def amd_service() -> Iterator[Service]:
    with serve(kds()) as service:
        yield service


@pytest.fixture
def nvidia_service() -> Iterator[Service]:
    with serving(Service()) as service:
        service.replies = Responder(rims(), service, GPU)
        yield service


def addresses(service: Service) -> dict[str, str]:
    """Every vendor's services, at one server."""
    return {name: service.url + (ROOT_CRL if name == "intel-root-crl" else "") for name in SERVICES}


def asking(service: Service, *, timeout: float = 5, slept: list[float] | None = None) -> Web:
    """Who asks a server, and never really sleeps."""
    return Web(addresses(service), timeout=timeout, sleep=(slept if slept is not None else []).append)


def provider(service: Service | None = None, folder: Path | None = None, **changes: object) -> EndorsementProvider:
    made = {"cache": Cache(folder) if folder else None, "web": asking(service) if service else None, **changes}
    return EndorsementProvider(**{"clock": lambda: pki_intel.AT, **made})  # type: ignore[arg-type]


def kinds(endorsements: Endorsements) -> list[str]:
    return sorted(document.media_type for document in endorsements.documents)


def one_line(error: StrongroomError) -> None:
    assert error.message.isprintable()
    assert len(error.message) < 500
    assert error.hint.isprintable()
    assert error.code in errors.leaves()


# --- what is shipped --------------------------------------------------------------------------------------------------

EVERY = [(vendor, c) for vendor in shipped.VENDORS for c in shipped.certificates(vendor)]
SELF_SIGNED = [c for _, c in EVERY if c.subject_der == c.issuer_der]
RENEWED = {"NVIDIA Attestation Service GPU Intermediate 004"}  # pinned in the place of a root that nobody publishes


def test_certificates_are_shipped_for_every_vendor():
    assert shipped.VENDORS == ("amazon", "amd", "google", "intel", "microsoft", "nvidia")
    assert len(EVERY) == len({c.der for _, c in EVERY}) == 25


@pytest.mark.parametrize("platform", sorted(ROOTS))
def test_every_pinned_root_is_a_shipped_certificate_of_that_name(platform):
    own = {Certificate(e.data).common_name: Certificate(e.data) for e in shipped.endorsements(platform)}
    assert ROOTS[platform]
    for name, digest in ROOTS[platform].items():
        assert own[name].key_digest == digest
        assert own[name] in SELF_SIGNED or name in RENEWED


def test_every_platform_of_this_version_has_its_roots():
    assert set(ROOTS) == (registry.PLATFORMS | registry.DEVICES) - {"simulated"}


@pytest.mark.filterwarnings("ignore:Attribute's length:UserWarning")
@pytest.mark.parametrize("certificate", SELF_SIGNED, ids=lambda c: c.der.hex()[-8:])
def test_every_shipped_root_is_pinned_by_a_platform_and_signed_itself(certificate):
    certificate.require_issued_by(certificate)
    assert any(certificate.key_digest in roots.values() for roots in ROOTS.values())


@pytest.mark.filterwarnings("ignore:Attribute's length:UserWarning")
@pytest.mark.parametrize("certificate", [c for _, c in EVERY if c not in SELF_SIGNED], ids=lambda c: c.der.hex()[-8:])
def test_every_shipped_intermediate_leads_to_a_shipped_root(certificate):
    if certificate.common_name in RENEWED:
        return
    root = next(c for c in SELF_SIGNED if certificate.names(c))
    at = max(certificate.not_before, root.not_before)
    require_path((certificate, root), roots=[root.key_digest], at=at)


@pytest.mark.parametrize("vendor", shipped.VENDORS)
def test_a_file_of_certificates_says_what_each_is(vendor):
    path = Path(shipped.__file__).parent / "certificates" / f"{vendor}.pem"
    text = path.read_text()
    assert len(text) < 64 << 10
    assert text.startswith("# Certificates that ")
    parts = text.split("-----BEGIN CERTIFICATE-----")
    for before, certificate in zip(parts, shipped.certificates(vendor), strict=False):
        assert f"# {certificate.common_name}: " in before
        assert f"key {certificate.key_digest}" in before
    assert len(parts) == len(shipped.certificates(vendor)) + 1


@real
@pytest.mark.parametrize(("line", "revoked"), [("genoa", 1), ("milan", 0)])
def test_no_shipped_key_of_amds_is_revoked(line, revoked):
    found = RevocationList.from_pem(evidence_folder.read(f"snp/kds_{line}.crl.pem"))
    assert len(found.parsed) == revoked
    for certificate in shipped.certificates("amd"):
        if certificate.common_name.lower().endswith(line):
            found.require_not_revoked(certificate)


# --- questions and documents ------------------------------------------------------------------------------------------


def test_a_question_is_about_the_same_whichever_edition_it_asks_for():
    plain = intel.tcb_info("tdx", pki_intel.FMSPC)
    early = intel.tcb_info("tdx", pki_intel.FMSPC, intel.edition("early"))
    numbered = intel.tcb_info("tdx", pki_intel.FMSPC, intel.edition("17"))
    assert len({plain.about, early.about, numbered.about}) == 3
    assert topic(plain.about) == topic(early.about) == topic(numbered.about)
    assert topic(plain.about.replace(FMSPC, FMSPC.upper())) == topic(plain.about)
    assert topic(intel.qe_identity("sgx", intel.edition("standard")).about) != topic(intel.qe_identity("tdx").about)
    assert intel.qe_identity("tdx", intel.edition("early")).path.endswith("/qe/identity?update=early")
    assert topic("") == ""
    assert topic("amd-kds:/vcek/v1/Milan/crl") == "amd-kds:/vcek/v1/Milan/crl"


@pytest.mark.parametrize("said", ["late", "1.5", "-1", "\u0663", "12345678", "early&fmspc=x"])
def test_a_tcb_recovery_that_is_none_is_wrong_usage(said):
    with pytest.raises(Usage):
        intel.edition(said)


@pytest.mark.parametrize("about", ["no colon", "UP:/x", "a:b c", "a:\n", "a:" + "x" * 500, "a" * 33 + ":x"])
def test_a_document_says_in_plain_characters_what_it_answers(about):
    with pytest.raises(BadField):
        Document(Endorsement(CRL, b""), about)


# --- the web: right, slow, wrong and not at all -----------------------------------------------------------------------


def ask(service: Service, **changes: object) -> tuple[Endorsement, ...]:
    return asking(service, **changes).ask(intel.tcb_info("tdx", pki_intel.FMSPC))  # type: ignore[arg-type]


def test_a_right_answer_is_the_document_and_its_signers_certificates(intel_service):
    body, signers = ask(intel_service)
    assert body == Endorsement(INTEL_TCB_INFO, TDX.tcb_info())
    assert [c.common_name for c in map(Certificate, (d.endorsement.data for d in foreign(signers.data)))] == [
        pki_intel.TCB_SIGNING,
        pki_intel.ROOT,
    ]
    assert intel_service.asked == [("GET", TCB, b"")]


@pytest.mark.parametrize("manner", [server.trickle, server.trickle_headers, server.silence], ids=lambda m: m.__name__)
def test_who_answers_drop_by_drop_or_never_holds_nobody_up(intel_service, manner):
    intel_service.behave(manner)
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"intel-pcs at 127\.0\.0\.1 does not answer in 0\.4 seconds") as raised:
        ask(intel_service, timeout=0.4)
    assert time.monotonic() - began < SOON
    assert len(intel_service.asked) == 1
    one_line(raised.value)


def test_a_handshake_that_never_ends_holds_nobody_up(intel_service):
    """A server of another kind behind https: it waits for a request, and no handshake comes."""
    intel_service.behave(server.silence)
    where = {"intel-pcs": intel_service.url.replace("http:", "https:")}
    with pytest.raises(Unreachable):
        Web(where, timeout=0.4).ask(intel.tcb_info("tdx", pki_intel.FMSPC))


def test_a_name_that_is_never_found_holds_nobody_up(monkeypatch):
    held = threading.Event()

    def never(*_args: object, **_kwargs: object) -> list[object]:
        held.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", never)
    began = time.monotonic()
    try:
        with pytest.raises(Unreachable, match="does not answer"):
            Web(timeout=0.3).ask(intel.root_crl())
    finally:
        held.set()
    assert time.monotonic() - began < SOON


def test_a_name_that_is_not_found_and_a_port_where_nobody_is_are_said(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Unreachable, match=r"cannot be reached: .*refused") as raised:
        Web({"amd-kds": f"http://127.0.0.1:{port}"}).ask(amd.crl("vcek", "milan"))
    one_line(raised.value)

    def nowhere(*_args: object, **_kwargs: object) -> list[object]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    with pytest.raises(Unreachable, match=r"amd-kds at kdsintf\.amd\.com cannot be reached: the name is not found"):
        Web().ask(amd.crl("vcek", "milan"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: [])
    with pytest.raises(Unreachable, match="no address"):
        Web().ask(amd.crl("vcek", "milan"))


def test_the_next_address_of_a_name_is_tried(intel_service, monkeypatch):
    port = int(intel_service.url.rsplit(":", 1)[1])
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_a, **_k: [(2, 1, 6, "", (a, port)) for a in ("127.0.0.9", "127.0.0.1")]
    )
    assert len(Web({"intel-pcs": f"http://localhost:{port}"}).ask(intel.tcb_info("tdx", pki_intel.FMSPC))) == 2


WRONG = {
    "404": (server.status("404 Not Found"), NotFound),
    "410": (server.status("410 Gone"), NotFound),
    "400": (server.status("400 Bad Request"), BadAnswer),
    "401": (server.status("401 Unauthorized"), BadAnswer),
    "204": (server.instead(b"", "204 No Content"), BadAnswer),
    "500": (server.status("500 Internal Server Error"), Unreachable),
    "503": (server.status("503 Service Unavailable", Retry_After="1"), Unreachable),
    "429": (server.status("429 Too Many Requests"), RateLimited),
    "redirect elsewhere": (server.status("302 Found", Location="https://evil.example/"), BadAnswer),
    "redirect to itself": (server.status("308 Permanent Redirect", Location=TCB), BadAnswer),
    "HTML": (server.instead(b"<!doctype html><title>Log in to the hotel's network</title>"), BadAnswer),
    "empty": (server.instead(b""), BadAnswer),
    "garbage": (server.instead(bytes(range(256)) * 8), BadAnswer),
    "wrong JSON": (server.instead(b'{"tcbInfo":{},"signature":""}'), BadAnswer),
    "a list": (server.instead(b"[]"), BadAnswer),
    "deep JSON": (server.instead(b"[" * 10_000), BadAnswer),
    "without the header": (server.without_headers, BadAnswer),
    "compressed": (server.compressed, BadAnswer),
    "cut": (server.cut, Unreachable),
    "hung up": (server.hang_up, Unreachable),
    "not HTTP": (server.not_http, Unreachable),
    "endless": (server.huge, TooLarge),
    "endless headers": (server.huge_headers, Unreachable),
}


@pytest.mark.parametrize("what", sorted(WRONG))
def test_a_wrong_answer_is_one_typed_line(intel_service, what):
    manner, expected = WRONG[what]
    intel_service.behave(manner)
    with pytest.raises(expected) as raised:
        ask(intel_service)
    one_line(raised.value)
    assert raised.value.code == expected.code
    assert "intel-pcs" in raised.value.message
    assert "evil.example" not in "".join(intel_service.paths)


def test_a_status_line_that_is_no_text_is_a_wrong_answer(intel_service):
    intel_service.behave(lambda to, _reply, _closing: to.sendall(b"HTTP/1.1 \xff\xff\xff\r\n\r\n"))
    with pytest.raises(Unreachable):
        ask(intel_service)


@pytest.mark.parametrize("status", ["429 Too Many Requests", "500 Oh", "502 Bad Gateway", "503 Busy", "504 Late"])
def test_a_busy_service_is_asked_again_a_few_times(intel_service, status):
    slept: list[float] = []
    intel_service.behave(server.first(2, server.status(status)))
    assert len(ask(intel_service, slept=slept)) == 2
    assert slept == [0.5, 1.0]
    intel_service.behave(server.status(status))
    with pytest.raises((Unreachable, RateLimited)):
        ask(intel_service, slept=slept)
    assert len(intel_service.asked) == 3 + web.ATTEMPTS


def test_a_connection_that_breaks_is_tried_again(intel_service):
    intel_service.behave(server.first(1, server.cut))
    assert len(ask(intel_service)) == 2


def test_what_is_not_there_is_not_asked_for_twice(intel_service):
    intel_service.behave(server.status("404 Not Found"))
    with pytest.raises(NotFound):
        ask(intel_service)
    assert len(intel_service.asked) == 1


@pytest.mark.parametrize(
    ("said", "slept"),
    [
        ({"Retry_After": "2"}, [2.0]),
        ({"Retry_After": "0"}, [0.0]),
        ({"Retry_After": "Wed, 21 Oct 2026 07:28:02 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, [2.0]),
        ({"Retry_After": "Wed, 21 Oct 2026 07:28:02 GMT"}, [0.5]),
        ({"Retry_After": "soon"}, [0.5]),
        ({"Retry_After": "-3"}, [0.5]),
        ({"Retry_After": "\u0663".encode().decode("latin-1")}, [0.5]),
    ],
)
def test_a_service_says_how_long_to_wait(intel_service, said, slept):
    waited: list[float] = []
    intel_service.behave(server.first(1, server.status("429 Too Many Requests", **said)))
    ask(intel_service, slept=waited, timeout=30)
    assert waited == slept


@pytest.mark.parametrize("said", ["16", "3600", "999999999"])
def test_a_service_that_wants_to_be_asked_much_later_is_not_waited_for(intel_service, said):
    waited: list[float] = []
    intel_service.behave(server.status("429 Too Many Requests", Retry_After=said))
    with pytest.raises(RateLimited, match=f"in {said} seconds"):
        ask(intel_service, slept=waited, timeout=30)
    assert waited == []


def test_a_deadline_is_a_moment():
    now = iter([0.0, 0.5, 1.0])
    deadline = web.Deadline(1, lambda: next(now))
    assert deadline.left() == 0.5
    with pytest.raises(web.httpcore.TimeoutException):
        deadline.left()


def test_waiting_counts_against_the_time_out(intel_service):
    waited: list[float] = []
    intel_service.behave(server.status("503 Busy"))
    with pytest.raises(Unreachable, match="HTTP 503"):
        ask(intel_service, slept=waited, timeout=0.4)
    assert waited == []


NOT_ADDRESSES = [
    "",
    "intel",
    "ftp://x.example",
    "http://x.example",
    "http://127.0.0.1.x.example",
    "https://",
    "https://[::1",
    "https://a:b@x.example",
    "https://x.example/?q",
    "https://x.example/#f",
    "https://x.example:port",
    "https://x.example:0",
    "https://x.example:99999",
    "https://a\nb",
]


@pytest.mark.parametrize("url", NOT_ADDRESSES)
def test_only_https_is_asked_and_no_secret_stands_in_an_address(url):
    with pytest.raises(Usage) as raised:
        checked_url("amd-kds", url)
    one_line(raised.value)
    with pytest.raises(Usage):
        Web({"amd-kds": url})


def test_a_service_on_this_machine_may_be_asked_without_tls():
    for host in ("127.0.0.1", "127.9.9.9", "[::1]", "localhost"):
        assert checked_url("intel-pcs", f"http://{host}:8081/") == f"http://{host}:8081"
    assert checked_url("intel-pcs", "https://pccs.example/base/") == "https://pccs.example/base"
    with pytest.raises(Usage, match="no service"):
        checked_url("intel", "https://x.example")


@pytest.mark.parametrize("timeout", [0, 0.05, -1, 601, float("nan"), float("inf")])
def test_a_time_out_is_bounded(timeout):
    with pytest.raises(Usage):
        Web(timeout=timeout)


def test_a_certificate_that_nobody_knows_ends_the_handshake(tmp_path):
    """A machine in the middle: its certificate is not one of the system's authorities."""
    import ssl

    key, certificate = pki_nvidia.ec_key("a machine in the middle"), GPU.device.path[0]
    from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat

    made = pki_nvidia.Wanted(
        subject="x", issuer="x", not_before=0, not_after=pki_nvidia.LONG, key=key, signer=key, ca=None
    ).make()
    (tmp_path / "a.pem").write_bytes(
        made.parsed.public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "a.pem")
    assert certificate
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def shake() -> None:
            connection, _ = listening.accept()
            with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True):
                pass

        thread = threading.Thread(target=shake, daemon=True)
        thread.start()
        with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED") as raised:
            Web({"intel-pcs": f"https://127.0.0.1:{listening.getsockname()[1]}"}, timeout=5).ask(intel.qe_identity("tdx"))
        thread.join(5)
    one_line(raised.value)


def test_a_header_that_comes_twice_in_two_ways_is_none():
    twice = Answer(b"", (("a", "1"), ("a", "2"), ("b", "3"), ("b", "3")))
    assert twice.header("b") == "3"
    for name in ("a", "c"):
        with pytest.raises(BadAnswer):
            twice.header(name)
    with pytest.raises(BadAnswer, match="no certificates"):
        Answer(b"", (("a", "%2D%2Dnot PEM"),)).chain("a")


# --- Intel ------------------------------------------------------------------------------------------------------------


def recorded(plan: object, *args: object, **kwargs: object) -> list[tuple[str, ...]]:
    """What a plan asks, where nobody ever answers."""
    asked: list[tuple[str, ...]] = []

    def ask_nobody(*alternatives: Request) -> tuple[Endorsement, ...]:
        asked.append(tuple(request.about for request in alternatives))
        return ()

    plan(*args, ask_nobody, **kwargs)  # type: ignore[operator]
    return asked


def test_what_a_tdx_quote_needs():
    assert recorded(intel.plan, TDX.quote()) == [
        (f"intel-pcs:{TCB}",),
        (f"intel-pcs:{IDENTITY}",),
        (f"intel-pcs:{PLATFORM_CRL}",),
        ("intel-root-crl:", "intel-pcs:/sgx/certification/v4/rootcacrl"),
    ]


def test_what_an_sgx_quote_needs_and_whose_list():
    asked = recorded(intel.plan, SGX.quote(), which=intel.edition("early"))
    assert asked[:3] == [
        (f"intel-pcs:/sgx/certification/v4/tcb?fmspc={FMSPC}&update=early",),
        ("intel-pcs:/sgx/certification/v4/qe/identity?update=early",),
        ("intel-pcs:/sgx/certification/v4/pckcrl?ca=processor&encoding=der",),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        TDX.quote()[:-1],
        replace(TDX, certification_type=3).quote(),
        replace(TDX, chain=(pki_intel.ROOT,)).quote(),
        replace(TDX, chain=(pki_intel.TCB_SIGNING,)).quote(),
        replace(TDX, certificates={pki_intel.PCK: {"issuer": pki_intel.TCB_SIGNING}}).quote(),
    ],
)
def test_a_quote_that_does_not_say_what_it_needs_is_a_problem(data):
    found = provider().collect(Evidence("tdx", data), pki_intel.AT)
    assert [p.about for p in found.problems] == ["tdx"]
    assert isinstance(found.problems[0].error, BadEvidence | BadCertificate)


def refused(request: Request, reply: Reply) -> str:
    headers = tuple((name.lower(), value) for name, value in reply.headers)
    with pytest.raises(BadAnswer) as raised:
        request.read(Answer(reply.body, headers))
    one_line(raised.value)
    return raised.value.message


def test_intels_answer_to_another_question_is_none():
    other = replace(TDX, info={"fmspc": "00" * 6})
    answers = {**pcs(), **pcs(SGX)}
    tcb = intel.tcb_info("tdx", pki_intel.FMSPC)
    assert "FMSPC 000000000000" in refused(tcb, pcs(other)[TCB])
    assert "SGX TCB info" in refused(tcb, answers[f"/sgx/certification/v4/tcb?fmspc={FMSPC}"])
    assert "'QE'" in refused(intel.qe_identity("tdx"), answers["/sgx/certification/v4/qe/identity"])
    assert "not an answer" in refused(intel.qe_identity("tdx"), pcs()[TCB])
    processors = answers["/sgx/certification/v4/pckcrl?ca=processor&encoding=der"]
    assert "another authority" in refused(intel.pck_crl("platform"), processors)
    assert "another authority" in refused(intel.root_crl(), processors)
    assert "no revocation list" in refused(intel.root_crl(), Reply(b"30" + b"zz" * 20))
    assert "no revocation list" in refused(intel.root_crl(), Reply(b"-----BEGIN X509 CRL-----\n"))
    assert "0 headers" in refused(intel.pck_crl("platform"), Reply(pcs()[PLATFORM_CRL].body))


@pytest.mark.parametrize("form", ["der", "pem", "hex", "HEX"])
def test_a_revocation_list_comes_in_several_forms(form):
    der = TDX.revocation_list(pki_intel.ROOT)
    pem = RevocationList(der).parsed.public_bytes(Encoding.PEM)
    forms = {"der": der, "pem": pem, "hex": der.hex().encode() + b"\n", "HEX": der.hex().upper().encode()}
    assert intel.root_crl().read(Answer(forms[form])) == (Endorsement(CRL, der),)


@pytest.mark.parametrize(("world", "answers"), [(TDX, pcs()), (TDX, pccs()), (SGX, pcs(SGX))], ids=["pcs", "pccs", "sgx"])
def test_what_intel_answers_verifies_a_quote(world, answers):
    with serve(answers) as service:
        told = addresses(service)
        if "/sgx/certification/v4/rootcacrl" in answers:
            told["intel-root-crl"] = f"{service.url}/sgx/certification/v4/rootcacrl"
        found = provider(web=Web(told)).gather(world.evidence(), pki_intel.AT)
    platform = registry.verifier(world.tee.lower())
    outcome = walk(platform, world.evidence(), found, world.roots(), pki_intel.AT)
    assert all(check.status.value == "passed" for check in outcome.checks if check.number.startswith("Q"))


def test_a_pccs_that_was_named_is_asked_for_the_roots_list_before_intel(monkeypatch):
    with serve(pccs()) as service:
        monkeypatch.setattr(
            web.Web, "_once", lambda self, request, _deadline: asked.append(request.about) or (404, Answer(b""))
        )
        asked: list[str] = []
        provider(web=Web({"intel-pcs": service.url})).collect(TDX.evidence(), pki_intel.AT)
    assert asked[-2:] == ["intel-pcs:/sgx/certification/v4/rootcacrl", "intel-root-crl:"]


VERSION_2 = {"version": 2, "cpuid": bytes(3), "launch_mitigations": 0, "current_mitigations": 0}


# --- AMD --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", pki_amd.LINES)
def test_what_amd_answers_verifies_a_report(line):
    case = pki_amd.good(line)
    roots = replace(pki_amd.ROOTS, certificates=(Certificate(pki_amd.ark(line)).key_digest,))
    with serve(kds(line)) as service:
        found = provider(service).gather(case.evidence, pki_amd.AT)
    assert service.paths == list(kds(line))[::-1][:1] + list(kds(line))[:2]
    assert {PEM_CHAIN, CRL, CERTIFICATE} <= set(kinds(found))
    outcome = walk(registry.verifier("sev_snp"), case.evidence, found, roots, pki_amd.AT)
    assert all(
        check.status.value == "passed" for check in outcome.checks if check.number.startswith("S") and check.number[1] != "P"
    )


def test_addresses_are_as_amd_has_them():
    genoa = amd.vcek_path("genoa", pki_amd.CHIP["genoa"], pki_amd.TCB["genoa"])
    assert genoa == f"/vcek/v1/Genoa/{pki_amd.CHIP['genoa'].hex()}?blSPL=10&teeSPL=00&snpSPL=27&ucodeSPL=86"
    turin = amd.vcek_path("turin", pki_amd.CHIP["turin"], pki_amd.TCB["turin"])
    assert turin == f"/vcek/v1/Turin/{pki_amd.CHIP['turin'].hex()}?blSPL=01&teeSPL=02&snpSPL=04&ucodeSPL=81&fmcSPL=03"
    assert len(pki_amd.CHIP["turin"].hex()) == 16


@pytest.mark.parametrize("line", ["milan", "genoa"])
def test_a_report_that_does_not_name_its_processor_is_asked_for_in_turn(line):
    case = pki_amd.good(line, **VERSION_2)
    with serve(kds(line)) as service:
        found = provider(service).collect(case.evidence, pki_amd.AT)
    assert found.problems == ()
    tried = [path.split("/")[3] for path in service.paths if "blSPL" in path]
    assert tried == (["Milan"] if line == "milan" else ["Milan", "Genoa"])
    assert service.paths[-1] == f"/vcek/v1/{line.capitalize()}/crl"


def test_a_chip_that_amd_does_not_know_is_one_problem(amd_service):
    amd_service.behave(server.status("404 Not Found"))
    found = provider(amd_service).collect(pki_amd.good("genoa", **VERSION_2).evidence, pki_amd.AT)
    assert found.problems[0].about.startswith("amd-kds:/vcek/v1/Milan/")
    assert all(isinstance(p.error, NotFound) for p in found.problems)


def test_a_vlek_comes_along_and_is_not_asked_for():
    case = pki_amd.good("milan", kind="vlek")
    with serve(kds("milan", kind="vlek")) as service:
        found = provider(service).collect(case.evidence, pki_amd.AT)
        assert service.paths == ["/vlek/v1/Milan/crl"]
        assert found.problems == ()
        leaf = documents([(CERTIFICATE, pki_amd.leaf("milan", "vlek"))])
        found = provider(service).collect(case.evidence, pki_amd.AT, beside=leaf)
    assert service.paths[1:] == ["/vlek/v1/Milan/cert_chain", "/vlek/v1/Milan/crl"]


def test_the_list_of_a_vlek_is_the_same_roots(amd_service):
    amd_service.replies = kds("milan")
    found = provider(amd_service).collect(pki_amd.good("milan", kind="vlek").evidence, pki_amd.AT)
    assert amd_service.paths == ["/vlek/v1/Milan/crl", "/vcek/v1/Milan/crl"]
    assert found.problems == ()


def test_a_vcek_that_came_along_is_not_asked_for(amd_service):
    case = pki_amd.good("genoa")
    beside = documents([(CERTIFICATE, pki_amd.leaf("genoa"))])
    provider(amd_service).collect(case.evidence, pki_amd.AT, beside=beside)
    assert amd_service.paths == ["/vcek/v1/Genoa/cert_chain", "/vcek/v1/Genoa/crl"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"chip_id": bytes(64)}, "which chip"),
        ({"cpuid": bytes((0x1B, 0, 0))}, "not known here"),
        ({"key_info": 7 << 2}, "no key"),
    ],
)
def test_a_report_that_does_not_say_what_it_needs_is_a_problem(amd_service, changes, why):
    evidence = Evidence("sev_snp", pki_amd.signed(pki_amd.claims("genoa", **changes)))
    found = provider(amd_service).collect(evidence, pki_amd.AT)
    assert [p.about for p in found.problems] == ["sev_snp"]
    assert why in found.problems[0].error.message
    assert amd_service.asked == []


def test_a_certificate_beside_a_report_that_is_none_of_amds_is_a_problem(amd_service):
    beside = documents([(CERTIFICATE, pki_amd.leaf("genoa", changed=(("4", None),)))])
    found = provider(amd_service).collect(pki_amd.good("genoa").evidence, pki_amd.AT, beside=beside)
    assert "none of AMD's" in found.problems[0].error.message


def test_amds_answer_to_another_question_is_none():
    claims = pki_amd.claims("genoa")
    vcek = amd.vcek(claims, "genoa")
    assert "another chip" in refused(vcek, Reply(pki_amd.leaf("genoa", tcb=replace(pki_amd.TCB["genoa"], snp=1))))
    assert "no VCEK" in refused(vcek, Reply(pki_amd.leaf("genoa", "vlek")))
    assert "another chip" in refused(vcek, Reply(pki_amd.leaf("milan")))
    assert "no VCEK" in refused(vcek, Reply(pki_amd.ark("genoa")))
    assert "no VCEK" in refused(vcek, Reply(b"<html>"))
    assert "no certificates" in refused(amd.cert_chain("vcek", "genoa"), Reply(b"<html>"))
    assert "not the certificates" in refused(amd.cert_chain("vcek", "genoa"), kds("milan")["/vcek/v1/Milan/cert_chain"])
    assert "another root" in refused(amd.crl("vcek", "genoa"), Reply(pki_amd.crl("milan")))
    assert "no revocation list" in refused(amd.crl("vcek", "genoa"), Reply(b"<html>"))


def test_with_amds_own_certificates_shipped_the_chain_is_not_asked_for(monkeypatch):
    monkeypatch.setattr(shipped, "certificates", lambda _vendor: (Certificate(pki_amd.issuer("genoa")),))
    with serve(kds("genoa")) as service:
        provider(service).collect(pki_amd.good("genoa").evidence, pki_amd.AT)
    assert not any("cert_chain" in path for path in service.paths)


# --- NVIDIA -----------------------------------------------------------------------------------------------------------


def test_what_nvidia_answers_verifies_a_device(nvidia_service):
    found = provider(nvidia_service).gather(GPU.evidence, pki_nvidia.AT)
    assert kinds(found).count(NVIDIA_RIM) == 2
    assert kinds(found).count(OCSP_RESPONSE) == 6
    outcome = walk(registry.verifier("nvidia_cc"), GPU.evidence, found, GPU.roots, pki_nvidia.AT)
    assert all(check.status.value == "passed" for check in outcome.checks if check.number[1] != "T")


def test_the_same_question_is_asked_once_for_many_devices(nvidia_service):
    """Eight devices of one kind share their manifests and most of their certificates."""
    devices = tuple(
        replace(GPU.device, name=str(n), certificates={1: {"subject": f"GH100 A0{n} GSP BROM"}}) for n in range(8)
    )
    cpu = replace(TDX.evidence(), devices=tuple(d.evidence for d in devices), device_binding=b"x")
    nvidia_service.replies.update(pcs())
    found = provider(nvidia_service).collect(cpu, pki_nvidia.AT)
    posted = [body for method, _, body in nvidia_service.asked if method == "POST"]
    assert len(posted) == len(set(posted)) == 6 + 7
    assert len([path for path in nvidia_service.paths if path.startswith("/v1/rim")]) == 2
    assert len(found.documents) <= MAX_ENDORSEMENTS


def test_nvidias_answer_to_another_question_is_none():
    (name, reply), (other_name, other) = rims().items()
    name, other_name = name.removeprefix("/v1/rim/"), other_name.removeprefix("/v1/rim/")
    assert nvidia.manifest(name).read(Answer(reply.body))
    assert f"not the manifest {name}" in refused(nvidia.manifest(name), other)
    assert "not the manifest" in refused(nvidia.manifest(name), Reply(b"{}"))
    assert "not the manifest" in refused(nvidia.manifest(name), Reply(b'{"rim":7}'))
    assert "no reference manifest" in refused(nvidia.manifest(name), Reply(b'{"rim":"!"}'))
    assert "no reference manifest" in refused(nvidia.manifest(name), Reply(b'{"rim":"PGh0bWw+"}'))
    assert "not JSON" in refused(nvidia.manifest(name), Reply(b"<html>"))
    assert "not a JSON object" in refused(nvidia.manifest(name), Reply(b"[]"))
    first, second = pki_nvidia.answers(GPU.device)[:2]
    asked = nvidia.standing(first.certificate, first.issuer)
    assert asked.read(Answer(first.data)) == (Endorsement(OCSP_RESPONSE, first.data),)
    assert "another certificate" in refused(asked, Reply(second.data))
    assert "OCSP" in refused(asked, Reply(replace(first, response_status=6).data))
    assert "not an OCSP response" in refused(asked, Reply(b"<html>"))


@pytest.mark.parametrize("name", ["", "../../v2", "a b", "a/b", "x" * 129, "a?b", "\u00e9"])
def test_the_name_of_a_manifest_is_a_name(name):
    with pytest.raises(BadEvidence):
        nvidia.manifest(name)


def test_the_keys_of_nvidias_tokens():
    keys = pki_nvidia.TokenWorld().endorsements.documents[0]
    evidence = pki_nvidia.TokenWorld().evidence
    with serve({"/.well-known/jwks.json": Reply(keys.data)}) as service:
        found = provider(service).gather(evidence, pki_nvidia.AT)
    assert keys in found.documents
    for body in (b"{}", b'{"keys":[]}', b'{"keys":7}', b"[]", b'{"keys":[{"x5c":["AA=="]}]}', b'{"keys":[{"x5c":[]}]}'):
        assert "no key set" in refused(nvidia.key_set(), Reply(body))


def test_evidence_of_a_device_that_is_none_is_a_problem():
    found = provider().collect(Evidence("nvidia_cc", b"{}"), 0)
    assert [p.about for p in found.problems] == ["nvidia_cc"]


# --- the cache --------------------------------------------------------------------------------------------------------

ABOUT = "amd-kds:/vcek/v1/Milan/crl"
LIST = Endorsement(CRL, pki_amd.crl("milan"))


def test_what_is_kept_is_found_again_by_its_question(tmp_path):
    cache = Cache(tmp_path / "c")
    assert cache.find(ABOUT) == cache.all() == ()
    cache.keep(ABOUT, [LIST], fetched_at=7)
    assert Cache(tmp_path / "c").find(ABOUT) == (Document(LIST, ABOUT, 7),)
    assert cache.find("amd-kds:/other") == ()
    cache.keep(ABOUT, [LIST], fetched_at=9)
    assert [d.fetched_at for d in cache.find(ABOUT)] == [9]


def test_nobody_else_reads_or_writes_it(tmp_path):
    folder = tmp_path / "c"
    old = os.umask(0)
    try:
        Cache(folder).keep(ABOUT, [LIST], fetched_at=7)
    finally:
        os.umask(old)
    for path in folder.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not list(folder.rglob(".*"))


@pytest.mark.parametrize("how", ["altered", "emptied", "longer", "gone", "a folder"])
def test_a_document_that_was_damaged_is_dropped_and_asked_for_again(tmp_path, how):
    cache = Cache(tmp_path)
    cache.keep(ABOUT, [LIST], fetched_at=7)
    (path,) = (tmp_path / "documents").iterdir()
    data = path.read_bytes()
    path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how != "gone":
        path.write_bytes({"altered": data[:-1] + b"\0", "emptied": b"", "longer": data + b"\0"}[how])
    assert cache.find(ABOUT) == cache.all() == ()
    if how != "a folder":
        cache.keep(ABOUT, [LIST], fetched_at=8)
        assert cache.find(ABOUT) == (Document(LIST, ABOUT, 8),)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[" * 9, b'{"entries":[7],"format":"strongroom.endorsement-cache.v1"}', b"\xff" * 99, b" " * (5 << 20)],
)
def test_an_index_that_was_damaged_is_begun_anew(tmp_path, data):
    cache = Cache(tmp_path)
    cache.keep(ABOUT, [LIST], fetched_at=7)
    (tmp_path / "index.json").write_bytes(data)
    assert cache.all() == ()
    cache.keep(ABOUT, [LIST], fetched_at=8)
    assert [d.fetched_at for d in cache.all()] == [8]


def test_an_index_whose_entry_answers_nothing_that_can_be_asked_is_left_alone(tmp_path):
    cache = Cache(tmp_path)
    cache.keep(ABOUT, [LIST], fetched_at=7)
    index = tmp_path / "index.json"
    index.write_bytes(index.read_bytes().replace(ABOUT.encode(), b"NOT A QUESTION"))
    assert cache.all() == ()


def test_it_is_bounded_and_what_was_fetched_longest_ago_goes_first(tmp_path):
    cache = Cache(tmp_path, most=1000)
    for n in range(5):
        cache.keep(f"amd-kds:/{n}", [Endorsement(CERTIFICATE, bytes((n,)) * 300)], fetched_at=n)
    assert [d.about for d in cache.all()] == ["amd-kds:/2", "amd-kds:/3", "amd-kds:/4"]
    assert len(list((tmp_path / "documents").iterdir())) == 3
    cache.keep("amd-kds:/big", [Endorsement(CERTIFICATE, bytes(1001))], fetched_at=9)
    assert cache.find("amd-kds:/big") == ()


def test_a_few_editions_of_an_answer_are_kept(tmp_path):
    cache = Cache(tmp_path)
    for n in range(MAX_EDITIONS + 2):
        cache.keep(ABOUT, [Endorsement(CERTIFICATE, bytes((n,)))], fetched_at=n)
    assert [d.fetched_at for d in cache.find(ABOUT)] == [5, 4, 3, 2]


def test_a_document_with_two_questions_is_kept_once(tmp_path):
    cache = Cache(tmp_path)
    cache.keep("amd-kds:/a", [LIST], fetched_at=1)
    cache.keep("amd-kds:/b", [LIST], fetched_at=2)
    assert len(list((tmp_path / "documents").iterdir())) == 1
    assert len(cache.all()) == 2


def test_two_who_write_at_once_lose_nothing(tmp_path):
    def keep(n: int) -> None:
        Cache(tmp_path).keep(f"amd-kds:/{n}", [Endorsement(CERTIFICATE, bytes((n,)))], fetched_at=n)

    threads = [threading.Thread(target=keep, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Cache(tmp_path).all()) == 8


def test_where_files_cannot_be_locked_it_is_kept_all_the_same(tmp_path, monkeypatch):
    from strongroom.app.endorsements import cache

    monkeypatch.setattr(cache, "fcntl", None)
    Cache(tmp_path).keep(ABOUT, [LIST], fetched_at=7)
    assert len(Cache(tmp_path).find(ABOUT)) == 1


def test_where_nothing_can_be_written_is_said(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(NotFound, match="cannot write"):
        Cache(tmp_path / "file" / "c").keep(ABOUT, [LIST], fetched_at=1)


def test_it_lies_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "strongroom" / "endorsements"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "strongroom" / "endorsements"


# --- bundles ----------------------------------------------------------------------------------------------------------


def test_there_are_vectors():
    assert len(list(VECTORS.glob("*.json"))) > 20


@pytest.mark.parametrize("path", sorted(VECTORS.glob("*.json")), ids=lambda p: p.stem)
def test_vectors(path):
    case = json.loads(path.read_bytes())
    data = wire.unb64(case["data"])
    if case["expect"] == "ok":
        found = Bundle.parse(data)
        assert found.encode() == data
        assert [d.digest for d in found.documents] == case["digests"]
    else:
        with pytest.raises(StrongroomError) as raised:
            Bundle.parse(data)
        assert raised.value.code == case["expect"]


def test_the_example_of_the_page_is_a_bundle():
    page = (Path(__file__).parents[1] / "spec" / "endorsements.md").read_text()
    example = page.split("```json\n")[1].split("\n```")[0].encode()
    assert Bundle.parse(example).encode() == example
    assert example == wire.unb64(json.loads((VECTORS / "one-document.json").read_bytes())["data"])


def test_the_page_names_every_service_and_media_type():
    page = (Path(__file__).parents[1] / "spec" / "endorsements.md").read_text()
    for name in (
        *SERVICES,
        CERTIFICATE,
        CRL,
        INTEL_QE_IDENTITY,
        INTEL_TCB_INFO,
        JWK_SET,
        NVIDIA_RIM,
        OCSP_RESPONSE,
        PEM_CHAIN,
    ):
        assert f"`{name}`" in page


abouts = st.sampled_from(["", "amd-kds:/a", "intel-root-crl:", "nvidia-ocsp:ab/1"])
made = st.builds(
    Document,
    st.builds(Endorsement, st.sampled_from([CRL, CERTIFICATE, NVIDIA_RIM]), st.binary(max_size=8)),
    abouts,
    st.integers(0, 9),
)


@given(st.lists(made, max_size=6))
def test_a_bundle_is_its_canonical_bytes(held):
    found = Bundle(tuple(held))
    assert Bundle.parse(found.encode()) == found
    assert {d.order for d in found.documents} == {d.order for d in held}
    for document in found.documents:
        assert document.fetched_at == max(d.fetched_at for d in held if d.order == document.order)


@given(st.lists(made, min_size=1, max_size=3), st.data())
def test_a_changed_bundle_is_refused_or_another_bundle(held, data):
    raw = bytearray(Bundle(tuple(held)).encode())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    try:
        found = Bundle.parse(bytes(raw))
    except StrongroomError:
        return
    assert found.encode() == bytes(raw)


@given(
    st.binary(max_size=64)
    | st.sampled_from([b"{", b"<", b"0", b"30", b"-----BEGIN CERTIFICATE-----"]).flatmap(
        lambda b: st.binary(max_size=64).map(lambda t: b + t)
    )
)
def test_any_file_is_documents_or_refused(data):
    with contextlib.suppress(BadEndorsement):
        foreign(data)


def test_a_bundle_is_bounded():
    with pytest.raises(TooLarge):
        Bundle(tuple(Document(Endorsement(CRL, n.to_bytes(2, "big"))) for n in range(4097)))


def test_the_collateral_of_dcap_qvl_is_a_bundle(tmp_path):
    signer = pki_intel.pem(TDX.certificate(pki_intel.TCB_SIGNING), TDX.certificate(pki_intel.ROOT)).decode()
    issuer = pki_intel.pem(TDX.certificate(TDX.issuer), TDX.certificate(pki_intel.ROOT)).decode()

    def apart(data: bytes, name: str) -> tuple[str, str]:
        text = data.decode()
        signature = json.loads(text)["signature"]
        return text.removeprefix(f'{{"{name}":').removesuffix(f',"signature":"{signature}"}}'), signature

    info, identity = apart(TDX.tcb_info(), "tcbInfo"), apart(TDX.qe_identity(), "enclaveIdentity")
    members = {
        "pck_crl": TDX.revocation_list(TDX.issuer).hex(),
        "pck_crl_issuer_chain": issuer,
        "qe_identity": identity[0],
        "qe_identity_issuer_chain": signer,
        "qe_identity_signature": identity[1],
        "root_ca_crl": TDX.revocation_list(pki_intel.ROOT).hex(),
        "tcb_info": info[0],
        "tcb_info_issuer_chain": signer,
        "tcb_info_signature": info[1],
    }
    (tmp_path / "collateral.json").write_text(json.dumps(members))
    found = open_bundle(tmp_path / "collateral.json")
    assert TDX.tcb_info() in [d.endorsement.data for d in found.documents]
    gathered = provider(bundle=found.documents).collect(TDX.evidence(), pki_intel.AT)
    assert gathered.problems == ()
    outcome = walk(registry.verifier("tdx"), TDX.evidence(), gathered.endorsements, TDX.roots(), pki_intel.AT)
    assert outcome.verified is not None
    for name, value in (
        ("tcb_info", 7),
        ("pck_crl", "zz"),
        ("qe_identity", "{}"),
        ("root_ca_crl", "30ff"),
        ("tcb_info_issuer_chain", "x"),
    ):
        (tmp_path / "bad.json").write_text(json.dumps({**members, name: value}))
        with pytest.raises(BadEndorsement, match=r"bad\.json"):
            open_bundle(tmp_path / "bad.json")


def test_a_folder_of_documents_in_the_vendors_formats_is_a_bundle(tmp_path):
    files = {
        "tcb.json": TDX.tcb_info(),
        "qe.json": TDX.qe_identity(),
        "pck.crl": TDX.revocation_list(TDX.issuer),
        "root.crl.hex": TDX.revocation_list(pki_intel.ROOT).hex().encode(),
        "chain.pem": pki_intel.pem(TDX.certificate(pki_intel.TCB_SIGNING), TDX.certificate(pki_intel.ROOT)),
        "vcek.cer": pki_amd.leaf("genoa"),
        "amd.crl.pem": RevocationList(pki_amd.crl("genoa")).parsed.public_bytes(Encoding.PEM),
        "rim.xml": GPU.held[0].data,
        "ocsp.der": pki_nvidia.answers(GPU.device)[0].data,
        "jwks.json": pki_nvidia.TokenWorld().endorsements.documents[0].data,
        ".hidden": b"junk",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder").mkdir()
    found = open_bundle(tmp_path)
    labels = {d.endorsement.media_type: d.about for d in found.documents}
    assert set(labels) == {CERTIFICATE, CRL, INTEL_QE_IDENTITY, INTEL_TCB_INFO, JWK_SET, NVIDIA_RIM, OCSP_RESPONSE}
    assert labels[INTEL_TCB_INFO] == f"intel-pcs:{TCB}"
    assert {d.about for d in found.documents if d.endorsement.media_type == CRL} == {
        f"intel-pcs:{PLATFORM_CRL}", "intel-root-crl:", "amd-kds:/vcek/v1/Genoa/crl",
    }  # fmt: skip
    assert f"amd-kds:{amd.vcek_path('genoa', pki_amd.CHIP['genoa'], pki_amd.TCB['genoa'])}" in {
        d.about for d in found.documents
    }
    gathered = provider(bundle=found.documents).collect(TDX.evidence(), pki_intel.AT)
    assert gathered.problems == ()
    assert walk(registry.verifier("tdx"), TDX.evidence(), gathered.endorsements, TDX.roots(), pki_intel.AT).verified
    (tmp_path / "README").write_text("not a document, and no silence about it")
    with pytest.raises(BadEndorsement, match="README"):
        open_bundle(tmp_path)


def test_what_is_no_bundle_is_refused_by_name(tmp_path):
    with pytest.raises(NotFound, match="nowhere"):
        open_bundle(tmp_path / "nowhere")
    with pytest.raises(NotFound, match="no files"):
        open_bundle(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(EmptyFile):
        open_bundle(tmp_path / "empty")
    for data in (
        b'{"a":1}',
        b"[]",
        b"<html>",
        b"hello",
        b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----",
        b"{{",
    ):
        (tmp_path / "bad").write_bytes(data)
        with pytest.raises(BadEndorsement, match="bad: ") as raised:
            open_bundle(tmp_path / "bad")
        one_line(raised.value)


def test_a_certificate_that_says_no_chip_answers_no_question():
    for der in (pki_amd.ark("genoa"), pki_amd.leaf("genoa", "vlek"), pki_amd.leaf("genoa", changed=(("1", None),))):
        assert about_of(Endorsement(CERTIFICATE, der)) == ""
    assert about_of(Endorsement(CRL, GPU_LIST)) == ""
    assert about_of(Endorsement(INTEL_QE_IDENTITY, SGX.qe_identity())) == "intel-pcs:/sgx/certification/v4/qe/identity"
    assert about_of(Endorsement(INTEL_TCB_INFO, SGX.tcb_info())).startswith("intel-pcs:/sgx/")


GPU_LIST = pki_intel.revocation_list(pki_intel.TCB_SIGNING)


# --- what documents say of themselves ---------------------------------------------------------------------------------


def test_documents_say_what_they_are():
    said = {e.media_type: describe(e) for e in (*TDX.endorsements().documents, *GPU.endorsements.documents)}
    assert said[INTEL_TCB_INFO].what == f"TDX TCB info of FMSPC {FMSPC}, evaluation 19"
    assert said[INTEL_QE_IDENTITY].what == "enclave identity TD_QE, evaluation 18"
    assert said[PEM_CHAIN].what == "certificates Intel SGX TCB Signing, Intel SGX Root CA"
    assert said[CRL].what.startswith("revocation list, ")
    assert said[NVIDIA_RIM].what.startswith("reference manifest GH100")
    assert said[OCSP_RESPONSE].what.endswith(": good")
    info = said[INTEL_TCB_INFO]
    assert info.current(pki_intel.AT)
    assert not info.current(info.not_before - 1)
    assert not info.current(info.not_after + 1)
    assert describe(Endorsement("text/plain", b"")).what == "text/plain"
    assert describe(pki_nvidia.TokenWorld().endorsements.documents[0]).what == "key set of 1 keys"
    assert describe(Endorsement(JWK_SET, b'{"keys":[{"kty":"EC"}]}')).not_after is None
    nameless = pki_nvidia.Wanted(subject="a", issuer="b", not_before=0, not_after=9).make()
    assert describe(Endorsement(CERTIFICATE, nameless.der)).issuer == "b"


@pytest.mark.parametrize(
    "media_type", [CERTIFICATE, CRL, INTEL_QE_IDENTITY, INTEL_TCB_INFO, JWK_SET, NVIDIA_RIM, OCSP_RESPONSE, PEM_CHAIN]
)
@given(
    data=st.binary(max_size=64)
    | st.sampled_from([b"{}", b"[]", b'{"keys":[7]}', b'{"tcbInfo":{},"signature":"' + b"0" * 128 + b'"}'])
)
def test_junk_is_not_described(media_type, data):
    with pytest.raises(BadEndorsement):
        describe(Endorsement(media_type, data))


# --- the provider -----------------------------------------------------------------------------------------------------


def test_the_simulated_platform_needs_nothing_and_gets_nothing():
    junk = Document(Endorsement(CRL, pki_amd.crl("milan")))
    found = provider(bundle=[junk]).collect(Evidence("simulated", b"{}"), 0)
    assert (found.documents, found.problems, found.fetched) == ((), (), 0)


@pytest.mark.parametrize("platform", ["nitro", "tpm"])
def test_platforms_without_a_service_get_the_shipped_certificates(platform):
    found = provider().gather(Evidence(platform, b"x"), 0)
    assert set(found.documents) == set(shipped.endorsements(platform))


def test_an_unknown_platform_gets_nothing():
    assert provider().gather(Evidence("other", b"x"), 0).documents == ()


def test_what_is_fetched_is_kept_and_not_fetched_again(intel_service, tmp_path):
    first = provider(intel_service, tmp_path).collect(TDX.evidence(), pki_intel.AT)
    assert (first.fetched, first.problems) == (4, ())
    again = provider(intel_service, tmp_path).collect(TDX.evidence(), pki_intel.AT)
    assert again.fetched == 0
    assert again.endorsements == first.endorsements
    offline = provider(None, tmp_path).collect(TDX.evidence(), pki_intel.AT)
    assert offline.endorsements == first.endorsements
    assert len(intel_service.asked) == 4
    anew = provider(intel_service, tmp_path).collect(TDX.evidence(), pki_intel.AT, anew=True)
    assert anew.fetched == 4


def test_what_is_a_day_old_is_asked_for_again_and_used_where_nobody_answers(intel_service, tmp_path):
    provider(intel_service, tmp_path).collect(TDX.evidence(), pki_intel.AT)
    later = {"clock": lambda: pki_intel.AT + 2 * pki_intel.DAY}
    assert provider(intel_service, tmp_path, **later).collect(TDX.evidence(), pki_intel.AT).fetched == 4
    intel_service.behave(server.status("503 Busy"))
    much = {"clock": lambda: pki_intel.AT + 9 * pki_intel.DAY}
    found = provider(intel_service, tmp_path, **much).collect(TDX.evidence(), pki_intel.AT)
    assert found.problems == ()
    assert Endorsement(INTEL_TCB_INFO, TDX.tcb_info()) in found.endorsements.documents


def test_a_clock_that_was_set_back_makes_nothing_fresh(intel_service, tmp_path):
    provider(intel_service, tmp_path).collect(TDX.evidence(), pki_intel.AT)
    early = {"clock": lambda: pki_intel.AT - pki_intel.DAY}
    assert provider(intel_service, tmp_path, **early).collect(TDX.evidence(), pki_intel.AT).fetched == 4


def test_what_has_run_out_is_asked_for_again(intel_service, tmp_path):
    provider(intel_service, tmp_path).collect(TDX.evidence(), pki_intel.AT)
    after = pki_intel.AT + 40 * pki_intel.DAY
    newer = replace(
        TDX,
        info={"issueDate": pki_intel.time(after - 5), "nextUpdate": pki_intel.time(after + pki_intel.DAY)},
    )
    intel_service.replies = pcs(newer)
    found = provider(intel_service, tmp_path).collect(TDX.evidence(), after)
    held = [d.endorsement.data for d in found.documents if d.endorsement.media_type == INTEL_TCB_INFO]
    assert held == [newer.tcb_info()]
    back = provider(intel_service, tmp_path).collect(TDX.evidence(), pki_intel.AT)
    assert [d.endorsement.data for d in back.documents if d.endorsement.media_type == INTEL_TCB_INFO] == [TDX.tcb_info()]


def test_what_has_run_out_and_cannot_be_had_anew_is_given_and_said(intel_service, tmp_path):
    provider(intel_service, tmp_path).collect(TDX.evidence(), pki_intel.AT)
    found = provider(None, tmp_path).collect(TDX.evidence(), pki_intel.AT + 40 * pki_intel.DAY)
    assert Endorsement(INTEL_TCB_INFO, TDX.tcb_info()) in found.endorsements.documents
    assert f"intel-pcs:{TCB}" in [p.about for p in found.problems]
    outcome = walk(
        registry.verifier("tdx"), TDX.evidence(), found.endorsements, TDX.roots(), pki_intel.AT + 40 * pki_intel.DAY
    )
    assert outcome.code == "attest.endorsement_expired"


def test_what_never_changes_is_never_asked_for_again(amd_service, tmp_path):
    case = pki_amd.good("genoa")
    provider(amd_service, tmp_path, clock=lambda: pki_amd.AT).collect(case.evidence, pki_amd.AT)
    later = provider(amd_service, tmp_path, clock=lambda: pki_amd.AT + 10 * pki_amd.DAY)
    later.collect(case.evidence, pki_amd.AT + 10 * pki_amd.DAY)
    assert len([path for path in amd_service.paths if "blSPL" in path]) == 1
    assert len([path for path in amd_service.paths if path.endswith("crl")]) == 2


def test_without_a_network_what_is_missing_is_said_and_the_end_is_not_established():
    found = provider().collect(TDX.evidence(), pki_intel.AT)
    assert [p.about for p in found.problems] == [
        f"intel-pcs:{TCB}", f"intel-pcs:{IDENTITY}", f"intel-pcs:{PLATFORM_CRL}", "intel-root-crl:",
    ]  # fmt: skip
    for problem in found.problems:
        assert isinstance(problem.error, NotFound)
        one_line(problem.error)
    assert found.fetched == 0
    outcome = walk(registry.verifier("tdx"), TDX.evidence(), found.endorsements, TDX.roots(), pki_intel.AT)
    assert (outcome.code, outcome.verified) == ("attest.endorsement_missing", None)


def test_a_service_that_does_not_answer_is_waited_for_once(intel_service):
    intel_service.behave(server.silence)
    found = provider(web=asking(intel_service, timeout=0.3)).collect(TDX.evidence(), pki_intel.AT)
    assert [type(p.error) for p in found.problems] == [Unreachable] * 4
    assert len(intel_service.asked) == 2  # the service, and the one that has the root's list


def test_problems_go_to_whoever_wants_to_know_or_to_the_log(caplog):
    told: list[Problem] = []
    provider(on_problem=told.append).gather(TDX.evidence(), pki_intel.AT)
    assert len(told) == 4
    assert told[0].to_json()["error"]["code"] == "app.not_found"
    provider().gather(TDX.evidence(), pki_intel.AT)
    assert sum("not at hand" in record.message for record in caplog.records) == 4


def test_a_cache_that_cannot_be_written_stops_nobody(intel_service, tmp_path):
    (tmp_path / "file").touch()
    told: list[Problem] = []
    found = provider(intel_service, tmp_path / "file" / "c", on_problem=told.append).collect(TDX.evidence(), pki_intel.AT)
    assert found.problems == ()
    assert len(found.documents) > 4
    assert len(told) == 4


def test_a_bundle_goes_before_the_vendors(intel_service):
    first = provider(intel_service).collect(TDX.evidence(), pki_intel.AT)
    carried = Bundle(first.documents)
    online = provider(intel_service, bundle=carried.documents).collect(TDX.evidence(), pki_intel.AT)
    assert online.fetched == 0
    early = provider(bundle=carried.documents, tcb=intel.edition("early")).collect(TDX.evidence(), pki_intel.AT)
    assert early.problems == ()
    stale = provider(intel_service, bundle=carried.documents).collect(TDX.evidence(), pki_intel.AT + 40 * pki_intel.DAY)
    assert stale.fetched > 0


def test_what_a_bundle_holds_for_others_is_left_where_it_is():
    others = [
        Document(Endorsement(CRL, pki_amd.crl("milan")), ABOUT),
        Document(Endorsement(INTEL_TCB_INFO, SGX.tcb_info()), intel.tcb_info("sgx", pki_intel.FMSPC).about),
    ]
    loose = Document(Endorsement(CERTIFICATE, pki_amd.ark("turin")))
    found = provider(bundle=[*others, loose]).gather(TDX.evidence(), pki_intel.AT)
    assert loose.endorsement in found.documents
    assert not any(other.endorsement in found.documents for other in others)


def test_junk_in_a_bundle_does_not_reach_the_verifier():
    junk = [Document(Endorsement(CRL, b"junk")), Document(Endorsement(INTEL_TCB_INFO, b"junk"), f"intel-pcs:{TCB}")]
    found = provider(bundle=junk).collect(TDX.evidence(), pki_intel.AT)
    assert not any(d.endorsement.data == b"junk" for d in found.documents)
    assert {p.about for p in found.problems} >= {"bundle", f"intel-pcs:{TCB}"}


def test_another_document_under_a_questions_name_answers_nothing(nvidia_service):
    """A bundle, or a cache, that somebody else wrote: what stands there is not what the name says."""
    wrong = Document(Endorsement(CRL, pki_amd.crl("milan")), f"intel-pcs:{TCB}")
    found = provider(bundle=[wrong]).collect(TDX.evidence(), pki_intel.AT)
    assert f"intel-pcs:{TCB}" in [p.about for p in found.problems]
    (name, _), _ = rims().items()
    fake = Document(Endorsement(NVIDIA_RIM, b"<SoftwareIdentity name='x'/>"), f"nvidia-rim:{name}")
    again = provider(nvidia_service, bundle=[fake]).collect(GPU.evidence, pki_nvidia.AT)
    assert kinds(again.endorsements).count(OCSP_RESPONSE) == 6


def loose(*found: Endorsement) -> list[Document]:
    """As somebody carries them: in the vendor's format, with no word of what they answer."""
    return [Document(one) for one in found]


def test_what_somebody_carries_without_a_label_is_found_by_what_is_in_it(nvidia_service):
    """Carried goes before fetched: nothing is asked, and nothing is called missing."""
    documents_of = GPU.endorsements.documents
    found = provider(nvidia_service, bundle=loose(*documents_of)).collect(GPU.evidence, pki_nvidia.AT)
    assert (found.problems, found.fetched, nvidia_service.asked) == ((), 0, [])
    assert {d.digest for d in loose(*documents_of)} <= {d.digest for d in found.documents}
    assert provider(bundle=loose(*documents_of)).collect(GPU.evidence, pki_nvidia.AT).problems == ()


@pytest.mark.parametrize("media_type", [NVIDIA_RIM, OCSP_RESPONSE])
def test_of_what_somebody_carries_the_missing_one_alone_is_missed(media_type):
    whole = GPU.endorsements.documents
    first = next(d for d in whole if d.media_type == media_type)
    others = loose(*(d for d in whole if d is not first))
    found = provider(bundle=others).collect(GPU.evidence, pki_nvidia.AT)
    (problem,) = found.problems
    service, driver = ("nvidia-rim", ":/v1/rim/NV_GPU_") if media_type == NVIDIA_RIM else ("nvidia-ocsp", ":")
    assert problem.about.startswith(service + driver)


def test_a_carried_key_set_is_found():
    tokens = pki_nvidia.TokenWorld()
    (keys,) = (d for d in tokens.endorsements.documents if d.media_type == JWK_SET)
    assert provider(bundle=loose(keys)).collect(tokens.evidence, pki_nvidia.AT).problems == ()
    assert provider().collect(tokens.evidence, pki_nvidia.AT).problems
    assert provider(bundle=loose(Endorsement(JWK_SET, b"{}"))).collect(tokens.evidence, pki_nvidia.AT).problems


def manifest_of(**changes: object) -> Endorsement:
    return Endorsement(NVIDIA_RIM, replace(GPU.held[0], **changes).data)


@pytest.mark.parametrize(
    ("name", "changes", "fits"),
    [
        ("NV_GPU_DRIVER_GH100_580.95.05", {"version": "580.95.05"}, True),
        ("NV_GPU_CC_DRIVER_GB100_580.95.05", {"version": "580.95.05", "product": "GB100"}, True),
        ("NV_GPU_DRIVER_GH100_580.95.05", {"version": "580.95.05", "product": "GB100"}, False),
        ("NV_GPU_DRIVER_GH100_580.95.05", {"version": "580.95"}, False),
        ("NV_GPU_DRIVER_GH100_580.95.05", {"version": "5809505"}, False),
        ("NV_GPU_VBIOS_1010_0200_882_96005E0001", {"version": "96.00.5E.00.01"}, True),
        ("NV_GPU_VBIOS_1010_0200_882_96005E0001", {"version": "96.00.5E.00.02"}, False),
        ("NV_SWITCH_BIOS_5612_0002_890_96106b0001", {"version": "96.10.6B.00.01"}, True),
    ],
)
def test_a_manifest_without_a_label_answers_for_its_own_version_and_chip(name, changes, fits):
    assert answers(nvidia.manifest(name), manifest_of(**changes)) is fits


def test_junk_answers_nothing():
    certificate, issuer = from_pem(GPU.device.pem)[:2]
    for request in (
        nvidia.manifest("NV_GPU_DRIVER_GH100_580.95.05"),
        nvidia.standing(certificate, issuer),
        nvidia.key_set(),
        intel.tcb_info("tdx", pki_intel.FMSPC),
        amd.crl("vcek", "milan"),
    ):
        for junk in (b"", b"<x/>", b'<SoftwareIdentity name="x" colloquialVersion="580.95.05"/>', b"0", b"{}"):
            assert not answers(request, Endorsement(request.media_type, junk))
        assert not answers(request, Endorsement("text/plain", b""))


def test_what_came_along_is_not_missed_and_is_asked_for_all_the_same(intel_service):
    """The machine's own list may be yesterday's, so that the vendor is asked; offline it is not called missing."""
    own = TDX.endorsements()
    offline = provider().collect(TDX.evidence(), pki_intel.AT, beside=own)
    assert offline.problems == ()
    assert not {d.endorsement for d in offline.documents} & set(own.documents[:4])
    assert provider(intel_service).collect(TDX.evidence(), pki_intel.AT, beside=own).fetched == 4
    late = provider().collect(TDX.evidence(), pki_intel.AT + 400 * 86_400, beside=own)
    assert len(late.problems) == 4


def test_no_more_than_can_go_with_evidence_is_given():
    many = [
        Document(
            Endorsement(CERTIFICATE, pki_nvidia.Wanted(subject=str(n), issuer="x", not_before=0, not_after=9).make().der)
        )
        for n in range(70)
    ]
    found = provider(bundle=many).collect(TDX.evidence(), pki_intel.AT)
    assert len(found.endorsements.documents) == MAX_ENDORSEMENTS
    assert isinstance(found.problems[-1].error, TooLarge)


def test_evidence_cannot_make_somebody_ask_without_end(monkeypatch):
    def endless(_data: bytes, ask: object, **_kwargs: object) -> None:
        for n in range(1 << 20):
            ask(intel.tcb_info("tdx", n.to_bytes(6, "big")))

    monkeypatch.setattr(intel, "plan", endless)
    found = provider().collect(TDX.evidence(), pki_intel.AT)
    assert len(found.problems) == MAX_QUESTIONS + 1
    assert "more than" in found.problems[-1].error.message


def test_evidence_of_a_composite_platform_needs_what_its_hardware_needs():
    def first(platform: str, data: bytes) -> str:
        return provider().collect(Evidence(platform, data), 0).problems[0].about

    assert first("dstack", TDX.quote()) == f"intel-pcs:{TCB}"
    assert first("dstack", pki_amd.good("genoa").data).startswith("amd-kds:/vcek/v1/Genoa/")
    for platform, expected in (("azure_tdx", "intel-pcs:/tdx/certification/v4/tcb"), ("azure_snp", "amd-kds:/vcek/v1/")):
        data = pki_azure.World(platform=platform).evidence.data
        assert first(platform, data).startswith(expected)
        assert first(platform, b"{}") == platform


# --- on the command line ----------------------------------------------------------------------------------------------


@pytest.fixture
def flags(intel_service, tmp_path) -> list[str]:
    found = ["--cache", str(tmp_path / "cache"), "--at", str(pki_intel.AT), "--home", str(tmp_path / "home")]
    for name, url in addresses(intel_service).items():
        found += ["--service", f"{name}={url}"]
    return found


@pytest.fixture
def quote(tmp_path) -> Path:
    path = tmp_path / "quote.bin"
    path.write_bytes(TDX.quote())
    return path


def quiet(flags: list[str]) -> list[str]:
    """Those of the flags that `list` has."""
    return flags[:6]


def test_fetch_bundle_and_list(intel_service, flags, quote, tmp_path):
    first = call("endorsements", "fetch", quote, *flags, "--json")
    assert (first.status, first.err) == (0, "")
    assert first.json["asked"] == 4
    assert {d["about"] for d in first.json["documents"]} >= {f"intel-pcs:{TCB}", "intel-root-crl:"}
    assert all(d["current"] for d in first.json["documents"])
    again = call("endorsements", "fetch", quote, *flags)
    assert again.status == 0
    assert "TDX TCB info" in again.out
    assert len(intel_service.asked) == 4
    out = tmp_path / "bundle.json"
    made = call("endorsements", "bundle", quote, "--out", out, *flags, "--offline", "--json")
    assert (made.status, made.json["out"]) == (0, str(out))
    assert len(Bundle.parse(out.read_bytes()).documents) == len(made.json["documents"]) == 6
    elsewhere = ["--cache", str(tmp_path / "other"), "--at", str(pki_intel.AT)]
    there = call("endorsements", "bundle", quote, "--endorsements", out, "--offline", "--out", tmp_path / "b", *elsewhere)
    assert there.status == 0
    assert (tmp_path / "b").read_bytes() == out.read_bytes()
    listed = call("endorsements", "list", out, *quiet(flags), "--json")
    assert [d["digest"] for d in listed.json["documents"]] == [d["digest"] for d in made.json["documents"]]
    shown = call("endorsements", "list", out, "--cache", tmp_path / "x", "--at", "2020-01-01T00:00:00Z").out
    assert "NOT current" in shown
    kept = call("endorsements", "list", *quiet(flags), "--json")
    assert {d["digest"] for d in kept.json["documents"]} == {d["digest"] for d in made.json["documents"]}
    both = call("endorsements", "list", "--shipped", *quiet(flags), "--json").json["documents"]
    assert len(both) == len(kept.json["documents"]) + len(EVERY)
    assert "nothing yet" in call("endorsements", "list", "--cache", tmp_path / "none").out


def test_what_could_not_be_had_is_said_and_no_half_bundle_is_written(intel_service, flags, quote, tmp_path):
    intel_service.manners[TCB] = server.status("404 Not Found")
    out = tmp_path / "bundle.json"
    for words in (["fetch", quote], ["bundle", quote, "--out", out]):
        said = call("endorsements", *words, *flags)
        assert said.status == 1
        assert f"strongroom: app.not_found: {quote}: intel-pcs:{TCB}: intel-pcs at 127.0.0.1: " in said.err
        machine = call("endorsements", *words, *flags, "--json")
        assert machine.json["error"]["code"] == "app.not_found"
        assert [p["about"] for p in machine.json["problems"]] == [f"intel-pcs:{TCB}"]
        assert machine.json["documents"]
    assert not out.exists()
    said = call("endorsements", "bundle", quote, "--out", out, *flags, "--incomplete")
    assert said.status == 0
    assert TCB in said.err
    assert len(Bundle.parse(out.read_bytes()).documents) == 5


def test_files_in_the_vendors_formats_become_a_bundle(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.crl").write_bytes(pki_amd.crl("milan"))
    said = call(
        "endorsements", "bundle", "--endorsements", tmp_path / "in", "--out", tmp_path / "b", "--home", tmp_path, "--json"
    )
    assert said.status == 0
    assert Bundle.parse((tmp_path / "b").read_bytes()).documents[0].about == ABOUT


def test_nothing_to_carry_is_said(tmp_path):
    assert call("endorsements", "bundle", "--out", tmp_path / "b").code == "app.usage"
    (tmp_path / "nitro").write_bytes(pki_nitro.World().evidence.data)
    brings_all = call("endorsements", "bundle", tmp_path / "nitro", "--offline", "--out", tmp_path / "b", "--json")
    assert brings_all.json["error"]["code"] == "app.not_found"
    (tmp_path / "doc").write_bytes(b"\x84\x44\xa1\x01\x38\x22")
    said = call("endorsements", "bundle", tmp_path / "doc", "--out", tmp_path / "b", "--home", tmp_path)
    assert said.status == 1
    assert not (tmp_path / "b").exists()


def test_a_folder_may_say_other_addresses(intel_service, flags, quote, tmp_path):
    (tmp_path / "home").mkdir()
    where = tmp_path / "home" / "endorsements.json"
    said = {"format": "strongroom.endorsement-services.v1", "services": addresses(intel_service), "timeout_s": 3}
    where.write_text(json.dumps(said))
    assert call("endorsements", "fetch", quote, *quiet(flags)).status == 0
    for change in (
        {"services": {"intel": "https://x.example"}},
        {"services": {"amd-kds": "http://x.example"}},
        {"timeout_s": 0},
        {"x": 1},
    ):
        where.write_text(json.dumps({**said, **change}))
        bad = call("endorsements", "fetch", quote, *quiet(flags))
        assert bad.code in {"wire.bad_field", "app.usage"}
        assert "endorsements.json" in bad.err


@pytest.mark.parametrize(
    "words",
    [
        ["fetch"],
        ["fetch", "quote", "--service", "intel"],
        ["fetch", "quote", "--service", "x=https://x.example"],
        ["fetch", "quote", "--service", "amd-kds=http://x.example"],
        ["fetch", "quote", "--timeout", "0.01"],
        ["fetch", "quote", "--timeout", "soon"],
        ["fetch", "quote", "--tcb-update", "never"],
        ["fetch", "quote", "--at", "yesterday"],
        ["bundle", "quote"],
        [],
    ],
)
def test_wrong_usage_is_one_line(words, quote):
    said = call("endorsements", *[quote if word == "quote" else word for word in words])
    assert (said.status, said.code) == (2, "app.usage")


def test_what_cannot_be_read_is_shown_as_such(tmp_path):
    (tmp_path / "b").write_bytes(Bundle((Document(Endorsement(CRL, b"junk"), ABOUT, 3),)).encode())
    said = call("endorsements", "list", tmp_path / "b", "--json")
    assert said.json["documents"][0]["current"] is None
    assert "unreadable" in call("endorsements", "list", tmp_path / "b").out


# --- real evidence ----------------------------------------------------------------------------------------------------

REAL_TDX = ("tdx/phala_v4.quote", 1_750_800_000)  # 2025-06-24


@real
def test_real_collateral_from_a_pcs_of_our_own_verifies_a_real_quote(tmp_path):
    """Fetched over HTTP from answers that Intel once gave, kept, carried, and verified under Intel's own root."""
    members = json.loads(evidence_folder.read("tdx/phala_v4.collateral.json"))
    fmspc = json.loads(members["tcb_info"])["fmspc"].lower()
    bodies = {
        name: f'{{"{member}":{members[name]},"signature":"{members[name + "_signature"]}"}}'.encode()
        for name, member in (("tcb_info", "tcbInfo"), ("qe_identity", "enclaveIdentity"))
    }
    signed = {n: chain("issuer-chain", members[f"{n}_issuer_chain"].encode())[0][1] for n in (*bodies, "pck_crl")}
    replies = {
        f"/tdx/certification/v4/tcb?fmspc={fmspc}": Reply(
            bodies["tcb_info"], headers=(("tcb-info-issuer-chain", signed["tcb_info"]),)
        ),
        IDENTITY: Reply(bodies["qe_identity"], headers=(("sgx-enclave-identity-issuer-chain", signed["qe_identity"]),)),
        PLATFORM_CRL: Reply(bytes.fromhex(members["pck_crl"]), headers=(("sgx-pck-crl-issuer-chain", signed["pck_crl"]),)),
        ROOT_CRL: Reply(bytes.fromhex(members["root_ca_crl"])),
    }
    name, at = REAL_TDX
    evidence = Evidence("tdx", evidence_folder.read(name))
    with serve(replies) as service:
        found = provider(service, tmp_path).collect(evidence, at)
    assert (found.problems, found.fetched) == ((), 4)
    carried = Bundle.parse(Bundle(found.documents).encode())
    foreign_one = open_bundle(evidence_folder.FOLDER / "tdx/phala_v4.collateral.json")
    from strongroom.attest.evidence import Roots

    roots = Roots(certificates=tuple(ROOTS["tdx"].values()))
    for endorsements in (
        found.endorsements,
        provider(None, tmp_path).gather(evidence, at),
        provider(bundle=carried.documents).gather(evidence, at),
        provider(bundle=foreign_one.documents).gather(evidence, at),
    ):
        outcome = walk(registry.verifier("tdx"), evidence, endorsements, roots, at)
        assert outcome.verified is not None, outcome.code


@real
@pytest.mark.parametrize("name", ["tdx/phala_v4.collateral.json", "sgx/phala_v3.collateral.json"])
def test_the_real_collateral_of_dcap_qvl_is_read(name):
    found = open_bundle(evidence_folder.FOLDER / name)
    assert len(found.documents) == 7
    assert all(d.about for d in found.documents)


@real
def test_a_folder_of_real_documents_serves_quotes_of_every_date(tmp_path):
    """Every case whose collateral is there: each at its own time, out of one folder that holds all editions."""
    folder = tmp_path / "pcs"
    folder.mkdir()
    for path in (evidence_folder.FOLDER / "collateral").iterdir():
        if not path.name.startswith("NEG_") and path.suffix in {".json", ".der", ".pem"}:
            (folder / path.name).write_bytes(path.read_bytes())
    carried = open_bundle(folder).documents
    from strongroom.attest.evidence import Roots

    walked = 0
    for case in evidence_folder.cases("cases_dcap.json"):
        for tcb in case.get("tcb", []):
            data = evidence_folder.read(case["file"])[case["offset"] :]
            tee = case["tee"].lower()
            found = provider(bundle=carried).collect(Evidence(tee, data), tcb["at"])
            held = {d.digest for d in found.documents}
            wanted = [tcb[name] for name in ("tcb_info", "qe_identity") if tcb.get(name)]
            if found.problems or not wanted:
                continue
            roots = Roots(certificates=tuple(ROOTS[tee].values()))
            outcome = walk(registry.verifier(tee), Evidence(tee, data), found.endorsements, roots, tcb["at"])
            assert outcome.code != "attest.endorsement_missing", (case["file"], tcb["at"])
            assert held
            walked += 1
    assert walked > 5


@real
def test_real_amd_reports_say_where_their_vcek_is():
    for case in evidence_folder.cases("cases_other.json"):
        if case["kind"] != "snp" or case.get("signing_key") or not case.get("chip_id_match"):
            continue
        abouts_of = recorded(amd.plan, evidence_folder.read(case["report"]))
        line = case["product"].split("-")[0]
        assert any(f"amd-kds:/vcek/v1/{line}/" in about for about in abouts_of[0]), case["report"]
        chip = evidence_folder.read(case["report"])[0x1A0 : 0x1A0 + 64].hex()
        assert chip in abouts_of[0][0]


@real
@pytest.mark.parametrize(
    ("name", "manifests"),
    [
        ("h100_535", ["NV_GPU_DRIVER_GH100_535.86.09", "NV_GPU_VBIOS_1010_0200_882_96005E0001"]),
        ("gb100_575", ["NV_GPU_CC_DRIVER_GB100_575.32", "NV_GPU_VBIOS_G525_0220_886_970088000F"]),
    ],
)
def test_real_devices_say_which_manifests_they_need(name, manifests):
    from strongroom.attest import nvidia_device, spdm

    path = from_pem(evidence_folder.read(f"nvidia/{name}.certs.pem"))
    report = spdm.parse(evidence_folder.read(f"nvidia/{name}.report"))
    architecture = nvidia_device.architecture_of(path[0].common_name.split(" ")[0])
    evidence = nvidia_device.Claims(architecture, path, report).evidence()
    asked = recorded(nvidia.plan, evidence.data)
    assert asked[:2] == [(f"nvidia-rim:/v1/rim/{m}",) for m in manifests]
    assert len(asked) == 2 + 3


# --- the page for operators -------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[1] / "docs" / "endorsements.md").read_text()


def blocks(kind: str) -> list[str]:
    return [part.split("\n```")[0] for part in PAGE.split(f"```{kind}\n")[1:]]


def test_the_commands_of_the_page_are_understood():
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(lines) > 4
    for line in lines:
        program, verb, *rest = shlex.split(line, comments=True)
        assert program == "strongroom"
        parser_of(verb).parse_args(rest)


def test_the_file_of_the_page_is_read(tmp_path):
    (example,) = blocks("json")
    (tmp_path / web.SERVICES_FILE).write_text(example)
    found = web.configured(tmp_path)
    assert found.was_told("intel-root-crl")
    assert found.services["intel-pcs"] == "https://pccs.example:8081"
    assert not found.was_told("amd-kds")


def test_every_service_and_code_is_on_the_page():
    for name in SERVICES:
        assert f"`{name}`" in PAGE
    for cls in (Unreachable, NotFound, RateLimited, BadAnswer):
        assert f"`{cls.code}`" in PAGE
