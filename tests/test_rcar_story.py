"""A guest of another project fetches a key from a broker of ours, with real processes: the contract holds for it too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from rcar_guest import Denied, Guest, RsaKey
from stage import RECORD_CANARY, Stage
from strongroom.asset import AssetKey, FileSource, Manifest, SealedReader
from strongroom.rcar import ear


@pytest.fixture
def guests(tmp_path: Path, held: Path) -> Iterator[Stage]:
    """A hospital whose broker answers sample guests, and a lab that knows it; no enclave of ours."""
    stage = Stage(tmp_path, held, enclave=False)
    try:
        stage.fleet.end("broker of hospital")
        for name, *words in (("hospital",), ("lab", "--for-others")):
            said = stage.cli("guest", "reference", *words, "--out", tmp_path / f"{name}.json", party="hospital")
            assert said.status == 0, said.err
            said = stage.cli("party", "trust", tmp_path / f"{name}.json", "--reference", party=name)
            assert said.status == 0, said.err
        assert len(stage.lab.trust.roots) == 1  # the enclave's platform, and not the hospital's own key
        words = ["broker", "--as", "hospital", "--guests", "--sample-guests", "--offline"]
        stage.fleet._spawn("broker of hospital", [*words, "--exchange-url", stage.fleet.config.exchange]).wait()
        yield stage
    finally:
        stage.close()


def test_a_foreign_guest_gets_what_the_contract_gives_it_and_no_more(guests: Stage, tmp_path: Path) -> None:
    stage, url = guests, guests.hospital.home.card.broker_url
    sealed = tmp_path / "records.sealed"
    said = stage.cli("seal", stage.held / "records.csv", "--use", "guest", "--out", sealed, "--json", party="hospital")
    assert said.status == 0, said.err
    propose = ["guest", "propose", "hospital/records.csv", "--reference", tmp_path / "lab.json", "--runs", 1, "--json"]
    said = stage.cli(*propose, party="lab")
    assert said.status == 0, said.err
    contract = said.json["digest"]
    shown = stage.cli("show", contract, party="hospital")
    assert "whatever the guest's image lets leave" in shown.out.replace("\n", " ").replace("  ", "")
    expect = ["guest", "expect", contract, "--runs", 2, "--hours", 1, "--json"]
    assert stage.cli(*expect[:-1], party="lab").code == "contract.signature_missing"
    said = stage.cli("approve", contract, "--yes", party="hospital")
    assert said.status == 0, said.err
    assert "strongroom guest expect" in said.out
    refused = stage.cli("run", contract, party="lab")
    assert (refused.code, "guest expect" in refused.err) == ("policy.not_permitted", True)
    said = stage.cli(*expect, party="lab")
    assert said.status == 0, said.err
    (where,) = said.json["addresses"]
    assert where["broker"] == url

    with httpx.Client(base_url=url) as web:
        guest = Guest(web)
        with pytest.raises(Denied, match="401"):
            guest.get(where["address"])  # as a guest tries first
        token = guest.attest()
        key = guest.get(where["address"])
        manifest = stage.hospital.home.book.manifest(f"sha256:{where['address'].split('/')[-2]}")
        with FileSource(sealed) as source, SealedReader(source, Manifest.parse(manifest.payload), AssetKey(key)) as reader:
            assert RECORD_CANARY in reader.read()
        # again, with the token alone, and after attesting anew: the very same, uncounted
        assert guest.get_by_token(where["address"]) == key
        guest.attest()
        assert guest.get(where["address"]) == key

    # the token is for others too: with a JWT library, and by EAR's own rules
    broker = stage.hospital.home.card.broker_key
    claims = jwt.decode(token, Ed25519PublicKey.from_public_bytes(broker.raw), algorithms=["EdDSA"])
    assert claims["submods"]["simulated"]["strongroom.label"] == "platform: simulated (no hardware protection)"
    assert ear.verify(token, broker, claims["iat"]).submods.keys() == {"simulated"}

    with httpx.Client(base_url=url) as web:
        second = Guest(web, version="0.1.1", key=RsaKey())
        second.attest()
        with pytest.raises(Denied, match=r"D16: broker\.no_run_left") as refused:
            second.get(where["address"])
        assert (refused.value.status, refused.value.kind) == (403, "PolicyDeny")
        assert stage.cli("withdraw", contract, party="lab").status == 0
        first = Guest(web, key=guest.key)
        first.attest()
        with pytest.raises(Denied, match=r"D14: contract\.withdrawn"):
            first.get(where["address"])

    # no receipt can come of it, and none is missed
    seen = stage.cli("status", "--json", party="hospital").json
    assert (seen["unreceipted"], [run["contract"] for run in seen["to_guests"]]) == ([], [contract])
    own = stage.cli("broker", "status", "--json", party="hospital").json["own"]
    assert (own["unreceipted"], len(own["to_guests"]), own["refused"]["broker.no_run_left"]) == ([], 1, 1)
    (known,) = own["contracts"]
    assert (known["guests"], known["given"], known["left"], known["state"]) == (True, 1, 0, "withdrawn")

    said = stage.cli("log", "--json", party="hospital")
    verdicts = [(d["verdict"], d["code"]) for d in said.json["decisions"]]
    assert verdicts == [("release", "")] * 3 + [("refusal", "broker.no_run_left"), ("refusal", "contract.withdrawn")]
    names = {c["number"]: c["name"] for c in said.json["decisions"][0]["checks"]}
    assert "binds its runtime data" in names["D9"]
    assert json.dumps(said.json).count(guest.token) == 0
