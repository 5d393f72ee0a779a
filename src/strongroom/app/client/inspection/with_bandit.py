"""What bandit finds, as findings.

Comments that silence bandit (``nosec``) are not heeded: who is reviewed does not say where to look.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator

from strongroom.errors import MissingExtra

from .findings import Finding, Severity, one_line

MAX_NODES = 40_000  # of the syntax trees of a bundle; bandit takes some 80 microseconds for each
MAX_CHARS = 1 << 20  # of a file

_SEVERITY = {"LOW": Severity.LOW, "MEDIUM": Severity.MEDIUM, "HIGH": Severity.HIGH}


def version() -> str:
    """Bandit's version. Raises MissingExtra."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it loads its plug-ins in a way that is to go
            import bandit
    except ImportError as error:
        raise MissingExtra("the static report needs bandit", hint="pip install 'strongroom[review]'") from error
    return str(bandit.__version__)


def of_bandit(file: str, text: str) -> Iterator[Finding]:
    """What bandit finds in one file that parses."""
    from bandit.core import config, meta_ast, metrics, node_visitor, test_set

    logging.getLogger("bandit").setLevel(logging.CRITICAL)
    data, counted = text.encode(), metrics.Metrics()
    counted.begin(file)
    tests = test_set.BanditTestSet(config.BanditConfig())
    visitor = node_visitor.BanditNodeVisitor(
        "bundle.py", io.BytesIO(data), meta_ast.BanditMetaAst(), tests, False, {}, counted
    )
    try:
        visitor.process(data)
    except (RecursionError, SyntaxError, ValueError, MemoryError):
        yield Finding.of("unread.bandit", file, 0, "bandit gave up")
    for issue in visitor.tester.results:
        what = f"{one_line(' '.join(str(issue.text).split()))} (bandit, {issue.test})"
        severity = _SEVERITY.get(issue.severity, Severity.LOW)
        yield Finding(
            file, int(issue.lineno), f"bandit.{issue.test_id}", severity, what, "Is it needed, and is it safe here?"
        )
