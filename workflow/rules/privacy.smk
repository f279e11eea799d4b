rule yardstick:
    input:
        jobs.about,
        ancient(jobs.train),
    output:
        "<root>/privacy/{dataset}/ipc{ipc}.safetensors",
    log:
        "<root>/logs/privacy/{dataset}/ipc{ipc}.log",
    group:
        asks.yardstick_group
    resources:
        config=jobs.path,
        mem_mb=asks.memory,
        runtime=asks.minutes,
        slots=asks.slots("yardstick"),
    params:
        device=asks.device("yardstick"),
        spec=jobs.yardstick_spec,
    shell:
        "iadd privacy {resources.config:q} --dataset {wildcards.dataset:q}"
        " --ipc {wildcards.ipc} {params.device} > {log:q} 2>&1"


rule privacy:
    input:
        jobs.about,
        ancient(jobs.train),
        jobs.yardstick,
        "<root>/distilled/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.safetensors",
    output:
        "<root>/privacy/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.parquet",
        "<root>/privacy/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.png",
    log:
        "<root>/logs/privacy/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.log",
    group:
        asks.run_group
    resources:
        config=jobs.path,
        mem_mb=asks.memory,
        runtime=asks.minutes,
        slots=asks.slots("privacy"),
    params:
        device=asks.device("privacy"),
        tuned=jobs.tuned,
        spec=jobs.privacy_spec,
    shell:
        "iadd privacy {resources.config:q} --dataset {wildcards.dataset:q} --method {wildcards.method:q}"
        " --ipc {wildcards.ipc} --seed {wildcards.seed} {params.tuned} {params.device} > {log:q} 2>&1"
