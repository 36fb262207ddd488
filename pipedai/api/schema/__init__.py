"""Makes the OpenAPI schema of what the viewsets declare, the `@Operation` of each action, the serializers, and API.md.

`manage.py spectacular` writes it to docs/openapi.json (CONTRIBUTING.md has the command); the service serves that file.
"""
