"""A question to a model in an enclave: verified before it is asked, answered in a stream, and receipted.

strongroom up --chat --model model.gguf      # in another terminal; it prints the enclave's address and the contract
python examples/private_inference.py http://127.0.0.1:8471 room/parties/user/trust.json sha256:3f2a…91cc "Who are you?"

With the official client of OpenAI's (pip install openai) it is the same in four lines:

    http = strongroom.verified_client(url, trust=trust, contract=contract)
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="unused", http_client=http)
    for chunk in client.chat.completions.create(model=model, messages=messages, stream=True): ...
"""

import json
import sys

import strongroom
from strongroom.errors import StrongroomError


def main(url: str, trust: str, contract: str, question: str) -> None:
    with strongroom.verified_client(url, trust=trust, contract=contract) as client:
        # nothing is sent before this holds; without this line it is done with the first request
        session = client.establish()
        for check in session.transcript.checks:
            print(f"{check.number} {check.status.value}: {check.name}")
        print(session.label)
        serve = session.contract.proposal.policy.serve
        print(f"the operator sees: {serve.observability}; receipts are kept for {serve.retention_s} s")

        # each piece is authentic when it is printed; that it is whole, and who wrote it, is known at the end
        model = client.get("/v1/models").json()["data"][0]["id"]
        asked = {"model": model, "messages": [{"role": "user", "content": question}], "stream": True, "max_tokens": 64}
        with client.stream("POST", "/v1/chat/completions", json=asked) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    for choice in json.loads(line.removeprefix("data: "))["choices"]:
                        print(choice["delta"].get("content") or "", end="", flush=True)
        print()

        # the receipt: which weights under which contract answered, of which bytes, and what it cost
        outcome = client.last
        print(f"{outcome.word}: {outcome.model}, weights {session.models[model].weights}")
        print(f"{outcome.usage.prompt} + {outcome.usage.completion} tokens, receipt {outcome.receipt.receipt.receipt_id}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:5])
    except StrongroomError as error:  # never an answer that could not be verified
        sys.exit(f"{error.code}: {error}\n{error.hint}")
