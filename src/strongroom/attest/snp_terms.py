"""What a policy asks of AMD SEV-SNP beyond that a report is genuine. See ``spec/evidence-sev-snp.md``, SP1 to SP15."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from strongroom.errors import BadField
from strongroom.wire import JSON, Fields

from .snp_report import MAX_VMPL, PLATFORM_BITS, POLICY_BITS, PROCESSORS, VERSIONS, Firmware, Tcb

ANY = "any"  # said in words: an empty list accepts nothing
REQUIRED, REFUSED = "required", "refused"
WORDS = (ANY, REFUSED, REQUIRED)
KEY_KINDS = ("vcek", "vlek")
MAX_PROVIDERS = 64
MAX_IDS = 1024
MAX_PROVIDER_CHARS = 126  # what fits the certificate's extension

# Debugging and a migration agent are refused whatever the terms say, and so are not among what they can say.
_POLICY_NAMES = tuple(sorted(POLICY_BITS.keys() - {"debug", "migration_agent"}))
_PLATFORM_NAMES = tuple(sorted(PLATFORM_BITS))
_STRICT_POLICY = dict.fromkeys(_POLICY_NAMES, ANY) | {"cxl": REFUSED, "smt": REFUSED}
_STRICT_PLATFORM = dict.fromkeys(_PLATFORM_NAMES, ANY) | {
    "alias_check_complete": REQUIRED,
    "ecc": REQUIRED,
    "tio": REFUSED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What must hold of the processor, the host and the guest's policy. Without arguments they refuse every processor: the
    least TCB moves with AMD's security bulletins, and an owner says which.

    Args:
        minimum_tcb: a name in ``PROCESSORS`` to the least that the reported, the committed and the launch TCB may be,
            component by component. A processor that is not named is refused.
        minimum_firmware: the least version of the SNP firmware, current and committed.
        minimum_abi: the least ABI, major and minor, that the guest's policy must ask for.
        minimum_guest_svn: the least security version number of the guest, by its ID block.
        minimum_report_version: 2 to 5. Version 2 names no processor and says nothing of aliases in memory.
        mitigations: bits that the mitigation vectors must have, at launch and now.
        signing_keys: accepted kinds of keys, of ``vcek`` and ``vlek``.
        cloud_providers: the accepted providers of a VLEK, as the certificate writes them; ``None`` for the word ``any``.
        vmpls: accepted privilege levels, 0 to 3.
        guest_policy: bit to ``any``, ``required`` (the guest's policy asks for or allows it) or ``refused``.
        platform_info: likewise, of what the platform says it has.
        id_key, author_key: ``required``, ``refused`` or ``any``: whether an ID block was signed, and its key by an author's.
            Which keys they are is for the reference values.
        family_ids, image_ids: the accepted ones, 16 bytes each; ``None`` for the word ``any``.

    Raises:
        BadField: outside these bounds.
    """

    minimum_tcb: Mapping[str, Tcb] = field(default_factory=dict)
    minimum_firmware: Firmware = Firmware(1, 55, 0)  # noqa: RUF009 - frozen
    minimum_abi: tuple[int, int] = (0, 0)
    minimum_guest_svn: int = 0
    minimum_report_version: int = 3
    mitigations: int = 0
    signing_keys: frozenset[str] = frozenset({"vcek"})
    cloud_providers: frozenset[str] | None = frozenset()
    vmpls: frozenset[int] = frozenset({0})
    guest_policy: Mapping[str, str] = field(default_factory=_STRICT_POLICY.copy)
    platform_info: Mapping[str, str] = field(default_factory=_STRICT_PLATFORM.copy)
    id_key: str = ANY
    author_key: str = ANY
    family_ids: frozenset[bytes] | None = None
    image_ids: frozenset[bytes] | None = None

    def __post_init__(self) -> None:
        for name, tcb in self.minimum_tcb.items():
            known = PROCESSORS.get(name)
            if known is None or (known.line == "turin") != (tcb.fmc is not None):
                raise BadField(f"terms of sev_snp: {name[:32]!r} is no processor with a TCB of that form")
        if not frozenset(KEY_KINDS).issuperset(self.signing_keys) or not frozenset(range(MAX_VMPL + 1)).issuperset(
            self.vmpls
        ):
            raise BadField("terms of sev_snp: a kind of key or a privilege level that there is not")
        for words, names in ((self.guest_policy, _POLICY_NAMES), (self.platform_info, _PLATFORM_NAMES)):
            if words.keys() != set(names) or not frozenset(WORDS).issuperset(words.values()):
                raise BadField("terms of sev_snp: a bit that is not known, or that nothing is said of")
        self._require_bounds()
        object.__setattr__(self, "minimum_tcb", MappingProxyType(dict(sorted(self.minimum_tcb.items()))))
        object.__setattr__(self, "guest_policy", MappingProxyType(dict(sorted(self.guest_policy.items()))))
        object.__setattr__(self, "platform_info", MappingProxyType(dict(sorted(self.platform_info.items()))))

    def _require_bounds(self) -> None:
        """Raises BadField: a word, a number or an identity that the JSON form could not say."""
        if not frozenset(WORDS).issuperset((self.id_key, self.author_key)):
            raise BadField(f"terms of sev_snp: an ID or author key is none of {', '.join(WORDS)}")
        if self.minimum_report_version not in VERSIONS or not 0 <= self.minimum_guest_svn < 1 << 32:
            raise BadField("terms of sev_snp: no report has that version, or no guest that security version")
        if not all(0 <= number <= 255 for number in self.minimum_abi) or not 0 <= self.mitigations < 1 << 64:
            raise BadField("terms of sev_snp: no ABI has that number, or no vector of mitigations that bit")
        if not all(len(one) == 16 for ids in (self.family_ids, self.image_ids) for one in ids or ()):
            raise BadField("terms of sev_snp: a family or an image is not 16 bytes long")

    def to_json(self) -> dict[str, JSON]:
        major, minor = self.minimum_abi
        return {
            "author_key": self.author_key,
            "cloud_providers": ANY if self.cloud_providers is None else [*sorted(self.cloud_providers)],
            "family_ids": _ids_json(self.family_ids),
            "guest_policy": dict(self.guest_policy),
            "id_key": self.id_key,
            "image_ids": _ids_json(self.image_ids),
            "minimum_abi": {"major": major, "minor": minor},
            "minimum_firmware": self.minimum_firmware.to_json(),
            "minimum_guest_svn": self.minimum_guest_svn,
            "minimum_report_version": self.minimum_report_version,
            "minimum_tcb": {name: tcb.to_json() for name, tcb in self.minimum_tcb.items()},
            "mitigations": f"{self.mitigations:016x}",
            "platform_info": dict(self.platform_info),
            "signing_keys": [*sorted(self.signing_keys)],
            "vmpls": [*sorted(self.vmpls)],
        }

    @classmethod
    def from_json(cls, value: object) -> Terms:
        """Raises BadField: a member is missing, unknown, out of bounds or not in its one spelling."""
        f = Fields(value, "terms of sev_snp")
        abi = Fields(f.any("minimum_abi"), "terms of sev_snp.minimum_abi")
        found = cls(
            author_key=f.text("author_key", choices=WORDS),
            cloud_providers=_any_or(f, "cloud_providers", _provider, MAX_PROVIDERS),
            family_ids=_any_or(f, "family_ids", _id, MAX_IDS),
            guest_policy=_words(f, "guest_policy"),
            id_key=f.text("id_key", choices=WORDS),
            image_ids=_any_or(f, "image_ids", _id, MAX_IDS),
            minimum_abi=(abi.integer("major", high=255), abi.integer("minor", high=255)),
            minimum_firmware=Firmware.from_json(f.any("minimum_firmware")),
            minimum_guest_svn=f.integer("minimum_guest_svn", high=0xFFFFFFFF),
            minimum_report_version=f.integer("minimum_report_version", low=VERSIONS[0], high=VERSIONS[-1]),
            minimum_tcb={name: Tcb.from_json(tcb) for name, tcb in _object(f, "minimum_tcb").items()},
            mitigations=int.from_bytes(f.hex("mitigations", size=8), "big"),
            platform_info=_words(f, "platform_info"),
            signing_keys=frozenset(f.names("signing_keys", high=len(KEY_KINDS))),
            vmpls=frozenset(f.items("vmpls", _vmpl, high=MAX_VMPL + 1)),
        )
        abi.end()
        f.end()
        if found.to_json() != value:
            raise BadField("terms of sev_snp: a list is not sorted and distinct")
        return found


def _ids_json(ids: frozenset[bytes] | None) -> JSON:
    return ANY if ids is None else [*sorted(one.hex() for one in ids)]


def _object(f: Fields, name: str) -> dict[str, Any]:
    found = f.any(name)
    if not isinstance(found, dict):
        raise BadField(f"terms of sev_snp.{name} is not an object")
    return found


def _words(f: Fields, name: str) -> dict[str, str]:
    found = _object(f, name)
    read = Fields(found, f"terms of sev_snp.{name}")
    return {bit: read.text(bit, choices=WORDS) for bit in found}


def _any_or(f: Fields, name: str, parse: Callable[[Any], Any], high: int) -> frozenset[Any] | None:
    value = f.any(name)
    if value == ANY:
        return None
    return frozenset(Fields({name: value}, "terms of sev_snp").items(name, parse, high=high))


def _provider(value: object) -> str:
    return Fields({"provider": value}, "terms of sev_snp").text("provider", max_chars=MAX_PROVIDER_CHARS)


def _id(value: object) -> bytes:
    return Fields({"id": value}, "terms of sev_snp").hex("id", size=16)


def _vmpl(value: object) -> int:
    return Fields({"vmpl": value}, "terms of sev_snp").integer("vmpl", high=MAX_VMPL)
