#!/bin/sh
# Enables the mocks of an agent, runs a command while they are on, and disables them, whatever the result.
# Hands each run over to the exporter, and waits for it there. Fails if a run does not complete in the requested
# state, or the command fails. Needs curl and setsid.
#
# Usage: mocked-tests.sh [--] COMMAND [ARGUMENT...]
#        mocked-tests.sh --disable   disables the mocks, unless MARKER is set and the file does not exist
#        mocked-tests.sh --help
#
# Variables:
#   CEKURA_URL       the URL of the Cekura API
#   CEKURA_KEY_FILE  a file that contains the key
#   CEKURA_KEY       the key; give this or the file
#   AGENT_ID         the id of the agent, a number above 0
#   SLOT             the start of the names of the toggles, which are SLOT-enabled and SLOT-disabled; at most 119
#                    characters
#   TEAM             the label team of the toggles
#   LIVE             true: fail unless the API then says that the mocks are in the requested state
#   MARKER           a file to create before the mocks are enabled, and to remove when they have been disabled
#   TOGGLE_SECONDS, STOP_SECONDS, LIVE_SECONDS, SETTLE_SECONDS   how long to wait; see below
#   EXPORTER         the URL of the exporter; default http://127.0.0.1:10058, the sidecar
#   EXPORTER_API     the API of the agent, by its name in the configuration of the exporter; default `default`
#   TOGGLES          the folder of the watch files by which runs and, with LIVE, the agent are handed over;
#                    default /toggles
#   REGISTER         true: register runs by HTTP instead, at an exporter that many jobs share
#   EXPORTER_USER    the user, if the exporter requires a login
#   EXPORTER_PASSWORD_FILE, EXPORTER_PASSWORD   a file that contains the password, or the password
#   EXPORTER_CA_FILE root certificates (PEM) to verify the certificate of the exporter with
set -eu
# A trace would show the key and the password.
{ set +x; } 2>/dev/null
# A write to a closed pipe must not end this script while mocks are on. Programs that it starts do not inherit this.
trap : PIPE

# Prints a message without the secrets. Usage: say TEXT
say() {
    text=$1
    for secret in "${key:-}" "${key_now:-}" "${password:-}"; do
        clean=''
        while [ -n "$secret" ]; do
            case $text in *"$secret"*) ;; *) break ;; esac
            clean="$clean${text%%"$secret"*}<secret>" text=${text#*"$secret"}
        done
        text=$clean$text
    done
    printf 'mocked-tests: %s\n' "$text" >&2 || :
}

# Ends the job before anything is toggled. Usage: misused TEXT [CODE]
misused() {
    say "$1"
    exit "${2:-1}"
}

disables=false
case ${1:-} in
'') misused 'there is no command to run' ;;
--help)
    echo 'Usage: mocked-tests.sh [--] COMMAND [ARGUMENT...]   runs a command while the mocks of an agent are on'
    echo '       mocked-tests.sh --disable                    disables the mocks, unless the file MARKER does not exist'
    echo 'The comments at the top of this script list the variables that it needs.'
    exit
    ;;
--disable)
    [ "$#" -eq 1 ] || misused '--disable takes no arguments' 2
    disables=true
    ;;
--)
    shift
    [ "$#" -gt 0 ] || misused 'there is no command to run'
    ;;
-*) misused "there is no option '$1'" 2 ;;
esac

: "${CEKURA_URL:?}" "${AGENT_ID:?}" "${SLOT:?}" "${TEAM:?}"
toggles=${TOGGLES:-/toggles} marker=${MARKER:-}
# Longer than CekuraToggleStuck waits, so that the alert fires before the script gives up.
seconds=${TOGGLE_SECONDS:-2100}
# How long the tests may take to end when the job is stopped. The grace period of the pod is 90 s.
patience=${STOP_SECONDS:-20}
# How long the API may take to say that a toggle that completed has taken effect.
live_seconds=${LIVE_SECONDS:-120}
# How long after its request an enabling whose end is unknown may still take effect. A request may take 20 s. The
# mocks are disabled again after that, within the grace period of the pod.
settle_seconds=${SETTLE_SECONDS:-60}
# How long an exporter that is restarting may refuse to register a run.
register_seconds=300
live=${LIVE:-false} registers=${REGISTER:-false}

