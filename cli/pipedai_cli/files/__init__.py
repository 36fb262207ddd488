"""`pipedai.yaml` and the prompts beside it: read into resources of the API, and written from an export."""
