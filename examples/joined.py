"""A researcher's own code over two owners' tables: does a platform recommend the same to young and old?

strongroom up --with data --party platform --party office --party researcher     # in another terminal
python examples/joined.py room
The tables are made up here. Nobody but the room ever has both of them.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

import strongroom
from strongroom.app.client.home import reference
from strongroom.app.client.offer import Offering
from strongroom.observation import Observed
from strongroom.policy import ANY_SCHEMA

RULE = strongroom.OutputRule(strongroom.ANY_PARTY, max_bytes=10_000, min_group=1, decimals=3, schema=ANY_SCHEMA)
TERMS = strongroom.Policy(uses={"analyse"}, outputs={"values": RULE})
OUTPUTS = {"bias": "values:researcher"}
SHARE = {"maximum": 1, "minimum": 0, "type": "number"}
SCHEMAS = {"bias": {"properties": {"50 and over": SHARE, "under 50": SHARE}, "type": "object"}}


def tables(people: int = 3000) -> dict[str, pd.DataFrame]:
    """Made-up logs and demographics: the older half is shown news half as often."""
    random = np.random.default_rng(7)
    age, seen = random.integers(18, 90, people), random.integers(0, people, 10 * people)
    news = random.random(len(seen)) < np.where(age[seen] < 50, 0.4, 0.2)
    logs = pd.DataFrame({"person": seen, "item": np.where(news, "news", "shop")})
    return {"platform": logs, "office": pd.DataFrame({"person": np.arange(people), "age": age})}


def bias(logs: pd.DataFrame, census: pd.DataFrame) -> dict[str, dict[str, float]]:
    """The share of news in what is recommended, by age."""
    both = logs.merge(census, on="person")
    band = pd.cut(both["age"], [0, 50, 120], right=False, labels=["under 50", "50 and over"])
    found = (both["item"] == "news").groupby(band, observed=True).mean()
    return {"bias": found}


def main(home: Path) -> None:
    rooms = {name: strongroom.connect(home, party=name) for name in ("platform", "office", "researcher")}
    values = reference((home / "reference.json").read_bytes())
    for room in rooms.values():  # each pins the others' keys, and what it expects of an enclave and of the log
        trust = room.trust.with_enclaves(values.roots, values.measurements).with_log(values.logs[0])
        for other in rooms.values():
            trust = trust if other is room else trust.pin(other.home.card)
        room.home.save_trust(trust)
    tell(rooms)
    for room in rooms.values():
        room.close()


def tell(rooms: dict[str, strongroom.Room]) -> None:
    with TemporaryDirectory() as folder:  # each owner offers its table: sealed, with a mock of nothing but names and types
        for owner, table in tables().items():
            table.to_parquet(Path(folder, f"{owner}.parquet"))
            rooms[owner].offer(Offering(Path(folder, f"{owner}.parquet")), terms=TERMS)
    researcher = rooms["researcher"]
    mocks = {"logs": researcher.assets["platform"], "census": researcher.assets["office"]}
    tried = researcher.try_(bias, inputs=mocks, outputs=OUTPUTS, schemas=SCHEMAS)
    print("on the mocks", "it runs" if tried.passed else tried.failure or tried.refused)
    rules = {"decimals": 3, "max_bytes": 10_000, "schemas": SCHEMAS, "observed": Observed(5, "withheld")}
    proposal = researcher.submit(bias, inputs={r: m.name for r, m in mocks.items()}, outputs=OUTPUTS, **rules)
    for owner in ("platform", "office"):
        rooms[owner].approve(proposal.digest)  # after reading it: strongroom inbox show DIGEST --run-mock
    receipt = strongroom.verify(researcher.run(proposal.digest), trust=researcher.trust)
    print(f"{receipt.label}; {len(receipt.transcript.checks)} checks passed")
    for output in researcher.outputs(proposal.digest):
        print(output.name, json.loads(output.path.read_bytes()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
