#!/bin/sh
# Registers a toggle with cekura-exporter, waits until its run is finished, and fails unless it
# completed in the expected state. With --live, it then waits until the API itself says that mocks are in
# that state. `toggle.sh --help` lists the arguments.
set -eu

usage() {
    cat <<'EOF'
Usage: toggle.sh [OPTION...] URL NAME AGENT_ID PROGRESS_ID enabled|disabled [SECONDS]

Registers a toggle with cekura-exporter, waits until its run is finished, and fails unless it
completed with mocks in the expected state.

  URL          the address of the exporter, for example http://cekura-exporter:10058
  NAME         the name of the toggle in metrics and alerts
  AGENT_ID     the id of the agent, a number
  PROGRESS_ID  the id in the answer to the request that started the toggle
  SECONDS      the longest time to wait; default 1800

Options:
  --api NAME          the API of the toggle, by its name in the exporter's configuration
  --label NAME=VALUE  a label on every series of the toggle; can be repeated
  --live              after that, wait until the API says that mocks are in the expected state, and
                      fail unless it does. The exporter must ask for the mock status of the agent:
                      it must be listed under `agents` or in a watch file, or be discovered
  --help              print this text

Environment variables:
  EXPORTER_USER           the user, if the exporter requires a login
  EXPORTER_PASSWORD_FILE  a file that contains the password
  EXPORTER_PASSWORD       the password; give this or the file
  EXPORTER_CA_FILE        root certificates (PEM) to verify the certificate of the exporter with

Exit codes: 0 completed in the expected state, 1 anything else, 2 bad usage.
Needs curl 7.54 or newer.
EOF
}

misused() {
    echo "toggle.sh: $1" >&2
    usage >&2
    exit 2
}

# Escapes text for a string in JSON or in a configuration of curl.
escaped() {
    printf %s "$1" | sed 's/[\\"]/\\&/g'
}

api='' labels='' live=no
while :; do
    case ${1:-} in
    --live=*) misused '--live takes no value' ;;
    --*=*)
        option=${1%%=*} value=${1#*=}
        shift
        set -- "$option" "$value" "$@"
        ;;
    --help | -h) usage && exit ;;
    --api)
        api=${2:-}
        [ -n "$api" ] || misused '--api needs a name'
        shift 2
        ;;
    --label)
        case ${2:-} in ?*=*) ;; *) misused '--label needs NAME=VALUE' ;; esac
        labels="${labels:+$labels, }\"$(escaped "${2%%=*}")\": \"$(escaped "${2#*=}")\""
        shift 2
        ;;
    --live) live=yes && shift ;;
    --) shift && break ;;
    -*) misused "there is no option '$1'" ;;
    *) break ;;
    esac
done

[ "$#" -eq 5 ] || [ "$#" -eq 6 ] || misused "5 or 6 arguments are needed, $# are given"
url=$(printf %s "$1" | sed 's:/*$::') name=$2 agent=$3 id=$4 expect=$5 seconds=${6-1800}
[ -n "$url" ] || misused 'URL is empty'
case $name in '' | *[!A-Za-z0-9._-]*) misused "NAME '$name' has other characters than letters, digits, '.', '_' and '-', or none" ;; esac
case $agent in '' | *[!0-9]*) misused "AGENT_ID '$agent' is not a number" ;; esac
[ -n "$id" ] || misused 'PROGRESS_ID is empty'
case $expect in enabled | disabled) ;; *) misused "'$expect' is neither enabled nor disabled" ;; esac
case $seconds in '' | *[!0-9]* | 0?*) misused "SECONDS '$seconds' is not a number of seconds" ;; esac
case ${EXPORTER_USER:+user},${EXPORTER_PASSWORD:+text}${EXPORTER_PASSWORD_FILE:+file} in
, | user,text | user,file) ;;
*) misused 'a login needs EXPORTER_USER and one of EXPORTER_PASSWORD_FILE and EXPORTER_PASSWORD' ;;
esac
for file in "${EXPORTER_PASSWORD_FILE:-}" "${EXPORTER_CA_FILE:-}"; do
    [ -z "$file" ] || [ -r "$file" ] || misused "the file '$file' cannot be read"
