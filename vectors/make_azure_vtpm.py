"""Writes ``vectors/azure_vtpm``. Deterministic: fixed keys, fixed times, signatures as of RFC 6979.

    python vectors/make_azure_vtpm.py

One file a case. Every case holds its whole input and ``expect``: ``ok``, or the stable code of the check that does not pass
first, which ``fails`` names.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import pki_amd  # noqa: E402
from pki_azure import MACHINE, World, jwk, runtime_data, tdx_terms  # noqa: E402
from pki_tpm import register  # noqa: E402
from strongroom import wire  # noqa: E402
from strongroom.attest.azure import SnpTerms, TdxTerms  # noqa: E402
from strongroom.attest.tpm_quote import QuoteTerms  # noqa: E402

BAD, FORGED, MISSING = "attest.bad_evidence", "attest.forged", "attest.endorsement_missing"
TERMS, TCB, UNKNOWN = "attest.terms_not_met", "attest.tcb_not_accepted", "attest.unknown_root"
Case = Callable[..., None]
_WORLD = World()
_STRANGER = pki_amd.rsa_key(pki_amd.STRANGER)
_PCRS = {n: register(n) for n in range(24)}
_FEW = {n: register(n) for n in range(8)}
_OTHER = runtime_data(configuration={"vmUniqueId": MACHINE.replace("0123", "4567")})


def _asked(**changes: Any) -> SnpTerms:
    return SnpTerms(pki_amd.TERMS, **changes)


def _quoted(**changes: Any) -> SnpTerms:
    return _asked(quote=replace(QuoteTerms(), **changes))


def _good(case: Case) -> None:
    case("good-snp", "a virtual TPM under a paravisor on SEV-SNP", "ok", "")
    case("good-tdx", "the same on TDX", "ok", "", platform="azure_tdx")
    case("good-sha384", "runtime data by SHA-384", "ok", "", hash="sha384")
    case("good-sha512", "runtime data by SHA-512", "ok", "", hash="sha512")
    case(
        "good-debug",
        "a guest that can be debugged: genuine, and for A4 to refuse",
        "ok",
        "",
        hardware={"policy": pki_amd.policy("debug")},
    )
    case(
        "good-no-console",
        "a machine without a console",
        "ok",
        "",
        runtime=runtime_data(configuration={"console-enabled": False}),
        terms=_asked(console=False),
    )
    case(
        "good-without-secure-boot",
        "a policy that does not ask for secure boot",
        "ok",
        "",
        runtime=runtime_data(configuration={"secure-boot": False}),
        terms=_asked(secure_boot=False),
    )


def _malformed(case: Case) -> None:
    evidence = _WORLD.evidence.data

    def runtime(name: str, description: str, data: bytes) -> None:
        case(name, description, BAD, "Z1", runtime=data)

    case("trailing-byte", "a byte after the evidence", BAD, "Z1", data=evidence + b"\n")
    case("not-canonical", "the same JSON with a space", BAD, "Z1", data=evidence.replace(b'":', b'": ', 1))
    case("another-format", "another format", BAD, "Z1", changes={"format": "strongroom.tpm.v1"})
    case("unknown-member", "a member that nobody reads", BAD, "Z1", changes={"note": ""})
    case("digest-sha1", "runtime data by SHA-1", BAD, "Z1", changes={"digest": "sha1"})
    case("hardware-missing", "no report of the hardware", BAD, "Z1", changes={"hardware": None})
    case("sha1-bank", "registers of the SHA-1 bank", BAD, "Z1", changes={"bank": "sha1"})
    runtime("runtime-not-json", "runtime data that are no JSON", b"keys")
    runtime("runtime-member-twice", "a member twice: readers differ on which counts", b'{"keys":[],"keys":[]}')
    runtime("runtime-no-keys", "runtime data without keys", runtime_data(keys=[]))
    runtime("runtime-key-twice", "two attestation keys", runtime_data(keys=[jwk(), jwk()]))
    runtime("runtime-key-text", "a key that is no object", runtime_data(keys=["HCLAkPub"]))
    runtime(
        "runtime-key-encrypts",
        "an attestation key that is for encryption too",
        runtime_data(keys=[jwk(key_ops=["sign", "encrypt"])]),
    )
    runtime("runtime-key-elliptic", "a key of another kind", runtime_data(keys=[jwk(kty="EC")]))
    runtime("runtime-key-short", "an RSA key of 8 bits", runtime_data(keys=[jwk(n="_w")]))
    runtime("runtime-key-padded", "base64url with padding", runtime_data(keys=[jwk(n=jwk()["n"] + "=")]))
    runtime("runtime-key-exponent", "an exponent of 3", runtime_data(keys=[jwk(e="Aw")]))
    runtime(
        "runtime-machine-unprintable",
        "a name that clears the reader's screen",
        runtime_data(configuration={"vmUniqueId": "\x1b[2J"}),
    )
    runtime(
        "runtime-no-secure-boot",
        "runtime data that do not say whether there is secure boot",
        runtime_data(configuration={"secure-boot": None}),
    )


def _hardware(case: Case) -> None:
    case("another-root", "a report that leads to a root that is not pinned", UNKNOWN, "Z2", roots_of="azure_tdx")
    case("no-certificate", "nothing vouches for the processor's key", MISSING, "Z2", documents={"leaf": None})
    case("no-revocation-list", "the root's revocation list did not come along", MISSING, "Z2", documents={"crl": None})
    case(
        "tdx-no-collateral",
        "Intel's word on the TCB did not come along",
        MISSING,
        "Z2",
        platform="azure_tdx",
        documents={"tcb info": None},
    )
    case(
        "hardware-altered",
        "a report that nobody signed",
        FORGED,
        "Z2",
        changes={"hardware": wire.b64(_WORLD.report[:80] + bytes(64) + _WORLD.report[144:])},
    )
    case("hardware-junk", "no report at all", BAD, "Z2", changes={"hardware": wire.b64(bytes(1184))})
    case(
        "other-hardware",
        "a TDX quote as SEV-SNP's report",
        BAD,
        "Z2",
        changes={"hardware": wire.b64(World(platform="azure_tdx").report)},
    )
    case(
        "runtime-grafted",
        "another machine's runtime data beside a genuine report",
        FORGED,
        "Z3",
        changes={"runtime_data": wire.b64(_OTHER)},
    )
    case(
        "tdx-runtime-grafted",
        "the same on TDX",
        FORGED,
        "Z3",
        platform="azure_tdx",
        changes={"runtime_data": wire.b64(_OTHER)},
    )
    case("digest-misnamed", "a digest by another algorithm than said", FORGED, "Z3", changes={"digest": "sha384"})
    case(
        "slot-not-padded",
        "something else behind the digest",
        FORGED,
        "Z3",
        slot=World().verifier.parse(_WORLD.evidence.data).slot[:32] + b"\1" * 32,
    )
    case("guests-own-report", "a report that the guest asked for itself", FORGED, "Z3", slot=bytes(64))


def _quote(case: Case) -> None:
    case("not-made-by-a-tpm", "the key signed what looks like a quote, and is none", FORGED, "Z4", magic=0)
    case("another-kind", "the TPM certifies a key, and quotes nothing", BAD, "Z4", kind=0x8017)
    case("signed-by-another-tpm", "a quote by a key that the runtime data do not name", FORGED, "Z5", signer=_STRANGER)
    case(
        "grafted",
        "a genuine signature on a quote for another nonce",
        FORGED,
        "Z5",
        extra_data=bytes(32),
        signature=_WORLD.signed,
    )
    case(
        "register-left-out",
        "a register that was quoted is not presented",
        FORGED,
        "Z6",
        pcrs={n: _PCRS[n] for n in range(23)},
        selected=(("sha256", tuple(range(24))),),
        quoted=_PCRS,
    )
    case(
        "register-changed",
        "a register that is not what was quoted",
        FORGED,
        "Z7",
        pcrs={**_PCRS, 4: bytes(32)},
        quoted=_PCRS,
    )


def _terms(case: Case) -> None:
    case("tcb-too-old", "a processor below the TCB that the policy asks for", TCB, "ZT1", terms=SnpTerms())
    case(
        "not-the-paravisors-level",
        "a report that somebody above the paravisor asked for",
        TERMS,
        "ZT1",
        hardware={"vmpl": 1},
    )
    case(
        "tdx-sept-ve-off",
        "the host can inject exceptions: a paravisor of Azure's preview",
        TERMS,
        "ZT1",
        platform="azure_tdx",
        hardware={"attributes": bytes(8)},
        terms=TdxTerms(tdx_terms()),
    )
    case("registers-missing", "the loader's registers are not quoted", TERMS, "ZT2", pcrs=_FEW)
    case("bank-not-accepted", "a bank that the policy does not name", TERMS, "ZT3", terms=_quoted(banks=()))
    case("clock-unsafe", "a clock that may have gone back", TERMS, "ZT4", safe=0)
    case("firmware-not-accepted", "firmware that the policy does not name", TERMS, "ZT5", terms=_quoted(firmware=()))
    case("restarted", "the machine was started since", TERMS, "ZT6", terms=_quoted(reset_count=6))
    case("woken", "the machine slept since", TERMS, "ZT7", restarts=1, terms=_quoted(restart_count=0))
    case(
        "no-secure-boot",
        "a machine that starts anything",
        TERMS,
        "ZT8",
        runtime=runtime_data(configuration={"secure-boot": False}),
    )
    case("console", "a console that the policy does not tolerate", TERMS, "ZT9", terms=_asked(console=False))


def cases() -> dict[str, tuple[str, str, str, World]]:
    """Name to description, expected code, the check that does not pass, and world."""
    found: dict[str, tuple[str, str, str, World]] = {}

    def case(name: str, description: str, expect: str, fails: str, **changes: Any) -> None:
        assert name not in found, name
        found[name] = (description, expect, fails, World(**changes))

    for group in (_good, _malformed, _hardware, _quote, _terms):
        group(case)
    return found


def all_cases() -> dict[str, dict[str, Any]]:
    """Name to the case as it stands in the file."""
    return {
        name: {
            "at": world.at,
            "description": description,
            "endorsements": world.endorsements.to_json(),
            "evidence": wire.b64(world.evidence.data),
            "expect": expect,
            "fails": fails,
            "platform": world.platform,
            "roots": world.roots.to_json(),
            "terms": world.accepted.to_json(),
        }
        for name, (description, expect, fails, world) in cases().items()
    }


if __name__ == "__main__":
    folder = HERE / "azure_vtpm"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    for name, case in all_cases().items():
        (folder / f"{name}.json").write_text(json.dumps(case, indent=1, sort_keys=True) + "\n", encoding="utf-8")
