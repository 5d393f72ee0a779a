"""Endorsements for some evidence, from wherever they can be had: shipped, carried in a bundle, kept in the cache, fetched.

The verification that uses them is elsewhere and does not know where they came from. What cannot be had is left out, and
said: the verification then ends as *not established*, never as passed.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from strongroom.attest.endorsements import NVIDIA_RIM, certificates
from strongroom.attest.evidence import MAX_ENDORSEMENTS, Endorsement, Endorsements, Evidence
from strongroom.errors import (
    AttestationError,
    BadEndorsement,
    BadEvidence,
    NotFound,
    RateLimited,
    StrongroomError,
    TooLarge,
    Unreachable,
)

from . import amd, intel, nvidia, shipped
from .bundle import about_of
from .cache import Cache
from .description import Description, describe
from .request import Answer, Ask, Document, Problem, Request, topic
from .web import Web

MAX_QUESTIONS = 128  # for one piece of evidence: eight GPUs ask less than half as many
_VERSION = re.compile(rb'\bcolloquialVersion="([0-9A-Za-z.]{1,64})"')
_LOG = logging.getLogger("strongroom")
_OFFLINE = (
    "Give a bundle that holds it: --endorsements FILE; or fetch it where there is a network: strongroom endorsements fetch"
)


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was found for some evidence, and what was not.

    Attributes:
        documents: what answers the questions that the evidence gave rise to, then what nobody asked for by name.
        problems: what could not be had.
        fetched: how many questions went to a vendor's service.
    """

    documents: tuple[Document, ...]
    problems: tuple[Problem, ...]
    fetched: int

    @property
    def endorsements(self) -> Endorsements:
        return Endorsements(tuple(dict.fromkeys(document.endorsement for document in self.documents)))


def said(endorsement: Endorsement) -> Description | None:
    """What a document says of itself; ``None`` where it is not what its type says."""
    try:
        return describe(endorsement)
    except BadEndorsement:
        return None


def answers(request: Request, endorsement: Endorsement) -> bool:
    """Whether a document that nobody labelled is what was asked for, by what is in it.

    A manifest is known by its version (and a driver's by its chip), an OCSP response by the certificate that it is about,
    a key set by being one, everything else as a service's answer would be.
    """
    if endorsement.media_type != request.media_type:
        return False
    try:
        if endorsement.media_type == NVIDIA_RIM:
            return _names_manifest(request.about, endorsement.data)
        about = about_of(endorsement)
        if about:
            return topic(about) == topic(request.about)
        request.read(Answer(endorsement.data))
    except StrongroomError:  # it is not even what its type says
        return False
    return True


def _names_manifest(about: str, data: bytes) -> bool:
    """Whether a manifest is the one that NVIDIA's service has under a name, such as ``NV_GPU_DRIVER_GH100_580.95.05`` or
    ``NV_GPU_VBIOS_1010_0200_882_96005E0001``. Raises BadEndorsement: it is none."""
    name, found = about.rpartition("/")[2], _VERSION.search(data[:4096])
    chip = name.partition("_DRIVER_")[2].rpartition("_")[0].replace("_", "")
    said = found[1].decode() if found else ""
    if (said if chip else said.replace(".", "")).lower() != name.rpartition("_")[2].lower():
        return False  # most end here, unread
    from strongroom.attest import rim

    return not chip or rim.parse(data).product.replace("_", "") == chip


