"""A file of every kind of evidence, made by the vendors of our own (``pki_*.py``), and what a verifier of each must know.

What tests of the edge share: ``files()`` is what people may hold, ``machines()`` what can be verified to the end.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import pki_amd
import pki_azure
import pki_dstack
import pki_intel
import pki_nitro
import pki_nvidia
import pki_tpm
from strongroom.app.endorsements.bundle import Bundle, about_of
from strongroom.app.endorsements.request import Document
from strongroom.attest import binding, dstack, nitro, nvidia, scale, sgx, tdx
from strongroom.attest.appraisal_policy import AppraisalPolicy, Reference
from strongroom.attest.evidence import Endorsements, Evidence, Measurement, Roots
from strongroom.attest.keyset import (
    DEVICE_BINDING_ALGO,
    RELEASE_ALGO,
    RUN_RECEIPT_ALGO,
    AttestationReport,
    KeyEntry,
    Keyset,
    report_data,
)
from strongroom.attest.registry import verifier
from strongroom.errors import BadEndorsement
from strongroom.party import DecryptionKey, SigningKey
from strongroom.transcript import Transcript

NONCE = bytes(range(32))
SIGNING, BINDING = SigningKey.from_seed(b"\x41" * 32), SigningKey.from_seed(b"\x42" * 32)
RELEASE = DecryptionKey.from_seed(b"\x43" * 96)
EAR = {
    "eat_profile": "tag:github.com,2023:veraison/ear",
    "iat": 1_760_000_000,
    "submods": {"cpu": {"ear.status": "affirming", "depth": [1.5, None, True, {"a": []}]}},
}


def keyset(at: int) -> Keyset:
    """An enclave's keys, valid for an hour after ``at``."""
    return Keyset(
        at + 3600,
        receipt_signing_keys=(
            KeyEntry("device-binding", DEVICE_BINDING_ALGO, BINDING.public.raw.hex()),
            KeyEntry("run-receipt", RUN_RECEIPT_ALGO, SIGNING.public.raw.hex()),
        ),
        e2ee_public_keys=(KeyEntry("release", RELEASE_ALGO, RELEASE.public.raw.hex()),),
    )


# --- what can be verified to the end ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Evidence in a file, and all that its verifier must know for every check to pass that can.

    Args:
        platform: the processor's, or the only device's.
        data: what is in the file.
        evidence: what is in it for the processor.
        endorsements: what goes beside it.
        roots, terms: by platform.
        at: the time in question.
        nonce: what it repeats.
        devices: kind to number.
        whole: whether it comes with its keyset, so that the end is affirming.
    """

    platform: str
    data: bytes
    evidence: Evidence
    endorsements: Endorsements
    roots: Mapping[str, Roots]
    at: int
    nonce: bytes
    terms: Mapping[str, Any] = field(default_factory=dict)
    devices: Mapping[str, int] = field(default_factory=dict)
    whole: bool = False

    @cached_property
    def measurement(self) -> Measurement:
        module = verifier(self.platform)
        assert module is not None
        transcript, roots = Transcript(module.STEPS), self.roots[self.platform]
        found = module.verify(self.evidence, self.endorsements, roots=roots, at=self.at, transcript=transcript)
        return found.measurement

    @property
    def policy(self) -> AppraisalPolicy:
        """With this image's reference value, under the roots of our own vendors."""
        return AppraisalPolicy(
            platforms=frozenset({self.platform}),
            roots=self.roots,
            references=(Reference(self.measurement, "an image", "a commit"),),
            terms=self.terms,
            devices=self.devices,
        )

    @property
    def bundle(self) -> bytes:
        return bundle(self.endorsements)


def bundle(endorsements: Endorsements) -> bytes:
    """A bundle of them, as people carry it."""

    def about(one: Any) -> str:
        try:
            return about_of(one)
        except BadEndorsement:
            return ""

    return Bundle(tuple(Document(one, about(one)) for one in endorsements.documents)).encode()


