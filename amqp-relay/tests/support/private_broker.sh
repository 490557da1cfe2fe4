# Keeps one RabbitMQ for a test: $1 is its folder, $2 the port of its name server, the rest its command.
# Orders come line by line, and each is answered by a line. When they end, however the test ended, nothing is left.
dir=$1 epmd_port=$2
shift 2
server=
epmd -port "$epmd_port" -address 127.0.0.1 >>"$dir/startup.log" 2>&1 </dev/null &
epmd=$!

end() {
    [ -z "$server" ] || { kill -s "$1" "$server"; wait "$server"; }
    server=
}

while read -r order; do
    case $order in
    start)
        "$@" >>"$dir/startup.log" 2>&1 </dev/null &
        server=$!
        ;;
    # A server that died by itself is gone, too.
    ask) kill -s 0 "$server" 2>/dev/null || server= ;;
    *) end "$order" ;;
    esac
    echo "${server:-none}"
done
end KILL
kill -s KILL "$epmd"
wait "$epmd"
rm -rf "$dir"
