#!/bin/sh
# Enables the mocks of an agent, runs a command while they are on, and disables them, whatever the result.
# Hands each run over to the exporter, and waits for it there. Fails if a run does not complete in the requested
# state, or the command fails. Needs curl and setsid.
#
# Usage: mocked-tests.sh COMMAND [ARGUMENT...]
#        mocked-tests.sh --disable   disables the mocks, unless MARKER is set and the file does not exist
#
# Variables:
#   CEKURA_URL       the URL of the Cekura API
#   CEKURA_KEY_FILE  a file that contains the key
#   CEKURA_KEY       the key; give this or the file
#   AGENT_ID         the id of the agent, a number
#   SLOT             the start of the names of the toggles, which are SLOT-enabled and SLOT-disabled
#   TEAM             the label team of the toggles
#   LIVE             true: fail unless the API then says that the mocks are in the requested state
#   MARKER           a file to create before the mocks are enabled, and to remove when they have been disabled
#   TOGGLE_SECONDS, STOP_SECONDS, LIVE_SECONDS   how long to wait; see below
#   EXPORTER         the URL of the exporter; default http://127.0.0.1:10058, the sidecar
#   EXPORTER_API     the API of the agent, by its name in the configuration of the exporter; default `default`
#   TOGGLES          the folder of the watch files by which runs and, with LIVE, the agent are handed over;
#                    default /toggles
#   REGISTER         true: register runs by HTTP instead, at an exporter that many jobs share
#   EXPORTER_USER    the user, if the exporter requires a login
#   EXPORTER_PASSWORD_FILE, EXPORTER_PASSWORD   a file that contains the password, or the password
#   EXPORTER_CA_FILE root certificates (PEM) to verify the certificate of the exporter with
set -eu
: "${CEKURA_URL:?}" "${AGENT_ID:?}" "${SLOT:?}" "${TEAM:?}"
toggles=${TOGGLES:-/toggles} marker=${MARKER:-}
# Longer than CekuraToggleStuck waits, so that the alert fires before the script gives up.
seconds=${TOGGLE_SECONDS:-2100}
# How long the tests may take to end when the job is stopped. The grace period of the pod is 90 s.
patience=${STOP_SECONDS:-20}
# How long the API may take to say that a toggle that completed has taken effect.
live_seconds=${LIVE_SECONDS:-120}
live=${LIVE:-false} registers=${REGISTER:-false}

# Ends the job before anything is toggled. Usage: misused TEXT
misused() {
    echo "mocked-tests: $1" >&2
    exit 1
}
for number in "$seconds" "$patience" "$live_seconds"; do
    case $number in '' | *[!0-9]* | 0?*) misused "'$number' is not a number of seconds" ;; esac
done
case $live in true | false) ;; *) misused "LIVE is '$live', and must be true or false" ;; esac
case $registers in true | false) ;; *) misused "REGISTER is '$registers', and must be true or false" ;; esac
case $AGENT_ID in *[!0-9]*) misused "AGENT_ID '$AGENT_ID' is not a number" ;; esac
case $SLOT in *[!A-Za-z0-9._-]*) misused "SLOT '$SLOT' has other characters than letters, digits, '.', '_' and '-'" ;; esac
[ "$#" -gt 0 ] || misused 'there is no command to run'
for tool in curl setsid; do
    command -v "$tool" >/dev/null || misused "$tool is missing from this image"
done
api=$(printf %s "$CEKURA_URL" | sed 's:/*$::')
exporter=$(printf %s "${EXPORTER:-http://127.0.0.1:10058}" | sed 's:/*$::') exporter_api=${EXPORTER_API:-default}

# A trace would show the key and the password, and the tests need neither.
{ set +x; } 2>/dev/null
key=${CEKURA_KEY:-} password=${EXPORTER_PASSWORD:-}
unset CEKURA_KEY EXPORTER_PASSWORD
[ -n "$key" ] || [ -r "${CEKURA_KEY_FILE:-}" ] || misused 'there is no key: set CEKURA_KEY_FILE or CEKURA_KEY'
for file in "${EXPORTER_PASSWORD_FILE:-}" "${EXPORTER_CA_FILE:-}"; do
    [ -z "$file" ] || [ -r "$file" ] || misused "the file '$file' cannot be read"
done

# Escapes text for a string in JSON or in a configuration of curl.
escaped() {
    printf %s "$1" | sed 's/[\\"]/\\&/g'
}

# Prints the configuration of curl for requests to Cekura, and to the exporter. It is not in the arguments, because
# the process list shows those. Files are read for each request, because keys are replaced while tests run.
cekura_access() {
    [ -n "$key" ] || key_now=$(cat "$CEKURA_KEY_FILE")
    printf 'header = "X-CEKURA-API-KEY: %s"\n' "$(escaped "${key:-$key_now}")"
}
exporter_access() {
    [ -z "${EXPORTER_CA_FILE:-}" ] || printf 'cacert = "%s"\n' "$(escaped "$EXPORTER_CA_FILE")"
    [ -n "${EXPORTER_USER:-}" ] || return 0
    [ -z "${EXPORTER_PASSWORD_FILE:-}" ] || password=$(cat "$EXPORTER_PASSWORD_FILE")
    printf 'user = "%s"\n' "$(escaped "$EXPORTER_USER:$password")"
}

