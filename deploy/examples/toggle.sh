#!/bin/sh
# Hands a toggle over to cekura-exporter, waits until its run is finished, and fails unless it
# completed in the expected state. Needs curl 7.76 or newer.
# Usage: toggle.sh URL NAME AGENT_ID PROGRESS_ID enabled|disabled [SECONDS]
set -eu
toggle=$1/api/v1/toggles/$2 id=$4 expect=$5 seconds=${6:-1800} end=$(($(date +%s) + ${6:-1800})) answer=
body="{\"agent_id\": $3, \"progress_id\": \"$id\", \"expect\": \"$expect\"}"
curl -sS --fail-with-body -m 10 --retry 5 --retry-connrefused --retry-max-time "$seconds" -X PUT -H content-type:application/json -d "$body" "$toggle" >&2
while left=$((end - $(date +%s))) && [ "$left" -gt 0 ]; do
    # Only this run is waited for. A lost connection and 503 mean: ask again.
    answer=$(curl -sS -m 70 -G -d "wait=$((left < 60 ? left : 60))s" --data-urlencode "progress_id=$id" -w ' %{http_code}' "$toggle") || answer=' 503'
    case $expect,$answer in
    enabled,*'"status":"completed",'*'"mock_enabled":true,'*' 200' | disabled,*'"status":"completed",'*'"mock_enabled":false,'*' 200') exit 0 ;;
    *'"status":"in_progress",'*' 200' | *'"status":"unknown",'*' 200') ;;
    *' 503') sleep 2 ;;
    *) break ;;
    esac
done
echo "toggle $2 did not complete with mocks $expect: $answer" >&2
exit 1
