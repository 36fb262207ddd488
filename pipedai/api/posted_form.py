"""Lets what reads an API request (throttles, the check of the origin) read a form that a page of ours posts."""

from typing import Any

from rest_framework.request import Request


class PostedForm(Request):
    """`data` is what the page's view reads of the form: `request.POST`, as Django parsed it, whatever its encoding.

    DRF would parse the body a second time, by rules of its own, and a throttle would count another field than the one
    that is looked up.
    """

    @property
    def data(self) -> Any:
        """The form's fields; of a field that is there twice, the last counts, as in `request.POST`."""
        return self._request.POST
