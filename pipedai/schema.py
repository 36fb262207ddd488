"""Describes the endpoints of the `pipedai` app for the OpenAPI schema."""

from typing import Any

from rest_framework import serializers

from pipedai.api.health import HealthViewSet
from pipedai.api.openapi import OpenApiViewSet
from pipedai.api.schema.operation import Operation, describe

HEALTHY = ("ok",)


class HealthSerializer(serializers.Serializer[Any]):
    """Alive."""

    status = serializers.ChoiceField(choices=HEALTHY)


class OpenApiSerializer(serializers.Serializer[Any]):
    """This document."""

    openapi = serializers.CharField()
    info = serializers.DictField()
    paths = serializers.DictField()


describe(
    HealthViewSet,
    "Service",
    retrieve=Operation(
        id="getHealth",
        summary="Do the process and its database answer?",
        answers={200: HealthSerializer},
        says={200: '`{ "status": "ok" }` when the process and its database answer.'},
        errors={503: ""},
    ),
    live=Operation(
        id="getLiveness",
        summary="Does the process answer?",
        answers={200: HealthSerializer},
        says={
            200: (
                '`{ "status": "ok" }` when the process answers; neither the database nor a thread is '
                "asked, so it is answered also while all threads are busy."
            ),
        },
    ),
)
describe(
    OpenApiViewSet,
    "Service",
    retrieve=Operation(
        id="getOpenApi",
        summary="This document",
        answers={200: OpenApiSerializer},
        says={200: "With this reference as an OpenAPI 3.1 document."},
    ),
)
