#!/bin/sh
# One search over all nodes of its job: search.sh NODES CORES command...
# Ray is started on every node, the search runs on the first, and `ray stop` ends every Ray of yours
# on these nodes afterwards: give the job whole nodes.
set -e
nodes=$1 cores=$2
shift 2
# The executor hands on the job's number and none of SLURM's other variables.
list=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *NodeList=//p')
head=$(scontrol show hostnames "$list" | head -n 1)
address="$head:$((20000 + SLURM_JOB_ID % 10000))"
# Nobody but us may join: of itself, Ray asks for a token on the first node and sends none from others.
RAY_AUTH_TOKEN=$(ray get-auth-token --generate)
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token
# Ray would count a node's cores, not the job's; RAY_ADDRESS is how `iadd search` joins.
# It stays in the step that srun starts: the job's warm server is outside of it.
exec srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --cpus-per-task="$cores" \
    ray symmetric-run --address "$address" --min-nodes "$nodes" \
    --num-cpus "$cores" --disable-usage-stats \
    -- env --unset=IADD_WARM RAY_ADDRESS="$address" "$@"