done
command -v curl >/dev/null || { echo 'toggle.sh: curl is missing from this image' >&2; exit 1; }

body="{\"agent_id\": $agent, \"progress_id\": \"$(escaped "$id")\", \"expect\": \"$expect\", \"labels\": {$labels}"
[ -z "$api" ] || body="$body, \"api\": \"$(escaped "$api")\""
body="$body}"
newline='
'
blank=$(printf '\r\n\r\n.') && blank=${blank%.}
begun=$(date +%s)
end=$((begun + seconds))

# Prints the part of curl's configuration that must appear neither in the process list nor in a trace.
access() (
    set +x
    [ -z "${EXPORTER_CA_FILE:-}" ] || printf 'cacert = "%s"\n' "$(escaped "$EXPORTER_CA_FILE")"
    [ -n "${EXPORTER_USER:-}" ] || exit 0
    password=${EXPORTER_PASSWORD:-}
    [ -z "${EXPORTER_PASSWORD_FILE:-}" ] || password=$(cat "$EXPORTER_PASSWORD_FILE")
    printf 'user = "%s"\n' "$(escaped "$EXPORTER_USER:$password")"
)

# Sends a request. Sets `failed` to curl's exit code, `code` to the HTTP status (000 without an answer),
# `answer` to what came, and `state` to the JSON in it. Usage: ask PATH SECONDS CURL_ARGUMENT...
ask() {
    path=$1 limit=$2 failed=0
    shift 2
    answer=$(access | curl -sS -i --suppress-connect-headers -m "$limit" -K - -w '\n%{http_code}' "$@" "$url/api/v1/$path" 2>&1) || failed=$?
    code=${answer##*"$newline"}
    [ "$failed" -eq 0 ] || code=000
    state=${answer#*"$blank"}
    # The labels, whose names users choose, come before the status and before what is live; everything that is
    # read comes after it.
    case $state in
    *'"status":"'*) state="{\"status\":\"${state#*'"status":"'}" ;;
    *'"mocks_live":'*) state="{\"mocks_live\":${state##*'"mocks_live":'}" ;;
    esac
}

# Prints a text field of the JSON in the answer, in one line.
field() {
    printf '%s\n' "$state" |
        sed -n 's/.*[{,]"'"$1"'":"\([^"\\]*\(\\.[^"\\]*\)*\)".*/\1/p' | sed 's/\\n/, /g; s/\\\(["\\/]\)/\1/g'
}

# Prints a text in parentheses, unless it is empty.
aside() {
    [ -z "$1" ] || printf ' (%s)' "$1"
}

# Prints a line of progress if it differs from the last one or half a minute has passed. The remedy is
# printed when the time is over. Usage: tell STATE REMEDY
told='' told_at=0 remedy=''
tell() {
    remedy=$2
    now=$(date +%s)
    if [ "$1" != "$told" ] || [ $((now - told_at)) -ge 30 ]; then
        told=$1 told_at=$now
        echo "toggle.sh: toggle $name: $1 ($((now - begun)) of $seconds s)" >&2
    fi
}

# Ends the job with one line that says what is wrong and what to do.
fail() {
    case $phase in
    live) echo "toggle.sh: toggle $name completed, but the API did not confirm that mocks are $expect: $1; $2." >&2 ;;
    *) echo "toggle.sh: toggle $name did not complete with mocks $expect: $1; $2." >&2 ;;
    esac
    exit 1
}

