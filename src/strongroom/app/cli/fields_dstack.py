"""Evidence of dstack: the hardware's own, field by field. Its event log is shown as one. Nothing is believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from strongroom.attest.dstack import Claims

from .fields import Record

_NAMES = {"tdx": "tdx_quote", "sev_snp": "sev_snp_report"}


def of_dstack(claims: Claims) -> Record:
    return Record({"hardware": claims.hardware, _NAMES[claims.hardware]: claims.said})


DESCRIBED: Mapping[type, Callable[[Any], Record]] = MappingProxyType({Claims: of_dstack})