def _intel(world: pki_intel.World, **more: Any) -> Machine:
    platform = world.tee.lower()
    terms = {"tdx": tdx.Terms, "sgx": sgx.Terms}[platform]()
    return Machine(
        platform=platform,
        data=world.quote(),
        evidence=world.evidence(),
        endorsements=world.endorsements(),
        roots={platform: world.roots()},
        at=pki_intel.AT,
        nonce=pki_intel.REPORT_DATA,
        terms={platform: terms},
        **more,
    )


def _amd(kind: str) -> Machine:
    case = pki_amd.good("genoa", kind)
    nonce = hashlib.sha512(b"report data").digest()
    terms = pki_amd.TERMS
    if kind == "vlek":
        terms = replace(terms, signing_keys=frozenset({"vlek"}), cloud_providers=frozenset({pki_amd.PROVIDER}))
    return Machine(
        platform="sev_snp",
        data=case.data,
        evidence=case.evidence,
        endorsements=case.endorsements,
        roots={"sev_snp": case.roots},
        at=case.at,
        nonce=nonce,
        terms={"sev_snp": terms},
    )


def _azure(platform: str) -> Machine:
    world = pki_azure.World(platform=platform)
    return Machine(
        platform=platform,
        data=json.dumps(world.evidence.to_json()).encode(),
        evidence=world.evidence,
        endorsements=world.endorsements,
        roots={platform: world.roots},
        at=world.at,
        nonce=pki_tpm.REPORT_DATA,
        terms={platform: world.accepted},
    )


def _dstack() -> Machine:
    guest = pki_dstack.Guest()
    return Machine(
        platform="dstack",
        data=json.dumps({"quote": guest.evidence().data.hex(), "event_log": guest.log.decode()}).encode(),
        evidence=guest.evidence(),
        endorsements=guest.endorsements(),
        roots={"dstack": guest.roots()},
        at=pki_dstack.AT,
        nonce=pki_intel.REPORT_DATA,
        terms={"dstack": dstack.Terms()},
    )


def _nitro() -> Machine:
    world = pki_nitro.World()
    return Machine(
        platform="nitro",
        data=world.data,
        evidence=world.evidence,
        endorsements=Endorsements(),
        roots={"nitro": world.roots},
        at=world.at,
        nonce=pki_nitro.REPORT_DATA,
        terms={"nitro": nitro.Terms()},
    )


def _tpm() -> Machine:
    world = pki_tpm.World()
    return Machine(
        platform="tpm",
        data=json.dumps(world.evidence.to_json()).encode(),
        evidence=world.evidence,
        endorsements=world.endorsements,
        roots={"tpm": world.roots},
        at=world.at,
        nonce=pki_tpm.REPORT_DATA,
        terms={"tpm": world.terms},
    )


def gpus(count: int, nonce: bytes) -> tuple[pki_nvidia.World, ...]:
    """So many distinct devices that answer one nonce."""
    return tuple(
        pki_nvidia.World(device=pki_nvidia.Device(name=f"gpu {n}", nonce=nonce, certificates={1: {"serial": 0x51 + n}}))
        for n in range(count)
    )


@cache
def with_gpus(count: int = 2) -> Machine:
    """An enclave's own report: a trust domain, its keyset, and GPUs bound to it."""
    at = pki_nvidia.AT  # of the two vendors' times the later: Intel's world is moved to it
    dates = {"issueDate": pki_intel.time(at - pki_intel.DAY), "nextUpdate": pki_intel.time(at + 29 * pki_intel.DAY)}
    current = {"before": at - pki_intel.DAY, "after": at + 29 * pki_intel.DAY}
    keys = keyset(at)
    bound = report_data(keys.digest, NONCE)
    world = pki_intel.World(
        td={"report_data": bound},
        info=dates,
        identity=dates,
        lists=dict.fromkeys((pki_intel.ROOT, pki_intel.PLATFORM_CA), current),
    )
    beside = gpus(count, binding.gpu_nonce(bound))
    devices = tuple(gpu.evidence for gpu in beside)
    evidence = world.evidence()
    if devices:
        evidence = replace(evidence, devices=devices, device_binding=binding.make(BINDING, bound, devices))
    own = Endorsements(tuple(dict.fromkeys(one for gpu in beside for one in gpu.endorsements.documents)))
    report = AttestationReport(keys, bound[:32], evidence, world.endorsements())
    roots = {"tdx": world.roots(), **({"nvidia_cc": beside[0].roots} if beside else {})}
    return Machine(
        platform="tdx",
        data=report.encode(),
        evidence=evidence,
        endorsements=Endorsements((*world.endorsements().documents, *own.documents)),
        roots=roots,
        at=at,
        nonce=NONCE,
        terms={"tdx": tdx.Terms(), **({"nvidia_cc": nvidia.Terms()} if beside else {})},
        devices={"nvidia_cc": count} if count else {},
        whole=True,
    )


