#!/bin/sh
# Enables the mocks of an agent, runs a command while they are on, and disables them, whatever comes
# of it. Each toggle is handed over to the exporter in a file of its slot, and waited for at its side.
# Fails if a toggle does not complete in the state that was asked for, or the command fails. Needs curl
# and setsid.
# Usage: mocked-tests.sh COMMAND [ARGUMENT...]
set -eu
: "${CEKURA_URL:?}" "${CEKURA_KEY_FILE:?}" "${AGENT_ID:?}" "${SLOT:?}" "${TEAM:?}"
toggles=${TOGGLES:-/toggles}
# For longer than CekuraToggleStuck waits, so that somebody is told of a toggle that is given up.
seconds=${TOGGLE_SECONDS:-2100}
# When the job is stopped, the tests have so long to end. The grace period of the pod is 90 s.
patience=${STOP_SECONDS:-20}
for number in "$seconds" "$patience"; do
    case $number in
    '' | *[!0-9]* | 0?*) echo "mocked-tests: '$number' is not a number of seconds" >&2; exit 1 ;;
    esac
done
for tool in curl setsid; do
    command -v "$tool" >/dev/null || { echo "mocked-tests: $tool is missing from this image" >&2; exit 1; }
done
api=$(printf %s "$CEKURA_URL" | sed 's:/*$::')
exporter=$(printf %s "${EXPORTER:-http://127.0.0.1:10058}" | sed 's:/*$::')

# Starts a toggle, hands it over, and waits. One that the API cannot start for a moment is asked for again.
# Usage: toggle true|false enabled|disabled
toggle() {
    slot=$SLOT-$2
    answer=$(printf 'header = "X-CEKURA-API-KEY: %s"\n' "$(cat "$CEKURA_KEY_FILE")" |
        curl -sS --fail-with-body -m 20 --retry 3 --retry-delay 2 --retry-connrefused -K - -H content-type:application/json -d "{\"enabled\": $1}" \
            "$api/test_framework/v2/aiagents/$AGENT_ID/toggle-mock-tools/") || return 1
    id=$(printf %s "$answer" | sed -n 's/.*"progress_id"[[:space:]]*:[[:space:]]*"\([^"\\]*\)".*/\1/p')
    [ -n "$id" ] || { echo "mocked-tests: no progress_id was answered" >&2; return 1; }
    # Written beside and renamed, so that nobody reads half of it.
    printf '{"name": "%s", "agent_id": %s, "progress_id": "%s", "expect": "%s", "labels": {"team": "%s"}}\n' \
        "$slot" "$AGENT_ID" "$id" "$2" "$TEAM" >"$toggles/.$slot" || return 1
    mv "$toggles/.$slot" "$toggles/$slot.json" || return 1

    end=$(($(date +%s) + seconds))
    while left=$((end - $(date +%s))) && [ "$left" -gt 0 ]; do
        # Not yet known: the exporter looks at the folder every two seconds. Another run: it has not
        # seen the new file yet. 429 and 5xx: it restarts, or a proxy before it is busy.
        answer=$(curl -sS -m 25 -G -d "wait=$((left < 15 ? left : 15))s" --data-urlencode "progress_id=$id" \
            -w ' %{http_code}' "$exporter/api/v1/toggles/$slot") || answer=' 000'
        case $1,$answer in
        *,*' 000' | *,*' 404' | *,*' 409' | *,*' 429' | *,*' 5'[0-9][0-9]) sleep 1 ;;
        *,*'"status":"in_progress",'*' 200' | *,*'"status":"unknown",'*' 200') ;;
        true,*'"status":"completed",'*'"mock_enabled":true,'*' 200') return 0 ;;
        false,*'"status":"completed",'*'"mock_enabled":false,'*' 200') return 0 ;;
        *) break ;;
        esac
    done
    echo "mocked-tests: toggle $slot did not complete with mocks $2: $answer" >&2
    return 1
}

# Ends what is left of the tests: nothing of them may meet the real tools. They have some time to end by
# themselves. Out of reach is what they started in a process group of its own.
stop() {
    for signal in TERM KILL; do
        reach "$signal" || return 0
        left=$patience
        while [ "$left" -gt 0 ] && reach 0; do
            sleep 1
            left=$((left - 1))
        done
    done
}

# Signals the tests: their group, or themselves as long as they have not made it. Fails if none is left.
# So written, dash, bash and busybox alike take it; with -s, there is none that they share for a group.
reach() {
    kill "-$1" "-$!" 2>/dev/null || kill "-$1" "$!" 2>/dev/null
}

# Whatever ends this script, a signal included, mocks are disabled, and not before the tests are over. A
# signal that comes as this begins calls it anew, so that no end is lost. Usage: finish CODE
finish() {
    trap '' TERM INT HUP QUIT
    trap - EXIT
    code=$1
    [ -z "${!:-}" ] || stop
    toggle false disabled || code=1
    exit "$code"
}
trap 'finish "$?"' EXIT
trap 'finish 143' TERM INT HUP QUIT

toggle true enabled
# Beside and waited for, because a shell hears no signal while it runs a command. In a group of their own,
# so that a signal finds all of them.
setsid "$@" &
wait "$!"
