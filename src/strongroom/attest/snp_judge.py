"""Does a genuine SEV-SNP report meet a policy's terms: SP1 to SP15. See ``spec/evidence-sev-snp.md``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from strongroom.errors import TcbNotAccepted, TermsNotMet
from strongroom.transcript import Steps, Transcript

from .snp_report import HOST_VMPL, NO_MIGRATION_AGENT
from .snp_terms import ANY, REQUIRED, Terms
from .vector import AFFIRMED, UNACCEPTABLE, TrustVector

if TYPE_CHECKING:
    from .snp import SnpVerified

TERMS_STEPS = Steps(
    "SP",
    [
        "the report is of an accepted version",
        "the key that signed it is of an accepted kind, and lent to an accepted provider",
        "the terms name the processor",
        "the reported, committed and launch TCB are at least as the terms ask",
        "the reported TCB is not above the committed one, nor that and the launch TCB above the current one",
        "the current and the committed firmware are of an accepted version",
        "the mitigations asked for were in force at launch and are now",
        "the guest asked for the report, at an accepted privilege level",
        "no migration agent can take the guest elsewhere",
        "the guest's policy is as the terms ask, and has no bit that is not known",
        "the guest's policy asks for the ABI that the terms ask for",
        "the platform is as the terms ask, and has no bit that is not known",
        "the guest's security version is at least as the terms ask",
        "the guest's identity is signed as the terms ask",
        "the guest's family and image are accepted ones",
    ],
)

_Answer = tuple[bool, str]  # whether a check passed, and what was seen


def judge(verified: SnpVerified, terms: Terms, *, at: int, transcript: Transcript) -> TrustVector:  # noqa: ARG001 - no term has a date
    """Record SP1 to SP15, each passed or failed, and say what can be claimed of the hardware. Never raises.

    Args:
        verified: what ``snp.verify`` made.
        terms: the policy's.
        at: the time in question, unix seconds.
        transcript: of ``TERMS_STEPS``.
    """
    hardware = True
    for place, (about_tcb, check) in enumerate(_CHECKS, 1):
        passed, seen = check(verified, terms)
        code = TcbNotAccepted.code if about_tcb else TermsNotMet.code
        transcript.record(f"SP{place}", passed=passed, detail=seen, code=code)
        hardware = hardware and (passed or not about_tcb)
    return replace(verified.vector, hardware=AFFIRMED if hardware else UNACCEPTABLE)


def _version(v: SnpVerified, terms: Terms) -> _Answer:
    return v.claims.version >= terms.minimum_report_version, f"version {v.claims.version}"


def _signing_key(v: SnpVerified, terms: Terms) -> _Answer:
    lent_well = v.key.provider is None or terms.cloud_providers is None or v.key.provider in terms.cloud_providers
    return v.key.kind in terms.signing_keys and lent_well, f"{v.key.kind} {v.key.provider or ''}".rstrip()


def _named(v: SnpVerified, terms: Terms) -> _Answer:
    named = ", ".join(terms.minimum_tcb) or "none"
    return v.processor.name in terms.minimum_tcb, f"they name {named}; this is {v.processor.name}"


def _floors(v: SnpVerified, terms: Terms) -> _Answer:
    floor = terms.minimum_tcb.get(v.processor.name)
    seen = f"reported {v.reported_tcb}, committed {v.committed_tcb}, launch {v.launch_tcb}"
    if floor is None:
        return False, f"{seen}; no least one is named"
    return all(tcb.at_least(floor) for tcb in (v.reported_tcb, v.committed_tcb, v.launch_tcb)), seen


def _order(v: SnpVerified, _terms: Terms) -> _Answer:
    passed = (
        v.committed_tcb.at_least(v.reported_tcb)
        and v.current_tcb.at_least(v.committed_tcb)
        and v.current_tcb.at_least(v.launch_tcb)
    )
    return passed, f"current {v.current_tcb}"


def _firmware(v: SnpVerified, terms: Terms) -> _Answer:
    current, committed = v.claims.current, v.claims.committed
    return min(current, committed) >= terms.minimum_firmware, f"current {current}, committed {committed}"


def _mitigations(v: SnpVerified, terms: Terms) -> _Answer:
    launch, now = v.claims.launch_mitigations, v.claims.current_mitigations
    return launch & now & terms.mitigations == terms.mitigations, f"at launch {launch:#x}, now {now:#x}"


def _vmpl(v: SnpVerified, terms: Terms) -> _Answer:
    vmpl = v.claims.vmpl
    return vmpl in terms.vmpls, "the host asked for it" if vmpl == HOST_VMPL else f"VMPL {vmpl}"


def _migration(v: SnpVerified, _terms: Terms) -> _Answer:
    allowed = v.claims.allows("migration_agent")
    alone = v.claims.report_id_ma == NO_MIGRATION_AGENT
    return not allowed and alone, f"{'allowed' if allowed else 'not allowed'}, {'none' if alone else 'one'} associated"


def _bits(words: Iterable[tuple[str, str]], has: Callable[[str], bool], unknown: int) -> list[str]:
    """What is not as the words ask."""
    wrong = [f"{name} is {word}" for name, word in words if word != ANY and has(name) != (word == REQUIRED)]
    return [*wrong, f"unknown bits {unknown:#x}"] if unknown else wrong


def _guest_policy(v: SnpVerified, terms: Terms) -> _Answer:
    wrong = _bits(terms.guest_policy.items(), v.claims.allows, v.claims.unknown_bits[0])
    return not wrong, "; ".join([f"{v.claims.policy:#x}", *wrong])


def _abi(v: SnpVerified, terms: Terms) -> _Answer:
    major, minor = v.claims.minimum_abi
    return (major, minor) >= terms.minimum_abi, f"ABI {major}.{minor}"


def _platform_info(v: SnpVerified, terms: Terms) -> _Answer:
    wrong = _bits(terms.platform_info.items(), v.claims.platform_has, v.claims.unknown_bits[1])
    return not wrong, "; ".join([f"{v.claims.platform_info:#x}", *wrong])


def _guest_svn(v: SnpVerified, terms: Terms) -> _Answer:
    return v.claims.guest_svn >= terms.minimum_guest_svn, f"{v.claims.guest_svn}"


def _identity(v: SnpVerified, terms: Terms) -> _Answer:
    has = {"id_key": any(v.claims.id_key_digest), "author_key": v.claims.author_key_enabled}
    wrong = _bits((("id_key", terms.id_key), ("author_key", terms.author_key)), has.__getitem__, 0)
    return not wrong, "; ".join([*(f"{name} {'there' if there else 'absent'}" for name, there in has.items()), *wrong])


def _ids(v: SnpVerified, terms: Terms) -> _Answer:
    family, image = v.claims.family_id, v.claims.image_id
    passed = (terms.family_ids is None or family in terms.family_ids) and (
        terms.image_ids is None or image in terms.image_ids
    )
    return passed, f"family {family.hex()}, image {image.hex()}"


# In the order of TERMS_STEPS: whether a check is about the TCB, and the check.
_CHECKS: tuple[tuple[bool, Callable[[SnpVerified, Terms], _Answer]], ...] = (
    (False, _version),
    (False, _signing_key),
    (True, _named),
    (True, _floors),
    (True, _order),
    (True, _firmware),
    (True, _mitigations),
    (False, _vmpl),
    (False, _migration),
    (False, _guest_policy),
    (False, _abi),
    (False, _platform_info),
    (False, _guest_svn),
    (False, _identity),
    (False, _ids),
)