class EndorsementProvider:
    """Gathers endorsements.

    Args:
        bundle: documents that were carried here; they go before everything else.
        cache: what was fetched before; nothing is kept without.
        web: asks the vendors; without, nothing is fetched.
        tcb: the end of Intel's addresses that asks for one TCB recovery (``intel.edition``).
        clock: unix seconds, for what is fetched.
        on_problem: told of what could not be had; a line in the log where it is not given.
    """

    def __init__(
        self,
        *,
        bundle: Iterable[Document] = (),
        cache: Cache | None = None,
        web: Web | None = None,
        tcb: str = "",
        clock: Callable[[], float] = time.time,
        on_problem: Callable[[Problem], None] | None = None,
    ) -> None:
        self.cache, self.web, self.tcb, self._clock = cache, web, tcb, clock
        self._on_problem = on_problem or _log
        self._bundle: dict[str, list[Document]] = {}
        for document in bundle:
            self._bundle.setdefault(topic(document.about), []).append(document)

    def gather(self, evidence: Evidence, at: int) -> Endorsements:
        """Everything there is for some evidence and its devices, at most 64 documents.

        Args:
            evidence: untrusted.
            at: the time in question, unix seconds: of several editions, the one that counts then.
        """
        found = self.collect(evidence, at)
        for problem in found.problems:
            self._on_problem(problem)
        return found.endorsements

    def collect(self, evidence: Evidence, at: int, *, beside: Endorsements | None = None, anew: bool = False) -> Gathered:
        """As :meth:`gather`, with what could not be had.

        Args:
            evidence: untrusted.
            at: the time in question, unix seconds.
            beside: what came along with the evidence, and need not be had again.
            anew: ask the vendors even for what is at hand.
        """
        errand = _Errand(self, at, anew=anew, beside=beside or Endorsements())
        extra: dict[Endorsement, Document] = {}
        for one in (evidence, *evidence.devices):
            for endorsement in shipped.endorsements(one.platform):
                extra.setdefault(endorsement, Document(endorsement))
            try:
                _plan(one, self.tcb, beside or Endorsements(), errand)
            except AttestationError as error:
                errand.problems.append(Problem(one.platform, error))
        for document in self._bundle.get("", ()) if evidence.platform != "simulated" else ():
            if said(document.endorsement) is None:
                errand.problems.append(Problem("bundle", BadEndorsement(f"a {document.endorsement.media_type} is none")))
            else:
                extra.setdefault(document.endorsement, document)
        documents = list({d.endorsement: d for d in (*errand.found, *extra.values())}.values())
        if len(documents) > MAX_ENDORSEMENTS:
            text = f"{len(documents)} documents, of which only {MAX_ENDORSEMENTS} can go with one piece of evidence"
            errand.problems.append(Problem(evidence.platform, TooLarge(text, hint="Carry fewer documents in one bundle.")))
        return Gathered(tuple(documents[:MAX_ENDORSEMENTS]), tuple(errand.problems), errand.fetched)

    def carried(self, request: Request) -> list[Document]:
        """What the bundle has for a question: what is labelled so, and what is not labelled and answers it."""
        loose = [document for document in self._bundle.get("", []) if answers(request, document.endorsement)]
        return [*self._bundle.get(topic(request.about), []), *loose]

    def kept(self, request: Request) -> list[Document]:
        """What the cache has for a question."""
        return list(self.cache.find(request.about)) if self.cache is not None else []

    def fetch(self, request: Request) -> list[Document]:
        """Ask the vendor, and keep what it answers. Raises as ``Web.ask``; NotFound without a network."""
        if self.web is None:
            raise NotFound("not at hand, and nothing is fetched", hint=_OFFLINE)
        now = int(self._clock())
        answer = self.web.ask(request)
        if self.cache is not None:
            try:
                self.cache.keep(request.about, answer, fetched_at=now)
            except StrongroomError as error:  # a full disk is no reason not to verify
                self._on_problem(Problem(request.about, error))
        return [Document(endorsement, request.about, now) for endorsement in answer]

    def fresh(self, request: Request, documents: Sequence[Document]) -> bool:
        """Whether what the cache has need not be asked for again."""
        if request.keep_s is None or self.web is None:
            return True
        age = int(self._clock()) - min(document.fetched_at for document in documents)
        return 0 <= age < request.keep_s


