#!/bin/sh
# Plays claude for the check does-a-run alone, in a tenth of the time of the stand-in: it notes its process's id in the
# file that the prompt names, and succeeds.
echo $$ >> "$(sed -n 's/^standin: note //p')"
echo '{"type": "result", "subtype": "success", "is_error": false, "result": "Done."}'
