"""Statistics of a hospital's records under differential privacy: nobody chooses noise by hand, the budget is the owner's.

python examples/private_statistics.py        # alone; needs strongroom[data,review]
The records are real: Breast Cancer Wisconsin, as scikit-learn carries them. See examples/README.md.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from sklearn.datasets import load_breast_cancer

import strongroom
from strongroom.app.cli.together import together
from strongroom.app.client import budgets
from strongroom.errors import StrongroomError
from strongroom.schema import ANY_SCHEMA

RULE = strongroom.OutputRule(strongroom.ANY_PARTY, max_bytes=100_000, min_group=1, decimals=3, schema=ANY_SCHEMA)
TERMS = strongroom.Policy(uses={"private-query"}, outputs={"values": RULE})
RADIUS = {"column": "mean radius", "lower": "5", "upper": "30"}
BY = {"column": "diagnosis", "categories": ["malignant", "benign"]}
QUERIES = [
    {"ask": "count", "name": "records", "share": 1},
    {"ask": "count", "name": "by_diagnosis", "by": BY, "share": 1},
    {"ask": "mean", "name": "radius", "by": BY, **RADIUS, "share": 2},
    {"ask": "quantile", "name": "median_radius", "at": "0.5", **RADIUS, "share": 2},
    {"ask": "histogram", "name": "sizes", "column": "mean radius", "edges": ["10", "15", "20"], "share": 2},
]


def records(path: Path) -> Path:
    data = load_breast_cancer(as_frame=True)
    data.data.assign(diagnosis=data.target.map(dict(enumerate(data.target_names)))).to_parquet(path)
    return path


def ask(researcher: strongroom.Room, hospital: strongroom.Room, epsilon: str) -> str:
    """A contract that both signed, carried out: its digest."""
    proposal = researcher.propose(
        strongroom.Draft(
            title="Sizes of tumours",
            program="private-query",
            assets={"data": researcher.asset("hospital/records")},
            outputs={"answers": strongroom.Wanted(("researcher",))},
            parameters={"epsilon": epsilon, "queries": QUERIES},
            decimals=3,
            max_bytes=100_000,
        )
    )
    hospital.approve(proposal.digest)  # the proposal says what it spends: strongroom show
    receipt = strongroom.verify(researcher.run(proposal.digest), trust=researcher.trust)
    print(f"{receipt.label}; {len(receipt.transcript.checks)} checks passed")
    return proposal.digest


def main() -> None:
    with TemporaryDirectory() as folder, together("hospital", "researcher") as rooms:
        hospital, researcher = rooms["hospital"], rooms["researcher"]
        asset = hospital.seal(records(Path(folder, "records.parquet")), terms=TERMS, name="records")
        budget = budgets.put(hospital.home, asset, budgets.Wanted(epsilon="3", delta="0"), asset.created_at)
        digest = ask(researcher, hospital, "2")
        (output,) = researcher.outputs(digest)
        for name, answer in json.loads(output.path.read_bytes())["answers"].items():
            print(f"{name:14}", json.dumps({k: v for k, v in answer.items() if k != "ask"}))
        (epsilon,) = budgets.look(hospital.home, budget)
        print(f"the hospital's budget: epsilon {epsilon.used} used, {epsilon.left} left")
        try:
            ask(researcher, hospital, "2")
        except StrongroomError as refused:
            print(f"the same once more: {refused.code}: {refused}")


if __name__ == "__main__":
    main()