MACHINES: Mapping[str, Callable[[], Machine]] = {
    "tdx": lambda: _intel(pki_intel.World()),
    "tdx-v5": lambda: _intel(pki_intel.World(version=5)),
    "sgx": lambda: _intel(pki_intel.World(tee="SGX", version=3)),
    "sev_snp": lambda: _amd("vcek"),
    "sev_snp-vlek": lambda: _amd("vlek"),
    "nitro": _nitro,
    "tpm": _tpm,
    "azure_snp": lambda: _azure("azure_snp"),
    "azure_tdx": lambda: _azure("azure_tdx"),
    "dstack": _dstack,
    "report": lambda: with_gpus(0),
    "report-with-gpus": with_gpus,
}


@cache
def machine(name: str) -> Machine:
    return MACHINES[name]()


# --- what people may hold -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class File:
    """A file, and what ``detect`` must find in it.

    Args:
        data: its bytes.
        kind: how the kind begins.
        platform: of the processor's evidence; ``""`` where there is none.
        devices: of the devices' evidence.
        came: how many endorsements come along.
    """

    data: bytes
    kind: str
    platform: str = ""
    devices: tuple[str, ...] = ()
    came: int = 0


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def pem(der: bytes) -> bytes:
    """A certificate in PEM, whatever its serial number."""
    return f"-----BEGIN CERTIFICATE-----\n{_b64(der)}\n-----END CERTIFICATE-----\n".encode()


def _varint(n: int) -> bytes:
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + _varint(n >> 7)


def _field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffers message."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def google() -> bytes:
    """A TPM's quote as Google's tools keep it."""
    world = pki_tpm.World()
    pcrs = b"".join(_field(2, _field(1, n) + _field(2, value)) for n, value in world.presented.items())
    quote = _field(1, world.message) + _field(2, world.signed) + _field(3, _field(1, 0x0B) + pcrs)
    return _field(1, world.described) + _field(2, quote) + _field(6, world.certificate.der)


def _trustee_tpm() -> bytes:
    world = pki_tpm.World(pcrs={n: pki_tpm.register(n) for n in range(24)})
    quote = {
        "message": _b64(world.message),
        "pcrs": [pki_tpm.register(n).hex() for n in range(24)],
        "signature": _b64(world.signed),
    }
    return _json({"ak_public": _b64(pki_tpm.key_info(world.key.public_key())), "tpm_quote": quote})


def dumped(pcrs: Mapping[int, bytes], *, algorithm: int = 0x000B, banks: int = 1) -> bytes:
    """As tpm2_quote writes registers: structures in memory, little-endian."""
    mask = sum(1 << n for n in pcrs).to_bytes(4, "little")
    selection = banks.to_bytes(4, "little") + algorithm.to_bytes(2, "little") + b"\3" + mask + b"\0"
    values = list(pcrs.values())
    groups = [values[i : i + 8] for i in range(0, len(values), 8)]
    lists = b"".join(
        len(group).to_bytes(4, "little")
        + b"".join(len(v).to_bytes(2, "little") + v.ljust(64, b"\0") for v in group).ljust(528, b"\0")
        for group in groups
    )
    return selection.ljust(132, b"\0") + len(groups).to_bytes(4, "little") + lists


