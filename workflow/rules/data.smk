rule data:
    output:
        "results/{benchmark}/data/{dataset}/about.json",
        "results/{benchmark}/data/{dataset}/train.safetensors",
        "results/{benchmark}/data/{dataset}/test.safetensors",
    log:
        "results/{benchmark}/logs/data/{dataset}.log",
    params:
        spec=jobs.data_spec,
    shell:
        "iadd data {jobs.path:q} --dataset {wildcards.dataset:q} > {log:q} 2>&1"
