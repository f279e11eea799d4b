rule data:
    output:
        "<root>/data/{dataset}/about.json",
        "<root>/data/{dataset}/train.safetensors",
        "<root>/data/{dataset}/test.safetensors",
    log:
        "<root>/logs/data/{dataset}.log",
    resources:
        config=jobs.path,
        mem_mb=asks.memory,
        runtime=asks.minutes,
        gpu=None,
        gres=None,
    params:
        spec=jobs.data_spec,
    shell:
        "iadd data {resources.config:q} --dataset {wildcards.dataset:q} > {log:q} 2>&1"