def _tpm2_quote() -> bytes:
    world = pki_tpm.World()
    files = {
        "message": _b64(world.message),
        "signature": _b64(world.signed),
        "pcrs": _b64(dumped(world.presented)),
        "public": _b64(pki_tpm.sized(world.described)),
        "parent": world.parent.hex(),
    }
    return _json({"tpm2_quote": files})


def _trustee_azure(platform: str) -> bytes:
    world, kind = pki_azure.World(platform=platform), {"azure_snp": 2, "azure_tdx": 4}[platform]
    report = world.report if kind == 2 else bytes(1024)
    found = {
        "version": 1,
        "hcl_report": _b64url(pki_azure.hcl(kind, report, world.runtime)),
        "tpm_quote": {
            "message": world.message.hex(),
            "pcrs": [pki_tpm.register(n).hex() for n in range(24)],
            "signature": world.signed[6:].hex(),
        },
        **({"vcek": _b64url(pki_amd.leaf("genoa"))} if kind == 2 else {"td_quote": _b64url(world.report)}),
    }
    return _json(found)


def _auxblob() -> bytes:
    """A host's table of certificates (AMD's GHCB specification) with the VCEK alone in it."""
    guid, vcek = bytes.fromhex("63da758de6644564adc5f4b93be8accd"), pki_amd.leaf("genoa")
    return guid + (48).to_bytes(4, "little") + len(vcek).to_bytes(4, "little") + bytes(24) + vcek


def _service_with_gpus() -> bytes:
    guest = pki_dstack.address_guest()
    payload = {"arch": "HOPPER", "evidence_list": [], "nonce": pki_dstack.NONCE.hex()}
    for gpu in gpus(2, pki_dstack.NONCE):
        payload["evidence_list"].append({"certificate": _b64(gpu.device.pem), "evidence": _b64(gpu.device.report)})
    return _json(pki_dstack.address_report(guest, nvidia_payload=json.dumps(payload)))


def _container() -> bytes:
    found = scale.Container(
        report=pki_dstack.snp_case().data,
        certificates=tuple(map(pem, (pki_amd.issuer("milan"), pki_amd.leaf("milan")))),
        configuration=pki_dstack.CONFIGURATION,
        events=tuple((entry.name.encode(), entry.payload) for entry in pki_dstack.APP),
        report_data=bytes(64),
        machine=b"{}",
    )
    return _json({"attestation": found.encode().hex()})


def _ear_token() -> bytes:
    parts = (_json({"alg": "ES384"}), _json(EAR), b"signature")
    return ".".join(map(_b64url, parts)).encode()


