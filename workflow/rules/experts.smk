rule experts:
    input:
        jobs.about,
        ancient(jobs.train),
    output:
        "<root>/experts/{folder}/shard{shard}.safetensors",
    log:
        "<root>/logs/experts/{folder}/shard{shard}.log",
    # What others wait for comes first.
    priority: 1
    group:
        asks.expert_group
    resources:
        config=jobs.path,
        mem_mb=asks.memory,
        runtime=asks.minutes,
        slots=asks.slots("experts"),
    params:
        device=asks.device("experts"),
        dataset=jobs.dataset,
        recipe=jobs.recipe,
        spec=jobs.experts_spec,
    shell:
        "iadd experts {resources.config:q} --dataset {params.dataset:q} --recipe {params.recipe:q}"
        " --shard {wildcards.shard} {params.device} > {log:q} 2>&1"
