#!/bin/sh
# Starts three workers and a leader, and checks what it prints: sh examples/hello/run.sh
# PYTHON says which interpreter, CLUSTER_STORE which store; in a compose file each of these lines is a service.
set -eu
python=${PYTHON:-python}
folder=$(mktemp -d)
workers=
finish() {
    kill $workers 2>/dev/null || true
    wait
    rm -rf "$folder"
}
trap finish EXIT

export CLUSTER_STORE="${CLUSTER_STORE:-sqlite:///$folder/hello.db}"
for number in 1 2 3; do
    $python -m cluster worker --name "worker-$number" --slots 1 --no-heal --import examples.hello.ops &
    workers="$workers $!"
done

said=$($python -m examples.hello.leader)
echo "$said"
test "$said" = "hello world"