GPU = pki_nvidia.World()
FILES: Mapping[str, Callable[[], File]] = {
    "TDX quote 4": lambda: File(machine("tdx").data, "an Intel TDX quote, version 4", "tdx"),
    "TDX quote 5": lambda: File(machine("tdx-v5").data, "an Intel TDX quote, version 5", "tdx"),
    "TDX quote, padded": lambda: File(machine("tdx").data + bytes(70), "an Intel TDX quote, version 4", "tdx"),
    "SGX quote": lambda: File(machine("sgx").data, "an Intel SGX quote, version 3", "sgx"),
    "SNP report": lambda: File(machine("sev_snp").data, "an AMD SEV-SNP report, version 5", "sev_snp"),
    "Nitro document": lambda: File(machine("nitro").data, "an attestation document of AWS Nitro", "nitro"),
    "Nitro document, tagged": lambda: File(
        pki_nitro.World(front=b"\xd2").data, "an attestation document of AWS Nitro", "nitro"
    ),
    "guest's log": lambda: File(pki_dstack.guest_log().encode(), "an event log"),
    "TPM's log": lambda: File(pki_dstack.tpm_log().encode(), "an event log"),
    "dstack's log": lambda: File(pki_dstack.Guest().log, "an event log"),
    "TPM by Google": lambda: File(google(), "a TPM quote as Google's", "tpm", came=1),
    "TPM by trustee": lambda: File(_trustee_tpm(), "a TPM quote", "tpm"),
    "TPM by tpm2-tools": lambda: File(_tpm2_quote(), "a TPM quote as tpm2-tools", "tpm"),
    "vTPM on SNP by trustee": lambda: File(_trustee_azure("azure_snp"), "Azure's virtual TPM on AMD", "azure_snp", came=1),
    "vTPM on TDX by trustee": lambda: File(_trustee_azure("azure_tdx"), "Azure's virtual TPM on Intel", "azure_tdx"),
    "paravisor on SNP": lambda: File(
        pki_azure.hcl(2, machine("sev_snp").data, pki_azure.runtime_data()), "a paravisor's report on AMD", "sev_snp"
    ),
    "paravisor on TDX": lambda: File(
        pki_azure.hcl(4, bytes(1024), pki_azure.runtime_data()), "a paravisor's report on Intel TDX (no quote"
    ),
    "GPU's report": lambda: File(GPU.device.report, "an NVIDIA device's report without its certificates"),
    "GPU by the SDK": lambda: File(_json([GPU.device.entry]), "reports of NVIDIA devices (1)", devices=("nvidia_cc",)),
    "GPUs by the SDK": lambda: File(
        _json([gpu.device.entry for gpu in gpus(2, NONCE)]), "reports of NVIDIA devices (2)", devices=("nvidia_cc",) * 2
    ),
    "GPUs and switches by the SDK": lambda: File(
        _json([device.entry for device in pki_nvidia.protected(1, 2)]),
        "reports of NVIDIA devices (3)",
        devices=("nvidia_cc", "nvidia_switch", "nvidia_switch"),
    ),
    "GPU in our form": lambda: File(_json(GPU.evidence.to_json()), "evidence of a device (1)", devices=("nvidia_cc",)),
    "NVIDIA's tokens": lambda: File(
        pki_nvidia.TokenWorld().evidence.data, "tokens of NVIDIA's attestation service (1)", devices=("nras",)
    ),
    "our report": lambda: File(machine("report").data, "an attestation report (aci/1), tdx", "tdx", came=5),
    "our report with GPUs": lambda: File(machine("report-with-gpus").data, "an attestation report (aci/1)", "tdx", came=5),
    "our evidence": lambda: File(_json(machine("tdx").evidence.to_json()), "evidence of tdx", "tdx"),
    "evidence of a TPM": lambda: File(machine("tpm").data, "evidence of tpm", "tpm"),
    "configfs-tsm, TDX": lambda: File(
        _json({"auxblob": "", "outblob": _b64url(machine("tdx").data), "provider": "tdx_guest\n"}), "an Intel TDX", "tdx"
    ),
    "configfs-tsm, SNP": lambda: File(
        _json({"auxblob": _b64(_auxblob()), "outblob": _b64(machine("sev_snp").data), "provider": "sev_guest"}),
        "an AMD SEV-SNP report",
        "sev_snp",
        came=1,
    ),
    "configfs-tsm, SNP alone": lambda: File(
        _json({"outblob": _b64(machine("sev_snp").data), "provider": "sev_guest"}), "an AMD SEV-SNP report", "sev_snp"
    ),
    "TDX by Google": lambda: File(_json({"tdx": {"quote": _b64(machine("tdx").data)}}), "an Intel TDX quote", "tdx"),
    "EAR": lambda: File(_json(EAR), "the claims of an EAR, unsigned"),
    "EAR as a token": lambda: File(_ear_token(), "the claims of an EAR, whose signature"),
    "dstack's answer": lambda: File(machine("dstack").data, "a report of a dstack service (dstack GetQuote)", "dstack"),
    "dstack's service": lambda: File(_json(pki_dstack.aci_report()), "a report of a dstack service (aci/1)", "dstack"),
    "service with an address": lambda: File(
        _service_with_gpus(),
        "a report of a dstack service (signing address)",
        "dstack",
        devices=("nvidia_cc",) * 2,
        came=2,
    ),
    "dstack's container": lambda: File(_container(), "a report of a dstack service (dstack attestation)", "dstack", came=1),
}


@cache
def file(name: str) -> File:
    return FILES[name]()


def files() -> Iterator[tuple[str, File]]:
    return ((name, file(name)) for name in FILES)
