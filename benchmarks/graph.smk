# What Snakemake itself takes for a graph of the benchmark's shape: the same files, no functions.
#
#     snakemake -n -s benchmarks/graph.smk --config runs=20000 [--quiet]
RUNS = [f"m{k // 80 % 25}/d{k % 8}/ipc{k // 8 % 10}/seed{k // 2000}" for k in range(config["runs"])]
WHERE = "{method}/d{dataset}/ipc{ipc}/seed{seed}"


wildcard_constraints:
    method=r"[^/]+",
    dataset=r"\d+",
    ipc=r"\d+",
    seed=r"\d+",


rule collect:
    input:
        expand("graph/evaluations/{run}.parquet", run=RUNS),
    output:
        "graph/leaderboard.parquet",
    shell:
        "iadd collect c.yaml > {output}"


rule distill:
    input:
        "graph/data/d{dataset}/about.json",
        ancient("graph/data/d{dataset}/train.safetensors"),
        "graph/experts/d{dataset}/shard0.safetensors",
    output:
        f"graph/distilled/{WHERE}.safetensors",
        f"graph/distilled/{WHERE}.trace.parquet",
        f"graph/distilled/{WHERE}.png",
    log:
        f"graph/logs/distill/{WHERE}.log",
    shell:
        "iadd distill c.yaml --dataset {wildcards.dataset} --method {wildcards.method}"
        " --ipc {wildcards.ipc} --seed {wildcards.seed} > {log} 2>&1"


rule evaluate:
    input:
        "graph/data/d{dataset}/about.json",
        ancient("graph/data/d{dataset}/train.safetensors"),
        ancient("graph/data/d{dataset}/test.safetensors"),
        f"graph/distilled/{WHERE}.safetensors",
    output:
        f"graph/evaluations/{WHERE}.parquet",
    log:
        f"graph/logs/evaluate/{WHERE}.log",
    shell:
        "iadd evaluate c.yaml --dataset {wildcards.dataset} --method {wildcards.method}"
        " --ipc {wildcards.ipc} --seed {wildcards.seed} > {log} 2>&1"


rule experts:
    input:
        "graph/data/d{dataset}/about.json",
    output:
        "graph/experts/d{dataset}/shard0.safetensors",
    shell:
        "iadd experts c.yaml > {output}"


rule data:
    output:
        "graph/data/d{dataset}/about.json",
        "graph/data/d{dataset}/train.safetensors",
        "graph/data/d{dataset}/test.safetensors",
    shell:
        "iadd data c.yaml > {output}"