# Sends a request to the exporter. Sets `answer` to what came, a space and the HTTP status, which is 000 if there
# was no answer. Usage: ask PATH SECONDS CURL_ARGUMENT...
ask() {
    path=$1 limit=$2
    shift 2
    answer=$(exporter_access | curl -sS -m "$limit" -K - -w ' %{http_code}' "$@" "$exporter/api/v1/$path" 2>&1) || answer="$answer 000"
}

# Writes a watch file under another name and renames it, so that nobody reads half of it. Usage: hand_over NAME TEXT
hand_over() {
    printf '%s\n' "$2" >"$toggles/.$1" && mv "$toggles/.$1" "$toggles/$1.json"
}

# Registers a run. Usage: register NAME JSON
register() {
    answer=''
    while [ "$(date +%s)" -lt "$end" ]; do
        ask "toggles/$1" 20 -X PUT -H content-type:application/json -d "$2"
        case $answer in
        *' 200' | *' 201') return 0 ;;
        *' 000' | *' 429' | *' 5'[0-9][0-9]) sleep 1 ;;
        *) break ;;
        esac
    done
    echo "mocked-tests: the exporter did not register toggle $1: $answer" >&2
    return 1
}

# Prints the fields that say whose a run is.
entry() {
    printf '"agent_id": %s, "api": "%s", "labels": {"team": "%s"}' "$AGENT_ID" "$(escaped "$exporter_api")" "$(escaped "$TEAM")"
}

# Starts a task, hands it over, and waits. Retries if the API fails temporarily.
# Usage: toggle true|false enabled|disabled
toggle() {
    slot=$SLOT-$2
    if ! answer=$(cekura_access | curl -sS --fail-with-body -m 20 --retry 3 --retry-delay 2 --retry-connrefused -K - \
        -H content-type:application/json -d "{\"enabled\": $1}" "$api/test_framework/v2/aiagents/$AGENT_ID/toggle-mock-tools/"); then
        echo "mocked-tests: the API did not start toggle $slot: $answer" >&2
        return 1
    fi
    id=$(printf %s "$answer" | sed -n 's/.*"progress_id"[[:space:]]*:[[:space:]]*"\([^"\\]*\)".*/\1/p')
    [ -n "$id" ] || { echo "mocked-tests: no progress_id was answered" >&2; return 1; }
    end=$(($(date +%s) + seconds))
    run="$(entry), \"progress_id\": \"$id\", \"expect\": \"$2\""
    if [ "$registers" = true ]; then
        register "$slot" "{$run}" || return 1
    else
        hand_over "$slot" "{$run, \"name\": \"$slot\"}" || return 1
    fi

    while left=$((end - $(date +%s))) && [ "$left" -gt 0 ]; do
        ask "toggles/$slot" 25 -G -d "wait=$((left < 15 ? left : 15))s" --data-urlencode "progress_id=$id"
        case $1,$registers,$answer in
        # 404: the exporter, which checks the folder every two seconds, does not know the toggle yet. 409: it
        # has not read the new file yet. 429 and 5xx: it is restarting, or a proxy in front of it is busy.
        *' 000' | *,false,*' 404' | *,false,*' 409' | *' 429' | *' 5'[0-9][0-9]) sleep 1 ;;
        *'"status":"in_progress",'*' 200' | *'"status":"unknown",'*' 200') ;;
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
        ask "agents/$exporter_api/$AGENT_ID" 25 -G -d "wait=${step}s" -d "live=$2"
        case $registers,$answer in
        # 404 and 409: the exporter has not read the file of the agent yet.
        *' 000' | false,*' 404' | false,*' 409' | *' 429' | *' 5'[0-9][0-9]) sleep 1 ;;
        # When the time to wait is over, what it says may be older than the toggle.
        *"\"mocks_live\":$1,"*' 200') [ $(($(date +%s) - asked)) -ge "$step" ] || return 0 ;;
        *' 200') ;;
        *) break ;;
        esac
    done
    echo "mocked-tests: toggle $slot completed, but the API did not confirm that mocks are $2: $answer" >&2
    echo "mocked-tests: if the API has no mock status, or the agent is of the provider custom, set LIVE to false" >&2
    [ "$registers" = false ] || echo "mocked-tests: if the exporter does not ask for the agent, list it under \`agents\` in its configuration" >&2
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

# Disables the mocks.
disable() {
    toggle false disabled || return 1
    [ -z "$marker" ] || rm -f "$marker"
}

# Whatever ends this script, including a signal, the mocks are disabled after the tests have ended. A signal
# at the beginning of this function calls it again, so that none is lost. Usage: finish CODE
finish() {
    trap '' TERM INT HUP QUIT
    trap - EXIT
    code=$1
    [ -z "${!:-}" ] || stop
    disable || code=1
    exit "$code"
}

if [ "$1" = --disable ]; then
    [ -z "$marker" ] || [ -e "$marker" ] || exit 0
    disable
    exit
fi
if [ "$registers" = true ]; then
    # An exporter that cannot be reached could not say how a run ends.
    ask status 20 --retry 3 --retry-delay 3 --retry-connrefused
    case $answer in *' 200') ;; *) misused "the exporter does not answer at $exporter: $answer" ;; esac
elif [ "$live" = true ]; then
    hand_over "$SLOT-agent" "{$(entry)}"
fi
[ -z "$marker" ] || : >"$marker"
trap 'finish "$?"' EXIT
trap 'finish 143' TERM INT HUP QUIT

toggle true enabled
# In the background, because a shell handles no signal while it runs a command. In a process group of their
# own, so that a signal reaches all of them.
setsid "$@" &
wait "$!"
