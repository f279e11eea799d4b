rule experts:
    input:
        jobs.about,
        ancient(jobs.train),
    output:
        "results/{benchmark}/experts/{folder}/shard{shard}.safetensors",
    log:
        "results/{benchmark}/logs/experts/{folder}/shard{shard}.log",
    params:
        dataset=jobs.dataset,
        recipe=jobs.recipe,
        spec=jobs.experts_spec,
    shell:
        "iadd experts {jobs.path:q} --dataset {params.dataset:q} --recipe {params.recipe:q}"
        " --shard {wildcards.shard} > {log:q} 2>&1"