class _Errand:
    """Asks the questions of one piece of evidence, each once: the ``Ask`` that the vendors' modules are given."""

    def __init__(self, provider: EndorsementProvider, at: int, *, anew: bool, beside: Endorsements) -> None:
        self._provider, self._at, self._anew, self._beside = provider, at, anew, beside.documents
        self._answered: dict[tuple[str, ...], tuple[Endorsement, ...]] = {}
        self._down: dict[str, StrongroomError] = {}  # services that did not answer are not waited for again
        self.found: list[Document] = []
        self.problems: list[Problem] = []
        self.fetched = 0

    def __call__(self, *alternatives: Request) -> tuple[Endorsement, ...]:
        which = tuple(request.about for request in alternatives)
        if which not in self._answered:
            if len(self._answered) >= MAX_QUESTIONS:
                raise BadEvidence(f"the evidence gives rise to more than {MAX_QUESTIONS} questions")
            documents = self._look(alternatives)
            self.found += documents
            self._answered[which] = tuple(document.endorsement for document in documents)
        return self._answered[which]

    def _look(self, alternatives: Sequence[Request]) -> list[Document]:
        """The answer at hand, if it counts and is fresh; else the vendor's; else what is at hand all the same."""
        at_hand: list[list[Document]] = []
        for request in alternatives:
            carried = _edition(request.media_type, self._provider.carried(request), self._at)
            kept = _edition(request.media_type, self._provider.kept(request), self._at)
            for found, fresh in ((carried, True), (kept, bool(kept) and self._provider.fresh(request, kept))):
                if not self._anew and fresh and _current(found, self._at):
                    return found
            at_hand += [carried, kept]
        best = max(at_hand, key=lambda found: (_current(found, self._at), bool(found)))
        return self._fetch(alternatives, best)

    def _fetch(self, alternatives: Sequence[Request], at_hand: list[Document]) -> list[Document]:
        web = self._provider.web
        problems: list[Problem] = []
        for request in sorted(alternatives, key=lambda r: web is not None and not web.was_told(r.service)):
            try:
                if request.service in self._down:
                    raise self._down[request.service]
                self.fetched += web is not None
                found = self._provider.fetch(request)
            except StrongroomError as error:
                if isinstance(error, Unreachable | RateLimited):
                    self._down[request.service] = error
                problems.append(Problem(request.about, error))
                continue
            return at_hand if _current(at_hand, self._at) and not _current(found, self._at) else found
        if not _current(at_hand, self._at) and not self._came_along(alternatives):
            self.problems.append(problems[0])
        return at_hand

    def _came_along(self, alternatives: Sequence[Request]) -> bool:
        """Whether the evidence brought what counts: no reason not to ask the vendor, and none to miss it."""
        return any(
            _current([Document(endorsement)], self._at)
            for request in alternatives
            for endorsement in self._beside
            if answers(request, endorsement)
        )


def _plan(evidence: Evidence, tcb: str, beside: Endorsements, ask: Ask) -> None:
    """Ask for what one piece of evidence needs, devices apart. Raises AttestationError: it does not say."""
    platform, data = evidence.platform, evidence.data
    if platform in ("azure_snp", "azure_tdx"):
        from strongroom.attest import azure

        platform, data = platform.replace("azure_", "sev_" if platform == "azure_snp" else ""), azure.parse(data).hardware
    elif platform == "dstack":
        from strongroom.attest import dstack

        platform = dstack.parse(data).hardware
    if platform in ("sgx", "tdx"):
        intel.plan(data, ask, which=tcb)
    elif platform == "sev_snp":
        amd.plan(data, ask, beside=certificates(beside))
    elif platform in ("nvidia_cc", "nvidia_switch"):
        nvidia.plan(data, ask)
    elif platform == "nras":
        nvidia.plan_tokens(data, ask)


def _edition(media_type: str, documents: Sequence[Document], at: int) -> list[Document]:
    """Of several editions of an answer, the one that counts at a time, else the last: one document of each type, that of the
    type that was asked for first; nothing without it. What is not what its type says is left out."""
    best: dict[str, tuple[tuple[bool, int, int], Document]] = {}
    for document in documents:
        says = said(document.endorsement)
        if says is not None:
            rank = says.current(at), says.not_before or 0, document.fetched_at
            kind = document.endorsement.media_type
            if kind not in best or rank > best[kind][0]:
                best[kind] = rank, document
    return [best[kind][1] for kind in sorted(best, key=lambda kind: kind != media_type)] if media_type in best else []


def _current(documents: Sequence[Document], at: int) -> bool:
    """Whether there are documents, and each counts at a time."""
    says = [said(document.endorsement) for document in documents]
    return bool(says) and all(one is not None and one.current(at) for one in says)


def _log(problem: Problem) -> None:
    _LOG.warning("endorsements: %s: %s", problem.about, problem.error.message)
