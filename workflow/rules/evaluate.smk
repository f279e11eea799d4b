rule evaluate:
    input:
        jobs.about,
        ancient(jobs.train),
        # The only rule that reads the test images.
        ancient(jobs.test),
        jobs.teachers,
        "results/{benchmark}/distilled/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.safetensors",
    output:
        "results/{benchmark}/evaluations/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.parquet",
    log:
        "results/{benchmark}/logs/evaluate/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.log",
    group:
        asks.run_group
    resources:
        config=jobs.path,
        mem_mb=asks.memory,
        runtime=asks.minutes,
        slots=asks.slots,
    params:
        device=asks.device,
        tuned=jobs.tuned,
        spec=jobs.evaluation_spec,
    shell:
        "iadd evaluate {resources.config:q} --dataset {wildcards.dataset:q} --method {wildcards.method:q}"
        " --ipc {wildcards.ipc} --seed {wildcards.seed} {params.tuned} {params.device} > {log:q} 2>&1"
