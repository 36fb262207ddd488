"""The endpoint by which a worker program registers."""

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from pipedai.api import tokens
from pipedai.api.authentication import bearer_token, refusal
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Unauthenticated
from pipedai.api.principal import address_of
from pipedai.api.schema.auto import registration_token
from pipedai.api.schema.operation import Operation, answer
from pipedai.api.serializers import read_body
from pipedai.api.throttling import Rate, Throttle, by_address
from pipedai.api.views import ApiViewSet, IsPublic
from pipedai.events import Actor
from pipedai.ids import current_request_id
from workers.models import Worker
from workers.protocol.serializers import RegisterBody, RegistrationBody
from workers.registration import find_registration_key, register_worker


class RegistrationViewSet(ApiViewSet):
    """The endpoint by which a machine becomes a worker. A `wrk_` token proves that it may."""

    tag = "Worker protocol"
    authentication_classes = ()
    permissions = {"register": IsPublic}
    throttles = {"register": (Throttle(Rate("register-worker", limit=60, seconds=60), by_address),)}

    @Operation(
        "POST /workers/register",
        id="registerWorker",
        summary="Register a worker",
        body=RegistrationBody,
        example={"token": "wrk_…", "hostname": "build-1", "os": "Linux 6.1", "version": "0.1.0"},
        answers={
            201: answer(
                "Registered",
                "A registered worker and its token, which is shown this once.",
                workerId=serializers.UUIDField(),
                workerToken=serializers.CharField(),
                workspaceId=serializers.UUIDField(),
                environmentId=serializers.UUIDField(),
                approved=serializers.BooleanField(),
                authMode=serializers.ChoiceField(choices=Worker.AuthMode.choices),
            )
        },
        security=({}, registration_token()),
    )
    def register(self, request: Request) -> Response:
        """Registers a worker. Only this answer holds the worker's `wkt_` token."""
        token = _registration_token(request)
        find_registration_key(token)  # This refuses a bad token before the body is checked.
        registered = register_worker(
            token=token,
            values=read_body(RegisterBody, request),
            actor=Actor("api_key", None, address_of(request), current_request_id.get() or None),
        )
        return Response(
            {
                "workerId": registered.worker_id,
                "workerToken": registered.worker_token,
                "workspaceId": registered.workspace_id,
                "environmentId": registered.environment_id,
                "approved": registered.approved,
                "authMode": registered.auth_mode,
            },
            status=201,
        )


def _registration_token(request: Request) -> str:
    if (sent := bearer_token(request)) is not None:
        if tokens.prefix_of(sent) != "wrk":
            raise refusal(sent)
        return sent
    token = request.data.get("token") if isinstance(request.data, dict) else None
    if not isinstance(token, str) or tokens.prefix_of(token) != "wrk":
        raise Unauthenticated(
            "The registration token (wrk_) is missing or malformed.",
            code=ErrorCode.UNAUTHENTICATED,
        )
    return token
