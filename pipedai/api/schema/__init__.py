"""Makes the OpenAPI schema from the viewsets, the `@Operation` of each action, the serializers, and API.md.

The service makes it when it is first asked for GET /openapi.json; `manage.py spectacular` writes it to a file.
"""
