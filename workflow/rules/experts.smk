rule experts:
    input:
        jobs.about,
        ancient(jobs.train),
    output:
        "results/{benchmark}/experts/{folder}/shard{shard}.safetensors",
    log:
        "results/{benchmark}/logs/experts/{folder}/shard{shard}.log",
    resources:
        config=jobs.path,
    params:
        dataset=jobs.dataset,
        recipe=jobs.recipe,
        spec=jobs.experts_spec,
    shell:
        "iadd experts {resources.config:q} --dataset {params.dataset:q} --recipe {params.recipe:q}"
        " --shard {wildcards.shard} > {log:q} 2>&1"
