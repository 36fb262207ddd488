# What the image of the worker runs: the first start registers it, and every start executes runs. The registration stays in
# the volume at $HOME, so the token is needed once.
set -eu
config=$HOME/worker.json
mkdir -p "$TMPDIR"
test -e "$config" || python -m pipedai_worker register --config "$config" --api-url "$PIPEDAI_API_URL"
exec python -m pipedai_worker run --config "$config"
