"""Says that no scheduler has an answer yet, so that the server asks the view again (pipedai/server/long_poll.py)."""

from uuid import UUID

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Unavailable
from pipedai.server.ticket import ASKING
from workspaces.connections import authorizing
from workspaces.models import Connection, Environment


def still_asking(*, connection_id: UUID, session_id: UUID) -> Unavailable:
    """Returns the answer for now. Only a caller for whom nobody asks the view again sees it, or who has waited in vain:
    then nothing more is done for them, unless a scheduler has begun.
    """
    sentence = "The server is being asked. Try again in a moment."
    if ticket := ASKING.get():
        ticket.waits = True
        if ticket.workspace_id is None:
            its = Connection.objects.filter(id=connection_id).values("environment_id")
            rows = Environment.objects.filter(id__in=its)
            ticket.workspace_id = rows.values_list("workspace_id", flat=True).first()
        if ticket.is_last:
            given_up = authorizing.withdraw(connection_id=connection_id, session_id=session_id)
            sentence = (
                "No scheduler of this service has asked the server in time. Nothing was changed. Try again in a moment."
                if given_up
                else "The server has not answered in time. Look at the connection in a moment."
            )
    return Unavailable(sentence, code=ErrorCode.STILL_ASKING)