# Pauses before the next attempt: for the time in Retry-After, up to a minute, or longer each time.
pause=1
try_again() {
    tell "$1" 'check that the exporter runs and can be reached, then start the job again'
    left=$((end - $(date +%s)))
    [ "$left" -gt 0 ] || fail "$1, and $seconds s are over" "$remedy"
    after=$(printf '%s\n' "$answer" |
        sed -n '/^[[:space:]]*$/q; s/^[Rr][Ee][Tt][Rr][Yy]-[Aa][Ff][Tt][Ee][Rr]:[[:space:]]*\([0-9]\{1,9\}\)[[:space:]]*$/\1/p' | sed -n 1p)
    [ -n "$after" ] || after=$pause
    # Without leading zeros, which would make it octal.
    after=$(printf %s "$after" | sed 's/^0*\(.\)/\1/')
    pause=$((pause < 8 ? pause * 2 : 15))
    after=$((after > 60 ? 60 : after < 1 ? 1 : after))
    sleep "$((after < left ? after : left))"
}

# Ends the job because of a status that a retry would not change.
refused() {
    text=$(field error)
    what="the exporter refused the request with $code$(aside "$text")"
    case $phase,$code,$text in
    *,400,?*) fail "$what" 'correct the arguments' ;;
    *,401,*) fail "$what" 'check EXPORTER_USER and the password' ;;
    *,403,*) fail "$what" 'check that a proxy between this job and the exporter lets it through' ;;
    register,405,?*) fail "$what" 'enable registrations in the configuration of the exporter' ;;
    register,409,?*) fail "$what" 'choose another NAME, or remove the watch of that name from its source' ;;
    finish,404,?*) fail "the registration was removed while this job waited ($code)" 'start the toggle again, and find out who removed it' ;;
    finish,409,?*) fail "another run took its place while this job waited ($code)" 'give each job that runs at the same time a NAME of its own' ;;
    live,404,?* | live,409,?*)
        fail "the exporter does not ask for the mock status of agent $agent of the API ${api:-default} ($code)" \
            "list it under \`agents\` in the configuration of the exporter or in a watch file, or set discover_agents of that API"
        ;;
    *) fail "$url answered with $code$(aside "$text")" 'check that URL is the address of the exporter' ;;
    esac
}

# Handles a request that curl could not complete.
unanswered() {
    # Without durations, which differ each time.
    problem=$(printf '%s\n' "$answer" | sed -n 's/ after [0-9]* m[a-z]*//; s/^curl: ([0-9]*) //p' | sed -n 1p)
    case $failed in
    # A proxy or host name that cannot be resolved; connections that are refused, end early or take too long.
    5 | 6 | 7 | 16 | 18 | 28 | 35 | 52 | 55 | 56 | 92 | 95 | 96 | 97) try_again "the exporter did not answer$(aside "$problem")" ;;
    51 | 60) fail "the certificate of the exporter is not trusted$(aside "$problem")" 'set EXPORTER_CA_FILE to the certificate of its authority' ;;
    *) fail "curl failed with exit code $failed$(aside "$problem")" 'check URL and EXPORTER_CA_FILE' ;;
    esac
}

# Handles failing polls of the exporter. If the API refuses them, they have 20 s to recover, because it may
# not know a new id at once.
refused_since=''
polls_fail() {
    reason=$1
    polls="the exporter's polls fail with $reason$(aside "$(field poll_error_detail)")"
    case $reason in
    bad_request | not_found)
        case $phase in
        live) advice="check that this API has the mock status of agent $agent; if not, start the job without --live" ;;
        *) advice="check that AGENT_ID $agent and PROGRESS_ID $id are of one toggle in that API and that it was started lately, or this deployment cannot toggle any more" ;;
        esac
        ;;
    unauthorized | forbidden | credentials) advice="give the exporter a key of that API that may read agent $agent" ;;
    *)
        refused_since=''
        tell "$polls" 'check that the exporter reaches the API, and start the toggle again'
        return
        ;;
    esac
    now=$(date +%s)
    refused_since=${refused_since:-$now}
    [ $((now - refused_since)) -lt 20 ] || fail "$polls" "$advice"
    longest=10
    tell "$polls" "$advice"
}

