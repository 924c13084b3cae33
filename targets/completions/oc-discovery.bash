# Made of the program's help: UPDATE_SNAPSHOTS=1 cargo test --test cli completions

# Offers what `compgen` makes of these arguments too.
_oc_discovery_offer() { mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen "$@" -- "$word"); }

_oc_discovery() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    local line=${COMP_WORDS[*]:1:COMP_CWORD - 1}
    COMPREPLY=()
    case $before in
        --config) _oc_discovery_offer -f; return ;;
        --data-dir) _oc_discovery_offer -d; return ;;
        --listen) return ;;
        --announce) return ;;
        --native) return ;;
        --psk) _oc_discovery_offer -f; return ;;
        --network) return ;;
        --grant) _oc_discovery_offer -f; return ;;
        --log) _oc_discovery_offer -W 'off error warn info debug trace'; return ;;
        --log-format) _oc_discovery_offer -W 'text json'; return ;;
        --lease) return ;;
        --beat-interval) return ;;
        --offload-interval) return ;;
        --refresh-interval) return ;;
        --gc-interval) return ;;
        --connect-interval) return ;;
        --dns) return ;;
        --dns-zone) return ;;
        --http) return ;;
        --http-token) _oc_discovery_offer -f; return ;;
        --dns-sd) return ;;
        --name) return ;;
        --tag) return ;;
        --service) return ;;
        --check) return ;;
        --check-interval) return ;;
        --from-dns-sd) return ;;
        --min-indexers) return ;;
        --format) _oc_discovery_offer -W 'text json openmetrics'; return ;;
        --state) _oc_discovery_offer -W 'alive left lost'; return ;;
        --role) _oc_discovery_offer -W 'native indexer node'; return ;;
        --key) _oc_discovery_offer -f; return ;;
        --until) return ;;
        --speed) return ;;
    esac
    case " $line " in
        " config check "*) _oc_discovery_offer -W '--role --help'; _oc_discovery_offer -f ;;
        " config show "*) _oc_discovery_offer -W '--data-dir --json --help' ;;
        " identity export "*) _oc_discovery_offer -W '--help'; _oc_discovery_offer -f ;;
        " identity import "*) _oc_discovery_offer -W '--help'; _oc_discovery_offer -f ;;
        " identity reset "*) _oc_discovery_offer -W '--help'; _oc_discovery_offer -d ;;
        " network new "*) _oc_discovery_offer -W '--help'; _oc_discovery_offer -d ;;
        " network grant "*) _oc_discovery_offer -W '--key --role --name --until --json --help' ;;
        " network show "*) _oc_discovery_offer -W '--json --help' ;;
        " network revoke "*) _oc_discovery_offer -W '--key --json --help' ;;
        " native "*) _oc_discovery_offer -W '--config --data-dir --listen --announce --announce-only --native --psk --network --grant --no-mdns --trust-lan --log --verbose --log-format --lease --beat-interval --offload-interval --refresh-interval --gc-interval --connect-interval --dns --dns-zone --http --http-token --dns-sd --help' ;;
        " indexer "*) _oc_discovery_offer -W '--config --data-dir --listen --announce --announce-only --native --psk --network --grant --no-mdns --trust-lan --log --verbose --log-format --lease --beat-interval --offload-interval --refresh-interval --gc-interval --connect-interval --dns --dns-zone --http --http-token --dns-sd --help' ;;
        " node "*) _oc_discovery_offer -W '--config --data-dir --listen --announce --announce-only --native --psk --network --grant --no-mdns --trust-lan --log --verbose --log-format --lease --beat-interval --offload-interval --refresh-interval --gc-interval --connect-interval --dns --dns-zone --http --http-token --dns-sd --name --tag --service --check --check-interval --allow-exec --from-dns-sd --min-indexers --help' ;;
        " status "*) _oc_discovery_offer -W '--data-dir --all --check --json --format --schema --help'; _oc_discovery_offer -d ;;
        " find "*) _oc_discovery_offer -W '--data-dir --json --addr --help' ;;
        " nodes "*) _oc_discovery_offer -W '--data-dir --json --service --tag --name --state --help'; _oc_discovery_offer -d ;;
        " watch "*) _oc_discovery_offer -W '--data-dir --json --service --tag --name --state --help'; _oc_discovery_offer -d ;;
        " indexers "*) _oc_discovery_offer -W '--data-dir --json --help'; _oc_discovery_offer -d ;;
        " drain "*) _oc_discovery_offer -W '--data-dir --undo --json --help'; _oc_discovery_offer -d ;;
        " revoke "*) _oc_discovery_offer -W '--data-dir --json --help'; _oc_discovery_offer -f ;;
        " config "*) _oc_discovery_offer -W 'check show --help' ;;
        " reload "*) _oc_discovery_offer -W '--data-dir --json --help'; _oc_discovery_offer -d ;;
        " id "*) _oc_discovery_offer -W '--data-dir --help'; _oc_discovery_offer -d ;;
        " identity "*) _oc_discovery_offer -W 'export import reset --help' ;;
        " network "*) _oc_discovery_offer -W 'new grant show revoke --help' ;;
        " doctor "*) _oc_discovery_offer -W '--data-dir --json --help'; _oc_discovery_offer -d ;;
        " support "*) _oc_discovery_offer -W '--data-dir --help'; _oc_discovery_offer -f ;;
        " capacity "*) _oc_discovery_offer -W '--json --help' ;;
        " demo "*) _oc_discovery_offer -W '--speed --help' ;;
        " version "*) _oc_discovery_offer -W '--help' ;;
        *) _oc_discovery_offer -W 'native indexer node status find nodes watch indexers drain revoke config reload id identity network doctor support capacity demo version --version --help' ;;
    esac
}
complete -o filenames -F _oc_discovery oc-discovery
