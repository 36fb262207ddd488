"""Makes the OpenAPI schema from the viewsets, each `@Operation`, the serializers, and API.md."""
