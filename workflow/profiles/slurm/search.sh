#!/bin/sh
# One search over all nodes of its job: export IADD_SEARCH_LAUNCH=workflow/profiles/slurm/search.sh
# Ray is started on every node, the search runs on the first, and `ray stop` ends every Ray of yours
# on these nodes afterwards: give the job whole nodes.
# Tried on one machine with stand-ins for Slurm (tests/test_search.py), not yet on several nodes.
set -e
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address="$head:$((20000 + SLURM_JOB_ID % 10000))"
# Nobody but us may join: of itself, Ray asks for a token on the first node and sends none from others.
RAY_AUTH_TOKEN=$(ray get-auth-token --generate)
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token
# Ray would count a node's cores, not the job's; RAY_ADDRESS is how `iadd search` joins.
exec srun ray symmetric-run --address "$address" --min-nodes "$SLURM_NNODES" \
    --num-cpus "$SLURM_CPUS_ON_NODE" --disable-usage-stats \
    -- env RAY_ADDRESS="$address" "$@"
