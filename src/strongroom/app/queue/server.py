"""The queue over HTTP: parties bring signed requests, see their own jobs, and cancel them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

from strongroom import wire
from strongroom.app.enclave.going import GoingRequest
from strongroom.app.http import application, blocking, body, json_answer
from strongroom.job import JobState
from strongroom.wire import JSON, Envelope, Fields

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

    from .keeper import Keeper

MAX_REQUEST = 64 << 10


def queue(keeper: Keeper) -> Starlette:
    """The application.

    Args:
        keeper: whose queue it is.
    """

    async def post_job(request: Request) -> Response:
        return json_answer((await blocking(keeper.add)(await body(request, MAX_REQUEST))).told.to_json())

    async def post_list(request: Request) -> Response:
        jobs = await blocking(keeper.seen)(await body(request, MAX_REQUEST))
        return json_answer({"jobs": [job.told.to_json() for job in jobs]})

    async def post_cancel(request: Request) -> Response:
        return json_answer((await blocking(keeper.cancel)(await body(request, MAX_REQUEST))).told.to_json())

    def heard(data: bytes) -> dict[str, JSON]:
        """The enclaves check who asks: what they do not tell, the queue cannot."""
        contract = GoingRequest.peek(Envelope.parse(data, max_bytes=MAX_REQUEST)).contract
        runs: dict[str, JSON] = {}
        for answer in keeper.going(contract, data):
            for run in Fields(wire.decode(answer), "answer").items("runs", lambda value: value, high=64):
                runs[str(run["run_id"])] = run
        return {"runs": [runs[name] for name in sorted(runs)][:64]}

    async def post_going(request: Request) -> Response:
        return json_answer(await blocking(heard)(await body(request, MAX_REQUEST)))

    async def health(_request: Request) -> Response:
        return json_answer({"role": "queue", "states": [state.value for state in JobState]})

    return application(
        [
            Route("/v1/health", health),
            Route("/v1/jobs", post_job, methods=["POST"]),
            Route("/v1/jobs/list", post_list, methods=["POST"]),
            Route("/v1/jobs/cancel", post_cancel, methods=["POST"]),
            Route("/v1/going", post_going, methods=["POST"]),
        ]
    )
