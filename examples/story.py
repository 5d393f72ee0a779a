"""The whole story in Python: a lab's model is evaluated on a hospital's records.

strongroom up --party lab --party hospital          # in another terminal
strongroom demo --only-files --folder files
python examples/story.py room files
"""

import json
import sys
from pathlib import Path

import strongroom
from strongroom.app.client.home import reference

KINDS = {"picture": 4 << 20, "report": 1 << 20}


def terms(min_group: int, decimals: int) -> strongroom.Policy:
    """May be evaluated; aggregate figures and pictures may leave, to whom the contract names."""
    rules = {kind: strongroom.OutputRule(strongroom.ANY_PARTY, size, min_group, decimals) for kind, size in KINDS.items()}
    return strongroom.Policy(uses={"evaluate"}, outputs=rules)


def main(home: Path, files: Path) -> None:
    with strongroom.connect(home, party="lab") as lab, strongroom.connect(home, party="hospital") as hospital:
        tell(lab, hospital, home, files)


def tell(lab: strongroom.Room, hospital: strongroom.Room, home: Path, files: Path) -> None:
    # each side pins the other's keys, and what it expects of an enclave and of the log
    values = reference((home / "reference.json").read_bytes())
    for me, other in ((lab, hospital), (hospital, lab)):
        trust = me.trust.pin(other.home.card).with_enclaves(values.roots, values.measurements)
        me.home.save_trust(trust.with_log(values.logs[0]))

    # each side seals what it holds; the keys stay with their own brokers
    model = lab.seal(files / "model.onnx", terms=terms(min_group=1, decimals=15), name="classifier", reveal_digest=True)
    records = hospital.seal(files / "records.csv", terms=terms(min_group=10, decimals=4), name="held-out")

    # the lab proposes, the hospital counters, the lab approves
    draft = strongroom.Draft(
        title="Accuracy on your records",
        program="evaluate",
        assets={"model": model, "data": records},
        outputs={"report": strongroom.Wanted(("hospital", "lab")), "calibration": strongroom.Wanted(("hospital",))},
        parameters={
            "classes": ["0", "1"],
            "features": json.loads((files / "features.json").read_bytes()),
            "groups": [{"column": "mean radius", "edges": ["9", "12", "15", "18", "22"], "name": "tumour size"}],
            "target": "benign",
            "task": "classification",
        },
    )
    proposal = lab.propose(draft)
    contract = hospital.counter(proposal.digest, strongroom.Change(min_group=10, decimals=4))
    lab.approve(contract.digest)

    # the enclave proves itself to both brokers, runs, delivers, and signs a receipt
    bundle = lab.run(contract.digest)
    receipt = strongroom.verify(bundle, trust=lab.trust)
    print(f"{receipt.label}; {len(receipt.transcript.checks)} checks passed")
    for output in lab.outputs(contract.digest):
        print(output.name, json.loads(output.path.read_bytes())["metrics"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
