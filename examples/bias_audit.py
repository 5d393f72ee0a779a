"""Two owners, one audit: are a platform's suggestions as welcome to young and old? Neither sees the other's rows.

python examples/bias_audit.py        # alone; needs strongroom[data]
A match report comes first: how well the tables fit, in counts alone. The people and their ratings are real (Restaurant &
consumer data, CC BY 4.0); that two owners hold them is supposed. See examples/README.md.
"""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pyarrow as pa

import strongroom
from strongroom.app.cli.together import together
from strongroom.app.client.offer import Offering
from strongroom.contract import Proposal
from strongroom.programs import joined
from strongroom.schema import ANY_SCHEMA

DATA = Path(__file__).parent / "data"
INPUTS = {"logs": "platform/table", "people": "office/table"}
RULE = {"max_bytes": 10_000, "min_group": 10, "decimals": 2}
REPORT = strongroom.OutputRule(strongroom.ANY_PARTY, **RULE)
TERMS = strongroom.Policy({"analyse", "match-report"}, {"table": replace(REPORT, schema=ANY_SCHEMA), "report": REPORT})
BANDS = ["1988 or before", "1989 or 1990", "1991 or after"]
SHARE = {"maximum": 1, "minimum": 0, "nullable": True, "type": "number"}
COUNT, BAND = {"maximum": 1000, "minimum": 0, "type": "integer"}, {"enum": BANDS, "type": "string"}
COLUMNS = {"born": BAND, "people": COUNT, "welcome": SHARE, "rejected": SHARE}
SCHEMA = {"columns": COLUMNS, "count": "people", "key": ["born"], "maxRows": 3, "type": "table"}


def audit(logs: pd.DataFrame, people: pd.DataFrame, bands: list[str]) -> dict[str, pd.DataFrame]:
    """By year of birth: how many people, and which share of what they rated was welcome, or rejected."""
    both = joined.join(logs, people, on="person", rules=["id"])
    both["born"] = pd.cut(both["born"], [0, 1988, 1990, 9999], labels=bands).astype(str)
    both = both.assign(welcome=both["rating"] == 2, rejected=both["rating"] == 0)
    found = both.groupby("born").agg(people=("key", "nunique"), welcome=("welcome", "mean"), rejected=("rejected", "mean"))
    return {"bias": found.reindex(bands).fillna({"people": 0}).astype({"people": "int64"})}


def tables(folder: Path) -> dict[str, Path]:
    """The platform keeps logs of those who rate seven times or more; the office has a register of one state."""
    logs = pd.read_csv(DATA / "ratings.csv")
    logs[logs.groupby("person")["rating"].transform("size") >= 7].to_csv(folder / "logs.csv", index=False)
    return {"platform": folder / "logs.csv", "office": DATA / "people.csv"}


def told(auditor: strongroom.Room, owners: list[strongroom.Room], proposal: Proposal) -> Path:
    """Both owners approve, the enclave runs, the auditor verifies: the one output."""
    for owner in owners:
        owner.approve(proposal.digest)  # after reading it: strongroom inbox show DIGEST --run-mock
    receipt = strongroom.verify(auditor.run(proposal.digest), trust=auditor.trust)
    print(f"{receipt.label}; {len(receipt.transcript.checks)} checks passed")
    return auditor.outputs(proposal.digest)[0].path


def main() -> None:
    with TemporaryDirectory() as folder, together("platform", "office", "auditor") as rooms:
        *owners, auditor = rooms.values()
        for owner, path in tables(Path(folder)).items():  # sealed, with a mock of nothing but names and types
            rooms[owner].offer(Offering(path), terms=TERMS, name="table", out=Path(folder, owner))
        assets = {role: auditor.asset(name) for role, name in INPUTS.items()}
        keys = {"inputs": {role: ["person"] for role in assets}, "rules": ["id"]}
        outputs = {"report": strongroom.Wanted(("auditor",))}
        draft = strongroom.Draft("Do they fit?", "match-report", assets, outputs, keys, **RULE)
        for group in json.loads(told(auditor, owners, auditor.propose(draft)).read_bytes())["tables"][0]["groups"]:
            print(f"  {group['group']:16}", group["records"], "people")
        says = {"outputs": {"bias": "table:auditor"}, "schemas": {"bias": SCHEMA}, "arguments": {"bands": BANDS}}
        tried = auditor.try_(audit, inputs={role: auditor.assets[name] for role, name in INPUTS.items()}, **says)
        print("on the mocks", "it runs" if tried.passed else tried.failure or tried.refused)
        path = told(auditor, owners, auditor.submit(audit, inputs=INPUTS, **says, **RULE))
        print(pa.ipc.open_file(path).read_pandas().to_string(index=False))


if __name__ == "__main__":
    main()
