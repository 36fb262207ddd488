"""Base serializers: strict bodies for configuration, tolerant ones for the machine protocol (SPEC §2)."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request

from pipedai.api.errors import Invalid


class Body(serializers.Serializer[Any]):
    """A request body that ignores unknown fields, so that newer and older workers interoperate."""


class StrictBody(Body):
    """A request body in which an unknown field is an error, so that a typo is seen."""

    def to_internal_value(self, data: Any) -> Any:
        """The validated values; raises for unknown and for invalid fields together."""
        errors: dict[str, Any] = {}
        try:
            values = super().to_internal_value(data)
        except serializers.ValidationError as error:
            errors = dict(error.detail) if isinstance(error.detail, dict) else {}
            values = {}
        errors |= {name: ["Unknown field."] for name in data if name not in self.fields}
        if errors:
            raise serializers.ValidationError(errors)
        return values


def read_body(serializer: type[Body], request: Request, **kwargs: Any) -> dict[str, Any]:
    """The validated values of the request's body, by their attribute (snake_case) names. Raises for a bad body."""
    if not isinstance(request.data, dict):
        raise Invalid(form=["The body must be a JSON object."])
    body = serializer(data=request.data, **kwargs)
    body.is_valid(raise_exception=True)
    return dict(body.validated_data)