# Ends the job well.
succeed() {
    case $phase in
    live) echo "toggle.sh: toggle $name completed with mocks $expect, and the API confirms it" >&2 ;;
    *) echo "toggle.sh: toggle $name completed with mocks $expect" >&2 ;;
    esac
    exit 0
}

# Checks the agent in the answer, and ends the job if mocks are as expected. An answer that came when the time
# to wait was over may be older than the toggle, and does not count. Usage: look_at_agent SECONDS_WAITED
look_at_agent() {
    longest=25
    case $state in
    '{"mocks_live":true,'*) is='on' ;;
    '{"mocks_live":false,'*) is='off' ;;
    '{"mocks_live":null,'*) is='unknown' ;;
    *) fail "$url did not answer as cekura-exporter does" 'check that URL is the address of the exporter' ;;
    esac
    case $expect,$is in
    enabled,on | disabled,off) [ "$1" -ge "$step" ] || succeed ;;
    esac
    reason=$(field poll_error)
    if [ -n "$reason" ]; then
        polls_fail "$reason"
    else
        refused_since=''
        tell "according to the API, mocks are $is" 'start the toggle again, or switch the mocks of the agent by hand'
    fi
}

# Checks the toggle in the answer, and ends the job if its run is finished and nothing else is to be waited for.
look() {
    longest=25
    case $expect,$state in
    enabled,*'"status":"completed",'*'"mock_enabled":true,'* | disabled,*'"status":"completed",'*'"mock_enabled":false,'*)
        [ "$live" = yes ] || succeed
        phase=live refused_since=''
        tell 'it completed, and the API is asked whether mocks are '"$expect" 'look at the agent on the page of the exporter'
        return
        ;;
    *,*'"status":"completed",'*) fail 'it completed in another state' 'start the toggle again before anything relies on it' ;;
    *,*'"status":"failed",'*) fail "it failed$(aside "$(field error)")" 'start the toggle again' ;;
    *,*'"status":"'*) ;;
    *) fail "$url did not answer as cekura-exporter does" 'check that URL is the address of the exporter' ;;
    esac
    reason=$(field poll_error)
    if [ -n "$reason" ]; then
        polls_fail "$reason"
    else
        refused_since=''
        case $state in
        *'"status":"unknown",'*'"up":null,'*) stands='registered, not polled yet' ;;
        *) stands="its status is $(field status)" ;;
        esac
        tell "$stands" 'look at it on the page of the exporter, and start it again if it hangs'
    fi
}

# What is waited for: that the toggle is registered, that its run is finished, that mocks are live.
phase=register longest=5
while :; do
    left=$((end - $(date +%s)))
    # Waits in steps, because proxies end requests that take a minute.
    step=$((left < longest ? left : longest))
    limit=$((left < step + 13 ? left + 2 : step + 15))
    asked=$(date +%s)
    if [ "$phase" = register ]; then
        ask "toggles/$name" $((left < 10 ? left + 10 : 20)) -X PUT -H content-type:application/json -H expect: -d "$body"
    elif [ "$left" -le 0 ]; then
        fail "$told, and $seconds s are over" "$remedy"
    elif [ "$phase" = finish ]; then
        # For this run only.
        ask "toggles/$name" "$limit" -G -d "wait=${step}s" --data-urlencode "progress_id=$id"
    else
        ask "agents/${api:-default}/$agent" "$limit" -G -d "wait=${step}s" -d "live=$expect"
    fi
    case $phase,$code in
    live,200)
        pause=1
        look_at_agent $(($(date +%s) - asked))
        ;;
    *,200 | *,201)
        pause=1
        look
        [ "$phase" != register ] || phase=finish longest=5
        ;;
    *,000) unanswered ;;
    *,429 | *,5??) try_again "the exporter or a proxy answered with $code$(aside "$(field error)")" ;;
    *) refused ;;
    esac
done
