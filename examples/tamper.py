"""Tamper with a receipt: claim that other outputs left the enclave, and see which check finds it.

python examples/tamper.py RECEIPT TAMPERED
strongroom verify TAMPERED --as lab
"""

import base64
import json
import sys
from pathlib import Path


def tamper(bundle: dict) -> dict:
    """The bundle with the first output's digest changed inside the signed statement."""
    statement = json.loads(base64.b64decode(bundle["receipt"]["payload"]))
    flipped = statement["subject"][0]["digest"]["sha256"][::-1]
    statement["subject"][0]["digest"]["sha256"] = flipped
    statement["predicate"]["outputs"][0]["sealed"] = "sha256:" + flipped
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    bundle["receipt"]["payload"] = base64.b64encode(payload).decode()
    return bundle


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:3])
    tampered = tamper(json.loads(source.read_bytes()))
    target.write_text(json.dumps(tampered, sort_keys=True, separators=(",", ":"), ensure_ascii=False))
    print(f"wrote {target}: the first output's digest is another one now")
