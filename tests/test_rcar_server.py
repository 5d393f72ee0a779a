"""What a broker gives guests of another project, and what it does not: each attack under its name."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jwt
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap

import pki_amd
import pki_intel
from rcar_case import KEY, MANIFEST, TERMS, Place, owner_of, uri
from rcar_guest import PREFIX, Denied, EcKey, Guest, RsaKey, b64url
from rcar_reports import sev_json
from stage import in_process
from strongroom.app.broker import rcar as module
from strongroom.app.broker.rcar import Guests
from strongroom.app.broker.server import broker
from strongroom.attest import snp, tdx
from strongroom.attest.tdx import Terms as TdxTerms
from strongroom.broker import NONCE_SECONDS
from strongroom.budget.document import Budget, CountLimits
from strongroom.contract import Contract, Withdrawal
from strongroom.errors import MissingExtra
from strongroom.rcar import jwe, message
from strongroom.transcript import Transcript
from strongroom.trust import Trust
from world import HOUR, NOW, World, keys_of, sealed_asset, sign_all


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path)
    yield found
    found.close()


@pytest.fixture
def contract(place: Place) -> Contract:
    return place.agree()


@pytest.fixture
def guest(place: Place) -> Guest:
    return place.guest()


def denied(status: int, kind: str, code: str = "") -> Any:
    """A refusal as a guest reads it."""
    return pytest.raises(
        Denied, match=rf"^{status} .*errors/{kind}.*" if not code else rf"^{status} .*{code}.*errors/{kind}"
    )


# --- what works -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.1.0", "0.1.1", "0.2.0", "0.3.0", "0.4.0"])
@pytest.mark.parametrize("key", [EcKey, RsaKey], ids=["ec", "rsa"])
def test_a_guest_of_every_version_gets_the_key(place, contract, version, key):
    guest = place.guest(version=version, key=key())
    guest.attest()
    assert guest.get(uri(contract)) == KEY.raw
    assert place.numbers() == [""]


@pytest.mark.parametrize("crv", ["P-384", "P-521"])
def test_a_guest_with_a_key_on_another_curve_gets_it_too(place, contract, crv):
    guest = place.guest(key=EcKey(crv))
    guest.attest()
    assert guest.get(uri(contract)) == KEY.raw


def test_every_request_is_decided_and_only_the_first_is_counted(place, contract, guest):
    guest.attest()
    for _ in range(3):
        assert guest.get(uri(contract)) == KEY.raw
    guest.attest()
    assert guest.get_by_token(uri(contract)) == KEY.raw
    assert place.numbers() == ["", "", "", ""]
    assert place.used(contract) == 1
    assert len({d.digest for d in place.book.decisions()}) == 1  # the very release of before


def test_the_runtime_data_is_a_named_binding_in_the_log(place, contract, guest):
    guest.attest()
    guest.get(uri(contract))
    checks = {c["number"]: c for c in place.book.decisions()[0].checks}
    assert len(checks) == 17
    assert checks["D9"]["name"] == "the guest's evidence binds its runtime data, and is affirmed under the owner's policy"
    session = next(iter(place.guests._sessions._found.values()))
    bound = next(c for c in session.appraise(place.owner, NOW).checks if c.number == "A6")
    assert bound.name == "the evidence binds the hash of the guest's runtime data: this key and this nonce"
    assert session.runtime.hash.hex() in bound.detail
    assert f"bound: runtime data sha384:{session.runtime.hash.hex()}" in checks["D9"]["detail"]
    assert checks["D15"]["name"] == "the run is this guest's alone"


def test_a_restarted_broker_has_no_sessions_and_gives_the_same_release(place, contract, guest):
    guest.attest()
    guest.get(uri(contract))
    place.app = place.serve()
    guest.web = place.client()
    with denied(401, "TokenNotFound"):
        guest.get(uri(contract))
    guest.attest()
    assert guest.get(uri(contract)) == KEY.raw
    assert place.used(contract) == 1


def tdx_guest(tmp_path: Path, attributes: str = "0000001000000000") -> tuple[Place, pki_intel.World]:
    """A place for guests on TDX, whose quotes a stand-in for Intel signs."""
    made = pki_intel.World(td={"attributes": bytes.fromhex(attributes)})
    verified = tdx.verify(
        made.evidence(), made.endorsements(), roots=made.roots(), at=pki_intel.AT, transcript=Transcript(tdx.STEPS)
    )
    owner = owner_of("tdx", made.roots(), verified.measurement, TdxTerms())
    return Place(tmp_path, at=pki_intel.AT, owner=owner, documents=made.endorsements()), made


def quote(made: pki_intel.World, report_data: bytes) -> dict[str, Any]:
    """As the guest components send it."""
    fresh = replace(made, td={**made.td, "report_data": report_data.ljust(64, b"\0")})
    return {"quote": base64.b64encode(fresh.quote()).decode(), "cc_eventlog": None}


def test_a_guest_on_tdx_gets_the_key(tmp_path):
    place, made = tdx_guest(tmp_path)
    contract = place.agree(measurements=[place.owner.policy.references[0].measurement])
    guest = place.guest(tee="tdx", attester=lambda data: quote(made, data))
    guest.attest()
    assert guest.get(uri(contract)) == KEY.raw
    assert len(place.asked_for) == 1  # what Intel vouches for was fetched once
    place.close()


def test_a_guest_in_a_debug_td_gets_nothing(tmp_path):
    place, made = tdx_guest(tmp_path, "0100001000000000")
    guest = place.guest(tee="tdx", attester=lambda data: quote(made, data))
    with denied(401, "AttestationError", "attest.debug"):
        guest.attest()
    place.close()


def test_a_guest_on_sev_snp_gets_the_key(tmp_path):
    case = pki_amd.good()
    measurement = case.verify(Transcript(snp.STEPS)).measurement
    owner = owner_of("sev_snp", case.roots, measurement, case.terms)
    place = Place(tmp_path, at=pki_amd.AT, owner=owner, documents=case.endorsements)
    contract = place.agree(measurements=[measurement])

    def attester(data: bytes) -> dict[str, Any]:
        report = pki_amd.good(report_data=data.ljust(64, b"\0")).data
        leaf = {"cert_type": "VCEK", "data": list(pki_amd.leaf("genoa", "vcek"))}
        return {"attestation_report": sev_json(report), "cert_chain": [leaf]}

    guest = place.guest(tee="snp", attester=attester)
    guest.attest()
    assert guest.get(uri(contract)) == KEY.raw
    place.close()


# --- sessions and nonces ----------------------------------------------------------------------------------------------


def test_a_cookie_alone_releases_nothing(place, contract, guest):
    guest.challenge()
    with denied(401, "TokenNotFound", "broker.no_session"):
        guest.get(uri(contract))
    assert place.numbers() == []


def test_a_stolen_cookie_gets_what_only_the_guest_opens_and_counts_nothing_more(place, contract, guest):
    guest.attest()
    guest.get(uri(contract))
    thief = place.guest()
    thief.web.cookies = guest.web.cookies
    with pytest.raises((InvalidTag, InvalidUnwrap)):
        thief.get(uri(contract))
    assert place.used(contract) == 1


@pytest.mark.parametrize("at", [0, 20, 40, 76])
def test_a_cookie_with_one_character_changed_is_none(place, guest, at):
    guest.challenge()
    (cookie,) = guest.web.cookies.jar
    changed = cookie.value[:at] + ("A" if cookie.value[at] != "A" else "B") + cookie.value[at + 1 :]
    for value in (changed, "", "x", "=" * 99, "kbs", b64url(bytes(58)), cookie.value + "A", cookie.value[:-1]):
        answer = place.client().post(f"{PREFIX}/attest", content=b"{}", headers={"cookie": f"kbs-session-id={value}"})
        assert answer.status_code == 401
    assert place.book._db.row("SELECT count(*) FROM spent") == (0,)


def test_two_cookies_are_none(place, contract, guest):
    guest.attest()
    (cookie,) = guest.web.cookies.jar
    both = f"kbs-session-id={cookie.value}; kbs-session-id={cookie.value}"
    answer = place.client().get(f"{PREFIX}/resource{uri(contract)[6:]}", headers={"cookie": both})
    assert answer.status_code == 401


def test_a_nonce_replayed_attests_nobody(place, guest):
    attestation = guest.attestation(guest.challenge())
    guest.send(attestation)
    with denied(401, "AttestationError", "broker.nonce"):
        guest.send(attestation)


def test_a_failed_attempt_uses_the_nonce_up(place, guest):
    nonce = guest.challenge()
    with denied(401, "SerdeError"):
        guest.send({"junk": 1})
    with denied(401, "AttestationError", "broker.nonce"):
        guest.send(guest.attestation(nonce))


def test_a_nonce_replayed_after_a_restart_attests_nobody(place, guest):
    attestation = guest.attestation(guest.challenge())
    guest.send(attestation)
    place.guests._sessions._found.clear()  # and the key of the cookies were the same
    with denied(401, "AttestationError", "broker.nonce"):
        guest.send(attestation)


def test_another_sessions_nonce_attests_nobody(place, guest):
    theirs = place.guest().challenge()
    guest.challenge()
    with denied(401, "TokenNotFound", "broker.no_session"):
        guest.send(guest.attestation(theirs))


def test_evidence_for_another_sessions_nonce_attests_nobody(place, guest):
    evidence = guest.attestation(place.guest().challenge())["tee-evidence"]
    with denied(401, "AttestationError", "attest.not_bound"):
        guest.send({**guest.attestation(guest.challenge()), "tee-evidence": evidence})


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0", "0.4.0"])
def test_runtime_data_that_the_evidence_does_not_bind_attests_nobody(place, version):
    guest, mallory = place.guest(version=version), EcKey()
    said = guest.attestation(guest.challenge())
    holder = said if "tee-pubkey" in said else said["runtime-data"]
    holder["tee-pubkey"] = mallory.public()
    with denied(401, "AttestationError", "attest.not_bound"):
        guest.send(said)


def test_a_session_ends(place, contract, guest):
    guest.attest()
    place.clock.now += NONCE_SECONDS - 1
    assert guest.get(uri(contract)) == KEY.raw
    place.clock.now += 1
    with denied(401, "TokenNotFound", "broker.no_session"):
        guest.get(uri(contract))
    with denied(401, "TokenVerifierError", "attest.bad_ear"):
        guest.get_by_token(uri(contract))


def test_a_challenge_ends(place, guest):
    nonce = guest.challenge()
    place.clock.now += NONCE_SECONDS
    with denied(401, "TokenNotFound", "broker.no_session"):
        guest.send(guest.attestation(nonce))


def test_a_thousand_sessions_that_never_attest_fill_nothing_up(place, guest):
    nonces = {guest.challenge() for _ in range(1000)}
    assert len(nonces) == 1000
    assert place.guests._sessions._found == {}
    assert place.book._db.row("SELECT count(*) FROM spent") == (0,)


def test_sessions_of_guests_that_attested_are_bounded_and_make_room_when_they_end(place, monkeypatch):
    monkeypatch.setattr(module, "MAX_SESSIONS", 3)
    guests = [place.guest() for _ in range(4)]
    for one in guests[:3]:
        one.attest()
    guests[0].attest()  # a guest has one session
    with denied(429, "AttestationError", "app.limit_reached"):
        guests[3].attest()
    place.clock.now += NONCE_SECONDS
    guests[3].attest()
    assert len(place.guests._sessions._found) == 1


def test_too_many_at_once_wait(place, guest, monkeypatch):
    place.guests._busy = threading.BoundedSemaphore(1)
    with place.guests._busy, denied(429, "AttestationError", "app.limit_reached"):
        guest.attest()
    guest.attest()


# --- evidence ---------------------------------------------------------------------------------------------------------


def test_sample_evidence_that_nobody_vouches_for_attests_nobody(place, guest):
    place.guests._around = replace(place.around, vouch=None)
    with denied(401, "AttestationError", "attest.sample_not_vouched"):
        guest.attest()


def test_a_simulated_guest_under_a_debugger_gets_nothing(place, guest):
    place.platform.debug = True
    with denied(401, "AttestationError", "attest.debug"):
        guest.attest()


def test_an_owner_that_accepts_no_such_guest_attests_none_and_asks_no_vendor(place, guest):
    place.owner = replace(place.owner, policy=Trust().appraisal_policy())
    with denied(401, "AttestationError", "attest.platform_not_accepted") as refused:
        guest.attest()
    assert "sha256" not in refused.value.detail  # what the owner accepts is the owner's to know
    assert place.asked_for == []


def test_devices_beside_a_guest_attest_nobody(place, guest):
    nonce, devices = guest.challenge(), json.dumps({"nvidia": {}})
    runtime = {"nonce": nonce, "tee-pubkey": guest.key.public()}
    said = message.RuntimeData(nonce, message.TeeKey.from_json(guest.key.public()), devices)
    evidence = {"primary_evidence": guest.attester(said.hash), "additional_evidence": devices}
    with denied(401, "AttestationError", "attest.devices_not_accepted"):
        guest.send({"runtime-data": runtime, "tee-evidence": evidence})


@pytest.mark.parametrize(
    "changes",
    [{"alg": "RSA1_5"}, {"alg": "none"}, {"alg": "dir"}, {"kty": "oct"}, {"crv": "secp256k1"}, {"x": "AA"}, {"d": "AA"},
     {"y": b64url(bytes(32))}, {"kty": "RSA"}, {"alg": 7}],
    ids=str,
)  # fmt: skip
def test_a_key_that_no_secret_is_sent_to_attests_nobody(place, guest, changes):
    class Odd(EcKey):
        def public(self) -> dict[str, str]:
            return {**super().public(), **changes}

    guest.key = Odd()
    with pytest.raises(Denied, match=r"^401 "):
        guest.attest()


@pytest.mark.parametrize("version", ["0.0.1", "0.5.0", "1.0.0", "0.4", "", "0.4.0.0", "0.-4.0", 4])
def test_another_version_is_refused(place, guest, version):
    answer = guest.web.post(f"{PREFIX}/auth", json={"version": version, "tee": "sample", "extra-params": ""})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("tee", ["sgx", "az-snp-vtpm", "nvidia", "simulated", "", "SAMPLE", None])
def test_a_kind_of_enclave_that_is_not_served_is_refused(place, guest, tee):
    answer = guest.web.post(f"{PREFIX}/auth", json={"version": "0.4.0", "tee": tee, "extra-params": ""})
    assert answer.status_code == 401


@pytest.mark.parametrize("path", ["auth", "attest"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'{"a":1,"a":2}', b"[" * 9999, b'"' * 99])
def test_a_body_that_is_no_message_is_refused(place, guest, path, body):
    guest.challenge()
    answer = guest.web.post(f"{PREFIX}/{path}", content=body)
    assert answer.status_code == 401
    assert answer.json()["type"].endswith("/SerdeError")


@pytest.mark.parametrize(("path", "most"), [("auth", message.MAX_AUTH_BYTES), ("attest", message.MAX_ATTEST_BYTES)])
def test_an_oversized_body_is_refused(place, guest, path, most):
    guest.challenge()
    answer = guest.web.post(f"{PREFIX}/{path}", content=b" " * (most + 1))
    assert answer.status_code == 413
    assert set(answer.json()) == {"type", "detail"}


# --- tokens -----------------------------------------------------------------------------------------------------------


def forged(token: str, algorithm: str, key: Any, **changes: Any) -> str:
    claims = {**jwt.decode(token, options={"verify_signature": False}), **changes}
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": jwt.get_unverified_header(token)["kid"]})


def test_a_token_under_another_algorithm_is_none(place, contract, guest):
    token, public = guest.attest(), place.owner.broker.public.raw
    assert guest.get_by_token(uri(contract)) == KEY.raw
    head = json.dumps({"alg": "none", "kid": place.owner.broker.public.keyid, "typ": "JWT"}).encode()
    unsigned = ".".join([b64url(head), token.split(".")[1], ""])
    tokens = [
        forged(token, "none", None),
        unsigned,
        forged(token, "HS256", public.ljust(32, b"\0")),
        forged(token, "EdDSA", Ed25519PrivateKey.from_private_bytes(bytes(32))),
        forged(token, "RS256", RsaKey().private),
        token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB"),
        token + ".x",
        token.rpartition(".")[0],
        "",
        "x" * 99_999,
    ]
    for guest.token in tokens:
        with denied(401, "TokenVerifierError", "attest.bad_ear"):
            guest.get_by_token(uri(contract))


def test_a_token_of_this_brokers_that_names_no_session_is_none(place, contract, guest):
    private = Ed25519PrivateKey.from_private_bytes(place.owner.broker.seed)
    guest.token = forged(guest.attest(), "EdDSA", private, jti="sha256:" + "0" * 64)
    with denied(401, "TokenNotFound", "broker.no_session"):
        guest.get_by_token(uri(contract))


@pytest.mark.parametrize("header", ["Basic x", "Bearer", "bearer ", "x"])
def test_another_authorization_is_none_even_beside_a_cookie(place, contract, guest, header):
    guest.attest()
    with denied(401, "TokenVerifierError"):
        guest.get(uri(contract), headers={"authorization": header})


# --- resources --------------------------------------------------------------------------------------------------------


def tricks(contract: Contract) -> list[str]:
    c, m = contract.digest[7:], MANIFEST.digest[7:]
    return [
        f"/{c}/{m}", f"/{c}/{m}/key/", f"/{c}/{m}/keys", f"//{c}/{m}/key", f"/{c}/../{c}/{m}/key", f"/./{c}/{m}/key",
        f"/{c}%2F{m}/key", f"/{c}/{m}%2Fkey", f"/{c}/{m}/%6bey", f"/{c}/{m}/key%00", f"/{c.upper()}/{m}/key",
        f"/sha256:{c}/{m}/key", f"/{c}/{m}/key?run=1", f"/{c}/{m}/key;x", f"/{c}/{m}/key%0A", f"/{c}/{m[:-1]}/key", "/", "",
        f"/{c}\\{m}\\key", f"/{c}/%2e%2e/{m}/key",
    ]  # fmt: skip


async def raw_get(app: Any, target: str, cookie: str) -> int:
    """The status of a request whose path no client has tidied up."""
    raw, _, query = target.partition("?")
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": unquote(raw), "raw_path": raw.encode(), "root_path": "", "query_string": query.encode(),
        "headers": [(b"cookie", f"kbs-session-id={cookie}".encode())], "server": ("role", 80), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    sent = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"]


def test_tricks_with_the_path_lead_nowhere(place, contract, guest):
    guest.attest()
    (cookie,) = guest.web.cookies.jar
    for path in tricks(contract):
        status = asyncio.run(raw_get(place.app, f"{PREFIX}/resource{path}", cookie.value))
        assert (status, path) == (404, path)
    assert place.numbers() == []
    assert guest.get(uri(contract)) == KEY.raw


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_another_method_takes_no_run(place, contract, guest, method):
    guest.attest()
    answer = guest.web.request(method, f"{PREFIX}/resource{uri(contract)[6:]}")
    assert answer.status_code in (404, 405)
    assert place.used(contract) == 0


def test_another_asset_is_not_given_under_a_contract_that_does_not_name_it(place, contract, guest):
    _, envelope, _, key = sealed_asset("model")
    place.book.hold(envelope, key)
    guest.attest()
    with denied(403, "PolicyDeny", "D6: broker.unknown_asset"):
        guest.get(uri(contract, envelope.digest))
    assert place.used(contract) == 0


def test_a_contract_that_nobody_asked_for_is_not_there(place, guest):
    contract = place.agree(asked=0)
    guest.attest()
    with denied(404, "InvalidRequestPath"):
        guest.get(uri(contract))


def test_a_contract_for_enclaves_of_ours_gives_guests_nothing(place, guest):
    native = World(terms={"data": TERMS}).agree()
    assert place.ask(native, place.run(native)).json()["error"]["code"] == "broker.not_for_guests"
    # nor if it were in the book
    place.book.approve(native.digest, NOW)
    place.book.ask_of_guests(module.GuestRun(native.envelope, place.run(native).sign(keys_of("lab").signing)))
    guest.attest()
    with denied(403, "PolicyDeny", "D10: broker.not_for_guests"):
        guest.get(uri(native))
    assert place.used(native) == 0


# --- the contract -----------------------------------------------------------------------------------------------------


def test_a_second_guest_beyond_the_limit_gets_nothing(place, guest):
    contract = place.agree(asked=2)
    guest.attest()
    guest.get(uri(contract))
    second = place.guest()
    second.attest()
    with denied(403, "PolicyDeny", "D16: broker.no_run_left"):
        second.get(uri(contract))


def test_a_second_guest_beyond_what_was_asked_for_gets_nothing(place, guest):
    contract = place.agree(asked=1, runs=5)
    guest.attest()
    guest.get(uri(contract))
    second = place.guest()
    second.attest()
    with denied(403, "PolicyDeny", "D15: broker.run_taken"):
        second.get(uri(contract))
    assert place.ask(contract, place.run(contract, 1)).status_code == 200
    assert second.get(uri(contract)) == KEY.raw


def test_many_at_once_for_the_last_run_exactly_one_gets_it(place):
    contract = place.agree(asked=3, runs=1)
    guests, answers, start = [place.guest() for _ in range(6)], [], threading.Barrier(6)
    for one in guests:
        one.attest()

    def go(one: Guest) -> None:
        start.wait()
        try:
            answers.append(one.get(uri(contract)) == KEY.raw)
        except Denied as error:
            answers.append(error.status)

    threads = [threading.Thread(target=go, args=(one,)) for one in guests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, answers)) == [1, *[403] * 5]
    assert place.used(contract) == 1


def test_many_at_once_each_get_a_run_where_there_are_enough(place):
    contract = place.agree(asked=4, runs=4)
    guests, got = [place.guest() for _ in range(4)], []
    for one in guests:
        one.attest()
    threads = [threading.Thread(target=lambda one=one: got.append(one.get(uri(contract)))) for one in guests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [KEY.raw] * 4
    assert place.used(contract) == 4


def test_a_withdrawal_stops_a_guest_that_has_the_key_already(place, contract, guest):
    guest.attest()
    guest.get(uri(contract))
    withdrawal = Withdrawal(contract.digest, "lab", NOW, "")
    place.book.withdraw(withdrawal, withdrawal.sign(keys_of("lab").signing))
    with denied(403, "PolicyDeny", "D14: contract.withdrawn"):
        guest.get(uri(contract))


def test_a_contract_that_the_owner_did_not_approve_gives_nothing(place, guest):
    contract = sign_all(place.proposal())
    assert place.ask(contract, place.run(contract)).status_code == 200
    guest.attest()
    with denied(403, "PolicyDeny", "D12: broker.not_approved"):
        guest.get(uri(contract))


def test_what_the_owner_trusts_no_more_is_gone_for_sessions_that_attested_before(place, contract, guest):
    guest.attest()
    before = place.owner
    place.owner = replace(before, policy=Trust().appraisal_policy())
    with denied(403, "PolicyDeny", "D9: attest.platform_not_accepted"):
        guest.get(uri(contract))
    place.owner = replace(before, trust=before.trust.unpin("lab"))
    with denied(403, "PolicyDeny", "D3: party.not_pinned"):
        guest.get(uri(contract))
    place.owner = before
    assert guest.get(uri(contract)) == KEY.raw


def test_a_guests_key_is_good_for_one_contract(place, contract, guest):
    other = place.agree(title="Another")
    guest.attest()
    guest.get(uri(contract))
    with denied(403, "PolicyDeny", "D10: broker.guest_elsewhere"):
        guest.get(uri(other))
    assert place.used(other) == 0


def test_a_run_that_was_asked_for_too_long_ago_is_not_given(place, guest):
    contract = place.agree(runs=3)
    place.clock.now += HOUR + 1
    guest.attest()
    with denied(403, "PolicyDeny", "D8: wire.bad_field"):
        guest.get(uri(contract))
    assert place.ask(contract, place.run(contract, 1)).status_code == 200
    assert guest.get(uri(contract)) == KEY.raw


@pytest.mark.parametrize(
    ("changes", "by", "code"),
    [
        ({"party": "mallory"}, "mallory", "contract.not_a_party"),
        ({}, "mallory", "wire.bad_signature"),
        ({"contract": "sha256:" + "0" * 64}, "", "wire.bad_field"),
        ({"at": NOW - 2 * HOUR, "until": None}, "", "wire.bad_field"),
        ({"at": NOW + HOUR, "until": None}, "", "wire.bad_field"),
    ],
)
def test_only_a_party_can_ask_and_only_for_now(place, changes, by, code):
    contract = place.agree(asked=0)
    answer = place.ask(contract, replace(place.run(contract), **changes), by=by)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert place.book.asked_of_guests(contract.digest) == []


def test_runs_that_are_asked_for_are_bounded(place, monkeypatch):
    monkeypatch.setattr("strongroom.app.stores.book.MAX_GUEST_RUNS", 2)
    contract = place.agree(asked=2, runs=9)
    assert place.ask(contract, place.run(contract, 2)).json()["error"]["code"] == "app.conflict"


def test_an_asset_with_a_budget_is_given_to_no_guest(place, contract, guest):
    budget = Budget("hospital", 1, NOW, (MANIFEST.digest,), None, CountLimits(runs=9))
    place.book.set_budget(budget, budget.sign(keys_of("hospital").signing))
    guest.attest()
    with denied(403, "PolicyDeny", "D17: budget.bad_budget"):
        guest.get(uri(contract))
    assert place.used(contract) == 0


def test_a_shared_key_is_given_to_no_guest_and_it_is_told_why(place, contract, guest):
    place.book.forget(MANIFEST.digest)  # as when every broker has its share
    guest.attest()
    with denied(403, "PolicyDeny", "D6: broker.key_shared"):
        guest.get(uri(contract))


def test_a_refusal_is_signed_and_keeps_its_details_at_home(place, contract, guest):
    guest.attest()
    place.owner = replace(place.owner, policy=Trust().appraisal_policy())
    answer = guest.web.get(f"{PREFIX}/resource{uri(contract)[6:]}").json()
    assert answer["detail"] == "refused at D9: attest.platform_not_accepted"
    payload = json.loads(base64.b64decode(answer["refusal"]["payload"]))
    assert set(payload) == {"at", "broker", "code", "contract", "manifest", "nonce", "number", "run_id"}


def test_an_owners_broken_files_are_nobodys_business(place, contract, guest):
    guest.attest()

    def broken() -> Any:
        raise MissingExtra("/home/somebody/trust.json")

    place.guests._owner = broken
    for ask in (lambda: guest.get(uri(contract)), place.guest().attest):
        with denied(500, "PluginInternalError") as refused:
            ask()
        assert "somebody" not in refused.value.detail


def test_a_broker_without_the_library_says_so_when_it_starts(place, monkeypatch):
    monkeypatch.setattr(jwe, "import_module", lambda _name: (_ for _ in ()).throw(ImportError))
    with pytest.raises(MissingExtra, match="JWE"):
        Guests(place.book, lambda: place.owner, place.around)


def test_a_broker_without_guests_answers_none(place):
    with in_process(broker(place.book, lambda: place.owner, None, now=place.clock)) as web:
        assert web.post(f"{PREFIX}/auth", json={}).status_code == 404
