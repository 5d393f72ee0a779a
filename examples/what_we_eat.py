"""What do we actually eat? Six people give a file of their own each, and get a histogram of all of them.

python examples/what_we_eat.py        # alone; needs strongroom[data,review]
Twice: exact, of no fewer than three people a figure; then with noise, which each person's own budget pays for. The people
and what they ate are real (Restaurant & consumer data, CC BY 4.0); that each has a file is supposed. See examples/README.md.
"""

import csv
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import strongroom
from strongroom.app.cli.together import together
from strongroom.app.client import budgets

DATA = Path(__file__).parent / "data" / "ratings.csv"
PEOPLE = ["u1106", "u1061", "u1134", "u1024", "u1137", "u1036"]
CUISINES = ["American", "Bar", "Cafeteria", "Chinese", "Fast Food", "International", "Mexican", "Seafood"]
RULE = strongroom.OutputRule(strongroom.ANY_PARTY, max_bytes=20_000, min_group=1, decimals=0)
TERMS = strongroom.Policy(uses={"joint-histogram"}, outputs={"report": RULE})


def own_file(person: str, folder: Path) -> Path:
    """What one person rated, as a list that no other person has."""
    with DATA.open(newline="") as table:
        found = [{"cuisine": row["cuisine"]} for row in csv.DictReader(table) if row["person"].lower() == person]
    path = folder / f"{person}.json"
    path.write_text(json.dumps(found))
    return path


def told(rooms: dict[str, strongroom.Room], title: str, min_group: int, **said: str) -> None:
    """A contract that everybody signs, carried out; and what it says."""
    first = rooms[PEOPLE[0]]
    proposal = first.propose(
        strongroom.Draft(
            title=title,
            program="joint-histogram",
            assets={person: first.asset(f"{person}/meals") for person in PEOPLE},
            outputs={"report": strongroom.Wanted(tuple(sorted(PEOPLE)))},
            parameters={"categories": CUISINES, "column": "cuisine", "most": 15, "people": PEOPLE, **said},
            min_group=min_group,
            decimals=0,
            max_bytes=20_000,
        )
    )
    for person in PEOPLE[1:]:
        rooms[person].approve(proposal.digest)
    receipt = strongroom.verify(first.run(proposal.digest), trust=first.trust)
    print(f"{title}\n{receipt.label}; {len(receipt.transcript.checks)} checks passed")
    report = json.loads(rooms[PEOPLE[-1]].outputs(proposal.digest)[0].path.read_bytes())
    off = report["metrics"].get("within", 0)
    for group in report["tables"][0]["groups"]:
        count = group["values"].get("value", group["records"])
        print(f"  {group['group']:16} {count:4}{f' within {off}' if off else ''}  {'#' * max(0, count)}")


def main() -> None:
    with TemporaryDirectory() as folder, together(*PEOPLE) as rooms:
        for person, room in rooms.items():
            room.seal(own_file(person, Path(folder)), terms=TERMS, name="meals")
        told(rooms, "Exact, three people at least", 3)
        for room in rooms.values():  # from now on nothing without noise is let at the file
            asset = room.asset(f"{room.name}/meals")
            budget = budgets.put(room.home, asset, budgets.Wanted(epsilon="4", delta="0"), asset.created_at)
        told(rooms, "With noise", 1, epsilon="3")
        (epsilon,) = budgets.look(rooms[PEOPLE[-1]].home, budget)
        print(f"of the budget of {PEOPLE[-1]}: epsilon {epsilon.used} used, {epsilon.left} left")


if __name__ == "__main__":
    main()