for number in "$seconds" "$live_seconds" "1$patience" "1$settle_seconds"; do
    case $number in 0* | '' | 1 | *[!0-9]* | ?????????*) misused "'${number#1}' is not a number of seconds" ;; esac
done
case $live in true | false) ;; *) misused "LIVE is '$live', and must be true or false" ;; esac
case $registers in true | false) ;; *) misused "REGISTER is '$registers', and must be true or false" ;; esac
case $AGENT_ID in 0* | *[!0-9]*) misused "AGENT_ID '$AGENT_ID' is not a number above 0 without leading zeros" ;; esac
case $SLOT in
[!A-Za-z0-9]*) misused "SLOT '$SLOT' does not start with a letter or a digit" ;;
*[!A-Za-z0-9._-]*) misused "SLOT '$SLOT' has other characters than letters, digits, '.', '_' and '-'" ;;
esac
[ "${#SLOT}" -le 119 ] || misused "SLOT '$SLOT' is longer than 119 characters"
case $TEAM in *[[:cntrl:]]*) misused 'TEAM has control characters' ;; esac
exporter_api=${EXPORTER_API:-default}
case $exporter_api in _* | *[!a-z0-9_]*) misused "EXPORTER_API '$exporter_api' is not the name of an API" ;; esac
for tool in curl setsid; do
    command -v "$tool" >/dev/null || misused "$tool is missing from this image"
