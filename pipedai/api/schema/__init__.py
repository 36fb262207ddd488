"""Makes the OpenAPI schema from the viewsets, the `@Operation` of each action, the serializers, and API.md.

`manage.py spectacular` writes the schema to docs/openapi.json (CONTRIBUTING.md has the command), and the service serves
that file.
"""
