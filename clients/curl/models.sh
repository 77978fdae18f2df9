#!/usr/bin/env bash
# The seven operations of hosted models with curl and nothing else:
#   clients/curl/models.sh URL MODEL_ID FILE [API_KEY]
# Prints the answer of each. Exit code 0: all done; 22: the node refused one (its answer is printed); 2: wrong usage.
set -euo pipefail

if [[ $# -lt 3 ]]; then
    echo "usage: models.sh URL MODEL_ID FILE [API_KEY]" >&2
    exit 2
fi
url="${1%/}" model_id="$2" file="$3" api_key="${4:-${GRID_API_KEY:-}}"

# the key goes by a file descriptor, so that the list of processes does not show it
curl_node() { # method path [options of curl]
    local method="$1" path="$2"
    shift 2
    if [[ -n "$api_key" ]]; then
        curl --silent --show-error --fail-with-body --max-time 600 --request "$method" \
            --header @<(printf 'Authorization: Bearer %s\n' "$api_key") "$@" "$url$path"
    else
        curl --silent --show-error --fail-with-body --max-time 600 --request "$method" "$@" "$url$path"
    fi
}

# JSON text of a string; for names without control characters
quoted() {
    local text="${1//\\/\\\\}"
    printf '"%s"' "${text//\"/\\\"}"
}

# every byte but the unreserved ones, as %XX
percent() {
    local LC_ALL=C text="$1" index
    for ((index = 0; index < ${#text}; index++)); do
        case "${text:index:1}" in
        [A-Za-z0-9._~-]) printf '%s' "${text:index:1}" ;;
        *) printf '%%%02X' "'${text:index:1}" ;;
        esac
    done | sed 's/%FFFFFFFFFFFFFF/%/g'
}

id_json="$(quoted "$model_id")"
id_path="$(percent "$model_id")"

echo "--- serve: a form with the bytes as a file; very large files go to /uploads by tus instead"
curl_node POST /serve_model --form-string "model_id=$model_id" --form-string allow_download=True \
    --form "model=@$file;type=application/octet-stream"

echo "--- list"
curl_node GET /models

echo "--- is a copy allowed?"
curl_node GET "/is_model_copy_allowed/$id_path"

echo "--- get: the bytes as they are, then as text in JSON"
fetched="$(mktemp)"
trap 'rm -f "$fetched"' EXIT
curl_node GET "/models/$id_path/content" --continue-at - --output "$fetched"
cmp "$file" "$fetched" && echo "the same bytes"
if [[ "$(wc -c <"$file")" -le 1048576 ]]; then
    curl_node GET "/get_model/$id_path?encoding=base64"
fi

echo "--- datasets: register one, then its tags and a search"
curl_node POST /register_dataset --data "{\"dataset_id\": $id_json, \"tags\": [\"curl\", \"example\"]}"
curl_node GET /dataset-tags
curl_node POST /search --data "{\"query\": [\"curl\", \"example\"]}"

echo "--- an encrypted model: where its shares are"
curl_node POST /serve_model --header "Content-Type: application/json" --data "{\"model_id\": $(quoted "$model_id encrypted"), \"mpc\": true,
    \"shares\": [{\"worker\": \"alice\", \"address\": \"http://alice.example\"},
               {\"worker\": \"bob\", \"address\": \"http://bob.example\"}]}"
curl_node POST /search-encrypted-models --data "{\"model_id\": $(quoted "$model_id encrypted")}"