done
api=$(printf %s "$CEKURA_URL" | sed 's:/*$::')
exporter=$(printf %s "${EXPORTER:-http://127.0.0.1:10058}" | sed 's:/*$::')
for url in "$api" "$exporter"; do
    host=${url#*://}
    case ${host%%/*} in *@*) misused 'a URL must not contain a login; use EXPORTER_USER and EXPORTER_PASSWORD_FILE' ;; esac
    case $url in http://?* | https://?*) ;; *) misused "'$url' is not an http:// or https:// URL" ;; esac
done
if [ "$registers" = false ]; then
    [ -d "$toggles" ] || misused "the folder '$toggles' is missing"
    [ -w "$toggles" ] || misused "the folder '$toggles' cannot be written to"
fi

# The tests need neither the key nor the password.
key=${CEKURA_KEY:-} password=${EXPORTER_PASSWORD:-}
unset CEKURA_KEY EXPORTER_PASSWORD
[ -n "$key" ] || [ -r "${CEKURA_KEY_FILE:-}" ] || misused 'there is no key: set CEKURA_KEY_FILE or CEKURA_KEY'
for file in "${EXPORTER_PASSWORD_FILE:-}" "${EXPORTER_CA_FILE:-}"; do
    [ -z "$file" ] || [ -r "$file" ] || misused "the file '$file' cannot be read"
done

# Reads the files of the secrets again, because keys are replaced while tests run.
read_secrets() {
    key_now=$key
    [ -n "$key" ] || key_now=$(cat "$CEKURA_KEY_FILE" 2>/dev/null) || key_now=''
    [ -z "${EXPORTER_PASSWORD_FILE:-}" ] || password=$(cat "$EXPORTER_PASSWORD_FILE" 2>/dev/null) || password=''
}
read_secrets
case $key_now in '' | *[[:cntrl:]]*) misused 'the key is empty, or has more than one line or control characters' ;; esac
case $password in *[[:cntrl:]]*) misused 'the password has more than one line or control characters' ;; esac

# Escapes text for a string in JSON or in a configuration of curl.
escaped() {
    printf %s "$1" | sed 's/[\\"]/\\&/g'
}

# Prints the configuration of curl for requests to Cekura, and to the exporter. It is not in the arguments, because
# the process list shows those.
cekura_access() {
    printf 'header = "X-CEKURA-API-KEY: %s"\n' "$(escaped "$key_now")"
}
exporter_access() {
    [ -z "${EXPORTER_CA_FILE:-}" ] || printf 'cacert = "%s"\n' "$(escaped "$EXPORTER_CA_FILE")"
    [ -z "${EXPORTER_USER:-}" ] || printf 'user = "%s"\n' "$(escaped "$EXPORTER_USER:$password")"
}

# Sends a request to the exporter. Sets `answer` to what came, a space and the HTTP status, which is 000 if there
# was no answer. Usage: ask PATH SECONDS CURL_ARGUMENT...
ask() {
    path=$1 limit=$2
    shift 2
    read_secrets
    answer=$(exporter_access | curl -q -sS -m "$limit" -K - -w ' %{http_code}' "$@" "$exporter/api/v1/$path" 2>&1) || answer="$answer 000"
}

# Writes a watch file under another name and renames it, so that nobody reads half of it. Usage: hand_over NAME TEXT
hand_over() {
    printf '%s\n' "$2" >"$toggles/.$1" && mv "$toggles/.$1" "$toggles/$1.json"
}

# Registers a run. Retries only what may pass. Usage: register NAME JSON
register() {
    answer='' latest=$(($(date +%s) + register_seconds))
    [ "$latest" -lt "$end" ] || latest=$end
    while [ "$(date +%s)" -lt "$latest" ]; do
        ask "toggles/$1" 20 -X PUT -H content-type:application/json -d "$2"
        case $answer in
        *' 200' | *' 201') return 0 ;;
        *' 000' | *' 408' | *' 429' | *' 50'[0234]) sleep 1 ;;
        *) break ;;
        esac
    done
    say "the exporter did not register toggle $1: $answer"
    return 1
}

# Prints the fields that say whose a run is.
entry() {
    printf '"agent_id": %s, "api": "%s", "labels": {"team": "%s"}' "$AGENT_ID" "$(escaped "$exporter_api")" "$(escaped "$TEAM")"
}

# Notes until when an enabling may still take effect: in `settled`, and in the marker for `--disable`, should this
# script be killed. Usage: note TIME
settled=0
note() {
    settled=$1
    [ -z "$marker" ] || printf '%s\n' "$1" >"$marker" || :
}
# Until when a request to enable that was not answered may take effect, and whether a request or a task is enabling.
unanswered=0 enabling=false
ended() {
    enabling=false
    note "$unanswered"
}

# Asks the API up to four times to start a task. Sets `answer` as `ask` does. Usage: start true|false
start() {
    for pause in 2 2 2 0; do
        if [ "$1" = true ]; then
            enabling=true
            note $(($(date +%s) + 20 + settle_seconds))
        fi
        read_secrets
        answer=$(
            # A signal to the process group, such as Ctrl-C, must not cut the request off.
            trap '' TERM INT HUP QUIT USR1 USR2 ALRM
            cekura_access | curl -q -sS -m 20 -K - -w ' %{http_code}' -H content-type:application/json \
                -d "{\"enabled\": $1}" "$api/test_framework/v2/aiagents/$AGENT_ID/toggle-mock-tools/" 2>&1
        ) || answer="$answer 000"
        case $1,$answer in
        false,* | *' 2'[0-9][0-9]) ;;
        # The API refused. After any other answer, or none, a task may run all the same.
        *' 4'[0-9][0-9]) ended ;;
        *)
            unanswered=$(($(date +%s) + settle_seconds))
            ended
            ;;
        esac
        case $answer in
        *' 000' | *' 408' | *' 429' | *' 50'[0234]) sleep "$pause" ;;
        *' 2'[0-9][0-9]) return 0 ;;
        *) return 1 ;;
        esac
    done
    return 1
}

# Starts a task, hands it over, and waits. Usage: toggle true|false enabled|disabled
toggle() {
    slot=$SLOT-$2
    start "$1" || { say "the API did not start toggle $slot: $answer"; return 1; }
    id=$(printf %s "$answer" | sed -n 's/.*"progress_id"[[:space:]]*:[[:space:]]*"\([^"\\]*\)".*/\1/p')
    [ -n "$id" ] || { say 'no progress_id was answered'; return 1; }
    end=$(($(date +%s) + seconds))
    run="$(entry), \"progress_id\": \"$id\", \"expect\": \"$2\""
    if [ "$registers" = true ]; then
        register "$slot" "{$run}" || return 1
    else
        hand_over "$slot" "{$run, \"name\": \"$slot\"}" || return 1
    fi

    while left=$((end - $(date +%s))) && [ "$left" -gt 0 ]; do
        ask "toggles/$slot" 25 -G -d "wait=$((left < 15 ? left : 15))s" --data-urlencode "progress_id=$id"
        case $1,$answer in
        true,*'"status":"completed",'*' 200' | true,*'"status":"failed",'*' 200') ended ;;
        esac
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
    say "toggle $slot did not complete with mocks $2: $answer"
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
    say "toggle $slot completed, but the API did not confirm that mocks are $2: $answer"
    say "if the API has no mock status, or the agent is of the provider custom, set LIVE to false"
    [ "$registers" = false ] || say "if the exporter does not ask for the agent, list it under \`agents\` in its configuration"
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

# Disables the mocks. If an enabling may still take effect, disables them at once, and again when that time is over.
disable() {
    [ "$enabling" = false ] || note $(($(date +%s) + settle_seconds))
    failed=0 early=$(($(date +%s) <= settled))
    toggle false disabled || failed=1
    if [ "$early" = 1 ]; then
        left=$((settled - $(date +%s) + 1))
        say "mocks are disabled once more, because it is not known whether enabling them has ended"
        [ "$left" -le 0 ] || sleep "$left"
        failed=0
        toggle false disabled || failed=1
    fi
    [ "$failed" = 1 ] || [ -z "$marker" ] || rm -f "$marker"
    return "$failed"
}

# Whatever ends this script, including a signal, the mocks are disabled after the tests have ended. A signal
# at the beginning of this function calls it again, so that none is lost. Usage: finish CODE
finish() {
    trap '' TERM INT HUP QUIT USR1 USR2 ALRM PIPE
    trap - EXIT
    code=$1
    [ -z "${!:-}" ] || stop
    disable || code=1
    exit "$code"
}

# Ends the job unless the exporter answers and, if runs are registered, would register these.
check_exporter() {
    ask status 20 --retry 3 --retry-delay 3 --retry-connrefused
    case $answer in *' 200') ;; *) misused "the exporter does not answer at $exporter: $answer" ;; esac
    [ "$registers" = true ] || return 0
    # Without a progress_id, the exporter registers nothing, and lists that and every other problem.
    ask "toggles/$SLOT-enabled" 20 --retry 3 --retry-delay 3 -X PUT -H content-type:application/json -d "{$(entry)}"
    case $answer in
    *'"problems":['*'","'*' 400') ;;
    *'"problems":['*progress_id*' 400') answer='' ;;
    esac
    [ -z "$answer" ] || misused "the exporter does not take registrations of this agent: $answer"
    for name in "$SLOT-enabled" "$SLOT-disabled"; do
        ask "toggles/$name" 20
        case $answer in *,'"source":"config",'* | *,'"source":"file",'*) misused "another source of the exporter has toggle $name" ;; esac
    done
}

if [ "$disables" = true ]; then
    [ -z "$marker" ] || [ -e "$marker" ] || exit 0
    [ -z "$marker" ] || settled=$(cat "$marker")
    case $settled in '' | 0?* | *[!0-9]* | ????????????*) settled=0 ;; esac
else
    check_exporter
fi
if [ "$registers" = false ] && [ "$live" = true ]; then
    hand_over "$SLOT-agent" "{$(entry)}"
fi
if [ "$disables" = true ]; then
    disable
    exit
fi
[ -z "$marker" ] || printf '0\n' >"$marker" || misused "the file '$marker' cannot be written"
trap 'finish "$?"' EXIT
trap 'finish 143' TERM INT HUP QUIT USR1 USR2 ALRM

toggle true enabled
# In the background, because a shell handles no signal while it runs a command. In a process group of their
# own, so that a signal reaches all of them.
setsid -- "$@" &
wait "$!"
