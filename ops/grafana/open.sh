#!/usr/bin/env bash
# Open Grafana's overview in a browser, or say where it is.
set -euo pipefail
cd "$(dirname "$0")/../.."

[ -f .env ] && port=$(sed -n 's/^SLUICE_GRAFANA_PORT=//p' .env)
port=${SLUICE_GRAFANA_PORT:-${port:-3030}}
url="http://127.0.0.1:$port/d/sluice-overview"
echo "dash: $url"
if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
  echo "dash: nothing listens there; start it with: docker compose up --wait" >&2
  exit 1
fi
for opener in xdg-open open; do
  command -v "$opener" >/dev/null 2>&1 && exec "$opener" "$url" >/dev/null 2>&1
done
exit 0
