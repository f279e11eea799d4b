rule data:
    output:
        "results/{benchmark}/data/{dataset}/about.json",
        "results/{benchmark}/data/{dataset}/train.safetensors",
        "results/{benchmark}/data/{dataset}/test.safetensors",
    log:
        "results/{benchmark}/logs/data/{dataset}.log",
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
