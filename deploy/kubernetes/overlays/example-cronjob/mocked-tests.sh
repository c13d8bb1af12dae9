#!/bin/sh
# Enables the mocks of an agent, runs a command while they are on, and disables them, whatever the result.
# Hands each run over to the exporter in a watch file, and waits for it there. Fails if a run does not
# complete in the requested state, or the command fails. With LIVE=true, it also hands over the agent, and fails
# unless the API then says that mocks are in the requested state. Needs curl and setsid.
# Usage: mocked-tests.sh COMMAND [ARGUMENT...]
set -eu
: "${CEKURA_URL:?}" "${CEKURA_KEY_FILE:?}" "${AGENT_ID:?}" "${SLOT:?}" "${TEAM:?}"
toggles=${TOGGLES:-/toggles}
# Longer than CekuraToggleStuck waits, so that the alert fires before the script gives up.
seconds=${TOGGLE_SECONDS:-2100}
# How long the tests may take to end when the job is stopped. The grace period of the pod is 90 s.
patience=${STOP_SECONDS:-20}
# How long the API may take to say that a toggle that completed has taken effect.
live_seconds=${LIVE_SECONDS:-120}
for number in "$seconds" "$patience" "$live_seconds"; do
    case $number in
    '' | *[!0-9]* | 0?*) echo "mocked-tests: '$number' is not a number of seconds" >&2; exit 1 ;;
    esac
done
live=${LIVE:-false}
case $live in
true | false) ;;
*) echo "mocked-tests: LIVE is '$live', and must be true or false" >&2; exit 1 ;;
esac
for tool in curl setsid; do
    command -v "$tool" >/dev/null || { echo "mocked-tests: $tool is missing from this image" >&2; exit 1; }
done
api=$(printf %s "$CEKURA_URL" | sed 's:/*$::')
exporter=$(printf %s "${EXPORTER:-http://127.0.0.1:10058}" | sed 's:/*$::')

# Writes a watch file under another name and renames it, so that nobody reads half of it. Usage: hand_over NAME TEXT
hand_over() {
    printf '%s\n' "$2" >"$toggles/.$1" && mv "$toggles/.$1" "$toggles/$1.json"
}

# Starts a task, hands it over, and waits. Retries if the API fails temporarily.
# Usage: toggle true|false enabled|disabled
toggle() {
    slot=$SLOT-$2
    answer=$(printf 'header = "X-CEKURA-API-KEY: %s"\n' "$(cat "$CEKURA_KEY_FILE")" |
        curl -sS --fail-with-body -m 20 --retry 3 --retry-delay 2 --retry-connrefused -K - -H content-type:application/json -d "{\"enabled\": $1}" \
            "$api/test_framework/v2/aiagents/$AGENT_ID/toggle-mock-tools/") || return 1
    id=$(printf %s "$answer" | sed -n 's/.*"progress_id"[[:space:]]*:[[:space:]]*"\([^"\\]*\)".*/\1/p')
    [ -n "$id" ] || { echo "mocked-tests: no progress_id was answered" >&2; return 1; }
    hand_over "$slot" "$(printf '{"name": "%s", "agent_id": %s, "progress_id": "%s", "expect": "%s", "labels": {"team": "%s"}}' \
        "$slot" "$AGENT_ID" "$id" "$2" "$TEAM")" || return 1

    end=$(($(date +%s) + seconds))
    while left=$((end - $(date +%s))) && [ "$left" -gt 0 ]; do
        # 404: the exporter, which checks the folder every two seconds, does not know the toggle yet. 409: it
        # has not read the new file yet. 429 and 5xx: it is restarting, or a proxy in front of it is busy.
        answer=$(curl -sS -m 25 -G -d "wait=$((left < 15 ? left : 15))s" --data-urlencode "progress_id=$id" \
            -w ' %{http_code}' "$exporter/api/v1/toggles/$slot") || answer=' 000'
        case $1,$answer in
        *,*' 000' | *,*' 404' | *,*' 409' | *,*' 429' | *,*' 5'[0-9][0-9]) sleep 1 ;;
        *,*'"status":"in_progress",'*' 200' | *,*'"status":"unknown",'*' 200') ;;
        true,*'"status":"completed",'*'"mock_enabled":true,'*' 200') confirm "$@" || return 1; return 0 ;;
        false,*'"status":"completed",'*'"mock_enabled":false,'*' 200') confirm "$@" || return 1; return 0 ;;
        *) break ;;
        esac
    done
    echo "mocked-tests: toggle $slot did not complete with mocks $2: $answer" >&2
    return 1
}

# Waits until the API says that the toggle has taken effect. Usage: confirm true|false enabled|disabled
confirm() {
    [ "$live" = true ] || return 0
    answer='' end=$(($(date +%s) + live_seconds))
    while left=$((end - $(date +%s))) && [ "$left" -gt 0 ]; do
        step=$((left < 15 ? left : 15)) asked=$(date +%s)
        # 404 and 409: the exporter has not read the file of the agent yet.
        answer=$(curl -sS -m 25 -G -d "wait=${step}s" -d "live=$2" -w ' %{http_code}' \
            "$exporter/api/v1/agents/default/$AGENT_ID") || answer=' 000'
        case $answer in
        *' 000' | *' 404' | *' 409' | *' 429' | *' 5'[0-9][0-9]) sleep 1 ;;
        # When the time to wait is over, what it says may be older than the toggle.
        *"\"mocks_live\":$1,"*' 200') [ $(($(date +%s) - asked)) -ge "$step" ] || return 0 ;;
        *' 200') ;;
        *) break ;;
        esac
    done
    echo "mocked-tests: toggle $slot completed, but the API did not confirm that mocks are $2: $answer" >&2
    echo "mocked-tests: if the API has no mock status, or the agent is of the provider custom, set LIVE to false" >&2
    return 1
}

# Ends what is left of the tests, so that none of them uses the real tools. They have some time to end by
# themselves. Processes that they started in another process group are not reached.
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

# Sends a signal to the process group of the tests, or to the process itself until the group exists. Fails if
# none is left. dash, bash and busybox all accept this form; with -s, they share no form for a group.
reach() {
    kill "-$1" "-$!" 2>/dev/null || kill "-$1" "$!" 2>/dev/null
}

# Whatever ends this script, including a signal, the mocks are disabled after the tests have ended. A signal
# at the beginning of this function calls it again, so that none is lost. Usage: finish CODE
finish() {
    trap '' TERM INT HUP QUIT
    trap - EXIT
    code=$1
    [ -z "${!:-}" ] || stop
    toggle false disabled || code=1
    exit "$code"
}
[ "$live" = false ] || hand_over "$SLOT-agent" "$(printf '{"agent_id": %s, "labels": {"team": "%s"}}' "$AGENT_ID" "$TEAM")"
trap 'finish "$?"' EXIT
trap 'finish 143' TERM INT HUP QUIT

toggle true enabled
# In the background, because a shell handles no signal while it runs a command. In a process group of their
# own, so that a signal reaches all of them.
setsid "$@" &
wait "$!"
